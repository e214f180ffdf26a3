"""From settings to the objects of a run. The binaries share it, so that all see the same run."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any

from experiments.run.choices import (
    centralized_options,
    fed_avg_options,
    fed_ials_options,
    fed_recon_options,
    model_fn,
)
from experiments.run.settings import Settings, of_data
from fedrecon.errors import InputError

if TYPE_CHECKING:  # Importing TensorFlow takes seconds; errors in flags and data come before it.
    from fedrecon.algorithms.algorithm import Algorithm
    from fedrecon.data.population import Population


def load_population(settings: Settings) -> Population:
    """Loads the data and divides the users.

    Raises:
      InputError: If a cohort would be larger than the number of training users.
      DataError: If the data cannot be read or divided.
    """
    population = _load(of_data(settings))
    if settings.is_explicit:
        population = dataclasses.replace(
            population,
            support_batch_size=settings.batch_size,
            support_query_split=settings.support_query_split,
        )
    if settings.is_trained and settings.clients_per_round > len(population.train):
        raise InputError(
            f"--clients_per_round={settings.clients_per_round} is more than the "
            f"{len(population.train)} training users of {settings.dataset}."
        )
    return population


@functools.lru_cache(maxsize=2)
def _load(settings: Settings) -> Population:
    """Loads the data that the many runs of a comparison share once."""
    from fedrecon.data import datasets
    from fedrecon.data.population import divide_by_user, divide_for_ranking

    if settings.is_explicit:
        return divide_by_user(
            _load_ratings(settings),
            seed=settings.seed,
            max_ratings_per_user=settings.max_ratings_per_user,
            order=settings.example_order,
            label_threshold=settings.label_threshold,
            held_out_fraction=settings.held_out_fraction,
        )
    if settings.dataset in datasets.LEAVE_ONE_OUT_NAMES:
        data = datasets.load_leave_one_out(settings.dataset, data_dir=settings.data_dir)
    else:
        data = _load_ratings(settings)
    return divide_for_ranking(
        data,
        seed=settings.seed,
        max_ratings_per_user=settings.max_ratings_per_user,
        negatives_per_positive=settings.negatives_per_positive,
        unseen_fraction=settings.unseen_fraction,
        holds_out_validation=settings.evaluate_on == "validation",
    )


def _load_ratings(settings: Settings):
    from fedrecon.data.datasets import load_dataset

    synthetic = {}
    if settings.dataset == "synthetic":
        synthetic = {
            "num_users": settings.synthetic_num_users,
            "num_items": settings.synthetic_num_items,
            "mean_ratings_per_user": settings.synthetic_mean_ratings_per_user,
            "seed": settings.seed,
        }
    return load_dataset(settings.dataset, data_dir=settings.data_dir, **synthetic)


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
    from fedrecon.algorithms import (
        centralized,
        fed_avg,
        fed_ials,
        fed_ncf,
        fed_recon,
        stock_fed_recon,
    )

    build_model = model_fn(settings, population.ratings)
    common: dict[str, Any] = {"clients_per_round": settings.clients_per_round}
    if settings.algorithm == "centralized":
        common.update(_reconstruction(settings, population))
        options = centralized_options(settings)
        return centralized.prepare_centralized(build_model, options, population, **common)
    common["sampler"] = settings.client_sampler
    if settings.algorithm == "fed_ials":
        options = fed_ials_options(settings)
        return fed_ials.prepare_fed_ials(build_model, options, population, **common)
    if settings.engine == "stock":
        options = fed_recon_options(settings)
        return stock_fed_recon.prepare_stock_fed_recon(build_model, options, population, **common)
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
    from fedrecon.runs.client_store import ClientStore
    from fedrecon.runs.run_directory import NUM_CHECKPOINTS_KEPT

    return ClientStore(
        num_users, width, path=path, keep=NUM_CHECKPOINTS_KEPT, read_round=read_round
    )


def watched_group(settings: Settings) -> str:
    """Returns the group of users that is evaluated while training."""
    return "unseen_validation" if settings.is_explicit else f"seen_{settings.evaluate_on}"
