"""Searches settings by validation data, and by nothing else: no test figure is ever computed.

    python -m experiments.tune --flagfile=experiments/presets/tune_fed_recon_ls_ml1m.flags \\
        --data_dir=DIR --output_dir=runs/tune

`--search=ridge:5,10,20` is a setting and its values; it can be repeated. Trials are all
combinations, or `--trials` of them drawn at random. Each trial has a run for each seed: a directory
in `runs/`, as `train` leaves it, so the same command resumes a search that was interrupted. The
number of rounds is searched in the same runs, by the curve of the validation metric: RMSE over the
ratings of validation users, NDCG@10 of each user's validation item, or NDCG@100 of validation users
by strong generalization. `trials.csv` has every trial, the best first: means over seeds after the
best number of rounds.
"""

from __future__ import annotations

import itertools
import pathlib
import time
from typing import Any

from absl import flags

from experiments.comparison import references
from experiments.run import cli, display, reports, resuming, runtime, settings
from experiments.run.claim import claimed
from experiments.run.flags import (
    chosen_feedback,
    define_flags,
    parse_sweeps,
    refuse_given,
    refuse_unused,
    settings_from_flags,
)
from experiments.run.names import ALGORITHMS, REFERENCES, current_algorithm, listed
from experiments.run.population import load_first, load_population, watched_group
from experiments.run.settings import Settings
from fedrecon import rng
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import Measure, feedback_by
from fedrecon.runs.run_directory import RunDirectory

_NUM_SHOWN = 10

define_flags(without=("algorithm", "seed"))
_SEARCH = flags.DEFINE_multi_string(
    "search", [], "Required: SETTING:VALUE,VALUE,... searches a setting. It can be repeated."
)
_ALGORITHM = flags.DEFINE_string(
    "algorithm",
    "fed_recon",
    f"Algorithm or reference whose settings are searched: {listed((*ALGORITHMS, *REFERENCES))}.",
)
_TRIALS = flags.DEFINE_integer(
    "trials", None, "Number of combinations, drawn at random. Without it all.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Number of seeds, from 0.", lower_bound=1, upper_bound=1000
)


def main(interruption: cli.Interruption) -> None:
    trials = _trials()
    planned = _plan(trials)
    with resuming.told(interruption, _goes_on, [of_run for _, of_run in planned]):
        _tune(trials, planned, interruption)


def _goes_on(planned: list[Settings]) -> str:
    """Returns what the same command does after an interruption."""
    runs = [RunDirectory(of_run.output_dir) for of_run in planned]
    last_rounds = [max(run.checkpoints(), default=-1) for run in runs]
    is_finished = [done == of_run.total_rounds for done, of_run in zip(last_rounds, planned)]
    return resuming.of_runs([run.path for run in runs], num_finished=sum(is_finished))


def _tune(
    trials: list[dict[str, Any]],
    planned: list[tuple[dict[str, Any], Settings]],
    interruption: cli.Interruption,
) -> None:
    chosen = planned[0][1]
    output_dir = pathlib.Path(flags.FLAGS.output_dir)
    population = load_first([of_run for _, of_run in planned])
    display.print_notes(population.ratings)
    print(f"{len(planned)} runs. Loading TensorFlow, which takes some seconds.", flush=True)
    runtime.start(flags.FLAGS.runtime, flags.FLAGS.gpu_memory_limit_mb)
    rows = []

    def run(each: tuple[dict[str, Any], Settings]) -> str:
        changes, of_run = each
        curve, seconds = _validation_curve(of_run, interruption)
        row = {**changes, "seed": of_run.seed, "seconds": seconds}
        rows.extend({**row, "rounds": n, _metric(of_run): value} for n, value in curve.items())
        return f"{_metric(of_run)} {list(curve.values())[-1]:.4f}"

    labels = [pathlib.Path(of_run.output_dir).name for _, of_run in planned]
    failures = display.run_all(list(zip(labels, planned)), run)
    if not rows:
        raise InputError("no run could be finished:\n  " + "\n  ".join(failures))

    import pandas as pd

    table = _best_first(pd.DataFrame(rows), list(trials[0]), chosen)
    output_dir.mkdir(parents=True, exist_ok=True)  # A reference leaves nothing there.
    table.to_csv(output_dir / reports.TRIALS, index=False)
    print(table.head(_NUM_SHOWN).to_string(index=False))
    seeds = "1 seed" if _SEEDS.value == 1 else f"{_SEEDS.value} seeds"
    print(f"\n{len(table)} of {len(trials)} trials, {seeds}. Files: {output_dir}/")
    print(f"  {reports.TRIALS}")
    if reports.write(output_dir, is_new=True):
        reports.tell(output_dir / reports.REPORT, opens=False)
    if failures:
        print("Not finished:\n  " + "\n  ".join(failures))


def _trials() -> list[dict[str, Any]]:
    """Returns the settings that each trial changes."""
    if not _SEARCH.value:
        raise InputError("give --search=SETTING:VALUE,VALUE,... at least once.")
    searched = parse_sweeps("search", _SEARCH.value)
    names = [name for name, _ in searched]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--search={name} comes twice; give all its values at once.")
    refuse_given(names, lambda name: f"--{name} is given and searched; leave one of the two out.")
    every = [dict(zip(names, values)) for values in itertools.product(*(v for _, v in searched))]
    if _TRIALS.value is None or _TRIALS.value >= len(every):
        return every
    places = rng.generator(0, "tune").choice(len(every), _TRIALS.value, replace=False)
    return [every[place] for place in sorted(places)]


def _plan(trials: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Settings]]:
    """Returns the changes and the settings of each run, in a directory of its own."""
    given = flags.FLAGS
    feedback = chosen_feedback([_ALGORITHM.value])
    algorithm = current_algorithm(_ALGORITHM.value, feedback, flag="algorithm")
    planned = []
    for changes in trials:
        for seed in range(_SEEDS.value):
            label = f"{_label(changes)}-seed{seed}"
            path = given.output_dir and str(pathlib.Path(given.output_dir) / "runs" / label)
            fixed = {"algorithm": algorithm, "seed": seed, "output_dir": path}
            chosen = settings_from_flags(has_references=True, **fixed, **changes)
            if not chosen.is_explicit and chosen.evaluate_on != "validation":
                raise InputError(
                    "--evaluate_on=test would choose settings by the test; leave it out."
                )
            for name in changes:
                if not settings.uses(chosen, name):
                    raise InputError(f"--search={name}: {algorithm} does not use it.")
            planned.append((changes, chosen))
    refuse_unused([chosen for _, chosen in planned])
    return planned


def _label(changes: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in changes.items())


def _chosen_by(chosen: Settings) -> Measure:
    return feedback_by(chosen.feedback, chosen.split).chosen_by


def _metric(chosen: Settings) -> str:
    return _chosen_by(chosen).name


def _validation_curve(chosen: Settings, interruption) -> tuple[dict[int, float], float]:
    """Returns the metric by the number of rounds, and the seconds."""
    population = load_population(chosen)
    if not chosen.is_trained:
        return _reference_curve(chosen, population)

    from experiments.run import training

    with claimed(chosen, population) as run:
        finished = training.train(chosen, population, run, interruption, title=chosen.algorithm)
        name = f"{finished.watched_group}/{_metric(chosen)}"
        curve = {int(row["round"]): row[name] for row in run.read_metrics() if name in row}
    return curve, round(finished.seconds, 2)


def _reference_curve(chosen: Settings, population) -> tuple[dict[int, float], float]:
    from fedrecon.evaluation.judge import BaselineScores, Judge

    start = time.monotonic()
    model = references.train(chosen, population)
    seconds = round(time.monotonic() - start, 2)
    judge = Judge.of_scores(BaselineScores(), population)
    metrics = judge.metrics(model, watched_group(chosen))
    return {0: metrics[_metric(chosen)]}, seconds


def _best_first(rows, names: list[str], chosen: Settings):
    """Returns a row for each trial that every seed finished, after its best number of rounds."""
    metric = _metric(chosen)
    of_rounds = rows.groupby([*names, "rounds"], dropna=False, as_index=False).agg(
        **{metric: (metric, "mean"), "deviation": (metric, "std")},
        seconds=("seconds", "mean"),
        seeds=("seed", "nunique"),
    )
    of_rounds = of_rounds[of_rounds["seeds"] == _SEEDS.value]
    best_first = _chosen_by(chosen).best_first
    ordered = of_rounds.sort_values(metric, key=best_first, kind="stable")
    return ordered.drop_duplicates(names)


if __name__ == "__main__":
    cli.run(main)
