"""The weights of a model: which they are, which are item tables, and their regularization."""

import pytest
import tensorflow as tf

from fedrecon.models import functional, layers
from fedrecon.models.weights import regularization
from tests.models.small_models import (
    IDS,
    MODELS,
    K,
    assert_all_close,
    assert_close,
    call_keras,
    draw_values,
    given_values,
    gradients_of,
    item_embedding,
    shift,
    small_model,
)


@pytest.mark.slow
def test_the_weights_are_those_of_the_split_model_in_its_order(models):
    split, model = models
    trainable = {v.ref() for v in split.keras_model.trainable_weights}
    for weights, variables, is_local in (
        (model.global_weights, split.global_weights, False),
        (model.local_weights, split.local_weights, True),
    ):
        refs = [getattr(*weight.sites[0]).ref() for weight in weights]
        assert refs == [v.ref() for v in variables]
        assert [w.trainable for w in weights] == [ref in trainable for ref in refs]
        assert {w.is_local for w in weights} == {is_local}
        assert [(w.shape, w.dtype) for w in weights] == [(v.shape, v.dtype) for v in variables]
    assert model.weights == model.global_weights + model.local_weights


@pytest.mark.slow
def test_names_are_layer_and_attribute(models):
    names = [weight.name.removesuffix("_1") for weight in models[1].weights]
    sites = [weight.sites[0] for weight in models[1].weights]
    assert names == [f"{layer.name}/{attribute}" for layer, attribute in sites]


@pytest.mark.slow
def test_names_differ():
    model = functional.FunctionalModel(MODELS["bidirectional"]())
    cell = ["kernel", "recurrent_kernel", "bias"]
    assert [weight.name for weight in model.weights] == [
        "item/embeddings",
        *(f"simple_rnn_cell/{attribute}" for attribute in cell),
        *(f"simple_rnn_cell/{attribute}_1" for attribute in cell),
        "taste/kernel",
        "taste/bias",
    ]


@pytest.mark.slow
def test_regularization_is_the_sum_of_the_losses_of_the_keras_model(models):
    split, model = models
    wholes = [tf.constant(value) for value in draw_values(model)]
    _, _, expected_gradients, expected = call_keras(split, wholes)
    with tf.GradientTape() as tape:
        tape.watch(wholes)
        value = regularization(model.weights, wholes)
    assert_close(value, expected)
    assert_all_close(gradients_of(tape, value, wholes), expected_gradients)
    # Of an item table, rows alone give the gradient of these rows.
    for weight, whole, gradient in zip(model.weights, wholes, expected_gradients):
        if weight.is_item_table:
            rows = tf.gather(whole, IDS)
            with tf.GradientTape() as tape:
                tape.watch(rows)
                value = regularization([weight], [rows])
            assert_all_close(gradients_of(tape, value, [rows]), [gradient[IDS]])


def _called_again_on(change):
    """An embedding, used as one layer, whose rows of `change(ids)` are added to those of `ids`."""
    embedding = item_embedding()
    return lambda ids: K.Add()([embedding(ids), embedding(change(ids))])


class _Tied(K.Layer):
    """Products with all rows of a table that is an embedding's, past Keras's tracking."""

    def __init__(self, embedding):
        super().__init__(name="tied")
        embedding.build(None)
        vars(self)["embeddings"] = embedding.embeddings

    def call(self, row):
        return tf.matmul(row, self.embeddings, transpose_b=True)


def _tied():
    embedding = item_embedding()
    return small_model(_Tied(embedding), embed=embedding)


def _regularized(regularizer):
    return lambda: small_model(embed=item_embedding(embeddings_regularizer=regularizer))


_REGULARIZERS = tf.keras.regularizers
_ITEM_TABLES = {
    "direct": small_model,
    "reshape": lambda: small_model(ids=K.Reshape([1, 1, 1])),
    "flatten": lambda: small_model(ids=lambda ids: K.Flatten()(K.Reshape([1, 1])(ids))),
    "twice_on_ids": lambda: small_model(embed=_called_again_on(K.Reshape([1]))),
    "frozen": lambda: small_model(embed=item_embedding(trainable=False)),
    "l1": _regularized(_REGULARIZERS.L1(0.1)),
    "l2": _regularized(_REGULARIZERS.L2(0.1)),
    "l1_l2": _regularized(_REGULARIZERS.L1L2(0.1, 0.1)),
}
_WHOLE_TABLES = {
    "spread_out": _regularized(layers.SpreadOut(0.1)),
    "orthogonal": _regularized(_REGULARIZERS.OrthogonalRegularizer(0.1)),
    "lambda": lambda: small_model(ids=shift),
    "arithmetic": lambda: small_model(ids=lambda ids: ids % 4),
    "reshaped_arithmetic": lambda: small_model(ids=lambda ids: K.Reshape([1])(ids % 4)),
    "tied": _tied,
    "shared": lambda: small_model(embed=_called_again_on(shift)),
    "local": lambda: small_model(local=("item", "taste")),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [*_ITEM_TABLES, *_WHOLE_TABLES])
def test_item_tables_are_looked_up_by_the_ids_themselves(case):
    split = {**_ITEM_TABLES, **_WHOLE_TABLES}[case]()
    model = functional.FunctionalModel(split)
    (weight,) = [w for w in model.weights if w.name == "item/embeddings"]
    assert weight.is_item_table == (case in _ITEM_TABLES)
    assert weight.trainable == (case != "frozen")
    wholes = draw_values(model)
    assert_close(model.predict(IDS, given_values(model, wholes)), call_keras(split, wholes)[0])
