"""What shards and rounds return."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow_federated as tff

State = tff.learning.templates.LearningAlgorithmState


class ShardOutput(NamedTuple):
    """What a shard sends.

    Attributes:
      update: The weighted sum of its clients' updates, for each of the server's trainable weights;
        or whatever `server_update` takes the means of.
      weight: For each of `update` the sum of the clients' weights, float32, of a shape that
        broadcasts to it. An aggregator of one's own takes the first, so there they must be equal.
      metrics: Sums over its clients, any structure of numbers.
    """

    update: list
    weight: list
    metrics: Any


class StatefulOutput(NamedTuple):
    """What a round with kept rows returns.

    Attributes:
      state: At SERVER, as in a `LearningProcess`.
      local_values: At CLIENTS: for each of the local weights `[clients, ...]`, to be kept.
      metrics: At SERVER.
    """

    state: Any
    local_values: Any
    metrics: Any
