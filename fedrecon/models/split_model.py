"""The split contract: a Keras model whose layers are each either global or local.

The federation trains global layers. Local layers never leave the device; in FedRecon a client fits
them anew in every round. Every algorithm takes a `SplitModel`, and every model of this package
returns one.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import tensorflow as tf
import tensorflow_federated as tff


@dataclasses.dataclass(frozen=True, eq=False)
class SplitModel:
    """A Keras model, the split of its weights, its examples, loss and metrics.

    Attributes:
      keras_model: A functional model, built and not compiled; from `x` to predictions `[batch, 1]`.
        Its regularization losses count in training (see `to_reconstruction_model`).
      global_layers: The layers whose weights the federation trains. A layer without weights may be
        left out.
      local_layers: The layers whose weights stay on the device. Every weight of the model is in
        exactly one listed layer. A nested layer is listed itself or through its parent, not both.
      input_spec: A mapping with the keys `x` and `y`: the specs of a batch of inputs and of labels.
      loss_fn: Returns a new loss; takes `reduction=...` or no argument, as the classes of
        `tf.keras.losses` do.
      metrics_fn: Returns a list of new metrics at every call.

    Raises:
      ValueError: If the model is compiled or not built, if `input_spec` has other keys, or if the
        listed layers do not hold each weight of the model exactly once and nothing else.
    """

    keras_model: tf.keras.Model
    global_layers: tuple[tf.keras.layers.Layer, ...]
    local_layers: tuple[tf.keras.layers.Layer, ...]
    input_spec: Mapping[str, tf.TensorSpec]
    loss_fn: Callable[..., tf.keras.losses.Loss]
    metrics_fn: Callable[[], list[tf.keras.metrics.Metric]]

    def __post_init__(self):
        object.__setattr__(self, "global_layers", tuple(self.global_layers))
        object.__setattr__(self, "local_layers", tuple(self.local_layers))
        _check_model(self.keras_model)
        _check_input_spec(self.input_spec)
        _check_split(self.keras_model, self.global_layers, self.local_layers)

    @property
    def global_trainable_weights(self) -> list[tf.Variable]:
        """The global weights that training changes, by layer."""
        return [weight for layer in self.global_layers for weight in layer.trainable_weights]

    @property
    def global_non_trainable_weights(self) -> list[tf.Variable]:
        """The other global weights, by layer."""
        return [weight for layer in self.global_layers for weight in layer.non_trainable_weights]

    @property
    def global_weights(self) -> list[tf.Variable]:
        """The global weights in TFF's order: trainable ones, then the others."""
        return self.global_trainable_weights + self.global_non_trainable_weights

    @property
    def local_trainable_weights(self) -> list[tf.Variable]:
        """The local weights that reconstruction changes, by layer."""
        return [weight for layer in self.local_layers for weight in layer.trainable_weights]

    @property
    def local_non_trainable_weights(self) -> list[tf.Variable]:
        """The other local weights, by layer."""
        return [weight for layer in self.local_layers for weight in layer.non_trainable_weights]

    @property
    def local_weights(self) -> list[tf.Variable]:
        """The local weights, in the same order as the global ones."""
        return self.local_trainable_weights + self.local_non_trainable_weights

    def to_reconstruction_model(self) -> tff.learning.models.ReconstructionModel:
        """Returns this model in the form that stock TFF takes; both share the weights.

        It differs from TFF's `ReconstructionModel.from_keras_model_and_layers` in one thing:
        regularization works. `tff.learning.algorithms.build_fed_recon` differentiates only
        `loss_fn(labels, predictions)`, so it ignores `keras_model.losses` without a word. Here the
        predictions carry these losses. The predictions keep their values, but the gradient of a
        loss of them with respect to any weight w is
        `d loss / dw + d sum(keras_model.losses) / dw`. Reported losses and metrics are values, so
        they count the data alone.

        The added term is the same whatever is differentiated. So this is right for one scalar loss
        of one `forward_pass`, as TFF uses it, but not for a scaled loss or per-example gradients.
        """
        return _RegularizedReconstructionModel(self)


# Builds the model anew at each call, with the same initial values each time.
ModelFn = Callable[[], SplitModel]


def rating_input_spec() -> collections.OrderedDict[str, tf.TensorSpec]:
    """Returns the spec of a batch of one user's ratings.

    `x`: the ids of the items, `[batch, 1]` int64. `y`: the ratings, or 0 and 1 for implicit
    feedback, `[batch, 1]` float32.
    """
    return collections.OrderedDict(
        x=tf.TensorSpec([None, 1], tf.int64), y=tf.TensorSpec([None, 1], tf.float32)
    )


class _BatchOutput(NamedTuple):
    """The result of `forward_pass`; TFF's own class of these fields has no public name."""

    predictions: tf.Tensor
    labels: tf.Tensor
    num_examples: tf.Tensor


class _RegularizedReconstructionModel(tff.learning.models.ReconstructionModel):
    """See `SplitModel.to_reconstruction_model`."""

    def __init__(self, split_model: SplitModel):
        self._split_model = split_model

    @property
    def global_trainable_variables(self):
        return self._split_model.global_trainable_weights

    @property
    def global_non_trainable_variables(self):
        return self._split_model.global_non_trainable_weights

    @property
    def local_trainable_variables(self):
        return self._split_model.local_trainable_weights

    @property
    def local_non_trainable_variables(self):
        return self._split_model.local_non_trainable_weights

    @property
    def input_spec(self):
        return self._split_model.input_spec

    @tf.function
    def forward_pass(self, batch_input, training=True):
        if hasattr(batch_input, "_asdict"):
            batch_input = batch_input._asdict()
        if isinstance(batch_input, Mapping):
            inputs, labels = batch_input["x"], batch_input["y"]
        else:
            inputs, labels = batch_input
        keras_model = self._split_model.keras_model
        predictions = keras_model(inputs, training=training)
        # Each reading computes the losses anew from the weights. After the call and inside this
        # function, the caller's tape can see that.
        regularization_losses = keras_model.losses
        if regularization_losses:
            predictions = _attach(predictions, tf.add_n(regularization_losses))
        return _BatchOutput(
            predictions=predictions,
            labels=labels,
            num_examples=tf.shape(tf.nest.flatten(inputs)[0])[0],
        )


@tf.custom_gradient
def _attach(predictions, regularization):
    """Returns `predictions`; their gradient function adds the gradient of `regularization`."""

    def gradient(upstream):
        return upstream, tf.ones_like(regularization)

    return tf.identity(predictions), gradient


def _check_model(keras_model: tf.keras.Model) -> None:
    if keras_model._is_compiled:
        raise ValueError(
            f"The Keras model {keras_model.name} is compiled, but a split model takes its loss and"
            " its optimizers separately; pass the model uncompiled."
        )
    if not keras_model.built:
        raise ValueError(
            f"The Keras model {keras_model.name} is not built and so has no weights to split;"
            " pass a functional model."
        )


def _check_input_spec(input_spec: Mapping[str, tf.TensorSpec]) -> None:
    found = sorted(input_spec) if isinstance(input_spec, Mapping) else type(input_spec).__name__
    if found != ["x", "y"]:
        raise ValueError(f"input_spec must be a mapping with the keys x and y, but it has {found}.")


def _check_split(
    keras_model: tf.keras.Model,
    global_layers: Iterable[tf.keras.layers.Layer],
    local_layers: Iterable[tf.keras.layers.Layer],
) -> None:
    """Raises ValueError unless each weight of the model is in exactly one of the layers."""
    of_model = {weight.ref() for weight in keras_model.weights}
    holders = {}
    for part, layers in (("global", global_layers), ("local", local_layers)):
        for layer in layers:
            for weight in layer.weights:
                if weight.ref() not in of_model:
                    raise ValueError(
                        f"The {part} layer {layer.name} holds the weight {weight.name}, which is"
                        f" not in the Keras model {keras_model.name}."
                    )
                if weight.ref() in holders:
                    other_part, other_name = holders[weight.ref()]
                    raise ValueError(
                        f"The weight {weight.name} is listed twice: in the {other_part} layer"
                        f" {other_name} and in the {part} layer {layer.name}."
                    )
                holders[weight.ref()] = (part, layer.name)
    unlisted = [weight.name for weight in keras_model.weights if weight.ref() not in holders]
    if unlisted:
        raise ValueError(
            f"These weights of the Keras model {keras_model.name} are in no global or local layer:"
            f" {', '.join(unlisted)}."
        )
