"""The spread of a figure on a draw of users, held against what sampling theory says of it."""

import numpy as np
import pytest

from experiments.comparison.draws import NUM_USERS, drawn_rmse
from fedrecon.evaluation.metrics import UserResults


def results(squares, counts):
    return UserResults({"rmse": np.sqrt(np.asarray(squares, float))}, np.asarray(counts))


def test_users_who_ask_equally_much_have_the_deviation_of_a_mean_without_replacement():
    squares = np.random.default_rng(0).uniform(0.5, 1.5, 604)
    found = drawn_rmse(results(squares, np.full(604, 20)))
    deviation = squares.std(ddof=1) / NUM_USERS**0.5 * (1 - NUM_USERS / 604) ** 0.5
    assert (found**2).mean() == pytest.approx(squares.mean(), abs=4 * deviation / 100)
    assert (found**2).std() == pytest.approx(deviation, rel=0.03)


def test_users_weigh_as_their_ratings_do():
    # Of 100 judged users all are drawn, and the one who was not judged is not.
    squares, counts = np.arange(101.0), np.arange(101)
    found = drawn_rmse(results(squares, counts))
    expected = np.sqrt((squares * counts).sum() / counts.sum())
    np.testing.assert_allclose(found, expected)


def test_all_have_the_same_draws():
    squares = np.random.default_rng(1).uniform(0.5, 1.5, 300)
    one, other = (drawn_rmse(results(factor * squares, np.ones(300, int))) for factor in (1, 4))
    np.testing.assert_allclose(other, 2 * one)
