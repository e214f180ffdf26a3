"""What a run writes while it trains: checkpoints, metrics.csv and TensorBoard's events."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedrecon.errors import InputError
from fedrecon.runs.events import Events
from fedrecon.runs.files import unwritable
from fedrecon.runs.metrics_file import MetricsFile, Row
from fedrecon.runs.newest import newest_whole
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
        self._saved: int | None = None
        self._events: Events | None = None
        self._has_no_events = False
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
        """Returns the state after `round_num` rounds; see `Checkpoints.load`.

        Raises:
          DamagedError: Also if the rows of metrics.csv up to the round are not those that were
            written.
        """
        belongings = self._checkpoints.verify(round_num)["belongings"]
        self._metrics.check(round_num, belongings.get(METRICS))
        return self._checkpoints.load(round_num, like)

    def newest_whole(self, load: Callable[[int], Any]) -> tuple[int, Any]:
        """Returns the newest round whose checkpoint is whole, and what is loaded of it.

        The checkpoints and the rows of later rounds are removed: these rounds are done again.

        Args:
          load: Loads the checkpoint of a round, or raises `DamagedError`.

        Raises:
          InputError: If none is whole.

        Warns if it is not the newest there is.
        """
        round_num, loaded = newest_whole(self.checkpoints, load, self._run.path)
        self._checkpoints.forget_after(round_num)
        self._metrics.cut_after(round_num)
        self._saved = round_num
        return round_num, loaded

    def warn_of_rows(self) -> None:
        """Warns if there are rows of rounds, which will be done anew for want of a checkpoint."""
        rows = self._metrics.rows(None)
        if rows and rows[-1]["round"]:
            warnings.warn(
                f"{self._run.path / METRICS} has rows up to round {rows[-1]['round']}, and there "
                "is no checkpoint; the run begins anew.",
                stacklevel=2,
            )

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
                belongings = {METRICS: self._metrics.digest()}
                self._checkpoints.save(state, round_num, belongings=belongings)
            self._saved = round_num

        self._start(save)

    def seconds(self, round_num: int) -> float:
        """Returns the seconds that the run had taken when `round_num` rounds were done."""
        return self._row(round_num)["seconds"]

    def metrics(self, round_num: int, group: str) -> dict[str, float]:
        """Returns what was measured on `group` after `round_num` rounds, by the metric's name."""
        return _of_group(self._row(round_num), group)

    def metrics_of_rounds(self, rounds: range, group: str) -> list[tuple[int, dict[str, float]]]:
        """Returns the number and the metrics on `group` of each of `rounds` that has a row."""
        rows = self._metrics.rows(rounds[-1]) if rounds else []
        return [(int(r["round"]), _of_group(r, group)) for r in rows if r["round"] in rounds]

    def _row(self, round_num: int) -> dict[str, float]:
        for row in self._metrics.rows(round_num):
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
            self._tell_events(lambda events: events.write_rows(rows))

        self._start(write)

    def write_users(self, round_num: int, users: Mapping[str, np.ndarray]) -> None:
        """Writes values of single users for TensorBoard; see `Events.write_users`."""
        self._start(lambda: self._tell_events(lambda events: events.write_users(round_num, users)))

    def _tell_events(self, tell: Callable[[Events], None]) -> None:
        """Tells TensorBoard; where that fails the run goes on without, since metrics.csv has all.

        Warns, once, if it fails.
        """
        if self._has_no_events:
            return
        path = self._run.path / EVENTS
        try:
            if self._events is None:  # Only a run that goes on writes; one opened to be read, no.
                self._events = Events(path, self._settings)
            tell(self._events)
        except Exception as error:
            self._has_no_events = True
            warnings.warn(f"{path}, for TensorBoard, is not written: {error}", stacklevel=2)

    def flush(self) -> None:
        """Writes everything but TensorBoard's events, for which see `close`; waits for it."""
        self._write_rows()
        self._start(lambda: None).result()

    def close(self) -> None:
        """Writes out what is still buffered; TensorFlow keeps events for up to two minutes."""
        self.flush()
        if self._events is not None:
            self._tell_events(Events.close)
            self._events = None

    def _start(self, work: Callable[[], None]) -> concurrent.futures.Future:
        self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure
        return self._thread.submit(self._do_in_turn, work)

    def _do_in_turn(self, work: Callable[[], None]) -> None:
        try:
            if self._failure is None:
                self._do(work)
        finally:
            self._room.release()
        if self._failure is not None:
            raise self._failure

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, InputError) as error:
            self._failure = self._not_written(error)
            raise self._failure from error
        except BaseException as error:
            self._failure = error
            raise

    def _not_written(self, error: OSError | InputError) -> InputError:
        """Returns an error that says what is safe, and what to do."""
        if isinstance(error, OSError):
            error = unwritable(error.filename or self._run.path, error)
        found = str(error).rstrip(".")
        if self._saved is None:
            return InputError(
                f"{found}; nothing of the run is saved yet, and once that is mended the same "
                "command begins it."
            )
        return InputError(
            f"{found}; the run is saved up to round {self._saved}, and once that is mended the "
            "same command goes on from there."
        )


def _of_group(row: Row, group: str) -> dict[str, float]:
    prefix = f"{group}/"
    return {name[len(prefix) :]: row[name] for name in row if name.startswith(prefix)}
