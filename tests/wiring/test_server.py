"""The server's arithmetic, in plain TensorFlow, without a TFF computation."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.wiring import server
from tests.tiny import adam, sgd


def test_each_sum_is_divided_by_its_own_weight_and_by_nothing_if_that_is_zero():
    sums = [tf.constant([[2.0, 4.0], [6.0, 8.0], [0.0, 0.0]]), tf.constant(3.0)]
    weights = [tf.constant([[2.0], [4.0], [0.0]]), tf.constant(0.0)]
    first, second = server.weighted_means(sums, weights)
    np.testing.assert_array_equal(first, [[1.0, 2.0], [1.5, 2.0], [0.0, 0.0]])
    assert float(second) == 0.0


@pytest.mark.parametrize("count", range(1, 17))
def test_the_mean_of_equal_values_is_that_value(count):
    values = np.float32([0.5, 1.0, 3.0, 12345.0, 2.0**-70])  # So that their sums are exact.
    divide = tf.function(lambda total, weight: server.weighted_means([total], [weight])[0])
    found = divide(tf.constant(values * count), tf.constant(float(count)))
    np.testing.assert_array_equal(found, values)


def test_one_positive_weight_is_enough():
    zeros = [tf.constant(0.0), tf.zeros([3, 1])]
    assert not server.is_any_positive(zeros)
    assert server.is_any_positive([*zeros, tf.constant([[0.0], [2.0]])])


def step(update, *, optimizer=None, state=None, has_contributors=True):
    optimizer = (optimizer or sgd(0.5)).build()
    trainable = [tf.constant([1.0, 2.0]), tf.constant(3.0)]
    if state is None:
        specs = [tf.TensorSpec(value.shape, value.dtype) for value in trainable]
        state = tf.nest.map_structure(tf.convert_to_tensor, optimizer.initialize(specs))
    update = [tf.constant(value, tf.float32) for value in update]
    return server.take_step(
        optimizer, state, trainable, update, has_contributors=tf.constant(has_contributors)
    )


def test_the_optimizer_descends_along_the_update():
    taken = step([[2.0, -4.0], 1.0])
    np.testing.assert_array_equal(taken.trainable[0], [0.0, 4.0])
    assert float(taken.trainable[1]) == 2.5
    assert taken.is_finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_changes_neither_weights_nor_optimizer(bad):
    before = step([[1.0, 1.0], 1.0], optimizer=adam(0.1)).optimizer_state
    taken = step([[1.0, bad], 1.0], optimizer=adam(0.1), state=before)
    assert not taken.is_finite
    np.testing.assert_array_equal(taken.trainable[0], [1.0, 2.0])
    for old, new in zip(tf.nest.flatten(before), tf.nest.flatten(taken.optimizer_state)):
        np.testing.assert_array_equal(old, new)


def test_a_round_of_nobody_changes_neither_weights_nor_optimizer():
    before = step([[1.0, 1.0], 1.0], optimizer=adam(0.1)).optimizer_state
    # The momentum of earlier rounds would move the weights even if the update is zero.
    taken = step([[0.0, 0.0], 0.0], optimizer=adam(0.1), state=before, has_contributors=False)
    assert taken.is_finite
    np.testing.assert_array_equal(taken.trainable[0], [1.0, 2.0])
    for old, new in zip(tf.nest.flatten(before), tf.nest.flatten(taken.optimizer_state)):
        np.testing.assert_array_equal(old, new)
