"""Tables and pictures of a comparison, from what its parts left in their directories.

    comparison.csv       one row a part, every figure in full precision
    comparison.md        means over seeds, with sample standard deviations
    quality_rounds.png   quality while training, by rounds
    quality_bytes.png    the same, by what all clients have sent and received
    spread.png           quality of the users served best to those served worst
    given_ratings.png    quality on unseen users, by how many ratings they give
    sweep_<setting>.png  quality by the values of a setting

Every figure comes from results.json and metrics.csv of the parts, never from memory, so that the
report of a comparison can be written again at any time. Files are replaced whole or not at all.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fedrecon.artifacts import CONFIG, METRICS, RESULTS, RunDirectory
from fedrecon.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE = "comparison.csv"
SUMMARY = "comparison.md"

_GROUPS = ("seen", "unseen")
_HEAD = (
    "algorithm",
    "seed",
    "feedback",
    "watched_part",
    "rounds",
    "clients_per_round",
    "seconds",
    "bytes_down",
    "bytes_up",
    "bytes_up_once",
    "num_training_users",
    "device_bytes",
    "server_bytes",
)
_COUNTS = ("num_users", "num_examples")
_KB, _MB = 1e3, 1e6
_NOTHING = "–"  # noqa: RUF001 - an empty cell of a table is easily taken for a mistake


# --- what is measured -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A measure of quality: its name in the files, in tables, and with its unit on an axis."""

    name: str
    title: str
    axis: str
    is_error: bool = False

    @property
    def direction(self) -> str:
        return "lower is better" if self.is_error else "higher is better"


@dataclasses.dataclass(frozen=True)
class _Feedback:
    """How quality is measured with one kind of feedback.

    Attributes:
      name: As in results.json.
      measures: What tables and pictures show; the first alone where there is room for one.
      columns: The columns of a group of users in the table: heading, figure, measure.
      spread: The measure of one user of which results.json has deciles.
      mean: The mean that is meant where nothing is said: `over_ratings` or `over_users`.
      means: What the columns of the table mean.
    """

    name: str
    measures: tuple[_Measure, ...]
    columns: tuple[tuple[str, str, _Measure], ...]
    spread: _Measure
    mean: str
    means: str

    @property
    def mean_text(self) -> str:
        return self.mean.replace("_", " ")


_RMSE = _Measure("rmse", "RMSE", "RMSE (unit of the ratings)", is_error=True)
_ACCURACY = _Measure("accuracy", "accuracy", "accuracy (share of ratings)")
_HR = _Measure("hr_at_10", "HR@10", "HR@10 (share of users)")
_NDCG = _Measure("ndcg_at_10", "NDCG@10", "NDCG@10 (0 to 1)")
_MRR = _Measure("mrr", "reciprocal rank", "reciprocal rank (0 to 1)")

_FEEDBACKS = {
    "explicit": _Feedback(
        name="explicit",
        measures=(_RMSE, _ACCURACY),
        columns=(("RMSE", "rmse", _RMSE), ("accuracy", "accuracy", _ACCURACY)),
        spread=_RMSE,
        mean="over_ratings",
        means="RMSE and accuracy (the share of predictions within 0.5 of the rating) are means "
        "over ratings, so people with many ratings count more.",
    ),
    "implicit": _Feedback(
        name="implicit",
        measures=(_HR, _NDCG),
        columns=(
            ("HR@10", "hr_at_10", _HR),
            ("NDCG@10", "ndcg_at_10", _NDCG),
            ("full HR@10", "full_hr_at_10", _HR),
            ("full NDCG@10", "full_ndcg_at_10", _NDCG),
        ),
        spread=_MRR,
        mean="over_users",
        means="HR@10 and NDCG@10 are means over users, of held-out items ranked among the sampled "
        "candidates and, where it says full, among all items that the user does not have.",
    ),
}


# --- the files of the parts -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part as its files have it.

    Attributes:
      run: Its directory.
      changes: The setting that a sweep changed, and its value; empty in the comparison itself.
      figures: The row of comparison.csv, without what a sweep changed.
      deciles: Of the spread's measure, by the group of users.
      given: By how many ratings unseen users gave, the measures.
      watched: By the round, the measures on the watched part.
    """

    run: RunDirectory
    changes: dict[str, Any]
    figures: dict[str, Any]
    deciles: dict[str, list[float]]
    given: dict[int, dict[str, float]]
    watched: dict[int, dict[str, float]]

    @property
    def algorithm(self) -> str:
        return self.figures["algorithm"]

    @property
    def seed(self) -> int:
        return self.figures["seed"]


class _Results:
    """results.json of a part; every lookup of what is not there names the file and the key."""

    def __init__(self, run: RunDirectory):
        self.path = run.path / RESULTS
        self._results = run.read_results()
        if self._results is None:
            raise InputError(
                f"{run.path} has no {RESULTS}; finish this part before the report is written."
            )

    def get(self, *keys: str) -> Any:
        value = self._results
        for depth, key in enumerate(keys, start=1):
            if not isinstance(value, dict) or key not in value:
                raise InputError(
                    f"{self.path} lacks {'.'.join(keys[:depth])}; run this part again in an empty "
                    "directory."
                )
            value = value[key]
        return value

    def means(self, *keys: str, needed: Iterable[_Measure]) -> dict[str, float]:
        for measure in needed:
            self.get(*keys, measure.name)
        return self.get(*keys)


def _read_parts(part_dirs: Sequence[pathlib.Path]) -> tuple[_Feedback, list[_Part]]:
    runs = [RunDirectory(path) for path in part_dirs]
    results = [_Results(run) for run in runs]
    unchanged = [found for found in results if not found.get("changes")]
    _check_same(results, "feedback")
    _check_same(unchanged, "watched_part")
    if not unchanged:
        raise InputError(
            f"none of the {len(results)} parts has its settings unchanged, so there is nothing to "
            "compare; give the parts that the sweeps start from, too."
        )
    feedback = results[0].get("feedback")
    if feedback not in _FEEDBACKS:
        raise InputError(
            f"{results[0].path} has feedback {feedback!r}; it must be {' or '.join(_FEEDBACKS)}."
        )
    parts = [_part(run, found, _FEEDBACKS[feedback]) for run, found in zip(runs, results)]
    known: dict[str, pathlib.Path] = {}
    for part in parts:
        what = f"{part.algorithm}, seed {part.seed}, changes {part.changes}"
        if what in known:
            raise InputError(
                f"{known[what]} and {part.run.path} are the same part ({what}); give one of them."
            )
        known[what] = part.run.path
    return _FEEDBACKS[feedback], parts


def _check_same(results: list[_Results], key: str) -> None:
    for found in results:
        if found.get(key) != results[0].get(key):
            raise InputError(
                f"{found.path} has {key} {found.get(key)!r} and {results[0].path} has "
                f"{results[0].get(key)!r}; a comparison is of parts with the same {key}."
            )


def _part(run: RunDirectory, results: _Results, feedback: _Feedback) -> _Part:
    changes = results.get("changes")
    if len(changes) > 1:
        raise InputError(
            f"{results.path} is of a part with {len(changes)} settings changed "
            f"({', '.join(changes)}); a sweep changes one."
        )
    given = {
        int(number): results.means("given", number, needed=feedback.measures)
        for number in results.get("given")
    }
    given = dict(sorted(given.items()))
    figures = {name: results.get(name) for name in _HEAD}
    for group in _GROUPS:
        figures.update(_group_figures(results, group, feedback))
    for number, means in given.items():
        figures.update({f"unseen_{name}_given_{number}": mean for name, mean in means.items()})
    spread = feedback.spread.name
    deciles = {group: results.get("users", group, "deciles", spread) for group in _GROUPS}
    watched = _read_watched(run, figures, feedback)
    return _Part(run, changes, figures, deciles, given, watched)


def _group_figures(results: _Results, group: str, feedback: _Feedback) -> dict[str, Any]:
    """Returns the figures of seen or of unseen users, by the names that comparison.csv has."""
    figures = {f"{group}_{key}": results.get("users", group, key) for key in _COUNTS}
    for mean in dict.fromkeys((feedback.mean, "over_users")):
        suffix = "" if mean == feedback.mean else f"_{mean}"
        means = results.means("users", group, mean, needed=feedback.measures)
        figures.update({f"{group}_{name}{suffix}": value for name, value in means.items()})
    if feedback.name == "implicit":
        means = results.means("full_ranking", group, needed=feedback.measures)
        figures.update({f"{group}_full_{name}": value for name, value in means.items()})
    for name, quantiles in results.get("users", group, "deciles").items():
        figures.update({f"{group}_{name}_quantile_{10 * i}": q for i, q in enumerate(quantiles)})
    return figures


def _read_watched(run: RunDirectory, figures, feedback: _Feedback) -> dict[int, dict[str, float]]:
    names = {m.name: f"{figures['watched_part']}/{m.name}" for m in feedback.measures}
    path = run.path / METRICS
    # What has no rounds may have no metrics either.
    rows = run.read_metrics() if path.exists() else []
    watched = {
        int(row["round"]): {name: row[column] for name, column in names.items()}
        for row in rows
        if all(column in row for column in names.values())
    }
    if not watched and figures["rounds"] is not None:
        raise InputError(
            f"{path} has no row with {' and '.join(names.values())}; restore the file, or run this "
            "part again in an empty directory."
        )
    return watched


# --- over seeds -----------------------------------------------------------------------------------


class _Summary(NamedTuple):
    """A mean over seeds and the sample standard deviation, None for a single seed."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return self.text(3)

    def text(self, digits: int) -> str:
        text = f"{self.mean:,.{digits}f}"
        return text if self.deviation is None else f"{text} ± {self.deviation:,.{digits}f}"


def _summary(values: Iterable[float]) -> _Summary | None:
    import numpy as np

    values = list(values)
    if not values:
        return None
    return _Summary(float(np.mean(values)), float(np.std(values, ddof=1)) if values[1:] else None)


def _summary_of(parts: Iterable[_Part], figure: str) -> _Summary | None:
    return _summary(part.figures[figure] for part in parts if figure in part.figures)


def _by_algorithm(parts: Iterable[_Part]) -> dict[str, list[_Part]]:
    """Returns the parts of the comparison itself; algorithms come in the order of the parts."""
    groups: dict[str, list[_Part]] = {}
    for part in parts:
        if not part.changes:
            groups.setdefault(part.algorithm, []).append(part)
    return groups


@dataclasses.dataclass(frozen=True)
class _Sweep:
    """The parts that differ in one setting alone.

    Attributes:
      setting: The setting.
      values: All its values, in order.
      parts: By the algorithm, then by the value. Of the parts of the comparison itself only those
        with seeds of the sweep, since a seed decides on the users, too.
      unchanged: By the algorithm, the value in the comparison itself.
    """

    setting: str
    values: list[Any]
    parts: dict[str, dict[Any, list[_Part]]]
    unchanged: dict[str, Any]

    def heading(self, value: Any, mark: str = " (unchanged)") -> str:
        """Returns a value as text, marked where it is that of every algorithm's comparison."""
        return _value_text(value) + (mark if set(self.unchanged.values()) == {value} else "")

    def summaries(self, algorithm: str, figure: str) -> list[_Summary | None]:
        of_algorithm = self.parts[algorithm]
        return [_summary_of(of_algorithm.get(value, []), figure) for value in self.values]


def _sweeps(parts: list[_Part]) -> list[_Sweep]:
    bases = _by_algorithm(parts)
    sweeps = []
    for setting in dict.fromkeys(name for part in parts for name in part.changes):
        groups: dict[str, dict[Any, list[_Part]]] = {}
        for part in parts:
            if setting in part.changes:
                values = groups.setdefault(part.algorithm, {})
                values.setdefault(part.changes[setting], []).append(part)
        unchanged = {}
        for algorithm, values in groups.items():
            seeds = {part.seed for same_value in values.values() for part in same_value}
            for base in bases.get(algorithm, []):
                if base.seed in seeds:
                    unchanged[algorithm] = _unchanged_value(base, setting)
                    values.setdefault(unchanged[algorithm], []).append(base)
        in_order = sorted({v for values in groups.values() for v in values}, key=_value_order)
        sweeps.append(_Sweep(setting, in_order, groups, unchanged))
    return sweeps


def _unchanged_value(base: _Part, setting: str) -> Any:
    settings = base.run.read_config()["settings"]
    if setting not in settings:
        raise InputError(
            f"{base.run.path / CONFIG} lacks the setting {setting}, which a sweep changes; run "
            "this part again in an empty directory."
        )
    return settings[setting]


def _value_order(value: Any):
    is_number = isinstance(value, (int, float))
    return (not is_number, value if is_number else _value_text(value))


def _value_text(value: Any) -> str:
    return "none" if value is None else str(value)


# --- the tables -----------------------------------------------------------------------------------


def _csv_rows(parts: list[_Part], output_dir: pathlib.Path) -> list[dict[str, Any]]:
    settings = dict.fromkeys(name for part in parts for name in part.changes)
    rows = []
    for part in parts:
        # The figures have names of settings too, as `clients_per_round`.
        changed = {
            f"changed_{name}": _value_text(part.changes[name]) if name in part.changes else ""
            for name in settings
        }
        path = os.path.relpath(part.run.path, output_dir)
        rows.append({"part": path, **part.figures, **changed})
    return rows


def _write_csv(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    first = ["part", "algorithm", "seed", *(n for n in names if n.startswith("changed_"))]
    names = [*first, *(name for name in names if name not in first)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _markdown(feedback: _Feedback, parts: list[_Part], pictures: Iterable[str]) -> str:
    groups = _by_algorithm(parts)
    pictures = list(pictures)
    sections = [
        ["# Comparison", _seeds_text(groups), *_main_table(feedback, groups)],
        [_image(name) for name in (_ROUNDS, _BYTES, _SPREAD) if name in pictures],
    ]
    if _numbers_given(groups):
        sections.append(
            ["## Unseen users by the number of ratings they give", *_given_table(feedback, groups)]
        )
        sections.append([_image(_GIVEN)])
    for sweep in _sweeps(parts):
        sections.append([f"## Sweep of `{sweep.setting}`", *_sweep_table(feedback, sweep)])
        sections.append([_image(_sweep_name(sweep))])
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _image(name: str) -> str:
    return f"![{pathlib.PurePath(name).stem}]({name})"


def _seeds_text(groups: dict[str, list[_Part]]) -> str:
    texts = {algorithm: _seeds_of(parts) for algorithm, parts in groups.items()}
    if len(set(texts.values())) == 1:
        text = next(iter(texts.values()))
    else:
        text = "; ".join(f"{algorithm}: {text}" for algorithm, text in texts.items())
    spread = any(len(parts) > 1 for parts in groups.values())
    return f"{text}." + (" Mean ± sample standard deviation over seeds." if spread else "")


def _seeds_of(parts: list[_Part]) -> str:
    seeds = sorted(part.seed for part in parts)
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})"


def _main_table(feedback: _Feedback, groups: dict[str, list[_Part]]) -> list[str]:
    columns = {"algorithm": list(groups)}
    for group in _GROUPS:
        for title, figure, measure in feedback.columns:
            summaries = [_summary_of(parts, f"{group}_{figure}") for parts in groups.values()]
            columns[f"{group} {title}"] = _bold_best(summaries, measure)
    columns["KB down"] = [_size(parts, "bytes_down", _KB) for parts in groups.values()]
    columns["KB up"] = [
        f"{_size(parts, 'bytes_up_once', _KB)} once"
        if _mean(parts, "bytes_up_once")
        else _size(parts, "bytes_up", _KB)
        for parts in groups.values()
    ]
    columns["device KB"] = [_size(parts, "device_bytes", _KB) for parts in groups.values()]
    columns["server MB"] = [_size(parts, "server_bytes", _MB) for parts in groups.values()]
    columns["seconds"] = [_summary_of(parts, "seconds").text(1) for parts in groups.values()]
    return [
        _table(columns),
        f"{feedback.means} Seen users took part in training; unseen users did not, and are served "
        "from the ratings they give.",
        "KB down and up are what a client receives and sends in a round (once: what it sends in "
        "all), device KB the state that it keeps between rounds, server MB the server's state, "
        "seconds what training took; 1 KB is 1000 bytes. Bold is the best mean of a column.",
    ]


def _given_table(feedback: _Feedback, groups: dict[str, list[_Part]]) -> list[str]:
    rows = [(name, measure) for measure in feedback.measures for name in groups]
    columns = {
        "algorithm": [algorithm for algorithm, _ in rows],
        "measure": [measure.title for _, measure in rows],
    }
    for number in _numbers_given(groups):
        cells: list[str] = []
        for measure in feedback.measures:
            figure = f"unseen_{measure.name}_given_{number}"
            cells += _bold_best([_summary_of(found, figure) for found in groups.values()], measure)
        columns[str(number)] = cells
    return [
        _table(columns, num_texts=2),
        f"Means {feedback.mean_text}; a column is for unseen users who give only so many ratings. "
        "Bold is the best mean of a column for each measure.",
    ]


def _sweep_table(feedback: _Feedback, sweep: _Sweep) -> list[str]:
    measure = feedback.measures[0]
    rows = []
    for algorithm in sweep.parts:
        for group in _GROUPS:
            summaries = sweep.summaries(algorithm, f"{group}_{measure.name}")
            rows.append([algorithm, group, *_bold_best(summaries, measure)])
    headings = ["algorithm", "users", *map(sweep.heading, sweep.values)]
    sizes = {_seeds_of(parts) for values in sweep.parts.values() for parts in values.values()}
    seeds = f" Over {sizes.pop()}." if len(sizes) == 1 else ""
    unchanged = ""
    if len(set(sweep.unchanged.values())) > 1:
        pairs = (f"{name} {_value_text(value)}" for name, value in sweep.unchanged.items())
        unchanged = f" Unchanged are: {', '.join(pairs)}."
    return [
        _table(dict(zip(headings, map(list, zip(*rows)))), num_texts=2),
        f"{measure.title}, a mean {feedback.mean_text}; a column is for one value of "
        f"`{sweep.setting}`.{unchanged}{seeds} Bold is the best mean of a row.",
    ]


def _numbers_given(groups: dict[str, list[_Part]]) -> list[int]:
    return sorted({number for parts in groups.values() for p in parts for number in p.given})


def _bold_best(summaries: list[_Summary | None], measure: _Measure) -> list[str]:
    """Returns the cells, the best mean bold, and those that look the same; one alone is not."""
    # As shown, so that a bold 0.934 never stands beside a plain one.
    means = [round(s.mean, 3) for s in summaries if s is not None]
    best = (min if measure.is_error else max)(means) if len(means) > 1 else None
    cells = []
    for summary in summaries:
        cell = _NOTHING if summary is None else str(summary)
        is_best = summary is not None and round(summary.mean, 3) == best
        cells.append(f"**{cell}**" if is_best else cell)
    return cells


def _mean(parts: list[_Part], figure: str) -> float:
    return _summary_of(parts, figure).mean


def _size(parts: list[_Part], figure: str, unit: float) -> str:
    size = _mean(parts, figure) / unit
    if not size:
        return "0"
    return f"{size:,.1f}" if size >= 0.1 else f"{size:.1g}"


def _table(columns: dict[str, list[str]], num_texts: int = 1) -> str:
    """Returns a table of GitHub's Markdown that can be read as it is, too.

    Args:
      columns: The cells of each column, by its heading.
      num_texts: How many columns hold text, and are flush left.
    """
    padded = []
    for number, (heading, cells) in enumerate(columns.items()):
        pad = str.ljust if number < num_texts else str.rjust
        width = max(map(len, ["---", heading, *cells]))
        texts = (heading, pad(":", width, "-"), *cells)
        padded.append([pad(text, width) for text in texts])
    return "\n".join("| " + " | ".join(row) + " |" for row in zip(*padded))


# --- the pictures ---------------------------------------------------------------------------------

_ROUNDS = "quality_rounds.png"
_BYTES = "quality_bytes.png"
_SPREAD = "spread.png"
_GIVEN = "given_ratings.png"

# Okabe & Ito's colours, told apart by the colour-blind; by the name, so that an algorithm looks
# the same in every picture and in every comparison.
_STYLES = {
    "fedrecon": ("#0072B2", "o"),
    "stateful_fedavg": ("#009E73", "s"),
    "fedavg": ("#E69F00", "^"),
    "fedncf": ("#CC79A7", "D"),
    "centralized": ("#000000", "v"),
    "ials": ("#D55E00", "P"),
}
_OTHER_STYLES = (("#56B4E9", "X"), ("#7F7F7F", "*"), ("#B8A800", "h"))


def _style(algorithm: str) -> dict[str, Any]:
    other = _OTHER_STYLES[zlib.crc32(algorithm.encode()) % len(_OTHER_STYLES)]
    color, marker = _STYLES.get(algorithm, other)
    return {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 1.5}


def _pictures(feedback: _Feedback, parts: list[_Part]) -> dict[str, Figure]:
    groups = _by_algorithm(parts)
    watched = {name: found for name, found in groups.items() if _measured(found)}
    pictures = {}
    if watched:
        pictures[_ROUNDS] = _rounds_figure(feedback, watched)
        pictures[_BYTES] = _bytes_figure(feedback, watched)
    pictures[_SPREAD] = _spread_figure(feedback, groups)
    if _numbers_given(groups):
        pictures[_GIVEN] = _given_figure(feedback, groups)
    pictures.update({_sweep_name(s): _sweep_figure(feedback, s) for s in _sweeps(parts)})
    return pictures


def _sweep_name(sweep: _Sweep) -> str:
    return f"sweep_{sweep.setting}.png"


def _figure(num_rows: int, sharey: str = "none") -> tuple[Figure, Any]:
    """Returns a picture and its panels, `[num_rows, 2]`."""
    # Figure instead of pyplot: pyplot keeps global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.7 + 3.5 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False, sharey=sharey)
    for panel in axes.flat:
        panel.grid(alpha=0.3)
    return figure, axes


def _add_legend(figure: Figure) -> None:
    """Adds one legend for all panels, below them, where it hides nothing."""
    entries = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=6, frameon=False
    )


class _Curve(NamedTuple):
    """Means over seeds and standard deviations (0 for one seed) at the rounds all seeds have."""

    rounds: Any
    mean: Any
    deviation: Any

    @property
    def after_first(self) -> list[float]:
        # The untrained model is often so far off that it would flatten all the rest.
        keep = self.rounds > 0
        low, high = self.mean - self.deviation, self.mean + self.deviation
        return [*low[keep], *high[keep]]


def _measured(parts: list[_Part]) -> list[_Part]:
    return [part for part in parts if part.watched]


def _curve(parts: list[_Part], measure: _Measure) -> _Curve:
    import numpy as np

    parts = _measured(parts)
    rounds = sorted(set.intersection(*(set(part.watched) for part in parts)))
    values = np.array([[part.watched[r][measure.name] for r in rounds] for part in parts])
    deviation = values.std(axis=0, ddof=1) if len(parts) > 1 else np.zeros(len(rounds))
    return _Curve(np.array(rounds), values.mean(axis=0), deviation)


def _final(parts: list[_Part], measure: _Measure) -> _Summary:
    return _summary(part.watched[max(part.watched)][measure.name] for part in _measured(parts))


def _rounds_figure(feedback: _Feedback, groups: dict[str, list[_Part]]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, (panels,) = _figure(1)
    for axes, measure in zip(panels, feedback.measures):
        limits = []
        for algorithm, parts in groups.items():
            if parts[0].figures["rounds"] is None:
                final = _final(parts, measure)
                color = _style(algorithm)["color"]
                axes.axhline(final.mean, color=color, linestyle="--", label=algorithm)
                limits.append(final.mean)
            else:
                curve = _curve(parts, measure)
                _draw_curve(axes, algorithm, curve.rounds, curve)
                limits += curve.after_first
        _set_limits(axes, limits)
        axes.set(xlabel="round", ylabel=measure.axis, title=_watched_title(groups, measure))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _add_legend(figure)
    return figure


def _bytes_figure(feedback: _Feedback, groups: dict[str, list[_Part]]) -> Figure:
    figure, (panels,) = _figure(1)
    for axes, measure in zip(panels, feedback.measures):
        axes.set_xscale("log")
        limits = []
        for algorithm, parts in groups.items():
            once = _mean(parts, "bytes_up_once")
            if once:
                megabytes = _mean(parts, "num_training_users") * once / _MB
                final = _final(parts, measure)
                style = {**_style(algorithm), "linewidth": 0, "markersize": 9}
                axes.errorbar(megabytes, final.mean, final.deviation, label=algorithm, **style)
                limits += [final.mean - (final.deviation or 0), final.mean + (final.deviation or 0)]
                continue
            a_round = (_mean(parts, "bytes_down") + _mean(parts, "bytes_up")) / _MB
            a_round *= parts[0].figures["clients_per_round"] or 0
            if a_round:
                curve = _curve(parts, measure)
                trained = _Curve(*(values[curve.rounds > 0] for values in curve))
                _draw_curve(axes, algorithm, trained.rounds * a_round, trained)
                limits += trained.after_first
        _set_limits(axes, limits)
        axes.set(
            xlabel="MB sent and received by all clients so far",
            ylabel=measure.axis,
            title=_watched_title(groups, measure),
        )
        _set_log_ticks(axes)
    _add_legend(figure)
    return figure


def _draw_curve(axes: Axes, algorithm: str, x, curve: _Curve) -> None:
    style = _style(algorithm)
    axes.plot(x, curve.mean, label=algorithm, **style)
    if curve.deviation.any():
        low, high = curve.mean - curve.deviation, curve.mean + curve.deviation
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _set_log_ticks(axes: Axes) -> None:
    """Labels powers of ten, and 2 and 5 times those where there would be hardly any."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    factors = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=factors))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _set_limits(axes: Axes, values: list[float]) -> None:
    if values:
        margin = 0.05 * (max(values) - min(values)) or 0.05
        axes.set_ylim(min(values) - margin, max(values) + margin)


def _watched_title(groups: dict[str, list[_Part]], measure: _Measure) -> str:
    watched = next(iter(groups.values()))[0].figures["watched_part"]
    return f"{watched} {measure.title} ({measure.direction})"


def _spread_figure(feedback: _Feedback, groups: dict[str, list[_Part]]) -> Figure:
    import numpy as np

    measure = feedback.spread
    figure, (panels,) = _figure(1, sharey="row")
    for axes, group in zip(panels, _GROUPS):
        for algorithm, parts in groups.items():
            deciles = np.mean([part.deciles[group] for part in parts], axis=0)
            shares = np.linspace(0, 100, len(deciles))
            axes.plot(shares, deciles, label=algorithm, **_style(algorithm))
        axes.set(
            xlabel=f"share of users with at most this {measure.title} (%)",
            ylabel=f"a user's {measure.axis}",
            title=f"{group} users: {measure.title} of each ({measure.direction})",
            xticks=range(0, 101, 20),
        )
        axes.label_outer()
    _add_legend(figure)
    return figure


def _given_figure(feedback: _Feedback, groups: dict[str, list[_Part]]) -> Figure:
    numbers = _numbers_given(groups)
    figure, (panels,) = _figure(1)
    for axes, measure in zip(panels, feedback.measures):
        figures = [f"unseen_{measure.name}_given_{number}" for number in numbers]
        lines = {
            algorithm: [_summary_of(parts, figure) for figure in figures]
            for algorithm, parts in groups.items()
        }
        _draw_categories(axes, lines, [str(number) for number in numbers])
        axes.set(
            xlabel="ratings that the user gives",
            ylabel=measure.axis,
            title=f"unseen users: {measure.title} ({measure.direction})",
        )
    _add_legend(figure)
    return figure


def _sweep_figure(feedback: _Feedback, sweep: _Sweep) -> Figure:
    figure, rows = _figure(len(feedback.measures), sharey="row")
    headings = [sweep.heading(value, "\n(unchanged)") for value in sweep.values]
    for row, measure in zip(rows, feedback.measures):
        for axes, group in zip(row, _GROUPS):
            lines = {
                algorithm: sweep.summaries(algorithm, f"{group}_{measure.name}")
                for algorithm in sweep.parts
            }
            _draw_categories(axes, lines, headings)
            axes.set(
                xlabel=sweep.setting,
                ylabel=measure.axis,
                title=f"{group} users: {measure.title} ({measure.direction})",
            )
            axes.label_outer()
    _add_legend(figure)
    return figure


def _draw_categories(
    axes: Axes, lines: dict[str, list[_Summary | None]], headings: list[str]
) -> None:
    """Draws a line for each algorithm over categories, set apart so that no bar hides another."""
    for number, (algorithm, summaries) in enumerate(lines.items()):
        shift = 0.07 * (number - (len(lines) - 1) / 2)
        points = [(i + shift, *s) for i, s in enumerate(summaries) if s is not None]
        if points:
            x, means, deviations = zip(*points)
            bars = [deviation or 0 for deviation in deviations] if any(deviations) else None
            axes.errorbar(x, means, bars, capsize=2.5, label=algorithm, **_style(algorithm))
    axes.set_xticks(range(len(headings)), headings)


# --- the report -----------------------------------------------------------------------------------


def write_report(output_dir: pathlib.Path, part_dirs: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Writes the tables and pictures that this module's docstring lists.

    Args:
      output_dir: Where to; made if there is none.
      part_dirs: The directories of the finished parts: run directories with results.json.

    Returns:
      The files written.

    Raises:
      InputError: If a part is not finished, its files lack something, or the parts are not of one
        comparison. Nothing is written then.
    """
    output_dir = pathlib.Path(output_dir)
    feedback, parts = _read_parts(part_dirs)
    figures = _pictures(feedback, parts)
    markdown = _markdown(feedback, parts, figures)
    rows = _csv_rows(parts, output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    written = [
        _write(output_dir / TABLE, lambda path: _write_csv(rows, path)),
        _write(output_dir / SUMMARY, lambda path: path.write_text(markdown, encoding="utf-8")),
    ]
    for name, figure in figures.items():
        written.append(_write_figure(output_dir / name, figure))
    return written


def _write_figure(path: pathlib.Path, figure: Figure) -> pathlib.Path:
    return _write(path, lambda part: figure.savefig(part, dpi=120, format="png"))


def _write(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> pathlib.Path:
    """Has a file written under another name, which it loses only when it is whole."""
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
