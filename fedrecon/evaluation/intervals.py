"""How sure a difference between two algorithms is: paired bootstrap intervals over users.

Users differ far more than algorithms do, so the spread of users says little about a difference.
Both algorithms are judged on the same users: each resample draws users with replacement and takes
both algorithms' values of the users drawn (Efron & Tibshirani 1993, "An Introduction to the
Bootstrap", chapter 13: the percentile interval).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedrecon import rng
from fedrecon.evaluation.metrics import UserResults

NUM_RESAMPLES = 1000
_LEVEL = 0.95
# Users times resamples drawn at once: a few MB, which stay in the processor's cache.
_BLOCK = 2**18


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two means, first less second.

    Attributes:
      mean: The difference over all users.
      low: Where the 95% interval begins; minus infinity if a seed has one user alone.
      high: Where it ends; infinity if a seed has one user alone.
    """

    mean: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 0, so that neither is better."""
        return self.low <= 0 <= self.high


@dataclasses.dataclass(frozen=True, eq=False)
class ResampledMeans:
    """The mean of a measure over the users of one seed, and over resamples of these users.

    Attributes:
      mean: Over the users.
      resampled: `[NUM_RESAMPLES]` float64: over each resample; NaN if there is one user alone.
    """

    mean: float
    resampled: np.ndarray


def resampled_means(
    results: Sequence[UserResults], measure: str, *, over: str, seed: int
) -> list[ResampledMeans]:
    """Returns the means of several algorithms, over the same resamples of their users.

    Args:
      results: One an algorithm, for the same users in the same order, at least one.
      measure: One of their measures.
      over: `"ratings"` (each user counts by the number of ratings; `rmse` is the root of the mean
        of squares) or `"users"` (each user counts once).
      seed: Draws the resamples. Calls with the same seed and as many users share them.

    Raises:
      ValueError: If results differ in how many ratings a user has, or nobody has any.
    """
    counts = results[0].counts
    if any(not np.array_equal(other.counts, counts) for other in results):
        raise ValueError("results differ in their users, so their differences are not paired.")
    is_judged = counts > 0
    num_users = int(is_judged.sum())
    if not num_users:
        raise ValueError(f"none of {len(counts)} users was judged, so there is no mean.")
    is_root = over == "ratings" and measure == "rmse"
    weights = counts[is_judged] if over == "ratings" else np.ones(num_users)
    values = np.column_stack([each.values[measure][is_judged] for each in results])
    # A mean is a quotient of two sums over users; the last column is the sum below.
    terms = np.column_stack([(values**2 if is_root else values) * weights[:, np.newaxis], weights])

    def means(sums: np.ndarray) -> np.ndarray:
        quotients = sums[:, :-1] / sums[:, -1:]
        return np.sqrt(quotients) if is_root else quotients

    observed = means(terms.sum(axis=0, keepdims=True))[0]
    resampled = means(_resampled_sums(terms, seed))
    if num_users == 1:  # Every resample is the same user.
        resampled = np.full(resampled.shape, np.nan)
    return [ResampledMeans(float(mean), own) for mean, own in zip(observed, resampled.T)]


def difference(first: Sequence[ResampledMeans], second: Sequence[ResampledMeans]) -> Difference:
    """Returns the difference of two algorithms' means, averaged over seeds.

    Args:
      first: The means of one algorithm, one for each seed, at least one.
      second: The means of the other, for the same seeds; of each seed from the same resamples.
    """
    mean = float(np.mean([a.mean - b.mean for a, b in zip(first, second)]))
    resampled = np.mean([a.resampled - b.resampled for a, b in zip(first, second)], axis=0)
    if np.isnan(resampled).any():
        return Difference(mean, -np.inf, np.inf)
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Difference(mean, float(low), float(high))


def paired_difference(
    first: Sequence[UserResults], second: Sequence[UserResults], measure: str, *, over: str
) -> Difference:
    """Returns the difference of two algorithms' means of a measure, with its 95% interval.

    Users are resampled within each seed. The difference is averaged over seeds.

    Args:
      first: The results of one algorithm, one for each seed, at least one.
      second: The results of the other, for the same seeds; of each seed for the same users in the
        same order.
      measure: One of their measures.
      over: `"ratings"` or `"users"`; see `resampled_means`.

    Raises:
      ValueError: If the numbers of seeds or the users differ, or a seed has nobody judged.
    """
    if len(first) != len(second):
        raise ValueError(f"one has {len(first)} seeds and the other {len(second)}.")
    pairs = [
        resampled_means(pair, measure, over=over, seed=seed)
        for seed, pair in enumerate(zip(first, second))
    ]
    return difference(*zip(*pairs))


def _resampled_sums(terms: np.ndarray, seed: int) -> np.ndarray:
    """Returns the sums over resampled rows of `[users, k]` terms: `[NUM_RESAMPLES, k]`."""
    num_users = len(terms)
    generator = rng.generator(0, "bootstrap", seed)
    sums = []
    block = max(1, _BLOCK // num_users)
    for start in range(0, NUM_RESAMPLES, block):
        size = min(block, NUM_RESAMPLES - start)
        drawn = generator.integers(num_users, size=(size, num_users))
        # How often each resample has each user: a product of matrices then adds up all terms.
        drawn += num_users * np.arange(size)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=size * num_users)
        sums.append(times.reshape(size, num_users) @ terms)
    return np.concatenate(sums)
