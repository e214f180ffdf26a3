"""Files as people have them: each loads, or is refused in a sentence that says what would work.

The cases lie beside the project, in `../shared/cases`, one folder each; its `expect.txt` says what
must be so. Each test also runs on a few rows of the same layout, written here.
"""

import collections
import csv
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from experiments.run import population as population_lib
from experiments.run.settings import Settings
from fedrecon.data.datasets import load_dataset, load_leave_one_out
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.splits import split_by_time, split_by_user
from fedrecon.errors import DataError
from fedrecon.evaluation.coverage import coverage, num_able_to_train
from fedrecon.evaluation.feedback import feedback_of

HEADER = "userId,movieId,rating,timestamp"
ROWS = ["1,98,3,1000000000", "1,141,4,1000000001", "2,98,5,1000000000", "7,9,1,1000000002"]
BIG = 76561197960265728


def lines(*rows, end="\n"):
    return end.join([*rows, ""]).encode()


def few():
    """User u has u % 8 + 1 ratings: of 40 users, 15 have more than 5."""
    rows = [f"{u},{u + n},3,{n}" for u in range(40) for n in range(u % 8 + 1)]
    return lines(HEADER, *rows)


def small():
    """Of 27 items, users 0 to 2 have all, 3 to 5 all but one, and so on."""
    rows = [f"{u},{item},3,{item}" for u in range(12) for item in range(27 - u // 3)]
    return lines(HEADER, *rows)


# Written by hand: for each case its files.
FILES = {
    "amazon_csv": {"ratings.csv": lines("A0,B01,3.0,1000000000", "A0,B02,4.0,1000000001")},
    "bom_crlf": {"ratings.csv": b"\xef\xbb\xbf" + lines(HEADER, *ROWS, end="\r\n")},
    "book_crossing": {
        "ratings.csv": lines('"User-ID";"ISBN";"Book-Rating"', '"1";"12X";"6"', '"1";"7";"0"')
    },
    "cr_only": {"ratings.csv": lines(HEADER, *ROWS, end="\r")},
    "duplicates": {"ratings.csv": lines(HEADER, *ROWS, "1,98,2,1100000000")},
    "few_ratings": {"ratings.csv": few()},
    "huge_ids": {"ratings.csv": lines(HEADER, f"{BIG},98,3,5", f"{BIG + 1},98,4,6")},
    "items_lack": {
        "ratings.csv": lines(HEADER, *ROWS),
        "movies.csv": lines("movieId,title,genres", "98,A (1999),Drama", "9,B (1999),Drama"),
    },
    "jester": {"ratings.csv": lines(HEADER, "1,92,6.85,1000000000", "1,57,-8.30,1000000001")},
    "leading_zeros": {"ratings.csv": lines(HEADER, "1,151,3,11", "1,0151,4,12")},
    "ml32m": {
        "ml-32m/ratings.csv": lines(HEADER, *ROWS),
        "ml-32m/movies.csv": lines(
            "movieId,title,genres", "98,A,Drama", "9,B,(no genres listed)", "141,C,Drama"
        ),
    },
    "nested": {"ml-latest-small/ml-latest-small/ratings.csv": lines(HEADER, *ROWS)},
    "own_csv": {"ratings.csv": lines("user,item,rating,timestamp", *ROWS)},
    "own_csv_ml_header": {"ratings.csv": lines(HEADER, *ROWS)},
    "pandas_index": {
        "ratings.csv": lines("," + HEADER, *(f"{n},{row}" for n, row in enumerate(ROWS)))
    },
    "small_catalogue": {"ratings.csv": small()},
    "string_ids": {"ratings.csv": lines(HEADER, "u0,B01,3,1000000000", "u1,B01,4,1000000001")},
    "ts_float": {"ratings.csv": lines(HEADER, "1,98,3,1000000000.0", "1,9,4,1000000001.0")},
    "ts_missing": {"ratings.csv": lines("userId,movieId,rating", "1,98,3", "1,9,4")},
}


@pytest.fixture(params=["shared", "by hand"])
def folder_of(request, tmp_path):
    """A function from the name of a case to a folder: of the shared files, or of those above."""
    if request.param == "shared":
        cases_dir = request.getfixturevalue("cases_dir")
        return lambda name: cases_dir / name

    def write(name):
        for file, content in FILES[name].items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / name

    return write


def load(folder, name="movielens-latest-small"):
    return load_dataset(name, data_dir=folder)


def rows_of_file(path):
    """(user, item, stars, seconds) of each line, read by Python's csv module."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))[1:]
    return [(int(user), int(item), float(stars), int(time)) for user, item, stars, time in rows]


def rows_of(ratings):
    columns = (
        ratings.original_user_ids[ratings.user_ids],
        ratings.original_item_ids[ratings.item_ids],
        ratings.ratings,
        ratings.timestamps,
    )
    return list(zip(*(column.tolist() for column in columns)))


# --- what loads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["own_csv_ml_header", "bom_crlf", "huge_ids"])
def test_every_line_is_read_without_loss(folder_of, name):
    folder = folder_of(name)
    assert rows_of(load(folder)) == sorted(rows_of_file(folder / "ratings.csv"))


def test_the_same_rows_have_the_same_fingerprint(folder_of):
    expected = load(folder_of("own_csv_ml_header")).fingerprint()
    assert load(folder_of("bom_crlf")).fingerprint() == expected
    assert load(folder_of("items_lack")).fingerprint() == expected
    assert load(folder_of("nested") / "ml-latest-small").fingerprint() == expected
    assert load(folder_of("ml32m"), "movielens-32m").fingerprint() == expected


def test_movielens_32m_is_read_from_its_folder_and_its_zip(folder_of, tmp_path):
    folder = folder_of("ml32m")
    expected = load(folder, "movielens-32m")
    alone = tmp_path / "alone"
    alone.mkdir()
    if (folder / "ml-32m.zip").exists():
        shutil.copy(folder / "ml-32m.zip", alone)
    else:
        shutil.make_archive(str(alone / "ml-32m"), "zip", root_dir=folder, base_dir="ml-32m")
    found = load(alone, "movielens-32m")
    assert found.fingerprint() == expected.fingerprint()
    assert found.item_titles == expected.item_titles
    assert "" not in found.item_titles


def test_an_item_without_a_line_in_the_items_file_is_trained_on(folder_of):
    folder = folder_of("items_lack")
    ratings = load(folder)
    with open(folder / "movies.csv", newline="") as file:
        titles = {int(row[0]): row[1] for row in list(csv.reader(file))[1:]}
    rated = sorted({row[1] for row in rows_of_file(folder / "ratings.csv")})
    assert set(rated) - set(titles)
    assert ratings.item_titles == tuple(titles.get(item, "") for item in rated)


# --- what loads with --ratings_file -------------------------------------------------------------

# The flags that a file needs beside its name.
OWN = {
    **{name: {} for name in ("own_csv", "own_csv_ml_header", "amazon_csv", "jester", "string_ids")},
    **{name: {} for name in ("ts_float", "ts_missing", "cr_only", "leading_zeros", "huge_ids")},
    **{name: {} for name in ("pandas_index", "bom_crlf", "items_lack")},
    "few_ratings": {"rating_scale": "1,5,1"},
    "book_crossing": {"rating_scale": "1,10,1", "off_scale": "drop"},
    "duplicates": {"duplicates": "latest"},
    "small_catalogue": {"feedback": "implicit", "rating_scale": "1,5,1"},
}


def own_settings(folder, name, **changes):
    flags = {**OWN[name], **changes}
    if name == "items_lack":
        flags["items_file"] = str(folder / "movies.csv")
    return Settings(dataset="file", ratings_file=str(folder / "ratings.csv"), **flags)


def load_own(folder, name, **changes):
    return population_lib.read_ratings(own_settings(folder, name, **changes))


def texts_of_file(path, *, separator=",", header=True):
    """The fields of each line, read by Python's csv module as text."""
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return list(csv.reader(text.splitlines(), delimiter=separator))[int(header) :]


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_ones_own_is_read_without_loss(folder_of, name):
    folder = folder_of(name)
    ratings = load_own(folder, name)
    options = {"separator": ";"} if name == "book_crossing" else {"header": name != "amazon_csv"}
    rows = texts_of_file(folder / "ratings.csv", **options)
    if name == "pandas_index":
        rows = [row[1:] for row in rows]
    if name == "book_crossing":
        rows = [row for row in rows if row[2] != "0"]
    if name == "duplicates":
        rows = list({tuple(row[:2]): row for row in rows}.values())
    expected = sorted((*row[:2], float(np.float32(row[2]))) for row in rows)
    users, items = ratings.original_user_ids.tolist(), ratings.original_item_ids.tolist()
    found = zip(ratings.user_ids.tolist(), ratings.item_ids.tolist(), ratings.ratings.tolist())
    # As text: no digit is lost, and no zero.
    assert sorted((str(users[u]), str(items[i]), stars) for u, i, stars in found) == expected
    assert (ratings.timestamps is None) == (name in ("ts_missing", "book_crossing"))
    assert ratings.name == "ratings"
    assert ratings.notes[0].startswith("Fields are separated by ")


def test_the_same_rows_have_the_same_fingerprint_however_they_are_written(folder_of):
    expected = load(folder_of("own_csv_ml_header")).fingerprint()
    for name in ("own_csv", "own_csv_ml_header", "bom_crlf", "cr_only", "pandas_index"):
        assert load_own(folder_of(name), name).fingerprint() == expected, name


def test_what_was_decided_is_said(folder_of):
    def notes(name, **changes):
        return " ".join(load_own(folder_of(name), name, **changes).notes)

    assert "there is no header. Columns, by their place: user is column 1" in notes("amazon_csv")
    assert "item is 'ISBN', rating is 'Book-Rating'. There are no times." in notes("book_crossing")
    assert "rows whose rating is not 1 to 10 in steps of 1." in notes("book_crossing")
    assert "The first column has no name and is not used: pandas" in notes("pandas_index")
    assert "1 pairs of user and item come more than once, in 2 rows" in notes("duplicates")
    assert "items have no line in" in notes("items_lack")
    assert re.search(r"in steps of 0\.0[15], as found; --rating_scale sets", notes("jester"))
    jester = load_own(folder_of("jester"), "jester", rating_scale="-10,10,0.01")
    assert jester.scale == RatingScale(-10, 10, 0.01)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        (
            "book_crossing",
            {"rating_scale": None, "off_scale": "refuse"},
            r"ratings\.csv, line \d+: the rating 0 may stand for no rating; give "
            r"--rating_scale=1,\d+,1 and --off_scale=drop to leave such rows out, or --rating_sc",
        ),
        (
            "book_crossing",
            {"off_scale": "refuse"},
            r"ratings\.csv, line \d+: the rating 0 is not 1 to 10 in steps of 1; give --off_scale=",
        ),
        (
            "duplicates",
            {"duplicates": "refuse"},
            r"line \d+: user 1 rates item 98 again, after .*, line 2; .*; --duplicates=latest",
        ),
    ],
)
def test_a_file_of_ones_own_that_needs_a_flag_names_it(folder_of, name, flags, message):
    with pytest.raises(DataError, match=message) as caught:
        load_own(folder_of(name), name, **flags)
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_ones_own_is_divided_into_users(cases_dir, name):
    """What `train` does before it loads TensorFlow."""
    folder = cases_dir / name
    population = population_lib.load_population(
        own_settings(folder, name, clients_per_round=5, seed=3)
    )
    assert len(population.train) > 5


def test_what_needs_times_refuses_a_file_without(folder_of):
    folder = folder_of("ts_missing")
    settings = own_settings(folder, "ts_missing", held_out_fraction=0.1, clients_per_round=1)
    if folder.parent.name == "cases":  # The other has no users to divide.
        with pytest.raises(
            DataError, match=r"ratings has no timestamps, so .*; give held_out_frac"
        ):
            population_lib.load_population(settings)
    settings = own_settings(folder, "ts_missing", feedback="implicit", clients_per_round=1)
    with pytest.raises(DataError, match="ratings has no timestamps, which hold_out_last needs"):
        population_lib.load_population(settings)


# --- what is refused ----------------------------------------------------------------------------

OTHER_HEADER = rf"ratings\.csv, line 1: expected the header '{HEADER}', found"
WAY_OUT = r"; a file in another form is read with --ratings_file in place of --dataset\.$"
REFUSED = {
    "cr_only": r"ratings\.csv: lines end with a carriage return alone, .*\\n or \\r\\n at the end",
    "duplicates": r"\.csv, line \d+: user 1 rates item 98 again, after .*ratings\.csv, line 2;",
    "leading_zeros": r"\.csv, line \d: expected the item id without leading zeros, found '0+\d",
    "pandas_index": f"{OTHER_HEADER} ',{HEADER}'; .* index of pandas, .* with index=False",
    # What follows is read by --ratings_file; see below.
    "own_csv": f"{OTHER_HEADER} 'user,item,rating,timestamp'{WAY_OUT}",
    "amazon_csv": f"{OTHER_HEADER} 'A0.*{WAY_OUT}",
    "book_crossing": f'{OTHER_HEADER} \'"User-ID";"ISBN";"Book-Rating"\'{WAY_OUT}',
    "jester": rf"line 2: expected a rating of 0\.5 to 5 in steps of 0\.5, found '6\.85'{WAY_OUT}",
    "string_ids": rf"ratings\.csv, line 2: expected the user id to be a whole .*'u0.*{WAY_OUT}",
    "ts_float": r"ratings\.csv, line 2: expected the timestamp to be a whole number .* found "
    rf"'1000000000\.0'{WAY_OUT}",
    "ts_missing": f"{OTHER_HEADER} 'userId,movieId,rating'{WAY_OUT}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_where_and_what_would_work(folder_of, name):
    with pytest.raises(DataError, match=REFUSED[name]) as caught:
        load(folder_of(name))
    assert str(caught.value).count(". ") == 0  # One sentence.


def test_a_folder_in_a_folder_says_where_it_looked(folder_of):
    folder = folder_of("nested")
    with pytest.raises(DataError) as caught:
        load(folder)
    for place in (str(folder), "ml-latest-small/ratings.csv", "ml-latest-small.zip"):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "columns", "scale"),
    [
        ("own_csv", {}, ["user", "item", "rating", "timestamp"], RatingScale(1, 5, 1)),
        ("amazon_csv", {"header": None}, [0, 1, 2, 3], RatingScale(1, 5, 1)),
        ("jester", {}, HEADER.split(","), RatingScale(-10, 10, 0.01)),
        ("string_ids", {}, HEADER.split(","), RatingScale(1, 5, 1)),
        ("leading_zeros", {"dtype": {"movieId": str}}, HEADER.split(","), RatingScale(1, 5, 1)),
        ("ts_missing", {}, HEADER.split(",")[:3], RatingScale(1, 5, 1)),
        (
            "book_crossing",
            {"sep": ";", "dtype": {"ISBN": str}},
            ["User-ID", "ISBN", "Book-Rating"],
            RatingScale(1, 10, 1),
        ),
    ],
)
def test_the_way_out_leads_out(folder_of, name, options, columns, scale):
    table = pd.read_csv(folder_of(name) / "ratings.csv", **options)[columns]
    if name == "book_crossing":
        table = table[table["Book-Rating"] > 0]  # 0 is no rating.
    ratings = Ratings.from_original_ids(
        name,
        user_ids=table[columns[0]],
        item_ids=table[columns[1]],
        ratings=table[columns[2]],
        timestamps=table[columns[3]] if len(columns) > 3 else None,
        scale=scale,
    )
    assert ratings.num_ratings == len(table)
    # Exact: pandas leaves ids as they are, and so does the library.
    assert ratings.original_item_ids.tolist() == sorted(set(table[columns[1]]))
    order = table.sort_values(columns[:2])
    np.testing.assert_array_equal(ratings.ratings, order[columns[2]].astype(np.float32))
    if name == "ts_missing" and ratings.num_users >= 10:
        assert split_by_user(ratings, seed=0).test.num_ratings > 0
        with pytest.raises(DataError, match="ts_missing has no timestamps, which split_by_time ne"):
            split_by_time(ratings, seed=0)


# --- who is judged ------------------------------------------------------------------------------


def judged(population, name):
    return coverage(population, name, feedback_of(population).cases(population, name))


def test_users_with_few_ratings_are_counted(folder_of):
    folder = folder_of("few_ratings")
    ratings = load(folder)
    counts = collections.Counter(row[0] for row in rows_of_file(folder / "ratings.csv"))
    population = divide_by_user(ratings)
    found = {}
    for name in ("unseen_test", "unseen_validation"):
        told = judged(population, name)
        names = ratings.original_user_ids[population.groups[name].users].tolist()
        enough = sum(counts[user] > 5 for user in names)
        assert (told.num_users, told.num_judged) == (len(names), enough)
        assert list(told.left_out.values()) == [len(names) - enough]
        found[name] = told.num_judged
    able = num_able_to_train(population, more_than=5)
    assert able == sum(
        counts[user] > 5 for user in ratings.original_user_ids[population.train].tolist()
    )
    if ratings.num_users == 400:  # The shared file.
        assert found == {"unseen_test": 7, "unseen_validation": 12}
        assert (able, len(population.train)) == (51, 320)
        sentences = judged(population, "unseen_test").sentences("explicit")
        assert sentences[0].startswith("7 of 40 users are judged, on ")
        assert sentences[1].startswith("Not judged: users who have fewer than 6 ratings")
        assert sentences[1].endswith(" (33).")


def test_a_small_catalogue_is_ranked_with_fewer_negatives(folder_of):
    folder = folder_of("small_catalogue")
    ratings = load(folder)
    counts = collections.Counter(row[0] for row in rows_of_file(folder / "ratings.csv"))
    assert ratings.num_items == 27
    population = divide_for_ranking(ratings)
    test = population.groups["seen_test"].held_out
    names = ratings.original_user_ids[test.users].tolist()
    assert names == sorted(user for user, count in counts.items() if 2 <= count < 27)
    assert (test.negatives >= 0).sum(axis=1).tolist() == [27 - counts[user] for user in names]
    told = judged(population, "seen_test")
    assert (told.num_users, told.num_judged) == (len(counts), len(names))
    assert told.num_fewer_candidates == len(names)
    full = [user for user, count in counts.items() if count == 27]
    assert full
    assert sum(told.left_out.values()) == len(counts) - len(names)
    # Whoever has every item trains on positives alone.
    items, labels = population.examples.examples(ratings.dense_user_id(full[0]))
    assert (sorted(items.tolist()), set(labels.tolist())) == (list(range(27)), {1.0})


# --- leave-one-out files of one's own -----------------------------------------------------------


@pytest.fixture(params=["shared", "by hand"])
def leave_one_out_of(request, leave_one_out_dir, tmp_path):
    """A function from the name of a case to a folder with its three files."""
    if request.param == "shared":
        cases_dir = request.getfixturevalue("cases_dir")
        return lambda name: cases_dir / name

    def write(name):
        folder = tmp_path / name
        shutil.copytree(leave_one_out_dir / "ncf-ml-1m", folder)
        test, negative = folder / "ml-1m.test.rating", folder / "ml-1m.test.negative"
        first, *others = negative.read_text().splitlines(keepends=True)
        pair, *items = first.rstrip("\n").split("\t")
        if name == "ncf_dup_negatives":
            items[-1] = items[0]
        if name == "ncf_train_in_negatives":
            items[5] = "0"  # User 0 trains on item 0.
        negative.write_text("\t".join([pair, *items]) + "\n" + "".join(others))
        if name == "ncf_test_only_user":
            with open(test, "a") as file:
                file.write("3\t5\t3\t200\n")
            with open(negative, "a") as file:
                file.write("(3,5)\t" + "\t".join(map(str, range(6, 105))) + "\n")
        return folder

    return write


@pytest.mark.filterwarnings("error")
def test_leave_one_out_files_of_ones_own_are_ranked(leave_one_out_of):
    folder = leave_one_out_of("ncf_good")
    files = load_leave_one_out(data_dir=folder)
    written = (folder / "ml-1m.test.negative").read_text().splitlines()
    for line, negatives in zip(written, files.negatives.tolist()):
        assert [int(item) for item in line.split("\t")[1:]] == negatives
    population = divide_for_ranking(files)
    told = judged(population, "seen_test")
    assert (told.num_judged, told.num_users) == (files.train.num_users, files.train.num_users)
    assert (told.left_out, told.num_copies, told.num_fewer_candidates) == ({}, 0, 0)
    named = load_dataset("ncf-ml-1m", data_dir=folder)
    assert named.fingerprint() == files.ratings.fingerprint()
    if files.train.num_users == 80:  # The shared files.
        assert (files.train.num_ratings, files.train.num_items) == (1520, 130)


def test_a_user_of_the_test_alone_is_counted_as_left_out(leave_one_out_of):
    files = load_leave_one_out(data_dir=leave_one_out_of("ncf_test_only_user"))
    lone = np.flatnonzero(files.train.counts() == 0)
    assert len(lone) == 1
    population = divide_for_ranking(files)
    assert lone[0] not in population.train
    told = judged(population, "seen_test")
    assert (told.num_judged, told.num_users) == (files.train.num_users - 1, files.train.num_users)
    assert told.left_out == {"who have nothing to train on": 1}
    for seed in range(3):  # Who gives nothing is no unseen user either.
        groups = divide_for_ranking(files, unseen_fraction=0.7, seed=seed).groups
        assert len(groups["unseen_test"].users) == (files.train.num_users - 1) * 7 // 10
        assert lone[0] not in groups["unseen_test"].users


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ncf_dup_negatives",
            r"line 1: expected 99 different items, found item \d+ \d times; draw",
        ),
        (
            "ncf_train_in_negatives",
            r"line 1: expected items that the user has no rating of, found item \d+.*; draw negati",
        ),
    ],
)
def test_negatives_among_which_a_rank_is_wrong_are_refused(leave_one_out_of, name, message):
    folder = leave_one_out_of(name)
    with pytest.raises(DataError, match=rf"ml-1m\.test\.negative, {message}"):
        load_leave_one_out(data_dir=folder)
    # Whoever needs no negatives reads the ratings all the same.
    assert load_dataset("ncf-ml-1m", data_dir=folder).num_ratings > 0
