"""Keras metrics over the examples of many clients, as pure functions."""

from __future__ import annotations

import collections

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.engine.shards import Examples
from fedrecon.engine.updates import Contribution
from fedrecon.models.functional import batch_loss
from fedrecon.models.split_model import SplitModel


class ClientMetrics:
    """The metrics of a model, and `loss` as stock FedRecon reports it (a mean over batches).

    We add the metric variables of all clients and finalize once, as
    `tff.learning.metrics.sum_then_finalize` does. This works only for metrics whose variables are
    sums.
    """

    def __init__(self, model: SplitModel):
        """Reads `model.metrics_fn`.

        Raises:
          ValueError: If two metrics have one name, or one is named `loss`.
        """
        names = [metric.name for metric in model.metrics_fn()]
        for name in names:
            if names.count(name) > 1 or name == "loss":
                raise ValueError(
                    f"Two metrics are named {name} (`loss` is taken: the mean over batches); names"
                    " must differ."
                )
        self._batch_loss = batch_loss(model.loss_fn)
        self._initialize, self._update, self._finalize = (
            tff.learning.metrics.create_functional_metric_fns(
                lambda: collections.OrderedDict((m.name, m) for m in model.metrics_fn())
            )
        )

    def sums(self, labels, predictions, mask) -> collections.OrderedDict:
        """Returns sums over all real examples and, for `loss`, over all real batches.

        Args:
          labels: `[clients, steps, batch_size]`.
          predictions: `[clients, steps, batch_size]`.
          mask: `[clients, steps, batch_size]` bool: which examples are real.
        """
        output = tff.learning.models.BatchOutput(
            predictions=tf.boolean_mask(predictions, mask)[:, tf.newaxis]
        )
        real_labels = tf.boolean_mask(labels, mask)[:, tf.newaxis]
        sums = self._update(self._initialize(), real_labels, output)
        is_step = tf.reduce_any(mask, axis=2)
        total = tf.reduce_sum(self._batch_loss(labels, predictions, mask))
        count = tf.reduce_sum(tf.cast(is_step, tf.float32))
        return collections.OrderedDict(**sums, loss=(total, count))

    def finalize(self, sums: collections.OrderedDict) -> collections.OrderedDict:
        """Returns the metrics from `sums`, added over shards."""
        sums = collections.OrderedDict(sums)
        total, count = sums.pop("loss")
        return collections.OrderedDict(
            **self._finalize(sums), loss=tf.math.divide_no_nan(total, count)
        )

    def training_sums(self, contribution: Contribution, examples: Examples, predictions):
        """Returns a shard's sums in training; each prediction is made before its step.

        Clients that are left out count for nothing here either: one client whose update is not
        finite would make the means of all the others NaN.
        """
        mask = examples.mask & contribution.is_finite[:, tf.newaxis, tf.newaxis]
        return collections.OrderedDict(
            self.sums(examples.labels, tf.where(mask, predictions, 0.0), mask),
            num_clients_rejected=contribution.num_rejected,
        )

    def finalize_training(self, sums: collections.OrderedDict) -> collections.OrderedDict:
        """Returns the metrics from `training_sums`, added over shards."""
        sums = collections.OrderedDict(sums)
        rejected = sums.pop("num_clients_rejected")
        return collections.OrderedDict(self.finalize(sums), num_clients_rejected=rejected)


def training_metrics(metrics: collections.OrderedDict) -> dict[str, float]:
    """Returns the metrics of a round over the examples of its clients' steps, before each step.

    `loss`, `rmse` and `accuracy` are means over the `num_examples` ratings: a client with twice the
    ratings counts twice. `num_clients_rejected` is the number of clients that were left out, here
    too; stock TFF does not count them, and its means hold their ratings.
    """
    ours = metrics["client_work"]["train"]
    counts = {name: int(ours[name]) for name in ("num_clients_rejected",) if name in ours}
    return {**_per_rating(ours), **counts}


def evaluation_metrics(metrics: collections.OrderedDict) -> dict[str, float]:
    """Returns the metrics of an evaluation over all query ratings; means are over ratings."""
    return _per_rating(metrics["client_work"]["eval"]["current_round_metrics"])


def _per_rating(metrics: collections.OrderedDict) -> dict[str, float]:
    """Returns the `rating_metrics` of a model as plain numbers.

    TFF adds a `loss` of its own, the mean over batches: a last batch of one rating counts as much
    as a full one. Here `loss` is the mean over ratings.
    """
    return {
        "loss": float(metrics["mean_loss"]),
        "rmse": float(metrics["rmse"]),
        "accuracy": float(metrics["accuracy"]),
        "num_examples": int(metrics["num_examples"]),
    }
