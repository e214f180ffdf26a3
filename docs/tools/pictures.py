"""Draws docs/images/round.svg and docs/images/speed.svg.

    python -m docs.tools.pictures            # these two
    python -m docs.tools.pictures FOLDER     # also docs/images/unseen_users.png

The speeds are read off the table of how_it_is_fast.md, so the page and its picture agree. FOLDER is
the comparison `ratings` of `experiments.reproduce`.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.comparison.figures import styles

DOCS = pathlib.Path(__file__).resolve().parents[1]
_STYLE = {"svg.hashsalt": "fedrecon", "font.family": "DejaVu Sans", "font.size": 11}
_LINE, _SERVER, _CLIENT = "#5c6bc0", "#e8eaf6", "#e0f2f1"
_ROUND = (  # What happens, from the top: an arrow to the right or left, or a step of one side.
    ("to client", "global part: item tables, dense weights"),
    ("client", "cut the ratings into batches:\nsupport 0, 2, 4, ...  query 1, 3, 5, ..."),
    (
        "client",
        "reconstruction: draw a fresh local part,\nfit it on the support, global part frozen",
    ),
    ("client", "fit the global part on the query,\nlocal part frozen"),
    ("to server", "update (change of the global part), weight"),
    ("client", "forget the local part"),
    ("server", "weighted mean of the updates,\none step of the server's optimizer"),
)


def speeds(page: str) -> list[tuple[str, float]]:
    """Returns what each step is and the seconds of a round, from the page's table."""
    table = page.split("<!-- steps -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| \d+\. (.+?) \| ([\d.]+) (ms|s) \|", table, re.MULTILINE)
    return [(name.replace("`", ""), float(n) / (1_000 if u == "ms" else 1)) for name, n, u in rows]


def draw_round(axes: Axes) -> None:
    """Draws who does what in a round of FedRecon."""
    server, client = 0.0, 1.25
    for x, title in ((server, "Server"), (client, "Each client of the cohort")):
        axes.plot([x, x], [0.3, -len(_ROUND) + 0.4], color="#9e9e9e", linewidth=1, zorder=0)
        axes.text(x, 0.55, title, ha="center", va="center", weight="bold")
    for number, (kind, text) in enumerate(_ROUND):
        if kind in ("client", "server"):
            color = _CLIENT if kind == "client" else _SERVER
            box = {"boxstyle": "round,pad=0.45", "facecolor": color, "edgecolor": _LINE}
            x = client if kind == "client" else server
            axes.text(x, -number, text, ha="center", va="center", bbox=box, linespacing=1.3)
            continue
        start, end = (server, client) if kind == "to client" else (client, server)
        arrow = {"arrowstyle": "-|>", "color": _LINE, "linewidth": 1.8}
        axes.annotate("", (end, -number), (start, -number), arrowprops=arrow)
        axes.text((server + client) / 2, -number + 0.12, text, ha="center", va="bottom")
    axes.set(xlim=(-0.5, 1.85), ylim=(-len(_ROUND) + 0.35, 0.8))
    axes.axis("off")


def draw_speeds(axes: Axes, found: list[tuple[str, float]]) -> None:
    """Draws the seconds of a round after each step, on a logarithmic axis."""
    names, seconds = zip(*found)
    places = range(len(found))
    axes.plot(seconds, places, "o", color=_LINE, markersize=11)
    for place, value in zip(places, seconds):
        shown = f"{value:.3g} s" if value >= 1 else f"{1_000 * value:.3g} ms"
        ratio = seconds[0] / value
        times = "" if place == 0 else f"\n{ratio:.{0 if ratio > 10 else 1}f} times as fast"
        axes.text(value * 1.25, place, shown + times, va="center")
    axes.set(xscale="log", xlabel="seconds a round (logarithmic axis)", xlim=(4e-3, 40))
    axes.set_ylim(-0.5, len(found) - 0.5)
    axes.set_xticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.set_yticks(places, [name.replace(", ", ",\n") for name in names])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)


def draw_unseen_users(axes: Axes, folder: pathlib.Path) -> None:
    """Draws the RMSE of unseen validation users by rounds, means over seeds of a comparison."""
    curves: dict[str, list[pd.Series]] = {}
    references: dict[str, list[float]] = {}
    for path in sorted((folder / "runs").iterdir()):
        results = json.loads((path / "results.json").read_text(encoding="utf-8"))
        if results["rounds"] is None:
            rmse = results["groups"]["unseen_validation"]["means"]["rmse"]
            references.setdefault(results["algorithm"], []).append(rmse)
        else:
            rows = pd.read_csv(path / "metrics.csv", index_col="round")
            curve = rows["unseen_validation/rmse"].dropna()
            curves.setdefault(results["algorithm"], []).append(curve)
    means = {
        name: pd.concat(seeds, axis="columns").mean("columns") for name, seeds in curves.items()
    }
    style = styles([*means, *references])
    for name in sorted(means, key=lambda name: means[name].iloc[-1]):
        axes.plot(means[name], label=name, **style[name])
    for name, seeds in references.items():
        height, color = sum(seeds) / len(seeds), style[name]["color"]
        axes.axhline(height, color=color, linestyle="--", linewidth=1.8)
        axes.text(
            1.01, height, name, color=color, va="center", transform=axes.get_yaxis_transform()
        )
    axes.set(xlim=(40, 500), ylim=(0.855, 0.97))
    axes.set(xlabel="rounds", ylabel="RMSE of unseen users (stars)")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2)


def _save(figure: Figure, name: str) -> None:
    figure.savefig(DOCS / "images" / name, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 6))
        draw_round(figure.subplots())
        _save(figure, "round.svg")
        figure = Figure(figsize=(6.6, 3.6))
        page = (DOCS / "how_it_is_fast.md").read_text(encoding="utf-8")
        draw_speeds(figure.subplots(), speeds(page))
        _save(figure, "speed.svg")
        for folder in sys.argv[1:]:
            figure = Figure(figsize=(9, 4.6))
            draw_unseen_users(figure.subplots(), pathlib.Path(folder))
            _save(figure, "unseen_users.png")


if __name__ == "__main__":
    main()
