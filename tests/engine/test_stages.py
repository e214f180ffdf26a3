"""Stages of training, vectorized and, as the debug engine has them, eagerly."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.engine.client_step import Stage
from fedrecon.engine.shards import Examples
from fedrecon.engine.stages import run_stage
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import OptimizerOptions

NUM_CLIENTS = 3


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


def run_steps(model, stage, *, num_steps, seeds, is_eager):
    """Trains on item 0 with label 0 in all steps, from weights of ones."""
    shape = [NUM_CLIENTS, num_steps, 5]
    values = {
        weight.name: tf.ones([NUM_CLIENTS, 1, 8] if weight.is_item_table else weight.shape)
        for weight in model.weights
    }
    examples = Examples(
        positions=tf.zeros(shape, tf.int32),
        item_ids=tf.zeros(shape, tf.int32),
        labels=tf.zeros(shape),
        mask=tf.ones(shape, tf.bool),
    )
    run = run_stage if is_eager else tf.function(run_stage, autograph=False)
    return run(model, stage, values, examples, tf.constant(seeds, tf.uint32))


@pytest.mark.parametrize("is_eager", [False, True])
def test_dropout_differs_by_step_and_follows_the_seed(is_eager):
    stage = Stage(OptimizerOptions("sgd", 1e-12), trains_global=True)
    model = dense_model(tf.keras.layers.Dropout(0.5))
    trained = run_steps(model, stage, num_steps=4, seeds=[1, 2, 1], is_eager=is_eager)
    # Each is twice the number of kept entries of eight, and the bias.
    predictions = trained.predictions.numpy()
    assert 7.0 < predictions.mean() < 11.0
    assert len({tuple(step) for client in predictions[:2] for step in client}) == 2 * 4
    np.testing.assert_array_equal(predictions[0], predictions[2])


@pytest.mark.parametrize("trains_local", [False, True])
@pytest.mark.parametrize("is_eager", [False, True])
def test_a_stage_moves_what_it_trains_and_nothing_else(trains_local, is_eager):
    stage = Stage(
        OptimizerOptions("sgd", 1e-4), trains_global=not trains_local, trains_local=trains_local
    )
    model = dense_model(tf.keras.layers.Dense(8, name="frozen", trainable=False))
    trained = run_steps(model, stage, num_steps=2, seeds=[0, 0, 0], is_eager=is_eager)
    moved = {name for name, value in trained.values.items() if np.any(value != 1)}
    of_items = {weight.name for weight in model.weights if weight.is_item_table}
    of_user = {weight.name for weight in model.local_weights}
    assert (len(of_items), len(of_user), len(model.weights)) == (1, 2, 5)
    assert moved == (of_user if trains_local else of_items)
