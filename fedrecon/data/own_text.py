"""The rows of a text file, read in the fastest way that reads them as they are written.

Ids are text until all are known: if each is a whole number as one writes it, they become numbers,
and else they stay text. So 0151 and 151 are two, and no digit of a long number is lost.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from concurrent import futures
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon.data import columns as columns_lib
from fedrecon.data.advice import Advice
from fedrecon.data.column_names import ITEM, RATING, TIMESTAMP, USER
from fedrecon.data.delimited import TextTable
from fedrecon.data.own_values import (
    WHOLE_NUMBER,
    ReadingOptions,
    Rows,
    numbers_of_series,
    times_of_series,
)
from fedrecon.data.ratings import LARGEST_ID, CodedIds
from fedrecon.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def rows_of_text(
    table: TextTable, options: ReadingOptions, advice: Advice
) -> tuple[Rows, list[str]]:
    """Returns the rows of a file, and what was decided."""
    chosen = columns_lib.choose(
        table.header,
        table.sample,
        label=table.label,
        given=options.columns,
        no_ratings=options.no_ratings,
        advice=advice,
    )
    # From the fastest to the most patient: each reads what it is for, with the same meaning.
    for read in (_read_numbers, _read_typed):
        try:
            rows = read(table, chosen.places, advice)
            break
        except (ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
    else:
        rows = _read_as_text(table, chosen.places, advice)
    return rows, [*table.notes, *chosen.notes]


def _read_numbers(table: TextTable, places: Mapping[str, int], advice: Advice) -> Rows:
    """Returns the rows of a file of plain numbers. Raises `ValueError` for any other file.

    pandas takes 0151 and 151.0 for 151, too. But such a text is longer, so all ids are as they are
    written if the file is as long as its numbers.
    """
    del advice  # Another reader says what is wrong.
    if len(places) < len(table.sample[0]) or not table.has_only(b"0123456789.-"):
        raise ValueError("There are other columns, or other texts.")
    # pandas reads without Python's lock, so each processor reads a part of the file.
    with futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        read = functools.partial(_numbers_of_part, table, places)
        try:
            parts = list(pool.map(read, table.parts()))
        finally:
            pool.shutdown(cancel_futures=True)
    if sum(num_bytes for _, num_bytes in parts) != table.num_bytes():
        raise ValueError("Some numbers are not written plainly.")
    columns = {role: np.concatenate([part[role] for part, _ in parts]) for role in places}
    times = columns.get(TIMESTAMP)
    return Rows(
        users=_coded_if_sparse(columns[USER]),
        items=_coded_if_sparse(columns[ITEM]),
        ratings=columns.get(RATING),
        times=None if times is None else times.astype(np.int64, copy=False),
    )


def _numbers_of_part(
    table: TextTable, places: Mapping[str, int], bounds: tuple[int, int]
) -> tuple[dict[str, np.ndarray], int]:
    """Returns the columns of a part of a file, and how long they are, plainly written."""
    import pandas as pd

    whole = [role for role in places if role != RATING]
    # Ratings are few texts, of which pandas need not make a string for each row.
    part = table.part(bounds, places, {**dict.fromkeys(whole, np.int64), RATING: "category"})
    found = {}
    num_bytes = len(places) * len(part[USER])
    for role in whole:
        numbers = part[role].to_numpy()
        if numbers.dtype != np.int64:  # From 2**63 on pandas reads uint64 all the same.
            raise ValueError("Some numbers do not fit int64.")
        num_bytes += _num_characters(numbers)
        is_small = numbers.min() >= 0 and numbers.max() <= np.iinfo(np.int32).max
        found[role] = numbers.astype(np.int32) if is_small else numbers
    if RATING in places:
        codes, labels = pd.factorize(part[RATING])
        num_bytes += int(np.bincount(codes) @ [len(label) for label in labels])
        try:
            found[RATING] = numbers_of_series(pd.Series(labels), str)[codes]
        except DataError as error:  # Whoever reads with patience says where it stands.
            raise ValueError("Some ratings are no numbers.") from error
    return found, num_bytes


def _num_characters(numbers: np.ndarray) -> int:
    """Returns how many characters whole numbers have together, plainly written."""
    sizes = np.abs(numbers)
    largest, power = int(sizes.max()), 10
    count = len(sizes) + int(np.count_nonzero(numbers < 0))
    while power <= largest:
        count += int(np.count_nonzero(sizes >= power))
        power *= 10
    return count


def _coded_if_sparse(ids: np.ndarray) -> np.ndarray | CodedIds:
    """Returns ids that are too large for a table as codes: sorting 25 million takes seconds."""
    import pandas as pd

    return CodedIds(*pd.factorize(ids)) if ids.max() > len(ids) or ids.min() < 0 else ids


def _place_in(table: TextTable, first: int, row: int) -> str:
    return table.place(first + row)


def _read_typed(table: TextTable, places: Mapping[str, int], advice: Advice) -> Rows:
    """Returns the rows. Raises `ValueError` if some field is no number or empty."""
    dtypes: dict[str, Any] = {RATING: np.float64}
    if TIMESTAMP in places:
        times = [row[places[TIMESTAMP]] for row in table.sample]
        if all(WHOLE_NUMBER.fullmatch(time) for time in times):
            dtypes[TIMESTAMP] = np.int64
    return _read(table, places, dtypes, advice)


def _read_as_text(table: TextTable, places: Mapping[str, int], advice: Advice) -> Rows:
    """Returns the rows. Raises `DataError` for the first field that is not as it should be."""
    return _read(table, places, {}, advice)


def _read(
    table: TextTable, places: Mapping[str, int], dtypes: Mapping[str, Any], advice: Advice
) -> Rows:
    users, items = _Coder(USER, table), _Coder(ITEM, table)
    ratings: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for first, part in table.chunks(places, dtypes):
        place = functools.partial(_place_in, table, first)
        users.add(first, part[USER])
        items.add(first, part[ITEM])
        if RATING in places:
            ratings.append(numbers_of_series(part[RATING], place))
        if TIMESTAMP in places:
            times.append(times_of_series(part[TIMESTAMP], place, advice))
    are_dates = {each.dtype.kind == "M" for each in times}
    if len(are_dates) > 1:
        raise DataError(f"{table.label}: some times are dates and some are numbers; give one kind.")
    return Rows(
        users=users.ids(),
        items=items.ids(),
        ratings=np.concatenate(ratings) if ratings else None,
        times=np.concatenate(times) if times else None,
        has_blanks=users.has_blanks or items.has_blanks,
    )


class _Coder:
    """Numbers the ids of a column, in the order in which they come."""

    def __init__(self, role: str, table: TextTable):
        self.has_blanks = False
        self._role = role
        self._table = table
        self._numbers: dict[str, int] = {}
        self._labels: list[str] = []
        self._codes: list[np.ndarray] = []

    def add(self, first: int, texts: pd.Series) -> None:
        import pandas as pd

        codes, labels = pd.factorize(texts)
        for label in labels:
            if label not in self._numbers:
                self._numbers[label] = self._number(label, first, texts)
        of_label = np.fromiter(map(self._numbers.get, labels), np.int32, len(labels))
        self._codes.append(of_label[codes])

    def _number(self, label: str, first: int, texts: pd.Series) -> int:
        text = label.strip()
        if not text:
            raise DataError(
                f"{self._table.place(first + int(np.argmax(texts == label)))}: expected the id of "
                f"the {self._role}, found nothing; delete the line, or give it an id."
            )
        self.has_blanks = self.has_blanks or text != label
        if text not in self._numbers:
            self._numbers[text] = len(self._labels)
            self._labels.append(text)
        return self._numbers[text]

    def ids(self) -> CodedIds:
        return CodedIds(np.concatenate(self._codes), _numbers_if_whole(self._labels))


def _numbers_if_whole(labels: list[str]) -> np.ndarray:
    """Returns ids as int64 if each is a whole number as one writes it, else as text."""
    if all(map(WHOLE_NUMBER.fullmatch, labels)):
        numbers = list(map(int, labels))
        if min(numbers) >= -LARGEST_ID - 1 and max(numbers) <= LARGEST_ID:
            return np.array(numbers, np.int64)
    return np.array(labels)
