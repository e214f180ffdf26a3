"""From settings to the model and the algorithm of a run.

This module imports TensorFlow, which takes seconds. The binaries import it once flags and data are
known to be right.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from experiments.run.options import (
    centralized_options,
    fed_avg_options,
    fed_ials_options,
    fed_recon_options,
)
from experiments.run.settings import Settings
from fedrecon.algorithms import (
    centralized,
    fed_avg,
    fed_ials,
    fed_ncf,
    fed_recon,
    stock_fed_recon,
)
from fedrecon.algorithms.algorithm import Algorithm
from fedrecon.data.features import genre_features
from fedrecon.data.population import Population, label_scale
from fedrecon.data.ratings import Ratings
from fedrecon.defaults import arguments_of_scale
from fedrecon.ials_units import PairCounts
from fedrecon.models import matrix_factorization, neural_cf
from fedrecon.models.by_name import model_from_name
from fedrecon.models.model_fn import model_fn as bind
from fedrecon.models.split_model import ModelFn
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.run_directory import NUM_CHECKPOINTS_KEPT
from fedrecon.serving.files import load_run
from fedrecon.serving.warm_start import warm_started


def model_fn(settings: Settings, ratings: Ratings, *, for_reconstruction: bool = False) -> ModelFn:
    """Returns the function that builds the chosen model for the items of a data set.

    Args:
      settings: The settings of the run.
      ratings: The data set.
      for_reconstruction: Whether the model reconstructs unseen users instead of training.
    """
    if ":" in settings.model:
        return _own_model_fn(
            settings.model,
            ratings,
            is_explicit=settings.is_explicit and settings.label_threshold is None,
            is_vectorized=settings.engine != "stock",
            dim=settings.dim,
            l2=settings.l2,
            seed=settings.seed,
        )
    num_items = ratings.num_items
    common = {"l2": settings.l2, "seed": settings.seed}
    is_solved = settings.is_solved if for_reconstruction else settings.trains_by_solving
    # A local part that is solved for has its regularization (--ridge) in the system of equations.
    user_l2 = 0.0 if is_solved else settings.user_l2
    if settings.model == "matrix_factorization":
        return bind(
            matrix_factorization.matrix_factorization,
            num_items,
            settings.dim,
            user_bias=settings.user_bias,
            item_bias=settings.item_bias,
            global_bias=settings.global_bias,
            mean_user=settings.mean_user,
            user_initializer="zeros" if settings.shares_user_row else None,
            item_features=_item_features(settings, ratings),
            **_of_scale(settings, ratings),
            spread_out=settings.spread_out,
            user_l2=user_l2,
            **common,
        )
    if settings.model == "gmf":
        return bind(neural_cf.gmf, num_items, settings.dim, **common)
    hidden_units = settings.hidden_unit_counts()
    if settings.model == "mlp":
        return bind(neural_cf.mlp, num_items, hidden_units, **common)
    return bind(
        neural_cf.neumf, num_items, gmf_dim=settings.dim, hidden_units=hidden_units, **common
    )


def _of_scale(settings: Settings, ratings: Ratings) -> dict[str, Any]:
    """Returns the arguments of matrix factorization that follow from the scale of the labels."""
    scale = label_scale(ratings, settings.feedback, settings.label_threshold)
    of_scale = arguments_of_scale(scale, settings.feedback, global_bias=settings.global_bias)
    if settings.global_bias and settings.initial_rating is not None:
        of_scale["initial_rating"] = settings.initial_rating
    return of_scale


def _item_features(settings: Settings, ratings: Ratings) -> np.ndarray | None:
    if settings.item_features is None:
        return None
    return genre_features(ratings, norm=settings.item_features_norm)[0]


@functools.lru_cache(maxsize=2)
def _own_model_fn(name: str, ratings: Ratings, **chosen: Any) -> ModelFn:
    """Finds and checks a user's model once for training and reconstruction."""
    return model_from_name(name, ratings, **chosen)


def build_algorithm(
    settings: Settings,
    population: Population,
    *,
    store_dir: os.PathLike | None = None,
    store_round: int | None = None,
) -> Algorithm:
    """Builds what trains.

    Args:
      settings: The settings of the run.
      population: Its users.
      store_dir: Where the rows of stateful clients are kept; None keeps them in memory.
      store_round: Reads the rows as of this round's checkpoint, and changes nothing.
    """
    build_model = model_fn(settings, population.ratings)
    if settings.warm_start is not None:
        build_model = warm_started(build_model, load_run(settings.warm_start), population.ratings)
    common: dict[str, Any] = {"clients_per_round": settings.clients_per_round}
    if settings.algorithm == "centralized":
        common.update(_reconstruction(settings, population))
        options = centralized_options(settings)
        return centralized.prepare_centralized(build_model, options, population, **common)
    common["sampler"] = settings.client_sampler
    if settings.engine == "stock":
        options = fed_recon_options(settings)
        return stock_fed_recon.prepare_stock_fed_recon(build_model, options, population, **common)
    common["clients_per_shard"] = settings.clients_per_shard
    if settings.algorithm == "fed_ials":
        options = fed_ials_options(settings, PairCounts.of_training(population))
        return fed_ials.prepare_fed_ials(build_model, options, population, **common)
    common["debug"] = settings.engine == "debug"
    if settings.algorithm in ("fed_recon", "fed_recon_ls"):
        options = fed_recon_options(settings)
        return fed_recon.prepare_fed_recon(build_model, options, population, **common)
    common.update(_reconstruction(settings, population))
    options = fed_avg_options(settings)
    if settings.algorithm == "fed_avg":
        return fed_avg.prepare_fed_avg(build_model, options, population, **common)
    if settings.algorithm == "fed_ncf":
        return fed_ncf.prepare_fed_ncf(build_model, options, population, **common)
    return fed_avg.prepare_stateful_fed_avg(
        build_model,
        options,
        population,
        open_store=functools.partial(_open_store, store_dir, store_round),
        **common,
    )


def _reconstruction(settings: Settings, population: Population) -> dict[str, Any]:
    """Returns how the users are served whose local part an algorithm does not keep."""
    return {
        "reconstruction": fed_recon_options(settings),
        "reconstruction_model_fn": model_fn(settings, population.ratings, for_reconstruction=True),
    }


def _open_store(path, read_round, num_users: int, width: int):
    return ClientStore(
        num_users, width, path=path, keep=NUM_CHECKPOINTS_KEPT, read_round=read_round
    )
