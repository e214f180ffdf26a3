"""metrics.csv: a row a round, with only the columns that were measured.

A checkpoint keeps a digest of the rows up to its round. By it a run that goes on knows that all of
them are there and as they were written; what comes after them is written again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.files import replacing, sync, unwritable

ROUND = "round"
# Of a round of training: the clients that were left out, since their updates were not finite.
REJECTED = "num_clients_rejected"
_MAX_DIGITS = 18

Row = Mapping[str, float]


def read_rows(path: pathlib.Path) -> list[dict[str, float]]:
    """Returns the rows of the file; `round` is an int.

    Raises:
      InputError: If the file cannot be read as one that `MetricsFile` wrote.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [_numbers(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if any(ROUND not in row for row in rows):
        raise InputError(f"{path} cannot be read: a row has no {ROUND}.")
    return rows


def num_left_out(rows: Iterable[Row]) -> int:
    """Returns how many clients were left out in all rounds, each once for each of its rounds."""
    return int(sum(row.get(f"train/{REJECTED}", 0) for row in rows))


def _numbers(row: dict) -> dict[str, float]:
    if None in row:
        raise ValueError("a row has more values than there are columns")
    return {k: int(v) if v.isdecimal() else float(v) for k, v in row.items() if v}


class MetricsFile:
    """Adds rows to the file. The row of a round takes the place of all rows from that round on."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._columns: list[str] = []
        self._last_round: int | None = None  # None until the file was looked at.
        self._digest = _Digest()

    def append(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Adds the rows of rounds, which increase, and waits until they are on the disk.

        A process killed meanwhile leaves whole rows, and perhaps a part of the next one.

        Raises:
          DamagedError: If the file has no column `round`.
          InputError: If it cannot be written.
        """
        first = rows[0][0]
        is_whole = self._last_round is None or first <= self._last_round
        columns, kept = list(self._columns), []
        if is_whole:
            columns, kept = self._read_until(first)
        for _, row in rows:
            # Sorted: the order of the columns does not depend on what was measured first.
            columns += [name for name in sorted(row) if name not in columns]
        digest = _Digest(kept) if is_whole else self._digest.copy()
        if not is_whole and columns != self._columns:
            is_whole, (_, kept) = True, self._read_until(first)
        added = [{ROUND: str(round_num), **_texts(row)} for round_num, row in rows]
        for row in added:
            digest.add(row)
        self._write(_text(columns, [*kept, *added], has_header=is_whole), is_whole)
        self._columns, self._last_round, self._digest = columns, rows[-1][0], digest

    def digest(self) -> dict[str, str | int]:
        """Returns what `check` needs to know of the rows up to the last that was added here."""
        return self._digest.to_json()

    def check(self, round_num: int, digest: Mapping[str, str | int] | None) -> None:
        """Looks whether the rows up to a round are as they were written.

        Args:
          round_num: The round.
          digest: What `digest` returned after it; None, of older versions, leaves numbers that were
            changed unnoticed, but no row that is missing.

        Raises:
          DamagedError: If they are not.
          InputError: If the file may not be read.
        """
        try:
            _, rows = self._read_until(round_num + 1)
        except PermissionError as error:
            raise InputError(f"{self._path} cannot be read: {error.strerror}.") from error
        except (OSError, csv.Error) as error:
            raise DamagedError(f"{self._path} cannot be read: {error}.") from error
        if digest is None:
            is_same = [row[ROUND] for row in rows] == [str(n) for n in range(round_num + 1)]
        else:
            is_same = _Digest(rows).to_json() == digest
        if not is_same:
            raise DamagedError(
                f"{self._path} is damaged: its rows up to round {round_num} are not those that "
                "were written."
            )

    def rows(self, round_num: int | None) -> list[dict[str, float]]:
        """Returns the rows up to a round, as `read_rows` does; what comes after may be damaged.

        Args:
          round_num: The round; None for as many as are whole.

        Raises:
          DamagedError: If a row's numbers cannot be read.
        """
        end = 10**_MAX_DIGITS if round_num is None else round_num + 1
        try:
            return [_numbers(row) for row in self._read_until(end)[1]]
        except DamagedError:
            raise
        except (OSError, ValueError, csv.Error) as error:
            raise DamagedError(f"{self._path} cannot be read: {error}.") from error

    def cut_after(self, round_num: int) -> None:
        """Removes whatever comes after the row of a round."""
        columns, rows = self._read_until(round_num + 1)
        text = _text(columns, rows)
        if self._path.exists() and self._path.read_bytes() != text.encode():
            self._write(text, is_whole=True)
        self._last_round = None

    def _read_until(self, round_num: int) -> tuple[list[str], list[dict[str, str]]]:
        """Returns the columns and the rows before `round_num`, as text; nothing after is read."""
        kept: list[dict[str, str]] = []
        if not self._path.exists():
            return [ROUND], kept
        with open(self._path, newline="", encoding="utf-8", errors="replace") as file:
            # A crash may leave zeros; the csv module of Python 3.9 and 3.10 refuses to read them.
            reader = csv.DictReader(line.replace("\0", "\ufffd") for line in file)
            columns = list(reader.fieldnames or [])
            if ROUND not in columns:
                raise DamagedError(f"{self._path} has no column {ROUND}; it is damaged.")
            last = -1
            for row in _whole(reader):
                # What a killed process left of a row ends the file as a later round does.
                number = row[ROUND] or ""
                if None in row or not _is_number(number) or not last < int(number) < round_num:
                    break
                last = int(number)
                kept.append(row)
        return (columns if kept else [ROUND]), kept

    def _write(self, text: str, is_whole: bool) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if is_whole:
                with replacing(self._path) as part:
                    _write_text(part, "w", text)
            else:
                _write_text(self._path, "a", text)
        except OSError as error:
            raise unwritable(self._path, error) from error


class _Digest:
    """The digest of rows, given as text; columns that a row has not do not count."""

    def __init__(self, rows: Sequence[Mapping[str, str]] = ()):
        self._num_rows, self._hash = 0, hashlib.sha256()
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, str]) -> None:
        self._num_rows += 1
        self._hash.update(repr(sorted(item for item in row.items() if item[1])).encode())

    def copy(self) -> _Digest:
        other = _Digest()
        other._num_rows, other._hash = self._num_rows, self._hash.copy()
        return other

    def to_json(self) -> dict[str, str | int]:
        return {"rows": self._num_rows, "sha256": self._hash.hexdigest()}


def _texts(row: Row) -> dict[str, str]:
    return {name: str(np.asarray(value).item()) for name, value in row.items()}


def _text(columns, rows: Sequence[Mapping[str, str]], *, has_header: bool = True) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if has_header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _whole(reader: csv.DictReader) -> Iterator[dict]:
    """Yields the rows up to what is no csv."""
    rows = iter(reader)
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            return
        if row is None:
            return
        yield row


def _write_text(path: pathlib.Path, mode: str, text: str) -> None:
    with open(path, mode, newline="", encoding="utf-8") as file:
        file.write(text)
        sync(file)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
