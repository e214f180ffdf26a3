"""Every damage of a run directory that we know of: nothing damaged is used in silence."""

import collections
import gc
import shutil
import traceback
import warnings

import numpy as np
import pytest

from experiments.faults import damages
from experiments.faults.outcomes import EQUAL, OLDER, REFUSED, is_same, judged, what_a_run_found
from experiments.faults.served import DONE, SENTENCE, TRACEBACK, Ended
from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory
from tests.runs.test_client_store_folder import files_of_at_most
from tests.runs.test_training import (
    NUM_USERS,
    Keeping,
    State,
    make_algorithm,
    options,
    rows_after,
    start,
)

ROUNDS, MORE_ROUNDS = 8, 10
SETTINGS = {"dim": 4, "seed": 0, "reconstruction_learning_rate": 0.1}
CONFIG = {"settings": SETTINGS, "data_fingerprint": "abc", "versions": {"numpy": "1"}}
# How the damages end, of those that resuming and evaluating take alike.
OF_BOTH = {
    "newest checkpoint, state.npz": {OLDER: 4},
    "newest checkpoint, checkpoint.json": {OLDER: 4},
    "newest checkpoint": {EQUAL: 1, OLDER: 6, REFUSED: 1},
    "middle checkpoint, state.npz": {EQUAL: 4},
    "middle checkpoint, checkpoint.json": {EQUAL: 4},
    "config.json": {REFUSED: 18},
    "client_store": {REFUSED: 2},
    "rows.sqlite-wal": {REFUSED: 4},
    "events/*": {EQUAL: 4},
    "users.csv": {EQUAL: 4},
    "samples.json": {EQUAL: 2},
    "curves.png": {EQUAL: 2},
    "report.html": {EQUAL: 1},
    "model/model.json": {EQUAL: 2},
    "model/weights.npz": {EQUAL: 1},
    "*.part": {EQUAL: 1},
}


def go_on(path, rounds):
    """What `experiments.train` does, with an algorithm of no TensorFlow; returns the store."""
    run = RunDirectory(path)
    with run.claim(CONFIG):
        try:
            final = run.read_final_metrics()
        except DamagedError as error:
            warnings.warn(f"{error} It is made anew.", stacklevel=1)
            final = None
        if final is not None and final["rounds"] == rounds:
            return None
        store = ClientStore(NUM_USERS, 2, path=run.store_path, keep=3)
        recorder = RunRecorder(run)
        state = start(make_algorithm(Keeping(store), store=store), options(rounds), recorder).run()
        recorder.close()
        assert np.isfinite(state.weight).all()
        run.write_final_metrics(
            {"rounds": rounds, "unseen_test": {"rmse": float(state.weight.sum())}}
        )
        return store


def evaluate(path):
    """Returns the newest whole round, its state and its rows, as `experiments.evaluate` reads."""
    run = RunDirectory(path)
    run.read_config()
    round_num = run.newest_whole()
    like = State(np.zeros(2, np.float32), np.int32(0))
    state = run.open_checkpoints().load(round_num, like)
    store = ClientStore(NUM_USERS, 2, path=run.store_path, keep=3, read_round=round_num)
    return round_num, state, store.read(np.arange(NUM_USERS))[0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of 8 rounds whose process was killed: the log of its store is there."""
    path = tmp_path_factory.mktemp("damages") / "begun"
    store = go_on(path, ROUNDS)
    assert (path / "client_store" / "rows.sqlite-wal").stat().st_size
    for name in ("users.csv", "samples.json", "curves.png", "report.html"):
        (path / name).write_text("not read here")
    (path / "model").mkdir()
    for name in ("model.json", "weights.npz"):
        (path / "model" / name).write_text("not read here")
    yield path
    del store


@pytest.fixture(scope="module")
def whole(begun):
    """What the run has found after 10 rounds if nobody damages it."""
    path = begun.with_name("whole")
    shutil.copytree(begun, path)
    go_on(path, MORE_ROUNDS)
    return what_a_run_found(path)


def ended(function, *arguments):
    """How a call ended, and what it returned."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = function(*arguments)
        except InputError as error:
            return Ended(SENTENCE, str(error), ""), None
        except Exception:
            return Ended(TRACEBACK, traceback.format_exc(), ""), None
    return Ended(DONE, "\n".join(str(each.message) for each in warned), ""), found


def outcomes(some, tmp_path, begun, try_one):
    """Tries damages; returns how many ended in which way, by file."""
    counts = collections.defaultdict(collections.Counter)
    for number, damage in enumerate(some):
        path = tmp_path / str(number)
        shutil.copytree(begun, path)
        damage.apply(path)
        how, is_equal = try_one(path)
        outcome = judged(how, is_equal)
        assert outcome in (EQUAL, OLDER, REFUSED), (damage, outcome, how.text)
        counts[damage.file][outcome] += 1
        shutil.rmtree(path)
    return {file: dict(of_file) for file, of_file in counts.items()}


def test_a_damaged_run_goes_on_to_the_same_or_is_refused(tmp_path, begun, whole):
    def resume(path):
        how, _ = ended(go_on, path, MORE_ROUNDS)
        return how, lambda: is_same(path, whole)

    found = outcomes(damages.of_a_run_to_go_on(), tmp_path, begun, resume)
    assert found == {
        **OF_BOTH,
        ".lock": {EQUAL: 1, REFUSED: 1},
        "checkpoints": {OLDER: 1, REFUSED: 2},
        "events": {EQUAL: 1, OLDER: 1},
        # A row before the oldest checkpoint cannot be made again.
        "metrics.csv": {EQUAL: 6, OLDER: 4, REFUSED: 14},
        "rows.sqlite": {EQUAL: 10, OLDER: 5, REFUSED: 13},
    }


def test_a_damaged_run_is_evaluated_at_a_whole_round_or_refused(tmp_path, begun):
    def look(path):
        how, result = ended(evaluate, path)

        def is_equal():
            round_num, state, rows = result
            np.testing.assert_array_equal(rows, rows_after(round_num))
            assert state.num_rounds == round_num
            return True

        return how, is_equal

    found = outcomes(damages.of_a_run_to_go_on(), tmp_path, begun, look)
    assert found == {
        **OF_BOTH,
        ".lock": {EQUAL: 2},
        "checkpoints": {REFUSED: 3},
        "events": {EQUAL: 2},
        "metrics.csv": {EQUAL: 24},
        "rows.sqlite": {EQUAL: 10, OLDER: 4, REFUSED: 14},
    }


def test_damaged_metrics_of_a_finished_run_are_made_anew(tmp_path, begun):
    expected = what_a_run_found(begun)

    def again(path):
        how, _ = ended(go_on, path, ROUNDS)
        return how, lambda: is_same(path, expected)

    found = outcomes(damages.of_a_finished_run(), tmp_path, begun, again)
    assert found == {"final_metrics.json": {EQUAL: 2, OLDER: 7}}


@pytest.mark.parametrize("num_bytes", [0, 300, 600, 1200, 2500, 5000])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_to_the_same(
    tmp_path, begun, whole, num_bytes
):
    path = tmp_path / "new"
    with files_of_at_most(num_bytes):
        how, _ = ended(go_on, path, ROUNDS)
    assert how.how == SENTENCE, how.text
    assert "cannot be written" in how.text or "the rows of clients in" in how.text, how.text
    assert path.exists() == (path / "metrics.csv").exists()
    gc.collect()  # The table that the failed run had opened is closed.
    go_on(path, MORE_ROUNDS)
    assert is_same(path, whole)
    assert list(path.rglob("*.part")) == []


def test_a_run_that_may_not_be_written_is_one_sentence(tmp_path, begun, whole, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(begun, path)

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system", str(path / "checkpoints"))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", refuse)
        how, _ = ended(go_on, path, MORE_ROUNDS)
    assert how.text.endswith(
        "checkpoints cannot be written: Read-only file system; the run is saved up to round 8, and "
        "once that is mended the same command goes on from there."
    )
    go_on(path, MORE_ROUNDS)
    assert is_same(path, whole)
