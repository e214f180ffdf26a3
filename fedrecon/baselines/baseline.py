"""The interface of a trained baseline, and the checks of the interactions it is trained on.

Every module of this folder has an options record and a function

    train_...(users, items, ratings, *, num_users, num_items, options) -> Baseline

for each kind of feedback that it serves. `users` and `items` are `[n]`, int: user `users[k]` has
item `items[k]`. With implicit feedback, `ratings` is None and a repeated pair counts once. With
explicit feedback, `ratings` is `[n]`, float32, in stars, and a repeated pair is refused. Arrays
that do not fit raise ValueError.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Baseline(Protocol):
    """A trained model that scores any user, seen or not, from what the user gives.

    Its arrays are read-only, and neither scoring nor training draws from global random state.
    """

    @property
    def num_bytes(self) -> int:
        """The size of all its arrays."""

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the scores of one user's candidates.

        A score depends on nothing but what the user gives and the candidate: not on the other
        candidates and, up to rounding, not on the order of what the user gives. Equal scores are
        ties; whoever ranks the candidates breaks them.

        Args:
          item_ids: `[g]`, int, the items that the user gives; `g` may be 0. With implicit feedback
            a repeated item counts once; with explicit feedback each entry is a rating of its own.
          labels: `[g]`, float32. With implicit feedback 1 marks an item that the user has, and 0 a
            drawn negative, which is ignored. With explicit feedback, stars.
          candidates: `[n]`, int, item ids. Where the id is -1 (padding), the score is some finite
            number.

        Returns:
          `[n]`, float32. With implicit feedback a better item has a higher score. With explicit
          feedback a score is a rating in stars, not cut to the scale.
        """


def check_pairs(
    users: np.ndarray, items: np.ndarray, *, num_users: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two arrays as int64, or raises ValueError if they are not pairs of ids."""
    users, items = check_ids(users, num_users, "user"), check_ids(items, num_items, "item")
    if len(users) != len(items):
        raise ValueError(f"there are {len(users)} users for {len(items)} items; give pairs.")
    return users, items


def check_ids(ids: np.ndarray, num: int, what: str) -> np.ndarray:
    """Returns `ids` as int64, or raises ValueError unless they are `[n]`, int, in `[0, num)`."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(f"{what} ids are one row of integers, not {ids.dtype} {list(ids.shape)}.")
    if ids.size and not 0 <= ids.min() <= ids.max() < num:
        raise ValueError(f"{what} ids must be in [0, {num}); found {ids.min()} to {ids.max()}.")
    return ids.astype(np.int64)


def check_implicit(ratings: None, what: str) -> None:
    """Raises ValueError if there are ratings."""
    if ratings is not None:
        raise ValueError(f"{what} is trained on implicit feedback; leave the ratings out.")


def check_ratings(users: np.ndarray, items: np.ndarray, ratings: np.ndarray | None) -> None:
    """Raises ValueError unless all pairs (int64, `>= 0`) differ and each has a finite rating."""
    num = len(users)
    if ratings is None or len(ratings) != num or not np.isfinite(ratings).all():
        raise ValueError(f"{num} pairs need as many finite ratings.")
    num_distinct = len(np.unique(users * (items.max(initial=0) + 1) + items))
    if num_distinct < num:
        raise ValueError(f"only {num_distinct} of {num} rated pairs differ; all must.")
