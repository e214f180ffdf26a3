"""Reconstruction: the local part is fitted to what a client gives, the global part frozen.

Step 2 of a round of FedRecon (Singhal et al. 2021, arXiv:2102.03448), by gradient steps or exactly.
Any algorithm serves a user whose local part is not kept in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.algorithm import Reconstruction
from fedrecon.data.cohorts import PackingOptions, Passes, Shard
from fedrecon.engine import least_squares
from fedrecon.engine.calls import FREE_SEED, fresh_local_values
from fedrecon.engine.client_step import Stage
from fedrecon.engine.shards import Examples, compile_for_shards, shard_spec
from fedrecon.engine.stages import run_stage
from fedrecon.engine.values import Values, in_order, local_specs
from fedrecon.errors import InputError
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import structure
from fedrecon.models.split_model import ModelFn, SplitModel
from fedrecon.options import FedReconOptions
from fedrecon.wiring.at_clients import build_at_clients
from fedrecon.wiring.types import shard_type
from fedrecon.wiring.weights import global_part

# What a client's seed is used for. Other numbers would draw other values.
RECONSTRUCTION_SEED = FREE_SEED + 1

# The settings of `FedReconOptions` that decide how a user is reconstructed.
_SETTINGS = (
    "reconstruction",
    "reconstruction_optimizer",
    "least_squares",
    "batch_size",
    "reconstruction_epochs",
    "reconstruction_steps_max",
)


def prepare_reconstruction(
    model_fn: ModelFn, options: FedReconOptions, *, seed: int
) -> Reconstruction:
    """Returns how an algorithm serves users whose local part is not kept.

    Args:
      model_fn: Builds the model.
      options: Only the reconstruction settings and the batch size apply.
      seed: Draws initial local values, with the user id.
    """
    options = FedReconOptions(**{name: getattr(options, name) for name in _SETTINGS})

    def build(clients_per_shard: int) -> tff.Computation:
        return build_reconstruction(model_fn, options, clients_per_shard=clients_per_shard)

    return Reconstruction(
        model_fn=model_fn,
        build=build,
        packing=reconstruction_packing_options(options, seed=seed),
        key=("reconstruction", structure(model_fn), options),
        options=options,
    )


def support_passes(options: FedReconOptions) -> Passes:
    """Returns how often a client goes through its support."""
    if options.is_exact:
        return Passes()
    return Passes(options.reconstruction_epochs, options.reconstruction_steps_max)


def reconstruction_packing_options(options: FedReconOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_reconstruction`: all that they give is support.

    Args:
      options: The settings.
      seed: Draws each client's local initial values, with the user id.
    """
    return PackingOptions(
        batch_size=options.batch_size,
        support_query_split="none",
        support=support_passes(options),
        query=Passes(0),
        seed=seed,
    )


def is_solvable(model_fn: ModelFn) -> bool:
    """Returns whether least squares reconstructs the local part of this model."""
    split_model = model_fn()
    try:
        least_squares.check_is_solvable(split_model, FunctionalModel(split_model))
    except InputError:  # Not linear, or not squared.
        return False
    return True


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
    _, model = build_models(model_fn, options)

    def local_values(values, shard):
        del shard
        return [tf.identity(value) for value in in_order(model.local_weights, values)]

    spec = shard_spec(options.batch_size, clients_per_shard)
    return build_at_clients(
        global_part(model_fn, model),
        shard_type(options.batch_size, clients_per_shard),
        compile_after_reconstruction(model, options, spec, local_values),
    )


def build_models(model_fn: ModelFn, options: FedReconOptions) -> tuple[SplitModel, FunctionalModel]:
    """Returns the model and its functional form.

    Raises:
      InputError: If the model cannot be reconstructed as `options` say.
    """
    split_model = model_fn()
    model = FunctionalModel(split_model)
    if options.is_exact:
        least_squares.check_is_solvable(split_model, model)
    return split_model, model


def compile_after_reconstruction(
    model: FunctionalModel, options: FedReconOptions, spec: Shard, work, *, debug: bool = False
) -> Callable:
    """Compiles step 2 of a round, and `work(values, shard)` with the values of all weights."""
    if not options.is_exact:

        def reconstruct_and_work(global_values, shard):
            return work(_reconstruct(model, options, global_values, shard), shard)

        return compile_for_shards(reconstruct_and_work, model, spec, debug=debug)

    reconstruct = least_squares.build_reconstruction(
        model, options.least_squares, spec, debug=debug
    )
    work_after = compile_for_shards(
        lambda values, shard, local_values: work(values | local_values, shard),
        model,
        spec,
        local_specs(model, spec.seeds.shape[0]),
        debug=debug,
    )

    def solve_and_work(global_values, shard):
        return work_after(global_values, shard, reconstruct(global_values, shard))

    return solve_and_work


def _reconstruct(
    model: FunctionalModel, options: FedReconOptions, global_values: Values, shard: Shard
) -> Values:
    """Returns the values of all weights after reconstruction by gradient steps."""
    stage = Stage(options.reconstruction_optimizer, trains_local=True)
    values = global_values | fresh_local_values(model, shard)
    if not stage.trained(model.weights):
        return values
    support = Examples.scheduled(shard, shard.support_batches)
    seeds = fold_in(shard.seeds, RECONSTRUCTION_SEED)
    return run_stage(model, stage, values, support, seeds).values
