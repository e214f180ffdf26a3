"""Protocols: who is evaluated, what they give, which items are asked about, which mean is taken.

A protocol writes `Cases` or candidates; a model scores them and knows nothing else; the metrics are
functions of arrays (`metrics`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from fedrecon.data.held_out import HeldOutItems
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import InputError
from fedrecon.evaluation import metrics

CUTOFFS = (5, 10, 20)
# As Liang et al. 2018 report them.
RECALL_AT, NDCG_AT = (20, 50), (100,)


class Examples(Protocol):
    """What users train on: `ClientExamples`, `ImplicitExamples`."""

    def examples(self, user: int, round_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns item ids and labels."""


class PositiveExamples(Examples, Protocol):
    """What users with implicit feedback give: `ImplicitExamples`."""

    def positives(self, user: int) -> np.ndarray:
        """Returns the items that the user has, among those that may be given."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """Some users, what each gives to be known by, and the items asked about.

    Attributes:
      users: `[n]` int64.
      given: For each user item ids int64 `[g]` and labels float32 `[g]`, which the local part may
        be fitted to.
      item_ids: `[n, m]` int32: the items asked about; -1 is padding.
      labels: `[n, m]` float32: for ratings, the answers; for rankings, 1 for what is held out.
      scale: For ratings, the labels that exist; None for rankings.
      num_copies: `[n]` int: for rankings, how often the user's held-out item is among its own
        negatives. Such a copy is no candidate.
      known: Where the items asked about are ranked among the whole catalog: for each user the items
        int64 `[h]` that are no candidates, because the user has them; None for other questions.
    """

    users: np.ndarray
    given: tuple[tuple[np.ndarray, np.ndarray], ...]
    item_ids: np.ndarray
    labels: np.ndarray
    scale: RatingScale | None = None
    num_copies: np.ndarray | None = None
    known: tuple[np.ndarray, ...] | None = None

    @property
    def mask(self) -> np.ndarray:
        """`[n, m]` bool: which entries are real."""
        return self.item_ids >= 0

    def select(self, which: np.ndarray) -> Cases:
        """Returns the cases of some users, by a bool mask `[n]`."""

        def chosen(of_users: tuple) -> tuple:
            return tuple(own for own, is_chosen in zip(of_users, which) if is_chosen)

        return dataclasses.replace(
            self,
            users=self.users[which],
            given=chosen(self.given),
            known=None if self.known is None else chosen(self.known),
            item_ids=self.item_ids[which],
            labels=self.labels[which],
            num_copies=None if self.num_copies is None else self.num_copies[which],
        )

    def give_at_most(self, number: int) -> Cases:
        """Returns the same questions to users who give only their first `number` examples."""
        given = tuple((items[:number], labels[:number]) for items, labels in self.given)
        return dataclasses.replace(self, given=given)


def alternating_batches(examples: Examples, users: np.ndarray, *, batch_size: int) -> Cases:
    """Returns reconstruction evaluation (Singhal et al. 2021, arXiv:2102.03448, section 5).

    Even batches of a user's examples are given, odd ones asked for. For users who took no part in
    training. Users with at most one batch are asked nothing.
    """
    return _parts(examples, users, lambda number: np.arange(number) // batch_size % 2 == 0)


def earlier_and_later(examples: Examples, users: np.ndarray) -> Cases:
    """Returns reconstruction evaluation in which time decides.

    The first half of a user's examples is given (of an odd number, one more than the other half),
    and the second half is asked for. For users who took no part in training. Users with one
    example are asked nothing.

    Args:
      examples: Each user's in the order of time.
      users: Who, `[n]`.
    """
    return _parts(examples, users, lambda number: np.arange(number) < (number + 1) // 2)


def _parts(examples: Examples, users: np.ndarray, is_given: Callable[[int], np.ndarray]) -> Cases:
    """Gives a part of each user's examples, and asks for the others."""
    given, asked = [], []
    for user in users.tolist():
        items, labels = examples.examples(user)
        first = is_given(len(items))
        given.append((items[first], labels[first]))
        asked.append((items[~first], labels[~first]))
    return _cases(users, given, asked)


def later_ratings(examples: Examples, users: np.ndarray, later: Examples) -> Cases:
    """Returns standard evaluation: of users seen in training, later ratings are asked for.

    All their training examples are given, for those whose local part is not kept.

    Args:
      examples: What they trained on, which holds nothing of `later`.
      users: Who, `[n]`.
      later: Their later ratings.
    """
    given = [examples.examples(user) for user in users.tolist()]
    return _cases(users, given, [later.examples(user) for user in users.tolist()])


def cold_items(cases: Cases, cold: Examples) -> Cases:
    """Returns the same users, who give the same, and are asked for ratings of cold items instead.

    Args:
      cases: Whose given ratings count.
      cold: The ratings of the cold items, of which nothing is given.
    """
    return _cases(cases.users, cases.given, [cold.examples(user) for user in cases.users.tolist()])


def held_out_among_negatives(
    examples: Examples, users: np.ndarray, held_out: HeldOutItems
) -> Cases:
    """Returns leave-one-out ranking (He et al. 2017, arXiv:1708.05031, section 4.1).

    The held-out item is the first candidate, its sampled negatives are the others. A negative that
    is the held-out item itself is no candidate: the published evaluation keeps scores by item, so
    that there the two are one.

    Args:
      examples: What the users give: positives and negatives, which know nothing of `held_out`.
      users: Who, `[n]`; all in `held_out`.
      held_out: The items.
    """
    rows = _rows(users, held_out)
    item_ids = np.column_stack([held_out.items[rows], held_out.negatives[rows]]).astype(np.int32)
    is_copy = item_ids == item_ids[:, :1]
    is_copy[:, 0] = False
    item_ids[is_copy] = -1
    labels = np.zeros(item_ids.shape, np.float32)
    labels[:, 0] = 1.0
    given = tuple(examples.examples(user) for user in users.tolist())
    return Cases(
        np.asarray(users, np.int64), given, item_ids, labels, num_copies=is_copy.sum(axis=1)
    )


def targets_among_catalog(examples: PositiveExamples, users: np.ndarray, targets: Ratings) -> Cases:
    """Returns strong generalization (Liang et al. 2018, arXiv:1802.05814, section 4).

    Users give some items and are asked for others, which are ranked among all that they do not
    give.

    Args:
      examples: What the users give, which holds nothing of `targets`.
      users: Who, `[n]`.
      targets: What each is asked for; a user without any is asked nothing.
    """
    given = [examples.examples(user) for user in users.tolist()]
    asked = [targets.item_ids[targets.rows_of(user)] for user in users.tolist()]
    cases = _cases(users, given, [(items, np.ones(len(items))) for items in asked])
    known = tuple(examples.positives(user) for user in users.tolist())
    return dataclasses.replace(cases, known=known)


def judge_ratings(
    cases: Cases, predictions: np.ndarray, losses: np.ndarray | None = None
) -> metrics.UserResults:
    """Returns the errors of each user's predictions, `[n, m]`; see `metrics.rating_results`."""
    return metrics.rating_results(cases.labels, predictions, cases.mask, losses, scale=cases.scale)


def judge_ranking(cases: Cases, scores: np.ndarray, k=CUTOFFS) -> metrics.UserResults:
    """Returns how high the held-out item comes among the candidates.

    If some users' negatives hold copies of their held-out item, the metrics at 10 also come with
    the copies as candidates, each of which ties with the item and costs it a rank; their names end
    in `_as_listed`.

    Args:
      cases: From `held_out_among_negatives`; the first candidate is the held-out item.
      scores: `[n, m]`.
      k: The cutoffs.
    """
    ranks = metrics.ranks(scores, cases.mask, np.zeros((len(scores), 1), np.int64))
    results = metrics.ranking_results(ranks, k)
    if cases.num_copies is None or not cases.num_copies.any():
        return results
    listed = metrics.ranking_results(ranks + cases.num_copies[:, np.newaxis], 10)
    own = {f"{name}_as_listed": listed.values[name] for name in ("hr_at_10", "ndcg_at_10")}
    return metrics.UserResults({**results.values, **own}, results.counts)


def judge_among_catalog(
    cases: Cases, score_blocks: Iterable[tuple[np.ndarray, np.ndarray]]
) -> metrics.UserResults:
    """Returns how high the items asked for come among the whole catalog.

    Args:
      cases: From `targets_among_catalog`.
      score_blocks: The scores of all items, `[block, num_items]`, for one block of the users after
        the other, with the places of these in the cases.
    """
    ranks = np.full(cases.item_ids.shape, -1, np.int64)
    for places, scores in score_blocks:
        is_candidate = np.ones(scores.shape, bool)
        for row, place in enumerate(places.tolist()):
            is_candidate[row, cases.known[place]] = False
        ranks[places] = metrics.ranks(scores, is_candidate, cases.item_ids[places])
    return metrics.targets_results(ranks, recall_at=RECALL_AT, ndcg_at=NDCG_AT)


def full_ranking(
    held_out: HeldOutItems,
    users: np.ndarray,
    *,
    known_items: Callable[[int], np.ndarray],
    score_blocks: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]],
    k=CUTOFFS,
) -> metrics.UserResults:
    """Ranks each held-out item among all items that its user does not have.

    Args:
      held_out: The items; their negatives do not matter.
      users: Who, `[n]`.
      known_items: From a user to the items that are no candidates: those of training (and of
        validation, where a test item is ranked).
      score_blocks: Yields the scores of all items, `[block, num_items]`, for one block of the users
        after the other, with the places of these in `users`.
      k: The cutoffs.
    """
    items = held_out.items[_rows(users, held_out)]
    ranks = np.full((len(users), 1), -1, np.int64)
    for places, scores in score_blocks():
        is_candidate = np.ones(scores.shape, bool)
        for row, place in enumerate(places.tolist()):
            is_candidate[row, known_items(int(users[place]))] = False
        ranks[places] = metrics.ranks(scores, is_candidate, items[places][:, np.newaxis])
    return metrics.ranking_results(ranks, k)


def _rows(users: np.ndarray, held_out: HeldOutItems) -> np.ndarray:
    rows = np.searchsorted(held_out.users, users)
    rows = np.minimum(rows, len(held_out.users) - 1)
    unknown = users[held_out.users[rows] != users]
    if len(unknown):
        raise InputError(f"dense user {unknown[0]} has no held-out item to be evaluated by.")
    return rows


def _cases(users, given, asked) -> Cases:
    longest = max((len(items) for items, _ in asked), default=0)
    item_ids = np.full((len(users), longest), -1, np.int32)
    labels = np.zeros((len(users), longest), np.float32)
    for row, (items, values) in enumerate(asked):
        item_ids[row, : len(items)] = items
        labels[row, : len(items)] = values
    return Cases(np.asarray(users, np.int64), tuple(given), item_ids, labels)
