"""Metrics over ratings, which may be added up over clients.

Each metric keeps sums in its variables and divides only in `result`. So adding the variables of all
clients and finalizing once (`tff.learning.metrics.sum_then_finalize`) gives the metric of all their
ratings together. That is a mean over ratings, in which users with many ratings weigh more. TFF
builds the finalizing metric from `get_config`, which must hold every constructor argument.

The sums are float64 (counts int64). A float32 count stops growing at 2**24, or 16.8 million
ratings; MovieLens 25M has more. Each error is computed in the precision of the model.

The `loss` that `tff.learning.algorithms.build_fed_recon` reports is another number. It is a mean
over batches, in which a last batch of one rating counts as much as a full batch. Quote `mean_loss`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def rating_metrics(
    loss_fn: Callable[..., tf.keras.losses.Loss], rating_step: float = 1.0
) -> list[tf.keras.metrics.Metric]:
    """Returns new metrics for predictions and labels of shape `[batch, 1]` (or `[batch]`).

    - `mean_loss`: the mean loss without regularization.
    - `rmse`: the root of the mean squared error, in the unit of the labels.
    - `accuracy`: the share of ratings with `|prediction - label| <= rating_step / 2` (see
      `RatingAccuracy`).
    - `num_examples`: the number of ratings, int64.

    Each takes a `sample_weight` per rating, such as a mask of padding. `loss_fn(reduction=...)`
    returns a Keras loss.
    """
    return [
        MeanLoss(loss_fn),
        tf.keras.metrics.RootMeanSquaredError(name="rmse", dtype=tf.float64),
        RatingAccuracy(rating_step),
        RatingCount(),
    ]


class MeanLoss(tf.keras.metrics.Mean):
    """The mean loss of a rating."""

    def __init__(self, loss_fn, name="mean_loss", dtype=tf.float64):
        """Creates the metric; `loss_fn(reduction=...)` returns a Keras loss."""
        super().__init__(name=name, dtype=dtype)
        self._loss_fn = loss_fn
        self._loss = loss_fn(reduction=tf.keras.losses.Reduction.NONE)

    def update_state(self, y_true, y_pred, sample_weight=None):
        # Keras losses average over the last axis, so each rating needs a row of its own.
        losses = self._loss(tf.reshape(y_true, [-1, 1]), tf.reshape(y_pred, [-1, 1]))
        return super().update_state(losses, sample_weight=_flat(sample_weight))

    def get_config(self):
        return {**super().get_config(), "loss_fn": self._loss_fn}


class RatingAccuracy(tf.keras.metrics.Mean):
    """The share of ratings with `|prediction - label| <= step / 2`.

    The FedRecon paper counts so (arXiv:2102.03448). A prediction half-way between two steps is
    right for both labels, so a high accuracy alone says little: on MovieLens 1M a constant 3.5 has
    about 60%. For a probability and a label of 0 or 1 it is the usual accuracy, except that exactly
    0.5 is right for both labels.
    """

    def __init__(self, step=1.0, name="accuracy", dtype=tf.float64):
        """Creates the metric; `step` is what neighboring ratings of the scale differ by."""
        super().__init__(name=name, dtype=dtype)
        self._step = step

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = tf.reshape(y_pred, [-1])
        y_true = tf.cast(tf.reshape(y_true, [-1]), y_pred.dtype)
        is_right = tf.abs(y_pred - y_true) <= self._step / 2
        return super().update_state(is_right, sample_weight=_flat(sample_weight))

    def get_config(self):
        return {**super().get_config(), "step": self._step}


class RatingCount(tf.keras.metrics.Sum):
    """The number of ratings whose weight is not 0."""

    def __init__(self, name="num_examples", dtype=tf.int64):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred=None, sample_weight=None):
        del y_pred
        if sample_weight is None:
            return super().update_state(tf.size(y_true))
        return super().update_state(tf.math.count_nonzero(sample_weight))


def _flat(sample_weight):
    return None if sample_weight is None else tf.reshape(sample_weight, [-1])
