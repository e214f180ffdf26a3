"""Differences between the algorithms of a comparison, paired by user within a seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from pandas import DataFrame

from experiments.comparison.results import PerUser, read_per_user
from fedrecon.evaluation.intervals import Difference, ResampledMeans, difference, resampled_means
from fedrecon.evaluation.metrics import UserResults
from fedrecon.runs.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Differences:
    """How one algorithm differs from another in a measure.

    Attributes:
      by_seed: For each seed that both have.
      over_seeds: Their mean.
    """

    by_seed: Mapping[int, Difference]
    over_seeds: Difference


class Pairing:
    """Pairs the runs of a comparison by seed, and their results by user."""

    def __init__(self, runs: DataFrame, *, over: str):
        """Reads the results of each user.

        Args:
          runs: One row a run, with `path`, `algorithm` and `seed`.
          over: What means are over, `"ratings"` or `"users"`.
        """
        self._per_user = {
            (run.algorithm, run.seed): read_per_user(RunDirectory(run.path))
            for run in runs.itertuples()
        }
        self._over = over
        self._means = functools.lru_cache(maxsize=None)(self._resampled)

    def differences(self, group: str, measure: str, first: str, second: str) -> Differences | None:
        """Returns the mean of one algorithm less the mean of another.

        None if there is no seed for which both keep results of the same users, asked for equally
        many ratings.

        Args:
          group: The group of users.
          measure: The measure, as results of users name it.
          first: One algorithm.
          second: The other.
        """
        means = self._means(group, measure)
        seeds = sorted(seed for algorithm, seed in means if algorithm == first)
        pairs = {
            seed: (means[first, seed][1], means[second, seed][1])
            for seed in seeds
            if (second, seed) in means and means[first, seed][0] == means[second, seed][0]
        }
        if not pairs:
            return None
        return Differences(
            {seed: difference([one], [other]) for seed, (one, other) in pairs.items()},
            difference(*zip(*pairs.values())),
        )

    def has_users(self, algorithm: str) -> bool:
        """Whether an algorithm keeps results of users, for any seed."""
        return any(own for (name, _), own in self._per_user.items() if name == algorithm)

    def seeds_judge_the_same_users(self) -> bool:
        """Whether runs of all seeds ask the same users for equally many ratings, in each group."""
        asked: dict[str, set[bytes]] = {}
        for groups in self._per_user.values():
            for group, own in groups.items():
                asked.setdefault(group, set()).add(_whom(own))
        return bool(asked) and all(len(own) == 1 for own in asked.values())

    def results_of(self, algorithm: str, group: str) -> dict[int, UserResults]:
        """Returns the results of a group's users with an algorithm, by seed."""
        return {
            seed: groups[group].results
            for (name, seed), groups in self._per_user.items()
            if name == algorithm and group in groups
        }

    def by_user(self, group: str, measure: str, first: str, second: str) -> np.ndarray | None:
        """Returns each user's value with one algorithm less the value with another, `[n]`.

        A user who is judged with several seeds is there once for each of them. None if there is no
        seed for which both keep results of the same users, asked for equally many ratings.

        Args:
          group: The group of users.
          measure: The measure, as results of users name it.
          first: One algorithm.
          second: The other.
        """
        found = []
        for (algorithm, seed), groups in self._per_user.items():
            own, other = groups.get(group), self._per_user.get((second, seed), {}).get(group)
            if algorithm != first or own is None or other is None:
                continue
            if _whom(own) == _whom(other) and measure in own.results.values:
                is_judged = own.results.counts > 0
                differences = own.results.values[measure] - other.results.values[measure]
                found.append(differences[is_judged])
        return np.concatenate(found) if found else None

    def _resampled(
        self, group: str, measure: str
    ) -> dict[tuple[str, int], tuple[bytes, ResampledMeans]]:
        """Returns whom each run was judged on, and its means, by algorithm and seed."""
        alike: dict[tuple[int, bytes], dict[str, list]] = {}
        for (algorithm, seed), groups in self._per_user.items():
            own = groups.get(group)
            if own is not None and measure in own.results.values:
                alike.setdefault((seed, _whom(own)), {})[algorithm] = own.results
        means, streams = {}, {}
        for (seed, users), results in alike.items():
            # Seeds that judge the same people know no more about people than one of them does, so
            # they share the resamples.
            stream = streams.setdefault(users, seed)
            resampled = resampled_means(
                list(results.values()), measure, over=self._over, seed=stream
            )
            for algorithm, own in zip(results, resampled):
                means[algorithm, seed] = users, own
        return means


def _whom(own: PerUser) -> bytes:
    """Returns what is the same where the same users are asked for equally many ratings."""
    return own.users.tobytes() + own.results.counts.tobytes()
