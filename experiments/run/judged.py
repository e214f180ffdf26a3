"""Who trained and who was judged, for final_metrics.json, results.json and the screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from experiments.run.settings import Settings, uses
from fedrecon.data.population import Population
from fedrecon.evaluation.coverage import Coverage, num_able_to_train

if TYPE_CHECKING:
    from fedrecon.evaluation.judge import Judge  # It imports TensorFlow.

COVERAGE = "coverage"
TRAINING_USERS = "training_users"
COSTS = "costs"


def record(
    settings: Settings, population: Population, judge: Judge, groups: Iterable[str]
) -> dict[str, Any]:
    """Returns who trained and who of some groups was judged, as JSON.

    Args:
      settings: The settings of the run.
      population: The users.
      judge: Knows what they are asked.
      groups: The names of the groups.
    """
    splits = uses(settings, "support_query_split") and settings.support_query_split != "none"
    able = num_able_to_train(population, more_than=settings.batch_size if splits else 0)
    return {
        TRAINING_USERS: {"num_users": len(population.train), "num_able_to_train": able},
        COVERAGE: {name: dataclasses.asdict(judge.coverage(name)) for name in groups},
    }


def print_record(recorded: Mapping[str, Any], feedback: str) -> None:
    """Prints the same in sentences."""
    training = recorded[TRAINING_USERS]
    number, able = training["num_users"], training["num_able_to_train"]
    if able < number:
        print(
            f"training: only {able:,} of {number:,} users can change the model; the others have "
            "too few ratings for a support and a query."
        )
    for group, values in recorded[COVERAGE].items():
        print(f"{group}: {' '.join(Coverage(**values).sentences(feedback))}")
