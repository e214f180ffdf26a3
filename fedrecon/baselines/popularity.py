"""What can be said of an item without knowing the user's taste, on one machine.

The simplest references of the comparison: nothing here is federated, and the trainer sees every
interaction. What a recommender learns about taste is what it gains over these.

Implicit feedback: the score of an item is the number of training users who have it.

Explicit feedback: the baseline predictor of Koren, Bell and Volinsky 2009, "Matrix Factorization
Techniques for Recommender Systems", with the decoupled estimate of Koren 2010, "Factor in the
Neighbors: Scalable and Accurate Collaborative Filtering", section 2.1. A rating is predicted as
`mu + b_u + b_i`, where

1. `mu` is the mean of all training ratings;
2. `b_i = sum of (r_ui - mu) / (item_damping + n_i)` over the `n_i` training ratings of item `i`, so
   0 for an item that nobody rated;
3. `b_u = sum of (r_ui - mu - b_i) / (user_damping + n_u)` over the `n_u` ratings that user `u`
   gives, so 0 for one who gives nothing. It is computed when it is asked for, which serves a user
   of training and a new one alike.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.errors import InputError


@dataclasses.dataclass(frozen=True)
class PopularityOptions:
    """How far the offsets of explicit feedback are drawn to 0; counts need no setting.

    Attributes:
      item_damping: As many ratings that equal the mean are added to each item's, positive.
      user_damping: Likewise to each user's, around `mu + b_i`, positive.
    """

    item_damping: float = 25.0
    user_damping: float = 10.0

    def __post_init__(self):
        for name in ("item_damping", "user_damping"):
            # `not <` instead of `>=`: NaN must fail too.
            if not 0.0 < getattr(self, name) < float("inf"):
                raise InputError(
                    f"the {name} of popularity is {getattr(self, name)}; it must be positive."
                )


@dataclasses.dataclass(frozen=True, eq=False)
class Popularity:
    """A trained model of implicit feedback; its array is read-only.

    Attributes:
      counts: `[num_items]`, int64: how many training users have each item.
    """

    counts: np.ndarray

    def score(self, items: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the counts of the candidates, whatever the user gives.

        Args:
          items: `[g]`, int; does not matter.
          labels: `[g]`, float32; does not matter.
          candidates: `[m]`, int, item ids; -1 (padding) gets the score of some item.

        Returns:
          `[m]`, float32, a higher score for a better item.
        """
        return self.counts[candidates].astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class RatingBaseline:
    """A trained model of explicit feedback; its array is read-only.

    Attributes:
      options: What it was trained with.
      mean: `mu`, stars.
      item_offsets: `b_i`, `[num_items]`, float64, stars.
    """

    options: PopularityOptions
    mean: float
    item_offsets: np.ndarray

    def score(self, items: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the predicted stars of a user, seen or not: step 3 of the module.

        Args:
          items: `[g]`, int: what the user has rated; each entry counts as a rating of its own.
          labels: `[g]`, float32, stars.
          candidates: `[m]`, int, item ids; -1 (padding) gets the stars of some item.

        Returns:
          `[m]`, float32, stars; not cut to the scale.
        """
        residuals = labels - (self.mean + self.item_offsets[items])
        user_offset = residuals.sum() / (self.options.user_damping + len(items))
        return (self.mean + user_offset + self.item_offsets[candidates]).astype(np.float32)


def train_popularity(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray | None,
    *,
    num_users: int,
    num_items: int,
    options: PopularityOptions,
) -> Popularity | RatingBaseline:
    """Returns the model of explicit feedback, or that of implicit feedback without ratings.

    Args:
      users: `[n]`, int, in `[0, num_users)`.
      items: `[n]`, int, in `[0, num_items)`: row `k` says that user `users[k]` has item `items[k]`.
      ratings: `[n]`, float32, stars, at least one, and no pair twice; None is implicit feedback, in
        which a pair that comes twice counts once.
      num_users: Number of users.
      num_items: Number of items.
      options: The settings.

    Raises:
      ValueError: If the arrays differ in length or hold anything else.
    """
    # One number per pair; it refuses what are no ids.
    pairs = np.ravel_multi_index(np.stack([users, items]), (num_users, num_items))
    distinct = np.unique(pairs)
    if ratings is None:
        counts = np.bincount(distinct % num_items, minlength=num_items)
        counts.flags.writeable = False
        return Popularity(counts)
    if len(ratings) != len(pairs) or not len(pairs) or not np.isfinite(ratings).all():
        raise ValueError(f"{len(pairs)} pairs need as many finite ratings, and at least one.")
    if len(distinct) < len(pairs):
        raise ValueError(f"only {len(distinct)} of {len(pairs)} rated pairs differ; all must.")
    mean = float(np.mean(ratings, dtype=np.float64))
    sums = np.bincount(items, ratings - mean, minlength=num_items)
    offsets = sums / (options.item_damping + np.bincount(items, minlength=num_items))
    offsets.flags.writeable = False
    return RatingBaseline(options, mean, offsets)
