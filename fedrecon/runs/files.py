"""Files that are written whole or not at all, and JSON that shows whether it was changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from fedrecon.errors import DamagedError, InputError

PART = ".part"
_DIGEST = "sha256"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the path to write to; the file there takes the place of `path` at the end.

    Raises:
      InputError: If it cannot be written. The file that was at `path` is there as before.
    """
    part = path.with_name(f"{path.name}{PART}")
    try:
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | pathlib.Path, error: OSError) -> InputError:
    """Returns the error that says that a file cannot be written, and why."""
    return InputError(f"{path} cannot be written: {error.strerror or error}.")


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes values.

    Raises:
      InputError: If a number is not finite, or the file cannot be written.
    """
    try:
        text = json.dumps(values, indent=2, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{path} was not written: {error}.") from error
    with replacing(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        sync(file)


def write_sealed(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes values and their SHA-256; raises what `write_json` raises."""
    write_json(path, {**values, _DIGEST: _digest(values)})


def read_sealed(path: pathlib.Path, *, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns what `write_sealed` wrote; older versions wrote no SHA-256.

    Args:
      path: The file.
      needed: The names that must be in it.

    Raises:
      FileNotFoundError: If there is no such file.
      DamagedError: If it holds anything else.
      InputError: If it may not be read.
    """
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise DamagedError(f"{path} is damaged: it holds no values by name.")
    missing = [name for name in needed if name not in values]
    if missing:
        raise DamagedError(f"{path} is damaged: it has no {' and no '.join(missing)}.")
    digest = values.pop(_DIGEST, None)
    if digest is not None and digest != _digest(values):
        raise DamagedError(
            f"{path} was changed after it was written: its SHA-256 is not the one in it."
        )
    return values


def remove(path: pathlib.Path) -> None:
    """Removes a file or a folder with all that is in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_parts(folder: pathlib.Path) -> None:
    """Removes what processes that were killed had not written to the end.

    Raises:
      InputError: If it cannot be removed.
    """
    for path in folder.glob(f"*{PART}"):
        try:
            remove(path)
        except OSError as error:
            raise InputError(f"{path} cannot be removed: {error.strerror}.") from error


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


def _digest(values: dict[str, Any]) -> str:
    """Returns the SHA-256 of values; neither spaces nor the order of names count."""
    as_read = json.loads(json.dumps(values))  # Where all names are text.
    text = json.dumps(as_read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
