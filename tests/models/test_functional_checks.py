"""Models that clients cannot call are refused, and the refusal names the layer."""

import pytest
import tensorflow as tf

from fedrecon.models import functional
from tests.models.small_models import (
    K,
    assert_same_state,
    item_embedding,
    small_model,
    small_plus,
    state_of,
)


class _AddsLoss(K.Layer):
    def call(self, row):
        self.add_loss(tf.reduce_sum(row))
        return row


def _lambda(function):
    return K.Lambda(function, name="guilty")


def _convolution(row):
    return K.Flatten()(K.Conv1D(2, 2, name="guilty")(K.Reshape([3, 1])(row)))


def _captures(tensor):
    return _lambda(lambda row: row * tensor[..., :3])


# Models, and what their refusals say.
_REFUSED = {
    "batch_normalization": (
        lambda: small_model(K.BatchNormalization(name="guilty")),
        "layer guilty",
    ),
    "noise": (
        lambda: small_model(K.GaussianNoise(0.1, name="guilty")),
        r"guilty \(GaussianNoise\)",
    ),
    "random_op": (
        lambda: small_model(_lambda(lambda row: row + tf.random.normal(tf.shape(row)))),
        "guilty runs RandomStandardNormal, which has a state or draws random numbers",
    ),
    "activity_regularizer": (
        lambda: small_model(K.Dense(2, activity_regularizer="l2", name="guilty")),
        "guilty has an activity regularizer",
    ),
    "mask_zero": (
        lambda: small_model(embed=item_embedding(name="guilty", mask_zero=True)),
        "guilty has ma",
    ),
    "sort": (lambda: small_model(_lambda(tf.sort)), "guilty cannot be vectorized .*TopKV2"),
    "loop": (
        lambda: small_model(_lambda(lambda rows: tf.map_fn(lambda row: row * 2.0, rows))),
        "guilty cannot be vectorized",
    ),
    "convolution": (
        lambda: small_model(_convolution),
        "guilty cannot be vectorized .*loop invariant",
    ),
    "mixed_examples": (
        lambda: small_model(_lambda(lambda row: row - tf.reduce_mean(row, axis=0))),
        "depends on the other items of its batch",
    ),
    "variable": (
        lambda: small_model(_captures(tf.Variable([1.0] * 3))),
        "guilty runs ReadVariableOp",
    ),
    "constant": (lambda: small_model(_captures(tf.ones([300]))), r"no weight .*shape=\(300,\)"),
    "added_loss": (lambda: small_model(_AddsLoss(name="guilty")), "guilty adds a loss"),
    "no_initializer": (small_plus, r"guilty/entries has no .*\(entries_initializer\)"),
    "in_a_list": (lambda: small_plus(in_a_list=True), "guilty/entries:0 is no attribute"),
    "initializer": (
        lambda: small_plus((3, 3), tf.keras.initializers.Orthogonal()),
        "entries .*Orthogonal",
    ),
}


@pytest.mark.parametrize(("build", "message"), _REFUSED.values(), ids=_REFUSED)
def test_what_cannot_be_called_for_many_clients_is_refused(build, message):
    split = build()
    before = state_of(split)
    with pytest.raises(ValueError, match=message):
        functional.FunctionalModel(split)
    assert_same_state(split, before)


def test_what_tensorflow_logs_of_a_refusal_is_held_back(caplog):
    split = small_model(_convolution)
    with pytest.raises(ValueError, match="guilty"):
        functional.FunctionalModel(split)
    assert caplog.text == ""

    # Only then: the same outside of a refusal is logged.
    def convolve(kernel):
        return tf.nn.conv1d(tf.ones([2, 3, 1]), kernel, 1, "VALID")

    with pytest.raises(ValueError, match="loop invariant"):
        tf.function(tf.vectorized_map)(convolve, tf.ones([2, 2, 1, 1]), False)
    assert "Got error while pfor was converting" in caplog.text
