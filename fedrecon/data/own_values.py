"""From the columns of somebody's own ratings to checked ratings, whatever read them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedrecon.data.advice import Advice
from fedrecon.data.column_names import ROLES, TIMESTAMP
from fedrecon.data.columns import is_number
from fedrecon.data.ratings import (
    LARGEST_ID,
    CodedIds,
    Ratings,
    RatingScale,
    RepeatedPairError,
)
from fedrecon.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

OFF_SCALE = ("refuse", "drop")
DUPLICATES = ("refuse", "latest", "mean")
_INTERACTION_SCALE = RatingScale(0, 1, 1)
_STEPS = (1, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01, 0.001)
WHOLE_NUMBER = re.compile("0|-?[1-9][0-9]{0,18}")
# Seconds since 1970 have fewer than 12 digits until the year 5138.
_UNITS = {
    "nanoseconds": (1e17, 10**9),
    "microseconds": (1e14, 10**6),
    "milliseconds": (1e11, 10**3),
}
_TRUTH = {"true": 1, "false": 0}
_EMPTY = ("", "NULL", "null", "NA", "N/A", "nan", "NaN", "None", "\\N")


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How ratings are read.

    Attributes:
      columns: The columns by role, `user`, `item`, `rating` and `timestamp`: a name of the header
        or a number from 1, as text. The roles that are not there are found out; a `timestamp` of
        None stands for no times.
      rating_scale: The ratings that exist; None infers it.
      off_scale: What to do with a rating off the scale, or none; one of `OFF_SCALE`.
      no_ratings: Whether each row is an interaction, with rating 1.
      duplicates: What to do where a user rates an item twice; one of `DUPLICATES`. `"latest"` keeps
        the rating of the latest time (of equal times the highest); `"mean"` takes their mean, on
        the scale.

    Raises:
      InputError: If a choice does not exist.
    """

    columns: Mapping[str, str | None] | None = None
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
        for role, column in (self.columns or {}).items():
            if role not in ROLES or not (isinstance(column, str) or role == TIMESTAMP):
                raise InputError(
                    f"columns has {role!r}: {column!r}; give some of {', '.join(ROLES)}, each with "
                    "a name of the header or a number from 1, as text."
                )
        scale = self.rating_scale
        if scale is not None and not isinstance(scale, RatingScale):
            object.__setattr__(self, "rating_scale", RatingScale(*scale))


class Rows(NamedTuple):
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


# --- columns --------------------------------------------------------------------------------------


def ids_of_series(series: pd.Series) -> Any:
    """Returns ids for `Ratings.from_original_ids`, without a copy of each text of a category."""
    if series.dtype == "category" and not series.isna().any():
        return CodedIds(series.cat.codes.to_numpy(), series.cat.categories.to_numpy())
    return series


def numbers_of_series(series: pd.Series, name_of_row: Callable[[int], str]) -> np.ndarray:
    """Returns ratings as float32, NaN where there is none."""
    import pandas as pd

    if series.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            return series.to_numpy(np.float32, na_value=np.nan)
    if series.dtype != "category":
        series = series.to_numpy(object)
    codes, labels = pd.factorize(series, use_na_sentinel=True)
    # The last is of a missing one, whose code is -1.
    values = np.full(len(labels) + 1, np.nan, np.float32)
    for code, label in enumerate(labels):
        text = str(label).strip()
        if is_number(text):
            with np.errstate(over="ignore"):  # What is too large is infinite, and refused.
                values[code] = float(text)
        elif text.lower() in _TRUTH:  # pandas takes them for numbers, too.
            values[code] = _TRUTH[text.lower()]
        elif text not in _EMPTY:
            comma = ", with a point for its comma" if is_number(text.replace(",", ".")) else ""
            raise DataError(
                f"{name_of_row(int(np.argmax(codes == code)))}: expected the rating to be a number"
                f"{comma}, found {label!r}."
            )
    return values[codes]


def times_of_series(
    series: pd.Series, name_of_row: Callable[[int], str], advice: Advice
) -> np.ndarray:
    """Returns times as int64 or float64 in some unit, or as datetime64."""
    import pandas as pd

    if series.dtype.kind in "iu" and not series.isna().any() and series.max() <= LARGEST_ID:
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
        found = series.iloc[row]
        raise DataError(
            f"{name_of_row(row)}: expected the timestamp to be seconds or milliseconds since 1970, "
            "or a date such as 2001-12-31 or 2001-12-31 23:59:59, all of one kind, found "
            f"{repr(found) if isinstance(found, str) else found}; give {advice.no_times()} to do "
            "without times."
        )
    return values


# --- values ---------------------------------------------------------------------------------------


def checked(
    name: str,
    rows: Rows,
    options: ReadingOptions,
    name_of_row: Callable[[int], str],
    notes: Sequence[str],
    *,
    advice: Advice,
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
        scale = options.rating_scale
        if scale is None:
            distinct = _distinct(ratings, name_of_row)
            scale = _inferred(distinct, ratings, name, name_of_row, advice)
            option = advice.called("rating_scale")
            notes.append(f"Ratings are {scale}, as found; {option} sets another scale.")
            notes += _stray_ends(distinct, ratings, advice)
        kept = _on_scale(name, ratings, scale, options, name_of_row, notes, advice)
        if kept is not None:
            ratings = ratings[kept]
            users, items = _taken(users, kept), _taken(items, kept)
            times = None if times is None else times[kept]
            name_of_row = _renamed(name_of_row, kept)
    if options.duplicates != "refuse":
        users, items, ratings, times, _ = _merged(
            Rows(users, items, ratings, times), scale, options, name, name_of_row, notes, advice
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
        latest, mean = (advice.give(duplicates=rule) for rule in ("latest", "mean"))
        raise RepeatedPairError(
            f"{str(error).rstrip('.')}; {latest} keeps the latest rating, {mean} takes the mean."
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


def _distinct(ratings: np.ndarray, name_of_row: Callable[[int], str]) -> np.ndarray:
    """Returns the ratings that come, increasing, float64; NaN is none."""
    import pandas as pd

    # 0.1 as float32 is more than 0.1; its text is not.
    distinct = np.sort(pd.unique(ratings[~np.isnan(ratings)])).astype(str).astype(np.float64)
    if not np.isfinite(distinct).all():
        row = int(np.argmax(np.isinf(ratings)))
        raise DataError(f"{name_of_row(row)}: expected the rating to be a number, found infinity.")
    return distinct


def _inferred(
    distinct: np.ndarray,
    ratings: np.ndarray,
    name: str,
    name_of_row: Callable[[int], str],
    advice: Advice,
) -> RatingScale:
    """Returns the smallest scale that the ratings are on."""
    if len(distinct) < 2:
        found = f"each rating is {distinct[0]:g}" if len(distinct) else "there is no rating"
        raise DataError(
            f"{name}: {found}, so the scale cannot be inferred; give "
            f"{advice.give(rating_scale=(1, 5, 1))} or another scale, or take the rows as "
            f"interactions ({advice.no_ratings()})."
        )
    least, second, most = distinct[0], distinct[1], distinct[-1]
    step = next(
        (s for s in _STEPS if RatingScale(least, most, s).contains(distinct).all()),
        float(np.spacing(np.float32(max(abs(least), abs(most))))),
    )
    is_mark = (least == 0 and most > 1) or (least == -1 and second >= 0 and most > 1)
    if is_mark:
        row = int(np.argmax(ratings == least))
        without = advice.give(rating_scale=(min(step, second), most, step), off_scale="drop")
        raise DataError(
            f"{name_of_row(row)}: the rating {least:g} may stand for no rating; give {without} to "
            f"leave such rows out, or {advice.give(rating_scale=(least, most, step))} if it is a "
            "rating."
        )
    return RatingScale(float(least), float(most), float(step))


def _stray_ends(distinct: np.ndarray, ratings: np.ndarray, advice: Advice) -> list[str]:
    """Returns a sentence for each end of the scale that only a few far ratings make."""
    if len(distinct) < 3:
        return []
    told = []
    for end, next_to, side in ((-1, -2, "above"), (0, 1, "below")):
        if abs(distinct[end] - distinct[next_to]) <= (distinct[-1] - distinct[0]) / 4:
            continue
        count = int(np.count_nonzero(ratings == ratings.dtype.type(distinct[end])))
        if count <= max(1, len(ratings) // 1000):
            told.append(
                f"Only {count:,} of {len(ratings):,} ratings {'is' if count == 1 else 'are'} "
                f"{side} {distinct[next_to]:g}: {distinct[end]:g}. If that is a mistake, give "
                f"{advice.called('rating_scale')} and {advice.give(off_scale='drop')}."
            )
    return told


def _on_scale(
    name: str,
    ratings: np.ndarray,
    scale: RatingScale,
    options: ReadingOptions,
    name_of_row: Callable[[int], str],
    notes: list[str],
    advice: Advice,
) -> np.ndarray | None:
    """Returns the rows whose rating is on the scale; None for all."""
    is_on = scale.contains(ratings)
    if is_on.all():
        return None
    if options.off_scale == "refuse":
        row = int(np.argmin(is_on))
        value = ratings[row]
        found = "there is no rating" if np.isnan(value) else f"the rating {value:g} is not {scale}"
        another = "" if np.isnan(value) else f", or another {advice.called('rating_scale')}"
        raise DataError(
            f"{name_of_row(row)}: {found}; give {advice.give(off_scale='drop')} to leave such rows "
            f"out{another}."
        )
    if not is_on.any():
        raise DataError(f"{name}: none of the {len(ratings):,} rows has a rating of {scale}.")
    missing = np.isnan(ratings)
    off = int(np.count_nonzero(~is_on & ~missing))
    if off:
        notes.append(f"Left out: {off:,} of {len(ratings):,} rows whose rating is not {scale}.")
    if missing.any():
        count = np.count_nonzero(missing)
        notes.append(f"Left out: {count:,} of {len(ratings):,} rows without a rating.")
    return np.flatnonzero(is_on)


def _merged(
    rows: Rows,
    scale: RatingScale,
    options: ReadingOptions,
    name: str,
    name_of_row: Callable[[int], str],
    notes: list[str],
    advice: Advice,
) -> Rows:
    """Returns the rows with one rating for each user and item."""
    import pandas as pd

    users, items = _coded(rows.users), _coded(rows.items)
    pairs = pd.Series(users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items)
    again = np.flatnonzero(pairs.duplicated(keep=False).to_numpy())
    if not again.size:
        return rows
    if options.duplicates == "latest" and rows.times is None:
        raise DataError(
            f"{name} has no times, which {advice.give(duplicates='latest')} needs; give "
            f"{advice.give(duplicates='mean')}."
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
    return Rows(
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
