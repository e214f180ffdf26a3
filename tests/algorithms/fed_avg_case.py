"""Clients, a model and options that tests of federated averaging share."""

import dataclasses

import numpy as np

from fedrecon.algorithms import fed_avg
from fedrecon.engine.calls import fresh_local_values
from fedrecon.engine.values import in_order
from fedrecon.options import FedAvgOptions
from tests import tiny
from tests.tiny import client_of, drawn_mf, optimizers

NUM_ITEMS = 8
MODEL = drawn_mf(NUM_ITEMS)
# By user id. Items twice in a batch (of three), partial last batches, one example, none.
CLIENTS = {
    3: ([0, 1, 0, 2, 2, 2, 4, 0], [1, 2, 3, 4, 5, 1, 2, 5]),
    9: ([5, 3, 1], [4, 2, 5]),
    4: ([2, 2, 4, 2, 2], [3, 1, 3, 4, 4]),
    0: ([6], [5]),
    6: ([], []),
    7: ([1, 6, 2, 5, 3, 0, 4], [1, 5, 2, 4, 3, 3, 2]),  # All items but 7, which nobody has.
}
CLIENTS = {user: client_of(*of_user) for user, of_user in CLIENTS.items()}
BROKEN = client_of([0, 1, 2, 3], [3, 3, np.inf, 3])
OPTIONS = FedAvgOptions(batch_size=3, client_epochs=2, **optimizers("sgd", 0.1, "sgd", 0.7))


def replaced(**changes):
    return dataclasses.replace(OPTIONS, **changes)


UNIFORM = {"client_weighting": "uniform", **optimizers("momentum", 0.05)}
BY_ROW_UNIFORM = replaced(averaging="by_row", client_steps_max=3, **UNIFORM)


def pack(clients, options, *, num_clients, round_num=0):
    packing = fed_avg.packing_options(options, seed=0)
    return tiny.pack(clients, packing, num_clients=num_clients, round_num=round_num)


def drawn_local_values(model, shards):
    """The fresh local values of each user of the shards."""
    drawn = {}
    for shard in shards:
        values = in_order(model.local_weights, fresh_local_values(model, shard))
        for place, user in enumerate(shard.user_ids.tolist()):
            drawn[user] = [value[place].numpy() for value in values]
    return drawn
