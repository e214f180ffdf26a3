"""The scores of a served model, block by block, and for judges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fedrecon.evaluation.protocols import Cases
from fedrecon.serving.linear import Given, LinearModel

if TYPE_CHECKING:
    from fedrecon.serving.recommender import Recommender
    from fedrecon.serving.stepwise import StepwiseModel

# Scores of a block of users: 4 bytes each.
_SCORES_AT_ONCE = 4_000_000


def score_blocks(
    model: LinearModel | StepwiseModel, given: Given
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields places of users, and their scores of all items, `[block, num_items]`.

    Args:
      model: The model.
      given: What each user gives.
    """
    size = max(1, _SCORES_AT_ONCE // model.num_items)
    for start in range(0, len(given), size):
        part = given[start : start + size]
        yield np.arange(start, start + len(part)), model.scores(model.user_vectors(part))


def scores_of_cases(model: LinearModel | StepwiseModel, cases: Cases) -> np.ndarray:
    """Returns `[n, m]` float32: the score of each item asked about; padding gets anything."""
    items = np.maximum(cases.item_ids, 0)
    scores = np.empty(items.shape, np.float32)
    for block, of_items in score_blocks(model, cases.given):
        scores[block] = np.take_along_axis(of_items, items[block], axis=1)
    return scores


class RecommenderScores:
    """The scores of recommenders, which are their own states; see `evaluation.judge.Scores`."""

    def losses(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """See `Scores`; a served model has no loss."""

    def scores(self, state: Recommender, cases: Cases) -> np.ndarray:
        """See `Scores`."""
        return scores_of_cases(state.model, cases)

    def score_blocks(
        self, state: Recommender, cases: Cases, items: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Scores`."""
        for block, of_items in score_blocks(state.model, cases.given):
            yield block, of_items[:, items]
