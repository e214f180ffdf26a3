"""What a setting is where no flag gives it: it may depend on the algorithm and the feedback.

The figures are the library's (`fedrecon.defaults`), by the names of the settings.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from experiments.run.names import ALGORITHMS, OF_EASE
from experiments.run.settings import Settings, uses
from fedrecon import defaults, ials_units
from fedrecon.data.datasets import LEAVE_ONE_OUT_NAMES
from fedrecon.errors import InputError
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
    OptimizerOptions,
)

_FEEDBACKS = ("explicit", "implicit")
_ONLY_IMPLICIT = ("fed_ials", "ials", *OF_EASE)
_STEPS = frozenset(
    f"reconstruction_{name}" for name in ("optimizer", "learning_rate", "epochs", "steps_max")
)


def feedback_of(dataset: str, algorithms: Sequence[str]) -> str:
    """Returns the kind of feedback where no flag says it.

    It is implicit for leave-one-out files, and for algorithms that know nothing else.
    """
    is_implicit = dataset in LEAVE_ONE_OUT_NAMES or any(a in _ONLY_IMPLICIT for a in algorithms)
    return "implicit" if is_implicit else "explicit"


def defaults_of(values: Mapping[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """Returns the settings whose default depends on other settings.

    Args:
      values: Settings by name, `algorithm`, `feedback` and `model` among them.
      given: The names of the settings that somebody chose. Who chooses how gradient steps
        reconstruct wants gradient steps.
    """
    algorithm, feedback = values["algorithm"], values["feedback"]
    if algorithm not in ALGORITHMS:
        return {}
    is_matrix_factorization = values["model"] == "matrix_factorization"
    is_linear = is_matrix_factorization and not _STEPS.intersection(given)
    found = _of_reconstruction(defaults.default_reconstruction(is_linear=is_linear))
    try:
        found.update(_flat(defaults.default_options(algorithm, feedback)))
    except InputError:
        return found  # `Settings` refuses the pair, and says what to give.
    if is_matrix_factorization:
        found.update(defaults.default_model(algorithm, feedback))
    if values.get("item_features") is not None:
        found["item_features_norm"] = defaults.default_features_norm(algorithm)
    return found


def told(name: str) -> str | None:
    """Returns the defaults of a setting in words, or None where it does not depend on others."""
    by_value: dict[str, list[str]] = {}
    for (algorithm, feedback), value in by_algorithm(name, only_dependent=True).items():
        who = algorithm if feedback == "explicit" else f"{algorithm} (implicit)"
        by_value.setdefault("not given" if value is None else str(value), []).append(who)
    if len(by_value) < 2:
        return next(iter(by_value), None)
    return "; ".join(f"{value} for {', '.join(who)}" for value, who in by_value.items())


def by_algorithm(name: str, *, only_dependent: bool = False) -> dict[tuple[str, str], Any]:
    """Returns the default of a setting for each algorithm and feedback that use it.

    Args:
      name: The setting.
      only_dependent: Whether runs are left out whose default does not depend on the algorithm.
    """
    return {
        who: getattr(run, name)
        for who, depends, run in _default_runs()
        if uses(run, name) and (name in depends or not only_dependent)
    }


@functools.cache
def _default_runs() -> list[tuple[tuple[str, str], frozenset[str], Settings]]:
    """Returns each algorithm and feedback, which settings depend on them, and default settings."""
    found = []
    for feedback in _FEEDBACKS:
        for algorithm in ALGORITHMS:
            values = {"algorithm": algorithm, "feedback": feedback, "model": "matrix_factorization"}
            depends = defaults_of(values)
            try:
                run = Settings.of_used({**values, **depends})
            except InputError:  # There is no such algorithm for this feedback.
                continue
            found.append(((algorithm, feedback), frozenset(depends), run))
    return found


def _flat(options: Any) -> dict[str, Any]:
    """Returns an options record by the names of the settings."""
    if isinstance(options, FedReconOptions):
        return {**_of_reconstruction(options), **_of_clients(options)}
    if isinstance(options, FedIalsOptions):
        return {
            "ridge": ials_units.REGULARIZATION,
            "ridge_exponent": options.exponent,
            "unobserved_weight": ials_units.UNOBSERVED_WEIGHT,
            **_of_optimizer("server", options.server_optimizer),
        }
    if isinstance(options, CentralizedOptions):
        return {
            **_of_optimizer("client", options.optimizer),
            "minibatch_size": options.batch_size,
        }
    assert isinstance(options, FedAvgOptions)
    return {
        **_of_clients(options),
        "averaging": options.averaging,
        "gradient_clip_norm": options.gradient_clip_norm,
    }


def _of_reconstruction(options: FedReconOptions) -> dict[str, Any]:
    least_squares = options.least_squares
    return {
        "reconstruction": options.reconstruction,
        **_of_optimizer("reconstruction", options.reconstruction_optimizer),
        "reconstruction_epochs": options.reconstruction_epochs,
        "reconstruction_steps_max": options.reconstruction_steps_max,
        "ridge": least_squares.regularization,
        "ridge_exponent": least_squares.exponent,
        "bias_ridge": least_squares.bias_regularization,
    }


def _of_clients(options: FedReconOptions | FedAvgOptions) -> dict[str, Any]:
    names = ("batch_size", "client_epochs", "client_steps_max", "client_weighting")
    return {
        **_of_optimizer("client", options.client_optimizer),
        **_of_optimizer("server", options.server_optimizer),
        **{name: getattr(options, name) for name in names},
    }


def _of_optimizer(whose: str, options: OptimizerOptions) -> dict[str, Any]:
    return {f"{whose}_optimizer": options.name, f"{whose}_learning_rate": options.learning_rate}
