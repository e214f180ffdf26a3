"""The client store in a folder: what survives its process, and who may look meanwhile."""

import contextlib
import gc
import json
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.client_store import ClientStore, check_snapshot

NUM_USERS = 10
# What `write_rounds` leaves after each round: the first number of each user's row.
AFTER = [
    {},
    {0: 1, 1: 1, 2: 1},
    {0: 2, 1: 1, 2: 2, 3: 2},
    {0: 3, 1: 1, 2: 2, 3: 3, 4: 3},
    {0: 4, 1: 1, 2: 2, 3: 3, 4: 4, 5: 4},
    {0: 5, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 5},
    {0: 6, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 6},
]


@pytest.fixture
def folder(tmp_path):
    """Opens the store of one folder, as after the end of the process that had it."""
    return lambda **kwargs: ClientStore(NUM_USERS, 3, path=tmp_path / "store", keep=2, **kwargs)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "store" / "rows.sqlite"


def rows_of(*values):
    """Rows of 3 that begin with the values: 7 is 7, 7.25, 7.5."""
    return np.asarray(values, np.float32)[:, None] + np.float32([0, 0.25, 0.5])


def known_values(store):
    rows, is_known = store.read(np.arange(NUM_USERS))
    users = np.flatnonzero(is_known)
    np.testing.assert_array_equal(rows[users], rows_of(*rows[users, 0]))
    return dict(zip(users.tolist(), rows[users, 0].tolist()))


def rounds_of(store):
    """The rounds that the store says it can restore."""
    with pytest.raises(InputError) as raised:
        store.restore(10**6)
    _, _, rounds = str(raised.value).rstrip(".").partition(" of rounds ")
    return [int(each) for each in rounds.split(", ")] if rounds else []


def write_rounds(store, rounds):
    """In round n users 0, n and n + 1 get rows of n; all snapshots are durable."""
    for n in rounds:
        if n:
            store.write(np.array([0, n, n + 1]), rows_of(n, n, n))
        store.snapshot(n)()


def contents(folder):
    """Names, bytes and times of the files."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.iterdir())}


# --- what survives --------------------------------------------------------------------------------


def test_a_folder_opens_at_its_newest_durable_snapshot(folder, file):
    store = folder()
    write_rounds(store, range(6))
    store.write(np.array([9]), rows_of(90))
    store.snapshot(6)  # Taken, but never written.
    reopened = folder()
    assert known_values(reopened) == AFTER[5]
    assert rounds_of(reopened) == [3, 4, 5]
    del store, reopened
    gc.collect()
    assert [path.name for path in file.parent.iterdir()] == ["rows.sqlite"]


def test_rounds_are_ordered_as_numbers(folder):
    write_rounds(folder(), [2, 8])
    store = folder()
    store.write(np.array([2]), rows_of(10))
    store.snapshot(10)()
    assert rounds_of(folder()) == [2, 8, 10]
    assert known_values(folder())[2] == 10


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_restored_folder_has_forgotten_later_rounds(folder, n):
    write_rounds(folder(), range(6))
    store = folder()
    store.restore(n)
    assert known_values(store) == AFTER[n]
    assert known_values(folder()) == AFTER[n]
    assert rounds_of(folder()) == list(range(3, n + 1))


def test_an_older_snapshot_that_was_not_written_is_written_with_a_newer_one(folder):
    store = folder()
    for n in (1, 2):
        store.write(np.array([n]), rows_of(n))
        durable = store.snapshot(n)
    durable()
    assert known_values(folder()) == {1: 1, 2: 2}
    assert rounds_of(folder()) == [1, 2]


def test_a_snapshot_dropped_meanwhile_is_not_written(folder):
    store = folder()
    write_rounds(store, [0])
    store.write(np.array([1]), rows_of(1))
    durable = store.snapshot(1)
    store.restore(0)
    durable()
    assert rounds_of(folder()) == [0]
    assert known_values(folder()) == {}


def test_a_second_snapshot_of_a_round_replaces_the_first(folder):
    store = folder()
    write_rounds(store, [0, 1])
    store.write(np.array([1, 9]), rows_of(10, 90))
    store.snapshot(1)()
    assert known_values(folder()) == {0: 1, 1: 10, 2: 1, 9: 90}


def test_a_cleared_folder_is_empty(folder):
    store = folder()
    write_rounds(store, range(6))
    store.clear()
    assert known_values(folder()) == {}
    assert rounds_of(folder()) == []


def test_the_file_holds_no_more_rows_than_its_snapshots_need(folder, file):
    store = folder()
    users = np.arange(NUM_USERS)
    sizes = []
    for n in range(300):
        store.write(users, rows_of(*users + n))
        store.snapshot(n)()
        sizes.append(file.stat().st_size)
    assert max(sizes) <= 8 * 4096


@pytest.mark.parametrize(("num_users", "width"), [(10, 4), (11, 3), (9, 3)])
def test_a_folder_of_another_shape_is_refused_and_stays(folder, file, num_users, width):
    write_rounds(folder(), range(6))
    message = (
        f"rows.sqlite holds rows of 3 numbers for 10 users, not of {width} for {num_users}; "
        "give another folder"
    )
    with pytest.raises(InputError, match=message):
        ClientStore(num_users, width, path=file.parent)
    with pytest.raises(InputError, match=message):
        ClientStore(num_users, width, path=file.parent, read_round=5)
    assert known_values(folder()) == AFTER[5]


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """As on a full disk: this process cannot make a file longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_heard_of_and_the_next_snapshot_makes_up_for_it(folder):
    store = folder()
    write_rounds(store, [0, 1])
    with files_of_at_most(100):
        with pytest.raises(InputError, match=r"the rows of clients in .*rows\.sqlite: ") as raised:
            write_rounds(store, [2])
    assert not isinstance(raised.value, DamagedError)
    assert known_values(store) == AFTER[2]
    assert known_values(folder()) == AFTER[1]
    write_rounds(store, [3])
    assert known_values(folder()) == AFTER[3]
    assert rounds_of(folder()) == [1, 2, 3]


# --- readers --------------------------------------------------------------------------------------


@pytest.fixture(params=["clean", "writer is there", "writer was killed"])
def left(request, folder, file, repository):
    """A folder after rounds 0 to 5, whose writer closed it, goes on, or was killed."""
    if request.param == "writer was killed":
        code = (
            "import os, signal\n"
            "from tests.runs.test_client_store_folder import ClientStore, write_rounds\n"
            f"store = ClientStore({NUM_USERS}, 3, path={str(file.parent)!r}, keep=2)\n"
            "write_rounds(store, range(6))\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=repository)
        assert run.returncode == -signal.SIGKILL
        yield request.param
    else:
        store = folder()
        write_rounds(store, range(6))
        if request.param == "clean":
            del store
        yield request.param


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_reader_sees_its_round_and_leaves_the_folder_alone(left, folder, file, n):
    names = {path.name for path in file.parent.iterdir()}
    assert names == {"rows.sqlite"} if left == "clean" else "rows.sqlite-wal" in names
    before = contents(file.parent)
    reader = folder(read_round=n)
    assert known_values(reader) == AFTER[n]
    del reader
    after = contents(file.parent)
    # The index of the log is shared memory, in which readers say what they are reading.
    for files in (before, after):
        files.pop("rows.sqlite-shm", None)
    assert after == before


@pytest.mark.slow
def test_a_reader_can_do_without_the_right_to_write(left, folder, file):
    paths = [file.parent, *file.parent.iterdir()]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert known_values(folder(read_round=4)) == AFTER[4]
    finally:
        for path, mode in zip(paths, modes):
            path.chmod(mode)


def test_a_reader_changes_nothing_and_names_what_is_missing(folder, file):
    with pytest.raises(InputError, match=r"rows\.sqlite: unable to open database file"):
        folder(read_round=1)
    assert not file.parent.exists()
    write_rounds(folder(), [1, 2])
    with pytest.raises(InputError, match=r"no snapshot of round 3; it has those of rounds 1, 2\."):
        folder(read_round=3)
    reader = folder(read_round=1)
    for change in (
        lambda: reader.write(np.array([1]), rows_of(1)),
        lambda: reader.snapshot(1),
        lambda: reader.restore(1),
        reader.clear,
    ):
        with pytest.raises(ValueError, match="opened as of one round, to be read only"):
            change()


def test_a_reader_keeps_its_round_while_training_goes_on(folder):
    store = folder()
    write_rounds(store, range(6))
    reader = folder(read_round=4)
    write_rounds(store, [6])
    store.write(np.arange(NUM_USERS), rows_of(*range(90, 100)))
    for n in range(7, 30):
        store.snapshot(n)()
    assert known_values(reader) == AFTER[4]
    with pytest.raises(InputError, match="no snapshot of round 4; it has those of rounds 27, 28"):
        folder(read_round=4)


def test_a_reader_of_a_closed_folder_notices_a_writer(folder):
    write_rounds(folder(), range(6))
    reader = folder(read_round=5)
    assert known_values(reader) == AFTER[5]
    store = folder()
    write_rounds(store, [6])
    assert known_values(reader) == AFTER[5]
    del store  # The log is gone, and its rows are in the file.
    assert known_values(reader) == AFTER[5]


def test_a_reader_of_a_closed_folder_says_when_its_round_is_gone(folder):
    write_rounds(folder(), range(6))
    reader = folder(read_round=3)
    store = folder()
    store.write(np.arange(NUM_USERS), rows_of(*range(90, 100)))
    store.snapshot(6)()
    with pytest.raises(InputError, match="no snapshot of round 3; it has those of rounds 4, 5, 6"):
        known_values(reader)


@pytest.mark.slow
def test_many_readers_beside_a_writer(tmp_path, repository):
    """Each opens a snapshot's rows while another process goes on as fast as it can."""
    command = [sys.executable, "-c", _LOOP, str(tmp_path / "store"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as process:
        for line in process.stdout:
            if line == "20\n":
                break
        n, done, num_read = 20, -1, 0
        expected, expected_known = np.zeros((200, 3), np.float32), np.zeros(200, bool)
        for _ in range(300):
            try:
                reader = ClientStore(200, 3, path=tmp_path / "store", keep=2, read_round=n)
            except InputError as error:  # Gone already; the message says which there are.
                n = int(str(error).rstrip(".").split(", ")[-1])
                continue
            _do_rounds(range(done + 1, n + 1), expected, expected_known)
            done = n
            rows, is_known = reader.read(np.arange(200))
            np.testing.assert_array_equal(rows, expected)
            np.testing.assert_array_equal(is_known, expected_known)
            num_read += 1
        assert process.poll() is None
        process.kill()
    assert num_read > 50


# --- damage ---------------------------------------------------------------------------------------


def test_a_changed_row_is_not_used(folder, file):
    write_rounds(folder(), [0, 1])
    data = file.read_bytes()
    row = rows_of(1)[0].tobytes()
    assert data.count(row) == 3
    place = data.rindex(row)  # Of user 0: a page is filled from its end.
    file.write_bytes(data[:place] + b"\1" + data[place + 1 :])
    for store in (folder(), folder(read_round=1)):
        with pytest.raises(InputError, match=r"the row of user 0 in .*rows\.sqlite is damaged"):
            store.read(np.arange(NUM_USERS))
        assert store.read(np.array([1, 2]))[0].tobytes() == rows_of(1, 1).tobytes()


@pytest.mark.parametrize("damage", ["emptied", "cut", "zeros", "text"])
def test_a_damaged_file_is_one_clear_error(folder, file, damage):
    write_rounds(folder(), range(6))
    whole = file.read_bytes()
    file.write_bytes(
        {
            "emptied": b"",
            "cut": whole[: len(whole) // 2],
            "zeros": b"\0" * len(whole),
            "text": b"round,loss\n" * 1000,
        }[damage]
    )
    with pytest.raises(DamagedError, match=r"^the rows of clients in .*rows\.sqlite: [^\n]*\.$"):
        known_values(folder(read_round=4))


def change(file, statement):
    """Changes the closed file; returns how many rows were changed."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement).rowcount


def totals(file):
    """What the snapshots count, and what there is of them, by round."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        counted = connection.execute("SELECT * FROM snapshots").fetchall()
        query = "SELECT count(*), sum(crc) FROM rows WHERE (id & 4294967295) <= ?"
        there = [(n, *connection.execute(query, [n]).fetchone()) for n, _, _ in counted]
    return counted, there


def test_a_snapshot_counts_the_rows_that_it_has(folder, file):
    store = folder()
    for n in range(8):
        write_rounds(store, [n])
        counted, there = totals(file)
        assert [(n, count, crc or 0) for n, count, crc in there] == counted
    store.write(np.array([1, 9]), rows_of(10, 90))
    store.snapshot(7)()  # Again: the row of user 1 is replaced or added, that of user 9 is added.
    counted, there = totals(file)
    assert there == counted
    assert len(counted) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM rows WHERE id >> 32 = 1",
        "UPDATE rows SET row = NULL WHERE id >> 32 = 1",
        "UPDATE rows SET row = substr(row, 1, 4) WHERE id >> 32 = 1",
        "UPDATE rows SET crc = crc + 1 WHERE id >> 32 = 1",
        "UPDATE snapshots SET num_rows = num_rows + 1",
        "UPDATE snapshots SET crc_sum = crc_sum - 1",
    ],
)
def test_a_snapshot_whose_rows_are_not_its_own_is_refused(folder, file, statement):
    write_rounds(folder(), range(6))
    assert change(file, statement)
    before = file.read_bytes()
    for n in (3, 4, 5):
        with pytest.raises(DamagedError, match="damaged"):
            folder().restore(n)
        with pytest.raises(DamagedError, match="damaged"):
            known_values(folder(read_round=n))
    assert file.read_bytes() == before


def test_a_row_that_only_a_later_snapshot_lacks_leaves_the_older_ones_whole(folder, file):
    write_rounds(folder(), range(6))
    assert change(file, "DELETE FROM rows WHERE (id & 4294967295) = 5")
    for check in (folder().restore, lambda n: check_snapshot(file.parent, n)):
        with pytest.raises(DamagedError, match="its rows up to round 5 are not those"):
            check(5)
    check_snapshot(file.parent, 4)
    store = folder()
    store.restore(4)
    assert known_values(store) == AFTER[4]


def test_rows_of_which_no_change_is_known_go_all_the_same(folder, file):
    write_rounds(folder(), range(6))
    assert change(file, "DELETE FROM changes")
    store = folder()
    store.restore(4)
    assert known_values(store) == AFTER[4]
    write_rounds(store, [5, 6])
    assert known_values(folder()) == AFTER[6]


def test_a_file_of_an_older_version_goes_on(folder, file):
    write_rounds(folder(), range(6))
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        rounds = connection.execute("SELECT round FROM snapshots").fetchall()
        connection.execute("DROP TABLE snapshots")
        connection.execute("CREATE TABLE snapshots (round INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO snapshots VALUES (?)", rounds)
    assert known_values(folder(read_round=4)) == AFTER[4]
    store = folder()
    store.restore(4)
    write_rounds(store, [5, 6])
    assert known_values(folder()) == AFTER[6]
    assert known_values(folder(read_round=6)) == AFTER[6]
    counted, there = totals(file)
    assert (6, *counted[-1][1:]) == there[-1]


# --- the end of the process, at any instant -------------------------------------------------------
# Each round writes 20 of 200 users; rows say whose they are and of which round. A line is printed
# once a round is durable.
_LOOP = """
import concurrent.futures, sys
import numpy as np
from fedrecon.runs.client_store import ClientStore

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


def _do_rounds(rounds, rows, is_known):
    for n in rounds:
        users = np.random.default_rng(n).choice(200, 20, replace=False)
        rows[users] = np.stack([users, users * 0 + n, users + n], axis=1)
        is_known[users] = True


@pytest.mark.slow
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
        rounds = rounds_of(store)
        assert {*[*range(first), *printed][-2:]} <= {*rounds}
        for n in reversed(rounds):
            store.restore(n)
            rows, is_known = store.read(np.arange(200))
            expected_rows, expected_known = np.zeros((200, 3), np.float32), np.zeros(200, bool)
            _do_rounds(range(n + 1), expected_rows, expected_known)
            np.testing.assert_array_equal(rows, expected_rows)
            np.testing.assert_array_equal(is_known, expected_known)
        num_rounds += len(printed)
        first = rounds[:2][-1] + 1 if rounds else 0  # Not always the newest is resumed.
    assert num_rounds > 10


# --- ten million users ----------------------------------------------------------------------------

_LARGE = """
import json, os, pathlib, re, sys
import numpy as np
from fedrecon.runs.client_store import ClientStore

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
if path:
    store = ClientStore(10_000_000, 64, path=path)
found, is_known = store.read(users)
assert is_known.all() and (found == rows).all()
found, is_known = store.read(np.random.default_rng(2).choice(10_000_000, 20_000, replace=False))
assert is_known.sum() < 100 and not found[~is_known].any()
store.restore(3)
assert (store.read(users)[0] == rows).all()
files = [each.stat() for each in path.iterdir()] if path else []
print(json.dumps({
    "resident": resident() - before,
    "on_disk": sum(each.st_size for each in files),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["memory", "folder"])
def test_ten_million_users_take_the_room_of_those_known(form, tmp_path, repository):
    command = [sys.executable, "-c", _LARGE, str(tmp_path / "store") if form == "folder" else ""]
    run = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout)
    assert measured["resident"] < 50e6
    if form == "folder":
        assert measured["on_disk"] < 1e6
