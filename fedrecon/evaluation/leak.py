"""Whether training negatives give away the items that are held out.

Published federated recommenders draw training negatives from items that the user never touched, the
held-out item excluded. An item that never comes as a negative is then a positive or held out, and a
ranking by how seldom an item came needs no model: it finds the held-out item of every user. So does
any model that learns to tell negatives apart. See
https://github.com/Zhangcx19/IJCAI-23-PFedRec/issues/3.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from fedrecon.errors import InputError
from fedrecon.evaluation import metrics

CUTOFF = 10
_INTERVAL = 0.95
# The share of fair draws in which one of the two rankings may look like a leak.
_FALSE_ALARMS = 0.001
# Up to this many numbers, a table takes less time than to sort tens of millions of draws.
_LARGEST_TABLE = 100_000_000


class Ranking(NamedTuple):
    """How high a ranking without any model puts the held-out items; ties count against it.

    Attributes:
      hr_at_10: The share of the users whose held-out item is among the first ten.
      ndcg_at_10: The mean over users of `1 / log2(rank + 2)` there, else 0.
    """

    hr_at_10: float
    ndcg_at_10: float


@dataclasses.dataclass(frozen=True)
class LeakReport:
    """The result of `check_leak`.

    Attributes:
      num_users: The users who have a held-out item and negatives.
      num_candidates: The mean number of candidates of a user, the held-out item included.
      chance: HR@10 of a ranking by lot: the mean of 10 / candidates.
      chance_interval: Between these HR@10 is in 95% of all rankings by lot (binomial).
      limit: Above it HR@10 is in one of 2,000 rankings by lot.
      seldom: Ranks by how seldom an item came as a negative of the user.
      often: Ranks by how often.
      seldom_of_others: Ranks by how seldom an item came as a negative of other users who had
        neither as a positive nor as a held-out item. It is above chance where a sampler prefers
        some items, and that is no leak.
      often_of_others: Likewise, by how often.
      num_drawn: How often the held-out items came as negatives of their own users, in all.
      num_expected: How often they would have come, if each draw took any item that is no positive
        of the user with the same probability.
    """

    num_users: int
    num_candidates: float
    chance: float
    chance_interval: tuple[float, float]
    limit: float
    seldom: Ranking
    often: Ranking
    seldom_of_others: Ranking
    often_of_others: Ranking
    num_drawn: int
    num_expected: float

    @property
    def leaking_order(self) -> str | None:
        """`"seldom"` or `"often"`: the ranking that finds held-out items; None if none does."""
        for order in ("seldom", "often"):
            by_others = getattr(self, f"{order}_of_others").hr_at_10
            limit = max(
                self.limit, _binomial_quantile(1 - _FALSE_ALARMS, self.num_users, by_others)
            )
            if getattr(self, order).hr_at_10 > limit:
                return order
        return None

    @property
    def is_excluded(self) -> bool:
        """Whether held-out items never came, which fair draws do with a chance below 0.001."""
        return self.num_drawn == 0 and math.exp(-self.num_expected) < _FALSE_ALARMS

    @property
    def has_leak(self) -> bool:
        """Whether the negatives give away the held-out items."""
        return self.is_excluded or self.leaking_order is not None

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        counts = (
            f"it came {self.num_drawn:,} times as a negative, where fair draws would give "
            f"{self.num_expected:,.0f}"
        )
        order = self.leaking_order
        if order is not None:
            found = getattr(self, order).hr_at_10
            return (
                f"These negatives give away the test item: a ranking by how {order} an item came "
                f"has it among the first {CUTOFF} for {found:.1%} of the users, where chance is "
                f"{self.chance:.1%}; {counts}."
            )
        if self.is_excluded:
            return (
                f"These negatives give away the test item: {counts}. There are too few draws to "
                "rank by them; with more draws the items that never come stand out."
            )
        if max(self.seldom.hr_at_10, self.often.hr_at_10) > self.limit:
            counts += "; the draws of other users rank it as high, so some items are preferred"
        return (
            f"No leak found: without a model the test item is among the first {CUTOFF} for "
            f"{self.seldom.hr_at_10:.1%} of the users, by how seldom an item came, and for "
            f"{self.often.hr_at_10:.1%}, by how often, where chance is {self.chance:.1%}; {counts}."
        )


def check_leak(
    positives: np.ndarray,
    negatives: np.ndarray,
    held_out: np.ndarray,
    candidates: np.ndarray | None = None,
) -> LeakReport:
    """Tells whether training negatives give away the items that are held out.

    Nothing is trained: held-out items are ranked by how often each came as a negative of its user.
    The items are those that come anywhere in the arguments. Negatives that are positives of the
    same user do not count.

    Args:
      positives: The training interactions: `[n, 2]`, int, user ids and item ids, `>= 0`.
      negatives: The training negatives of all rounds: `[n, 2]`, int, with repeats.
      held_out: `[num_users, 2]`, int: the users and their held-out item, one each.
      candidates: `[num_users, m]`, int: what each of `held_out` is ranked against; -1 is padding.
        Positives of the user and the held-out item are left out. None takes all items that are no
        positives of the user.

    Raises:
      InputError: If an array has another shape or holds no ids, if a user has two held-out items or
        a positive as one, or if no user with a held-out item has a negative or a candidate.
    """
    arrays = [_pairs("positives", positives), _pairs("negatives", negatives)]
    held_out = _pairs("held_out", held_out).astype(np.int64)
    if candidates is not None:
        candidates = _checked_candidates(candidates, len(held_out))
        arrays.append(np.stack([np.zeros(candidates.size, np.int64), candidates.ravel()], axis=1))
    items = _distinct([held_out[:, 1], *(array[:, 1] for array in arrays)])
    _check_held_out(held_out, arrays[0])
    draws = _Draws(arrays[0], arrays[1], held_out, items)
    return _report(draws, held_out, candidates)


class _Draws:
    """The negatives, counted by user and item; items are dense, users are rows of `held_out`."""

    def __init__(self, positives, negatives, held_out, items):
        self.num_items = len(items)
        self._items = items
        users = _distinct([positives[:, 0], negatives[:, 0], held_out[:, 0]])
        num_users = len(users)

        def keys(pairs):
            return _dense(users, pairs[:, 0]) * self.num_items + _dense(items, pairs[:, 1])

        self.rows = np.searchsorted(users, held_out[:, 0])
        self.targets = np.searchsorted(items, held_out[:, 1])
        self._positives = np.unique(keys(positives))
        of_negatives, counts = _count(keys(negatives), num_users * self.num_items)
        is_drawn = ~np.isin(of_negatives, self._positives)
        self._keys, self._counts = of_negatives[is_drawn], counts[is_drawn]
        num_positives = np.bincount(self._positives // self.num_items, minlength=num_users)
        num_draws = np.bincount(self._keys // self.num_items, self._counts, minlength=num_users)
        self.num_draws = num_draws[self.rows]
        # The times that a fair sampler draws each item that is no positive.
        fair = num_draws / np.maximum(self.num_items - num_positives, 1)
        self.num_fair = fair[self.rows]
        self.rates = self._rates_of_others(fair, keys(held_out))

    def _rates_of_others(self, fair, of_held_out):
        """Returns how often each item came over how often fair draws give it, `[num_items]`.

        Users who have the item as a positive or as their held-out item do not count.
        """
        excluded = np.concatenate([self._positives, of_held_out])
        excluded_fair = fair[excluded // self.num_items]
        possible = fair.sum() - np.bincount(
            excluded % self.num_items, excluded_fair, minlength=self.num_items
        )
        is_other = ~np.isin(self._keys, of_held_out)
        came = np.bincount(
            self._keys[is_other] % self.num_items,
            self._counts[is_other],
            minlength=self.num_items,
        )
        # An item that all users have is as frequent as others.
        return np.where(possible > 1e-9, came / np.maximum(possible, 1e-9), 1.0)

    def columns(self, place: int, candidates: np.ndarray | None) -> np.ndarray:
        """Returns the dense ids of a user's candidates, its held-out item first."""
        if candidates is None:
            columns = np.arange(self.num_items)
        else:
            ids = candidates[place]
            columns = np.unique(np.searchsorted(self._items, ids[ids >= 0]))
        start = self.rows[place] * self.num_items
        low, high = np.searchsorted(self._positives, [start, start + self.num_items])
        known = np.append(self._positives[low:high] - start, self.targets[place])
        columns = columns[~np.isin(columns, known)]
        return np.concatenate([self.targets[place : place + 1], columns])

    def counts(self, place: int, columns: np.ndarray) -> np.ndarray:
        """Returns how often items came as negatives of a user."""
        start = self.rows[place] * self.num_items
        low, high = np.searchsorted(self._keys, [start, start + self.num_items])
        counts = np.zeros(self.num_items, np.int64)
        counts[self._keys[low:high] - start] = self._counts[low:high]
        return counts[columns]


def _report(draws: _Draws, held_out, candidates) -> LeakReport:
    judged, sizes, num_drawn = [], [], 0
    ranks: dict[str, list] = {
        "seldom": [],
        "often": [],
        "seldom_of_others": [],
        "often_of_others": [],
    }
    for place in np.flatnonzero(draws.num_draws):
        columns = draws.columns(place, candidates)
        if len(columns) < 2:
            continue
        judged.append(place)
        sizes.append(len(columns))
        counts, rates = draws.counts(place, columns), draws.rates[columns]
        num_drawn += int(counts[0])
        for name, scores in (
            ("seldom", -counts),
            ("often", counts),
            ("seldom_of_others", -rates),
            ("often_of_others", rates),
        ):
            ranks[name].append(metrics.ranks(scores[np.newaxis], None, np.zeros((1, 1), int))[0])
    if not judged:
        raise InputError(
            f"none of the {len(held_out)} users with a held-out item has both negatives and "
            "candidates; their user ids must be those of the negatives."
        )
    chance = float(np.minimum(1.0, CUTOFF / np.array(sizes)).mean())
    low, high = (_binomial_quantile((1 + s * _INTERVAL) / 2, len(judged), chance) for s in (-1, 1))
    return LeakReport(
        num_users=len(judged),
        num_candidates=float(np.mean(sizes)),
        chance=chance,
        chance_interval=(low, high),
        limit=_binomial_quantile(1 - _FALSE_ALARMS / 2, len(judged), chance),
        num_drawn=num_drawn,
        num_expected=float(draws.num_fair[judged].sum()),
        **{name: _ranking(of_users) for name, of_users in ranks.items()},
    )


def _ranking(ranks) -> Ranking:
    means = metrics.ranking_results(np.array(ranks), CUTOFF).mean_over_users()
    return Ranking(means[f"hr_at_{CUTOFF}"], means[f"ndcg_at_{CUTOFF}"])


def _binomial_quantile(share: float, number: int, probability: float) -> float:
    """Returns the smallest `k / number` that a binomial share is at most with this probability."""
    if probability <= 0 or probability >= 1:
        return float(probability)
    k = np.arange(number + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, number + 1)))])
    log_choices = log_factorials[-1] - log_factorials - log_factorials[::-1]
    log_shares = log_choices + k * math.log(probability) + (number - k) * math.log1p(-probability)
    at_most = np.cumsum(np.exp(log_shares))
    return min(int(np.searchsorted(at_most, share)), number) / number


def _distinct(arrays: list[np.ndarray]) -> np.ndarray:
    """Returns the distinct ids of all arrays, int64, increasing; negative numbers are no ids."""
    distinct = []
    for ids in arrays:
        largest = ids.max(initial=0)
        if largest < _LARGEST_TABLE:
            is_there = np.zeros(largest + 1, bool)
            is_there[ids[ids >= 0]] = True
            distinct.append(np.flatnonzero(is_there))
        else:
            distinct.append(np.unique(ids[ids >= 0]))
    return np.unique(np.concatenate(distinct))


def _dense(known: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns the places of ids in `known`, int64."""
    if known[-1] >= _LARGEST_TABLE:
        return np.searchsorted(known, ids)
    places = np.zeros(known[-1] + 1, np.int64)
    places[known] = np.arange(len(known))
    return places[ids]


def _count(keys: np.ndarray, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct keys, increasing, and how often each is there."""
    if num_keys > _LARGEST_TABLE:
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys, minlength=num_keys)
    distinct = np.flatnonzero(counts)
    return distinct, counts[distinct]


def _pairs(name: str, pairs: np.ndarray) -> np.ndarray:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu" or not len(pairs):
        raise InputError(
            f"{name} must be integers of shape [n, 2], user ids and item ids; found "
            f"{pairs.dtype} of shape {list(pairs.shape)}."
        )
    if pairs.min() < 0:
        raise InputError(f"{name} holds the id {pairs.min()}; ids are at least 0.")
    return pairs


def _checked_candidates(candidates: np.ndarray, num_users: int) -> np.ndarray:
    candidates = np.asarray(candidates)
    is_table = candidates.ndim == 2 and len(candidates) == num_users
    if not is_table or candidates.dtype.kind not in "iu" or candidates.min(initial=0) < -1:
        raise InputError(
            f"candidates must be item ids (or -1) of shape [{num_users}, m], a row for each row of "
            f"held_out; found {candidates.dtype} of shape {list(candidates.shape)}."
        )
    return candidates.astype(np.int64)


def _check_held_out(held_out: np.ndarray, positives: np.ndarray) -> None:
    users, counts = np.unique(held_out[:, 0], return_counts=True)
    if (counts > 1).any():
        user = users[counts > 1][0]
        raise InputError(
            f"user {user} has {counts[counts > 1][0]} held-out items; one is expected."
        )
    size = max(held_out[:, 1].max(), positives[:, 1].max()) + 1
    is_positive = np.isin(
        held_out[:, 0] * size + held_out[:, 1], positives.astype(np.int64) @ [size, 1]
    )
    if is_positive.any():
        user, item = held_out[is_positive][0]
        raise InputError(
            f"item {item} is held out for user {user} and is among its positives; take it out of "
            "the training interactions."
        )
