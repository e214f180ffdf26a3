"""The round loop: sample a cohort, run a round, evaluate, record; and resume where it ended.

The loop knows neither the algorithm nor the engine: a `FederatedTask` brings both.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from fedrecon.errors import InputError
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.recorder import RunRecorder

Metrics = Mapping[str, float]


class Process(Protocol):
    """What trains: `tff.learning.templates.LearningProcess`, or what has these two of it."""

    def initialize(self) -> Any:
        """Returns the server's state before the first round."""

    def next(self, state: Any, data: Any) -> Any:
        """Returns an output with `state` and `metrics` after a round."""


@dataclasses.dataclass(frozen=True)
class FederatedTask:
    """One algorithm on one data set, ready to run.

    Attributes:
      training: The process.
      sample_cohort: From the number of a round (from 1) to the user ids of its clients.
      training_data: From the user ids of a cohort and the number of its round to what training's
        `next` takes. It is called in another thread, while the round before runs.
      training_metrics: From what a round measured to plain numbers.
      evaluate: From a state and the name of a part of the data to metrics of the model there.
      watched_part: The part that is evaluated while training.
      store: A `ClientStore` to which `training` writes rows, if there is one; they are committed
        with the state of their round, and saved with its checkpoints.
    """

    training: Process
    sample_cohort: Callable[[int], np.ndarray]
    training_data: Callable[[np.ndarray, int], Any]
    training_metrics: Callable[[Any], Metrics]
    evaluate: Callable[[Any, str], Metrics]
    watched_part: str = "validation"
    store: ClientStore | None = None

    def prepare_round(self, round_num: int) -> Any:
        """Returns the clients of round `round_num`, for `run_round`."""
        return self.training_data(self.sample_cohort(round_num), round_num)

    def run_round(self, state: Any, clients: Any) -> tuple[Any, Metrics]:
        """Returns the state after a round of `clients` and the round's metrics."""
        output = self.training.next(state, clients)
        return output.state, self.training_metrics(output.metrics)


@dataclasses.dataclass(frozen=True)
class ProcessEvaluation:
    """Evaluation by a TFF process, as `FederatedTask.evaluate`.

    Attributes:
      process: A `LearningProcess` whose `next` evaluates the model weights of its state.
      get_weights: From a state of the training to those weights.
      users: The user ids of each part of the data, by its name.
      data: From user ids to what `next` takes.
      metrics: From what it measured to plain numbers.
    """

    process: Any
    get_weights: Callable[[Any], Any]
    users: Mapping[str, np.ndarray]
    data: Callable[[np.ndarray], Any]
    metrics: Callable[[Any], Metrics]

    def __call__(self, state: Any, part: str) -> Metrics:
        """Returns the metrics of the model in `state` on the users of `part`.

        Raises:
          InputError: If there is no such part, if its users have no query ratings, so that nothing
            was measured, or if the model's predictions for them are not finite.
        """
        if part not in self.users:
            raise InputError(f"the run has no {part} users; it has {', '.join(self.users)}.")
        evaluation = self.process.set_model_weights(
            self.process.initialize(), self.get_weights(state)
        )
        clients = self.data(self.users[part])
        metrics = self.metrics(self.process.next(evaluation, clients).metrics)
        if metrics["num_examples"] == 0:
            raise InputError(
                f"the {len(self.users[part])} {part} users have no query ratings: none "
                "has more than one batch; a smaller batch size would leave them some."
            )
        if not np.isfinite(metrics["loss"]):
            raise InputError(
                f"the loss on the {part} users is {metrics['loss']}: reconstruction or training "
                "diverged; smaller learning rates would help."
            )
        return metrics


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How long to train and how often to look.

    Attributes:
      total_rounds: Rounds in all, those before a resumption included.
      rounds_per_evaluation: The watched part (validation) is evaluated before the first round,
        after each multiple of this many, and after the last.
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

    Resuming gives, bit for bit, the numbers of an uninterrupted run, apart from the seconds.
    """

    def __init__(self, task: FederatedTask, options: TrainingOptions, recorder: RunRecorder):
        """Prepares a run.

        Args:
          task: What to train.
          options: How long.
          recorder: Where checkpoints and metrics go.

        Raises:
          InputError: If the run already has more rounds than are asked for.
        """
        self._task = task
        self._options = options
        self._recorder = recorder
        self._start = time.monotonic()
        # Held while files and state change together.
        self._commit = threading.Lock()
        checkpoints = recorder.checkpoints
        self._is_new = not checkpoints
        self._saved = max(checkpoints, default=None)
        self._state, self._done, self._seconds_before = task.training.initialize(), 0, 0.0
        if checkpoints:
            self._done = checkpoints[-1]
            if self._done > options.total_rounds:
                raise InputError(
                    f"the run already has {self._done} rounds, more than the "
                    f"{options.total_rounds} wanted."
                )
            self._state = recorder.load(self._done, self._state)
            self._seconds_before = recorder.seconds(self._done)
        if task.store is not None:
            # Without a checkpoint the store may hold rows of a run that ended before its first.
            task.store.restore(self._done) if checkpoints else task.store.clear()

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
          InputError: If an evaluation fails.
        """
        try:
            if self._is_new:
                row = self._evaluate(self._state)
                self._record(row, self._state, 0)
                on_round(0, row)
            for round_num, clients in self._rounds():
                state, metrics = self._task.run_round(self._state, clients)
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
            upcoming = [pool.submit(self._task.prepare_round, n) for n in rounds[:1]]
            for round_num in rounds:
                clients = upcoming.pop().result()
                if round_num < rounds[-1]:
                    upcoming.append(pool.submit(self._task.prepare_round, round_num + 1))
                yield round_num, clients

    def stop(self) -> None:
        """Saves the state of the last whole round and lets `run` record nothing more.

        For another thread than that of `run`, which then waits for ever, before the process ends.
        """
        self._commit.acquire()
        self._save()

    def _evaluate(self, state: Any) -> dict[str, float]:
        part = self._task.watched_part
        return _prefixed(part, self._task.evaluate(state, part))

    def _save(self) -> None:
        if self._task.store is not None:
            self._task.store.rollback()  # The rows of a round that did not end.
        if not self._is_new:  # Else not even the untrained model was recorded.
            self._save_checkpoint()
        self._recorder.flush()

    def _save_checkpoint(self) -> None:
        if self._done == self._saved:
            return
        self._saved = self._done
        # The rows first: whatever round has a checkpoint has its rows.
        store = self._task.store
        first = None if store is None else store.snapshot(self._done)
        self._recorder.save(self._state, self._done, first=first)

    def _record(self, row: dict[str, float], state: Any, round_num: int) -> None:
        with self._commit:
            row["seconds"] = self._seconds_before + time.monotonic() - self._start
            self._recorder.release(row, round_num)
            self._state, self._done, self._is_new = state, round_num, False
            if self._task.store is not None:
                self._task.store.commit()
            if self._is_due(round_num, self._options.rounds_per_checkpoint):
                self._save_checkpoint()

    def _is_due(self, round_num: int, period: int) -> bool:
        return round_num % period == 0 or round_num == self._options.total_rounds


def _prefixed(part: str, metrics: Metrics) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in metrics.items()}
