"""Federated averaging of the global part, and its stateful form, all clients of a shard at once.

Communication-Efficient Learning of Deep Networks from Decentralized Data. H. Brendan McMahan, Eider
Moore, Daniel Ramage, Seth Hampson, Blaise Agüera y Arcas. AISTATS 2017, arXiv:1602.05629,
algorithm 1, applied to a partly local model. A round:

1. The server samples clients and sends them the global part of the model.
2. Each client takes its local part: drawn afresh (`build_fed_avg`, stateless), or kept from its
   last round (`build_stateful_fed_avg`; fresh in its first).
3. Each client fits both parts together on all its examples.
4. It returns the difference of the global part. The local part it forgets, or keeps.
5. The server averages the differences and applies them with its optimizer.

The FedRecon paper compares with FedAvg (Singhal et al. 2021, arXiv:2102.03448, section 5) and
leaves open what becomes of the user's row. Both forms here are readings of it. The flags of its
released code are a third: no local part, and one global row for all users
(`FedAvgOptions.trains_local`).

The local part never leaves the client: it is at CLIENTS, or nowhere, in the types of these
computations. Keeping it costs the device memory, and serves only clients that take part again: with
many users, hardly any.

**What one client's update reveals**, if the server sees it alone. Its non-zero rows name the
client's items; with implicit feedback drawn negatives are among them. (With weight decay or L2
other rows move too, but alike on every client.) After one step of SGD the update of an item row is
the error of its rating times the user vector: all rows point along the user vector. The updates of
item biases are the errors, up to a known factor, so they give the length of the vector, and the
ratings. More steps mix the rows and do not hide them. A stateful client's vector lasts, so it can
be followed from round to round.

Secure aggregation would show the server sums over a cohort and no single update. A sum hides a
client only among other clients with the same items. These baselines take no aggregator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import joint_update
from fedrecon.algorithms.algorithm import Algorithm, RowStore, costs_of_rounds, num_bytes
from fedrecon.data.cohorts import Shard
from fedrecon.data.population import Population
from fedrecon.engine.calls import fresh_local_values
from fedrecon.engine.client_metrics import ClientMetrics
from fedrecon.engine.shards import shard_spec
from fedrecon.engine.values import Values, by_name, in_order, where_client
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedAvgOptions, FedReconOptions
from fedrecon.wiring.outputs import ShardOutput, State
from fedrecon.wiring.process import build_stateful_training_process, build_training_process
from fedrecon.wiring.types import local_values_type, shard_type
from fedrecon.wiring.weights import global_part

packing_options = joint_update.packing_options


class ShardWithRows(NamedTuple):
    """A shard whose clients bring their local part.

    Attributes:
      shard: The clients.
      local_values: For each of the local weights `[clients, ...]`; of no meaning where not known.
      is_known: `[clients]` bool: which clients kept one. The others draw theirs.
    """

    shard: Shard
    local_values: list
    is_known: tf.Tensor


def build_fed_avg(
    model_fn: ModelFn, options: FedAvgOptions, *, clients_per_shard: int, debug: bool = False
) -> tff.learning.templates.LearningProcess:
    """Builds stateless federated averaging.

    Args:
      model_fn: Builds the model.
      options: The settings.
      clients_per_shard: As for the `CohortPacker`.
      debug: Returns a `wiring.debug.DebugProcess`, in which breakpoints work: no TFF computations,
        no XLA, no vectorization. Use it with one client a shard.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`;
      its metrics are those of `fed_recon.build_fed_recon`, over all examples.

    Raises:
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    work = _ClientWork(model_fn, options, clients_per_shard, debug=debug)

    def update_shard(global_values, shard):
        output, _ = work(global_values, shard, fresh_local_values(work.model, shard))
        return output

    return build_training_process(
        work.weights,
        shard_type(options.batch_size, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=work.metrics.finalize_training,
        server_optimizer=options.server_optimizer,
        debug=debug,
    )


def build_stateful_fed_avg(
    model_fn: ModelFn, options: FedAvgOptions, *, clients_per_shard: int, debug: bool = False
) -> tff.templates.IterativeProcess:
    """Builds federated averaging whose clients keep their local part between rounds.

    Arguments and errors are those of `build_fed_avg`.

    Returns:
      A process whose `next(state, shards)` takes a list of `ShardWithRows` and returns a
      `StatefulOutput`. A client whose update was not finite keeps what it had.
    """
    work = _ClientWork(model_fn, options, clients_per_shard, debug=debug)
    local_weights = work.model.local_weights

    def update_shard(global_values, client):
        kept = by_name(local_weights, client.local_values)
        local_values = {
            name: where_client(client.is_known, kept[name], drawn)
            for name, drawn in fresh_local_values(work.model, client.shard).items()
        }
        output, local_values = work(global_values, client.shard, local_values)
        return output, in_order(local_weights, local_values)

    data_type = tff.types.to_type(
        ShardWithRows(
            shard_type(options.batch_size, clients_per_shard),
            local_values_type(work.model, clients_per_shard),
            tff.TensorType(np.bool_, [clients_per_shard]),
        )
    )
    return build_stateful_training_process(
        work.weights,
        data_type,
        shard_update=update_shard,
        finalize_metrics=work.metrics.finalize_training,
        server_optimizer=options.server_optimizer,
        debug=debug,
    )


class _ClientWork:
    """Steps 3 and 4 of a round, given the clients' local values."""

    def __init__(
        self, model_fn: ModelFn, options: FedAvgOptions, clients_per_shard: int, *, debug: bool
    ):
        split_model = model_fn()
        self.model, self.metrics = FunctionalModel(split_model), ClientMetrics(split_model)
        self.weights = global_part(model_fn, self.model)
        self._options = options
        spec = shard_spec(options.batch_size, clients_per_shard)
        self._update = joint_update.build_joint_update(self.model, options, spec, debug=debug)

    def __call__(
        self, global_values: Values, shard: Shard, local_values: Values
    ) -> tuple[ShardOutput, Values]:
        """Returns what the shard sends, and its clients' local values afterwards."""
        update = self._update(global_values, shard, local_values)
        updates, divisors = joint_update.sum_joint_updates(
            self.model, self._options, global_values, shard, update.contribution
        )
        output = ShardOutput(
            update=in_order(self.weights.trainable, updates),
            weight=in_order(self.weights.trainable, divisors),
            metrics=self.metrics.training_sums(
                update.contribution, update.examples, update.predictions
            ),
        )
        return output, update.local_values


class StatefulRound(NamedTuple):
    """The server's side of a round; the clients' rows are staged in the store."""

    state: State
    metrics: dict


class StatefulFedAvg:
    """Stateful federated averaging and the store of its clients' rows, as one process.

    In a row of the store the local weights follow each other, flat.
    """

    def __init__(self, training: Any, model: FunctionalModel, store: RowStore):
        """Creates the process.

        Args:
          training: The result of `build_stateful_fed_avg`.
          model: Its model.
          store: Rows of `row_width(model)` numbers.
        """
        self._training, self._store = training, store
        self._shapes = [weight.shape.as_list() for weight in model.local_weights]

    def initialize(self) -> State:
        """Returns the server's initial state."""
        return self._training.initialize()

    def next(self, state: State, shards: list[Shard]) -> StatefulRound:
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
        """Returns the local values of users, `[n, ...]` each, and which users have some, `[n]`."""
        rows, is_known = self._store.read(users)
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        return [p.reshape([-1, *shape]) for p, shape in zip(parts, self._shapes)], is_known


def row_width(model: FunctionalModel) -> int:
    """Returns how many numbers the local part of a model has."""
    return sum(weight.shape.num_elements() for weight in model.local_weights)


def prepare_fed_avg(
    model_fn: ModelFn,
    options: FedAvgOptions,
    population: Population,
    *,
    clients_per_round: int,
    clients_per_shard: int | None = None,
    sampler: str = "uniform",
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
    debug: bool = False,
) -> Algorithm:
    """Returns stateless federated averaging, ready to train on a population.

    Args:
      model_fn: Builds the model; see `fedrecon.models.model_fn`.
      options: The settings of the algorithm.
      population: The users; its seed decides every draw.
      clients_per_round: The size of a cohort.
      clients_per_shard: See `algorithm.cohort_packer`.
      sampler: See `cohort_sampler`.
      reconstruction: How users without a kept local part are served; None means the defaults of
        `FedReconOptions`. Only its reconstruction settings and its batch size apply.
      reconstruction_model_fn: Builds the model that serves these users, if it differs from the
        trained one: exact reconstruction takes a model without regularizers of local weights.
      debug: Whether breakpoints work in a client's step; see `build_fed_avg`. It is slow.

    Raises:
      InputError: If there are too few training users; see also `build_fed_avg`.
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    model, packer, common = joint_update.prepare_joint(
        model_fn,
        options,
        population,
        clients_per_round=clients_per_round,
        clients_per_shard=clients_per_shard,
        sampler=sampler,
        reconstruction=reconstruction,
        reconstruction_model_fn=reconstruction_model_fn,
        debug=debug,
    )
    training = build_fed_avg(
        model_fn, options, clients_per_shard=packer.clients_per_shard, debug=debug
    )
    return Algorithm(
        process=training,
        get_weights=training.get_model_weights,
        costs=costs_of_rounds(model, item_steps=packer.mean_query_steps(population.train)),
        **common,
    )


def prepare_stateful_fed_avg(
    model_fn: ModelFn,
    options: FedAvgOptions,
    population: Population,
    *,
    clients_per_round: int,
    open_store: Callable[[int, int], RowStore],
    clients_per_shard: int | None = None,
    sampler: str = "uniform",
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
    debug: bool = False,
) -> Algorithm:
    """Returns federated averaging whose clients keep their local part between rounds.

    Arguments and errors are those of `prepare_fed_avg`, and:

    Args:
      open_store: From the number of users and the width of a row to the store of the clients' rows,
        such as `fedrecon.runs.client_store.ClientStore`.
    """
    model, packer, common = joint_update.prepare_joint(
        model_fn,
        options,
        population,
        clients_per_round=clients_per_round,
        clients_per_shard=clients_per_shard,
        sampler=sampler,
        reconstruction=reconstruction,
        reconstruction_model_fn=reconstruction_model_fn,
        debug=debug,
    )
    process = build_stateful_fed_avg(
        model_fn, options, clients_per_shard=packer.clients_per_shard, debug=debug
    )
    store = open_store(population.ratings.num_users, row_width(model))
    training = StatefulFedAvg(process, model, store)
    return Algorithm(
        process=training,
        get_weights=lambda state: state.global_model_weights,
        kept_rows=lambda state, users: training.read(users),
        store=store,
        costs=costs_of_rounds(
            model,
            item_steps=packer.mean_query_steps(population.train),
            device=num_bytes(model.local_weights),
        ),
        **common,
    )
