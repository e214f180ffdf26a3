"""Ratings of somebody's own, from a file of any layout or a data frame.

Values are checked here, whatever read them. Ids are text until all are known: if each is a whole
number as one writes it, they become numbers, and else they stay text. So 0151 and 151 are two, and
no digit of a long number is lost.

What was decided or left out is told in `Ratings.notes`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedrecon.data import columns as columns_lib
from fedrecon.data.columns import ITEM, RATING, TIMESTAMP, USER, is_number
from fedrecon.data.delimited import TextTable, open_table
from fedrecon.data.ratings import CodedIds, Ratings, RatingScale, RepeatedPairError
from fedrecon.data.sources import reading
from fedrecon.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

OFF_SCALE = ("refuse", "drop")
DUPLICATES = ("refuse", "latest", "mean")
_INTERACTION_SCALE = RatingScale(0, 1, 1)
_STEPS = (1, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01, 0.001)
_WHOLE = re.compile("0|-?[1-9][0-9]{0,18}")
_LARGEST = np.iinfo(np.int64).max
# Seconds since 1970 have fewer than 12 digits until the year 5138.
_UNITS = {
    "nanoseconds": (1e17, 10**9),
    "microseconds": (1e14, 10**6),
    "milliseconds": (1e11, 10**3),
}
_EMPTY = ("", "NULL", "null", "NA", "N/A", "nan", "NaN", "None", "\\N")


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How ratings are read.

    Attributes:
      columns: The columns by role (see `columns.parse_columns`); None guesses them.
      rating_scale: The ratings that exist; None infers it.
      off_scale: What to do with a rating off the scale, or none; one of `OFF_SCALE`.
      no_ratings: Whether each row is an interaction, with rating 1.
      duplicates: What to do where a user rates an item twice; one of `DUPLICATES`. `"latest"` keeps
        the rating of the latest time (of equal times the highest); `"mean"` takes their mean, on
        the scale.

    Raises:
      InputError: If a choice does not exist.
    """

    columns: Mapping[str, str] | None = None
    rating_scale: RatingScale | Sequence[float] | None = None
    off_scale: str = "refuse"
    no_ratings: bool = False
    duplicates: str = "refuse"

    def __post_init__(self):
        for name, known in (("off_scale", OFF_SCALE), ("duplicates", DUPLICATES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} must be one of {', '.join(known)}; found {getattr(self, name)!r}."
                )
        scale = self.rating_scale
        if scale is not None and not isinstance(scale, RatingScale):
            object.__setattr__(self, "rating_scale", RatingScale(*scale))


class _Rows(NamedTuple):
    """What was read, before its values are checked.

    Attributes:
      users: The user of each row.
      items: The item of each row.
      ratings: `[num_rows]`, float32, NaN where there is none; None without ratings.
      times: `[num_rows]`, int64 or float64 in some unit, or datetime64; None if unknown.
      has_blanks: Whether there were blanks around some ids.
    """

    users: Any
    items: Any
    ratings: np.ndarray | None
    times: np.ndarray | None
    has_blanks: bool = False


def parse_scale(text: str) -> RatingScale:
    """Returns the scale of `min,max,step`. Raises `InputError` for anything else."""
    parts = text.split(",")
    if len(parts) != 3 or not all(map(is_number, parts)):
        raise InputError(f"--rating_scale={text} must be MIN,MAX,STEP, such as 1,5,0.5.")
    return RatingScale(*map(float, parts))


def read_ratings(
    path: str | os.PathLike,
    *,
    options: ReadingOptions | None = None,
    items_file: str | os.PathLike | None = None,
) -> Ratings:
    """Returns the ratings of a file: text with one row a line, or parquet.

    The file may be compressed, as `.gz` or in a `.zip` of its own. Its separator, header, quotes
    and encoding are found out. The ratings are named after the file.

    Args:
      path: The file.
      options: How it is read.
      items_file: A file with the titles of items, and perhaps their genres. Items that it lacks
        have no title.

    Raises:
      DataError: If a file cannot be read, or for the first line that cannot be used.
    """
    options = options or ReadingOptions()
    path = pathlib.Path(path).expanduser()
    name = path.name.partition(".")[0] or path.name
    if ".parquet" in path.suffixes:
        ratings = _of_parquet(path, name, options)
    else:
        rows, notes = _rows_of_text(open_table(path), options)

        def place(row: int) -> str:  # The file is read again, and not kept meanwhile.
            return open_table(path).place(row)

        ratings = _checked(name, rows, options, place, notes, prefix="--")
    if items_file is None:
        return ratings
    return _with_items(ratings, open_table(items_file))


def of_dataframe(
    table: pd.DataFrame,
    places: Mapping[str, str | None],
    *,
    name: str,
    options: ReadingOptions,
    name_of_row: Callable[[int], str] = "row {}".format,
    is_file: bool = False,
    notes: Sequence[str] = (),
) -> Ratings:
    """Returns the ratings of a data frame; see `Ratings.from_dataframe`.

    Args:
      table: The data frame.
      places: The column of each role; None where there is none.
      name: What to call the data set.
      options: How they are read.
      name_of_row: Says where a row comes from, for messages.
      is_file: Whether to advise flags, and not arguments.
      notes: What was decided before.
    """
    for role, column in places.items():
        if column is not None and column not in table.columns:
            raise DataError(
                f"{name}: there is no column {column!r} for the {role}; the columns are "
                f"{', '.join(map(str, table.columns))}."
            )
    no_ratings = places.get(RATING) is None
    rows = _Rows(
        users=_ids_of_series(table[places[USER]]),
        items=_ids_of_series(table[places[ITEM]]),
        ratings=None if no_ratings else _numbers_of_series(table[places[RATING]], name_of_row),
        times=None
        if places.get(TIMESTAMP) is None
        else _times_of_series(table[places[TIMESTAMP]], name_of_row),
    )
    options = dataclasses.replace(options, no_ratings=no_ratings)
    return _checked(name, rows, options, name_of_row, notes, prefix="--" if is_file else "")


# --- files ----------------------------------------------------------------------------------------


def _rows_of_text(table: TextTable, options: ReadingOptions) -> tuple[_Rows, list[str]]:
    """Returns the rows of a file, and what was decided."""
    chosen = columns_lib.choose(
        table.header,
        table.sample,
        label=table.label,
        given=options.columns,
        no_ratings=options.no_ratings,
    )
    # From the fastest to the most patient: each reads what it is for, with the same meaning.
    for read in (_read_numbers, _read_typed):
        try:
            rows = read(table, chosen.places)
            break
        except (ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
    else:
        rows = _read_as_text(table, chosen.places)
    return rows, [*table.notes, *chosen.notes]


def _read_numbers(table: TextTable, places: Mapping[str, int]) -> _Rows:
    """Returns the rows of a file of plain numbers. Raises `ValueError` for any other file.

    pandas takes 0151 and 151.0 for 151, too. But such a text is longer, so all ids are as they are
    written if the file is as long as its numbers.
    """
    if len(places) < len(table.sample[0]) or not table.has_only(b"0123456789.-"):
        raise ValueError("There are other columns, or other texts.")
    import pandas as pd

    whole = [role for role in places if role != RATING]
    found: dict[str, list[np.ndarray]] = {role: [] for role in places}
    num_bytes = 0
    for first, part in table.chunks(places, dict.fromkeys(whole, np.int64)):
        for role in whole:
            numbers = part[role].to_numpy()
            if numbers.dtype != np.int64:  # From 2**63 on pandas reads uint64 all the same.
                raise ValueError("Some numbers do not fit int64.")
            num_bytes += _num_characters(numbers)
            is_small = numbers.min() >= 0 and numbers.max() <= np.iinfo(np.int32).max
            found[role].append(numbers.astype(np.int32) if is_small else numbers)
        if RATING in places:
            codes, labels = pd.factorize(part[RATING].to_numpy())
            num_bytes += int(np.bincount(codes) @ [len(label) for label in labels])
            place = functools.partial(_place_in, table, first)
            found[RATING].append(_numbers_of_series(pd.Series(labels), place)[codes])
        num_bytes += len(places) * len(part)
    if num_bytes != table.num_bytes():
        raise ValueError("Some numbers are not written plainly.")
    columns = {role: np.concatenate(chunks) for role, chunks in found.items()}
    times = columns.get(TIMESTAMP)
    return _Rows(
        users=_coded_if_sparse(columns[USER]),
        items=_coded_if_sparse(columns[ITEM]),
        ratings=columns.get(RATING),
        times=None if times is None else times.astype(np.int64, copy=False),
    )


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


def _read_typed(table: TextTable, places: Mapping[str, int]) -> _Rows:
    """Returns the rows. Raises `ValueError` if some field is no number or empty."""
    dtypes: dict[str, Any] = {RATING: np.float64}
    if TIMESTAMP in places:
        times = [row[places[TIMESTAMP]] for row in table.sample]
        if all(_WHOLE.fullmatch(time) for time in times):
            dtypes[TIMESTAMP] = np.int64
    return _read(table, places, dtypes)


def _read_as_text(table: TextTable, places: Mapping[str, int]) -> _Rows:
    """Returns the rows. Raises `DataError` for the first field that is not as it should be."""
    return _read(table, places, {})


def _read(table: TextTable, places: Mapping[str, int], dtypes: Mapping[str, Any]) -> _Rows:
    users, items = _Coder(USER, table), _Coder(ITEM, table)
    ratings: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for first, part in table.chunks(places, dtypes):
        place = functools.partial(_place_in, table, first)
        users.add(first, part[USER].to_numpy())
        items.add(first, part[ITEM].to_numpy())
        if RATING in places:
            ratings.append(_numbers_of_series(part[RATING], place))
        if TIMESTAMP in places:
            times.append(_times_of_series(part[TIMESTAMP], place))
    are_dates = {each.dtype.kind == "M" for each in times}
    if len(are_dates) > 1:
        raise DataError(f"{table.label}: some times are dates and some are numbers; give one kind.")
    return _Rows(
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

    def add(self, first: int, texts: np.ndarray) -> None:
        import pandas as pd

        codes, labels = pd.factorize(texts)
        for label in labels:
            if label not in self._numbers:
                self._numbers[label] = self._number(label, first, texts)
        of_label = np.fromiter(map(self._numbers.get, labels), np.int32, len(labels))
        self._codes.append(of_label[codes])

    def _number(self, label: str, first: int, texts: np.ndarray) -> int:
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
    if all(map(_WHOLE.fullmatch, labels)):
        numbers = list(map(int, labels))
        if min(numbers) >= -_LARGEST - 1 and max(numbers) <= _LARGEST:
            return np.array(numbers, np.int64)
    return np.array(labels)


def _of_parquet(path: pathlib.Path, name: str, options: ReadingOptions) -> Ratings:
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
        header, sample, label=str(path), given=options.columns, no_ratings=options.no_ratings
    )
    table.columns = header
    return of_dataframe(
        table,
        {role: header[place] for role, place in chosen.places.items()},
        name=name,
        options=options,
        name_of_row=lambda row: f"{path}, row {row + 1}",
        is_file=True,
        notes=chosen.notes,
    )


# --- columns --------------------------------------------------------------------------------------


def _ids_of_series(series: pd.Series) -> Any:
    """Returns ids for `Ratings.from_original_ids`, without a copy of each text of a category."""
    if series.dtype == "category" and not series.isna().any():
        return CodedIds(series.cat.codes.to_numpy(), series.cat.categories.to_numpy())
    return series


def _numbers_of_series(series: pd.Series, name_of_row: Callable[[int], str]) -> np.ndarray:
    """Returns ratings as float32, NaN where there is none."""
    import pandas as pd

    if series.dtype.kind in "iuf":
        return series.to_numpy(np.float32, na_value=np.nan)
    codes, labels = pd.factorize(series.to_numpy(object), use_na_sentinel=True)
    values = np.full(
        len(labels) + 1, np.nan, np.float32
    )  # The last is of a missing one, whose code is -1.
    for code, label in enumerate(labels):
        text = str(label).strip()
        if is_number(text) and not isinstance(label, bool):
            values[code] = float(text)
        elif text not in _EMPTY:
            comma = ", with a point for its comma" if is_number(text.replace(",", ".")) else ""
            raise DataError(
                f"{name_of_row(int(np.argmax(codes == code)))}: expected the rating to be a number"
                f"{comma}, found {label!r}."
            )
    return values[codes]


def _times_of_series(series: pd.Series, name_of_row: Callable[[int], str]) -> np.ndarray:
    """Returns times as int64 or float64 in some unit, or as datetime64."""
    import pandas as pd

    if series.dtype.kind in "iu" and not series.isna().any() and series.max() <= _LARGEST:
        return series.to_numpy(np.int64)
    if series.dtype.kind in "iuf":
        values = series.to_numpy(np.float64, na_value=np.nan)
        is_time = np.isfinite(values)
    elif series.dtype.kind == "M":
        naive = series if getattr(series.dtype, "tz", None) is None else series.dt.tz_convert("UTC")
        values = naive.to_numpy("datetime64[ns]")
        is_time = ~np.isnat(values)
    else:
        texts = series.astype(str).str.strip()
        if is_number(texts.iloc[0]):
            values = pd.to_numeric(texts, errors="coerce").to_numpy()
            is_time = np.isfinite(values)
        else:
            dates = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
            values = dates.to_numpy("datetime64[ns]")
            is_time = ~np.isnat(values)
    if not is_time.all():
        row = int(np.argmin(is_time))
        raise DataError(
            f"{name_of_row(row)}: expected the timestamp to be seconds or milliseconds since 1970, "
            "or a date such as 2001-12-31 or 2001-12-31 23:59:59, all of one kind, found "
            f"{series.iloc[row]!s}; without times, name the other columns alone."
        )
    return values


# --- values ---------------------------------------------------------------------------------------


def _checked(
    name: str,
    rows: _Rows,
    options: ReadingOptions,
    name_of_row: Callable[[int], str],
    notes: Sequence[str],
    *,
    prefix: str,
) -> Ratings:
    """Returns the ratings, or refuses the first row that is not as it should be."""
    notes = list(notes)
    users, items, ratings, times, has_blanks = rows
    if has_blanks:
        notes.append("Blanks around ids are no part of them.")
    if times is not None:
        times = _seconds(times, name_of_row, notes)
    else:
        notes.append("There are no times.")
    if ratings is None:
        count = len(users.codes if isinstance(users, CodedIds) else users)
        ratings, scale = np.ones(count, np.float32), _INTERACTION_SCALE
        notes.append("Each row is an interaction, with rating 1.")
    else:
        scale = options.rating_scale or _inferred(ratings, name, name_of_row, prefix)
        if options.rating_scale is None:
            notes.append(f"Ratings are {scale}, as found; {prefix}rating_scale sets another scale.")
        kept = _on_scale(ratings, scale, options, name_of_row, notes, prefix)
        if kept is not None:
            ratings = ratings[kept]
            users, items = _taken(users, kept), _taken(items, kept)
            times = None if times is None else times[kept]
            name_of_row = _renamed(name_of_row, kept)
    if options.duplicates != "refuse":
        users, items, ratings, times, _ = _merged(
            _Rows(users, items, ratings, times), scale, options, name, name_of_row, notes, prefix
        )
    try:
        return Ratings.from_original_ids(
            name,
            user_ids=users,
            item_ids=items,
            ratings=ratings,
            timestamps=times,
            scale=scale,
            name_of_row=name_of_row,
            notes=notes,
        )
    except RepeatedPairError as error:
        raise RepeatedPairError(
            f"{str(error).rstrip('.')}; {prefix}duplicates=latest keeps the latest rating, "
            f"{prefix}duplicates=mean takes the mean."
        ) from None


def _seconds(times: np.ndarray, name_of_row: Callable[[int], str], notes: list[str]) -> np.ndarray:
    """Returns int64 seconds since 1970; numbers tell their unit by their size."""
    if times.dtype.kind == "M":
        notes.append("Times are dates, in UTC where they name no zone.")
        return times.astype("datetime64[s]").astype(np.int64)
    largest = max(abs(float(times.max(initial=0))), abs(float(times.min(initial=0))))
    for unit, (least, factor) in _UNITS.items():
        if largest >= least:
            # As milliseconds, seconds would be of January 1970, and nobody rated then.
            is_other = (np.abs(times) < least) & (times != 0)
            if is_other.any():
                row, other = int(np.argmax(is_other)), int(np.argmax(np.abs(times)))
                raise DataError(
                    f"{name_of_row(row)}: the timestamp {times[row]} is of another unit than "
                    f"{times[other]} in {name_of_row(other)}; give all of them in one unit."
                )
            notes.append(f"Times are {unit}, by their size; they are kept as whole seconds.")
            return np.floor_divide(times, factor).astype(np.int64)
    if times.dtype.kind == "f":
        if (times != np.floor(times)).any():
            notes.append("Times are kept as whole seconds.")
        return np.floor(times).astype(np.int64)
    return times


def _inferred(
    ratings: np.ndarray, name: str, name_of_row: Callable[[int], str], prefix: str
) -> RatingScale:
    """Returns the smallest scale that the ratings are on."""
    import pandas as pd

    # 0.1 as float32 is more than 0.1; its text is not.
    distinct = np.sort(pd.unique(ratings[~np.isnan(ratings)])).astype(str).astype(np.float64)
    if not np.isfinite(distinct).all():
        row = int(np.argmax(np.isinf(ratings)))
        raise DataError(f"{name_of_row(row)}: expected the rating to be a number, found infinity.")
    if len(distinct) < 2:
        found = f"each rating is {distinct[0]:g}" if len(distinct) else "there is no rating"
        without = f"{prefix}no_ratings" if prefix else "rating=None"
        raise DataError(
            f"{name}: {found}, so the scale cannot be inferred; give {prefix}rating_scale=1,5,1 or "
            f"another scale, or take the rows as interactions ({without})."
        )
    least, second, most = distinct[0], distinct[1], distinct[-1]
    step = next(
        (s for s in _STEPS if RatingScale(least, most, s).contains(distinct).all()),
        float(np.spacing(np.float32(max(abs(least), abs(most))))),
    )
    is_mark = (least == 0 and most > 1) or (least == -1 and second >= 0 and most > 1)
    if is_mark:
        row = int(np.argmax(ratings == least))
        scale, first = f"{prefix}rating_scale=", step if least == 0 else second
        raise DataError(
            f"{name_of_row(row)}: the rating {least:g} may stand for no rating; give "
            f"{scale}{first:g},{most:g},{step:g} and {prefix}off_scale=drop to leave such rows "
            f"out, or {scale}{least:g},{most:g},{step:g} if it is a rating."
        )
    return RatingScale(float(least), float(most), float(step))


def _on_scale(
    ratings: np.ndarray,
    scale: RatingScale,
    options: ReadingOptions,
    name_of_row: Callable[[int], str],
    notes: list[str],
    prefix: str,
) -> np.ndarray | None:
    """Returns the rows whose rating is on the scale; None for all."""
    is_on = scale.contains(ratings)
    if is_on.all():
        return None
    if options.off_scale == "refuse":
        row = int(np.argmin(is_on))
        value = ratings[row]
        found = "there is no rating" if np.isnan(value) else f"the rating {value:g} is not {scale}"
        another = "" if np.isnan(value) else f", or another {prefix}rating_scale=MIN,MAX,STEP"
        raise DataError(
            f"{name_of_row(row)}: {found}; give {prefix}off_scale=drop to leave such rows out"
            f"{another}."
        )
    missing = np.isnan(ratings)
    off = int(np.count_nonzero(~is_on & ~missing))
    if off:
        notes.append(f"Left out: {off:,} of {len(ratings):,} rows whose rating is not {scale}.")
    if missing.any():
        count = np.count_nonzero(missing)
        notes.append(f"Left out: {count:,} of {len(ratings):,} rows without a rating.")
    return np.flatnonzero(is_on)


def _merged(
    rows: _Rows,
    scale: RatingScale,
    options: ReadingOptions,
    name: str,
    name_of_row: Callable[[int], str],
    notes: list[str],
    prefix: str,
) -> _Rows:
    """Returns the rows with one rating for each user and item."""
    import pandas as pd

    users, items = _coded(rows.users), _coded(rows.items)
    pairs = pd.Series(users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items)
    again = np.flatnonzero(pairs.duplicated(keep=False).to_numpy())
    if not again.size:
        return rows
    if options.duplicates == "latest" and rows.times is None:
        raise DataError(
            f"{name} has no times, which {prefix}duplicates=latest needs; give "
            f"{prefix}duplicates=mean."
        )
    table = pd.DataFrame({"pair": pairs.to_numpy()[again], "row": again})
    table["rating"] = rows.ratings[again]
    table["time"] = 0 if rows.times is None else rows.times[again]
    # The last of each pair is the latest; the order of the file plays no part.
    table = table.sort_values(["pair", "time", "rating"], kind="stable")
    last = table.drop_duplicates("pair", keep="last")
    ratings = np.array(rows.ratings, np.float64)
    rule = "the latest is kept"
    if options.duplicates == "mean":
        means = table.groupby("pair")["rating"].mean().loc[last["pair"]].to_numpy(np.float64)
        steps = np.floor((means - scale.minimum) / scale.step + 0.5)
        ratings[last["row"]] = np.minimum(scale.minimum + steps * scale.step, scale.maximum)
        rule = "their mean is taken, on the scale"
    is_kept = np.ones(len(ratings), bool)
    is_kept[again] = False
    is_kept[last["row"]] = True
    kept = np.flatnonzero(is_kept)
    notes.append(
        f"{len(last):,} pairs of user and item come more than once, in {len(again):,} rows; {rule}."
    )
    return _Rows(
        _taken(rows.users, kept),
        _taken(rows.items, kept),
        ratings[kept].astype(np.float32),
        None if rows.times is None else rows.times[kept],
    )


def _coded(ids: Any) -> np.ndarray:
    import pandas as pd

    return ids.codes if isinstance(ids, CodedIds) else pd.factorize(np.asarray(ids))[0]


def _taken(ids: Any, rows: np.ndarray) -> Any:
    if isinstance(ids, CodedIds):
        return CodedIds(ids.codes[rows], ids.labels)
    return np.asarray(ids)[rows]


def _renamed(name_of_row: Callable[[int], str], kept: np.ndarray) -> Callable[[int], str]:
    return lambda row: name_of_row(int(kept[row]))


# --- items ----------------------------------------------------------------------------------------


def _with_items(ratings: Ratings, table: TextTable) -> Ratings:
    """Returns the ratings with the titles and genres of a file; an item may have no line in it."""
    chosen = columns_lib.choose_of_items(table.header, len(table.sample[0]), label=table.label)
    titles: dict[str, str] = {}
    genres: dict[str, tuple[str, ...]] = {}
    num_again = 0
    for _, part in table.chunks(chosen.places, {}):
        ids = part[ITEM].str.strip().tolist()
        no_text = [""] * len(ids)
        of_titles = part.get(columns_lib.TITLE, no_text)
        of_genres = part.get(columns_lib.GENRES, no_text)
        for item, title, listed in zip(ids, of_titles, of_genres):
            num_again += item in titles
            titles.setdefault(item, title.strip())
            genres.setdefault(item, _split_genres(listed))
    names = [str(item) for item in ratings.original_item_ids.tolist()]
    missing = sum(name not in titles for name in names)
    notes = [*chosen.notes]
    if missing:
        notes.append(f"{missing:,} of {len(names):,} items have no line in {table.label}.")
    if num_again:
        notes.append(f"{num_again:,} lines of {table.label} are of an item that came before.")
    has_titles, has_genres = (role in chosen.places for role in ("title", "genres"))
    return dataclasses.replace(
        ratings,
        item_titles=tuple(titles.get(name, "") for name in names) if has_titles else None,
        item_genres=tuple(genres.get(name, ()) for name in names) if has_genres else None,
        notes=(*ratings.notes, *notes),
    )


def _split_genres(text: str) -> tuple[str, ...]:
    separator = "|" if "|" in text else ","
    parts = (part.strip() for part in text.split(separator))
    return tuple(part for part in parts if part and part != "(no genres listed)")
