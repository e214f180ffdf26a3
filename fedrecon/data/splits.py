"""Ways to hold out ratings; each says what it guarantees and what it cannot measure."""

from __future__ import annotations

import dataclasses
import fractions as fractions_lib
import math
from typing import NamedTuple

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Three parts of a data set, in its id space; every rating is in exactly one."""

    train: Ratings
    validation: Ratings
    test: Ratings


def split_by_user(
    ratings: Ratings,
    *,
    seed: int,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    known_parts: np.ndarray | None = None,
) -> Split:
    """Returns a split by users drawn at random.

    Guarantees: no user is in two parts, so test users are unseen; of `n` users with ratings,
    `floor(0.8 n)` train, `floor(0.9 n) - floor(0.8 n)` validate and the rest test (likewise for
    other fractions, in exact arithmetic).

    Cannot measure: how the future is predicted (train holds ratings later than those of test), or
    how a user seen in training is served.

    Args:
      ratings: What to split.
      seed: Draws the users, `>= 0`.
      fractions: Shares of the users for train, validation and test; above 0, with sum 1.
      known_parts: `[num_users]` integers: the part (0, 1 or 2) of a user who had one before, and -1
        for the others, who alone are drawn. None draws all.

    Raises:
      DataError: If the fractions are unusable, or so few users have ratings that a part is empty.
    """
    boundaries = _boundaries(fractions)
    users = np.unique(ratings.user_ids)
    part_of_user = np.full(ratings.num_users, -1, np.int8)
    if known_parts is not None:
        part_of_user[:] = known_parts
        users = users[part_of_user[users] == -1]
    first, second = (math.floor(boundary * len(users)) for boundary in boundaries)
    if known_parts is None and not 0 < first < second < len(users):
        raise DataError(
            f"{ratings.name} has {len(users)} users with ratings; splitting them by fractions "
            f"{tuple(fractions)} needs {_num_sufficient(boundaries)} for a user in every part."
        )
    drawn = rng_lib.generator(seed, "split_by_user").permutation(users)
    for part, of_part in enumerate(np.split(drawn, (first, second))):
        part_of_user[of_part] = part
    return _select_parts(ratings, part_of_user[ratings.user_ids])


class TimeOrder(NamedTuple):
    """The order in time of each user's ratings; every array is `[num_ratings]`.

    Attributes:
      ranks: int64, the 0-based rank of a row within its user. Equal times are in random order.
      counts: int64, how many ratings the row's user has.
      is_tied: bool, whether the row's time is that of the row ranked just before it.
    """

    ranks: np.ndarray
    counts: np.ndarray
    is_tied: np.ndarray


class HeldOut(NamedTuple):
    """What `hold_out_latest` returns.

    Attributes:
      kept: The ratings that remain.
      held_out: The ratings held out.
      num_tied: How many users have a rating that remains and a held-out one with the same time, so
        that the seed decided between them.
    """

    kept: Ratings
    held_out: Ratings
    num_tied: int


def split_by_time(
    ratings: Ratings,
    *,
    seed: int,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    known_parts: np.ndarray | None = None,
) -> Split:
    """Returns a split of each user's ratings by time.

    Guarantees: within a user, train is never later than validation, nor validation than test. The
    `r`-th of a user's `n` ratings (1-based; equal times at random) trains if `r / n <= 0.8`,
    validates if `r / n <= 0.9` and tests otherwise (likewise for other fractions, in exact
    arithmetic). So a user with few ratings may lack a part: by default, a single rating tests.

    Cannot measure: users never seen (every part has the same users), or forecasting (another user's
    train ratings may be later than this user's test ratings).

    Args:
      ratings: What to split; needs timestamps.
      seed: Orders equal times, `>= 0`.
      fractions: Shares of each user's ratings for train, validation and test; above 0, with sum 1.

    Raises:
      DataError: If there are no timestamps, the fractions are unusable, or a part is empty because
        no user has enough ratings.
    """
    boundaries = _boundaries(fractions)
    ranks, counts, _ = order_in_time(ratings, "split_by_time", seed=seed)
    # Exact sizes by Python's fractions, once per distinct count.
    distinct, which = np.unique(counts, return_inverse=True)
    first, second = (
        np.array([math.floor(boundary * count) for count in distinct.tolist()], np.int64)[which]
        for boundary in boundaries
    )
    parts = (ranks >= first).astype(np.int8) + (ranks >= second)
    if len(np.unique(parts)) < 3:
        raise DataError(
            f"{ratings.name} has {len(np.unique(ratings.user_ids))} users with ratings, of at most "
            f"{counts.max(initial=0)} each; splitting them by fractions {tuple(fractions)} needs "
            f"one with {_num_sufficient(boundaries)} for a rating in every part."
        )
    return _select_parts(ratings, parts)


def split_leave_one_out(ratings: Ratings, *, seed: int) -> Split:
    """Returns a split that holds out each user's last ratings.

    Guarantees: of a user with at least 3 ratings, the last (equal times at random) tests and the
    one before validates; a user with fewer trains only.

    Cannot measure: users never seen, users with fewer than 3 ratings, or forecasting (another
    user's train ratings may be later than this user's test rating).

    Args:
      ratings: What to split; needs timestamps.
      seed: Orders equal times, `>= 0`.

    Raises:
      DataError: If there are no timestamps, or no user has 3 ratings.
    """
    ranks, counts, _ = order_in_time(ratings, "split_leave_one_out", seed=seed)
    if counts.max(initial=0) < 3:
        raise DataError(
            f"{ratings.name} has {len(np.unique(ratings.user_ids))} users with ratings, of at most "
            f"{counts.max(initial=0)} each; split_leave_one_out needs a user with 3."
        )
    from_last = counts - ranks
    parts = np.where(counts < 3, 0, np.select([from_last == 1, from_last == 2], [2, 1], 0))
    return _select_parts(ratings, parts)


def hold_out_latest(ratings: Ratings, users: np.ndarray, *, fraction: float, seed: int) -> HeldOut:
    """Holds out the latest ratings of some users.

    Guarantees: of a user's `n` ratings the last `floor(fraction * n)` (equal times at random) are
    held out; within a user, none that remains is later. Other users keep all theirs.

    Cannot measure: users never seen, or forecasting (another user's remaining ratings may be later
    than this user's held-out ones).

    Args:
      ratings: What to hold out from; needs timestamps.
      users: Of whom, user ids.
      fraction: The share, above 0 and below 1.
      seed: Orders equal times, `>= 0`.

    Raises:
      DataError: If there are no timestamps, the fraction is out of range, or nobody has enough
        ratings for one to be held out.
    """
    exact = exact_fraction(fraction) if 0 < fraction < 1 else 0
    if not 0 < exact < 1:
        raise DataError(f"the fraction held out must be above 0 and below 1; found {fraction}.")
    ranks, counts, is_tied = order_in_time(ratings, "hold_out_latest", seed=seed)
    num_held_out = counts * exact.numerator // exact.denominator
    is_held_out = np.isin(ratings.user_ids, users) & (ranks >= counts - num_held_out)
    if not is_held_out.any():
        raise DataError(
            f"{ratings.name}: none of {len(users)} users has {math.ceil(1 / exact)} ratings, of"
            f" which a share of {fraction:g} would be one."
        )
    is_first = is_held_out & (ranks == counts - num_held_out)
    num_tied = int(np.count_nonzero(is_first & is_tied))
    return HeldOut(ratings.select(~is_held_out), ratings.select(is_held_out), num_tied)


def hold_out_items(ratings: Ratings, *, fraction: float, seed: int) -> tuple[Ratings, Ratings]:
    """Holds out all ratings of some items, drawn at random: these items are cold.

    Guarantees: of `n` items with ratings, `floor(fraction * n)` are cold; a cold item keeps no
    rating, whoever rates it, and every other item keeps all of its ratings.

    Cannot measure: how new items fare. Items drawn at random are as old and as popular as all
    others, and their ratings are from users who chose them in full knowledge of the catalog.

    Args:
      ratings: What to hold out from.
      fraction: The share, above 0 and below 1.
      seed: Draws the items, `>= 0`.

    Returns:
      The ratings of the other items, and the ratings of the cold items.

    Raises:
      DataError: If the fraction is out of range, or is less than one item.
    """
    exact = exact_fraction(fraction) if 0 < fraction < 1 else 0
    if not 0 < exact < 1:
        raise DataError(
            f"the fraction of cold items must be above 0 and below 1; found {fraction}."
        )
    items = np.unique(ratings.item_ids)
    number = math.floor(exact * len(items))
    if not number:
        raise DataError(
            f"{ratings.name} has {len(items)} items with ratings, of which a share of {fraction:g}"
            f" is none; {math.ceil(1 / exact)} items would do."
        )
    cold = rng_lib.generator(seed, "hold_out_items").permutation(items)[:number]
    is_cold = np.isin(ratings.item_ids, cold)
    return ratings.select(~is_cold), ratings.select(is_cold)


def exact_fraction(number: float) -> fractions_lib.Fraction:
    """Returns the simplest fraction near a number, which is what was meant: 1/10 for 0.1.

    In floating point, 0.8 + 0.1 is not 0.9 and 0.29 * 100 is not 29.

    Raises:
      TypeError, ValueError, OverflowError: If it is no finite number.
    """
    return fractions_lib.Fraction(number).limit_denominator(1_000_000)


def _boundaries(fractions: tuple[float, float, float]) -> tuple[fractions_lib.Fraction, ...]:
    """Returns where train and where validation end, exactly: 4/5 and 9/10 for (0.8, 0.1, 0.1)."""
    problem = DataError(
        f"fractions must be three numbers above 0 with sum 1 (train, validation, test); found "
        f"{fractions!r}."
    )
    try:
        exact = [exact_fraction(f) for f in fractions]
    except (TypeError, ValueError, OverflowError):
        raise problem from None
    if len(exact) != 3 or min(exact) <= 0 or sum(exact) != 1:
        raise problem
    return exact[0], exact[0] + exact[1]


def _num_sufficient(boundaries: tuple[fractions_lib.Fraction, ...]) -> int:
    """Returns from how many on no part is empty, at the latest."""
    first, second = boundaries
    return math.ceil(1 / min(first, second - first, 1 - second))


def order_in_time(ratings: Ratings, caller: str, *, seed: int) -> TimeOrder:
    """Returns the order in time of each user's ratings.

    Ratings of one user with the same time are put in an order that follows from the seed, the user
    and the items, and from nothing else. Lines of public files are often sorted by item, so the
    order of lines must not decide what is latest: with times cut to days, iALS had HR@10 0.240 on
    MovieLens 100K sorted by item, and 0.764 on the same lines shuffled.

    Args:
      ratings: Whose rows.
      caller: Named in the message.
      seed: `>= 0`.

    Raises:
      DataError: If there are no timestamps.
    """
    if ratings.timestamps is None:
        raise DataError(f"{ratings.name} has no timestamps, which {caller} needs.")
    users, times = ratings.user_ids, ratings.timestamps
    lots = rng_lib.derive_seeds(seed, "equal_times", ids=ratings.pairs())
    order = np.lexsort((lots, times, users))
    # Rows are by user, so a user's first place is the same before and after.
    counts = ratings.counts()
    starts = np.cumsum(counts) - counts
    ranks = np.empty(ratings.num_ratings, np.int64)
    ranks[order] = np.arange(ratings.num_ratings) - starts[users]
    is_tied = np.zeros(ratings.num_ratings, bool)
    before, after = order[:-1], order[1:]
    is_tied[after] = (users[before] == users[after]) & (times[before] == times[after])
    return TimeOrder(ranks, counts[users], is_tied)


def _select_parts(ratings: Ratings, parts: np.ndarray) -> Split:
    return Split(*(ratings.select(np.flatnonzero(parts == part)) for part in range(3)))
