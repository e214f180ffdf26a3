"""The cohort engine gives stock TFF's numbers, however a cohort is packed."""

import collections
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_recon, stock_fed_recon
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.errors import InputError
from fedrecon.models.layers import UserEmbedding
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.metrics import rating_metrics
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import FedReconOptions, OptimizerOptions
from tests import tiny
from tests.models.small_models import TutorialUserEmbedding
from tests.tiny import BIASES, SAME_START, adam, assert_close, client_of, mf, sgd, small_neumf

pytestmark = pytest.mark.usefixtures("in_process_runtime")


def same(name, rate=0.01):
    """One optimizer for both client stages."""
    optimizer = OptimizerOptions(name, rate)
    return {"reconstruction_optimizer": optimizer, "client_optimizer": optimizer}


# The paper's configuration (experiments/presets/fedrecon_ml1m_paper.flags).
PAPER = FedReconOptions(
    reconstruction_epochs=5, reconstruction_steps_max=50, client_epochs=1, client_steps_max=50
)


def same_start_mf(num_items, dim=8, **kwargs):
    return mf(num_items, dim, user_initializer=SAME_START, **kwargs)


def biased_mf(num_items, **kwargs):
    return same_start_mf(num_items, biases=BIASES, **kwargs)


def examples_of(ratings, *, max_ratings, threshold=None):
    options = ExampleOptions(
        max_ratings_per_user=max_ratings, label_threshold=threshold, order="shuffle_each_round"
    )
    return ClientExamples(ratings, options)


def stock_data(examples, users, round_num, options):
    return [
        stock_fed_recon.client_dataset(
            *examples.examples(user, round_num), batch_size=options.batch_size
        )
        for user in users
    ]


@pytest.fixture
def assert_same_rounds(in_tffs_runtime):
    """A function that trains with both engines and compares weights and metrics."""
    return functools.partial(_assert_same_rounds, in_tffs_runtime)


def _assert_same_rounds(
    in_tffs_runtime, model_fn, options, examples, *, num_clients, num_rounds=3, ours_there=False
):
    packer = CohortPacker(
        examples, fed_recon.packing_options(options, seed=0), clients_per_shard=-(-num_clients // 2)
    )
    ours = fed_recon.build_fed_recon(model_fn, options, clients_per_shard=packer.clients_per_shard)
    if ours_there:
        ours = in_tffs_runtime(ours)
    stock = in_tffs_runtime(stock_fed_recon.build_fed_recon(model_fn, options))
    state, stock_state = ours.initialize(), stock.initialize()
    start = state.global_model_weights
    assert_close(start, stock_state.global_model_weights, 0)
    for round_num in range(num_rounds):
        users = examples.users[round_num * num_clients : (round_num + 1) * num_clients]
        output = ours.next(state, packer.pack(users, round_num))
        stock_output = stock.next(stock_state, stock_data(examples, users, round_num, options))
        state, stock_state = output.state, stock_output.state
        assert_close(state.global_model_weights, stock_state.global_model_weights)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics.pop("num_clients_rejected") == 0
        stock_metrics = stock_output.metrics["client_work"]["train"]
        assert metrics.pop("num_examples") == stock_metrics.pop("num_examples") > 0
        assert list(metrics) == list(stock_metrics)
        for name, value in stock_metrics.items():
            # A prediction may lie within rounding of the edge of being right.
            tolerance = 0.01 if name == "accuracy" else 1e-5 * max(1.0, abs(value))
            assert metrics[name] == pytest.approx(value, abs=tolerance), name
    moved = [np.abs(a - b).max() for a, b in zip(start.trainable, state.global_model_weights[0])]
    assert min(moved) > 1e-4  # Else equality would say little.


@pytest.fixture(scope="module")
def movielens(real_data_dir):
    return load_dataset("movielens-100k", data_dir=real_data_dir)


@pytest.fixture(scope="module")
def synthetic():
    return load_dataset("synthetic", num_users=60, num_items=80, mean_ratings_per_user=25, seed=0)


def test_the_papers_configuration_on_movielens(assert_same_rounds, movielens):
    examples = examples_of(movielens, max_ratings=300)
    assert_same_rounds(same_start_mf(movielens.num_items, dim=50), PAPER, examples, num_clients=20)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (same_start_mf, same("momentum", 0.02)),
        (same_start_mf, same("adam")),
        (biased_mf, {}),
        (biased_mf, same("momentum", 0.02)),
        (biased_mf, same("adam")),
        (small_neumf, {}),
        (small_neumf, same("momentum", 0.1)),
        (small_neumf, same("adam")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_models_and_optimizers_on_movielens(assert_same_rounds, movielens, model, changes):
    threshold = 4.0 if model is small_neumf else None
    examples = examples_of(movielens, max_ratings=60, threshold=threshold)
    options = dataclasses.replace(PAPER, **changes)
    assert_same_rounds(model(movielens.num_items), options, examples, num_clients=10)


@pytest.mark.parametrize(
    "changes",
    [
        {"support_query_split": "none", "client_epochs": 2},
        {"support_query_split": "query_of_all", "client_steps_max": None},
        {"batch_size": 7, "client_epochs": 3, "client_steps_max": 4},
        {"reconstruction_epochs": 3, "reconstruction_steps_max": None},
        {"reconstruction_steps_max": 1, "client_steps_max": 1},
        {"client_weighting": "uniform", "server_optimizer": adam()},
        # Larger than what most clients have: a support of one batch and no query.
        {"batch_size": 24},
        {"client_optimizer": OptimizerOptions("adagrad", 0.1)},
        {"client_optimizer": OptimizerOptions("yogi", 0.01)},
        {"client_optimizer": OptimizerOptions("rmsprop", 0.01)},
        {"client_optimizer": OptimizerOptions("adamw", 0.01)},
    ],
    ids=str,
)
def test_every_knob(assert_same_rounds, synthetic, changes):
    examples = examples_of(synthetic, max_ratings=None)
    options = dataclasses.replace(PAPER, **changes)
    assert_same_rounds(biased_mf(synthetic.num_items), options, examples, num_clients=12)


def tutorial_model(num_items):
    """The model of TFF's FedRecon tutorial, with initial values that are the same each time."""
    item_input = tf.keras.layers.Input(shape=[1], name="Item")
    items = tf.keras.layers.Embedding(
        num_items, 6, embeddings_initializer=tf.keras.initializers.RandomUniform(seed=1)
    )
    flat_items = tf.keras.layers.Flatten(name="FlattenItems")(items(item_input))
    user = TutorialUserEmbedding(6, SAME_START, name="UserEmbedding")
    prediction = tf.keras.layers.Dot(1, normalize=False, name="Dot")([user(item_input), flat_items])
    return SplitModel(
        keras_model=tf.keras.Model(inputs=item_input, outputs=prediction),
        global_layers=(items,),
        local_layers=(user,),
        input_spec=rating_input_spec(),
        loss_fn=tf.keras.losses.MeanSquaredError,
        metrics_fn=functools.partial(rating_metrics, tf.keras.losses.MeanSquaredError),
    )


def test_the_model_of_tffs_tutorial(assert_same_rounds, synthetic):
    examples = examples_of(synthetic, max_ratings=None)
    model_fn = functools.partial(tutorial_model, synthetic.num_items)
    assert_same_rounds(model_fn, PAPER, examples, num_clients=12)


@pytest.mark.parametrize(
    ("regularization", "optimizer"),
    [
        ({"l2": 0.01}, sgd(0.1)),
        ({"l2": 0.01}, adam()),
        ({"l2": 0.01}, OptimizerOptions("adamw", 0.01)),
        ({"spread_out": 0.01, "l2": 0.01}, sgd(0.1)),
    ],
    ids=str,
)
def test_regularization_moves_rows_that_nobody_touches(
    assert_same_rounds, synthetic, regularization, optimizer
):
    examples = examples_of(synthetic, max_ratings=20)
    model = biased_mf(synthetic.num_items, **regularization)
    options = dataclasses.replace(PAPER, client_optimizer=optimizer)
    assert_same_rounds(model, options, examples, num_clients=6)


def test_our_rounds_are_the_same_in_tffs_runtime(assert_same_rounds, synthetic):
    examples = examples_of(synthetic, max_ratings=None)
    model = biased_mf(synthetic.num_items)
    assert_same_rounds(model, PAPER, examples, num_clients=12, ours_there=True)


def test_item_features_are_as_in_stock_tff(assert_same_rounds, synthetic):
    features = np.random.default_rng(0).normal(size=[synthetic.num_items, 4]) / 4.0
    model = biased_mf(synthetic.num_items, item_features=features.astype(np.float32), l2=0.01)
    examples = examples_of(synthetic, max_ratings=30)
    assert_same_rounds(model, PAPER, examples, num_clients=12, num_rounds=2)


# Sizes that reach the corners: a partial last batch, an item rated twice, a query of one rating, a
# support without a query, one rating, none.
CORNERS = [
    client_of(*of_client)
    for of_client in [
        ([0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 1, 2]),
        ([5, 3, 1], [4, 2, 5]),
        ([2, 4], [3, 3]),
        ([6], [5]),
        ([], []),
        ([1, 6, 2, 5, 3, 0, 4, 7], [1, 5, 2, 4, 3, 3, 2, 1]),
    ]
]
CORNER_OPTIONS = dataclasses.replace(PAPER, batch_size=2, client_optimizer=adam(0.05))
NUM_ITEMS = 8

BROKEN = client_of([0, 1, 2, 3], [3, 3, np.inf, 3])
STEEP_OPTIONS = dataclasses.replace(PAPER, batch_size=2)


def pack(clients, options, *, num_clients, order=None):
    order = range(len(clients)) if order is None else order
    packing = fed_recon.packing_options(options, seed=0)
    return tiny.pack({place: clients[place] for place in order}, packing, num_clients=num_clients)


def corner_model(**kwargs):
    # Local initial values differ from client to client here.
    return mf(NUM_ITEMS, 3, biases=["item_bias"], **kwargs)


@functools.cache
def corner_process(num_clients, options=CORNER_OPTIONS):
    return fed_recon.build_fed_recon(corner_model(), options, clients_per_shard=num_clients)


def run_corners(num_clients, clients=CORNERS, options=CORNER_OPTIONS, order=None):
    process = corner_process(num_clients, options)
    shards = pack(clients, options, num_clients=num_clients, order=order)
    return process.next(process.initialize(), shards)


@pytest.mark.slow
@pytest.mark.parametrize(("num_clients", "order"), [(3, None), (2, [5, 3, 0, 4, 1, 2]), (1, None)])
def test_a_round_does_not_depend_on_how_it_is_packed(num_clients, order):
    whole, cut = run_corners(8), run_corners(num_clients, order=order)
    assert_close(cut.state.global_model_weights, whole.state.global_model_weights, 1e-6)
    cut_metrics, metrics = (o.metrics["client_work"]["train"] for o in (cut, whole))
    assert metrics["num_examples"] == 3 + 1 + 4  # Odd batches of two: 2 + 1, 1, 2 + 2.
    for name, value in metrics.items():
        assert cut_metrics[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.slow
def test_clients_without_a_query_change_nothing():
    idle = [CORNERS[2], CORNERS[3], CORNERS[4]]
    for weighting in ("num_examples", "uniform"):
        options = dataclasses.replace(CORNER_OPTIONS, client_weighting=weighting)
        process = corner_process(8, options)
        output = run_corners(8, idle, options)
        assert_close(
            output.state.global_model_weights, process.initialize().global_model_weights, 0
        )
        metrics = output.metrics["client_work"]["train"]
        assert (metrics["num_examples"], metrics["num_clients_rejected"]) == (0, 0)
        # Beside others they weigh nothing, with uniform weights too.
        busy = [CORNERS[0], CORNERS[1]]
        assert_close(
            run_corners(8, busy + idle, options).state.global_model_weights,
            run_corners(8, busy, options).state.global_model_weights,
            1e-6,
        )
        # Nor does the room for clients that a shard has left, of which this one has none.
        assert_close(
            run_corners(8, busy, options).state.global_model_weights,
            run_corners(2, busy, options).state.global_model_weights,
            1e-6,
        )


@pytest.mark.slow
def test_a_client_whose_update_is_not_finite_is_left_out_and_counted():
    for num_clients in (8, 1):
        output = run_corners(num_clients, [*CORNERS[:2], BROKEN], STEEP_OPTIONS)
        alone = run_corners(num_clients, CORNERS[:2], STEEP_OPTIONS)
        assert output.metrics["client_work"]["train"]["num_clients_rejected"] == 1
        assert alone.metrics["client_work"]["train"]["num_clients_rejected"] == 0
        assert_close(output.state.global_model_weights, alone.state.global_model_weights, 1e-6)


def test_stock_leaves_the_same_client_out(in_tffs_runtime):
    options = STEEP_OPTIONS
    clients = [*CORNERS[:2], BROKEN]
    model = corner_model(user_initializer=SAME_START)
    ours = fed_recon.build_fed_recon(model, options, clients_per_shard=4)
    stock = in_tffs_runtime(stock_fed_recon.build_fed_recon(model, options))
    datasets = [stock_fed_recon.client_dataset(*c, batch_size=2) for c in clients]
    assert_close(
        ours.next(ours.initialize(), pack(clients, options, num_clients=4))[0].global_model_weights,
        stock.next(stock.initialize(), datasets).state.global_model_weights,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"support_query_split": "none"},
        {"support_query_split": "query_of_all"},
        {"reconstruction_optimizer": adam()},
    ],
    ids=str,
)
def test_evaluation_equals_stock(in_tffs_runtime, synthetic, changes):
    options = dataclasses.replace(PAPER, client_steps_max=1, **changes)
    examples = examples_of(synthetic, max_ratings=None)
    users = examples.users[:14]
    model = biased_mf(synthetic.num_items)
    packer = CohortPacker(
        examples, fed_recon.evaluation_packing_options(options, seed=0), clients_per_shard=5
    )
    ours = fed_recon.build_fed_recon_evaluation(model, options, clients_per_shard=5)
    stock = in_tffs_runtime(stock_fed_recon.build_fed_recon_evaluation(model, options))
    rows = [tf.random.stateless_uniform(w.shape, [1, 2]) for w in model().global_weights]
    weights = tff.learning.models.ModelWeights([row.numpy() for row in rows], [])
    results = []
    for process, data in (
        (ours, packer.pack(users, 0)),
        (stock, stock_data(examples, users, 0, options)),
    ):
        state = process.set_model_weights(process.initialize(), weights)
        metrics = process.next(state, data).metrics["client_work"]["eval"]["current_round_metrics"]
        results.append(metrics)
    ours, stock = results
    assert ours["num_examples"] == stock["num_examples"] > 100  # All of it, whatever steps_max.
    for name in ("mean_loss", "rmse", "loss"):
        assert ours[name] == pytest.approx(stock[name], rel=1e-5), name
    assert ours["accuracy"] == pytest.approx(stock["accuracy"], abs=0.01)


def test_local_initial_values_follow_seed_round_and_client(synthetic):
    """Seen from outside: evaluation of an untouched local part (nothing to reconstruct with)."""
    options = dataclasses.replace(
        PAPER, support_query_split="none", reconstruction_optimizer=sgd(1e-12)
    )
    initializer = tf.keras.initializers.RandomNormal(1.0, seed=0)
    model = functools.partial(
        matrix_factorization,
        synthetic.num_items,
        2,
        item_initializer=tf.keras.initializers.Ones(),
        user_initializer=initializer,
    )
    examples = examples_of(synthetic, max_ratings=10)
    process = fed_recon.build_fed_recon_evaluation(model, options, clients_per_shard=1)

    def loss(user, round_num, seed):
        packing = fed_recon.evaluation_packing_options(options, seed=seed)
        packer = CohortPacker(examples, packing, clients_per_shard=1)
        shards = packer.pack(np.array([user]), round_num)
        labels = shards[0].labels[shards[0].mask]
        result = process.next(process.initialize(), shards).metrics["client_work"]["eval"]
        # The prediction for every item is the sum of the user's row.
        mean_loss = result["current_round_metrics"]["mean_loss"]
        return mean_loss - labels.var(), labels.mean()

    first = loss(3, 1, 0)
    assert loss(3, 1, 0) == first
    others = [loss(3, 2, 0), loss(4, 1, 0), loss(3, 1, 1)]
    assert len({round(float(bias), 6) for bias, _ in [first, *others]}) == 4


@pytest.mark.slow
def test_an_aggregator_that_needs_each_client_gets_each(synthetic):
    options = PAPER
    model = same_start_mf(synthetic.num_items)
    clipped = tff.aggregators.clipping_factory(
        0.05, tff.aggregators.MeanFactory(no_nan_division=True)
    )
    with pytest.raises(InputError, match="clients_per_shard=1"):
        fed_recon.build_fed_recon(model, options, clients_per_shard=2, aggregator_factory=clipped)
    examples = examples_of(synthetic, max_ratings=20)
    users = examples.users[:4]
    ours = fed_recon.build_fed_recon(
        model, options, clients_per_shard=1, aggregator_factory=clipped
    )
    packer = CohortPacker(examples, fed_recon.packing_options(options, seed=0), clients_per_shard=1)
    start = ours.initialize()
    output = ours.next(start, packer.pack(users, 1))
    changes = []
    for user in users:  # By hand: each client alone, without clipping, then clipped.
        plain = one_client_process(model, options)
        change = plain.next(plain.initialize(), packer.pack(np.array([user]), 1))
        before, after = (w.global_model_weights.trainable[0] for w in (start, change.state))
        delta, count = after - before, change.metrics["client_work"]["train"]["num_examples"]
        assert np.linalg.norm(delta) > 0.05
        changes.append((delta * 0.05 / np.linalg.norm(delta), count))
    mean = sum(d * n for d, n in changes) / sum(n for _, n in changes)
    moved = output.state.global_model_weights.trainable[0] - start.global_model_weights.trainable[0]
    np.testing.assert_allclose(moved, mean, atol=1e-5)


@functools.cache
def one_client_process(model, options):
    return fed_recon.build_fed_recon(model, options, clients_per_shard=1)


@pytest.mark.slow
def test_an_aggregator_that_is_said_to_be_linear_works_across_shards():
    factory = tff.aggregators.MeanFactory()
    process = fed_recon.build_fed_recon(
        corner_model(),
        CORNER_OPTIONS,
        clients_per_shard=3,
        aggregator_factory=factory,
        is_aggregator_linear=True,
    )
    shards = pack(CORNERS, CORNER_OPTIONS, num_clients=3)
    output = process.next(process.initialize(), shards)
    assert_close(output.state.global_model_weights, run_corners(8).state.global_model_weights, 1e-6)


def test_no_local_weight_is_in_any_type():
    """Types as a privacy proof: 7 and 11 are the widths of local weights alone."""

    def model():
        item_id = tf.keras.Input([1], dtype=tf.int64)
        items = tf.keras.layers.Embedding(5, 3, embeddings_initializer="uniform", name="items")
        user = UserEmbedding(7, "zeros", name="user")
        head = tf.keras.layers.Dense(11, name="head", kernel_initializer="zeros")
        out = tf.keras.layers.Dense(1, name="out")
        rows = tf.keras.layers.Flatten()(items(item_id))
        hidden = head(tf.keras.layers.Concatenate()([rows, user(item_id)]))
        return SplitModel(
            tf.keras.Model(item_id, out(hidden)),
            [items],
            [user, head, out],
            rating_input_spec(),
            tf.keras.losses.MeanSquaredError,
            lambda: [],
        )

    training = fed_recon.build_fed_recon(model, PAPER, clients_per_shard=2)
    evaluation = fed_recon.build_fed_recon_evaluation(model, PAPER, clients_per_shard=2)
    for process in (training, evaluation):
        for computation in (process.initialize, process.next):
            signature = computation.type_signature.compact_representation()
            assert "float32[5,3]" in signature
            assert "7" not in signature, signature
            assert "11" not in signature, signature


def test_state_and_metrics_have_the_structure_of_stock(in_tffs_runtime, synthetic):
    model = same_start_mf(synthetic.num_items)
    ours = fed_recon.build_fed_recon(model, PAPER, clients_per_shard=2)
    stock = in_tffs_runtime(stock_fed_recon.build_fed_recon(model, PAPER))
    state, stock_state = ours.initialize(), stock.initialize()
    assert type(state) is type(stock_state)
    weights = ours.get_model_weights(state)
    assert_close(weights, stock.get_model_weights(stock_state), 0)
    doubled = tf.nest.map_structure(lambda w: 2 * w, weights)
    assert_close(ours.get_model_weights(ours.set_model_weights(state, doubled)), doubled, 0)
    examples = examples_of(synthetic, max_ratings=10)
    packing = fed_recon.packing_options(PAPER, seed=0)
    shards = CohortPacker(examples, packing, clients_per_shard=2).pack(examples.users[:2], 1)
    metrics = ours.next(state, shards).metrics
    stock_metrics = stock.next(
        stock_state, stock_data(examples, examples.users[:2], 1, PAPER)
    ).metrics
    assert list(metrics) == list(stock_metrics)
    assert isinstance(metrics["client_work"]["train"], collections.OrderedDict)
    assert metrics["finalizer"] == stock_metrics["finalizer"]
