"""Matrix factorization with known features of items, in every algorithm that takes it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import fedrecon as fr
from fedrecon.algorithms import fed_recon
from fedrecon.models.functional import FunctionalModel
from fedrecon.options import FedReconOptions, LeastSquaresOptions
from tests.tiny import BIASES, assert_close, client_of, mf, pack, sgd

pytestmark = pytest.mark.usefixtures("in_process_runtime")
NUM_ITEMS, DIM = 6, 3
FEATURES = np.float32([[1, 0], [0.6, 0.8], [0, 1], [0, 0], [0.8, 0.6], [0, 1]])
CLIENTS = [
    client_of([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]),
    client_of([2, 0, 1, 3], [5, 3, 4, 1]),
    client_of([3, 2, 0], [2, 5, 2]),
]
# With both rates 1, what a round subtracts is the gradient.
ONE_STEP = FedReconOptions(
    reconstruction="least_squares",
    least_squares=LeastSquaresOptions(regularization=0.7),
    client_optimizer=sgd(1.0),
    server_optimizer=sgd(1.0),
    batch_size=2,
    client_takes_one_step=True,
)


def moved(model_fn, values, options):
    """By weight, what a round from some values subtracts."""
    model = FunctionalModel(model_fn())
    names = [w.name.split("/")[0] for w in model.global_weights]
    process = fed_recon.build_fed_recon(model_fn, options, clients_per_shard=4)
    state = process.initialize()
    num_trained = len(process.get_model_weights(state).trainable)
    start = [np.float32(values[name]) for name in names]
    weights = tff.learning.models.ModelWeights(start[:num_trained], start[num_trained:])
    state = process.set_model_weights(state, weights)
    shards = pack(CLIENTS, fed_recon.packing_options(options, seed=0), num_clients=4)
    after = process.get_model_weights(process.next(state, shards).state)
    after = [*after.trainable, *after.non_trainable]
    return {name: old - np.asarray(new) for name, old, new in zip(names, start, after)}


@pytest.mark.slow
@pytest.mark.parametrize("reconstruction", ["least_squares", "gradient_steps"])
def test_the_gradient_of_features_is_the_gradient_of_rows_summed_over_items(reconstruction):
    """By the chain rule, from a round of the plain model whose rows are `v_i + F_i W`."""
    generator = np.random.default_rng(0)
    shapes = {"item_embedding": (NUM_ITEMS, DIM), "feature_embedding": (2, DIM)}
    shapes |= {"item_bias": (NUM_ITEMS, 1), "feature_bias": (2, 1), "global_bias": ()}
    values = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    values["item_features"] = FEATURES
    plain = {
        "item_embedding": values["item_embedding"] + FEATURES @ values["feature_embedding"],
        "item_bias": values["item_bias"] + FEATURES @ values["feature_bias"],
        "global_bias": values["global_bias"],
    }
    options = dataclasses.replace(ONE_STEP, reconstruction=reconstruction)
    of_plain = moved(mf(NUM_ITEMS, DIM, biases=BIASES), plain, options)
    found = moved(mf(NUM_ITEMS, DIM, biases=BIASES, item_features=FEATURES), values, options)
    for name in of_plain:
        np.testing.assert_allclose(found[name], of_plain[name], atol=2e-6)
    for of_features, of_items in (
        ("feature_embedding", "item_embedding"),
        ("feature_bias", "item_bias"),
    ):
        expected = FEATURES.T @ of_plain[of_items]
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found[of_features], expected, atol=5e-6)
    assert not found["item_features"].any()
    assert not found["item_embedding"][5].any()  # Nobody has item 5.


@pytest.fixture(scope="module")
def population():
    ratings = fr.load_dataset(
        "synthetic", num_users=60, num_items=60, mean_ratings_per_user=25, seed=0
    )
    return fr.divide_by_user(ratings, cold_items_fraction=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    ["fed_recon", "fed_recon_ls", "fed_avg", "stateful_fed_avg", "fed_ncf", "centralized"],
)
def test_every_algorithm_trains_features_and_scores_cold_items_by_them(population, algorithm):
    features = np.eye(3, dtype=np.float32)[np.arange(60) % 3] / 10
    build = mf(60, 4, biases=BIASES, item_features=features)
    run = fr.fit(population, algorithm, model=build, rounds=3, clients_per_round=12)
    model = FunctionalModel(build())
    weights = run.algorithm.get_weights(run.state)
    after = [np.asarray(v) for v in (*weights.trainable, *weights.non_trainable)]
    values = {w.name.split("/")[0]: v for w, v in zip(model.global_weights, after)}
    before = dict(zip(values, (v.numpy() for v in build().global_weights)))
    np.testing.assert_array_equal(values["item_features"], features)
    cold = np.unique(population.groups["cold_test"].cold.ratings.item_ids)
    for name in ("item_embedding", "item_bias"):
        assert not values[name][cold].any()
        assert values[name].any()
    for name in ("feature_embedding", "feature_bias"):
        assert np.abs(values[name] - before[name]).min() > 0
    assert run.metrics["cold_test"]["num_examples"] == (run.judge.cases("cold_test").mask.sum())
    # Cold items of the same features get the same score, of others another one.
    cases = run.judge.cases("cold_test")
    scores = run.judge._scores.scores(run.state, cases)
    for ids, own in zip(cases.item_ids, scores):
        by_kind = [own[(ids >= 0) & (ids % 3 == kind)] for kind in range(3)]
        assert all(np.ptp(kind) < 1e-5 for kind in by_kind if len(kind))


@pytest.mark.slow
def test_features_are_received_and_never_sent(population):
    def costs(**kwargs):
        build = mf(60, 4, biases=BIASES, **kwargs)
        options = fr.FedReconOptions()
        prepared = fr.prepare_fed_recon(build, options, population, clients_per_round=5)
        return prepared.costs(prepared.initialize())

    with_features = costs(item_features=np.ones([60, 3], np.float32))
    without = costs()
    trained = 4 * (3 * 4 + 3)  # Bytes of W and w.
    assert with_features.bytes_up - without.bytes_up == trained
    assert with_features.bytes_down - without.bytes_down == trained + 4 * 60 * 3


@pytest.mark.slow
def test_a_clients_work_holds_no_array_of_the_catalog():
    """What XLA compiles for the clients has rows of their own items, and is as large for any."""
    num_items = 12_345
    features = np.ones([num_items, 2], np.float32)
    model = FunctionalModel(mf(num_items, DIM, biases=BIASES, item_features=features)())
    from fedrecon.engine.shards import shard_spec
    from fedrecon.engine.values import global_specs

    specs = global_specs(model, 4)
    assert specs["item_features/embeddings"].shape.as_list() == [4, None, 2]
    update = fed_recon.build_clients_update(model, ONE_STEP, shard_spec(2, 4))
    shards = pack(CLIENTS, fed_recon.packing_options(ONE_STEP, seed=0), num_clients=4)
    values = {w.name: tf.zeros(w.shape) for w in model.global_weights}
    contribution, *_ = update(values, tf.nest.map_structure(tf.constant, shards[0]))
    assert "item_features/embeddings" not in contribution.updates
    assert all(num_items not in update.shape for update in contribution.updates.values())
    assert_close(contribution.updates["feature_embedding/kernel"], [np.zeros([2, DIM])])
