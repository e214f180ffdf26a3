"""Metrics of users as functions of arrays: how well ratings are predicted and items are ranked.

Which items are candidates is the protocol's choice, and scores are the model's; nothing here knows
either. Ties count against the model: one that gives all items the same score finds nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

# With more columns of held-out items most are padding, so users are taken one by one.
_MANY_TARGETS = 8


class Scale(Protocol):
    """The labels that exist: `minimum`, `minimum + step`, ..., `maximum`."""

    minimum: float
    maximum: float
    step: float


@dataclasses.dataclass(frozen=True, eq=False)
class UserResults:
    """The metrics of each user; one with count 0 was not judged and takes no part in any summary.

    Attributes:
      values: By the name of the metric: `[users]`, float64, NaN where the count is 0.
      counts: How many ratings or held-out items each user was judged on: `[users]`, int64.
    """

    values: dict[str, np.ndarray]
    counts: np.ndarray

    def mean_over_users(self) -> dict[str, float]:
        """Returns plain means: every judged user weighs the same, whatever the count.

        `rmse` is the mean of the users' roots, not the root of a mean.
        """
        is_judged = self._is_judged()
        return {name: float(values[is_judged].mean()) for name, values in self.values.items()}

    def mean_over_ratings(self) -> dict[str, float]:
        """Returns means weighted by the counts: every rating (or held-out item) weighs the same.

        `rmse` is the root of the mean of squares, so that of all ratings put together.
        """
        is_judged = self._is_judged()

        def mean(values):
            return float(np.average(values[is_judged], weights=self.counts[is_judged]))

        return {
            name: mean(values**2) ** 0.5 if name == "rmse" else mean(values)
            for name, values in self.values.items()
        }

    def deciles(self, name: str) -> np.ndarray:
        """Returns the minimum, the 10%, ..., 90% quantiles over users and the maximum: `[11]`.

        Between users, it interpolates linearly. It ascends: the users whom the model serves worst
        come last for an error (`rmse`, `mae`) and first for every other metric.
        """
        return np.quantile(self.values[name][self._is_judged()], np.linspace(0, 1, 11))

    def standard_errors(self) -> dict[str, float]:
        """Returns the standard errors of `mean_over_users`.

        The deviation over the judged users (divided by their number, as NumPy's default is) over
        the root of their number. They hold for these trained models: users vary, training does not.
        """
        is_judged = self._is_judged()
        root = np.sqrt(np.count_nonzero(is_judged))
        return {name: float(values[is_judged].std() / root) for name, values in self.values.items()}

    def _is_judged(self) -> np.ndarray:
        is_judged = self.counts > 0
        if not is_judged.any():
            raise ValueError(
                f"none of {len(self.counts)} users has a rating or held-out item to be judged on, "
                "so there is nothing to summarise."
            )
        return is_judged


def rating_results(
    labels: np.ndarray,
    predictions: np.ndarray,
    mask: np.ndarray,
    losses: np.ndarray | None = None,
    *,
    scale: Scale,
) -> UserResults:
    """Returns the errors and accuracies of each user's ratings.

    - `rmse`: the root of the mean of squared errors.
    - `mae`: the mean of absolute errors.
    - `accuracy`: the share with `|prediction - label| <= step / 2`, as the FedRecon paper counts
      it (Singhal et al. 2021, arXiv:2102.03448). A prediction half-way between two steps is right
      for both labels, so this accuracy can be had for nothing: on MovieLens 1M a constant 3.5 has
      about 60%.
    - `rounded_accuracy`: the share whose nearest step is the label, after the prediction is cut to
      the scale. A prediction half-way between two steps is wrong: a constant 3.5 has 0.
    - `loss`: the mean of `losses`, if they are given.

    A prediction that is not finite is inaccurate, and the errors that it enters, up to the means,
    are not finite either.

    Args:
      labels: `[users, n]`, float, on the scale.
      predictions: `[users, n]`, float, in the unit of the labels.
      mask: `[users, n]`, bool: which entries are real; the others may hold anything.
      losses: `[users, n]`, float: the model's loss of each rating; None leaves `loss` out.
      scale: The labels that exist; minimum 0, maximum 1 and step 1 for labels 0 and 1.

    Raises:
      ValueError: If shapes differ.
    """
    mask = np.asarray(mask, bool)
    if not np.shape(labels) == np.shape(predictions) == mask.shape:
        raise ValueError(
            f"labels {np.shape(labels)}, predictions {np.shape(predictions)} and mask {mask.shape} "
            "must have the same shape, [users, n]."
        )
    errors = _errors(labels, predictions, mask)
    cut_errors = _errors(labels, np.clip(predictions, scale.minimum, scale.maximum), mask)
    is_accurate = mask & (np.abs(errors) <= scale.step / 2)
    # Cut to the scale, an infinite prediction would be a good one.
    is_nearest = mask & np.isfinite(errors) & (np.abs(cut_errors) < scale.step / 2)
    counts = mask.sum(axis=1)
    num_real = np.maximum(counts, 1)
    values = {
        "rmse": np.sqrt((errors**2).sum(axis=1) / num_real),
        "mae": np.abs(errors).sum(axis=1) / num_real,
        "accuracy": is_accurate.sum(axis=1) / num_real,
        "rounded_accuracy": is_nearest.sum(axis=1) / num_real,
    }
    if losses is not None:
        values["loss"] = np.where(mask, losses, 0.0).sum(axis=1, dtype=np.float64) / num_real
    return _user_results(values, counts)


def _errors(labels, predictions, mask) -> np.ndarray:
    """Returns `predictions - labels`, float64, 0 where the mask is False."""
    errors = np.zeros(mask.shape)
    return np.subtract(predictions, labels, out=errors, where=mask, dtype=np.float64)


def ranks(scores: np.ndarray, is_candidate: np.ndarray | None, targets: np.ndarray) -> np.ndarray:
    """Returns the rank of each held-out item: how many other candidates score at least as high.

    0 is the first place. A tie counts against the model, also with another held-out item or with
    another column for the same item.

    Args:
      scores: `[users, m]`, float, higher is better; what is no candidate may hold anything.
      is_candidate: `[users, m]`, bool; None means that all are. The held-out items of a user are
        candidates in any case.
      targets: `[users, t]`, int: the columns of the held-out items, distinct within a user; -1 is
        padding.

    Returns:
      `[users, t]`, int64; -1 for padding.

    Raises:
      ValueError: If a candidate's score is not finite, or targets are no distinct columns.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    is_target = targets >= 0
    in_order = np.sort(targets, axis=1)
    repeats = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if repeats.any() or not ((targets >= -1) & (targets < scores.shape[1])).all():
        raise ValueError(
            f"targets must be -1 (padding) or columns of {scores.shape[1]}, distinct within a user."
        )
    everything = np.ones(scores.shape, bool)
    is_candidate = everything if is_candidate is None else np.array(is_candidate, bool)
    is_candidate[np.nonzero(is_target)[0], targets[is_target]] = True
    is_spoilt = is_candidate & ~np.isfinite(scores)
    if is_spoilt.any():
        row = int(np.argmax(is_spoilt.any(axis=1)))
        raise ValueError(
            f"the scores of user row {row} are not finite for {is_spoilt[row].sum()} of its "
            f"{is_candidate[row].sum()} candidates, so they cannot be ranked."
        )
    scores = np.where(is_candidate, scores, -np.inf)
    # Nothing reaches infinity, so padding counts 0 and comes out as -1; a target counts itself too.
    own = np.take_along_axis(scores, np.maximum(targets, 0), axis=1)
    own = np.where(is_target, own, np.inf)
    result = np.empty(targets.shape, np.int64)
    if targets.shape[1] > _MANY_TARGETS:
        result[:] = -1
        for row, is_own in enumerate(is_target):
            is_above = scores[row] >= own[row, is_own, np.newaxis]
            result[row, is_own] = np.count_nonzero(is_above, axis=1) - 1
        return result
    for place in range(targets.shape[1]):
        result[:, place] = np.count_nonzero(scores >= own[:, [place]], axis=1) - 1
    return result


def targets_results(
    ranks: np.ndarray, *, recall_at: tuple[int, ...], ndcg_at: tuple[int, ...]
) -> UserResults:
    """Returns how high several held-out items a user come, as Liang et al. 2018 measure it.

    "Variational Autoencoders for Collaborative Filtering" (arXiv:1802.05814), section 4.2:

    - `recall_at_k`: held-out items among the first k, divided by `min(k, held out)`: 1 is reached
      whatever their number. (`ranking_results` divides by all held-out items.)
    - `ndcg_at_k`: as in `ranking_results`.

    Args:
      ranks: `[users, t]`, int, as from `ranks`: 0 is the first place, -1 is padding.
      recall_at: The cutoffs of the recall, `>= 1`.
      ndcg_at: The cutoffs of the NDCG, `>= 1`.
    """
    ranks = np.asarray(ranks)
    counts = (ranks >= 0).sum(axis=1)
    values = {f"ndcg_at_{k}": _ndcg(ranks, k) for k in ndcg_at}
    for k in recall_at:
        most = np.clip(counts, 1, k)
        values[f"recall_at_{k}"] = _is_hit(ranks, k).sum(axis=1) / most
    return _user_results(values, counts)


def ranking_results(ranks: np.ndarray, k: int | tuple[int, ...] = 10) -> UserResults:
    """Returns how high each user's held-out items come; the names hold the cutoff, as `hr_at_10`.

    - `hr_at_k`: 1 if any held-out item is among the first k, else 0.
    - `ndcg_at_k`: the sum of `1 / log2(rank + 2)` over held-out items among the first k, divided by
      what `min(held out, k)` items in the first places would give (Järvelin & Kekäläinen 2002,
      "Cumulated gain-based evaluation of IR techniques", with binary relevance; in the form usual
      since, which discounts the second place too).
    - `recall_at_k`: the share of the held-out items that is among the first k.
    - `mrr`: `1 / (best rank + 1)`, without a cutoff.

    With one held-out item, HR and NDCG are those of the NCF paper (He et al. 2017,
    arXiv:1708.05031), and recall is HR.

    Args:
      ranks: `[users, t]`, int, as from `ranks`: 0 is the first place, -1 is padding.
      k: The cutoff or cutoffs, `>= 1`.
    """
    ranks = np.asarray(ranks)
    cutoffs = (k,) if np.ndim(k) == 0 else tuple(k)
    if min(cutoffs, default=0) < 1:
        raise ValueError(f"k must be one or more integers, at least 1; found {k!r}.")
    is_target = ranks >= 0
    counts = is_target.sum(axis=1)
    values = {}
    for cutoff in cutoffs:
        is_hit = _is_hit(ranks, cutoff)
        values[f"hr_at_{cutoff}"] = is_hit.any(axis=1)
        values[f"ndcg_at_{cutoff}"] = _ndcg(ranks, cutoff)
        values[f"recall_at_{cutoff}"] = is_hit.sum(axis=1) / np.maximum(counts, 1)
    values["mrr"] = (is_target / (np.maximum(ranks, 0) + 1)).max(axis=1, initial=0)
    return _user_results(values, counts)


def _is_hit(ranks: np.ndarray, cutoff: int) -> np.ndarray:
    """Returns which held-out items are among the first, `[users, t]` bool; padding is not."""
    return (ranks >= 0) & (ranks < cutoff)


def _ndcg(ranks: np.ndarray, cutoff: int) -> np.ndarray:
    """Returns each user's discounted gain, divided by the most that there can be, `[users]`."""
    gains = _is_hit(ranks, cutoff) / np.log2(np.maximum(ranks, 0) + 2)
    num_targets = np.maximum((ranks >= 0).sum(axis=1), 1)
    ideal = np.cumsum(1 / np.log2(np.arange(num_targets.max(initial=1)) + 2))
    return gains.sum(axis=1) / ideal[np.minimum(num_targets, cutoff) - 1]


def _user_results(values: dict[str, np.ndarray], counts: np.ndarray) -> UserResults:
    """Marks the users who were not judged."""
    marked = {name: np.where(counts > 0, value, np.nan) for name, value in values.items()}
    return UserResults(marked, counts.astype(np.int64))
