"""Scores of items that ignore the user's taste, on one machine.

The simplest references of a comparison: the trainer sees every interaction. A recommender has
learned about taste what it gains over these.

Implicit feedback: the score of an item is the number of training users who have it.

Explicit feedback: the baseline predictor of Koren, Bell and Volinsky 2009, "Matrix Factorization
Techniques for Recommender Systems", with the decoupled estimate of Koren 2010, "Factor in the
Neighbors: Scalable and Accurate Collaborative Filtering", section 2.1. A rating is predicted as
`mu + b_u + b_i`, where

1. `mu` is the mean of all training ratings;
2. `b_i = sum of (r_ui - mu) / (item_damping + n_i)` over the `n_i` training ratings of item `i`. An
   item without ratings has 0.
3. `b_u = sum of (r_ui - mu - b_i) / (user_damping + n_u)` over the `n_u` ratings that user `u`
   gives. A user who gives none has 0. Scoring computes it, so training users and new users are
   treated alike.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.baselines.baseline import check_implicit, check_pairs, check_ratings
from fedrecon.errors import check_positive


@dataclasses.dataclass(frozen=True)
class PopularityOptions:
    """How far the offsets of explicit feedback are drawn to 0; implicit feedback needs no setting.

    Attributes:
      item_damping: Positive; works like so many more ratings of each item that equal `mu`.
      user_damping: Positive; works like so many more ratings of each user that equal `mu + b_i`.
    """

    item_damping: float = 25.0
    user_damping: float = 10.0

    def __post_init__(self):
        for name in ("item_damping", "user_damping"):
            check_positive(f"the {name} of popularity", getattr(self, name))


@dataclasses.dataclass(frozen=True, eq=False)
class Popularity:
    """A trained `Baseline` of implicit feedback.

    Attributes:
      counts: `[num_items]`, int64: how many training users have each item.
    """

    counts: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.counts.nbytes

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the counts of the candidates, whatever the user gives."""
        return self.counts[candidates].astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class RatingBaseline:
    """A trained `Baseline` of explicit feedback.

    Attributes:
      options: The options of the training.
      mean: `mu`, stars.
      item_offsets: `b_i`, `[num_items]`, float64, stars.
    """

    options: PopularityOptions
    mean: float
    item_offsets: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.item_offsets.nbytes

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns `mu + b_u + b_i`: step 3 of the module."""
        residuals = labels - (self.mean + self.item_offsets[item_ids])
        user_offset = residuals.sum() / (self.options.user_damping + len(item_ids))
        return (self.mean + user_offset + self.item_offsets[candidates]).astype(np.float32)


def train_popularity(
    users: np.ndarray,
    items: np.ndarray,
    ratings: None = None,
    *,
    num_users: int,
    num_items: int,
    options: PopularityOptions,
) -> Popularity:
    """Counts the users of each item (implicit feedback); see `baseline`. It reads no option."""
    check_implicit(ratings, "popularity by counts")
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)
    distinct = np.unique(users * num_items + items)
    counts = np.bincount(distinct % num_items, minlength=num_items)
    counts.flags.writeable = False
    return Popularity(counts)


def train_rating_baseline(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    *,
    num_users: int,
    num_items: int,
    options: PopularityOptions,
) -> RatingBaseline:
    """Fits `mu` and the `b_i` (explicit feedback); see `baseline`. It needs at least one rating."""
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)
    check_ratings(users, items, ratings)
    if not len(items):
        raise ValueError("there are no ratings, so they have no mean; give at least one.")
    mean = float(np.mean(ratings, dtype=np.float64))
    sums = np.bincount(items, ratings - mean, minlength=num_items)
    offsets = sums / (options.item_damping + np.bincount(items, minlength=num_items))
    offsets.flags.writeable = False
    return RatingBaseline(options, mean, offsets)
