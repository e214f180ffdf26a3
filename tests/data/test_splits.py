"""Tests of what the splits guarantee."""

import itertools
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.splits import (
    hold_out_latest,
    order_in_time,
    split_by_time,
    split_by_user,
    split_leave_one_out,
)
from fedrecon.errors import DataError

DEFAULT = (0.8, 0.1, 0.1)
PARTS = ("train", "validation", "test")


def rows_of(part):
    """(user, item, stars, seconds) of every rating, in order."""
    columns = (part.user_ids, part.item_ids, part.ratings, part.timestamps)
    return list(zip(*(column.tolist() for column in columns)))


@st.composite
def data_sets(draw):
    """1 to 12 users with 1 to 25 ratings each, rows of all users interleaved, many equal times."""
    counts = draw(st.lists(st.integers(1, 25), min_size=1, max_size=12))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([rng.permutation(30)[:count] for count in counts])
    order = rng.permutation(len(users))
    return Ratings(
        name="drawn",
        user_ids=users[order],
        item_ids=items[order],
        ratings=rng.integers(1, 6, len(users)),
        timestamps=rng.integers(0, 8, len(users)),
        num_users=len(counts),
        num_items=30,
        original_user_ids=np.arange(len(counts)),
        original_item_ids=np.arange(30),
        item_titles=None,
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )


fractions = st.sampled_from(
    [DEFAULT, (0.7, 0.2, 0.1), (0.6, 0.2, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.1, 0.1, 0.8)]
)


def split_or_reject(split, *args, **kwargs):
    try:
        return split(*args, **kwargs)
    except DataError as error:
        hypothesis.assume("needs" not in str(error))
        raise


def assert_partition_in_order(ratings, split):
    everything = rows_of(ratings)
    position = {row: place for place, row in enumerate(everything)}
    placed = [[position[row] for row in rows_of(getattr(split, part))] for part in PARTS]
    assert sorted(itertools.chain(*placed)) == list(range(len(everything)))
    assert all(part == sorted(part) for part in placed)
    assert all(placed)


@hypothesis.given(data_sets(), fractions, st.integers(0, 100))
def test_by_user_is_a_partition_of_users(ratings, fractions, seed):
    split = split_or_reject(split_by_user, ratings, seed=seed, fractions=fractions)
    assert_partition_in_order(ratings, split)
    users = [set(getattr(split, part).user_ids.tolist()) for part in PARTS]
    assert sum(map(len, users)) == len(set.union(*users)) == ratings.num_users


@hypothesis.given(data_sets(), fractions, st.integers(0, 100))
def test_by_time_orders_and_counts(ratings, fractions, seed):
    split = split_or_reject(split_by_time, ratings, seed=seed, fractions=fractions)
    assert_partition_in_order(ratings, split)
    exact = [Fraction(f).limit_denominator(100) for f in fractions]
    for user in range(ratings.num_users):
        # The rule of the docstring, time by time; the seed decides between equal ones.
        times = sorted(row[3] for row in rows_of(ratings) if row[0] == user)
        expected = {part: [] for part in PARTS}
        for rank, time in enumerate(times, 1):
            share = Fraction(rank, len(times))
            late = (share > exact[0]) + (share > exact[0] + exact[1])
            expected[PARTS[late]].append(time)
        for part in PARTS:
            found = [row[3] for row in rows_of(getattr(split, part)) if row[0] == user]
            assert sorted(found) == expected[part]


@hypothesis.given(data_sets(), st.integers(0, 100))
def test_leave_one_out_takes_the_last_two(ratings, seed):
    split = split_or_reject(split_leave_one_out, ratings, seed=seed)
    assert_partition_in_order(ratings, split)
    for user in range(ratings.num_users):
        times = sorted(row[3] for row in rows_of(ratings) if row[0] == user)
        held = [
            [row[3] for row in rows_of(part) if row[0] == user]
            for part in (split.validation, split.test)
        ]
        assert held == ([[times[-2]], [times[-1]]] if len(times) >= 3 else [[], []])


def test_by_user_sizes_seed_and_id_space(make_ratings):
    ratings = make_ratings([(user, 0, 3, 1) for user in range(40)], num_users=45)
    split = split_by_user(ratings, seed=1)
    assert [getattr(split, part).num_ratings for part in PARTS] == [32, 4, 4]
    assert split.test.num_users == 45
    again, other = (split_by_user(ratings, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(split.test.user_ids, again.test.user_ids)
    assert set(split.test.user_ids) != set(other.test.user_ids)
    # Not just the last users.
    assert set(split.test.user_ids) != set(range(36, 40))


def test_by_time_by_hand(make_ratings):
    # Ten ratings: eight train, one validates, one tests. In floating point, 0.8 + 0.1 < 0.9.
    ratings = make_ratings([(0, item, 3, 100 - item) for item in range(10)])
    split = split_by_time(ratings, seed=0)
    np.testing.assert_array_equal(split.train.item_ids, [2, 3, 4, 5, 6, 7, 8, 9])
    np.testing.assert_array_equal(split.validation.item_ids, [1])
    np.testing.assert_array_equal(split.test.item_ids, [0])


def test_the_seed_decides_between_equal_times(make_ratings):
    # Item 3 alone is early. The two splits, which hold out one and one of ten, agree.
    ratings = make_ratings([(0, item, 3, 2 if item == 3 else 7) for item in range(10)])
    tests = set()
    for seed in range(100):
        by_time = split_by_time(ratings, seed=seed)
        leave_one_out = split_leave_one_out(ratings, seed=seed)
        for part in PARTS:
            assert rows_of(getattr(by_time, part)) == rows_of(getattr(leave_one_out, part))
        assert 3 in by_time.train.item_ids
        tests |= set(by_time.test.item_ids.tolist())
    # Each of the nine is missed with probability (8 / 9) ** 100, 8e-6.
    assert tests == set(range(10)) - {3}


def test_a_user_with_two_ratings_stays_in_train(make_ratings):
    rows = [(0, 0, 3, 9), (0, 1, 3, 8), (1, 0, 3, 1), (1, 1, 3, 3), (1, 2, 3, 2)]
    split = split_leave_one_out(make_ratings(rows), seed=0)
    assert rows_of(split.train) == [(0, 0, 3, 9), (0, 1, 3, 8), (1, 0, 3, 1)]
    assert rows_of(split.validation) == [(1, 2, 3, 2)]
    assert rows_of(split.test) == [(1, 1, 3, 3)]


SPLITS = {
    "by_user": lambda ratings, **options: split_by_user(ratings, seed=0, **options),
    "by_time": lambda ratings, **options: split_by_time(ratings, seed=0, **options),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "fractions",
    [
        (0.8, 0.2),
        (0.5, 0.5, 0.0),
        (0.8, 0.1, 0.2),
        (1.2, -0.1, -0.1),
        (0.8, 0.1, float("nan")),
        (0.8, 0.1, float("inf")),
        ("a", 0.1, 0.1),
        0.8,
    ],
)
def test_unusable_fractions(make_ratings, split, fractions):
    ratings = make_ratings([(user, item, 3, 1) for user in range(20) for item in range(20)])
    with pytest.raises(DataError, match="fractions must be three numbers above 0 with sum 1"):
        SPLITS[split](ratings, fractions=fractions)


@pytest.mark.parametrize("split", [split_by_time, split_leave_one_out])
def test_time_is_needed(make_ratings, split):
    ratings = make_ratings([(0, item, 3, 1) for item in range(10)], with_timestamps=False)
    with pytest.raises(DataError, match=rf"tiny has no timestamps, which {split.__name__} needs"):
        split(ratings, seed=0)


@pytest.mark.parametrize("num_users", [0, 1, 5])
def test_too_few_users(make_ratings, num_users):
    rows = [(user, 0, 3, 1) for user in range(num_users)]
    ratings = make_ratings(rows, num_users=7, num_items=1)
    with pytest.raises(
        DataError, match=rf"tiny has {num_users} users with ratings; .*\(0\.8, .* needs 10 for"
    ):
        split_by_user(ratings, seed=0)


@pytest.mark.parametrize(
    ("split", "num_ratings", "message"),
    [
        (split_by_time, 4, r"2 users .* at most 4 each; .* needs one with 10"),
        (split_by_time, 0, r"0 users .* at most 0 each; .* needs one with 10"),
        (split_leave_one_out, 2, "2 users .* at most 2 each; .* needs a user with 3"),
        (split_leave_one_out, 0, "0 users .* at most 0 each; .* needs a user with 3"),
    ],
)
def test_too_few_ratings(make_ratings, split, num_ratings, message):
    rows = [(user, item, 3, 1) for user in range(2) for item in range(num_ratings)]
    with pytest.raises(DataError, match=message):
        split(make_ratings(rows, num_users=2, num_items=4), seed=0)


def test_the_latest_are_held_out_by_hand(make_ratings):
    rows = [
        *((2, 9, 5, 1), (0, 4, 3, 40), (0, 5, 3, 10), (1, 0, 1, 7), (0, 6, 3, 30), (2, 8, 5, 2)),
        *((0, 7, 3, 20), (1, 1, 2, 6), (1, 2, 3, 9), (2, 7, 5, 3), (2, 6, 5, 4)),
    ]
    rest, latest, num_tied = hold_out_latest(
        make_ratings(rows, num_users=5), np.array([0, 1]), fraction=0.5, seed=0
    )
    # Two of the four of user 0, one of the three of user 1; user 2 is not asked for.
    assert rows_of(latest) == [(0, 4, 3, 40), (0, 6, 3, 30), (1, 2, 3, 9)]
    assert rows_of(rest) == sorted(row for row in rows if row not in rows_of(latest))
    assert num_tied == 0
    assert (rest.num_users, latest.num_users, latest.num_items) == (5, 5, 10)


@pytest.mark.parametrize(
    ("fraction", "num_ratings", "num_held_out"),
    [
        (0.1, 10, 1),
        (0.1, 9, 0),
        (0.3, 10, 3),
        (0.3, 9, 2),
        (0.7, 10, 7),  # In floating point, 1 - 0.7 is 0.30000000000000004.
        (0.29, 100, 29),  # In floating point, 0.29 * 100 is less than 29.
        (1 / 3, 9, 3),
        (0.9, 1, 0),  # Something always remains.
        (0.999, 20, 19),
    ],
)
def test_the_share_held_out_is_exact(make_ratings, fraction, num_ratings, num_held_out):
    rows = [(0, item, 3, item) for item in range(num_ratings)]
    rows += [(1, item, 3, item) for item in range(1000)]
    latest = hold_out_latest(make_ratings(rows), np.array([0, 1]), fraction=fraction, seed=0)[1]
    np.testing.assert_array_equal(
        latest.item_ids[latest.user_ids == 0], np.arange(num_ratings - num_held_out, num_ratings)
    )


def test_users_whose_latest_are_drawn_among_equals_are_counted(make_ratings):
    times = [
        [7, 7, 7, 7, 7],  # Two are held out of five with one time.
        [1, 2, 3, 4, 5],
        [1, 2, 3, 5, 5],  # The two that are held out are equal, but no other is.
        [1, 2, 5, 5, 5],  # One of three remains.
        [1, 1, 1, 4, 5],  # What remains is equal.
        [7, 7, 7, 7, 7],  # Nobody asks for this user.
        [7],  # Nothing is held out.
    ]
    rows = [(user, item, 3, t) for user, mine in enumerate(times) for item, t in enumerate(mine)]
    users = np.array([0, 1, 2, 3, 4, 6])
    for seed in range(5):
        rest, latest, num_tied = hold_out_latest(make_ratings(rows), users, fraction=0.4, seed=seed)
        assert num_tied == 2
        np.testing.assert_array_equal(latest.counts(), [2, 2, 2, 2, 2, 0, 0])
        np.testing.assert_array_equal(rest.counts(), [3, 3, 3, 3, 3, 5, 1])


@hypothesis.given(data_sets(), st.sampled_from([0.1, 0.3, 0.5, 2 / 3, 0.9]), st.integers(0, 2**12))
def test_nothing_that_remains_of_a_user_is_later(ratings, fraction, chosen):
    users = np.array([user for user in range(ratings.num_users) if chosen >> user & 1], np.int64)
    exact = Fraction(fraction).limit_denominator(100)
    counts = np.bincount(ratings.user_ids)
    if not any(exact * int(counts[user]) >= 1 for user in users):
        with pytest.raises(DataError, match=f"none of {len(users)} users has"):
            hold_out_latest(ratings, users, fraction=fraction, seed=chosen)
        return
    rest, latest, num_tied = hold_out_latest(ratings, users, fraction=fraction, seed=chosen)
    everything = rows_of(ratings)
    position = {row: place for place, row in enumerate(everything)}
    placed = [[position[row] for row in rows_of(part)] for part in (rest, latest)]
    assert sorted(itertools.chain(*placed)) == list(range(len(everything)))
    assert all(part == sorted(part) for part in placed)
    tied = 0
    for user in range(ratings.num_users):
        remaining, held = (
            [row for row in rows_of(part) if row[0] == user] for part in (rest, latest)
        )
        count = len(remaining) + len(held)
        assert len(held) == (exact * count // 1 if user in users else 0)
        assert remaining
        if held:
            latest_left, earliest_held = max(r[3] for r in remaining), min(r[3] for r in held)
            assert latest_left <= earliest_held
            tied += latest_left == earliest_held
    assert num_tied == tied


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf"), 1e-9, 1 - 1e-9])
def test_a_share_out_of_range_is_refused(make_ratings, fraction):
    ratings = make_ratings([(0, item, 3, item) for item in range(10)])
    with pytest.raises(DataError, match="the fraction held out must be above 0 and below 1; found"):
        hold_out_latest(ratings, np.array([0]), fraction=fraction, seed=0)


def test_a_share_of_which_nobody_has_one_is_refused(make_ratings):
    ratings = make_ratings([(user, item, 3, item) for user in range(3) for item in range(user + 8)])
    # User 2 has ten and is not asked for.
    message = r"tiny: none of 2 users has 10 ratings, of which a share of 0\.1 would be one"
    with pytest.raises(DataError, match=message):
        hold_out_latest(ratings, np.array([0, 1]), fraction=0.1, seed=0)
    found = hold_out_latest(ratings, np.array([2]), fraction=0.1, seed=0)
    assert found.held_out.num_ratings == 1


def test_time_is_needed_to_hold_out_the_latest(make_ratings):
    ratings = make_ratings([(0, item, 3, 1) for item in range(10)], with_timestamps=False)
    with pytest.raises(DataError, match="tiny has no timestamps, which hold_out_latest needs"):
        hold_out_latest(ratings, np.array([0]), fraction=0.5, seed=0)


NUM_ALIKE = 2000


def alike(num_users, num_items=8, num_ratings=5):
    """Users with `num_ratings` items each, drawn, all rated at one time."""
    rng = np.random.default_rng(1)
    return [
        (user, int(item), 3, 7)
        for user in range(num_users)
        for item in rng.permutation(num_items)[:num_ratings]
    ]


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_with_equal_times_what_is_held_out_is_uniform(make_ratings, seed):
    ratings = make_ratings(alike(NUM_ALIKE), num_items=8)
    ranks, counts, is_tied = order_in_time(ratings, "the test", seed=seed)
    np.testing.assert_array_equal(counts, np.full(5 * NUM_ALIKE, 5))
    ranks = ranks.reshape(NUM_ALIKE, 5)  # Of each user's items, which increase.
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile(np.arange(5), (NUM_ALIKE, 1)))
    # Everything but each user's first is tied with the one before.
    np.testing.assert_array_equal(is_tied.reshape(NUM_ALIKE, 5), ranks > 0)
    test = split_leave_one_out(ratings, seed=seed).test
    places = [
        np.flatnonzero(ratings.item_ids[ratings.rows_of(user)] == item)[0]
        for user, item in zip(test.user_ids.tolist(), test.item_ids.tolist())
    ]
    times = np.bincount(places, minlength=5)  # Binomial: 2,000 of probability 1/5.
    assert (np.abs(times - 400) < 4 * np.sqrt(400 * 0.8)).all(), times
    # Each place has each rank alike.
    for place in range(5):
        times = np.bincount(ranks[:, place], minlength=5)
        assert (np.abs(times - 400) < 4 * np.sqrt(400 * 0.8)).all(), times


def test_with_equal_times_seeds_are_independent(make_ratings):
    ratings = make_ratings(alike(NUM_ALIKE), num_items=8)
    first, again, other = (
        split_leave_one_out(ratings, seed=seed).test.item_ids for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    # Two draws of five agree one time in five.
    assert abs((first == other).mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / NUM_ALIKE)


def test_the_order_of_equal_times_does_not_depend_on_other_users(make_ratings):
    ratings = make_ratings(alike(50), num_items=8)
    everybody = order_in_time(ratings, "the test", seed=4).ranks.reshape(50, 5)
    some = ratings.select(np.isin(ratings.user_ids, [3, 17, 40]))
    alone = order_in_time(some, "the test", seed=4).ranks.reshape(3, 5)
    np.testing.assert_array_equal(alone, everybody[[3, 17, 40]])
    # The order of a user's items does not depend on the user's other items either.
    kept = np.ones(250, bool)
    kept[5 * 17 + 2] = False
    fewer = order_in_time(ratings.select(kept), "the test", seed=4).ranks[5 * 17 : 5 * 17 + 4]
    assert np.argsort(fewer).tolist() == np.argsort(everybody[17][[0, 1, 3, 4]]).tolist()


def test_the_order_in_time_by_hand(make_ratings):
    rows = [(0, 0, 3, 9), (0, 1, 3, 5), (0, 2, 3, 9), (0, 3, 3, 1), (2, 1, 3, 9), (2, 4, 3, 8)]
    ranks, counts, is_tied = order_in_time(make_ratings(rows), "the test", seed=0)
    assert ranks[[1, 3, 4, 5]].tolist() == [1, 0, 1, 0]
    assert sorted(ranks[[0, 2]].tolist()) == [2, 3]
    np.testing.assert_array_equal(counts, [4, 4, 4, 4, 2, 2])
    # The last of user 0 is tied with the one before; user 2's last has user 0's time, no more.
    assert is_tied.tolist() == [ranks[0] == 3, False, ranks[2] == 3, False, False, False]
