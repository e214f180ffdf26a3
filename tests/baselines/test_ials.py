import dataclasses
import warnings

import numpy as np
import pytest
import threadpoolctl

from fedrecon import rng
from fedrecon.baselines.ials import Ials, IalsOptions, train_ials
from fedrecon.errors import InputError

NUM_USERS, NUM_ITEMS = 7, 6
# User 5 and item 4 have no interaction; user 6 has all the other items.
PAIRS = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2), (2, 5), (3, 3), (4, 3), (4, 5)]
PAIRS += [(6, item) for item in (0, 1, 2, 3, 5)]
OBSERVED = np.zeros((NUM_USERS, NUM_ITEMS))
OBSERVED[tuple(np.transpose(PAIRS))] = 1
OPTIONS = IalsOptions(dim=3, regularization=0.3, unobserved_weight=0.2, num_iterations=3, seed=1)


def train(options=OPTIONS, pairs=PAIRS):
    users, items = np.transpose(pairs)
    return train_ials(users, items, num_users=NUM_USERS, num_items=NUM_ITEMS, options=options)


def loss(user_rows, item_rows, options):
    """The loss as the module states it, entry by entry."""
    scores = user_rows @ item_rows.T
    return (
        (OBSERVED * (1 - scores) ** 2).sum()
        + options.unobserved_weight * (scores**2).sum()
        + options.regularization * ((user_rows**2).sum() + (item_rows**2).sum())
    )


def minimum(observed, other_rows, options):
    """The rows that minimize the loss with the other side fixed, as weighted least squares.

    The stacked system has the observed entries (target 1), then all entries and the penalty (0).
    """
    dim = options.dim
    rows = []
    for seen in observed:
        left = np.concatenate(
            [
                other_rows[seen == 1],
                np.sqrt(options.unobserved_weight) * other_rows,
                np.sqrt(options.regularization) * np.eye(dim),
            ]
        )
        right = np.concatenate([np.ones(int(seen.sum())), np.zeros(len(other_rows) + dim)])
        rows.append(np.linalg.lstsq(left, right, rcond=None)[0])
    return np.stack(rows)


def initial_item_rows(options):
    stddev = 0.1 / np.sqrt(options.dim)
    normal = rng.generator(options.seed, "iALS item rows").normal(
        0.0, 1.0, (NUM_ITEMS, options.dim)
    )
    return stddev * normal


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        dataclasses.replace(OPTIONS, unobserved_weight=3.0, regularization=0.02),
        dataclasses.replace(OPTIONS, dim=1, num_iterations=1),
        dataclasses.replace(OPTIONS, dim=16, seed=2),
    ],
)
def test_every_half_step_is_the_minimum_of_the_stated_loss(options):
    item_rows = initial_item_rows(options)
    for _ in range(options.num_iterations):
        user_rows = minimum(OBSERVED, item_rows, options)
        item_rows = minimum(OBSERVED.T, user_rows, options)
    model = train(options)
    np.testing.assert_allclose(model.item_rows, item_rows, atol=1e-5)
    np.testing.assert_allclose(model.user_rows, minimum(OBSERVED, item_rows, options), atol=1e-5)


def test_the_end_of_many_iterations_is_a_stationary_point_for_both_sides():
    options = dataclasses.replace(OPTIONS, num_iterations=300)
    model = train(options)
    np.testing.assert_allclose(
        model.user_rows, minimum(OBSERVED, model.item_rows, options), atol=1e-4
    )
    np.testing.assert_allclose(
        model.item_rows, minimum(OBSERVED.T, model.user_rows, options), atol=1e-4
    )
    # Not the trivial one, in which all rows are 0: each observed pair would then cost 1.
    assert loss(model.user_rows, model.item_rows, options) < 0.8 * len(PAIRS)


def test_no_step_away_from_a_users_row_costs_less():
    model = train()
    rows = model.user_rows.astype(np.float64)
    best = loss(rows, model.item_rows, OPTIONS)
    for user in range(NUM_USERS):
        for step in 0.01 * np.concatenate([np.eye(OPTIONS.dim), -np.eye(OPTIONS.dim)]):
            moved = rows.copy()
            moved[user] += step
            assert loss(moved, model.item_rows, OPTIONS) > best


def test_a_row_by_hand():
    # One item row 2; a = 1/4, r = 1. With the item: (4 + 1/4 * 4 + 1) x = 2, so x = 1/3.
    options = IalsOptions(dim=1, regularization=1.0, unobserved_weight=0.25)
    model = Ials(options, np.zeros((1, 1), np.float32), np.float32([[2.0]]))
    np.testing.assert_allclose(model.reconstruct(np.array([0])), [1 / 3], rtol=1e-6)


def test_reconstruction_of_a_known_user_is_the_trained_row():
    model = train()
    for user in range(NUM_USERS):
        row = model.reconstruct(np.flatnonzero(OBSERVED[user]))
        assert row.shape == (OPTIONS.dim,)
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, model.user_rows[user], atol=1e-5)


def test_an_item_that_comes_twice_counts_once():
    model = train()
    np.testing.assert_array_equal(train(pairs=PAIRS + PAIRS[:4]).item_rows, model.item_rows)
    np.testing.assert_array_equal(model.reconstruct([2, 0, 2]), model.reconstruct([0, 2]))


def test_who_and_what_has_no_interaction_has_row_zero():
    model = train()
    assert not model.user_rows[5].any()
    assert not model.item_rows[4].any()
    assert model.user_rows[[0, 1, 2, 3, 4, 6]].any(axis=1).all()
    assert not model.reconstruct([]).any()
    nothing = train(pairs=np.zeros((0, 2), int))
    assert not nothing.item_rows.any()


def test_scores_rank_the_items_of_ones_group_first():
    # Two groups that share no item: even users have even items. Two pairs are held out.
    pairs = [(u, i) for u in range(20) for i in range(10) if u % 2 == i % 2]
    users, items = np.transpose([p for p in pairs if p not in ((0, 4), (1, 7))])
    options = dataclasses.replace(OPTIONS, dim=2, num_iterations=20)
    model = train_ials(users, items, num_users=20, num_items=10, options=options)
    for user in (0, 1):
        own = items[users == user]
        scores = model.score(own, np.ones(len(own), np.float32), np.arange(10))
        assert scores.shape == (10,)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, model.item_rows @ model.user_rows[user], atol=1e-5)
        assert scores[user % 2 :: 2].min() > scores[1 - user % 2 :: 2].max() + 0.1
    # A newcomer, with a negative that does not matter, and padding.
    newcomer = model.score(np.array([1, 2, 3]), np.float32([1, 0, 1]), np.array([5, 7, 0, -1]))
    expected = model.item_rows[[5, 7, 0]] @ model.reconstruct([1, 3])
    np.testing.assert_allclose(newcomer[:3], expected, atol=1e-6)
    assert newcomer[:2].min() > newcomer[2] + 0.1
    assert np.isfinite(newcomer).all()


def test_the_rows_depend_on_the_seed_alone():
    first = train()
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    again = train()
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.testing.assert_array_equal(again.user_rows, first.user_rows)
    np.testing.assert_array_equal(again.item_rows, first.item_rows)
    other = train(dataclasses.replace(OPTIONS, seed=2))
    assert abs(other.item_rows - first.item_rows).max() > 1e-3


def test_training_is_silent_and_leaves_blas_its_threads(capfd, monkeypatch):
    # With two threads implicit would warn, but once in a process: make it forget that it has.
    monkeypatch.setattr("implicit.utils._checked_blas_config", False)
    with threadpoolctl.threadpool_limits(2, "blas"):
        before = threadpoolctl.threadpool_info()
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            train()
        assert threadpoolctl.threadpool_info() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"dim": 0}, "dim of iALS is 0; it must be at least 1"),
        ({"num_iterations": 0}, "num_iterations of iALS is 0"),
        ({"regularization": 0.0}, "regularization of iALS is 0.0; it must be positive"),
        ({"regularization": float("nan")}, "regularization of iALS is nan"),
        ({"unobserved_weight": -1.0}, "unobserved_weight of iALS is -1.0"),
        ({"unobserved_weight": float("inf")}, "unobserved_weight of iALS is inf"),
        ({"seed": -1}, "seed of iALS is -1"),
    ],
)
def test_what_cannot_be_is_refused(setting, words):
    with pytest.raises(InputError, match=words):
        IalsOptions(**setting)


def test_an_item_that_is_none_is_not_reconstructed():
    with pytest.raises(ValueError, match="item ids must be in"):
        train().reconstruct([NUM_ITEMS])
