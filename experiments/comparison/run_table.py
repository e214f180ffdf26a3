"""The finished runs of a comparison as tables, from the files in their directories."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas import DataFrame

from experiments.comparison.clock import seconds_of_a_round, seconds_without_compilation
from experiments.comparison.results import RunResults, read_results, value_text
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS, Feedback
from fedrecon.runs.metrics_file import num_left_out
from fedrecon.runs.run_directory import METRICS, RESULTS, RunDirectory

MB = 1e6
# A column of comparison.csv; see `clock`.
SECONDS = "seconds_without_compilation"
# Likewise, a number of clients; see `fedrecon.runs.metrics_file`.
LEFT_OUT = "clients_left_out"


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Finished runs that can be compared.

    Attributes:
      feedback: Their kind of feedback.
      groups: The test groups that there are.
      table: A row for each run: the rows of comparison.csv, with each run's `path`.
    """

    feedback: Feedback
    groups: list[str]
    table: DataFrame

    @property
    def changed(self) -> list[str]:
        """The columns of the settings that sweeps changed."""
        return [column for column in self.table if column.startswith("changed_")]

    @property
    def unchanged(self) -> DataFrame:
        """The runs with their settings as they are in the comparison."""
        return self.table[(self.table[self.changed] == "").all(axis="columns")]

    @functools.cached_property
    def watched(self) -> DataFrame | None:
        """The curves of the unchanged runs, see `read_watched`; None where none has a curve."""
        trained = self.unchanged.dropna(subset="rounds")  # A reference has no rounds.
        return None if trained.empty else read_watched(self.feedback, trained)


def read_runs(
    run_dirs: Sequence[pathlib.Path], *, names: Mapping[pathlib.Path, str] | None = None
) -> Runs:
    """Returns finished runs.

    Args:
      run_dirs: Their directories.
      names: What to call runs in place of their algorithm, by their directories.

    Raises:
      InputError: If a run is not finished, its files are of another version, or the runs do not
        belong to one comparison.
    """

    # Once each: a sweep may name a value twice.
    runs = {path: results_of(path) for path in map(pathlib.Path, dict.fromkeys(run_dirs))}
    if names is not None:  # Each is a run of its own, whatever a sweep changed.
        runs = {path: dataclasses.replace(run, changes={}) for path, run in runs.items()}
    unchanged = {path: run for path, run in runs.items() if not run.changes}
    if not unchanged:
        raise InputError(
            f"none of the {len(runs)} runs has its settings unchanged, so there is nothing to "
            "compare; give the runs that the sweeps start from, too."
        )
    check_same(runs, "feedback", lambda run: run.feedback)
    check_same(runs, "groups of users", lambda run: ", ".join(run.groups))
    check_same(unchanged, "watched_group", lambda run: run.watched_group)
    first = next(iter(runs.values()))
    shown = ("seen_test", "unseen_test", "cold_test")
    groups = [group for group in shown if group in first.groups]
    table = pd.DataFrame([{"path": path, **_row(path, run)} for path, run in runs.items()])
    if names is not None:
        table["algorithm"] = [names[path] for path in table["path"]]
    table["algorithm"] = pd.Categorical(table["algorithm"], table["algorithm"].unique())
    table = table.fillna({column: "" for column in table if column.startswith("changed_")})
    table = table.astype(dict.fromkeys(("rounds", "clients_per_round", LEFT_OUT), "Int64"))
    return Runs(FEEDBACKS[first.feedback], groups, table)


def _row(path: pathlib.Path, run: RunResults) -> dict[str, Any]:
    row = run.row()
    seconds = seconds_without_compilation(path, rounds=run.rounds, seconds=run.seconds)
    left_out = None if run.rounds is None else num_left_out(RunDirectory(path).read_metrics())
    return {**row, SECONDS: round(seconds, 4), LEFT_OUT: left_out}


def results_of(path: pathlib.Path) -> RunResults:
    """Returns the results of a finished run.

    Raises:
      InputError: If it is not finished, or its file is of another version.
    """
    results = read_results(RunDirectory(path))
    if results is None:
        raise InputError(f"{path} has no {RESULTS}; finish this run before the report is written.")
    return results


def check_same(runs: Mapping[pathlib.Path, RunResults], name: str, key) -> None:
    (first_path, first), *_ = runs.items()
    for path, run in runs.items():
        if key(run) != key(first):
            raise InputError(
                f"{path / RESULTS} has {name} {key(run)!r} and {first_path / RESULTS} has "
                f"{key(first)!r}; a comparison is of runs with the same {name}."
            )


def read_watched(feedback: Feedback, runs: DataFrame) -> DataFrame:
    """Returns measures on the watched group by `round`, `seconds` and `megabytes` of all clients.

    Seconds are without compilation and evaluations; see `clock`.

    Args:
      feedback: The kind of feedback.
      runs: The runs that have rounds.
    """
    tables = [
        read_curve(
            run.path,
            feedback,
            run.watched_group,
            costs=run._asdict(),
            clients_per_round=run.clients_per_round,
            num_training_users=run.num_training_users,
        ).assign(algorithm=run.algorithm, seed=run.seed)
        for run in runs.itertuples()
    ]
    return pd.concat(tables).astype({"algorithm": runs["algorithm"].dtype})


def read_curve(
    path: pathlib.Path,
    feedback: Feedback,
    watched_group: str,
    *,
    costs: Mapping[str, float] | None,
    clients_per_round: int,
    num_training_users: int,
) -> DataFrame:
    """Returns what `read_watched` returns, of one run.

    Args:
      path: The directory of the run.
      feedback: The kind of feedback.
      watched_group: The group that was evaluated while training.
      costs: The bytes sent; None, and `megabytes` is not known.
      clients_per_round: The size of a cohort.
      num_training_users: How many users trained.
    """
    names = {f"{watched_group}/{m.name}": m.name for m in feedback.measures}
    rows = pd.read_csv(path / METRICS)
    table = rows[["round", *names]].dropna().rename(columns=names)
    table = table.assign(watched_group=watched_group)
    table["seconds"] = table["round"] * seconds_of_a_round(rows)
    if costs is None:
        return table.assign(megabytes=float("nan"))
    a_round = (costs["bytes_down"] + costs["bytes_up"]) * clients_per_round
    table["megabytes"] = table["round"] * a_round / MB
    if costs["bytes_up_once"]:
        in_all = num_training_users * costs["bytes_up_once"] / MB
        table.loc[table.index[-1], "megabytes"] = in_all
    return table


def swept_runs(runs: DataFrame, unchanged: DataFrame, column: str) -> DataFrame:
    """Returns the runs that differ in one setting alone; its values are the categories of `value`.

    Of the unchanged runs only those with seeds of the sweep count, as a seed also divides users.
    """

    setting = column[len("changed_") :]
    swept = runs[runs[column] != ""]
    bases = unchanged.merge(swept[["algorithm", "seed"]].drop_duplicates())
    configs = [RunDirectory(path).read_config() for path in bases["path"]]
    base_values = [value_text(config["settings"][setting]) for config in configs]
    values = pd.Series(sorted({*base_values, *swept[column]}))
    # Numbers by their size, then the others.
    values = values.sort_values(key=lambda v: pd.to_numeric(v, errors="coerce"), kind="stable")
    value = pd.Categorical([*base_values, *swept[column]], values)
    if len(set(base_values)) == 1:
        value = value.rename_categories({base_values[0]: f"{base_values[0]} (unchanged)"})
    return pd.concat([bases, swept]).assign(value=value)
