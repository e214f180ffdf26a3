"""What an algorithm sends and keeps, in bytes, as the paper's algorithms are written.

A client gets the whole global part and returns an update of its trainable weights, of the same
size; 4 bytes a number. To send only the rows of the items that a client has would be less, and
would tell the server which these are.
"""

from __future__ import annotations

from typing import Any

_RATING_BYTES = 8  # The item's id and the rating, 4 bytes each.


def costs(algorithm: str, model: Any, state: Any, mean_ratings: float) -> dict[str, int]:
    """Returns the costs of an algorithm.

    Args:
      algorithm: One of `settings.ALGORITHMS`.
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
    once = device = 0
    if algorithm == "fedncf":
        down, up = down + row, up + row
    elif algorithm == "centralized":
        down, up, once = 0, 0, round(mean_ratings * _RATING_BYTES)
    elif algorithm == "stateful_fedavg":
        device = row
    return {
        "bytes_down": down,
        "bytes_up": up,
        "bytes_up_once": once,
        "device_bytes": device,
        "server_bytes": server,
    }
