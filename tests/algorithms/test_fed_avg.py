"""Federated averaging gives stock TFF's numbers, and those of plain loops where stock has none."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_avg, fed_ncf, fed_recon, stock_fed_recon
from fedrecon.data.cohorts import CohortPacker, pack_shard
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.engine import client_work
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.layers import UserEmbedding
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.neural_cf import neumf
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import FedAvgOptions, FedReconOptions, OptimizerOptions
from tests.algorithms import numpy_fed_avg

pytestmark = pytest.mark.usefixtures("in_process_runtime")

# Stock TFF starts all clients from one local part, so the same is given to both.
SAME_START = tf.keras.initializers.Constant(0.05)
ALL_BIASES = {"user_bias": True, "item_bias": True, "global_bias": True}


def optimizers(client, client_rate, server="sgd", server_rate=1.0):
    return {
        "client_optimizer": OptimizerOptions(client, client_rate),
        "server_optimizer": OptimizerOptions(server, server_rate),
    }


def mf(num_items, **kwargs):
    return functools.partial(
        matrix_factorization, num_items, 8, user_initializer=SAME_START, **ALL_BIASES, **kwargs
    )


def small_neumf(num_items):
    # Larger initial values than the paper's, so that all layers matter from the first step on.
    return functools.partial(
        neumf,
        num_items,
        gmf_dim=4,
        hidden_units=(8, 4),
        user_initializer=SAME_START,
        item_initializer=tf.keras.initializers.RandomUniform(-0.5, 0.5, seed=1),
    )


def assert_close(ours, expected, tolerance=1e-5):
    ours, expected = tf.nest.flatten(ours), tf.nest.flatten(expected)
    assert len(ours) == len(expected) > 0
    for a, b in zip(ours, expected):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


# --- Stock TFF: the same Keras model, all of it on the server ---


class StockFedAvg:
    """Stock federated averaging whose local part starts from the same values in each round."""

    def __init__(self, model_fn, options, in_tffs_runtime):
        model = model_fn()
        places = {v.ref(): index for index, v in enumerate(model.keras_model.trainable_variables)}
        self._globals = [places[v.ref()] for v in model.global_trainable_weights]
        self._locals = [places[v.ref()] for v in model.local_trainable_weights]
        self._process = in_tffs_runtime(
            tff.learning.algorithms.build_weighted_fed_avg(
                lambda: _whole_model(model_fn()),
                client_optimizer_fn=options.client_optimizer.build(),
                server_optimizer_fn=options.server_optimizer.build(),
                client_weighting={
                    "num_examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
                    "uniform": tff.learning.ClientWeighting.UNIFORM,
                }[options.client_weighting],
            )
        )
        self._options = options
        self._state = self._process.initialize()
        self._local_values = [self._trainable[index] for index in self._locals]
        assert len(self._trainable) == len(self._globals) + len(self._locals)

    @property
    def _trainable(self):
        return list(self._process.get_model_weights(self._state).trainable)

    @property
    def global_values(self):
        return [self._trainable[index] for index in self._globals]

    def next(self, clients):
        """Trains on the item ids and labels of clients; returns metrics."""
        options = self._options
        datasets = []
        for client in clients:
            batches = stock_fed_recon.client_dataset(*client, batch_size=options.batch_size)
            batches = batches.repeat(options.client_epochs)
            datasets.append(batches.take(options.client_steps_max or -1))
        output = self._process.next(self._state, datasets)
        self._state = output.state
        trainable = self._trainable
        moved = [np.abs(trainable[i] - v).max() for i, v in zip(self._locals, self._local_values)]
        assert min(moved) > 1e-4  # It trained them.
        for index, value in zip(self._locals, self._local_values):
            trainable[index] = value
        weights = tff.learning.models.ModelWeights(trainable, [])
        self._state = self._process.set_model_weights(self._state, weights)
        return output.metrics["client_work"]["train"]


def _whole_model(model):
    return tff.learning.models.from_keras_model(
        model.keras_model,
        loss=model.loss_fn(),
        input_spec=model.input_spec,
        metrics=model.metrics_fn(),
    )


@pytest.fixture(scope="module")
def synthetic():
    return load_dataset("synthetic", num_users=36, num_items=60, mean_ratings_per_user=24, seed=0)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (mf, optimizers("sgd", 0.1, "adam", 0.05) | {"client_weighting": "uniform"}),
        (mf, optimizers("momentum", 0.05) | {"client_epochs": 2, "client_steps_max": 5}),
        (mf, optimizers("adamw", 0.02) | {"client_epochs": 2}),
        (functools.partial(mf, l2=0.02), optimizers("adam", 0.01) | {"client_epochs": 2}),
        (small_neumf, optimizers("adam", 0.01) | {"client_epochs": 2}),
    ],
    ids=["sgd, adam, uniform", "momentum, steps_max", "adamw", "l2, adam", "neumf, adam"],
)
def test_stateless_equals_stock(in_tffs_runtime, synthetic, model, changes):
    options = FedAvgOptions(batch_size=5, **changes)
    threshold = 4.0 if model is small_neumf else None
    # Shuffled each round, so that an epoch after the first has its own order only if ours has.
    example_options = ExampleOptions(20, label_threshold=threshold, order="shuffle_each_round")
    examples = ClientExamples(synthetic, example_options)
    model_fn = model(synthetic.num_items)
    packer = CohortPacker(examples, fed_avg.packing_options(options, seed=0), clients_per_shard=6)
    ours = fed_avg.build_fed_avg(model_fn, options, clients_per_shard=6)
    stock = StockFedAvg(model_fn, options, in_tffs_runtime)
    state = ours.initialize()
    start = state.global_model_weights.trainable
    assert_close(list(start), stock.global_values, 0)
    for round_num in range(3):
        users = examples.users[round_num * 12 :][:12]
        output = ours.next(state, packer.pack(users, round_num))
        expected = stock.next([examples.examples(user, round_num) for user in users])
        state = output.state
        assert_close(list(state.global_model_weights.trainable), stock.global_values)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics["num_clients_rejected"] == 0
        assert metrics["num_examples"] == expected["num_examples"] > 100
        for name in ("mean_loss", "rmse"):
            assert metrics[name] == pytest.approx(expected[name], rel=1e-5), name
        # A prediction may lie within rounding of the edge of being right.
        assert metrics["accuracy"] == pytest.approx(expected["accuracy"], abs=0.01)
    moved = [np.abs(a - b).max() for a, b in zip(start, state.global_model_weights.trainable)]
    assert min(moved) > 1e-3  # Else equality would say little.


# --- Plain loops in NumPy ---

NUM_ITEMS, DIM = 8, 3
# By user id. Items twice in a batch (of three), partial last batches, one example, none.
CLIENTS = {
    3: ([0, 1, 0, 2, 2, 2, 4, 0], [1, 2, 3, 4, 5, 1, 2, 5]),
    9: ([5, 3, 1], [4, 2, 5]),
    4: ([2, 2, 4, 2, 2], [3, 1, 3, 4, 4]),
    0: ([6], [5]),
    6: ([], []),
    7: ([1, 6, 2, 5, 3, 0, 4], [1, 5, 2, 4, 3, 3, 2]),  # All items but 7, which nobody has.
}
CLIENTS = {
    user: (np.array(ids, np.int64), np.array(labels, np.float32))
    for user, (ids, labels) in CLIENTS.items()
}
BROKEN = (np.array([0, 1, 2, 3]), np.array([3, 3, np.inf, 3], np.float32))
OPTIONS = FedAvgOptions(batch_size=3, client_epochs=2, **optimizers("sgd", 0.1, "sgd", 0.7))


def drawn_mf(**kwargs):
    """A model whose rows are large, and whose user row and bias differ between clients."""
    return functools.partial(
        matrix_factorization,
        NUM_ITEMS,
        DIM,
        item_initializer=tf.keras.initializers.RandomUniform(0.2, 1.0, seed=1),
        user_initializer=tf.keras.initializers.RandomUniform(0.2, 1.0, seed=2),
        **ALL_BIASES,
        **kwargs,
    )


def replaced(**changes):
    return dataclasses.replace(OPTIONS, **changes)


def pack(clients, options, *, num_clients, round_num=0):
    """Cuts clients into shards of `num_clients`, with seeds that stay with client and round."""
    users = list(clients)
    return [
        pack_shard(
            [clients[user] for user in chosen],
            np.array(chosen),
            np.array(chosen, np.uint32) * 7919 + round_num + 1,
            fed_avg.packing_options(options, seed=0),
            num_clients=num_clients,
            num_examples=8,
        )
        for chosen in (users[i : i + num_clients] for i in range(0, len(users), num_clients))
    ]


@pytest.fixture(scope="module")
def functional():
    return FunctionalModel(drawn_mf()())


def drawn_local_values(model, shards):
    """The fresh local values of each user of the shards."""
    drawn = {}
    for shard in shards:
        values = client_work.fresh_local_values(model, shard)
        for place, user in enumerate(shard.user_ids.tolist()):
            drawn[user] = [value[place].numpy() for value in values]
    return drawn


@functools.cache
def stateless(options, num_clients=8):
    return fed_avg.build_fed_avg(drawn_mf(), options, clients_per_shard=num_clients)


def trainable(state):
    return [np.asarray(value) for value in state.global_model_weights.trainable]


CLIPPED = replaced(gradient_clip_norm=5.0)
UNIFORM = {"client_weighting": "uniform", **optimizers("momentum", 0.05)}
CLIPPED_UNIFORM = replaced(gradient_clip_norm=5.0, **UNIFORM)
BY_ROW_UNIFORM = replaced(averaging="by_row", client_steps_max=3, **UNIFORM)


@pytest.mark.parametrize(
    "options",
    [CLIPPED, CLIPPED_UNIFORM, BY_ROW_UNIFORM],
    ids=["clipped", "clipped, uniform", "by row, uniform"],
)
def test_stateless_equals_plain_loops(functional, options):
    process = stateless(options)
    state = process.initialize()
    values = trainable(state)
    for round_num in range(3):
        shards = pack(CLIENTS, options, num_clients=8, round_num=round_num)
        drawn = drawn_local_values(functional, shards)
        output = process.next(state, shards)
        local_values = [drawn[user] for user in CLIENTS]
        results = numpy_fed_avg.fit_all(values, local_values, CLIENTS.values(), options)
        before, values = values, numpy_fed_avg.average(values, results, CLIENTS.values(), options)
        state = output.state
        assert_close(trainable(state), values)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics == pytest.approx(numpy_fed_avg.metrics(results), rel=1e-5)
        np.testing.assert_array_equal(trainable(state)[0][7], before[0][7])  # Nobody has item 7.
        assert all(np.abs(a - b).max() > 0.01 for a, b in zip(before, values))
    # Those of round 0 were other values, and each client has its own.
    again = drawn_local_values(functional, pack(CLIENTS, options, num_clients=8))
    rows = [tuple(row[0].ravel().tolist()) for row in [*drawn.values(), *again.values()]]
    assert len(set(rows)) == 2 * len(CLIENTS) + 1  # Padding has the same in all rounds.


def test_the_tested_gradients_are_clipped_and_some_are_not(functional):
    drawn = drawn_local_values(functional, pack(CLIENTS, OPTIONS, num_clients=8))
    values = trainable(stateless(CLIPPED).initialize())
    lengths = []
    for user, (ids, labels) in CLIENTS.items():
        for start in range(0, len(ids), 3):
            batch = slice(start, start + 3)
            _, gradients = numpy_fed_avg.errors_and_gradients(
                [*values, *drawn[user]], ids[batch], labels[batch]
            )
            lengths.append(np.sqrt(sum(np.sum(g**2) for g in gradients)))
    assert min(lengths) < CLIPPED.gradient_clip_norm < max(lengths)


def test_clipping_and_regularized_item_tables_do_not_go_together():
    with pytest.raises(InputError, match="item_embedding/embeddings is that of all its rows"):
        fed_avg.build_fed_avg(drawn_mf(l2=0.1), CLIPPED, clients_per_shard=2)


@pytest.mark.parametrize(
    "options",
    [replaced(**optimizers("adamw", 0.05)), BY_ROW_UNIFORM],
    ids=["adamw", "by row"],
)
def test_a_round_does_not_depend_on_how_it_is_packed(options):
    outputs = []
    for num_clients in (8, 3):
        process = stateless(options, num_clients)
        shards = pack(CLIENTS, options, num_clients=num_clients)
        outputs.append(process.next(process.initialize(), shards))
    whole, cut = outputs
    assert_close(trainable(cut.state), trainable(whole.state), 1e-6)
    metrics, cut_metrics = (dict(each.metrics["client_work"]["train"]) for each in outputs)
    assert cut_metrics == pytest.approx(metrics, rel=1e-6)


@pytest.mark.parametrize("options", [CLIPPED, BY_ROW_UNIFORM], ids=["plain", "by row"])
def test_a_client_whose_update_is_not_finite_is_left_out_and_counted(options):
    process = stateless(options)
    start = process.initialize()
    alone = process.next(start, pack(CLIENTS, options, num_clients=8))
    beside = process.next(start, pack(CLIENTS | {5: BROKEN}, options, num_clients=8))
    assert_close(trainable(beside.state), trainable(alone.state), 1e-6)
    assert alone.metrics["client_work"]["train"]["num_clients_rejected"] == 0
    assert beside.metrics["client_work"]["train"]["num_clients_rejected"] == 1


@pytest.mark.parametrize("options", [CLIPPED_UNIFORM, BY_ROW_UNIFORM], ids=["plain", "by row"])
def test_a_round_of_nobody_leaves_the_model_as_it_was(options):
    process = stateless(options)
    output = process.next(process.initialize(), pack({6: CLIENTS[6]}, options, num_clients=8))
    assert_close(trainable(output.state), trainable(process.initialize()), 0)


# --- Clients that keep their local part ---


@functools.cache
def stateful(options, num_clients):
    return fed_avg.build_stateful_fed_avg(drawn_mf(), options, clients_per_shard=num_clients)


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


# --- Types as a privacy proof ---

NUM_USERS = 13
LOCAL_SIZES = {7, 11, 17}  # Of local weights alone.


def model_of_telling_sizes():
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(5, 3, embeddings_initializer="uniform", name="items")
    user = UserEmbedding(7, "zeros", name="user")
    head = tf.keras.layers.Dense(11, name="head", kernel_initializer="zeros")
    out = tf.keras.layers.Dense(17, name="out", kernel_initializer="zeros")
    last = tf.keras.layers.Dense(1, use_bias=False, name="last", kernel_initializer="zeros")
    rows = tf.keras.layers.Flatten()(items(item_id))
    hidden = out(head(tf.keras.layers.Concatenate()([rows, user(item_id)])))
    return SplitModel(
        tf.keras.Model(item_id, last(hidden)),
        [items],
        [user, head, out, last],
        rating_input_spec(),
        tf.keras.losses.MeanSquaredError,
        lambda: [],
    )


def shapes(message, placement, *, is_inside=False):
    """Yields the shapes of all tensors placed somewhere, in any type of a serialized computation.

    So the types of what happens inside of the computation count too, not its signature alone.
    """
    kind = type(message).__name__
    if kind == "FederatedType":
        is_inside = message.placement.value.uri == placement
    if kind == "TensorType" and is_inside:
        yield tuple(message.dims)
    for field, value in message.ListFields():
        if field.message_type is not None:
            repeated = field.label == field.LABEL_REPEATED
            for part in value if repeated else [value]:
                yield from shapes(part, placement, is_inside=is_inside)


def local_sizes_at(placement, process):
    found = set()
    for computation in (process.initialize, process.next):
        serialized = tff.framework.serialize_computation(computation)
        of_computation = set(shapes(serialized, placement))
        found |= {size for shape in of_computation for size in shape} & LOCAL_SIZES
    assert placement == "clients" or (5, 3) in of_computation
    return found


def test_no_local_weight_is_at_the_server_in_any_type():
    model, options = model_of_telling_sizes, FedAvgOptions(batch_size=4)
    stateful_process = fed_avg.build_stateful_fed_avg(model, options, clients_per_shard=2)
    for process in (
        fed_recon.build_fed_recon(model, FedReconOptions(), clients_per_shard=2),
        fed_avg.build_fed_avg(model, options, clients_per_shard=2),
        stateful_process,
    ):
        assert local_sizes_at("server", process) == set()
    # They would be seen: where clients keep them, and where the server does.
    assert local_sizes_at("clients", stateful_process) == LOCAL_SIZES
    on_server = fed_ncf.build_fed_ncf(
        model, options, num_users=NUM_USERS, clients_per_shard=2, seed=0
    )
    assert local_sizes_at("server", on_server) == LOCAL_SIZES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"averaging": "median"}, "averaging is 'median'; it must be one of plain, by_row"),
        ({"client_weighting": "size"}, "client weighting is 'size'; it must be one of"),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm is 0.0; it must be positive"),
        ({"gradient_clip_norm": float("nan")}, "gradient_clip_norm is nan; it must be positive"),
        ({"client_epochs": 0}, "client_epochs is 0; it must be at least 1"),
        ({"client_steps_max": 0}, "client_steps_max is 0; it must be at least 1, or None"),
    ],
)
def test_options_refuse_what_cannot_work(changes, message):
    with pytest.raises(InputError, match=message):
        replaced(**changes)
