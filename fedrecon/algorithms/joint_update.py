"""The client update that FedAvg, its stateful form and FedNCF share.

The three differ in where a client's local values come from and where they go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from fedrecon.algorithms.algorithm import cohort_packer, cohort_sampler
from fedrecon.algorithms.reconstruction import prepare_reconstruction
from fedrecon.data.cohorts import CohortPacker, PackingOptions, Passes, Shard
from fedrecon.data.population import Population
from fedrecon.engine.calls import FREE_SEED
from fedrecon.engine.client_metrics import training_metrics
from fedrecon.engine.client_step import Stage
from fedrecon.engine.shards import Examples, compile_for_shards, num_rows
from fedrecon.engine.stages import run_stage
from fedrecon.engine.updates import Contribution, contribute, sum_rows, sum_updates
from fedrecon.engine.values import Values, local_specs, where_client
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedAvgOptions, FedReconOptions

_UPDATE = FREE_SEED  # What a client's seed is used for.


class JointUpdate(NamedTuple):
    """The clients' part of a round of federated averaging.

    Attributes:
      contribution: What the clients give to the server.
      local_values: The clients' local values afterwards, `[clients, ...]` each; a client that was
        left out has those from before.
      examples: The examples of their steps.
      predictions: The predictions for these, each before its step.
    """

    contribution: Contribution
    local_values: Values
    examples: Examples
    predictions: tf.Tensor


def packing_options(options: FedAvgOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_joint_update`.

    Args:
      options: The settings.
      seed: Draws what is random in a client, with the round and the user id.
    """
    return PackingOptions(
        batch_size=options.batch_size,
        support_query_split="none",
        support=Passes(0),
        query=Passes(options.client_epochs, options.client_steps_max),
        seed=seed,
    )


def build_joint_update(
    model: FunctionalModel, options: FedAvgOptions, spec: Shard, *, debug: bool = False
) -> Callable[[Values, Shard, Values], JointUpdate]:
    """Returns the client update of McMahan et al. 2017: the weights are fitted on all examples.

    Args:
      model: The model.
      options: The settings.
      spec: The specs of the shard.
      debug: See `shards.compile_for_shards`.

    Returns:
      A function of the whole global values, a shard (packed with `packing_options`) and the
      clients' local values.
    """
    stage = Stage(
        options.client_optimizer,
        trains_global=True,
        trains_local=options.trains_local,
        gradient_clip_norm=options.gradient_clip_norm,
    )
    is_by_row = options.averaging == "by_row"

    def update_clients(global_values, shard, local_values):
        before = global_values | local_values
        examples = Examples.scheduled(shard, shard.query_batches)
        seeds = fold_in(shard.seeds, _UPDATE)
        trained = run_stage(model, stage, before, examples, seeds, num_rows=num_rows(shard))
        weights = examples.num_examples()
        if options.client_weighting == "uniform":
            weights = tf.cast(weights > 0, tf.float32)
        contribution = contribute(model, stage, before, trained, weights, is_by_row=is_by_row)
        kept = {
            name: where_client(contribution.is_finite, trained.values[name], start)
            for name, start in local_values.items()
        }
        return JointUpdate(contribution, kept, examples, trained.predictions)

    locals_spec = local_specs(model, spec.seeds.shape[0])
    return compile_for_shards(update_clients, model, spec, locals_spec, debug=debug)


def sum_joint_updates(
    model: FunctionalModel,
    options: FedAvgOptions,
    global_values: Values,
    shard: Shard,
    contribution: Contribution,
) -> tuple[Values, Values]:
    """Returns the weighted sums of the clients' updates of the global weights, and their divisors.

    A divisor is the sum of the clients' weights, a scalar. With `by_row` that of an item table is
    `[items, 1]`: for each item the sum over the clients that have it. Arguments are as for
    `sum_updates`.
    """
    total = tf.reduce_sum(contribution.weights)
    if options.averaging == "plain":
        optimizer = options.client_optimizer
        updates = sum_updates(model, optimizer, global_values, shard, contribution)
        return updates, dict.fromkeys(updates, total)
    updates, divisors = {}, {}
    for weight in model.global_weights:
        if not weight.trainable:
            continue
        update, divisor = contribution.updates[weight.name], total
        if weight.is_item_table:
            update = sum_rows(update, shard.item_ids, weight.shape[0])
            of_items = tf.ones_like(shard.item_ids, tf.float32)[..., tf.newaxis]
            of_items *= contribution.weights[:, tf.newaxis, tf.newaxis]
            divisor = sum_rows(of_items, shard.item_ids, weight.shape[0])
        updates[weight.name], divisors[weight.name] = update, divisor
    return updates, divisors


def prepare_joint(
    model_fn: ModelFn,
    options: FedAvgOptions,
    population: Population,
    *,
    clients_per_round: int,
    clients_per_shard: int | None,
    sampler: str,
    reconstruction: FedReconOptions | None,
    reconstruction_model_fn: ModelFn | None,
    debug: bool,
) -> tuple[FunctionalModel, CohortPacker, dict[str, Any]]:
    """Returns the model, the packer and the fields of `Algorithm` that FedAvg's forms share.

    Arguments are those of `fed_avg.prepare_fed_avg`.
    """
    model = FunctionalModel(model_fn())
    packer = cohort_packer(
        population,
        packing_options(options, seed=population.seed),
        clients_per_round=clients_per_round,
        clients_per_shard=clients_per_shard,
        client_optimizer=options.client_optimizer,
        model=model,
        one_client_per_shard=debug,
    )
    common = {
        "sample_cohort": cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        "training_data": packer.pack,
        "training_metrics": training_metrics,
        "reconstruction": prepare_reconstruction(
            reconstruction_model_fn or model_fn,
            reconstruction or FedReconOptions(),
            seed=population.seed,
        ),
    }
    return model, packer, common
