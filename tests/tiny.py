"""Tiny models, shards and comparisons that tests of engine, wiring and algorithms share."""

import functools

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.cohorts import pack_shard
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.neural_cf import neumf
from fedrecon.options import OptimizerOptions

# Stock TFF starts all clients from one local part, so the same is given to both.
SAME_START = tf.keras.initializers.Constant(0.05)
BIASES = ("user_bias", "item_bias", "global_bias")


def sgd(rate):
    return OptimizerOptions("sgd", rate)


def adam(rate=0.01):
    return OptimizerOptions("adam", rate)


def optimizers(client, client_rate, server="sgd", server_rate=1.0):
    """Changes of options: the optimizers of clients and server."""
    return {
        "client_optimizer": OptimizerOptions(client, client_rate),
        "server_optimizer": OptimizerOptions(server, server_rate),
    }


def mf(num_items, dim=8, *, biases=(), **kwargs):
    return functools.partial(
        matrix_factorization, num_items, dim, **dict.fromkeys(biases, True), **kwargs
    )


def drawn_mf(num_items, dim=3, **kwargs):
    """A model with all biases whose rows are large, and whose user parts differ by client."""
    return mf(
        num_items,
        dim,
        biases=BIASES,
        item_initializer=tf.keras.initializers.RandomUniform(0.2, 1.0, seed=1),
        user_initializer=tf.keras.initializers.RandomUniform(0.2, 1.0, seed=2),
        **kwargs,
    )


def small_neumf(num_items, **kwargs):
    """NeuMF whose initial values are larger than the paper's: all layers matter from the start."""
    kwargs.setdefault("user_initializer", SAME_START)
    return functools.partial(
        neumf,
        num_items,
        gmf_dim=4,
        hidden_units=(8, 4),
        item_initializer=tf.keras.initializers.RandomUniform(-0.5, 0.5, seed=1),
        **kwargs,
    )


def client_of(item_ids, labels):
    return np.array(item_ids, np.int64), np.array(labels, np.float32)


def pack(clients, packing, *, num_clients, num_examples=8, round_num=0):
    """Cuts clients into shards, with seeds that stay with client and round.

    Args:
      clients: By user id, or a list; item ids and labels of each.
      packing: `PackingOptions`.
      num_clients: The clients of a shard.
      num_examples: Room for each client's examples; None makes room for the longest of a shard.
      round_num: The round.
    """
    clients = clients if isinstance(clients, dict) else dict(enumerate(clients))
    users = list(clients)
    shards = []
    for start in range(0, len(users), num_clients):
        chosen = users[start : start + num_clients]
        longest = max([1, *(len(clients[user][0]) for user in chosen)])
        shards.append(
            pack_shard(
                [clients[user] for user in chosen],
                np.array(chosen),
                np.array(chosen, np.uint32) * 7919 + round_num + 1,
                packing,
                num_clients=num_clients,
                num_examples=longest if num_examples is None else num_examples,
            )
        )
    return shards


def assert_close(ours, expected, tolerance=1e-5):
    """Asserts that structures are equal within an absolute tolerance, and finite."""
    ours, expected = tf.nest.flatten(ours), tf.nest.flatten(expected)
    assert len(ours) == len(expected) > 0
    for a, b in zip(ours, expected):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def trainable(state):
    """The values of the trainable weights of a server's state."""
    return [np.asarray(value) for value in state.global_model_weights.trainable]


def weights_of(*trainable_values):
    """`ModelWeights` of trainable values alone."""
    return tff.learning.models.ModelWeights([np.float32(value) for value in trainable_values], [])
