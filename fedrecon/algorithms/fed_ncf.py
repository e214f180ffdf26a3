"""Federated neural collaborative filtering: user rows are on the server, all clients at once.

Federated averaging (McMahan et al. 2017, arXiv:1602.05629) over everything, user rows too, as in
Federated Neural Collaborative Filtering. Vasileios Perifanis, Pavlos S. Efraimidis. Knowledge-Based
Systems 2022, arXiv:2106.04405. A round:

1. The server samples clients and sends them the global part of the model and their own user rows.
2. Each client fits both on all its examples: its positives, and negatives that it draws.
3. It returns the difference of both.
4. The server averages the differences and applies them with its optimizer.

Plain averaging moves a user's row by the share of its client's weight in the round, though no other
client trained it, and an item's row likewise if few clients have the item; the paper finds that
inconsistent with latent factors. `averaging="by_row"` divides the differences of a row by the
weights of the clients that have it, and everything else by the weights of all.

**What the server learns about one client**: everything but the examples themselves. It keeps each
user's row and sees which user it belongs to. If it also sees the rest of a client's update alone,
the non-zero rows name the client's items (positives and drawn negatives). After one step of SGD the
update of an item row is the error times the user's row. The server knows that row, so it learns the
error, and with it the label.

Secure aggregation hides item rows in a sum, but no user's row: one client alone moves it. So here
it protects little, and this baseline takes no aggregator. Rows of other users are neither sent to a
client nor moved by its weight decay.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import joint_update
from fedrecon.algorithms.algorithm import Algorithm, costs_of_rounds, num_bytes, rows_of_server
from fedrecon.data.cohorts import Shard
from fedrecon.data.population import Population
from fedrecon.engine.client_metrics import ClientMetrics
from fedrecon.engine.shards import shard_spec
from fedrecon.engine.updates import Contribution, sum_rows
from fedrecon.engine.values import Values, by_client, in_order
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedAvgOptions, FedReconOptions
from fedrecon.wiring.outputs import ShardOutput
from fedrecon.wiring.process import build_training_process
from fedrecon.wiring.types import shard_type
from fedrecon.wiring.user_tables import with_user_rows

packing_options = joint_update.packing_options


def build_fed_ncf(
    model_fn: ModelFn,
    options: FedAvgOptions,
    *,
    num_users: int,
    clients_per_shard: int,
    seed: int,
    debug: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds FedNCF, for any split model: its local weights become tables on the server.

    Args:
      model_fn: Builds the model.
      options: The settings.
      num_users: User ids are in `[0, num_users)`.
      clients_per_shard: As for the `CohortPacker`.
      seed: Draws the initial user rows.
      debug: As for `fed_avg.build_fed_avg`.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`.
      The weights of its state are those of `wiring.user_tables`; its metrics are those of
      `fed_recon.build_fed_recon`, over all examples.

    Raises:
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    split_model = model_fn()
    model, metrics = FunctionalModel(split_model), ClientMetrics(split_model)
    weights = with_user_rows(model_fn, model, num_users=num_users, seed=seed)
    spec = shard_spec(options.batch_size, clients_per_shard)
    update_clients = joint_update.build_joint_update(model, options, spec, debug=debug)

    def update_shard(values, shard):
        global_values = {w.name: values[w.name] for w in model.global_weights}
        ids = tf.maximum(shard.user_ids, 0)
        rows = {w.name: tf.gather(values[w.name], ids) for w in model.local_weights}
        update = update_clients(global_values, shard, rows)
        updates, divisors = joint_update.sum_joint_updates(
            model, options, global_values, shard, update.contribution
        )
        of_rows, divisors_of_rows = _sum_user_rows(options, update.contribution, shard, num_users)
        return ShardOutput(
            update=in_order(weights.trainable, updates | of_rows),
            weight=in_order(weights.trainable, divisors | divisors_of_rows),
            metrics=metrics.training_sums(update.contribution, update.examples, update.predictions),
        )

    return build_training_process(
        weights,
        shard_type(options.batch_size, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=metrics.finalize_training,
        server_optimizer=options.server_optimizer,
        debug=debug,
    )


def _sum_user_rows(
    options: FedAvgOptions, contribution: Contribution, shard: Shard, num_users: int
) -> tuple[Values, Values]:
    """Returns the weighted sums of the updates of user rows, `[num_users, ...]`, and divisors.

    A user is in one client at most, so a row's sum over clients is the update of one client.
    """
    total = tf.reduce_sum(contribution.weights)
    updates, divisors = {}, {}
    for name, change in contribution.local_updates.items():
        updates[name], divisors[name] = sum_rows(change, shard.user_ids, num_users), total
        if options.averaging == "by_row":
            of_clients = by_client(contribution.weights, change)
            divisors[name] = sum_rows(of_clients, shard.user_ids, num_users)
    return updates, divisors


def prepare_fed_ncf(
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
    """Returns FedNCF, ready to train on a population; see `prepare_fed_avg`."""
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
    training = build_fed_ncf(
        model_fn,
        options,
        num_users=population.ratings.num_users,
        clients_per_shard=packer.clients_per_shard,
        seed=population.seed,
        debug=debug,
    )
    row = num_bytes(model.local_weights)
    return Algorithm(
        process=training,
        costs=costs_of_rounds(
            model,
            item_steps=packer.mean_query_steps(population.train),
            more_down=row,
            more_up=row,
        ),
        **common,
        **rows_of_server(model, population),
    )
