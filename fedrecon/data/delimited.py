"""Text files of any layout, read as text: how they are written is found out, and told.

pandas does the parsing. What it would pass over in silence is looked for: a row with more fields
than others, an empty line, a byte that ends its text, quotes that are none.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon.data.columns import has_header
from fedrecon.data.sources import BYTE_ORDER_MARK, UTF_16_MARKS, reading
from fedrecon.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# A space is tried last: a time of day has one before it.
_SEPARATORS = {"\t": "tabs", "::": "'::'", ";": "';'", "|": "'|'", ",": "','", " ": "spaces"}
_SAMPLE_BYTES = 2**16
_SAMPLE_ROWS = 50
_ROWS_PER_CHUNK = 500_000
_BYTES_PER_PART = 2**23


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A file with one row a line.

    Attributes:
      label: What to call it in messages.
      data: Its bytes, in which one character separates fields.
      delimiter: This character.
      encoding: The encoding of `data`.
      is_quoted: Whether quotes may enclose fields.
      escape: What stands before a quote that is part of a field; None if quotes are doubled.
      header: The names of the columns; None if the first line is a row.
      sample: The first rows.
      notes: What was found out, in sentences.
    """

    label: str
    data: bytes
    delimiter: str
    encoding: str
    is_quoted: bool
    escape: str | None
    header: list[str] | None
    sample: list[list[str]]
    notes: list[str]

    def place(self, row: int) -> str:
        """Returns where a row stands, as in `"ratings.csv, line 2"`."""
        lines_before = row + (self.header is not None)
        if self.is_quoted:  # A field in quotes may have several lines.
            rows = self._rows(_text(self.data, self.encoding))
            for _ in range(lines_before):
                next(rows)
            lines_before = rows.line_num
        return f"{self.label}, line {lines_before + 1}"

    def num_bytes(self) -> int:
        """Returns the size of the rows, with an end of line after each."""
        end = len(self.data) + (not self.data.endswith(b"\n"))
        return end - (self.data.index(b"\n") + 1 if self.header else 0)

    def has_only(self, characters: bytes) -> bool:
        """Whether fields have these characters alone, without quotes, and lines end plainly."""
        plain = characters + self.delimiter.encode() + b"\n"
        start = self.data.find(b"\n") + 1 if self.header else 0
        return not self.is_quoted and not any(
            self.data[first : first + _SAMPLE_BYTES].translate(None, plain)
            for first in range(start, len(self.data), _SAMPLE_BYTES)
        )

    def chunks(
        self, places: Mapping[str, int], dtypes: Mapping[str, Any]
    ) -> Iterator[tuple[int, dict[str, pd.Series]]]:
        """Yields some columns in stretches, each with the number of its first row.

        Args:
          places: The columns, each with its place.
          dtypes: Their types, `str` where none is given.

        Raises:
          DataError: For a row that has more fields than the first, an empty line, or a quote that
            is not closed.
          ValueError: If a field is not of the type.
        """
        import pandas as pd

        try:
            parts = self._parsed(self.data, places, dtypes, chunksize=_ROWS_PER_CHUNK)
            first = 0
            while True:
                with np.errstate(invalid="ignore"):  # pandas tries a cast before it refuses it.
                    part = next(parts, None)
                if part is None:
                    return
                yield first, {role: part[place] for role, place in places.items()}
                first += len(part)
        except pd.errors.ParserError as error:
            raise DataError(_of_pandas(self.label, error)) from error

    def parts(self) -> list[tuple[int, int]]:
        """Returns where stretches of whole lines begin and end; no field may have quotes."""
        bounds = []
        start = self.data.find(b"\n") + 1 if self.header else 0
        while start < len(self.data):
            end = self.data.find(b"\n", start + _BYTES_PER_PART) + 1 or len(self.data)
            bounds.append((start, end))
            start = end
        return bounds

    def part(
        self, bounds: tuple[int, int], places: Mapping[str, int], dtypes: Mapping[str, Any]
    ) -> dict[str, pd.Series]:
        """Returns some columns of one of `parts`. Raises `ValueError` if it cannot be read so."""
        start, end = bounds
        table = self._parsed(self.data[start:end], places, dtypes, skips_header=False)
        return {role: table[place] for role, place in places.items()}

    def _parsed(
        self,
        data: bytes,
        places: Mapping[str, int],
        dtypes: Mapping[str, Any],
        *,
        skips_header: bool = True,
        **options: Any,
    ) -> Any:
        """Returns what pandas reads, each column called by its place."""
        import pandas as pd

        width = len(self.sample[0])
        names = {place: role for role, place in places.items()}
        return pd.read_csv(
            io.BytesIO(data),
            sep=self.delimiter,
            header=None,
            skiprows=int(skips_header and self.header is not None),
            # All of them: with a choice of columns, pandas lets a field too many pass.
            names=range(width),
            index_col=False,
            # Of a column that nobody wants, one byte a row is the quickest to read.
            dtype={n: dtypes.get(names[n], str) if n in names else "S1" for n in range(width)},
            keep_default_na=False,
            na_filter=False,
            skip_blank_lines=False,
            quoting=csv.QUOTE_MINIMAL if self.is_quoted else csv.QUOTE_NONE,
            escapechar=self.escape,
            encoding=self.encoding,
            **options,
        )

    def _rows(self, text: io.StringIO) -> Any:
        return _csv_rows(text, self.delimiter, self.is_quoted, self.escape)


def open_table(path: str | os.PathLike) -> TextTable:
    """Reads a file and finds out how it is written.

    Raises:
      DataError: If it cannot be read, is empty, or has rows without a common separator.
    """
    label, data = _read(pathlib.Path(path).expanduser())
    notes = []
    data, encoding = _decoded(data, label, notes)
    if data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        data = data.rstrip(b"\r\n")
    if not data or data.isspace():
        raise DataError(f"{label} is empty.")
    if data.lstrip()[:1] in (b"{", b"["):
        raise DataError(
            f"{label} is JSON; write it as csv, for example with pandas: "
            "pandas.read_json(FILE, lines=True).to_csv('ratings.csv', index=False)."
        )
    if b"\0" in data:
        raise DataError(
            f"{label} holds a byte 0, so it is no text; give a file of text or parquet."
        )
    escape = "\\" if b'\\"' in data else None
    separator, is_quoted, rows = _separated(data, encoding, escape, label)
    escape = escape if is_quoted else None
    if b'"' in data and not is_quoted:
        notes.append("Quotes are taken for a part of the field that they stand in.")
    if len(separator) > 1:
        if b"\t" in data:
            raise DataError(
                f"{label}: fields are separated by '::', but there is also a tab in it."
            )
        data = data.replace(separator.encode(), b"\t")
    header = rows.pop(0) if has_header(rows) else None
    if not rows:
        raise DataError(f"{label} holds a header and no rows.")
    found = f"fields are separated by {_SEPARATORS[separator]}"
    found += ", some in quotes" if is_quoted else ""
    first = "the first line is a header" if header else "there is no header"
    notes.insert(0, f"{found[0].upper()}{found[1:]}; {first}.")
    return TextTable(
        label=label,
        data=data,
        delimiter="\t" if len(separator) > 1 else separator,
        encoding=encoding,
        is_quoted=is_quoted,
        escape=escape,
        header=[name.strip() for name in header] if header else None,
        sample=rows,
        notes=notes,
    )


def _read(path: pathlib.Path) -> tuple[str, bytes]:
    """Returns what to call a file, and its bytes, without compression."""
    with reading(path):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [
                    name
                    for name in archive.namelist()
                    if not name.endswith("/") and not name.startswith("__MACOSX/")
                ]
                if len(members) != 1:
                    held = ", ".join(members[:8]) + (", ..." if len(members) > 8 else "")
                    raise DataError(
                        f"{path} holds {len(members)} files ({held or 'none'}); give a zip of one "
                        "file, or unpack it and give the file of ratings."
                    )
                return f"{path}:{members[0]}", archive.read(members[0])
        data = path.read_bytes()
        return str(path), gzip.decompress(data) if path.suffix == ".gz" else data


def _decoded(data: bytes, label: str, notes: list[str]) -> tuple[bytes, str]:
    """Returns the bytes without their mark, and their encoding; UTF-16 becomes UTF-8."""
    if data.startswith(UTF_16_MARKS):
        notes.append("It is UTF-16.")
        try:
            return data.decode("utf-16").encode(), "utf-8"
        except UnicodeDecodeError as error:
            raise DataError(f"{label} begins as UTF-16, but is not: {error}.") from None
    data = data.removeprefix(BYTE_ORDER_MARK)
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            notes.append(f"It is read as Latin-1, since line {line} is not UTF-8.")
            return data, "latin-1"
    return data, "utf-8"


def _separated(
    data: bytes, encoding: str, escape: str | None, label: str
) -> tuple[str, bool, list[list[str]]]:
    """Returns what separates fields, whether quotes enclose some, and the first rows."""
    text = _text(data[:_SAMPLE_BYTES], encoding).getvalue()
    is_whole = len(data) <= _SAMPLE_BYTES
    best: tuple[str, bool, list[list[str]]] | None = None
    uneven: str | None = None
    for separator in _SEPARATORS:
        if separator not in text or (separator == " " and best is not None):
            continue
        plain, delimiter = (text, separator)
        if separator == "::":
            plain, delimiter = text.replace("::", "\t"), "\t"
        quoted = _quotes_enclose(data, encoding, separator, escape)
        rows = list(_sample_rows(plain, delimiter, quoted, escape))
        if not is_whole and 1 < len(rows) <= _SAMPLE_ROWS:
            rows.pop()  # The sample may end within it.
        rows = rows[:_SAMPLE_ROWS]
        if not rows:
            continue
        widths = [len(row) for row in rows]
        if min(widths) == max(widths) > 1:
            if best is None or widths[0] > len(best[2][0]):
                best = (separator, quoted, rows)
        elif widths[0] > 1 and uneven is None:
            row = next(n for n, width in enumerate(widths) if width != widths[0])
            found = f"{widths[row]} fields separated by {_SEPARATORS[separator]}"
            found = found if rows[row] else "an empty line"
            uneven = f"line {row + 1}: expected {widths[0]} fields, as in line 1, found {found}"
    if best is None:
        raise DataError(
            f"{label}, {uneven}."
            if uneven
            else f"{label}, line 1: expected fields separated by a tab, '::', ';', '|', ',' or a "
            f"space, found {text.splitlines()[0][:60]!r}."
        )
    return best


def _sample_rows(
    text: str, delimiter: str, is_quoted: bool, escape: str | None
) -> Iterator[list[str]]:
    rows = _csv_rows(io.StringIO(text, newline=""), delimiter, is_quoted, escape)
    # A quote that is not closed is told when the whole file is read.
    with contextlib.suppress(csv.Error):
        yield from itertools.islice(rows, _SAMPLE_ROWS + 1)


def _quotes_enclose(data: bytes, encoding: str, separator: str, escape: str | None) -> bool:
    """Whether quotes enclose fields; an artist called "Weird Al" Yankovic has some of his own."""
    delimiter = "\t" if len(separator) > 1 else separator
    end = 0
    for _ in range(_SAMPLE_ROWS):
        quote = data.find(b'"', end)
        if quote < 0:
            break
        start = max(data.rfind(mark, 0, quote) for mark in (b"\n", b"\r")) + 1
        ends = [data.find(mark, quote) for mark in (b"\n", b"\r")]
        end = min((place for place in ends if place >= 0), default=len(data))
        line = data[start:end].decode(encoding).replace(separator, delimiter)
        try:
            next(csv.reader([line], delimiter=delimiter, escapechar=escape, strict=True))
        except csv.Error as error:
            if "unexpected end" not in str(error):  # Such a field may go on in the next line.
                return False
    return b'"' in data


def _csv_rows(text: io.StringIO, delimiter: str, is_quoted: bool, escape: str | None) -> Any:
    quoting = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    return csv.reader(text, delimiter=delimiter, quoting=quoting, escapechar=escape)


def _text(data: bytes, encoding: str) -> io.StringIO:
    # The sample may end within a character.
    text = data.decode(encoding, errors="ignore")
    if "\n" not in text:
        text = text.replace("\r", "\n")  # As old Macs wrote it; `csv` would take it for one line.
    return io.StringIO(text, newline="")


def _of_pandas(label: str, error: Exception) -> str:
    """Returns what pandas says, as a sentence of ours."""
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if found:
        expected, line, number = found.groups()
        return (
            f"{label}, line {line}: expected {expected} fields, as in the first line, found "
            f"{number}; put a field that has the separator in it into quotes."
        )
    if "EOF inside string" in str(error):
        return f"{label}: a quote that begins a field is not closed before the end of the file."
    return f"{label} cannot be read: {' '.join(str(error).split()).rstrip('.')}."
