"""TFF's tutorial of Federated Reconstruction, on small data, ends at the same figures here.

The steps are the tutorial's ("Federated Reconstruction for Matrix Factorization"), its shuffled
datasets too. Only the initial user embedding is another one: the tutorial draws it anew each time.
"""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.models.small_models import TutorialUserEmbedding

pytestmark = pytest.mark.slow

NUM_USERS, NUM_ITEMS, NUM_FACTORS = 8, 30, 5


def create_datasets(seed=0, max_examples_per_user=20, batch_size=5):
    generator = np.random.default_rng(seed)
    tastes, items = generator.normal(size=[NUM_USERS, 2]), generator.normal(size=[NUM_ITEMS, 2])
    datasets = []
    for user in range(NUM_USERS):
        rated = generator.choice(NUM_ITEMS, 12 + user, replace=False)
        scores = np.clip(np.round(3 + items[rated] @ tastes[user]), 1, 5)
        rows = np.stack([np.full(len(rated), user), rated, scores], axis=1)

        def to_examples(batch):
            return collections.OrderedDict(
                x=tf.cast(batch[:, 1:2], tf.int64), y=tf.cast(batch[:, 2:3], tf.float32)
            )

        dataset = tf.data.Dataset.from_tensor_slices(rows).take(max_examples_per_user)
        dataset = dataset.shuffle(buffer_size=max_examples_per_user, seed=42).batch(batch_size)
        datasets.append(dataset.map(to_examples, num_parallel_calls=tf.data.AUTOTUNE))
    return datasets


def model_fn():
    item_input = tf.keras.layers.Input(shape=[1], name="Item")
    item_embedding = tf.keras.layers.Embedding(
        NUM_ITEMS,
        NUM_FACTORS,
        embeddings_initializer=tf.keras.initializers.RandomUniform(seed=1),
        name="ItemEmbedding",
    )
    flat_items = tf.keras.layers.Flatten(name="FlattenItems")(item_embedding(item_input))
    user_embedding = TutorialUserEmbedding(
        NUM_FACTORS, tf.keras.initializers.Constant(0.1), name="UserEmbedding"
    )
    flat_user = user_embedding(item_input)
    prediction = tf.keras.layers.Dot(1, normalize=False, name="Dot")([flat_user, flat_items])
    return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
        keras_model=tf.keras.Model(inputs=item_input, outputs=prediction),
        global_layers=[item_embedding],
        local_layers=[user_embedding],
        input_spec=collections.OrderedDict(
            x=tf.TensorSpec(shape=[None, 1], dtype=tf.int64),
            y=tf.TensorSpec(shape=[None, 1], dtype=tf.float32),
        ),
    )


class RatingAccuracy(tf.keras.metrics.Mean):
    def __init__(self, name="rating_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        is_near = tf.cast(tf.abs(y_true - y_pred) <= 0.5, tf.float32)
        super().update_state(is_near, sample_weight=sample_weight)


def run_tutorial(datasets):
    def loss_fn():
        return tf.keras.losses.MeanSquaredError()

    def metrics_fn():
        return [RatingAccuracy()]

    optimizer = tff.learning.optimizers.build_sgdm
    training = tff.learning.algorithms.build_fed_recon(
        model_fn=model_fn,
        loss_fn=loss_fn,
        metrics_fn=metrics_fn,
        server_optimizer_fn=optimizer(1.0),
        client_optimizer_fn=optimizer(0.5),
        reconstruction_optimizer_fn=optimizer(0.1),
    )
    evaluation = tff.learning.algorithms.build_fed_recon_eval(
        model_fn,
        loss_fn=loss_fn,
        metrics_fn=metrics_fn,
        reconstruction_optimizer_fn=optimizer(0.1),
    )

    def evaluate(state):
        evaluation_state = evaluation.set_model_weights(
            evaluation.initialize(), training.get_model_weights(state)
        )
        metrics = evaluation.next(evaluation_state, datasets[6:]).metrics
        return metrics["client_work"]["eval"]["current_round_metrics"]

    state = training.initialize()
    figures = [evaluate(state)]
    generator = np.random.default_rng(1)
    for _ in range(6):
        clients = [datasets[index] for index in generator.choice(6, size=3, replace=False)]
        state, metrics = training.next(state, clients)
        figures.append(metrics["client_work"]["train"])
    figures.append(evaluate(state))
    return figures, training.get_model_weights(state)


def test_the_tutorial_ends_at_the_same_figures(in_both, assert_same):
    datasets = create_datasets()
    (expected, expected_weights), (found, weights) = in_both(lambda: run_tutorial(datasets))
    assert_same(expected, found, rtol=1e-5)
    assert_same(list(expected_weights.trainable), list(weights.trainable), rtol=1e-4, atol=1e-6)
    # It learns, so there is something to compare. How fast depends on items that are drawn anew.
    assert found[-1]["loss"] < 0.95 * found[0]["loss"]


def test_the_order_of_a_clients_examples_decides_the_figures(in_process_runtime):
    """Otherwise equal figures would say nothing about shuffled datasets."""
    shuffled, _ = run_tutorial(create_datasets())
    other, _ = run_tutorial([dataset.unbatch().batch(5).skip(1) for dataset in create_datasets()])
    assert other[-1]["loss"] != pytest.approx(shuffled[-1]["loss"], rel=1e-3)
