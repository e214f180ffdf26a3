"""Judges the states of any algorithm by the protocols of `fedrecon.evaluation`, user by user."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.run import choices
from experiments.run.data import Clients
from experiments.run.settings import Settings, of_evaluation
from fedrecon.errors import InputError
from fedrecon.evaluation import protocols

if TYPE_CHECKING:
    from fedrecon.evaluation.metrics import UserResults
    from fedrecon.evaluation.protocols import Cases
    from fedrecon.evaluation.scoring import Scorer

# Users of a shard; they have up to a catalogue of candidates each.
_CLIENTS_PER_SHARD = 32
NUMBERS_GIVEN = (1, 2, 5, 10, 20, 50)


class Judge:
    """What an algorithm's states are worth, to users it saw in training and to others.

    A user whose local part the algorithm keeps is scored with it. Everybody else is reconstructed
    from what they give, by the settings of reconstruction, whatever the algorithm.
    """

    def __init__(
        self,
        settings: Settings,
        clients: Clients,
        get_weights: Callable[[Any], Any] | None,
        kept_rows: Callable[[Any, np.ndarray], tuple[list[np.ndarray], np.ndarray]] | None = None,
    ):
        """Makes a judge.

        Args:
          settings: The settings of the run.
          clients: Its people.
          get_weights: From a state to the `ModelWeights` of the global part.
          kept_rows: From a state and user ids to the users' local values, `[n, ...]` each, and who
            has some, `[n]` bool; None where nobody does.
        """
        self._settings = settings
        self._clients = clients
        self._get_weights = get_weights
        self._kept_rows = kept_rows

    def metrics(self, state: Any, part: str) -> dict[str, float]:
        """Returns the means of a part: over ratings where they are predicted, else over users."""
        results = self.results(state, part)
        if self._settings.is_explicit:
            return {**results.mean_over_ratings(), "num_examples": int(results.counts.sum())}
        return {**results.mean_over_users(), "num_users": int((results.counts > 0).sum())}

    def cases(self, part: str) -> Cases:
        """Returns the users of a part, what they give and what they are asked."""
        is_explicit = self._settings.is_explicit
        parts = self._clients.users if is_explicit else self._clients.held_out
        if part not in parts:
            raise InputError(
                f"this run has no {part} users to evaluate; it has {', '.join(parts)}."
            )
        users, examples = self._clients.users[part], self._clients.examples
        if not is_explicit:
            return protocols.held_out_among_negatives(examples, users, self._clients.held_out[part])
        if part in self._clients.later:
            return protocols.later_ratings(examples, users, self._clients.later[part])
        return protocols.unseen_user_ratings(
            examples,
            users,
            batch_size=self._settings.batch_size,
            support_query_split=self._settings.support_query_split,
        )

    def results(self, state: Any, part: str) -> UserResults:
        """Returns how well each user of a part is served."""
        return self.results_of_cases(state, self.cases(part))

    def results_by_given(self, state: Any, part: str) -> dict[int, UserResults]:
        """Returns how well users are served who give only so many ratings (or positives).

        They are the same users for each number, so that nothing but the number differs: those who
        can give the largest of `NUMBERS_GIVEN` that at least half of the part can.
        """
        cases = self.cases(part)
        is_positive = 0.0 if self._settings.is_explicit else 1.0
        counts = np.array([np.sum(labels >= is_positive) for _, labels in cases.given])
        most = max((n for n in NUMBERS_GIVEN if np.mean(counts >= n) >= 0.5), default=0)
        results = {}
        for number in NUMBERS_GIVEN:
            if number <= most:
                fewer = self._cases_of_given(cases, part, number, counts >= most)
                results[number] = self.results_of_cases(state, fewer)
        return results

    def _cases_of_given(self, cases: Cases, part: str, number: int, who: np.ndarray) -> Cases:
        if self._settings.is_explicit:
            return cases.select(who).give_at_most(number)
        # With the negatives that come with so many positives.
        from fedrecon.data.examples import ImplicitExamples

        full = self._clients.examples
        options = dataclasses.replace(full.options, max_positives_per_user=number)
        return protocols.held_out_among_negatives(
            ImplicitExamples(full.ratings, options), cases.users[who], self._clients.held_out[part]
        )

    def results_of_cases(self, state: Any, cases: Cases) -> UserResults:
        """Returns how well the users of some cases are served."""
        if not cases.mask.any():
            raise InputError(
                f"the {len(cases.users)} users have no query ratings: none has more than one batch;"
                " a smaller batch size would leave them some."
            )
        scores = self._scores(state, cases)
        if self._settings.is_explicit:
            results = protocols.judge_ratings(cases, scores)
            if not np.isfinite(results.mean_over_ratings()["rmse"]):
                raise InputError(_DIVERGED)
            return results
        if not np.isfinite(scores).all():
            raise InputError(_DIVERGED)
        return protocols.judge_ranking(scores)

    def full_ranking(self, state: Any, part: str) -> UserResults:
        """Returns how high held-out items come among all items that their users do not have."""
        cases, clients = self.cases(part), self._clients
        validation = clients.held_out.get("validation")
        items = np.arange(clients.ratings.num_items, dtype=np.int32)

        def known_items(user: int) -> np.ndarray:
            known = clients.examples.positives(user)
            if validation is None or part == "validation":
                return known
            of_user = validation.items[validation.users == user]
            return np.concatenate([known, of_user])

        return protocols.full_ranking(
            clients.held_out[part],
            cases.users,
            known_items=known_items,
            score_blocks=lambda: self._score_blocks(state, cases, items),
        )

    def _scores(self, state, cases: Cases) -> np.ndarray:
        weights = self._get_weights(state)
        local_values = self._local_values(state, weights, cases)
        return self._scorer.scores(weights, local_values, cases.item_ids)

    def _score_blocks(self, state, cases: Cases, items: np.ndarray):
        weights = self._get_weights(state)
        local_values = self._local_values(state, weights, cases)
        return self._scorer.score_blocks(weights, local_values, items)

    def _local_values(self, state, weights, cases: Cases) -> list[np.ndarray]:
        if self._kept_rows is None:
            return self._scorer.local_values(weights, cases.users, cases.given)
        values, is_kept = self._kept_rows(state, cases.users)
        if not is_kept.all():
            others = cases.select(~is_kept)
            fresh = self._scorer.local_values(weights, others.users, others.given)
            for value, of_others in zip(values, fresh):
                value[~is_kept] = of_others
        return values

    @functools.cached_property
    def _scorer(self) -> Scorer:
        shared = _scorer(of_evaluation(self._settings), self._clients.ratings.num_items)
        packing = dataclasses.replace(shared.packing, seed=self._settings.seed)
        return dataclasses.replace(shared, packing=packing)


@functools.lru_cache(maxsize=4)
def _scorer(settings: Settings, num_items: int) -> Scorer:
    """Returns a scorer, which takes seconds to trace and compile, once for all of a comparison."""
    from fedrecon.algorithms import fed_ials, fed_recon
    from fedrecon.evaluation.scoring import Scorer
    from fedrecon.wiring import at_clients

    build_model = choices.model_fn(settings, num_items)
    size = _CLIENTS_PER_SHARD
    if settings.is_fed_ials:
        algorithm, options = fed_ials, choices.fed_ials_options(settings)
        packing = fed_ials.packing_options(seed=0)
    else:
        algorithm, options = fed_recon, choices.fed_recon_options(settings)
        packing = fed_recon.reconstruction_packing_options(options, seed=0)
    return Scorer(
        reconstruct=algorithm.build_reconstruction(build_model, options, clients_per_shard=size),
        score=at_clients.build_scoring(build_model, clients_per_shard=size),
        make_candidates=at_clients.Candidates,
        packing=packing,
        clients_per_shard=size,
    )


class ClassicalJudge(Judge):
    """The same for models that score users by what they give, by their method `score`."""

    def __init__(self, settings: Settings, clients: Clients):
        super().__init__(settings, clients, None)

    def _scores(self, state, cases):
        return np.stack(
            [state.score(*given, items) for given, items in zip(cases.given, cases.item_ids)]
        )

    def _score_blocks(self, state, cases, items):
        for place, given in enumerate(cases.given):
            yield np.array([place]), state.score(*given, items)[np.newaxis]


_DIVERGED = (
    "predictions are not finite: reconstruction or training diverged; smaller learning rates would "
    "help."
)
