"""Functions that build models, and what two of them have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from fedrecon.models.split_model import ModelFn, SplitModel


def model_fn(build: Callable[..., SplitModel], *args: Any, **settings: Any) -> ModelFn:
    """Returns the function without arguments that algorithms take: `build(*args, **settings)`.

        model_fn(matrix_factorization, ratings.num_items, dim=50)

    Args:
      build: Builds a model; with the same arguments it gives the same initial values each time.
      *args: Passed to `build` by position.
      **settings: Passed to `build` by name.
    """
    return functools.partial(build, *args, **settings)


def structure(build_model: ModelFn) -> Hashable:
    """Returns a key: two functions with equal keys build models that differ in values alone.

    What is traced and compiled for one of the models then serves the other. The argument `seed`
    draws initial values, so it is no part of the key. A function that `model_fn` did not make, or
    whose arguments cannot be hashed, equals only itself.
    """
    if not isinstance(build_model, functools.partial):
        return build_model
    settings = {name: value for name, value in build_model.keywords.items() if name != "seed"}
    key = (build_model.func, build_model.args, tuple(sorted(settings.items())))
    try:
        hash(key)
    except TypeError:
        return build_model
    return key
