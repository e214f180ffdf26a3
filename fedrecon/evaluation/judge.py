"""Judges the states of any algorithm, user by user, on the groups of a population."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from fedrecon.algorithms.algorithm import Algorithm
from fedrecon.data.population import Population
from fedrecon.errors import InputError
from fedrecon.evaluation import protocols
from fedrecon.evaluation.coverage import Coverage, coverage
from fedrecon.evaluation.feedback import feedback_of
from fedrecon.evaluation.metrics import UserResults
from fedrecon.evaluation.protocols import Cases
from fedrecon.evaluation.scoring import ModelScores

NUMBERS_GIVEN = (1, 2, 5, 10, 20, 50)


class Scores(Protocol):
    """What answers the questions of cases."""

    def scores(self, state: Any, cases: Cases) -> np.ndarray:
        """Returns `[n, m]` float32: the score of each item asked about; padding gets anything."""

    def score_blocks(
        self, state: Any, cases: Cases, items: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields places of users in the cases, and their scores of `items`, `[block, items]`."""

    def losses(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
        """Returns the loss of each score, `[n, m]`, or None where there is no loss."""


class Judge:
    """What the states of an algorithm are worth to the users of a population.

    A user whose local part the algorithm keeps is scored with it. Every other user is reconstructed
    from what the user gives, by `algorithm.reconstruction`.
    """

    def __init__(self, algorithm: Algorithm, population: Population):
        """Makes a judge of the states of `algorithm`, trained on `population`."""
        self._set(ModelScores(algorithm), population)

    @classmethod
    def of_scores(cls, scores: Scores, population: Population) -> Judge:
        """Makes a judge of anything else that scores, such as a baseline (`BaselineScores`)."""
        judge = cls.__new__(cls)
        judge._set(scores, population)
        return judge

    def _set(self, scores: Scores, population: Population) -> None:
        self._scores = scores
        self._population = population
        self._feedback = feedback_of(population)
        # A training run asks for the same cases at each evaluation.
        self.cases = functools.lru_cache(maxsize=None)(self._cases)

    def metrics(self, state: Any, group: str) -> dict[str, float]:
        """Returns the means of a group's results, and how many ratings or users they are over."""
        return self.summarize(self.results(state, group))

    def summarize(self, results: UserResults) -> dict[str, float]:
        """Returns the means of results, and how many ratings or users they are over."""
        return {**self._feedback.means(results), **self._feedback.count(results)}

    def results(self, state: Any, group: str) -> UserResults:
        """Returns how well each user of a group is served.

        Args:
          state: A state of the algorithm.
          group: One of the population's groups, such as `"unseen_test"`.

        Raises:
          InputError: If there is no such group, if it is asked nothing, or if scores are not
            finite.
        """
        return self.results_of_cases(state, self.cases(group))

    def results_by_given(self, state: Any, group: str) -> dict[int, UserResults]:
        """Returns how well users are served who give only so many ratings (or positives).

        The users are the same for each number, so that nothing but the number differs: the users
        who can give the largest of `NUMBERS_GIVEN` that at least half of the group can give.
        """
        cases = self.cases(group)
        counts = self._feedback.given_counts(cases)
        most = max((n for n in NUMBERS_GIVEN if np.mean(counts >= n) >= 0.5), default=0)
        results = {}
        for number in NUMBERS_GIVEN:
            if number <= most:
                fewer = self._feedback.fewer_given(
                    self._population, group, cases, number, counts >= most
                )
                results[number] = self.results_of_cases(state, fewer)
        return results

    def results_of_cases(self, state: Any, cases: Cases) -> UserResults:
        """Returns how well the users of some cases are served; errors are those of `results`."""
        if not cases.mask.any():
            raise InputError(
                f"none of the {len(cases.users)} users has enough ratings to be asked for some: in "
                "halves at random a user needs more than support_batch_size ratings."
            )
        if self._feedback.ranks_catalog:
            items = np.arange(self._population.ratings.num_items, dtype=np.int32)
            blocks = self._scores.score_blocks(state, cases, items)
            return protocols.judge_among_catalog(cases, map(_finite, blocks))
        scores = self._scores.scores(state, cases)
        _check_finite(scores[cases.mask])
        return self._feedback.judge(cases, scores, self._scores.losses(cases.labels, scores))

    def full_ranking(self, state: Any, group: str) -> UserResults:
        """Returns how high held-out items come among all items that their users do not have."""
        cases, population = self.cases(group), self._population
        held_out = population.group(group).held_out
        validation = population.groups.get("seen_validation")
        if group == "seen_validation" or validation is None:
            validation_items = {}
        else:
            of_validation = validation.held_out
            validation_items = dict(zip(of_validation.users.tolist(), of_validation.items.tolist()))

        def known_items(user: int) -> np.ndarray:
            known = population.examples.positives(user)
            if user not in validation_items:
                return known
            return np.append(known, validation_items[user])

        items = np.arange(population.ratings.num_items, dtype=np.int32)
        return protocols.full_ranking(
            held_out,
            cases.users,
            known_items=known_items,
            score_blocks=lambda: self._scores.score_blocks(state, cases, items),
        )

    def coverage(self, group: str) -> Coverage:
        """Returns who of a group is judged, on what, and who is not and why."""
        return coverage(self._population, group, self.cases(group))

    def _cases(self, group: str) -> Cases:
        """Returns the users of a group, what they give and what they are asked."""
        return self._feedback.cases(self._population, group)


def _finite(block: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    _check_finite(block[1])
    return block


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise InputError(
            "predictions are not finite: reconstruction or training diverged; smaller learning "
            "rates would help."
        )


class BaselineScores:
    """The scores of trained baselines (`fedrecon.baselines`), which are their own states."""

    def losses(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """See `Scores`; baselines have no loss."""

    def scores(self, state: Any, cases: Cases) -> np.ndarray:
        """See `Scores`."""
        return np.stack(
            [state.score(*given, items) for given, items in zip(cases.given, cases.item_ids)]
        )

    def score_blocks(
        self, state: Any, cases: Cases, items: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Scores`."""
        for place, given in enumerate(cases.given):
            yield np.array([place]), state.score(*given, items)[np.newaxis]
