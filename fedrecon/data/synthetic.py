"""Made-up ratings with the shape of MovieLens, for runs that need no download."""

from __future__ import annotations

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import DataError

# Shares of 1 to 5 stars in MovieLens 1M; their mean is 3.58.
_STAR_SHARES = np.array([56_174, 107_557, 261_197, 348_971, 226_310]) / 1_000_209
# Spreads (standard deviations) of what a rating is the sum of. Taste outweighs each bias, so that a
# model which knows the user beats one that knows only averages.
_USER_BIAS, _ITEM_BIAS, _TASTE, _NOISE = 0.4, 0.5, 0.8, 0.6
# Spreads of the logarithms; they give MovieLens 1M's ratio of mean to median.
_ACTIVITY, _POPULARITY = 1.1, 1.3
# How much people choose what they will like: the weight of liking in the logarithm of a choice.
_CHOICE = 0.7
_LARGEST_SHARE = 0.6  # Of the items, rated by one user; 2,314 of 3,706 in MovieLens 1M.
_CHUNK_CELLS = 2**22


def synthetic_ratings(
    *,
    num_users: int = 1_000,
    num_items: int = 600,
    mean_ratings_per_user: float = 80.0,
    min_ratings_per_user: int = 20,
    dim: int = 6,
    seed: int = 0,
) -> Ratings:
    """Returns made-up ratings: planted taste of rank `dim`, user and item biases, and noise.

    Ratings are 1 to 5 whole stars with MovieLens 1M's histogram. Popularity of items and activity
    of users have long tails, and users tend to rate what they like. No two ratings of
    a user have the same time. Every user has ratings, but an unpopular item may have none; original
    ids equal dense ids. The same arguments give the same arrays.

    Takes time in proportion to `num_users * num_items` (6,000 by 3,700: half a second) and memory
    in proportion to the ratings.

    Args:
      num_users: `>= 1`.
      num_items: `>= 2`.
      mean_ratings_per_user: About how many a user has on average, from `min_ratings_per_user` to
        half of the items.
      min_ratings_per_user: `>= 1`.
      dim: Rank of the planted taste, `>= 1`.
      seed: `>= 0`.

    Raises:
      DataError: If an argument is out of range.
    """
    for argument, value, least in (
        ("num_users", num_users, 1),
        ("num_items", num_items, 2),
        ("min_ratings_per_user", min_ratings_per_user, 1),
        ("dim", dim, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise DataError(f"{argument} must be at least {least}; found {value}.")
    if not min_ratings_per_user <= mean_ratings_per_user <= num_items / 2:
        raise DataError(
            f"mean_ratings_per_user must lie between min_ratings_per_user and half of the items, "
            f"{min_ratings_per_user} to {num_items / 2:g}; found {mean_ratings_per_user:g}."
        )

    rng = rng_lib.generator(seed, "synthetic_ratings")
    user_factors = rng.standard_normal((num_users, dim)) / np.sqrt(dim)
    item_factors = rng.standard_normal((num_items, dim))
    item_biases = rng.normal(0, _ITEM_BIAS, num_items)
    log_popularity = rng.normal(0, _POPULARITY, num_items) + item_biases
    counts = _draw_counts(rng, num_users, num_items, mean_ratings_per_user, min_ratings_per_user)

    users, items = _draw_pairs(rng, counts, user_factors, item_factors, log_popularity)
    liking = (
        rng.normal(0, _USER_BIAS, num_users)[users]
        + item_biases[items]
        + _TASTE * np.einsum("nd,nd->n", user_factors[users], item_factors[items])
        + rng.normal(0, _NOISE, len(users))
    )
    # Cut at quantiles, so that the histogram is MovieLens's whatever the arguments.
    stars = 1 + np.searchsorted(np.quantile(liking, np.cumsum(_STAR_SHARES)[:-1]), liking)
    return Ratings(
        name="synthetic",
        user_ids=users,
        item_ids=items,
        ratings=stars,
        timestamps=_draw_timestamps(rng, counts),
        num_users=num_users,
        num_items=num_items,
        original_user_ids=np.arange(num_users),
        original_item_ids=np.arange(num_items),
        item_titles=tuple(f"Item {item}" for item in range(num_items)),
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )


def _draw_counts(
    rng: np.random.Generator, num_users: int, num_items: int, mean: float, least: int
) -> np.ndarray:
    """Returns how many items each user rates: `[num_users]`, int64, with about the given mean."""
    tail = rng.lognormal(0, _ACTIVITY, num_users)
    most = max(int(_LARGEST_SHARE * num_items), int(np.ceil(mean)))
    # Cutting at the largest share takes some of the tail away; stretching the rest gives it back.
    stretch = 0.0 if mean == least else (mean - least) / tail.mean()
    for _ in range(20):
        counts = np.minimum(least + stretch * tail, most)
        stretch *= (mean - least) / max(counts.mean() - least, 1e-12)
    return np.rint(counts).astype(np.int64)


def _draw_pairs(
    rng: np.random.Generator,
    counts: np.ndarray,
    user_factors: np.ndarray,
    item_factors: np.ndarray,
    log_popularity: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns users and distinct items `[num_ratings]`, by user, a user's items in random order."""
    num_items = len(item_factors)
    chunk = max(1, _CHUNK_CELLS // num_items)
    items = []
    for start in range(0, len(counts), chunk):
        # The k largest of log-weight plus Gumbel noise are k draws without replacement.
        wish = user_factors[start : start + chunk] @ (_CHOICE * item_factors.T) + log_popularity
        wish -= np.log(rng.standard_exponential(wish.shape))
        for row, count in zip(wish, counts[start : start + chunk]):
            chosen = np.argpartition(row, num_items - count)[num_items - count :]
            # Sorted, as the order that argpartition leaves differs between processors.
            items.append(np.sort(chosen))
    users = np.repeat(np.arange(len(counts)), counts)
    return users, np.concatenate(items)[np.lexsort((rng.random(len(users)), users))]


def _draw_timestamps(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Returns seconds `[num_ratings]`, int64: each user starts in the year 2000, then rates on."""
    gaps = 1 + rng.exponential(60, counts.sum()).astype(np.int64)
    first = np.cumsum(counts) - counts
    gaps[first] = 0
    elapsed = np.cumsum(gaps)
    starts = 946_684_800 + rng.integers(0, 366 * 86_400, len(counts))
    return elapsed - np.repeat(elapsed[first] - starts, counts)
