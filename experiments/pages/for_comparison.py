"""The page of a comparison."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.comparison.converged import caution, endings_of
from experiments.comparison.headline import Won
from experiments.comparison.run_table import Runs
from experiments.pages import details
from experiments.pages.page import Folded, Page, Verdict, links
from experiments.pages.sections import Block, Section, Text
from fedrecon.runs.run_directory import CONFIG, RESULTS, RunDirectory

if TYPE_CHECKING:
    Config = Mapping[str, Any]

_WHAT = {
    "comparison.csv": "every figure of every run",
    "comparison.md": "the tables as text",
}
_TITLE = "Quality"
_SERVED_AFTER = "What is recommended"


def page_of(
    runs: Runs,
    won: Sequence[Won],
    sections: Sequence[Section],
    comparison: pathlib.Path,
    *,
    files: Sequence[str],
    folder: pathlib.Path | None = None,
) -> Page:
    """Returns the page of a comparison.

    Args:
      runs: Its runs.
      won: Who won.
      sections: What else is said of it.
      comparison: Its directory.
      files: The names of its files there.
      folder: Where the page will be, if it is not there.
    """
    shown = [(comparison / name, _WHAT[name]) for name in files if name in _WHAT]
    unfinished = [
        path.name
        for path in sorted((comparison / "runs").glob("*"))
        if (path / CONFIG).exists() and not (path / RESULTS).exists()
    ]
    title = f"Comparison {comparison.resolve().name}"
    folder = comparison if folder is None else folder
    return compared(runs, won, sections, folder, title=title, files=shown, unfinished=unfinished)


def compared(
    runs: Runs,
    won: Sequence[Won],
    sections: Sequence[Section],
    folder: pathlib.Path,
    *,
    title: str,
    files: Sequence[tuple[pathlib.Path, str]],
    unfinished: Sequence[str] = (),
) -> Page:
    """Returns the page of runs that can be compared.

    Args:
      runs: The runs.
      won: Who won.
      sections: What else is said of them.
      folder: Where the page will be.
      title: The heading.
      files: Files to link to, and what is in them.
      unfinished: Names of runs that are in no table.
    """
    first = runs.unchanged.groupby("algorithm", observed=True)["path"].first()
    configs = {name: RunDirectory(path).read_config() for name, path in first.items()}
    seed = runs.unchanged["seed"].iloc[0]
    of_seed = runs.unchanged[runs.unchanged["seed"] == seed]
    served = details.served_section(dict(zip(of_seed["algorithm"], of_seed["path"])))
    main, *others = sections
    ordered = [Section(_TITLE, main.blocks)]
    for section in others:
        ordered.append(section)
        if section.title == _SERVED_AFTER:
            ordered.append(served)
    if served not in ordered:
        ordered.append(served)
    directories = links(folder, [(path, _about(runs, path)) for path in runs.table["path"]])
    number = len(directories.files)
    again: list[Block] = [
        *details.command_blocks(configs),
        links(folder, files),
        Folded(f"{number} run director{'ies' if number > 1 else 'y'}", (directories,)),
    ]
    ordered += [
        *_not_shown(runs, ordered, unfinished),
        details.settings_section(configs, seeds=runs.table["seed"].tolist()),
        Section("Run it again, and its files", tuple(again)),
    ]
    verdicts = [Verdict(each.text, each.certainty) for each in won]
    careful = caution(endings_of(runs)) if won else None
    if careful is not None:
        verdicts.append(Verdict(careful.text, careful.advice))
    return Page(title, _lead(runs, configs), tuple(verdicts), tuple(ordered))


def _lead(runs: Runs, configs: Mapping[str, Config]) -> str:
    unchanged = runs.unchanged
    is_reference = unchanged.groupby("algorithm", observed=True)["rounds"].first().isna()
    names = {"algorithm": (~is_reference).sum(), "reference": is_reference.sum()}
    counted = [f"{n} {name}{'s' * (n > 1)}" for name, n in names.items() if n]
    data = details.data_name(next(iter(configs.values()))["settings"])
    budgets = {details.budget(config["settings"]) for config in configs.values()} - {""}
    trained = f", each trained for {budgets.pop()}" if len(budgets) == 1 else ""
    num_seeds = unchanged["seed"].nunique()
    seeds = f"{num_seeds} seed{'s' * (num_seeds > 1)}"
    users = int(unchanged["num_training_users"].iloc[0])
    return f"{details.listed(counted)} on {data}{trained}, with {seeds}; {users:,} users train."


def _not_shown(runs: Runs, sections: Sequence[Section], unfinished: Sequence[str]) -> list[Section]:
    """Returns what the page lacks and why, where it lacks anything."""
    told = []
    titles = [section.title for section in sections]
    if runs.unchanged["algorithm"].nunique() > 1 and "Differences to the best" not in titles:
        told.append(
            "Differences and their intervals: there are no results of the same single users "
            "(user_results.npz) for two algorithms."
        )
    if unfinished:
        told.append(
            f"Runs that are not finished, since they diverged or were stopped: "
            f"{', '.join(unfinished)}."
        )
    return [Section("What is not shown", tuple(Text(text) for text in told))] if told else []


def _about(runs: Runs, path: pathlib.Path) -> str:
    row = runs.table[runs.table["path"] == path].iloc[0]
    return f"{row['algorithm']}, seed {row['seed']}"
