"""The rows of clients in the process that writes them; see `client_rows` for the file."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator

from fedrecon.errors import InputError
from fedrecon.runs.client_rows import (
    DELETE_NEWER,
    LAST_ROUND,
    TABLES,
    TOTALS,
    Rows,
    add,
    check_all_rows,
    check_shape,
    close,
    connect,
    delete_replaced,
    errors_of,
    has_totals,
    read_rows,
    rounds_of,
)


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
        with errors_of(self._name):
            self._writer = connect(self._name)
            self._writer.execute("PRAGMA journal_mode = WAL")
            # On the disk at the end of a transaction.
            self._writer.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                for table in TABLES:
                    self._writer.execute(table)
                if not has_totals(self._writer):  # Of an older version.
                    for column in TOTALS:
                        self._writer.execute(f"ALTER TABLE snapshots ADD COLUMN {column} INTEGER")
                if not self._writer.execute("SELECT * FROM shape").fetchall():
                    self._writer.execute("INSERT INTO shape VALUES (?, ?)", shape)
            check_shape(self._writer, shape, self._name)
            self._reader = self._writer if file is None else connect(self._name)
        # In memory there is one connection, which threads use in turn.
        self._reading = self._writing if file is None else contextlib.nullcontext()
        # Python's connections are in cycles, which nobody collects in time. The last one to close
        # puts the log into the file.
        weakref.finalize(self, close, self._reader, self._writer)

    def rounds(self) -> list[int]:
        """Returns the rounds of the snapshots, increasing."""
        with self._reading, errors_of(self._name):
            return rounds_of(self._reader)

    def read(self, users: Iterable[int]) -> dict[int, bytes]:
        """Returns the newest rows of those of the users who have one."""
        with self._reading, errors_of(self._name):
            return read_rows(self._reader, users, LAST_ROUND, self._name)

    def save(self, snapshots: Iterable[tuple[int, Rows]], *, oldest: int) -> None:
        """Saves snapshots, or none of them; returns when they are on the disk.

        Args:
          snapshots: Rounds, and the rows that changed since the snapshot before. Rows of a round
            that has a snapshot already are added to it.
          oldest: The round of the oldest snapshot that stays.
        """
        with self._transaction() as connection:
            for round_num, rows in snapshots:
                add(connection, round_num, rows)
            delete_replaced(connection, oldest)
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
            connection.execute(DELETE_NEWER, [round_num])
            connection.execute("DELETE FROM changes WHERE round > ?", [round_num])
            connection.execute("DELETE FROM snapshots WHERE round > ?", [round_num])
            check_all_rows(connection, round_num, self._name)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, errors_of(self._name):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
