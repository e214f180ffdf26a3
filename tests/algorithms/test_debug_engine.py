"""The debug engine: the numbers of the vectorized one, and concrete values in a client's step."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_avg, fed_ials, fed_ncf, fed_recon
from fedrecon.errors import InputError
from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import FedAvgOptions, FedIalsOptions, FedReconOptions, OptimizerOptions
from tests.tiny import adam, assert_close, client_of, drawn_mf, mf, pack, sgd

pytestmark = pytest.mark.usefixtures("in_process_runtime")

NUM_ITEMS = 8
# An item twice, a query of one rating, one rating, none.
CLIENTS = [
    client_of([0, 1, 2, 2, 4, 0, 5], [1, 2, 3, 4, 5, 1, 2]),
    client_of([5, 3, 1], [4, 2, 5]),
    client_of([6], [5]),
    client_of([], []),
]
MODEL = drawn_mf(NUM_ITEMS)
ADAMW = OptimizerOptions("adamw", 0.05)
ONE_STEP = {
    "reconstruction": "least_squares",
    "client_takes_one_step": True,
    "client_optimizer": sgd(1.0),
}


def recon(model_fn=MODEL, **changes):
    options = FedReconOptions(batch_size=2, server_optimizer=adam(0.1), **changes)
    build = functools.partial(fed_recon.build_fed_recon, model_fn, options)
    return build, fed_recon.packing_options(options, seed=0)


def averaging(model_fn=MODEL, **changes):
    options = FedAvgOptions(batch_size=2, **{"client_optimizer": sgd(0.1), **changes})
    build = functools.partial(fed_avg.build_fed_avg, model_fn, options)
    return build, fed_avg.packing_options(options, seed=0)


def ncf(**changes):
    build, packing = averaging(**changes)
    more = {"num_users": 5, "seed": 0}
    return functools.partial(fed_ncf.build_fed_ncf, *build.args, **more), packing


def ials():
    options = dataclasses.replace(FedIalsOptions(), server_optimizer=sgd(0.5))
    more = {"num_users": 4}
    build = functools.partial(fed_ials.build_fed_ials, mf(NUM_ITEMS, 3), options, **more)
    return build, fed_ials.packing_options(seed=0)


def run_both(build, packing, *, num_rounds=2):
    """The last outputs of the debug engine and of the vectorized one."""
    outputs = []
    for size, how in ((1, {"debug": True}), (4, {})):
        process = build(clients_per_shard=size, **how)
        state = process.initialize()
        for round_num in range(num_rounds):
            shards = pack(CLIENTS, packing, num_clients=size, round_num=round_num)
            output = process.next(state, shards)
            state = output.state
        outputs.append(output)
    return outputs


def assert_same(ours, expected):
    tf.nest.assert_same_structure(ours, expected)
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(expected)):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        recon(),
        recon(drawn_mf(NUM_ITEMS, l2=0.05), client_optimizer=ADAMW, client_epochs=2),
        recon(**ONE_STEP),
        averaging(client_optimizer=ADAMW, client_weighting="uniform"),
        averaging(gradient_clip_norm=1.0, averaging="by_row"),
        ncf(averaging="by_row"),
        ials(),
    ],
    ids=["fed_recon", "drift", "least_squares", "fed_avg", "clipped", "fed_ncf", "fed_ials"],
)
def test_rounds_equal_those_of_the_vectorized_engine(case):
    ours, expected = run_both(*case)
    assert_same(ours.state, expected.state)
    assert_same(ours.metrics, expected.metrics)
    assert ours.metrics["client_work"]["train"]["num_examples"] > 0


@pytest.mark.slow
def test_stateful_rounds_equal_those_of_the_vectorized_engine():
    options = FedAvgOptions(batch_size=2, client_optimizer=sgd(0.1))
    packing = fed_avg.packing_options(options, seed=0)
    results = []
    for size, how in ((1, {"debug": True}), (4, {})):
        process = fed_avg.build_stateful_fed_avg(MODEL, options, clients_per_shard=size, **how)
        state, rows = process.initialize(), [np.zeros([4, 1, 3]), np.zeros([4, 1, 1])]
        is_known = np.zeros(4, bool)
        for round_num in range(2):
            shards = pack(CLIENTS, packing, num_clients=size, round_num=round_num)
            starts = range(0, 4, size)
            given = [
                fed_avg.ShardWithRows(
                    shard,
                    [np.float32(row[start : start + size]) for row in rows],
                    is_known[start : start + size],
                )
                for start, shard in zip(starts, shards)
            ]
            output = process.next(state, given)
            state = output.state
            rows = [np.concatenate(parts) for parts in zip(*output.local_values)]
            is_known = np.ones(4, bool)
        results.append((output.state, output.metrics, rows))
    ours, expected = results
    assert_same(ours, expected)
    assert np.abs(ours[2][0]).min() > 0.01


def test_weights_are_read_and_set_as_in_a_learning_process():
    build, _ = recon()
    process = build(clients_per_shard=1, debug=True)
    state = process.initialize()
    weights = process.get_model_weights(state)
    doubled = tf.nest.map_structure(lambda value: 2 * value, weights)
    assert_close(process.get_model_weights(process.set_model_weights(state, doubled)), doubled, 0)


class _Watched(tf.keras.layers.Layer):
    """Notes the values that it sees, where they are concrete."""

    def __init__(self, seen):
        super().__init__(name="watched")
        self._seen = seen

    def call(self, inputs):
        if tf.executing_eagerly():  # Models are traced when they are checked.
            self._seen.append(inputs.numpy())
        return inputs


def watched_model(seen, losses):
    def model_fn():
        item_id = tf.keras.Input([1], dtype=tf.int64)
        items = tf.keras.layers.Embedding(NUM_ITEMS, 2, embeddings_initializer="ones", name="items")
        user = UserEmbedding(2, tf.keras.initializers.Constant(0.5), name="user")
        rows = _Watched(seen)(tf.keras.layers.Flatten()(items(item_id)))
        rating = InnerProduct()([user(item_id), rows])
        return SplitModel(
            tf.keras.Model(item_id, rating),
            [items],
            [user],
            rating_input_spec(),
            functools.partial(_NotedLoss, losses),
            list,
        )

    return model_fn


class _NotedLoss(tf.keras.losses.MeanSquaredError):
    def __init__(self, noted, **kwargs):
        super().__init__(**kwargs)
        self._noted = noted

    def call(self, y_true, y_pred):
        self._noted.append((y_true, y_pred))
        return super().call(y_true, y_pred)


def test_values_are_concrete_inside_of_a_clients_step():
    seen, losses = [], []
    options = FedReconOptions(batch_size=2, client_optimizer=sgd(0.25))
    process = fed_recon.build_fed_recon(
        watched_model(seen, losses), options, clients_per_shard=1, debug=True
    )
    seen.clear()
    losses.clear()
    shards = pack(
        [client_of([0, 1, 2, 2], [1, 1, 3, 3])],
        fed_recon.packing_options(options, seed=0),
        num_clients=1,
        num_examples=4,
    )
    state = process.next(process.initialize(), shards).state
    # The first batch fits the user, the second the item rows; all rows are ones before.
    assert [rows.tolist() for rows in seen] == [[[1.0, 1.0], [1.0, 1.0]]] * 2
    labels, predictions = losses[0]
    np.testing.assert_array_equal(labels.numpy()[:, 0], [1.0, 1.0])
    np.testing.assert_array_equal(predictions.numpy()[:, 0], [1.0, 1.0])  # 2 * 0.5 * 1.
    # So the user stays; the error 1 - 3 moves row 2 by 0.25 * 2 * 2 * 0.5.
    labels, predictions = losses[1]
    np.testing.assert_array_equal(predictions.numpy()[:, 0], [1.0, 1.0])
    table = state.global_model_weights.trainable[0]
    np.testing.assert_allclose(table[:3], [[1.0, 1.0], [1.0, 1.0], [1.5, 1.5]], rtol=1e-6)


def test_an_aggregator_is_refused():
    build, _ = recon()
    with pytest.raises(InputError, match="the debug engine takes the plain weighted mean"):
        build(clients_per_shard=1, debug=True, aggregator_factory=tff.aggregators.MeanFactory())
