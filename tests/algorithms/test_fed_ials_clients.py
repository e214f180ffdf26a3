"""Which clients count in a round of federated iALS, and which are left out."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import fed_ials
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.options import FedIalsOptions, OptimizerOptions
from tests.algorithms.dense_fed_ials import (
    ALL,
    DIM,
    GRADIENT,
    ITEMS_OF,
    NUM_ITEMS,
    NUM_USERS,
    OBSERVED,
    OPTIONS,
    START,
    cohort_gradient,
    minimum,
)
from tests.algorithms.ials_rounds import (
    assert_same,
    one_round,
    pack,
    reconstruction,
    reference,
    table_of,
    training,
)
from tests.tiny import weights_of

pytestmark = pytest.mark.usefixtures("in_process_runtime")


@pytest.mark.slow
@pytest.mark.parametrize("clients_per_shard", [1, 3, 12])
def test_a_round_depends_neither_on_the_packing_nor_on_the_order(clients_per_shard):
    table, metrics = reference()
    for seed in range(2):
        users = np.random.default_rng(seed).permutation(NUM_USERS)
        shards = pack(users, clients_per_shard=clients_per_shard)
        output = one_round(training(clients_per_shard=clients_per_shard), shards)
        np.testing.assert_allclose(table_of(output.state), table, rtol=0, atol=1e-6)
        assert fed_ials.training_metrics(output.metrics) == pytest.approx(metrics, abs=1e-5)


def test_clients_without_items_and_padding_count_for_nothing():
    table, metrics = reference()
    items_of = [*ITEMS_OF, [], []]
    users = [12, *ALL[:5], 13, *ALL[5:]]
    for room in (3, 20):
        shards = pack(users, clients_per_shard=room, items_of=items_of)
        output = one_round(training(clients_per_shard=room), shards)
        np.testing.assert_allclose(table_of(output.state), table, rtol=0, atol=1e-6)
        assert fed_ials.training_metrics(output.metrics) == pytest.approx(metrics, abs=1e-5)


def test_a_round_of_packed_examples():
    users, items = np.nonzero(OBSERVED)
    ratings = Ratings(
        name="tiny",
        user_ids=users.astype(np.int32),
        item_ids=items.astype(np.int32),
        ratings=np.full(len(users), 3.0, np.float32),
        timestamps=None,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        original_user_ids=ALL,
        original_item_ids=np.arange(NUM_ITEMS),
        item_titles=None,
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )
    examples = ImplicitExamples(ratings, ImplicitOptions(negatives_per_positive=0))
    for seed, room in ((0, 3), (1, 12)):
        packing = fed_ials.packing_options(seed=seed)
        shards = CohortPacker(examples, packing, clients_per_shard=room).pack(ALL, 1)
        for shard in shards:  # There are no steps to make room for.
            assert shard.support_batches.tolist() == shard.query_batches.tolist() == [[-1]] * room
        output = one_round(training(clients_per_shard=room), shards)
        np.testing.assert_allclose(table_of(output.state), reference()[0], rtol=0, atol=1e-6)


def test_a_table_that_is_not_finite_stays_and_all_clients_are_rejected():
    broken = START.copy()
    broken[8, 1] = np.nan  # Nobody has this item, but it is in the Gram matrix.
    adam = OptimizerOptions("adam", 1.0)
    learning = training(dataclasses.replace(OPTIONS, server_optimizer=adam))
    start = learning.set_model_weights(learning.initialize(), weights_of(broken))
    output = learning.next(start, pack(ALL))
    for before, after in zip(tf.nest.flatten(start), tf.nest.flatten(output.state)):
        np.testing.assert_array_equal(before, after)
    assert output.metrics["finalizer"]["update_non_finite"] == 1
    metrics = fed_ials.training_metrics(output.metrics)
    assert metrics["num_clients_rejected"] == NUM_USERS
    assert metrics["num_examples"] == 0


def test_a_client_that_cannot_be_solved_for_is_left_out_and_counted():
    """Row 7 is so large that the systems of those who have it mean nothing in float32."""
    options = FedIalsOptions(
        regularization=1.0, exponent=0.5, unobserved_weight=1e-6, server_optimizer=GRADIENT
    )
    table = START.copy()
    table[7] = 1000.0
    having = [user for user, items in enumerate(ITEMS_OF) if 7 in items]
    others = [user for user in ALL if user not in having]
    learning = training(options)
    output, alone = (one_round(learning, pack(users), table) for users in (ALL, others))
    np.testing.assert_allclose(table_of(output.state), table_of(alone.state), rtol=0, atol=1e-6)
    gradient = np.float64(table) - table_of(output.state)
    expected = cohort_gradient(table, others, options)
    assert_same(gradient[:7], expected[:7])
    metrics, of_others = (fed_ials.training_metrics(o.metrics) for o in (output, alone))
    assert metrics.pop("num_clients_rejected") == len(having) == 4
    assert of_others.pop("num_clients_rejected") == 0
    assert metrics == pytest.approx(of_others, rel=1e-6)


def test_a_round_of_nobody_leaves_everything_as_it_was():
    """With Adam even the momentum of earlier rounds would move the model."""
    adam = OptimizerOptions("adam", 0.1)
    learning = training(dataclasses.replace(OPTIONS, server_optimizer=adam))
    begun = one_round(learning, pack(ALL)).state
    output = learning.next(begun, pack([0, 1], items_of=[[], []]))
    for before, after in zip(tf.nest.flatten(begun), tf.nest.flatten(output.state)):
        np.testing.assert_array_equal(before, after)
    assert fed_ials.training_metrics(output.metrics)["num_clients_rejected"] == 0


def test_neither_padding_nor_clients_without_items_are_rejected():
    broken = np.where(np.arange(NUM_ITEMS)[:, np.newaxis] == 8, np.nan, START)
    items_of = [*ITEMS_OF[:3], []]
    output = one_round(training(), pack(range(4), items_of=items_of), broken)
    assert fed_ials.training_metrics(output.metrics)["num_clients_rejected"] == 3


def test_large_but_well_conditioned_systems_are_solved():
    """The Gram matrix makes them definite, however little regularization there is beside it."""
    options = FedIalsOptions(
        regularization=1e-6, exponent=0.0, unobserved_weight=0.2, server_optimizer=GRADIENT
    )
    table = (START * 50.0).astype(np.float32)
    output = one_round(training(options), pack(ALL), table)
    assert fed_ials.training_metrics(output.metrics)["num_clients_rejected"] == 0
    rows = reconstruction(options)(weights_of(table), pack(ALL))[0][0]
    np.testing.assert_allclose(
        np.reshape(rows, [NUM_USERS, DIM]), minimum(table, OBSERVED, options), atol=1e-5
    )
