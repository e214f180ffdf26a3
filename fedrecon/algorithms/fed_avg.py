"""Federated averaging of the global part, and its stateful form, all clients of a shard at once.

Communication-Efficient Learning of Deep Networks from Decentralized Data. H. Brendan McMahan, Eider
Moore, Daniel Ramage, Seth Hampson, Blaise Agüera y Arcas. AISTATS 2017, arXiv:1602.05629,
algorithm 1, applied to a partly local model as the FedRecon paper does for its baselines (Singhal
et al. 2021, arXiv:2102.03448, section 5). A round:

1. The server samples clients and sends them the global part of the model.
2. Each client takes its local part: drawn afresh (`build_fed_avg`, stateless), or the one that it
   kept from its last round (`build_stateful_fed_avg`; fresh in its first).
3. Each client fits both parts together on all its examples.
4. It returns the difference of the global part. The local part it forgets, or keeps.
5. The server averages the differences and applies them with its optimiser.

The local part never leaves the client: it is at CLIENTS, or nowhere, in the types of these
computations. Keeping it costs the device memory, and serves only who takes part again: with many
users, hardly anyone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.cohorts import Shard
from fedrecon.engine import client_work
from fedrecon.engine.client_metrics import ClientMetrics
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedAvgOptions
from fedrecon.runs.client_store import ClientStore
from fedrecon.wiring import process

packing_options = client_work.joint_packing_options


class ShardWithRows(NamedTuple):
    """A shard whose clients bring their local part.

    Attributes:
      shard: The clients.
      local_values: For each of the local weights `[clients, ...]`; of no meaning where not known.
      is_known: `[clients]` bool: who kept one. The others draw theirs.
    """

    shard: Shard
    local_values: list
    is_known: tf.Tensor


def build_fed_avg(
    model_fn: ModelFn, options: FedAvgOptions, *, clients_per_shard: int
) -> tff.learning.templates.LearningProcess:
    """Builds stateless federated averaging.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      options: The algorithm's settings.
      clients_per_shard: That of the `CohortPacker`.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`;
      its metrics are those of `fed_recon.build_fed_recon`, over all examples.

    Raises:
      ValueError: If the model cannot be vectorised over clients; see `FunctionalModel`.
    """
    work = _ClientWork(model_fn, options, clients_per_shard)

    def update_shard(weights, shard):
        return work(weights, shard, client_work.fresh_local_values(work.model, shard))[0]

    return process.build_training_process(
        process.initial_weights(model_fn),
        process.shard_type(options.batch_size, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=work.metrics.finalize_training,
        server_optimizer=options.server_optimizer,
    )


def build_stateful_fed_avg(
    model_fn: ModelFn, options: FedAvgOptions, *, clients_per_shard: int
) -> tff.templates.IterativeProcess:
    """Builds federated averaging whose clients keep their local part between rounds.

    Arguments and errors are those of `build_fed_avg`.

    Returns:
      A process whose `next(state, shards)` takes a list of `ShardWithRows` and returns a
      `process.StatefulOutput`. A client whose update was not finite keeps what it had.
    """
    work = _ClientWork(model_fn, options, clients_per_shard)

    def update_shard(weights, client):
        fresh = client_work.fresh_local_values(work.model, client.shard)
        values = [
            tf.where(tf.reshape(client.is_known, [-1] + [1] * (kept.shape.rank - 1)), kept, drawn)
            for kept, drawn in zip(client.local_values, fresh)
        ]
        return work(weights, client.shard, values)

    data_type = tff.types.to_type(
        ShardWithRows(
            process.shard_type(options.batch_size, clients_per_shard),
            process.local_values_type(work.model, clients_per_shard),
            tff.TensorType(np.bool_, [clients_per_shard]),
        )
    )
    return process.build_stateful_training_process(
        process.initial_weights(model_fn),
        data_type,
        shard_update=update_shard,
        finalize_metrics=work.metrics.finalize_training,
        server_optimizer=options.server_optimizer,
    )


class _ClientWork:
    """Steps 3 and 4 of a round, given the clients' local values."""

    def __init__(self, model_fn: ModelFn, options: FedAvgOptions, clients_per_shard: int):
        split_model = model_fn()
        self.model, self.metrics = FunctionalModel(split_model), ClientMetrics(split_model)
        self._options = options
        spec = client_work.shard_spec(options.batch_size, clients_per_shard)
        self._update = client_work.build_joint_update(self.model, options, spec)

    def __call__(self, weights, shard, local_values):
        """Returns what the shard sends, and its clients' local values afterwards."""
        global_values = [*weights.trainable, *weights.non_trainable]
        update = self._update(global_values, shard, local_values)
        updates, divisors = client_work.sum_joint_updates(
            self.model, self._options, global_values, shard, update.contribution
        )
        sums = self.metrics.training_sums(update.contribution, update.examples, update.predictions)
        return process.ShardOutput(updates, divisors, sums), update.local_values


class StatefulRound(NamedTuple):
    """The server's side of a round; the clients' rows are staged in the store."""

    state: process.State
    metrics: dict


class StatefulFedAvg:
    """Stateful federated averaging and the store of its clients' rows, as one process.

    In a row of the store the local weights follow each other, flat.
    """

    def __init__(
        self, training: tff.templates.IterativeProcess, model: FunctionalModel, store: ClientStore
    ):
        """Creates the process.

        Args:
          training: As `build_stateful_fed_avg` gives it.
          model: Its model.
          store: Rows of `row_width(model)` numbers.
        """
        self._training, self._store = training, store
        self._shapes = [weight.shape.as_list() for weight in model.local_weights]

    def initialize(self) -> process.State:
        """Returns the server's initial state."""
        return self._training.initialize()

    def next(self, state: process.State, shards: list[Shard]) -> StatefulRound:
        """Runs a round of shards packed with `packing_options`; stages the rows that changed."""
        clients = []
        for shard in shards:
            values, is_known = self.read(np.maximum(shard.user_ids, 0))
            clients.append(ShardWithRows(shard, values, is_known))
        output = self._training.next(state, clients)
        for shard, values in zip(shards, output.local_values):
            is_client = shard.user_ids >= 0
            flat = [np.reshape(value, [len(is_client), -1]) for value in values]
            rows = np.concatenate(flat, axis=1)[is_client]
            self._store.stage(shard.user_ids[is_client], rows)
        return StatefulRound(output.state, output.metrics)

    def read(self, users: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the local values of users, `[n, ...]` each, and who has some, `[n]` bool."""
        rows, is_known = self._store.read(users)
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        return [p.reshape([-1, *shape]) for p, shape in zip(parts, self._shapes)], is_known


def row_width(model: FunctionalModel) -> int:
    """Returns how many numbers the local part of a model has."""
    return sum(weight.shape.num_elements() for weight in model.local_weights)
