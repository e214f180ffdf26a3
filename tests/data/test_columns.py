"""Which columns are taken for which, and what is said where that is not clear."""

import shlex

import pytest

from fedrecon.data.advice import Advice
from fedrecon.data.columns import choose, choose_given, choose_of_items, parse_columns
from fedrecon.errors import DataError


def chosen(header, columns=None, *, no_ratings=False):
    """The names of the columns by role, and the notes."""
    names = header.split(",")
    given = None if columns is None else parse_columns(columns)
    found = choose(
        names,
        [["1"] * len(names)],
        label="mine.csv",
        given=given,
        no_ratings=no_ratings,
        advice=Advice.FLAGS,
    )
    return {role: names[place] for role, place in found.places.items()}, found.notes


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("reader,film,stars,when", "reader film stars when"),
        ("user,movie,rating,watched_at", "user movie rating watched_at"),
        ("user,title,score,date", "user title score date"),
        ("title,user,movieId,rating,timestamp", "user movieId rating timestamp"),
        ("username,movie,movie_id,user_id,rating", "user_id movie_id rating"),
        ("user_id,asin,parent_asin,rating,timestamp", "user_id asin rating timestamp"),
        ("overall,reviewTime,reviewerID,asin,reviewerName,unixReviewTime",
         "reviewerID asin overall unixReviewTime"),
        ("user_id,book_id,rating,date_added,read_at", "user_id book_id rating date_added"),
        ("user_id:token,item_id:token,rating:float", "user_id:token item_id:token rating:float"),
    ],
)  # fmt: skip
def test_columns_are_known_by_their_names(header, expected):
    roles = ("user", "item", "rating", "timestamp")
    assert chosen(header)[0] == dict(zip(roles, expected.split()))


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("leser,film,stars,when", "user=leser", "leser film stars when"),
        ("user,item,rating,mine", "rating=mine", "user item mine"),
        ("user,film,movie,stars", "item=movie", "user movie stars"),
        ("user,film,stars,when", "timestamp=none", "user film stars"),
        ("user,film,stars,when", "user=2,item=1", "film user stars when"),
        # A column that is named is no other role's, whatever it is called.
        ("user,item,rating,date", "rating=date", "user item date"),
    ],
)
def test_what_is_not_named_is_found_out(header, columns, expected):
    roles = ("user", "item", "rating", "timestamp")
    assert chosen(header, columns)[0] == dict(zip(roles, expected.split()))


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (
            "leser,film,stars,when",
            None,
            "no column is known as the user; recognized: item is 'film', rating is 'stars', "
            "timestamp is 'when'; not recognized: 'leser'; give --columns=user=leser.",
        ),
        (
            "leser,film,stars,a b",
            None,
            "no column is known as the user; recognized: item is 'film', rating is 'stars'; not "
            "recognized: 'leser', 'a b'; give for example --columns=user=leser.",
        ),
        (
            "my reader,film,stars",
            None,
            "no column is known as the user; recognized: item is 'film', rating is 'stars'; not "
            "recognized: 'my reader'; give --columns='user=my reader'.",
        ),
        (
            "a=b,film,stars",
            None,
            "no column is known as the user; recognized: item is 'film', rating is 'stars'; not "
            "recognized: 'a=b'; give --columns=user=1.",
        ),
        (
            "user,film,liked",
            None,
            "no column is known as the rating; recognized: user is 'user', item is 'film'; not "
            "recognized: 'liked'; give --columns=rating=liked, or --no_ratings if each row is an "
            "interaction without a rating.",
        ),
        (
            "film,stars",
            None,
            "no column is known as the user; recognized: item is 'film', rating is 'stars'; a file "
            "of ratings needs such a column.",
        ),
        (
            "user,film,movie,stars",
            None,
            "'movie' and 'film' may each be the item; give --columns=item=movie or "
            "--columns=item=film.",
        ),
        (
            "user,film,stars,date,time",
            None,
            "'time' and 'date' may each be the timestamp; give --columns=timestamp=time or "
            "--columns=timestamp=date or --columns=timestamp=none.",
        ),
        (
            ",wer,film,stars,x",
            "item=film",
            "no column is known as the user; recognized: item is 'film', rating is 'stars'; not "
            "recognized: 'wer', 'x'; give for example --columns=item=film,user=wer.",
        ),
        (
            "user,film,stars,score",
            "item=film",
            "'stars' and 'score' may each be the rating; give --columns=item=film,rating=stars or "
            "--columns=item=film,rating=score.",
        ),
        (
            "user,film,rating,rating",
            None,
            "two columns are called 'rating', so it cannot be told which is the rating; give "
            "--columns=rating=3 or --columns=rating=4.",
        ),
    ],
)
def test_what_is_not_clear_is_said_with_flags_that_work(header, columns, message):
    with pytest.raises(DataError) as raised:
        chosen(header, columns)
    assert str(raised.value) == f"mine.csv: {message}"
    for flag in shlex.split(message):
        if flag.startswith("--columns="):
            assert chosen(header, flag.removeprefix("--columns=").rstrip(".,"))


def test_ratings_that_are_not_wanted_may_be_unclear():
    assert chosen("user,film,rating,score", no_ratings=True)[0] == {"user": "user", "item": "film"}


def test_what_was_decided_is_told():
    assert chosen("reader,film,stars,mood")[1] == [
        "Columns: user is 'reader', item is 'film', rating is 'stars'.",
        "Not used: 'mood'.",
        "No column is known as the time; --columns=timestamp=mood names one.",
    ]
    assert chosen("leser,film,stars", "user=leser")[1] == [
        "Columns (user as --columns says): user is 'leser', item is 'film', rating is 'stars'."
    ]
    assert chosen("a,b,c", "user=a,item=b,rating=c")[1] == [
        "Columns, as --columns says: user is 'a', item is 'b', rating is 'c'."
    ]


def test_a_title_of_an_items_file_is_no_id():
    found = choose_of_items(["id", "title", "genres"], 3, label="items.csv")
    assert found.places == {"item": 0, "title": 1, "genres": 2}
    found = choose_of_items(["book_id", "isbn", "title"], 3, label="items.csv")
    assert found.places == {"item": 0, "title": 2}


def given(header, columns=None, known=None):
    names = header.split(",")
    found = choose_given(
        names,
        [["1"] * len(names)],
        label="me.csv",
        given=columns and parse_columns(columns),
        known=known and parse_columns(known),
    )
    return {role: names[place] for role, place in found.places.items()}


def test_what_users_give_may_be_called_as_in_training_or_as_is_said():
    assert given("film,stars,when") == {"item": "film", "rating": "stars"}
    assert given("was,wie", known="user=wer,item=was,rating=wie") == {
        "item": "was",
        "rating": "wie",
    }
    # Numbers are of the file of training, and so are names that this file does not have.
    assert given("film,stars", known="item=2,user=wer") == {"item": "film", "rating": "stars"}
    assert given("was,stars,mood", "item=was") == {"item": "was", "rating": "stars"}
    with pytest.raises(DataError, match=r"what the column 'mood' is; give --columns=user=mood if"):
        given("film,stars,mood")
    with pytest.raises(DataError, match=r"'was', 'mood'; give for example --columns=item=was\.$"):
        given("was,stars,mood")
