"""Trains one run in its directory, shows how far it is, and stops it whole when interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.run import cli, settings, tasks
from experiments.run.data import Clients
from experiments.run.settings import Settings
from fedrecon.errors import InputError

if TYPE_CHECKING:
    from experiments.run.judging import Judge
    from fedrecon.runs.run_directory import RunDirectory
    from fedrecon.runs.training import FederatedTask


def config(chosen: Settings, clients: Clients) -> dict[str, Any]:
    """Returns what config.json says of a run."""
    from fedrecon.runs import run_directory

    return {
        "settings": chosen.to_json(),
        "data_fingerprint": clients.ratings.fingerprint(),
        "versions": run_directory.versions(),
    }


@contextlib.contextmanager
def claimed(chosen: Settings, clients: Clients):
    """Yields the directory of the run, held for it.

    Raises:
      InputError: If it has more rounds than are wanted; see `RunDirectory.claim` for the others.
    """
    from fedrecon.runs import run_directory

    run = run_directory.RunDirectory(chosen.output_dir)
    done = max(run.checkpoints(), default=0)
    if done > chosen.total_rounds:
        raise InputError(
            f"{run.path} already has {done} rounds, more than --total_rounds={chosen.total_rounds}."
        )
    with run.claim(config(chosen, clients), free_settings=settings.FREE):
        yield run


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run whose rounds are done.

    Attributes:
      task: What trained.
      judge: Judges its states.
      state: The server's state after the last round.
      watched: What was measured on the watched part with the last round.
      seconds: What the rounds and their evaluations took, those before a resumption included.
    """

    task: FederatedTask
    judge: Judge
    state: Any
    watched: Mapping[str, float]
    seconds: float


def train(
    chosen: Settings,
    clients: Clients,
    run: RunDirectory,
    interruption: cli.Interruption,
    *,
    title: str | None = None,
) -> FinishedRun:
    """Does the rounds that are not done, in a runtime that has been started.

    Args:
      chosen: The settings.
      clients: The people.
      run: The directory, claimed.
      interruption: Saves the last whole round when it comes.
      title: What to call the run where it is one of many, which then shows a progress bar that
        leaves no trace, and no line an evaluation.
    """
    from tqdm import tqdm

    from fedrecon.runs.recorder import RunRecorder
    from fedrecon.runs.training import Training, TrainingOptions

    task, judge = tasks.build_task(chosen, clients, store_dir=run.store_path)
    recorder = RunRecorder(run)
    options = TrainingOptions(
        total_rounds=chosen.total_rounds,
        rounds_per_evaluation=chosen.rounds_per_evaluation,
        rounds_per_checkpoint=chosen.rounds_per_checkpoint,
    )
    training = Training(task, options, recorder)
    done = training.num_rounds_done
    if 0 < done < options.total_rounds:
        tqdm.write(f"Resuming {title or ''}".rstrip() + f" after round {done}.", file=sys.stdout)

    def stop():
        training.stop()
        recorder.close()
        print("The same command resumes this run where it ended.", file=sys.stderr)

    # The curves at the end need it; meanwhile the first rounds wait for XLA.
    threading.Thread(target=importlib.import_module, args=["matplotlib.figure"]).start()
    bar = tqdm(
        total=options.total_rounds,
        initial=done,
        unit="round",
        disable=None,
        desc=title,
        leave=title is None,
    )
    latest: dict[str, str] = {}

    def on_round(round_num, row):
        evaluated = {name: row[name] for name in row if name.startswith(f"{task.watched_part}/")}
        if evaluated and title is None:
            text = cli.describe(task.watched_part, evaluated)
            text = f"round {round_num:5}  {text}  ({row['seconds']:.0f} s)"
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        main = [name for name in row if name.endswith(("/loss", "/rmse", "/hr_at_10"))]
        latest.update({name: f"{row[name]:.4f}" for name in main})
        bar.set_postfix(latest, refresh=False)
        bar.update(round_num - bar.n)

    with interruption.do_first(stop), contextlib.closing(bar):
        state = training.run(on_round)
    recorder.close()
    start = time.monotonic()
    # Nothing was measured if a longer run was cut short at this round.
    watched = recorder.metrics(options.total_rounds, task.watched_part) or task.evaluate(
        state, task.watched_part
    )
    seconds = recorder.seconds(options.total_rounds) + time.monotonic() - start
    return FinishedRun(task, judge, state, watched, seconds)
