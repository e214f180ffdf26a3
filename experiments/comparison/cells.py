"""Figures as the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame, Series

from experiments.pages.sections import NOTHING, Cell
from fedrecon.evaluation.feedback import Measure
from fedrecon.evaluation.intervals import Difference


def cells(
    summary: DataFrame,
    measure: Measure | None = None,
    among: str | None = None,
    digits: int = 3,
    ties: Sequence[str] = (),
) -> Series:
    """Returns means and deviations as cells, with the best marked: of all, or of each `among`.

    Where rows are algorithms, `ties` are marked too.
    """
    number = f"{{:,.{digits}f}}".format
    means, deviations = summary["mean"].map(number), summary["std"].map(number)
    texts = means.where(summary["std"].isna(), means + " ± " + deviations)
    texts = texts.mask(summary["mean"].isna(), NOTHING)
    is_best = Series(False, summary.index)
    if measure is not None:
        groups = summary["mean"].groupby(among or (lambda _: True), observed=True)
        best = groups.transform("min" if measure.is_error else "max").map(number)
        # As shown, so that a bold 0.934 never stands beside a plain one.
        is_best = (means == best) | summary.index.isin(ties)
        is_best &= (groups.transform("count") > 1) & summary["mean"].notna()
    return Series([Cell(*cell) for cell in zip(texts, is_best.tolist())], summary.index)


def interval(found: Difference, sign: str = "") -> str:
    """Returns the ends of an interval."""
    # Adding 0 makes a negative zero positive.
    low, high = (f"{round(end, 3) + 0.0:{sign}.3f}" for end in (found.low, found.high))
    return f"{low} to {high}"


def gap(found: Difference) -> str:
    """Returns a difference and its interval."""
    return f"{round(found.mean, 3) + 0.0:+.3f} ({interval(found, '+')})"


def sizes(values: Series) -> Series:
    """Returns sizes as text."""
    return values.map(lambda size: f"{size:,.1f}" if size >= 0.1 else f"{size:.1g}")


def counted_seeds(seeds: Series) -> str:
    """Returns how many seeds there are, and which."""
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, sorted(seeds)))})"
