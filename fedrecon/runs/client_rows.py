"""The SQLite file of the rows of clients: its tables, and what is read from and checked in them.

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
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping

from fedrecon.errors import DamagedError, InputError

# User id to the bytes of the row.
Rows = Mapping[int, bytes]

MAX_USERS = 2**31
_ROUND_BITS = 32
LAST_ROUND = 2**_ROUND_BITS - 1
_SECONDS_TO_WAIT = 60.0
_CACHE_KIB = 32 * 1024

TABLES = (
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
UP_TO = f"""
    SELECT count(*), coalesce(sum(crc), 0) FROM rows WHERE (id & {LAST_ROUND}) <= ?
"""
_OF_IDS = """
    SELECT count(*), coalesce(sum(crc), 0) FROM rows WHERE id IN (SELECT value FROM json_each(?))
"""
TOTALS = ("num_rows", "crc_sum")
_NEWEST_TOTALS = """
    SELECT num_rows, crc_sum FROM snapshots WHERE round <= ? ORDER BY round DESC LIMIT 1
"""
DELETE_NEWER = f"""
    DELETE FROM rows WHERE id IN (
        SELECT user << {_ROUND_BITS} | round FROM changes WHERE round > ?
    )
"""


def check_round(round_num: int, rounds: list[int]) -> None:
    """Raises `DamagedError` if there is no snapshot of the round."""
    if round_num not in rounds:
        there = f"those of rounds {', '.join(map(str, rounds))}" if rounds else "none"
        raise DamagedError(f"the store has no snapshot of round {round_num}; it has {there}.")


def connect(name: str) -> sqlite3.Connection:
    """Opens a file, by its path or by an address (`file:...`)."""
    connection = sqlite3.connect(
        name,
        uri=name.startswith("file:"),
        timeout=_SECONDS_TO_WAIT,
        isolation_level=None,  # Transactions begin and end where this file says so.
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def close(*connections: sqlite3.Connection) -> None:
    """Closes connections, for a finalizer, which must not hold the object itself."""
    for connection in connections:
        connection.close()


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turns the errors of SQLite into `DamagedError`, or `InputError` where no row is at fault."""
    try:
        yield
    except sqlite3.Error as error:
        # An operational error is one of the disk, of rights or of time; a table is always there.
        is_operational = isinstance(error, sqlite3.OperationalError) and "no such" not in str(error)
        kind = InputError if is_operational else DamagedError
        raise kind(f"the rows of clients in {name}: {error}.") from error


def check_shape(connection: sqlite3.Connection, shape: tuple[int, int], name: str) -> None:
    """Raises `InputError` unless the file is for so many users and numbers in a row."""
    found = connection.execute("SELECT users, width FROM shape").fetchall()
    if len(found) != 1:
        raise DamagedError(f"{name} is damaged: it does not say how many rows it is for.")
    ((num_users, width),) = found
    if (num_users, width) != shape:
        raise InputError(
            f"{name} holds rows of {width} numbers for {num_users} users, not of {shape[1]} for "
            f"{shape[0]}; give another folder."
        )


def add(connection: sqlite3.Connection, round_num: int, rows: Rows) -> None:
    """Adds rows to the snapshot of a round, the newest one, and counts them."""
    users = sorted(rows)  # Neighbors share a page.
    ids = [user << _ROUND_BITS | round_num for user in users]
    added = [(i, rows[user], _crc(i, rows[user])) for i, user in zip(ids, users)]
    num_rows, crc_sum = _totals(connection, round_num)
    if round_num in rounds_of(connection):
        num_replaced, sum_replaced = connection.execute(_OF_IDS, [json.dumps(ids)]).fetchone()
        num_rows, crc_sum = num_rows - num_replaced, crc_sum - sum_replaced
    connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", added)
    connection.executemany(
        "INSERT OR IGNORE INTO changes VALUES (?, ?)", [(round_num, user) for user in users]
    )
    totals = [round_num, num_rows + len(added), crc_sum + sum(crc for _, _, crc in added)]
    connection.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", totals)


def delete_replaced(connection: sqlite3.Connection, round_num: int) -> None:
    """Deletes the rows that no snapshot needs from a round on; all of these count them."""
    replaced = connection.execute(_REPLACED, [round_num]).fetchall()
    connection.executemany("DELETE FROM rows WHERE id = ?", [(row_id,) for row_id, _ in replaced])
    connection.execute(
        "UPDATE snapshots SET num_rows = num_rows - ?, crc_sum = crc_sum - ?",
        [len(replaced), sum(crc for _, crc in replaced)],
    )


def has_totals(connection: sqlite3.Connection) -> bool:
    """Returns whether snapshots count their rows; those of older versions do not."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(snapshots)")}
    return columns >= set(TOTALS)


def _totals(connection: sqlite3.Connection, round_num: int) -> tuple[int, int]:
    """Returns the number of rows up to a round, and the sum of their CRCs."""
    found = connection.execute(_NEWEST_TOTALS, [round_num]).fetchone()
    if found is None:
        return 0, 0
    if None in found:
        return connection.execute(UP_TO, [round_num]).fetchone()
    return found


def check_totals(
    connection: sqlite3.Connection, round_num: int, found: tuple[int, int], name: str
) -> None:
    """Raises `DamagedError` unless the rows up to a round are those that were counted."""
    if has_totals(connection) and found != _totals(connection, round_num):
        raise DamagedError(
            f"{name} is damaged: its rows up to round {round_num} are not those that were saved."
        )


def check_all_rows(connection: sqlite3.Connection, round_num: int, name: str) -> None:
    """Deletes the newer rows of which no change is known any more, and checks all others."""
    num_rows, crc_sum, newer = 0, 0, []
    for row_id, row, crc in connection.execute("SELECT id, row, crc FROM rows"):
        if row_id & LAST_ROUND > round_num:
            newer.append((row_id,))
            continue
        _check_row(row_id, row, crc, name)
        num_rows, crc_sum = num_rows + 1, crc_sum + crc
    connection.executemany("DELETE FROM rows WHERE id = ?", newer)
    check_totals(connection, round_num, (num_rows, crc_sum), name)


def rounds_of(connection: sqlite3.Connection) -> list[int]:
    """Returns the rounds of the snapshots, increasing."""
    return [n for (n,) in connection.execute("SELECT round FROM snapshots ORDER BY round")]


def read_rows(
    connection: sqlite3.Connection, users: Iterable[int], round_num: int, name: str
) -> dict[int, bytes]:
    """Returns the rows, as of a round, of those of the users who had one.

    Raises:
      DamagedError: If a row was changed.
    """
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
