"""Do training negatives give away what is held out? Counted by hand, and on known samplers."""

import itertools
import math
import time

import numpy as np
import pytest

from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.held_out import hold_out_last
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import InputError
from fedrecon.evaluation import leak
from fedrecon.evaluation.leak import check_leak


def pairs(*of_users):
    """Pairs of user and item, from the items of users 0, 1, ..."""
    found = [(user, item) for user, items in enumerate(of_users) for item in items]
    return np.array(found, np.int64).reshape(-1, 2)


def stacked(users, items):
    return np.stack([users, items], axis=1)


# --- by hand ------------------------------------------------------------------------------------

# Items 0 to 19. User 0 has 0 and 1, and 2 is held out; user 1 has 3, and 4 is held out. User 2 only
# shows that there is an item 5.
POSITIVES, HELD_OUT = pairs([0, 1], [3], [5]), pairs([2], [4])


def test_ranks_and_counts_by_hand():
    negatives = pairs(
        # Item 2 never; 3, 4 and 5 never either; the others twice.
        [item for item in range(6, 20) for _ in range(2)],
        # Item 4 once; 5 to 14 never; 0, 1, 2 and 15 to 19 three times.
        [4] + 3 * [0, 1, 2, 15, 16, 17, 18, 19],
    )
    report = check_leak(POSITIVES, negatives, HELD_OUT)
    assert report.num_users == 2
    # 20 items but the positives: 18 and 19 candidates.
    assert report.num_candidates == 18.5
    assert report.chance == pytest.approx((10 / 18 + 10 / 19) / 2)
    # By how seldom: user 0's item ties with 3 others (rank 3); user 1's has 10 before it.
    assert report.seldom.hr_at_10 == 0.5
    assert report.seldom.ndcg_at_10 == pytest.approx(0.5 / math.log2(5))
    # By how often: user 0's comes last; user 1's comes after 8 others.
    assert report.often.hr_at_10 == 0.5
    assert report.often.ndcg_at_10 == pytest.approx(0.5 / math.log2(10))
    # 28 draws from 18 items, and 25 from 19.
    assert report.num_drawn == 1
    assert report.num_expected == pytest.approx(28 / 18 + 25 / 19)
    assert not report.has_leak  # Two users say little.


def test_candidates_leave_out_positives_repeats_and_the_item_itself():
    candidates = np.array([[5, 6, 6, 0, 2, -1], [5, 6, 7, 8, -1, -1]])
    negatives = pairs([2, 5, 5, 6, 6], [5, 5, 6, 7, 7, 8, 19])
    report = check_leak(POSITIVES, negatives, HELD_OUT, candidates)
    # 2 against 5 and 6; 4 against 5, 6, 7 and 8.
    assert report.num_candidates == 4
    assert report.seldom == (1.0, 1.0)
    # Places 3 and 5 by how often.
    assert report.often.ndcg_at_10 == pytest.approx((1 / math.log2(4) + 1 / math.log2(6)) / 2)
    assert report.chance == 1.0  # Ten candidates or fewer.
    assert not report.has_leak


def test_users_without_negatives_and_negatives_that_are_positives_do_not_count():
    report = check_leak(POSITIVES, pairs([0, 1, 1, 5, 6], [3, 3]), HELD_OUT)
    assert report.num_users == 1
    # 0 to 6 are the items that come anywhere; user 0 may draw five of them, and drew two.
    assert report.num_candidates == 5
    assert report.num_expected == pytest.approx(2 / 5)


def test_rates_of_others_by_hand():
    positives = pairs([0, 1, 3], [0], [1])
    held_out = pairs([2], [3])  # User 2 has none.
    negatives = pairs([4, 4], [4, 4, 2, 1], [2, 2, 2, 3])
    draws = leak._Draws(positives, negatives, held_out, np.arange(5))
    # Fair draws give 2 / 2 = 1 of each item to user 0, 4 / 4 to user 1, and 4 / 4 to user 2.
    # Item 0 has only user 2, 1 user 1, 2 users 1 and 2, 3 user 2, and 4 all of them.
    np.testing.assert_allclose(draws.rates, [0 / 1, 1 / 1, 4 / 2, 1 / 1, 4 / 3])


@pytest.mark.parametrize("largest_table", [1, 100_000_000])
def test_ids_may_be_any_numbers(monkeypatch, largest_table):
    generator = np.random.default_rng(0)
    negatives = stacked(generator.integers(0, 2, 300), generator.integers(5, 20, 300))
    expected = check_leak(POSITIVES, negatives, HELD_OUT)
    monkeypatch.setattr(leak, "_LARGEST_TABLE", largest_table)
    spread = np.array([10**6, 10**5])
    assert expected == check_leak(POSITIVES * spread, negatives * spread, HELD_OUT * spread)


@pytest.mark.parametrize(
    ("number", "probability", "share"),
    [(5, 0.3, 0.975), (5, 0.3, 0.025), (200, 0.1, 0.975), (3, 0.5, 0.5)],
)
def test_quantiles_of_a_binomial_share(number, probability, share):
    shares = [
        math.comb(number, k) * probability**k * (1 - probability) ** (number - k)
        for k in range(number + 1)
    ]
    at_most = list(itertools.accumulate(shares))
    expected = next(k for k, total in enumerate(at_most) if total >= share) / number
    assert leak._binomial_quantile(share, number, probability) == expected


# --- samplers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    """Training ratings, held-out items of 400 users among 300 items, and all ratings."""
    ratings = synthetic_ratings(num_users=400, num_items=300, mean_ratings_per_user=40, seed=3)
    return *hold_out_last(ratings, seed=0), ratings


def check(data, negatives, *, among_all=False):
    train, held_out, _ = data
    return check_leak(
        stacked(train.user_ids, train.item_ids),
        negatives,
        stacked(held_out.users, held_out.items),
        None if among_all else held_out.negatives,
    )


def fair(train, num_epochs):
    drawn = []
    for epoch_num in range(num_epochs):
        users, items, labels = ImplicitExamples(train, ImplicitOptions(seed=2)).epoch(epoch_num)
        drawn.append(stacked(users, items)[labels == 0])
    return np.concatenate(drawn)


def as_published(data, num_rounds, *, excluded=("validation", "test")):
    """PFedRec's sampler: in each round 4 distinct items for each training interaction.

    They are drawn from the pool of all items less those that the user ever touched.
    """
    train, held_out, _ = data
    train, validation = hold_out_last(train, seed=0)
    generator = np.random.default_rng(1)
    pool = np.arange(train.num_items)
    drawn = []
    for user in range(train.num_users):
        touched = [*train.item_ids[train.user_ids == user]]
        for name, items in (("validation", validation), ("test", held_out)):
            if name in excluded:
                touched += [*items.items[items.users == user]]
        allowed = np.setdiff1d(pool, touched)
        for _ in range(num_rounds * np.count_nonzero(train.user_ids == user)):
            drawn += [(user, item) for item in generator.choice(allowed, 4, replace=False)]
    return np.array(drawn)


@pytest.mark.parametrize("among_all", [False, True])
def test_fair_negatives_are_at_chance(data, among_all):
    report = check(data, fair(data[0], 20), among_all=among_all)
    assert not report.has_leak
    assert report.num_drawn == pytest.approx(report.num_expected, rel=0.1)
    low, high = report.chance_interval
    # 400 users: 0.1 with a standard deviation of 0.015.
    if not among_all:
        assert (report.chance, low, high) == (0.1, 0.0725, 0.13)
    for ranking in (report.seldom, report.often):
        assert ranking.hr_at_10 <= high
    assert report.verdict.startswith("No leak found: ")


def test_negatives_as_published_give_away_the_test_item(data):
    report = check(data, as_published(data, 10))
    assert report.seldom.hr_at_10 > 0.98
    assert report.often.hr_at_10 == 0
    assert report.num_drawn == 0
    assert report.num_expected > 1_000
    assert report.leaking_order == "seldom"
    assert report.verdict.startswith(
        "These negatives give away the test item: a ranking by how seldom an item came has it "
        "among the first 10 for "
    )


def test_one_round_as_published_is_too_little_to_rank_by_and_is_found(data):
    report = check(data, as_published(data, 1)[::4])
    assert report.seldom.hr_at_10 < 0.1
    assert report.leaking_order is None
    assert report.is_excluded
    assert "came 0 times" in report.verdict


def test_to_exclude_the_validation_item_alone_is_no_leak_of_the_test_item(data):
    report = check(data, as_published(data, 10, excluded=("validation",)))
    assert not report.has_leak


def test_negatives_that_prefer_popular_items_are_no_leak(data):
    train, held_out, ratings = data
    weights = np.bincount(ratings.item_ids, minlength=ratings.num_items) + 1.0
    generator = np.random.default_rng(0)
    for exclude in (False, True):
        drawn = []
        for user, item in zip(held_out.users, held_out.items):
            known = train.item_ids[train.user_ids == user]
            allowed = np.setdiff1d(np.arange(train.num_items), [*known, item] if exclude else known)
            share = weights[allowed] / weights[allowed].sum()
            drawn += [(user, i) for i in generator.choice(allowed, 3_000, p=share)]
        report = check(data, np.array(drawn))
        assert report.has_leak == exclude
        if exclude:
            assert report.leaking_order == "seldom"
        else:
            assert report.often.hr_at_10 > report.limit  # Test items are popular.
            assert "the draws of other users rank it as high" in report.verdict


def test_test_items_that_come_on_purpose_are_found(data):
    own = stacked(data[1].users, data[1].items)
    report = check(data, np.concatenate([fair(data[0], 5), *[own] * 30]))
    assert report.leaking_order == "often"
    assert report.often.hr_at_10 > 0.9


def test_movielens_100k_takes_seconds():
    ratings = synthetic_ratings(num_users=943, num_items=1682, mean_ratings_per_user=106, seed=0)
    train, held_out = hold_out_last(ratings, seed=0)
    negatives = fair(train, 10)
    assert len(negatives) > 3_000_000
    start = time.process_time()
    assert not check((train, held_out, ratings), negatives).has_leak
    assert time.process_time() - start < 10


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positives": np.zeros((3, 3), int)}, r"positives must be integers of shape \[n, 2\]"),
        (
            {"negatives": np.zeros((0, 2), int)},
            r"negatives must be .*found int64 of shape \[0, 2\]",
        ),
        ({"negatives": np.zeros((2, 2))}, "found float64"),
        ({"held_out": np.array([[0, -2]])}, "held_out holds the id -2"),
        ({"held_out": pairs([2, 5])}, "user 0 has 2 held-out items"),
        ({"held_out": pairs([2], [3])}, "item 3 is held out for user 1 and is among its positives"),
        ({"candidates": np.zeros((1, 4), int)}, r"shape \[2, m\].*found int64 of shape \[1, 4\]"),
        ({"candidates": np.full((2, 4), -2)}, "candidates must be item ids"),
        ({"candidates": np.array([[0, 2], [3, 4]])}, "none of the 2 users"),
        ({"negatives": np.array([[7, 1]])}, "none of the 2 users"),
    ],
)
def test_what_cannot_be_checked_is_refused(changes, message):
    arguments = {"positives": POSITIVES, "negatives": pairs([5], [5]), "held_out": HELD_OUT}
    with pytest.raises(InputError, match=message):
        check_leak(**{**arguments, **changes})
