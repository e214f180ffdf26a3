"""The settings that each algorithm has where nobody gives any: options by algorithm and feedback.

Those for explicit feedback were chosen by the RMSE of unseen validation users of movielens-100k and
movielens-1m, seed 0, after 500 rounds, for `default_model`. With implicit feedback the rate of
`fed_recon` was searched on ncf-ml-1m, by the NDCG@10 of validation items. The others are those of
explicit feedback, and `FedIalsOptions` has its own. BUILD_NOTES.md ("Defaults") has the searches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fedrecon.data.population import IMPLICIT
from fedrecon.data.ratings import RatingScale
from fedrecon.errors import InputError
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
    LeastSquaresOptions,
    OptimizerOptions,
)

_STEPS = FedReconOptions(
    reconstruction_optimizer=OptimizerOptions("sgd", 0.1),
    reconstruction_epochs=5,
    least_squares=LeastSquaresOptions(regularization=10.0),
    client_optimizer=OptimizerOptions("sgd", 0.5),
)
# For unseen users of every algorithm whose model is linear in its local part.
_SOLVED = dataclasses.replace(_STEPS, reconstruction="least_squares")
_EXACT = dataclasses.replace(
    _SOLVED,
    # A step of rate 1 on the whole query: the server gets the gradient.
    client_optimizer=OptimizerOptions("sgd", 1.0),
    client_takes_one_step=True,
    server_optimizer=OptimizerOptions("adam", 0.003),
)
_FED_AVG = FedAvgOptions(client_optimizer=OptimizerOptions("sgd", 0.1), client_epochs=3)
# Rows that stay on the device go further: three epochs at 0.1 diverge.
_STATEFUL = FedAvgOptions(client_optimizer=OptimizerOptions("sgd", 0.2))
_BY_ROW = FedAvgOptions(client_optimizer=OptimizerOptions("sgd", 0.05), averaging="by_row")
_BY_ROW_EXPLICIT = dataclasses.replace(_BY_ROW, client_optimizer=OptimizerOptions("sgd", 0.03))
_CENTRALIZED = CentralizedOptions(OptimizerOptions("adam", 0.0003), 256)
_FOR_BOTH = {
    "fed_recon": _STEPS,
    "fed_avg": _FED_AVG,
    "stateful_fed_avg": _STATEFUL,
    "fed_ncf": _BY_ROW,
    "centralized": _CENTRALIZED,
}
_EXPLICIT = {**_FOR_BOTH, "fed_ncf": _BY_ROW_EXPLICIT, "fed_recon_ls": _EXACT}
_IMPLICIT = {
    **_FOR_BOTH,
    # Of ncf-ml-1m: 0.5 diverges in round 83.
    "fed_recon": dataclasses.replace(_STEPS, client_optimizer=OptimizerOptions("sgd", 0.2)),
    "fed_ials": FedIalsOptions(),
}


# Of movielens-1m, seed 0: with features of norm 1 `fed_recon` diverges at rates of 0.1 and more,
# and `centralized` loses 0.09 of RMSE on items that it trains on. The other algorithms gain.
_SHORT_FEATURES = ("fed_recon", "centralized")


# Without a penalty they overfit the users of a small data set: on movielens-100k those who are seen
# are then served worse than by mean ratings.
_L2 = {"fed_ncf": 0.001, "centralized": 0.00002}
# A user's kept part meets the same few ratings in every round in which the user takes part.
_USER_L2 = {"stateful_fed_avg": 0.03}


def default_options(algorithm: str, feedback: str) -> Any:
    """Returns the options record of an algorithm.

    Args:
      algorithm: Its name.
      feedback: `"explicit"` or `"implicit"`.

    Raises:
      InputError: If there is no such algorithm for this kind of feedback.
    """
    known = _IMPLICIT if feedback == IMPLICIT else _EXPLICIT
    if algorithm not in known:
        raise InputError(
            f"there is no algorithm {algorithm!r} for {feedback} feedback; there are "
            f"{', '.join(known)}."
        )
    return known[algorithm]


def arguments_of_scale(scale: RatingScale, feedback: str, *, global_bias: bool) -> dict[str, Any]:
    """Returns the arguments of `matrix_factorization` that follow from the scale of the labels.

    Ratings are trained in units of their scale, so the rates above hold on every scale. Implicit
    labels are not: their rates were chosen with labels of 0 and 1 as they are.

    Args:
      scale: The labels that exist.
      feedback: `"explicit"` or `"implicit"`.
      global_bias: Whether the model has a global bias, which starts at the middle of the scale.
    """
    of_scale = {"initial_rating": scale.middle} if global_bias else {}
    if feedback == IMPLICIT:
        return of_scale
    return {**of_scale, "rating_unit": scale.unit, "rating_step": scale.step}


def default_reconstruction(*, is_linear: bool) -> FedReconOptions:
    """Returns how users without a kept local part are rebuilt.

    Args:
      is_linear: Whether the model's predictions are linear in the local part, as those of matrix
        factorization are: then it is solved for, else fitted by gradient steps.
    """
    return _SOLVED if is_linear else _STEPS


def default_features_norm(algorithm: str) -> float:
    """Returns the length of the features of an item; see `genre_features`."""
    return 0.1 if algorithm in _SHORT_FEATURES else 1.0


def default_model(algorithm: str, feedback: str) -> dict[str, Any]:
    """Returns arguments of `matrix_factorization`: all three biases, or none for federated iALS.

    Without biases, users who give few ratings are predicted near 0. `fed_recon` and `fed_ncf` gain
    0.004 and 0.001 of RMSE by a mean user; `fed_avg`, whose users start anew in each round, learns
    it in place of them and loses 0.009. `fed_recon_ls` has the same RMSE with it, serves users with
    few ratings better, and puts more items that hardly anybody rated into its lists.
    """
    has_biases = algorithm != "fed_ials"
    is_explicit = has_biases and feedback != IMPLICIT
    return {
        **dict.fromkeys(("user_bias", "item_bias", "global_bias"), has_biases),
        "mean_user": is_explicit and algorithm in ("fed_recon", "fed_ncf"),
        "l2": _L2.get(algorithm, 0.0) if is_explicit else 0.0,
        "user_l2": _USER_L2.get(algorithm) if is_explicit else None,
    }
