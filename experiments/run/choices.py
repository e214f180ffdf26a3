"""From settings to the model and the options that they choose."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from experiments.run.settings import Settings

if TYPE_CHECKING:  # Importing TensorFlow takes seconds; errors in flags come before it.
    from fedrecon.data.ratings import Ratings
    from fedrecon.models.split_model import ModelFn
    from fedrecon.options import (
        CentralizedOptions,
        FedAvgOptions,
        FedIalsOptions,
        FedReconOptions,
        OptimizerOptions,
    )


def model_fn(settings: Settings, ratings: Ratings, *, for_reconstruction: bool = False) -> ModelFn:
    """Returns the function that builds the chosen model for the items of a data set.

    Args:
      settings: The settings of the run.
      ratings: The data set.
      for_reconstruction: Whether the model reconstructs unseen users instead of training.
    """
    from fedrecon.models import matrix_factorization, neural_cf
    from fedrecon.models.model_fn import model_fn

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
    user_l2 = 0.0 if is_solved else None
    if settings.model == "matrix_factorization":
        return model_fn(
            matrix_factorization.matrix_factorization,
            num_items,
            settings.dim,
            user_bias=settings.user_bias,
            item_bias=settings.item_bias,
            global_bias=settings.global_bias,
            initial_rating=settings.initial_rating,
            spread_out=settings.spread_out,
            user_l2=user_l2,
            **common,
        )
    if settings.model == "gmf":
        return model_fn(neural_cf.gmf, num_items, settings.dim, **common)
    hidden_units = settings.hidden_unit_counts()
    if settings.model == "mlp":
        return model_fn(neural_cf.mlp, num_items, hidden_units, **common)
    return model_fn(
        neural_cf.neumf, num_items, gmf_dim=settings.dim, hidden_units=hidden_units, **common
    )


@functools.lru_cache(maxsize=2)
def _own_model_fn(name: str, ratings: Ratings, **chosen: Any) -> ModelFn:
    """Finds and checks a user's model once for training and reconstruction."""
    from fedrecon.models.by_name import model_from_name

    return model_from_name(name, ratings, **chosen)


def reconstruction_optimizer(settings: Settings) -> OptimizerOptions:
    from fedrecon.options import OptimizerOptions

    return OptimizerOptions(
        settings.reconstruction_optimizer, settings.reconstruction_learning_rate
    )


def client_optimizer(settings: Settings) -> OptimizerOptions:
    from fedrecon.options import OptimizerOptions

    return OptimizerOptions(settings.client_optimizer, settings.client_learning_rate)


def server_optimizer(settings: Settings) -> OptimizerOptions:
    from fedrecon.options import OptimizerOptions

    return OptimizerOptions(settings.server_optimizer, settings.server_learning_rate)


def _of_clients(settings: Settings) -> dict[str, Any]:
    """Returns what FedRecon and FedAvg both let their clients do, and the server after them."""
    return {
        "client_optimizer": client_optimizer(settings),
        "server_optimizer": server_optimizer(settings),
        "batch_size": settings.batch_size,
        "client_epochs": settings.client_epochs,
        "client_steps_max": settings.client_steps_max,
        "client_weighting": settings.client_weighting,
    }


def fed_recon_options(settings: Settings) -> FedReconOptions:
    """Returns the options of FedRecon, by which others reconstruct unseen users, too."""
    from fedrecon.options import FedReconOptions, LeastSquaresOptions, OptimizerOptions

    options = FedReconOptions(
        **_of_clients(settings),
        reconstruction=settings.reconstruction,
        reconstruction_optimizer=reconstruction_optimizer(settings),
        least_squares=LeastSquaresOptions(
            **_given(regularization=settings.ridge, exponent=settings.ridge_exponent),
            bias_regularization=settings.bias_ridge,
        ),
        support_query_split=settings.support_query_split,
        reconstruction_epochs=settings.reconstruction_epochs,
        reconstruction_steps_max=settings.reconstruction_steps_max,
    )
    if settings.algorithm != "fed_recon_ls":
        return options
    # With rate 1 the server gets the gradient.
    return dataclasses.replace(
        options,
        reconstruction="least_squares",
        client_optimizer=OptimizerOptions("sgd", 1.0),
        client_takes_one_step=True,
    )


def fed_ials_options(settings: Settings) -> FedIalsOptions:
    """Returns the options of federated iALS."""
    from fedrecon.options import FedIalsOptions

    return FedIalsOptions(
        **_given(
            regularization=settings.ridge,
            exponent=settings.ridge_exponent,
            unobserved_weight=settings.unobserved_weight,
        ),
        server_optimizer=server_optimizer(settings),
    )


def _given(**values: Any) -> dict[str, Any]:
    """Returns the values that are not None; the others are left to defaults."""
    return {name: value for name, value in values.items() if value is not None}


def fed_avg_options(settings: Settings) -> FedAvgOptions:
    """Returns the options of FedAvg in all its forms, FedNCF among them."""
    from fedrecon.options import FedAvgOptions

    return FedAvgOptions(
        **_of_clients(settings),
        gradient_clip_norm=settings.gradient_clip_norm,
        averaging=settings.averaging,
    )


def centralized_options(settings: Settings) -> CentralizedOptions:
    """Returns the options of centralized training."""
    from fedrecon.options import CentralizedOptions

    return CentralizedOptions(client_optimizer(settings), settings.minibatch_size)
