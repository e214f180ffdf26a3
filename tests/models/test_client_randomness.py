"""Draws that follow from the seeds of clients, against Keras and against Python integers."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models import client_randomness, functional, layers
from tests.models.small_models import (
    K,
    assert_all_close,
    item_embedding,
    item_input,
    small_model,
    small_plus,
    split_by_name,
    uint32,
)


def _dropout_model(rate):
    """Two item tables of width 500, each behind a dropout of its own, and a local sum of all."""
    item_id = item_input()
    rows = [
        K.Dropout(rate, name=f"drop_{name}")(K.Flatten()(item_embedding(500, name=name)(item_id)))
        for name in ("left", "right")
    ]
    taste = K.Dense(1, use_bias=False, name="taste")
    return functional.FunctionalModel(
        split_by_name(item_id, taste(K.Concatenate()(rows)), ("taste",))
    )


def _dropped(model, seed, num_examples=8):
    """Predictions from ones, and what each entry is multiplied by: `[2, num_examples, 500]`."""
    rows = tf.ones([2, num_examples, 500])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = [rows[0], rows[1], tf.ones([1000, 1])]
        predictions = model.predict(tf.zeros(num_examples, tf.int32), values, dropout_seed=seed)
    return predictions, tape.gradient(predictions, rows)


@pytest.fixture(scope="module")
def dropout_model():
    return _dropout_model(0.4)


def test_dropout_zeroes_its_share_and_scales_the_rest(dropout_model):
    predictions, factors = _dropped(dropout_model, uint32(5))
    factors = factors.numpy()
    np.testing.assert_allclose(factors[factors > 0], 1 / 0.6, rtol=1e-6)
    np.testing.assert_allclose(predictions, factors.sum(axis=(0, 2)), rtol=1e-5)
    # 0.03 is four standard errors of 4000 entries.
    np.testing.assert_allclose((factors == 0).mean(axis=(1, 2)), 0.4, atol=0.03)
    assert len(np.unique(factors.reshape(16, 500), axis=0)) == 16


def test_dropout_follows_from_the_seed_and_the_layer(dropout_model):
    (left, right), (again, _), (other, _) = (
        _dropped(dropout_model, uint32(seed))[1].numpy() == 0 for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(left, again)
    for mask in (right, other):
        np.testing.assert_allclose((left & mask).mean(), 0.4 * 0.4, atol=0.03)
    # Examples behind it change nothing for an example.
    longer = _dropped(dropout_model, uint32(5), num_examples=11)[1].numpy() == 0
    np.testing.assert_array_equal(longer[:, :8], [left, right])


def test_without_a_seed_or_a_rate_nothing_is_dropped(dropout_model):
    for model, seed in ((dropout_model, None), (_dropout_model(0.0), uint32(5))):
        predictions, factors = _dropped(model, seed)
        np.testing.assert_array_equal(factors, np.ones([2, 8, 500]))
        np.testing.assert_array_equal(predictions, [1000] * 8)


@pytest.mark.parametrize("layer", ["noise_shape", "spatial"])
def test_dropout_drops_together_what_the_layer_drops_together(layer):
    def drop(row):
        steps = K.Reshape([10, 50])(row)
        if layer == "spatial":
            return K.Flatten()(K.SpatialDropout1D(0.5)(steps))
        return K.Flatten()(K.Dropout(0.5, noise_shape=[None, 1, 50])(steps))

    split = small_model(drop, embed=item_embedding(500), last=K.Dense(1, name="taste"))
    model = functional.FunctionalModel(split)
    rows = tf.ones([8, 500])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = [rows, tf.ones([500, 1]), tf.zeros([1])]
        predictions = model.predict(tf.zeros(8, tf.int32), values, dropout_seed=uint32(1))
    factors = tape.gradient(predictions, rows).numpy().reshape(8, 10, 50)
    np.testing.assert_array_equal(factors, np.repeat(factors[:, :1], 10, axis=1))
    assert set(np.unique(factors)) == {0.0, 2.0}
    # 0.1 is four standard errors of 400 entries.
    np.testing.assert_allclose((factors[:, 0] == 0).mean(), 0.5, atol=0.1)
    assert len(np.unique(factors[:, 0], axis=0)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_dropout_of_clients_at_once_is_as_one_by_one(dropout_model, jit_compile):
    seeds = uint32([0, 7, 2**32 - 1])
    drop = functools.partial(_dropped, dropout_model)

    @tf.function(jit_compile=jit_compile)
    def at_once(seeds):
        return tf.vectorized_map(lambda s: drop(s)[1], seeds, fallback_to_while_loop=False)

    np.testing.assert_allclose(at_once(seeds), [drop(s)[1] for s in seeds], rtol=1e-6)


_INITIALIZERS = tf.keras.initializers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "shape"),
    [
        ("RandomUniform", {"minval": -0.3, "maxval": 0.7}, (1, 50)),
        ("RandomNormal", {"mean": 1.0, "stddev": 2.0}, (50,)),
        ("TruncatedNormal", {"mean": 1.0, "stddev": 2.0}, (5, 10)),
        ("GlorotUniform", {}, (4, 12)),
        ("HeNormal", {}, (50,)),
        ("LecunNormal", {}, (3, 4, 5)),
        ("VarianceScaling", {"mode": "fan_out", "distribution": "untruncated_normal"}, (4, 12)),
        ("VarianceScaling", {"scale": 0.2, "mode": "fan_avg", "distribution": "uniform"}, (4, 12)),
    ],
)
def test_initial_local_values_are_distributed_as_keras_draws_them(name, config, shape):
    make = getattr(_INITIALIZERS, name)
    oracle = np.stack([make(**config, seed=seed)(shape) for seed in range(200)])
    model = functional.FunctionalModel(small_plus(shape, make(**config)))
    (values,) = model.initial_local_values(uint32(range(1000)))
    assert values.shape == (1000, *shape)
    assert values.dtype == tf.float32
    # At least 9600 values each: the tolerances are over three standard errors.
    scale = oracle.std()
    np.testing.assert_allclose(np.std(values) / scale, 1, atol=0.03)
    quantiles = [np.quantile(v, [0.05, 0.25, 0.5, 0.75, 0.95]) for v in (values, oracle)]
    np.testing.assert_allclose(quantiles[0] / scale, quantiles[1] / scale, atol=0.1)
    bounds = [np.array([np.min(v), np.max(v)]) / scale for v in (values, oracle)]
    is_bounded = name != "RandomNormal" and config.get("distribution") != "untruncated_normal"
    np.testing.assert_allclose(*bounds, atol=0.05 if is_bounded else 1.5)


def _local_model(seed=None):
    """A model with local weights `[1, 50]`; the first two have the same initializer."""
    initializers = {
        "uniform": _INITIALIZERS.RandomUniform(-0.3, 0.7, seed=seed),
        "alike": _INITIALIZERS.RandomUniform(-0.3, 0.7, seed=seed),
        "normal": _INITIALIZERS.RandomNormal(1.0, 2.0, seed=seed),
        "constant": _INITIALIZERS.Constant(0.25),
        "zeros": "zeros",
    }
    item_id = item_input()
    rows = [layers.UserEmbedding(50, i, name=name)(item_id) for name, i in initializers.items()]
    item = K.Flatten()(item_embedding(50)(item_id))
    output = layers.InnerProduct()([item, K.Add()(rows)])
    return functional.FunctionalModel(split_by_name(item_id, output, tuple(initializers)))


def test_initial_local_values_differ_by_client_and_weight():
    seeds = uint32(range(100))
    values = [value.numpy()[:, 0] for value in _local_model().initial_local_values(seeds)]
    uniform, alike, _, constant, zeros = values
    np.testing.assert_array_equal(constant, np.full([100, 50], 0.25))
    np.testing.assert_array_equal(zeros, np.zeros([100, 50]))
    # Of 5000 pairs: four standard errors.
    for others in (alike[1:], uniform[:-1], np.roll(uniform[1:], 1, axis=1)):
        assert abs(np.corrcoef(uniform[1:].ravel(), others.ravel())[0, 1]) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_initial_local_values_follow_from_the_seeds_alone(jit_compile):
    seeds = uint32([9, 0, 2**32 - 1])
    expected = _local_model().initial_local_values(seeds)
    for state in (1, 2):
        tf.keras.utils.set_random_seed(state)  # Of TensorFlow, NumPy and Python.
        tf.random.normal([state])
        model = _local_model(seed=state)
        draw = tf.function(model.initial_local_values, jit_compile=jit_compile)
        one_by_one = [np.stack(values) for values in zip(*map(draw, seeds))]
        for values in (draw(seeds), one_by_one):
            assert_all_close(values, expected)


def _mixed(seed, number):
    """`fold_in` of Python's integers."""
    bits = (seed + (number + 1) * 0x9E3779B9) % 2**32
    bits = (bits ^ bits >> 16) * 0x85EBCA6B % 2**32
    bits = (bits ^ bits >> 13) * 0xC2B2AE35 % 2**32
    return bits ^ bits >> 16


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fold_in_is_murmur_hash_3s_finalizer(jit_compile):
    edges = [0, 1, 2, 77, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    seeds, numbers = (np.ravel(n).astype(np.uint32) for n in np.meshgrid(edges, edges))
    expected = [_mixed(int(s), int(n)) for s, n in zip(seeds, numbers)]
    fold_in = tf.function(client_randomness.fold_in, jit_compile=jit_compile)
    result = fold_in(seeds, numbers)
    assert result.dtype == tf.uint32
    np.testing.assert_array_equal(result, expected)

    @tf.function(jit_compile=jit_compile)
    def at_once(*pairs):
        return tf.vectorized_map(lambda p: fold_in(*p), pairs, fallback_to_while_loop=False)

    np.testing.assert_array_equal(at_once(seeds, numbers), expected)
    np.testing.assert_array_equal(fold_in(uint32(3), 4), _mixed(3, 4))
    by_example = fold_in(uint32(3), tf.range(5))
    np.testing.assert_array_equal(by_example, [_mixed(3, n) for n in range(5)])
