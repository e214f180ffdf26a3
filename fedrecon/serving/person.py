"""What a user gives, in whatever form, as rows of items and ratings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon.errors import InputError
from fedrecon.serving.items import Items

if TYPE_CHECKING:
    import pandas as pd

ITEM_COLUMNS = ("item", "item_id", "movieId", "title")
RATING_COLUMNS = ("rating", "score", "stars")


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """What a user gives, as a model knows it.

    Attributes:
      rows: `[n]` int64: the rows of the items, all different.
      ratings: `[n]` float64 in stars; None if only items are given.
      unplaced: What is no item of the model, as it was given.
    """

    rows: np.ndarray
    ratings: np.ndarray | None
    unplaced: tuple[str, ...]

    def unplaced_sentences(self, items: Items) -> list[str]:
        """Returns a sentence for each item that could not be placed, with near titles."""
        return [_sentence(items, name) for name in self.unplaced]


def place(items: Items, given: Any) -> Placed:
    """Returns what a user gives as rows of items.

    Args:
      items: The items of the model.
      given: A mapping of items to ratings; a data frame with a column of items and perhaps one of
        ratings; or items alone. An item is an id or a title.

    Raises:
      InputError: If an item comes twice, a rating is no number, or a column is missing.
    """
    pairs = _pairs(given)
    rows, ratings, unplaced, seen = [], [], [], {}
    for name, rating in pairs:
        row = items.find(name)
        if row is None:
            unplaced.append(str(name))
            continue
        if row in seen:
            raise InputError(
                f"{seen[row]!r} and {str(name)!r} are the same item, {items.name(row)!r}; give it "
                "once."
            )
        seen[row] = str(name)
        rows.append(row)
        ratings.append(rating)
    has_ratings = any(rating is not None for _, rating in pairs)
    return Placed(
        np.array(rows, np.int64),
        _numbers(ratings) if has_ratings else None,
        tuple(unplaced),
    )


def _pairs(given: Any) -> list[tuple[Any, Any]]:
    if hasattr(given, "columns"):
        return _pairs_of_table(given)
    if isinstance(given, Mapping) or hasattr(given, "items"):
        return list(given.items())
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InputError(
            f"{given!r} is no ratings; give a mapping of items to ratings, a data frame, or a list "
            "of items."
        )
    return [(item, None) for item in given]


def _pairs_of_table(table: pd.DataFrame) -> list[tuple[Any, Any]]:
    item = column_of(table.columns, ITEM_COLUMNS)
    if item is None:
        raise InputError(
            f"the columns are {', '.join(map(str, table.columns))}; one must be called "
            f"{' or '.join(ITEM_COLUMNS)}."
        )
    rating = column_of(table.columns, RATING_COLUMNS)
    ratings = [None] * len(table) if rating is None else table[rating].tolist()
    return list(zip(table[item].tolist(), ratings))


def column_of(columns: Iterable[Any], names: tuple[str, ...]) -> Any | None:
    """Returns the first column that has one of some names, whatever the case; or None."""
    by_name = {str(column).casefold().strip(): column for column in columns}
    return next((by_name[name.casefold()] for name in names if name.casefold() in by_name), None)


def _numbers(ratings: list[Any]) -> np.ndarray:
    try:
        return np.array([float(rating) for rating in ratings], np.float64)
    except (TypeError, ValueError):
        wrong = next(rating for rating in ratings if not _is_number(rating))
        raise InputError(f"the rating {wrong!r} is not a number.") from None


def _is_number(rating: Any) -> bool:
    try:
        float(rating)
    except (TypeError, ValueError):
        return False
    return True


def _sentence(items: Items, name: str) -> str:
    near = items.near(name)
    offer = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{name!r} is no item of the model.{offer}"
