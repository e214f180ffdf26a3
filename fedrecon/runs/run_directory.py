"""What a run leaves behind: settings, metrics, checkpoints, a picture; and how it finds them again.

    config.json          resolved settings, seed, versions, fingerprint of the data
    metrics.csv          one row a round; `round` 0 is the untrained model
    events/              the same for TensorBoard
    checkpoints/         round_<n>: the server's state after n rounds
    client_store/        rows that clients keep, if any; see `client_store`
    final_metrics.json   validation and test metrics of the finished run
    results.json         of a part of a comparison: see `experiments.compare`
    curves.png           drawn from metrics.csv

Files are replaced whole or not at all, so that a run that is killed can be resumed.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import csv
import fcntl
import json
import os
import pathlib
import platform
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from fedrecon import __version__
from fedrecon.errors import InputError

CONFIG = "config.json"
METRICS = "metrics.csv"
FINAL_METRICS = "final_metrics.json"
RESULTS = "results.json"
CURVES = "curves.png"
_CHECKPOINTS = "checkpoints"
_CHECKPOINT_PREFIX = "round_"
_EVENTS = "events"
_STORE = "client_store"
_LOCK = ".lock"
NUM_CHECKPOINTS_KEPT = 3
_MAX_WRITES_BEHIND = 8
_SECONDS_BETWEEN_ROWS = 1.0
_CONFIG_KEYS = ("settings", "data_fingerprint")


class RunDirectory:
    """The files of one run, held by one process at a time."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)

    # --- settings ---------------------------------------------------------------------------------

    def read_config(self) -> dict[str, Any]:
        """Returns what `claim` wrote.

        Raises:
          InputError: If there is no run in the directory, or its file is not what `claim` writes.
        """
        path = self.path / CONFIG
        config = _read_json(path, "is not the directory of a run")
        if not isinstance(config, dict) or any(key not in config for key in _CONFIG_KEYS):
            raise InputError(f"{path} is not of a run: it needs {' and '.join(_CONFIG_KEYS)}.")
        return config

    def check(self, config: dict[str, Any], *, free_settings: frozenset[str] = frozenset()) -> None:
        """Raises what `claim` raises where the directory's run has other settings or other data."""
        _check_same_run(self.read_config(), config, free_settings, self.path)

    @contextlib.contextmanager
    def claim(self, config: dict[str, Any], *, free_settings: frozenset[str] = frozenset()):
        """Takes the directory for a run with this configuration, new or to be resumed.

        Args:
          config: JSON values: `settings` (a flat mapping), `data_fingerprint`, and anything else.
          free_settings: The settings that a resumed run may change.

        Raises:
          InputError: If another process holds the directory, if it holds other files but no run, or
            if its run has other settings or saw other data. Nothing is changed then.

        Warns if the run was begun with other versions.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; the output directory must be a directory.")
        config_path = self.path / CONFIG
        if config_path.exists():
            self.check(config, free_settings=free_settings)
        elif self.path.is_dir() and any(p.name != _LOCK for p in self.path.iterdir()):
            raise InputError(
                f"{self.path} holds files but no {CONFIG}; give an empty or a new output directory."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / _LOCK, "w")  # noqa: SIM115 - held until the run ends
        except OSError as error:
            raise InputError(f"cannot write to the output directory: {error}.") from error
        with lock:
            try:
                # Released by the kernel with the process, however that ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process is training in {self.path}; wait for it or give another "
                    "output directory."
                ) from None
            _write_json(config_path, config)
            yield

    # --- results ----------------------------------------------------------------------------------

    def checkpoints(self) -> list[int]:
        """Returns the numbers of rounds after which there is a checkpoint, increasing."""
        # Without TFF, whose import takes seconds; it gives a folder this name when it is complete.
        names = (path.name for path in (self.path / _CHECKPOINTS).glob(f"{_CHECKPOINT_PREFIX}*"))
        numbers = (name[len(_CHECKPOINT_PREFIX) :] for name in names)
        return sorted(int(number) for number in numbers if number.isdecimal())

    @property
    def store_path(self) -> pathlib.Path:
        """Where rows of clients are kept, if the algorithm keeps any."""
        return self.path / _STORE

    def write_final_metrics(self, metrics: dict[str, Any]) -> None:
        _write_json(self.path / FINAL_METRICS, metrics)

    def read_final_metrics(self) -> dict[str, Any] | None:
        """Returns the metrics of a finished run, or None while it is not finished."""
        return self._read_if_there(FINAL_METRICS)

    def write_results(self, results: dict[str, Any]) -> None:
        _write_json(self.path / RESULTS, results)

    def read_results(self) -> dict[str, Any] | None:
        """Returns what a comparison found of a finished run, or None while it is not finished."""
        return self._read_if_there(RESULTS)

    def _read_if_there(self, name: str) -> dict[str, Any] | None:
        if not (self.path / name).exists():
            return None
        return _read_json(self.path / name, "cannot be read")

    def write_evaluation(self, split: str, metrics: dict[str, Any]) -> pathlib.Path:
        path = self.path / f"evaluation_{split}.json"
        _write_json(path, metrics)
        return path

    def read_metrics(self) -> list[dict[str, float]]:
        """Returns the rows of metrics.csv; a row has only the columns that were measured."""
        with open(self.path / METRICS, newline="") as file:
            return [{k: _number(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

    def draw_curves(self) -> pathlib.Path:
        """Draws curves.png from metrics.csv alone."""
        path = self.path / CURVES
        _draw_curves(self.read_metrics(), path)
        return path


class RunRecorder:
    """TFF's managers over a run's directory: checkpoints, metrics.csv and TensorBoard events.

    Another thread writes, in the order of the calls, while the caller goes on; rows it writes once
    a second and before each checkpoint, since between rounds one takes as long as a round. After a
    failure nothing more is written, and what failed is raised a few calls later.
    """

    def __init__(self, run: RunDirectory):
        # Imported here so that a directory can be checked before seconds go into importing TFF.
        import tensorflow_federated as tff

        self._directory = run
        self._states = tff.program.FileProgramStateManager(
            run.path / _CHECKPOINTS,
            prefix=_CHECKPOINT_PREFIX,
            keep_total=NUM_CHECKPOINTS_KEPT,
            keep_first=False,
        )
        self._releases: tuple | None = None
        # In a thread of its own, because a notebook already runs an event loop in the caller's.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        done: concurrent.futures.Future = concurrent.futures.Future()
        done.set_result(None)
        self._rows: list[tuple[dict[str, float], int]] = []
        self._rows_written = time.monotonic()
        self._writing = collections.deque([done], maxlen=_MAX_WRITES_BEHIND)

    @property
    def checkpoints(self) -> list[int]:
        """See `RunDirectory.checkpoints`."""
        return self._directory.checkpoints()

    def load(self, round_num: int, structure: Any) -> Any:
        """Returns the state after `round_num` rounds, in the structure of `structure`."""
        return self._start(self._states.load(round_num, structure)).result()

    def save(self, state: Any, round_num: int, *, first: Callable[[], None] | None = None) -> None:
        """Saves the state after `round_num` rounds, unless that is saved already.

        Args:
          state: The state.
          round_num: The round.
          first: Saves what belongs to it, before the checkpoint exists.
        """

        self._write_rows()

        async def save():
            if round_num not in self._directory.checkpoints():
                if first is not None:
                    first()
                await self._states.save(state, round_num)

        self._start(save())

    def seconds(self, round_num: int) -> float:
        """Returns the seconds that the run had taken when `round_num` rounds were done."""
        return self._row(round_num)["seconds"]

    def metrics(self, round_num: int, part: str) -> dict[str, float]:
        """Returns what was measured on `part` after `round_num` rounds, by the metric's name."""
        prefix = f"{part}/"
        row = self._row(round_num)
        return {name[len(prefix) :]: row[name] for name in row if name.startswith(prefix)}

    def _row(self, round_num: int) -> dict[str, float]:
        for row in self._directory.read_metrics():
            if row["round"] == round_num:
                return row
        raise InputError(
            f"{self._directory.path / METRICS} has no row for round {round_num}, of which there is "
            "a checkpoint; restore the file, or train in another output directory."
        )

    def release(self, row: dict[str, float], round_num: int) -> None:
        """Adds a round's row to metrics.csv and TensorBoard, dropping rows of later rounds."""

        self._rows.append((row, round_num))
        if time.monotonic() - self._rows_written >= _SECONDS_BETWEEN_ROWS:
            self._write_rows()

    def _write_rows(self) -> None:
        rows, self._rows, self._rows_written = self._rows, [], time.monotonic()
        if not rows:
            return

        async def release():
            for row, round_num in rows:
                for manager in self._managers():
                    await manager.release(row, round_num)

        self._start(release())

    def flush(self) -> None:
        """Writes everything but TensorBoard's events, for which see `close`; waits for it."""
        self._write_rows()
        self._writing[-1].result()

    def close(self) -> None:
        """Writes out what is still buffered; TensorFlow keeps events for up to two minutes."""
        self.flush()
        self._releases = None  # Deleting the writer closes its file.

    def _managers(self):
        if self._releases is None:  # Only a run that goes on writes; opening one to read does not.
            import tensorflow_federated as tff

            path = self._directory.path
            self._releases = (
                tff.program.CSVFileReleaseManager(path / METRICS, key_fieldname="round"),
                tff.program.TensorBoardReleaseManager(path / _EVENTS),
            )
        return self._releases

    def _start(self, coroutine) -> concurrent.futures.Future:
        before = self._writing[-1]

        async def in_turn():
            try:
                await asyncio.wrap_future(before)
            except BaseException:
                coroutine.close()
                raise
            return await coroutine

        if len(self._writing) == _MAX_WRITES_BEHIND:
            self._writing[0].result()
        self._writing.append(asyncio.run_coroutine_threadsafe(in_turn(), self._loop))
        return self._writing[-1]


def versions() -> dict[str, str]:
    """Returns the versions that a run's numbers may depend on."""
    from importlib import metadata

    packages = ("tensorflow", "tensorflow-federated", "numpy", "pandas")
    return {
        "fedrecon": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _check_same_run(found, wanted, free_settings, path) -> None:
    old, new = found["settings"], wanted["settings"]
    differing = [
        f"{name} was {old.get(name)!r} and is now {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in free_settings and old.get(name) != new.get(name)
    ]
    if differing:
        raise InputError(
            f"{path} holds a run with other settings: {'; '.join(differing)}. Give another "
            "output directory, or the settings of that run to resume it."
        )
    if found["data_fingerprint"] != wanted["data_fingerprint"]:
        raise InputError(
            f"{path} holds a run on other data: the ratings of {new.get('dataset')} differ from "
            "those it was trained on. Give another output directory, or the same files."
        )
    if found.get("versions") != wanted.get("versions"):
        warnings.warn(
            f"{path} holds a run begun with {found.get('versions')}, which goes on with "
            f"{wanted.get('versions')}: its numbers may differ from those of an uninterrupted run.",
            stacklevel=2,
        )


def _read_json(path: pathlib.Path, otherwise: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} {otherwise}: it has no {path.name}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(part, path)


def _draw_curves(rows: list[dict[str, float]], path: pathlib.Path) -> None:
    # Figure instead of pyplot: pyplot keeps global state.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    measured = {name for row in rows for name in row}
    titles = {
        "rmse": "RMSE",
        "accuracy": "accuracy (error of at most 0.5)",
        "hr_at_10": "HR@10 (mean over users)",
        "ndcg_at_10": "NDCG@10 (mean over users)",
        "loss": "loss (mean over examples)",
    }
    if any(name.endswith("/hr_at_10") for name in measured):
        del titles["rmse"], titles["accuracy"]
    titles = {m: t for m, t in titles.items() if any(n.endswith(f"/{m}") for n in measured)}
    for axes, metric in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles):
        after_first = []
        for part, style in (
            ("train", {"linewidth": 1, "alpha": 0.6}),
            ("validation", {"marker": "o", "markersize": 3}),
            ("test", {"marker": "o", "markersize": 3}),
        ):
            points = [(r["round"], r[f"{part}/{metric}"]) for r in rows if f"{part}/{metric}" in r]
            if points:
                axes.plot(*zip(*points), label=part, **style)
                after_first += [value for round_num, value in points if round_num > 0]
        if after_first:
            # The untrained model is often so far off that it would flatten all the rest.
            margin = 0.05 * (max(after_first) - min(after_first)) or 0.05
            axes.set_ylim(min(after_first) - margin, max(after_first) + margin)
        axes.set(xlabel="round", title=titles[metric])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    part = path.with_name(f"{path.name}.part")
    figure.savefig(part, dpi=120, format="png")
    os.replace(part, path)
