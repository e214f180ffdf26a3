"""Local state that outlives a round (stateful FedAvg): a row of weights for each user.

Rows live in layers. The base holds what every snapshot that can be restored has in common; above
it lie the rows changed up to each snapshot since, oldest first, and on top those changed since the
last. A row is read from the topmost layer that has it. So a snapshot costs what changed and not the
table, and to restore one is to drop the layers above it. Rows that are only staged (of a round that
has not ended) are in no layer yet.

    rows.npy            the base, [num_users, width]: a sparse file, mapped and never read whole
    known.npy           [num_users]: whether the base has the user's row
    delta_<round>.npz   a layer: `users` and their `rows` as of the snapshot of that round

A layer's file is written whole or not at all. Once it is older than every checkpoint of the run, it
is folded into the base and then deleted. A process killed between leaves a base that mixes two
rounds, which does no harm: the layer is still there and covers every row in which they differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from fedrecon.errors import InputError

_ROWS = "rows.npy"
_KNOWN = "known.npy"
_DELTA_PREFIX = "delta_"

# User id to the bytes of the row: nobody can change them, and copying a layer copies no row.
_Rows = dict[int, bytes]


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
          read_round: Opens the rows as of this round's snapshot, to be read only; None opens the
            store as it is.

        Raises:
          InputError: If a number is not positive, if the folder is of a store of another shape, or
            if there is no snapshot of `read_round`.
        """
        for name, value in (("num_users", num_users), ("width", width), ("keep", keep)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1.")
        shape = (num_users, width)
        self._base = _MemoryBase(shape) if path is None else _FolderBase(shape, pathlib.Path(path))
        self._num_users, self._width, self._keep = num_users, width, keep
        self._snapshots = [_Snapshot(*delta, is_durable=True) for delta in self._base.deltas()]
        self._is_read_only = read_round is not None
        if read_round is not None:
            self._check_round(read_round)
            self._snapshots = [s for s in self._snapshots if s.round_num <= read_round]
        self._pending: _Rows = {}
        self._staged: _Rows = {}
        # Whoever changes the base holds `_files`, through slow writes; whoever looks at or changes
        # the layers holds `_layers`, briefly. Both are taken in this order.
        self._files, self._layers = threading.Lock(), threading.Lock()

    @property
    def num_known(self) -> int:
        """How many users have a row. Waits while another thread writes a snapshot."""
        with self._files, self._layers:
            layers = (*(snapshot.rows for snapshot in self._snapshots), self._pending)
            changed = np.fromiter(set().union(*layers), np.int64)
            known = self._base.known
            return int(np.count_nonzero(known) + np.count_nonzero(~known[changed]))

    @property
    def num_bytes(self) -> int:
        """What the known rows hold, without what is kept about them."""
        return self.num_known * self._width * 4

    def read(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of users.

        Args:
          users: User ids, `[n]`, integers.

        Returns:
          The rows, `[n, width]` float32, and whether each was ever written, `[n]` bool; one that
          was not is zeros.

        Raises:
          UnknownUserError: If there is no such user.
        """
        users, ids = self._check_users(users)
        rows = np.zeros((len(ids), self._width), np.float32)
        with self._layers:
            is_known = self._base.known[users]
            rows[is_known] = self._base.rows[users[is_known]]
            snapshots = (snapshot.rows for snapshot in self._snapshots)
            for layer in (*snapshots, self._pending, self._staged):
                found = [i for i, user in enumerate(ids) if user in layer]
                rows[found] = _stack([layer[ids[i]] for i in found], self._width)
                is_known[found] = True
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
        with self._layers:
            self._staged.update(zip(ids, (row.tobytes() for row in rows)))

    def commit(self) -> None:
        """Keeps what was staged."""
        with self._layers:
            self._pending.update(self._staged)
            self._staged = {}

    def rollback(self) -> None:
        """Forgets what was staged since the last `commit`."""
        with self._layers:
            self._staged = {}

    def snapshot(self, round_num: int) -> Callable[[], None]:
        """Takes the rows as they are after round `round_num`; a second one of a round replaces it.

        Returns:
          What makes the snapshot survive the process, with those before it. Another thread may call
          it; it must return before the run's checkpoint of that round is written. It does nothing
          if the snapshot has been replaced or dropped meanwhile.
        """
        with self._layers:
            rows = self._pending
            last = self._snapshots[-1].round_num if self._snapshots else 0
            if round_num < last:
                raise ValueError(f"round {round_num} comes before round {last}, the last snapshot.")
            if self._snapshots and round_num == last:
                rows = {**self._snapshots.pop().rows, **rows}
            snapshot = _Snapshot(round_num, rows)
            self._snapshots.append(snapshot)
            self._pending = {}
        return lambda: self._make_durable(snapshot)

    def restore(self, round_num: int) -> None:
        """Goes back to the snapshot of round `round_num` and forgets everything later.

        Raises:
          InputError: If there is none; nothing is changed then.
        """
        self._check_writable()
        with self._files, self._layers:
            self._check_round(round_num)
            self._drop_until(round_num)

    def clear(self) -> None:
        """Forgets all rows and snapshots."""
        self._check_writable()
        with self._files, self._layers:
            self._drop_until(None)
            self._base.clear()

    def _check_round(self, round_num: int) -> None:
        rounds = [snapshot.round_num for snapshot in self._snapshots]
        if round_num not in rounds:
            there = f"those of rounds {', '.join(map(str, rounds))}" if rounds else "none"
            raise InputError(f"the store has no snapshot of round {round_num}; it has {there}.")

    def _check_writable(self) -> None:
        if self._is_read_only:
            raise ValueError("the store was opened as of one round, to be read only.")

    def _drop_until(self, round_num: int | None) -> None:
        # The newest first: whenever the process ends, the files left are those of a snapshot.
        while self._snapshots and self._snapshots[-1].round_num != round_num:
            self._base.drop_delta(self._snapshots.pop().round_num)
        self._pending, self._staged = {}, {}

    def _make_durable(self, snapshot: _Snapshot) -> None:
        with self._files:
            with self._layers:
                if snapshot not in self._snapshots:
                    return
                snapshots = self._snapshots[: self._snapshots.index(snapshot) + 1]
            for each in snapshots:
                if not each.is_durable:
                    self._base.save_delta(each.round_num, each.rows)
                    each.is_durable = True
            for each in snapshots[: -(self._keep + 1)]:
                # The layer hides these rows of the base from readers until all are written.
                self._base.fold(each.rows)
                with self._layers:
                    self._snapshots.remove(each)
                self._base.drop_delta(each.round_num)

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


@dataclasses.dataclass(eq=False)
class _Snapshot:
    """The rows changed since the snapshot before."""

    round_num: int
    rows: _Rows
    is_durable: bool = False


class _MemoryBase:
    """The lowest layer in memory, which the system provides when a row is first written."""

    def __init__(self, shape: tuple[int, int]):
        self._shape = shape
        self.clear()

    def clear(self) -> None:
        self.rows = np.zeros(self._shape, np.float32)
        self.known = np.zeros(self._shape[:1], np.bool_)

    def fold(self, rows: _Rows) -> None:
        users = list(rows)
        self.rows[users] = _stack(rows.values(), self._shape[1])
        self.known[users] = True

    def deltas(self) -> list[tuple[int, _Rows]]:
        return []

    def save_delta(self, round_num: int, rows: _Rows) -> None:
        pass

    def drop_delta(self, round_num: int) -> None:
        pass


class _FolderBase:
    """The lowest layer in files, and the files of the layers above."""

    def __init__(self, shape: tuple[int, int], path: pathlib.Path):
        self._shape, self._path = shape, path
        path.mkdir(parents=True, exist_ok=True)
        for part in path.glob("*.part"):
            part.unlink()
        self._open()

    def _open(self) -> None:
        rows = self._map(_ROWS, self._shape, np.float32)
        if rows.shape != self._shape:
            raise InputError(
                f"{self._path} holds rows of {rows.shape[1]} numbers for {rows.shape[0]} users, "
                f"not of {self._shape[1]} for {self._shape[0]}; give another folder."
            )
        known = self._map(_KNOWN, self._shape[:1], np.bool_)
        self._offsets = {_ROWS: rows.offset, _KNOWN: known.offset}
        # As plain arrays, of which a part is an array too and not a map.
        self.rows, self.known = np.asarray(rows), np.asarray(known)

    def _map(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = self._path / name
        if not path.exists():
            with self._replacing(path) as part:
                np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        return np.load(path, mmap_mode="r")

    def clear(self) -> None:
        # New files: to touch a page that a mapped file lost by truncation kills the process.
        for name in (_KNOWN, _ROWS):
            (self._path / name).unlink()
        self._open()

    def fold(self, rows: _Rows) -> None:
        self._overwrite(_ROWS, rows)
        self._overwrite(_KNOWN, dict.fromkeys(rows, b"\1"))

    def _overwrite(self, name: str, rows: _Rows) -> None:
        # Not through the map: on a full disk this raises, where that would kill the process.
        with open(self._path / name, "r+b") as file:
            for user, row in rows.items():
                file.seek(self._offsets[name] + user * len(row))
                file.write(row)
            _sync(file)

    def deltas(self) -> list[tuple[int, _Rows]]:
        deltas = {}
        for path in self._path.glob(f"{_DELTA_PREFIX}*.npz"):
            with np.load(path) as delta:
                rows = zip(delta["users"].tolist(), (row.tobytes() for row in delta["rows"]))
                deltas[int(path.stem[len(_DELTA_PREFIX) :])] = dict(rows)
        return sorted(deltas.items())

    def save_delta(self, round_num: int, rows: _Rows) -> None:
        with self._replacing(self._delta(round_num)) as part, open(part, "wb") as file:
            users = np.fromiter(rows, np.int64)
            np.savez(file, users=users, rows=_stack(rows.values(), self._shape[1]))
            _sync(file)

    def drop_delta(self, round_num: int) -> None:
        self._delta(round_num).unlink(missing_ok=True)

    def _delta(self, round_num: int) -> pathlib.Path:
        return self._path / f"{_DELTA_PREFIX}{round_num}.npz"

    @contextlib.contextmanager
    def _replacing(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
        part = path.with_name(f"{path.name}.part")
        yield part
        os.replace(part, path)
        folder = os.open(self._path, os.O_RDONLY)  # Without this a power cut may take the new name.
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sync(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _stack(rows: Iterable[bytes], width: int) -> np.ndarray:
    return np.frombuffer(b"".join(rows), np.float32).reshape(-1, width)
