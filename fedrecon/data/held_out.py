"""One held-out item for each user, and the items to rank it against."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data.ncf import LeaveOneOut
from fedrecon.data.ratings import Ratings
from fedrecon.data.splits import order_in_time
from fedrecon.errors import DataError, InputError


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutItems:
    """One held-out item for each of some users, with negatives; row `i` is of user `users[i]`.

    Attributes:
      users: `[num_users]`, int64, increasing.
      items: `[num_users]`, int32: each user's held-out item.
      negatives: `[num_users, num_negatives]`, int32: the items to rank the held-out one against; -1
        is padding for a user who has fewer.
      is_tied: `[num_users]`, bool: whether the user has another rating at the time of the held-out
        one, so that the seed decided between them; None where that is not known.

    Raises:
      DataError: If shapes or dtypes contradict the above, or users do not increase.
    """

    users: np.ndarray
    items: np.ndarray
    negatives: np.ndarray
    is_tied: np.ndarray | None = None

    def __post_init__(self):
        num_users = np.size(self.users)
        num_negatives = np.shape(self.negatives)[-1] if np.ndim(self.negatives) else 0
        for field, dtype, shape in (
            ("users", np.int64, (num_users,)),
            ("items", np.int32, (num_users,)),
            ("negatives", np.int32, (num_users, num_negatives)),
            ("is_tied", np.bool_, (num_users,)),
        ):
            given = getattr(self, field)
            if field == "is_tied" and given is None:
                continue
            if np.shape(given) != shape or given.dtype != dtype:
                raise DataError(
                    f"{field} of the held-out items must be {np.dtype(dtype)} of shape {shape}; "
                    f"found {np.asarray(given).dtype} of shape {np.shape(given)}."
                )
        if (np.diff(self.users) <= 0).any():
            raise DataError("users of the held-out items must increase, without repeats.")

    def num_tied(self, users: np.ndarray) -> int:
        """Returns of how many of some users the held-out item was drawn among others."""
        if self.is_tied is None:
            return 0
        return int(np.count_nonzero(self.is_tied[np.isin(self.users, users)]))


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

    Guarantees: of a user with at least 2 ratings, the last (equal times at random) is held out;
    every other rating remains, in the same id space, so a user with fewer keeps all. A user's
    negatives are distinct, and none is an item of the user in `ratings`. A user who has so many
    items that fewer than `num_negatives` are left is ranked among all that are left; one who has
    every item is asked nothing and keeps everything.

    Applied to what remains, it holds out the one before: call the first result test and the second
    validation. The second call knows nothing of the first, so a validation negative may be the
    user's test item; to exclude it would be to use the test.

    Cannot measure: absolute quality (a rank among sampled negatives is far better than among all
    items), users never seen, or forecasting (another user's remaining ratings may be later than
    this user's held-out one).

    Args:
      ratings: What to hold out from; needs timestamps.
      num_negatives: As for `sample_negatives`.
      seed: Orders equal times; also as for `sample_negatives`.

    Returns:
      The remaining ratings, and the held-out items of the users with at least 2 ratings.

    Raises:
      DataError: If there are no timestamps, or no user has 2 ratings and lacks an item.
    """
    ranks, counts, is_tied = order_in_time(ratings, "hold_out_last", seed=seed)
    if counts.max(initial=0) < 2:
        raise DataError(
            f"{ratings.name} has {len(np.unique(ratings.user_ids))} users with ratings, of at most "
            f"{counts.max(initial=0)} each; hold_out_last needs a user with 2."
        )
    is_held_out = (counts >= 2) & (counts < ratings.num_items) & (ranks == counts - 1)
    if not is_held_out.any():
        raise DataError(
            f"{ratings.name}: every user with 2 ratings has all {ratings.num_items} items, so no "
            "held-out item can be ranked among others."
        )
    rows = np.flatnonzero(is_held_out)
    users, items = ratings.user_ids[rows].astype(np.int64), ratings.item_ids[rows]
    negatives = sample_negatives(ratings, users, items, num_negatives=num_negatives, seed=seed)
    return ratings.select(~is_held_out), HeldOutItems(users, items, negatives, is_tied[rows])


def sample_negatives(
    ratings: Ratings,
    users: np.ndarray,
    items: np.ndarray,
    *,
    num_negatives: int = 99,
    seed: int,
) -> np.ndarray:
    """Draws distinct items that a user has neither in `ratings` nor as the entry of `items`.

    A user's draw depends on the seed, the user, the user's rows and item, not on other users.
    Another item draws anew, so test and validation may share a seed.

    Args:
      ratings: What users are known to have.
      users: `[n]` user ids.
      items: `[n]` item ids, each user's held-out one, in `ratings` or not.
      num_negatives: How many items for each user, `>= 1`.
      seed: `>= 0`.

    Returns:
      `[n, num_negatives]`, int32, in random order. A user who has fewer such items gets all of
      them; the rest of the row is -1.

    Raises:
      InputError: If `num_negatives` is not positive.
      DataError: If a user or an item is unknown.
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
    negatives = np.full((len(users), num_negatives), -1, np.int32)
    for row, (user, item) in enumerate(zip(users.tolist(), items.tolist())):
        is_free = np.ones(ratings.num_items, bool)
        is_free[ratings.item_ids[ratings.rows_of(user)]] = False
        is_free[item] = False
        free = np.flatnonzero(is_free)
        number = min(len(free), num_negatives)
        rng = rng_lib.generator(seed, "held_out_negatives", user, item)
        negatives[row, :number] = rng.choice(free, number, replace=False)
    return negatives
