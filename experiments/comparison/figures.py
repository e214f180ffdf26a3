"""The pictures of a comparison, of tables with `algorithm`, `seed` and one column a figure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from pandas import DataFrame

from experiments.pages.sections import Panel, Picture
from fedrecon.evaluation.feedback import Measure
from fedrecon.evaluation.intervals import Difference
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
    "ease": ("#6A3D9A", "d"),
    "fed_ease": ("#6A3D9A", "d"),
}
# For names that nobody has chosen, such as names of runs, in turn.
_OTHER_STYLES = (
    *(("#F0E442", "X"), ("#0072B2", "h"), ("#D55E00", "*"), ("#009E73", "<"), ("#CC79A7", ">")),
    *(("#56B4E9", "8"), ("#E69F00", "d"), ("#999999", "1")),
)
_AXES = {
    "round": "round",
    "megabytes": "MB sent and received by all clients so far",
    "seconds": "seconds so far, without compilation and evaluations",
}


def styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns how the lines of algorithms are drawn."""
    found, num_others = {}, 0
    for name in names:
        if name not in _STYLES:
            num_others += 1
        color, marker = _STYLES.get(name) or _OTHER_STYLES[(num_others - 1) % len(_OTHER_STYLES)]
        found[name] = {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 1.5}
        if marker in "x+1":  # Of lines alone, which a line of a picture would hide.
            found[name].update(markersize=6, markeredgewidth=1.8)
    return found


def over_seeds(table: DataFrame, by: str | list[str], figure: str) -> DataFrame:
    """Returns `mean` and `std` over seeds, as far as there are enough, in the order of `by`."""
    return table.groupby(by, observed=True)[figure].agg(["mean", "std"])


def curves_picture(watched: DataFrame, measures: Sequence[Measure], x: str) -> Picture:
    """Returns quality while training, by the column `x`: `round`, `megabytes` or `seconds`."""
    group = watched["watched_group"].iloc[0]
    of_algorithms = styles(_names(watched))
    by = {"round": "rounds", "megabytes": "bytes", "seconds": "seconds"}[x]
    panels = tuple(
        Panel(
            _title(f"{group} {measure.title} by {by}", measure),
            functools.partial(_draw_curves, watched, measure, x, of_algorithms),
        )
        for measure in measures
    )
    return Picture(
        name=f"quality_{by}",
        alt=f"Quality while training by {by}, a curve for each of {', '.join(of_algorithms)}.",
        rows=(panels,),
        styles=of_algorithms,
        is_on_page_only=x == "seconds",
    )


def _draw_curves(watched: DataFrame, measure: Measure, x: str, of_algorithms, axes: Axes) -> None:
    shown = []
    for algorithm, own in watched.groupby("algorithm", observed=True):
        curve = over_seeds(own, "round", measure.name)
        curve = curve[own.groupby("round").size() == own["seed"].nunique()].fillna(0)
        xs = own.groupby("round")[x].mean()[curve.index]
        low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
        style = {"label": algorithm, **of_algorithms[algorithm]}
        if len(curve) > 1:
            axes.plot(xs, curve["mean"], **style)
            axes.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        else:
            style.update(linewidth=0, markersize=9)
            axes.errorbar(xs, curve["mean"], curve["std"], **style)
        shown += [curves.worth_seeing(curve.index, ends) for ends in (low, high)]
    curves.set_limits(axes, shown)
    if x == "megabytes":
        _set_log_scale(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=x == "round", steps=[1, 2, 5, 10]))
    _label(axes, measure, _AXES[x])


def differences_picture(
    found: Sequence[tuple[str, Measure, dict[str, Difference]]], names: Sequence[str]
) -> Picture:
    """Returns how far algorithms are from the best, with 95% intervals.

    Args:
      found: For each panel the group of users, the measure, and the differences to the best, which
        is first and has the difference 0 itself.
      names: All algorithms.
    """
    of_algorithms = styles(names)
    panels = tuple(
        Panel(
            f"{group} users: {measure.title} less the {measure.title} of {next(iter(own))}",
            functools.partial(_draw_differences, measure, own, of_algorithms),
        )
        for group, measure, own in found
    )
    height = 1.2 + 0.28 * max(len(own) for _, _, own in found)
    return Picture(
        name="differences",
        alt="A point for the difference of each algorithm to the best one, and a line for its 95% "
        "interval; the table has the numbers.",
        rows=(panels,),
        styles={},
        panel_inches=(5.7, height),
    )


def _draw_differences(measure: Measure, own: dict[str, Difference], of_algorithms, axes) -> None:
    axes.axvline(0, color="#000000", linewidth=0.8)
    for place, (algorithm, found) in enumerate(own.items()):
        style = of_algorithms[algorithm]
        axes.plot([found.low, found.high], [place] * 2, color=style["color"], linewidth=2)
        axes.plot(found.mean, place, **{**style, "markersize": 7})
    _name_rows(axes, list(own))
    direction = "right: worse" if measure.is_error else "left: worse"
    axes.set(xlabel=f"difference and 95% interval ({direction})")


def by_user_picture(
    spreads: Sequence[tuple[str, DataFrame]], measure: Measure, reference: str
) -> Picture:
    """Returns how single users fare with each algorithm, as differences to a reference.

    Args:
      spreads: The group of users of each panel, and its quantiles: a row for each algorithm, the
        columns `5%`, `25%`, `50%`, `75%` and `95%`.
      measure: Of one user.
      reference: What a user's measure is compared with.
    """
    names = list(dict.fromkeys(name for _, table in spreads for name in table.index))
    of_algorithms = styles(names)
    panels = tuple(
        Panel(
            f"{group} users, one by one: {measure.title}",
            functools.partial(_draw_by_user, measure, table, of_algorithms, reference),
        )
        for group, table in spreads
    )
    return Picture(
        name="spread",
        alt="A box for each algorithm holds the middle half of the users, its point is the median "
        "user, its line holds nine of ten users; the table has the numbers.",
        rows=(panels,),
        styles={},
        panel_inches=(5.7, 1.3 + 0.32 * len(names)),
    )


def _draw_by_user(measure, table: DataFrame, of_algorithms, reference: str, axes: Axes) -> None:
    axes.axvline(0, color="#000000", linewidth=0.8)
    for place, (algorithm, row) in enumerate(table.iterrows()):
        style = of_algorithms[algorithm]
        axes.plot([row["5%"], row["95%"]], [place] * 2, color=style["color"], linewidth=1.2)
        axes.barh(
            place,
            row["75%"] - row["25%"],
            left=row["25%"],
            height=0.5,
            color=style["color"],
            alpha=0.45,
            linewidth=0,
        )
        axes.plot(row["50%"], place, **{**style, "markersize": 6.5})
    _name_rows(axes, list(table.index))
    better = "left" if measure.is_error else "right"
    axes.set(xlabel=f"difference to {reference} ({better}: better)")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # The first is at the top.
    axes.grid(False, axis="y")


def categories_picture(
    table: DataFrame, rows: Sequence[Sequence[tuple[str, Measure]]], *, name: str, xlabel: str
) -> Picture:
    """Returns quality by the categories of the column `value`.

    Args:
      table: With a column `<group>_<measure>` for each panel.
      rows: Of panels: the group of users and the measure of each.
      name: The name of the picture.
      xlabel: What the categories are.
    """
    of_algorithms = styles(_names(table))
    panels = tuple(
        tuple(
            Panel(
                _title(f"{group} users: {measure.title}", measure),
                functools.partial(_draw_categories, table, group, measure, xlabel, of_algorithms),
            )
            for group, measure in row
        )
        for row in rows
    )
    return Picture(
        name=name,
        alt=f"Quality by {xlabel}, a line for each of {', '.join(of_algorithms)}; the table has "
        "the numbers.",
        rows=panels,
        styles=of_algorithms,
        # Panels of the same measure share its axis.
        shares_y=len({measure for _, measure in rows[0]}) == 1,
    )


def _draw_categories(table: DataFrame, group, measure, xlabel, of_algorithms, axes: Axes) -> None:
    algorithms = table.groupby("algorithm", observed=True)
    for number, (algorithm, own) in enumerate(algorithms):
        points = over_seeds(own, "value", f"{group}_{measure.name}").dropna(subset="mean")
        # Set apart, so that no bar hides another.
        xs = points.index.codes + 0.07 * (number - (len(algorithms) - 1) / 2)
        bars = points["std"].fillna(0) if points["std"].any() else None
        axes.errorbar(
            xs, points["mean"], bars, capsize=2.5, label=algorithm, **of_algorithms[algorithm]
        )
    headings = [value.replace(" (", "\n(") for value in table["value"].cat.categories]
    axes.set_xticks(range(len(headings)), headings)
    _label(axes, measure, xlabel)


def _names(table: DataFrame) -> list[str]:
    return [name for name, _ in table.groupby("algorithm", observed=True)]


def _title(title: str, measure: Measure) -> str:
    return f"{title} ({'lower' if measure.is_error else 'higher'} is better)"


def _label(axes: Axes, measure: Measure, xlabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=f"{measure.title} ({measure.unit})")


def _set_log_scale(axes: Axes) -> None:
    """Labels powers of ten, and 2 and 5 times those where there would be hardly any."""

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    factors = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=factors))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
