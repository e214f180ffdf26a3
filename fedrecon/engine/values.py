"""The values of a model's weights, by the names of the weights.

Names are unique in a model. Every loop over weights goes in the order of `FunctionalModel.weights`:
the order of a dictionary, which `tf.nest` sorts, decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from fedrecon.models.functional import FunctionalModel
from fedrecon.models.weights import Weight

Values = dict[str, tf.Tensor]


def by_name(weights: Iterable[Weight], tensors: Iterable[Any]) -> Values:
    """Returns the values of `weights`, given in their order."""
    return {weight.name: tensor for weight, tensor in zip(weights, tensors)}


def in_order(weights: Iterable[Weight], values: Values) -> list[Any]:
    """Returns the values of `weights`, in their order; `values` may have others."""
    return [values[weight.name] for weight in weights]


def global_specs(model: FunctionalModel, num_clients: int) -> Values:
    """Returns the specs of the global values as clients get them.

    Item tables come as each client's own rows, `[clients, items, dim]`; other weights come without
    an axis of clients.
    """
    return {
        weight.name: tf.TensorSpec(
            [num_clients, None, weight.shape[1]] if weight.is_item_table else weight.shape,
            weight.dtype,
        )
        for weight in model.global_weights
    }


def local_specs(model: FunctionalModel, num_clients: int) -> Values:
    """Returns the specs of clients' local values, `[clients, ...]` each."""
    return {w.name: tf.TensorSpec([num_clients, *w.shape], w.dtype) for w in model.local_weights}


def own_values(weights: Sequence[Weight], values: Values) -> Values:
    """Returns the values that have an axis of clients; the clients share the others."""
    return {
        weight.name: values[weight.name]
        for weight in weights
        if values[weight.name].shape.rank > weight.shape.rank
    }


def for_each_client(value: tf.Tensor, weight: Weight, num_clients: int) -> tf.Tensor:
    """Returns the value with an axis of clients, repeated if all clients share it."""
    if value.shape.rank > weight.shape.rank:
        return value
    return tf.broadcast_to(value, [num_clients, *weight.shape])


def by_client(numbers: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Returns `[clients]` numbers in a shape that broadcasts to `like`, `[clients, ...]`."""
    return tf.reshape(numbers, [-1] + [1] * (like.shape.rank - 1))


def where_client(is_chosen: tf.Tensor, new: tf.Tensor, old: tf.Tensor | float) -> tf.Tensor:
    """Selects `new` for the clients that are chosen, `[clients]` bool, and `old` for the others."""
    return tf.where(by_client(is_chosen, new), new, old)
