"""What a run leaves behind: settings, metrics, checkpoints, a picture; and how it finds them again.

    config.json          resolved settings, seed, versions, fingerprint of the data
    metrics.csv          one row a round; `round` 0 is the untrained model
    events/              the same for TensorBoard
    users.csv            which users train, and which are unseen: user_id, part
    checkpoints/         round_<n>: the server's state after n rounds; see `checkpoints`
    client_store/        rows that clients keep, if any; see `client_store`
    model/               what serves users; see `fedrecon.serving.files`
    final_metrics.json   metrics of the finished run on each group of users
    results.json         results of a run of a comparison; see `experiments.compare`
    user_results.npz     the same of each user of the test groups
    samples.json         recommendations for a few test users; see `experiments.run.samples`
    report.html          a page of the run; see `experiments.pages`
    curves.png           drawn from metrics.csv

`recorder` writes what changes while the run trains. Files are replaced whole or not at all, so that
a run that is killed can be resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import platform
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedrecon import __version__
from fedrecon.errors import DamagedError, InputError
from fedrecon.runs import curves, metrics_file
from fedrecon.runs.checkpoints import Checkpoints
from fedrecon.runs.client_store import check_snapshot
from fedrecon.runs.files import (
    read_sealed,
    remove,
    remove_parts,
    replacing,
    write_json,
    write_sealed,
)
from fedrecon.runs.newest import newest_whole

CONFIG = "config.json"
METRICS = "metrics.csv"
FINAL_METRICS = "final_metrics.json"
RESULTS = "results.json"
USER_RESULTS = "user_results.npz"
CURVES = "curves.png"
USERS = "users.csv"
SAMPLES = "samples.json"
EVENTS = "events"
_CHECKPOINTS = "checkpoints"
_STORE = "client_store"
_LOCK = ".lock"
NUM_CHECKPOINTS_KEPT = 3
_OF_A_COPY = "put it back from a copy, or train in another output directory."
_CONFIG_KEYS = ("settings", "data_fingerprint")
# What a process that was killed while it began a run may leave.
_OF_A_START = (_LOCK, f"{CONFIG}.part")
# What there may be of a run that has not even the row of the untrained model.
_OF_NO_ROUND = (CONFIG, USERS, EVENTS, _CHECKPOINTS, _STORE, SAMPLES, USER_RESULTS)


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
        try:
            config = read_sealed(path, needed=_CONFIG_KEYS)
        except FileNotFoundError:
            raise InputError(
                f"{self.path} is not the directory of a run: it has no {CONFIG}."
            ) from None
        except DamagedError as error:
            raise DamagedError(f"{str(error).rstrip('.')}; {_OF_A_COPY}") from error
        if not isinstance(config["settings"], dict):
            raise DamagedError(f"{path} is damaged: its settings are no names; {_OF_A_COPY}")
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

        A new run that raises an exception before its first row leaves nothing behind.

        Warns if the run was begun with other versions.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; the output directory must be a directory.")
        is_new = not (self.path / CONFIG).exists()
        if not is_new:
            self.check(config, free_settings=free_settings)
        elif self.path.is_dir() and any(p.name not in _OF_A_START for p in self.path.iterdir()):
            raise InputError(
                f"{self.path} holds files but no {CONFIG}; give an empty or a new output directory."
            )
        with self._locked() as made:
            try:
                remove_parts(self.path)
                remove_parts(self.path / _CHECKPOINTS)
                write_sealed(self.path / CONFIG, config)
                yield
            except Exception:
                if is_new and not (self.path / METRICS).exists():
                    self._undo_start(made)
                raise

    @contextlib.contextmanager
    def _locked(self):
        """Yields the folders that had to be made, the innermost first."""
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / _LOCK, "w")  # noqa: SIM115 - held until the run ends
        except OSError as error:
            _remove_empty(made)
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
            yield made

    def _undo_start(self, made: Sequence[pathlib.Path]) -> None:
        """Removes what a start wrote, and the folders that it made."""
        with contextlib.suppress(OSError):
            for name in (*_OF_A_START, *_OF_NO_ROUND):
                remove(self.path / name)
        _remove_empty(made)

    # --- results ----------------------------------------------------------------------------------

    def open_checkpoints(self) -> Checkpoints:
        """Returns the checkpoints of the run, to be read or written."""
        return Checkpoints(self.path / _CHECKPOINTS, keep=NUM_CHECKPOINTS_KEPT)

    def checkpoints(self) -> list[int]:
        """Returns the numbers of rounds after which there is a checkpoint, increasing."""
        return self.open_checkpoints().rounds()

    def verify(self, round_num: int) -> None:
        """Looks whether all that is read of a round is as it was saved.

        Raises:
          DamagedError: If the checkpoint or the snapshot of clients' rows is damaged or missing.
          InputError: If it cannot be read otherwise.
        """
        self.open_checkpoints().verify(round_num)
        if self.store_path.exists():
            check_snapshot(self.store_path, round_num)

    def newest_whole(self) -> int:
        """Returns the round of the newest checkpoint that is whole; see `newest.newest_whole`.

        Raises:
          InputError: If there is none.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            raise InputError(f"{self.path} has no checkpoint yet.")
        return newest_whole(checkpoints, self.verify, self.path)[0]

    @property
    def store_path(self) -> pathlib.Path:
        """Where rows of clients are kept, if the algorithm keeps any."""
        return self.path / _STORE

    @property
    def users_path(self) -> pathlib.Path:
        """Where it is written which users train; see `population.write_parts`."""
        return self.path / USERS

    def write_final_metrics(self, metrics: dict[str, Any]) -> None:
        write_sealed(self.path / FINAL_METRICS, metrics)

    def read_final_metrics(self) -> dict[str, Any] | None:
        """Returns the metrics of a finished run, or None while it is not finished.

        Raises:
          DamagedError: If the file is not as it was written.
        """
        return self._read_if_there(FINAL_METRICS, needed=("rounds",))

    def write_results(self, results: dict[str, Any]) -> None:
        write_sealed(self.path / RESULTS, results)

    def read_results(self) -> dict[str, Any] | None:
        """Returns what a comparison found of a finished run, or None while it is not finished.

        Raises:
          DamagedError: If the file is not as it was written.
        """
        return self._read_if_there(RESULTS)

    def forget_results(self) -> None:
        """Makes the run one that is not finished, whose results are made anew."""
        (self.path / RESULTS).unlink(missing_ok=True)

    def write_samples(self, samples: list[dict[str, Any]]) -> None:
        write_json(self.path / SAMPLES, samples)

    def write_user_results(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes arrays by their names; they come before `write_results`, which ends a run."""
        with replacing(self.path / USER_RESULTS) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays)

    def read_user_results(self) -> dict[str, np.ndarray] | None:
        """Returns what `write_user_results` wrote, or None if it wrote nothing.

        Raises:
          DamagedError: If the file is not as it was written.
        """
        path = self.path / USER_RESULTS
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{path} cannot be read: {error}.") from error

    def _read_if_there(self, name: str, *, needed: tuple[str, ...] = ()) -> dict[str, Any] | None:
        try:
            return read_sealed(self.path / name, needed=needed)
        except FileNotFoundError:
            return None

    def write_evaluation(self, split: str, metrics: dict[str, Any]) -> pathlib.Path:
        path = self.path / f"evaluation_{split}.json"
        write_json(path, metrics)
        return path

    def read_metrics(self) -> list[dict[str, float]]:
        """Returns the rows of metrics.csv; a row has only the columns that were measured."""
        return metrics_file.read_rows(self.path / METRICS)

    def draw_curves(self) -> None:
        """Draws curves.png from metrics.csv alone; warns if it cannot be drawn."""
        path = self.path / CURVES
        try:
            curves.draw(self.read_metrics(), path)
        except Exception as error:  # Whatever is wrong with a picture, the run's results are there.
            warnings.warn(f"{path} was not drawn: {error}", stacklevel=2)


def _remove_empty(folders: Sequence[pathlib.Path]) -> None:
    with contextlib.suppress(OSError):  # Of one that is not empty.
        for folder in folders:
            folder.rmdir()


def versions() -> dict[str, str]:
    """Returns the versions that a run's numbers may depend on."""
    from importlib import metadata

    packages = ("tensorflow", "tensorflow-federated", "numpy", "pandas")
    return {
        "fedrecon": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


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
