"""What may be an id, and what is refused: an id is never changed into another."""

import numpy as np
import pandas as pd
import pytest

from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import DataError


def ratings_of(users, items=None, **options):
    count = len(users)
    return Ratings.from_original_ids(
        "own",
        user_ids=users,
        item_ids=np.arange(count) if items is None else items,
        ratings=options.pop("ratings", np.ones(count)),
        timestamps=options.pop("timestamps", None),
        scale=RatingScale(1, 5, 1),
        **options,
    )


WORDS = ["u9", "é", "u10", "u9"]
FORMS_OF_TEXT = {
    "list": lambda: WORDS,
    "tuple": lambda: tuple(WORDS),
    "array of text": lambda: np.array(WORDS),
    "array of objects": lambda: np.array(WORDS, object),
    "series": lambda: pd.Series(WORDS, index=[7, 3, 3, 0]),
    "series of pandas' text": lambda: pd.Series(WORDS, dtype="string"),
    "categories": lambda: pd.Series(WORDS, dtype="category"),
}


@pytest.mark.parametrize("form", FORMS_OF_TEXT)
def test_text(form):
    ratings = ratings_of(FORMS_OF_TEXT[form]())
    assert ratings.original_user_ids.tolist() == ["u10", "u9", "é"]  # As Python sorts text.
    # Rows are by user and then by item, and the items were 0 to 3.
    assert ratings.user_ids.tolist() == [0, 1, 1, 2]
    assert ratings.item_ids.tolist() == [2, 0, 3, 1]
    assert [ratings.user_name(user) for user in range(3)] == ["u10", "u9", "é"]
    assert [ratings.dense_user_id(name) for name in ("u10", "u9", "é")] == [0, 1, 2]
    for unknown in ("u", "zz", 9):
        with pytest.raises(
            DataError, match=r"own has no user .*; it knows 3 user ids, such as 'u10'\."
        ):
            ratings.dense_user_id(unknown)
    assert len(ratings.fingerprint()) == 64
    assert ratings.fingerprint() == ratings_of(WORDS).fingerprint()


def test_text_and_numbers_are_different_ids():
    digits, numbers = ratings_of(["1", "2"]), ratings_of([1, 2])
    assert digits.fingerprint() != numbers.fingerprint()
    assert numbers.dense_user_id(2) == digits.dense_user_id("2") == 1
    for ratings, other in ((digits, 2), (numbers, "2")):
        with pytest.raises(DataError, match="own has no user"):
            ratings.dense_user_id(other)
    # As text, 151 and 0151 are two.
    assert ratings_of(["151", "0151"]).num_users == 2


FORMS_OF_NUMBERS = {
    "list": lambda v: v,
    "int64": lambda v: np.array(v, np.int64),
    "int32": lambda v: np.array(v, np.int32),
    "objects": lambda v: np.array(v, object),
    "NumPy's numbers": lambda v: [np.int64(value) for value in v],
    "series with another index": lambda v: pd.Series(v, index=[5, 5, 0, 1]),
    "pandas' whole numbers": lambda v: pd.Series(v, dtype="Int64"),
}


@pytest.mark.parametrize("form", FORMS_OF_NUMBERS)
def test_numbers_may_be_negative(form):
    ratings = ratings_of(FORMS_OF_NUMBERS[form]([3, -7, 0, -7]))
    assert ratings.original_user_ids.tolist() == [-7, 0, 3]
    assert ratings.user_ids.tolist() == [0, 0, 1, 2]
    assert ratings.item_ids.tolist() == [1, 3, 2, 0]
    assert ratings.dense_user_id(-7) == 0


def test_the_largest_numbers():
    ids = [2**63 - 1, -(2**63), 2**63 - 2]
    for given in (ids, np.array(ids, np.int64), np.array(ids, object)):
        assert ratings_of(given).original_user_ids.tolist() == [ids[1], ids[2], ids[0]]
    positive = np.array([2**63 - 1, 5], np.uint64)
    assert ratings_of(positive).original_user_ids.tolist() == [5, 2**63 - 1]


NAN = float("nan")
REFUSED = {
    "floats": (np.array([1.2, 1.7]), r"user ids are float64, such as 1\.2 in row 0; give whole"),
    "one float": (np.array([1, 2.5]), r"user ids are float64, such as 2\.5 in row 1"),
    "infinite": (np.array([1, np.inf]), r"user ids are float64, such as inf in row 1"),
    "whole floats": (np.array([1.0, 2.0]), "user ids are float64, such as 1.0 in row 0"),
    "a float in a list": ([1, 1.5], r"row 1 has the user id 1\.5; user ids must be all whole"),
    "not a number": (np.array([1, NAN]), "user ids are float64, such as nan in row 1"),
    "not a number, as an object": (np.array([1, NAN], object), "row 1 has the user id nan; user"),
    "not a number first": (np.array([NAN, "a"], object), "row 0 has the user id nan; user"),
    "a gap in text": (pd.Series(["a", None]), "row 1 has the user id None; user ids must"),
    "a gap in numbers": (
        pd.Series([1, None], dtype="Int64"),
        "ids are float64, such as nan in row 1",
    ),
    "bools": (np.array([True, False]), "user ids are bool, such as True in row 0"),
    "a bool among numbers": ([2, True], "row 1 has the user id True; user ids must be all"),
    "text among numbers": ([1, "a"], "row 1 has the user id 'a'; user ids must be all whole"),
    "a number among text": (["a", "b", 3], "row 2 has the user id 3; user ids must be all"),
    "bytes": (np.array([b"a", b"b"]), r"user ids are .S1, such as b'a' in row 0"),
    "times": (np.array(["2001-01-01"], "M8[s]"), r"ids are datetime64.s., such as 2001-01-01T"),
    "no text": (["a", ""], "row 1 has an empty user id"),
    "uint64": (
        np.array([7, 2**63], np.uint64),
        "user ids are uint64, such as 9223372036854775808 in row 1; give whole numbers that fit",
    ),
    "20 digits": ([7, 10**19], "row 1 has the user id 10000000000000000000, which does not fit"),
    "20 digits below 0": ([-(10**19)], "row 0 has the user id -10000000000000000000, which does"),
    "30 digits": (np.array([10**29, 1], object), "row 0 has the user id 10{29}, which does not f"),
    "NumPy's large number": ([np.uint64(2**63)], "user id 9223372036854775808, which does not f"),
    "two columns": (np.ones((2, 2), int), r"user ids have shape \(2, 2\); give one row"),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_other_ids_are_refused_in_one_sentence(problem):
    ids, message = REFUSED[problem]
    with pytest.raises(DataError, match=message) as caught:
        ratings_of(ids)
    assert str(caught.value).startswith("own: ")
    assert str(caught.value).count(". ") == 0
    with pytest.raises(DataError, match=message.replace("user", "item")):
        ratings_of(np.arange(len(ids)), ids)


@pytest.mark.parametrize("items", [[], [1], np.zeros(0, np.int64), np.arange(3)])
def test_as_many_users_as_items(items):
    message = f"own: there are 2 user ids and {len(items)} item ids; give one of each"
    with pytest.raises(DataError, match=message):
        ratings_of([1, 2], items)


def test_series_with_another_index_are_read_by_place():
    frame = pd.DataFrame(
        {"user": ["b", "a", "b", "a"], "item": [4, 4, 2, 9], "stars": [1, 2, 3, 4]},
        index=[30, 10, 20, 10],
    )
    ratings = ratings_of(frame["user"], frame["item"], ratings=frame["stars"])
    assert ratings.original_user_ids.tolist() == ["a", "b"]
    assert ratings.ratings.tolist() == [2, 4, 3, 1]  # (a, 4), (a, 9), (b, 2), (b, 4).


@pytest.mark.parametrize("name_of_row", [None, "file.csv, line {}".format])
def test_a_repeated_pair_in_series_names_its_rows(name_of_row):
    users, items = (
        pd.Series(["b", "a", "b"], index=[3, 1, 2]),
        pd.Series([4, 4, 4], index=[8, 9, 7]),
    )
    options = {} if name_of_row is None else {"name_of_row": name_of_row}
    row = "row {}" if name_of_row is None else "file.csv, line {}"
    with pytest.raises(DataError) as caught:
        ratings_of(users, items, **options)
    assert str(caught.value) == (
        f"{row.format(2)}: user b rates item 4 again, after {row.format(0)}; expected one rating "
        "per user and item."
    )


def test_a_rating_off_the_scale_is_named_by_the_row_that_was_given():
    # The rows come to lie the other way round.
    with pytest.raises(DataError, match=r"^own: rating 9 in row 0 is not on the scale, 1 to 5 in"):
        ratings_of([7, 3], ratings=np.array([9, 4]))
    with pytest.raises(DataError, match=r"^own: rating nan in f\.csv, line 1 is not on the scale"):
        ratings_of([7, 3], ratings=[4, np.nan], name_of_row="f.csv, line {}".format)


@pytest.mark.parametrize("stars", [["3", "4"], [True, False], pd.Series([3, None], dtype=object)])
def test_ratings_that_are_no_numbers_are_refused(stars):
    with pytest.raises(DataError, match=r"own: ratings is (<U1|bool|object), expected numbers"):
        ratings_of([7, 3], ratings=stars)


@pytest.mark.parametrize("field", ["ratings", "timestamps"])
def test_other_columns_must_be_as_long(field):
    with pytest.raises(DataError, match=rf"own: {field} has shape \(3,\), expected \(2,\)"):
        ratings_of([1, 2], **{field: np.ones(3, int)})
