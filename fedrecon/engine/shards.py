"""The shards that clients come in, and how their work is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from fedrecon.data.cohorts import Shard
from fedrecon.engine.values import Values, global_specs
from fedrecon.models.functional import FunctionalModel


def shard_spec(batch_size: int, num_clients: int) -> Shard:
    """Returns the specs of shards: clients and batch size are fixed, lengths are not.

    TensorFlow has far less to work out at each step if it knows the number of clients beforehand.
    """
    examples = [num_clients, None, batch_size]
    return Shard(
        item_ids=tf.TensorSpec([num_clients, None], tf.int32),
        positions=tf.TensorSpec(examples, tf.int32),
        labels=tf.TensorSpec(examples, tf.float32),
        mask=tf.TensorSpec(examples, tf.bool),
        support_batches=tf.TensorSpec([num_clients, None], tf.int32),
        query_batches=tf.TensorSpec([num_clients, None], tf.int32),
        seeds=tf.TensorSpec([num_clients], tf.uint32),
        user_ids=tf.TensorSpec([num_clients], tf.int32),
    )


def num_rows(shard: Shard) -> tf.Tensor:
    """Returns how many item rows each client of a shard has, `[clients]` int32."""
    return tf.reduce_sum(tf.cast(shard.item_ids >= 0, tf.int32), axis=1)


class Examples(NamedTuple):
    """The examples of each step, `[clients, steps, batch_size]` each; see `cohorts.Shard`."""

    positions: tf.Tensor
    item_ids: tf.Tensor
    labels: tf.Tensor
    mask: tf.Tensor

    @classmethod
    def scheduled(cls, shard: Shard, batches: tf.Tensor) -> Examples:
        """Returns the examples of a schedule, such as `shard.query_batches`.

        Where a client has no step, all examples are masked.
        """

        def of_steps(values):
            return tf.gather(values, tf.maximum(batches, 0), batch_dims=1)

        positions = of_steps(shard.positions)
        return cls(
            positions=positions,
            item_ids=tf.gather(tf.maximum(shard.item_ids, 0), positions, batch_dims=1),
            labels=of_steps(shard.labels),
            mask=tf.logical_and(of_steps(shard.mask), batches[:, :, tf.newaxis] >= 0),
        )

    def as_one_step(self) -> Examples:
        """Returns the same examples as one step of each client, `[clients, 1, examples]`."""
        shape = tf.shape(self.labels)
        return Examples(
            *(tf.reshape(array, [array.shape[0], 1, shape[1] * shape[2]]) for array in self)
        )

    def num_examples(self) -> tf.Tensor:
        """Returns the number of real examples in the steps of each client, `[clients]` float32."""
        return tf.reduce_sum(tf.cast(self.mask, tf.float32), axis=[1, 2])

    def num_steps(self) -> tf.Tensor:
        """Returns the number of steps of each client, `[clients]` int32."""
        return tf.reduce_sum(tf.cast(tf.reduce_any(self.mask, axis=2), tf.int32), axis=1)


def compile_for_shards(
    work: Callable[..., Any],
    model: FunctionalModel,
    spec: Shard,
    *more_specs: Any,
    debug: bool = False,
) -> Callable[..., Any]:
    """Compiles clients' work with XLA.

    The work is traced here, once: inside TFF's graphs Keras refuses to call a model that was made
    outside of them, but a traced function can be called anywhere. Rows are gathered before the
    compiled function is called, so XLA never sees the full tables.

    Args:
      work: `work(global_values, shard, *more)`; returns any structure of tensors. Item tables
        arrive as each client's own rows, `[clients, items, dim]`.
      model: Says which weights are item tables.
      spec: The specs of the shard.
      *more_specs: The specs of `*more`.
      debug: Leaves `work` as it is. Called outside of any graph it then runs eagerly, client by
        client, and sees concrete values; see `calls.map_clients`.

    Returns:
      A function of the whole global values, a shard and `*more`.
    """
    if not debug:
        work = _compile(work, global_specs(model, spec.seeds.shape[0]), spec, *more_specs)

    def gather_and_work(global_values: Values, shard: Shard, *more: Any):
        return work(_gather_rows(model, global_values, shard.item_ids), shard, *more)

    return gather_and_work


def compile_for_candidates(
    work: Callable[..., Any], model: FunctionalModel, num_clients: int, *more_specs: Any
) -> Callable[..., Any]:
    """Compiles the work of clients that ask about items, as `compile_for_shards` does.

    Args:
      work: `work(global_values, item_ids, *more)`, with `[clients, n]` int32 ids `>= 0`, and the
        rows of these items in place of item tables.
      model: Says which weights are item tables.
      num_clients: The clients of a shard.
      *more_specs: The specs of `*more`.

    Returns:
      A function of the whole global values, item ids (-1 is padding) and `*more`.
    """
    ids = tf.TensorSpec([num_clients, None], tf.int32)
    compiled = _compile(work, global_specs(model, num_clients), ids, *more_specs)

    def gather_and_work(global_values: Values, item_ids: tf.Tensor, *more: Any):
        rows = _gather_rows(model, global_values, item_ids)
        return compiled(rows, tf.maximum(item_ids, 0), *more)

    return gather_and_work


def _compile(work, *specs):
    traced = tf.function(work, jit_compile=True, autograph=False)
    return traced.get_concrete_function(*specs)


def _gather_rows(model: FunctionalModel, global_values: Values, item_ids: tf.Tensor) -> Values:
    ids = tf.maximum(item_ids, 0)
    rows = {}
    for weight in model.global_weights:
        value = global_values[weight.name]
        is_table = weight.is_item_table
        rows[weight.name] = tf.gather(value, ids) if is_table else tf.convert_to_tensor(value)
    return rows
