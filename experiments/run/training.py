"""Trains one run in its directory, shows how far it is, and stops it whole when interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from experiments.run import build, cli, display, samples
from experiments.run.population import watched_group
from experiments.run.settings import Settings
from fedrecon.algorithms.algorithm import Algorithm
from fedrecon.data.population import Population
from fedrecon.evaluation.judge import Judge
from fedrecon.evaluation.metrics import UserResults
from fedrecon.evaluation.scoring import ModelScores
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.runs.trackers import Tracker, open_tracker
from fedrecon.runs.training import Training, TrainingOptions
from fedrecon.serving import files
from fedrecon.serving.build import recommender_of


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run whose rounds are done.

    Attributes:
      algorithm: The algorithm.
      judge: Judges its states.
      state: The server's state after the last round.
      watched_group: The group of users that was evaluated while training.
      watched: The metrics of that group after the last round.
      seconds: The time of all rounds and their evaluations, before a resumption too.
    """

    algorithm: Algorithm
    judge: Judge
    state: Any
    watched_group: str
    watched: Mapping[str, float]
    seconds: float


def train(
    chosen: Settings,
    population: Population,
    run: RunDirectory,
    interruption: cli.Interruption,
    *,
    title: str | None = None,
    tracker_kind: str | None = None,
) -> FinishedRun:
    """Does the rounds that are not done, in a runtime that has been started.

    Args:
      chosen: The settings.
      population: The users.
      run: The directory, claimed.
      interruption: Saves the last whole round when it comes.
      title: What to call the run where it is one of many, which then shows a progress bar that
        leaves no trace, and no line an evaluation.
      tracker_kind: One of `trackers.TRACKERS`, which is told the rounds that are evaluated.
    """
    if title is None:
        print("Building the model and the computations of a round.", flush=True)
    if run.checkpoints():  # The run that it started from is not needed any more.
        chosen = dataclasses.replace(chosen, warm_start=None)
    algorithm = build.build_algorithm(chosen, population, store_dir=run.store_path)
    judge, watched = Judge(algorithm, population), watched_group(chosen)
    settings = run.read_config()["settings"]
    recorder = RunRecorder(run, settings=settings)
    options = TrainingOptions(
        total_rounds=chosen.total_rounds,
        rounds_per_evaluation=chosen.rounds_per_evaluation,
        rounds_per_checkpoint=chosen.rounds_per_checkpoint,
    )
    last: list[UserResults] = []

    def evaluate(state):
        last[:] = [judge.results(state, watched)]
        return judge.summarize(*last)

    training = Training(
        algorithm,
        options,
        recorder,
        evaluate=evaluate,
        watched_group=watched,
        title=title,
    )
    done = training.num_rounds_done
    if 0 < done < options.total_rounds:
        tqdm.write(f"Resuming {title or ''}".rstrip() + f" after round {done}.", file=sys.stdout)

    def stop():
        training.stop()
        recorder.close()
        if tracker is not None:
            tracker.close(is_finished=False)

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
    pace = display.Pace(options.total_rounds)

    def on_round(round_num, row):
        evaluated = {name: row[name] for name in row if name.startswith(f"{watched}/")}
        if evaluated and tracker is not None:
            tracker.log(round_num, row)
        if evaluated and title is None:
            text = display.describe(watched, evaluated)
            times = pace.times(round_num, row["seconds"])
            tqdm.write(f"round {round_num:5}  {text}  ({times})", file=sys.stdout)
            sys.stdout.flush()
        main = [
            name for name in row if name.endswith(("/loss", "/rmse", "/hr_at_10", "/ndcg_at_100"))
        ]
        latest.update({name: f"{row[name]:.4f}" for name in main})
        bar.set_postfix(latest, refresh=False)
        bar.update(round_num - bar.n)

    if title is None and done < options.total_rounds:
        tqdm.write("Compiling the first evaluation and the first rounds.", file=sys.stdout)
        sys.stdout.flush()
    tracker = open_tracker(tracker_kind, run.path.name, settings) if tracker_kind else None
    with interruption.do_first(stop), contextlib.closing(bar), _told(tracker):
        state = training.run(on_round)
        if done < options.total_rounds:
            (of_users,) = last
            is_judged = of_users.counts > 0
            recorder.write_users(
                options.total_rounds,
                {f"{watched}/{name}": own[is_judged] for name, own in of_users.values.items()},
            )
    recorder.close()
    metrics = recorder.metrics(options.total_rounds, watched)
    seconds = recorder.seconds(options.total_rounds)
    if not metrics:  # A longer run was cut short at this round.
        start = time.monotonic()
        metrics = judge.metrics(state, watched)
        seconds += time.monotonic() - start
    return FinishedRun(algorithm, judge, state, watched, metrics, seconds)


@contextlib.contextmanager
def _told(tracker: Tracker | None):
    """Ends what a tracker is told: the run is finished unless an error ends it."""
    try:
        yield
    except BaseException:
        if tracker is not None:
            tracker.close(is_finished=False)
        raise
    if tracker is not None:
        tracker.close(is_finished=True)


def write_model(
    chosen: Settings, population: Population, run: RunDirectory, finished: FinishedRun
) -> None:
    """Writes the model that serves users into the directory of a run whose rounds are done."""
    recommender = recommender_of(
        finished.algorithm,
        finished.state,
        population,
        name=chosen.algorithm,
        rounds=chosen.total_rounds,
        trained_model_fn=build.model_fn(chosen, population.ratings),
    )
    recommender.save(run.path / files.FOLDER)


def write_samples(population: Population, run: RunDirectory, finished: FinishedRun) -> None:
    """Writes what the model recommends to a few test users."""
    scores = ModelScores(finished.algorithm)
    samples.write(run, samples.samples_of(scores, finished.state, finished.judge, population))
