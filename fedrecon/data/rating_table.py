"""Text with one `user, item, rating, timestamp` per line, read fast and strictly.

The meaning of a line is defined once, by `_parse_line`. Since it takes seconds for a million lines,
lines in plain form (digits and separators only, as published files are) are parsed by NumPy in
bulk; a stretch that is anything else is read line by line, which finds the line to complain about.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from fedrecon.data.ratings import RatingScale
from fedrecon.data.sources import BYTE_ORDER_MARK, UTF_16_MARKS
from fedrecon.errors import DataError

_CHUNK_BYTES = 16 * 2**20
_MAX_DIGITS = 18  # More might not fit int64.
_NAMES = ("user id", "item id", "rating", "timestamp")
# What somebody can do whose file has another form.
_WAY_OUT = "a file in another form is read with --ratings_file in place of --dataset"


class RatingTable(NamedTuple):
    """The columns of a file, `[num_lines]` each.

    Attributes:
      user_ids: int64, as in the file.
      item_ids: int64, as in the file.
      ratings: float32, stars.
      timestamps: int64, seconds.
      first_line: Line number (1-based) of the first row.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray
    first_line: int = 1


def parse_rating_table(
    data: bytes, *, label: str, separator: str, header: str | None, scale: RatingScale
) -> RatingTable:
    r"""Returns the columns of a file; all of it, or an error.

    Lines end with `\n` or `\r\n`, the last one need not. A byte order mark is skipped.

    Args:
      data: The file.
      label: What to call it in messages.
      separator: What stands between two fields.
      header: What the first line must be; None if there is no header.
      scale: The ratings that exist.

    Raises:
      DataError: If the file is empty, or names the first line that is not as expected.
    """
    data = data.removeprefix(BYTE_ORDER_MARK)
    if data.startswith(UTF_16_MARKS):
        raise DataError(f"{label}, line 1: expected ASCII or UTF-8 text, found UTF-16.")
    if b"\r" in data and b"\n" not in data:
        raise DataError(
            f"{label}: lines end with a carriage return alone, as on old Macs; write it with "
            "\\n or \\r\\n at the end of each line."
        )
    start = 0
    if header is not None:
        end = data.find(b"\n") + 1 or len(data)
        found = data[:end].rstrip(b"\r\n")
        if found != header.encode():
            way_out = _WAY_OUT
            if found.startswith(b","):
                way_out = "an unnamed first column is an index of pandas, which writes none with"
                way_out += " index=False"
            raise DataError(
                f"{label}, line 1: expected the header {header!r}, found {show(found)}; {way_out}."
            )
        start = end
    if start == len(data):
        raise DataError(f"{label} holds no ratings.")
    first_line = 1 if header is None else 2

    chunks, line = [], first_line
    while start < len(data):
        end = len(data)
        if end - start > _CHUNK_BYTES:
            end = data.find(b"\n", start + _CHUNK_BYTES) + 1 or len(data)
        chunk = data[start:end].replace(b"\r\n", b"\n")
        chunk = chunk if chunk.endswith(b"\n") else chunk + b"\n"
        columns = _parse_plain(chunk, separator.encode(), scale)
        if columns is None:
            columns = _parse_lines(chunk, label, line, separator, scale)
        chunks.append(columns)
        line += len(columns[0])
        start = end
    return RatingTable(*map(np.concatenate, zip(*chunks)), first_line=first_line)


def show(text: bytes | str, *, limit: int = 60) -> str:
    """Returns found text quoted for a message, shortened to `limit` characters."""
    shown = repr(text[:limit]).removeprefix("b")
    return shown if len(text) <= limit else f"{shown}..."


def _parse_plain(chunk: bytes, separator: bytes, scale: RatingScale) -> tuple | None:
    """Returns the four columns if every line is in plain form and on the scale, else None."""
    if chunk.translate(None, b"0123456789.\n" + separator):
        return None
    mark = separator[:1]
    if len(separator) > 1:
        mark = b"\t"  # Cannot occur: it is not among the bytes that were just allowed.
        chunk = chunk.replace(separator, mark)
        if separator[:1] in chunk:
            return None
    text = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero((text == ord(mark)) | (text == ord("\n")))
    if ends.size % 4:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1]).reshape(-1, 4)
    ends = ends.reshape(-1, 4)
    lengths = ends - starts
    is_line_end = text[ends] == ord("\n")
    if is_line_end[:, :3].any() or not is_line_end[:, 3].all():
        return None
    if lengths.min() < 1 or lengths.max() > _MAX_DIGITS:
        return None
    has_leading_zero = (text[starts[:, :2]] == ord("0")) & (lengths[:, :2] > 1)
    if has_leading_zero.any():
        return None
    columns = [_parse_digits(text, ends[:, field], lengths[:, field]) for field in (0, 1, 3)]
    stars = _parse_stars(text, starts[:, 2], lengths[:, 2])
    if any(column is None for column in (*columns, stars)) or not scale.contains(stars).all():
        return None
    users, items, timestamps = columns
    return users, items, stars.astype(np.float32), timestamps


def _parse_digits(text: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
    """Returns int64 `[num_lines]`, the numbers ending before `ends`; None if one is no number."""
    numbers = np.zeros(len(ends), np.int64)
    for place in range(lengths.max()):
        # A field without this place counts for nothing, but must not be read before the text.
        digits = np.where(place < lengths, text[np.maximum(ends - 1 - place, 0)], ord("0"))
        digits = digits.astype(np.int64) - ord("0")
        if (digits < 0).any():
            return None
        numbers += digits * 10**place
    return numbers


def _parse_stars(text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
    """Returns float64 `[num_lines]` for fields such as 4 and 3.5; None if one has another form."""
    short = lengths == 1
    if not (short | (lengths == 3)).all():
        return None
    units = text[starts].astype(np.int64) - ord("0")
    points = np.where(short, ord("."), text[np.where(short, starts, starts + 1)])
    tenths = np.where(short, ord("0"), text[np.where(short, starts, starts + 2)])
    tenths = tenths.astype(np.int64) - ord("0")
    if (units < 0).any() or (tenths < 0).any() or (points != ord(".")).any():
        return None
    return (10 * units + tenths) / 10


def _parse_lines(
    chunk: bytes, label: str, first_line: int, separator: str, scale: RatingScale
) -> tuple:
    rows = []
    for number, line in enumerate(chunk[:-1].split(b"\n"), first_line):
        try:
            rows.append(_parse_line(line, separator, scale))
        except ValueError as error:
            way_out = f"; {_WAY_OUT}" if line.strip() else ""
            raise DataError(f"{label}, line {number}: {error}{way_out}.") from None
    users, items, stars, timestamps = zip(*rows)
    return (
        np.array(users, np.int64),
        np.array(items, np.int64),
        np.array(stars, np.float32),
        np.array(timestamps, np.int64),
    )


def _parse_line(line: bytes, separator: str, scale: RatingScale) -> tuple[int, int, float, int]:
    """Returns the four values of a line; raises `ValueError` saying what is wrong with it."""
    fields = line.split(separator.encode())
    if len(fields) != 4:
        raise ValueError(
            f"expected 4 fields separated by {separator!r} ({', '.join(_NAMES)}), found "
            f"{len(fields) if line else 'an empty line'}{' in ' + show(line) if line else ''}"
        )
    for position in (0, 1, 3):
        if not re.fullmatch(rb"[0-9]{1,%d}" % _MAX_DIGITS, fields[position]):
            raise ValueError(
                f"expected the {_NAMES[position]} to be a whole number of at most {_MAX_DIGITS} "
                f"digits, found {show(fields[position])}"
            )
    for position in (0, 1):
        # As numbers, 151 and 0151 would be one.
        if re.match(rb"0[0-9]", fields[position]):
            raise ValueError(
                f"expected the {_NAMES[position]} without leading zeros, found "
                f"{show(fields[position])}"
            )
    if not re.fullmatch(rb"[0-9]{1,9}(\.[0-9]{1,9})?", fields[2]):
        raise ValueError(f"expected the rating to be a number, {scale}, found {show(fields[2])}")
    stars = float(fields[2])
    if not scale.contains(stars):
        raise ValueError(f"expected a rating of {scale}, found {show(fields[2])}")
    return int(fields[0]), int(fields[1]), stars, int(fields[3])
