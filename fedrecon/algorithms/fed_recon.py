"""Federated Reconstruction, all clients of a shard at once.

Federated Reconstruction: Partially Local Federated Learning. Karan Singhal, Hakim Sidahmed, Zachary
Garrett, Shanshan Wu, Keith Rush, Sushant Prakash. NeurIPS 2021, arXiv:2102.03448. A round
(algorithm 1 of the paper):

1. The server samples clients and sends them the global part of the model.
2. Each client draws a fresh local part and fits it on its support (reconstruction).
3. Each client fits the global part on its query, the local part frozen, and returns the difference.
4. The server averages the differences and applies them with its optimiser.

The local part never leaves the client and is forgotten after the round: it is in no type of these
computations. The numbers are those of `stock_fed_recon`, with two differences. Local initial values
are drawn for each client and round by the initializers of the local layers (stock TFF gives all
clients the same). And a client without a query has weight zero also with uniform weighting.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.cohorts import PackingOptions, Passes, Shard
from fedrecon.engine import client_work, least_squares
from fedrecon.engine.client_metrics import ClientMetrics
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedReconOptions, OptimizerOptions
from fedrecon.wiring import process

# What a client's seed is used for.
_RECONSTRUCTION, _UPDATE = client_work.FREE_SEED, client_work.FREE_SEED + 1


def packing_options(options: FedReconOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_fed_recon`.

    Args:
      options: The algorithm's settings.
      seed: Draws each client's local initial values, with the round and the user id.
    """
    support = Passes(options.reconstruction_epochs, options.reconstruction_steps_max)
    return PackingOptions(
        batch_size=options.batch_size,
        support_query_split=options.support_query_split,
        support=Passes() if options.is_exact else support,
        query=Passes(options.client_epochs, options.client_steps_max),
        seed=seed,
    )


def evaluation_packing_options(options: FedReconOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_fed_recon_evaluation`; see `packing_options`."""
    return dataclasses.replace(packing_options(options, seed=seed), query=Passes(1, None))


def build_fed_recon(
    model_fn: ModelFn,
    options: FedReconOptions,
    *,
    clients_per_shard: int,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds FedRecon training.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      options: The algorithm's settings.
      clients_per_shard: That of the `CohortPacker`.
      aggregator_factory: Aggregates the clients' updates; None takes the weighted mean of the
        clients. TFF sees a shard as one client, so one that needs each client's own update
        (clipping, robust, quantised, unweighted) takes shards of one client only.
      is_aggregator_linear: Says that `aggregator_factory` gives the same for clients as for the
        weighted means and weights of groups of them, as weighted means over plain or secure sums
        do; then shards may have any number of clients.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`. A
      round in which no client has a query leaves the model as it was. Its metrics are those of
      `stock_fed_recon.build_fed_recon` and `num_clients_rejected`, the clients left out because
      their update was not finite.

    Raises:
      InputError: If the aggregator would get the updates of several clients as one, or least
        squares cannot reconstruct the model; see `least_squares.check_is_solvable`.
      ValueError: If the model cannot be vectorised over clients; see `FunctionalModel`.
    """
    process.check_aggregator(
        aggregator_factory, is_linear=is_aggregator_linear, clients_per_shard=clients_per_shard
    )
    spec = client_work.shard_spec(options.batch_size, clients_per_shard)
    split_model = model_fn()
    model, metrics = FunctionalModel(split_model), ClientMetrics(split_model)
    _check(split_model, model, options)
    update_clients = build_clients_update(model, options, spec)

    def update_shard(weights, shard):
        global_values = [*weights.trainable, *weights.non_trainable]
        contribution, query, predictions = update_clients(global_values, shard)
        return process.ShardOutput(
            update=client_work.sum_updates(
                model, options.client_optimizer, global_values, shard, contribution
            ),
            weight=tf.reduce_sum(contribution.weights),
            metrics=metrics.training_sums(contribution, query, predictions),
        )

    return process.build_training_process(
        process.initial_weights(model_fn),
        process.shard_type(options.batch_size, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=metrics.finalize_training,
        server_optimizer=options.server_optimizer,
        aggregator_factory=aggregator_factory,
    )


def build_clients_update(model: FunctionalModel, options: FedReconOptions, spec: Shard):
    """Returns steps 2 and 3 of a round, for the clients of a shard.

    Args:
      model: The model.
      options: The algorithm's settings.
      spec: As `client_work.shard_spec` gives it.

    Returns:
      A function of the whole global values and a shard. It returns the clients'
      `client_work.Contribution`, their query examples and the predictions for these, each before
      the step that uses it.
    """

    stage = client_work.Stage(options.client_optimizer, trains_global=True)

    def update(before, shard, extra_loss=None):
        query = client_work.Examples.scheduled(shard, shard.query_batches)
        if options.client_takes_one_step:
            query = query.as_one_step()
        seeds = fold_in(shard.seeds, _UPDATE)
        trained = client_work.run_stage(model, stage, before, query, seeds, extra_loss)
        weights = query.num_examples()
        if options.client_weighting == "uniform":
            weights = tf.cast(weights > 0, tf.float32)
        contribution = client_work.contribute(model, stage, before, trained, weights)
        return contribution, query, trained.predictions

    if options.differentiates_reconstruction:
        return _compile_with_adjoint(model, options, spec, update)
    return _compile_after_reconstruction(model, options, spec, update)


def build_fed_recon_evaluation(
    model_fn: ModelFn, options: FedReconOptions, *, clients_per_shard: int
) -> tff.learning.templates.LearningProcess:
    """Builds reconstruction evaluation: fit the local part on the support, predict the query once.

    Only the reconstruction settings, the batch size and the support/query split of `options` apply.
    The shards are packed with `evaluation_packing_options`.
    """
    spec = client_work.shard_spec(options.batch_size, clients_per_shard)
    split_model = model_fn()
    model, metrics = FunctionalModel(split_model), ClientMetrics(split_model)

    def evaluate_clients(values, shard):
        query = client_work.Examples.scheduled(shard, shard.query_batches)
        return query, client_work.predict(model, values, query)

    _check(split_model, model, options)
    compiled = _compile_after_reconstruction(model, options, spec, evaluate_clients)

    def shard_metrics(weights, shard):
        query, predictions = compiled([*weights.trainable, *weights.non_trainable], shard)
        return metrics.sums(query.labels, predictions, query.mask)

    return process.build_evaluation_process(
        process.initial_weights(model_fn),
        process.shard_type(options.batch_size, clients_per_shard),
        shard_metrics=shard_metrics,
        finalize_metrics=metrics.finalize,
    )


def build_reconstruction(
    model_fn: ModelFn, options: FedReconOptions, *, clients_per_shard: int
) -> tff.Computation:
    """Builds the reconstruction of users' local part, by which anybody can be served.

    Only the reconstruction settings and the batch size of `options` apply. The shards are packed
    with `reconstruction_packing_options`: all that a user gives is support.

    Returns:
      A computation of `ModelWeights` of the global part, at SERVER, and shards, at CLIENTS, to the
      local values `[clients, ...]`, at CLIENTS, for each of the local weights.
    """
    spec = client_work.shard_spec(options.batch_size, clients_per_shard)
    split_model = model_fn()
    model = FunctionalModel(split_model)
    num_global = len(model.global_weights)

    def local_values(values, shard):
        return [tf.identity(value) for value in values[num_global:]]

    _check(split_model, model, options)
    return process.build_at_clients(
        model_fn,
        process.shard_type(options.batch_size, clients_per_shard),
        _compile_after_reconstruction(model, options, spec, local_values),
    )


def reconstruction_packing_options(options: FedReconOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_reconstruction`; see `packing_options`."""
    return dataclasses.replace(
        packing_options(options, seed=seed), support_query_split="none", query=Passes(0)
    )


def _check(split_model, model, options: FedReconOptions) -> None:
    if options.is_exact:
        least_squares.check_is_solvable(split_model, model)


def _compile_after_reconstruction(model, options: FedReconOptions, spec, work):
    """Compiles clients' work, which starts from the values of `model.weights` and their shard."""
    if not options.is_exact:
        return client_work.compile_for_shards(
            lambda values, shard: work(_reconstruct(model, options, values, shard), shard),
            model,
            spec,
        )
    reconstruct = least_squares.build_reconstruction(model, options.least_squares, spec)
    compiled = client_work.compile_for_shards(
        lambda values, shard, local_values: work([*values, *local_values], shard),
        model,
        spec,
        client_work.local_specs(model, spec.seeds.shape[0]),
    )

    def reconstruct_and_work(global_values, shard):
        return compiled(global_values, shard, reconstruct(global_values, shard).local_values)

    return reconstruct_and_work


def _compile_with_adjoint(model, options: FedReconOptions, spec, update):
    """Compiles clients' update with a gradient that goes through the exact reconstruction.

    The solution `u` of `A u = y` moves with the global part. By the implicit function theorem the
    gradient of the loss `L` in a global `g` is that with `u` frozen, and

        d/dg [w . (y - A u)]   with   A w = dL/du

    in which `u` and `w` do not depend on `g`: one more solution with the factors at hand.
    """
    reconstruct = least_squares.build_reconstruction(model, options.least_squares, spec)
    local_specs = client_work.local_specs(model, spec.seeds.shape[0])
    num_global = len(model.global_weights)

    # A step of rate 1 is the gradient.
    stage = client_work.Stage(OptimizerOptions("sgd", 1.0), trains_local=True)

    def local_gradient(values, shard, local_values):
        query = client_work.Examples.scheduled(shard, shard.query_batches).as_one_step()
        before = [*values, *local_values]
        after = client_work.run_stage(model, stage, before, query, shard.seeds).values
        return least_squares.flatten(
            model, [start - end for start, end in zip(local_values, after[num_global:])]
        )

    gradient_compiled = client_work.compile_for_shards(local_gradient, model, spec, local_specs)

    def through_solution(values, data):
        support, adjoint = data
        called = [
            tf.gather(value, support.positions) if weight.is_item_table else value
            for weight, value in zip(model.weights, values)
        ]
        origin = [
            tf.zeros_like(value) if weight.trainable else value
            for weight, value in zip(model.local_weights, called[num_global:])
        ]

        def predict(local_values):
            return model.predict(support.item_ids, [*called[:num_global], *local_values])

        products = predict(adjoint) - predict(origin)
        products *= support.labels - predict(called[num_global:])
        return tf.reduce_sum(tf.where(support.mask, products, tf.zeros_like(products)))

    def update_through(values, shard, local_values, adjoint):
        support = client_work.Examples.scheduled(shard, shard.support_batches).as_one_step()
        support = client_work.Examples(*(array[:, 0] for array in support))
        extra_loss = client_work.ExtraLoss(through_solution, (support, adjoint))
        return update([*values, *local_values], shard, extra_loss)

    update_compiled = client_work.compile_for_shards(
        update_through, model, spec, local_specs, local_specs
    )

    def update_clients(global_values, shard):
        local_values, solution = reconstruct(global_values, shard)
        gradients = gradient_compiled(global_values, shard, local_values)
        adjoint = least_squares.unflatten(model, solution.solve(gradients), local_values)
        return update_compiled(global_values, shard, local_values, adjoint)

    return update_clients


def _reconstruct(model, options: FedReconOptions, values, shard: Shard):
    """Returns the values of `model.weights` after reconstruction.

    Args:
      model: The model.
      options: The algorithm's settings.
      values: The global ones, as the clients get them.
      shard: The clients.
    """
    stage = client_work.Stage(options.reconstruction_optimizer, trains_local=True)
    values = [*values, *client_work.fresh_local_values(model, shard)]
    if not any(stage.trains(weight) for weight in model.weights):
        return values
    support = client_work.Examples.scheduled(shard, shard.support_batches)
    seeds = fold_in(shard.seeds, _RECONSTRUCTION)
    return client_work.run_stage(model, stage, values, support, seeds).values
