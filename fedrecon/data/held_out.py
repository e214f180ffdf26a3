"""One held-out item for each user, and the items to rank it against."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data.ncf import LeaveOneOut
from fedrecon.data.ratings import Ratings
from fedrecon.data.splits import ranks_in_time
from fedrecon.errors import DataError, InputError


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutItems:
    """One held-out item for each of some users, with negatives; row `i` is of user `users[i]`.

    Attributes:
      users: `[num_users]`, int64, increasing.
      items: `[num_users]`, int32: each user's held-out item.
      negatives: `[num_users, num_negatives]`, int32: the items to rank the held-out one against.

    Raises:
      DataError: If shapes or dtypes contradict the above, or users do not increase.
    """

    users: np.ndarray
    items: np.ndarray
    negatives: np.ndarray

    def __post_init__(self):
        num_users = np.size(self.users)
        num_negatives = np.shape(self.negatives)[-1] if np.ndim(self.negatives) else 0
        for field, dtype, shape in (
            ("users", np.int64, (num_users,)),
            ("items", np.int32, (num_users,)),
            ("negatives", np.int32, (num_users, num_negatives)),
        ):
            given = getattr(self, field)
            if np.shape(given) != shape or given.dtype != dtype:
                raise DataError(
                    f"{field} of the held-out items must be {np.dtype(dtype)} of shape {shape}; "
                    f"found {np.asarray(given).dtype} of shape {np.shape(given)}."
                )
        if (np.diff(self.users) <= 0).any():
            raise DataError("users of the held-out items must increase, without repeats.")


def published(leave_one_out: LeaveOneOut) -> HeldOutItems:
    """Returns the held-out items and negatives of the files, those equal to the item included."""
    return HeldOutItems(
        users=leave_one_out.test.user_ids.astype(np.int64),
        items=leave_one_out.test_items,
        negatives=leave_one_out.negatives,
    )


def hold_out_last(
    ratings: Ratings, *, num_negatives: int = 99, seed: int
) -> tuple[Ratings, HeldOutItems]:
    """Holds out each user's last rating.

    Guarantees: of a user with at least 2 ratings, the last (by time, then file order) is held out;
    every other rating remains, in file order and the same id space, so a user with fewer keeps his.
    A user's negatives are distinct, and none is an item of his in `ratings`.

    Applied to what remains, it holds out the one before: call the first result test and the second
    validation. The second call knows nothing of the first, so a validation negative may be the
    user's test item; to exclude it would be to use the test.

    Cannot measure: absolute quality (a rank among sampled negatives is far better than among all
    items), users never seen, or forecasting (another user's remaining ratings may be later than
    this user's held-out one).

    Args:
      ratings: What to hold out from; needs timestamps.
      num_negatives: As for `sample_negatives`.
      seed: As for `sample_negatives`.

    Returns:
      The remaining ratings, and the held-out items of the users with at least 2 ratings.

    Raises:
      DataError: If there are no timestamps, no user has 2 ratings, or a user has too few other
        items.
    """
    ranks, counts = ranks_in_time(ratings, "hold_out_last")
    if counts.max(initial=0) < 2:
        raise DataError(
            f"{ratings.name} has {len(np.unique(ratings.user_ids))} users with ratings, of at most "
            f"{counts.max(initial=0)} each; hold_out_last needs a user with 2."
        )
    is_held_out = (counts >= 2) & (ranks == counts - 1)
    rows = np.flatnonzero(is_held_out)
    rows = rows[np.argsort(ratings.user_ids[rows])]
    users, items = ratings.user_ids[rows].astype(np.int64), ratings.item_ids[rows]
    negatives = sample_negatives(ratings, users, items, num_negatives=num_negatives, seed=seed)
    return ratings.select(~is_held_out), HeldOutItems(users, items, negatives)


def sample_negatives(
    ratings: Ratings,
    users: np.ndarray,
    items: np.ndarray,
    *,
    num_negatives: int = 99,
    seed: int,
) -> np.ndarray:
    """Draws distinct items that are neither the user's in `ratings` nor his entry of `items`.

    A user's draw depends on the seed, the user, his rows and his item, not on other users. Another
    item draws anew, so test and validation may share a seed.

    Args:
      ratings: What users are known to have.
      users: `[n]` user ids.
      items: `[n]` item ids, each user's held-out one, in `ratings` or not.
      num_negatives: How many items for each user, `>= 1`.
      seed: `>= 0`.

    Returns:
      `[n, num_negatives]`, int32, in random order.

    Raises:
      InputError: If `num_negatives` is not positive.
      DataError: If a user or an item is unknown, or a user has fewer such items.
    """
    if num_negatives < 1:
        raise InputError(f"num_negatives must be at least 1; found {num_negatives}.")
    users, items = np.asarray(users, np.int64), np.asarray(items, np.int64)
    if users.shape != items.shape or users.ndim != 1:
        raise DataError(
            f"users and items must be of one shape [n]; found {users.shape} and {items.shape}."
        )
    for kind, ids, bound in (
        ("user", users, ratings.num_users),
        ("item", items, ratings.num_items),
    ):
        outside = ids[(ids < 0) | (ids >= bound)]
        if outside.size:
            raise DataError(
                f"{ratings.name} has no {kind} {outside[0]}; {kind}s are 0 to {bound - 1}."
            )
    rows = ratings.rows_by_user()
    negatives = np.empty((len(users), num_negatives), np.int32)
    for row, (user, item) in enumerate(zip(users.tolist(), items.tolist())):
        is_free = np.ones(ratings.num_items, bool)
        is_free[ratings.item_ids[rows.rows_of(user)]] = False
        is_free[item] = False
        free = np.flatnonzero(is_free)
        if len(free) < num_negatives:
            raise DataError(
                f"{ratings.name}: user {user} has {len(free)} items left to draw negatives from, "
                f"fewer than num_negatives, {num_negatives}."
            )
        rng = rng_lib.generator(seed, "held_out_negatives", user, item)
        negatives[row] = rng.choice(free, num_negatives, replace=False)
    return negatives
