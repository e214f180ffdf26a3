"""What one client gives to a round: its items and labels, in training order."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data.ratings import Ratings
from fedrecon.data.splits import TimeOrder, order_in_time
from fedrecon.errors import DataError, InputError

ORDERS = ("shuffle_once", "shuffle_each_round", "by_time")


@dataclasses.dataclass(frozen=True)
class ExampleOptions:
    """How ratings become examples.

    Attributes:
      max_ratings_per_user: How many of a user's ratings are kept, the first in the order below,
        `>= 1`; None keeps all.
      order: `"shuffle_once"` (one random order for the whole run), `"shuffle_each_round"` (another
        each round, so a capped user shows other ratings), or `"by_time"` (the ratings that
        `"shuffle_once"` keeps, the earliest first; equal times at random).
      label_threshold: None labels with the rating, in stars; a number labels with 1 where the
        rating is at least that, else 0.
      seed: Draws the orders, `>= 0`.

    Raises:
      InputError: If a value is not one of those.
    """

    max_ratings_per_user: int | None = 300
    order: str = "shuffle_once"
    label_threshold: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.max_ratings_per_user is not None and self.max_ratings_per_user < 1:
            raise InputError(
                f"max_ratings_per_user must be at least 1, or None for all ratings; found "
                f"{self.max_ratings_per_user}."
            )
        if self.order not in ORDERS:
            raise InputError(f"order must be one of {', '.join(ORDERS)}; found {self.order!r}.")
        if self.label_threshold is not None and not math.isfinite(self.label_threshold):
            raise InputError(f"label_threshold must be finite; found {self.label_threshold}.")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0; found {self.seed}.")


class ClientExamples:
    """The examples of every user of a data set; each user is a client.

    Attributes:
      ratings: The data set.
      options: How ratings become examples.
      users: `[num_clients]`, int64, increasing: the users who have ratings.
      row_order: The order in place of `"shuffle_once"`, or None; see `__init__`.
    """

    def __init__(
        self, ratings: Ratings, options: ExampleOptions, *, row_order: np.ndarray | None = None
    ):
        """Creates the examples.

        Args:
          ratings: The data set.
          options: How ratings become examples.
          row_order: `[num_ratings]` rows of `ratings`, each user's in the user's own stretch: the
            order that a published code shuffled them into, in place of `"shuffle_once"`.

        Raises:
          InputError: If there is such an order beside options of another order.
        """
        if row_order is not None and options.order != "shuffle_once":
            raise InputError(
                f"row_order takes the place of the order shuffle_once; found {options.order!r}."
            )
        self.ratings = ratings
        self.row_order = row_order
        self.options = options
        self._counts = ratings.counts()
        self.users = np.flatnonzero(self._counts)
        self._time_order: TimeOrder | None = None
        if options.order == "by_time":
            self._time_order = order_in_time(ratings, "the order by_time", seed=options.seed)
        # A round takes milliseconds, as drawing its clients' orders does: draw lasting ones once.
        self._lasting_rows: dict[int, np.ndarray] = {}

    def num_examples(self, user: int) -> int:
        """Returns how many examples a user has in any round, 0 for one without ratings.

        Raises:
          DataError: If there is no such user.
        """
        _check_user(self.ratings, user)
        most = self.options.max_ratings_per_user
        count = int(self._counts[user])
        return count if most is None else min(count, most)

    def examples(self, user: int, round_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns item ids int64 and labels float32, both `[num_examples(user)]`, as trained on.

        Args:
          user: Dense user id.
          round_num: The round, `>= 0`; matters for `"shuffle_each_round"` only.

        Raises:
          DataError: If there is no such user.
        """
        return self._items_and_labels(self._rows_to_use(user, round_num))

    def epoch(self, epoch_num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the examples of all users once, shuffled together, for centralized training.

        They are those of `examples(user, epoch_num)`, so a cap holds here too.

        Args:
          epoch_num: The epoch, `>= 0`; each has another order.

        Returns:
          User ids int64, item ids int64 and labels float32, all `[num_examples of all users]`.
        """
        rows = [self._rows_to_use(user, epoch_num) for user in self.users.tolist()]
        rows = np.concatenate([np.zeros(0, np.int64), *rows])
        rows = rng_lib.generator(self.options.seed, "epoch", epoch_num).permutation(rows)
        return self.ratings.user_ids[rows].astype(np.int64), *self._items_and_labels(rows)

    def interactions(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns everything that some users give in any round.

        A cap keeps the same ratings in each round, unless the order is `"shuffle_each_round"`:
        then all ratings take part in the end.

        Args:
          users: Dense user ids.

        Returns:
          User ids int64, item ids int64 and labels float32, `[n]` each.
        """
        if self.options.order == "shuffle_each_round":
            rows = [self.ratings.rows_of(user) for user in users.tolist()]
        else:
            rows = [self._rows_to_use(user, 0) for user in users.tolist()]
        rows = np.concatenate([np.zeros(0, np.int64), *rows])
        return self.ratings.user_ids[rows].astype(np.int64), *self._items_and_labels(rows)

    def _items_and_labels(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = self.ratings.ratings[rows]
        if self.options.label_threshold is not None:
            labels = (labels >= self.options.label_threshold).astype(np.float32)
        return self.ratings.item_ids[rows].astype(np.int64), labels

    def _rows_to_use(self, user: int, round_num: int) -> np.ndarray:
        _check_user(self.ratings, user)
        each_round = self.options.order == "shuffle_each_round"
        if not each_round and user in self._lasting_rows:
            return self._lasting_rows[user]
        rows = self.ratings.rows_of(user)
        indices = (user, round_num) if each_round else (user,)
        if self.row_order is None:
            rng = rng_lib.generator(self.options.seed, "client_examples", *map(int, indices))
            rows = rows[rng.permutation(len(rows))]
        else:
            rows = self.row_order[rows]
        rows = rows[: self.num_examples(user)]
        if self._time_order is not None:
            rows = rows[np.argsort(self._time_order.ranks[rows])]
        if not each_round:
            self._lasting_rows[user] = rows
        return rows


@dataclasses.dataclass(frozen=True)
class ImplicitOptions:
    """How interactions become examples with drawn negatives.

    Attributes:
      negatives_per_positive: How many items with label 0 come with each positive, `>= 0`.
      max_positives_per_user: How many of a user's positives are used, a random subset in each
        round, `>= 1`; None uses all.
      seed: Draws negatives, subsets and orders, `>= 0`.

    Raises:
      InputError: If a value is not one of those.
    """

    negatives_per_positive: int = 4
    max_positives_per_user: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.negatives_per_positive < 0:
            raise InputError(
                f"negatives_per_positive must be at least 0; found {self.negatives_per_positive}."
            )
        if self.max_positives_per_user is not None and self.max_positives_per_user < 1:
            raise InputError(
                f"max_positives_per_user must be at least 1, or None for all positives; found "
                f"{self.max_positives_per_user}."
            )
        if self.seed < 0:
            raise InputError(f"seed must be at least 0; found {self.seed}.")


class ImplicitExamples:
    """Every user's interactions with label 1, and items drawn for the user with label 0.

    Each row of `ratings` is a positive, whatever its stars. Negatives are drawn anew in each round,
    uniformly with replacement, from all items that are none of the user's positives. That includes
    the held-out items: they are not in `ratings`, and a device in training cannot know them.
    Published federated recommenders exclude them. Then an item that never comes as a negative is
    either a positive or held out, and a scorer without any model, which ranks by how rarely an item
    came, reaches a hit rate of 1.0. A user who has every item gives positives alone.

    Attributes:
      ratings: The training interactions, and those alone: what is held out must not be here.
      options: How they become examples.
      users: `[num_clients]`, int64, increasing: the users who have ratings.
    """

    def __init__(
        self, ratings: Ratings, options: ImplicitOptions, *, never_drawn: np.ndarray | None = None
    ):
        """Creates the examples.

        Args:
          ratings: The training interactions.
          options: How they become examples.
          never_drawn: `[n]` pairs, `user * num_items + item`, that are no negatives either: the
            held-out items, to measure the leak described above. None for honest examples.
        """
        self.ratings = ratings
        self.options = options
        self._counts = ratings.counts()
        self._starts = np.cumsum(self._counts) - self._counts
        self.users = np.flatnonzero(self._counts)
        # All users' positives, by user and then by item: user * num_items + item.
        self._pairs = ratings.pairs()
        # What is not drawn, in the same order: the positives, unless more is asked for.
        self._taken, self._taken_counts = self._pairs, self._counts
        if never_drawn is not None:
            self._taken = np.union1d(self._pairs, never_drawn)
            owners = self._taken // ratings.num_items
            self._taken_counts = np.bincount(owners, minlength=ratings.num_users)
        self._taken_starts = np.cumsum(self._taken_counts) - self._taken_counts
        # How many negatives come with each of a user's positives: none if no item is left.
        is_full = self._taken_counts == ratings.num_items
        self._num_negatives = np.where(is_full, 0, options.negatives_per_positive)

    def num_examples(self, user: int) -> int:
        """Returns how many examples a user has in any round, 0 for one without ratings.

        Raises:
          DataError: If there is no such user.
        """
        _check_user(self.ratings, user)
        return self._num_positives_used(user) * (1 + int(self._num_negatives[user]))

    def positives(self, user: int) -> np.ndarray:
        """Returns all the user's items in `ratings`, `[num_positives]`, int64, increasing.

        Raises:
          DataError: If there is no such user.
        """
        _check_user(self.ratings, user)
        start = self._starts[user]
        pairs = self._pairs[start : start + self._counts[user]]
        return pairs - int(user) * self.ratings.num_items

    def examples(self, user: int, round_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns item ids int64 and labels float32, both `[num_examples(user)]`, shuffled.

        Args:
          user: Dense user id.
          round_num: The round, `>= 0`; each has other negatives.

        Raises:
          DataError: If there is no such user.
        """
        positives = self.positives(user)
        rng = rng_lib.generator(self.options.seed, "negatives", int(user), int(round_num))
        num_used = self._num_positives_used(user)
        used = positives
        if num_used < len(positives):
            used = rng.choice(positives, num_used, replace=False)
        # Draw a place among the items that are not taken. The i-th taken item has taken[i] - i of
        # them below it, so it comes before place x if that is at most x.
        num_negatives = num_used * int(self._num_negatives[user])
        start = self._taken_starts[user]
        taken = self._taken[start : start + self._taken_counts[user]]
        taken = taken - int(user) * self.ratings.num_items
        num_free = self.ratings.num_items - len(taken)
        places = rng.integers(max(num_free, 1), size=num_negatives)
        below = taken - np.arange(len(taken))
        negatives = places + np.searchsorted(below, places, side="right")
        items = np.concatenate([used, negatives])
        order = rng.permutation(len(items))
        return items[order], (order < num_used).astype(np.float32)

    def epoch(self, epoch_num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns examples of all users once, shuffled together, for centralized training.

        Each user has `num_examples(user)` of them, as in a round, but drawn apart from any round.

        Args:
          epoch_num: The epoch, `>= 0`; each has other negatives and another order.

        Returns:
          User ids int64, item ids int64 and labels float32, all `[num_examples of all users]`.
        """
        rng = rng_lib.generator(self.options.seed, "epoch", epoch_num)
        num_items, most = self.ratings.num_items, self.options.max_positives_per_user
        owners = np.repeat(np.arange(self.ratings.num_users), self._counts)
        ranks = np.arange(len(owners)) - self._starts[owners]
        positives = self._pairs - owners * num_items
        used_owners, used = owners, positives
        if most is not None:
            # Shuffles within each user; `owners` and `ranks` hold for any such order.
            shuffled = positives[np.lexsort((rng.random(len(owners)), owners))]
            used_owners, used = owners[ranks < most], shuffled[ranks < most]
        # As in `examples`, with every user's places in a range of its own.
        drawers = np.repeat(used_owners, self._num_negatives[used_owners])
        places = rng.integers(num_items - self._taken_counts[drawers])
        takers = self._taken // num_items
        taken_ranks = np.arange(len(takers)) - self._taken_starts[takers]
        below = takers * (num_items + 1) + self._taken - takers * num_items - taken_ranks
        come_before = np.searchsorted(below, drawers * (num_items + 1) + places, side="right")
        negatives = places + come_before - self._taken_starts[drawers]
        order = rng.permutation(len(used) + len(negatives))
        return (
            np.concatenate([used_owners, drawers])[order],
            np.concatenate([used, negatives])[order],
            (order < len(used)).astype(np.float32),
        )

    def interactions(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
        """Returns all positives of some users: user ids and item ids, `[n]`, int64, and None."""
        is_theirs = np.isin(self.ratings.user_ids, users)
        return (
            self.ratings.user_ids[is_theirs].astype(np.int64),
            self.ratings.item_ids[is_theirs].astype(np.int64),
            None,
        )

    def _num_positives_used(self, user: int) -> int:
        most = self.options.max_positives_per_user
        count = int(self._counts[user])
        return count if most is None else min(count, most)


def _check_user(ratings: Ratings, user: int) -> None:
    if not 0 <= user < ratings.num_users:
        raise DataError(
            f"{ratings.name} has no user {user}; users are 0 to {ratings.num_users - 1}."
        )
