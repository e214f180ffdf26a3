"""TFF's processes of a round, from the work of a shard's clients.

TFF sees a shard as one client. A round has the four stages of TFF's composers
(`tff.learning.templates`), each with its part of the state:

    SERVER                                              CLIENTS (shards)

    state.global_model_weights
      |
    distributor: server_message -------- broadcast -------+
                                                          |
                                                    client work: shard_update
                                                          |            |
    aggregator: mean of the updates <----- sum -----------+        rows, in a
      |                                                            stateful process
    finalizer: server_update, then a step of the server's
      |        optimizer if the update is finite
    next state, metrics

A shard sends the weighted sum of its clients' updates and the sum of their weights. The sums over
shards are the sums over clients, and the server divides them. An aggregator of one's own gets each
shard's weighted mean and its weight instead.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import tensorflow_federated as tff

from fedrecon.engine.values import Values
from fedrecon.options import OptimizerOptions
from fedrecon.wiring.debug import DebugProcess, StatefulDebugProcess
from fedrecon.wiring.outputs import ShardOutput, State, StatefulOutput
from fedrecon.wiring.stages import Distributor, FactoryAggregator, Finalizer, SumAggregator
from fedrecon.wiring.weights import ServerWeights


def build_training_process(
    server_weights: ServerWeights,
    data_type: tff.Type,
    *,
    shard_update: Callable[[Any, Any], ShardOutput],
    finalize_metrics: Callable[[Any], Any],
    server_optimizer: OptimizerOptions,
    server_message: Callable[[Values], Any] = lambda values: values,
    server_update: Callable[[Values, list], list] = lambda values, mean: mean,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    debug: bool = False,
) -> tff.learning.templates.LearningProcess | DebugProcess:
    """Builds the process that trains a server's weights on shards.

    Args:
      server_weights: The server's weights.
      data_type: The type of a shard.
      shard_update: From the server's message and a shard to the `ShardOutput`.
      finalize_metrics: From the sum of the shards' metrics to what is reported.
      server_optimizer: Applies the update.
      server_message: From the server's values to what clients get.
      server_update: From the server's values and the mean of what the clients sent to the update of
        each trainable weight.
      aggregator_factory: Aggregates updates; None takes their weighted mean, 0 where all weights
        are 0.
      debug: Returns a `DebugProcess`, which has no aggregator of one's own.

    Returns:
      A process with the state and the structure of metrics of
      `tff.learning.algorithms.build_fed_recon`.
    """
    if debug:
        return DebugProcess(
            server_weights,
            shard_update=shard_update,
            finalize_metrics=finalize_metrics,
            server_optimizer=server_optimizer,
            server_message=server_message,
            server_update=server_update,
            aggregator_factory=aggregator_factory,
        )
    distributor = Distributor(server_weights, server_message)

    @tff.tensorflow.computation(distributor.message_type, data_type)
    def client_work(message, shard):
        return shard_update(message, shard)

    output_type = client_work.type_signature.result
    aggregator = (
        SumAggregator(output_type)
        if aggregator_factory is None
        else FactoryAggregator(aggregator_factory, output_type)
    )
    finalizer = Finalizer(server_weights, server_optimizer, server_update, finalize_metrics)
    initialize = _initialization(server_weights, aggregator, finalizer)

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def run_round(state, shards):
        message = distributor.next(state.global_model_weights)
        outputs = tff.federated_map(client_work, (message, shards))
        return tff.learning.templates.LearningProcessOutput(
            *_finish_round(state, outputs, aggregator, finalizer)
        )

    return _learning_process(initialize, run_round)


def build_stateful_training_process(
    server_weights: ServerWeights,
    data_type: tff.Type,
    *,
    shard_update: Callable[[Any, Any], tuple[ShardOutput, list]],
    finalize_metrics: Callable[[Any], Any],
    server_optimizer: OptimizerOptions,
    debug: bool = False,
) -> tff.templates.IterativeProcess | StatefulDebugProcess:
    """Builds the process whose clients have rows that enter and leave at CLIENTS.

    A `LearningProcess` cannot return what is placed there.

    Args:
      server_weights: The server's weights.
      data_type: The type of a shard with its rows.
      shard_update: From the server's values and a shard with its rows to what the shard sends and
        the rows that its clients keep.
      finalize_metrics: From the sum of the shards' metrics to what is reported.
      server_optimizer: Applies the update.
      debug: Returns a `StatefulDebugProcess`.

    Returns:
      A process whose `next(state, shards with rows)` returns a `StatefulOutput`.
    """
    if debug:
        return StatefulDebugProcess(
            server_weights,
            shard_update=shard_update,
            finalize_metrics=finalize_metrics,
            server_optimizer=server_optimizer,
        )
    distributor = Distributor(server_weights, lambda values: values)

    @tff.tensorflow.computation(distributor.message_type, data_type)
    def client_work(message, shard):
        return shard_update(message, shard)

    aggregator = SumAggregator(client_work.type_signature.result[0])
    finalizer = Finalizer(
        server_weights, server_optimizer, lambda values, mean: mean, finalize_metrics
    )
    initialize = _initialization(server_weights, aggregator, finalizer)

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def run_round(state, shards):
        message = distributor.next(state.global_model_weights)
        sent, local_values = tff.federated_map(client_work, (message, shards))
        state, metrics = _finish_round(state, sent, aggregator, finalizer)
        return StatefulOutput(state, local_values, metrics)

    return tff.templates.IterativeProcess(initialize, run_round)


def build_evaluation_process(
    server_weights: ServerWeights,
    data_type: tff.Type,
    *,
    shard_metrics: Callable[[Values, Any], Any],
    finalize_metrics: Callable[[Any], Any],
) -> tff.learning.templates.LearningProcess:
    """Builds the process that broadcasts, measures and sums; its state only holds the weights.

    Args:
      server_weights: The server's weights.
      data_type: The type of a shard.
      shard_metrics: From the server's values and a shard to sums over its clients.
      finalize_metrics: From the sum over shards to what is reported, as
        `metrics["client_work"]["eval"]["current_round_metrics"]`.
    """
    distributor = Distributor(server_weights, lambda values: values)

    @tff.tensorflow.computation(distributor.message_type, data_type)
    def metrics_of_shard(message, shard):
        return shard_metrics(message, shard)

    metrics_of_sums = tff.tensorflow.computation(
        finalize_metrics, metrics_of_shard.type_signature.result
    )

    @tff.federated_computation
    def initialize():
        empty = tff.federated_value((), tff.SERVER)
        weights = tff.federated_eval(server_weights.initialize, tff.SERVER)
        return tff.federated_zip(State(weights, empty, empty, empty, empty))

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def evaluate(state, shards):
        message = distributor.next(state.global_model_weights)
        sums = tff.federated_sum(tff.federated_map(metrics_of_shard, (message, shards)))
        metrics = tff.federated_map(metrics_of_sums, sums)
        of_round = tff.federated_zip(collections.OrderedDict(current_round_metrics=metrics))
        of_clients = tff.federated_zip(collections.OrderedDict(eval=of_round))
        return tff.learning.templates.LearningProcessOutput(
            state, tff.federated_zip(collections.OrderedDict(client_work=of_clients))
        )

    return _learning_process(initialize, evaluate)


def _initialization(server_weights: ServerWeights, aggregator, finalizer) -> tff.Computation:
    nothing = tff.tensorflow.computation(lambda: ())

    @tff.federated_computation
    def initialize():
        return tff.federated_zip(
            State(
                global_model_weights=tff.federated_eval(server_weights.initialize, tff.SERVER),
                distributor=tff.federated_eval(nothing, tff.SERVER),
                client_work=tff.federated_eval(nothing, tff.SERVER),
                aggregator=aggregator.initialize(),
                finalizer=finalizer.initialize(),
            )
        )

    return initialize


def _finish_round(state, outputs, aggregator, finalizer):
    """Returns the state and the metrics after the stages that follow the clients' work."""
    aggregator_state, aggregated, measurements = aggregator.next(state.aggregator, outputs)
    weights, optimizer_state, metrics, checks = finalizer.next(
        state.finalizer, state.global_model_weights, aggregated
    )
    new_state = State(
        global_model_weights=weights,
        distributor=state.distributor,
        client_work=state.client_work,
        aggregator=aggregator_state,
        finalizer=optimizer_state,
    )
    all_metrics = collections.OrderedDict(
        distributor=state.distributor,
        client_work=tff.federated_zip(collections.OrderedDict(train=metrics)),
        aggregator=measurements,
        finalizer=checks,
    )
    return tff.federated_zip(new_state), tff.federated_zip(all_metrics)


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
