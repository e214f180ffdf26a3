import numpy as np
import pytest

from fedrecon.baselines.popularity import (
    PopularityOptions,
    train_popularity,
    train_rating_baseline,
)
from fedrecon.errors import InputError

NUM_USERS, NUM_ITEMS = 5, 4
# User 3 and item 3 have nothing; the mean of the stars is 3.
USERS = np.array([0, 0, 1, 2, 2], np.int32)
ITEMS = np.array([0, 1, 0, 1, 2], np.int32)
STARS = np.float32([5, 3, 4, 1, 2])
OPTIONS = PopularityOptions(item_damping=1.0, user_damping=2.0)
NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.float32))
ALL = np.arange(NUM_ITEMS)


def train(users=USERS, items=ITEMS, ratings=STARS, options=OPTIONS):
    sizes = {"num_users": NUM_USERS, "num_items": NUM_ITEMS}
    train_one = train_popularity if ratings is None else train_rating_baseline
    return train_one(users, items, ratings, **sizes, options=options)


def test_counts_by_hand():
    model = train(ratings=None)
    scores = model.score(np.array([0, 2]), np.float32([1, 0]), ALL)
    np.testing.assert_array_equal(scores, [2, 2, 1, 0])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(model.score(*NOTHING, np.array([2, 0])), [1, 2])


def test_a_pair_that_comes_twice_counts_once():
    twice = train(np.append(USERS, [0, 2, 2]), np.append(ITEMS, [0, 2, 2]), None)
    np.testing.assert_array_equal(twice.counts, [2, 2, 1, 0])


def test_nobody_has_anything():
    none = np.zeros(0, np.int64)
    np.testing.assert_array_equal(train(none, none, None).counts, [0, 0, 0, 0])


def test_the_baseline_by_hand():
    # b = (2 + 1) / (1 + 2), (0 - 2) / (1 + 2), -1 / (1 + 1) and 0.
    model = train()
    assert model.mean == 3.0
    np.testing.assert_allclose(model.item_offsets, [1, -2 / 3, -1 / 2, 0], rtol=1e-12)
    # A user who gives 5 stars (predicted 4) and 2 (predicted 2.5): b_u = (1 - 0.5) / (2 + 2).
    stars = model.score(np.array([0, 2]), np.float32([5, 2]), ALL)
    np.testing.assert_allclose(stars, [4.125, 3.125 - 2 / 3, 2.625, 3.125], rtol=1e-6)
    assert stars.dtype == np.float32
    # In another order, and for other candidates.
    stars = model.score(np.array([2, 0]), np.float32([2, 5]), np.array([3, 0, 0]))
    np.testing.assert_allclose(stars, [3.125, 4.125, 4.125], rtol=1e-6)


def test_who_gives_nothing_gets_the_mean_and_the_items_offset():
    stars = train().score(*NOTHING, ALL)
    np.testing.assert_allclose(stars, [4, 3 - 2 / 3, 2.5, 3], rtol=1e-6)


def test_every_given_rating_counts():
    # Twice 5 stars for item 0: b_u = (1 + 1) / (2 + 2).
    stars = train().score(np.array([0, 0]), np.float32([5, 5]), np.array([3]))
    np.testing.assert_allclose(stars, [3.5], rtol=1e-6)


def test_predictions_are_not_cut_to_the_scale():
    options = PopularityOptions(item_damping=1e-6, user_damping=1e-6)
    assert train(options=options).score(np.array([3]), np.float32([5]), np.array([0]))[0] > 6


def test_it_equals_the_formula_written_as_loops():
    rng = np.random.default_rng(5)
    pairs = rng.permutation(30 * 20)[:150]
    users, items = pairs // 20, pairs % 20
    ratings = rng.integers(1, 6, 150).astype(np.float32)
    sizes = {"num_users": 30, "num_items": 20}
    model = train_rating_baseline(users, items, ratings, **sizes, options=PopularityOptions())
    triples = list(zip(users.tolist(), items.tolist(), ratings.tolist()))
    mean = sum(r for _, _, r in triples) / len(triples)
    item_offsets = []
    for item in range(20):
        of_item = [r - mean for _, i, r in triples if i == item]
        item_offsets.append(sum(of_item) / (25 + len(of_item)))
    for user in range(30):
        of_user = [(i, r) for u, i, r in triples if u == user]
        offset = sum(r - mean - item_offsets[i] for i, r in of_user) / (10 + len(of_user))
        is_own = users == user
        stars = model.score(items[is_own], ratings[is_own], np.arange(20))
        np.testing.assert_allclose(stars, mean + offset + np.array(item_offsets), rtol=1e-6)


def test_the_defaults_are_those_of_the_paper():
    assert PopularityOptions() == PopularityOptions(item_damping=25.0, user_damping=10.0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["item_damping", "user_damping"])
def test_a_damping_that_cannot_be_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} of popularity is {value}; it must be positive"):
        PopularityOptions(**{name: value})


def test_no_ratings_have_no_mean():
    with pytest.raises(ValueError, match="there are no ratings"):
        train(USERS[:0], ITEMS[:0], STARS[:0])
