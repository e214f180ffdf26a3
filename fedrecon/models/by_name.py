"""A model of one's own, by the name of the function that builds it: `package.module:function`.

The function gets the data set and the settings that it names, and returns a `SplitModel`:

    def genres(ratings, dim=8, *, seed=0):
        ...
        return SplitModel(...)

So side features reach it: `ratings.item_genres`, for example, is there when the model is built.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn, SplitModel, rating_input_spec
from fedrecon.models.weights import is_looked_up_by

_EXAMPLE = "package.module:function"
_LOSSES_OF_CLASSES = (
    tf.keras.losses.BinaryCrossentropy,
    tf.keras.losses.BinaryFocalCrossentropy,
    tf.keras.losses.Hinge,
    tf.keras.losses.SquaredHinge,
)
_LOSSES_OF_MANY_CLASSES = (
    tf.keras.losses.CategoricalCrossentropy,
    tf.keras.losses.CategoricalHinge,
    tf.keras.losses.SparseCategoricalCrossentropy,
)


def is_function_name(name: str) -> bool:
    """Returns whether a model's name is the name of a function instead of a model of ours."""
    return ":" in name


def model_from_name(
    name: str, ratings: Any, *, is_explicit: bool, is_vectorized: bool = True, **settings: Any
) -> ModelFn:
    """Returns a function that builds the named model, after checks that it can be trained.

    Args:
      name: `package.module:function`. The module is looked up from the current folder, too.
      ratings: The `Ratings` that the function gets as its first argument.
      is_explicit: Whether the labels are stars; otherwise they are 0 and 1.
      is_vectorized: Whether the engine of this package trains it; stock TFF takes other models.
      **settings: The settings on offer, such as `seed`, `dim` and `l2`. The function gets those
        that its signature names.

    Raises:
      InputError: If there is no such function, or if it does not build such a model; the message
        says why.
    """
    function = load_function(name)
    taken = settings_taken(name, function, settings)

    def build() -> SplitModel:
        with _current_folder_in_path():
            model = function(ratings, **taken)
        if not isinstance(model, SplitModel):
            raise InputError(
                f"the model {name} returned a {type(model).__name__}; it must return a"
                " fedrecon.models.split_model.SplitModel, which names the global and the local"
                " layers of a Keras model."
            )
        return model

    first, second = build(), build()
    _check_same_start(name, first, second)
    _check_examples(name, first)
    _check_loss(name, first, ratings, is_explicit)
    _check_num_items(name, first, ratings.num_items)
    if is_vectorized:
        try:
            FunctionalModel(first)
        except ValueError as error:
            raise InputError(f"the model {name} cannot be trained: {error}") from error
    return build


def load_function(name: str) -> Callable[..., SplitModel]:
    """Returns the function of a name `package.module:function`, or raises InputError."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or ":" in attribute:
        raise InputError(f"the model {name!r} is not of the form {_EXAMPLE}.")
    with _current_folder_in_path():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                problem = f"there is no module {error.name}, neither here ({os.getcwd()}) nor"
                raise InputError(
                    f"the model {name} was not found: {problem} among the installed packages."
                ) from error
            raise InputError(
                f"the model {name} cannot be loaded: {module_name} imports {error.name}, which is"
                " not installed."
            ) from error
    try:
        function = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        defined = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module_name
        ]
        raise InputError(
            f"the model {name} was not found: the module {module_name} ({module.__file__}) has no"
            f" {attribute}; its functions are {', '.join(defined) or 'none'}."
        ) from error
    if not callable(function):
        raise InputError(
            f"the model {name} is a {type(function).__name__}; it must be a function that takes the"
            " ratings and returns a SplitModel."
        )
    return function


def settings_taken(name: str, function: Callable, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that the function's signature names.

    Raises:
      InputError: If the function takes no ratings, or needs anything else.
    """
    parameters = list(inspect.signature(function).parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in by_position:
        raise InputError(f"the model {name} takes no argument; its first one must be the ratings.")
    named = {p.name: p for p in parameters[1:] if p.kind is not inspect.Parameter.POSITIONAL_ONLY}
    for parameter in parameters[1:]:
        is_optional = parameter.default is not inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if not is_optional and (parameter.name not in named or parameter.name not in settings):
            raise InputError(
                f"the model {name} needs {parameter.name}; it can get the ratings and, by name,"
                f" {', '.join(sorted(settings))}, so give {parameter.name} a default."
            )
    return {key: value for key, value in settings.items() if key in named}


@contextlib.contextmanager
def _current_folder_in_path() -> Iterator[None]:
    """Lets modules of the current folder be imported, after all others."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _check_same_start(name: str, first: SplitModel, second: SplitModel) -> None:
    """Raises InputError unless two calls gave the same weights, as `ModelFn` promises."""
    pairs = list(
        zip(
            first.global_weights + first.local_weights, second.global_weights + second.local_weights
        )
    )
    num_weights = len(first.keras_model.weights), len(second.keras_model.weights)
    if len(set(num_weights)) > 1 or any(one.shape != other.shape for one, other in pairs):
        raise InputError(
            f"the model {name} has other weights at its second call; it must build the same model"
            " each time."
        )
    for one, other in pairs:
        if not np.array_equal(one.numpy(), other.numpy()):
            raise InputError(
                f"the model {name} starts from other values of {one.name} at its second call, so a"
                " run could not be repeated; give the weight an initializer with a seed, such as"
                " tf.keras.initializers.RandomUniform(-0.05, 0.05, seed=seed), with the argument"
                " seed of the function."
            )


def _check_examples(name: str, model: SplitModel) -> None:
    expected = rating_input_spec()
    for key, spec in expected.items():
        found = model.input_spec[key]
        if not isinstance(found, tf.TensorSpec) or not found.is_compatible_with(spec):
            raise InputError(
                f"the model {name} has {found} as its input_spec of {key}, but a client's examples"
                f" are {spec}; use fedrecon.models.split_model.rating_input_spec()."
            )


def _check_loss(name: str, model: SplitModel, ratings: Any, is_explicit: bool) -> None:
    loss = model.loss_fn()
    if not isinstance(loss, tf.keras.losses.Loss):
        raise InputError(
            f"the loss_fn of the model {name} makes a {type(loss).__name__}; it must make a loss of"
            " Keras, as the class tf.keras.losses.MeanSquaredError does."
        )
    kind = type(loss).__name__
    if isinstance(loss, _LOSSES_OF_MANY_CLASSES):
        raise InputError(
            f"the model {name} has the loss {kind}, which needs a prediction for each of many"
            " classes, but a model predicts one number for an item; use MeanSquaredError or"
            " BinaryCrossentropy."
        )
    if is_explicit and isinstance(loss, _LOSSES_OF_CLASSES):
        raise InputError(
            f"the model {name} has the loss {kind}, which needs labels of 0 and 1, but the labels"
            f" are ratings of {ratings.scale}; use MeanSquaredError, or implicit feedback."
        )


def _check_num_items(name: str, model: SplitModel, num_items: int) -> None:
    item_ids = model.keras_model.inputs[0]
    for layer in model.keras_model._flatten_layers(include_self=False):
        is_table = type(layer) is tf.keras.layers.Embedding and is_looked_up_by(item_ids, layer)
        if is_table and layer.input_dim < num_items:
            raise InputError(
                f"the model {name} has {layer.input_dim} rows in the embedding {layer.name}, but"
                f" the data set has {num_items} items; make it Embedding(ratings.num_items, ...)."
            )
