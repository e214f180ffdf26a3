"""The MovieLens files: ratings, and the titles and genres of items."""

from __future__ import annotations

import csv
import dataclasses
import re
from typing import NamedTuple

import numpy as np

from fedrecon.data.rating_table import RatingTable, parse_rating_table, show
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.sources import Source
from fedrecon.errors import DataError

RATINGS_HEADER = "userId,movieId,rating,timestamp"
ITEMS_HEADER = "movieId,title,genres"
# The 19 last fields of u.item, in the order of u.genre.
GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_NO_GENRES = "(no genres listed)"


@dataclasses.dataclass(frozen=True)
class MovieLensLayout:
    """How one variant writes its files.

    Attributes:
      ratings_file: Name of the file with one rating per line.
      separator: What separates its fields.
      items_file: Name of the file with one item per line; the data set may lack it.
      items_separator: What separates its fields: `"|"` (u.item), `"::"` (movies.dat) or `","`
        (movies.csv).
      items_encoding: Its text encoding.
      has_header: Whether both files begin with a header.
      scale: The ratings that exist.
    """

    ratings_file: str
    separator: str
    items_file: str
    items_separator: str
    items_encoding: str
    has_header: bool
    scale: RatingScale

    @property
    def files(self) -> tuple[str, ...]:
        """The files without which there is no data set."""
        return (self.ratings_file,)

    def read(self, source: Source, *, name: str) -> Ratings:
        """Returns the ratings; titles and genres are None if there is no items file.

        Raises:
          DataError: If a file cannot be read or is malformed, or if a user rates an item twice.
        """
        table, label = self._table(source)
        ratings = Ratings.from_original_ids(
            name,
            user_ids=table.user_ids,
            item_ids=table.item_ids,
            ratings=table.ratings,
            timestamps=table.timestamps,
            scale=self.scale,
            name_of_row=lambda row: f"{label}, line {table.first_line + row}",
        )
        if not source.holds(self.items_file):
            return ratings
        items = parse_items(
            source.read(self.items_file), label=source.label(self.items_file), layout=self
        )
        # Titles are for people to read. A rated item without a line is trained on all the same.
        unknown = Item("", (), 0)
        rated = [items.get(item, unknown) for item in ratings.original_item_ids.tolist()]
        return dataclasses.replace(
            ratings,
            item_titles=tuple(item.title for item in rated),
            item_genres=tuple(item.genres for item in rated),
        )

    def rows_by_line(self, source: Source) -> np.ndarray:
        """Returns the row of what `read` returns for each line, `[num_ratings]`, int64."""
        table, _ = self._table(source)
        rows = np.empty(len(table.user_ids), np.int64)
        rows[np.lexsort((table.item_ids, table.user_ids))] = np.arange(len(rows))
        return rows

    def _table(self, source: Source) -> tuple[RatingTable, str]:
        """Returns the lines of the ratings file, and what to call the file."""
        label = source.label(self.ratings_file)
        table = parse_rating_table(
            source.read(self.ratings_file),
            label=label,
            separator=self.separator,
            header=RATINGS_HEADER if self.has_header else None,
            scale=self.scale,
        )
        return table, label


class Item(NamedTuple):
    """One line of an items file.

    Attributes:
      title: The title with its year, as in the file.
      genres: Names of genres; empty if none is listed.
      line: Line number, 1-based.
    """

    title: str
    genres: tuple[str, ...]
    line: int


def parse_items(data: bytes, *, label: str, layout: MovieLensLayout) -> dict[int, Item]:
    """Returns the items by original id. Raises `DataError` naming the first bad line."""
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    split = {"|": _split_u_item, "::": _split_movies_dat, ",": _split_movies_csv}
    items = {}
    for number, line in enumerate(lines, 1):
        try:
            text = line.removesuffix(b"\r").decode(layout.items_encoding)
            if number == 1:
                text = text.removeprefix("\ufeff")
                if layout.has_header:
                    if text != ITEMS_HEADER:
                        raise ValueError(
                            f"expected the header {ITEMS_HEADER!r}, found {show(text)}"
                        )
                    continue
            item, title, genres = split[layout.items_separator](text)
            if not re.fullmatch("[0-9]{1,18}", item):
                raise ValueError(
                    f"expected the item id to be a whole number of at most 18 digits, found "
                    f"{show(item)}"
                )
            if int(item) in items:
                raise ValueError(f"item {item} comes again, after line {items[int(item)].line}")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{label}, line {number}: expected {layout.items_encoding} text, found byte "
                f"0x{error.object[error.start]:02x} at column {error.start + 1}."
            ) from None
        except (ValueError, csv.Error) as error:
            raise DataError(f"{label}, line {number}: {error}.") from None
        items[int(item)] = Item(title, genres, number)
    if not items:
        raise DataError(f"{label} holds no items.")
    return items


def _split_u_item(line: str) -> tuple[str, str, tuple[str, ...]]:
    fields = _check_count(line, line.split("|"), 5 + len(GENRES_100K), "'|'")
    flags = fields[5:]
    if not set(flags) <= {"0", "1"}:
        raise ValueError(
            f"expected {len(flags)} genre flags, 0 or 1, found {show('|'.join(flags))}"
        )
    return fields[0], fields[1], tuple(g for g, flag in zip(GENRES_100K, flags) if flag == "1")


def _split_movies_dat(line: str) -> tuple[str, str, tuple[str, ...]]:
    item, title, genres = _check_count(line, line.split("::"), 3, "'::'")
    return item, title, _split_genres(genres)


def _split_movies_csv(line: str) -> tuple[str, str, tuple[str, ...]]:
    # No MovieLens title spans lines, so an unclosed quote is an error of this line.
    rows = list(csv.reader([line], strict=True))
    item, title, genres = _check_count(line, rows[0] if rows else [], 3, "','")
    return item, title, _split_genres(genres)


def _split_genres(genres: str) -> tuple[str, ...]:
    return () if genres in ("", _NO_GENRES) else tuple(genres.split("|"))


def _check_count(line: str, fields: list[str], count: int, separator: str) -> list[str]:
    if len(fields) != count:
        found = f"{len(fields)} in {show(line)}" if line else "an empty line"
        raise ValueError(f"expected {count} fields separated by {separator}, found {found}")
    return fields
