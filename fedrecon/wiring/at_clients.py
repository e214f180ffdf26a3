"""Computations whose results stay at CLIENTS: the devices find them out for themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow_federated as tff

from fedrecon.engine.calls import compile_scoring
from fedrecon.engine.values import by_name
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.wiring.types import local_values_type
from fedrecon.wiring.weights import ServerWeights, global_part


class Candidates(NamedTuple):
    """Users and the items they ask about.

    Attributes:
      local_values: For each of the local weights `[clients, ...]`.
      item_ids: `[clients, n]` int32; -1 is padding, whose predictions mean nothing.
    """

    local_values: list
    item_ids: Any


def build_scoring(model_fn: ModelFn, *, clients_per_shard: int) -> tff.Computation:
    """Builds the prediction of items for users whose local part is known.

    Args:
      model_fn: Builds the model.
      clients_per_shard: The users of a shard.

    Returns:
      A computation of `ModelWeights` of the global part, at SERVER, and `Candidates`, at CLIENTS,
      to predictions `[clients, n]` float32, at CLIENTS: the devices score, nobody else sees it.
    """
    model = FunctionalModel(model_fn())
    score_candidates = compile_scoring(model, clients_per_shard)
    data_type = tff.types.to_type(
        Candidates(
            local_values_type(model, clients_per_shard),
            tff.TensorType(np.int32, [clients_per_shard, None]),
        )
    )

    def score_shard(global_values, asked):
        local_values = by_name(model.local_weights, list(asked.local_values))
        return score_candidates(global_values, asked.item_ids, local_values)

    return build_at_clients(global_part(model_fn, model), data_type, score_shard)


def build_at_clients(
    server_weights: ServerWeights,
    data_type: tff.Type,
    work: Callable[[Any, Any], Any],
    *,
    server_message: Callable[[Any], Any] = lambda values: values,
) -> tff.Computation:
    """Builds a computation whose results stay at CLIENTS.

    Args:
      server_weights: The weights at SERVER.
      data_type: The type of a shard.
      work: From the server's message and a shard to any structure of tensors.
      server_message: From the server's values to what clients get.

    Returns:
      A computation of `ModelWeights`, at SERVER, and shards, at CLIENTS, to the results of `work`,
      at CLIENTS.
    """
    weights_type = server_weights.type

    @tff.tensorflow.computation(weights_type)
    def message_of_weights(weights):
        return server_message(server_weights.to_values(weights))

    @tff.tensorflow.computation(message_of_weights.type_signature.result, data_type)
    def work_on_shard(message, shard):
        return work(message, shard)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS)
    )
    def at_clients(weights, shards):
        message = tff.federated_broadcast(tff.federated_map(message_of_weights, weights))
        return tff.federated_map(work_on_shard, (message, shards))

    return at_clients
