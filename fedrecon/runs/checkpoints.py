"""The server's state on disk: plain arrays and their description.

    round_<n>/state.npz        the arrays of the state after n rounds, by their names
    round_<n>/checkpoint.json  names, shapes and dtypes of the arrays; size and SHA-256 of the file

Loading a checkpoint runs no code: the arrays are put into the structure of an example. The format
is NumPy's own: it needs no TensorFlow to be read, and it holds numbers and no objects. A checkpoint
has its name only when all of it is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tree

from fedrecon.errors import InputError

ARRAYS = "state.npz"
DESCRIPTION = "checkpoint.json"
_FORMAT = 1
_PREFIX = "round_"
_PART = ".part"
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
        """Returns the numbers of rounds after which there is a checkpoint, increasing."""
        numbers = (path.name[len(_PREFIX) :] for path in self._path.glob(f"{_PREFIX}*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def save(self, state: Any, round_num: int) -> None:
        """Saves the state after `round_num` rounds and deletes the oldest beyond those to keep.

        Args:
          state: Arrays, tensors and numbers in named tuples, lists, tuples and mappings.
          round_num: A round that has no checkpoint yet.

        Raises:
          TypeError: If the state has a leaf that is not made of numbers.
          OSError: If it cannot be written; there is no checkpoint of the round then.
        """
        arrays = dict(_leaves(state))
        for name, array in arrays.items():
            if array.dtype.kind not in "biufc":
                raise TypeError(f"{name} is {array.dtype}; a checkpoint holds numbers only.")
        self._path.mkdir(parents=True, exist_ok=True)
        for left in self._path.glob(f"*{_PART}"):  # A process was killed while it wrote.
            shutil.rmtree(left)
        part = self._path / f"{_PREFIX}{round_num}{_PART}"
        part.mkdir()
        with open(part / ARRAYS, "wb") as file:
            np.savez(file, **arrays)
            sync(file)
        description = {
            "format": _FORMAT,
            "round": round_num,
            "arrays": {name: _describe(array) for name, array in arrays.items()},
            "files": {ARRAYS: _fingerprint(part / ARRAYS)},
        }
        with open(part / DESCRIPTION, "w") as file:
            file.write(json.dumps(description, indent=1) + "\n")
            sync(file)
        sync_folder(part)
        os.rename(part, self._folder(round_num))
        sync_folder(self._path)
        for old in self.rounds()[: -self._keep]:
            self._remove(old)

    def load(self, round_num: int, like: Any) -> Any:
        """Returns the state after `round_num` rounds.

        Args:
          round_num: The round.
          like: A state of the same structure, shapes and dtypes.

        Returns:
          The state, in the structure of `like`. Leaves are NumPy arrays; those of no dimension are
          NumPy scalars.

        Raises:
          InputError: If there is no such checkpoint, if it is damaged or of an older version, or if
            its arrays are not those of `like`.
        """
        folder = self._folder(round_num)
        found = self.verify(round_num)
        wanted = {name: _describe(array) for name, array in _leaves(like)}
        _check_same_arrays(folder, found, wanted)
        try:
            with np.load(folder / ARRAYS, allow_pickle=False) as file:
                arrays = [file[name][()] for name, _ in _leaves(like)]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{folder / ARRAYS} cannot be read: {error}.") from error
        return tree.unflatten_as(like, arrays)

    def verify(self, round_num: int) -> dict[str, Any]:
        """Returns dtype and shape of each array of a checkpoint, if all of it is as it was saved.

        Raises:
          InputError: As `load` does, for whatever can be found out without an example.
        """
        folder = self._folder(round_num)
        if (folder / "saved_model.pb").exists():
            raise InputError(
                f"{folder} is a checkpoint of an older version of fedrecon, a TensorFlow program, "
                "which is not run; train anew in another output directory."
            )
        description = _read_description(folder, round_num)
        _check_files(folder, description["files"])
        return description["arrays"]

    def _folder(self, round_num: int) -> pathlib.Path:
        return self._path / f"{_PREFIX}{round_num}"

    def _remove(self, round_num: int) -> None:
        # Renamed first: a half deleted checkpoint must not look like one.
        part = self._folder(round_num).with_name(f"{_PREFIX}{round_num}{_PART}")
        os.rename(self._folder(round_num), part)
        shutil.rmtree(part)


def sync(file: Any) -> None:
    """Waits until an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: pathlib.Path) -> None:
    """Waits until the names in a folder are on the disk; a power cut may take new ones before."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
        description = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    expected = {"format": _FORMAT, "round": round_num}
    if not isinstance(description, dict) or not description.keys() >= {
        *expected,
        "arrays",
        "files",
    }:
        raise InputError(f"{path} does not describe a checkpoint; it is damaged.")
    for key, value in expected.items():
        if description[key] != value:
            raise InputError(f"{path} is of {key} {description[key]!r}, not {value}.")
    if not all(isinstance(description[key], dict) for key in ("arrays", "files")):
        raise InputError(f"{path} does not describe a checkpoint; it is damaged.")
    return description


def _check_files(folder: pathlib.Path, files: Mapping[str, Any]) -> None:
    if ARRAYS not in files:
        raise InputError(f"{folder / DESCRIPTION} does not name {ARRAYS}; it is damaged.")
    for name, expected in files.items():
        try:
            found = _fingerprint(folder / name)
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read: {error}.") from error
        if found != expected:
            raise InputError(
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
