"""Compares algorithms on the same data, splits, model and budget, over several seeds.

    python -m experiments.compare --dataset=movielens-1m --seeds=3 --output_dir=runs/comparison \\
        --algorithms=fed_recon,stateful_fed_avg,fed_avg,fed_ncf,centralized

Each algorithm and seed is a run: a directory in `runs/`, as `train` leaves it. The same command
again resumes the run that was interrupted, and does not repeat a finished one.
`--set=fed_ncf:client_learning_rate=0.001` changes a setting of one algorithm;
`--sweep=client_epochs:1,2,5` runs each algorithm with each value.
"""

from __future__ import annotations

import pathlib
from typing import Any

from absl import flags

from experiments.comparison.planned import Planned, config_of, forget_damaged, results_of
from experiments.comparison.results import RunResults
from experiments.run import cli, display, reports, resuming, runtime, settings
from experiments.run.convergence import CONVERGED, ending_of_rows
from experiments.run.flags import (
    chosen_feedback,
    define_flags,
    parse_changes,
    parse_sweeps,
    refuse_unused,
    settings_from_flags,
)
from experiments.run.names import (
    ALGORITHMS,
    REFERENCES,
    current_algorithm,
    did_you_mean,
    listed,
)
from experiments.run.population import load_first, load_population
from experiments.run.settings import Settings
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS
from fedrecon.runs.run_directory import CONFIG, RunDirectory

_KNOWN = (*ALGORITHMS, *REFERENCES)
# Without held-out ratings or users, no user is judged as seen, or as unseen.
_HELD_OUT = 0.1
_FED = ("fed_recon", "fed_avg", "stateful_fed_avg", "fed_ncf", "centralized")
_DEFAULT = {"explicit": ("fed_recon_ls", *_FED), "implicit": ("fed_ials", *_FED)}
define_flags(without=("algorithm", "seed"))
_ALGORITHMS = flags.DEFINE_list(
    "algorithms",
    None,
    f"Algorithms and references to compare, from {listed(_KNOWN)}. Without it: every algorithm for "
    "the kind of feedback.",
)
_REFERENCES = flags.DEFINE_list(
    "references",
    "popularity,item_knn",
    "References that are in every comparison, so that an algorithm which loses to a mean says so. "
    "--references= leaves them out.",
)
_SEEDS = flags.DEFINE_integer(
    "seeds",
    1,
    "Number of seeds, from 0. The seed also decides which users are held out.",
    lower_bound=1,
    upper_bound=1000,
)
_SET = flags.DEFINE_multi_string(
    "set", [], "ALGORITHM:SETTING=VALUE changes a setting of one algorithm. It can be repeated."
)
_SWEEP = flags.DEFINE_multi_string(
    "sweep",
    [],
    "SETTING:VALUE,VALUE,... runs each algorithm that uses the setting with each value, and also "
    "unchanged. It can be repeated.",
)
_OPEN_REPORT = flags.DEFINE_bool("open_report", False, "Open report.html in a browser at the end.")


def main(interruption: cli.Interruption) -> None:
    planned = _plan()
    with resuming.told(interruption, _goes_on, planned):
        _compare(planned, interruption)


def _goes_on(planned: list[Planned]) -> str:
    """Returns what the same command does after an interruption."""
    num_finished = sum(results_of(each) is not None for each in planned)
    return resuming.of_runs([each.path for each in planned], num_finished=num_finished)


def _compare(planned: list[Planned], interruption: cli.Interruption) -> None:
    output_dir = pathlib.Path(flags.FLAGS.output_dir)
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / "runs").is_dir():
        raise InputError(
            f"{output_dir} holds files but no comparison; give an empty or a new output directory."
        )
    _check_resumable(planned)
    for each in planned:
        forget_damaged(each)
    failures = []
    if all(results_of(each) for each in planned):
        print("All runs are finished.")
    else:
        population = load_first([each.settings for each in planned])
        display.print_notes(population.ratings)
        unfinished = sum(results_of(each) is None for each in planned)
        print(
            f"Runs to do: {unfinished} ({len(planned) - unfinished} are finished). Loading "
            "TensorFlow, which takes some seconds.",
            flush=True,
        )
        runtime.start(flags.FLAGS.runtime, flags.FLAGS.gpu_memory_limit_mb)
        failures = display.run_all(
            [(each.label, each) for each in planned], lambda each: _run(each, interruption)
        )

    from experiments.comparison import report

    finished = [each.path for each in planned if results_of(each)]
    if finished:
        files = report.write_report(output_dir, finished)
        print()
        print((output_dir / "comparison.md").read_text())
        print(f"Files: {output_dir}/")
        for path in files:
            if path.name != reports.REPORT:
                print(f"  {path.name}")
        reports.tell(output_dir / reports.REPORT, opens=_OPEN_REPORT.value)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(planned)} runs could not be finished, and are in no table:\n"
            "  " + "\n  ".join(failures)
        )


def _plan() -> list[Planned]:
    """Returns the runs: a whole comparison for one seed after the other, then the sweeps."""
    given = _ALGORITHMS.value or []
    feedback = chosen_feedback(given)
    algorithms = [current_algorithm(a, feedback, flag="algorithms") for a in given]
    algorithms = algorithms or list(_DEFAULT[feedback])
    algorithms += [name for name in _REFERENCES.value if name not in algorithms]
    for algorithm in algorithms:
        if algorithm not in _KNOWN:
            raise InputError(
                f"--algorithms={','.join(algorithms)}: there is no algorithm {algorithm!r}"
                f"{did_you_mean(algorithm, _KNOWN)} Known are {', '.join(_KNOWN)}."
            )
        if algorithms.count(algorithm) > 1:
            raise InputError(
                f"--algorithms={','.join(given)} has {algorithm} twice; name each once."
            )
    own = parse_changes("set", _SET.value, feedback=feedback, known=_KNOWN)
    bases = {
        algorithm: _planned(algorithm, 0, {}, own, feedback).settings for algorithm in algorithms
    }
    refuse_unused(list(bases.values()), is_comparison=True)
    _refuse_unused_changes(bases, own)
    seeds = range(_SEEDS.value)
    plans = [(algorithm, seed, {}) for seed in seeds for algorithm in algorithms]
    for name, values in parse_sweeps("sweep", _SWEEP.value):
        used_by = [a for a in algorithms if settings.uses(bases[a], name)]
        if not used_by:
            raise InputError(
                f"--sweep={name} has no effect with --algorithms={','.join(algorithms)}."
            )
        for seed in seeds:
            for algorithm in used_by:
                unchanged = getattr(bases[algorithm], name)
                plans += [(algorithm, seed, {name: v}) for v in values if v != unchanged]
    return [_planned(*plan, own, feedback) for plan in plans]


def _planned(
    algorithm: str,
    seed: int,
    changes: dict[str, Any],
    own: dict[str, dict[str, Any]],
    feedback: str,
) -> Planned:
    given = flags.FLAGS
    is_implicit = feedback == "implicit"
    held_out = "unseen_fraction" if is_implicit else "held_out_fraction"
    defaults = {} if given[held_out].present else {held_out: _HELD_OUT}
    label = "-".join([algorithm, f"seed{seed}", *(f"{n}={v}" for n, v in changes.items())])
    output_dir = given.output_dir and str(pathlib.Path(given.output_dir) / "runs" / label)
    fixed = {"algorithm": algorithm, "seed": seed, "output_dir": output_dir}
    values = {**defaults, **own.get(algorithm, {}), **fixed, "feedback": feedback, **changes}
    return Planned(settings_from_flags(has_references=True, **values), changes)


def _refuse_unused_changes(bases: dict[str, Settings], own: dict[str, dict[str, Any]]) -> None:
    """Refuses a --set that its algorithm has no use for; presets also change others."""
    for algorithm, base in bases.items():
        for name in own.get(algorithm, {}):
            if not settings.uses(base, name):
                raise InputError(f"--set={algorithm}:{name}: {algorithm} does not use it.")


def _check_resumable(planned: list[Planned]) -> None:
    """Refuses settings or data that differ from the settings and data of the runs that there are.

    Otherwise a finished run would be taken for a run with these settings.
    """
    for each in planned:
        if (each.path / CONFIG).exists():
            population, run = load_population(each.settings), RunDirectory(each.path)
            settings.check_format(run.read_config(), run.path)
            run.check(config_of(each, population), free_settings=settings.FREE)


def _run(planned: Planned, interruption: cli.Interruption) -> str:
    """Does one run; returns a line about it."""
    population = load_population(planned.settings)
    from experiments.comparison import runs

    run_one = runs.run_algorithm if planned.settings.is_trained else runs.run_reference
    results, is_new = run_one(planned, population, interruption)
    before = "" if is_new else "  (finished before)"
    return _describe(results) + _ending(planned, results) + before


def _ending(planned: Planned, results: RunResults) -> str:
    """Returns a mark of a run that had not converged, or had been better earlier."""
    if results.rounds is None:
        return ""
    rows, measure = RunDirectory(planned.path).read_metrics(), FEEDBACKS[results.feedback].chosen_by
    found = ending_of_rows(rows, results.watched_group, measure)
    return "" if found is None or found.kind == CONVERGED else f"  {found.kind}"


def _describe(results: RunResults) -> str:
    measure = FEEDBACKS[results.feedback].measures[0]
    values = [
        f"{name} {group.means[measure.name]:.4f}"
        for name, group in results.groups.items()
        if name.endswith("_test")
    ]
    return f"{measure.title} {' '.join(values)}  {results.seconds:.0f} s"


if __name__ == "__main__":
    cli.run(main)
