"""`experiments.recommend` as a user runs it."""

import csv
import dataclasses
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.experiments.small import TIMEOUT, run_binary
from tests.serving.served import implicit_recommender, recommender

pytestmark = pytest.mark.slow

# Runs many command lines in one process, which takes seconds to start.
DRIVER = """
import contextlib, io, json, sys
from absl import flags
from experiments import recommend
from experiments.run import cli
from fedrecon.errors import InputError

results = []
for arguments in json.load(sys.stdin):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["recommend", *arguments])
    status, output, errors = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            recommend.main(cli.Interruption())
        except InputError as error:
            status = 1
            print(f"error: {error}", file=sys.stderr)
    results.append((status, output.getvalue(), errors.getvalue()))
json.dump({"results": results, "modules": list(sys.modules)}, sys.stdout)
"""
# Files of ratings by name.
FILES = {
    "plain.csv": "item,rating\nHeat (1995),5\n103,1\n",
    "no_header.csv": '"Heat (1995)",5\n"Matrix, The (1999)",1\n',
    "titles.tsv": "title\tmy score\nHeat (1995)\t5\nMatrix, The (1999)\t1\n",
    "users.csv": "user_id,item_id,rating\n007,100,5\n8,160,2\n007,103,1\n9,-1,3\n",
    "users_no_header.csv": "007,100,5\n8,160,2\n007,103,1\n",
    "nan.csv": "item,rating\n100,5\n103,nan\n",
    "no_rating.csv": "item,rating\n100,5\n103,\n",
    "off_scale.csv": "item,rating\n100,5\n103,6\n",
    "twice.csv": "item,rating\n100,5\nHeat (1995),4\n",
    "unknown.csv": "item,rating\n1,5\n-2,4\n99999999999999999999999,3\n",
    "unknown_users.csv": "user,item,rating\n1,1,5\n2,-2,4\n",
    "some_unknown.csv": "item,rating\n100,5\n103,1\nHeet (1995),4\n",
    "empty.csv": "",
    "header.csv": "item,rating\n",
    "wide.csv": "a,b,c,d,e\n1,2,3,4,5\n",
    "leser.csv": "leser,book_id,stars\nanna,100,5\nbob,103,1\n",
    "reader.csv": "reader,book_id,stars\n007,100,5\n8,160,2\n007,103,1\n",
    "german.csv": "film,sterne\nHeat (1995),5\n103,1\n",
    "binary.csv": "item,rating\n100,5\0\n",
}

TWO = ("--rate=Heat (1995)=5", "--rate=103=1")
# Arguments by name, of the model that predicts ratings, or of the one that the first names.
LINES = {
    "table": TWO,
    "csv": (*TWO, "--format=csv"),
    "json": (*TWO, "--format=json", "--k=3"),
    "all": (*TWO, "--format=csv", "--k=1000", "--min_ratings=0"),
    "explain": (*TWO, "--format=csv", "--explain"),
    "nothing": ("--format=csv", "--k=2", "--min_ratings=3"),
    "equals": ("--rate=Movie=5=2", "--rate=Heat (1995)=5", "--format=csv"),
    "equals_rated": ("--rate=Movie=5", "--format=csv"),
    "implicit": ("implicit", "--rate=Movie=5", "--rate=Heat (1995)", "--format=csv"),
    "implicit_file": ("implicit", "--ratings=nan.csv", "--format=csv"),
    "unknown": ("--rate=Matrx=5", *TWO, "--format=csv"),
    **{name: (f"--ratings={name}", "--format=csv") for name in FILES},
    "columns": ("--ratings=german.csv", "--columns=rating=sterne", "--format=csv"),
    "columns_of_training": ("trained", "--ratings=german.csv", "--format=csv"),
    "columns_alone": (*TWO, "--columns=rating=sterne"),
    "text_ids": ("text", "--rate=heat (1995)=5", "--k=3"),
    "min_ratings": (*TWO, "--min_ratings=1000000"),
    "two_ways": (*TWO, "--ratings=plain.csv"),
    "not_a_number": ("--rate=Heat (1995)=good",),
    "none_rated": ("--rate=Heat (1995)", "--rate=103"),
    "one_not_rated": ("--rate=Heat (1995)=5", "--rate=103"),
    "twice": ("--rate=103=5", "--rate=103=4"),
    "missing_file": ("--ratings=missing.csv",),
    "folder": ("--ratings=.",),
    "explain_many": ("--ratings=users.csv", "--explain"),
    "explain_nothing": ("--explain",),
    "user_without_run": ("--user_id=7",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("served")
    recommender().save(path / "run" / "model")
    implicit_recommender().save(path / "implicit" / "model")
    recommender().save(path / "trained" / "model")
    config = {"settings": {"columns": "user=2,rating=sterne"}, "data_fingerprint": "0"}
    (path / "trained" / "config.json").write_text(json.dumps(config))
    of_text = recommender()
    names = [title or "none" for title in of_text.items.titles]
    names[5] = "Aliens"
    of_text.items = dataclasses.replace(of_text.items, ids=np.array(names), titles=tuple(names))
    of_text.save(path / "text" / "model")
    for name, text in FILES.items():
        (path / name).write_text(text)
    return path


@pytest.fixture(scope="module")
def done(repository, folder):
    """What each command line did, and the modules that were imported for all."""
    lines = []
    for arguments in LINES.values():
        names_model = not arguments[0].startswith("--")
        model, flags = (arguments[0], arguments[1:]) if names_model else ("run", arguments)
        flags = [flag.replace("--ratings=", f"--ratings={folder}/") for flag in flags]
        lines.append([f"--run_dir={folder / model}", *flags])
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=repository,
        check=False,
    )
    assert driver.returncode == 0, driver.stderr
    return json.loads(driver.stdout)


@pytest.fixture
def line(done):
    """A function of a name in `LINES` to status, output and errors."""
    results = dict(zip(LINES, done["results"]))
    return results.__getitem__


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def assert_lists(text, expected):
    rows = rows_of(text)
    assert [row["item_id"] for row in rows] == [str(item) for item in expected["item_id"]]
    assert [row["title"] for row in rows] == expected["title"].tolist()
    scores = [float(row["score"]) for row in rows]
    assert scores == pytest.approx(expected["score"].tolist(), abs=1e-4)
    assert [row["rank"] for row in rows] == [str(rank + 1) for rank in range(len(rows))]


def test_a_linear_model_needs_no_tensorflow(done):
    assert "pandas" in done["modules"]
    assert not {"tensorflow", "tensorflow_federated", "keras"} & set(done["modules"])


GIVEN = {"Heat (1995)": 5, 103: 1}


@pytest.mark.parametrize("name", ["csv", "plain.csv", "no_header.csv", "titles.tsv"])
def test_csv_is_the_recommendations_alone(line, name):
    status, output, errors = line(name)
    assert status == 0
    assert_lists(output, recommender().recommend(GIVEN))
    assert (errors == "") == (name == "csv")  # How a file was read is told.


def test_json_is_whole(line):
    status, output, errors = line("json")
    assert (status, errors) == (0, "")
    found = json.loads(output)
    expected = recommender().recommend(GIVEN, 3)
    assert [row["item_id"] for row in found["recommendations"]] == expected["item_id"].tolist()
    assert [row["title"] for row in found["recommendations"]] == expected["title"].tolist()
    assert pathlib.Path(found["run_dir"]).name == "run"


def test_a_table_is_for_the_eye(line):
    status, output, errors = line("table")
    assert (status, errors) == (0, "")
    header, *rows = output.splitlines()
    assert header.split() == ["rank", "id", "title", "stars"]
    assert rows[0].split()[1] == str(recommender().recommend(GIVEN)["item_id"][0])


def test_ids_of_text_begin_at_the_left_and_are_printed_once(line):
    status, output, errors = line("text_ids")
    assert (status, errors) == (0, "")
    header, *rows = output.splitlines()
    assert header.split() == ["rank", "id", "stars"]
    assert len(rows) == 3
    assert all(row[header.index("id")] != " " for row in rows)
    assert len({row.rindex(" ") for row in rows}) == 1


@pytest.mark.parametrize("name", ["columns", "columns_of_training"])
def test_columns_are_called_as_is_said_or_as_in_training(line, name):
    status, output, _ = line(name)
    assert status == 0
    assert_lists(output, recommender().recommend(GIVEN))


def test_more_than_there_are_is_all_there_are(line):
    status, output, _ = line("all")
    assert status == 0
    assert_lists(output, recommender().recommend(GIVEN, 1000, min_ratings=0))
    assert len(rows_of(output)) == 28
    assert {"a\rb\r\nc\nd", "Amélie 天使"} <= {row["title"] for row in rows_of(output)}


def test_reasons_are_given_items_with_what_they_add(line):
    status, output, _ = line("explain")
    assert status == 0
    model = recommender()
    for row in rows_of(output):
        table = model.explain(GIVEN, row["item_id"])
        table = table[table["contribution"] > 0]
        expected = ", ".join(
            f"{title} ({by:+.2f})" for title, by in zip(table["title"], table["contribution"])
        )
        assert row["because_of"] == expected


def test_without_ratings_the_popular_items_come_and_it_is_said(line):
    status, output, errors = line("nothing")
    assert status == 0
    assert [row["item_id"] for row in rows_of(output)] == ["184", "181"]
    assert [row["num_ratings"] for row in rows_of(output)] == ["28", "27"]
    assert errors.startswith("No ratings are given")


def test_a_title_may_hold_an_equals_sign(line):
    status, output, errors = line("equals")
    assert (status, errors) == (0, "")
    assert_lists(output, recommender().recommend({"Movie=5": 2, "Heat (1995)": 5}))
    # Both `Movie` and `Movie=5` are titles, and ratings are wanted.
    assert_lists(line("equals_rated")[1], recommender().recommend({"Movie": 5}))


def test_where_items_are_ranked_no_rating_is_needed_nor_read(line):
    model = implicit_recommender()
    status, output, _ = line("implicit")
    assert status == 0
    assert_lists(output, model.recommend(["Movie", "Heat (1995)"]))
    status, output, _ = line("implicit_file")
    assert status == 0
    assert_lists(output, model.recommend([100, 103]))


@pytest.mark.parametrize("name", ["unknown", "some_unknown.csv"])
def test_unknown_items_are_said_and_the_others_served(line, name):
    status, output, errors = line(name)
    assert status == 0
    assert_lists(output, recommender().recommend(GIVEN))
    assert "Left out: '" in errors
    if name == "unknown":
        assert "'Matrx' is no item of the model." in errors
    else:
        assert "Did you mean 'Heat (1995)' (100)?" in errors


@pytest.mark.parametrize("name", ["users.csv", "users_no_header.csv", "reader.csv"])
def test_each_user_of_a_file_is_served(line, name):
    status, output, errors = line(name)
    assert status == 0
    rows = rows_of(output)
    assert [row["user"] for row in rows] == ["007"] * 10 + ["8"] * 10
    for user, given in (("007", {100: 5, 103: 1}), ("8", {160: 2})):
        expected = recommender().recommend(given)
        of_user = [row for row in rows if row["user"] == user]
        assert [int(row["item_id"]) for row in of_user] == expected["item_id"].tolist()
    told = "Left out, as the model knows none of their items: 1 user (9)."
    assert (told in errors) == (name == "users.csv")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nan.csv", "'103' has no rating; give each item a number of stars."),
        ("no_rating.csv", "'103' has no rating; give each item a number of stars."),
        ("off_scale.csv", "the rating 6 is not on the scale of films, 1 to 5 in steps of 1."),
        ("twice.csv", "'100' and 'Heat (1995)' are the same item, 'Heat (1995)'; give it once."),
        ("unknown.csv", "the model knows none of the given items. '1' is no item of the model."),
        ("unknown_users.csv", "no user gives an item that the model knows."),
        ("empty.csv", "empty.csv is empty."),
        ("header.csv", "header.csv"),
        ("wide.csv", "no column is known as the item; not recognized: 'a', 'b', 'c', 'd', 'e'"),
        ("leser.csv", "what the column 'leser' is; give --columns=user=leser if it says who"),
        ("german.csv", "what the column 'sterne' is; give --columns=user=sterne if it says who"),
        ("columns_alone", "--columns has no effect without --ratings."),
        ("binary.csv", "binary.csv holds a byte 0"),
        ("min_ratings", "--min_ratings=1000000 and the given items leave out all 30."),
        ("two_ways", "--ratings and --rate say twice who is served; give one of them."),
        ("not_a_number", "'Heat (1995)' has the rating 'good', which is no number"),
        ("none_rated", "these items have none; give a rating for each."),
        ("one_not_rated", "'103' has no rating"),
        ("twice", "--rate names an item twice"),
        ("missing_file", "missing.csv"),
        ("folder", "is a folder; expected a file"),
        ("explain_many", "--explain is for one user"),
        ("explain_nothing", "--explain needs ratings; give --rate or --ratings."),
        ("user_without_run", "is not the directory of a run"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(line, name, sentence):
    status, output, errors = line(name)
    assert (status, output) == (1, "")
    assert sentence.casefold() in errors.splitlines()[-1].casefold()
    assert errors.splitlines()[-1].startswith("error: ")


# --- processes ------------------------------------------------------------------------------------


def test_a_run_of_a_comparison_serves_and_a_reference_says_why_not(
    repository, comparison, tmp_path
):
    run = comparison / "runs" / "fed_recon_ls-seed0"
    done = run_binary(repository, "recommend", f"--run_dir={run}", "--user_id=11", "--format=csv")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(done.stdout)) == 10
    assert re.search(r"^Recommended by [1-9]\d* ratings of user 11\.$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr

    refusals = {
        comparison / "runs" / "popularity-seed0": "is a run of popularity, a reference without",
        comparison: f"{comparison} holds several runs; give one of its runs, such as ",
        tmp_path / "nowhere": "holds no model: it is neither a run nor the folder of a model",
    }
    older = shutil.copytree(run, tmp_path / "older")
    shutil.rmtree(older / "model")
    refusals[older] = "it is the run of a baseline, or of a version that left none; train again"
    unfinished = shutil.copytree(older, tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    refusals[unfinished] = "holds no model: its run is not finished, and a run writes it when"
    for path, sentence in refusals.items():
        done = run_binary(repository, "recommend", f"--run_dir={path}", "--rate=11=5")
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr


def test_help_needs_neither_tensorflow_nor_pandas(repository):
    code = "import sys, experiments.recommend\n"
    code += "print('tensorflow' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository
    )
    assert done.stdout.split() == ["False", "False"]
    done = run_binary(repository, "recommend", "--help")
    assert done.returncode == 0
    assert "--rate" in done.stdout
    assert done.stderr == ""
