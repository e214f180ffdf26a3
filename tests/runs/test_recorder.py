import threading
import warnings

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


@pytest.fixture
def recorder(run):
    return RunRecorder(run)


def fail():
    raise OSError("No space left on device")


def test_after_a_failure_nothing_more_is_written_and_the_caller_hears_of_it(run, recorder):
    recorder.release({"train/rmse": 3.5, "seconds": 0.5}, 0)
    recorder.save(np.zeros(2), 0, first=fail)
    later = []

    def go_on():
        for n in (1, 2):
            recorder.release({"train/rmse": 2.5, "seconds": 1.5}, n)
            recorder.save(np.zeros(2), n, first=lambda n=n: later.append(n))
        recorder.flush()

    with pytest.raises(InputError, match="No space left"):
        go_on()
    assert later == []
    assert [row["round"] for row in run.read_metrics()] == [0]
    assert run.checkpoints() == []
    with pytest.raises(InputError, match="No space left"):
        recorder.save(np.zeros(2), 3)
    with pytest.raises(InputError, match="No space left"):
        recorder.close()
    assert run.checkpoints() == []


def test_the_caller_is_never_more_than_a_few_writes_ahead(recorder):
    may_go_on, queued, all_queued = threading.Event(), [], threading.Event()
    recorder.save(np.zeros(2), 0, first=lambda: may_go_on.wait(60))

    def queue():
        for n in range(1, 12):
            recorder.save(np.zeros(2), n)
            queued.append(n)
        all_queued.set()

    thread = threading.Thread(target=queue, daemon=True)
    thread.start()
    assert not all_queued.wait(0.3)
    assert queued == list(range(1, 8))  # And the first: eight are on their way.
    may_go_on.set()
    assert all_queued.wait(60)
    recorder.flush()
    assert recorder.checkpoints == [9, 10, 11]


def test_a_full_queue_does_not_hide_a_failure(recorder):
    may_go_on = threading.Event()

    def fail_late():
        may_go_on.wait(60)
        fail()

    recorder.save(np.zeros(2), 0, first=fail_late)
    threading.Timer(0.2, may_go_on.set).start()
    queued = []

    def go_on():
        for n in range(1, 30):
            recorder.save(np.zeros(2), n)
            queued.append(n)

    with pytest.raises(InputError, match="No space left"):
        go_on()
    assert queued == list(range(1, 8))  # The next had to wait.


def test_what_belongs_to_a_checkpoint_is_saved_before_it(run, recorder):
    there = []
    recorder.save(np.zeros(2), 0, first=lambda: there.append(run.checkpoints()))
    recorder.save(np.zeros(2), 1, first=lambda: there.append(run.checkpoints()))
    recorder.save(np.ones(2), 1, first=lambda: there.append("again"))  # Saved already.
    recorder.flush()
    assert there == [[], [0]]
    assert run.checkpoints() == [0, 1]
    np.testing.assert_array_equal(recorder.load(1, np.zeros(2)), [0, 0])


def test_a_failure_in_what_belongs_to_a_checkpoint_leaves_no_checkpoint(run, recorder):
    recorder.save(np.zeros(2), 0)
    recorder.flush()

    def go_on():
        recorder.save(np.zeros(2), 1, first=fail)
        recorder.save(np.zeros(2), 2)
        recorder.flush()

    with pytest.raises(InputError, match="No space left"):
        go_on()
    assert run.checkpoints() == [0]


def test_rows_are_written_before_the_checkpoint_of_their_round(run, recorder):
    there = []
    for n in range(3):
        recorder.release({"seconds": float(n)}, n)
    recorder.save(np.zeros(2), 2, first=lambda: there.extend(run.read_metrics()))
    recorder.flush()
    assert [row["round"] for row in there] == [0, 1, 2]


def test_opening_a_run_to_read_it_writes_nothing(run, recorder, tmp_path):
    recorder.release({"seconds": 0.5}, 0)
    recorder.save(np.zeros(2), 0)
    recorder.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    reader = RunRecorder(run)
    reader.load(0, np.zeros(2))
    assert reader.seconds(0) == 0.5
    reader.close()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_metrics_reach_the_csv_file_and_tensorboard(run, recorder, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorder.release({"unseen_validation/rmse": 3.5, "seconds": 0.5}, 0)
    recorder.release({"train/rmse": 2.5, "seconds": 1.5}, 1)
    recorder.release({"train/rmse": 2.25, "unseen_validation/rmse": 2.75, "seconds": 2.5}, 2)
    recorder.close()
    assert run.read_metrics() == [
        {"round": 0, "seconds": 0.5, "unseen_validation/rmse": 3.5},
        {"round": 1, "seconds": 1.5, "train/rmse": 2.5},
        {"round": 2, "seconds": 2.5, "train/rmse": 2.25, "unseen_validation/rmse": 2.75},
    ]
    assert recorder.metrics(2, "unseen_validation") == {"rmse": 2.75}
    assert recorder.metrics(1, "unseen_validation") == {}
    assert recorder.seconds(1) == 1.5
    with pytest.raises(InputError, match=r"metrics\.csv has no row for round 3"):
        recorder.seconds(3)
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"tensors": 0})
    events.Reload()
    steps = {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    assert steps == {
        "unseen_validation/rmse": [0, 2],
        "train/rmse": [1, 2],
        "seconds": [0, 1, 2],
    }


def test_what_could_not_be_written_says_what_is_saved(run, recorder):
    def fail_at(path):
        raise OSError(28, "No space left on device", str(path))

    recorder.save(np.zeros(2), 0)
    recorder.save(np.zeros(2), 3)
    recorder.save(np.zeros(2), 5, first=lambda: fail_at(run.path / "x"))
    message = (
        "x cannot be written: No space left on device; the run is saved up to round 3, and once "
        r"that is mended the same command goes on from there\.$"
    )
    with pytest.raises(InputError, match=message):
        recorder.flush()
    other = RunRecorder(run)
    other.save(np.zeros(2), 7, first=lambda: fail_at("y"))
    with pytest.raises(InputError, match=r"y cannot be written: .*; nothing of the run is saved"):
        other.flush()


def test_events_that_cannot_be_written_are_a_warning(run, recorder, tmp_path):
    (tmp_path / "events").write_text("")
    recorder.release({"train/rmse": 3.5, "seconds": 0.5}, 0)
    with pytest.warns(UserWarning, match="events, for TensorBoard, is not written"):
        recorder.flush()
    recorder.release({"train/rmse": 3.5, "seconds": 0.5}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder.close()
    assert [row["round"] for row in run.read_metrics()] == [0, 1]
