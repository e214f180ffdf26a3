"""A rating data set in memory, with dense ids."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedrecon.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# A step is a decimal such as 0.1, which is not exact in binary.
_STEP_TOLERANCE = 1e-4
# What is computed stretch by stretch stays in the processor's cache: of 25 million ratings it takes
# 0.2 s to see whether they are on a scale, and 4 s at once.
_STRETCH = 2**16
LARGEST_ID = np.iinfo(np.int64).max


class RepeatedPairError(DataError):
    """A user rates an item twice."""


class CodedIds(NamedTuple):
    """Ids of which most come often: each row has a number, and each number an id.

    Attributes:
      codes: `[num_ratings]`, integers in `[0, num_labels)`.
      labels: `[num_labels]`, ids, int64 or text, all different.
    """

    codes: np.ndarray
    labels: np.ndarray | Sequence[str]


@dataclasses.dataclass(frozen=True)
class RatingScale:
    """The ratings that exist: `minimum`, `minimum + step`, ..., `maximum`, in stars."""

    minimum: float
    maximum: float
    step: float

    def __post_init__(self):
        if not (np.isfinite([self.minimum, self.maximum]).all() and self.minimum < self.maximum):
            raise DataError(f"A rating scale needs minimum < maximum, both finite; found {self}.")
        if not (np.isfinite(self.step) and self.step > 0):
            raise DataError(f"A rating scale needs a step above 0; found {self}.")

    def __str__(self) -> str:
        return f"{self.minimum:g} to {self.maximum:g} in steps of {self.step:g}"

    @property
    def middle(self) -> float:
        """The value half-way between the least and the largest rating."""
        return (self.minimum + self.maximum) / 2

    @property
    def unit(self) -> float:
        """A quarter of the width: one star of 1 to 5, on which the default rates were chosen."""
        return (self.maximum - self.minimum) / 4

    def is_divided_by(self, value: float) -> bool:
        """Whether some ratings that exist are below a value, and others are not."""
        return self.minimum < value <= self.maximum

    def contains(self, ratings: np.ndarray | float) -> np.ndarray:
        """Returns bool, shaped like `ratings`: which of them exist. NaN does not."""
        ratings = np.asarray(ratings)
        if ratings.size <= _STRETCH:
            return self._contains(ratings.astype(np.float64))
        flat = ratings.reshape(-1)
        found = np.empty(flat.shape, bool)
        for start in range(0, len(flat), _STRETCH):
            stretch = slice(start, start + _STRETCH)
            found[stretch] = self._contains(flat[stretch].astype(np.float64))
        return found.reshape(ratings.shape)

    def _contains(self, ratings: np.ndarray) -> np.ndarray:
        # Ratings are float32, whose spacing is coarse beside a small step: 97.73 of 100 by 0.01.
        # And 0.3 as float32 is more than 0.3.
        spacing = float(np.spacing(np.float32(max(abs(self.minimum), abs(self.maximum)))))
        within = (ratings >= self.minimum - spacing) & (ratings <= self.maximum + spacing)
        steps = np.where(within, ratings, self.minimum)
        steps -= self.minimum
        steps /= self.step
        steps -= np.rint(steps)
        return within & (np.abs(steps) < _STEP_TOLERANCE + spacing / self.step)


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings as parallel read-only arrays, one row per rating.

    Rows are kept by user and then by item, in whatever order they are given. So no result can
    depend on the order of lines in a file, and a user's rows are one stretch (`rows_of`).

    Ids are dense and 0-based, in increasing order of the original ids. `select` keeps the id space,
    so a part of a data set may hold no rating of some users or items.

    Attributes:
      name: What to call the data set, such as `"movielens-1m"`.
      user_ids: `[num_ratings]`, int32, in `[0, num_users)`.
      item_ids: `[num_ratings]`, int32, in `[0, num_items)`.
      ratings: `[num_ratings]`, float32, stars on `scale`.
      timestamps: `[num_ratings]`, int64, seconds since 1970; None if unknown.
      num_users: Size of the user id space.
      num_items: Size of the item id space.
      original_user_ids: `[num_users]`, int64 or text, increasing: dense id -> id in the file.
      original_item_ids: `[num_items]`, int64 or text, increasing: dense id -> id in the file.
      item_titles: `[num_items]` by dense item id, `""` for an item without a title; None if all
        are unknown.
      item_genres: `[num_items]` by dense item id, each a tuple of names; None if all are unknown.
      scale: The ratings that exist.
      notes: What was decided and left out when the ratings were read, in sentences.

    Raises:
      DataError: If shapes, ranges or values contradict the above, or a user rates an item twice.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray | None
    num_users: int
    num_items: int
    original_user_ids: np.ndarray
    original_item_ids: np.ndarray
    item_titles: tuple[str, ...] | None
    item_genres: tuple[tuple[str, ...], ...] | None
    scale: RatingScale
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        self._check_array("user_ids", np.int32, (len(self.user_ids),))
        shape = self.user_ids.shape
        self._check_array("item_ids", np.int32, shape)
        self._check_array("ratings", np.float32, shape)
        if self.timestamps is not None:
            self._check_array("timestamps", np.int64, shape)
        for field, number in (
            ("original_user_ids", self.num_users),
            ("original_item_ids", self.num_items),
        ):
            given = np.asarray(getattr(self, field))
            dtype = given.dtype if given.dtype.kind == "U" else np.int64
            self._check_array(field, dtype, (number,))
            ids = getattr(self, field)
            if (ids[1:] <= ids[:-1]).any():
                raise DataError(f"{self.name}: {field} must increase, without repeats.")
        self._check_range("user_ids", self.num_users)
        self._check_range("item_ids", self.num_items)
        _check_on_scale(self.name, self.ratings, self.scale, "row {}".format)
        for field in ("item_titles", "item_genres"):
            values = getattr(self, field)
            if values is not None and len(values) != self.num_items:
                raise DataError(
                    f"{self.name}: {field} has {len(values)} entries for {self.num_items} items."
                )
        order = _order(
            self.user_ids,
            self.item_ids,
            self.original_user_ids,
            self.original_item_ids,
            f"{self.name}, row {{}}".format,
        )
        if order is not None:
            for field in ("user_ids", "item_ids", "ratings", "timestamps"):
                values = getattr(self, field)
                if values is not None:
                    object.__setattr__(self, field, _read_only(values[order]))

    @classmethod
    def from_original_ids(
        cls,
        name: str,
        *,
        user_ids: np.ndarray | CodedIds,
        item_ids: np.ndarray | CodedIds,
        ratings: np.ndarray,
        timestamps: np.ndarray | None,
        scale: RatingScale,
        name_of_row: Callable[[int], str] = "row {}".format,
        notes: Sequence[str] = (),
    ) -> Ratings:
        """Returns the ratings under dense ids, without titles.

        Args:
          name: What to call the data set.
          user_ids: `[num_ratings]`, original ids, whole numbers or text, in any order.
          item_ids: `[num_ratings]`, likewise.
          ratings: `[num_ratings]`, stars on `scale`.
          timestamps: `[num_ratings]`, int64 seconds, or None.
          scale: The ratings that exist.
          name_of_row: Says where a row comes from, for messages.
          notes: See `Ratings.notes`.

        Raises:
          DataError: If there are no ratings, ids are neither whole numbers nor text, or a user
            rates an item twice.
        """
        num_users, num_items = (
            len(ids.codes if isinstance(ids, CodedIds) else ids) for ids in (user_ids, item_ids)
        )
        if not num_users:
            raise DataError(f"{name} holds no ratings.")
        if num_items != num_users:
            raise DataError(
                f"{name}: there are {num_users} user ids and {num_items} item ids; give "
                "one of each for every rating."
            )
        dense_users, original_users = _dense(name, "user", user_ids, name_of_row)
        dense_items, original_items = _dense(name, "item", item_ids, name_of_row)
        columns = [dense_users, dense_items, np.asarray(ratings)]
        columns += [] if timestamps is None else [np.asarray(timestamps)]
        shapes = {column.shape for column in columns}
        # The constructor refuses what is skipped here. The rest is done here, where rows are still
        # as the caller names them.
        if len(shapes) == 1 and columns[2].dtype.kind in "iuf":
            _check_on_scale(name, columns[2], scale, name_of_row)
            order = _order(dense_users, dense_items, original_users, original_items, name_of_row)
            if order is not None:
                columns = [column[order] for column in columns]
                for column in columns:
                    column.flags.writeable = False  # Nobody else has it: no need of a copy.
        return cls(
            name=name,
            user_ids=columns[0],
            item_ids=columns[1],
            ratings=columns[2],
            timestamps=None if timestamps is None else columns[3],
            num_users=len(original_users),
            num_items=len(original_items),
            original_user_ids=original_users,
            original_item_ids=original_items,
            item_titles=None,
            item_genres=None,
            scale=scale,
            notes=tuple(notes),
        )

    @classmethod
    def from_dataframe(
        cls,
        table: pd.DataFrame,
        *,
        user: str,
        item: str,
        rating: str | None = None,
        timestamp: str | None = None,
        name: str = "own",
        rating_scale: RatingScale | tuple[float, float, float] | None = None,
        off_scale: str = "refuse",
        duplicates: str = "refuse",
    ) -> Ratings:
        """Returns the ratings of a data frame, one a row, in any order.

        Args:
          table: The data frame; its index plays no part.
          user: The column of user ids, whole numbers or text; an id is never changed.
          item: The column of item ids, likewise.
          rating: The column of ratings; None makes each row an interaction, with rating 1.
          timestamp: The column of times: seconds, milliseconds, dates or text of these; None if
            they are unknown.
          name: What to call the data set.
          rating_scale: The ratings that exist: minimum, maximum and step. None infers it.
          off_scale: What to do with a rating off the scale, or none: `"refuse"` or `"drop"`.
          duplicates: What to do where a user rates an item twice: `"refuse"`, keep the `"latest"`,
            or take the `"mean"`.

        Raises:
          DataError: If a column is missing, or for the first row that cannot be used.
        """
        from fedrecon.data import own_ratings, own_values  # They import this module.

        return own_ratings.of_dataframe(
            table,
            {"user": user, "item": item, "rating": rating, "timestamp": timestamp},
            name=name,
            options=own_values.ReadingOptions(
                rating_scale=rating_scale, off_scale=off_scale, duplicates=duplicates
            ),
        )

    @property
    def num_ratings(self) -> int:
        """How many ratings there are."""
        return len(self.ratings)

    def pairs(self) -> np.ndarray:
        """Returns `user * num_items + item` of each row, `[num_ratings]`, int64, increasing."""
        return self.user_ids.astype(np.int64) * self.num_items + self.item_ids

    def user_name(self, user: int) -> str:
        """Returns the id that a user has in the file."""
        return str(self.original_user_ids[user])

    def item_name(self, item: int) -> str:
        """Returns the id that an item has in the file."""
        return str(self.original_item_ids[item])

    def item_title(self, item: int) -> str:
        """Returns the title of an item, or its id in the file where it has no title."""
        return (self.item_titles and self.item_titles[item]) or self.item_name(item)

    def dense_user_id(self, original: int | str) -> int:
        """Returns the dense id of an original user id. Raises `DataError` if it is unknown."""
        return self._dense_id("user", self.original_user_ids, original)

    def dense_item_id(self, original: int | str) -> int:
        """Returns the dense id of an original item id. Raises `DataError` if it is unknown."""
        return self._dense_id("item", self.original_item_ids, original)

    def select(self, rows: np.ndarray | Sequence[int]) -> Ratings:
        """Returns some of the ratings, in the same id space.

        Args:
          rows: A bool mask `[num_ratings]`, or distinct positions in `[0, num_ratings)`.

        Raises:
          DataError: If a position comes twice.
          IndexError: If the mask has another length, or a position is out of range.
        """
        rows = np.asarray(rows)
        if rows.size == 0 and rows.dtype != bool:
            rows = rows.astype(np.int64)  # An empty list arrives as float64.
        if rows.dtype != bool and rows.size and rows.min() < 0:
            raise IndexError(f"Row {rows.min()} is outside [0, {self.num_ratings}).")
        return dataclasses.replace(
            self,
            user_ids=self.user_ids[rows],
            item_ids=self.item_ids[rows],
            ratings=self.ratings[rows],
            timestamps=None if self.timestamps is None else self.timestamps[rows],
        )

    def counts(self) -> np.ndarray:
        """Returns how many ratings each user has: `[num_users]`, int64."""
        return np.bincount(self.user_ids, minlength=self.num_users)

    def rows_of(self, user: int) -> np.ndarray:
        """Returns the rows of a user, by item: `[n]`, int64.

        Raises:
          IndexError: If there is no such user.
        """
        if not 0 <= user < self.num_users:
            raise IndexError(f"User {user} is outside [0, {self.num_users}).")
        # Of the dtype of `user_ids`, else NumPy would convert all of these first.
        first, last = np.searchsorted(self.user_ids, np.array([user, user + 1], np.int32))
        return np.arange(first, last)

    def fingerprint(self) -> str:
        """Returns a sha256, in hex, over ids, ratings and timestamps, not names or line order."""
        digest = hashlib.sha256()
        for field in (
            "user_ids",
            "item_ids",
            "ratings",
            "timestamps",
            "original_user_ids",
            "original_item_ids",
        ):
            array = getattr(self, field)
            digest.update(f"{field}:{None if array is None else len(array)};".encode())
            if array is not None and array.dtype.kind == "U":
                digest.update(json.dumps(array.tolist()).encode())
            elif array is not None:
                # Little-endian and contiguous, so that every machine hashes the same bytes.
                digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def _check_array(self, field: str, dtype: type, shape: tuple[int, ...]) -> None:
        given = np.asarray(getattr(self, field))
        dtype = np.dtype(dtype)
        if given.shape != shape:
            raise DataError(f"{self.name}: {field} has shape {given.shape}, expected {shape}.")
        if np.issubdtype(dtype, np.floating) and given.size and given.dtype.kind not in "iuf":
            raise DataError(f"{self.name}: {field} is {given.dtype}, expected numbers.")
        if np.issubdtype(dtype, np.integer) and given.size:
            if not np.issubdtype(given.dtype, np.integer):
                raise DataError(f"{self.name}: {field} is {given.dtype}, expected integers.")
            if given.min() < np.iinfo(dtype).min or given.max() > np.iinfo(dtype).max:
                raise DataError(f"{self.name}: {field} does not fit {np.dtype(dtype)}.")
        # A frozen dataclass is written this way in its own __post_init__.
        object.__setattr__(self, field, _read_only(given.astype(dtype, copy=False)))

    def _check_range(self, field: str, bound: int) -> None:
        ids = getattr(self, field)
        if ids.size and (ids.min() < 0 or ids.max() >= bound):
            raise DataError(
                f"{self.name}: {field} must lie in [0, {bound}); found {ids.min()} to {ids.max()}."
            )

    def _dense_id(self, kind: str, originals: np.ndarray, original: int | str) -> int:
        is_of_kind = isinstance(original, str) == (originals.dtype.kind == "U")
        position = int(np.searchsorted(originals, original)) if is_of_kind else len(originals)
        if position == len(originals) or originals[position] != original:
            raise DataError(
                f"{self.name} has no {kind} {original!r}; it knows {len(originals)} {kind} ids"
                f"{_examples(originals)}."
            )
        return position


def _examples(originals: np.ndarray) -> str:
    """Returns what ids are like: the range of numbers; of sorted text it would help nobody."""
    if not len(originals):
        return ""
    if originals.dtype.kind == "U":
        return f", such as {str(originals[0])!r}"
    return f" ({originals[0]} to {originals[-1]})"


def _read_only(array: np.ndarray) -> np.ndarray:
    """Returns `array` read-only, or a read-only copy if its memory may be written elsewhere."""
    owner = array
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:
        owner = owner.base
    if owner is not None:
        array = array.copy()
        array.flags.writeable = False
    return array


def _check_on_scale(
    name: str, ratings: np.ndarray, scale: RatingScale, name_of_row: Callable[[int], str]
) -> None:
    off_scale = np.flatnonzero(~scale.contains(ratings))
    if off_scale.size:
        row = int(off_scale[0])
        raise DataError(
            f"{name}: rating {ratings[row]:g} in {name_of_row(row)} is not on the scale, {scale}."
        )


def _ids(name: str, kind: str, ids: Any, name_of_row: Callable[[int], str]) -> np.ndarray:
    """Returns ids as int64 or text, `[n]`, each as it is given; anything else is refused."""
    if isinstance(ids, (list, tuple)):
        # As it is: NumPy would make text of [1, "a"], and 1 of [True, 2].
        array = np.fromiter(ids, object, len(ids))
    else:
        array = np.asarray(ids)
    if array.ndim != 1:
        raise DataError(f"{name}: {kind} ids have shape {array.shape}; give one row of them.")
    if array.dtype.kind == "O":
        array = _ids_of_objects(name, kind, array, name_of_row)
    if array.dtype.kind == "U":
        if (array == "").any():
            row = int(np.argmax(array == ""))
            raise DataError(f"{name}: {name_of_row(row)} has an empty {kind} id.")
        return array
    is_large = array.dtype.kind == "u" and array.max(initial=0) > LARGEST_ID
    if array.dtype.kind not in "iu" or is_large:
        # The example is the row at fault, if one is: 1.0 came by a gap elsewhere in the column.
        is_whole = np.ones(1, bool)
        if array.dtype.kind == "f":
            is_whole = (array == np.trunc(array)) & np.isfinite(array)
        row = int(np.argmax(array) if is_large else np.argmin(is_whole))
        example = f", such as {array[row]!s} in {name_of_row(row)}" if len(array) else ""
        raise DataError(
            f"{name}: {kind} ids are {array.dtype}{example}; give whole numbers that fit int64, or "
            "text."
        )
    return array.astype(np.int64, copy=False)


def _ids_of_objects(
    name: str, kind: str, array: np.ndarray, name_of_row: Callable[[int], str]
) -> np.ndarray:
    """Returns Python's or NumPy's numbers, or text, as an array of int64 or of text."""
    is_text = np.fromiter((isinstance(value, str) for value in array), bool, len(array))
    if len(array) and is_text.all():
        return array.astype(str)
    # A bool is an int to Python, and none to a person.
    is_number = np.fromiter(
        (isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in array),
        bool,
        len(array),
    )
    if not is_number.all():
        row = int(np.argmin(is_text if is_text[0] else is_number))
        raise DataError(
            f"{name}: {name_of_row(row)} has the {kind} id {array[row]!r}; {kind} ids must be all "
            "whole numbers or all text."
        )
    for row, value in enumerate(map(int, array)):
        if not -LARGEST_ID - 1 <= value <= LARGEST_ID:
            raise DataError(
                f"{name}: {name_of_row(row)} has the {kind} id {value}, which does not fit int64; "
                f"give {kind} ids as text."
            )
    return array.astype(np.int64)


def _dense(
    name: str, kind: str, ids: Any, name_of_row: Callable[[int], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns dense ids int32 `[n]`, and the increasing original ids `[num_distinct]`."""
    if not isinstance(ids, CodedIds):
        return _dense_ids(_ids(name, kind, ids, name_of_row))
    codes = ids.codes
    present = np.flatnonzero(np.bincount(codes, minlength=len(ids.labels)))
    labels = np.asarray(ids.labels)[present]
    of_label, originals = _dense_ids(
        _ids(name, kind, labels, lambda row: name_of_row(int(np.argmax(codes == present[row]))))
    )
    dense = np.zeros(len(ids.labels), np.int32)
    dense[present] = of_label
    return dense[codes], originals


def _dense_ids(originals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns dense ids int32 `[n]`, and the increasing original ids `[num_distinct]`."""
    if originals.dtype.kind == "U":
        distinct, dense = np.unique(originals, return_inverse=True)
        return dense.astype(np.int32), distinct
    low, high = originals.min(), originals.max()
    if low < 0 or high > 4 * len(originals) + 1_000_000:
        distinct, dense = np.unique(originals, return_inverse=True)
        return dense.astype(np.int32), distinct
    # Ids are usually small: marking them in a table takes a tenth of the time of sorting them.
    present = np.zeros(high + 1, bool)
    present[originals] = True
    return (np.cumsum(present, dtype=np.int32) - 1)[originals], np.flatnonzero(present)


def _order(
    users: np.ndarray,
    items: np.ndarray,
    user_names: np.ndarray,
    item_names: np.ndarray,
    name_of_row: Callable[[int], str],
) -> np.ndarray | None:
    """Returns the rows by user and item, `[n]`, int64, or None if they are in this order.

    Raises:
      RepeatedPairError: For the first row whose (user, item) came before.
    """
    # Without int64, which takes three times as long; published files are in this order.
    if ((users[1:] > users[:-1]) | ((users[1:] == users[:-1]) & (items[1:] > items[:-1]))).all():
        return None
    pairs = users.astype(np.int64) * len(item_names) + items
    bits = len(pairs).bit_length()
    if pairs.max() < 2 ** (63 - bits):
        # With its row behind each pair, numbers are sorted: four times as fast as argsort.
        pairs <<= bits
        pairs |= np.arange(len(pairs))
        pairs.sort()
        order = pairs & (2**bits - 1)
        pairs >>= bits
    else:
        order = np.argsort(pairs, kind="stable")
        pairs = pairs[order]
    again = np.flatnonzero(pairs[1:] == pairs[:-1])
    if again.size:
        place = again[np.argmin(order[again + 1])]
        first, second = (int(row) for row in order[place : place + 2])
        raise RepeatedPairError(
            f"{name_of_row(second)}: user {user_names[users[second]]} rates item "
            f"{item_names[items[second]]} again, after {name_of_row(first)}; expected one rating "
            "per user and item."
        )
    return order
