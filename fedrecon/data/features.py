"""Known features of items, as arrays by dense item id."""

from __future__ import annotations

import numpy as np

from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError, check_positive


def genre_features(ratings: Ratings, *, norm: float = 1.0) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns which genres each item has, and the names of the genres.

    Rows have one norm: an item of `n` genres has `norm / sqrt(n)` at each of them. Otherwise an
    item of six genres would start with a row 2.4 times as long as an item of one, and a gradient
    step would move it six times as far. An item without genres has zeros.

    Args:
      ratings: A data set with genres.
      norm: The norm of the rows, positive. The row of a genre takes the gradients of all items of
        the genre, so gradient steps that suit an item's own row may be too long for it; an item
        then moves by `norm` squared of the step.

    Returns:
      `[num_items, num_genres]` float32, and `[num_genres]` names, sorted.

    Raises:
      DataError: If no item has a genre.
      InputError: If the norm is not positive.
    """
    check_positive("the norm of genre features", norm)
    of_items = [sorted(set(genres)) for genres in ratings.item_genres or ()]
    names = tuple(sorted({name for genres in of_items for name in genres}))
    if not names:
        raise DataError(
            f"{ratings.name} has no genres; take a data set whose file of items has some, such as "
            "movielens-1m, or a file of your own with items_file."
        )
    places = {name: place for place, name in enumerate(names)}
    features = np.zeros((ratings.num_items, len(names)), np.float32)
    for item, genres in enumerate(of_items):
        features[item, [places[name] for name in genres]] = (
            norm / len(genres) ** 0.5 if genres else 0.0
        )
    return features, names
