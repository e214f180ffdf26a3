"""Exact reconstruction against `numpy.linalg.lstsq`, for all clients of a shard."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.data.cohorts import PackingOptions, Passes
from fedrecon.engine import least_squares
from fedrecon.engine.shards import shard_spec
from fedrecon.engine.values import by_name, in_order
from fedrecon.models.functional import FunctionalModel
from fedrecon.options import LeastSquaresOptions
from tests.engine.linear_models import (
    mf,
    random_weights,
    tower_model,
)
from tests.engine.numpy_least_squares import (
    CLIENTS,
    DIM,
    NOTHING,
    RIDGE,
    divided,
    ridge,
    ridge_of_mf,
    strengths,
    tensorflow_tower,
)
from tests.tiny import BIASES, pack


def solve(model_fn, options, weights, *, split, support_epochs=1):
    """The local values of `CLIENTS` and two for padding, by `least_squares` alone."""
    packing = PackingOptions(2, split, Passes(support_epochs), Passes(), seed=0)
    (shard,) = pack(CLIENTS, packing, num_clients=8)
    model = FunctionalModel(model_fn())
    reconstruct = least_squares.build_reconstruction(model, options, shard_spec(2, 8))
    values = by_name(model.global_weights, weights)
    found = reconstruct(values, tf.nest.map_structure(tf.constant, shard))
    return in_order(model.local_weights, found)


def flat(local_values):
    return np.concatenate([np.reshape(v, [len(v), -1]) for v in local_values], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("biases", "options", "split"),
    [
        (biases, options, split)
        for biases, (options, split) in zip(
            itertools.chain.from_iterable(itertools.combinations(BIASES, n) for n in range(4)),
            itertools.cycle(
                [
                    (LeastSquaresOptions(regularization=0.5), "alternating_batches"),
                    (LeastSquaresOptions(regularization=0.1, exponent=1.0), "none"),
                    (RIDGE, "alternating_batches"),
                    (dataclasses.replace(RIDGE, exponent=1.0), "none"),
                    (dataclasses.replace(RIDGE, exponent=0.0), "alternating_batches"),
                ]
            ),
        )
    ],
    ids=str,
)
def test_the_solution_is_that_of_least_squares_with_rows_for_the_penalty(biases, options, split):
    weights = random_weights(mf(biases))
    found = flat(solve(mf(biases), options, weights, split=split))
    expected = [
        ridge_of_mf(weights, divided(client, split=split)[0], options, biases)
        for client in [*CLIENTS, NOTHING, NOTHING]  # Two for padding.
    ]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(expected[0]).max() > 0.3
    assert not found[[4, 6, 7]].any()  # Without a rating there is only the penalty.


def test_with_a_mean_user_the_solution_is_the_distance_from_it():
    biases = (*BIASES, "mean_user")
    model_fn = mf(biases)
    weights = random_weights(model_fn)
    found = flat(solve(model_fn, RIDGE, weights, split="none"))
    for solution, client in zip(found, CLIENTS):
        expected = ridge_of_mf(weights, client, biases=biases)
        np.testing.assert_allclose(solution, expected, atol=1e-5)


def test_without_any_support_all_are_zero():
    weights = random_weights(mf())
    found = solve(mf(), RIDGE, weights, split="none", support_epochs=0)
    assert [value.shape for value in found] == [[8, 1, DIM], [8, 1, 1]]
    assert not flat(found).any()


@pytest.mark.slow
def test_any_model_that_is_linear_in_its_trained_local_part_is_solved():
    weights = random_weights(tower_model)
    # Each client has a fixed number of its own.
    initializer = tf.keras.initializers.RandomUniform(0.5, 1.5, seed=0)
    model_fn = functools.partial(tower_model, initializer)
    split_model = model_fn()
    model = FunctionalModel(split_model)
    least_squares.check_is_solvable(split_model, model)
    names = [weight.name for weight in model.local_weights]
    assert names == ["user/embeddings", "head/kernel", "head/bias", "habit/embeddings"]
    *found, habits = solve(model_fn, RIDGE, weights, split="none")
    habits = habits.numpy()[:, 0, 0].astype(np.float64)
    assert len(set(habits[: len(CLIENTS)])) == len(CLIENTS)
    expected = []
    for (ids, labels), habit in zip([*CLIENTS, NOTHING, NOTHING], habits):
        rows, offsets = tensorflow_tower([tf.constant(w, tf.float64) for w in weights], ids, habit)
        # The bias of the head is one number and so a bias; the fixed one takes no part.
        penalties = strengths(RIDGE, DIM + 4, 1, len(ids))
        expected.append(ridge(rows.numpy(), labels - offsets.numpy(), penalties))
    np.testing.assert_allclose(flat(found), expected, atol=5e-6)


def test_squares_keep_the_digits_of_what_is_squared():
    weights = random_weights(mf())
    # Nearly one direction; what tells the rows apart is a thousandth of them.
    weights[0] = 300.0 + 0.3 * weights[0]
    found = flat(solve(mf(), RIDGE, weights, split="none"))
    expected = [ridge_of_mf(weights, client) for client in [*CLIENTS, NOTHING, NOTHING]]
    assert np.abs(expected[0]).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_systems_without_a_solution_leave_the_others_alone():
    generator = np.random.default_rng(0)
    factors = generator.normal(size=[8, 4, 3])
    matrices = np.swapaxes(factors, 1, 2) @ factors + 0.5 * np.eye(3)
    vectors = generator.normal(size=[8, 3])
    matrices[1, 0, 2] = np.nan
    matrices[2, 2, 0] = np.inf
    vectors[3, 1] = np.nan
    vectors[4, 1] = -np.inf
    # Of 0.5 only a digit or two are left beside 1e15; the factors are finite.
    row = np.array([1e7, -2e7, 3e7])
    matrices[5] = np.outer(row, row) + 0.5 * np.eye(3)
    assert np.isfinite(tf.linalg.cholesky(matrices[5])).all()
    matrices[6] *= 1e6  # Large, and yet far from losing its digits.
    found = least_squares.solve_systems(tf.constant(matrices), tf.constant(vectors))
    for client in (0, 6, 7):
        expected = np.linalg.solve(matrices[client], vectors[client])
        np.testing.assert_allclose(found[client], expected, rtol=1e-9)
    for client in (1, 2, 3, 4, 5):
        assert np.isnan(found[client]).all()
