"""TFF computations brought to the few building blocks that the in-process runtime interprets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import tensorflow_federated as tff
from tensorflow_federated.python.core.backends.test import compiler as insecure
from tensorflow_federated.python.core.environments.tensorflow_backend import (
    tensorflow_tree_transformations,
)
from tensorflow_federated.python.core.impl.compiler import intrinsic_defs


def lower(computation: tff.framework.ConcreteComputation) -> tff.framework.ComputationBuildingBlock:
    """Returns a computation in call-dominant form, its composite intrinsics replaced.

    What TFF's native compiler does beyond it is left out. Its optimisation of TensorFlow graphs
    rewrites the loops that XLA must see whole. And `federated_sum` stays what it is: one addition
    of all values, where TFF's replacement adds one after the other to zeros.

    Warns:
      UserWarning: Of secure aggregation, in place of which there is a plain one.
    """
    secure = {
        part.uri
        for part in parts_of(computation.to_building_block())
        if isinstance(part, tff.framework.Intrinsic) and "secure" in part.uri
    }
    if secure:
        warnings.warn(
            f"{', '.join(sorted(secure))}: this runtime simulates; values are summed openly and "
            "nothing is secured.",
            UserWarning,
            stacklevel=2,
        )
        computation = insecure.replace_secure_intrinsics_with_bodies(computation)
    block = computation.to_building_block()
    # TFF's own, in its order: what replaces an intrinsic only contains later ones.
    for uri, body in tensorflow_tree_transformations._get_intrinsic_reductions().items():
        if uri != intrinsic_defs.FEDERATED_SUM.uri:
            block, _ = tensorflow_tree_transformations.reduce_intrinsic(block, uri, body)
    return tff.framework.to_call_dominant(block)


def parts_of(
    block: tff.framework.ComputationBuildingBlock,
) -> Iterator[tff.framework.ComputationBuildingBlock]:
    """Yields a building block and all that it consists of."""
    yield block
    for child in block.children():
        yield from parts_of(child)
