import concurrent.futures
import pathlib
import tempfile

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
    for round_num in range(5):  # From memory, then from the table.
        store.read(np.array([1, 2]))[0][:] = 9
        assert _known_values(store) == {1: 1, 2: 2}
        store.snapshot(round_num)()


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
    assert _rounds(store) == []
    _write_rounds(store, range(4))
    store.restore(2)
    assert _known_values(store) == AFTER[2]


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


@pytest.mark.slow
@pytest.mark.parametrize("form", ["memory", "folder"])
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    operations=st.lists(_OPERATIONS, min_size=10, max_size=60), keep=st.integers(1, 3)
)
def test_any_operations_leave_what_they_leave_in_dictionaries(form, operations, keep):
    with tempfile.TemporaryDirectory() as folder:
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
            assert _rounds(store) == [n for n, _, _ in oracle.snapshots]
