"""The cohort engine gives stock TFF's numbers, however a cohort is packed."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import fed_recon, stock_fed_recon
from fedrecon.algorithms.options import FedReconOptions, OptimizerOptions
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.neural_cf import neumf

pytestmark = pytest.mark.usefixtures("native_worker")

# Stock TFF starts all clients from one local part, so the same is given to both.
SAME_START = tf.keras.initializers.Constant(0.05)


def adam(rate=0.01):
    return OptimizerOptions("adam", rate)


def sgd(rate):
    return OptimizerOptions("sgd", rate)


def same(name, rate=0.01):
    """One optimiser for both client stages."""
    optimizer = OptimizerOptions(name, rate)
    return {"reconstruction_optimizer": optimizer, "client_optimizer": optimizer}


# The paper's configuration (experiments/presets/fedrecon_ml1m_paper.flags).
PAPER = FedReconOptions(
    reconstruction_epochs=5, reconstruction_steps_max=50, client_epochs=1, client_steps_max=50
)


def mf(num_items, dim=8, **kwargs):
    return functools.partial(
        matrix_factorization, num_items, dim, user_initializer=SAME_START, **kwargs
    )


def biased_mf(num_items, **kwargs):
    return mf(num_items, user_bias=True, item_bias=True, global_bias=True, **kwargs)


def small_neumf(num_items, **kwargs):
    # Larger initial values than the paper's, so that all layers matter from the first step on.
    return functools.partial(
        neumf,
        num_items,
        gmf_dim=4,
        hidden_units=(8, 4),
        user_initializer=SAME_START,
        item_initializer=tf.keras.initializers.RandomUniform(-0.5, 0.5, seed=1),
        **kwargs,
    )


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


def assert_close(ours, stock, tolerance=1e-5):
    ours, stock = tf.nest.flatten(ours), tf.nest.flatten(stock)
    assert len(ours) == len(stock) > 0
    for a, b in zip(ours, stock):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def assert_same_rounds(model_fn, options, examples, *, num_clients, num_rounds=3):
    """Trains with both engines and compares weights and metrics after each round."""
    packer = CohortPacker(
        examples, fed_recon.packing_options(options, seed=0), clients_per_shard=-(-num_clients // 2)
    )
    ours = fed_recon.build_fed_recon(model_fn, options, clients_per_shard=packer.clients_per_shard)
    stock = stock_fed_recon.build_fed_recon(model_fn, options)
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


def test_the_papers_configuration_on_movielens(movielens):
    examples = examples_of(movielens, max_ratings=300)
    assert_same_rounds(mf(movielens.num_items, dim=50), PAPER, examples, num_clients=20)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (mf, same("momentum", 0.02)),
        (mf, same("adam")),
        (biased_mf, {}),
        (biased_mf, same("momentum", 0.02)),
        (biased_mf, same("adam")),
        (small_neumf, {}),
        (small_neumf, same("momentum", 0.1)),
        (small_neumf, same("adam")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_models_and_optimizers_on_movielens(movielens, model, changes):
    threshold = 4.0 if model is small_neumf else None
    examples = examples_of(movielens, max_ratings=60, threshold=threshold)
    options = dataclasses.replace(PAPER, **changes)
    assert_same_rounds(model(movielens.num_items), options, examples, num_clients=10)


@pytest.mark.parametrize(
    "changes",
    [
        {"support_query_split": "none", "client_epochs": 2},
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
def test_every_knob(synthetic, changes):
    examples = examples_of(synthetic, max_ratings=None)
    options = dataclasses.replace(PAPER, **changes)
    assert_same_rounds(biased_mf(synthetic.num_items), options, examples, num_clients=12)


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
def test_regularization_moves_rows_that_nobody_touches(synthetic, regularization, optimizer):
    examples = examples_of(synthetic, max_ratings=20)
    model = biased_mf(synthetic.num_items, **regularization)
    options = dataclasses.replace(PAPER, client_optimizer=optimizer)
    assert_same_rounds(model, options, examples, num_clients=6)
