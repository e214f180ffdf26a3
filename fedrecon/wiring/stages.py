"""The server's stages of a round, as functions inside of federated computations; see `process`."""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.wiring import server
from fedrecon.wiring.weights import ModelWeights, ServerWeights


class Distributor:
    """Makes the server's message, once a round, and sends it to all clients."""

    def __init__(self, server_weights: ServerWeights, server_message):
        @tff.tensorflow.computation(server_weights.type)
        def message_of_weights(weights):
            return server_message(server_weights.to_values(weights))

        self._message_of_weights = message_of_weights
        self.message_type = message_of_weights.type_signature.result

    def next(self, weights):
        """Returns the message at CLIENTS."""
        return tff.federated_broadcast(tff.federated_map(self._message_of_weights, weights))


class Aggregated(NamedTuple):
    """The aggregator's result, at SERVER.

    Attributes:
      mean: The weighted mean of what clients sent.
      has_contributors: Whether any client counted, a scalar bool.
      metrics: The sums of the shards' metrics.
    """

    mean: list
    has_contributors: Any
    metrics: Any


class SumAggregator:
    """Sums over shards; the server divides."""

    def __init__(self, output_type: tff.Type):
        @tff.tensorflow.computation(output_type)
        def divide(total):
            weights = list(total.weight)
            means = server.weighted_means(list(total.update), weights)
            return Aggregated(means, server.is_any_positive(weights), total.metrics)

        self._divide = divide

    def initialize(self):
        return tff.federated_value((), tff.SERVER)

    def next(self, state, outputs):
        """Returns the next state, the `Aggregated` and measurements."""
        aggregated = tff.federated_map(self._divide, tff.federated_sum(outputs))
        return state, aggregated, tff.federated_value((), tff.SERVER)


class FactoryAggregator:
    """Gives the weighted mean and the weight of each shard to an aggregator of TFF's kind."""

    def __init__(self, factory, output_type: tff.Type):
        @tff.tensorflow.computation(output_type.update, output_type.weight)
        def mean_of_shard(update, weight):
            return server.weighted_means(list(update), list(weight)), weight[0]

        self._mean_of_shard = mean_of_shard
        self._process = factory.create(*mean_of_shard.type_signature.result)

    def initialize(self):
        return self._process.initialize()

    def next(self, state, outputs):
        """Returns the next state, the `Aggregated` and measurements."""
        means, weights = tff.federated_map(self._mean_of_shard, (outputs.update, outputs.weight))
        aggregated = self._process.next(state, means, weights)
        result = Aggregated(
            aggregated.result,
            tff.federated_value(np.bool_(True), tff.SERVER),
            tff.federated_sum(outputs.metrics),
        )
        return aggregated.state, tff.federated_zip(result), aggregated.measurements


class Finalizer:
    """Takes the server's step and finalizes the metrics."""

    def __init__(self, server_weights: ServerWeights, options, server_update, finalize_metrics):
        optimizer = options.build()
        weights_type = server_weights.type

        @tff.tensorflow.computation
        def initialize_optimizer():
            return optimizer.initialize(
                [tf.TensorSpec(t.shape, t.dtype) for t in weights_type.trainable]
            )

        @tff.tensorflow.computation
        def take_step(weights, optimizer_state, aggregated):
            step = server.take_step(
                optimizer,
                optimizer_state,
                list(weights.trainable),
                server_update(server_weights.to_values(weights), list(aggregated.mean)),
                has_contributors=aggregated.has_contributors,
            )
            return (
                ModelWeights(step.trainable, list(weights.non_trainable)),
                step.optimizer_state,
                finalize_metrics(aggregated.metrics),
                collections.OrderedDict(update_non_finite=tf.cast(~step.is_finite, tf.int32)),
            )

        self._initialize_optimizer = initialize_optimizer
        self._take_step = take_step

    def initialize(self):
        return tff.federated_eval(self._initialize_optimizer, tff.SERVER)

    def next(self, state, weights, aggregated):
        """Returns the weights, the optimizer's state, the metrics and the checks."""
        return tff.federated_map(self._take_step, (weights, state, aggregated))
