"""The Keras model of a `SplitModel` as a pure function of one client's weights.

As `torch.func.functional_call` does for a module, this calls the same Keras model with tensors in
place of its variables. A call reads and writes no variable, so it can be vectorized over clients
(`tf.vectorized_map`), differentiated and compiled by XLA.

A global embedding table that the item ids themselves look up is an **item table**. A call never
takes it whole: it takes the rows of the batch's items, one for each example, in place of the result
of the lookup. So the cost of a client does not grow with the catalog. All other global weights are
**dense**; a call takes them and the local weights whole.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from fedrecon.models import client_randomness, functional_checks
from fedrecon.models.split_model import SplitModel
from fedrecon.models.weights import describe_weight, find_sites, with_unique_names

_ABSENT = object()


class FunctionalModel:
    """A `SplitModel` whose weights are arguments.

    Attributes:
      weights: All `Weight`s, the global ones before the local ones.
      global_weights: The global `Weight`s, in the order of `SplitModel.global_weights`.
      local_weights: The local `Weight`s, in the order of `SplitModel.local_weights`.
    """

    def __init__(self, model: SplitModel):
        """Takes the model apart.

        Args:
          model: Nothing else may call its Keras model while a method of this object runs.

        Raises:
          ValueError: If the model does not vectorize over clients, or if a vectorized call would
            give other numbers than the Keras model; the message names the layer.
        """
        self._model = model
        item_id = functional_checks.check_interface(model.keras_model)
        layers = list(model.keras_model._flatten_layers(include_self=False))
        for layer in layers:
            functional_checks.check_layer(layer)
        sites = find_sites(layers)
        trainable = {
            variable.ref()
            for variable in model.global_trainable_weights + model.local_trainable_weights
        }

        def describe(variable, *, is_local):
            return describe_weight(
                variable,
                sites,
                is_trainable=variable.ref() in trainable,
                is_local=is_local,
                item_id=item_id,
            )

        weights = [describe(variable, is_local=False) for variable in model.global_weights]
        weights += [describe(variable, is_local=True) for variable in model.local_weights]
        self.weights = tuple(with_unique_names(weights))
        self.global_weights = tuple(weight for weight in self.weights if not weight.is_local)
        self.local_weights = tuple(weight for weight in self.weights if weight.is_local)
        # A subclass with a `call` of its own may drop out when it predicts, too.
        self._dropouts = [
            layer
            for layer in layers
            if getattr(type(layer), "call", None) is tf.keras.layers.Dropout.call
        ]
        self._recurrent = [layer for layer in layers if isinstance(layer, tf.keras.layers.RNN)]
        self._one_row = [layer for layer in layers if _returns_one_row(layer)]
        self._loss = batch_loss(model.loss_fn)
        functional_checks.check_regularizers(layers, self.weights)
        functional_checks.check_calls(self.predict, self.weights, layers)

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
          values: A value for each of `weights`: of an item table the rows of the batch's items,
            `[batch, dim]`, and of any other weight the whole.
          dropout_seed: A scalar uint32. If given, the model is called as in training, and all
            dropout follows from the seed. If None, the model is called as in prediction.

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
        for layer in self._recurrent:
            # The steps one after the other, since a loop does not vectorize.
            attributes += [(layer, "unroll", True), (layer, "_could_use_gpu_kernel", False)]
        for layer in self._one_row:
            attributes.append((layer, "call", _repeated(layer.call, tf.shape(item_ids)[0])))
        is_training = dropout_seed is not None
        if is_training:
            for number, layer in enumerate(self._dropouts):
                seed = client_randomness.fold_in(dropout_seed, number)
                call = client_randomness.seeded_dropout(layer, seed)
                attributes.append((layer, "call", call))
        with _attributes_replaced(attributes):
            inputs = tf.cast(item_ids, tf.int64)[:, tf.newaxis]
            predictions = _autograph(_call)(self._model.keras_model, inputs, is_training)
        return tf.reshape(predictions, [-1])

    def loss(self, labels: tf.Tensor, predictions: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Returns the loss of a batch, without regularization; see `batch_loss`."""
        return self._loss(labels, predictions, mask)

    def initial_local_values(self, seeds: tf.Tensor) -> list[tf.Tensor]:
        """Returns fresh local values with the distributions of the layers' own initializers.

        Args:
          seeds: uint32, `[clients]`, or a scalar for one client. A client's seed takes the place of
            the initializers' seeds. An initializer that takes no seed gives the same values to
            every client.

        Returns:
          For each of `local_weights` a tensor `[clients, ...]`, or `[...]` for a scalar seed.
        """
        return [
            weight.initializer(client_randomness.fold_in(seeds, index))
            for index, weight in enumerate(self.local_weights)
        ]


def _call(keras_model, inputs, training):
    return keras_model(inputs, training=training)


@functools.cache
def _autograph(function):
    """Returns a function under which layers may use `if` and `while` on tensors, as Keras allows.

    `tf.function(autograph=True)` does the same, but it also translates all of this package, which
    takes seconds.
    """
    return tf.autograph.to_graph(function)


def batch_loss(loss_fn: Callable[..., tf.keras.losses.Loss]):
    """Returns a function from labels, predictions and a mask of real examples to losses of batches.

    All three are `[..., batch]`; the result is `[...]`. It is the value of `loss_fn()` on the real
    examples of each batch, and 0 for a batch of padding alone. `loss_fn` is as in `SplitModel`.

    Raises:
      ValueError: If the loss is not one number for a batch.
    """
    reduction = loss_fn().reduction
    reductions = tf.keras.losses.Reduction
    if reduction not in (reductions.AUTO, reductions.SUM_OVER_BATCH_SIZE, reductions.SUM):
        raise ValueError(
            f"The loss {loss_fn().name} has reduction {reduction!r}, so it is not one number for a"
            " batch; sum and sum_over_batch_size (a mean) are."
        )
    # `call` is the loss of each example; the rest of a Keras loss only weighs and reduces.
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


def _given_rows(rows: tf.Tensor):
    """Returns a replacement for an item table's `call` that returns the given rows."""

    def call(ids):
        return tf.reshape(rows, [-1, *ids.shape[1:], rows.shape[-1]])

    return call


def _returns_one_row(layer) -> bool:
    """Returns whether a layer makes a batch of one from any batch, such as the user's own row."""
    nodes = [node for node in layer.inbound_nodes if not node.is_input]
    return bool(nodes) and all(
        all(tensor.shape[:1] == [None] for tensor in node.keras_inputs)
        and all(tensor.shape[:1] == [1] for tensor in tf.nest.flatten(node.outputs))
        for node in nodes
    )


def _repeated(call, num_examples: tf.Tensor):
    """Returns a replacement for `call` that repeats its one row for every example.

    Broadcasting would do the same for most layers. `Dot` broadcasts if it does not know the number
    of examples, as in stock TFF, and refuses if it does, as here.
    """

    def call_and_repeat(*args, **kwargs):
        row = call(*args, **kwargs)
        return tf.broadcast_to(row, [num_examples, *row.shape[1:]])

    return call_and_repeat


@contextlib.contextmanager
def _attributes_replaced(replacements: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Replaces attributes of objects for a while, unseen by Keras's tracking of attributes."""
    originals = []
    try:
        for holder, name, value in replacements:
            originals.append((holder, name, vars(holder).get(name, _ABSENT)))
            vars(holder)[name] = value
        yield
    finally:
        for holder, name, original in reversed(originals):
            if original is _ABSENT:
                del vars(holder)[name]  # For example a method, which the class has.
            else:
                vars(holder)[name] = original
