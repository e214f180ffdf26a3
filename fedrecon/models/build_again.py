"""The initializers that a layer's `build` gives to `add_weight`, where the layer keeps none.

Keras's own layers keep an initializer as an attribute. A layer of one's own, such as the
`UserEmbedding` of TFF's tutorial, often names it in `build` alone, and a variable does not tell.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def initializer_of(layer: tf.keras.layers.Layer, variable: tf.Variable) -> Callable | None:
    """Returns the initializer of a variable, found by running `build` again; None if it is unclear.

    That `build` makes no variable: `add_weight` gives it the ones that the layer has. It is not run
    for a layer with layers inside, which it might make again.
    """
    known = {_own_name(existing): existing for existing in layer.weights}
    nodes = layer.inbound_nodes
    if len(known) < len(layer.weights) or not nodes or list(layer._flatten_layers())[1:]:
        return None
    given = {}

    def add_weight(name=None, shape=None, dtype=None, initializer=None, **others):
        del shape, dtype, others
        given[name] = initializer
        return known[name]

    vars(layer)["add_weight"] = add_weight  # Unseen by Keras's tracking of attributes.
    try:
        layer.build(nodes[0].input_shapes)
    except Exception:  # Whatever it does beyond adding weights, it did once and cannot do again.
        return None
    finally:
        del vars(layer)["add_weight"]
    if _own_name(variable) not in given:
        return None
    initializer = given[_own_name(variable)]
    if initializer is None:  # Keras's default for floats.
        return tf.keras.initializers.GlorotUniform() if variable.dtype.is_floating else None
    return tf.keras.initializers.get(initializer)


def _own_name(variable: tf.Variable) -> str:
    return variable.name.rpartition("/")[2].partition(":")[0]
