"""Everything that differs between the kinds of feedback: questions, measures and means.

Strong generalization, by which users with implicit feedback are asked otherwise, is a kind of its
own here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from fedrecon.data.examples import ImplicitExamples
from fedrecon.data.population import (
    EXPLICIT,
    IMPLICIT,
    STRONG_GENERALIZATION,
    Population,
)
from fedrecon.evaluation import protocols
from fedrecon.evaluation.metrics import UserResults
from fedrecon.evaluation.protocols import Cases

# The end of the name of a mean's standard error over users.
STANDARD_ERROR = "_standard_error"


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
      name: `"explicit"`, `"implicit"` or `"strong_generalization"`.
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
      judge: From cases, scores `[n, m]` and the scores' losses `[n, m]` or None to results. None if
        what is asked for is ranked among the whole catalog, by `protocols.judge_among_catalog`.
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
    judge: Callable[[Cases, np.ndarray, np.ndarray | None], UserResults] | None
    ranks_all_items: bool
    note: str

    @property
    def ranks_catalog(self) -> bool:
        """Whether what is asked for is ranked among the whole catalog."""
        return self.judge is None


def feedback_of(population: Population) -> Feedback:
    """Returns the kind of feedback of a population."""
    return feedback_by(population.feedback, population.split)


def feedback_by(feedback: str, split: str) -> Feedback:
    """Returns the kind of feedback by what is observed and by how users are divided."""
    return FEEDBACKS.get(split, FEEDBACKS[feedback])


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


def _catalog_cases(population: Population, name: str) -> Cases:
    group = population.group(name)
    return protocols.targets_among_catalog(population.given, group.users, group.targets)


def _fewer_of_catalog(population, name, cases, number, who) -> Cases:
    """Whoever gives fewer items is not asked for the others either."""
    full = population.given
    options = dataclasses.replace(full.options, max_positives_per_user=number)
    fewer = ImplicitExamples(full.ratings, options)
    chosen = cases.select(who)
    given = tuple(fewer.examples(user) for user in chosen.users.tolist())
    return dataclasses.replace(chosen, given=given)


def _with_standard_errors(results: UserResults) -> dict[str, float]:
    errors = {f"{name}{STANDARD_ERROR}": value for name, value in results.standard_errors().items()}
    return {**results.mean_over_users(), **errors}


_RMSE = Measure("rmse", "RMSE", "unit of the ratings", is_error=True)
_NDCG = Measure("ndcg_at_10", "NDCG@10", "0 to 1")
_NDCG_OF_TARGETS = Measure("ndcg_at_100", "NDCG@100", "0 to 1")

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
    STRONG_GENERALIZATION: Feedback(
        name=STRONG_GENERALIZATION,
        measures=(
            _NDCG_OF_TARGETS,
            Measure("recall_at_20", "Recall@20", "0 to 1"),
            Measure("recall_at_50", "Recall@50", "0 to 1"),
        ),
        chosen_by=_NDCG_OF_TARGETS,
        spread=_NDCG_OF_TARGETS,
        means_over="users",
        means=_with_standard_errors,
        count=lambda results: {"num_users": int((results.counts > 0).sum())},
        cases=_catalog_cases,
        given_counts=lambda cases: np.array([np.sum(labels >= 1.0) for _, labels in cases.given]),
        fewer_given=_fewer_of_catalog,
        judge=None,
        ranks_all_items=False,
        note="Means are over users. A user gives 80% of the items and is asked for the other 20%, "
        "which are ranked among all items that the user does not give. Recall@k divides by "
        "min(k, items asked for), so that 1 can be reached.",
    ),
}
