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
from collections.abc import Iterable
from typing import Any

from absl import flags

from experiments.comparison import costs, references
from experiments.run import cli, data, runtime, settings
from experiments.run.settings import Settings
from fedrecon.errors import InputError

_KNOWN = (*settings.ALGORITHMS, *references.OPTIONS)
# Without these, nobody is judged as seen, or as unseen.
_HELD_OUT = 0.1
_JUDGED_BY = {
    "explicit": {"seen": "seen", "unseen": "test"},
    "implicit": {"seen": "test", "unseen": "unseen"},
}
# What settings may be chosen by.
_VALIDATED_BY = {
    "explicit": {"seen": "seen_validation", "unseen": "validation"},
    "implicit": {"seen": "validation"},
}

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


def _read_results(part: Part) -> dict[str, Any] | None:
    """Returns the results of a part that is finished, for as many rounds as are wanted."""
    from fedrecon.runs.run_directory import RunDirectory

    results = RunDirectory(part.path).read_results()
    if results is None or results["rounds"] not in (None, part.settings.total_rounds):
        return None
    return results


def _check_resumable(parts: list[Part]) -> None:
    """Refuses other settings or other data than those of the parts that there are, all at first.

    A finished part would be taken for one of these settings otherwise.
    """
    from fedrecon.runs.run_directory import CONFIG, RunDirectory

    for part in parts:
        if (part.path / CONFIG).exists():
            clients = data.load_clients(part.settings)
            RunDirectory(part.path).check(_config(part, clients), free_settings=settings.FREE)


def _config(part: Part, clients: data.Clients) -> dict[str, Any]:
    from experiments.run import running

    config = running.config(part.settings, clients)
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
            clients = data.load_clients(part.settings)
            is_classical = part.algorithm in references.OPTIONS
            run_part = _run_classical if is_classical else _run_algorithm
            try:
                results, is_new = run_part(part, clients, interruption)
                text = _describe(results) + ("" if is_new else "  (finished before)")
            except InputError as error:
                failures.append(f"{part.path.name}: {error}")
                text = "not finished: see below"
            tqdm.write(f"{number:3} of {len(parts)}  {part.path.name:40} {text}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    return failures


def _describe(results: dict[str, Any]) -> str:
    metric = "rmse" if results["feedback"] == "explicit" else "hr_at_10"
    mean = "over_ratings" if results["feedback"] == "explicit" else "over_users"
    title = {"rmse": "RMSE", "hr_at_10": "HR@10"}[metric]
    groups = [f"{who} {found[mean][metric]:.4f}" for who, found in results["users"].items()]
    return f"{title} {' '.join(groups)}  {results['seconds']:.0f} s"


def _run_algorithm(part: Part, clients: data.Clients, interruption) -> tuple[dict[str, Any], bool]:
    from experiments.run import choices, running
    from fedrecon.models.functional import FunctionalModel

    chosen = part.settings
    with running.claimed(chosen, clients) as run:
        finished = _read_results(part)
        if finished:
            return finished, False
        done = running.train(chosen, clients, run, interruption, title=part.path.name)
        model = FunctionalModel(choices.model_fn(chosen, clients.ratings.num_items)())
        results = {
            **_head(part, clients, done.seconds),
            "rounds": chosen.total_rounds,
            "clients_per_round": chosen.clients_per_round,
            "watched_part": done.task.watched_part,
            **costs.costs(chosen, model, done.state, clients.mean_ratings()),
            **_judged(done.judge, done.state, chosen, clients.users),
        }
        run.write_results(results)
        return results, True


def _run_classical(part: Part, clients: data.Clients, interruption) -> tuple[dict[str, Any], bool]:
    import time

    from experiments.run.judging import ClassicalJudge
    from fedrecon.runs.run_directory import RunDirectory

    del interruption  # It takes seconds; there is nothing to save.
    chosen = part.settings
    run = RunDirectory(part.path)
    with run.claim(_config(part, clients)):
        finished = _read_results(part)
        if finished:
            return finished, False
        start = time.monotonic()
        model = references.train(part.algorithm, chosen, clients)
        seconds = time.monotonic() - start
        results = {
            **_head(part, clients, seconds),
            "rounds": None,
            "clients_per_round": None,
            "watched_part": "validation" if chosen.is_explicit else chosen.evaluate_on,
            **costs.of_one_machine(clients.mean_ratings(), model.num_bytes),
            **_judged(ClassicalJudge(chosen, clients), model, chosen, clients.users),
        }
        run.write_results(results)
        return results, True


def _head(part: Part, clients: data.Clients, seconds: float) -> dict[str, Any]:
    return {
        "algorithm": part.algorithm,
        "seed": part.settings.seed,
        "changes": part.changes,
        "feedback": part.settings.feedback,
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
