"""A model called with given weights, against the same Keras model whose variables hold them."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models import functional
from tests.models.small_models import (
    BCE,
    IDS,
    MSE,
    assert_all_close,
    assert_close,
    assert_same_state,
    call_keras,
    draw_values,
    given_values,
    keras_predict,
    predict_and_differentiate,
    small_model,
    state_of,
    uint32,
)


@pytest.mark.slow
@pytest.mark.parametrize("ids", [IDS, np.array([2, 2, 2, 2], np.int64)], ids=["mixed", "same"])
def test_predictions_and_gradients_are_those_of_the_keras_model(models, ids):
    split, model = models
    wholes = draw_values(model)
    expected, expected_gradients, _, _ = call_keras(split, wholes, ids)
    given = [tf.constant(value) for value in given_values(model, wholes, ids)]
    predictions, gradients = predict_and_differentiate(model, ids, given)
    assert_close(predictions, expected)
    assert np.ptp(expected) > 0.01 or ids is not IDS  # Else anything would pass.
    for weight, gradient, oracle in zip(model.weights, gradients, expected_gradients):
        gradient = gradient.numpy()
        if weight.is_item_table:
            rows, gradient = gradient, np.zeros_like(oracle)
            np.add.at(gradient, ids, rows)
        assert_close(gradient, oracle)


@pytest.mark.slow
def test_a_call_changes_nothing_of_the_keras_model(models):
    split, model = models
    given = given_values(model, draw_values(model))
    misshapen = [*given[:-1], np.zeros([7, 5, 3], np.float32)]
    expected, before = keras_predict(split), state_of(split)
    model.predict(IDS, given)
    model.predict(IDS, given, dropout_seed=uint32(1))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        model.predict(IDS, misshapen, dropout_seed=uint32(1))
    assert_same_state(split, before)
    np.testing.assert_array_equal(keras_predict(split), expected)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_clients_at_once_are_as_one_by_one(models, jit_compile):
    _, model = models
    of_ids = enumerate((IDS, np.array([1, 1, 4, 0], np.int32)))
    clients = [(ids, given_values(model, draw_values(model, seed), ids)) for seed, ids in of_ids]
    one = functools.partial(predict_and_differentiate, model)

    @tf.function(jit_compile=jit_compile)
    def at_once(stacked):
        return tf.vectorized_map(lambda c: one(*c), stacked, fallback_to_while_loop=False)

    predictions, gradients = at_once(tf.nest.map_structure(lambda *v: np.stack(v), *clients))
    for client, (ids, given) in enumerate(clients):
        expected, expected_gradients = one(ids, [tf.constant(v) for v in given])
        assert_close(predictions[client], expected)
        assert_all_close([g[client] for g in gradients], expected_gradients)


def _summed(reduction=tf.keras.losses.Reduction.SUM):
    return MSE(reduction=reduction)


_HUBER = functools.partial(tf.keras.losses.Huber, delta=0.3)


@pytest.mark.parametrize("loss_fn", [MSE, BCE, _HUBER, _summed])
def test_batch_loss_is_the_loss_of_the_unmasked_examples(loss_fn):
    generator = np.random.default_rng(0)
    mask = generator.random([2, 3, 5]) < 0.6
    mask[0, 1], mask[1, 2] = False, True
    labels = generator.integers(2, size=mask.shape).astype(np.float32)
    predictions = generator.uniform(0.1, 0.9, size=mask.shape).astype(np.float32)
    expected = np.zeros([2, 3])
    for at in np.ndindex(2, 3):
        if mask[at].any():
            real = [values[at][mask[at]][:, None] for values in (labels, predictions)]
            expected[at] = loss_fn()(*real)
    loss = functional.batch_loss(loss_fn)
    np.testing.assert_allclose(loss(labels, predictions, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(labels[1, 0], predictions[1, 0], mask[1, 0]), expected[1, 0])
    for junk in (np.nan, np.inf):
        spoilt = [np.where(mask, values, junk) for values in (labels, predictions)]
        np.testing.assert_allclose(loss(*spoilt, mask), expected, rtol=1e-5)


def test_batch_loss_by_hand():
    labels, predictions = tf.constant([[1.0, 2.0, 9.0]]), tf.constant([[2.0, 4.0, 0.0]])
    mask = tf.constant([[True, True, False]])
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        mean = functional.batch_loss(MSE)(labels, predictions, mask)
    np.testing.assert_array_equal(mean, [2.5])
    np.testing.assert_array_equal(tape.gradient(mean, predictions), [[1, 2, 0]])
    total = functional.batch_loss(_summed)(labels, predictions, mask)
    np.testing.assert_array_equal(total, [5])
    model = functional.FunctionalModel(small_model())
    np.testing.assert_array_equal(model.loss(labels, predictions, mask), [2.5])


def test_a_loss_for_each_example_is_refused():
    with pytest.raises(ValueError, match="mean_squared_error has reduction 'none'"):
        functional.batch_loss(functools.partial(MSE, reduction="none"))
