"""What the server computes with the sums of a round, in plain TensorFlow."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


def weighted_means(sums: list[tf.Tensor], weights: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns each sum divided by its weight; 0 where the weight is 0.

    Args:
      sums: Weighted sums.
      weights: The sum of the weights for each of `sums`, float32, of a shape that broadcasts to it.
    """
    return [tf.math.divide_no_nan(total, weight) for total, weight in zip(sums, weights)]


def is_any_positive(weights: list[tf.Tensor]) -> tf.Tensor:
    """Returns whether any weight is positive, a scalar bool: else nobody contributed."""
    return tf.reduce_any([tf.reduce_any(weight > 0) for weight in weights])


def is_all_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Returns whether all entries of all tensors are finite, a scalar bool."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors])


class Step(NamedTuple):
    """The result of a step of the server.

    Attributes:
      trainable: The values of the trainable weights afterwards.
      optimizer_state: The state of the optimizer afterwards.
      is_finite: Whether the update was finite, a scalar bool.
    """

    trainable: list[tf.Tensor]
    optimizer_state: Any
    is_finite: tf.Tensor


def take_step(
    optimizer,
    optimizer_state: Any,
    trainable: list[tf.Tensor],
    update: list[tf.Tensor],
    *,
    has_contributors: tf.Tensor,
) -> Step:
    """Applies an update, or changes nothing if it is not finite or nobody contributed.

    Args:
      optimizer: A `tff.learning.optimizers.Optimizer`; it descends along `update`.
      optimizer_state: Its state.
      trainable: The values of the trainable weights.
      update: The update of each of them.
      has_contributors: A scalar bool.
    """
    is_finite = is_all_finite(update)
    new_state, new_trainable = tf.cond(
        is_finite & has_contributors,
        lambda: optimizer.next(optimizer_state, trainable, update),
        lambda: (optimizer_state, trainable),
    )
    return Step(list(new_trainable), new_state, is_finite)
