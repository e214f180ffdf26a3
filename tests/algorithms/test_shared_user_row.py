"""FedAvg without a local part: one user row for all, averaged with the items' (released code)."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import fed_avg
from fedrecon.models.matrix_factorization import matrix_factorization
from tests.algorithms.fed_avg_case import CLIENTS, NUM_ITEMS, pack, replaced

pytestmark = pytest.mark.usefixtures("in_process_runtime")

DIM = 3
MODEL = functools.partial(
    matrix_factorization,
    NUM_ITEMS,
    DIM,
    mean_user=True,
    user_initializer="zeros",
    item_initializer=tf.keras.initializers.RandomUniform(0.2, 1.2, seed=3),
)
OPTIONS = replaced(trains_local=False)


def trained_by_loops(items, user, item_ids, labels):
    """One client's items and user row after its steps, and how many examples they took."""
    items, user, count = items.copy(), user.copy(), 0
    for _ in range(OPTIONS.client_epochs):
        for start in range(0, len(labels), OPTIONS.batch_size):
            ids, answers = (x[start : start + OPTIONS.batch_size] for x in (item_ids, labels))
            slopes = 2 * (items[ids] @ user - answers) / len(ids)
            of_items = np.zeros_like(items)
            np.add.at(of_items, ids, slopes[:, np.newaxis] * user)
            of_user = slopes @ items[ids]
            items -= OPTIONS.client_optimizer.learning_rate * of_items
            user -= OPTIONS.client_optimizer.learning_rate * of_user
            count += len(ids)
    return items, user, count


def test_rounds_equal_plain_loops():
    process = fed_avg.build_fed_avg(MODEL, OPTIONS, clients_per_shard=len(CLIENTS))
    state = process.initialize()
    items, user = (np.array(w, np.float64) for w in state.global_model_weights.trainable)
    user = user.reshape(DIM)
    for round_num in range(3):
        shards = pack(CLIENTS, OPTIONS, num_clients=len(CLIENTS), round_num=round_num)
        state = process.next(state, shards).state
        results = [trained_by_loops(items, user, *client) for client in CLIENTS.values()]
        weights = [count for _, _, count in results]
        rate = OPTIONS.server_optimizer.learning_rate
        items += rate * (np.average([r[0] for r in results], axis=0, weights=weights) - items)
        user += rate * (np.average([r[1] for r in results], axis=0, weights=weights) - user)
        found_items, found_user = state.global_model_weights.trainable
        np.testing.assert_allclose(found_items, items, rtol=1e-5)
        np.testing.assert_allclose(np.reshape(found_user, [DIM]), user, rtol=1e-5)
    assert np.abs(user).min() > 0.1  # It has moved from zeros.
