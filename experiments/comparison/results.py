"""What a comparison keeps of a finished run: `compare` writes the files, `report` reads them.

results.json has the results of groups of users. user_results.npz has the results of each user of
the test groups, so that differences between algorithms can be paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrecon.errors import DamagedError, InputError
from fedrecon.evaluation.feedback import FEEDBACKS
from fedrecon.evaluation.metrics import UserResults
from fedrecon.runs.run_directory import RESULTS, USER_RESULTS, RunDirectory

Means = Mapping[str, float]
# A table's column of a quantile is named by the share of users.
SHARES = range(0, 101, 10)
# Apart from `users` and `counts`, whatever a measure is named.
_VALUES = "values/"


@dataclasses.dataclass(frozen=True)
class GroupResults:
    """How well the users of one group are served.

    Attributes:
      means: The means over ratings (explicit feedback) or over users (implicit).
      over_users: The means over users.
      deciles: The deciles over users of the measure `Feedback.spread`, 11 numbers.
      num_users: How many users were asked something.
      num_examples: How many ratings or held-out items they were asked for.
      coverage: Who was judged and who was not; the fields of `fedrecon.evaluation.coverage`.
      given: For unseen users: the means if each user gives only so many ratings, by the number.
      full_ranking: With implicit feedback: the means over users where items are ranked among all
        items.
      top_lists: For test groups: what is in the users' lists of the 10 best items; see
        `fedrecon.evaluation.top_lists`.
    """

    means: Means
    over_users: Means
    deciles: list[float]
    num_users: int
    num_examples: int
    coverage: Mapping[str, Any]
    given: Mapping[str, Means] = dataclasses.field(default_factory=dict)
    full_ranking: Means | None = None
    top_lists: Means = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class PerUser:
    """The results of each user of one group.

    Attributes:
      users: `[n]` int64: dense user ids.
      results: Their results; names of measures among all items begin with `full_`.
    """

    users: np.ndarray
    results: UserResults


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
            row.update({f"{name}_{m}": value for m, value in group.top_lists.items()})
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


def write_per_user(run: RunDirectory, per_user: Mapping[str, PerUser]) -> None:
    """Writes the results of each user, by the name of the group."""
    arrays = {}
    for group, own in per_user.items():
        arrays[f"{group}/users"] = own.users
        arrays[f"{group}/counts"] = own.results.counts
        for name, values in own.results.values.items():
            arrays[f"{group}/{_VALUES}{name}"] = values
    run.write_user_results(arrays)


def read_per_user(run: RunDirectory) -> dict[str, PerUser]:
    """Returns what `write_per_user` wrote; no groups if it wrote nothing.

    Raises:
      InputError: If the file is not one of this version of the project.
    """
    arrays = run.read_user_results() or {}
    per_user = {}
    for group in dict.fromkeys(name.partition("/")[0] for name in arrays):
        prefix = f"{group}/{_VALUES}"
        own = {name[len(prefix) :]: v for name, v in arrays.items() if name.startswith(prefix)}
        try:
            results = UserResults(own, arrays[f"{group}/counts"])
            per_user[group] = PerUser(arrays[f"{group}/users"], results)
        except KeyError as error:
            raise DamagedError(
                f"{run.path / USER_RESULTS} has no {error}; run it again."
            ) from error
    return per_user
