"""Federated EASE is EASE: the same Gram matrix, however clients are cut into rounds and shards."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon import baselines
from fedrecon.algorithms.fed_ease import build_fed_ease, gram_of_clients, packing_options
from fedrecon.baselines.ease import ease_of_gram, gram_matrix
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.data.strong_generalization import divide_by_strong_generalization
from fedrecon.errors import InputError
from tests.tiny import client_of, pack

pytestmark = pytest.mark.usefixtures("in_process_runtime")


@functools.cache
def population():
    ratings = load_dataset(
        "synthetic", num_users=60, num_items=70, mean_ratings_per_user=25, seed=0
    )
    return divide_by_strong_generalization(ratings, num_held_out_users=10, negatives_per_positive=0)


def shards_of(*clients, num_clients=2):
    given = [client_of(items, np.ones(len(items))) for items in clients]
    return pack(given, packing_options(seed=0), num_clients=num_clients)


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize("is_secure", [False, True])
def test_counts_by_hand(is_secure):
    process = build_fed_ease(num_items=4, clients_per_shard=2, is_secure=is_secure)
    state = process.initialize()
    np.testing.assert_array_equal(state["gram"], np.zeros((4, 4)))
    # Three clients, of which the last has a shard with padding; one of four items repeats.
    state = process.next(state, shards_of([0, 2], [2, 3, 2], [2]))
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 3, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(state["gram"], expected)
    assert state["num_clients"] == 3
    state = process.next(state, shards_of([1, 0]))
    expected = np.add(expected, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(state["gram"], expected)
    assert state["num_clients"] == 4


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize(("clients_per_round", "is_secure"), [(40, False), (7, False), (40, True)])
def test_the_weights_are_those_of_ease(clients_per_round, is_secure):
    users, items, _ = population().examples.interactions(population().train)
    num_items = population().ratings.num_items
    found = gram_of_clients(population(), clients_per_round=clients_per_round, is_secure=is_secure)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, gram_matrix(users, items, num_items=num_items))
    options = baselines.EaseOptions(20.0)
    central = baselines.train_ease(users, items, num_users=60, num_items=num_items, options=options)
    np.testing.assert_allclose(ease_of_gram(found, options).weights, central.weights, atol=1e-6)


def test_the_server_gets_a_sum_and_a_secure_one_where_asked():
    """Nothing of a client is at SERVER in the signature but the state."""
    for is_secure in (False, True):
        process = build_fed_ease(num_items=3, clients_per_shard=1, is_secure=is_secure)
        signature = process.next.type_signature
        assert signature.parameter[1].placement is tff.CLIENTS
        assert signature.result.placement is tff.SERVER
        text = str(process.next.to_building_block())
        assert ("federated_secure_sum" in text) == is_secure
        assert ("federated_sum" in text) != is_secure


def test_other_populations_are_refused():
    ratings = load_dataset(
        "synthetic", num_users=40, num_items=60, mean_ratings_per_user=22, seed=0
    )
    explicit = divide_by_user(ratings)
    negatives = divide_for_ranking(ratings, negatives_per_positive=2)
    for other in (explicit, negatives):
        with pytest.raises(InputError, match="give a population with implicit feedback and neg"):
            gram_of_clients(other, clients_per_round=4)
    with pytest.raises(InputError, match="clients_per_round"):
        gram_of_clients(population(), clients_per_round=0)
    with pytest.raises(InputError, match="clients_per_shard is 16,777,217; give at most"):
        build_fed_ease(num_items=2, clients_per_shard=2**24 + 1)


def test_float32_counts_exactly_as_far_as_a_shard_goes():
    assert tf.constant(2.0**24) + 1 == 2.0**24
    assert tf.constant(2.0**24 - 1) + 1 == 2.0**24
