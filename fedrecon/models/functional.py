"""The Keras model of a `SplitModel` as a pure function of one client's weights.

What `torch.func.functional_call` is to a module: the same Keras model, called with tensors in place
of its variables. Nothing is read from a variable and none is written, so that a call can be
vectorised over clients (`tf.vectorized_map`), differentiated and compiled by XLA.

A global embedding table that is looked up by the item ids themselves is an **item table**. It is
never given whole: a call takes the rows of its batch's items, one an example, in place of what the
lookup would return. So what a client costs does not grow with the catalogue. Everything else that
is global is **dense** and given whole, as is everything local.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon.models.split_model import SplitModel

# What acts on each entry by itself: its gradient at some rows of a table is that of those rows.
_SEPARABLE = (tf.keras.regularizers.L1, tf.keras.regularizers.L2, tf.keras.regularizers.L1L2)
_RESHAPING = (tf.keras.layers.Flatten, tf.keras.layers.Reshape)


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight of the model.

    Attributes:
      name: `layer/attribute`.
      shape: As in the model.
      dtype: Likewise.
      trainable: Whether training changes it.
      is_local: Whether it is of the local part.
      is_item_table: Whether calls take a row of it for each example instead of the whole.
      regularizer: From the weight to a scalar loss, or None. An item table's is separable: what it
        adds to the gradient of an entry depends on that entry alone.
      sites: The layers and attributes that hold it.
      initializer: Of a local weight: from seeds of any shape to initial values, one for each.
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


class FunctionalModel:
    """A `SplitModel` whose weights are arguments.

    Attributes:
      weights: All `Weight`s: those of the global part in the order of `SplitModel.global_weights`,
        then those of the local part in that of `SplitModel.local_weights`.
      global_weights: The first of them.
      local_weights: The others.
    """

    def __init__(self, model: SplitModel):
        """Takes the model apart.

        Args:
          model: It must not be called by others while this one is.

        Raises:
          ValueError: If the model cannot be vectorised over clients with the same numbers for sure;
            the message names the layer.
        """
        self._model = model
        layers = list(model.keras_model._flatten_layers(include_self=False))
        for layer in layers:
            _check_layer(layer)
        sites = _sites(layers)
        (item_id,) = model.keras_model.inputs
        trainable = {
            variable.ref()
            for variable in model.global_trainable_weights + model.local_trainable_weights
        }

        def describe(variable, *, is_local):
            return _describe(
                variable,
                sites,
                is_trainable=variable.ref() in trainable,
                is_local=is_local,
                item_id=None if is_local else item_id,
            )

        self.global_weights = tuple(describe(v, is_local=False) for v in model.global_weights)
        self.local_weights = tuple(describe(v, is_local=True) for v in model.local_weights)
        self.weights = self.global_weights + self.local_weights
        self._dropouts = [layer for layer in layers if isinstance(layer, tf.keras.layers.Dropout)]
        self._loss = batch_loss(model.loss_fn)
        _check_regularizers(layers, self.weights)
        _check_calls(self, layers)

    def predict(
        self,
        item_ids: tf.Tensor,
        values: Sequence[tf.Tensor],
        *,
        dropout_seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Calls the Keras model on one client's batch.

        Args:
          item_ids: `[batch]`, integers.
          values: For each of `weights`, the rows `[batch, dim]` of the batch's items if it is an
            item table, else the whole.
          dropout_seed: A scalar uint32 to train with, from which all dropout follows; None
            predicts.

        Returns:
          `[batch]` predictions.
        """
        attributes = []
        for weight, value in zip(self.weights, values):
            for layer, name in weight.sites:
                if weight.is_item_table:
                    attributes.append((layer, "call", _given_rows(value)))
                else:
                    attributes.append((layer, name, value))
        is_training = dropout_seed is not None
        if is_training:
            for number, layer in enumerate(self._dropouts):
                call = _dropout(layer.rate, fold_in(dropout_seed, number))
                attributes.append((layer, "call", call))
        with _attributes_replaced(attributes):
            inputs = tf.cast(item_ids, tf.int64)[:, tf.newaxis]
            predictions = _autograph(_call)(self._model.keras_model, inputs, is_training)
        return tf.reshape(predictions, [-1])

    def loss(self, labels: tf.Tensor, predictions: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Returns the loss of a batch, without regularization; see `batch_loss`."""
        return self._loss(labels, predictions, mask)

    def initial_local_values(self, seeds: tf.Tensor) -> list[tf.Tensor]:
        """Returns fresh local values, drawn as the layers' own initializers say.

        Args:
          seeds: uint32, one for each client: `[clients]`, or a scalar for one client. They take the
            place of the initializers' seeds. An initializer that takes no seed gives every client
            the same.

        Returns:
          For each of `local_weights` a tensor `[clients, ...]`, or without that axis for one.
        """
        return [
            weight.initializer(fold_in(seeds, index))
            for index, weight in enumerate(self.local_weights)
        ]


def _call(keras_model, inputs, training):
    return keras_model(inputs, training=training)


@functools.cache
def _autograph(function):
    """Returns a function under which layers may use `if` and `while` on tensors, as Keras allows.

    Of `tf.function` one could ask the same, which then translates all of this package too: seconds.
    """
    return tf.autograph.to_graph(function)


def regularization(weights: Iterable[Weight], values: Iterable[tf.Tensor]) -> tf.Tensor:
    """Returns the sum of the regularization losses of `weights` at `values`, a scalar."""
    losses = [w.regularizer(v) for w, v in zip(weights, values) if w.regularizer is not None]
    return tf.add_n(losses) if losses else tf.zeros([])


def fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """Returns a seed that depends on `seed` and `number`; all are uint32, of any shape alike.

    Unlike `tf.random.experimental.stateless_fold_in`, it is made of plain arithmetic, which can be
    vectorised with a seed for each client: the finalizer of MurmurHash3 (Appleby, public domain).
    """
    number = tf.cast(number, tf.uint32)
    bits = seed + (number + tf.constant(1, tf.uint32)) * tf.constant(0x9E3779B9, tf.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _u32(shift)))
        bits *= _u32(factor)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _u32(16)))


def batch_loss(loss_fn: Callable[..., tf.keras.losses.Loss]):
    """Returns a function from labels, predictions and a mask of real examples to losses of batches.

    All three are `[..., batch]` and the result is `[...]`: for each batch what `loss_fn()` gives
    without its padding, and 0 for a batch of padding alone.

    Args:
      loss_fn: As of `SplitModel`.

    Raises:
      ValueError: If its loss is not one number for a batch.
    """
    reduction = loss_fn().reduction
    reductions = tf.keras.losses.Reduction
    if reduction not in (reductions.AUTO, reductions.SUM_OVER_BATCH_SIZE, reductions.SUM):
        raise ValueError(
            f"The loss {loss_fn().name} has reduction {reduction!r}, so it is not one number for a"
            " batch; sum and sum_over_batch_size (a mean) are."
        )
    # `call` is the loss of each example; what Keras puts around it only weighs and reduces.
    per_example = loss_fn(reduction=reductions.NONE).call

    def loss(labels, predictions, mask):
        # Keras averages over the last axis, so each example needs one of its own.
        losses = per_example(labels[..., tf.newaxis], predictions[..., tf.newaxis])
        total = tf.reduce_sum(tf.where(mask, losses, tf.zeros_like(losses)), axis=-1)
        if reduction == reductions.SUM:
            return total
        count = tf.reduce_sum(tf.cast(mask, losses.dtype), axis=-1)
        return total * tf.math.reciprocal_no_nan(count)

    return loss


def _uniform(bits: tf.Tensor) -> tf.Tensor:
    """Returns a float32 inside of (0, 1) for each uint32; 23 bits and a half it holds exactly."""
    bits = tf.bitwise.right_shift(bits, _u32(9))
    return (tf.cast(bits, tf.float32) + 0.5) / 2.0**23


def _u32(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint32)


def _dropout(rate: float, seed: tf.Tensor):
    """Returns what replaces `Dropout.call`: the same, with noise that follows from `seed`."""

    def call(inputs, training=None):
        if not training or not rate:
            return inputs
        entries = tf.reshape(tf.range(tf.size(inputs)), tf.shape(inputs))
        is_kept = _uniform(fold_in(seed, entries)) >= rate
        return tf.where(is_kept, inputs / (1.0 - rate), tf.zeros_like(inputs))

    return call


def _given_rows(rows: tf.Tensor):
    """Returns what replaces an item table's `call`: the rows that the lookup would find."""

    def call(ids):
        return tf.reshape(rows, [-1, *ids.shape[1:], rows.shape[-1]])

    return call


@contextlib.contextmanager
def _attributes_replaced(replacements: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Replaces attributes of objects for a while, past Keras's tracking of what is assigned."""
    originals = []
    try:
        for holder, name, value in replacements:
            originals.append((holder, name, vars(holder).get(name)))
            vars(holder)[name] = value
        yield
    finally:
        for holder, name, original in reversed(originals):
            if original is None:
                del vars(holder)[name]  # A method, which the class has.
            else:
                vars(holder)[name] = original


def _sites(layers) -> dict[Any, list[tuple[tf.keras.layers.Layer, str]]]:
    sites: dict[Any, list] = {}
    for layer in layers:
        for name, value in vars(layer).items():
            if isinstance(value, tf.Variable):
                sites.setdefault(value.ref(), []).append((layer, name))
    return sites


def _describe(variable, sites, *, is_trainable, is_local, item_id) -> Weight:
    """Describes a weight, which can be an item table only if `item_id`, its input, is given."""
    if variable.ref() not in sites:
        raise ValueError(
            f"The weight {variable.name} is no attribute of its layer (it may be in a list), so the"
            " model cannot be called with another value in its place; make it one."
        )
    (layer, attribute), *_ = of_weight = sites[variable.ref()]
    regularizer = getattr(layer, f"{attribute}_regularizer", None)
    is_item_table = (
        item_id is not None
        and len(of_weight) == 1
        and type(layer) is tf.keras.layers.Embedding
        and _is_looked_up_by(item_id, layer)
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
        initializer=_initializer(layer, attribute, variable) if is_local else None,
    )


def _is_looked_up_by(item_id, embedding) -> bool:
    """Whether every call of the layer has the model's input itself as its ids, perhaps reshaped."""
    for node in embedding.inbound_nodes:
        tensor = node.keras_inputs[0]
        while isinstance(tensor.node.layer, _RESHAPING):
            tensor = tensor.node.keras_inputs[0]
        if tensor is not item_id:
            return False
    return True


def _initializer(layer, attribute, variable):
    """Returns a function from seeds to initial values of a local weight, one for each seed.

    Keras's initializers draw for one seed; drawing for each client in turn would take as long as a
    third of a round. So the distributions are drawn from here, all clients at once.

    Raises:
      ValueError: If the layer has no initializer under Keras's name for it, or a random one that is
        none of the uniform, normal, truncated normal and variance scaling (Glorot, He, LeCun) ones.
    """
    name, shape, dtype = f"{layer.name}/{attribute}", variable.shape, variable.dtype
    initializer = getattr(layer, f"{attribute}_initializer", None)
    if initializer is None:
        raise ValueError(
            f"The local weight {name} has no initializer under Keras's name for it"
            f" ({attribute}_initializer), by which clients draw it."
        )
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" not in config:

        def repeat(seeds):
            return tf.broadcast_to(
                tf.cast(initializer(shape, dtype=dtype), dtype),
                tf.concat([tf.shape(seeds), shape], axis=0),
            )

        return repeat
    quantile = _quantile_function(initializer, shape)
    if quantile is None:
        raise ValueError(
            f"The local weight {name} has the initializer {type(initializer).__name__}, which"
            " clients cannot draw from; use a uniform, normal or variance scaling one."
        )

    def draw(seeds):
        entries = tf.reshape(tf.range(shape.num_elements()), shape)
        seeds = tf.reshape(seeds, tf.concat([tf.shape(seeds), [1] * shape.rank], axis=0))
        return tf.cast(quantile(_uniform(fold_in(seeds, entries))), dtype)

    return draw


def _quantile_function(initializer, shape):
    """Returns the function that makes of uniform numbers what an initializer of Keras draws."""
    initializers = tf.keras.initializers
    if isinstance(initializer, initializers.RandomUniform):
        return _uniform_quantile(initializer.minval, initializer.maxval)
    if isinstance(initializer, initializers.RandomNormal):
        return lambda uniform: initializer.mean + initializer.stddev * tf.math.ndtri(uniform)
    if isinstance(initializer, initializers.TruncatedNormal):
        return _truncated_normal_quantile(initializer.mean, initializer.stddev)
    if isinstance(initializer, initializers.VarianceScaling):
        *receptive_field, fan_in, fan_out = [1] * (2 - shape.rank) + shape.as_list()
        if shape.rank == 1:
            fan_in = fan_out
        field = math.prod(receptive_field)
        fans = {"fan_in": fan_in * field, "fan_out": fan_out * field}
        fans["fan_avg"] = (fans["fan_in"] + fans["fan_out"]) / 2
        variance = initializer.scale / max(1.0, fans[initializer.mode])
        if initializer.distribution == "uniform":
            return _uniform_quantile(-math.sqrt(3 * variance), math.sqrt(3 * variance))
        if initializer.distribution == "untruncated_normal":
            return lambda uniform: math.sqrt(variance) * tf.math.ndtri(uniform)
        # What cutting at two standard deviations leaves of one.
        return _truncated_normal_quantile(0.0, math.sqrt(variance) / 0.87962566103423978)
    return None


def _uniform_quantile(low: float, high: float):
    return lambda uniform: low + (high - low) * uniform


def _truncated_normal_quantile(mean: float, stddev: float):
    below = 0.5 * math.erfc(math.sqrt(2.0))  # The probability of less than -2.
    return lambda uniform: mean + stddev * tf.math.ndtri(below + (1 - 2 * below) * uniform)


def _check_layer(layer) -> None:
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
    is_random = isinstance(layer, tf.keras.__internal__.layers.BaseRandomLayer)
    if is_random and type(layer) is not tf.keras.layers.Dropout:
        raise ValueError(
            f"The layer {layer.name} ({type(layer).__name__}) draws random numbers that do not"
            " follow from the seed of a client; Dropout is the random layer that can be used."
        )


def _check_regularizers(layers, weights: Sequence[Weight]) -> None:
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


def _check_calls(model: FunctionalModel, layers) -> None:
    """Raises ValueError if calls cannot be vectorised, or if examples of a batch meet."""
    batch_size = 3
    generator = np.random.default_rng(0)
    values = [
        generator.normal(
            size=[batch_size, weight.shape[1]] if weight.is_item_table else weight.shape
        ).astype(weight.dtype.as_numpy_dtype)
        for weight in model.weights
    ]
    item_ids = np.zeros(batch_size, np.int32)

    @tf.function(autograph=False)
    def call(item_ids, values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            predictions = model.predict(item_ids, values, dropout_seed=tf.constant(0, tf.uint32))
        gradients = tape.gradient(predictions, values)
        return predictions, [tf.convert_to_tensor(g) for g in gradients if g is not None]

    names = {layer.name for layer in layers}
    try:
        traced = call.get_concrete_function(item_ids, values)
    except Exception as error:
        raise ValueError(
            f"{_guilty(error, names)} cannot be called with other values in place of its weights:"
            f" {_reason(error)}"
        ) from error
    operations = traced.graph.get_operations()
    for operation in operations:
        if operation.op_def.is_stateful:
            raise ValueError(
                f"The layer {_layer_of(operation, names)} runs {operation.type}, which has a state"
                " or draws random numbers, so clients cannot share one call of it."
            )
    if traced.captured_inputs:
        raise ValueError(
            "The model uses a tensor or a variable that is no weight of its layers"
            f" ({traced.captured_inputs[0]!r}); make it one, untrainable if it is a constant."
        )

    def call_for_many(item_ids, values):
        return tf.vectorized_map(
            lambda client: call(*client), (item_ids, values), fallback_to_while_loop=False
        )

    for_two = tf.nest.map_structure(lambda value: np.stack([value, value]), (item_ids, values))
    try:
        with _tensorflow_log_held_back():
            tf.function(call_for_many, autograph=False).get_concrete_function(*for_two)
    except Exception as error:
        raise ValueError(
            f"{_guilty(error, names, operations)} cannot be vectorised over clients:"
            f" {_reason(error)}"
        ) from error

    changed = [
        np.concatenate([value[:1], value[1:] + 1.0]) if weight.is_item_table else value
        for weight, value in zip(model.weights, values)
    ]
    alone, beside_others = (traced(item_ids, v)[0][0].numpy() for v in (values, changed))
    if not np.isclose(alone, beside_others, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            "The prediction for an item depends on the other items of its batch, so padding a batch"
            " would change it; the model must treat each example by itself."
        )


def _layer_of(operation, names) -> str:
    """Returns the innermost layer that an operation is of, by the scopes that Keras names it in."""
    found = [part for part in operation.name.split("/") if part in names]
    return found[-1] if found else operation.name


def _guilty(error: Exception, names, operations=()) -> str:
    """Returns which layer an error of TensorFlow speaks of, as well as can be told."""
    text = str(error)
    named = re.findall(r"layer ['\"]([^'\"]+)['\"]", text)
    named += [part for path in re.findall(r'name: "([^"]+)"', text) for part in path.split("/")]
    types = set(re.findall(r"op '(\w+)'", text))
    suspects = [op for op in operations if op.type in types]
    # TensorFlow names nothing where it fails inside of a loop, but only loops have lists.
    suspects += [op for op in operations if any(out.dtype == tf.variant for out in op.outputs)]
    named += [part for op in suspects for part in op.name.split("/")]
    return next((f"The layer {name}" for name in named if name in names), "The model")


def _reason(error: Exception) -> str:
    """Returns what an error of TensorFlow says behind its report of the user's code, in a line."""
    lines = [line.strip() for line in str(error).split("Call arguments")[0].splitlines()]
    first = next((n for n, line in enumerate(lines) if re.match(r"\w+Error: ", line)), 0)
    return " ".join(" ".join(lines[first:]).split()).split(' name: "')[0]


@contextlib.contextmanager
def _tensorflow_log_held_back() -> Iterator[None]:
    """Keeps TensorFlow from printing, for a while, what it also raises."""

    def refuse(record):
        return False

    logger = tf.get_logger()
    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)
