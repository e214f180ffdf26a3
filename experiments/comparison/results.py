"""What a comparison keeps of a finished run: `compare` writes results.json, `report` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrecon.data.population import GROUPS, Population
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS, Feedback, feedback_of
from fedrecon.runs.run_directory import RESULTS, RunDirectory

Means = Mapping[str, float]
_NUM_SAMPLED = 3
# A table's column of a quantile is named by the share of users.
SHARES = range(0, 101, 10)


@dataclasses.dataclass(frozen=True)
class GroupResults:
    """How well the users of one group are served.

    Attributes:
      means: The means over ratings (explicit feedback) or over users (implicit).
      over_users: The means over users.
      deciles: The deciles over users of the measure `Feedback.spread`, 11 numbers.
      num_users: How many users were asked something.
      num_examples: How many ratings or held-out items they were asked for.
      given: For unseen users: the means if each user gives only so many ratings, by the number.
      full_ranking: With implicit feedback: the means over users where items are ranked among all
        items.
    """

    means: Means
    over_users: Means
    deciles: list[float]
    num_users: int
    num_examples: int
    given: Mapping[str, Means] = dataclasses.field(default_factory=dict)
    full_ranking: Means | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """An unseen user, and what the model recommends to the user.

    Attributes:
      user: The user's id in the data set's own files.
      given: The titles (or ids) of the items that the user rated highest among those given.
      recommended: The titles (or ids) of the best other items, and their scores.
    """

    user: str
    given: list[str]
    recommended: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class RunResults:
    """A finished run.

    Attributes:
      algorithm: Its name.
      seed: Its seed.
      changes: The settings that a sweep changed.
      feedback: The name of the kind of feedback.
      watched_group: The group that was evaluated while training.
      rounds: How many rounds it has; None for a baseline.
      clients_per_round: The size of a cohort; None for a baseline.
      num_training_users: How many users trained.
      seconds: The time of training, evaluations while training included.
      costs: The bytes sent and kept; see `fedrecon.algorithms.algorithm.Costs`.
      groups: The results of each group of users.
      sample: Recommendations for one unseen user; None if there are no unseen users.
    """

    algorithm: str
    seed: int
    changes: Mapping[str, Any]
    feedback: str
    watched_group: str
    rounds: int | None
    clients_per_round: int | None
    num_training_users: int
    seconds: float
    costs: Mapping[str, int]
    groups: Mapping[str, GroupResults]
    sample: Sample | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunResults:
        """Returns the results that `to_json` gave.

        Raises:
          KeyError, TypeError: If something is missing or unknown.
        """
        groups = {name: GroupResults(**group) for name, group in values["groups"].items()}
        for name, group in groups.items():
            for measure in FEEDBACKS[values["feedback"]].measures:
                if measure.name not in group.means:
                    raise KeyError(f"groups.{name}.means.{measure.name}")
        sample = values["sample"] and Sample(**values["sample"])
        return cls(**{**values, "groups": groups, "sample": sample})

    def row(self) -> dict[str, Any]:
        """Returns one row of comparison.csv: every figure, by the name of its column."""
        feedback = FEEDBACKS[self.feedback]
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("changes", "costs", "groups", "sample"):
            del row[name]
        row.update({f"changed_{name}": value_text(v) for name, v in self.changes.items()})
        row.update(self.costs)
        for name, group in self.groups.items():
            row.update({f"{name}_{measure}": value for measure, value in group.means.items()})
            if feedback.means_over != "users":
                row.update({f"{name}_{m}_over_users": v for m, v in group.over_users.items()})
            for measure, value in (group.full_ranking or {}).items():
                row[f"{name}_full_{measure}"] = value
            for share, value in zip(SHARES, group.deciles):
                row[f"{name}_{feedback.spread.name}_quantile_{share}"] = value
            row[f"{name}_num_users"] = group.num_users
            row[f"{name}_num_examples"] = group.num_examples
            for number, means in group.given.items():
                row.update({f"{name}_{m}_given_{number}": v for m, v in means.items()})
        return row


def value_text(value: Any) -> str:
    return "none" if value is None else str(value)


def read_results(run: RunDirectory) -> RunResults | None:
    """Returns the results of a run, or None while it is not finished.

    Raises:
      InputError: If results.json is not one of this version of the project.
    """
    values = run.read_results()
    if values is None:
        return None
    try:
        return RunResults.from_json(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{run.path / RESULTS} is not of this version ({error}); run it again in an empty "
            "directory."
        ) from error


def judged(judge, state: Any, population: Population) -> dict[str, GroupResults]:
    """Returns what a `Judge` says of every group of users, by the group's name."""
    feedback = feedback_of(population)
    return {
        name: _judged(judge, state, name, feedback) for name in GROUPS if name in population.groups
    }


def _judged(judge, state: Any, group: str, feedback: Feedback) -> GroupResults:
    results = judge.results(state, group)
    # Settings are chosen by the means of validation groups; nothing else of them is of use.
    is_test = group.endswith("_test")
    given = {}
    if group == "unseen_test":
        for number, of_number in judge.results_by_given(state, group).items():
            given[str(number)] = dict(feedback.means(of_number))
    full_ranking = None
    if is_test and feedback.ranks_all_items:
        full_ranking = judge.full_ranking(state, group).mean_over_users()
    return GroupResults(
        means=dict(feedback.means(results)),
        over_users=results.mean_over_users(),
        deciles=results.deciles(feedback.spread.name).tolist(),
        num_users=int((results.counts > 0).sum()),
        num_examples=int(results.counts.sum()),
        given=given,
        full_ranking=full_ranking,
    )


def sampled(scores, state: Any, judge, population: Population) -> Sample | None:
    """Returns recommendations for the first user of `unseen_test`, whom every run is asked about.

    Args:
      scores: A `ModelScores` or `BaselineScores`.
      state: What they score.
      judge: Knows the cases of the group.
      population: The users.
    """
    from fedrecon.serving.recommend import recommend

    if "unseen_test" not in population.groups:
        return None
    cases = judge.cases("unseen_test")
    cases = cases.select(np.arange(len(cases.users)) == 0)
    ratings = population.ratings

    def title(item: int) -> str:
        if ratings.item_titles is not None:
            return ratings.item_titles[item]
        return str(ratings.original_item_ids[item])

    items, labels = cases.given[0]
    liked = items[np.argsort(-labels, kind="stable")][:_NUM_SAMPLED]
    best, values = recommend(scores, state, cases, num_items=ratings.num_items, k=_NUM_SAMPLED)
    recommended = [
        (title(item), float(value))
        for item, value in zip(best[0].tolist(), values[0].tolist())
        if item >= 0
    ]
    user = str(ratings.original_user_ids[cases.users[0]])
    return Sample(user, [title(item) for item in liked.tolist()], recommended)
