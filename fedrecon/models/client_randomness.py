"""Random numbers that follow from a seed of each client: initial values and dropout.

Keras draws with one seed a layer. A shard needs one draw a client, and drawing client by client
would take as long as a third of a round. So the draws are plain arithmetic on seeds of any shape,
which vectorizes over clients and compiles to the same numbers under XLA.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf


def fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """Returns a seed that depends on `seed` and `number`.

    All three are uint32 and have the same shape, or broadcast to it. This is the finalizer of
    MurmurHash3 (Appleby, public domain). `tf.random.experimental.stateless_fold_in` does not
    vectorize with a seed for each client.
    """
    number = tf.cast(number, tf.uint32)
    bits = seed + (number + tf.constant(1, tf.uint32)) * tf.constant(0x9E3779B9, tf.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _u32(shift)))
        bits *= _u32(factor)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _u32(16)))


def seeded_dropout(layer: tf.keras.layers.Dropout, seed: tf.Tensor) -> Callable[..., tf.Tensor]:
    """Returns a replacement for `layer.call` whose noise follows from `seed`, a scalar uint32."""
    rate = layer.rate

    def call(inputs, training=None):
        if not training or not rate:
            return inputs
        shape = layer._get_noise_shape(inputs)  # None: one draw for each entry.
        shape = tf.shape(inputs) if shape is None else tf.convert_to_tensor(shape)
        entries = tf.reshape(tf.range(tf.reduce_prod(shape)), shape)
        is_kept = _uniform(fold_in(seed, entries)) >= rate
        return tf.where(is_kept, inputs / (1.0 - rate), tf.zeros_like(inputs))

    return call


def seeded_initializer(
    name: str, initializer: Callable, shape: tf.TensorShape, dtype: tf.DType
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from seeds to initial values of a weight, one value for each seed.

    The values have the distribution of the Keras initializer; `name` is the weight's.

    Raises:
      ValueError: If the initializer is random, but not uniform, normal, truncated normal or
        variance scaling (Glorot, He, LeCun).
    """
    if not is_random(initializer):

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


def is_random(initializer: Callable) -> bool:
    """Returns whether a Keras initializer draws its values."""
    return "seed" in (initializer.get_config() if hasattr(initializer, "get_config") else {})


def _uniform(bits: tf.Tensor) -> tf.Tensor:
    """Returns a float32 in the open interval (0, 1) for each uint32.

    It uses the upper 23 bits, so that float32 holds the sum with one half exactly.
    """
    bits = tf.bitwise.right_shift(bits, _u32(9))
    return (tf.cast(bits, tf.float32) + 0.5) / 2.0**23


def _u32(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint32)


def _quantile_function(initializer, shape):
    """Returns the function from uniform numbers to draws of a Keras initializer, or None."""
    initializers = tf.keras.initializers
    if isinstance(initializer, initializers.RandomUniform):
        return _uniform_quantile(initializer.minval, initializer.maxval)
    if isinstance(initializer, initializers.RandomNormal):
        return lambda uniform: initializer.mean + initializer.stddev * tf.math.ndtri(uniform)
    if isinstance(initializer, initializers.TruncatedNormal):
        return _truncated_normal_quantile(initializer.mean, initializer.stddev)
    if isinstance(initializer, initializers.VarianceScaling):
        return _variance_scaling_quantile(initializer, shape)
    return None


def _variance_scaling_quantile(initializer, shape):
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
    # Cutting a normal distribution at two standard deviations leaves this share of one.
    return _truncated_normal_quantile(0.0, math.sqrt(variance) / 0.87962566103423978)


def _uniform_quantile(low: float, high: float):
    return lambda uniform: low + (high - low) * uniform


def _truncated_normal_quantile(mean: float, stddev: float):
    below = 0.5 * math.erfc(math.sqrt(2.0))  # The probability of less than -2.
    return lambda uniform: mean + stddev * tf.math.ndtri(below + (1 - 2 * below) * uniform)
