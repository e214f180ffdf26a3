"""Recommendations: the items that a model scores highest for a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedrecon.evaluation.best_items import best_items
from fedrecon.evaluation.judge import Scores
from fedrecon.evaluation.protocols import Cases


def recommend(
    scores: Scores,
    state: Any,
    cases: Cases,
    *,
    num_items: int,
    k: int = 10,
    known_items: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best items for users, without the items that they have.

    Args:
      scores: Scores the states of an algorithm (`ModelScores`) or a baseline (`BaselineScores`).
      state: The state.
      cases: The users, and what each gives to be known by; what they are asked does not matter.
      num_items: How many items there are; ids are in `[0, num_items)`.
      k: How many items to recommend, at least 1.
      known_items: The items that each user has, `[n]` arrays of int64; None means all that the user
        gives. With implicit feedback a user also gives drawn negatives, which it does not have.

    Returns:
      Item ids int64 and their scores float32, both `[n, k]`, the best first; of equal scores the
      lower id comes first. Where a user has fewer than `k` other items, the rest is -1, with score
      `-inf`.
    """
    items = np.arange(num_items, dtype=np.int32)
    if known_items is None:
        known_items = [given for given, _ in cases.given]
    best = np.full((len(cases.users), k), -1, np.int64)
    values = np.full((len(cases.users), k), -np.inf, np.float32)
    for places, block in scores.score_blocks(state, cases, items):
        for place, of_user in zip(places.tolist(), np.array(block)):
            of_user[known_items[place]] = -np.inf
            found = best_items(of_user, k)
            best[place, : len(found)] = found
            values[place, : len(found)] = of_user[found]
    return best, values
