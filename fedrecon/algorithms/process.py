"""The TFF wiring that algorithms share: from what a shard computes to a `LearningProcess`.

TFF sees a shard as one client. A shard returns the weighted mean of its clients' updates and the
sum of their weights, so the weighted mean over shards is that over clients.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow_federated as tff

from fedrecon.algorithms.options import OptimizerOptions
from fedrecon.data.cohorts import Shard
from fedrecon.models.split_model import SplitModel

ModelFn = Callable[[], SplitModel]
State = tff.learning.templates.LearningAlgorithmState


class ShardOutput(NamedTuple):
    """What a shard sends.

    Attributes:
      update: The weighted mean of its clients' updates of the trainable global weights.
      weight: The sum of their weights, a scalar float32.
      metrics: Sums over its clients, any structure of numbers.
    """

    update: list
    weight: Any
    metrics: Any


def shard_type(batch_size: int, *, num_clients: int | None = None) -> tff.Type:
    """Returns the TFF type of a `Shard`; `num_clients` of None takes any number."""
    examples = [num_clients, None, batch_size]
    return tff.types.to_type(
        Shard(
            item_ids=tff.TensorType(np.int32, [num_clients, None]),
            positions=tff.TensorType(np.int32, examples),
            labels=tff.TensorType(np.float32, examples),
            mask=tff.TensorType(np.bool_, examples),
            support_batches=tff.TensorType(np.int32, [num_clients, None]),
            query_batches=tff.TensorType(np.int32, [num_clients, None]),
            seeds=tff.TensorType(np.uint32, [num_clients]),
        )
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

    @tff.tensorflow.computation(weights_type, data_type)
    def update_of_shard(weights, shard):
        return shard_update(weights, shard)

    output_type = update_of_shard.type_signature.result
    metrics_of_sums = _metrics_computation(finalize_metrics, output_type.metrics)
    # TFF's default divides by the sum of the weights even where it is zero.
    factory = aggregator_factory or tff.aggregators.MeanFactory(no_nan_division=True)
    aggregator = factory.create(output_type.update, output_type.weight)
    distributor = tff.learning.templates.build_broadcast_process(weights_type)
    finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
        server_optimizer.build(), weights_type
    )

    @tff.federated_computation
    def initialize():
        return tff.federated_zip(
            State(
                global_model_weights=tff.federated_eval(initialize_weights, tff.SERVER),
                distributor=distributor.initialize(),
                client_work=tff.federated_value((), tff.SERVER),
                aggregator=aggregator.initialize(),
                finalizer=finalizer.initialize(),
            )
        )

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def run_round(state, shards):
        distributed = distributor.next(state.distributor, state.global_model_weights)
        output = tff.federated_map(update_of_shard, (distributed.result, shards))
        aggregated = aggregator.next(state.aggregator, output.update, output.weight)
        applied = finalizer.next(state.finalizer, state.global_model_weights, aggregated.result)
        train_metrics = tff.federated_map(metrics_of_sums, tff.federated_sum(output.metrics))
        return tff.learning.templates.LearningProcessOutput(
            tff.federated_zip(
                State(
                    global_model_weights=applied.result,
                    distributor=distributed.state,
                    client_work=state.client_work,
                    aggregator=aggregated.state,
                    finalizer=applied.state,
                )
            ),
            tff.federated_zip(
                collections.OrderedDict(
                    distributor=distributed.measurements,
                    client_work=tff.federated_zip(collections.OrderedDict(train=train_metrics)),
                    aggregator=aggregated.measurements,
                    finalizer=applied.measurements,
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

    metrics_of_sums = _metrics_computation(finalize_metrics, metrics_of_shard.type_signature.result)

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


def _metrics_computation(finalize_metrics, sums_type) -> tff.Computation:
    @tff.tensorflow.computation(sums_type)
    def finalize(sums):
        return finalize_metrics(sums)

    return finalize


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
