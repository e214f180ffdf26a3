"""Does one run of a comparison, and judges it on every group of users.

This module imports TensorFlow; see `experiments.run.build`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.comparison import references
from experiments.comparison.planned import Planned, config_of, results_of
from experiments.comparison.results import (
    GroupResults,
    PerUser,
    RunResults,
    Sample,
    write_per_user,
)
from experiments.run import samples, training
from experiments.run.claim import claimed
from experiments.run.population import watched_group
from experiments.run.settings import FREE
from fedrecon.data.population import GROUPS, Population
from fedrecon.evaluation.best_lists import recommend
from fedrecon.evaluation.feedback import feedback_of
from fedrecon.evaluation.judge import BaselineScores, Judge
from fedrecon.evaluation.metrics import UserResults
from fedrecon.evaluation.protocols import Cases
from fedrecon.evaluation.scoring import ModelScores
from fedrecon.evaluation.top_lists import top_list_results
from fedrecon.runs.run_directory import RunDirectory

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
        groups, per_user = judged(done.judge, scores, done.state, population)
        shown = samples.samples_of(scores, done.state, done.judge, population)
        results = RunResults(
            **_head(planned, population),
            watched_group=done.watched_group,
            rounds=chosen.total_rounds,
            clients_per_round=chosen.clients_per_round,
            seconds=round(done.seconds, 2),
            costs=done.algorithm.costs(done.state)._asdict(),
            groups=groups,
            sample=first_sample(shown),
        )
        training.write_model(chosen, population, run, done)
        _write(run, results, per_user, shown)
        return results, True


def run_reference(
    planned: Planned, population: Population, interruption
) -> tuple[RunResults, bool]:
    del interruption  # It takes seconds; there is nothing to save.
    chosen = planned.settings
    run = RunDirectory(planned.path)
    with run.claim(config_of(planned, population), free_settings=FREE):
        finished = results_of(planned)
        if finished:
            return finished, False
        start = time.monotonic()
        model = references.train(chosen, population)
        seconds = time.monotonic() - start
        scores = BaselineScores()
        judge = Judge.of_scores(scores, population)
        groups, per_user = judged(judge, scores, model, population)
        shown = samples.samples_of(scores, model, judge, population)
        results = RunResults(
            **_head(planned, population),
            watched_group=watched_group(chosen),
            rounds=None,
            clients_per_round=None,
            seconds=round(seconds, 2),
            costs=references.costs(chosen, population, model)._asdict(),
            groups=groups,
            sample=first_sample(shown),
        )
        _write(run, results, per_user, shown)
        return results, True


def _write(
    run: RunDirectory,
    results: RunResults,
    per_user: Mapping[str, PerUser],
    shown: Sequence[samples.Sample],
) -> None:
    # A run with results.json is finished, so everything else is written before it.
    samples.write(run, shown)
    write_per_user(run, per_user)
    run.write_results(results.to_json())


def _head(planned: Planned, population: Population) -> dict[str, Any]:
    return {
        "algorithm": planned.algorithm,
        "seed": planned.settings.seed,
        "changes": planned.changes,
        "feedback": feedback_of(population).name,
        "num_training_users": len(population.train),
    }


def judged(
    judge, scores, state: Any, population: Population
) -> tuple[dict[str, GroupResults], dict[str, PerUser]]:
    """Judges every group of users.

    Args:
      judge: A `Judge`.
      scores: A `ModelScores` or `BaselineScores`.
      state: What they judge and score.
      population: The users.

    Returns:
      The results of each group, and the results of each user of the test groups.
    """
    feedback = feedback_of(population)
    groups, per_user = {}, {}
    for name in GROUPS:
        if name not in population.groups:
            continue
        results = judge.results(state, name)
        groups[name] = GroupResults(
            means=dict(feedback.means(results)),
            over_users=results.mean_over_users(),
            deciles=results.deciles(feedback.spread.name).tolist(),
            num_users=int((results.counts > 0).sum()),
            num_examples=int(results.counts.sum()),
            coverage=dataclasses.asdict(judge.coverage(name)),
        )
        # Settings are chosen by the means of validation groups; nothing else of them is of use.
        if not name.endswith("_test"):
            continue
        cases, more, values = judge.cases(name), {}, dict(results.values)
        if name == "cold_test":  # These users have the lists of `unseen_test`.
            per_user[name] = PerUser(cases.users, results)
            continue
        if name == "unseen_test":
            given = judge.results_by_given(state, name)
            more["given"] = {str(n): dict(feedback.means(own)) for n, own in given.items()}
        if feedback.ranks_all_items:
            full = judge.full_ranking(state, name)
            more["full_ranking"] = full.mean_over_users()
            values.update({f"full_{measure}": own for measure, own in full.values.items()})
        more["top_lists"] = _top_lists(scores, state, cases, population)
        groups[name] = dataclasses.replace(groups[name], **more)
        per_user[name] = PerUser(cases.users, UserResults(values, results.counts))
    return groups, per_user


def _top_lists(scores, state: Any, cases: Cases, population: Population) -> dict[str, float]:
    lists, _ = recommend(
        scores,
        state,
        cases,
        num_items=population.ratings.num_items,
        known_items=samples.known_items(cases, population),
    )
    return top_list_results(
        lists,
        item_counts=population.training_counts(),
        num_training_users=len(population.train),
    )


def first_sample(shown: Sequence[samples.Sample]) -> Sample | None:
    """Returns what the first line of a comparison needs; None if there are no unseen users."""
    unseen = [sample for sample in shown if sample.group == "unseen_test"]
    if not unseen:
        return None
    first = unseen[0]
    return Sample(
        first.user,
        [title for title, _ in first.liked[:_NUM_SAMPLED]],
        [(item.title, item.score) for item in first.recommended[:_NUM_SAMPLED]],
    )
