"""Where the files of a data set lie: a folder, a zip, or an address to download from.

Every failure to read is a `DataError` that names the file and what is wrong with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Protocol

from fedrecon.errors import DataError

# How text files may begin.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Source(Protocol):
    """A place that holds files by name."""

    def holds(self, name: str) -> bool:
        """Whether there is anything called `name`, readable or not."""

    def label(self, name: str) -> str:
        """What to call the file in a message."""

    def read(self, name: str) -> bytes:
        """The whole file. Raises `DataError` if it is missing, damaged or may not be read."""


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Files in a folder; a file may be compressed, as `NAME.gz`."""

    folder: pathlib.Path

    def holds(self, name: str) -> bool:
        return _exists(self._path(name))

    def label(self, name: str) -> str:
        return str(self._path(name))

    def read(self, name: str) -> bytes:
        path = self._path(name)
        with reading(path):
            data = path.read_bytes()
            return gzip.decompress(data) if path.suffix == ".gz" else data

    def _path(self, name: str) -> pathlib.Path:
        plain, compressed = self.folder / name, self.folder / f"{name}.gz"
        return compressed if not _exists(plain) and _exists(compressed) else plain


@dataclasses.dataclass(frozen=True)
class ZipSource:
    """Files in one folder of a zip, read in place; a file may be compressed, as `NAME.gz`."""

    path: pathlib.Path
    folder: str

    def holds(self, name: str) -> bool:
        return self._member(name) in self._members()

    def label(self, name: str) -> str:
        return f"{self.path}:{self._member(name)}"

    def read(self, name: str) -> bytes:
        member, members = self._member(name), self._members()
        if member not in members:
            held = ", ".join(members[:8]) + (", ..." if len(members) > 8 else "")
            raise DataError(f"{self.path} holds no {member}; it holds {held or 'nothing'}.")
        with reading(self.path), zipfile.ZipFile(self.path) as archive:
            data = archive.read(member)
            return gzip.decompress(data) if member.endswith(".gz") else data

    def _member(self, name: str) -> str:
        plain = f"{self.folder}/{name}"
        members = self._members()
        return f"{plain}.gz" if plain not in members and f"{plain}.gz" in members else plain

    def _members(self) -> list[str]:
        with reading(self.path), zipfile.ZipFile(self.path) as archive:
            return archive.namelist()


def find_source(data_dir: str | os.PathLike, *, folder: str, zip_name: str, file: str) -> Source:
    """Returns where a data set lies in `data_dir`: in `folder/`, in the zip, or directly.

    Args:
      data_dir: The folder that the user named, or the zip itself.
      folder: Name of the data set's folder, in `data_dir` and inside the zip.
      zip_name: Name of the zip, such as `"ml-1m.zip"`.
      file: A file that the data set must have, which tells whether it is there.

    Raises:
      DataError: If it is in none of the three places; says which were tried.
    """
    root = pathlib.Path(data_dir).expanduser()
    if root.suffix == ".zip" and root.is_file():
        return ZipSource(root, folder)
    with reading(root):
        if not root.is_dir():
            raise DataError(f"The data folder {root} is not an existing folder, nor a .zip file.")
    places = [FolderSource(root / folder), FolderSource(root)]
    if places[0].holds(file):
        return places[0]
    if _exists(root / zip_name):
        return ZipSource(root / zip_name, folder)
    if places[1].holds(file):
        return places[1]
    raise DataError(
        f"{root} does not hold the data set: there is no {folder}/{file}, no {zip_name} and no "
        f"{file} in it. Put one of them there, or give no data folder to have it downloaded."
    )


def default_cache_dir() -> pathlib.Path:
    """Returns where downloads are kept: `$FEDRECON_CACHE`, else `~/.cache/fedrecon`."""
    return pathlib.Path(os.environ.get("FEDRECON_CACHE") or "~/.cache/fedrecon").expanduser()


def download(address: str, *, checksum: str | None, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of a downloaded file in `folder`, fetched unless it is already there.

    Args:
      address: What to download; its last part is the file's name.
      checksum: As pooch writes it (`"sha256:..."`, `"md5:..."`); None accepts whatever is
        no page of HTML, which some servers send for a file that is gone.
      folder: Where to keep it; created if missing.

    Raises:
      DataError: If it cannot be reached or stored, or is not the expected file.
    """
    import pooch  # A fifth of the start of every binary, and only downloads need them.
    import requests

    by_hand = "it can be fetched by hand, and its folder passed as --data_dir"
    try:
        path = pooch.retrieve(
            address,
            known_hash=checksum,
            fname=address.rsplit("/", 1)[-1],
            path=folder,
            progressbar=True,
        )
    except requests.RequestException as error:
        reason = f"HTTP {error.response.status_code}" if error.response is not None else ""
        raise DataError(
            f"{address} could not be reached ({reason or type(error).__name__}); {by_hand}."
        ) from error
    except OSError as error:
        raise DataError(f"{folder} cannot keep downloads: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(
            f"What {address} sent is not the expected file: its checksum is not {checksum}; "
            f"{by_hand}."
        ) from error
    path = pathlib.Path(path)
    if checksum is None and _is_page(path):
        path.unlink()
        raise DataError(
            f"What {address} sent is not the expected file but a page of HTML, which is not kept; "
            f"{by_hand}."
        )
    return path


def _is_page(path: pathlib.Path) -> bool:
    """Whether a file is HTML or XML: no file of ratings, and no archive, begins like one."""
    with open(path, "rb") as file:
        return file.read(1024).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"<")


def _exists(path: pathlib.Path) -> bool:
    with reading(path):
        return path.exists()


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever reading a file may raise into a `DataError` about `path`."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; expected a file.") from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read: permission denied.") from error
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        # ValueError: what zipfile raises where a damaged directory points outside the file.
        raise DataError(
            f"{path} is damaged or cut short ({error}); delete it and fetch it again."
        ) from error
    except (OSError, RuntimeError, NotImplementedError) as error:
        # What zipfile raises for an encrypted member and for an unknown compression.
        raise DataError(f"{path} cannot be read: {error}.") from error
