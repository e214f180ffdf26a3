"""From settings to the options of the library."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.run.settings import Settings
from fedrecon.ials_units import PairCounts
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
    LeastSquaresOptions,
    OptimizerOptions,
)


def reconstruction_optimizer(settings: Settings) -> OptimizerOptions:
    return OptimizerOptions(
        settings.reconstruction_optimizer, settings.reconstruction_learning_rate
    )


def client_optimizer(settings: Settings) -> OptimizerOptions:
    return OptimizerOptions(settings.client_optimizer, settings.client_learning_rate)


def server_optimizer(settings: Settings) -> OptimizerOptions:
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


def fed_ials_options(settings: Settings, counts: PairCounts) -> FedIalsOptions:
    """Returns the options of federated iALS for training data of these counts."""
    return FedIalsOptions.of_data(
        counts,
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
    return FedAvgOptions(
        **_of_clients(settings),
        gradient_clip_norm=settings.gradient_clip_norm,
        averaging=settings.averaging,
        trains_local=not settings.shares_user_row,
    )


def centralized_options(settings: Settings) -> CentralizedOptions:
    """Returns the options of centralized training."""
    return CentralizedOptions(client_optimizer(settings), settings.minibatch_size)
