"""A folder for the temporary files of a process, which leaves none behind.

TensorFlow writes the code that it makes of ours (`__autograph_generated_file*`) to the temporary
folder, and removes it when Python ends as usual. Our binaries end at once, and some are killed. So
each has a folder of its own, which it locks: one that nobody has locked is of a process that is
gone, and the next one removes it.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import tempfile

_PREFIX = "fedrecon-"


class TemporaryFolder:
    """The folder of this process, in which `tempfile` makes its files until `remove`."""

    def __init__(self) -> None:
        parent = pathlib.Path(tempfile.gettempdir())
        _remove_left(parent)
        self._path: pathlib.Path
        self._lock: int | None
        self._path, self._lock = _made(parent)
        tempfile.tempdir = str(self._path)

    def remove(self) -> None:
        """Removes the folder and all that is in it, if that was not done before."""
        shutil.rmtree(self._path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _made(parent: pathlib.Path) -> tuple[pathlib.Path, int]:
    while True:
        path = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _locked(path)
        if lock is not None and path.exists():
            return path, lock
        # Another process took it for one that is left.


def _remove_left(parent: pathlib.Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        lock = _locked(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _locked(path: pathlib.Path) -> int | None:
    """Returns a descriptor of the folder by which it is locked; None if it is not ours to lock."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        return None
    return folder
