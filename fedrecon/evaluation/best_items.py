"""The items with the highest scores."""

from __future__ import annotations

import numpy as np


def best_items(scores: np.ndarray, k: int) -> np.ndarray:
    """Returns the places of the highest scores, the best first; of equal scores the lower place.

    Args:
      scores: `[num_items]` floats; items that are not wanted have `-inf` or NaN.
      k: The most to return, at least 1.

    Returns:
      `[at most k]` int64.
    """
    chosen = np.flatnonzero(scores > -np.inf)
    if len(chosen) > k:
        # Of a large catalog only the few that may be among the best are sorted.
        wanted = scores[chosen]
        least = np.partition(wanted, len(wanted) - k)[len(wanted) - k]
        chosen = chosen[wanted >= least]
    order = np.argsort(-scores[chosen], kind="stable")[:k]
    return chosen[order].astype(np.int64)
