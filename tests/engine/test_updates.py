"""Clients' updates by hand: weighted, and without those that are not finite."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.engine.client_step import Stage
from fedrecon.engine.stages import Trained
from fedrecon.engine.updates import contribute
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.options import OptimizerOptions

NUM_CLIENTS = 3
GLOBAL_STAGE = Stage(OptimizerOptions("sgd", 0.1), trains_global=True)
JOINT_STAGE = dataclasses.replace(GLOBAL_STAGE, trains_local=True)
CLIENT_WEIGHTS = np.array([2.0, 5.0, 3.0], np.float32)
UNTOUCHED_CHANGE = -0.25  # What a row that no batch touches moves by, as with weight decay.


@pytest.fixture(scope="module")
def model():
    return FunctionalModel(
        matrix_factorization(4, 2, item_bias=True, global_bias=True, user_bias=True)
    )


def contribution_of(model, rejected_at=None, value=np.nan, *, stage=GLOBAL_STAGE, **how):
    """What three clients give that moved all entries down by 1, 2 and 3; the second may be broken.

    Args:
      model: The model.
      rejected_at: The place of the weight in which one entry of the second client is `value`.
      value: Not finite.
      stage: What was trained.
      **how: More arguments of `contribute`.
    """
    before, after, untouched = {}, {}, {}
    for index, weight in enumerate(model.weights):
        shape = [2, weight.shape[1]] if weight.is_item_table else weight.shape
        is_own = weight.is_item_table or weight.is_local
        start = np.ones([NUM_CLIENTS, *shape] if is_own else shape, np.float32)
        drift = UNTOUCHED_CHANGE if weight.is_item_table else 0.0
        before[weight.name] = tf.constant(start)
        untouched[weight.name] = tf.constant(start + np.float32(drift))
        moved = np.broadcast_to(np.ones(shape), [NUM_CLIENTS, *shape]).astype(np.float32)
        moved = moved - np.array([1, 2, 3], np.float32).reshape([-1] + [1] * len(shape))
        if index == rejected_at:
            moved.reshape([NUM_CLIENTS, -1])[1, -1] = value
        after[weight.name] = tf.constant(moved)
    trained = Trained(after, untouched, predictions=None, num_steps=None)
    return contribute(
        model,
        stage,
        before,
        trained,
        tf.constant(CLIENT_WEIGHTS),
        **how,
    )


def assert_updates(contribution, model, of_clients, *, more_of_rows=UNTOUCHED_CHANGE):
    """Asserts the weighted change of each client, which is that of all of its entries.

    Args:
      contribution: What to look at.
      model: The model.
      of_clients: The weighted changes.
      more_of_rows: What is added to those of item rows, before they are weighted.
    """
    assert len(contribution.updates) == len(model.global_weights) == 3
    for weight in model.global_weights:
        update = contribution.updates[weight.name]
        if weight.is_item_table:
            of_rows = of_clients + contribution.weights.numpy() * more_of_rows
            expected = np.broadcast_to(np.reshape(of_rows, [-1, 1, 1]), update.shape)
        else:
            expected = np.full(update.shape, sum(of_clients))
        np.testing.assert_array_equal(update, expected)


def test_updates_are_weighted_by_client(model):
    contribution = contribution_of(model)
    np.testing.assert_array_equal(contribution.weights, CLIENT_WEIGHTS)
    assert contribution.num_rejected == 0
    assert_updates(contribution, model, [2 * 1, 5 * 2, 3 * 3])

    assert contribution.local_updates == {}  # They were not trained.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_entry_in_any_weight_leaves_the_client_out_of_all(model, place, value):
    contribution = contribution_of(model, rejected_at=place, value=value)
    np.testing.assert_array_equal(contribution.weights, [2, 0, 3])
    assert contribution.num_rejected == 1
    assert_updates(contribution, model, [2 * 1, 0, 3 * 3])


@pytest.mark.parametrize("place", [0, 2, 3, 4])
def test_local_updates_are_weighted_and_not_summed(model, place):
    contribution = contribution_of(model, rejected_at=place, stage=JOINT_STAGE)
    np.testing.assert_array_equal(contribution.is_finite, [True, False, True])
    assert_updates(contribution, model, [2 * 1, 0, 3 * 3])
    assert len(model.local_weights) == len(contribution.local_updates)
    for weight in model.local_weights:
        update = contribution.local_updates[weight.name]
        expected = np.reshape([2.0 * 1, 0, 3 * 3], [-1, 1, 1])
        np.testing.assert_array_equal(update, np.broadcast_to(expected, [3, *weight.shape]))


def test_by_row_updates_are_relative_to_where_clients_started(model):
    contribution = contribution_of(model, stage=JOINT_STAGE, is_by_row=True)
    assert_updates(contribution, model, [2 * 1, 5 * 2, 3 * 3], more_of_rows=0)
