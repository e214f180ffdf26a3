"""metrics.csv: a row a round, with only the columns that were measured."""

from __future__ import annotations

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from fedrecon.errors import InputError
from fedrecon.runs.checkpoints import sync

ROUND = "round"

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

    def append(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Adds the rows of rounds, which increase, and waits until they are on the disk.

        A process killed meanwhile leaves whole rows, and perhaps a part of the next one.
        """
        first = rows[0][0]
        is_whole = self._last_round is None or first <= self._last_round
        columns, kept = list(self._columns), []
        if is_whole:
            columns, kept = self._read_until(first)
        for _, row in rows:
            # Sorted: the order of the columns does not depend on what was measured first.
            columns += [name for name in sorted(row) if name not in columns]
        if not is_whole and columns != self._columns:
            is_whole, (_, kept) = True, self._read_until(first)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        if is_whole:
            writer.writeheader()
            writer.writerows(kept)
        for round_num, row in rows:
            numbers = {name: np.asarray(value).item() for name, value in row.items()}
            writer.writerow({ROUND: round_num, **numbers})
        self._write(text.getvalue(), is_whole)
        self._columns, self._last_round = columns, rows[-1][0]

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
                raise InputError(f"{self._path} has no column {ROUND}; it is damaged.")
            last = -1
            for row in reader:
                # What a killed process left of a row ends the file as a later round does.
                if not row[ROUND].isdecimal() or not last < int(row[ROUND]) < round_num:
                    break
                last = int(row[ROUND])
                kept.append(row)
        return (columns if kept else [ROUND]), kept

    def _write(self, text: str, is_whole: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.part") if is_whole else self._path
        with open(part, "w" if is_whole else "a", newline="", encoding="utf-8") as file:
            file.write(text)
            sync(file)
        if is_whole:
            os.replace(part, self._path)
