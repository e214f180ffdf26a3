"""Rows of clients as of one round, beside a process that may go on writing; see `client_rows`."""

from __future__ import annotations

import pathlib
import sqlite3
import weakref
from collections.abc import Iterable

from fedrecon.errors import InputError
from fedrecon.runs.client_rows import (
    UP_TO,
    check_round,
    check_shape,
    check_totals,
    close,
    connect,
    errors_of,
    read_rows,
    rounds_of,
)


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
                with errors_of(str(self._file)):
                    if self._connection is None:
                        self._open()
                    found = read_rows(self._connection, users, self._round_num, str(self._file))
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
        connection = connect(f"{self._file.absolute().as_uri()}?{mode}")
        self._connection = connection
        weakref.finalize(self, close, connection)
        for statement in begin:
            connection.execute(statement)
        if self._shape is not None:
            check_shape(connection, self._shape, str(self._file))
        check_round(self._round_num, rounds_of(connection))
        found = connection.execute(UP_TO, [self._round_num]).fetchone()
        check_totals(connection, self._round_num, found, str(self._file))

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
