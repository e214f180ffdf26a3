"""Does one run of a comparison, and judges it on every group of users.

This module imports TensorFlow; see `experiments.run.build`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from experiments.comparison import references
from experiments.comparison.planned import Planned, config_of, results_of
from experiments.comparison.results import GroupResults, RunResults, Sample
from experiments.run import training
from experiments.run.claim import claimed
from experiments.run.population import watched_group
from fedrecon.algorithms.algorithm import costs_of_one_machine
from fedrecon.data.population import GROUPS, Population
from fedrecon.evaluation.feedback import Feedback, feedback_of
from fedrecon.evaluation.judge import BaselineScores, Judge
from fedrecon.evaluation.scoring import ModelScores
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.serving.recommend import recommend

_NUM_SAMPLED = 3


def run_algorithm(
    planned: Planned, population: Population, interruption
) -> tuple[RunResults, bool]:
    chosen = planned.settings
    with claimed(chosen, population) as run:
        finished = results_of(planned)
        if finished:
            return finished, False
        done = training.train(chosen, population, run, interruption, title=planned.label)
        scores = ModelScores(done.algorithm)
        results = RunResults(
            **_head(planned, population),
            watched_group=done.watched_group,
            rounds=chosen.total_rounds,
            clients_per_round=chosen.clients_per_round,
            seconds=round(done.seconds, 2),
            costs=done.algorithm.costs(done.state)._asdict(),
            groups=judged(done.judge, done.state, population),
            sample=sampled(scores, done.state, done.judge, population),
        )
        run.write_results(results.to_json())
        return results, True


def run_reference(
    planned: Planned, population: Population, interruption
) -> tuple[RunResults, bool]:
    del interruption  # It takes seconds; there is nothing to save.
    chosen = planned.settings
    run = RunDirectory(planned.path)
    with run.claim(config_of(planned, population)):
        finished = results_of(planned)
        if finished:
            return finished, False
        start = time.monotonic()
        model = references.train(chosen, population)
        seconds = time.monotonic() - start
        scores = BaselineScores()
        judge = Judge.of_scores(scores, population)
        results = RunResults(
            **_head(planned, population),
            watched_group=watched_group(chosen),
            rounds=None,
            clients_per_round=None,
            seconds=round(seconds, 2),
            costs=costs_of_one_machine(population, model.num_bytes)._asdict(),
            groups=judged(judge, model, population),
            sample=sampled(scores, model, judge, population),
        )
        run.write_results(results.to_json())
        return results, True


def _head(planned: Planned, population: Population) -> dict[str, Any]:
    return {
        "algorithm": planned.algorithm,
        "seed": planned.settings.seed,
        "changes": planned.changes,
        "feedback": population.feedback,
        "num_training_users": len(population.train),
    }


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
