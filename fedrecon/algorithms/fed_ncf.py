"""Federated neural collaborative filtering: user rows are on the server, all clients at once.

Federated averaging (McMahan et al. 2017, arXiv:1602.05629) over everything, user rows too, as in
Federated Neural Collaborative Filtering. Vasileios Perifanis, Pavlos S. Efraimidis. Knowledge-Based
Systems 2022, arXiv:2106.04405. A round:

1. The server samples clients and sends them the global part of the model and their own user rows.
2. Each client fits both on all its examples: its positives, and negatives that it draws.
3. It returns the difference of both.
4. The server averages the differences and applies them with its optimiser.

Plain averaging moves a user's row by the share of its weight in the round, though nobody else
trained it, and an item's row likewise if few clients have the item; the paper finds that
inconsistent with latent factors. `averaging="by_row"` divides the differences of a row by the
weights of the clients that have it, and everything else by those of all.

The server sees which row is whose: this is the baseline that the other algorithms improve on. What
stays on the device is the examples. Rows of others are neither sent to a client nor moved by its
weight decay.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.engine import client_work
from fedrecon.engine.client_metrics import ClientMetrics
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedAvgOptions
from fedrecon.wiring import process

packing_options = client_work.joint_packing_options


def build_fed_ncf(
    model_fn: ModelFn, options: FedAvgOptions, *, num_users: int, clients_per_shard: int, seed: int
) -> tff.learning.templates.LearningProcess:
    """Builds FedNCF, for any split model: its local weights become tables on the server.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      options: The algorithm's settings.
      num_users: User ids are in `[0, num_users)`.
      clients_per_shard: That of the `CohortPacker`.
      seed: Draws the initial user rows.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`.
      The weights of its state are those of `process.initial_weights_with_user_rows`; its metrics
      those of `fed_recon.build_fed_recon`, over all examples.

    Raises:
      ValueError: If the model cannot be vectorised over clients; see `FunctionalModel`.
    """
    split_model = model_fn()
    model, metrics = FunctionalModel(split_model), ClientMetrics(split_model)
    spec = client_work.shard_spec(options.batch_size, clients_per_shard)
    update_clients = client_work.build_joint_update(model, options, spec)

    def update_shard(weights, shard):
        global_values, tables = process.split_user_rows(model, weights)
        ids = tf.maximum(shard.user_ids, 0)
        rows = [tf.gather(table, ids) for table in tables]
        update = update_clients(global_values, shard, rows)
        contribution = update.contribution
        updates, divisors = client_work.sum_joint_updates(
            model, options, global_values, shard, contribution
        )
        # A user is in one client at most, so the sum over clients is the update of that one.
        updates += [
            client_work.sum_rows(change, shard.user_ids, num_users)
            for change in contribution.local_updates
        ]
        if options.averaging == "by_row":
            for change in contribution.local_updates:
                weights = tf.reshape(contribution.weights, [-1] + [1] * (change.shape.rank - 1))
                divisors.append(client_work.sum_rows(weights, shard.user_ids, num_users))
        sums = metrics.training_sums(contribution, update.examples, update.predictions)
        return process.ShardOutput(updates, divisors, sums)

    return process.build_training_process(
        process.initial_weights_with_user_rows(model_fn, model, num_users=num_users, seed=seed),
        process.shard_type(options.batch_size, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=metrics.finalize_training,
        server_optimizer=options.server_optimizer,
    )
