"""Compares algorithms on the same data, splits, model and budget, over several seeds.

    python -m experiments.compare --dataset=movielens-1m --seeds=3 --output_dir=runs/comparison \\
        --algorithms=fed_recon,stateful_fed_avg,fed_avg,fed_ncf,centralized

Each algorithm and seed is a run: a directory in `runs/`, as `train` leaves it. The same command
again resumes the run that was interrupted, and does not repeat a finished one.
`--set=fed_ncf:client_learning_rate=0.001` changes a setting of one algorithm;
`--sweep=client_epochs:1,2,5` runs each algorithm with each value.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from absl import flags

from experiments.comparison import costs, references
from experiments.run import cli, data, display, runtime, settings
from experiments.run.flags import (
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
from experiments.run.settings import Settings
from fedrecon.errors import InputError

_KNOWN = (*ALGORITHMS, *REFERENCES)
# Without held-out ratings or users, no user is judged as seen, or as unseen.
_HELD_OUT = 0.1
_JUDGED_BY = {
    "explicit": {"seen": "seen", "unseen": "test"},
    "implicit": {"seen": "test", "unseen": "unseen"},
}
# The groups by which settings may be chosen.
_VALIDATED_BY = {
    "explicit": {"seen": "seen_validation", "unseen": "validation"},
    "implicit": {"seen": "validation"},
}

define_flags(without=("algorithm", "seed"))
_ALGORITHMS = flags.DEFINE_list(
    "algorithms",
    "fed_recon,stateful_fed_avg,fed_avg,fed_ncf,centralized",
    f"Algorithms and references to compare, from {listed(_KNOWN)}.",
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


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run: an algorithm or a reference with one seed.

    Attributes:
      settings: Its settings, its directory among them.
      changes: The settings that a sweep changed.
    """

    settings: Settings
    changes: dict[str, Any]

    @property
    def algorithm(self) -> str:
        return self.settings.algorithm

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.settings.output_dir)

    @property
    def label(self) -> str:
        return self.path.name


def main(interruption: cli.Interruption) -> None:
    planned = _plan()
    output_dir = pathlib.Path(flags.FLAGS.output_dir)
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / "runs").is_dir():
        raise InputError(
            f"{output_dir} holds files but no comparison; give an empty or a new output directory."
        )
    _check_resumable(planned)
    failures = []
    if all(_read_results(each) for each in planned):
        print("All runs are finished.")
    else:
        runtime.start(flags.FLAGS.runtime, flags.FLAGS.gpu_memory_limit_mb)
        failures = display.run_all(
            [(each.label, each) for each in planned], lambda each: _run(each, interruption)
        )

    from experiments.comparison import report

    finished = [each.path for each in planned if _read_results(each)]
    if finished:
        files = report.write_report(output_dir, finished)
        print()
        print((output_dir / "comparison.md").read_text())
        print(f"Files: {output_dir}/")
        for path in files:
            print(f"  {path.name}")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(planned)} runs could not be finished, and are in no table:\n"
            "  " + "\n  ".join(failures)
        )


def _plan() -> list[Planned]:
    """Returns the runs: a whole comparison for one seed after the other, then the sweeps."""
    feedback = flags.FLAGS.feedback
    algorithms = [current_algorithm(a, feedback, flag="algorithms") for a in _ALGORITHMS.value]
    for algorithm in algorithms:
        if algorithm not in _KNOWN:
            raise InputError(
                f"--algorithms={','.join(algorithms)}: there is no algorithm {algorithm!r}"
                f"{did_you_mean(algorithm, _KNOWN)} Known are {', '.join(_KNOWN)}."
            )
        if algorithms.count(algorithm) > 1:
            raise InputError(
                f"--algorithms={','.join(algorithms)} has {algorithm} twice; name each once."
            )
    own = parse_changes("set", _SET.value, feedback=feedback, known=_KNOWN)
    bases = {algorithm: _planned(algorithm, 0, {}, own).settings for algorithm in algorithms}
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
    return [_planned(*plan, own) for plan in plans]


def _planned(algorithm: str, seed: int, changes: dict[str, Any], own) -> Planned:
    given = flags.FLAGS
    held_out = "unseen_fraction" if given.feedback == "implicit" else "held_out_fraction"
    defaults = {} if given[held_out].present else {held_out: _HELD_OUT}
    label = "-".join([algorithm, f"seed{seed}", *(f"{n}={v}" for n, v in changes.items())])
    output_dir = given.output_dir and str(pathlib.Path(given.output_dir) / "runs" / label)
    fixed = {"algorithm": algorithm, "seed": seed, "output_dir": output_dir}
    values = {**defaults, **own.get(algorithm, {}), **fixed, **changes}
    return Planned(settings_from_flags(has_references=True, **values), changes)


def _refuse_unused_changes(bases: dict[str, Settings], own: dict[str, dict[str, Any]]) -> None:
    """Refuses a --set that its algorithm has no use for; presets also change others."""
    for algorithm, base in bases.items():
        for name in own.get(algorithm, {}):
            if not settings.uses(base, name):
                raise InputError(f"--set={algorithm}:{name}: {algorithm} does not use it.")


def _read_results(planned: Planned) -> dict[str, Any] | None:
    """Returns the results of a run that is finished, for as many rounds as are wanted."""
    from fedrecon.runs.run_directory import RunDirectory

    results = RunDirectory(planned.path).read_results()
    if results is None or results["rounds"] not in (None, planned.settings.total_rounds):
        return None
    return results


def _check_resumable(planned: list[Planned]) -> None:
    """Refuses settings or data that differ from the settings and data of the runs that there are.

    Otherwise a finished run would be taken for a run with these settings.
    """
    from fedrecon.runs.run_directory import CONFIG, RunDirectory

    for each in planned:
        if (each.path / CONFIG).exists():
            clients, run = data.load_clients(each.settings), RunDirectory(each.path)
            settings.check_format(run.read_config(), run.path)
            run.check(_config(each, clients), free_settings=settings.FREE)


def _config(planned: Planned, clients: data.Clients) -> dict[str, Any]:
    from experiments.run import running

    config = running.config(planned.settings, clients)
    if not planned.settings.is_trained:
        config["settings"] = references.config(planned.settings)
    return config


def _run(planned: Planned, interruption: cli.Interruption) -> str:
    """Does one run; returns a line about it."""
    clients = data.load_clients(planned.settings)
    run_one = _run_algorithm if planned.settings.is_trained else _run_classical
    results, is_new = run_one(planned, clients, interruption)
    return _describe(results) + ("" if is_new else "  (finished before)")


def _describe(results: dict[str, Any]) -> str:
    metric = "rmse" if results["feedback"] == "explicit" else "hr_at_10"
    mean = "over_ratings" if results["feedback"] == "explicit" else "over_users"
    title = {"rmse": "RMSE", "hr_at_10": "HR@10"}[metric]
    groups = [f"{who} {found[mean][metric]:.4f}" for who, found in results["users"].items()]
    return f"{title} {' '.join(groups)}  {results['seconds']:.0f} s"


def _run_algorithm(
    planned: Planned, clients: data.Clients, interruption
) -> tuple[dict[str, Any], bool]:
    from experiments.run import choices, running
    from fedrecon.models.functional import FunctionalModel

    chosen = planned.settings
    with running.claimed(chosen, clients) as run:
        finished = _read_results(planned)
        if finished:
            return finished, False
        done = running.train(chosen, clients, run, interruption, title=planned.label)
        model = FunctionalModel(choices.model_fn(chosen, clients.ratings.num_items)())
        results = {
            **_head(planned, clients, done.seconds),
            "rounds": chosen.total_rounds,
            "clients_per_round": chosen.clients_per_round,
            "watched_part": done.task.watched_part,
            **costs.costs(chosen, model, done.state, clients.mean_ratings()),
            **_judged(done.judge, done.state, chosen, clients.users),
        }
        run.write_results(results)
        return results, True


def _run_classical(
    planned: Planned, clients: data.Clients, interruption
) -> tuple[dict[str, Any], bool]:
    import time

    from experiments.run.judging import ClassicalJudge
    from fedrecon.runs.run_directory import RunDirectory

    del interruption  # It takes seconds; there is nothing to save.
    chosen = planned.settings
    run = RunDirectory(planned.path)
    with run.claim(_config(planned, clients)):
        finished = _read_results(planned)
        if finished:
            return finished, False
        start = time.monotonic()
        model = references.train(chosen, clients)
        seconds = time.monotonic() - start
        results = {
            **_head(planned, clients, seconds),
            "rounds": None,
            "clients_per_round": None,
            "watched_part": "validation" if chosen.is_explicit else chosen.evaluate_on,
            **costs.of_one_machine(clients.mean_ratings(), references.num_bytes(model)),
            **_judged(ClassicalJudge(chosen, clients), model, chosen, clients.users),
        }
        run.write_results(results)
        return results, True


def _head(planned: Planned, clients: data.Clients, seconds: float) -> dict[str, Any]:
    return {
        "algorithm": planned.algorithm,
        "seed": planned.settings.seed,
        "changes": planned.changes,
        "feedback": planned.settings.feedback,
        "num_training_users": len(clients.users["train"]),
        "seconds": round(seconds, 2),
    }


def _judged(judge, state, chosen: Settings, parts: Iterable[str]) -> dict[str, Any]:
    """Returns what the judge says of seen and unseen users, where there are any.

    Args:
      judge: A `Judge`.
      state: Of whatever was trained.
      chosen: The settings.
      parts: The parts of the people that there are.
    """
    groups = {g: part for g, part in _JUDGED_BY[chosen.feedback].items() if part in parts}
    spread = "rmse" if chosen.is_explicit else "mrr"
    users = {}

    def means(results):
        return results.mean_over_ratings() if chosen.is_explicit else results.mean_over_users()

    for group, part in groups.items():
        results = judge.results(state, part)
        users[group] = {
            "over_users": results.mean_over_users(),
            "deciles": {spread: results.deciles(spread).tolist()},
            "num_users": int((results.counts > 0).sum()),
            "num_examples": int(results.counts.sum()),
        }
        if chosen.is_explicit:
            users[group]["over_ratings"] = results.mean_over_ratings()
    given = {}
    if "unseen" in groups:
        for number, results in judge.results_by_given(state, groups["unseen"]).items():
            given[str(number)] = means(results)
    validated = {g: part for g, part in _VALIDATED_BY[chosen.feedback].items() if part in parts}
    judged = {"users": users, "given": given}
    if validated:
        judged["validation"] = {
            group: means(judge.results(state, part)) for group, part in validated.items()
        }
    if not chosen.is_explicit:
        judged["full_ranking"] = {
            group: judge.full_ranking(state, part).mean_over_users()
            for group, part in groups.items()
        }
    return judged


if __name__ == "__main__":
    cli.run(main)
