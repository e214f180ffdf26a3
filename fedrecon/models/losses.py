"""The squared error of ratings on any scale."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf


def squared_error_in(unit: float) -> Callable[..., tf.keras.losses.Loss]:
    """Returns the mean squared error in this unit, as `SplitModel.loss_fn` takes it.

    Args:
      unit: Positive; an error of this size counts as 1.
    """
    if unit == 1.0:
        return tf.keras.losses.MeanSquaredError
    return functools.partial(SquaredErrorInUnits, unit)


class SquaredErrorInUnits(tf.keras.losses.Loss):
    """`((label - prediction) / unit)^2`, averaged over the last axis."""

    def __init__(self, unit: float, name: str = "squared_error_in_units", **kwargs):
        """Creates the loss; `kwargs` has the `reduction` of a Keras loss."""
        super().__init__(name=name, **kwargs)
        self.unit = unit

    def call(self, y_true, y_pred):
        errors = tf.cast(y_true, y_pred.dtype) - y_pred
        return tf.reduce_mean(tf.square(errors / self.unit), axis=-1)

    def get_config(self):
        return {**super().get_config(), "unit": self.unit}
