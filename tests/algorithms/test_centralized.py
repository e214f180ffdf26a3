"""Centralised training is ordinary minibatch training of an ordinary model with two tables."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import centralized
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.data.minibatches import Minibatches, MinibatchStream
from fedrecon.engine import client_metrics
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import CentralizedOptions, OptimizerOptions
from tests.tiny import drawn_mf, mf, trainable

pytestmark = pytest.mark.usefixtures("in_process_runtime")

NUM_USERS, NUM_ITEMS, BATCH_SIZE = 6, 7, 4


def process_of(model_fn, optimizer, *, num_steps, batch_size=BATCH_SIZE):
    return centralized.build_centralized(
        model_fn,
        CentralizedOptions(optimizer, batch_size),
        num_users=NUM_USERS,
        num_steps=num_steps,
        seed=0,
    )


def minibatches_of(*, num_steps, num_examples, seed):
    """Drawn examples: users and items come several times in a batch, and some not at all."""
    draw, shape = np.random.default_rng(seed), (num_steps, BATCH_SIZE)
    return Minibatches(
        user_ids=draw.integers(NUM_USERS - 1, size=shape).astype(np.int32),
        item_ids=draw.integers(NUM_ITEMS - 1, size=shape).astype(np.int32),
        labels=draw.integers(1, 6, size=shape).astype(np.float32),
        mask=(np.arange(num_steps * BATCH_SIZE) < num_examples).reshape(shape),
        seed=np.uint32(seed),
    )


class PlainTraining:
    """Trains `[v, b_item, mu, u, b_user]`, of which the first and the last two are tables."""

    def __init__(self, values, optimizer, *, l2):
        self.values = tuple(map(tf.constant, values))
        self._optimizer = optimizer.build()
        self._state = self._optimizer.initialize(
            tuple(tf.TensorSpec(value.shape, value.dtype) for value in self.values)
        )
        self._l2 = l2

    def step(self, users, items, labels):
        """Takes a step and returns the errors before it."""
        with tf.GradientTape() as tape:
            tape.watch(self.values)
            v, b_item, mu, u, b_user = self.values
            products = tf.gather(v, items) * tf.gather(u, users)[:, 0]
            biases = tf.gather(b_item, items)[:, 0] + tf.gather(b_user, users)[:, 0, 0] + mu
            errors = tf.reduce_sum(products, axis=1) + biases - labels
            loss = tf.reduce_mean(errors**2)
            loss += self._l2 * tf.add_n([tf.reduce_sum(value**2) for value in self.values])
        gradients = tuple(map(tf.convert_to_tensor, tape.gradient(loss, self.values)))
        self._state, self.values = self._optimizer.next(self._state, self.values, gradients)
        return errors.numpy()

    def round(self, minibatches):
        """Takes the steps of the real examples and returns what is to be reported."""
        batches = []
        for *arrays, mask in zip(*minibatches[:4]):
            batches.append(self.step(*(array[mask] for array in arrays)))
        errors = np.concatenate(batches)
        return {
            "loss": np.mean([np.mean(batch**2) for batch in batches]),
            "mean_loss": np.mean(errors**2),
            "rmse": np.sqrt(np.mean(errors**2)),
            "accuracy": np.mean(np.abs(errors) <= 0.5),
            "num_examples": len(errors),
            "num_clients_rejected": 0,
        }


@pytest.mark.parametrize(
    ("optimizer", "l2"),
    [
        (OptimizerOptions("sgd", 0.05), 0.0),
        (OptimizerOptions("adam", 0.05), 0.02),
        (OptimizerOptions("adamw", 0.05), 0.0),
    ],
    ids=["sgd", "adam, l2", "adamw"],
)
def test_rounds_equal_a_plain_loop(optimizer, l2):
    process = process_of(drawn_mf(NUM_ITEMS, l2=l2), optimizer, num_steps=3)
    state = process.initialize()
    start = trainable(state)
    assert [value.shape for value in start] == [(7, 3), (7, 1), (), (6, 1, 3), (6, 1, 1)]
    plain = PlainTraining(start, optimizer, l2=l2)
    for round_num in (1, 2, 3):  # The last batch has one real example.
        minibatches = minibatches_of(num_steps=3, num_examples=9, seed=round_num)
        output = process.next(state, minibatches)
        expected = plain.round(minibatches)
        state = output.state
        assert len(trainable(state)) == len(plain.values)
        for ours, value in zip(trainable(state), plain.values):
            np.testing.assert_allclose(ours, value, rtol=0, atol=1e-5)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics == pytest.approx(expected, rel=1e-5)
        reported = client_metrics.training_metrics(output.metrics)
        assert reported["loss"] == pytest.approx(expected["mean_loss"], rel=1e-5)
    # The last user and the last item have no examples: they are only decayed.
    is_decayed = l2 > 0 or optimizer.decays_weights
    for place in (0, 3):
        before, after = start[place][-1], trainable(state)[place][-1]
        assert np.any(before != after) == is_decayed
        assert np.abs(start[place][:-1] - trainable(state)[place][:-1]).min() > 1e-4


@pytest.mark.slow
def test_the_optimizer_goes_on_from_round_to_round():
    ratings = load_dataset(
        "synthetic", num_users=NUM_USERS, num_items=60, mean_ratings_per_user=24, seed=0
    )
    examples = ClientExamples(ratings, ExampleOptions())
    model_fn = mf(ratings.num_items, 3)
    results = []
    for num_rounds, num_steps in ((4, 5), (2, 10), (1, 20)):
        stream = MinibatchStream(
            examples, batch_size=BATCH_SIZE, examples_per_round=num_steps * BATCH_SIZE
        )
        process = process_of(model_fn, OptimizerOptions("adam", 0.05), num_steps=num_steps)
        state = process.initialize()
        for round_num in range(1, num_rounds + 1):
            state = process.next(state, stream.round(round_num)).state
        results.append(trainable(state))
    for result in results[:2]:
        assert len(result) == len(results[2])
        for ours, expected in zip(result, results[2]):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_each_example_and_each_round_has_its_own_dropout():
    def model():
        item_id = tf.keras.Input([1], dtype=tf.int64)
        items = tf.keras.layers.Embedding(NUM_ITEMS, 8, embeddings_initializer="ones")
        taste = tf.keras.layers.Dense(1, kernel_initializer="ones")
        rows = tf.keras.layers.Dropout(0.5)(tf.keras.layers.Flatten()(items(item_id)))
        return SplitModel(
            tf.keras.Model(item_id, taste(rows)),
            [items],
            [taste],
            rating_input_spec(),
            tf.keras.losses.MeanSquaredError,
            list,
        )

    process = process_of(model, OptimizerOptions("sgd", 1e-12), num_steps=1, batch_size=64)

    def loss(seed):
        ids = np.zeros([1, 64], np.int32)
        minibatches = Minibatches(
            ids, ids, np.zeros([1, 64], np.float32), np.ones([1, 64], bool), np.uint32(seed)
        )
        output = process.next(process.initialize(), minibatches)
        return float(output.metrics["client_work"]["train"]["loss"])

    # A prediction is twice the number of kept entries of eight: its square is 80 in the mean, with
    # a standard deviation of 52 for one example and of 6.5 for the mean of 64.
    losses = [loss(seed) for seed in range(4)]
    assert all(60 < value < 100 for value in losses)
    assert len(set(losses)) == 4
    assert loss(0) == losses[0]
