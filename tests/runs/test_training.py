"""The round loop, with an algorithm simple enough to follow by hand."""

import csv
import shutil
import threading
from typing import NamedTuple

import numpy as np
import pytest

from fedrecon.algorithms.algorithm import Algorithm
from fedrecon.errors import InputError
from fedrecon.runs import divergence
from fedrecon.runs.checkpoints import Checkpoints
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.client_table import ClientTable
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.runs.training import Training, TrainingOptions


class State(NamedTuple):
    weight: np.ndarray
    num_rounds: np.ndarray


class Output(NamedTuple):
    state: State
    metrics: dict


class Process:
    """Adds the mean of the clients' values to the weight, a third of it."""

    def initialize(self):
        return State(np.zeros(2, np.float32), np.int32(0))

    def next(self, state, clients):
        weight = (state.weight + np.float32(np.mean(clients)) / 3).astype(np.float32)
        metrics = {"loss": float(np.mean(clients)), "num_examples": len(clients)}
        return Output(State(weight, np.int32(state.num_rounds + 1)), metrics)


def distance(state):
    """The watched metrics of a state: how far its weights are from 5, in sum."""
    return {"loss": float(np.sum(state.weight) - 5), "num_examples": 2}


def make_algorithm(process=None, **kwargs):
    """An algorithm whose clients of round r are r and r + 1."""
    return Algorithm(
        process=process or Process(),
        sample_cohort=lambda round_num: np.array([round_num, round_num + 1]),
        training_data=lambda users, round_num: users.astype(np.float32),
        training_metrics=dict,
        get_weights=lambda state: state.weight,
        reconstruction=None,
        costs=None,
        **kwargs,
    )


def start(algorithm, options, recorder, *, evaluate=distance, watched_group="unseen_validation"):
    return Training(algorithm, options, recorder, evaluate=evaluate, watched_group=watched_group)


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


def train(algorithm, options, recorder, on_round=lambda round_num, row: None, **kwargs):
    return start(algorithm, options, recorder, **kwargs).run(on_round)


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
        tmp_path, make_algorithm(), options(5), on_round=lambda number, row: seen.append(number)
    )
    assert seen == [0, 1, 2, 3, 4, 5]
    # Rounds 1 to 5 have means 1.5 to 5.5, and each adds a third of its own.
    np.testing.assert_allclose(state.weight, [17.5 / 3] * 2, rtol=1e-6)
    rows = run.read_metrics()
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.get("train/loss") for row in rows] == [None, 1.5, 2.5, 3.5, 4.5, 5.5]
    evaluated = {
        row["round"]: row["unseen_validation/loss"]
        for row in rows
        if "unseen_validation/loss" in row
    }
    # Before the first round, each second one, and the last. 0 - 5; 2 * 4/3 - 5; ...
    assert evaluated == pytest.approx({0: -5, 2: -5 + 8 / 3, 4: -5 + 24 / 3, 5: -5 + 35 / 3})
    assert run.checkpoints() == [2, 4, 5]  # The last three.


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop):
    _, whole = run_in(tmp_path / "whole", make_algorithm(), options(6))
    run = RunDirectory(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(make_algorithm(StopAtRound(stop)), options(6), RunRecorder(run))
    assert run.checkpoints()[-1] == stop - 1  # The last whole round, due for a checkpoint or not.
    state = train(make_algorithm(), options(6), RunRecorder(run))
    assert state.weight.tobytes() == whole.weight.tobytes()
    assert state.num_rounds == whole.num_rounds == 6
    assert rows_without_seconds(run.path) == rows_without_seconds(tmp_path / "whole")


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    # No chance to save: the rows of round 3 are there, the state is that of round 2.
    _, whole = run_in(tmp_path / "whole", make_algorithm(), options(6))
    run = RunDirectory(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train(make_algorithm(StopAtRound(4)), options(6), RunRecorder(run))

    shutil.rmtree(run.path / "checkpoints" / "round_3")
    (run.path / "checkpoints" / "round_3.part").mkdir()
    state = train(make_algorithm(), options(6), RunRecorder(run))
    assert state.weight.tobytes() == whole.weight.tobytes()
    assert rows_without_seconds(run.path) == rows_without_seconds(tmp_path / "whole")


def test_seconds_add_up_over_the_parts_of_a_run(tmp_path):
    run, _ = run_in(tmp_path, make_algorithm(), options(2))
    first = run.read_metrics()[-1]["seconds"]
    run, _ = run_in(tmp_path, make_algorithm(), options(4))
    seconds = [row["seconds"] for row in run.read_metrics()]
    assert seconds == sorted(seconds)
    assert seconds[-1] > first


def test_fewer_rounds_than_were_done_are_refused(tmp_path):
    run_in(tmp_path, make_algorithm(), options(4))
    with pytest.raises(InputError, match="already has 4 rounds, more than the 3 wanted"):
        run_in(tmp_path, make_algorithm(), options(3))


def test_what_comes_after_the_checkpoint_is_cut_even_if_no_round_is_left_to_do(tmp_path):
    run_in(tmp_path, make_algorithm(), options(4))
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole + b"5,nonsense\n\xff")
    _, state = run_in(tmp_path, make_algorithm(), options(4))
    assert state.num_rounds == 4
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_checkpoints_that_are_gone_are_told(tmp_path):
    _, whole = run_in(tmp_path / "whole", make_algorithm(), options(6))
    run_in(tmp_path / "run", make_algorithm(), options(4))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.warns(UserWarning, match="has rows up to round 4, and there is no checkpoint"):
        _, state = run_in(tmp_path / "run", make_algorithm(), options(6))
    assert state.weight.tobytes() == whole.weight.tobytes()
    assert rows_without_seconds(tmp_path / "run") == rows_without_seconds(tmp_path / "whole")


def test_an_interruption_before_the_first_evaluation_leaves_nothing_half_done(tmp_path):
    def interrupted(state):
        raise KeyboardInterrupt

    run = RunDirectory(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(make_algorithm(), options(4), RunRecorder(run), evaluate=interrupted)
    assert run.checkpoints() == []
    train(make_algorithm(), options(4), RunRecorder(run))
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
    training = start(make_algorithm(Slow()), options(5), recorder)
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
    training = start(make_algorithm(), options(1, per_checkpoint=9), SlowRecorder(run))
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
    start(make_algorithm(), options(3), RunRecorder(run)).stop()
    assert run.checkpoints() == []


def test_the_watched_group_is_evaluated(tmp_path):
    asked = []

    def evaluate(state):
        asked.append(int(state.num_rounds))
        return {"hr_at_10": 0.5}

    run, _ = run_in(
        tmp_path, make_algorithm(), options(2), evaluate=evaluate, watched_group="seen_test"
    )
    assert asked == [0, 2]
    rows = run.read_metrics()
    assert [row.get("seen_test/hr_at_10") for row in rows] == [0.5, None, 0.5]
    assert {name.split("/")[0] for name in rows[2] if "/" in name} == {"train", "seen_test"}


def test_an_evaluation_that_fails_ends_the_run_after_its_last_whole_round(tmp_path):
    def evaluate(state):
        if state.num_rounds == 4:
            raise InputError("predictions are not finite")
        return distance(state)

    run = RunDirectory(tmp_path)
    with pytest.raises(InputError, match="predictions are not finite"):
        train(make_algorithm(), options(6), RunRecorder(run), evaluate=evaluate)
    assert run.checkpoints() == [0, 2, 3]
    assert [row["round"] for row in run.read_metrics()] == [0, 1, 2, 3]


# --- divergence -----------------------------------------------------------------------------------


class Changed(Process):
    """As `Process`, with metrics or a weight of its own from some round on."""

    def __init__(self, round_num, *, weight=None, **metrics):
        self._round_num, self._weight, self._metrics = round_num, weight, metrics

    def next(self, state, clients):
        output = super().next(state, clients)
        if output.state.num_rounds < self._round_num:
            return output
        state = output.state
        if self._weight is not None:
            state = state._replace(weight=np.array([1, self._weight], np.float32))
        return Output(state, {**output.metrics, **self._metrics})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("changes", "message"),
    [("loss", r"round 3 diverged: train/loss is (nan|-?inf); smaller"), ("weight", r"\(weight\)")],
)
def test_a_run_ends_in_its_first_round_that_is_not_finite(tmp_path, changes, message, bad):
    run = RunDirectory(tmp_path)
    algorithm = make_algorithm(Changed(3, **{changes: bad}))
    with pytest.raises(InputError, match=message):
        train(algorithm, options(6, 6, 6), RunRecorder(run))
    assert run.checkpoints() == [0, 2]  # Round 2 was not due.
    assert [row["round"] for row in run.read_metrics()] == [0, 1, 2]
    # The same command ends alike, and leaves the same.
    with pytest.raises(InputError, match=message):
        train(algorithm, options(6, 6, 6), RunRecorder(run))
    assert run.checkpoints() == [0, 2]


def test_a_large_state_is_looked_at_before_it_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "MAX_NUMBERS_EACH_ROUND", 2)  # It has three.
    run = RunDirectory(tmp_path)
    with pytest.raises(InputError, match="round 4 diverged"):
        train(make_algorithm(Changed(3, weight=np.nan)), options(6, 6, 4), RunRecorder(run))
    assert run.checkpoints() == [0]  # Nobody knows that the state of round 2 was finite.
    train(make_algorithm(), options(6, 6, 4), RunRecorder(run))
    assert run.checkpoints() == [0, 4, 6]
    assert [row["round"] for row in run.read_metrics()] == list(range(7))


class SomeRejected(Process):
    """As `Process`; a round rejects as many of its two clients as a list says."""

    def __init__(self, *rejected):
        self._rejected = rejected

    def next(self, state, clients):
        output = super().next(state, clients)
        rejected = self._rejected[state.num_rounds]
        return Output(output.state, {**output.metrics, "num_clients_rejected": rejected})


def test_the_third_round_in_a_row_without_any_client_ends_the_run(tmp_path):
    run = RunDirectory(tmp_path)
    algorithm = make_algorithm(SomeRejected(2, 2, 1, 0, 2, 2, 2, 2))
    with (
        pytest.warns(UserWarning, match="2 of the 2 clients of round 1 were left out") as warned,
        pytest.raises(InputError, match="all 6 clients of rounds 5 to 7 were left out"),
    ):
        train(algorithm, options(12), RunRecorder(run))
    assert len(warned) == 1
    assert run.checkpoints()[-1] == 6


@pytest.mark.filterwarnings("ignore:. of the 2 clients of round")
@pytest.mark.parametrize("stop", [None, 2, 4])
def test_a_run_that_left_out_more_than_half_of_its_clients_is_none(tmp_path, stop):
    # The other client of each round trained; of 2 * 6 clients, 6 may be left out, and 7 may not.
    algorithm = make_algorithm(SomeRejected(1, 1, 2, 1, 1, 1))
    run = RunDirectory(tmp_path)

    def interrupt(round_num, row):
        if round_num == stop:
            raise KeyboardInterrupt

    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            train(algorithm, options(6), RunRecorder(run), interrupt)
    message = "7 clients were left out up to round 6, .* more than half of the 12 of 6 rounds"
    with pytest.raises(InputError, match=message):
        train(algorithm, options(6), RunRecorder(run))
    assert run.checkpoints()[-1] == 5
    train(make_algorithm(SomeRejected(1, 1, 2, 1, 1, 0)), options(6), RunRecorder(run))
    assert run.checkpoints()[-1] == 6


def test_a_warning_names_the_run_where_it_is_one_of_several():
    check = divergence.DivergenceCheck(make_algorithm(), title="fed_avg-seed1")
    with pytest.warns(UserWarning, match="^fed_avg-seed1: 1 of the 2 clients of round 3 were left"):
        check.check_metrics(3, {"num_clients_rejected": 1})


@pytest.mark.filterwarnings("ignore:2 of the 2 clients of round")
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_resumed_run_ends_at_the_same_round_without_any_client(tmp_path, stop):
    algorithm = make_algorithm(SomeRejected(0, 2, 2, 2, 2, 2, 2))
    run = RunDirectory(tmp_path)

    def interrupt(round_num, row):
        if round_num == stop:
            raise KeyboardInterrupt

    if stop < 4:
        with pytest.raises(KeyboardInterrupt):
            train(algorithm, options(7), RunRecorder(run), interrupt)
        assert run.checkpoints()[-1] == stop
    with pytest.raises(InputError, match="of rounds 2 to 4 were"):
        train(algorithm, options(7), RunRecorder(run))
    assert run.checkpoints()[-1] == 3


@pytest.mark.parametrize("name", ["total_rounds", "rounds_per_evaluation", "rounds_per_checkpoint"])
def test_options_are_positive(name):
    values = dict.fromkeys(("total_rounds", "rounds_per_evaluation", "rounds_per_checkpoint"), 1)
    with pytest.raises(InputError, match=f"{name} is 0"):
        TrainingOptions(**{**values, name: 0})


# --- rows that clients keep ---------------------------------------------------------------------

NUM_USERS = 12


class Keeping(Process):
    """As `Process`, with a row for each client: how often it took part, and the last round."""

    def __init__(self, store, stop=None):
        self.store = store
        self._stop = stop

    def next(self, state, clients):
        users = clients.astype(int)
        rows, _ = self.store.read(users)
        round_num = int(state.num_rounds) + 1
        rows[:, 0] += 1
        rows[:, 1] = round_num
        self.store.stage(users, rows)
        if round_num == self._stop:  # In the middle of the round: its rows are staged.
            raise KeyboardInterrupt
        return super().next(state, clients)


def rows_after(num_rounds):
    """What `Keeping` leaves: the clients of round r are r and r + 1."""
    rows = np.zeros((NUM_USERS, 2), np.float32)
    for round_num in range(1, num_rounds + 1):
        rows[[round_num, round_num + 1], 0] += 1
        rows[[round_num, round_num + 1], 1] = round_num
    return rows


def open_store(path, **kwargs):
    return ClientStore(NUM_USERS, 2, path=path and path / "client_store", **kwargs)


def assert_rows(store, num_rounds):
    rows, is_known = store.read(np.arange(NUM_USERS))
    np.testing.assert_array_equal(rows, rows_after(num_rounds))
    np.testing.assert_array_equal(is_known, rows_after(num_rounds)[:, 0] > 0)


def keeping(path, stop=None):
    """An algorithm with a store in the run's folder, as a process has it that just began."""
    store = open_store(path)
    return make_algorithm(Keeping(store, stop), store=store)


def test_rows_of_a_round_that_diverged_are_forgotten(tmp_path):
    class Diverging(Keeping):
        def next(self, state, clients):
            output = super().next(state, clients)
            loss = np.nan if state.num_rounds == 3 else 0.5
            return Output(output.state, {**output.metrics, "loss": loss})

    store = open_store(tmp_path)
    run = RunDirectory(tmp_path)
    with pytest.raises(InputError, match="round 4 diverged"):
        train(make_algorithm(Diverging(store), store=store), options(6), RunRecorder(run))
    assert_rows(store, 3)
    assert_rows(open_store(tmp_path, read_round=run.checkpoints()[-1]), 3)


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_resumed_equals_uninterrupted_rows_included(tmp_path, stop):
    _, whole = run_in(tmp_path / "whole", keeping(tmp_path / "whole"), options(6))
    run = RunDirectory(tmp_path / "parts")
    interrupted = keeping(run.path, stop)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, options(6), RunRecorder(run))
    # The rows staged in the round that did not end are gone, in memory and in the folder.
    assert run.checkpoints()[-1] == stop - 1
    assert_rows(interrupted.store, stop - 1)
    assert_rows(open_store(run.path), stop - 1)
    state = train(keeping(run.path), options(6), RunRecorder(run))
    assert state.weight.tobytes() == whole.weight.tobytes()
    assert rows_without_seconds(run.path) == rows_without_seconds(tmp_path / "whole")
    assert_rows(open_store(run.path), 6)
    assert_rows(open_store(tmp_path / "whole"), 6)


def test_a_killed_run_takes_the_rows_of_its_last_checkpoint(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(keeping(tmp_path, 4), options(6), RunRecorder(run))
    # As if killed when the rows of round 3 had been saved and its checkpoint had not.
    shutil.rmtree(tmp_path / "checkpoints" / "round_3")
    assert_rows(open_store(tmp_path), 3)
    train(keeping(tmp_path), options(6), RunRecorder(run))
    assert_rows(open_store(tmp_path), 6)


def test_whatever_round_has_a_checkpoint_has_its_rows(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)
    saved = []
    save = Checkpoints.save

    def save_after_rows(checkpoints, state, round_num, **kwargs):
        # Before the checkpoint appears, at which the process might be killed.
        assert_rows(open_store(tmp_path, read_round=round_num), round_num)
        saved.append(round_num)
        save(checkpoints, state, round_num, **kwargs)

    monkeypatch.setattr(Checkpoints, "save", save_after_rows)

    def check(round_num, row):
        recorder.flush()
        for checkpoint in run.checkpoints():
            assert_rows(open_store(tmp_path, read_round=checkpoint), checkpoint)

    train(keeping(tmp_path), options(9), recorder, on_round=check)
    assert saved == [0, 2, 4, 6, 8, 9]
    assert run.checkpoints() == [6, 8, 9]


def test_rows_that_cannot_be_saved_leave_no_checkpoint(tmp_path, monkeypatch):
    algorithm = keeping(tmp_path)
    save = ClientTable.save

    def fail_in_round_4(table, snapshots, *, oldest):
        if any(round_num == 4 for round_num, _ in snapshots):
            raise OSError("No space left on device")
        save(table, snapshots, oldest=oldest)

    monkeypatch.setattr(ClientTable, "save", fail_in_round_4)
    run = RunDirectory(tmp_path)
    message = "No space left on device; the run is saved up to round 2, and once that is mended the"
    with pytest.raises(InputError, match=message):
        train(algorithm, options(6), RunRecorder(run))
    assert run.checkpoints() == [0, 2]
    monkeypatch.undo()
    train(keeping(tmp_path), options(6), RunRecorder(run))
    assert_rows(open_store(tmp_path), 6)


def test_rows_of_a_run_that_ended_before_its_first_checkpoint_are_forgotten(tmp_path):
    left = open_store(tmp_path)
    left.write(np.arange(NUM_USERS), np.full((NUM_USERS, 2), 7, np.float32))
    left.snapshot(0)()
    run = RunDirectory(tmp_path)
    algorithm = keeping(tmp_path)
    assert algorithm.store.read(np.arange(NUM_USERS))[1].all()  # They are there.
    train(algorithm, options(3), RunRecorder(run))
    assert_rows(algorithm.store, 3)
    assert_rows(open_store(tmp_path), 3)


def test_another_thread_stops_a_run_in_a_round_whose_rows_are_staged(tmp_path):
    in_round_4, may_go_on = threading.Event(), threading.Event()

    class Slow(Keeping):
        def next(self, state, clients):
            output = super().next(state, clients)
            if state.num_rounds == 3:
                in_round_4.set()
                may_go_on.wait(60)
            return output

    store = open_store(tmp_path)
    run = RunDirectory(tmp_path)
    training = start(make_algorithm(Slow(store), store=store), options(6), RunRecorder(run))
    thread = threading.Thread(target=training.run, daemon=True)
    thread.start()
    assert in_round_4.wait(60)
    assert_rows(store, 4)  # Staged.
    training.stop()
    assert run.checkpoints() == [0, 2, 3]
    assert_rows(open_store(tmp_path), 3)
    may_go_on.set()
    thread.join(0.5)
    assert thread.is_alive()  # Round 4 came too late to be recorded, and its rows to be kept.
    assert_rows(open_store(tmp_path), 3)
    train(keeping(tmp_path), options(6), RunRecorder(run))
    assert_rows(open_store(tmp_path), 6)


@pytest.mark.parametrize("in_folder", [True, False])
def test_evaluation_sees_the_rows_of_the_round_it_follows(tmp_path, in_folder):
    store = open_store(tmp_path if in_folder else None)

    def evaluate(state):
        rows, is_known = store.read(np.arange(NUM_USERS))
        return {"rows": float(rows[:, 0].sum()), "num_known": int(is_known.sum())}

    algorithm = make_algorithm(Keeping(store), store=store)
    run, _ = run_in(tmp_path, algorithm, options(5), evaluate=evaluate)
    rows = [row for row in run.read_metrics() if "unseen_validation/rows" in row]
    # Two clients a round, of which the first had been there in the round before.
    assert [(row["round"], row["unseen_validation/rows"]) for row in rows] == [
        (0, 0),
        (2, 4),
        (4, 8),
        (5, 10),
    ]
    assert [row["unseen_validation/num_known"] for row in rows] == [0, 3, 5, 6]
