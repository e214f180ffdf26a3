"""Known features of items, as arrays by dense item id."""

from __future__ import annotations

import numpy as np

from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError


def genre_features(ratings: Ratings) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns which genres each item has, and the names of the genres.

    Each row has norm 1: an item of `n` genres has `1 / sqrt(n)` at each of them. Otherwise an item
    of six genres would have a row 2.4 times as long as an item of one, before anything is known of
    either, and the rows of many genres would be trained by steps six times as long. An item without
    genres has zeros.

    Args:
      ratings: A data set with genres.

    Returns:
      `[num_items, num_genres]` float32, and `[num_genres]` names, sorted.

    Raises:
      DataError: If no item has a genre.
    """
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
        features[item, [places[name] for name in genres]] = len(genres) ** -0.5 if genres else 0.0
    return features, names
