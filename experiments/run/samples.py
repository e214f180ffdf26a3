"""Recommendations for a few test users, which a finished run leaves for a reader: samples.json.

Every run of the same data and seed names the same users, so that lists can be compared.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon.data.population import IMPLICIT, Population
from fedrecon.errors import InputError
from fedrecon.runs.run_directory import SAMPLES, RunDirectory

if TYPE_CHECKING:
    from fedrecon.evaluation.judge import Judge, Scores  # It imports TensorFlow.
    from fedrecon.evaluation.protocols import Cases

NUM_USERS = 3
NUM_ITEMS = 5
# Unseen users show what a model makes of somebody new.
_GROUPS = ("unseen_test", "seen_test")


@dataclasses.dataclass(frozen=True)
class Recommended:
    """An item that a model recommends to a user.

    Attributes:
      title: The title, or the id where there is none.
      score: The score.
      answer: How the user itself rates the item, if the user was asked for it: a rating (explicit)
        or 1 (implicit); None if the user was not asked.
    """

    title: str
    score: float
    answer: float | None


@dataclasses.dataclass(frozen=True)
class Sample:
    """A test user, and what a model recommends to the user.

    Attributes:
      user: The user's id in the data set's own files.
      group: The group of users.
      num_given: How many items the user gives to be known by.
      liked: The titles (or ids) of the items given that the user rates highest, and their ratings;
        with implicit feedback some of the items, and 1.
      recommended: The best other items, the best first.
    """

    user: str
    group: str
    num_given: int
    liked: list[tuple[str, float]]
    recommended: list[Recommended]


def samples_of(scores: Scores, state: Any, judge: Judge, population: Population) -> list[Sample]:
    """Returns recommendations for the first users of `unseen_test`, or of `seen_test`.

    Args:
      scores: A `ModelScores` or `BaselineScores`.
      state: What they score.
      judge: Knows the cases of the group.
      population: The users.
    """
    from fedrecon.evaluation.best_lists import recommend

    group = next((name for name in _GROUPS if name in population.groups), None)
    if group is None:
        return []
    cases = judge.cases(group)
    cases = cases.select(np.arange(len(cases.users)) < NUM_USERS)
    known = known_items(cases, population)
    best, values = recommend(
        scores,
        state,
        cases,
        num_items=population.ratings.num_items,
        k=NUM_ITEMS,
        known_items=known,
    )
    title = population.ratings.item_title
    found = []
    for place, user in enumerate(cases.users.tolist()):
        items, labels = cases.given[place]
        liked = np.argsort(-labels, kind="stable")[: min(NUM_ITEMS, len(known[place]))]
        asked = _answers(cases, place, is_implicit=population.feedback == IMPLICIT)
        found.append(
            Sample(
                user=population.ratings.user_name(user),
                group=group,
                num_given=len(known[place]),
                liked=[(title(items[n]), float(labels[n])) for n in liked.tolist()],
                recommended=[
                    Recommended(title(item), float(score), asked.get(item))
                    for item, score in zip(best[place].tolist(), values[place].tolist())
                    if item >= 0
                ],
            )
        )
    return found


def known_items(cases: Cases, population: Population) -> list[np.ndarray]:
    """Returns the items that a model knows each user to have."""
    if population.feedback == IMPLICIT:  # A user also gives drawn negatives.
        return [population.given.positives(user) for user in cases.users.tolist()]
    return [items for items, _ in cases.given]


def _answers(cases: Cases, place: int, *, is_implicit: bool) -> dict[int, float]:
    """Returns the answers of a user by the item; of a ranking only what is held out."""
    is_real = cases.mask[place]
    asked = dict(
        zip(cases.item_ids[place][is_real].tolist(), cases.labels[place][is_real].tolist())
    )
    return {item: label for item, label in asked.items() if label or not is_implicit}


def write(run: RunDirectory, samples: list[Sample]) -> None:
    """Writes samples.json, whole or not at all."""
    run.write_samples([dataclasses.asdict(sample) for sample in samples])


def read(run: RunDirectory) -> list[Sample]:
    """Returns what `write` wrote; nothing if there is no such file, as of older versions.

    Raises:
      InputError: If the file is damaged.
    """
    path = run.path / SAMPLES
    if not path.exists():
        return []
    try:
        return [_from_json(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _from_json(values: dict[str, Any]) -> Sample:
    liked = [(str(title), float(rating)) for title, rating in values["liked"]]
    recommended = [Recommended(**each) for each in values["recommended"]]
    return Sample(**{**values, "liked": liked, "recommended": recommended})
