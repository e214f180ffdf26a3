"""Layers against NumPy, and spread-out against its naive form."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models import layers


def _naive_spread_out(rows):
    """The norm of O, the Gram matrix of V = `rows` less its diagonal, and its gradient."""
    off_diagonal = rows @ rows.T
    np.fill_diagonal(off_diagonal, 0.0)
    norm = np.linalg.norm(off_diagonal)
    # d |O|^2 / dV = 4 O V, each pair counting twice.
    return norm, 2 * off_diagonal @ rows / norm


def _value_and_gradient(regularizer, rows):
    rows = tf.constant(rows, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = regularizer(rows)
    return value.numpy(), tape.gradient(value, rows).numpy()


def test_user_embedding_repeats_its_row_whatever_the_items():
    layer = layers.UserEmbedding(2, tf.constant_initializer([3.0, -1.0]))
    rows = layer(tf.constant([[7], [0], [7]], tf.int64))
    np.testing.assert_array_equal(rows, [[3, -1], [3, -1], [3, -1]])
    assert layer.embeddings.shape == (1, 2)


def test_gradient_of_the_users_row_sums_over_the_batch():
    layer = layers.UserEmbedding(2, "zeros")
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(layer(tf.zeros([3, 1], tf.int64)) * [[1, 10], [2, 20], [4, 40]])
    np.testing.assert_array_equal(tape.gradient(output, layer.embeddings), [[7, 70]])


def test_user_embedding_of_an_empty_batch():
    assert layers.UserEmbedding(2, "zeros")(tf.zeros([0, 1], tf.int64)).shape == (0, 2)


def test_user_embedding_refuses_dim_0():
    with pytest.raises(ValueError, match="bad needs dim >= 1, but dim is 0"):
        layers.UserEmbedding(0, "zeros", name="bad")


def test_bias_adds_one_number():
    layer = layers.Bias(tf.constant_initializer(0.5))
    np.testing.assert_array_equal(layer(tf.constant([[1.0], [2.0]])), [[1.5], [2.5]])
    assert layer.bias.shape == ()


def test_bias_of_a_length_adds_one_row():
    layer = layers.Bias(tf.constant_initializer([0.5, -1.0]), dim=2)
    np.testing.assert_array_equal(
        layer(tf.constant([[1.0, 2.0], [3.0, 4.0]])), [[1.5, 1], [3.5, 3]]
    )
    assert layer.bias.shape == (2,)


def test_inner_product_is_row_by_row():
    left, right = tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[5.0, 6.0], [7.0, -8.0]])
    np.testing.assert_array_equal(layers.InnerProduct()([left, right]), [[17], [-11]])


@pytest.mark.parametrize(
    "layer",
    [
        layers.UserEmbedding(2, "ones", tf.keras.regularizers.L2(0.5), name="user"),
        layers.Bias("ones", tf.keras.regularizers.L2(0.5), name="bias"),
        layers.Bias("ones", tf.keras.regularizers.L2(0.5), dim=3, name="row"),
    ],
)
def test_layers_can_be_made_again_from_their_config(layer):
    copy = type(layer).from_config(layer.get_config())
    inputs = tf.ones([2, 1])
    np.testing.assert_array_equal(copy(inputs), layer(inputs))
    np.testing.assert_array_equal(copy.losses, layer.losses)


def test_spread_out_by_hand():
    # Inner products: (1,0).(1,1) = 1, (1,0).(0,2) = 0, (1,1).(0,2) = 2; each pair counts twice.
    # Sum of squares of the entries: 1 + 2 + 4.
    rows = [[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
    value, _ = _value_and_gradient(layers.SpreadOut(3.0, l2=0.5), rows)
    np.testing.assert_allclose(value, 3 * np.sqrt(10) + 0.5 * 7, rtol=1e-6)


# As many rows as dimensions and fewer take the rows' Gram matrix, more take the columns'.
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (5, 4), (40, 3), (6, 1)])
def test_spread_out_equals_its_naive_form(shape):
    rows = np.random.default_rng(1).normal(size=shape)
    value, gradient = _value_and_gradient(layers.SpreadOut(0.7), rows)
    expected_value, expected_gradient = _naive_spread_out(rows)
    np.testing.assert_allclose(value, 0.7 * expected_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, 0.7 * expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3), (5, 3)])
def test_spread_out_has_gradient_zero_at_zero(shape):
    value, gradient = _value_and_gradient(layers.SpreadOut(1.0, l2=1.0), np.zeros(shape))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(shape))


@pytest.mark.parametrize("num_rows", [2, 5])
def test_spread_out_of_a_single_row_that_is_not_zero_is_zero_but_for_round_off(num_rows):
    rows = np.zeros([num_rows, 3])
    rows[0] = [0.3, -0.7, 0.11]
    value, gradient = _value_and_gradient(layers.SpreadOut(1.0), rows)
    assert 0 <= value < 1e-3
    np.testing.assert_allclose(gradient, np.zeros_like(rows), atol=1e-2)


def test_spread_out_refuses_negative_strengths_and_survives_its_config():
    with pytest.raises(ValueError, match="must be >= 0, but spread_out is -1"):
        layers.SpreadOut(-1.0)
    copy = layers.SpreadOut.from_config(layers.SpreadOut(2.0, l2=3.0).get_config())
    assert (copy.spread_out, copy.l2) == (2.0, 3.0)


def test_the_gradient_of_an_inner_product_is_the_other_side():
    left, right = tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[5.0, 6.0], [7.0, 8.0]])
    with tf.GradientTape() as tape:
        tape.watch([left, right])
        products = layers.InnerProduct()([left, right])
    np.testing.assert_array_equal(products, [[17.0], [53.0]])
    gradients = tape.gradient(products, [left, right], tf.constant([[10.0], [-1.0]]))
    np.testing.assert_array_equal(gradients[0], [[50.0, 60.0], [-7.0, -8.0]])
    np.testing.assert_array_equal(gradients[1], [[10.0, 20.0], [-3.0, -4.0]])
