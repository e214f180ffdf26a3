"""Who won a comparison, on which users and by how much, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pandas import DataFrame, Series

from experiments.comparison.cells import interval
from experiments.comparison.differences import Pairing
from experiments.comparison.figures import over_seeds
from experiments.comparison.run_table import Runs
from fedrecon.evaluation.feedback import Measure
from fedrecon.evaluation.intervals import Difference


@dataclasses.dataclass(frozen=True)
class Won:
    """A sentence about a winner.

    Attributes:
      algorithm: The winner.
      text: The sentence.
      certainty: Whether the win is outside the noise, in a sentence.
    """

    algorithm: str
    text: str
    certainty: str


def winners(runs: Runs, pairing: Pairing) -> list[Won]:
    """Returns who won; nobody where there are not two algorithms.

    Where the winner has all ratings on one machine, the best of the others follows.
    """
    measure = runs.feedback.measures[0]
    group = main_group(runs.groups)
    unchanged = runs.unchanged
    means = over_seeds(unchanged, "algorithm", f"{group}_{measure.name}")["mean"].dropna()
    if len(means) < 2:
        return []
    order = means.sort_values(key=measure.best_first, kind="stable")
    contest = _Contest(order, measure, group, pairing)
    winner, *others = order.index
    found = [contest.won(winner, others, "", f" on {group} users")]
    federated = _leave_ratings(unchanged, order.index)
    if federated and federated[0] != winner:
        winner, *others = federated
        start = "Of the algorithms that leave the ratings on the devices, "
        found.append(contest.won(winner, others, start))
    return found


def main_group(groups: Sequence[str]) -> str:
    """Returns the group of users by which a winner is chosen."""
    return "unseen_test" if "unseen_test" in groups else groups[-1]


def _leave_ratings(runs: DataFrame, names: Sequence[str]) -> list[str]:
    # What clients send once, in all, are their ratings.
    sends_ratings = runs.groupby("algorithm", observed=True)["bytes_up_once"].first() > 0
    return [name for name in names if not sends_ratings[name]]


@dataclasses.dataclass(frozen=True)
class _Contest:
    """Means of algorithms, the best first, and how sure their differences are."""

    order: Series
    measure: Measure
    group: str
    pairing: Pairing

    def won(self, first: str, others: Sequence[str], start: str, on: str = "") -> Won:
        gaps = {name: self._gap(first, name) for name in others}
        ties = [name for name, found in gaps.items() if found is not None and found.is_noise]
        compared = list(others[:1])
        if first != "popularity" and "popularity" in self.order and "popularity" not in compared:
            compared.append("popularity")
        by = " and ".join(self._better(first, other, ties) for other in compared)
        title, value = self.measure.title, f"{self.order[first]:.3f}"
        if ties:
            text = f"{start}{first} has {title} {value}{on}, a tie with {', '.join(ties)}: {by}."
        else:
            text = f"{start}{first} has the best {title}{on}: {value}{by and ', ' + by}."
        return Won(first, text, _certainty(gaps, ties))

    def _gap(self, one: str, other: str) -> Difference | None:
        """How much better `one` is, whether the measure is an error or not."""
        pair = (other, one) if self.measure.is_error else (one, other)
        found = self.pairing.differences(self.group, self.measure.name, *pair)
        return found and found.over_seeds

    def _better(self, one: str, other: str, ties: Sequence[str]) -> str:
        found = self._gap(one, other)
        by = self.order[one] - self.order[other]
        by = -by if self.measure.is_error else by
        by = by if found is None else found.mean
        text = f"{abs(by):.3f} {'better' if by >= 0 else 'worse'} than {other}"
        if found is None:
            return text
        if by < 0:
            found = Difference(-found.mean, -found.high, -found.low)
        new_tie = "a tie, " if found.is_noise and other not in ties else ""
        return f"{text} ({new_tie}95% interval {interval(found)})"


def _certainty(gaps: Mapping[str, Difference | None], ties: Sequence[str]) -> str:
    """Returns whether differences to the winner are outside the noise."""
    if not gaps:
        return "There is nothing like it to compare it with."
    if ties:
        names = ", ".join(ties)
        return f"Within the noise: the 95% interval of the difference to {names} contains 0."
    unknown = [name for name, found in gaps.items() if found is None]
    if unknown:
        return (
            f"Not known whether it is noise: there are no results of the same single users for "
            f"{', '.join(unknown)}."
        )
    others = "the other" if len(gaps) == 1 else f"each of the {len(gaps)} others"
    return f"Outside the noise: the 95% interval of the difference to {others} excludes 0."
