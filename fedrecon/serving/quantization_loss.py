"""What a smaller item table costs the users on whom a run is judged, by NumPy alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedrecon.data.population import Population
from fedrecon.evaluation import protocols
from fedrecon.evaluation.feedback import Feedback, feedback_of
from fedrecon.evaluation.protocols import Cases
from fedrecon.serving.item_table import KINDS, StoredTable
from fedrecon.serving.linear import LinearModel
from fedrecon.serving.scores import score_blocks, scores_of_cases


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
    if feedback.ranks_catalog:
        results = protocols.judge_among_catalog(cases, score_blocks(model, cases.given))
    else:
        results = feedback.judge(cases, scores_of_cases(model, cases), None)
    means = feedback.means(results)
    return {measure.name: means[measure.name] for measure in feedback.measures}
