"""The pictures of a comparison, of tables with `algorithm`, `seed` and one column a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # Not pyplot, which keeps global state.
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from pandas import DataFrame

from experiments.comparison.results import SHARES
from fedrecon.evaluation.feedback import Measure
from fedrecon.runs import curves

# Okabe & Ito's colours, told apart by the colour-blind; by the name, so that an algorithm looks
# the same in every picture and in every comparison.
_STYLES = {
    "fed_recon": ("#0072B2", "o"),
    "stateful_fed_avg": ("#009E73", "s"),
    "fed_avg": ("#E69F00", "^"),
    "fed_ncf": ("#CC79A7", "D"),
    "centralized": ("#000000", "v"),
    "ials": ("#D55E00", "P"),
    "fed_recon_ls": ("#56B4E9", "p"),
    "fed_ials": ("#56B4E9", "p"),
    "popularity": ("#999999", "x"),
    "item_knn": ("#8B4513", "+"),
}
_OTHER_STYLE = ("#F0E442", "X")


def over_seeds(table: DataFrame, by: str | list[str], figure: str) -> DataFrame:
    """Returns `mean` and `std` over seeds, as far as there are enough, in the order of `by`."""
    return table.groupby(by, observed=True)[figure].agg(["mean", "std"])


def curves_figure(watched: DataFrame, measures: Sequence[Measure], x: str) -> Figure:
    """Draws quality while training, by the column `x`: `round` or, on a log scale, `megabytes`."""

    xlabel = x if x == "round" else "MB sent and received by all clients so far"
    figure, (panels,) = _figure(1, num_columns=len(measures))
    for axes, measure in zip(panels, measures):
        shown = []
        for algorithm, own in watched.groupby("algorithm", observed=True):
            curve = over_seeds(own, "round", measure.name)
            curve = curve[own.groupby("round").size() == own["seed"].nunique()].fillna(0)
            xs = own.groupby("round")[x].mean()[curve.index]
            low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
            style = {"label": algorithm, **_style(algorithm)}
            if len(curve) > 1:
                axes.plot(xs, curve["mean"], **style)
                axes.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
            else:
                style.update(linewidth=0, markersize=9)
                axes.errorbar(xs, curve["mean"], curve["std"], **style)
            shown += [curves.worth_seeing(curve.index, ends) for ends in (low, high)]
        curves.set_limits(axes, shown)
        if x == "round":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        else:
            _set_log_scale(axes)
        _label(axes, measure, f"{watched['watched_group'].iloc[0]} {measure.title}", xlabel)
    return _with_legend(figure)


def spread_figure(runs: DataFrame, measure: Measure, groups: Sequence[str]) -> Figure:
    """Draws `measure` of single users, from those served best to those served worst.

    Args:
      runs: With the columns of the measure's quantiles for each group.
      measure: Of one user.
      groups: The test groups, one or both.
    """
    figure, (panels,) = _figure(1, sharey="row", num_columns=len(groups))
    for axes, group in zip(panels, groups):
        columns = [f"{group}_{measure.name}_quantile_{share}" for share in SHARES]
        means = runs.groupby("algorithm", observed=True)[columns].mean()
        for algorithm, quantiles in means.iterrows():
            axes.plot(SHARES, quantiles, label=algorithm, **_style(algorithm))
        xlabel = f"share of users with at most this {measure.title} (%)"
        _label(axes, measure, f"{group} users: {measure.title} of each", xlabel)
        axes.set(xticks=SHARES[::2], ylabel=f"a user's {measure.title} ({measure.unit})")
        axes.label_outer()
    return _with_legend(figure)


def categories_figure(
    table: DataFrame, rows: Sequence[Sequence[tuple[str, Measure]]], xlabel: str
) -> Figure:
    """Draws quality by the categories of the column `value`.

    Args:
      table: With a column `<group>_<measure>` for each panel.
      rows: Of panels: the group of users and the measure of each.
      xlabel: What the categories are.
    """
    # Panels of the same measure share its axis.
    is_shared = len({measure for _, measure in rows[0]}) == 1
    sharey = "row" if is_shared else "none"
    figure, axes_rows = _figure(len(rows), sharey, num_columns=len(rows[0]))
    headings = [value.replace(" (", "\n(") for value in table["value"].cat.categories]
    algorithms = table.groupby("algorithm", observed=True)
    for axes, (group, measure) in zip(axes_rows.flat, (panel for row in rows for panel in row)):
        for number, (algorithm, own) in enumerate(algorithms):
            points = over_seeds(own, "value", f"{group}_{measure.name}").dropna(subset="mean")
            # Set apart, so that no bar hides another.
            xs = points.index.codes + 0.07 * (number - (len(algorithms) - 1) / 2)
            bars = points["std"].fillna(0) if points["std"].any() else None
            axes.errorbar(
                xs, points["mean"], bars, capsize=2.5, label=algorithm, **_style(algorithm)
            )
        axes.set_xticks(range(len(headings)), headings)
        _label(axes, measure, f"{group} users: {measure.title}", xlabel)
        if is_shared:
            axes.label_outer()
    return _with_legend(figure)


def _figure(num_rows: int, sharey: str = "none", *, num_columns: int) -> tuple[Figure, Any]:
    """Returns a picture and its panels, `[num_rows, num_columns]`."""

    figure = Figure(
        figsize=(max(11, 5.7 * num_columns), 0.7 + 3.5 * num_rows), layout="constrained"
    )
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharey=sharey)
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    return figure, panels


def _label(axes: Axes, measure: Measure, title: str, xlabel: str) -> None:
    direction = "lower" if measure.is_error else "higher"
    axes.set(xlabel=xlabel, ylabel=f"{measure.title} ({measure.unit})")
    axes.set_title(f"{title} ({direction} is better)")


def _style(algorithm: str) -> dict[str, Any]:
    color, marker = _STYLES.get(algorithm, _OTHER_STYLE)
    return {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 1.5}


def _with_legend(figure: Figure) -> Figure:
    """Adds one legend for all panels, below them, where it hides nothing."""
    entries = figure.axes[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _set_log_scale(axes: Axes) -> None:
    """Labels powers of ten, and 2 and 5 times those where there would be hardly any."""

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    factors = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=factors))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
