"""What a smaller item table costs the users on whom a run is judged, by NumPy alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fedrecon.data.population import Population
from fedrecon.evaluation.feedback import Feedback, feedback_of
from fedrecon.evaluation.protocols import Cases
from fedrecon.serving.item_table import KINDS, StoredTable
from fedrecon.serving.linear import LinearModel

# Scores of a block of users: 4 bytes each.
_SCORES_AT_ONCE = 4_000_000


def quantization_loss(model: LinearModel, population: Population) -> dict[str, Any]:
    """Returns the measures of the model with each kind of item table, as JSON values.

    The users are those of `unseen_test`, or of `seen_test` where nobody is left out of training;
    all are reconstructed from what they give.

    Args:
      model: The model.
      population: The users that it was trained and judged on.

    Returns:
      `group`, `num_users`, `measures` (by kind and name), and `change_from_float32` (likewise).
    """
    feedback = feedback_of(population)
    group = "unseen_test" if "unseen_test" in population.groups else "seen_test"
    cases = feedback.cases(population, group)
    measures = {
        kind: _measures(dataclasses.replace(model, factors=table.to_float32()), cases, feedback)
        for kind, table in ((kind, StoredTable.of(model.factors, kind)) for kind in KINDS)
    }
    changes = {
        kind: {name: value - measures["float32"][name] for name, value in found.items()}
        for kind, found in measures.items()
    }
    return {
        "group": group,
        "num_users": int(cases.mask.any(axis=1).sum()),
        "measures": measures,
        "change_from_float32": changes,
    }


def _measures(model: LinearModel, cases: Cases, feedback: Feedback) -> dict[str, float]:
    means = feedback.means(feedback.judge(cases, _scores(model, cases), None))
    return {measure.name: means[measure.name] for measure in feedback.measures}


def _scores(model: LinearModel, cases: Cases) -> np.ndarray:
    """Returns `[n, m]` float32: the score of each item asked about; padding gets anything."""
    vectors = model.user_vectors(cases.given)
    scores = np.empty(cases.item_ids.shape, np.float32)
    size = max(1, _SCORES_AT_ONCE // model.num_items)
    for start in range(0, len(vectors), size):
        part = slice(start, start + size)
        items = np.maximum(cases.item_ids[part], 0)
        scores[part] = np.take_along_axis(model.scores(vectors[part]), items, axis=1)
    return scores
