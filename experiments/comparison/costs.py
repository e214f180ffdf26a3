"""What an algorithm sends and keeps, in bytes, as the paper's algorithms are written.

A client gets the whole global part and returns an update of its trainable weights, of the same
size; 4 bytes a number. To send only the rows of the items that a client has would be less, and
would tell the server which these are.
"""

from __future__ import annotations

from typing import Any

from experiments.run.settings import Settings

_RATING_BYTES = 8  # The item's id and the rating, 4 bytes each.


def costs(settings: Settings, model: Any, state: Any, mean_ratings: float) -> dict[str, int]:
    """Returns the costs of an algorithm.

    Args:
      settings: Those of the run.
      model: The `FunctionalModel`.
      state: The server's state.
      mean_ratings: Of a training user.

    Returns:
      `bytes_down` and `bytes_up` for each client and round, `bytes_up_once` for each client,
      `device_bytes` kept on a device between rounds, `server_bytes` on the server (weights and
      states of optimisers).
    """
    import numpy as np
    import tensorflow as tf

    def num_bytes(weights) -> int:
        return sum(weight.shape.num_elements() * weight.dtype.size for weight in weights)

    down = num_bytes(model.global_weights)
    up = num_bytes(weight for weight in model.global_weights if weight.trainable)
    row = num_bytes(model.local_weights)
    server = sum(np.asarray(value).nbytes for value in tf.nest.flatten(state))
    device = 0
    if settings.algorithm == "centralized":
        return of_one_machine(mean_ratings, server)
    if settings.algorithm == "fed_ncf":
        down, up = down + row, up + row
    elif settings.algorithm == "stateful_fed_avg":
        device = row
    elif settings.algorithm == "fed_ials":
        # The Gram matrix; and the sum of outer products, and which items there are.
        (table,) = model.global_weights
        num_items, dim = table.shape
        square = dim * dim * table.dtype.size
        down, up = down + square, up + square + num_items * table.dtype.size
    return {
        "bytes_down": down,
        "bytes_up": up,
        "bytes_up_once": 0,
        "device_bytes": device,
        "server_bytes": server,
    }


def of_one_machine(mean_ratings: float, server_bytes: int) -> dict[str, int]:
    """Returns the same where clients send their ratings once and nothing else is federated."""
    return {
        "bytes_down": 0,
        "bytes_up": 0,
        "bytes_up_once": round(mean_ratings * _RATING_BYTES),
        "device_bytes": 0,
        "server_bytes": server_bytes,
    }
