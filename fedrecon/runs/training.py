"""The round loop: sample a cohort, run a round, evaluate, record; and resume where it ended.

The loop knows nothing of the algorithm but its name for these steps (`Algorithm`).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from fedrecon.algorithms.algorithm import Algorithm, Metrics
from fedrecon.errors import InputError
from fedrecon.runs.divergence import DivergenceCheck, first_not_finite
from fedrecon.runs.recorder import RunRecorder


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How long to train and how often to look.

    Attributes:
      total_rounds: Rounds in all, those before a resumption included.
      rounds_per_evaluation: The watched group is evaluated before the first round, after each
        multiple of this many, and after the last.
      rounds_per_checkpoint: Likewise for checkpoints.
    """

    total_rounds: int
    rounds_per_evaluation: int
    rounds_per_checkpoint: int

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(
                    f"{field.name} is {getattr(self, field.name)}; it must be at least 1."
                )


class Training:
    """A run of rounds, from the last checkpoint if there is one.

    On the same machine a resumed run gives, bit for bit, the numbers of an uninterrupted run, apart
    from the seconds. Another CPU or GPU may round differently.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        options: TrainingOptions,
        recorder: RunRecorder,
        *,
        evaluate: Callable[[Any], Metrics],
        watched_group: str,
        title: str | None = None,
    ):
        """Prepares a run.

        Args:
          algorithm: What to train. If it has a store, the store's rows are committed with the state
            of their round, and saved with its checkpoints.
          options: How long.
          recorder: Where checkpoints and metrics go.
          evaluate: From a state to its metrics on the group of users that is watched.
          watched_group: The name of this group, which the names of its metrics begin with.
          title: What to call the run in a warning, where it is one of several.

        Raises:
          InputError: If the run already has more rounds than are asked for.
        """
        self._algorithm = algorithm
        self._evaluate_state = evaluate
        self._watched_group = watched_group
        self._options = options
        self._recorder = recorder
        self._start = time.monotonic()
        self._divergence = DivergenceCheck(
            algorithm, total_rounds=options.total_rounds, title=title
        )
        # Held while files and state change together.
        self._commit = threading.Lock()
        checkpoints = recorder.checkpoints
        self._is_new = not checkpoints
        self._state, self._done, self._seconds_before = algorithm.initialize(), 0, 0.0
        if checkpoints:
            self._done, self._state = recorder.newest_whole(self._load)
            self._seconds_before = recorder.seconds(self._done)
            rounds = range(1, self._done + 1)
            self._divergence.resume(recorder.metrics_of_rounds(rounds, "train"))
        else:
            recorder.warn_of_rows()
        if self._is_new and algorithm.store is not None:
            # The store may hold rows of a run that ended before its first checkpoint.
            algorithm.store.clear()
        self._saved = None if self._is_new else self._done

    def _load(self, round_num: int) -> Any:
        state = self._recorder.load(round_num, self._state)
        if round_num > self._options.total_rounds:
            raise InputError(
                f"the run already has {round_num} rounds, more than the "
                f"{self._options.total_rounds} wanted."
            )
        if self._algorithm.store is not None:
            self._algorithm.store.restore(round_num)
        return state

    @property
    def num_rounds_done(self) -> int:
        """How many rounds are done and recorded."""
        return self._done

    def run(self, on_round: Callable[[int, Metrics], None] = lambda round_num, row: None) -> Any:
        """Trains until all rounds are done.

        An exception (Ctrl-C in a notebook too) ends the training; the state of the last whole round
        is saved before it goes on.

        Args:
          on_round: Called after each round that is recorded (0 is the untrained model) with its
            number and its row of metrics.

        Returns:
          The server's state after the last round.

        Raises:
          InputError: If an evaluation fails, or if training diverged; see `DivergenceCheck`. The
            round is not recorded then.
        """
        try:
            if self._is_new:
                row = self._evaluate(self._state)
                self._record(row, self._state, 0)
                on_round(0, row)
            for round_num, clients in self._rounds():
                state, metrics = self._algorithm.run_round(self._state, round_num, clients)
                self._divergence.check_metrics(round_num, metrics)
                is_saved = self._is_due(round_num, self._options.rounds_per_checkpoint)
                self._divergence.check_state(round_num, state, is_due=is_saved)
                row = _prefixed("train", metrics)
                if self._is_due(round_num, self._options.rounds_per_evaluation):
                    row.update(self._evaluate(state))
                self._record(row, state, round_num)
                on_round(round_num, row)
            self._recorder.flush()
        except BaseException:
            with self._commit:
                self._save()
            raise
        return self._state

    def _rounds(self) -> Iterator[tuple[int, Any]]:
        """Yields the rounds to do and their clients, prepared while the round before ran."""
        rounds = range(self._done + 1, self._options.total_rounds + 1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            upcoming = [pool.submit(self._algorithm.prepare_round, n) for n in rounds[:1]]
            for round_num in rounds:
                clients = upcoming.pop().result()
                if round_num < rounds[-1]:
                    upcoming.append(pool.submit(self._algorithm.prepare_round, round_num + 1))
                yield round_num, clients

    def stop(self) -> None:
        """Saves the state of the last whole round and lets `run` record nothing more.

        For another thread than that of `run`, which then waits for ever, before the process ends.
        """
        self._commit.acquire()
        self._save()

    def _evaluate(self, state: Any) -> dict[str, float]:
        return _prefixed(self._watched_group, self._evaluate_state(state))

    def _save(self) -> None:
        if self._algorithm.store is not None:
            self._algorithm.store.rollback()  # The rows of a round that did not end.
        # Else not even the untrained model was recorded, or a large state was not looked at.
        if not self._is_new and first_not_finite(self._state) is None:
            self._save_checkpoint()
        self._recorder.flush()

    def _save_checkpoint(self) -> None:
        if self._done == self._saved:
            return
        self._saved = self._done
        # The rows first: whatever round has a checkpoint has its rows.
        store = self._algorithm.store
        first = None if store is None else store.snapshot(self._done)
        self._recorder.save(self._state, self._done, first=first)

    def _record(self, row: dict[str, float], state: Any, round_num: int) -> None:
        with self._commit:
            row["seconds"] = self._seconds_before + time.monotonic() - self._start
            self._recorder.release(row, round_num)
            self._state, self._done, self._is_new = state, round_num, False
            if self._algorithm.store is not None:
                self._algorithm.store.commit()
            if self._is_due(round_num, self._options.rounds_per_checkpoint):
                self._save_checkpoint()

    def _is_due(self, round_num: int, period: int) -> bool:
        return round_num % period == 0 or round_num == self._options.total_rounds


def _prefixed(group: str, metrics: Metrics) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in metrics.items()}
