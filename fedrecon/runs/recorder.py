"""What a run writes while it trains: checkpoints, metrics.csv and TensorBoard's events."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedrecon.errors import InputError
from fedrecon.runs.events import Events
from fedrecon.runs.metrics_file import MetricsFile, Row
from fedrecon.runs.run_directory import EVENTS, METRICS, RunDirectory

_MAX_WRITES_BEHIND = 8
_SECONDS_BETWEEN_ROWS = 1.0


class RunRecorder:
    """Writes a run's directory in a thread of its own, in the order of the calls.

    The caller goes on meanwhile, but never more than a few writes ahead. Rows are written once a
    second and before each checkpoint, since to wait for the disk takes longer than a round. After a
    failure nothing more is written, and the next call that would write raises what failed.
    """

    def __init__(self, run: RunDirectory, *, settings: Mapping[str, Any] | None = None):
        """Opens the files of a run.

        Args:
          run: The directory, claimed.
          settings: Those that TensorBoard shows with the results; None for none.
        """
        self._run = run
        self._settings = settings or {}
        self._checkpoints = run.open_checkpoints()
        self._metrics = MetricsFile(run.path / METRICS)
        self._events: Events | None = None
        self._rows: list[tuple[int, Row]] = []
        self._rows_written = time.monotonic()
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._room = threading.Semaphore(_MAX_WRITES_BEHIND)
        self._failure: BaseException | None = None

    @property
    def checkpoints(self) -> list[int]:
        """See `RunDirectory.checkpoints`."""
        return self._run.checkpoints()

    def load(self, round_num: int, like: Any) -> Any:
        """Returns the state after `round_num` rounds; see `Checkpoints.load`."""
        return self._checkpoints.load(round_num, like)

    def save(self, state: Any, round_num: int, *, first: Callable[[], None] | None = None) -> None:
        """Saves the state after `round_num` rounds, unless that is saved already.

        Args:
          state: The state, which nobody changes afterwards.
          round_num: The round.
          first: Saves what belongs to it, before the checkpoint exists.
        """
        self._write_rows()

        def save():
            if round_num not in self._checkpoints.rounds():
                if first is not None:
                    first()
                self._checkpoints.save(state, round_num)

        self._start(save)

    def seconds(self, round_num: int) -> float:
        """Returns the seconds that the run had taken when `round_num` rounds were done."""
        return self._row(round_num)["seconds"]

    def metrics(self, round_num: int, group: str) -> dict[str, float]:
        """Returns what was measured on `group` after `round_num` rounds, by the metric's name."""
        return _of_group(self._row(round_num), group)

    def metrics_of_rounds(self, rounds: range, group: str) -> list[tuple[int, dict[str, float]]]:
        """Returns the number and the metrics on `group` of each of `rounds` that has a row."""
        rows = [row for row in self._run.read_metrics() if row["round"] in rounds]
        return [(int(row["round"]), _of_group(row, group)) for row in rows]

    def _row(self, round_num: int) -> dict[str, float]:
        for row in self._run.read_metrics():
            if row["round"] == round_num:
                return row
        raise InputError(
            f"{self._run.path / METRICS} has no row for round {round_num}, of which there is "
            "a checkpoint; restore the file, or train in another output directory."
        )

    def release(self, row: Row, round_num: int) -> None:
        """Adds a round's row to metrics.csv and TensorBoard, dropping rows of later rounds."""
        self._rows.append((round_num, row))
        if time.monotonic() - self._rows_written >= _SECONDS_BETWEEN_ROWS:
            self._write_rows()

    def _write_rows(self) -> None:
        rows, self._rows, self._rows_written = self._rows, [], time.monotonic()
        if not rows:
            return

        def write():
            self._metrics.append(rows)
            self._open_events().write_rows(rows)

        self._start(write)

    def write_users(self, round_num: int, users: Mapping[str, np.ndarray]) -> None:
        """Writes values of single users for TensorBoard; see `Events.write_users`."""
        self._start(lambda: self._open_events().write_users(round_num, users))

    def _open_events(self) -> Events:
        if self._events is None:  # Only a run that goes on writes; opening one to read does not.
            self._events = Events(self._run.path / EVENTS, self._settings)
        return self._events

    def flush(self) -> None:
        """Writes everything but TensorBoard's events, for which see `close`; waits for it."""
        self._write_rows()
        self._start(lambda: None).result()

    def close(self) -> None:
        """Writes out what is still buffered; TensorFlow keeps events for up to two minutes."""
        self.flush()
        if self._events is not None:
            self._events.close()
            self._events = None

    def _start(self, work: Callable[[], None]) -> concurrent.futures.Future:
        self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure
        return self._thread.submit(self._do_in_turn, work)

    def _do_in_turn(self, work: Callable[[], None]) -> None:
        try:
            if self._failure is not None:
                raise self._failure
            work()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._room.release()


def _of_group(row: Row, group: str) -> dict[str, float]:
    prefix = f"{group}/"
    return {name[len(prefix) :]: row[name] for name in row if name.startswith(prefix)}
