"""Federated iALS against the dense loss and against alternating least squares."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fedrecon import rng
from fedrecon.algorithms import fed_ials
from fedrecon.baselines.ials import Ials, IalsOptions, train_ials
from fedrecon.options import FedIalsOptions, OptimizerOptions
from tests.algorithms.dense_fed_ials import (
    ALL,
    DIM,
    EXPONENTS,
    GRADIENT,
    ITEMS_OF,
    NUM_ITEMS,
    NUM_USERS,
    OBSERVED,
    OPTIONS,
    START,
    cohort_gradient,
    gradient_of,
    losses_of_users,
    minimum,
    minimum_with_gradient,
    whole_loss,
    with_exponent,
)
from tests.algorithms.ials_rounds import (
    MODEL,
    assert_same,
    moved,
    one_round,
    pack,
    reconstruction,
    table_of,
    training,
)
from tests.tiny import mf, weights_of

pytestmark = pytest.mark.usefixtures("in_process_runtime")


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_round_of_all_users_is_the_gradient_of_the_dense_loss(exponent):
    options = with_exponent(exponent)
    rows = minimum(START, OBSERVED, options)

    def at_fixed_rows(table):
        return whole_loss(table, rows, options) / NUM_USERS

    def minimized(table):
        rows = minimum_with_gradient(table, OBSERVED, options)
        return whole_loss(table, rows, options) / NUM_USERS

    expected = gradient_of(at_fixed_rows, START)
    assert_same(moved(training(options), pack(ALL)), expected)
    # At the minimum nothing comes through the rows (the envelope theorem), though they move.
    assert_same(gradient_of(minimized, START), expected, 1e-12)
    through_rows = gradient_of(
        lambda table: tf.reduce_sum(minimum_with_gradient(table, OBSERVED, options)), START
    )
    assert np.abs(through_rows).max() > 0.1


def test_a_cohort_is_a_sample_of_num_users():
    options = with_exponent(0.5)
    more = fed_ials.build_fed_ials(
        MODEL, options, num_users=4 * NUM_USERS, clients_per_shard=NUM_USERS
    )
    # Four copies of each user: the same mean over users, four times the counts.
    observed = np.tile(OBSERVED, (4, 1))
    strengths = 0.3 * (observed.sum(axis=0) + 0.2 * 48) ** 0.5
    rows = minimum(START, observed, options)

    def loss(table):
        of_users = tf.reduce_sum(losses_of_users(table, rows, observed, options))
        return (of_users + tf.reduce_sum(strengths * tf.reduce_sum(table**2, axis=1))) / 48

    assert_same(moved(more, pack(ALL)), gradient_of(loss, START))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_cohort_estimates_the_counts_by_its_shares(exponent):
    options = with_exponent(exponent)
    for users in ([0, 3, 4, 7, 10], [5, 2], [9]):
        expected = cohort_gradient(START, users, options)
        found = moved(training(options), pack(users))
        assert_same(found, expected)


def test_samples_are_unbiased_unless_the_exponent_is_between_0_and_1():
    cohorts = np.random.default_rng(1).permutation(NUM_USERS).reshape(4, 3)
    gaps = {}
    for exponent in EXPONENTS:
        options = with_exponent(exponent)
        whole = moved(training(options), pack(ALL))
        means = np.mean([moved(training(options), pack(users)) for users in cohorts], axis=0)
        gaps[exponent] = np.abs(means - whole).max()
    assert gaps[0.0] < 1e-6
    assert gaps[1.0] < 1e-6
    assert gaps[0.5] > 1e-3


def test_a_round_by_hand():
    # One item, row 2, one user of two who has it; a = 1/4, r = 1 and nu = 1. The user's system is
    # 4 + 1/4 * 4 + (1 + 1/4 * 1) = 6.25, so x = 2 / 6.25 = 0.32 and x v = 0.64. The gradient by
    # users is 2 (0.64 - 1) 0.32 + 2 (1/4) 2 * 0.32^2 + 2 (1/2) (2 + 1/4 * 2) 2 = 4.872.
    options = FedIalsOptions(
        regularization=1.0, exponent=1.0, unobserved_weight=0.25, server_optimizer=GRADIENT
    )
    learning = fed_ials.build_fed_ials(mf(1, 1), options, num_users=2, clients_per_shard=1)
    shards = pack([0], clients_per_shard=1, items_of=[[0]])
    output = one_round(learning, shards, [[2.0]])
    assert_same(2.0 - table_of(output.state), [[4.872]])
    # (1 - 0.64)^2 + 1/4 * 0.64^2 + 1.25 * 0.32^2.
    assert fed_ials.training_metrics(output.metrics)["loss"] == pytest.approx(0.36, abs=1e-6)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_users_rows_are_the_dense_ridge_regression_over_all_items(exponent):
    options = with_exponent(exponent)
    items_of = [*ITEMS_OF, [], list(range(NUM_ITEMS))]  # Two newcomers: nothing, and everything.
    observed = np.concatenate([OBSERVED, np.zeros((1, NUM_ITEMS)), np.ones((1, NUM_ITEMS))])
    (found,) = reconstruction(options, 20)(
        weights_of(START), pack(range(14), clients_per_shard=20, items_of=items_of)
    )
    (rows,) = found
    assert rows.shape == (20, 1, DIM)
    assert_same(rows[:14, 0], minimum(START, observed, options), 5e-6)
    np.testing.assert_array_equal(rows[12], np.zeros((1, DIM)))
    np.testing.assert_array_equal(rows[14:], np.zeros((6, 1, DIM)))


def test_each_shard_gets_its_own_users_back():
    (first,), (second,) = reconstruction(OPTIONS, 8)(
        weights_of(START), pack(ALL[::-1], clients_per_shard=8)
    )
    rows = np.concatenate([first, second])[:NUM_USERS, 0]
    assert_same(rows, minimum(START)[::-1], 5e-6)


def test_reconstruction_without_exponent_is_that_of_ials():
    options = with_exponent(0.0)
    ials = Ials(
        IalsOptions(dim=DIM, regularization=0.3, unobserved_weight=0.2), np.zeros((0, DIM)), START
    )
    ((rows,),) = reconstruction(options)(weights_of(START), pack(ALL))
    expected = [ials.reconstruct(np.array(items)) for items in ITEMS_OF]
    assert_same(rows[:, 0], expected, 5e-6)


def train_by_ials(num_iterations):
    options = IalsOptions(DIM, 0.3, 0.2, num_iterations, seed=1)
    users, items = np.nonzero(OBSERVED)
    return train_ials(users, items, num_users=NUM_USERS, num_items=NUM_ITEMS, options=options)


def initial_rows_of_ials():
    stddev = 0.1 / np.sqrt(DIM)
    return stddev * rng.generator(1, "iALS item rows").normal(0.0, 1.0, (NUM_ITEMS, DIM))


@pytest.mark.slow
def test_the_end_of_ials_is_a_fixed_point():
    rows = train_by_ials(500).item_rows
    learning, shards = training(with_exponent(0.0)), pack(ALL)
    assert np.abs(moved(learning, shards, rows)).max() < 2e-6
    # Of terms that are not: the penalty's alone, and the gradient a little further on.
    assert np.abs(2 * 0.3 / NUM_USERS * rows).max() > 0.01
    assert np.abs(moved(learning, shards, 1.1 * rows)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "num_rounds"),
    [(OptimizerOptions("adam", 0.02), 400), (OptimizerOptions("sgd", 0.5), 800)],
)
def test_training_ends_at_the_loss_that_ials_reaches(optimizer, num_rounds):
    options = dataclasses.replace(with_exponent(0.0), server_optimizer=optimizer)
    start = initial_rows_of_ials()

    def loss(table):
        table = np.float64(table)
        return float(whole_loss(table, minimum(table, OBSERVED, options), options))

    learning, shards = training(options), pack(ALL)
    state = learning.set_model_weights(learning.initialize(), weights_of(start))
    for _ in range(num_rounds):
        state = learning.next(state, shards).state
    reached = loss(train_by_ials(500).item_rows)
    assert loss(table_of(state)) < reached * (1 + 1e-4) < 0.9 * loss(start)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_metrics_are_the_loss_by_interaction_and_counts(exponent):
    options = with_exponent(exponent)
    for users in ([0, 3, 4, 7, 10], ALL):
        seen = OBSERVED[users]
        expected = losses_of_users(np.float64(START), minimum(START, seen, options), seen, options)
        output = one_round(training(options), pack(users))
        assert fed_ials.training_metrics(output.metrics) == {
            "loss": pytest.approx(np.sum(expected) / seen.sum(), rel=1e-5),
            "num_examples": seen.sum(),
            "num_clients_rejected": 0,
        }


def test_a_round_of_nobody_has_a_loss_of_nothing():
    output = one_round(training(clients_per_shard=3), pack([0], items_of=[[]], clients_per_shard=3))
    assert fed_ials.training_metrics(output.metrics) == {
        "loss": 0.0,
        "num_examples": 0,
        "num_clients_rejected": 0,
    }
