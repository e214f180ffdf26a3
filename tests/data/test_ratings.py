"""Tests of the record that holds a data set."""

import dataclasses

import numpy as np
import pytest

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
        np.testing.assert_array_equal(ratings.ratings, [3, 5, 1, 4])


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
    np.testing.assert_array_equal(ratings.user_ids, [1, 0, 1])
    np.testing.assert_array_equal(ratings.item_ids, [1, 1, 0])
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
    order = [1, 0] if isinstance(rows, list) else [0, 1]
    np.testing.assert_array_equal(part.user_ids, [0, 0])
    np.testing.assert_array_equal(part.item_ids, np.array([2, 0])[order])
    np.testing.assert_array_equal(part.ratings, np.array([5, 4])[order])
    np.testing.assert_array_equal(part.timestamps, np.array([40, 20])[order])
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


def test_rows_by_user(make_ratings):
    rows = make_ratings(ROWS, num_users=4).rows_by_user()
    np.testing.assert_array_equal(rows.offsets, [0, 2, 4, 4, 4])
    np.testing.assert_array_equal(rows.rows, [1, 3, 0, 2])
    np.testing.assert_array_equal(rows.counts, [2, 2, 0, 0])
    np.testing.assert_array_equal(rows.rows_of(1), [0, 2])
    assert rows.rows_of(3).size == 0
    assert (rows.offsets.dtype, rows.rows.dtype) == (np.int64, np.int64)
    for user in (-1, 4):
        with pytest.raises(IndexError, match=rf"User {user} is outside \[0, 4\)"):
            rows.rows_of(user)


def test_fingerprint_depends_on_the_data_and_on_nothing_else(make_ratings):
    base = make_ratings(ROWS)
    same = [make_ratings(ROWS), dataclasses.replace(base, name="x", item_titles=("a", "b", "c"))]
    other = [
        make_ratings(ROWS, ratings=[3, 5, 1, 5]),
        make_ratings(ROWS, timestamps=[50, 40, 30, 21]),
        make_ratings(ROWS, timestamps=None),
        make_ratings(ROWS, num_users=3),
        make_ratings(ROWS, num_items=4),
        make_ratings(ROWS, original_user_ids=[0, 11]),
        base.select([1, 0, 2, 3]),
        base.select([0, 1, 2]),
    ]
    assert {ratings.fingerprint() for ratings in same} == {base.fingerprint()}
    assert len({ratings.fingerprint() for ratings in [base, *other]}) == 1 + len(other)
    assert len(base.fingerprint()) == 64
