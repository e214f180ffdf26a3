"""A field of the settings: what its flag says, and which values it can have."""

import dataclasses
import math
import re
import typing
from typing import Any, Optional

from experiments.run import relevance
from experiments.run.names import did_you_mean, listed
from fedrecon.errors import InputError

GROUPS = ("data", "model", "algorithm", "training")
KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

# Larger whole numbers are mistakes, which an allocation that fails would only tell later.
_MOST = 10_000_000
# TensorFlow computes with float32, where more than 3.4e38 is infinite.
_MOST_OF_FLOATS = 1e38
_OWN_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _setting(
    default: Any,
    help_text: str,
    *,
    group: str,
    start: bool = False,
    choices: Optional[tuple[str, ...]] = None,
    minimum: Optional[float] = None,
    maximum: Optional[float] = None,
    below: Optional[float] = None,
    positive: bool = False,
    algorithms: tuple[str, ...] = (),
    only: tuple[Any, ...] = (),
    decides_questions: bool = False,
) -> Any:
    """Returns a field that is also a flag.

    Args:
      default: The value without the flag.
      help_text: The explanation in `--help`.
      group: The group in `--help`, one of `GROUPS`.
      start: Whether `--help` explains it among the flags to start with.
      choices: The values that exist; None where any value of the type does.
      minimum: The least value allowed.
      maximum: The largest value allowed; None is 10,000,000 for whole numbers.
      below: A number that the value must be less than.
      positive: Whether 0 and negative numbers are refused.
      algorithms: The algorithms that use it; empty if all do.
      only: The other conditions under which it has an effect; all must hold.
      decides_questions: Whether it decides who is evaluated, or what they give or are asked. Such a
        setting is one for all runs of a comparison or a search.
    """
    if algorithms:
        only = (relevance.algorithm_in(algorithms), *only)
    metadata = {
        **{"help": help_text, "group": group, "start": start, "only": only},
        **{"choices": choices, "minimum": minimum, "maximum": maximum, "below": below},
    }
    more = {"positive": positive, "decides_questions": decides_questions}
    return dataclasses.field(default=default, metadata={**metadata, **more})


def data(default, help_text, *, decides_questions=True, **kwargs):
    """A setting of the data."""
    return _setting(default, help_text, group="data", decides_questions=decides_questions, **kwargs)


def model(default, help_text, *, only=(relevance.TRAINED,), **kwargs):
    """A setting of the model."""
    return _setting(default, help_text, group="model", only=only, **kwargs)


def algorithm(default, help_text, **kwargs):
    """A setting of an algorithm."""
    return _setting(default, help_text, group="algorithm", **kwargs)


def training(default, help_text, **kwargs):
    """A setting of the rounds."""
    return _setting(default, help_text, group="training", **kwargs)


def kind(field: dataclasses.Field) -> type:
    """Returns str, int, float or bool, whether or not the field may be None."""
    kinds = [each for each in typing.get_args(field.type) if each is not type(None)]
    return kinds[0] if kinds else field.type


def check(field: dataclasses.Field, value: Any) -> None:
    """Refuses a value that the setting cannot have, whatever the other settings are."""
    if value is None and field.default is None:
        return
    found, metadata = f"--{field.name}={value}", field.metadata
    kinds = (int, float) if kind(field) is float else kind(field)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind(field) is not bool):
        raise InputError(f"{found} must be {KIND_NAMES[kind(field)]}.")
    choices = metadata["choices"]
    is_own_model = field.name == "model" and _OWN_MODEL.fullmatch(value)
    if choices and value not in choices and not is_own_model:
        raise InputError(f"{found} must be {listed(choices)}{did_you_mean(value, choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{found} must be finite.")
    if isinstance(value, float) and abs(value) > _MOST_OF_FLOATS:
        raise InputError(f"{found} must be at most {_MOST_OF_FLOATS:g}.")
    if metadata["positive"] and value <= 0:
        raise InputError(f"{found} must be positive.")
    minimum, below = metadata["minimum"], metadata["below"]
    maximum = _maximum(field)
    if (
        (minimum is not None and value < minimum)
        or (maximum is not None and value > maximum)
        or (below is not None and value >= below)
    ):
        raise InputError(f"{found} must be {_range(minimum, maximum, below)}.")


def _maximum(field: dataclasses.Field) -> Optional[float]:
    maximum = field.metadata["maximum"]
    return _MOST if maximum is None and kind(field) is int else maximum


def _range(minimum: float, maximum: Optional[float], below: Optional[float]) -> str:
    if below is not None:
        return f"at least {minimum:g} and below {below:g}"
    if maximum is not None:
        return f"from {minimum:g} to {maximum:,}"
    return f"at least {minimum:g}"
