"""The scores of a served model, for judges: the users are found and scored as those it serves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedrecon.evaluation.protocols import Cases
from fedrecon.serving.recommender import Recommender

_USERS_AT_ONCE = 256


class RecommenderScores:
    """The scores of recommenders, which are their own states; see `evaluation.judge.Scores`."""

    def losses(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """See `Scores`; a served model has no loss."""

    def scores(self, state: Recommender, cases: Cases) -> np.ndarray:
        """See `Scores`."""
        places = np.maximum(cases.item_ids, 0)
        scores = np.empty(places.shape, np.float32)
        for block, of_items in self._blocks(state, cases):
            scores[block] = np.take_along_axis(of_items, places[block], axis=1)
        return scores

    def score_blocks(
        self, state: Recommender, cases: Cases, items: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Scores`."""
        for block, of_items in self._blocks(state, cases):
            yield block, of_items[:, items]

    def _blocks(self, state: Recommender, cases: Cases) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(cases.users), _USERS_AT_ONCE):
            given = cases.given[start : start + _USERS_AT_ONCE]
            vectors = state.model.user_vectors(given)
            yield np.arange(start, start + len(given)), state.model.scores(vectors)
