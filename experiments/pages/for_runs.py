"""The page of one run, or of several side by side."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pandas import CategoricalDtype, DataFrame, Index, MultiIndex, Series, concat

from experiments.comparison.clock import seconds_without_compilation
from experiments.comparison.converged import caution, endings
from experiments.comparison.cost import cost_blocks, curves_of, not_drawn
from experiments.comparison.differences import Pairing
from experiments.comparison.headline import main_group, winners
from experiments.comparison.results import read_results
from experiments.comparison.run_table import read_curve, read_runs
from experiments.comparison.sections import sections_of
from experiments.pages import details
from experiments.pages.for_comparison import compared
from experiments.pages.page import Page, Verdict, links
from experiments.pages.sections import NOTHING, Block, Cell, Points, Section, Table, Text
from experiments.run import accuracy, judged, settings
from experiments.run.convergence import ending
from experiments.run.flags import refuse_comparison
from experiments.run.population import watched_group
from experiments.run.settings import Settings
from fedrecon.data.population import GROUPS, STANDARD
from fedrecon.errors import InputError
from fedrecon.evaluation.coverage import Coverage
from fedrecon.evaluation.feedback import STANDARD_ERROR, Feedback, feedback_by
from fedrecon.runs import run_directory
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.serving import files as model_files

_FILES = {
    run_directory.FINAL_METRICS: "the metrics of each group of users",
    run_directory.RESULTS: "the results of each group of users",
    run_directory.METRICS: "one row a round",
    run_directory.CONFIG: "settings, versions, fingerprint of the data",
    run_directory.USERS: "which users train, and which are unseen",
    run_directory.CURVES: "metrics by rounds",
    run_directory.SAMPLES: "recommendations for a few test users",
    model_files.FOLDER: "the model, which serves anybody",
}
_OTHER_MEASURES = {"mae": "MAE", "mrr": "MRR", "loss": "loss"}
_COUNTS = {"num_examples": "ratings", "num_users": "users"}


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What the files of a finished run say.

    Attributes:
      path: Its directory.
      config: config.json.
      groups: The metrics of each group of users.
      coverage: Who of each group was judged.
      rounds: How many rounds were done; None for a reference.
      seconds: What training took.
      num_training_users: How many users trained.
      costs: The bytes sent and kept; None if they are not known.
      has_results: Whether it is a run of a comparison, whose users can be paired.
    """

    path: pathlib.Path
    config: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, float]]
    coverage: Mapping[str, Mapping[str, Any]]
    rounds: int | None
    seconds: float
    num_training_users: int
    costs: Mapping[str, int] | None
    has_results: bool

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.config["settings"]

    @property
    def algorithm(self) -> str:
        return self.settings["algorithm"]

    @property
    def feedback(self) -> Feedback:
        # Runs before there was a split have none.
        return feedback_by(self.settings["feedback"], self.settings.get("split", STANDARD))


def page_of(paths: Sequence[pathlib.Path], folder: pathlib.Path) -> Page:
    """Returns the page of finished runs.

    Args:
      paths: Their directories.
      folder: Where the page will be.

    Raises:
      InputError: If one is no finished run, or they differ in data, feedback or questions.
    """
    runs = [_read(path) for path in dict.fromkeys(paths)]
    _check_comparable(runs)
    names = _names(runs)
    if all(run.has_results for run in runs):
        return _of_results(runs, names, folder)
    return _of_means(dict(zip(names, runs)), folder)


def _read(path: pathlib.Path) -> FinishedRun:
    run = RunDirectory(path)
    refuse_comparison(path)
    config = run.read_config()
    settings.check_format(config, path)
    try:
        return _finished(run, config)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not a run of this version ({error}); run it again.") from error


def _finished(run: RunDirectory, config: Mapping[str, Any]) -> FinishedRun:
    results = read_results(run)
    if results is not None:
        return FinishedRun(
            path=run.path,
            config=config,
            groups={name: group.means for name, group in results.groups.items()},
            coverage={name: group.coverage for name, group in results.groups.items()},
            rounds=results.rounds,
            seconds=results.seconds,
            num_training_users=results.num_training_users,
            costs=results.costs,
            has_results=True,
        )
    final = run.read_final_metrics()
    if final is None:
        raise InputError(
            f"{run.path} is not finished: it has neither {run_directory.FINAL_METRICS} nor "
            f"{run_directory.RESULTS}. The command that began it goes on with it; for trials of "
            "experiments.tune, give the directory of the search."
        )
    return FinishedRun(
        path=run.path,
        config=config,
        groups={name: final[name] for name in GROUPS if name in final},
        coverage=final[judged.COVERAGE],
        rounds=final["rounds"],
        seconds=final["seconds"],
        num_training_users=final[judged.TRAINING_USERS]["num_users"],
        costs=final.get(judged.COSTS),
        has_results=False,
    )


def _check_comparable(runs: Sequence[FinishedRun]) -> None:
    """Refuses runs whose users were asked other questions than the users of the first run."""
    first = runs[0]
    for run in runs[1:]:
        if run.settings["feedback"] != first.settings["feedback"]:
            raise InputError(
                f"{run.path} has {run.settings['feedback']} feedback and {first.path} has "
                f"{first.settings['feedback']}; give runs with the same feedback."
            )
        if run.config["data_fingerprint"] != first.config["data_fingerprint"]:
            raise InputError(
                f"{run.path} was trained on {details.data_name(run.settings)} and {first.path} on "
                f"{details.data_name(first.settings)}, whose ratings differ; give runs on the same "
                "data."
            )
        for name in sorted({*run.settings, *first.settings}):
            ours, theirs = run.settings.get(name), first.settings.get(name)
            if ours != theirs and name != "seed" and _decides_questions(name):
                raise InputError(
                    f"{run.path} has {name}={ours} and {first.path} has {name}={theirs}, which "
                    "decides what users are asked; give runs with the same."
                )


def _decides_questions(name: str) -> bool:
    is_setting = name in {field.name for field in dataclasses.fields(Settings)}
    return is_setting and name not in settings.FREE and settings.decides_questions(name)


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """Returns what to call runs: by their algorithms, or where two share one by their paths."""
    for name in (_algorithm_and_seed(runs), lambda run: run.path.name, lambda run: str(run.path)):
        names = [name(run) for run in runs]
        if len(set(names)) == len(names):
            break
    return names


def _algorithm_and_seed(runs: Sequence[FinishedRun]) -> Callable[[FinishedRun], str]:
    has_one_seed = len({run.settings["seed"] for run in runs}) == 1
    return lambda run: (
        run.algorithm if has_one_seed else f"{run.algorithm}, seed {run.settings['seed']}"
    )


def _of_results(runs: Sequence[FinishedRun], names: Sequence[str], folder: pathlib.Path) -> Page:
    """Returns the page of runs of a comparison."""
    paths = [run.path for run in runs]
    # Runs of the same algorithm with other seeds are one algorithm, if nothing else differs.
    are_seeds = len({(run.algorithm, run.settings["seed"]) for run in runs}) == len(runs) and all(
        _without_seed(one) == _without_seed(other)
        for one in runs
        for other in runs
        if one.algorithm == other.algorithm
    )
    table = read_runs(paths, names=None if are_seeds else dict(zip(paths, names)))
    pairing = Pairing(table.unchanged, over=table.feedback.means_over)
    return compared(
        table,
        winners(table, pairing),
        sections_of(table, pairing),
        folder,
        title=_title(runs),
        files=[],
    )


def _without_seed(run: FinishedRun) -> dict[str, Any]:
    return {k: v for k, v in run.settings.items() if k not in ("seed", *settings.FREE)}


def _of_means(runs: Mapping[str, FinishedRun], folder: pathlib.Path) -> Page:
    """Returns the page of runs whose users cannot be paired, or of one run."""
    first = next(iter(runs.values()))
    curve = _curves(runs)
    same_seed = {
        name: run.path
        for name, run in runs.items()
        if run.settings["seed"] == first.settings["seed"]
    }
    configs = {name: run.config for name, run in runs.items()}
    sections = [
        _metrics_section(runs),
        _training_section(runs, curve),
        details.served_section(same_seed),
        _coverage_section(runs),
        details.settings_section(configs, seeds=[run.settings["seed"] for run in runs.values()]),
        Section(
            "Run it again, and its files",
            (*details.command_blocks(configs), links(folder, _files(list(runs.values())))),
        ),
    ]
    verdicts = [_verdict_of_one(first, curve)] if len(runs) == 1 else _verdicts(runs, curve)
    return Page(_title(list(runs.values())), _lead(runs), tuple(verdicts), tuple(sections))


def _title(runs: Sequence[FinishedRun]) -> str:
    if len(runs) == 1:
        return f"Run {runs[0].path.resolve().name}"
    return f"{len(runs)} runs side by side"


def _lead(runs: Mapping[str, FinishedRun]) -> str:
    first = next(iter(runs.values()))
    data = details.data_name(first.settings)
    budgets = {details.budget(run.settings) for run in runs.values()} - {""}
    trained = f", trained for {budgets.pop()}" if len(budgets) == 1 else ""
    users = f"{first.num_training_users:,} users train"
    seconds = f" in {first.seconds:,.0f} s" if len(runs) == 1 else ""
    return f"{details.listed(list(runs))} on {data}{trained}{seconds}; {users}."


def _verdict_of_one(run: FinishedRun, curve: DataFrame) -> Verdict:
    group, measures = main_group(_test_groups(run)), run.feedback.measures[:2]
    told = details.listed(
        [accuracy.told(m, run.groups[group][m.name], run.config) for m in measures]
    )
    text = f"{run.algorithm} has {told} on {group} users."
    measure = run.feedback.chosen_by
    values = curve.set_index("round")[measure.name]
    if len(values) > 1:
        watched = curve["watched_group"].iloc[0]
        text += (
            f" While it trained, its {measure.title} on {watched} users went from "
            f"{values.iloc[0]:.3f} to {values.iloc[-1]:.3f}."
        )
        found = ending(values.index.tolist(), values.tolist(), measure)
        told = found and found.sentence(watched)
        text += f" {told}" if told else ""
    certainty = (
        "One run is compared with nothing, so no noise is known: `experiments.compare` adds "
        "references, seeds and intervals."
    )
    return Verdict(text, certainty)


def _verdicts(runs: Mapping[str, FinishedRun], curve: DataFrame) -> list[Verdict]:
    first = next(iter(runs.values()))
    group, measure = main_group(_test_groups(first)), first.feedback.measures[0]
    means = Series({name: run.groups[group][measure.name] for name, run in runs.items()})
    order = means.sort_values(key=measure.best_first, kind="stable")
    by = abs(order.iloc[1] - order.iloc[0])
    text = (
        f"{order.index[0]} has the best {measure.title} on {group} users: {order.iloc[0]:.3f}, "
        f"{by:.3f} better than {order.index[1]}."
    )
    certainty = (
        "Not known whether it is noise: runs of `experiments.train` keep no results of single "
        "users. Runs of `experiments.compare` do."
    )
    careful = caution(endings(first.feedback, curve)) if len(curve) else None
    return [Verdict(text, certainty), *([] if careful is None else [Verdict(*careful)])]


def _test_groups(run: FinishedRun) -> list[str]:
    return [name for name in run.groups if name.endswith("_test")] or list(run.groups)


def _metrics_section(runs: Mapping[str, FinishedRun]) -> Section:
    first = next(iter(runs.values()))
    feedback = first.feedback
    titles = {measure.name: measure.title for measure in feedback.measures}
    titles.update(_OTHER_MEASURES)
    rows = {}
    for group in GROUPS:
        own = {name: run.groups[group] for name, run in runs.items() if group in run.groups}
        for name, metrics in own.items():
            row = {title: _with_error(metrics, key) for key, title in titles.items()}
            row.update({t: _number(metrics.get(key), "{:,}") for key, t in _COUNTS.items()})
            rows[group, name] = row
    table = DataFrame.from_dict(rows, orient="index")
    table.index = MultiIndex.from_tuples(rows, names=["users", "algorithm"])
    table = table.loc[:, (table != NOTHING).any()]
    if len(runs) == 1:
        table.index = Index(table.index.get_level_values("users"), name="users")
    note = accuracy.note(feedback, first.config)
    if any(name.endswith(STANDARD_ERROR) for row in first.groups.values() for name in row):
        note += " ± is the standard error over users."
    return Section("Quality", (Table("After the last round", table), Text(note)))


def _with_error(metrics: Mapping[str, float], name: str) -> str:
    """Returns a mean, and its standard error where there is one."""
    text, error = _number(metrics.get(name), "{:.4f}"), metrics.get(f"{name}{STANDARD_ERROR}")
    return text if error is None else f"{text} ± {error:.4f}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _curves(runs: Mapping[str, FinishedRun]) -> DataFrame:
    """Returns measures of the watched group by rounds, seconds and bytes; see `read_watched`."""
    tables = []
    for name, run in runs.items():
        if run.rounds is None:  # A reference has no rounds and no metrics.csv.
            continue
        try:
            table = read_curve(
                run.path,
                run.feedback,
                watched_group(Settings.from_json(run.settings)),
                costs=run.costs,
                clients_per_round=run.settings["clients_per_round"],
                num_training_users=run.num_training_users,
            )
        except (OSError, ValueError) as error:
            path = run.path / run_directory.METRICS
            raise InputError(f"{path} cannot be read: {error}.") from error
        tables.append(table.assign(algorithm=name, seed=0))
    names = CategoricalDtype(list(runs))
    return concat(tables).astype({"algorithm": names}) if tables else DataFrame()


def _training_section(runs: Mapping[str, FinishedRun], curve: DataFrame) -> Section:
    feedback = next(iter(runs.values())).feedback
    blocks: list[Block] = []
    if len(curve):
        blocks += [*curves_of(feedback, curve), *not_drawn(feedback, curve)]
    known = {name: run for name, run in runs.items() if run.costs is not None}
    if known:
        table = DataFrame({name: dict(run.costs) for name, run in known.items()}).T
        table.index.name = "algorithm"
        seconds = Series({name: Cell(f"{_seconds(run):,.2f}") for name, run in known.items()})
        blocks += cost_blocks(table, seconds)
    missing = [name for name in runs if name not in known]
    if missing:
        blocks.append(
            Text(f"Bytes are not known of {details.listed(missing)}: an older version made it.")
        )
    return Section("Training", tuple(blocks))


def _seconds(run: FinishedRun) -> float:
    return seconds_without_compilation(run.path, rounds=run.rounds, seconds=run.seconds)


def _coverage_section(runs: Mapping[str, FinishedRun]) -> Section:
    told: dict[str, list[str]] = {}
    for name, run in runs.items():
        for group, values in run.coverage.items():
            sentences = " ".join(Coverage(**values).sentences(run.feedback.name))
            told.setdefault(f"{group}: {sentences}", []).append(name)
    texts = (
        text if len(names) == len(runs) else f"{details.listed(names)}, {text}"
        for text, names in told.items()
    )
    return Section("Who is judged", (Points(tuple(texts)),))


def _files(runs: Sequence[FinishedRun]) -> list[tuple[pathlib.Path, str]]:
    if len(runs) > 1:
        return [(run.path, "a run") for run in runs]
    (run,) = runs
    return [(run.path / name, what) for name, what in _FILES.items() if (run.path / name).exists()]
