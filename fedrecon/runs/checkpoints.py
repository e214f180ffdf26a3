"""The server's state on disk: plain arrays and their description.

    round_<n>/state.npz        the arrays of the state after n rounds, by their names
    round_<n>/checkpoint.json  names, shapes and dtypes of the arrays; size and SHA-256 of the file
                               and of itself; what lies elsewhere and belongs to the checkpoint

Loading a checkpoint runs no code: the arrays are put into the structure of an example. The format
is NumPy's own: it needs no TensorFlow to be read, and it holds numbers and no objects. A checkpoint
has its name only when all of it is on the disk.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tree

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.files import (
    PART,
    read_sealed,
    remove,
    remove_parts,
    sync,
    sync_folder,
    write_sealed,
)

ARRAYS = "state.npz"
DESCRIPTION = "checkpoint.json"
_FORMAT = 1
_PREFIX = "round_"
_ROOT = "state"
_BLOCK_BYTES = 1 << 20


class Checkpoints:
    """The numbered checkpoints in a folder. One process writes; others may read meanwhile."""

    def __init__(self, path: str | os.PathLike[str], *, keep: int):
        """Looks at a folder, which need not exist.

        Args:
          path: The folder.
          keep: How many checkpoints stay when another one is saved.
        """
        self._path, self._keep = pathlib.Path(path), keep

    def rounds(self) -> list[int]:
        """Returns the numbers of rounds after which there is a checkpoint, increasing.

        Raises:
          InputError: If the folder is a file.
        """
        if self._path.exists() and not self._path.is_dir():
            raise InputError(f"{self._path} is a file and must be a folder; remove it.")
        numbers = (path.name[len(_PREFIX) :] for path in self._path.glob(f"{_PREFIX}*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def save(
        self, state: Any, round_num: int, *, belongings: Mapping[str, Any] | None = None
    ) -> None:
        """Saves the state after `round_num` rounds and deletes the oldest beyond those to keep.

        Args:
          state: Arrays, tensors and numbers in named tuples, lists, tuples and mappings.
          round_num: A round that has no checkpoint yet.
          belongings: What belongs to the checkpoint and lies elsewhere, in JSON values by names.

        Raises:
          TypeError: If the state has a leaf that is not made of numbers.
          OSError, InputError: If it cannot be written; there is no checkpoint of the round then.
        """
        arrays = dict(_leaves(state))
        for name, array in arrays.items():
            if array.dtype.kind not in "biufc":
                raise TypeError(f"{name} is {array.dtype}; a checkpoint holds numbers only.")
        self._path.mkdir(parents=True, exist_ok=True)
        remove_parts(self._path)
        part = self._path / f"{_PREFIX}{round_num}{PART}"
        part.mkdir()
        try:
            self._write(part, round_num, arrays, belongings or {})
        except Exception:
            remove(part)  # A disk that is full needs the room.
            raise
        os.rename(part, self._folder(round_num))
        sync_folder(self._path)
        for old in self.rounds()[: -self._keep]:
            self._remove(old)

    def _write(self, folder, round_num: int, arrays: Mapping[str, np.ndarray], belongings) -> None:
        with open(folder / ARRAYS, "wb") as file:
            np.savez(file, **arrays)
            sync(file)
        description = {
            "format": _FORMAT,
            "round": round_num,
            "arrays": {name: _describe(array) for name, array in arrays.items()},
            "files": {ARRAYS: _fingerprint(folder / ARRAYS)},
            "belongings": dict(belongings),
        }
        write_sealed(folder / DESCRIPTION, description)
        sync_folder(folder)

    def load(self, round_num: int, like: Any) -> Any:
        """Returns the state after `round_num` rounds.

        Args:
          round_num: The round.
          like: A state of the same structure, shapes and dtypes.

        Returns:
          The state, in the structure of `like`. Leaves are NumPy arrays; those of no dimension are
          NumPy scalars.

        Raises:
          DamagedError: If there is no such checkpoint, or it is not as it was saved.
          InputError: If it is of an older version, or if its arrays are not those of `like`.
        """
        folder = self._folder(round_num)
        found = self.verify(round_num)["arrays"]
        wanted = {name: _describe(array) for name, array in _leaves(like)}
        _check_same_arrays(folder, found, wanted)
        try:
            with np.load(folder / ARRAYS, allow_pickle=False) as file:
                arrays = [file[name][()] for name, _ in _leaves(like)]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{folder / ARRAYS} cannot be read: {error}.") from error
        return tree.unflatten_as(like, arrays)

    def verify(self, round_num: int) -> dict[str, Any]:
        """Returns the description of a checkpoint, if all of it is as it was saved.

        Its `arrays` are a dtype and a shape by the name of each array; its `belongings` are what
        `save` was given, `{}` in older versions.

        Raises:
          DamagedError, InputError: As `load` does, for whatever can be found out without an
            example.
        """
        folder = self._folder(round_num)
        if (folder / "saved_model.pb").exists():
            raise InputError(
                f"{folder} is a checkpoint of an older version of fedrecon, a TensorFlow program, "
                "which is not run; train anew in another output directory."
            )
        description = _read_description(folder, round_num)
        _check_files(folder, description["files"])
        return description

    def forget_after(self, round_num: int) -> None:
        """Removes the checkpoints of later rounds."""
        for later in self.rounds():
            if later > round_num:
                self._remove(later)

    def _folder(self, round_num: int) -> pathlib.Path:
        return self._path / f"{_PREFIX}{round_num}"

    def _remove(self, round_num: int) -> None:
        # Renamed first: a half deleted checkpoint must not look like one.
        part = self._folder(round_num).with_name(f"{_PREFIX}{round_num}{PART}")
        os.rename(self._folder(round_num), part)
        remove(part)


def _leaves(state: Any) -> list[tuple[str, np.ndarray]]:
    """Returns the names and the values of a state's leaves, always in the same order."""
    leaves = [
        ("/".join(map(str, (_ROOT, *path))), np.asarray(value))
        for path, value in tree.flatten_with_path(state)
    ]
    if len(dict(leaves)) < len(leaves):
        raise ValueError("two leaves of the state have the same name; rename a key with a slash.")
    return leaves


def _describe(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape)}


def _fingerprint(path: pathlib.Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _read_description(folder: pathlib.Path, round_num: int) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description = read_sealed(path, needed=("format", "round", "arrays", "files"))
    except FileNotFoundError as error:
        raise DamagedError(f"{path} cannot be read: there is no such file.") from error
    if description["format"] != _FORMAT:
        raise InputError(
            f"{path} is of format {description['format']!r}, and this version of fedrecon reads "
            f"format {_FORMAT}; use the version that wrote it."
        )
    if description["round"] != round_num:
        raise DamagedError(f"{path} is of round {description['round']!r}, not {round_num}.")
    description.setdefault("belongings", {})
    if not all(isinstance(description[key], dict) for key in ("arrays", "files", "belongings")):
        raise DamagedError(f"{path} does not describe a checkpoint; it is damaged.")
    return description


def _check_files(folder: pathlib.Path, files: Mapping[str, Any]) -> None:
    if ARRAYS not in files:
        raise DamagedError(f"{folder / DESCRIPTION} does not name {ARRAYS}; it is damaged.")
    for name, expected in files.items():
        try:
            found = _fingerprint(folder / name)
        except PermissionError as error:
            raise InputError(f"{folder / name} cannot be read: {error.strerror}.") from error
        except OSError as error:
            raise DamagedError(f"{folder / name} cannot be read: {error}.") from error
        if found != expected:
            raise DamagedError(
                f"{folder / name} is damaged: its SHA-256 is not the one that was saved with it."
            )


def _check_same_arrays(folder, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if found == wanted:
        return
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{folder} holds the state of another model or algorithm: {name} is "
                f"{_text(found.get(name))} there and {_text(wanted.get(name))} here "
                f"({len(found)} and {len(wanted)} arrays in all)."
            )


def _text(description: Any) -> str:
    if description is None:
        return "missing"
    try:
        return f"{description['dtype']} {list(description['shape'])}"
    except (KeyError, TypeError):
        return f"not described ({description!r})"
