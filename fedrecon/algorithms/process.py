"""The TFF wiring that algorithms share: from what a shard computes to a `LearningProcess`.

TFF sees a shard as one client. A shard returns the weighted sum of its clients' updates and the sum
of their weights; their sums over shards are those over clients, and the server divides them. An
aggregator gets the weighted mean and the weight instead.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.client_work import shard_spec
from fedrecon.algorithms.options import OptimizerOptions
from fedrecon.data.cohorts import Shard
from fedrecon.models.split_model import ModelFn

State = tff.learning.templates.LearningAlgorithmState


class ShardOutput(NamedTuple):
    """What a shard sends.

    Attributes:
      update: The weighted sum of its clients' updates of the trainable global weights.
      weight: The sum of their weights, a scalar float32.
      metrics: Sums over its clients, any structure of numbers.
    """

    update: list
    weight: Any
    metrics: Any


def shard_type(batch_size: int, num_clients: int) -> tff.Type:
    """Returns the TFF type of shards with `num_clients` clients."""
    specs = shard_spec(batch_size, num_clients)
    return tff.types.to_type(
        Shard(*(tff.TensorType(spec.dtype.as_numpy_dtype, spec.shape) for spec in specs))
    )


def initial_weights(model_fn: ModelFn) -> tff.Computation:
    """Returns the computation of the initial `tff.learning.models.ModelWeights`, global part."""

    @tff.tensorflow.computation
    def initialize():
        model = model_fn()
        return tff.learning.models.ModelWeights(
            trainable=[weight.read_value() for weight in model.global_trainable_weights],
            non_trainable=[weight.read_value() for weight in model.global_non_trainable_weights],
        )

    return initialize


def build_training_process(
    initialize_weights: tff.Computation,
    data_type: tff.Type,
    *,
    shard_update: Callable[[Any, Shard], ShardOutput],
    finalize_metrics: Callable[[Any], Any],
    server_optimizer: OptimizerOptions,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None,
) -> tff.learning.templates.LearningProcess:
    """Builds the process that broadcasts, updates, aggregates and applies.

    Args:
      initialize_weights: As `initial_weights` gives it.
      data_type: As `shard_type` gives it.
      shard_update: From `ModelWeights` and a shard, as tensors, to what it sends.
      finalize_metrics: From the sum of the shards' metrics to what is reported.
      server_optimizer: Applies the mean update.
      aggregator_factory: Aggregates updates; None takes their weighted mean, 0 where all weights
        are 0.

    Returns:
      A process with the state and the structure of metrics of
      `tff.learning.algorithms.build_fed_recon`.
    """
    weights_type = initialize_weights.type_signature.result
    optimizer = server_optimizer.build()

    @tff.tensorflow.computation(weights_type, data_type)
    def update_of_shard(weights, shard):
        output = shard_update(weights, shard)
        if aggregator_factory is None:  # Then the sum over shards is what is wanted.
            return output
        mean = [tf.math.divide_no_nan(change, output.weight) for change in output.update]
        return output._replace(update=mean)

    output_type = update_of_shard.type_signature.result
    aggregator = (
        None
        if aggregator_factory is None
        else aggregator_factory.create(output_type.update, output_type.weight)
    )

    @tff.tensorflow.computation
    def initialize_optimizer():
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in weights_type.trainable]
        return optimizer.initialize(specs)

    @tff.tensorflow.computation(
        weights_type, initialize_optimizer.type_signature.result, output_type
    )
    def update_server(weights, optimizer_state, total):
        update = [tf.math.divide_no_nan(change, total.weight) for change in total.update]
        trainable = list(weights.trainable)
        is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(change)) for change in update])
        new_state, new_trainable = tf.cond(
            is_finite,
            lambda: optimizer.next(optimizer_state, trainable, update),
            lambda: (optimizer_state, trainable),
        )
        return (
            tff.learning.models.ModelWeights(list(new_trainable), list(weights.non_trainable)),
            new_state,
            finalize_metrics(total.metrics),
            collections.OrderedDict(update_non_finite=tf.cast(~is_finite, tf.int32)),
        )

    nothing = tff.tensorflow.computation(lambda: ())

    @tff.federated_computation
    def initialize():
        return tff.federated_zip(
            State(
                global_model_weights=tff.federated_eval(initialize_weights, tff.SERVER),
                distributor=tff.federated_eval(nothing, tff.SERVER),
                client_work=tff.federated_eval(nothing, tff.SERVER),
                aggregator=aggregator.initialize()
                if aggregator
                else tff.federated_eval(nothing, tff.SERVER),
                finalizer=tff.federated_eval(initialize_optimizer, tff.SERVER),
            )
        )

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def run_round(state, shards):
        weights = tff.federated_broadcast(state.global_model_weights)
        output = tff.federated_map(update_of_shard, (weights, shards))
        if aggregator is None:
            aggregator_state, measurements = state.aggregator, tff.federated_value((), tff.SERVER)
            total = tff.federated_sum(output)
        else:
            aggregated = aggregator.next(state.aggregator, output.update, output.weight)
            aggregator_state, measurements = aggregated.state, aggregated.measurements
            total = tff.federated_zip(
                ShardOutput(
                    aggregated.result,
                    tff.federated_value(np.float32(1.0), tff.SERVER),
                    tff.federated_sum(output.metrics),
                )
            )
        weights, optimizer_state, metrics, checks = tff.federated_map(
            update_server, (state.global_model_weights, state.finalizer, total)
        )
        return tff.learning.templates.LearningProcessOutput(
            tff.federated_zip(
                State(
                    global_model_weights=weights,
                    distributor=state.distributor,
                    client_work=state.client_work,
                    aggregator=aggregator_state,
                    finalizer=optimizer_state,
                )
            ),
            tff.federated_zip(
                collections.OrderedDict(
                    distributor=state.distributor,
                    client_work=tff.federated_zip(collections.OrderedDict(train=metrics)),
                    aggregator=measurements,
                    finalizer=checks,
                )
            ),
        )

    return _learning_process(initialize, run_round)


def build_evaluation_process(
    initialize_weights: tff.Computation,
    data_type: tff.Type,
    *,
    shard_metrics: Callable[[Any, Shard], Any],
    finalize_metrics: Callable[[Any], Any],
) -> tff.learning.templates.LearningProcess:
    """Builds the process that broadcasts, measures and sums; its state only holds the weights.

    Args:
      initialize_weights: As `initial_weights` gives it.
      data_type: As `shard_type` gives it.
      shard_metrics: From `ModelWeights` and a shard, as tensors, to sums over its clients.
      finalize_metrics: From the sum over shards to what is reported, as
        `metrics["client_work"]["eval"]["current_round_metrics"]`.
    """
    weights_type = initialize_weights.type_signature.result

    @tff.tensorflow.computation(weights_type, data_type)
    def metrics_of_shard(weights, shard):
        return shard_metrics(weights, shard)

    @tff.tensorflow.computation(metrics_of_shard.type_signature.result)
    def metrics_of_sums(sums):
        return finalize_metrics(sums)

    @tff.federated_computation
    def initialize():
        empty = tff.federated_value((), tff.SERVER)
        weights = tff.federated_eval(initialize_weights, tff.SERVER)
        return tff.federated_zip(State(weights, empty, empty, empty, empty))

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def evaluate(state, shards):
        weights = tff.federated_broadcast(state.global_model_weights)
        sums = tff.federated_sum(tff.federated_map(metrics_of_shard, (weights, shards)))
        metrics = tff.federated_map(metrics_of_sums, sums)
        of_round = tff.federated_zip(collections.OrderedDict(current_round_metrics=metrics))
        of_clients = tff.federated_zip(collections.OrderedDict(eval=of_round))
        return tff.learning.templates.LearningProcessOutput(
            state, tff.federated_zip(collections.OrderedDict(client_work=of_clients))
        )

    return _learning_process(initialize, evaluate)


def _learning_process(initialize, run) -> tff.learning.templates.LearningProcess:
    state_type = initialize.type_signature.result.member

    @tff.tensorflow.computation(state_type)
    def get_model_weights(state):
        return state.global_model_weights

    @tff.tensorflow.computation(state_type, state_type.global_model_weights)
    def set_model_weights(state, weights):
        return State(
            weights, state.distributor, state.client_work, state.aggregator, state.finalizer
        )

    return tff.learning.templates.LearningProcess(
        initialize, run, get_model_weights, set_model_weights
    )
