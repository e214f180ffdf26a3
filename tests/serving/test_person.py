"""What users give, in every form."""

import numpy as np
import pandas as pd
import pytest

from fedrecon.errors import InputError
from fedrecon.serving.items import Items
from fedrecon.serving.person import place

TITLES = ("Heat (1995)", "Matrix, The (1999)", "Alien", "Alien", "12")
ITEMS = Items(np.array([12, 5, 40, 41, 50]), TITLES, ((),) * 5, np.ones(5, np.int64))


def placed(given, **kwargs):
    found = place(ITEMS, given, **kwargs)
    ratings = None if found.ratings is None else found.ratings.tolist()
    return found.rows.tolist(), ratings, found.unplaced


@pytest.mark.parametrize(
    "given",
    [
        {5: 4, "Heat (1995)": "2.5"},
        {"5": 4.0, 12: np.float32(2.5)},
        pd.Series([4, 2.5], index=["matrix, the (1999)", 12]),
        pd.DataFrame({"item": [5, "Heat (1995)"], "rating": [4, 2.5]}),
        pd.DataFrame({"Title ": ["Matrix, The (1999)", "heat (1995)"], "STARS": ["4", " 2.5 "]}),
        pd.DataFrame({"user_id": [1, 1], "movieId": [5, 12], "rating": [4, 2.5]}),
        pd.DataFrame({"reader": "me", "film": [5, 12], "title": "x", "stars": [4, 2.5]}),
        pd.DataFrame({"item_id": [5.0, 12.0], "score": [4, 2.5]}, index=[8, 8]),
    ],
)
def test_every_form_gives_rows_and_ratings_in_its_order(given):
    assert placed(given) == ([1, 0], [4, 2.5], ())


@pytest.mark.parametrize(
    "given",
    [
        [5, "Heat (1995)"],
        (5, 12),
        iter(["5", 12]),
        np.array([5, 12]),
        pd.DataFrame({"item": [5, 12]}),
    ],
)
def test_items_alone_have_no_ratings(given):
    assert placed(given) == ([1, 0], None, ())


def test_an_id_goes_before_a_title_that_reads_the_same():
    assert placed({"12": 3}) == ([0], [3], ())


def test_what_is_unknown_is_kept_apart_with_its_rating():
    found = place(ITEMS, {"Heta (1995)": 1, 5: 4, -3: 2, 10**25: 2})
    assert (found.rows.tolist(), found.ratings.tolist()) == ([1], [4])
    assert found.unplaced == ("Heta (1995)", "-3", str(10**25))
    sentences = found.unplaced_sentences(ITEMS)
    assert sentences[0] == (
        "'Heta (1995)' is no item of the model. Did you mean 'Heat (1995)' (12)?"
    )
    assert sentences[1] == "'-3' is no item of the model."


def test_where_only_items_count_ratings_are_not_read():
    assert placed({5: "good", 12: None}, takes_ratings=False) == ([1, 0], None, ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({5: 4, "5": 3}, "'5' and '5' are the same item, 'Matrix, The"),
        ([12, "heat (1995)"], "'12' and 'heat (1995)' are the same item, 'Heat (1995)'"),
        ({5: "good"}, "'5' has the rating 'good', which is no number"),
        ({5: 4, 12: None}, "'12' has no rating; give each item a number of stars"),
        ({5: float("nan")}, "'5' has no rating"),
        ({5: float("inf")}, "'5' has the rating inf, which is no number"),
        ({5: ""}, "'5' has no rating"),
        ({5: [4]}, r"'5' has the rating \[4\]"),
        ({5: pd.NA}, "'5' has no rating"),
        ({}, "no item is given"),
        ([], "no item is given"),
        (pd.DataFrame({"item": [], "rating": []}), "no item is given"),
        (pd.DataFrame({"was": [5], "rating": [4]}), "the columns are was, rating, and none is kn"),
        (
            pd.DataFrame({"film": [5], "movie": [5], "rating": [4]}),
            "the columns 'movie' and 'film' may each be the item; leave all but one of them out",
        ),
        (pd.DataFrame({"user": [1, 2], "item": [5, 5]}), "the column user has 2 users"),
        ("Heat", "'Heat' is no ratings"),
        (b"Heat", "b'Heat' is no ratings"),
        (5.5, "5.5 is no ratings"),
        (None, "None is no ratings"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(given, message):
    message = message.replace("(1995)", r"\(1995\)")
    with pytest.raises(InputError, match=message):
        place(ITEMS, given)
