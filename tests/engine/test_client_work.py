"""Parts of the clients' work by hand, for what a whole round against stock TFF may hide."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.engine import client_work
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import OptimizerOptions

NUM_CLIENTS = 3
GLOBAL_STAGE = client_work.Stage(OptimizerOptions("sgd", 0.1), trains_global=True)
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
      rejected_at: The weight in which one entry of the second client is `value`.
      value: Not finite.
      stage: What was trained.
      **how: More arguments of `contribute`.
    """
    before, after, untouched = [], [], []
    for index, weight in enumerate(model.weights):
        shape = [2, weight.shape[1]] if weight.is_item_table else weight.shape
        is_own = weight.is_item_table or weight.is_local
        before.append(np.ones([NUM_CLIENTS, *shape] if is_own else shape, np.float32))
        untouched.append(before[-1] + UNTOUCHED_CHANGE if weight.is_item_table else before[-1])
        moved = np.broadcast_to(np.ones(shape), [NUM_CLIENTS, *shape]).astype(np.float32)
        moved = moved - np.array([1, 2, 3], np.float32).reshape([-1] + [1] * len(shape))
        if index == rejected_at:
            moved.reshape([NUM_CLIENTS, -1])[1, -1] = value
        after.append(tf.constant(moved))
    untouched = [tf.constant(value) for value in untouched]
    trained = client_work.Trained(after, untouched, predictions=None, num_steps=None)
    return client_work.contribute(
        model,
        stage,
        [tf.constant(value) for value in before],
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
    for weight, update in zip(model.global_weights, contribution.updates):
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

    assert contribution.local_updates == []  # They were not trained.


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
    for weight, update in zip(model.local_weights, contribution.local_updates):
        expected = np.reshape([2.0 * 1, 0, 3 * 3], [-1, 1, 1])
        np.testing.assert_array_equal(update, np.broadcast_to(expected, [3, *weight.shape]))


def test_by_row_updates_are_relative_to_where_clients_started(model):
    contribution = contribution_of(model, stage=JOINT_STAGE, is_by_row=True)
    assert_updates(contribution, model, [2 * 1, 5 * 2, 3 * 3], more_of_rows=0)


def dense_model(middle):
    """Item rows of eight ones, `middle`, and a local layer that adds them up."""
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(4, 8, embeddings_initializer="ones")
    taste = tf.keras.layers.Dense(1, kernel_initializer="ones")
    return FunctionalModel(
        SplitModel(
            tf.keras.Model(item_id, taste(middle(tf.keras.layers.Flatten()(items(item_id))))),
            [items, middle],
            [taste],
            rating_input_spec(),
            tf.keras.losses.MeanSquaredError,
            list,
        )
    )


def run_steps(model, stage, *, num_steps, seeds):
    """Trains on item 0 with label 0 in all steps, from weights of ones."""
    shape = [NUM_CLIENTS, num_steps, 5]
    values = [
        tf.ones([NUM_CLIENTS, 1, 8] if weight.is_item_table else weight.shape)
        for weight in model.weights
    ]
    examples = client_work.Examples(
        positions=tf.zeros(shape, tf.int32),
        item_ids=tf.zeros(shape, tf.int32),
        labels=tf.zeros(shape),
        mask=tf.ones(shape, tf.bool),
    )
    return client_work.run_stage(model, stage, values, examples, tf.constant(seeds, tf.uint32))


def test_dropout_differs_by_step_and_follows_the_seed():
    stage = client_work.Stage(OptimizerOptions("sgd", 1e-12), trains_global=True)
    model = dense_model(tf.keras.layers.Dropout(0.5))
    trained = run_steps(model, stage, num_steps=4, seeds=[1, 2, 1])
    # Each is twice the number of kept entries of eight, and the bias.
    predictions = trained.predictions.numpy()
    assert 7.0 < predictions.mean() < 11.0
    assert len({tuple(step) for client in predictions[:2] for step in client}) == 2 * 4
    np.testing.assert_array_equal(predictions[0], predictions[2])


@pytest.mark.parametrize("trains_local", [False, True])
def test_a_stage_moves_what_it_trains_and_nothing_else(trains_local):
    stage = client_work.Stage(
        OptimizerOptions("sgd", 1e-4), trains_global=not trains_local, trains_local=trains_local
    )
    model = dense_model(tf.keras.layers.Dense(8, name="frozen", trainable=False))
    trained = run_steps(model, stage, num_steps=2, seeds=[0, 0, 0])
    moved = {
        weight.name for weight, value in zip(model.weights, trained.values) if np.any(value != 1)
    }
    of_items = {weight.name for weight in model.weights if weight.is_item_table}
    of_user = {weight.name for weight in model.local_weights}
    assert (len(of_items), len(of_user), len(model.weights)) == (1, 2, 5)
    assert moved == (of_user if trains_local else of_items)
