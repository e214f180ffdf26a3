"""Searches settings by validation data, and by nothing else: no test figure is ever computed.

    python -m experiments.tune --flagfile=experiments/presets/tune_fedrecon_ls_ml1m.flags \\
        --data_dir=DIR --output_dir=runs/tune

`--search=ridge:5,10,20` is a setting and its values; may come again. Trials are all combinations,
or `--trials` of them drawn at random, each with every seed: a run directory in `trials/`, as
`train` leaves it, so the same command goes on where it was interrupted. How many rounds to train is
searched in the same runs, by the curve of the validation metric: RMSE over the ratings of
validation users, or NDCG@10 of each user's validation item. `trials.csv` has every trial, the best
first: means over seeds after the best number of rounds.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
from typing import Any

from absl import flags

from experiments.comparison import references
from experiments.run import build, cli, runtime, settings
from experiments.run.settings import Settings
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS

TABLE = "trials.csv"
_NUM_SHOWN = 10
_KNOWN = (*settings.ALGORITHMS, *references.OPTIONS)

settings.define_flags(without=("algorithm", "seed"))
flags.adopt_module_key_flags(settings)
_ALGORITHM = flags.DEFINE_enum("algorithm", "fedrecon", _KNOWN, "Whose settings are searched.")
_SEARCH = flags.DEFINE_multi_string(
    "search", None, "SETTING:VALUE,VALUE,... searches a setting; may come again.", required=True
)
_TRIALS = flags.DEFINE_integer(
    "trials", None, "How many combinations, drawn at random; by default all.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many seeds, from 0.", lower_bound=1)


def main(interruption: cli.Interruption) -> None:
    import pandas as pd
    from tqdm import tqdm

    output_dir = pathlib.Path(flags.FLAGS.output_dir)
    trials = _trials()
    chosen = [_settings(output_dir, t, seed) for t in trials for seed in range(_SEEDS.value)]
    _check_flags([of_run for _, of_run in chosen])
    runtime.start(flags.FLAGS.runtime, flags.FLAGS.gpu_memory_limit_mb)
    rows, failures = [], []
    with tqdm(total=len(chosen), unit="run", disable=None, desc="all runs") as bar:
        for number, (changes, of_run) in enumerate(chosen, start=1):
            label = pathlib.Path(of_run.output_dir).name
            try:
                curve, seconds = _validation_curve(of_run, interruption)
            except InputError as error:
                failures.append(f"{label}: {error}")
                text = "not finished: see below"
            else:
                row = {**changes, "seed": of_run.seed, "seconds": seconds}
                rows += [{**row, "rounds": n, _metric(of_run): value} for n, value in curve.items()]
                text = f"{_metric(of_run)} {list(curve.values())[-1]:.4f}"
            bar.update()
            tqdm.write(f"{number:3} of {len(chosen)}  {label:40} {text}", file=sys.stdout)
            sys.stdout.flush()
    if not rows:
        raise InputError("no trial could be finished:\n  " + "\n  ".join(failures))
    table = _best_first(pd.DataFrame(rows), list(trials[0]), chosen[0][1])
    output_dir.mkdir(parents=True, exist_ok=True)  # A classical reference leaves nothing there.
    table.to_csv(output_dir / TABLE, index=False)
    print(table.head(_NUM_SHOWN).to_string(index=False))
    print(
        f"\n{len(table)} of {len(trials)} trials, {_SEEDS.value} seeds. File: {output_dir / TABLE}"
    )
    if failures:
        print("Not finished:\n  " + "\n  ".join(failures))


def _trials() -> list[dict[str, Any]]:
    """Returns what the trials change."""
    from fedrecon import rng

    searched = settings.parse_sweeps("search", _SEARCH.value)
    names = [name for name, _ in searched]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--search={name} comes twice; give all its values at once.")
        if flags.FLAGS[name].present:
            raise InputError(f"--{name} is given and searched; leave one of the two out.")
    every = [dict(zip(names, values)) for values in itertools.product(*(v for _, v in searched))]
    if _TRIALS.value is None or _TRIALS.value >= len(every):
        return every
    places = rng.generator(0, "tune").choice(len(every), _TRIALS.value, replace=False)
    return [every[place] for place in sorted(places)]


def _settings(output_dir: pathlib.Path, changes: dict[str, Any], seed: int):
    """Returns what is changed, and the settings of one run, in a directory of its own."""
    algorithm = _ALGORITHM.value
    names = [f.name for f in dataclasses.fields(Settings) if f.name not in ("algorithm", "seed")]
    values = {name: flags.FLAGS[name].value for name in names}
    values.update(
        changes,
        algorithm=references.settings_algorithm(algorithm),
        seed=seed,
        output_dir=str(output_dir / "trials" / f"{_label(changes)}-seed{seed}"),
    )
    chosen = Settings(**values)
    if not chosen.is_explicit and chosen.evaluate_on != "validation":
        raise InputError("--evaluate_on=test would choose settings by the test; leave it out.")
    for name in changes:
        if not references.takes(algorithm, chosen, name):
            raise InputError(f"--search={name}: {algorithm} does not use it.")
    return changes, chosen


def _check_flags(chosen: list[Settings]) -> None:
    """Refuses a flag that no trial has a use for."""
    algorithm = _ALGORITHM.value
    for field in dataclasses.fields(Settings):
        if field.name in ("algorithm", "seed") or not flags.FLAGS[field.name].present:
            continue
        if not any(references.takes(algorithm, each, field.name) for each in chosen):
            raise InputError(f"--{field.name} has no effect with --algorithm={algorithm}.")


def _label(changes: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in changes.items())


def _metric(chosen: Settings) -> str:
    return FEEDBACKS[chosen.feedback].chosen_by.name


def _validation_curve(chosen: Settings, interruption) -> tuple[dict[int, float], float]:
    """Returns the metric by the number of rounds, and the seconds."""
    from experiments.run import training

    population = build.load_population(chosen)
    if _ALGORITHM.value in references.OPTIONS:
        return _reference_curve(chosen, population)
    with training.claimed(chosen, population) as run:
        finished = training.train(chosen, population, run, interruption, title=_ALGORITHM.value)
        name = f"{finished.watched_group}/{_metric(chosen)}"
        curve = {int(row["round"]): row[name] for row in run.read_metrics() if name in row}
    return curve, round(finished.seconds, 2)


def _reference_curve(chosen: Settings, population) -> tuple[dict[int, float], float]:
    import time

    from fedrecon.evaluation.judge import BaselineScores, Judge

    start = time.monotonic()
    model = references.train(_ALGORITHM.value, chosen, population)
    seconds = round(time.monotonic() - start, 2)
    judge = Judge.of_scores(BaselineScores(), population)
    metrics = judge.metrics(model, build.watched_group(chosen))
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
    best_first = FEEDBACKS[chosen.feedback].chosen_by.best_first
    ordered = of_rounds.sort_values(metric, key=best_first, kind="stable")
    return ordered.drop_duplicates(names)


if __name__ == "__main__":
    cli.run(main)
