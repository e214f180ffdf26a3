"""Federated EASE: the Gram matrix of EASE as one secure sum over clients.

EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", arXiv:1905.03375; see
`baselines.ease`) needs of its users only `G = X'X`, `[items, items]`: how many users have both of
two items. That is a sum over users, so it federates exactly, in one pass:

1. Each client forms the outer product of its item vector (0 or 1) with itself.
2. The server adds up the products, over as many rounds as it takes to meet every client once.
3. It solves for the weights, which are EASE's: there is nothing left to converge.

A client sends `items^2` whole numbers, once: 55 MB for the 3,706 items of MovieLens 1M and 1.7 GB
for the 20,720 of MovieLens 20M, at 4 bytes each (half of that without the mirrored half). To be
served it gets the weights, of the same size, or sends its items to the server.

**What it reveals.** A client's own product names its items, so only sums may be shown
(`is_secure`). The sum over all clients reveals every count of common users. If one client alone has
an item, the item's row of `G` is the list of this client's items. And the sums of two rounds that
differ in one client give this client away. Secure sums are no differential privacy.

This is no `Algorithm`: that contract promises a Keras model, a local part and rounds that improve
them, and here is none of the three. So it is a TFF process, and `experiments` trains EASE by it
(`fed_ease` among the references).
"""

from __future__ import annotations

import collections
import math

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.algorithm import BATCH_OF_ITEMS, packing_of_items
from fedrecon.data.cohorts import CohortPacker, Shard
from fedrecon.data.population import IMPLICIT, Population
from fedrecon.errors import InputError, check_at_least
from fedrecon.wiring.types import shard_type

_CLIENTS_PER_SHARD = 32
# Sums of a shard are float32 inside, which holds whole numbers up to here.
_MOST_CLIENTS = 2**24

packing_options = packing_of_items


def build_fed_ease(
    *, num_items: int, clients_per_shard: int, is_secure: bool = False
) -> tff.templates.IterativeProcess:
    """Builds the sum.

    Args:
      num_items: How many items there are.
      clients_per_shard: As for the `CohortPacker`.
      is_secure: Whether the sum is `tff.federated_secure_sum`. None of TFF's runtimes encrypts:
        they check the arithmetic.

    Returns:
      A process. Its state has `gram`, `[num_items, num_items]` int32: how many clients so far have
      both of two items, and `num_clients`, int32: how many clients so far have any. Its
      `next(state, shards)` adds the clients of a list of shards, which are packed with
      `packing_options`; labels are not looked at, and each item is a positive.

    Raises:
      InputError: If a number is not at least 1, or a shard has more clients than float32 can count.
    """
    check_at_least(1, "num_items", num_items)
    check_at_least(1, "clients_per_shard", clients_per_shard)
    if clients_per_shard > _MOST_CLIENTS:
        raise InputError(
            f"clients_per_shard is {clients_per_shard:,}; give at most {_MOST_CLIENTS:,}."
        )

    @tff.tensorflow.computation
    def nothing():
        return collections.OrderedDict(
            gram=tf.zeros([num_items, num_items], tf.int32), num_clients=tf.zeros([], tf.int32)
        )

    state_type = nothing.type_signature.result

    @tff.tensorflow.computation(shard_type(BATCH_OF_ITEMS, clients_per_shard))
    def count(shard):
        return _counts(shard, num_items)

    @tff.tensorflow.computation(state_type, state_type)
    def add(state, more):
        return tf.nest.map_structure(tf.add, state, more)

    @tff.federated_computation
    def initialize():
        return tff.federated_value(nothing(), tff.SERVER)

    @tff.federated_computation(
        tff.FederatedType(state_type, tff.SERVER),
        tff.FederatedType(count.type_signature.parameter, tff.CLIENTS),
    )
    def next_state(state, shards):
        counts = tff.federated_map(count, shards)
        if is_secure:
            largest = collections.OrderedDict(gram=clients_per_shard, num_clients=clients_per_shard)
            total = tff.federated_secure_sum(counts, largest)
        else:
            total = tff.federated_sum(counts)
        return tff.federated_map(add, (state, total))

    return tff.templates.IterativeProcess(initialize, next_state)


def gram_of_clients(
    population: Population, *, clients_per_round: int, is_secure: bool = False
) -> np.ndarray:
    """Meets every training user once, and returns the Gram matrix, `[items, items]` int32.

    A client with more than `max_positives_per_user` items counts so many of them, drawn at random.

    Args:
      population: With implicit feedback, whose clients draw no negatives.
      clients_per_round: How many clients a round has at most.
      is_secure: As for `build_fed_ease`.

    Raises:
      InputError: If the population is another, or a number is not at least 1.
    """
    check_at_least(1, "clients_per_round", clients_per_round)
    if population.feedback != IMPLICIT or population.examples.options.negatives_per_positive:
        raise InputError(
            "federated EASE counts the items that users have; give a population with implicit "
            "feedback and negatives_per_positive=0."
        )
    size = min(_CLIENTS_PER_SHARD, clients_per_round)
    packing = packing_options(seed=population.seed)
    packer = CohortPacker(population.examples, packing, clients_per_shard=size)
    process = build_fed_ease(
        num_items=population.ratings.num_items, clients_per_shard=size, is_secure=is_secure
    )
    state = process.initialize()
    num_rounds = math.ceil(len(population.train) / clients_per_round)
    for round_num, cohort in enumerate(np.array_split(population.train, num_rounds), start=1):
        state = process.next(state, packer.pack(cohort, round_num))
    return np.asarray(state["gram"])


def _counts(shard: Shard, num_items: int) -> collections.OrderedDict:
    """Returns the result of step 1, added up over the clients of a shard."""
    num_clients = shard.item_ids.shape[0]
    # Padding gets a column of its own, which is cut off; an item that comes twice counts once.
    columns = tf.where(shard.item_ids < 0, num_items, shard.item_ids)
    rows = tf.broadcast_to(tf.range(num_clients)[:, tf.newaxis], tf.shape(columns))
    has = tf.tensor_scatter_nd_max(
        tf.zeros([num_clients, num_items + 1]),
        tf.stack([rows, columns], axis=-1),
        tf.ones(tf.shape(columns)),
    )[:, :num_items]
    return collections.OrderedDict(
        gram=tf.cast(tf.matmul(has, has, transpose_a=True), tf.int32),
        num_clients=tf.math.count_nonzero(tf.reduce_any(has > 0, axis=1), dtype=tf.int32),
    )
