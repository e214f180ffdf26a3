"""Functions that build models, and what two of them have in common."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon.errors import InputError
from fedrecon.models.split_model import ModelFn, SplitModel

_PACKAGE = "fedrecon.models."


def model_fn(build: Callable[..., SplitModel], *args: Any, **settings: Any) -> ModelFn:
    """Returns the function without arguments that algorithms take: `build(*args, **settings)`.

        model_fn(matrix_factorization, ratings.num_items, dim=50)

    Args:
      build: Builds a model; with the same arguments it gives the same initial values each time.
      *args: Passed to `build` by position.
      **settings: Passed to `build` by name.
    """
    return functools.partial(build, *args, **settings)


@dataclasses.dataclass(frozen=True, eq=False)
class StartedModelFn:
    """Builds the same model as another function, whose global weights start from given values.

    Attributes:
      build: The other function.
      values: By name (`FunctionalModel.global_weights`), for some of the global weights.
    """

    build: ModelFn
    values: Mapping[str, np.ndarray]

    def __call__(self) -> SplitModel:
        """Returns the model; its Keras variables have the values of `build`."""
        return self.build()


def initial_global_values(build_model: ModelFn, names: Iterable[str]) -> list[Any]:
    """Returns the initial values of a model's global weights, in the order of `SplitModel`.

    Builds the variables anew at each call, so TFF can call it in a graph.

    Args:
      build_model: Builds the model.
      names: The names of its global weights, in the same order.
    """
    started = build_model.values if isinstance(build_model, StartedModelFn) else {}
    return [
        tf.constant(started[name]) if name in started else variable.read_value()
        for name, variable in zip(names, build_model().global_weights)
    ]


def structure(build_model: ModelFn) -> Hashable:
    """Returns a key: two functions with equal keys build models that differ in values alone.

    What is traced and compiled for one of the models then serves the other. The argument `seed`
    draws initial values, so it is no part of the key. A function that `model_fn` did not make, or
    whose arguments cannot be hashed, equals only itself.
    """
    if isinstance(build_model, StartedModelFn):
        return structure(build_model.build)
    if not isinstance(build_model, functools.partial):
        return build_model
    try:
        bound = inspect.signature(build_model.func).bind(*build_model.args, **build_model.keywords)
        bound.apply_defaults()  # A default that is spelled out builds the same model.
        key = (
            build_model.func,
            tuple((name, value) for name, value in bound.arguments.items() if name != "seed"),
        )
        hash(key)
    except (TypeError, ValueError):  # Wrong arguments, values without a hash, no signature.
        return build_model
    return key


def description(build_model: ModelFn) -> dict[str, Any] | None:
    """Returns JSON values from which `from_description` builds the model again.

    None if `model_fn` did not make the function, if a model of this package does not build it, or
    if an argument is no JSON value. Then only the code that made the function can build the model.
    """
    if isinstance(build_model, StartedModelFn):
        return description(build_model.build)
    if not isinstance(build_model, functools.partial):
        return None
    function = build_model.func
    if not function.__module__.startswith(_PACKAGE):
        return None
    try:
        bound = inspect.signature(function).bind(*build_model.args, **build_model.keywords)
        arguments = json.loads(json.dumps(bound.arguments))
    except TypeError:
        return None
    return {"function": f"{function.__module__}:{function.__name__}", "arguments": arguments}


def from_description(described: dict[str, Any]) -> ModelFn:
    """Returns the function that `description` described.

    Raises:
      InputError: If this version has no such model.
    """
    module, _, name = described["function"].partition(":")
    if not module.startswith(_PACKAGE):
        raise InputError(f"the model {described['function']} is not one of {_PACKAGE}.")
    try:
        build = getattr(importlib.import_module(module), name)
        built = functools.partial(build, **described["arguments"])
        inspect.signature(build).bind(**built.keywords)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"the model {described['function']} cannot be built: {error}.") from error
    return built
