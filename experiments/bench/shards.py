"""How many clients should share a shard on this machine: rounds of one algorithm with several."""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from typing import Any

import numpy as np

from experiments.bench.exact import explicit_settings, implicit_settings
from experiments.bench.rounds import NOT_COMPARED, fed_ncf_settings
from experiments.bench.sizes import Sizes, Start, seconds_of
from experiments.run import build
from experiments.run.population import load_population
from experiments.run.settings import Settings
from fedrecon.algorithms.algorithm import Algorithm

# What another size has to gain for the search to go on: less is noise.
_LEAST_GAIN = 1.02


def time_shards(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Rounds of `--algorithm` as in its preset, with shards of other and other sizes.

    From the size that is chosen without a measurement, sizes are doubled, and halved, for as long
    as rounds become faster.
    """
    start()
    settings = _settings(sizes)
    population = load_population(settings)
    chosen = build.build_algorithm(settings, population)
    cohorts = [chosen.sample_cohort(number) for number in range(1, sizes.rounds + 1)]
    auto = len(chosen.training_data(cohorts[0], 1)[0].user_ids)

    def gain(size: int) -> tuple[float, float]:
        """Returns the seconds of a round, and how many times as long the chosen size takes."""
        of_size = dataclasses.replace(settings, clients_per_shard=size)
        other = build.build_algorithm(of_size, population)
        auto_seconds, seconds = _in_turn([_Rounds(chosen), _Rounds(other)], cohorts)
        print(
            f"{size} clients a shard: {seconds:.4f} s a round; {auto}: {auto_seconds:.4f} s",
            file=sys.stderr,
        )
        found[auto] = (auto_seconds, 1.0)
        return seconds, auto_seconds / seconds

    found: dict[int, tuple[float, float]] = {auto: (math.nan, 1.0)}
    for step in (lambda size: min(2 * size, settings.clients_per_round), lambda size: size // 2):
        size = auto
        while step(size) not in (0, size):
            found[step(size)] = gain(step(size))
            if found[step(size)][1] < _LEAST_GAIN * found[size][1]:
                break
            size = step(size)
    best = max(found, key=lambda size: found[size][1])
    return {
        **NOT_COMPARED,
        "algorithm": settings.algorithm,
        "clients": settings.clients_per_round,
        "clients_per_shard": auto,
        "seconds": found[auto][0],
        "best_clients_per_shard": best,
        "gain": found[best][1],
        "sizes": [
            {"clients_per_shard": size, "seconds": found[size][0], "gain": found[size][1]}
            for size in sorted(found)
        ],
    }


def _in_turn(each: list[_Rounds], cohorts: list[np.ndarray]) -> list[float]:
    """Returns the median seconds of rounds, taken in turn: a machine is not always equally fast."""
    for rounds in each:
        for users in cohorts:  # All cohorts warm up, because the sizes of all are compiled.
            rounds.run(users)
    seconds = [[seconds_of(rounds.run, users) for rounds in each] for users in cohorts]
    return [statistics.median(column) for column in zip(*seconds)]


def _settings(sizes: Sizes) -> Settings:
    if sizes.algorithm == "fed_ncf":
        return fed_ncf_settings(sizes)
    if sizes.algorithm == "fed_ials":
        return implicit_settings(sizes)
    if sizes.algorithm == "fed_recon_ls":
        return explicit_settings(sizes)
    return Settings(
        algorithm="fed_recon",
        dataset="movielens-1m",
        data_dir=sizes.data_dir,
        max_ratings_per_user=300,
        user_bias=False,
        item_bias=False,
        global_bias=False,
        mean_user=False,
        client_learning_rate=0.5,
        reconstruction_epochs=5,
        reconstruction_steps_max=50,
        client_steps_max=50,
        clients_per_round=100,
    )


class _Rounds:
    """Rounds of one algorithm, all from the same state."""

    def __init__(self, algorithm: Algorithm):
        self._algorithm = algorithm
        self._state = algorithm.process.initialize()

    def run(self, users: np.ndarray) -> None:
        self._algorithm.process.next(self._state, self._algorithm.training_data(users, 1))
