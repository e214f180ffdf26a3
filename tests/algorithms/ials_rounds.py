"""Rounds of federated iALS on the users of `dense_fed_ials`."""

import collections
import functools

import numpy as np
import tensorflow_federated as tff

from fedrecon.algorithms import fed_ials
from fedrecon.execution.lowering import parts_of
from tests import tiny
from tests.algorithms.dense_fed_ials import (
    ALL,
    DIM,
    ITEMS_OF,
    NUM_ITEMS,
    NUM_USERS,
    OPTIONS,
    START,
)
from tests.tiny import mf, weights_of

MODEL = mf(NUM_ITEMS, DIM)


@functools.cache
def training(options=OPTIONS, clients_per_shard=NUM_USERS, **kwargs):
    return fed_ials.build_fed_ials(
        MODEL, options, num_users=NUM_USERS, clients_per_shard=clients_per_shard, **kwargs
    )


@functools.cache
def reconstruction(options, clients_per_shard=NUM_USERS):
    return fed_ials.build_reconstruction(MODEL, options, clients_per_shard=clients_per_shard)


def pack(users, *, clients_per_shard=NUM_USERS, items_of=ITEMS_OF):
    clients = {user: tiny.client_of(items_of[user], np.ones(len(items_of[user]))) for user in users}
    packing = fed_ials.packing_options(seed=0)
    return tiny.pack(clients, packing, num_clients=clients_per_shard, num_examples=16)


def one_round(learning, shards, table=START):
    state = learning.set_model_weights(learning.initialize(), weights_of(table))
    return learning.next(state, shards)


def table_of(state):
    return np.asarray(state.global_model_weights.trainable[0])


def moved(learning, shards, table=START):
    """What the item rows lost: with `GRADIENT`, their gradient."""
    return np.float64(table) - table_of(one_round(learning, shards, table).state)


def assert_same(found, expected, tolerance=2e-6):
    assert np.abs(expected).max() > 0.01  # Else equality would say little.
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@functools.cache
def reference():
    output = one_round(training(), pack(ALL))
    return table_of(output.state), fed_ials.training_metrics(output.metrics)


def sums_of(computation):
    """By the intrinsic, the types that go from clients to the server."""
    found = collections.defaultdict(list)
    for part in parts_of(computation.to_building_block()):
        if not isinstance(part, tff.framework.Intrinsic):
            continue
        parameter, result = part.type_signature.parameter, part.type_signature.result
        if not (isinstance(result, tff.FederatedType) and result.placement is tff.SERVER):
            continue
        arguments = parameter if isinstance(parameter, tff.StructType) else [parameter]
        for argument in arguments:
            if isinstance(argument, tff.FederatedType) and argument.placement is tff.CLIENTS:
                found[part.uri].append(argument.member.compact_representation())
    return found
