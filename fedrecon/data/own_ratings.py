"""Ratings of somebody's own, from a file of any layout or a data frame.

What was decided or left out is told in `Ratings.notes`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fedrecon.data import columns as columns_lib
from fedrecon.data import parsed_cache
from fedrecon.data.advice import Advice
from fedrecon.data.column_names import ITEM, RATING, TIMESTAMP, USER
from fedrecon.data.delimited import open_table
from fedrecon.data.own_items import with_items
from fedrecon.data.own_text import rows_of_text
from fedrecon.data.own_values import (
    ReadingOptions,
    Rows,
    checked,
    ids_of_series,
    numbers_of_series,
    times_of_series,
)
from fedrecon.data.ratings import Ratings
from fedrecon.data.sources import reading
from fedrecon.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_ratings(
    path: str | os.PathLike,
    *,
    options: ReadingOptions | None = None,
    items_file: str | os.PathLike | None = None,
    keep: bool = True,
    advice: Advice = Advice.FIELDS,
) -> Ratings:
    """Returns the ratings of a file: text with one row a line, or parquet.

    The file may be compressed, as `.gz` or in a `.zip` of its own. Its separator, header, quotes
    and encoding are found out. The ratings are named after the file.

    Args:
      path: The file.
      options: How it is read.
      items_file: A file with the titles of items, and perhaps their genres. Items that it lacks
        have no title.
      keep: Whether the ratings of a large file are kept in the cache folder, as they were read, and
        read from there the next time.
      advice: Who reads messages and notes: they name the options as the reader has to write them.

    Raises:
      DataError: If a file cannot be read, or for the first line that cannot be used.
    """
    options = options or ReadingOptions()
    path = pathlib.Path(path).expanduser()
    name = path.name.partition(".")[0] or path.name

    def read() -> Ratings:
        if ".parquet" in path.suffixes:
            return _of_parquet(path, name, options, advice)
        return _of_text(path, name, options, advice)

    ratings = (
        parsed_cache.read_through(path, name, options, read, advice=advice) if keep else read()
    )
    if items_file is None:
        return ratings
    return with_items(ratings, open_table(items_file))


def _of_text(path: pathlib.Path, name: str, options: ReadingOptions, advice: Advice) -> Ratings:
    rows, notes = rows_of_text(open_table(path), options, advice)

    def place(row: int) -> str:  # The file is read again, and not kept meanwhile.
        return open_table(path).place(row)

    return checked(name, rows, options, place, notes, advice=advice)


def of_dataframe(
    table: pd.DataFrame,
    places: Mapping[str, str | None],
    *,
    name: str,
    options: ReadingOptions,
    name_of_row: Callable[[int], str] = "row {}".format,
    advice: Advice = Advice.ARGUMENTS,
    notes: Sequence[str] = (),
) -> Ratings:
    """Returns the ratings of a data frame; see `Ratings.from_dataframe`.

    Args:
      table: The data frame.
      places: The column of each role; None where there is none.
      name: What to call the data set.
      options: How they are read.
      name_of_row: Says where a row comes from, for messages.
      advice: Who reads messages and notes.
      notes: What was decided before.
    """
    for role, column in places.items():
        if column is not None and column not in table.columns:
            raise DataError(
                f"{name}: there is no column {column!r} for the {role}; the columns are "
                f"{', '.join(map(str, table.columns))}."
            )
    no_ratings = places.get(RATING) is None
    rows = Rows(
        users=ids_of_series(table[places[USER]]),
        items=ids_of_series(table[places[ITEM]]),
        ratings=None if no_ratings else numbers_of_series(table[places[RATING]], name_of_row),
        times=None
        if places.get(TIMESTAMP) is None
        else times_of_series(table[places[TIMESTAMP]], name_of_row, advice),
    )
    options = dataclasses.replace(options, no_ratings=no_ratings)
    return checked(name, rows, options, name_of_row, notes, advice=advice)


def _of_parquet(path: pathlib.Path, name: str, options: ReadingOptions, advice: Advice) -> Ratings:
    import pandas as pd

    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DataError(
            f"{path} is parquet, which needs pyarrow; install it (pip install pyarrow), or write "
            "the file as csv."
        ) from None
    with reading(path):
        table = pd.read_parquet(path)
    if not len(table):
        raise DataError(f"{path} holds no rows.")
    header = [str(column) for column in table.columns]
    sample = table.head(1).astype(str).to_numpy().tolist()
    chosen = columns_lib.choose(
        header,
        sample,
        label=str(path),
        given=options.columns,
        no_ratings=options.no_ratings,
        advice=advice,
    )
    table.columns = header
    return of_dataframe(
        table,
        {role: header[place] for role, place in chosen.places.items()},
        name=name,
        options=options,
        name_of_row=lambda row: f"{path}, row {row + 1}",
        advice=advice,
        notes=chosen.notes,
    )
