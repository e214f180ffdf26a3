"""The clients' updates: weights before minus after, weighted, and summed over a shard.

Arrays have the clients of the shard as their first axis unless said otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from fedrecon.data.cohorts import Shard
from fedrecon.engine.client_step import Stage, drifted, drifts, step_untouched
from fedrecon.engine.stages import Trained
from fedrecon.engine.values import Values, by_client, where_client
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.weights import Weight
from fedrecon.options import OptimizerOptions


class Contribution(NamedTuple):
    """The contribution of a shard's clients to the update of the weights that they trained.

    Attributes:
      updates: By global weight: the clients' updates (before minus after), each times its client's
        weight. Item tables: `[clients, items, dim]`, relative to the untouched rows (or as
        `contribute` was told); others: summed over the clients.
      local_updates: By local weight: the same, `[clients, ...]`, not summed. They leave the device
        only in algorithms that keep user rows on the server.
      weights: `[clients]` float32.
      num_steps: The steps that each client took, `[clients]` int32.
      is_finite: Which clients' updates were finite, `[clients]` bool; the others are left out.
    """

    updates: Values
    local_updates: Values
    weights: tf.Tensor
    num_steps: tf.Tensor
    is_finite: tf.Tensor

    @property
    def num_rejected(self) -> tf.Tensor:
        """The number of clients that were left out, a scalar int64."""
        return tf.math.count_nonzero(~self.is_finite)


def contribute(
    model: FunctionalModel,
    stage: Stage,
    before: Values,
    trained: Trained,
    weights: tf.Tensor,
    *,
    is_by_row: bool = False,
) -> Contribution:
    """Weighs the clients' updates.

    As in stock TFF, a client whose update has an entry that is not finite is left out, with weight
    zero.

    Args:
      model: The model.
      stage: What was trained.
      before: The values that the clients started from.
      trained: Where they ended.
      weights: `[clients]` float32, `>= 0`.
      is_by_row: Whether item rows are averaged over the clients that have them; then their updates
        are relative to where they started.
    """
    changes = {}
    for weight in stage.trained(model.weights):
        from_untouched = weight.is_item_table and not is_by_row
        start = (trained.untouched if from_untouched else before)[weight.name]
        changes[weight.name] = start - trained.values[weight.name]
    is_finite = tf.ones_like(weights, tf.bool)
    for change in changes.values():
        of_entries = tf.math.is_finite(change)
        is_finite &= tf.reduce_all(of_entries, axis=list(range(1, change.shape.rank)))
    weights = tf.where(is_finite, weights, 0.0)
    updates, local_updates = {}, {}
    for weight in stage.trained(model.weights):
        # Not by multiplication with zero, which leaves what is not finite as it is.
        change = where_client(is_finite, changes[weight.name], 0.0)
        if weight.is_local:
            local_updates[weight.name] = change * by_client(weights, change)
        elif weight.is_item_table:
            updates[weight.name] = change * by_client(weights, change)
        else:
            updates[weight.name] = tf.tensordot(weights, change, axes=1)
    return Contribution(updates, local_updates, weights, trained.num_steps, is_finite)


def sum_updates(
    model: FunctionalModel,
    optimizer: OptimizerOptions,
    global_values: Values,
    shard: Shard,
    contribution: Contribution,
) -> Values:
    """Returns the weighted sum of the clients' updates, each of the shape of its weight.

    Args:
      model: The model.
      optimizer: The clients' optimizer of the global weights.
      global_values: The global weights, whole.
      shard: The clients.
      contribution: Their contribution.
    """
    sums = {}
    for weight in model.global_weights:
        if weight.trainable:
            update = contribution.updates[weight.name]
            if weight.is_item_table:
                update = sum_rows(update, shard.item_ids, weight.shape[0])
            if drifts(weight, optimizer):
                update += _sum_drift(
                    optimizer,
                    weight,
                    global_values[weight.name],
                    contribution.num_steps,
                    contribution.weights,
                )
            sums[weight.name] = update
    return sums


def sum_rows(rows: tf.Tensor, ids: tf.Tensor, num_rows: int) -> tf.Tensor:
    """Returns the table `[num_rows, ...]` of the sums of rows by id.

    Args:
      rows: `ids.shape` and then the shape of a row.
      ids: The row of the table that each belongs to; -1 is padding and is dropped.
      num_rows: The rows of the table.
    """
    flat = tf.reshape(rows, [-1, *rows.shape[ids.shape.rank :]])
    return tf.math.unsorted_segment_sum(flat, tf.reshape(ids, [-1]), num_rows)


def _sum_drift(optimizer: OptimizerOptions, weight: Weight, table, num_steps, client_weights):
    """Returns the weighted sum of `table` minus its untouched rows after each client's steps.

    Untouched rows move the same way on every client, so their movement is computed once for the
    shard.
    """
    run = _drift_of_shard if tf.executing_eagerly() else _compiled_drift_of_shard
    return run(optimizer, weight, table, num_steps, client_weights)


def _drift_of_shard(optimizer: OptimizerOptions, weight: Weight, table, num_steps, client_weights):
    optimizer = optimizer.build()
    most_steps = tf.reduce_max(num_steps)
    start = table if weight.regularizer is not None else tf.ones([], table.dtype)

    def step(number, rows, state, total):
        state, rows = step_untouched(optimizer, [weight], state, rows)
        # Not `==`, which compares identities where TFF traces, in graphs of TensorFlow 1.
        ends = tf.equal(num_steps, number)
        share = tf.reduce_sum(tf.where(ends, client_weights, 0.0))
        return number + 1, rows, state, total + share * (start - rows[weight.name])

    state = optimizer.initialize({weight.name: tf.TensorSpec(start.shape, start.dtype)})
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    *_, total = tf.while_loop(
        lambda number, *_: number <= most_steps,
        step,
        (1, {weight.name: start}, state, tf.zeros_like(start)),
    )
    return drifted(weight, table, total)


_compiled_drift_of_shard = tf.function(_drift_of_shard, jit_compile=True, autograph=False)
