"""Rows of numbers by user and round in an SQLite file, in whole snapshots.

    rows       id: user * 2**32 + round; the row as of the end of that round; its CRC-32 with the id
    changes    round, user: the rows that a snapshot has and the snapshot before has not
    snapshots  round: the snapshots that can be restored; how many rows there are up to this round,
               replaced ones that are not deleted yet among them, and the sum of their CRCs
    shape      users, width

A snapshot is one transaction, so that a killed process leaves all of it or nothing. A user's row as
of a round is the newest row up to it. Rows which no snapshot needs any more are deleted with the
next one, and restoring a snapshot deletes what is newer.

A CRC finds a row that was changed, and a snapshot's number and sum a row that is missing, or one
that should be gone. They are kept up to date by what a snapshot changes; all rows are only looked
at when a snapshot is restored or opened.

The file has a write-ahead log (`-wal`, `-shm`): who reads does not wait for who writes.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping

from fedrecon.errors import DamagedError, InputError

# User id to the bytes of the row.
Rows = Mapping[int, bytes]

MAX_USERS = 2**31
_ROUND_BITS = 32
_LAST_ROUND = 2**_ROUND_BITS - 1
_SECONDS_TO_WAIT = 60.0
_CACHE_KIB = 32 * 1024

_TABLES = (
    "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, row BLOB, crc INTEGER)",
    "CREATE TABLE IF NOT EXISTS changes "
    "(round INTEGER, user INTEGER, PRIMARY KEY (round, user)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS snapshots "
    "(round INTEGER PRIMARY KEY, num_rows INTEGER, crc_sum INTEGER)",
    "CREATE TABLE IF NOT EXISTS shape (users INTEGER, width INTEGER)",
)
# One statement for all users: the calls cost more than the rows.
_SELECT = f"""
    SELECT rows.id, row, crc FROM json_each(?) AS asked JOIN rows ON rows.id = (
        SELECT max(older.id) FROM rows AS older
        WHERE older.id BETWEEN asked.value << {_ROUND_BITS} AND (asked.value << {_ROUND_BITS} | ?)
    )
"""
_REPLACED = f"""
    SELECT DISTINCT id, crc FROM changes JOIN rows
    ON id BETWEEN user << {_ROUND_BITS} AND (user << {_ROUND_BITS} | round) - 1
    WHERE round <= ?
"""
_UP_TO = f"""
    SELECT count(*), coalesce(sum(crc), 0) FROM rows WHERE (id & {_LAST_ROUND}) <= ?
"""
_OF_IDS = """
    SELECT count(*), coalesce(sum(crc), 0) FROM rows WHERE id IN (SELECT value FROM json_each(?))
"""
_TOTALS = ("num_rows", "crc_sum")
_NEWEST_TOTALS = """
    SELECT num_rows, crc_sum FROM snapshots WHERE round <= ? ORDER BY round DESC LIMIT 1
"""
_DELETE_NEWER = f"""
    DELETE FROM rows WHERE id IN (
        SELECT user << {_ROUND_BITS} | round FROM changes WHERE round > ?
    )
"""


class ClientTable:
    """The table of the process that writes it. One thread reads while another one writes."""

    def __init__(self, shape: tuple[int, int], file: pathlib.Path | None):
        """Opens the file, or makes it; None makes a table in memory.

        Args:
          shape: The number of users and of numbers in a row.
          file: The file. Only rows that were written take space.
        """
        self._name = str(file or ":memory:")
        self._writing = threading.Lock()
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"{file.parent} must be a folder for the rows of clients: {error.strerror}."
                ) from error
        with _errors_of(self._name):
            self._writer = _connect(self._name)
            self._writer.execute("PRAGMA journal_mode = WAL")
            # On the disk at the end of a transaction.
            self._writer.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                for table in _TABLES:
                    self._writer.execute(table)
                if not _has_totals(self._writer):  # Of an older version.
                    for column in _TOTALS:
                        self._writer.execute(f"ALTER TABLE snapshots ADD COLUMN {column} INTEGER")
                if not self._writer.execute("SELECT * FROM shape").fetchall():
                    self._writer.execute("INSERT INTO shape VALUES (?, ?)", shape)
            _check_shape(self._writer, shape, self._name)
            self._reader = self._writer if file is None else _connect(self._name)
        # In memory there is one connection, which threads use in turn.
        self._reading = self._writing if file is None else contextlib.nullcontext()
        # Python's connections are in cycles, which nobody collects in time. The last one to close
        # puts the log into the file.
        weakref.finalize(self, _close, self._reader, self._writer)

    def rounds(self) -> list[int]:
        """Returns the rounds of the snapshots, increasing."""
        with self._reading, _errors_of(self._name):
            return _rounds(self._reader)

    def read(self, users: Iterable[int]) -> dict[int, bytes]:
        """Returns the newest rows of those of the users who have one."""
        with self._reading, _errors_of(self._name):
            return _read(self._reader, users, _LAST_ROUND, self._name)

    def save(self, snapshots: Iterable[tuple[int, Rows]], *, oldest: int) -> None:
        """Saves snapshots, or none of them; returns when they are on the disk.

        Args:
          snapshots: Rounds, and the rows that changed since the snapshot before. Rows of a round
            that has a snapshot already are added to it.
          oldest: The round of the oldest snapshot that stays.
        """
        with self._transaction() as connection:
            for round_num, rows in snapshots:
                _add(connection, round_num, rows)
            _delete_replaced(connection, oldest)
            connection.execute("DELETE FROM changes WHERE round <= ?", [oldest])
            connection.execute("DELETE FROM snapshots WHERE round < ?", [oldest])

    def restore(self, round_num: int) -> None:
        """Deletes all that is newer than the snapshot of a round; -1 deletes everything.

        Raises:
          DamagedError: If the rows that are left are not those of the snapshot; nothing is deleted
            then.
        """
        with self._transaction() as connection:
            if round_num < 0:
                connection.execute("DELETE FROM rows")
            connection.execute(_DELETE_NEWER, [round_num])
            connection.execute("DELETE FROM changes WHERE round > ?", [round_num])
            connection.execute("DELETE FROM snapshots WHERE round > ?", [round_num])
            _check_all_rows(connection, round_num, self._name)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, _errors_of(self._name):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise


class SnapshotReader:
    """The rows as of one snapshot in the file of a process which may go on writing.

    Nothing is created, changed or locked. Where the file has no log nobody writes it, and it is
    read as it lies there, since SQLite would make a log for a reader; whoever begins to write it
    makes one, which is seen after a read, and the read is done again.
    """

    def __init__(self, shape: tuple[int, int] | None, file: pathlib.Path, round_num: int):
        """Opens the file; a shape of None takes any."""
        self._shape, self._file, self._round_num = shape, file, round_num
        self._connection: sqlite3.Connection | None = None
        self._seen: tuple = ()
        self.read([])

    def read(self, users: Iterable[int]) -> dict[int, bytes]:
        """Returns the rows, as of the snapshot, of those of the users who had one.

        Raises:
          InputError: If the file cannot be read, or the snapshot is not there (any more).
        """
        while True:
            try:
                with _errors_of(str(self._file)):
                    if self._connection is None:
                        self._open()
                    found = _read(self._connection, users, self._round_num, str(self._file))
            except InputError:
                if self._is_live or self._state() == self._seen:
                    raise
            else:
                if self._is_live or self._state() == self._seen:
                    return found
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> None:
        self._seen = self._state()
        # A transaction keeps what it reads until it ends, whatever is written.
        mode, begin = ("mode=ro", ["BEGIN"]) if self._is_live else ("mode=ro&immutable=1", [])
        connection = _connect(f"{self._file.absolute().as_uri()}?{mode}")
        self._connection = connection
        weakref.finalize(self, _close, connection)
        for statement in begin:
            connection.execute(statement)
        if self._shape is not None:
            _check_shape(connection, self._shape, str(self._file))
        check_round(self._round_num, _rounds(connection))
        found = connection.execute(_UP_TO, [self._round_num]).fetchone()
        _check_totals(connection, self._round_num, found, str(self._file))

    @property
    def _is_live(self) -> bool:
        return bool(self._seen) and self._seen[0]

    def _state(self) -> tuple:
        """Returns whether the file has a log, and what changes when somebody writes it."""
        has_log = self._file.with_name(f"{self._file.name}-wal").exists()
        try:
            status = self._file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return (has_log,)
        return has_log, status.st_ino, status.st_size, status.st_mtime_ns


def check_round(round_num: int, rounds: list[int]) -> None:
    """Raises `DamagedError` if there is no snapshot of the round."""
    if round_num not in rounds:
        there = f"those of rounds {', '.join(map(str, rounds))}" if rounds else "none"
        raise DamagedError(f"the store has no snapshot of round {round_num}; it has {there}.")


def _connect(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name,
        uri=name.startswith("file:"),
        timeout=_SECONDS_TO_WAIT,
        isolation_level=None,  # Transactions begin and end where this file says so.
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _close(*connections: sqlite3.Connection) -> None:
    for connection in connections:
        connection.close()


@contextlib.contextmanager
def _errors_of(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # An operational error is one of the disk, of rights or of time; a table is always there.
        is_operational = isinstance(error, sqlite3.OperationalError) and "no such" not in str(error)
        kind = InputError if is_operational else DamagedError
        raise kind(f"the rows of clients in {name}: {error}.") from error


def _check_shape(connection: sqlite3.Connection, shape: tuple[int, int], name: str) -> None:
    found = connection.execute("SELECT users, width FROM shape").fetchall()
    if len(found) != 1:
        raise DamagedError(f"{name} is damaged: it does not say how many rows it is for.")
    ((num_users, width),) = found
    if (num_users, width) != shape:
        raise InputError(
            f"{name} holds rows of {width} numbers for {num_users} users, not of {shape[1]} for "
            f"{shape[0]}; give another folder."
        )


def _add(connection: sqlite3.Connection, round_num: int, rows: Rows) -> None:
    """Adds rows to the snapshot of a round, the newest one, and counts them."""
    users = sorted(rows)  # Neighbors share a page.
    ids = [user << _ROUND_BITS | round_num for user in users]
    added = [(i, rows[user], _crc(i, rows[user])) for i, user in zip(ids, users)]
    num_rows, crc_sum = _totals(connection, round_num)
    if round_num in _rounds(connection):
        num_replaced, sum_replaced = connection.execute(_OF_IDS, [json.dumps(ids)]).fetchone()
        num_rows, crc_sum = num_rows - num_replaced, crc_sum - sum_replaced
    connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", added)
    connection.executemany(
        "INSERT OR IGNORE INTO changes VALUES (?, ?)", [(round_num, user) for user in users]
    )
    totals = [round_num, num_rows + len(added), crc_sum + sum(crc for _, _, crc in added)]
    connection.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", totals)


def _delete_replaced(connection: sqlite3.Connection, round_num: int) -> None:
    """Deletes the rows that no snapshot needs from a round on; all of these count them."""
    replaced = connection.execute(_REPLACED, [round_num]).fetchall()
    connection.executemany("DELETE FROM rows WHERE id = ?", [(row_id,) for row_id, _ in replaced])
    connection.execute(
        "UPDATE snapshots SET num_rows = num_rows - ?, crc_sum = crc_sum - ?",
        [len(replaced), sum(crc for _, crc in replaced)],
    )


def _has_totals(connection: sqlite3.Connection) -> bool:
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(snapshots)")}
    return columns >= set(_TOTALS)


def _totals(connection: sqlite3.Connection, round_num: int) -> tuple[int, int]:
    """Returns the number of rows up to a round, and the sum of their CRCs."""
    found = connection.execute(_NEWEST_TOTALS, [round_num]).fetchone()
    if found is None:
        return 0, 0
    if None in found:
        return connection.execute(_UP_TO, [round_num]).fetchone()
    return found


def _check_totals(
    connection: sqlite3.Connection, round_num: int, found: tuple[int, int], name: str
) -> None:
    """Raises `DamagedError` unless the rows up to a round are those that were counted."""
    if _has_totals(connection) and found != _totals(connection, round_num):
        raise DamagedError(
            f"{name} is damaged: its rows up to round {round_num} are not those that were saved."
        )


def _check_all_rows(connection: sqlite3.Connection, round_num: int, name: str) -> None:
    """Deletes the newer rows of which no change is known any more, and checks all others."""
    num_rows, crc_sum, newer = 0, 0, []
    for row_id, row, crc in connection.execute("SELECT id, row, crc FROM rows"):
        if row_id & _LAST_ROUND > round_num:
            newer.append((row_id,))
            continue
        _check_row(row_id, row, crc, name)
        num_rows, crc_sum = num_rows + 1, crc_sum + crc
    connection.executemany("DELETE FROM rows WHERE id = ?", newer)
    _check_totals(connection, round_num, (num_rows, crc_sum), name)


def _rounds(connection: sqlite3.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT round FROM snapshots ORDER BY round")]


def _read(
    connection: sqlite3.Connection, users: Iterable[int], round_num: int, name: str
) -> dict[int, bytes]:
    found = {}
    asked = json.dumps(list(users))
    for row_id, row, crc in connection.execute(_SELECT, (asked, round_num)).fetchall():
        _check_row(row_id, row, crc, name)
        found[row_id >> _ROUND_BITS] = row
    return found


def _check_row(row_id: int, row: bytes, crc: int, name: str) -> None:
    if not isinstance(row, bytes) or _crc(row_id, row) != crc:
        raise DamagedError(f"the row of user {row_id >> _ROUND_BITS} in {name} is damaged.")


def _crc(row_id: int, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(row_id.to_bytes(8, "little")))
