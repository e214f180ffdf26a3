"""Local state that outlives a round (stateful FedAvg): a row of weights for each user.

In memory lie, above one another, the rows that are only staged (in a round that has not ended), the
rows committed since the last snapshot, and the snapshots that another thread is still to write.
Below them lies a table; see `client_rows`. A row is read from the topmost place that has it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable

import numpy as np

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.client_rows import MAX_USERS, Rows, check_round
from fedrecon.runs.client_table import ClientTable
from fedrecon.runs.snapshot_reader import SnapshotReader

FILE = "rows.sqlite"


def check_snapshot(path: str | os.PathLike[str], round_num: int) -> None:
    """Looks whether a folder has all rows of a round's snapshot; nothing is changed.

    Raises:
      DamagedError: If it has not.
      InputError: If the file cannot be read.
    """
    SnapshotReader(None, pathlib.Path(path) / FILE, round_num)


class UnknownUserError(InputError):
    """A user id that the store has no place for."""


class ClientStore:
    """The rows of all users, `[width]` float32 each, with snapshots of them by round.

    One thread reads and writes; others may write snapshots meanwhile. The store of a folder opens
    with the rows of the newest snapshot there.
    """

    def __init__(
        self,
        num_users: int,
        width: int,
        *,
        path: str | os.PathLike[str] | None = None,
        keep: int = 3,
        read_round: int | None = None,
    ):
        """Opens a store, or makes it.

        Args:
          num_users: User ids are 0 to `num_users - 1`.
          width: Numbers in a row.
          path: The folder of the files, of one process at a time; None keeps rows and snapshots in
            memory. Either way, only rows that were written take space.
          keep: How many of its newest checkpoints the run keeps. Of one snapshot more than that,
            each can be restored, since the run may not live to complete the newest checkpoint.
          read_round: Opens the rows as of this round's snapshot, to be read only, whoever writes
            the folder meanwhile; None opens the store as it is.

        Raises:
          InputError: If a number is not positive, if the folder is of a store of another shape, if
            there is no snapshot of `read_round`, or if the file cannot be read.
        """
        for name, value in (("num_users", num_users), ("width", width), ("keep", keep)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1.")
        if num_users > MAX_USERS:
            raise InputError(f"num_users is {num_users}; a store holds at most {MAX_USERS}.")
        self._num_users, self._width, self._keep = num_users, width, keep
        shape = (num_users, width)
        file = None if path is None else pathlib.Path(path) / FILE
        self._writable: ClientTable | None = None
        self._saved: list[int] = []
        if read_round is None:
            self._table = self._writable = ClientTable(shape, file)
            self._saved = self._writable.rounds()
        else:
            if file is None:
                raise ValueError("a store in memory has no snapshot of another process.")
            self._table = SnapshotReader(shape, file, read_round)
        self._staged: dict[int, bytes] = {}
        self._committed: dict[int, bytes] = {}
        self._unsaved: list[_Snapshot] = []
        # Whoever changes the table holds `_writing`, through slow writes; whoever looks at or
        # changes the lists of snapshots holds `_listing`, briefly. Both are taken in this order.
        self._writing, self._listing = threading.Lock(), threading.Lock()

    def read(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of users.

        Args:
          users: User ids, `[n]`, integers.

        Returns:
          The rows, `[n, width]` float32, and whether each was ever written, `[n]` bool; one that
          was not is zeros.

        Raises:
          UnknownUserError: If there is no such user.
          InputError: If a row is damaged or the file cannot be read.
        """
        _, ids = self._check_users(users)
        with self._listing:
            layers = [*(each.rows for each in self._unsaved), self._committed, self._staged]
        found = {user: layer[user] for layer in layers for user in ids if user in layer}
        found.update(self._table.read(sorted({user for user in ids if user not in found})))
        is_known = np.fromiter((user in found for user in ids), np.bool_, len(ids))
        data = b"".join(found[user] for user in ids if user in found)
        if len(data) != 4 * self._width * np.count_nonzero(is_known):
            raise DamagedError("a row has not the width of the store's rows; it is damaged.")
        rows = np.zeros((len(ids), self._width), np.float32)
        rows[is_known] = np.frombuffer(data, np.float32).reshape(-1, self._width)
        return rows, is_known

    def write(self, users: np.ndarray, rows: np.ndarray) -> None:
        """Replaces the rows of distinct users, or of none of them if it raises: staged, committed.

        Arguments and errors are those of `stage`.
        """
        self.stage(users, rows)
        self.commit()

    def stage(self, users: np.ndarray, rows: np.ndarray) -> None:
        """Replaces the rows of distinct users for readers, but in no snapshot until `commit`.

        Args:
          users: User ids, `[n]`, integers.
          rows: `[n, width]`, finite; float32 is kept as it is.

        Raises:
          UnknownUserError: If there is no such user.
          InputError: If a row is not finite.
        """
        self._check_writable()
        users, ids = self._check_users(users)
        rows = np.asarray(rows, np.float32)
        if rows.shape != (len(ids), self._width):
            raise ValueError(
                f"{len(ids)} users need rows of shape {(len(ids), self._width)}, not {rows.shape}."
            )
        distinct, counts = np.unique(users, return_counts=True)
        if len(distinct) < len(ids):
            raise ValueError(f"user {distinct[counts > 1][0]} has more than one row in a write.")
        is_finite = np.isfinite(rows).all(axis=1)
        if not is_finite.all():
            raise InputError(
                f"the row of user {users[~is_finite][0]} is not finite: its training diverged; "
                "smaller learning rates would help."
            )
        self._staged.update(zip(ids, (row.tobytes() for row in rows)))

    def commit(self) -> None:
        """Keeps what was staged."""
        self._committed.update(self._staged)
        self._staged = {}

    def rollback(self) -> None:
        """Forgets what was staged since the last `commit`."""
        self._staged = {}

    def snapshot(self, round_num: int) -> Callable[[], None]:
        """Takes the rows as they are after round `round_num`; a second one of a round replaces it.

        Returns:
          A function that makes the snapshot survive the process, with the snapshots before it.
          Another thread may call it; it must return before the run's checkpoint of that round is
          written. It does nothing if the snapshot has been replaced or dropped meanwhile.
        """
        self._check_writable()
        with self._listing:
            rounds = self._rounds()
            if rounds and round_num < rounds[-1]:
                raise ValueError(
                    f"round {round_num} comes before round {rounds[-1]}, the last snapshot."
                )
            rows = self._committed
            if self._unsaved and self._unsaved[-1].round_num == round_num:
                rows = {**self._unsaved.pop().rows, **rows}
            snapshot = _Snapshot(round_num, rows)
            self._unsaved.append(snapshot)
            self._committed = {}
        return lambda: self._save(snapshot)

    def restore(self, round_num: int) -> None:
        """Goes back to the snapshot of round `round_num` and forgets everything later.

        Raises:
          DamagedError: If there is none, or a row of it is missing or was changed; nothing is
            changed then.
        """
        table = self._check_writable()
        with self._writing, self._listing:
            check_round(round_num, self._rounds())
            table.restore(round_num)
            self._forget_after(round_num)

    def clear(self) -> None:
        """Forgets all rows and snapshots."""
        table = self._check_writable()
        with self._writing, self._listing:
            table.restore(-1)
            self._forget_after(-1)

    def _rounds(self) -> list[int]:
        return sorted({*self._saved, *(each.round_num for each in self._unsaved)})

    def _forget_after(self, round_num: int) -> None:
        self._saved = [n for n in self._saved if n <= round_num]
        self._unsaved = [each for each in self._unsaved if each.round_num <= round_num]
        self._committed, self._staged = {}, {}

    def _save(self, snapshot: _Snapshot) -> None:
        table = self._check_writable()
        with self._writing:
            with self._listing:
                if snapshot not in self._unsaved:
                    return
                due = self._unsaved[: self._unsaved.index(snapshot) + 1]
                rounds = sorted({*self._saved, *(each.round_num for each in due)})
            kept = rounds[-(self._keep + 1) :]
            table.save([(each.round_num, each.rows) for each in due], oldest=kept[0])
            with self._listing:
                self._unsaved = [each for each in self._unsaved if each not in due]
                self._saved = kept

    def _check_writable(self) -> ClientTable:
        if self._writable is None:
            raise ValueError("the store was opened as of one round, to be read only.")
        return self._writable

    def _check_users(self, users: np.ndarray) -> tuple[np.ndarray, list[int]]:
        users = np.asarray(users)
        if users.ndim != 1 or users.dtype.kind not in "iu":
            raise ValueError(f"user ids are [n] integers, not {users.shape} {users.dtype}.")
        unknown = users[(users < 0) | (users >= self._num_users)]
        if len(unknown):
            raise UnknownUserError(
                f"the store has no user {unknown[0]}; it holds users 0 to {self._num_users - 1}."
            )
        return users, users.tolist()


@dataclasses.dataclass(frozen=True, eq=False)
class _Snapshot:
    """The rows changed since the snapshot before, which are not in the table yet."""

    round_num: int
    rows: Rows
