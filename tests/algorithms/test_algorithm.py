"""The noun that all algorithms share, with a process simple enough to follow by hand."""

import collections
import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from fedrecon import rng
from fedrecon.algorithms.algorithm import (
    Algorithm,
    Costs,
    bytes_of_state,
    cohort_packer,
    cohort_sampler,
    costs_of_one_machine,
    costs_of_rounds,
    num_bytes,
)
from fedrecon.data.cohorts import PackingOptions, Passes
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_by_user
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.options import OptimizerOptions


class Output(NamedTuple):
    state: int
    metrics: dict


class Process:
    """Adds the clients' ids to the state; its metric is their number."""

    def initialize(self):
        return 1000

    def next(self, state, clients):
        return Output(state + sum(clients), {"clients": len(clients)})


FIELDS = {
    "process": Process(),
    "sample_cohort": lambda round_num: np.array([round_num, 10 * round_num]),
    "training_data": lambda users, round_num: [*users.tolist(), 100 * round_num],
    "training_metrics": lambda metrics: {"num_clients": metrics["clients"]},
    "get_weights": lambda state: state,
    "reconstruction": None,
    "costs": lambda state: Costs(1, 2, 3, 4, state),
}


@pytest.fixture(scope="module")
def population():
    ratings = load_dataset(
        "synthetic", num_users=60, num_items=50, mean_ratings_per_user=25, seed=0
    )
    return divide_by_user(ratings, seed=7)


# --- rounds ---------------------------------------------------------------------------------------


def test_a_round_prepares_its_own_clients():
    algorithm = Algorithm(**FIELDS)
    assert algorithm.initialize() == 1000
    assert algorithm.prepare_round(3) == [3, 30, 300]
    state, metrics = algorithm.run_round(1000, 3)
    assert (state, metrics) == (1333, {"num_clients": 3})


def test_clients_that_are_prepared_are_not_prepared_again():
    def fail(*args):
        raise AssertionError("prepared again")

    algorithm = Algorithm(**{**FIELDS, "sample_cohort": fail, "training_data": fail})
    state, metrics = algorithm.run_round(1000, 3, [1, 2, 4, 8])
    assert (state, metrics) == (1015, {"num_clients": 4})
    # A round in which nobody takes part is a round, too.
    assert algorithm.run_round(1000, 3, []) == (1000, {"num_clients": 0})


@pytest.mark.parametrize("name", FIELDS)
def test_an_algorithm_states_everything_its_costs_too(name):
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(TypeError, match=name):
        Algorithm(**fields)


def test_most_algorithms_keep_nothing():
    algorithm = Algorithm(**FIELDS)
    assert (algorithm.kept_rows, algorithm.store) == (None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        algorithm.store = object()


# --- cohorts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients_per_round", "sampler", "message"),
    [
        (0, "uniform", "clients_per_round is 0; it must be from 1 to the 48 training users of syn"),
        (-3, "queue", "clients_per_round is -3; it must be from 1"),
        (49, "uniform", "clients_per_round is 49; .* the 48 training users of synthetic"),
        (7, "random", "the sampler is 'random'; it must be one of uniform, queue"),
    ],
)
def test_cohorts_that_cannot_be_drawn_are_refused(population, clients_per_round, sampler, message):
    with pytest.raises(InputError, match=message):
        cohort_sampler(population, clients_per_round=clients_per_round, sampler=sampler)


@pytest.mark.parametrize("sampler", ["uniform", "queue"])
@pytest.mark.parametrize("clients_per_round", [1, 7, 48])
def test_cohorts_are_of_training_users_and_follow_from_seed_and_round(
    population, clients_per_round, sampler
):
    sample = cohort_sampler(population, clients_per_round=clients_per_round, sampler=sampler)
    again = cohort_sampler(population, clients_per_round=clients_per_round, sampler=sampler)
    draw = {"uniform": rng.sample_uniform, "queue": rng.sample_queue}[sampler]
    for round_num in (1, 2, 9):
        cohort = sample(round_num)
        assert len(set(cohort.tolist())) == clients_per_round
        assert set(cohort.tolist()) <= set(population.train.tolist())
        np.testing.assert_array_equal(cohort, again(round_num))
        expected = draw(population.train, clients_per_round, seed=7, round_num=round_num)
        np.testing.assert_array_equal(cohort, expected)


def test_a_queue_takes_each_user_once_before_any_comes_twice(population):
    sample = cohort_sampler(population, clients_per_round=7, sampler="queue")
    drawn = np.concatenate([sample(round_num) for round_num in range(1, 15)])  # 98 = 2 * 48 + 2.
    counts = collections.Counter(drawn.tolist())
    assert sorted(counts.values()) == [2] * 46 + [3] * 2


def test_a_client_has_a_shard_of_its_own_where_that_is_asked_for(population):
    packing = PackingOptions(5, "none", support=Passes(1), query=Passes(1), seed=0)
    common = {"clients_per_round": 40}
    packer = cohort_packer(population, packing, one_client_per_shard=True, **common)
    assert packer.clients_per_shard == 1
    packer = cohort_packer(population, packing, **common)
    assert packer.clients_per_shard > 1
    assert sum(len(shard.user_ids) for shard in packer.pack(population.train[:40], 1)) >= 40


def test_a_shard_has_as_many_clients_as_were_asked_for(population):
    packing = PackingOptions(5, "none", support=Passes(1), query=Passes(1), seed=0)
    packer = cohort_packer(population, packing, clients_per_round=40, clients_per_shard=7)
    shards = packer.pack(population.train[:40], 1)
    assert [len(shard.user_ids) for shard in shards] == [7] * 6
    with pytest.raises(InputError, match="clients_per_shard is 41, but a round has 40 clients"):
        cohort_packer(population, packing, clients_per_round=40, clients_per_shard=41)
    with pytest.raises(InputError, match="clients_per_shard is 2, but each client needs a shard"):
        cohort_packer(
            population,
            packing,
            clients_per_round=40,
            clients_per_shard=2,
            one_client_per_shard=True,
        )


def test_an_optimizer_that_moves_all_rows_takes_smaller_shards():
    """Its clients work on whole rows at each step, so padding costs more than waiting."""
    ratings = load_dataset(
        "synthetic", num_users=300, num_items=200, mean_ratings_per_user=60, seed=0
    )
    population = divide_by_user(ratings)
    packing = PackingOptions(5, "none", support=Passes(1), query=Passes(1), seed=0)
    model = FunctionalModel(matrix_factorization(200, 64, item_bias=True))

    def size(optimizer):
        return cohort_packer(
            population, packing, clients_per_round=200, client_optimizer=optimizer, model=model
        ).clients_per_shard

    assert size(OptimizerOptions("adam", 0.1)) < size(OptimizerOptions("sgd", 0.1))
    assert size(OptimizerOptions("sgd", 0.1)) == size(None)


# --- costs ----------------------------------------------------------------------------------------


class Weight(NamedTuple):
    shape: tf.TensorShape
    dtype: tf.DType
    trainable: bool


class Model(NamedTuple):
    global_weights: list


MODEL = Model(
    [
        Weight(tf.TensorShape([10, 3]), tf.float32, True),  # 120 bytes.
        Weight(tf.TensorShape([]), tf.float64, True),  # 8 bytes.
        Weight(tf.TensorShape([5]), tf.int32, False),  # 20 bytes, which no client changes.
    ]
)
STATE = {"weights": np.zeros([10, 3], np.float32), "moments": (np.zeros(4), np.int32(1))}


def test_bytes_are_those_of_arrays():
    assert num_bytes(MODEL.global_weights) == 120 + 8 + 20
    assert num_bytes([]) == 0
    assert bytes_of_state(STATE) == 120 + 32 + 4


def test_clients_get_the_global_part_and_send_an_update_of_what_is_trained():
    assert costs_of_rounds(MODEL, item_steps=2.5)(STATE) == Costs(
        bytes_down=148,
        bytes_up=128,
        bytes_up_once=0,
        device_bytes=0,
        server_bytes=156,
        item_steps=2.5,
    )
    more = costs_of_rounds(MODEL, item_steps=1.0, more_down=1000, more_up=2000, device=7)(STATE)
    assert more == Costs(1148, 2128, 0, 7, 156, 1.0)


def test_on_one_machine_clients_send_their_ratings_once(population):
    train = population.train.tolist()
    mean = np.mean([population.examples.num_examples(user) for user in train])
    # An item's id and a rating, 4 bytes each.
    assert costs_of_one_machine(population, 99) == Costs(0, 0, round(8 * mean), 0, 99)
    with_steps = costs_of_one_machine(population, 99, item_steps=7.0)
    assert with_steps == Costs(0, 0, round(8 * mean), 0, 99, 7.0)
