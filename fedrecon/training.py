"""The round loop: sample a cohort, run a round, evaluate, record; and resume where it ended.

The loop knows neither the algorithm nor the engine: a `FederatedTask` brings both.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fedrecon.artifacts import RunRecorder
from fedrecon.errors import InputError

Metrics = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FederatedTask:
    """One algorithm on one data set, ready to run.

    Attributes:
      training: A `tff.learning.templates.LearningProcess`.
      evaluation: Another, whose `next` evaluates the model weights of its state.
      sample_cohort: From the number of a round (from 1) to the user ids of its clients.
      evaluation_users: The user ids of each part of the data, by its name.
      training_data: From the user ids of a cohort and the number of its round to what training's
        `next` takes. It is called in another thread, while the round before runs.
      evaluation_data: From user ids to what evaluation's `next` takes.
      training_metrics: From what a round measured to plain numbers.
      evaluation_metrics: From what an evaluation measured to plain numbers.
    """

    training: Any
    evaluation: Any
    sample_cohort: Callable[[int], np.ndarray]
    evaluation_users: Mapping[str, np.ndarray]
    training_data: Callable[[np.ndarray, int], Any]
    evaluation_data: Callable[[np.ndarray], Any]
    training_metrics: Callable[[Any], Metrics]
    evaluation_metrics: Callable[[Any], Metrics]

    def prepare_round(self, round_num: int) -> Any:
        """Returns the clients of round `round_num`, for `run_round`."""
        return self.training_data(self.sample_cohort(round_num), round_num)

    def run_round(self, state: Any, clients: Any) -> tuple[Any, Metrics]:
        """Returns the state after a round of `clients` and the round's metrics."""
        output = self.training.next(state, clients)
        return output.state, self.training_metrics(output.metrics)

    def evaluate(self, state: Any, part: str) -> Metrics:
        """Returns the metrics of the model in `state` on the users of `part`.

        Raises:
          InputError: If those users have no query ratings, so that nothing was measured, or if the
            model's predictions for them are not finite.
        """
        weights = self.training.get_model_weights(state)
        evaluation = self.evaluation.set_model_weights(self.evaluation.initialize(), weights)
        clients = self.evaluation_data(self.evaluation_users[part])
        metrics = self.evaluation_metrics(self.evaluation.next(evaluation, clients).metrics)
        if metrics["num_examples"] == 0:
            raise InputError(
                f"the {len(self.evaluation_users[part])} {part} users have no query ratings: none "
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
      rounds_per_evaluation: The validation users are evaluated before the first round, after each
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
                row = _prefixed("validation", self._task.evaluate(self._state, "validation"))
                self._record(row, self._state, 0)
                on_round(0, row)
            for round_num, clients in self._rounds():
                state, metrics = self._task.run_round(self._state, clients)
                row = _prefixed("train", metrics)
                if self._is_due(round_num, self._options.rounds_per_evaluation):
                    row.update(_prefixed("validation", self._task.evaluate(state, "validation")))
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

    def _save(self) -> None:
        if not self._is_new:  # Else not even the untrained model was recorded.
            self._recorder.save(self._state, self._done)
        self._recorder.flush()

    def _record(self, row: dict[str, float], state: Any, round_num: int) -> None:
        with self._commit:
            row["seconds"] = self._seconds_before + time.monotonic() - self._start
            self._recorder.release(row, round_num)
            self._state, self._done, self._is_new = state, round_num, False
            if self._is_due(round_num, self._options.rounds_per_checkpoint):
                self._recorder.save(state, round_num)

    def _is_due(self, round_num: int, period: int) -> bool:
        return round_num % period == 0 or round_num == self._options.total_rounds


def _prefixed(part: str, metrics: Metrics) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in metrics.items()}
