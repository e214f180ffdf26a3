"""EASE against the conditions of its minimum, and against a solver that knows no closed form."""

import numpy as np
import pytest
from scipy import optimize

from fedrecon.baselines.ease import EaseOptions, ease_of_gram, gram_matrix, train_ease
from fedrecon.errors import InputError

RIDGE = 2.0


def interactions(num_users=30, num_items=8, seed=0):
    return np.random.default_rng(seed).random((num_users, num_items)) < 0.4


def trained(has, ridge=RIDGE):
    users, items = np.nonzero(has)
    sizes = {"num_users": has.shape[0], "num_items": has.shape[1]}
    return train_ease(users, items, **sizes, options=EaseOptions(ridge))


def loss(has, weights, ridge=RIDGE):
    return np.sum((has - has @ weights) ** 2) + ridge * np.sum(weights**2)


def test_the_gradient_is_0_off_the_diagonal_which_is_0():
    has = interactions().astype(float)
    weights = trained(has).weights.astype(float)
    np.testing.assert_array_equal(weights.diagonal(), np.zeros(8))
    gradient = 2 * has.T @ (has @ weights - has) + 2 * RIDGE * weights
    is_free = ~np.eye(8, dtype=bool)
    # Rows of 30 users: single precision of the weights leaves some 1e-5.
    np.testing.assert_allclose(gradient[is_free], 0, atol=1e-4)
    # It would move the diagonal, if that were free.
    assert np.abs(gradient.diagonal()).min() > 1


def test_as_a_solver_of_each_column():
    """The loss is a ridge regression of each item on the others, which least squares solve."""
    has = interactions().astype(float)
    weights = trained(has).weights
    for item in range(8):
        others = [other for other in range(8) if other != item]
        rows = np.vstack([has[:, others], np.sqrt(RIDGE) * np.eye(7)])
        expected, *_ = np.linalg.lstsq(rows, np.append(has[:, item], np.zeros(7)), rcond=None)
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-6)


def test_as_a_general_minimizer_under_the_constraint():
    has = interactions(12, 4).astype(float)

    def whole(free):
        weights = np.zeros((4, 4))
        weights[~np.eye(4, dtype=bool)] = free
        return weights

    found = optimize.minimize(lambda free: loss(has, whole(free)), np.zeros(12), tol=1e-10)
    np.testing.assert_allclose(trained(has).weights, whole(found.x), atol=1e-4)


def test_the_gram_matrix_counts_users_with_both():
    users, items = np.array([0, 0, 1, 1, 1, 3, 0]), np.array([2, 0, 2, 0, 3, 3, 2])
    # A repeated pair counts once, and item 1 has nobody.
    expected = [[2, 0, 2, 1], [0, 0, 0, 0], [2, 0, 2, 1], [1, 0, 1, 2]]
    np.testing.assert_array_equal(gram_matrix(users, items, num_items=4), expected)
    nobody = gram_matrix(users[:0], items[:0], num_items=2)
    np.testing.assert_array_equal(nobody, np.zeros((2, 2)))


def test_scores_add_up_the_weights_of_what_the_user_has():
    model = trained(interactions())
    given = np.array([1, 4, 4, 6])
    labels = np.array([1, 1, 1, 0], np.float32)  # A repeated item counts once, a negative not.
    candidates = np.array([0, 3, 7])
    expected = model.weights[1, candidates] + model.weights[4, candidates]
    np.testing.assert_allclose(model.score(given, labels, candidates), expected, rtol=1e-6)


def test_an_item_that_nobody_has_gets_and_gives_nothing():
    has = interactions()
    has[:, 5] = False
    weights = trained(has).weights
    np.testing.assert_array_equal(weights[5], np.zeros(8))
    np.testing.assert_array_equal(weights[:, 5], np.zeros(8))


def test_a_gram_matrix_of_counts_is_enough():
    has = interactions()
    counts = has.T.astype(np.int32) @ has.astype(np.int32)
    found = ease_of_gram(counts, EaseOptions(RIDGE)).weights
    np.testing.assert_array_equal(found, trained(has).weights)
    assert found.dtype == np.float32
    assert not found.flags.writeable


def test_unusable_options_and_ratings():
    with pytest.raises(InputError, match="the regularization of EASE"):
        EaseOptions(0.0)
    with pytest.raises(ValueError, match="EASE is trained on implicit feedback"):
        train_ease(
            np.array([0]),
            np.array([0]),
            np.ones(1, np.float32),
            num_users=1,
            num_items=1,
            options=EaseOptions(),
        )
