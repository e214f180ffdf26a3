"""Means with their standard errors over users, as papers on rankings report them."""

from __future__ import annotations

from pandas import DataFrame, MultiIndex

from experiments.comparison.run_table import Runs
from experiments.pages.sections import Section, Table, Text
from fedrecon.evaluation.feedback import STANDARD_ERROR


def standard_error_sections(runs: Runs) -> list[Section]:
    """Returns a section, or none where means come without standard errors."""
    measures, unchanged = runs.feedback.measures, runs.unchanged
    means = unchanged.groupby("algorithm", observed=True).mean(numeric_only=True)
    groups = [g for g in runs.groups if f"{g}_{measures[0].name}{STANDARD_ERROR}" in means]
    if not groups:
        return []
    rows = {}
    for group in groups:
        for algorithm, own in means.iterrows():
            cells = rows[group, algorithm] = {}
            for measure in measures:
                name = f"{group}_{measure.name}"
                mean, error = own[name], own[f"{name}{STANDARD_ERROR}"]
                cells[measure.title] = f"{mean:.4f} ± {error:.4f}"
    table = DataFrame.from_dict(rows, orient="index")
    table.index = MultiIndex.from_tuples(rows, names=["users", "algorithm"])
    blocks = (
        Table("Means and standard errors", table),
        Text(
            "± is the standard error over the users of one seed: their deviation divided by the "
            "root of their number. Means and standard errors are means over seeds. Differences "
            "between algorithms are surer than ± suggests, because they are of the same users."
        ),
    )
    return [Section("Standard errors over users", blocks)]
