"""The items that a model knows: their ids, titles, genres, and how many ratings each has."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Sequence

import numpy as np

from fedrecon.data.ratings import Ratings
from fedrecon.errors import InputError
from fedrecon.serving.names import NUM_OFFERED, Names, refusal

_COLUMNS = ("row", "item_id", "title", "genres", "num_ratings")


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """The items of a model, by row of its item table.

    Attributes:
      ids: `[num_items]`, int64 or text: the ids that the items have in the data.
      titles: `[num_items]`, "" for an item without a title.
      genres: `[num_items]`, each a tuple of names.
      num_ratings: `[num_items]`, int64: how many training ratings each has.
    """

    ids: np.ndarray
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    num_ratings: np.ndarray

    @classmethod
    def of_ratings(cls, ratings: Ratings, num_ratings: np.ndarray) -> Items:
        """Returns the items of a data set.

        Args:
          ratings: The data set.
          num_ratings: `[num_items]`: how many of its ratings took part in training.
        """
        number = ratings.num_items
        return cls(
            ids=ratings.original_item_ids,
            titles=ratings.item_titles or ("",) * number,
            genres=ratings.item_genres or ((),) * number,
            num_ratings=np.asarray(num_ratings, np.int64),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> str:
        """Returns the title of an item, or its id where it has none."""
        return self.titles[row] or str(self.ids[row])

    def find(self, item: object) -> int | None:
        """Returns the row of an item, or None if there is no such item.

        Args:
          item: Its id, as a number or as text, or its title, whatever the case of the letters. An
            id or a title that is written exactly so goes before others; a name that two items share
            finds none.
        """
        text = _text(item)
        for spelled in (text, text.strip()):
            if spelled in self._row_of_id:
                return self._row_of_id[spelled]
        rows = self._names.find(text)
        return rows[0] if len(rows) == 1 else None

    def near(self, text: str) -> list[str]:
        """Returns the few items that somebody may have meant, the likeliest first: ids and titles.

        Args:
          text: What was not found.
        """
        rows = self._names.find(text) or self._names.near(text)
        return [self._offer(row) for row in rows[:NUM_OFFERED]]

    def refusal(self, item: object) -> str:
        """Returns why an item is not found, in sentences; near ones are offered."""
        text = _text(item)
        return refusal(
            text,
            self._names,
            kind="item",
            unknown=f"{text!r} is no item of the model",
            offer=self._offer,
        )

    def _offer(self, row: int) -> str:
        title, item = self.titles[row], self.ids[row]
        return repr(str(item)) if title in ("", str(item)) else f"{title!r} ({item})"

    @functools.cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {str(item): row for row, item in enumerate(self.ids.tolist())}

    @functools.cached_property
    def _names(self) -> Names:
        """Titles and ids that are text; nobody writes a number almost right."""
        rows = np.argsort(-self.num_ratings, kind="stable").tolist()
        named = [(self.titles[row], row) for row in rows if self.titles[row]]
        if self.ids.dtype.kind == "U":
            named += [(str(self.ids[row]), row) for row in rows]
        return Names(named)

    def to_csv(self) -> str:
        """Returns a table with a header, one line an item, in the order of the rows."""
        text = io.StringIO(newline="")
        # Else a title with a carriage return in it would end the line.
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(_COLUMNS)
        for row, item in enumerate(self.ids.tolist()):
            genres = "|".join(self.genres[row])
            writer.writerow((row, item, self.titles[row], genres, int(self.num_ratings[row])))
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str, *, ids_are_text: bool, label: str) -> Items:
        """Returns what `to_csv` wrote.

        Args:
          text: The table.
          ids_are_text: Whether ids are text, or numbers.
          label: What to call the table in messages.

        Raises:
          InputError: If it is no such table.
        """
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))
            if not rows or tuple(rows[0]) != _COLUMNS:
                raise InputError(f"{label} must have the columns {', '.join(_COLUMNS)}.")
            _, ids, titles, genres, counts = zip(*_checked(rows[1:]))
            numbers = ids if ids_are_text else np.array([int(item) for item in ids], np.int64)
            return cls(
                ids=np.array(numbers),
                titles=titles,
                genres=tuple(tuple(text.split("|")) if text else () for text in genres),
                num_ratings=np.array([int(count) for count in counts], np.int64),
            )
        except InputError:
            raise
        except (ValueError, OverflowError, csv.Error) as error:
            raise InputError(f"{label} cannot be read: {error}.") from error


def _checked(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Returns the lines below the header, if they are numbered from 0 and whole."""
    for number, row in enumerate(rows):
        if len(row) != len(_COLUMNS) or row[0] != str(number):
            raise ValueError(f"line {number + 2} is not of row {number}")
    if not rows:
        raise ValueError("it has no items")
    return rows


def _text(item: object) -> str:
    # A data frame whose column of ids has a gap makes numbers of them, such as 242.0.
    return str(int(item) if isinstance(item, float) and item.is_integer() else item)
