"""A rating data set in memory, with dense ids."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from fedrecon.errors import DataError

# A step is a decimal such as 0.5, and ratings are float32: neither is exact beyond this.
_STEP_TOLERANCE = 1e-4


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

    def contains(self, ratings: np.ndarray | float) -> np.ndarray:
        """Returns bool, shaped like `ratings`: which of them exist. NaN does not."""
        ratings = np.asarray(ratings, np.float64)
        within = (ratings >= self.minimum) & (ratings <= self.maximum)
        steps = (np.where(within, ratings, self.minimum) - self.minimum) / self.step
        return within & (np.abs(steps - np.rint(steps)) < _STEP_TOLERANCE)


@dataclasses.dataclass(frozen=True, eq=False)
class UserRows:
    """The rows of each user: of user `u`, `rows[offsets[u]:offsets[u + 1]]`, in file order.

    Attributes:
      offsets: `[num_users + 1]`, int64.
      rows: `[num_ratings]`, int64, positions in the arrays of the `Ratings`.
    """

    offsets: np.ndarray
    rows: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """`[num_users]`, int64: how many ratings each user has."""
        return np.diff(self.offsets)

    def rows_of(self, user: int) -> np.ndarray:
        """`[counts[user]]`, int64. Raises `IndexError` for a user outside `[0, num_users)`."""
        if not 0 <= user < len(self.offsets) - 1:
            raise IndexError(f"User {user} is outside [0, {len(self.offsets) - 1}).")
        return self.rows[self.offsets[user] : self.offsets[user + 1]]


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings as parallel read-only arrays, one row per rating, rows in file order.

    Ids are dense and 0-based, in increasing order of the original ids. `select` keeps the id space,
    so a part of a data set may hold no rating of some users or items. That no user rates an item
    twice is checked where data enters (`from_original_ids`), not here.

    Attributes:
      name: What to call the data set, such as `"movielens-1m"`.
      user_ids: `[num_ratings]`, int32, in `[0, num_users)`.
      item_ids: `[num_ratings]`, int32, in `[0, num_items)`.
      ratings: `[num_ratings]`, float32, stars on `scale`.
      timestamps: `[num_ratings]`, int64, seconds since 1970; None if unknown.
      num_users: Size of the user id space.
      num_items: Size of the item id space.
      original_user_ids: `[num_users]`, int64, increasing: dense id -> id in the file.
      original_item_ids: `[num_items]`, int64, increasing: dense id -> id in the file.
      item_titles: `[num_items]` by dense item id; None if unknown.
      item_genres: `[num_items]` by dense item id, each a tuple of names; None if unknown.
      scale: The ratings that exist.

    Raises:
      DataError: If shapes, ranges or values contradict the above.
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

    def __post_init__(self):
        self._check_array("user_ids", np.int32, (len(self.user_ids),))
        shape = self.user_ids.shape
        self._check_array("item_ids", np.int32, shape)
        self._check_array("ratings", np.float32, shape)
        if self.timestamps is not None:
            self._check_array("timestamps", np.int64, shape)
        self._check_array("original_user_ids", np.int64, (self.num_users,))
        self._check_array("original_item_ids", np.int64, (self.num_items,))
        self._check_range("user_ids", self.num_users)
        self._check_range("item_ids", self.num_items)
        for field in ("original_user_ids", "original_item_ids"):
            if (np.diff(getattr(self, field)) <= 0).any():
                raise DataError(f"{self.name}: {field} must increase, without repeats.")
        off_scale = np.flatnonzero(~self.scale.contains(self.ratings))
        if off_scale.size:
            row = off_scale[0]
            raise DataError(
                f"{self.name}: rating {self.ratings[row]:g} in row {row} is not on the scale, "
                f"{self.scale}."
            )
        for field in ("item_titles", "item_genres"):
            values = getattr(self, field)
            if values is not None and len(values) != self.num_items:
                raise DataError(
                    f"{self.name}: {field} has {len(values)} entries for {self.num_items} items."
                )

    @classmethod
    def from_original_ids(
        cls,
        name: str,
        *,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        ratings: np.ndarray,
        timestamps: np.ndarray | None,
        scale: RatingScale,
        name_of_row: Callable[[int], str] = "row {}".format,
    ) -> Ratings:
        """Returns the ratings under dense ids, without titles.

        Args:
          name: What to call the data set.
          user_ids: `[num_ratings]`, int64, original ids, `>= 0`, in any order.
          item_ids: `[num_ratings]`, int64, original ids, `>= 0`, in any order.
          ratings: `[num_ratings]`, stars on `scale`.
          timestamps: `[num_ratings]`, int64 seconds, or None.
          scale: The ratings that exist.
          name_of_row: Says where a row comes from, for messages.

        Raises:
          DataError: If there are no ratings, or a user rates an item twice.
        """
        if not len(user_ids):
            raise DataError(f"{name} holds no ratings.")
        dense_users, original_users = _dense_ids(np.asarray(user_ids, np.int64))
        dense_items, original_items = _dense_ids(np.asarray(item_ids, np.int64))
        result = cls(
            name=name,
            user_ids=dense_users,
            item_ids=dense_items,
            ratings=ratings,
            timestamps=timestamps,
            num_users=len(original_users),
            num_items=len(original_items),
            original_user_ids=original_users,
            original_item_ids=original_items,
            item_titles=None,
            item_genres=None,
            scale=scale,
        )
        repeated = _first_repeated_pair(result)
        if repeated is not None:
            first, second = repeated
            raise DataError(
                f"{name_of_row(second)}: user {user_ids[second]} rates item {item_ids[second]} "
                f"again, after {name_of_row(first)}; expected one rating per user and item."
            )
        return result

    @property
    def num_ratings(self) -> int:
        """How many ratings there are."""
        return len(self.ratings)

    def dense_user_id(self, original: int) -> int:
        """Returns the dense id of an original user id. Raises `DataError` if it is unknown."""
        return self._dense_id("user", self.original_user_ids, original)

    def dense_item_id(self, original: int) -> int:
        """Returns the dense id of an original item id. Raises `DataError` if it is unknown."""
        return self._dense_id("item", self.original_item_ids, original)

    def select(self, rows: np.ndarray | Sequence[int]) -> Ratings:
        """Returns some of the ratings, in the given order, in the same id space.

        Args:
          rows: A bool mask `[num_ratings]`, or positions in `[0, num_ratings)`.

        Raises:
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

    def rows_by_user(self) -> UserRows:
        """Returns which rows belong to which user."""
        counts = np.bincount(self.user_ids, minlength=self.num_users)
        return UserRows(
            offsets=_read_only(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)),
            rows=_read_only(np.argsort(self.user_ids, kind="stable").astype(np.int64)),
        )

    def fingerprint(self) -> str:
        """Returns a sha256, in hex, over ids, ratings, timestamps and counts, not names."""
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
            if array is not None:
                # Little-endian and contiguous, so that every machine hashes the same bytes.
                digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def _check_array(self, field: str, dtype: type, shape: tuple[int, ...]) -> None:
        given = np.asarray(getattr(self, field))
        if given.shape != shape:
            raise DataError(f"{self.name}: {field} has shape {given.shape}, expected {shape}.")
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

    def _dense_id(self, kind: str, originals: np.ndarray, original: int) -> int:
        position = int(np.searchsorted(originals, original))
        if position == len(originals) or originals[position] != original:
            known = f"{originals[0]} to {originals[-1]}" if len(originals) else "none"
            raise DataError(
                f"{self.name} has no {kind} {original}; it knows {len(originals)} {kind} ids "
                f"({known})."
            )
        return position


def _read_only(array: np.ndarray) -> np.ndarray:
    """Returns `array` read-only, or a read-only copy if its memory may be written elsewhere."""
    owner = array
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:
        owner = owner.base
    if owner is not None:
        array = array.copy()
        array.flags.writeable = False
    return array


def _dense_ids(originals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns dense ids int32 `[n]`, and the increasing original ids int64 `[num_distinct]`."""
    low, high = originals.min(), originals.max()
    if low < 0 or high > 4 * len(originals) + 1_000_000:
        distinct, dense = np.unique(originals, return_inverse=True)
        return dense.astype(np.int32), distinct
    # Ids are usually small: marking them in a table takes a tenth of the time of sorting them.
    present = np.zeros(high + 1, bool)
    present[originals] = True
    return (np.cumsum(present, dtype=np.int32) - 1)[originals], np.flatnonzero(present)


def _first_repeated_pair(ratings: Ratings) -> tuple[int, int] | None:
    """Returns the first row whose (user, item) came before, preceded by the row where it came."""
    pairs = ratings.user_ids.astype(np.int64) * ratings.num_items + ratings.item_ids
    ordered = np.sort(pairs)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.argsort(pairs, kind="stable")
    again = np.flatnonzero(pairs[order][1:] == pairs[order][:-1])
    position = again[np.argmin(order[again + 1])]
    return int(order[position]), int(order[position + 1])
