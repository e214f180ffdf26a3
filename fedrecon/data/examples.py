"""What one client gives to a round: its items and labels, in training order."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError, InputError

ORDERS = ("shuffle_once", "shuffle_each_round", "file")


@dataclasses.dataclass(frozen=True)
class ExampleOptions:
    """How ratings become examples.

    Attributes:
      max_ratings_per_user: How many of a user's ratings are kept, the first in the order below,
        `>= 1`; None keeps all.
      order: `"shuffle_once"` (one random order for the whole run), `"shuffle_each_round"` (another
        each round, so a capped user shows other ratings), or `"file"` (as in the data set).
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
    """

    def __init__(self, ratings: Ratings, options: ExampleOptions):
        self.ratings = ratings
        self.options = options
        self._rows = ratings.rows_by_user()
        self._counts = self._rows.counts
        self.users = np.flatnonzero(self._counts)
        # A round takes milliseconds, as drawing its clients' orders does: draw lasting ones once.
        self._lasting_rows: dict[int, np.ndarray] = {}

    def num_examples(self, user: int) -> int:
        """Returns how many examples a user has in any round, 0 for one without ratings.

        Raises:
          DataError: If there is no such user.
        """
        self._check_user(user)
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
        rows = self._rows_to_use(user, round_num)
        labels = self.ratings.ratings[rows]
        if self.options.label_threshold is not None:
            labels = (labels >= self.options.label_threshold).astype(np.float32)
        return self.ratings.item_ids[rows].astype(np.int64), labels

    def _rows_to_use(self, user: int, round_num: int) -> np.ndarray:
        self._check_user(user)
        each_round = self.options.order == "shuffle_each_round"
        if not each_round and user in self._lasting_rows:
            return self._lasting_rows[user]
        rows = self._rows.rows_of(user)
        if self.options.order != "file":
            indices = (user, round_num) if each_round else (user,)
            rng = rng_lib.generator(self.options.seed, "client_examples", *map(int, indices))
            rows = rows[rng.permutation(len(rows))]
        rows = rows[: self.num_examples(user)]
        if not each_round:
            self._lasting_rows[user] = rows
        return rows

    def _check_user(self, user: int) -> None:
        if not 0 <= user < self.ratings.num_users:
            raise DataError(
                f"{self.ratings.name} has no user {user}; users are 0 to "
                f"{self.ratings.num_users - 1}."
            )
