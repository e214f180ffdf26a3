"""TFF's types of what clients bring."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.cohorts import Shard
from fedrecon.engine.shards import shard_spec
from fedrecon.engine.values import in_order, local_specs
from fedrecon.models.functional import FunctionalModel


def shard_type(batch_size: int, num_clients: int) -> tff.Type:
    """Returns the TFF type of shards with `num_clients` clients."""
    return tff.types.to_type(Shard(*map(tensor_type, shard_spec(batch_size, num_clients))))


def local_values_type(model: FunctionalModel, num_clients: int) -> tff.Type:
    """Returns the TFF type of the local values of a shard's clients.

    It is a list, in the order of `local_weights`, of `[clients, ...]` each.
    """
    specs = in_order(model.local_weights, local_specs(model, num_clients))
    return tff.types.to_type([tensor_type(spec) for spec in specs])


def tensor_type(spec: tf.TensorSpec) -> tff.TensorType:
    """Returns the TFF type of a spec."""
    return tff.TensorType(spec.dtype.as_numpy_dtype, spec.shape)
