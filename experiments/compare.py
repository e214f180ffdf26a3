"""Compares algorithms on the same data, splits, model and budget, over several seeds.

    python -m experiments.compare --algorithms=fedrecon,stateful_fedavg,fedavg,fedncf,centralized \\
        --dataset=movielens-1m --data_dir=DIR --seeds=3 --output_dir=runs/comparison

Each algorithm and seed is a part: a run directory as `train` leaves it, in `parts/`. The same
command again goes on with the part that was interrupted, and does not run a finished one again.
`--set=fedncf:client_learning_rate=0.001` changes a setting of one algorithm;
`--sweep=local_epochs:1,2,5` runs each algorithm with each value.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.comparison import references
from experiments.comparison.results import RunResults, judged, read_results
from experiments.run import build, cli, runtime, settings
from experiments.run.settings import Settings
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS
from fedrecon.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from fedrecon.data.population import Population

_KNOWN = (*settings.ALGORITHMS, *references.OPTIONS)
# Without these, nobody is judged as seen, or as unseen.
_HELD_OUT = 0.1
settings.define_flags(without=("algorithm", "seed"))
flags.adopt_module_key_flags(settings)
_ALGORITHMS = flags.DEFINE_list(
    "algorithms", "fedrecon,stateful_fedavg,fedavg,fedncf,centralized", f"Of {', '.join(_KNOWN)}."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "How many seeds, from 0; a seed decides who is in which part, too.", lower_bound=1
)
_SET = flags.DEFINE_multi_string(
    "set", [], "ALGORITHM:SETTING=VALUE changes a setting of one algorithm; may come again."
)
_SWEEP = flags.DEFINE_multi_string(
    "sweep",
    [],
    "SETTING:VALUE,VALUE,... runs each algorithm that uses the setting with each value, all else "
    "as it is (local_epochs is client_epochs); may come again.",
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One algorithm with one seed.

    Attributes:
      algorithm: One of `_KNOWN`.
      settings: Its settings, its directory among them. (Classical references use few of them.)
      changes: What a sweep changed.
    """

    algorithm: str
    settings: Settings
    changes: dict[str, Any]

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.settings.output_dir)


def main(interruption: cli.Interruption) -> None:
    parts = _plan()
    output_dir = pathlib.Path(flags.FLAGS.output_dir)
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / "parts").is_dir():
        raise InputError(
            f"{output_dir} holds files but no comparison; give an empty or a new output directory."
        )
    _check_resumable(parts)
    failures = []
    if all(_read_results(part) for part in parts):
        print("All parts are finished.")
    else:
        failures = _run(parts, interruption)

    from experiments.comparison import report

    finished = [part.path for part in parts if _read_results(part)]
    if finished:
        files = report.write_report(output_dir, finished)
        print()
        print((output_dir / "comparison.md").read_text())
        print(f"Files: {output_dir}/")
        for path in files:
            print(f"  {path.name}")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(parts)} parts could not be finished, and are in no table:\n  "
            + "\n  ".join(failures)
        )


def _plan() -> list[Part]:
    """Returns the parts, a whole comparison for one seed after the other, then the sweeps."""
    algorithms = _ALGORITHMS.value
    for algorithm in algorithms:
        if algorithm not in _KNOWN or algorithms.count(algorithm) > 1:
            raise InputError(
                f"--algorithms={','.join(algorithms)}: each must be another one of "
                f"{', '.join(_KNOWN)}."
            )
    own_settings = _own_settings()
    sweeps = settings.parse_sweeps("sweep", _SWEEP.value)
    _check_common_flags(algorithms, own_settings, [name for name, _ in sweeps])
    seeds = range(_SEEDS.value)
    plans = [(algorithm, seed, {}) for seed in seeds for algorithm in algorithms]
    for name, values in sweeps:
        for seed in seeds:
            for algorithm in algorithms:
                base = _part(algorithm, seed, {}, own_settings).settings
                if not references.takes(algorithm, base, name):
                    continue  # It would be the same part again.
                plans += [(algorithm, seed, {name: v}) for v in values if v != getattr(base, name)]
    return [_part(*plan, own_settings) for plan in plans]


def _part(algorithm: str, seed: int, changes: dict[str, Any], own_settings) -> Part:
    given = flags.FLAGS
    names = [f.name for f in dataclasses.fields(Settings) if f.name not in ("algorithm", "seed")]
    values = {name: given[name].value for name in names}
    name = "unseen_fraction" if given.feedback == "implicit" else "held_out_fraction"
    if not given[name].present:
        values[name] = _HELD_OUT
    label = "-".join([algorithm, f"seed{seed}", *(f"{n}={v}" for n, v in changes.items())])
    values.update(
        own_settings.get(algorithm, {}),
        algorithm=references.settings_algorithm(algorithm),
        seed=seed,
        output_dir=str(pathlib.Path(given.output_dir) / "parts" / label),
        **changes,
    )
    part = Part(algorithm, Settings(**values), changes)
    if algorithm == "ials" and part.settings.is_explicit:
        raise InputError(
            "ials is for implicit feedback; leave it out, or give --feedback=implicit."
        )
    return part


def _own_settings() -> dict[str, dict[str, Any]]:
    """Returns what --set says, by algorithm; presets name those, too, that are not compared."""
    own: dict[str, dict[str, Any]] = {}
    for text in _SET.value:
        algorithm, colon, assignment = text.partition(":")
        name, equals, value = assignment.partition("=")
        if not (colon and equals) or algorithm not in _KNOWN:
            raise InputError(
                f"--set={text} must be ALGORITHM:SETTING=VALUE with one of {', '.join(_KNOWN)}."
            )
        name, value = settings.parse_value("set", text, name, value)
        own.setdefault(algorithm, {})[name] = value
    return own


def _check_common_flags(algorithms, own_settings, swept) -> None:
    """Refuses a flag, a --set or a --sweep that no algorithm, or not its own, has a use for."""
    bases = {algorithm: _part(algorithm, 0, {}, own_settings).settings for algorithm in algorithms}
    for field in dataclasses.fields(Settings):
        name = field.name
        if name in ("algorithm", "seed"):
            continue
        used_by = [a for a in algorithms if references.takes(a, bases[a], name)]
        is_asked = flags.FLAGS[name].present or name in swept
        if is_asked and not used_by:
            raise InputError(f"--{name} has no effect with --algorithms={','.join(algorithms)}.")
        for algorithm in algorithms:
            if name in own_settings.get(algorithm, {}) and algorithm not in used_by:
                raise InputError(f"--set={algorithm}:{name}: {algorithm} does not use it.")


def _read_results(part: Part) -> RunResults | None:
    """Returns the results of a part that is finished, for as many rounds as are wanted."""
    results = read_results(RunDirectory(part.path))
    if results is None or results.rounds not in (None, part.settings.total_rounds):
        return None
    return results


def _check_resumable(parts: list[Part]) -> None:
    """Refuses other settings or other data than those of the parts that there are, all at first.

    A finished part would be taken for one of these settings otherwise.
    """
    from fedrecon.runs.run_directory import CONFIG

    for part in parts:
        if (part.path / CONFIG).exists():
            population = build.load_population(part.settings)
            RunDirectory(part.path).check(_config(part, population), free_settings=settings.FREE)


def _config(part: Part, population: Population) -> dict[str, Any]:
    from experiments.run import training

    config = training.config(part.settings, population)
    if part.algorithm in references.OPTIONS:
        config["settings"] = references.config(part.algorithm, part.settings)
    return config


def _run(parts: list[Part], interruption: cli.Interruption) -> list[str]:
    """Runs what is not finished; returns what could not be, each with its reason.

    One part that diverges does not take the others with it.
    """
    from tqdm import tqdm

    runtime.start(flags.FLAGS.runtime, flags.FLAGS.gpu_memory_limit_mb)
    failures = []
    with tqdm(total=len(parts), unit="part", disable=None, desc="all parts") as bar:
        for number, part in enumerate(parts, start=1):
            population = build.load_population(part.settings)
            is_reference = part.algorithm in references.OPTIONS
            run_part = _run_reference if is_reference else _run_algorithm
            try:
                results, is_new = run_part(part, population, interruption)
                text = _describe(results) + ("" if is_new else "  (finished before)")
            except InputError as error:
                failures.append(f"{part.path.name}: {error}")
                text = "not finished: see below"
            tqdm.write(f"{number:3} of {len(parts)}  {part.path.name:40} {text}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    return failures


def _describe(results: RunResults) -> str:
    measure = FEEDBACKS[results.feedback].measures[0]
    values = [
        f"{name} {group.means[measure.name]:.4f}"
        for name, group in results.groups.items()
        if name.endswith("_test")
    ]
    return f"{measure.title} {' '.join(values)}  {results.seconds:.0f} s"


def _run_algorithm(part: Part, population: Population, interruption) -> tuple[RunResults, bool]:
    from experiments.run import training

    chosen = part.settings
    with training.claimed(chosen, population) as run:
        finished = _read_results(part)
        if finished:
            return finished, False
        done = training.train(chosen, population, run, interruption, title=part.path.name)
        results = RunResults(
            **_head(part, population),
            watched_group=done.watched_group,
            rounds=chosen.total_rounds,
            clients_per_round=chosen.clients_per_round,
            seconds=round(done.seconds, 2),
            costs=done.algorithm.costs(done.state)._asdict(),
            groups=judged(done.judge, done.state, population),
        )
        run.write_results(results.to_json())
        return results, True


def _run_reference(part: Part, population: Population, interruption) -> tuple[RunResults, bool]:
    import time

    from fedrecon.algorithms.algorithm import costs_of_one_machine
    from fedrecon.evaluation.judge import BaselineScores, Judge

    del interruption  # It takes seconds; there is nothing to save.
    chosen = part.settings
    run = RunDirectory(part.path)
    with run.claim(_config(part, population)):
        finished = _read_results(part)
        if finished:
            return finished, False
        start = time.monotonic()
        model = references.train(part.algorithm, chosen, population)
        seconds = time.monotonic() - start
        results = RunResults(
            **_head(part, population),
            watched_group=build.watched_group(chosen),
            rounds=None,
            clients_per_round=None,
            seconds=round(seconds, 2),
            costs=costs_of_one_machine(population, references.num_bytes(model))._asdict(),
            groups=judged(Judge.of_scores(BaselineScores(), population), model, population),
        )
        run.write_results(results.to_json())
        return results, True


def _head(part: Part, population: Population) -> dict[str, Any]:
    return {
        "algorithm": part.algorithm,
        "seed": part.settings.seed,
        "changes": part.changes,
        "feedback": population.feedback,
        "num_training_users": len(population.train),
    }


if __name__ == "__main__":
    cli.run(main)
