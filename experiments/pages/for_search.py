"""The page of a search of settings by `experiments.tune`."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas import DataFrame, Index, Series

from experiments.pages import details
from experiments.pages.page import Page, Verdict, links
from experiments.pages.sections import (
    Block,
    Cell,
    Panel,
    Picture,
    Points,
    Section,
    Table,
    Text,
)
from experiments.run.reports import TRIALS
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS, Measure
from fedrecon.runs.curves import set_limits
from fedrecon.runs.run_directory import CONFIG, RunDirectory

_OTHERS = ("deviation", "seconds", "seeds")
_MEASURES = {feedback.chosen_by.name: feedback.chosen_by for feedback in FEEDBACKS.values()}
# Trials further off than so many times the middle half's width are outside of a picture.
_FAR = 3


def page_of(search: pathlib.Path, folder: pathlib.Path) -> Page:
    """Returns the page of a search.

    Args:
      search: Its directory.
      folder: Where the page will be.

    Raises:
      InputError: If its table cannot be read.
    """
    trials, measure, searched = _read(search / TRIALS)
    configs = _configs(search)
    config = next(iter(configs.values()), None)
    algorithm = "The search" if config is None else config["settings"]["algorithm"]
    sections = [
        Section("Chosen", (Points(tuple(_chosen(trials, searched, config))),)),
        _trials_section(trials, measure, searched),
        _settings_section(trials, measure, searched),
        *_not_shown(trials, configs),
    ]
    again: list[Block] = []
    if config is None:
        again.append(Text("No settings and no command are kept: a reference leaves no runs."))
    else:
        kept = {k: v for k, v in config["settings"].items() if k not in searched}
        of_all = {algorithm: {**config, "settings": kept}}
        seeds = [own["settings"]["seed"] for own in configs.values()]
        sections.append(details.settings_section(of_all, seeds=seeds))
        again += details.command_blocks(of_all)
    again.append(links(folder, [(search / TRIALS, "every trial, the best first")]))
    sections.append(Section("Run it again, and its files", tuple(again)))
    title = f"Search {search.resolve().name}"
    lead = _lead(trials, searched, algorithm, config)
    return Page(title, lead, (_verdict(trials, measure, searched),), tuple(sections))


def _read(path: pathlib.Path) -> tuple[DataFrame, Measure, list[str]]:
    """Returns the trials, the best first, the measure of choice, and the settings searched."""
    try:
        trials = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    measures = [name for name in trials if name in _MEASURES]
    if len(measures) != 1 or not len(trials) or not {"rounds", *_OTHERS} <= set(trials):
        raise InputError(f"{path} is not a table of experiments.tune with a trial; search again.")
    searched = [name for name in trials if name not in ("rounds", *measures, *_OTHERS)]
    trials[searched] = trials[searched].apply(lambda column: column.map(_value))
    return trials, _MEASURES[measures[0]], searched


def _value(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "none" if np.isnan(value) else f"{value:g}"
    return str(value)


def _configs(search: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    paths = sorted((search / "runs").glob(f"*/{CONFIG}"))
    return {path.parent.name: RunDirectory(path.parent).read_config() for path in paths}


def _lead(trials: DataFrame, searched: Sequence[str], algorithm: str, config) -> str:
    names = details.listed([f"`{name}`" for name in searched])
    number, seeds = len(trials), int(trials["seeds"].max())
    text = f"{number} trial{'s' * (number > 1)} of {names}"
    if config is not None:
        data = details.data_name(config["settings"])
        text += f" for {algorithm} on {data}, each up to {details.budget(config['settings'])}"
    return (
        f"{text}, with {seeds} seed{'s' * (seeds > 1)}. Validation users alone decide; no test "
        "figure was computed."
    )


def _verdict(trials: DataFrame, measure: Measure, searched: Sequence[str]) -> Verdict:
    best = trials.iloc[0]
    values = details.listed([f"{name} {best[name]}" for name in searched])
    spread = "" if np.isnan(best["deviation"]) else f" ± {best['deviation']:.3f} over seeds"
    text = (
        f"{values} and {best['rounds']:,} rounds have the best validation {measure.title}: "
        f"{best[measure.name]:.3f}{spread}."
    )
    if len(trials) == 1:
        return Verdict(text, "There is no other trial.")
    gap = abs(trials[measure.name].iloc[1] - best[measure.name])
    certainty = f"The next trial is {gap:.3f} behind."
    if spread:
        certainty += (
            " The spread over seeds is mostly of the users drawn, whom all trials share, so it is "
            "no measure of this distance."
        )
    return Verdict(text, certainty)


def _chosen(trials: DataFrame, searched: Sequence[str], config) -> list[str]:
    """Returns for each setting what is chosen, and whether it lies at the edge of its grid."""
    told = [_edge(name, trials[name]) for name in searched]
    rounds = int(trials["rounds"].iloc[0])
    total = None if config is None else config["settings"].get("total_rounds")
    if total is None:
        return told
    if rounds == total:
        tail = "the last evaluation, so more rounds may be better"
    elif rounds == 0:
        tail = "before any training, so training made it worse"
    else:
        tail = f"of {total:,}, so more rounds would not have helped"
    return [*told, f"Rounds: {rounds:,}, {tail}."]


def _edge(name: str, values: Series) -> str:
    grid, chosen = _grid(values), values.iloc[0]
    if len(grid) == 1:
        return f"`{name}`: {chosen}, the only value tried."
    if pd.to_numeric(Series(grid), errors="coerce").isna().any():
        return f"`{name}`: {chosen}, out of {details.listed(grid)}."
    span = f"{grid[0]} to {grid[-1]}"
    if chosen == grid[0]:
        return f"`{name}`: {chosen}, at the edge of its grid ({span}); a lower value may be better."
    if chosen == grid[-1]:
        return (
            f"`{name}`: {chosen}, at the edge of its grid ({span}); a higher value may be better."
        )
    return f"`{name}`: {chosen}, inside its grid ({span})."


def _grid(values: Series) -> list[str]:
    """Returns the values tried: numbers by their size, then the others."""
    distinct = Series(values.unique())
    key = functools.partial(pd.to_numeric, errors="coerce")
    return distinct.sort_values(key=key, kind="stable").tolist()


def _trials_section(trials: DataFrame, measure: Measure, searched: Sequence[str]) -> Section:
    spread = trials["deviation"].map(lambda value: "" if np.isnan(value) else f" ± {value:.4f}")
    quality = trials[measure.name].map("{:.4f}".format) + spread
    table = trials[list(searched)].assign(rounds=trials["rounds"].map("{:,}".format))
    table[f"validation {measure.title}"] = quality
    table["seconds"] = trials["seconds"].map("{:,.1f}".format)
    is_best = np.arange(len(table)) == 0
    table = table.apply(lambda column: [Cell(*cell) for cell in zip(column, is_best.tolist())])
    table.index = Index(range(1, len(table) + 1), name="trial")
    direction = "lower" if measure.is_error else "higher"
    note = (
        f"Each trial after its best number of rounds; {direction} is better. Seconds are what all "
        "rounds of a trial took."
    )
    return Section("Trials", (Table("Trials, the best first", table), Text(note)))


def _settings_section(trials: DataFrame, measure: Measure, searched: Sequence[str]) -> Section:
    shown = _near(trials[measure.name])
    panels = tuple(
        Panel(
            f"Validation {measure.title} by {name}",
            functools.partial(_draw, trials[name], trials[measure.name], shown, measure, name),
        )
        for name in searched
    )
    picture = Picture(
        name="by_setting",
        alt="A point for each trial, a line through the best trial of each value, and a ring "
        "around the chosen one; the table has the numbers.",
        rows=(panels,),
        styles={},
    )
    text = "A point is a trial; the line joins the best trial of each value; a ring is the chosen."
    num_far = int((~shown).sum())
    if num_far:
        text += f" {num_far} of {len(trials)} trials are too far off to be in the picture."
    return Section("Quality by setting", (picture, Text(text)))


def _near(values: Series) -> Series:
    low, high = values.quantile([0.25, 0.75])
    far = _FAR * (high - low)
    is_near = np.isfinite(values) & values.between(low - far, high + far)
    is_near.iloc[0] = True
    return is_near


def _draw(values: Series, quality: Series, shown: Series, measure, name: str, axes: Axes) -> None:
    grid = _grid(values)
    places = values.map({value: place for place, value in enumerate(grid)})
    axes.plot(places[shown], quality[shown], linewidth=0, marker="o", color="#0072B2", alpha=0.45)
    of_values = quality.groupby(places)
    best = of_values.min() if measure.is_error else of_values.max()
    axes.plot(best.index, best, color="#0072B2", linewidth=1.5)
    axes.plot(
        *(places.iloc[:1], quality.iloc[:1]),
        **{"marker": "o", "markersize": 12, "markerfacecolor": "none", "color": "#000000"},
    )
    axes.set_xticks(range(len(grid)), grid)
    axes.set_xlim(-0.4, len(grid) - 0.6)
    set_limits(axes, [quality[shown].to_numpy()])
    axes.set(xlabel=name, ylabel=f"{measure.title} ({measure.unit})")


def _not_shown(trials: DataFrame, configs: Mapping[str, Any]) -> list[Section]:
    missing = len(configs) - int(trials["seeds"].sum())
    if missing <= 0:
        return []
    text = (
        f"{missing} of {len(configs)} runs are in no table: they diverged or were stopped, or "
        "another seed of their trial was."
    )
    return [Section("What is not shown", (Text(text),))]
