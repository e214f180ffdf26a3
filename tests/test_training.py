"""The round loop, with an algorithm simple enough to follow by hand."""

import csv
import dataclasses
import shutil
import threading
from typing import NamedTuple

import numpy as np
import pytest

from fedrecon.artifacts import RunDirectory, RunRecorder
from fedrecon.errors import InputError
from fedrecon.training import FederatedTask, Training, TrainingOptions


class State(NamedTuple):
    weight: np.ndarray
    num_rounds: np.ndarray


class Output(NamedTuple):
    state: State
    metrics: dict


class Process:
    """Adds the mean of the clients' values to the weight; evaluates to the distance from it."""

    def initialize(self):
        return State(np.zeros(2, np.float32), np.int32(0))

    def next(self, state, clients):
        weight = (state.weight + np.float32(np.mean(clients)) / 3).astype(np.float32)
        metrics = {"loss": float(np.mean(clients)), "num_examples": len(clients)}
        return Output(State(weight, np.int32(state.num_rounds + 1)), metrics)

    def get_model_weights(self, state):
        return state.weight


class Evaluation(Process):
    def set_model_weights(self, state, weights):
        return state._replace(weight=weights)

    def next(self, state, clients):
        loss = float(np.sum(state.weight) - np.mean(clients)) if len(clients) else 0.0
        return Output(state, {"loss": loss, "num_examples": len(clients)})


def make_task(process=None):
    return FederatedTask(
        training=process or Process(),
        evaluation=Evaluation(),
        sample_cohort=lambda round_num: np.array([round_num, round_num + 1]),
        evaluation_users={"validation": np.array([4, 6]), "nobody": np.array([])},
        training_data=lambda users, round_num: users.astype(np.float32),
        evaluation_data=lambda users: users.astype(np.float32),
        training_metrics=dict,
        evaluation_metrics=dict,
    )


def options(total_rounds, per_evaluation=2, per_checkpoint=2):
    return TrainingOptions(
        total_rounds=total_rounds,
        rounds_per_evaluation=per_evaluation,
        rounds_per_checkpoint=per_checkpoint,
    )


def rows_without_seconds(path):
    with open(path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row.pop("seconds")) >= 0
    return rows


def train(task, options, recorder, on_round=lambda round_num, row: None):
    return Training(task, options, recorder).run(on_round)


def run_in(path, *args, **kwargs):
    run = RunDirectory(path)
    return run, train(*args, RunRecorder(run), **kwargs)


class StopAtRound(Process):
    """As `Process`, until a round at which the user loses patience."""

    def __init__(self, round_num):
        self._round_num = round_num

    def next(self, state, clients):
        if state.num_rounds == self._round_num - 1:
            raise KeyboardInterrupt
        return super().next(state, clients)


def test_rounds_evaluations_and_checkpoints_fall_where_they_should(tmp_path):
    seen = []
    run, state = run_in(
        tmp_path, make_task(), options(5), on_round=lambda number, row: seen.append(number)
    )
    assert seen == [0, 1, 2, 3, 4, 5]
    # Rounds 1 to 5 have means 1.5 to 5.5, and each adds a third of its own.
    np.testing.assert_allclose(state.weight, [17.5 / 3] * 2, rtol=1e-6)
    rows = run.read_metrics()
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.get("train/loss") for row in rows] == [None, 1.5, 2.5, 3.5, 4.5, 5.5]
    evaluated = {row["round"]: row["validation/loss"] for row in rows if "validation/loss" in row}
    # Before the first round, each second one, and the last. 0 - 5; 2 * 4/3 - 5; ...
    assert evaluated == pytest.approx({0: -5, 2: -5 + 8 / 3, 4: -5 + 24 / 3, 5: -5 + 35 / 3})
    assert run.checkpoints() == [2, 4, 5]  # The last three.


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop):
    _, whole = run_in(tmp_path / "whole", make_task(), options(6))
    run = RunDirectory(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(make_task(StopAtRound(stop)), options(6), RunRecorder(run))
    assert run.checkpoints()[-1] == stop - 1  # The last whole round, due for a checkpoint or not.
    state = train(make_task(), options(6), RunRecorder(run))
    assert state.weight.tobytes() == whole.weight.tobytes()
    assert state.num_rounds == whole.num_rounds == 6
    assert rows_without_seconds(run.path) == rows_without_seconds(tmp_path / "whole")


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    # No chance to save: the rows of round 3 are there, the state is that of round 2.
    _, whole = run_in(tmp_path / "whole", make_task(), options(6))
    run = RunDirectory(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train(make_task(StopAtRound(4)), options(6), RunRecorder(run))

    shutil.rmtree(run.path / "checkpoints" / "round_3")
    (run.path / "checkpoints" / "round_3_temp1").mkdir()
    state = train(make_task(), options(6), RunRecorder(run))
    assert state.weight.tobytes() == whole.weight.tobytes()
    assert rows_without_seconds(run.path) == rows_without_seconds(tmp_path / "whole")


def test_seconds_add_up_over_the_parts_of_a_run(tmp_path):
    run, _ = run_in(tmp_path, make_task(), options(2))
    first = run.read_metrics()[-1]["seconds"]
    run, _ = run_in(tmp_path, make_task(), options(4))
    seconds = [row["seconds"] for row in run.read_metrics()]
    assert seconds == sorted(seconds)
    assert seconds[-1] > first


def test_fewer_rounds_than_were_done_are_refused(tmp_path):
    run_in(tmp_path, make_task(), options(4))
    with pytest.raises(InputError, match="already has 4 rounds, more than the 3 wanted"):
        run_in(tmp_path, make_task(), options(3))


def test_an_interruption_before_the_first_evaluation_leaves_nothing_half_done(tmp_path):
    class Impatient(Evaluation):
        def next(self, state, clients):
            raise KeyboardInterrupt

    task = dataclasses.replace(make_task(), evaluation=Impatient())
    run = RunDirectory(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(task, options(4), RunRecorder(run))
    assert run.checkpoints() == []
    train(make_task(), options(4), RunRecorder(run))
    assert run.checkpoints() == [0, 2, 4]


def test_another_thread_stops_the_run_at_its_last_whole_round(tmp_path):
    """What a binary does when it is interrupted."""
    in_round_4, may_go_on = threading.Event(), threading.Event()

    class Slow(Process):
        def next(self, state, clients):
            if state.num_rounds == 3:
                in_round_4.set()
                may_go_on.wait(60)
            return super().next(state, clients)

    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)
    training = Training(make_task(Slow()), options(5), recorder)
    thread = threading.Thread(target=training.run, daemon=True)
    thread.start()
    assert in_round_4.wait(60)
    recorder.flush()
    assert (run.checkpoints(), training.num_rounds_done) == ([0, 2], 3)
    training.stop()
    may_go_on.set()
    thread.join(0.5)
    assert thread.is_alive()  # Round 4 came too late to be recorded.
    assert run.checkpoints() == [0, 2, 3]
    assert [row["round"] for row in run.read_metrics()] == [0, 1, 2, 3]


def test_stopping_waits_until_files_and_state_agree(tmp_path):
    in_release, may_go_on = threading.Event(), threading.Event()

    class SlowRecorder(RunRecorder):
        def release(self, row, round_num):
            super().release(row, round_num)
            if round_num == 1:
                in_release.set()
                may_go_on.wait(60)

    run = RunDirectory(tmp_path)
    training = Training(make_task(), options(1, per_checkpoint=9), SlowRecorder(run))
    thread = threading.Thread(target=training.run, daemon=True)
    thread.start()
    assert in_release.wait(60)
    saver = threading.Thread(target=training.stop, daemon=True)
    saver.start()
    saver.join(0.3)
    # The row of round 1 is there and its state is not: no moment to save and leave.
    assert saver.is_alive()
    may_go_on.set()
    saver.join(60)
    thread.join(60)
    assert run.checkpoints() == [0, 1]


def test_nothing_is_saved_before_the_first_row(tmp_path):
    run = RunDirectory(tmp_path)
    Training(make_task(), options(3), RunRecorder(run)).stop()
    assert run.checkpoints() == []


def test_an_evaluation_that_measured_nothing_is_an_error():
    task = make_task()
    with pytest.raises(InputError, match="the 0 nobody users have no query ratings"):
        task.evaluate(task.training.initialize(), "nobody")


def test_a_diverged_evaluation_is_an_error():
    task = make_task()
    state = State(np.array([np.inf, 0], np.float32), np.int32(0))
    with pytest.raises(InputError, match="loss on the validation users is inf"):
        task.evaluate(state, "validation")


@pytest.mark.parametrize("name", ["total_rounds", "rounds_per_evaluation", "rounds_per_checkpoint"])
def test_options_are_positive(name):
    values = dict.fromkeys(("total_rounds", "rounds_per_evaluation", "rounds_per_checkpoint"), 1)
    with pytest.raises(InputError, match=f"{name} is 0"):
        TrainingOptions(**{**values, name: 0})
