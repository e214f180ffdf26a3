"""Rewrites TFF computations into the few building blocks that the in-process runtime evaluates."""

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

    TFF's native compiler does more, but that would do harm here. Its optimization of TensorFlow
    graphs rewrites the loops that XLA must see whole. It also replaces `federated_sum`, which is
    one addition of all values here, with additions of one value after the other to zeros.

    Warns:
      UserWarning: If a secure aggregation is replaced with a plain one.
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
    # TFF's own replacements, in TFF's order: each contains only intrinsics of later ones.
    for uri, body in tensorflow_tree_transformations._get_intrinsic_reductions().items():
        if uri != intrinsic_defs.FEDERATED_SUM.uri:
            block, _ = tensorflow_tree_transformations.reduce_intrinsic(block, uri, body)
    return tff.framework.to_call_dominant(block)


def parts_of(
    block: tff.framework.ComputationBuildingBlock,
) -> Iterator[tff.framework.ComputationBuildingBlock]:
    """Yields a building block and all of its parts."""
    yield block
    for child in block.children():
        yield from parts_of(child)
