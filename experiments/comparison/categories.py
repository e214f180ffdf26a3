"""Quality by categories: by how many ratings users give, and by the values of a setting."""

from __future__ import annotations

import pandas as pd
from pandas import DataFrame

from experiments.comparison import figures
from experiments.comparison.cells import cells, counted_seeds
from experiments.comparison.figures import over_seeds
from experiments.comparison.run_table import Runs, swept_runs
from experiments.pages.sections import NOTHING, Cell, Section, Table, Text
from fedrecon.evaluation.feedback import Measure


def given_sections(runs: Runs) -> list[Section]:
    """Returns a section, or none where no number of ratings was tried."""
    measures, unchanged = runs.feedback.measures, runs.unchanged
    names = [f"unseen_test_{measure.name}" for measure in measures]
    columns = unchanged.dropna(axis="columns", how="all").columns
    found = columns.str.extract(rf"^{names[0]}_given_(\d+)$")[0].dropna()
    numbers = sorted(found, key=int)
    if not numbers:
        return []
    given = pd.concat(
        unchanged[["algorithm", "seed"]].assign(
            value=number, **{name: unchanged[f"{name}_given_{number}"] for name in names}
        )
        for number in numbers
    ).astype({"value": pd.CategoricalDtype(numbers)})
    panels = {measure.title: ("unseen_test", measure) for measure in measures}
    picture = figures.categories_picture(
        given, [[*panels.values()]], name="given_ratings", xlabel="ratings that the user gives"
    )
    blocks = (
        Table("Quality by ratings given", _values_cells(given, panels, "measure", among="value")),
        Text(
            f"Means over {runs.feedback.means_over}; a column is for unseen users who give only so "
            "many ratings. Bold is the best mean of a column for each measure."
        ),
        picture,
    )
    return [Section("Unseen users by the number of ratings they give", blocks)]


def sweep_section(runs: Runs, column: str) -> Section:
    """Returns the quality by the values of a setting.

    Args:
      runs: The runs.
      column: The column of the setting: `changed_` and its name.
    """
    swept, groups = swept_runs(runs.table, runs.unchanged, column), runs.groups
    setting, measure = column[len("changed_") :], runs.feedback.measures[0]
    rows = [[(group, measure) for group in groups] for measure in runs.feedback.measures]
    if len(groups) == 1:  # Beside each other, in the two columns of a picture.
        rows = [[panel for row in rows for panel in row]]
    note = f"{measure.title}, a mean over {runs.feedback.means_over}; "
    note += f"a column is for one value of `{setting}`."
    unchanged = swept[swept[column] == ""].groupby("algorithm", observed=True)["value"].first()
    if unchanged.nunique() > 1:
        pairs = (f"{algorithm} {value}" for algorithm, value in unchanged.items())
        note += f" Unchanged are: {', '.join(pairs)}."
    seeds = swept.groupby(["algorithm", "value"], observed=True)["seed"].agg(counted_seeds)
    if len(seeds.unique()) == 1:
        note += f" Over {seeds.iloc[0]}."
    panels = {group: (group, measure) for group in groups}
    blocks = (
        Table(f"Quality by {setting}", _values_cells(swept, panels, "users", among="algorithm")),
        Text(f"{note} Bold is the best mean of a row."),
        figures.categories_picture(swept, rows, name=f"sweep_{setting}", xlabel=setting),
    )
    return Section(f"Sweep of `{setting}`", blocks)


def _values_cells(
    table: DataFrame, panels: dict[str, tuple[str, Measure]], name: str, among: str
) -> DataFrame:
    """Returns a column for each `value`; `name` heads what tells rows of an algorithm apart."""
    parts = {}
    for label, (group, measure) in panels.items():
        summary = over_seeds(table, ["algorithm", "value"], f"{group}_{measure.name}")
        parts[label] = cells(summary, measure, among).unstack(fill_value=Cell(NOTHING))
    rows = pd.concat(parts, names=[name]).swaplevel()
    return rows.sort_index() if among == "algorithm" else rows
