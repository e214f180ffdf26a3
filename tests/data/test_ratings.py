"""Tests of the record that holds a data set."""

import dataclasses
import itertools

import numpy as np
import pytest

from fedrecon.data import ratings as ratings_module
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import DataError

ROWS = [(1, 0, 3, 50), (0, 2, 5, 40), (1, 2, 1, 30), (0, 0, 4, 20)]
ARRAYS = (
    "user_ids",
    "item_ids",
    "ratings",
    "timestamps",
    "original_user_ids",
    "original_item_ids",
)


@pytest.mark.parametrize(
    ("scale", "values", "expected"),
    [
        ((1, 5, 1), [0, 1, 3.5, 5, 6], [False, True, False, True, False]),
        ((0.5, 5, 0.5), [0, 0.5, 3.5, 3.7, 5.5], [False, True, True, False, False]),
        ((1, 5, 1), [np.nan, np.inf, -np.inf], [False, False, False]),
        ((0, 1, 0.1), np.array([0.3, 0.7, 0.35], np.float32), [True, True, False]),
        # Beside a small step the spacing of float32 is coarse; the nearest step is what was meant.
        ((0, 100, 0.01), np.array([97.73, 97.735, 100], np.float32), [True, False, True]),
        ((0, 10, 0.001), np.array([6.497, 6.4975, 10.001], np.float32), [True, False, False]),
        ((0.1, 0.3, 0.1), np.array([0.1, 0.2, 0.3, 0.4, 0], np.float32), [1, 1, 1, 0, 0]),
        ((0.1, 0.3, 0.1), [0.1, 0.2, 0.3, 0.301, 0.099], [1, 1, 1, 0, 0]),
        ((1, 5, 1), [1, 0.9999, 5.0001, 5], [True, False, False, True]),
        ((-10, 10, 0.01), np.array([-9.95, 9.955, 0], np.float32), [True, False, True]),
    ],
)
def test_scale_contains(scale, values, expected):
    np.testing.assert_array_equal(RatingScale(*scale).contains(values), expected)


@pytest.mark.parametrize("bounds", [(5, 1, 1), (1, np.inf, 1), (1, 5, 0), (1, 5, np.nan)])
def test_scale_refuses(bounds):
    with pytest.raises(DataError, match="A rating scale needs"):
        RatingScale(*bounds)


def test_arrays_have_their_types_and_are_read_only(make_ratings):
    ratings = make_ratings(ROWS, ratings=[3, 5, 1, 4], user_ids=np.array([1, 0, 1, 0], np.int64))
    expected = (np.int32, np.int32, np.float32, np.int64, np.int64, np.int64)
    assert tuple(getattr(ratings, field).dtype for field in ARRAYS) == expected
    for field in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(ratings, field)[0] = 1


def test_writing_to_the_given_array_changes_nothing(make_ratings):
    given = np.array([3, 5, 1, 4], np.float32)
    view = given[:]
    view.flags.writeable = False
    held = [make_ratings(ROWS, ratings=array) for array in (given, view)]
    given[:] = 2
    for ratings in held:
        np.testing.assert_array_equal(ratings.ratings, [4, 5, 3, 1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"item_ids": [0, 1]}, r"tiny: item_ids has shape \(2,\), expected \(4,\)"),
        ({"timestamps": [1, 2, 3]}, r"timestamps has shape \(3,\), expected \(4,\)"),
        ({"ratings": [[3, 5, 1, 4]]}, r"ratings has shape \(1, 4\), expected \(4,\)"),
        ({"original_user_ids": [0, 1, 2]}, r"original_user_ids has shape \(3,\), expected \(2,\)"),
        ({"original_item_ids": [0, 2, 1]}, "original_item_ids must increase"),
        ({"original_user_ids": [7, 7]}, "original_user_ids must increase"),
        ({"user_ids": [1, 0, 2, 0]}, r"user_ids must lie in \[0, 2\); found 0 to 2"),
        ({"item_ids": [0, 2, -1, 0]}, r"item_ids must lie in \[0, 3\); found -1 to 2"),
        ({"item_ids": [0, 2, 2**32, 0]}, "item_ids does not fit int32"),
        ({"user_ids": [1.0, 0.0, 1.0, 0.0]}, "user_ids is float64, expected integers"),
        ({"timestamps": [1.5, 2, 3, 4]}, "timestamps is float64, expected integers"),
        ({"ratings": [3, 6, 1, 4]}, "rating 6 in row 1 is not on the scale, 1 to 5 in steps of 1"),
        ({"ratings": [3, 5, np.nan, 4]}, "rating nan in row 2 is not on the scale"),
        ({"item_titles": ("a", "b")}, "item_titles has 2 entries for 3 items"),
        ({"item_genres": ((),)}, "item_genres has 1 entries for 3 items"),
    ],
)
def test_refuses_contradictions(make_ratings, overrides, message):
    with pytest.raises(DataError, match=message):
        make_ratings(ROWS, **overrides)


# Small ids are looked up in a table, large ones are sorted: the result must not tell.
@pytest.mark.parametrize("offset", [0, 10**15])
def test_from_original_ids_numbers_by_increasing_original_id(offset):
    ratings = Ratings.from_original_ids(
        "own",
        user_ids=np.array([30, 7, 30]) + offset,
        item_ids=np.array([5, 5, 2]) + offset,
        ratings=np.array([1.0, 2.0, 3.0]),
        timestamps=None,
        scale=RatingScale(1, 5, 1),
    )
    np.testing.assert_array_equal(ratings.user_ids, [0, 1, 1])
    np.testing.assert_array_equal(ratings.item_ids, [1, 0, 1])
    np.testing.assert_array_equal(ratings.ratings, [2, 3, 1])
    np.testing.assert_array_equal(ratings.original_user_ids, np.array([7, 30]) + offset)
    np.testing.assert_array_equal(ratings.original_item_ids, np.array([2, 5]) + offset)
    assert (ratings.num_users, ratings.num_items, ratings.num_ratings) == (2, 2, 3)
    assert ratings.timestamps is None
    assert ratings.item_titles is None


def test_from_original_ids_names_the_first_repeated_pair():
    with pytest.raises(DataError, match=r"^row 3: user 9 rates item 4 again, after row 1;"):
        Ratings.from_original_ids(
            "own",
            user_ids=np.array([1, 9, 1, 9, 1]),
            item_ids=np.array([4, 4, 3, 4, 4]),
            ratings=np.ones(5),
            timestamps=None,
            scale=RatingScale(1, 5, 1),
        )


def test_from_original_ids_refuses_nothing():
    with pytest.raises(DataError, match="own holds no ratings"):
        Ratings.from_original_ids(
            "own",
            user_ids=[],
            item_ids=[],
            ratings=[],
            timestamps=None,
            scale=RatingScale(1, 5, 1),
        )


def test_dense_ids(make_ratings):
    ratings = make_ratings(ROWS)
    assert [ratings.dense_user_id(original) for original in (0, 10)] == [0, 1]
    assert [ratings.dense_item_id(original) for original in (0, 100, 200)] == [0, 1, 2]


@pytest.mark.parametrize("unknown", [-1, 5, 999])
def test_unknown_ids_are_named(make_ratings, unknown):
    ratings = make_ratings(ROWS)
    with pytest.raises(DataError, match=rf"tiny has no user {unknown}; it knows 2 .*\(0 to 10\)"):
        ratings.dense_user_id(unknown)
    with pytest.raises(DataError, match=rf"tiny has no item {unknown}; it knows 3 .*\(0 to 200\)"):
        ratings.dense_item_id(unknown)


@pytest.mark.parametrize("rows", [[3, 1], np.array([False, True, False, True])])
def test_select_keeps_the_id_space(make_ratings, rows):
    ratings = make_ratings(ROWS)
    part = ratings.select(rows)
    np.testing.assert_array_equal(part.user_ids, [0, 1])
    np.testing.assert_array_equal(part.item_ids, [2, 2])
    np.testing.assert_array_equal(part.ratings, [5, 1])
    np.testing.assert_array_equal(part.timestamps, [40, 30])
    assert (part.num_users, part.num_items) == (2, 3)
    assert part.dense_user_id(10) == 1
    assert not part.ratings.flags.writeable


def test_select_nothing(make_ratings):
    part = make_ratings(ROWS).select([])
    assert part.num_ratings == 0
    assert part.num_items == 3


@pytest.mark.parametrize("rows", [[4], [-1], np.array([True, False])])
def test_select_refuses_rows_that_do_not_exist(make_ratings, rows):
    with pytest.raises(IndexError):
        make_ratings(ROWS).select(rows)


def test_select_refuses_a_row_twice(make_ratings):
    with pytest.raises(DataError, match=r"tiny, row 2: user 0 rates item 200 again, after .*row 0"):
        make_ratings(ROWS).select([1, 3, 1])


def test_rows_are_kept_by_user_and_then_by_item(make_ratings):
    for order in itertools.permutations(ROWS):
        ratings = make_ratings(order)
        columns = (ratings.user_ids, ratings.item_ids, ratings.ratings, ratings.timestamps)
        rows = list(zip(*(column.tolist() for column in columns)))
        assert rows == [(0, 0, 4, 20), (0, 2, 5, 40), (1, 0, 3, 50), (1, 2, 1, 30)]


def test_a_pair_twice_is_refused(make_ratings):
    with pytest.raises(
        DataError, match=r"^tiny, row 4: user 10 rates item 200 again, after tiny, row 2; expected"
    ):
        make_ratings([*ROWS, (1, 2, 3, 10)])


# Small pairs are sorted with their rows behind them; the pairs of larger id spaces are not.
@pytest.mark.parametrize("num_items", [10**6, 2**31 - 1])
def test_the_order_is_the_same_for_small_and_large_id_spaces(num_items):
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 2**31 - 1, 300), rng.integers(0, num_items, 300)
    users[100:200] = users[:100]
    names = np.broadcast_to(np.int64(0), num_items)  # No memory.
    order = ratings_module._order(users, items, names, names, str)
    expected = sorted(range(300), key=lambda row: (users[row], items[row]))
    assert order.tolist() == expected


def test_rows_of_a_user_and_counts(make_ratings):
    ratings = make_ratings(ROWS, num_users=4)
    np.testing.assert_array_equal(ratings.counts(), [2, 2, 0, 0])
    assert [ratings.rows_of(user).tolist() for user in range(4)] == [[0, 1], [2, 3], [], []]
    np.testing.assert_array_equal(ratings.pairs(), [0, 2, 3, 5])
    assert {a.dtype for a in (ratings.counts(), ratings.rows_of(0), ratings.pairs())} == {
        np.dtype(np.int64)
    }
    for user in (-1, 4):
        with pytest.raises(IndexError, match=rf"User {user} is outside \[0, 4\)"):
            ratings.rows_of(user)


def test_names_and_titles(make_ratings):
    ratings = make_ratings(ROWS)
    assert [ratings.user_name(user) for user in (0, 1)] == ["0", "10"]
    assert [ratings.item_name(item) for item in (0, 2)] == ["0", "200"]
    assert ratings.item_title(2) == "200"
    titled = make_ratings(ROWS, item_titles=("A", "", "C"))
    assert [titled.item_title(item) for item in range(3)] == ["A", "100", "C"]


def test_fingerprint_depends_on_the_data_and_on_nothing_else(make_ratings):
    base = make_ratings(ROWS)
    same = [
        make_ratings(ROWS),
        make_ratings(ROWS[::-1]),
        dataclasses.replace(base, name="x", item_titles=("a", "b", "c")),
        base.select([1, 0, 2, 3]),
    ]
    other = [
        make_ratings(ROWS, ratings=[3, 5, 1, 5]),
        make_ratings(ROWS, timestamps=[50, 40, 30, 21]),
        make_ratings(ROWS, timestamps=None),
        make_ratings(ROWS, num_users=3),
        make_ratings(ROWS, num_items=4),
        make_ratings(ROWS, original_user_ids=[0, 11]),
        base.select([0, 1, 2]),
    ]
    assert {ratings.fingerprint() for ratings in same} == {base.fingerprint()}
    assert len({ratings.fingerprint() for ratings in [base, *other]}) == 1 + len(other)
    assert len(base.fingerprint()) == 64
