"""Notices a training that diverged, or that no client takes part in any more.

A diverged run never comes back: what is not finite stays so, or the clients' updates are left out
for ever and the weights stand still. Without a check the next evaluation tells, many rounds later.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import tree

from fedrecon.algorithms.algorithm import Algorithm, Metrics
from fedrecon.errors import InputError
from fedrecon.runs.metrics_file import REJECTED

# A round whose clients are all rejected leaves the weights as they are; the next cohort meets the
# same weights. So many rejected clients, or rounds, in a row say that the weights are at fault; a
# cohort of one or two may be rejected by chance.
MAX_CLIENTS_REJECTED = 10
MAX_ROUNDS_REJECTED = 3
# NumPy looks through 0.2 million numbers (MovieLens 1M, 50 factors) in 0.03 ms and through 64
# million in 18 to 26 ms, where a round takes 8 to 17 and 70 to 100 ms (two cores).
MAX_NUMBERS_EACH_ROUND = 4_000_000

_ADVICE = "smaller learning rates, or more regularization, would help."


class DivergenceCheck:
    """Looks at each round's metrics, and at the server's state."""

    def __init__(
        self, algorithm: Algorithm, *, total_rounds: int | None = None, title: str | None = None
    ):
        """Prepares a check.

        Args:
          algorithm: What is trained.
          total_rounds: The rounds of the run; None where nobody knows.
          title: What to call the run in a warning, where it is one of several.
        """
        self._algorithm = algorithm
        self._total_rounds = total_rounds
        self._title = title
        self._num_of_run = 0.0  # Clients of all rounds that were rejected.
        # Rounds in a row whose clients were all rejected, and these clients.
        self._num_rounds = self._num_clients = 0
        self._has_warned = False

    def resume(self, rounds: list[tuple[int, Metrics]]) -> None:
        """Continues where a run ended, so that a resumed run ends where a whole one does.

        Args:
          rounds: The numbers and the metrics of the rounds that are done, increasing.
        """
        self._num_rounds = self._num_clients = 0
        self._num_of_run = 0.0
        for round_num, metrics in rounds:
            self._count(round_num, metrics)

    def check_metrics(self, round_num: int, metrics: Metrics) -> None:
        """Looks at what a round measured.

        Warns, once, if clients of the round were rejected.

        Args:
          round_num: The round.
          metrics: Its training metrics; `num_clients_rejected` counts the clients that were left
            out because their updates were not finite.

        Raises:
          InputError: If a metric is not finite, if all clients were rejected in rounds in a row
            that make `MAX_ROUNDS_REJECTED` rounds or `MAX_CLIENTS_REJECTED` clients, or if more
            clients were rejected than half of those of all rounds.
        """
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise InputError(f"round {round_num} diverged: train/{name} is {value}; {_ADVICE}")
        self._count(round_num, metrics)
        num_rounds, num_clients = self._num_rounds, self._num_clients
        if num_rounds >= MAX_ROUNDS_REJECTED or num_clients >= MAX_CLIENTS_REJECTED:
            which = f"round {round_num}"
            if num_rounds > 1:
                which = f"rounds {round_num - num_rounds + 1} to {round_num}"
            raise InputError(
                f"all {num_clients:.0f} clients of {which} were left out, since their updates were "
                f"not finite: training diverged; {_ADVICE}"
            )
        rejected = metrics.get(REJECTED, 0)
        if not rejected:
            return
        number = len(self._algorithm.sample_cohort(round_num))
        if self._total_rounds is not None and self._num_of_run > self._total_rounds * number / 2:
            raise InputError(
                f"{self._num_of_run:.0f} clients were left out up to round {round_num}, since "
                "their updates were not finite, more than half of the "
                f"{self._total_rounds * number} of {self._total_rounds} rounds; {_ADVICE}"
            )
        if not self._has_warned:
            self._has_warned = True
            of_run = "" if self._title is None else f"{self._title}: "
            warnings.warn(
                f"{of_run}{rejected:.0f} of the {number} clients of round {round_num} were left "
                "out, since their updates were not finite. train/num_clients_rejected counts them "
                f"from now on; {_ADVICE}",
                stacklevel=2,
            )

    def check_state(self, round_num: int, state: Any, *, is_due: bool) -> None:
        """Looks at the state after a round.

        Args:
          round_num: The round.
          state: The server's state.
          is_due: Whether to look at a state of more than `MAX_NUMBERS_EACH_ROUND` numbers.

        Raises:
          InputError: If a number is not finite.
        """
        if not is_due and _num_numbers(state) > MAX_NUMBERS_EACH_ROUND:
            return
        name = first_not_finite(state)
        if name is not None:
            raise InputError(
                f"round {round_num} diverged: the server's state is not finite ({name}); {_ADVICE}"
            )

    def _count(self, round_num: int, metrics: Metrics) -> None:
        rejected = metrics.get(REJECTED, 0)
        self._num_of_run += rejected
        if rejected and rejected >= len(self._algorithm.sample_cohort(round_num)):
            self._num_rounds, self._num_clients = self._num_rounds + 1, self._num_clients + rejected
        else:
            self._num_rounds = self._num_clients = 0


def first_not_finite(state: Any) -> str | None:
    """Returns the name of a state's first array with a number that is not finite, if any."""
    for path, value in tree.flatten_with_path(state):
        array = np.asarray(value)
        if array.dtype.kind in "fc" and not _is_finite(array):
            return "/".join(map(str, path))
    return None


def _is_finite(array: np.ndarray) -> bool:
    # A sum takes less time: it needs no array of bools. It may overflow where no number does.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _num_numbers(state: Any) -> int:
    return sum(math.prod(np.shape(value)) for value in tree.flatten(state))
