"""Federated averaging whose clients keep their local part, against plain loops."""

import functools

import numpy as np
import pytest

from fedrecon.algorithms import fed_avg
from fedrecon.models.functional import FunctionalModel
from tests.algorithms import numpy_fed_avg
from tests.algorithms.fed_avg_case import (
    BROKEN,
    CLIENTS,
    MODEL,
    OPTIONS,
    drawn_local_values,
    pack,
    replaced,
)
from tests.tiny import assert_close, trainable

pytestmark = pytest.mark.usefixtures("in_process_runtime")


@pytest.fixture(scope="module")
def functional():
    return FunctionalModel(MODEL())


@functools.cache
def stateful(options, num_clients):
    return fed_avg.build_stateful_fed_avg(MODEL, options, clients_per_shard=num_clients)


def with_rows(shard, kept, model):
    """The shard with the rows that its users kept; nonsense for those who kept none."""
    users = shard.user_ids.tolist()
    values = [np.full([len(users), *w.shape], np.nan, np.float32) for w in model.local_weights]
    for place, user in enumerate(users):
        for value, row in zip(values, kept.get(user, ())):
            value[place] = row
    return fed_avg.ShardWithRows(shard, values, np.array([user in kept for user in users]))


def stateful_round(state, cohort, kept, options, model, *, num_clients, round_num):
    """Runs a round and returns its output, and what all users have kept after it."""
    shards = pack(cohort, options, num_clients=num_clients, round_num=round_num)
    shards = [with_rows(shard, kept, model) for shard in shards]
    output = stateful(options, num_clients).next(state, shards)
    kept = dict(kept)
    assert len(shards) == len(output.local_values)
    for (shard, _, _), values in zip(shards, output.local_values):
        for place, user in enumerate(shard.user_ids.tolist()):
            if user >= 0:
                kept[user] = [np.asarray(value)[place] for value in values]
    return output, kept


# The users of each round: 3 returns after a pause, 0 comes for the first time in the last.
ROUNDS = [(3, 9, 4), (9, 7, 4), (3, 0, 7, 4)]


@pytest.mark.parametrize(("averaging", "num_clients"), [("plain", 1), ("by_row", 3), ("plain", 8)])
def test_stateful_equals_plain_loops(functional, num_clients, averaging):
    options = replaced(averaging=averaging)
    state = stateful(options, num_clients).initialize()
    values = trainable(state)
    kept, expected_kept = {}, {}
    for round_num, users in enumerate(ROUNDS):
        cohort = {user: CLIENTS[user] for user in users}
        shards = pack(cohort, options, num_clients=num_clients, round_num=round_num)
        local_values = drawn_local_values(functional, shards) | expected_kept
        output, kept = stateful_round(
            state, cohort, kept, options, functional, num_clients=num_clients, round_num=round_num
        )
        results = numpy_fed_avg.fit_all(
            values, [local_values[user] for user in users], cohort.values(), options
        )
        values = numpy_fed_avg.average(values, results, cohort.values(), options)
        for user, (after, _, _) in zip(users, results):
            expected_kept[user] = after[numpy_fed_avg.NUM_GLOBAL :]
        state = output.state
        assert_close(trainable(state), values)
        assert list(kept) == list(expected_kept)
        assert_close(list(kept.values()), list(expected_kept.values()))
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics == pytest.approx(numpy_fed_avg.metrics(results), rel=1e-5)


def test_a_client_whose_update_is_not_finite_keeps_what_it_had(functional):
    run = functools.partial(stateful_round, options=OPTIONS, model=functional, num_clients=8)
    cohort = {user: CLIENTS[user] for user in (3, 9)}
    first, kept = run(stateful(OPTIONS, 8).initialize(), cohort, {}, round_num=0)
    alone, kept_alone = run(first.state, cohort, kept, round_num=1)
    known_and_new = {9: CLIENTS[9], 4: BROKEN, 3: BROKEN}  # User 4 is new.
    beside, kept_beside = run(first.state, known_and_new, kept, round_num=1)
    only, kept_only = run(first.state, {9: CLIENTS[9]}, kept, round_num=1)
    assert beside.metrics["client_work"]["train"]["num_clients_rejected"] == 2
    assert_close(trainable(beside.state), trainable(only.state), 1e-6)
    assert_close(kept_beside[9], kept_only[9], 1e-6)
    assert_close(kept_beside[3], kept[3], 0)
    (shard,) = pack(known_and_new, OPTIONS, num_clients=8, round_num=1)
    assert_close(kept_beside[4], drawn_local_values(functional, [shard])[4], 1e-6)
    # User 3 would have moved.
    assert np.abs(kept_alone[3][0] - kept[3][0]).max() > 1e-3
    assert np.abs(trainable(alone.state)[0] - trainable(only.state)[0]).max() > 1e-3
