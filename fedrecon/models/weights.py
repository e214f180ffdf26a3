"""The weights of a model: where a layer keeps each one, and how a client draws and regularizes it.

A global embedding table that the item ids themselves look up is an **item table**.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon.models.build_again import initializer_of
from fedrecon.models.client_randomness import is_random, seeded_initializer

# These act on each entry by itself: the gradient at some rows of a table follows from these rows.
_SEPARABLE = (tf.keras.regularizers.L1, tf.keras.regularizers.L2, tf.keras.regularizers.L1L2)
_RESHAPING = (tf.keras.layers.Flatten, tf.keras.layers.Reshape)

# The layers and attributes that hold a variable, by its `ref()`.
Sites = dict[Any, list[tuple[tf.keras.layers.Layer, str]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight of the model.

    Attributes:
      name: `layer/attribute`; where several weights would have this name, it ends in a number.
      shape: The shape in the model.
      dtype: The dtype in the model.
      trainable: Whether training changes it.
      is_local: Whether it is in the local part.
      is_item_table: Whether a call takes one row for each example instead of the whole table.
      regularizer: A function from the weight to a scalar loss, or None. The regularizer of an item
        table is separable: its gradient at an entry depends on that entry alone.
      sites: The layers and attributes that hold it.
      initializer: For a local weight, a function from seeds of any shape to initial values, one for
        each seed. For a global weight, None.
    """

    name: str
    shape: tf.TensorShape
    dtype: tf.DType
    trainable: bool
    is_local: bool
    is_item_table: bool
    regularizer: Callable[[tf.Tensor], tf.Tensor] | None
    sites: tuple[tuple[tf.keras.layers.Layer, str], ...]
    initializer: Callable[[tf.Tensor], tf.Tensor] | None


def regularization(weights: Iterable[Weight], values: Iterable[tf.Tensor]) -> tf.Tensor:
    """Returns the sum of the regularization losses of `weights` at `values`, a scalar."""
    losses = [w.regularizer(v) for w, v in zip(weights, values) if w.regularizer is not None]
    return tf.add_n(losses) if losses else tf.zeros([])


def find_sites(layers: Iterable[tf.keras.layers.Layer]) -> Sites:
    """Returns the layers and attributes that hold each variable."""
    sites: Sites = {}
    for layer in layers:
        for name, value in vars(layer).items():
            if isinstance(value, tf.Variable):
                sites.setdefault(value.ref(), []).append((layer, name))
    return sites


def describe_weight(variable, sites: Sites, *, is_trainable, is_local, item_id) -> Weight:
    """Returns the `Weight` of a variable.

    Args:
      variable: A variable of the Keras model.
      sites: The result of `find_sites` for all layers of the model.
      is_trainable: Whether training changes it.
      is_local: Whether it is in the local part.
      item_id: The input of the Keras model. A local weight is never an item table.

    Raises:
      ValueError: If no layer has it as an attribute, or if it is local and clients cannot draw it.
    """
    if variable.ref() not in sites:
        raise ValueError(
            f"The weight {variable.name} is no attribute of its layer (it may be in a list), so the"
            " model cannot be called with another value in its place; make it one."
        )
    (layer, attribute), *_ = of_weight = sites[variable.ref()]
    regularizer = _setting(layer, attribute, "regularizer")
    is_item_table = (
        not is_local
        and len(of_weight) == 1
        and type(layer) is tf.keras.layers.Embedding
        and is_looked_up_by(item_id, layer)
        and (regularizer is None or type(regularizer) in _SEPARABLE)
    )
    return Weight(
        name=f"{layer.name}/{attribute}",
        shape=variable.shape,
        dtype=variable.dtype,
        trainable=is_trainable,
        is_local=is_local,
        is_item_table=is_item_table,
        regularizer=regularizer,
        sites=tuple(of_weight),
        initializer=_client_initializer(layer, attribute, variable) if is_local else None,
    )


def with_unique_names(weights: Iterable[Weight]) -> list[Weight]:
    """Returns the weights; the second one of a name `layer/attribute` is `layer/attribute_1`."""
    counts = collections.Counter()
    result = []
    for weight in weights:
        count = counts[weight.name]
        counts[weight.name] += 1
        name = f"{weight.name}_{count}" if count else weight.name
        result.append(dataclasses.replace(weight, name=name))
    return result


def _setting(layer, attribute: str, kind: str) -> Callable | None:
    """Returns the layer's own regularizer or initializer of a weight, or None.

    Keras calls them `kernel_initializer` for `kernel`, but `recurrent_initializer` for
    `recurrent_kernel`.
    """
    names = (f"{attribute}_{kind}", f"{attribute.removesuffix('_kernel')}_{kind}")
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)


def _client_initializer(layer, attribute: str, variable) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from seeds to values; raises ValueError if clients cannot draw them."""
    name, setting = f"{layer.name}/{attribute}", f"{attribute}_initializer"
    initializer = _setting(layer, attribute, "initializer")
    if initializer is None:
        initializer = initializer_of(layer, variable)
    if initializer is None:
        raise ValueError(
            f"The local weight {name} has no initializer under Keras's name for it ({setting}), by"
            " which each client draws it. Keep the initializer in the layer, as Keras's own layers"
            f" do: write `self.{setting} = tf.keras.initializers.get(...)` in __init__ and"
            f" `self.{attribute} = self.add_weight(..., initializer=self.{setting})` in build. (For"
            " the row of a user there is fedrecon.models.layers.UserEmbedding.)"
        )
    if not is_random(initializer):
        values = initializer(variable.shape, dtype=variable.dtype)
        if not np.array_equal(values, variable.numpy()):
            raise ValueError(
                f"The local weight {name} does not have the value that its {setting} gives, but"
                " each client starts from the initializer. Make the initializer give that value"
                " (for an LSTM: unit_forget_bias=False)."
            )
    return seeded_initializer(name, initializer, variable.shape, variable.dtype)


def is_looked_up_by(item_id, embedding) -> bool:
    """Returns whether every call of the layer gets the model's input itself, perhaps reshaped."""
    for node in embedding.inbound_nodes:
        tensor = node.keras_inputs[0]
        while isinstance(tensor.node.layer, _RESHAPING):
            tensor = tensor.node.keras_inputs[0]
        if tensor is not item_id:
            return False
    return True
