"""The binary that checks negatives for leaks, as a process with its output in a pipe."""

import gzip

import numpy as np
import pytest

from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.held_out import hold_out_last
from fedrecon.data.synthetic import synthetic_ratings
from tests.experiments.small import run_binary

pytestmark = pytest.mark.slow


def lines(users, items, rest=""):
    return "".join(f"{user}\t{item}{rest}\n" for user, item in zip(users, items))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files of 300 users and 300 items, and negatives of both kinds."""
    folder = tmp_path_factory.mktemp("leak")
    ratings = synthetic_ratings(num_users=300, num_items=300, mean_ratings_per_user=40, seed=3)
    train, held_out = hold_out_last(ratings, seed=0)
    text = lines(train.user_ids, train.item_ids, "\t3\t978300174")
    (folder / "train.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "test").write_text(lines(held_out.users, held_out.items, "\t5\t978300175"))
    rows = zip(held_out.users, held_out.items, held_out.negatives)
    (folder / "candidates").write_text(
        "".join(f"({user},{item})\t" + "\t".join(map(str, row)) + "\n" for user, item, row in rows)
    )
    for name, known in (("leaking", ratings), ("fair", train)):
        drawn = [ImplicitExamples(known, ImplicitOptions()).epoch(n) for n in range(15)]
        users, items, labels = map(np.concatenate, zip(*drawn))
        (folder / name).write_text(lines(users[labels == 0], items[labels == 0]))
    return folder


def check(repository, files, negatives="fair", *more, **names):
    paths = {"train": "train", "test": "test", "negatives": negatives, **names}
    arguments = [f"--{flag}={files / name}" for flag, name in paths.items()]
    return run_binary(repository, "check_leak", *arguments, *more)


def test_negatives_that_leak_end_with_status_1_and_say_so(repository, files):
    done = check(repository, files, "leaking", candidates="candidates")
    assert (done.returncode, done.stderr) == (1, "")
    *table, verdict = done.stdout.splitlines()
    assert table[0].startswith("300 users, 100.0 candidates each; the test item came 0 times as a")
    assert "| how often an item came  | 0.0000 |  0.0000 |" in table
    assert "| chance                  | 0.1000 |         |" in table
    assert verdict.startswith("These negatives give away the test item: a ranking by how seldom")


def test_fair_negatives_end_with_status_0(repository, files):
    done = check(repository, files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("No leak found: without a model the test item")


@pytest.mark.parametrize(("kind", "status"), [("excluding_test", 1), ("fair", 0)])
def test_both_kinds_are_simulated(repository, kind, status):
    done = run_binary(repository, "check_leak", f"--simulate={kind}", "--epochs=5")
    assert (done.returncode, done.stderr) == (status, "")
    assert ("give away" in done.stdout.splitlines()[-1]) == bool(status)


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("train", "0\t1\t3\n0 2\t3\n", r"line 2: expected 'user\titem', whole numbers; found '0 2"),
        ("negatives", "0\t1\n\n0\t1\n", "line 2: expected 'user"),
        ("negatives", "", "line 1: expected 'user\\titem', whole numbers; found an empty line."),
        ("test", "0\t1.5\n", "line 1: expected 'user"),
        ("test", "0\t1\n0\t2\n", "user 0 has 2 held-out items; one is expected."),
        ("candidates", "(0,1)\t2\n(0,1)\t\n", "line 2: expected '(user,item)\\titem\\titem...'"),
        ("candidates", "0\t1\n", "has no candidates of user 1."),
        ("negatives", None, "bad does not exist."),
    ],
)
def test_bad_files_are_one_sentence(repository, files, tmp_path, flag, text, message):
    path = tmp_path / "bad"
    if text is not None:
        path.write_text(text)
    done = check(repository, files, **{flag: path})
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    if "line" in message:
        assert str(path) in error
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--simulate=fair", "--train=x"], "--train has no effect with --simulate."),
        (["--epochs=3", "--train=x"], "--epochs has no effect without --simulate."),
    ],
)
def test_flags_without_effect_are_refused(repository, arguments, message):
    done = run_binary(repository, "check_leak", *arguments)
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
