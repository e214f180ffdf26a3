"""Everything that differs between the two kinds of feedback: questions, measures and means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from fedrecon.data.examples import ImplicitExamples
from fedrecon.data.population import EXPLICIT, IMPLICIT, Population
from fedrecon.evaluation import protocols
from fedrecon.evaluation.metrics import UserResults
from fedrecon.evaluation.protocols import Cases


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure of quality.

    Attributes:
      name: In files and in `UserResults`.
      title: In words.
      unit: Its unit.
      is_error: Whether lower is better.
    """

    name: str
    title: str
    unit: str
    is_error: bool = False

    def best_first(self, values):
        """Returns sort keys of values: the lower the key, the better the value."""
        return values if self.is_error else -values


@dataclasses.dataclass(frozen=True)
class Feedback:
    """One kind of feedback.

    Attributes:
      name: `"explicit"` or `"implicit"`.
      measures: The measures that tables and pictures show; the first stands alone where there is
        room for one.
      chosen_by: The measure by which settings are chosen.
      spread: The measure of one user whose deciles are kept.
      means_over: `"ratings"` or `"users"`.
      means: From results to their means over `means_over`.
      count: From results to how many ratings or users the means are over.
      cases: From a population and the name of a group to the group's questions.
      given_counts: From cases to how many ratings or positives each user gives, `[n]`.
      fewer_given: From a population, the name of a group, its cases, a number and a mask of users
        to the cases of these users when each gives only so many.
      judge: From cases, scores `[n, m]` and the scores' losses `[n, m]` or None to results.
      ranks_all_items: Whether held-out items are also ranked among all items.
      note: What the table of quality means.
    """

    name: str
    measures: tuple[Measure, ...]
    chosen_by: Measure
    spread: Measure
    means_over: str
    means: Callable[[UserResults], dict[str, float]]
    count: Callable[[UserResults], dict[str, int]]
    cases: Callable[[Population, str], Cases]
    given_counts: Callable[[Cases], np.ndarray]
    fewer_given: Callable[[Population, str, Cases, int, np.ndarray], Cases]
    judge: Callable[[Cases, np.ndarray, np.ndarray | None], UserResults]
    ranks_all_items: bool
    note: str


def feedback_of(population: Population) -> Feedback:
    """Returns the kind of feedback of a population."""
    return FEEDBACKS[population.feedback]


def _rating_cases(population: Population, name: str) -> Cases:
    group, given = population.group(name), population.given
    if group.later is not None:
        cases = protocols.later_ratings(given, group.users, group.later)
    elif population.unseen_halves == "by_time":
        cases = protocols.earlier_and_later(given, group.users)
    else:
        batch_size = population.support_batch_size
        cases = protocols.alternating_batches(given, group.users, batch_size=batch_size)
    if group.cold is not None:
        cases = protocols.cold_items(cases, group.cold)
    return dataclasses.replace(cases, scale=population.label_scale)


def _ranking_cases(population: Population, name: str) -> Cases:
    group = population.group(name)
    return protocols.held_out_among_negatives(population.given, group.users, group.held_out)


def _fewer_ratings(population, name, cases, number, who) -> Cases:
    return cases.select(who).give_at_most(number)


def _fewer_positives(population, name, cases, number, who) -> Cases:
    """Each positive comes with its own negatives, so examples are drawn anew."""
    full = population.given
    options = dataclasses.replace(full.options, max_positives_per_user=number)
    return protocols.held_out_among_negatives(
        ImplicitExamples(full.ratings, options), cases.users[who], population.group(name).held_out
    )


_RMSE = Measure("rmse", "RMSE", "unit of the ratings", is_error=True)
_NDCG = Measure("ndcg_at_10", "NDCG@10", "0 to 1")

FEEDBACKS = {
    EXPLICIT: Feedback(
        name=EXPLICIT,
        measures=(
            _RMSE,
            Measure("accuracy", "accuracy", "share of ratings"),
            Measure("rounded_accuracy", "rounded accuracy", "share of ratings"),
        ),
        chosen_by=_RMSE,
        spread=_RMSE,
        means_over="ratings",
        means=UserResults.mean_over_ratings,
        count=lambda results: {"num_examples": int(results.counts.sum())},
        cases=_rating_cases,
        given_counts=lambda cases: np.array([len(labels) for _, labels in cases.given]),
        fewer_given=_fewer_ratings,
        judge=protocols.judge_ratings,
        ranks_all_items=False,
        note="RMSE and accuracies are means over ratings, so users with many ratings count more. "
        "Accuracy is the share of predictions within half a step of the rating, as the FedRecon "
        "paper counts it: a prediction half-way between two steps is right for both. Rounded "
        "accuracy is the share of predictions whose nearest step is the rating; half-way is wrong.",
    ),
    IMPLICIT: Feedback(
        name=IMPLICIT,
        measures=(Measure("hr_at_10", "HR@10", "share of users"), _NDCG),
        chosen_by=_NDCG,
        spread=Measure("mrr", "reciprocal rank", "0 to 1"),
        means_over="users",
        means=UserResults.mean_over_users,
        count=lambda results: {"num_users": int((results.counts > 0).sum())},
        cases=_ranking_cases,
        given_counts=lambda cases: np.array([np.sum(labels >= 1.0) for _, labels in cases.given]),
        fewer_given=_fewer_positives,
        judge=lambda cases, scores, losses: protocols.judge_ranking(cases, scores),
        ranks_all_items=True,
        note="HR@10 and NDCG@10 are means over users. Each held-out item is ranked among the "
        "sampled candidates and, in the columns named full, among all items that the user does not "
        "have.",
    ),
}
