"""Mean ratings that know an item by its genres alone, or not at all, on one machine.

The references of cold items, which nobody rated in training. With explicit feedback they predict

- `global_mean`: `mu`, the mean of all training ratings;
- `genre_mean`: `mu + b_g`, where `g` is the set of genres that the item has and
  `b_g = sum of (r_ui - mu) / (damping + n_g)` over the `n_g` training ratings of items with exactly
  these genres. A set that nobody rated has 0;
- `genre_popularity`: `mu + b_u + b_g`, with the user's offset `b_u` of `popularity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedrecon.baselines.baseline import check_pairs, check_ratings
from fedrecon.baselines.popularity import PopularityOptions, RatingBaseline
from fedrecon.errors import check_at_least


@dataclasses.dataclass(frozen=True)
class GlobalMeanOptions:
    """The global mean has no settings."""


@dataclasses.dataclass(frozen=True)
class GenreMeanOptions:
    """How far the offset of a set of genres is drawn to 0.

    Attributes:
      damping: At least 0; works like so many more ratings of each set that equal `mu`.
    """

    damping: float = 0.0

    def __post_init__(self):
        check_at_least(0.0, "the damping of genre_mean", self.damping)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemMeans:
    """A trained `Baseline` of explicit feedback that predicts the same for every user.

    Attributes:
      means: `[num_items]`, float32, stars.
    """

    means: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.means.nbytes

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the means of the candidates, whatever the user gives."""
        return self.means[candidates]


def train_global_mean(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    *,
    num_users: int,
    num_items: int,
    item_genres: Sequence[Sequence[str]] | None,
    options: GlobalMeanOptions,
) -> ItemMeans:
    """Takes the mean of all ratings; see `baseline`. It reads neither genres nor options."""
    _, _, mean = _checked(users, items, ratings, num_users, num_items)
    return ItemMeans(_read_only(np.full(num_items, mean, np.float32)))


def train_genre_mean(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    *,
    num_users: int,
    num_items: int,
    item_genres: Sequence[Sequence[str]] | None,
    options: GenreMeanOptions,
) -> ItemMeans:
    """Fits `mu` and the `b_g`; see `baseline`. It needs at least one rating.

    Args:
      item_genres: `[num_items]` names of genres.
    """
    _, items, mean = _checked(users, items, ratings, num_users, num_items)
    offsets = _offsets(items, ratings - mean, item_genres, options.damping)
    return ItemMeans(_read_only((mean + offsets).astype(np.float32)))


def train_genre_popularity(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    *,
    num_users: int,
    num_items: int,
    item_genres: Sequence[Sequence[str]] | None,
    options: PopularityOptions,
) -> RatingBaseline:
    """Fits `popularity` with `b_g` in place of `b_i`; arguments are those of `train_genre_mean`."""
    _, items, mean = _checked(users, items, ratings, num_users, num_items)
    offsets = _offsets(items, ratings - mean, item_genres, options.item_damping)
    return RatingBaseline(options, mean, _read_only(offsets))


def _checked(users, items, ratings, num_users, num_items) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the pairs, and the mean of their ratings."""
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)
    check_ratings(users, items, ratings)
    if not len(items):
        raise ValueError("there are no ratings, so they have no mean; give at least one.")
    return users, items, float(np.mean(ratings, dtype=np.float64))


def _offsets(
    items: np.ndarray,
    residuals: np.ndarray,
    item_genres: Sequence[Sequence[str]] | None,
    damping: float,
) -> np.ndarray:
    """Returns the `b_g` of each item, `[num_items]`, float64."""
    if item_genres is None:
        raise ValueError("there are no genres; give the genres of each item.")
    numbers: dict[frozenset[str], int] = {}
    sets = np.array([numbers.setdefault(frozenset(g), len(numbers)) for g in item_genres])
    sums = np.bincount(sets[items], residuals, minlength=len(numbers))
    counts = damping + np.bincount(sets[items], minlength=len(numbers))
    return np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)[sets]


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
