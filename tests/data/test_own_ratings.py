"""Files and data frames as people have them: how they are read, what is said, what is refused."""

import gzip
import itertools
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrecon.data import delimited, own_text
from fedrecon.data.advice import Advice
from fedrecon.data.datasets import load_dataset
from fedrecon.data.own_ratings import read_ratings
from fedrecon.data.own_values import ReadingOptions
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import DataError, InputError

ROWS = [(1, 98, 3, 1000000000), (1, 141, 4.5, 1000000001), (2, 98, 5, 1000000000), (7, 9, 1, 7)]
LINES = [",".join(map(str, row)) for row in ROWS]
HEADER = "userId,movieId,rating,timestamp"


@pytest.fixture
def read(tmp_path):
    """Reads a file with a content, given as text or bytes; options by name."""

    def read_file(content, *, file="mine.csv", items=None, advice=Advice.FLAGS, **options):
        path = tmp_path / file
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if items is not None:
            (tmp_path / "items.csv").write_text(items)
            items = tmp_path / "items.csv"
        options = ReadingOptions(**options)
        return read_ratings(path, options=options, items_file=items, advice=advice)

    return read_file


def text(*lines, end="\n"):
    return end.join([*lines, ""])


def rows_of(ratings):
    """(user, item, stars, seconds) of each rating, by original ids."""
    times = itertools.repeat(None) if ratings.timestamps is None else ratings.timestamps.tolist()
    users = ratings.original_user_ids[ratings.user_ids].tolist()
    items = ratings.original_item_ids[ratings.item_ids].tolist()
    return list(zip(users, items, ratings.ratings.tolist(), times))


# --- layouts --------------------------------------------------------------------------------------


def with_separator(separator):
    return text(*(line.replace(",", separator) for line in [HEADER, *LINES]))


LAYOUTS = {
    "comma": with_separator(","),
    "tab": with_separator("\t"),
    "semicolon": with_separator(";"),
    "pipe": with_separator("|"),
    "space": with_separator(" "),
    "two colons": text(*(line.replace(",", "::") for line in LINES)),
    "no header": text(*LINES),
    "no end of line at the end": "\n".join(LINES),
    "empty lines at the end": text(HEADER, *LINES, "", ""),
    "CRLF": text(HEADER, *LINES, end="\r\n"),
    "CR": text(HEADER, *LINES, end="\r"),
    "UTF-8 with a mark": "\ufeff" + text(HEADER, *LINES),
    "UTF-16": text(HEADER, *LINES).encode("utf-16"),
    "quotes": text(*(",".join(f'"{f}"' for f in line.split(",")) for line in [HEADER, *LINES])),
    "index of pandas": text("," + HEADER, *(f"{n},{line}" for n, line in enumerate(LINES))),
    "RecBole": text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        *(line.replace(",", "\t") for line in LINES),
    ),
    "another order": text(
        "rating,timestamp,userId,movieId", *(f"{r},{t},{u},{i}" for u, i, r, t in ROWS)
    ),
    "another column, in quotes": text(
        "userId,movieId,review,rating,timestamp",
        *(f'{u},{i},"good, or\nnot ""so"" good",{r},{t}' for u, i, r, t in ROWS),
    ),
    "another column, with escapes": text(
        '"userId";"movieId";"title";"rating";"timestamp"',
        *(f'"{u}";"{i}";"a \\"b\\"; c";"{r}";"{t}"' for u, i, r, t in ROWS),
    ),
    "names with quotes of their own": text(
        "userId\tmovieId\tartist\trating\ttimestamp",
        *(f'{u}\t{i}\t"Weird Al" Yankovic\t{r}\t{t}' for u, i, r, t in ROWS),
    ),
    "Latin-1": text(
        "userId,movieId,title,rating,timestamp", *(f"{u},{i},é,{r},{t}" for u, i, r, t in ROWS)
    ).encode("latin-1"),
    "blanks": text("userId, movieId, rating, timestamp", *(", ".join(x.split(",")) for x in LINES)),
    "float times": text(HEADER, *(f"{u},{i},{r},{t}.5" for u, i, r, t in ROWS)),
    "milliseconds": text(HEADER, *(f"{u},{i},{r},{max(t, 10**9)}999" for u, i, r, t in ROWS)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read_as_the_same_ratings(read, layout):
    expected = sorted(ROWS)
    if layout == "milliseconds":
        expected = sorted((u, i, r, max(t, 10**9)) for u, i, r, t in ROWS)
    assert rows_of(read(LAYOUTS[layout])) == expected


@pytest.mark.parametrize(
    ("layout", "note"),
    [
        ("tab", "Fields are separated by tabs; the first line is a header."),
        ("two colons", "Fields are separated by '::'; there is no header."),
        ("quotes", "Fields are separated by ',', some in quotes; the first line is a header."),
        ("another column, in quotes", "Not used: 'review'."),
        ("names with quotes of their own", "Quotes are taken for a part of the field that they st"),
        ("Latin-1", "It is read as Latin-1, since line 2 is not UTF-8."),
        ("UTF-16", "It is UTF-16."),
        ("blanks", "Blanks around ids are no part of them."),
        ("milliseconds", "Times are milliseconds, by their size; they are kept as whole seconds."),
        ("float times", "Times are kept as whole seconds."),
        ("index of pandas", "The first column has no name and is not used: pandas writes its"),
        ("comma", "Ratings are 1 to 5 in steps of 0.5, as found; --rating_scale sets another sca"),
    ],
)
def test_what_was_found_out_is_said(read, layout, note):
    assert note in " ".join(read(LAYOUTS[layout]).notes)


def test_compressed_files(read, tmp_path):
    plain = text(HEADER, *LINES)
    expected = read(plain).fingerprint()
    zipped = read(gzip.compress(plain.encode()), file="mine.csv.gz")
    assert (zipped.fingerprint(), zipped.name) == (expected, "mine")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/ratings.csv", plain)
        archive.writestr("__MACOSX/folder/._ratings.csv", b"\0")
    assert read_ratings(tmp_path / "a.zip").fingerprint() == expected
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("folder/items.csv", "x")
    with pytest.raises(DataError, match=r"a\.zip holds 2 files \(folder/ratings\.csv, folder/it"):
        read_ratings(tmp_path / "a.zip")


def test_it_reads_what_the_reader_of_movielens_reads(read, tmp_path):
    ratings = read(text(HEADER, *LINES), file="ratings.csv")
    named = load_dataset("movielens-latest", data_dir=tmp_path)
    assert ratings.fingerprint() == named.fingerprint()


def test_stretches_of_a_file_are_put_together(read, monkeypatch):
    rows = [f"{n % 7},{n},{n % 5 + 1},{n}" for n in range(50)]
    for lines in (rows, [*rows, "a,b,3,9"], [*rows, "0,99,,9"]):
        expected = read(text(HEADER, *lines), off_scale="drop")
        monkeypatch.setattr(delimited, "_ROWS_PER_CHUNK", 8)
        monkeypatch.setattr(delimited, "_BYTES_PER_PART", 40)
        assert read(text(HEADER, *lines), off_scale="drop").fingerprint() == expected.fingerprint()
        monkeypatch.undo()


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["151", "0151"], ["0151", "151"]),
        (["7", "12345678901234567890"], ["12345678901234567890", "7"]),
        (["9223372036854775807", "10"], [10, 2**63 - 1]),
        (["9223372036854775808", "10"], ["10", "9223372036854775808"]),
        (["76561197960265728", "76561197960265729"], [76561197960265728, 76561197960265729]),
        (["12X", "7"], ["12X", "7"]),
        (["1.0", "1"], ["1", "1.0"]),
        (["+1", "1"], ["+1", "1"]),
        (["1e3", "1000"], ["1000", "1e3"]),
        (["-1", "1"], [-1, 1]),
        (["NA", "null"], ["NA", "null"]),
        (["Ünï", "名"], ["Ünï", "名"]),
    ],
)
def test_an_id_is_never_changed(read, ids, kept):
    rows = [f"{user},5,{n + 1},9" for n, user in enumerate(ids)]
    ratings = read(text(HEADER, *rows))
    assert ratings.original_user_ids.tolist() == kept
    rows = [f"5,{item},{n + 1},9" for n, item in enumerate(ids)]
    assert read(text(HEADER, *rows)).original_item_ids.tolist() == kept


FIELDS = {
    "id": st.sampled_from(
        ["1", "2", "10", "01", "+1", "1.0", "-1", "-0", "1e1", " 2", "5.", "x", "", "9" * 19]
    ),
    "rating": st.sampled_from(["1", "2", "5", "10", "3.75", "-2", ".5", "2.0", "", "1e0", "nan"]),
    "time": st.sampled_from(["7", "10", "1000000000", "07", "7.0", "-5", "", "+3", "2001-01-01"]),
}
LINE = st.tuples(FIELDS["id"], FIELDS["id"], FIELDS["rating"], FIELDS["time"]).map(",".join)
TIDY = st.tuples(
    *(st.sampled_from(["1", "2", "34", "567"]) for _ in range(2)),
    st.sampled_from(["1", "2.5", "10", "3.75"]),
    st.sampled_from(["7", "1000000000"]),
).map(",".join)


@settings(deadline=None)
@given(lines=st.lists(TIDY | LINE, min_size=2, max_size=6), data=st.data())
def test_every_way_of_reading_gives_the_same(tmp_path_factory, lines, data):
    """The fast ways read what the patient one reads, or leave it to it; in any order of lines."""
    path = tmp_path_factory.mktemp("own") / "r.csv"
    options = ReadingOptions(rating_scale=(-10, 10, 0.01), off_scale="drop", duplicates="latest")

    def outcome(lines):
        path.write_text(text(HEADER, *lines))
        try:
            return read_ratings(path, options=options).fingerprint()
        except DataError as error:
            return str(error)

    def refuse(*args):
        raise ValueError

    found = outcome(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_text, "_read_numbers", refuse)
        assert outcome(lines) == found
        patch.setattr(own_text, "_read_typed", refuse)
        assert outcome(lines) == found
    if len(found) == 64:
        assert outcome(data.draw(st.permutations(lines))) == found


# --- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "user,item,rating,timestamp",
        "user_id,item_id,rating,timestamp",
        "reviewerID,asin,overall,unixReviewTime",
        "User-ID,ISBN,Book-Rating,date",
        "uid,bookId,stars,created_at",
        "USER,MOVIE,SCORE,TIME",
        "steamid,appid,score,ts",
    ],
)
def test_usual_names_are_known(read, header):
    assert rows_of(read(text(header, *LINES))) == sorted(ROWS)


def test_columns_by_name_or_number(read):
    lines = [f"x,{r},{u},{i},{t}" for u, i, r, t in ROWS]
    expected = sorted(ROWS)
    content = text("a,how,who,what,when", *lines)
    by_name = {"user": "who", "item": "what", "rating": "how"}
    assert rows_of(read(content, columns=by_name)) == expected
    without_times = [(u, i, r, None) for u, i, r, t in expected]
    assert rows_of(read(content, columns={**by_name, "timestamp": None})) == without_times
    # Where there are no names, places tell roles in files of up to four columns.
    by_number = {"user": "3", "item": "4", "rating": "2"}
    assert rows_of(read(text(*lines), columns=by_number)) == without_times
    lines = [f"{i},{u},{r},{t}" for u, i, r, t in ROWS]
    assert rows_of(read(text(*lines), columns={"user": "2", "item": "1"})) == expected


NO_RATINGS = {
    "two columns": (text("a,x", "b,y", "a,y"), None),
    "header": (text("user,item,time", "a,x,1000000000", "b,y,1000000007", "a,y,1000000009"), 10**9),
    "by place": (text("a,x,1000000000", "b,y,1000000007", "a,y,1000000009"), 10**9),
    "a rating that is not used": (
        text("user,item,rating,time", "a,x,3,1000000000", "b,y,1,1000000007", "a,y,2,1000000009"),
        10**9,
    ),
}


@pytest.mark.parametrize("form", NO_RATINGS)
def test_interactions_without_ratings(read, form):
    content, first_time = NO_RATINGS[form]
    ratings = read(content, no_ratings=True)
    assert [row[:3] for row in rows_of(ratings)] == [("a", "x", 1), ("a", "y", 1), ("b", "y", 1)]
    assert ratings.scale == RatingScale(0, 1, 1)
    assert (ratings.timestamps is None) == (first_time is None)
    assert "Each row is an interaction, with rating 1." in ratings.notes
    if "not used" in form:
        assert "The ratings in 'rating' are not used, as --no_ratings says." in ratings.notes
    else:
        with pytest.raises(DataError, match="give --no_ratings if each row is an interaction with"):
            read(content)


# --- scales and times -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stars", "scale"),
    [
        (["1", "5", "3"], (1, 5, 1)),
        (["0.5", "5", "3"], (0.5, 5, 0.5)),
        (["1.00", "2.25"], (1, 2.25, 0.25)),
        (["1", "3.1", "2"], (1, 3.1, 0.1)),
        (["-10.00", "9.37", "0"], (-10, 9.37, 0.01)),
        (["10", "20", "1"], (1, 20, 1)),
        (["0", "1"], (0, 1, 1)),
        (["-1", "0", "1"], (-1, 1, 1)),
        (["100000", "1", "37"], (1, 100000, 1)),
    ],
)
def test_the_scale_is_inferred(read, stars, scale):
    ratings = read(text(HEADER, *(f"{n},1,{value},9" for n, value in enumerate(stars))))
    assert ratings.scale == RatingScale(*scale)
    np.testing.assert_array_equal(ratings.ratings, np.array(stars, np.float32))


@pytest.mark.parametrize("words", [["True", "False"], ["true", "FALSE"]])
def test_truth_is_a_rating(read, words):
    ratings = read(
        text("user,item,liked", *(f"1,{n},{w}" for n, w in enumerate(words))),
        columns={"user": "user", "item": "item", "rating": "liked"},
    )
    assert (ratings.ratings.tolist(), ratings.scale) == ([1, 0], RatingScale(0, 1, 1))
    assert "Columns, as --columns says: user is 'user', " in ratings.notes[1]


def test_continuous_ratings_have_a_fine_step(read):
    stars = np.random.default_rng(0).uniform(-10, 10, 200).round(6)
    ratings = read(text(HEADER, *(f"{n},1,{value},9" for n, value in enumerate(stars))))
    assert ratings.scale.step < 1e-5
    np.testing.assert_array_equal(ratings.ratings, stars.astype(np.float32))


@pytest.mark.parametrize(
    ("form", "seconds"),
    [
        ("2001-09-09", 1000000000 - 6400),
        ("2001-09-09 01:46:40", 1000000000),
        ("2001-09-09T01:46:40Z", 1000000000),
        ("2001-09-09T03:46:40+02:00", 1000000000),
        ("2001-09-09 01:46:40.75", 1000000000),
        ("1000000000000", 1000000000),
        ("1000000000000000", 1000000000),
        ("1000000000000000000", 1000000000),
        ("1e9", 1000000000),
        ("978300760", 978300760),
    ],
)
def test_times_are_seconds_in_the_end(read, form, seconds):
    ratings = read(text(HEADER, f"1,2,3,{form}", f"1,3,4,{form}"))
    assert ratings.timestamps.tolist() == [seconds, seconds]


def test_rows_off_the_scale_are_counted(read):
    content = text(HEADER, "1,2,0,9", "1,3,4,9", "1,4,,9", "1,5,7,9", "2,3,5,8")
    ratings = read(content, rating_scale=(1, 5, 1), off_scale="drop")
    assert rows_of(ratings) == [(1, 3, 4, 9), (2, 3, 5, 8)]
    assert ratings.original_item_ids.tolist() == [3]
    assert "Left out: 2 of 5 rows whose rating is not 1 to 5 in steps of 1." in ratings.notes
    assert "Left out: 1 of 5 rows without a rating." in ratings.notes


# --- more than one rating of an item --------------------------------------------------------------

AGAIN = text(HEADER, "1,2,3,10", "1,2,4,20", "5,2,1,7", "1,2,5,20", "5,9,2,7", "5,9,2,7")


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        ("latest", [(1, 2, 5, 20), (5, 2, 1, 7), (5, 9, 2, 7)]),
        ("mean", [(1, 2, 4, 20), (5, 2, 1, 7), (5, 9, 2, 7)]),
    ],
)
def test_one_rating_of_an_item_remains(read, rule, rows):
    ratings = read(AGAIN, duplicates=rule)
    assert rows_of(ratings) == rows
    (note,) = (note for note in ratings.notes if "more than once" in note)
    assert note.startswith("2 pairs of user and item come more than once, in 5 rows; ")


def test_a_mean_is_put_on_the_scale(read):
    assert read(text(HEADER, "1,2,3,1", "1,2,4,1", "1,3,5,1"), duplicates="mean").ratings[0] == 4
    content = text("user,item,rating", "1,2,3", "1,2,4", "1,3,5")
    assert read(content, duplicates="mean").ratings.tolist() == [4, 5]
    with pytest.raises(DataError, match="mine has no times, which --duplicates=latest needs; giv"):
        read(content, duplicates="latest")


# --- refusals -------------------------------------------------------------------------------------

REFUSED = {
    "empty": ("", {}, r"mine\.csv is empty\."),
    "header alone": (HEADER + "\n", {}, "holds a header and no rows"),
    "one column": (text("1", "2"), {}, "line 1: expected fields separated by a tab, '::', .* '1'"),
    "JSON": ('{"user": 1, "item": 2}\n', {}, r"is JSON; write it as csv, for example with pandas"),
    "a byte 0": (text(HEADER, "1,2\0,3,4"), {}, "holds a byte 0, so it is no text"),
    "too many fields": (
        text(HEADER, *LINES, "1,7,3,4,5"),
        {},
        r"line 6: expected 4 fields, as in line 1, found 5 fields separated by ','",
    ),
    "too many fields, far down": (
        text(HEADER, *(f"{n},7,{n % 5 + 1},4" for n in range(70)), "1,7,3,4,5"),
        {},
        r"line 72: expected 4 fields, as in the first line, found 5; put a field that has the sep",
    ),
    "too few fields, far down": (
        text(HEADER, *(f"{n},7,{n % 5 + 1},4" for n in range(70)), "1,7,3"),
        {},
        r"line 72: expected the timestamp to be seconds",
    ),
    "an empty line": (text(HEADER, LINES[0], "", LINES[1]), {}, r"line 3: .* found an empty line"),
    "an empty line, far down": (
        text(HEADER, *(f"{n},7,{n % 5 + 1},4" for n in range(70)), "", "1,2,3,4"),
        {},
        r"line 72: expected the id of the user, found nothing; delete the line, or give it an id",
    ),
    "no item": (text(HEADER, "1,,3,4", "2,2,4,4"), {}, r"line 2: expected the id of the item, fou"),
    "a quote that is not closed": (
        text(HEADER, '"1","2","3","4"', '"1","2","3","4'),
        {},
        "a quote that begins a field is not closed before the end",
    ),
    "a comma in a number": (
        text("user;item;rating", "1;2;3,5", "1;3;4"),
        {},
        r"line 2: expected the rating to be a number, with a point for its comma, found '3,5'",
    ),
    "no number": (text(HEADER, *LINES, "9,9,good,4"), {}, r"line 6: .* be a number, found 'good'"),
    "in quotes over lines": (
        text("user,item,review,rating", '1,2,"a\nb",3', '1,3,"a",good'),
        {},
        r"line 4: expected the rating to be a number, found 'good'",
    ),
    "infinite": (text(HEADER, LINES[0], "9,9,inf,4"), {}, "line 3: .* a number, found infinity"),
    "no time": (text(HEADER, LINES[0], "9,9,3,soon"), {}, r"line 3: expected .* found 'soo"),
    "a date of another kind": (
        text(HEADER, "1,2,3,2001-09-09", "1,3,4,09/10/2001"),
        {},
        r"line 3: expected the timestamp to be .* a date such as 2001-12-31 .* found '09/10/2001'",
    ),
    "two units": (
        text(HEADER, "1,2,3,1000000000", "1,3,4,1000000000000"),
        {},
        r"line 2: the timestamp 1000000000 is of another unit than 1000000000000 in .*line 3",
    ),
    "one rating": (text(HEADER, "1,2,3,4", "1,3,3,4"), {}, "each rating is 3, so the scale cannot"),
    "no rating": (text(HEADER, "1,2,,4", "1,3,3,4", "1,4,4,4"), {}, r"line 2: there is no rating"),
    "off the scale": (
        text(HEADER, "1,2,3,4", "1,3,6,4"),
        {"rating_scale": (1, 5, 1)},
        r"line 3: the rating 6 is not 1 to 5 in steps of 1; give --off_scale=drop to leave such",
    ),
    "a mark": (
        text(HEADER, "1,2,8,4", "1,3,-1,4"),
        {},
        r"line 3: the rating -1 may stand for no rating; give --rating_scale=1,8,1 and",
    ),
    "unknown names": (
        text("who,what,stars", "1,2,3", "2,3,4"),
        {},
        r"csv: no column is known as the user or the item; recognized: rating is 'stars'; not "
        r"recognized: 'who', 'what'; give for example --columns=user=who,item=what\.$",
    ),
    "five columns without names": (
        text("1,2,3,4,5", "2,3,4,5,5"),
        {},
        r"no column is known as the user, the item or the rating; it has 5 columns and no header; "
        r"give for example --columns=user=1,item=2,rating=3\.$",
    ),
    "no column of ratings": (
        text("user,item,when", "1,2,5", "2,3,5"),
        {},
        r"no column is known as the rating; recognized: user is 'user', item is 'item', timestamp "
        r"is 'when'; give --no_ratings if each row is an interaction without a rating\.$",
    ),
    "another name": (
        text(HEADER, *LINES),
        {"columns": {"user": "userId", "item": "movie", "rating": "rating"}},
        "has no column 'movie', as --columns says; it has 4 columns named userId, movieId, rating",
    ),
    "two columns of one name": (
        text("user,user,item,rating", "1,9,2,3", "1,9,3,4"),
        {},
        "two columns are called 'user', so it cannot be told which is the user; give --columns=",
    ),
    "two columns of a name that is given": (
        text("user,user,item,rating", "1,9,2,3", "1,9,3,4"),
        {"columns": {"user": "user", "item": "item", "rating": "rating"}},
        "two columns are called 'user'; give their number from 1 in --columns",
    ),
    "nothing on the scale": (
        text(HEADER, "1,2,9,4", "1,3,9,4"),
        {"rating_scale": (1, 5, 1), "off_scale": "drop"},
        "mine: none of the 2 rows has a rating of 1 to 5 in steps of 1",
    ),
    "too large": (text(HEADER, "1,2,1e39,4", "1,3,4,4"), {}, "line 2: .* found infinity"),
    "one column twice": (
        text(HEADER, *LINES),
        {"columns": {"user": "userId", "item": "1", "rating": "rating"}},
        "--columns gives one column two roles",
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_is_refused_says_where_and_what_would_work(read, problem):
    content, options, message = REFUSED[problem]
    with pytest.raises(DataError, match=message) as caught:
        read(content, **options)
    assert str(caught.value).count(". ") == 0  # One sentence.
    assert "mine" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        read_ratings(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder; expected a file"):
        read_ratings(tmp_path)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"1,2,3\n" * 99)[:-5])
    with pytest.raises(DataError, match=r"cut\.csv\.gz is damaged or cut short"):
        read_ratings(tmp_path / "cut.csv.gz")


def test_choices_that_do_not_exist():
    with pytest.raises(
        InputError, match="duplicates must be one of refuse, latest, mean; found 'f"
    ):
        ReadingOptions(duplicates="first")
    with pytest.raises(InputError, match="off_scale must be one of refuse, drop; found 'keep'"):
        ReadingOptions(off_scale="keep")
    for columns in ({"person": "user"}, {"user": None}, {"user": 1}):
        with pytest.raises(
            InputError, match=r"columns has .*; give some of user, item, rating, ti"
        ):
            ReadingOptions(columns=columns)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (text("who,film,stars", "1,2,3"), {}, r"ReadingOptions\(columns={'user': 'who'}\)\.$"),
        (text("user,film", "1,2"), {}, r"give ReadingOptions\(no_ratings=True\) if each row is"),
        (
            text("user,film,stars,when", "1,2,3,soon", "1,3,2,soon"),
            {},
            r"give ReadingOptions\(columns={'timestamp': None}\) to do without times\.$",
        ),
        (
            text(HEADER, "1,2,0,4", "1,3,5,4"),
            {},
            r"give ReadingOptions\(rating_scale=\(1, 5, 1\), off_scale='drop'\) to leave such rows "
            r"out, or ReadingOptions\(rating_scale=\(0, 5, 1\)\) if it is a rating\.$",
        ),
        (
            text(HEADER, *LINES),
            {"columns": {"user": "you"}},
            "has no column 'you', as ReadingOptions.columns says",
        ),
        (
            text(HEADER, "1,2,3,4", "1,2,3,4", "1,3,4,4"),
            {},
            r"; ReadingOptions\(duplicates='latest'\) keeps the latest rating, Reading",
        ),
    ],
)
def test_a_caller_is_advised_in_python(read, content, options, message):
    with pytest.raises(DataError, match=message):
        read(content, advice=Advice.FIELDS, **options)


# --- parquet --------------------------------------------------------------------------------------


def test_parquet_needs_pyarrow_and_says_so(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"mine\.parquet is parquet, which needs pyarrow; install i"
    ):
        read(b"PAR1", file="mine.parquet")


def test_parquet_is_read_as_a_data_frame(tmp_path, monkeypatch):
    # pyarrow is no dependency, so pandas's part is played here.
    frame = pd.DataFrame(ROWS, columns=HEADER.split(","))
    monkeypatch.setitem(sys.modules, "pyarrow", object())
    monkeypatch.setattr(pd, "read_parquet", lambda path: frame)
    ratings = read_ratings(tmp_path / "mine.parquet")
    assert rows_of(ratings) == sorted(ROWS)
    assert ratings.name == "mine"
    frame.loc[2, "rating"] = np.nan
    with pytest.raises(DataError, match=r"mine\.parquet, row 3: there is no rating; give Reading"):
        read_ratings(tmp_path / "mine.parquet")


# --- items ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "titles", "genres"),
    [
        (
            text("movieId,title,genres", '98,"A, B",Drama|War', "9,C,(no genres listed)", "7,D,X"),
            ("C", "A, B", ""),
            ((), ("Drama", "War"), ()),
        ),
        (text("id;name", "98;A;", "9;C").replace("A;", "A"), ("C", "A", ""), None),
        (text("98::A (1999)::Drama", "9::C (1999)::War"), ("C (1999)", "A (1999)", ""), None),
    ],
)
def test_items_have_titles_where_a_file_says_so(read, items, titles, genres):
    ratings = read(text(HEADER, *LINES), items=items)
    assert ratings.original_item_ids.tolist() == [9, 98, 141]
    assert ratings.item_titles == titles
    if genres is not None:
        assert ratings.item_genres == genres
    assert any(note.startswith("1 of 3 items have no line in ") for note in ratings.notes)


def test_an_items_file_without_ids_is_refused(read):
    with pytest.raises(
        DataError, match=r"items\.csv: none of its columns title, genres is known as"
    ):
        read(text(HEADER, *LINES), items=text("title,genres", "A,B"))


# --- data frames ----------------------------------------------------------------------------------

FRAME = pd.DataFrame(ROWS, columns=["u", "i", "r", "t"], index=[5, 5, 0, 1])
PLACES = {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"r": lambda f: f["r"].astype(str)},
        {"t": lambda f: pd.to_datetime(f["t"], unit="s")},
        {"t": lambda f: pd.to_datetime(f["t"], unit="s", utc=True).dt.tz_convert("Asia/Tokyo")},
        {"t": lambda f: pd.to_datetime(f["t"], unit="s").astype(str)},
        {"t": lambda f: f["t"].astype(float)},
        {"u": lambda f: f["u"].astype("category"), "i": lambda f: f["i"].astype("category")},
        {"u": lambda f: f["u"].astype("Int64"), "r": lambda f: f["r"].astype("Float64")},
    ],
)
def test_a_data_frame_is_read_like_a_file(read, change):
    frame = FRAME.assign(**change)
    ratings = Ratings.from_dataframe(frame, **PLACES, name="mine")
    assert ratings.fingerprint() == read(text(HEADER, *LINES)).fingerprint()
    assert "Ratings are 1 to 5 in steps of 0.5, as found; rating_scale sets another" in " ".join(
        ratings.notes
    )


def test_a_data_frame_without_ratings_and_times():
    ratings = Ratings.from_dataframe(FRAME.astype(str), user="u", item="i")
    assert (ratings.name, ratings.timestamps, ratings.scale) == ("own", None, RatingScale(0, 1, 1))
    assert ratings.original_user_ids.tolist() == ["1", "2", "7"]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (
            FRAME,
            {"user": "who"},
            "own: there is no column 'who' for the user; the columns are u, i",
        ),
        (FRAME.assign(r=[3, 3, None, 3]), {}, "own: each rating is 3, so the scale .*rating=None"),
        (FRAME.assign(r=[3, 4, None, 3]), {}, "row 2: there is no rating; give off_scale='drop'"),
        (FRAME.assign(u=[1.5, 1, 2, 3]), {}, r"own: user ids are float64, such as 1\.5 in row 0"),
        (FRAME.assign(u=1, i=1), {}, r"row 1: user 1 rates item 1 again, after row 0; .*; duplica"),
        (FRAME.assign(t=[1, 2, None, 4]), {}, "row 2: expected the timestamp to be"),
        (FRAME, {"rating_scale": (1, 5, 1)}, r"row 1: the rating 4\.5 is not 1 to 5 in steps of 1"),
    ],
)
def test_a_data_frame_is_refused_like_a_file(frame, options, message):
    with pytest.raises(DataError, match=message):
        Ratings.from_dataframe(frame, **{**PLACES, **options})


def test_what_is_left_out_of_a_data_frame_is_said():
    frame = pd.concat([FRAME, FRAME.head(1).assign(r=1, t=2000000000)])
    ratings = Ratings.from_dataframe(frame, **PLACES, duplicates="latest")
    assert rows_of(ratings)[0] == (1, 98, 1, 2000000000)
    assert "1 pairs of user and item come more than once, in 2 rows" in " ".join(ratings.notes)


def test_a_stray_rating_that_widens_the_scale_is_told():
    stars = [1 + n % 5 for n in range(1_000)]
    table = pd.DataFrame({"u": range(1_001), "i": [0] * 1_001, "r": [*stars, 11]})
    found = Ratings.from_dataframe(table, user="u", item="i", rating="r")
    assert found.scale.maximum == 11
    told = "Only 1 of 1,001 ratings is above 5: 11. If that is a mistake, give rating_scale and "
    assert told in " ".join(found.notes)
    usual = Ratings.from_dataframe(table[:-1], user="u", item="i", rating="r")
    assert "Only" not in " ".join(usual.notes)
