"""A process without TFF computations, in which a breakpoint stops with concrete values.

TFF traces everything that it runs into graphs, so `breakpoint()` in a client's step stops once, at
tracing, and sees symbols. Here the same clients' work runs eagerly, client by client
(`calls.map_clients`), between the server arithmetic of `wiring.server`. Use shards of one client:
then a client takes all its steps before the next one begins.
"""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.errors import InputError
from fedrecon.options import OptimizerOptions
from fedrecon.wiring import server
from fedrecon.wiring.outputs import ShardOutput, State, StatefulOutput
from fedrecon.wiring.weights import ModelWeights, ServerWeights


class DebugProcess:
    """A process with the methods, the state and the metrics of a `LearningProcess`."""

    def __init__(
        self,
        server_weights: ServerWeights,
        *,
        shard_update,
        finalize_metrics,
        server_optimizer: OptimizerOptions,
        server_message=lambda values: values,
        server_update=lambda values, mean: mean,
        aggregator_factory=None,
    ):
        """Creates the process; the arguments are those of `process.build_training_process`.

        Raises:
          InputError: If there is an aggregator: it is made of TFF computations.
        """
        if aggregator_factory is not None:
            raise InputError(
                "the debug engine takes the plain weighted mean; leave out aggregator_factory."
            )
        self._server_weights = server_weights
        self._shard_update = shard_update
        self._finalize_metrics = finalize_metrics
        self._optimizer = server_optimizer.build()
        self._server_message = server_message
        self._server_update = server_update

    def initialize(self) -> State:
        """Returns the initial state."""
        weights = self._server_weights.initial()
        specs = [tf.TensorSpec(value.shape, value.dtype) for value in weights.trainable]
        return _as_numpy(State(weights, (), (), (), self._optimizer.initialize(specs)))

    def next(self, state: State, shards: list) -> tff.learning.templates.LearningProcessOutput:
        """Runs a round."""
        outputs = self._work(state, shards)
        return tff.learning.templates.LearningProcessOutput(*self._finish(state, outputs))

    def get_model_weights(self, state: State) -> ModelWeights:
        """Returns the weights of a state."""
        return state.global_model_weights

    def set_model_weights(self, state: State, weights: ModelWeights) -> State:
        """Returns the state with other weights."""
        return State(
            weights, state.distributor, state.client_work, state.aggregator, state.finalizer
        )

    def _work(self, state: State, shards: list) -> list:
        state = _as_tensors(state)
        values = self._server_weights.to_values(state.global_model_weights)
        message = self._server_message(values)
        return [self._shard_update(message, _as_tensors(shard)) for shard in shards]

    def _finish(self, state: State, outputs: list[ShardOutput]) -> tuple[State, Any]:
        state = _as_tensors(state)
        weights = state.global_model_weights
        total = tf.nest.map_structure(lambda *parts: tf.add_n(parts), *outputs)
        values = self._server_weights.to_values(weights)
        mean = server.weighted_means(total.update, total.weight)
        step = server.take_step(
            self._optimizer,
            state.finalizer,
            list(weights.trainable),
            self._server_update(values, mean),
            has_contributors=server.is_any_positive(total.weight),
        )
        new_weights = ModelWeights(step.trainable, list(weights.non_trainable))
        new_state = State(new_weights, (), (), (), step.optimizer_state)
        metrics = collections.OrderedDict(
            distributor=(),
            client_work=collections.OrderedDict(train=self._finalize_metrics(total.metrics)),
            aggregator=(),
            finalizer=collections.OrderedDict(update_non_finite=tf.cast(~step.is_finite, tf.int32)),
        )
        return _as_numpy(new_state), _as_numpy(metrics)


class StatefulDebugProcess(DebugProcess):
    """The same for clients that have rows; see `process.build_stateful_training_process`."""

    def next(self, state: State, shards: list) -> StatefulOutput:
        """Runs a round."""
        worked = self._work(state, shards)
        state, metrics = self._finish(state, [sent for sent, _ in worked])
        return StatefulOutput(state, [_as_numpy(kept) for _, kept in worked], metrics)


def _as_tensors(structure):
    return tf.nest.map_structure(tf.convert_to_tensor, structure)


def _as_numpy(structure):
    return tf.nest.map_structure(lambda v: np.asarray(tf.convert_to_tensor(v)), structure)
