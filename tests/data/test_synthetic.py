"""Tests that made-up ratings look like real ones and can be learned from."""

import numpy as np
import pytest

from fedrecon.data.splits import split_by_time
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import DataError


@pytest.fixture(scope="module")
def ratings():
    return synthetic_ratings(num_users=800, num_items=500, mean_ratings_per_user=60)


def test_sizes(ratings):
    counts = ratings.counts()
    assert (ratings.num_users, ratings.num_items) == (800, 500)
    assert counts.min() >= 20
    assert counts.max() <= 300
    np.testing.assert_allclose(counts.mean(), 60, rtol=0.02)
    assert ratings.item_titles[17] == "Item 17"


def test_no_pair_twice_and_no_time_of_a_user_twice(ratings):
    assert len(set(zip(ratings.user_ids.tolist(), ratings.item_ids.tolist()))) == len(
        ratings.ratings
    )
    for user in range(ratings.num_users):
        assert len(np.unique(ratings.timestamps[ratings.rows_of(user)])) == ratings.counts()[user]


def test_the_histogram_is_that_of_movielens(ratings):
    shares = np.bincount(ratings.ratings.astype(int), minlength=6)[1:] / ratings.num_ratings
    np.testing.assert_allclose(shares, [0.056, 0.108, 0.261, 0.349, 0.226], atol=0.002)


def test_popularity_and_activity_have_long_tails(ratings):
    for counts in (ratings.counts(), np.bincount(ratings.item_ids, minlength=500)):
        assert counts.max() > 4 * np.median(counts)
        assert counts.mean() > 1.2 * np.median(counts)


def test_the_seed_decides():
    small = {"num_users": 50, "num_items": 80, "mean_ratings_per_user": 25}
    first, again, other = (synthetic_ratings(**small, seed=seed) for seed in (4, 4, 5))
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("cells", [1, 500, 10**6])
def test_chunks_change_nothing(monkeypatch, cells):
    small = {"num_users": 50, "num_items": 80, "mean_ratings_per_user": 25}
    whole = synthetic_ratings(**small)
    monkeypatch.setattr("fedrecon.data.synthetic._CHUNK_CELLS", cells)
    assert synthetic_ratings(**small).fingerprint() == whole.fingerprint()


def test_extremes():
    full = synthetic_ratings(
        num_users=1, num_items=2, mean_ratings_per_user=1, min_ratings_per_user=1, dim=1
    )
    assert full.num_ratings == 1
    even = synthetic_ratings(num_users=5, num_items=40, mean_ratings_per_user=20)
    np.testing.assert_array_equal(even.counts(), [20] * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "num_users must be at least 1; found 0"),
        ({"num_items": 1}, "num_items must be at least 2; found 1"),
        ({"dim": 0}, "dim must be at least 1; found 0"),
        ({"seed": -1}, "seed must be at least 0; found -1"),
        ({"min_ratings_per_user": 0}, "min_ratings_per_user must be at least 1; found 0"),
        ({"mean_ratings_per_user": 19}, "mean_ratings_per_user must lie .* 20 to 300; found 19"),
        ({"num_items": 100}, "mean_ratings_per_user must lie .* 20 to 50; found 80"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        synthetic_ratings(**arguments)


def _fit_factors(rows, columns, residuals, num_rows, other, penalty):
    """Ridge solution `[num_rows, dim]` of residuals = factors[row] . other[column], row by row."""
    dim = other.shape[1]
    gram = np.tile(penalty * np.eye(dim), (num_rows, 1, 1))
    np.add.at(gram, rows, other[columns, :, None] * other[columns, None, :])
    moments = np.zeros((num_rows, dim))
    np.add.at(moments, rows, other[columns] * residuals[:, None])
    return np.linalg.solve(gram, moments[:, :, None])[:, :, 0]


def test_taste_can_be_learned(ratings):
    # Alternating ridge regressions: first biases alone, then a rank-6 model of what they leave.
    split = split_by_time(ratings, seed=0)
    users, items, stars = (
        split.train.user_ids,
        split.train.item_ids,
        split.train.ratings.astype(np.float64),
    )
    mean, user_bias, item_bias = stars.mean(), np.zeros(800), np.zeros(500)
    for _ in range(10):
        left = stars - mean - user_bias[users]
        item_bias = np.bincount(items, left, 500) / (np.bincount(items, minlength=500) + 3)
        left = stars - mean - item_bias[items]
        user_bias = np.bincount(users, left, 800) / (np.bincount(users, minlength=800) + 3)
    left = stars - mean - user_bias[users] - item_bias[items]
    item_factors = np.random.default_rng(0).normal(size=(500, 6))
    for _ in range(15):
        user_factors = _fit_factors(users, items, left, 800, item_factors, 6.0)
        item_factors = _fit_factors(items, users, left, 500, user_factors, 6.0)

    test = split.test
    biases = mean + user_bias[test.user_ids] + item_bias[test.item_ids]
    taste = (user_factors[test.user_ids] * item_factors[test.item_ids]).sum(1)
    errors = [np.sqrt(np.mean((p - test.ratings) ** 2)) for p in (mean, biases, biases + taste)]
    assert errors[1] < 0.95 * errors[0], errors
    assert errors[2] < 0.92 * errors[1], errors
