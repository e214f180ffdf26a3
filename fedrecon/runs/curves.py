"""curves.png: the metrics of a run by its rounds, and which part of a curve a picture shows."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedrecon.runs.files import replacing

_TITLES = {
    "rmse": "RMSE",
    "accuracy": "accuracy (within half a step)",
    "hr_at_10": "HR@10 (mean over users)",
    "ndcg_at_10": "NDCG@10 (mean over users)",
    "ndcg_at_100": "NDCG@100 (mean over users)",
    "recall_at_20": "Recall@20 (mean over users)",
    "recall_at_50": "Recall@50 (mean over users)",
    "loss": "loss (mean over examples)",
}
_OF_RATINGS = ("rmse", "accuracy")
_TRAIN = "train"
_TRAIN_STYLE = {"linewidth": 1, "alpha": 0.6}
_EVALUATED_STYLE = {"marker": "o", "markersize": 3}
# The share of the rounds after which all of a curve is shown.
_FIRST_SHOWN = 0.2
# The shares between which a noisy curve is shown.
_NOISY_SHOWN = (0.05, 0.95)
# No metric comes near it unless it diverged, and matplotlib's axes fail beyond.
_LARGEST_SHOWN = 1e30


def draw(rows: Sequence[Mapping[str, float]], path: pathlib.Path) -> None:
    """Draws a panel for each metric and in it a curve for each group of users.

    Args:
      rows: The rows of metrics.csv, with columns `round` and `<group>/<metric>`.
      path: Where the picture goes, as PNG.
    """
    # Figure instead of pyplot: pyplot keeps global state.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = list(dict.fromkeys(name for row in rows for name in row if "/" in name))
    # Training comes first, whichever was measured first.
    groups = list(dict.fromkeys([_TRAIN, *(name.partition("/")[0] for name in columns)]))
    measured = {name.partition("/")[2] for name in columns}
    is_ranking = not measured.isdisjoint(("hr_at_10", "ndcg_at_100"))
    metrics = [m for m in _TITLES if m in measured and not (is_ranking and m in _OF_RATINGS)]

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(metrics)), squeeze=False)[0]
    for axes, metric in zip(panels, metrics):
        shown: list[np.ndarray] = []
        for group in groups:
            column = f"{group}/{metric}"
            points = [(row["round"], row[column]) for row in rows if column in row]
            if not points:
                continue
            rounds, values = np.array(points, float).T
            values = without_diverged(values)
            is_train = group == _TRAIN
            axes.plot(
                rounds, values, label=group, **(_TRAIN_STYLE if is_train else _EVALUATED_STYLE)
            )
            values = worth_seeing(rounds, values)
            if is_train and len(values):
                values = np.quantile(values, _NOISY_SHOWN)
            shown.append(values)
        set_limits(axes, shown)
        # All rounds, those of gaps too.
        last = max(1, rows[-1]["round"])
        axes.set(xlabel="round", title=_TITLES[metric], xlim=(-0.03 * last, 1.03 * last))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format="png")


def worth_seeing(rounds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the finite values of a curve after its first rounds.

    The untrained model and the first rounds are often so far off that they would flatten the rest.

    Args:
      rounds: `[n]`, increasing.
      values: `[n]`.
    """
    rounds, values = np.asarray(rounds), np.asarray(values, float)
    is_late = (rounds > 0) & (rounds >= _FIRST_SHOWN * rounds.max(initial=0))
    return values[is_late & np.isfinite(without_diverged(values))]


def set_limits(axes: Any, shown: Iterable[np.ndarray]) -> None:
    """Sets the limits of the axis of values so that all of `shown` is in the picture."""
    values = np.concatenate([np.zeros(0), *shown])
    if len(values):
        low, high = values.min(), values.max()
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)


def without_diverged(values: np.ndarray) -> np.ndarray:
    """Returns the values with NaN, a gap in the picture, for each that cannot be drawn."""
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) < _LARGEST_SHOWN, values, np.nan)
