"""Models that clients cannot call are refused, and the refusal names the layer."""

import pytest
import tensorflow as tf

from fedrecon.models import functional, functional_checks
from fedrecon.models.matrix_factorization import matrix_factorization
from tests.models.small_models import (
    IDS,
    NUM_ITEMS,
    K,
    assert_close,
    assert_same_state,
    call_keras,
    draw_values,
    given_values,
    item_embedding,
    small_model,
    small_plus,
    state_of,
    steps,
    uint32,
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


@tf.function
def _noise_like(row):
    return tf.random.uniform(tf.shape(row))


class _AlwaysDrops(K.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


# Models, and what their refusals say.
_REFUSED = {
    "batch_normalization": (
        lambda: small_model(K.BatchNormalization(name="guilty")),
        r"guilty \(BatchNormalization\) normalizes by the statistics of a batch",
    ),
    "noise": (
        lambda: small_model(K.GaussianNoise(0.1, name="guilty")),
        r"guilty \(GaussianNoise\) runs RandomStandardNormal, which draws random numbers",
    ),
    "random_op": (
        lambda: small_model(_lambda(lambda row: row + tf.random.normal(tf.shape(row)))),
        r"guilty \(Lambda\) runs RandomStandardNormal, which draws random numbers",
    ),
    "random_op_in_a_function": (
        lambda: small_model(_lambda(lambda row: row + _noise_like(row))),
        r"guilty \(Lambda\) runs RandomUniform, which draws random numbers",
    ),
    "dropout_of_its_own": (
        lambda: small_model(_AlwaysDrops(0.5, name="guilty")),
        r"guilty \(_AlwaysDrops\) runs RandomUniform",
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
        "guilty .* runs ReadVariableOp, which has a state",
    ),
    "constant": (lambda: small_model(_captures(tf.ones([300]))), r"no weight .*shape=\(300,\)"),
    "added_loss": (lambda: small_model(_AddsLoss(name="guilty")), "guilty adds a loss"),
    "no_initializer": (
        lambda: small_plus(makes_layer=True),  # So `build` cannot be asked again.
        r"guilty/entries has no .*\(entries_initializer\).*`self.entries_initializer = ",
    ),
    "local_lstm": (
        lambda: small_model(
            lambda row: K.LSTM(2, recurrent_initializer="zeros", name="lstm")(steps(row)),
            local=("lstm", "taste"),
        ),
        "lstm_cell/bias does not have the value .*unit_forget_bias=False",
    ),
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


def test_dropout_inside_a_recurrent_layer_is_refused():
    split = small_model(lambda row: K.GRU(2, dropout=0.5, name="gru")(steps(row)))
    with pytest.raises(ValueError, match=r"\(GRUCell\) runs RandomUniform, which draws random"):
        functional.FunctionalModel(split)


# Layers that could draw and here do not.
_ACCEPTED = {
    "gaussian_dropout": lambda: small_model(K.GaussianDropout(0.0)),
    "alpha_dropout": lambda: small_model(K.AlphaDropout(0.0)),
    "gru_in_steps": lambda: small_model(lambda row: K.GRU(2, unroll=True)(steps(row))),
    "layer_normalization": lambda: small_model(K.LayerNormalization()),
    "local_lstm": lambda: small_model(
        lambda row: K.LSTM(
            2, recurrent_initializer="he_normal", unit_forget_bias=False, name="lstm"
        )(steps(row)),
        local=("lstm", "taste"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("build", _ACCEPTED.values(), ids=_ACCEPTED)
def test_a_layer_that_could_draw_and_does_not_is_accepted(build):
    split = build()
    model = functional.FunctionalModel(split)
    wholes = draw_values(model)
    seed = uint32(4)
    predictions = model.predict(IDS, given_values(model, wholes), dropout_seed=seed)
    assert_close(predictions, call_keras(split, wholes)[0])


@pytest.mark.slow
def test_a_model_that_is_built_again_is_not_vectorized_again(monkeypatch):
    vectorized = []
    check = functional_checks._check_vectorizes
    monkeypatch.setattr(
        functional_checks, "_check_vectorizes", lambda *a: vectorized.append(a) or check(*a)
    )
    monkeypatch.setattr(functional_checks, "_VECTORIZES", set())

    def build(dim=3, **kwargs):
        functional.FunctionalModel(matrix_factorization(NUM_ITEMS, dim, **kwargs))
        return len(vectorized)

    assert [build(), build(seed=5), build()] == [1, 1, 1]
    assert [build(2), build(item_bias=True), build(2)] == [2, 3, 3]
    # A refusal is not remembered as a pass.
    for _ in range(2):
        with pytest.raises(ValueError, match="guilty cannot be vectorized"):
            functional.FunctionalModel(small_model(_lambda(tf.sort)))
    assert len(vectorized) == 5
