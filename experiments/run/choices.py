"""From settings to the model and the options that they choose."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.run.settings import Settings

if TYPE_CHECKING:  # Importing TensorFlow takes seconds; errors in flags come before it.
    from fedrecon.models.split_model import SplitModel
    from fedrecon.options import FedAvgOptions, FedIalsOptions, FedReconOptions, OptimizerOptions


def model_fn(settings: Settings, num_items: int) -> Callable[[], SplitModel]:
    """Returns what builds the chosen model, for so many items."""
    from fedrecon.models import matrix_factorization, neural_cf

    common = {"l2": settings.l2, "seed": settings.seed}
    # What is solved for has its regularization in the system.
    user_l2 = 0.0 if settings.trains_by_solving else None
    if settings.model == "matrix_factorization":
        return functools.partial(
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
        return functools.partial(neural_cf.gmf, num_items, settings.dim, **common)
    hidden_units = settings.hidden_unit_counts()
    if settings.model == "mlp":
        return functools.partial(neural_cf.mlp, num_items, hidden_units, **common)
    return functools.partial(
        neural_cf.neumf, num_items, gmf_dim=settings.dim, hidden_units=hidden_units, **common
    )


def optimizer_options(settings: Settings, role: str) -> OptimizerOptions:
    """Returns the optimiser of a role: reconstruction, client or server."""
    from fedrecon.options import OptimizerOptions

    return OptimizerOptions(
        getattr(settings, f"{role}_optimizer"), getattr(settings, f"{role}_learning_rate")
    )


def _of_clients(settings: Settings) -> dict[str, Any]:
    """Returns what FedRecon and FedAvg both let their clients do, and the server after them."""
    return {
        "client_optimizer": optimizer_options(settings, "client"),
        "server_optimizer": optimizer_options(settings, "server"),
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
        reconstruction_optimizer=optimizer_options(settings, "reconstruction"),
        least_squares=LeastSquaresOptions(
            **_given(regularization=settings.ridge, exponent=settings.ridge_exponent),
            bias_regularization=settings.bias_ridge,
        ),
        support_query_split=settings.support_query_split,
        reconstruction_epochs=settings.reconstruction_epochs,
        reconstruction_steps_max=settings.reconstruction_steps_max,
    )
    if settings.algorithm != "fedrecon_ls":
        return options
    # With rate 1 the server gets the gradient.
    return dataclasses.replace(
        options,
        reconstruction="least_squares",
        client_optimizer=OptimizerOptions("sgd", 1.0),
        client_takes_one_step=True,
    )


def fed_ials_options(settings: Settings) -> FedIalsOptions:
    """Returns the options of federated iALS, which is `fedrecon_ls` on implicit feedback."""
    from fedrecon.options import FedIalsOptions

    return FedIalsOptions(
        **_given(
            regularization=settings.ridge,
            exponent=settings.ridge_exponent,
            unobserved_weight=settings.unobserved_weight,
        ),
        server_optimizer=optimizer_options(settings, "server"),
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
