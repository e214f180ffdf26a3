import concurrent.futures
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.runs.client_store import ClientStore, UnknownUserError

NUM_USERS = 10
EVERYONE = np.arange(NUM_USERS)


@pytest.fixture(params=["memory", "folder"])
def store(request, tmp_path):
    """A new store of 10 users and rows of 3 that keeps snapshots for 2 checkpoints: 3 of them."""
    return ClientStore(NUM_USERS, 3, path=_path(request.param, tmp_path), keep=2)


def _path(form, tmp_path):
    return tmp_path / "store" if form == "folder" else None


def _rows(*values):
    """Rows of 3 that begin with the values: 7 is 7, 7.25, 7.5."""
    return np.asarray(values, np.float32)[:, None] + np.float32([0, 0.25, 0.5])


def _known_values(store):
    """The known users and the first number of their rows."""
    rows, is_known = store.read(EVERYONE)
    np.testing.assert_array_equal(rows[is_known], _rows(*rows[is_known, 0]))
    np.testing.assert_array_equal(rows[~is_known], 0)
    return dict(zip(EVERYONE[is_known].tolist(), rows[is_known, 0].tolist()))


def _rounds(store):
    """The rounds that the store says it can restore."""
    with pytest.raises(InputError) as raised:
        store.restore(10**6)
    _, _, rounds = str(raised.value).rstrip(".").partition(" of rounds ")
    return [int(each) for each in rounds.split(", ")] if rounds else []


def _files(tmp_path):
    return sorted(path.name for path in (tmp_path / "store").iterdir())


# --- rows -----------------------------------------------------------------------------------------


def test_rows_come_back_in_the_order_asked_and_unknown_users_have_zeros(store):
    store.write(np.array([4, 2]), _rows(40, 20))
    rows, is_known = store.read(np.array([2, 9, 4, 2], np.int32))
    np.testing.assert_array_equal(
        rows, [[20, 20.25, 20.5], [0, 0, 0], [40, 40.25, 40.5], [20, 20.25, 20.5]]
    )
    assert is_known.tolist() == [True, False, True, True]
    assert rows.dtype == np.float32
    store.write(np.array([2]), _rows(21))
    assert _known_values(store) == {2: 21, 4: 40}


def test_bits_are_kept(store):
    rows = np.array([[-0.0, 1e-45, np.finfo(np.float32).max]], np.float32)
    store.write(np.array([0]), rows)
    for round_num in range(5):
        assert store.read(np.array([0]))[0].tobytes() == rows.tobytes()
        store.snapshot(round_num)()


def test_no_users_are_no_rows(store):
    store.write(np.array([], int), np.zeros((0, 3)))
    rows, is_known = store.read(np.array([], int))
    assert rows.shape == (0, 3)
    assert is_known.shape == (0,)


def test_the_store_shares_no_memory_with_its_caller(store):
    rows = _rows(1, 2)
    store.write(np.array([1, 2]), rows)
    rows[:] = 9
    for round_num in range(5):  # From the rows not in a snapshot, from those in one, from the base.
        store.read(np.array([1, 2]))[0][:] = 9
        assert _known_values(store) == {1: 1, 2: 2}
        store.snapshot(round_num)()


def test_known_users_are_counted_once(store):
    assert (store.num_known, store.num_bytes) == (0, 0)
    for round_num in range(6):  # User 0 ends in the base and above it.
        users = np.unique([0, round_num])
        store.write(users, _rows(*users))
        store.snapshot(round_num)()
    store.write(np.array([0, 9]), _rows(1, 2))
    assert (store.num_known, store.num_bytes) == (7, 7 * 3 * 4)


@pytest.mark.parametrize("user", [-1, 10])
def test_a_user_without_a_place_is_named(store, user):
    message = rf"^the store has no user {user}; it holds users 0 to 9\.$"
    with pytest.raises(UnknownUserError, match=message):
        store.read(np.array([3, user]))
    with pytest.raises(UnknownUserError, match=message):
        store.write(np.array([3, user]), _rows(1, 2))
    assert issubclass(UnknownUserError, InputError)
    assert _known_values(store) == {}


@pytest.mark.parametrize(
    ("users", "rows", "message"),
    [
        ([3, 4, 3], _rows(1, 2, 3), "user 3 has more than one row"),
        ([3, 4], _rows(1), r"2 users need rows of shape \(2, 3\), not \(1, 3\)"),
        ([3], np.ones((1, 4)), r"1 users need rows of shape \(1, 3\), not \(1, 4\)"),
        ([3, 4], [[1, 1, 1], [1, np.nan, 1]], "row of user 4 is not finite"),
        ([3, 4], [[1, 1, -np.inf], [1, 1, 1]], "row of user 3 is not finite"),
        ([3.0], _rows(1), r"integers, not \(1,\) float64"),
        ([[3]], _rows(1), r"integers, not \(1, 1\) int64"),
    ],
)
def test_a_write_that_is_refused_writes_nothing(store, users, rows, message):
    store.write(np.array([3]), _rows(7))
    with pytest.raises(ValueError, match=message):
        store.write(np.array(users), rows)
    assert _known_values(store) == {3: 7}


@pytest.mark.parametrize("name", ["num_users", "width", "keep"])
def test_numbers_must_be_positive(name):
    with pytest.raises(InputError, match=f"{name} is 0; it must be at least 1"):
        ClientStore(**{"num_users": 1, "width": 1, "keep": 1, name: 0})


# --- snapshots ------------------------------------------------------------------------------------


def _write_rounds(store, rounds):
    """In round n users 0, n and n + 1 get rows of n; all snapshots are durable."""
    for n in rounds:
        if n:
            store.write(np.array([0, n, n + 1]), _rows(n, n, n))
        store.snapshot(n)()


# What `_write_rounds` leaves after each round.
AFTER = [
    {},
    {0: 1, 1: 1, 2: 1},
    {0: 2, 1: 1, 2: 2, 3: 2},
    {0: 3, 1: 1, 2: 2, 3: 3, 4: 3},
    {0: 4, 1: 1, 2: 2, 3: 3, 4: 4, 5: 4},
    {0: 5, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 5},
    {0: 6, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 6},
]


def test_a_snapshot_is_restored_and_what_came_later_is_forgotten(store):
    _write_rounds(store, [0, 1, 2])
    store.write(np.array([1, 9]), _rows(90, 90))
    assert _known_values(store) == {**AFTER[2], 1: 90, 9: 90}
    for n in (2, 1, 0):
        store.restore(n)
        assert _known_values(store) == AFTER[n]
        assert store.num_known == len(AFTER[n])
        assert _rounds(store) == list(range(n + 1))
    _write_rounds(store, [1])
    assert _known_values(store) == AFTER[1]


@pytest.mark.parametrize("n", [4, 5, 6])
def test_one_snapshot_more_than_the_run_keeps_checkpoints_can_be_restored(store, n):
    _write_rounds(store, range(7))
    assert _known_values(store) == AFTER[6]
    message = r"^the store has no snapshot of round 3; it has those of rounds 4, 5, 6\.$"
    with pytest.raises(InputError, match=message):
        store.restore(3)
    assert _known_values(store) == AFTER[6]
    store.restore(n)
    assert _known_values(store) == AFTER[n]
    _write_rounds(store, range(n + 1, 7))
    assert _known_values(store) == AFTER[6]


def test_without_a_snapshot_none_is_restored(store):
    with pytest.raises(InputError, match=r"no snapshot of round 0; it has none\.$"):
        store.restore(0)


def test_a_snapshot_of_the_same_round_replaces_the_first(store):
    store.write(np.array([1, 2]), _rows(1, 2))
    first = store.snapshot(5)
    store.write(np.array([2, 3]), _rows(20, 30))
    second = store.snapshot(5)
    second()
    first()
    store.write(np.array([1]), _rows(100))
    assert _rounds(store) == [5]
    store.restore(5)
    assert _known_values(store) == {1: 1, 2: 20, 3: 30}


def test_rounds_do_not_go_back_without_a_restore(store):
    _write_rounds(store, [1, 2])
    with pytest.raises(ValueError, match="round 1 comes before round 2, the last snapshot"):
        store.snapshot(1)
    store.restore(1)
    store.snapshot(1)
    assert _known_values(store) == AFTER[1]


def test_a_cleared_store_is_a_new_one(store):
    _write_rounds(store, range(5))
    late = store.snapshot(5)
    store.clear()
    late()
    assert _known_values(store) == {}
    assert (store.num_known, _rounds(store)) == (0, [])
    _write_rounds(store, range(4))
    store.restore(2)
    assert _known_values(store) == AFTER[2]


@pytest.mark.parametrize("num_written", range(4))
def test_readers_wait_for_no_fold_and_see_none_half_done(store, num_written):
    store.write(np.array([1, 2, 3]), _rows(1, 2, 3))
    store.snapshot(0)()
    store.write(np.array([2]), _rows(20))
    fold, seen = store._base.fold, []

    def fold_and_look(rows):
        fold(dict(list(rows.items())[:num_written]))
        seen.append(pool.submit(_known_values, store).result(timeout=10))
        fold(rows)

    store._base.fold = fold_and_look
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for n in (1, 2, 3):
            store.snapshot(n)()
    assert seen == [{1: 1, 2: 20, 3: 3}]
    assert _known_values(store) == {1: 1, 2: 20, 3: 3}


def test_another_thread_writes_snapshots_while_this_one_goes_on(store):
    expected = {}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        writing = []
        for n in range(60):
            users = np.random.default_rng(n).choice(NUM_USERS, 3, replace=False)
            store.write(users, _rows(*users + n))
            expected.update(zip(users.tolist(), (users + n).tolist()))
            writing.append(pool.submit(store.snapshot(n)))
            assert _known_values(store) == expected
    for each in writing:
        each.result()
    assert _rounds(store) == [57, 58, 59]
    assert _known_values(store) == expected
    assert store.num_known == len(expected)


# --- a folder -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Opens the store of one folder, as after the end of the process that had it."""
    return lambda: ClientStore(NUM_USERS, 3, path=tmp_path / "store", keep=2)


def test_a_folder_opens_at_its_newest_durable_snapshot(folder, tmp_path):
    store = folder()
    _write_rounds(store, range(6))
    store.write(np.array([9]), _rows(90))
    store.snapshot(6)  # Taken, but never written.
    reopened = folder()
    assert _known_values(reopened) == AFTER[5]
    assert reopened.num_known == 7
    assert _rounds(reopened) == [3, 4, 5]
    assert _files(tmp_path) == [
        *("delta_3.npz", "delta_4.npz", "delta_5.npz"),
        *("known.npy", "rows.npy"),
    ]
    rows = np.load(tmp_path / "store" / "rows.npy", mmap_mode="r")
    np.testing.assert_array_equal(rows[:4], _rows(2, 1, 2, 2))  # As of round 2, and shared by all.


def test_rounds_are_ordered_as_numbers(folder):
    _write_rounds(folder(), [2, 8])
    store = folder()
    store.write(np.array([2]), _rows(10))
    store.snapshot(10)()
    assert _rounds(folder()) == [2, 8, 10]
    assert _known_values(folder())[2] == 10


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_restored_folder_has_forgotten_later_rounds(folder, tmp_path, n):
    _write_rounds(folder(), range(6))
    store = folder()
    store.restore(n)
    assert _known_values(store) == AFTER[n]
    assert _known_values(folder()) == AFTER[n]
    assert [int(name[6:-4]) for name in _files(tmp_path)[:-2]] == list(range(3, n + 1))


def test_an_older_snapshot_that_was_not_written_is_written_with_a_newer_one(folder):
    store = folder()
    for n in (1, 2):
        store.write(np.array([n]), _rows(n))
        durable = store.snapshot(n)
    durable()
    assert _known_values(folder()) == {1: 1, 2: 2}
    assert _rounds(folder()) == [1, 2]


def test_a_snapshot_dropped_meanwhile_is_not_written(folder, tmp_path):
    store = folder()
    _write_rounds(store, [0])
    store.write(np.array([1]), _rows(1))
    durable = store.snapshot(1)
    store.restore(0)
    durable()
    assert _files(tmp_path)[:-2] == ["delta_0.npz"]


def test_a_second_snapshot_of_a_round_replaces_the_file(folder):
    store = folder()
    _write_rounds(store, [0, 1])
    store.write(np.array([1, 9]), _rows(10, 90))
    store.snapshot(1)()
    assert _known_values(folder()) == {0: 1, 1: 10, 2: 1, 9: 90}


def test_a_cleared_folder_is_empty_and_takes_no_room(folder, tmp_path):
    store = folder()
    _write_rounds(store, range(6))
    store.clear()
    assert _known_values(folder()) == {}
    assert _files(tmp_path) == ["known.npy", "rows.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "rows.npy"), np.zeros((10, 3)))


@pytest.mark.parametrize(("num_users", "width"), [(10, 4), (11, 3), (9, 3)])
def test_a_folder_of_another_shape_is_refused_and_stays(folder, tmp_path, num_users, width):
    _write_rounds(folder(), range(6))
    message = (
        f"store holds rows of 3 numbers for 10 users, not of {width} for {num_users}; give another"
    )
    with pytest.raises(InputError, match=message):
        ClientStore(num_users, width, path=tmp_path / "store")
    assert _known_values(folder()) == AFTER[5]
    (tmp_path / "store" / "known.npy").unlink()  # As if killed while the folder was made.
    with pytest.raises(InputError, match=message):
        ClientStore(num_users, width, path=tmp_path / "store")
    assert not (tmp_path / "store" / "known.npy").exists()


def test_a_full_disk_is_heard_of_and_the_next_snapshot_makes_up_for_it(folder, monkeypatch):
    store = folder()
    _write_rounds(store, [0, 1])
    save_delta = store._base.save_delta

    def fail(round_num, rows):
        raise OSError("No space left on device")

    store._base.save_delta = fail
    with pytest.raises(OSError, match="No space left"):
        _write_rounds(store, [2])
    assert _known_values(store) == AFTER[2]
    assert _known_values(folder()) == AFTER[1]
    store._base.save_delta = save_delta
    _write_rounds(store, [3])
    assert _known_values(folder()) == AFTER[3]


# --- the end of the process, at any instant -------------------------------------------------------


class _Killed(BaseException):
    pass


def _kill_at(monkeypatch, step):
    """Ends what runs before its file operation number `step`."""
    steps = itertools.count()

    def stoppable(function):
        def run(*args, **kwargs):
            if next(steps) == step:
                raise _Killed
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(os, "fsync", stoppable(os.fsync))
    monkeypatch.setattr(os, "replace", stoppable(os.replace))
    monkeypatch.setattr(np, "savez", stoppable(np.savez))
    monkeypatch.setattr(pathlib.Path, "unlink", stoppable(pathlib.Path.unlink))


def test_whichever_file_operation_is_the_last_every_snapshot_is_whole(tmp_path, monkeypatch):
    # Six rounds, then from the fourth other ones: of these, rows are negative.
    states = {n: [state] for n, state in enumerate(AFTER)}
    second = dict(AFTER[4])
    for n in (5, 6):
        second = {**second, 0: -n, n - 1: -n}
        states[n].append(second)

    def train(store, confirmed):
        for n in range(7):
            if n:
                store.write(np.array([0, n, n + 1]), _rows(n, n, n))
            store.snapshot(n)()
            confirmed.append(n)
        confirmed[:] = [4]
        store.restore(4)
        for n in (5, 6):
            store.write(np.array([0, n - 1]), _rows(-n, -n))
            store.snapshot(n)()
            confirmed.append(n)

    for step in itertools.count():
        path, confirmed = tmp_path / str(step), []
        with monkeypatch.context() as patch:
            _kill_at(patch, step)
            try:
                train(ClientStore(NUM_USERS, 3, path=path, keep=2), confirmed)
            except _Killed:
                ended = False
            else:
                ended = True
        store = ClientStore(NUM_USERS, 3, path=path, keep=2)
        rounds = _rounds(store)
        assert set(confirmed[-2:]) <= set(rounds)
        assert not list(path.glob("*.part"))
        for n in reversed(rounds):
            store.restore(n)
            assert _known_values(store) in states[n]
        if ended:
            break
    assert (
        step == 2 * 2 + 9 * 4 + 4 * 3 + 2
    )  # Two arrays made, nine saved, four folded, two dropped.


@pytest.mark.parametrize(
    ("num_rows", "num_flags"), [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 3)]
)
def test_a_fold_cut_short_changes_no_snapshot_and_is_done_again(folder, num_rows, num_flags):
    store = folder()
    _write_rounds(store, range(6))
    oldest = list(store._snapshots[0].rows.items())
    assert len(oldest) == 3
    store._base._overwrite("rows.npy", dict(oldest[:num_rows]))
    store._base._overwrite("known.npy", dict.fromkeys(dict(oldest[:num_flags]), b"\1"))
    store = folder()
    assert store.num_known == 7
    for n in (5, 4, 3):
        store.restore(n)
        assert _known_values(store) == AFTER[n]
    _write_rounds(store, range(4, 7))
    assert _known_values(folder()) == AFTER[6]


# Each round writes 20 of 200 users; rows say whose they are and of which round. A line is printed
# once a round is durable.
_LOOP = """
import concurrent.futures, sys
import numpy as np
from fedrecon.client_store import ClientStore

store = ClientStore(200, 3, path=sys.argv[1], keep=2)
first = int(sys.argv[2])
if first:
    store.restore(first - 1)
print("ready", flush=True)
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    before = pool.submit(int)
    for n in range(first, 100_000):
        users = np.random.default_rng(n).choice(200, 20, replace=False)
        store.write(users, np.stack([users, users * 0 + n, users + n], axis=1))
        durable = store.snapshot(n)
        before.result()
        before = pool.submit(lambda n=n, durable=durable: (durable(), print(n, flush=True)))
"""


def _loop_rows(last):
    rows, is_known = np.zeros((200, 3), np.float32), np.zeros(200, bool)
    for n in range(last + 1):
        users = np.random.default_rng(n).choice(200, 20, replace=False)
        rows[users] = np.stack([users, users * 0 + n, users + n], axis=1)
        is_known[users] = True
    return rows, is_known


def test_a_killed_process_loses_no_durable_snapshot(tmp_path, repository):
    first, num_rounds = 0, 0
    for milliseconds in (1, 7, 20, 33, 60, 101):
        command = [sys.executable, "-c", _LOOP, str(tmp_path / "store"), str(first)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=repository
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGKILL)
            printed = [int(line) for line in process.stdout.read().split()]
        assert process.returncode == -signal.SIGKILL
        copy = shutil.copytree(tmp_path / "store", tmp_path / str(milliseconds))
        store = ClientStore(200, 3, path=copy, keep=2)
        rounds = _rounds(store)
        assert {*[*range(first), *printed][-2:]} <= {*rounds}
        for n in reversed(rounds):
            store.restore(n)
            rows, is_known = store.read(np.arange(200))
            expected_rows, expected_known = _loop_rows(n)
            np.testing.assert_array_equal(rows, expected_rows)
            np.testing.assert_array_equal(is_known, expected_known)
        num_rounds += len(printed)
        first = rounds[:2][-1] + 1 if rounds else 0  # Not always the newest is resumed.
    assert num_rounds > 10


def test_what_is_written_is_on_disk_before_what_it_replaces_goes(folder, tmp_path, monkeypatch):
    store, events = folder(), []
    _write_rounds(store, range(3))

    def note(function, name_of):
        def run(target, *args, **kwargs):
            events.append((function.__name__, name_of(target)))
            return function(target, *args, **kwargs)

        return run

    def name_of_file(number):
        return pathlib.Path(os.readlink(f"/proc/self/fd/{number}")).name

    monkeypatch.setattr(os, "fsync", note(os.fsync, name_of_file))
    monkeypatch.setattr(os, "replace", note(os.replace, lambda path: path.name))
    monkeypatch.setattr(pathlib.Path, "unlink", note(pathlib.Path.unlink, lambda path: path.name))
    _write_rounds(store, [3])
    assert events == [
        ("fsync", "delta_3.npz.part"),
        ("replace", "delta_3.npz.part"),
        ("fsync", "store"),
        ("fsync", "rows.npy"),
        ("fsync", "known.npy"),
        ("unlink", "delta_0.npz"),
    ]


# --- any order of operations ----------------------------------------------------------------------


class _Oracle:
    """The same store as plain dictionaries: user to the first number of the row."""

    def __init__(self, keep):
        self.keep, self.rows = keep, {}
        self.snapshots = []  # [round, rows, the rows of that round in the file or None]

    def snapshot(self, n):
        replaces = self.snapshots and self.snapshots[-1][0] == n
        in_file = self.snapshots.pop()[2] if replaces else None
        self.snapshots.append([n, dict(self.rows), in_file])
        return self.snapshots[-1]

    def make_durable(self, snapshot):
        place = [each is snapshot for each in self.snapshots]
        if any(place):
            upto = place.index(True) + 1
            for each in self.snapshots[:upto]:
                each[2] = each[1]
            del self.snapshots[: max(0, upto - (self.keep + 1))]

    def restore(self, n):
        while self.snapshots[-1][0] != n:
            self.snapshots.pop()
        self.rows = dict(self.snapshots[-1][1])

    def reopen(self):
        self.snapshots = [
            [n, in_file, in_file] for n, _, in_file in self.snapshots if in_file is not None
        ]
        self.rows = dict(self.snapshots[-1][1]) if self.snapshots else {}


_OPERATIONS = st.one_of(
    st.tuples(
        st.just("write"),
        st.dictionaries(st.integers(0, NUM_USERS - 1), st.integers(-99, 99), max_size=4),
    ),
    st.tuples(st.just("snapshot"), st.integers(0, 2)),  # By how many rounds later than the last.
    st.tuples(st.just("durable"), st.integers(0, 3)),  # Which of the functions not yet called.
    st.tuples(st.just("durable"), st.just(0)),
    st.tuples(st.just("restore"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["reopen", "clear"]), st.just(0)),
)


@pytest.mark.parametrize("form", ["memory", "folder"])
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    operations=st.lists(_OPERATIONS, min_size=10, max_size=60), keep=st.integers(1, 3)
)
def test_any_operations_leave_what_they_leave_in_dictionaries(form, operations, keep):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)  # Slow, and nothing here depends on it.
        path = _path(form, pathlib.Path(folder))
        store, oracle = ClientStore(NUM_USERS, 3, path=path, keep=keep), _Oracle(keep)
        waiting = []
        for operation, argument in operations:
            rounds = [n for n, _, _ in oracle.snapshots]
            if operation == "write":
                store.write(np.fromiter(argument, int), _rows(*argument.values()))
                oracle.rows.update(argument)
            elif operation == "snapshot":
                n = (rounds[-1] if rounds else 0) + argument
                waiting.append((store.snapshot(n), oracle.snapshot(n)))
            elif operation == "durable" and waiting:
                durable, snapshot = waiting.pop(argument % len(waiting))
                durable()
                oracle.make_durable(snapshot)
            elif operation == "restore" and rounds:
                n = rounds[argument % len(rounds)]
                store.restore(n)
                oracle.restore(n)
            elif operation == "reopen" and path:
                store, waiting = ClientStore(NUM_USERS, 3, path=path, keep=keep), []
                oracle.reopen()
            elif operation == "clear":
                store.clear()
                oracle = _Oracle(keep)
            assert _known_values(store) == oracle.rows
            assert store.num_known == len(oracle.rows)
            assert _rounds(store) == [n for n, _, _ in oracle.snapshots]


# --- ten million users ----------------------------------------------------------------------------

_LARGE = """
import json, os, pathlib, re, sys
import numpy as np
from fedrecon.client_store import ClientStore

def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])

path = pathlib.Path(sys.argv[1]) if sys.argv[1] else None
before = resident()
store = ClientStore(10_000_000, 64, path=path)
users = np.random.default_rng(0).choice(10_000_000, 100, replace=False)
rows = np.random.default_rng(1).normal(size=(100, 64)).astype(np.float32)
store.write(users, rows)
for n in range(6):
    store.snapshot(n)()
assert store._base.known[users].all()  # Folded: read from the base alone.
if path:
    store = ClientStore(10_000_000, 64, path=path)
found, is_known = store.read(users)
assert is_known.all() and (found == rows).all()
found, is_known = store.read(np.random.default_rng(2).choice(10_000_000, 20_000, replace=False))
assert is_known.sum() < 100 and not found[~is_known].any()
assert store.num_known == 100
store.restore(3)
assert store.num_bytes == 100 * 64 * 4
files = [each.stat() for each in path.iterdir()] if path else []
print(json.dumps({
    "resident": resident() - before,
    "on_disk": 512 * sum(each.st_blocks for each in files),
    "addressed": sum(each.st_size for each in files),
}))
"""


@pytest.mark.parametrize("form", ["memory", "folder"])
def test_ten_million_users_take_the_room_of_those_known(form, tmp_path, repository):
    command = [sys.executable, "-c", _LARGE, str(_path(form, tmp_path) or "")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout)
    assert measured["resident"] < 50e6
    if form == "folder":
        assert measured["addressed"] > 2.56e9
        assert measured["on_disk"] < 5e6


def test_staged_rows_are_read_at_once_and_kept_only_when_committed(tmp_path):
    users = np.array([3, 5])
    for store in (ClientStore(9, 2), ClientStore(9, 2, path=tmp_path)):
        store.write(users[:1], np.full((1, 2), 1.0))
        store.stage(users, np.array([[2.0, 2.0], [3.0, 3.0]]))
        assert store.read(users)[0].tolist() == [[2.0, 2.0], [3.0, 3.0]]
        store.snapshot(1)()
        store.rollback()
        rows, is_known = store.read(users)
        assert rows.tolist() == [[1.0, 1.0], [0.0, 0.0]]
        assert is_known.tolist() == [True, False]
        store.stage(users, np.array([[4.0, 4.0], [5.0, 5.0]]))
        store.commit()
        store.rollback()
        store.snapshot(2)()
        store.restore(2)
        assert store.read(users)[0].tolist() == [[4.0, 4.0], [5.0, 5.0]]
        store.restore(1)
        assert store.read(users)[0].tolist() == [[1.0, 1.0], [0.0, 0.0]]
