"""Refuses a Keras model that clients cannot share one call of, and names the layer at fault.

A vectorized call must give the numbers of the Keras model itself. Each check stands for one way in
which it would give others, or in which TensorFlow would fail later with a worse message.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from fedrecon.models.weights import Weight

Layers = Sequence[tf.keras.layers.Layer]

# Fingerprints of the calls that passed the checks. One run builds its model several times, and
# vectorizing takes most of the time that a `FunctionalModel` does.
_VECTORIZES: set[bytes] = set()


def check_interface(keras_model: tf.keras.Model):
    """Returns the input of the model; raises ValueError unless it maps item ids to predictions."""
    inputs = keras_model.inputs or []
    found = ", ".join(f"{x.name} {list(x.shape)}" for x in inputs)
    if len(inputs) > 1:
        raise ValueError(
            f"The Keras model {keras_model.name} has {len(inputs)} inputs ({found}), but a client's"
            " examples have one, the item ids [batch, 1]. If an input follows from the item,"
            " replace it by a global Embedding(num_items, width, trainable=False) of the item ids"
            " whose initializer is a tf.keras.initializers.Constant of the features by item. What"
            " follows from the user, replace by a local layer, which is fitted to the user."
        )
    if not inputs or inputs[0].shape.rank != 2 or inputs[0].shape[1] != 1:
        raise ValueError(
            f"The Keras model {keras_model.name} takes {found or 'no input'}, but a client's"
            " examples are item ids [batch, 1]; make it a functional model of"
            " tf.keras.Input([1], dtype=tf.int64)."
        )
    outputs = keras_model.outputs
    if len(outputs) > 1 or list(outputs[0].shape) not in ([None], [None, 1], [1, 1]):
        found = ", ".join(str(list(x.shape)) for x in outputs)
        raise ValueError(
            f"The Keras model {keras_model.name} gives {found}, but a prediction is one number for"
            " each example, [batch, 1]; end it with a Dense(1), for example."
        )
    return inputs[0]


def check_layer(layer: tf.keras.layers.Layer) -> None:
    """Raises ValueError if what the layer is says that clients cannot call it."""
    if getattr(layer, "activity_regularizer", None) is not None:
        raise ValueError(
            f"The layer {layer.name} has an activity regularizer, which clients cannot apply to"
            " padded batches; regularize its weights instead."
        )
    if getattr(layer, "mask_zero", False):
        raise ValueError(
            f"The layer {layer.name} has mask_zero, but item 0 is an item as any other; leave it"
            " out."
        )
    if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable:
        raise ValueError(
            f"The layer {layer.name} ({type(layer).__name__}) normalizes by the statistics of a"
            " batch when it trains, so padding a batch would change each prediction, and it keeps"
            " moving averages that are no gradient's; use LayerNormalization, or trainable=False."
        )


def check_regularizers(layers: Layers, weights: Sequence[Weight]) -> None:
    """Raises ValueError if Keras knows of more regularization losses than `weights`."""
    known = {id(layer): 0 for layer in layers}
    for weight in weights:
        if weight.regularizer is not None:
            known[id(weight.sites[0][0])] += 1
    for layer in layers:
        losses = len(layer.losses)
        for sublayer in layer._flatten_layers():
            losses -= known[id(sublayer)]
        if losses:
            raise ValueError(
                f"The layer {layer.name} adds a loss that is not the regularizer of one of its"
                " weights under Keras's name for it (such as kernel_regularizer for kernel);"
                " clients cannot apply it."
            )


def check_calls(predict: Callable, weights: Sequence[Weight], layers: Layers) -> None:
    """Raises ValueError unless calls of the model vectorize and keep the examples of a batch apart.

    Args:
      predict: `FunctionalModel.predict`.
      weights: The weights in the order of `predict`'s values.
      layers: All layers of the Keras model.
    """
    names = {layer.name for layer in layers}
    item_ids, values = _values_of_a_batch(weights)
    call = _differentiated(predict)
    try:
        traced = call.get_concrete_function(item_ids, values)
    except Exception as error:
        raise ValueError(
            f"{_guilty(error, names)} cannot be called with other values in place of its weights:"
            f" {_reason(error)}"
        ) from error
    _check_operations(traced, {layer.name: layer for layer in layers})
    fingerprint = _fingerprint(traced)
    if fingerprint not in _VECTORIZES:
        _check_vectorizes(call, traced, item_ids, values, names)
        _check_examples_apart(traced, weights, values)
        _VECTORIZES.add(fingerprint)


def _values_of_a_batch(weights: Sequence[Weight]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the item ids of a batch of three and a value for each weight."""
    batch_size = 3
    generator = np.random.default_rng(0)

    def value_of(weight):
        if not weight.trainable and not weight.is_item_table:
            layer, attribute = weight.sites[0]
            return getattr(layer, attribute).numpy()  # It may be a variance, which is positive.
        shape = [batch_size, weight.shape[1]] if weight.is_item_table else weight.shape
        return generator.normal(size=shape).astype(weight.dtype.as_numpy_dtype)

    return np.zeros(batch_size, np.int32), [value_of(weight) for weight in weights]


def _differentiated(predict: Callable):
    """Returns a `tf.function` from ids and values to predictions and the gradients of values."""

    @tf.function(autograph=False)
    def call(item_ids, values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            predictions = predict(item_ids, values, dropout_seed=tf.constant(0, tf.uint32))
        gradients = tape.gradient(predictions, values)
        return predictions, [tf.convert_to_tensor(g) for g in gradients if g is not None]

    return call


def _check_operations(traced, layers: dict[str, tf.keras.layers.Layer]) -> None:
    for path, operation in _operations(traced.graph.as_graph_def()):
        if op_def_registry.get(operation).is_stateful and operation not in _CALLS:
            name = _layer_of(path, layers)
            kind = f" ({type(layers[name]).__name__})" if name in layers else ""
            reason = (
                "draws random numbers that do not follow from the seed of a client; Dropout is the"
                " random layer that can be used"
                if _is_random(operation)
                else "has a state, so clients cannot share one call of it"
            )
            raise ValueError(f"The layer {name}{kind} runs {operation}, which {reason}.")
    if traced.captured_inputs:
        raise ValueError(
            "The model uses a tensor or a variable that is no weight of its layers"
            f" ({traced.captured_inputs[0]!r}); make it one, untrainable if it is a constant."
        )


# TensorFlow counts these as stateful; `_operations` looks into the functions that they call.
_CALLS = ("StatefulPartitionedCall", "While", "If", "Case")


def _operations(graph) -> Iterator[tuple[str, str]]:
    """Yields the path and the type of each operation that a graph, or a function it calls, runs.

    A library also has functions that nothing calls, such as other implementations of a GRU.
    """
    functions = {function.signature.name: function for function in graph.library.function}

    def visit(path, nodes):
        for node in nodes:
            here = f"{path}{node.name}"
            yield here, node.op
            for attribute in node.attr.values():
                called = [attribute.func] if attribute.HasField("func") else attribute.list.func
                for function in called:
                    if function.name in functions:
                        yield from visit(f"{here}/", functions[function.name].node_def)

    yield from visit("", graph.node)


def _is_random(operation: str) -> bool:
    return bool(
        re.search("Random|Multinomial|Stateful(Uniform|StandardNormal|Truncated)", operation)
    )


def _fingerprint(traced) -> bytes:
    """Returns a hash of a traced function: equal for models that are built alike."""
    graph = traced.graph.as_graph_def(add_shapes=True)
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            # A new name for each trace; the gradients themselves are in the graph.
            node.attr.pop("_gradient_op_type", None)
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).digest()


def _check_vectorizes(call, traced, item_ids, values, names: set[str]) -> None:
    def call_for_many(item_ids, values):
        return tf.vectorized_map(
            lambda client: call(*client), (item_ids, values), fallback_to_while_loop=False
        )

    for_two = tf.nest.map_structure(lambda value: np.stack([value, value]), (item_ids, values))
    try:
        with _tensorflow_log_held_back():
            tf.function(call_for_many, autograph=False).get_concrete_function(*for_two)
    except Exception as error:
        operations = traced.graph.get_operations()
        raise ValueError(
            f"{_guilty(error, names, operations)} cannot be vectorized over clients:"
            f" {_reason(error)}"
        ) from error


def _check_examples_apart(traced, weights: Sequence[Weight], values) -> None:
    """Raises ValueError if other rows for the later examples change the first prediction."""
    changed = [
        np.concatenate([value[:1], value[1:] + 1.0]) if weight.is_item_table else value
        for weight, value in zip(weights, values)
    ]
    item_ids = np.zeros(3, np.int32)
    alone, beside_others = (traced(item_ids, v)[0][0].numpy() for v in (values, changed))
    if not np.isclose(alone, beside_others, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            "The prediction for an item depends on the other items of its batch, so padding a batch"
            " would change it; the model must treat each example by itself."
        )


def _layer_of(path: str, names) -> str:
    """Returns the innermost layer of an operation, by the scopes in the operation's path."""
    found = [part for part in path.split("/") if part in names]
    return found[-1] if found else path


def _guilty(error: Exception, names: set[str], operations=()) -> str:
    """Returns the layer that an error of TensorFlow is about, as well as can be told."""
    text = str(error)
    named = re.findall(r"layer ['\"]([^'\"]+)['\"]", text)
    named += [part for path in re.findall(r'name: "([^"]+)"', text) for part in path.split("/")]
    types = set(re.findall(r"op '(\w+)'", text))
    suspects = [op for op in operations if op.type in types]
    # TensorFlow names nothing where it fails inside a loop, but only loops have lists.
    suspects += [op for op in operations if any(out.dtype == tf.variant for out in op.outputs)]
    named += [part for op in suspects for part in op.name.split("/")]
    return next((f"The layer {name}" for name in named if name in names), "The model")


def _reason(error: Exception) -> str:
    """Returns the message of an error of TensorFlow in a line, without its report of user code."""
    lines = [line.strip() for line in str(error).split("Call arguments")[0].splitlines()]
    first = next((n for n, line in enumerate(lines) if re.match(r"\w+Error: ", line)), 0)
    return " ".join(" ".join(lines[first:]).split()).split(' name: "')[0]


@contextlib.contextmanager
def _tensorflow_log_held_back() -> Iterator[None]:
    """Keeps TensorFlow from logging an error that it also raises."""

    def refuse(record):
        return False

    logger = tf.get_logger()
    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)
