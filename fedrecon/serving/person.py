"""What a user gives, in whatever form, as rows of items and ratings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon.data.column_names import ITEM, RATING, USER
from fedrecon.data.columns import choose_of_frame
from fedrecon.errors import InputError
from fedrecon.serving.items import Items

if TYPE_CHECKING:
    import pandas as pd


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

    def unplaced_sentences(self, items: Items, *, most: int = 3) -> list[str]:
        """Returns a sentence for each item that could not be placed, with near names."""
        return [items.refusal(name) for name in self.unplaced[:most]]


def place(items: Items, given: Any, *, takes_ratings: bool = True) -> Placed:
    """Returns what a user gives as rows of items.

    Args:
      items: The items of the model.
      given: A mapping of items to ratings; a data frame of one user with a column of items and
        perhaps one of ratings; or items alone. An item is an id or a title.
      takes_ratings: Whether ratings count; otherwise only the items do.

    Raises:
      InputError: If nothing is given, an item comes twice, a rating is missing or no number, a
        column is missing, or a data frame has several users.
    """
    pairs = _pairs(given)
    if not pairs:
        raise InputError("no item is given; `popular` needs none.")
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
    has_ratings = takes_ratings and any(rating is not None for _, rating in pairs)
    names = [seen[row] for row in rows]
    return Placed(
        np.array(rows, np.int64),
        np.array(list(map(_number, names, ratings)), np.float64) if has_ratings else None,
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
    columns = choose_of_frame(table.columns)
    if ITEM not in columns:
        raise InputError(
            f"the columns are {', '.join(map(str, table.columns))}, and none is known as the item; "
            f"call it {ITEM}."
        )
    user = columns.get(USER)
    if user is not None and table[user].nunique(dropna=False) > 1:
        raise InputError(
            f"the column {user} has {table[user].nunique(dropna=False)} users, and one is served; "
            "`recommend_many` serves many."
        )
    ratings = table[columns[RATING]].tolist() if RATING in columns else [None] * len(table)
    return list(zip(table[columns[ITEM]].tolist(), ratings))


def _number(name: str, rating: Any) -> float:
    try:
        number = float(rating)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number):
        return number
    is_missing = str(rating) in ("", "None", "nan", "<NA>")
    found = "no rating" if is_missing else f"the rating {rating!r}, which is no number"
    raise InputError(f"{name!r} has {found}; give each item a number of stars.")
