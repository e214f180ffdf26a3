"""Federated Reconstruction, all clients of a shard at once.

Federated Reconstruction: Partially Local Federated Learning. Karan Singhal, Hakim Sidahmed, Zachary
Garrett, Shanshan Wu, Keith Rush, Sushant Prakash. NeurIPS 2021, arXiv:2102.03448. A round
(algorithm 1 of the paper):

1. The server samples clients and sends them the global part of the model.
2. Each client draws a fresh local part and fits it on its support (reconstruction).
3. Each client fits the global part on its query, the local part frozen, and returns the difference.
4. The server averages the differences and applies them with its optimizer.

The local part never leaves the client and is forgotten after the round: it is in no type of these
computations. The numbers are those of `stock_fed_recon`, with two differences. Local initial values
are drawn for each client and round by the initializers of the local layers (stock TFF gives all
clients the same). And a client without a query has weight zero also with uniform weighting.

**What one client's update reveals**, if the server sees it alone. Its non-zero rows name the items
of the client's query. (With weight decay or L2 other rows move too, but alike on every client.)
After one step of SGD the update of an item row is the error of its rating times the user vector:
all rows point along the user vector. The updates of item biases are the errors, up to a known
factor, so they give the length of the vector, and the ratings. `fed_recon_ls` takes one step. More
steps mix the rows and do not hide them.

Secure aggregation (`wiring.secure.secure_mean`) shows the server sums over a cohort and no single
update. Each client must then send whole tables. A sum hides a client only among other clients with
the same items: if one client of a round alone has an item, the sum of that row is its update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.algorithm import (
    Algorithm,
    cohort_packer,
    cohort_sampler,
    costs_of_rounds,
)
from fedrecon.algorithms.reconstruction import (
    RECONSTRUCTION_SEED,
    build_models,
    compile_after_reconstruction,
    prepare_reconstruction,
    support_passes,
)
from fedrecon.data.cohorts import PackingOptions, Passes, Shard
from fedrecon.data.population import Population
from fedrecon.engine.calls import predict
from fedrecon.engine.client_metrics import ClientMetrics, training_metrics
from fedrecon.engine.client_step import Stage
from fedrecon.engine.shards import Examples, num_rows, shard_spec
from fedrecon.engine.stages import run_stage
from fedrecon.engine.updates import contribute, sum_updates
from fedrecon.engine.values import in_order
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedReconOptions
from fedrecon.wiring.outputs import ShardOutput
from fedrecon.wiring.process import build_evaluation_process, build_training_process
from fedrecon.wiring.secure import check_aggregator
from fedrecon.wiring.types import shard_type
from fedrecon.wiring.weights import global_part

# What a client's seed is used for beside reconstruction.
_UPDATE = RECONSTRUCTION_SEED + 1


def packing_options(options: FedReconOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_fed_recon`.

    Args:
      options: The settings.
      seed: Draws each client's local initial values, with the round and the user id.
    """
    return PackingOptions(
        batch_size=options.batch_size,
        support_query_split=options.support_query_split,
        support=support_passes(options),
        query=Passes(options.client_epochs, options.client_steps_max),
        seed=seed,
    )


def evaluation_packing_options(options: FedReconOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_fed_recon_evaluation`; see `packing_options`."""
    packing = packing_options(options.for_evaluation(), seed=seed)
    return dataclasses.replace(packing, query=Passes(1, None))


def build_fed_recon(
    model_fn: ModelFn,
    options: FedReconOptions,
    *,
    clients_per_shard: int,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
    debug: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds FedRecon training.

    Args:
      model_fn: Builds the model.
      options: The settings.
      clients_per_shard: As for the `CohortPacker`.
      aggregator_factory: Aggregates the clients' updates; None takes the weighted mean of the
        clients. TFF sees a shard as one client, so an aggregator that needs each client's own
        update (clipping, robust, quantized, unweighted) takes shards of one client only.
      is_aggregator_linear: Says that `aggregator_factory` gives the same for clients as for the
        weighted means and weights of groups of them, as weighted means over plain or secure sums
        do; then shards may have any number of clients.
      debug: Returns a `wiring.debug.DebugProcess`, in which breakpoints work: no TFF computations,
        no XLA, no vectorization. Use it with one client a shard.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`. A
      round in which no client has a query leaves the model as it was. Its metrics are those of
      `stock_fed_recon.build_fed_recon` and `num_clients_rejected`, the clients left out because
      their update was not finite.

    Raises:
      InputError: If the aggregator would get the updates of several clients as one, or least
        squares cannot reconstruct the model; see `least_squares.check_is_solvable`.
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    check_aggregator(
        aggregator_factory, is_linear=is_aggregator_linear, clients_per_shard=clients_per_shard
    )
    split_model, model = build_models(model_fn, options)
    metrics = ClientMetrics(split_model)
    weights = global_part(model_fn, model)
    spec = shard_spec(options.batch_size, clients_per_shard)
    update_clients = build_clients_update(model, options, spec, debug=debug)

    def update_shard(global_values, shard):
        contribution, query, predictions = update_clients(global_values, shard)
        sums = sum_updates(model, options.client_optimizer, global_values, shard, contribution)
        total_weight = tf.reduce_sum(contribution.weights)
        return ShardOutput(
            update=in_order(weights.trainable, sums),
            weight=[total_weight] * len(sums),
            metrics=metrics.training_sums(contribution, query, predictions),
        )

    return build_training_process(
        weights,
        shard_type(options.batch_size, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=metrics.finalize_training,
        server_optimizer=options.server_optimizer,
        aggregator_factory=aggregator_factory,
        debug=debug,
    )


def build_clients_update(
    model: FunctionalModel, options: FedReconOptions, spec: Shard, *, debug: bool = False
) -> Callable:
    """Returns steps 2 and 3 of a round, for the clients of a shard.

    Args:
      model: The model.
      options: The settings.
      spec: The specs of the shard.
      debug: See `shards.compile_for_shards`.

    Returns:
      A function of the whole global values and a shard. It returns the clients' `Contribution`,
      their query examples and the predictions for these, each before its step.
    """
    stage = Stage(options.client_optimizer, trains_global=True)

    def update(before, shard):
        query = Examples.scheduled(shard, shard.query_batches)
        if options.client_takes_one_step:
            query = query.as_one_step()
        seeds = fold_in(shard.seeds, _UPDATE)
        trained = run_stage(model, stage, before, query, seeds, num_rows=num_rows(shard))
        weights = query.num_examples()
        if options.client_weighting == "uniform":
            weights = tf.cast(weights > 0, tf.float32)
        contribution = contribute(model, stage, before, trained, weights)
        return contribution, query, trained.predictions

    return compile_after_reconstruction(model, options, spec, update, debug=debug)


def build_fed_recon_evaluation(
    model_fn: ModelFn, options: FedReconOptions, *, clients_per_shard: int
) -> tff.learning.templates.LearningProcess:
    """Builds reconstruction evaluation: fit the local part on the support, predict the query once.

    Only the reconstruction settings, the batch size and the support/query split of `options` apply.
    The shards are packed with `evaluation_packing_options`.
    """
    split_model, model = build_models(model_fn, options)
    metrics = ClientMetrics(split_model)

    def evaluate(values, shard):
        query = Examples.scheduled(shard, shard.query_batches)
        return query, predict(model, values, query)

    spec = shard_spec(options.batch_size, clients_per_shard)
    evaluate_clients = compile_after_reconstruction(model, options, spec, evaluate)

    def shard_metrics(global_values, shard):
        query, predictions = evaluate_clients(global_values, shard)
        return metrics.sums(query.labels, predictions, query.mask)

    return build_evaluation_process(
        global_part(model_fn, model),
        shard_type(options.batch_size, clients_per_shard),
        shard_metrics=shard_metrics,
        finalize_metrics=metrics.finalize,
    )


def prepare_fed_recon(
    model_fn: ModelFn,
    options: FedReconOptions,
    population: Population,
    *,
    clients_per_round: int,
    clients_per_shard: int | None = None,
    sampler: str = "uniform",
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
    debug: bool = False,
) -> Algorithm:
    """Returns FedRecon, ready to train on a population.

    Args:
      model_fn: Builds the model; see `fedrecon.models.model_fn`.
      options: The settings of the algorithm.
      population: The users; its seed decides every draw.
      clients_per_round: The size of a cohort.
      clients_per_shard: See `algorithm.cohort_packer`.
      sampler: See `cohort_sampler`.
      aggregator_factory: See `build_fed_recon`.
      is_aggregator_linear: See `build_fed_recon`.
      debug: Whether breakpoints work in a client's step; see `build_fed_recon`. It is slow.

    Raises:
      InputError: If there are too few training users; see also `build_fed_recon`.
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    model = FunctionalModel(model_fn())
    packer = cohort_packer(
        population,
        packing_options(options, seed=population.seed),
        clients_per_round=clients_per_round,
        clients_per_shard=clients_per_shard,
        client_optimizer=options.client_optimizer,
        model=model,
        one_client_per_shard=debug or (aggregator_factory is not None and not is_aggregator_linear),
    )
    training = build_fed_recon(
        model_fn,
        options,
        clients_per_shard=packer.clients_per_shard,
        aggregator_factory=aggregator_factory,
        is_aggregator_linear=is_aggregator_linear,
        debug=debug,
    )
    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        training_data=packer.pack,
        training_metrics=training_metrics,
        get_weights=training.get_model_weights,
        reconstruction=prepare_reconstruction(model_fn, options, seed=population.seed),
        costs=costs_of_rounds(
            model,
            item_steps=1.0
            if options.client_takes_one_step
            else packer.mean_query_steps(population.train),
        ),
    )
