"""FedNCF is federated averaging of an ordinary model that has a table of users."""

import collections
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_ncf
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.models.functional import FunctionalModel
from fedrecon.options import FedAvgOptions, OptimizerOptions
from tests import tiny
from tests.algorithms import fed_avg_case, numpy_fed_avg
from tests.algorithms.fed_avg_case import BROKEN, MODEL
from tests.tiny import assert_close, small_neumf, trainable

pytestmark = pytest.mark.usefixtures("in_process_runtime")

NUM_USERS = 36


# --- Stock TFF ---

GMF_DIM, HIDDEN_UNITS = 4, (8, 4)
# AdamW of the stock model shrinks the rows of all users on each client, also of those who are not
# there. Ours leaves these alone. Three rounds of two steps make of it 6 * rate * decay * row, and
# rows of at most 0.02 keep that to 2.4e-6 at the rate and TFF's decay below.
RATE, USER_ROWS = 0.005, 0.02


def split_neumf(num_items):
    user_initializer = tf.keras.initializers.RandomUniform(-USER_ROWS, USER_ROWS, seed=3)
    return small_neumf(num_items, user_initializer=user_initializer)()


def whole_neumf(num_items):
    """The same with a table of users in place of the user's row; layers have the same names."""
    ids = {name: tf.keras.Input([1], dtype=tf.int64, name=name) for name in ("user_id", "item_id")}

    def row(tower, kind, num_rows, dim):
        table = tf.keras.layers.Embedding(num_rows, dim, name=f"{tower}_{kind}_embedding")
        return tf.keras.layers.Flatten()(table(ids[f"{kind}_id"]))

    def rows(tower, dim):
        return [row(tower, "user", NUM_USERS, dim), row(tower, "item", num_items, dim)]

    product = tf.keras.layers.Multiply()(rows("gmf", GMF_DIM))
    hidden = tf.keras.layers.Concatenate()(rows("mlp", HIDDEN_UNITS[0] // 2))
    hidden = tf.keras.layers.Dense(HIDDEN_UNITS[1], "relu", name="mlp_dense_1")(hidden)
    both = tf.keras.layers.Concatenate()([product, hidden])
    logits = tf.keras.layers.Dense(1, name="prediction")(both)
    # Behind an identity, where Keras's cross-entropy does not take the logits instead.
    probability = tf.keras.layers.Lambda(lambda x: tf.identity(tf.sigmoid(x)))(logits)
    return tf.keras.Model(ids, probability)


class StockFedNcf:
    """Stock federated averaging of the whole model; weights are in the order of ours."""

    def __init__(self, num_items, options, in_tffs_runtime):
        ours = FunctionalModel(split_neumf(num_items))
        names = [variable.name for variable in whole_neumf(num_items).trainable_variables]
        self._places = [names.index(f"{weight.name}:0") for weight in ours.weights]
        assert sorted(self._places) == list(range(len(names)))
        of_id = tf.TensorSpec([None, 1], tf.int64)
        spec = collections.OrderedDict(
            x=collections.OrderedDict(user_id=of_id, item_id=of_id),
            y=tf.TensorSpec([None, 1], tf.float32),
        )
        self._process = in_tffs_runtime(
            tff.learning.algorithms.build_weighted_fed_avg(
                lambda: tff.learning.models.from_keras_model(
                    whole_neumf(num_items),
                    loss=tf.keras.losses.BinaryCrossentropy(),
                    input_spec=spec,
                    metrics=[tf.keras.metrics.RootMeanSquaredError(name="rmse")],
                ),
                client_optimizer_fn=options.client_optimizer.build(),
                server_optimizer_fn=options.server_optimizer.build(),
            )
        )
        self._options = options

    def initialize(self, values):
        """Returns the state with these values; tables of users have an axis too many."""
        state = self._process.initialize()
        given = [None] * len(values)
        for place, value in zip(self._places, values):
            given[place] = np.squeeze(value, 1) if value.ndim == 3 else value
        weights = tff.learning.models.ModelWeights(given, [])
        return self._process.set_model_weights(state, weights)

    def values(self, state):
        values = self._process.get_model_weights(state).trainable
        return [values[place] for place in self._places]

    def next(self, state, clients):
        """Trains on the item ids and labels of clients, by user id."""
        datasets = []
        for user, (item_ids, labels) in clients.items():
            ids = collections.OrderedDict(
                user_id=np.full([len(item_ids), 1], user, np.int64), item_id=item_ids[:, np.newaxis]
            )
            examples = collections.OrderedDict(x=ids, y=labels[:, np.newaxis])
            batches = tf.data.Dataset.from_tensor_slices(examples).batch(self._options.batch_size)
            datasets.append(batches.repeat(self._options.client_epochs))
        return self._process.next(state, datasets)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (OptimizerOptions("adamw", RATE), OptimizerOptions("sgd", 1.0)),
        (OptimizerOptions("sgd", 0.5), OptimizerOptions("adam", 0.01)),
    ],
    ids=["adamw", "sgd, adam on the server"],
)
def test_plain_averaging_equals_stock(in_tffs_runtime, client, server):
    ratings = load_dataset(
        "synthetic", num_users=NUM_USERS, num_items=60, mean_ratings_per_user=24, seed=0
    )
    example_options = ExampleOptions(10, label_threshold=4.0, order="shuffle_each_round")
    examples = ClientExamples(ratings, example_options)
    options = FedAvgOptions(client_optimizer=client, server_optimizer=server, batch_size=5)
    packer = CohortPacker(examples, fed_ncf.packing_options(options, seed=0), clients_per_shard=5)
    ours = fed_ncf.build_fed_ncf(
        functools.partial(split_neumf, ratings.num_items),
        options,
        num_users=NUM_USERS,
        clients_per_shard=5,
        seed=0,
    )
    stock = StockFedNcf(ratings.num_items, options, in_tffs_runtime)
    state = ours.initialize()
    start = trainable(state)
    stock_state = stock.initialize(start)
    for round_num in range(3):
        # Cohorts overlap: half of the users come back in the next.
        users = examples.users[round_num * 6 :][:12]
        output = ours.next(state, packer.pack(users, round_num))
        clients = {int(user): examples.examples(user, round_num) for user in users}
        stock_output = stock.next(stock_state, clients)
        state, stock_state = output.state, stock_output.state
        values = [np.squeeze(v, 1) if v.ndim == 3 else v for v in trainable(state)]
        assert_close(values, stock.values(stock_state))
        metrics = dict(output.metrics["client_work"]["train"])
        expected = stock_output.metrics["client_work"]["train"]
        assert metrics["num_examples"] == expected["num_examples"] > 100
        # Stock's `loss` is a mean over examples for this class of models.
        assert metrics["mean_loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert metrics["rmse"] == pytest.approx(expected["rmse"], rel=1e-5)
    for before, after in zip(start, trainable(state)):
        assert np.abs(before - after).max() > 1e-3
        if before.ndim == 3:  # Tables of users: 24 of them have taken part.
            is_moved = np.any(before != after, axis=(1, 2))
            np.testing.assert_array_equal(np.flatnonzero(is_moved), examples.users[:24])


# --- Plain loops in NumPy ---

SEED = 5
# User 7 is the broken one.
CLIENTS = {user: of_user for user, of_user in fed_avg_case.CLIENTS.items() if user != 7}


def pack(clients, options, *, num_clients=3):
    packing = fed_ncf.packing_options(options, seed=0)
    return tiny.pack(clients, packing, num_clients=num_clients)


PLAIN = FedAvgOptions(
    client_optimizer=OptimizerOptions("sgd", 0.1),
    server_optimizer=OptimizerOptions("sgd", 0.7),
    batch_size=3,
    client_epochs=2,
)
BY_ROW = dataclasses.replace(PLAIN, averaging="by_row")


@functools.cache
def process_of(options, *, num_users=12, num_clients=3):
    return fed_ncf.build_fed_ncf(
        MODEL, options, num_users=num_users, clients_per_shard=num_clients, seed=SEED
    )


# The users of each round, in two shards but the second, which has padding clients.
ROUNDS = [(3, 9, 4, 0), (9, 4), (3, 0, 6, 4)]


@pytest.mark.parametrize("options", [PLAIN, BY_ROW], ids=["plain", "by row"])
def test_rounds_equal_plain_loops(options):
    process = process_of(options)
    state = process.initialize()
    values = trainable(state)
    assert [value.shape for value in values[numpy_fed_avg.NUM_GLOBAL :]] == [(12, 1, 3), (12, 1, 1)]
    for users in ROUNDS:
        cohort = {user: CLIENTS[user] for user in users}
        output = process.next(state, pack(cohort, options))
        global_values, tables = values[: numpy_fed_avg.NUM_GLOBAL], values[-2:]
        rows = [[table[user] for table in tables] for user in users]
        results = numpy_fed_avg.fit_all(global_values, rows, cohort.values(), options)
        global_values = numpy_fed_avg.average(global_values, results, cohort.values(), options)
        tables = [table.astype(np.float64) for table in tables]
        total = sum(weight for _, weight, _ in results)
        for user, (after, weight, _) in zip(users, results):
            # By row, all who have a user's row are this user.
            share = weight / total if options is PLAIN else 1.0
            for table, row in zip(tables, after[numpy_fed_avg.NUM_GLOBAL :]):
                table[user] += 0.7 * share * (row - table[user])
        state, values = output.state, [*global_values, *tables]
        assert_close(trainable(state), values)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics == pytest.approx(numpy_fed_avg.metrics(results), rel=1e-5)
    for before, after in zip(trainable(process.initialize())[-2:], trainable(state)[-2:]):
        is_moved = np.any(before != after, axis=(1, 2))
        assert np.flatnonzero(is_moved).tolist() == [0, 3, 4, 9]  # User 6 had nothing.


@pytest.mark.parametrize("options", [PLAIN, BY_ROW], ids=["plain", "by row"])
def test_a_client_whose_update_is_not_finite_is_left_out_with_its_row(options):
    process = process_of(options)
    start = process.initialize()
    alone = process.next(start, pack(CLIENTS, options))
    beside = process.next(start, pack(CLIENTS | {7: BROKEN}, options))
    assert_close(trainable(beside.state), trainable(alone.state), 1e-6)
    assert beside.metrics["client_work"]["train"]["num_clients_rejected"] == 1
    for before, after in zip(trainable(start)[-2:], trainable(beside.state)[-2:]):
        np.testing.assert_array_equal(before[7], after[7])


@pytest.mark.slow
def test_a_round_does_not_depend_on_how_it_is_packed():
    results = []
    for num_clients in (3, 8):
        process = process_of(BY_ROW, num_clients=num_clients)
        shards = pack(CLIENTS, BY_ROW, num_clients=num_clients)
        results.append(trainable(process.next(process.initialize(), shards).state))
    assert_close(*results, 1e-6)


def test_initial_user_rows_follow_seed_and_user():
    def rows(num_users, seed):
        process = fed_ncf.build_fed_ncf(
            MODEL, PLAIN, num_users=num_users, clients_per_shard=1, seed=seed
        )
        return trainable(process.initialize())[numpy_fed_avg.NUM_GLOBAL]

    few, many, other = rows(5, 0), rows(9, 0), rows(5, 1)
    np.testing.assert_array_equal(few, many[:5])
    distinct = {tuple(row) for row in np.concatenate([many, other]).reshape(-1, 3).tolist()}
    assert len(distinct) == 9 + 5
    assert many.min() > 0.2
    assert many.max() < 1.0
