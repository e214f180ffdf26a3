"""How any algorithm serves a user whose local part is not kept: reconstruction from ratings."""

from __future__ import annotations

from fedrecon.algorithms.algorithm import Reconstruction
from fedrecon.models.model_fn import structure
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedReconOptions

# The settings of `FedReconOptions` that decide how a user is reconstructed.
_SETTINGS = (
    "reconstruction",
    "reconstruction_optimizer",
    "least_squares",
    "batch_size",
    "reconstruction_epochs",
    "reconstruction_steps_max",
)


def reconstruction(model_fn: ModelFn, options: FedReconOptions, *, seed: int) -> Reconstruction:
    """Returns FedRecon's reconstruction.

    Args:
      model_fn: Builds the model.
      options: Only the reconstruction settings and the batch size apply.
      seed: Draws initial local values, with the user id.
    """
    from fedrecon.algorithms import fed_recon

    options = FedReconOptions(**{name: getattr(options, name) for name in _SETTINGS})

    def build(clients_per_shard: int):
        return fed_recon.build_reconstruction(
            model_fn, options, clients_per_shard=clients_per_shard
        )

    return Reconstruction(
        model_fn=model_fn,
        build=build,
        packing=fed_recon.reconstruction_packing_options(options, seed=seed),
        key=("fed_recon", structure(model_fn), options),
    )
