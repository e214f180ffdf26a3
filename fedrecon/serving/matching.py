"""Which items of a data set a trained model knows, by the items' own ids."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.data.ratings import Ratings
from fedrecon.errors import InputError
from fedrecon.serving.about import About
from fedrecon.serving.items import Items


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """Which items a model knows already.

    Attributes:
      rows: `[num_items]` int64: the row that each item has in the old model; -1 if it is new.
      has_content: `[num_items]` bool: whether a new item has a genre that a known item has.
    """

    rows: np.ndarray
    has_content: np.ndarray

    def sentence(self) -> str:
        """Returns how many items are known, and where the others start."""
        number, known = len(self.rows), int((self.rows >= 0).sum())
        text = f"{known:,} of {number:,} items are known to it."
        with_content = int(self.has_content[self.rows < 0].sum())
        without = number - known - with_content
        parts = [
            f"{count:,} new items start from {source}"
            for count, source in (
                (with_content, "their genres"),
                (without, "the mean of the known items"),
            )
            if count
        ]
        return " ".join([text, *(f"{part}." for part in parts)])


def check_feedback(about: About, feedback: str) -> None:
    """Raises InputError unless a model was trained on feedback of some kind."""
    if about.feedback != feedback:
        raise InputError(
            f"the run to start from was trained on {about.feedback} feedback, and this one is on "
            f"{feedback} feedback."
        )


def match_items(old: Items, ratings: Ratings) -> Matching:
    """Returns which items of a data set an old model knows, by their own ids.

    An item without training ratings is not known: its row is as it was drawn.

    Raises:
      InputError: If it knows none of them.
    """
    trained = (old.num_ratings > 0).tolist()
    row_of = {str(item): row for row, item in enumerate(old.ids.tolist()) if trained[row]}
    ids = [str(item) for item in ratings.original_item_ids.tolist()]
    rows = np.array([row_of.get(item, -1) for item in ids], np.int64)
    if (rows < 0).all():
        raise InputError(
            f"none of the {len(ids):,} items of {ratings.name}, such as {ids[0]!r}, is known to "
            f"the run, whose items are such as {str(old.ids[0])!r}; items are matched by their ids."
        )
    known = set().union(*old.genres)
    genres = ratings.item_genres or ((),) * len(ids)
    return Matching(rows, np.array([bool(known.intersection(own)) for own in genres]))
