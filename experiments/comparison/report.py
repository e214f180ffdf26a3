"""Tables and pictures of a comparison, from what its parts left in their directories.

    comparison.csv       one row a part, every figure in full precision
    comparison.md        means over seeds, with sample standard deviations
    quality_rounds.png   quality while training, by rounds
    quality_bytes.png    the same, by what all clients have sent and received
    spread.png           quality of the users served best to those served worst
    given_ratings.png    quality on unseen users, by how many ratings they give
    sweep_<setting>.png  quality by the values of a setting

Every figure comes from results.json and metrics.csv of the parts, never from memory, so that the
report of a comparison can be written again at any time.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from experiments.comparison import figures as figures
from experiments.comparison.figures import GROUPS, Measure, over_seeds
from fedrecon.errors import InputError
from fedrecon.runs.run_directory import METRICS, RESULTS, RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

    _Section = tuple[list[str], dict[str, Figure]]

TABLE = "comparison.csv"
SUMMARY = "comparison.md"

# What results.json has besides the quality.
_HEAD = (
    *("algorithm", "seed", "changes", "feedback", "watched_part", "rounds", "clients_per_round"),
    *("seconds", "bytes_down", "bytes_up", "bytes_up_once", "num_training_users"),
    *("device_bytes", "server_bytes", "given", "users"),
)
# Columns of comparison.csv, by the keys of results.json.
_COLUMNS = {
    r"^changes\.(.+)": r"changed_\1",
    r"^validation\.(\w+)\.(\w+)": r"\1_validation_\2",
    r"^users\.(\w+)\.(num_\w+)": r"\1_\2",
    r"^users\.(\w+)\.over_users\.(\w+)": r"\1_\2_over_users",
    r"^users\.(\w+)\.deciles\.(\w+)\.(\d+)": r"\1_\2_quantile_\3",
    r"^given\.(\d+)\.(\w+)": r"unseen_\2_given_\1",
}
_KB, _MB = 1e3, 1e6
_NOTHING = "–"  # noqa: RUF001 - an empty cell of a table is easily taken for a mistake


@dataclasses.dataclass(frozen=True)
class _Feedback:
    """How quality is measured with one kind of feedback.

    Attributes:
      measures: What tables and pictures show; the first alone where there is room for one.
      rankings: Where results.json has the measures of a group of users, by how their names in
        comparison.csv begin.
      spread: The measure of one user of which results.json has deciles.
      means: What means are over where nothing is said.
      note: What the table of quality means.
    """

    measures: tuple[Measure, ...]
    rankings: dict[str, str]
    spread: Measure
    means: str
    note: str


_RMSE = Measure("rmse", "RMSE", "unit of the ratings", is_error=True)
_FEEDBACKS = {
    "explicit": _Feedback(
        measures=(_RMSE, Measure("accuracy", "accuracy", "share of ratings")),
        rankings={"": "users.{}.over_ratings"},
        spread=_RMSE,
        means="over ratings",
        note="RMSE and accuracy (the share of predictions within 0.5 of the rating) are means "
        "over ratings, so people with many ratings count more.",
    ),
    "implicit": _Feedback(
        measures=(
            Measure("hr_at_10", "HR@10", "share of users"),
            Measure("ndcg_at_10", "NDCG@10", "0 to 1"),
        ),
        rankings={"": "users.{}.over_users", "full_": "full_ranking.{}"},
        spread=Measure("mrr", "reciprocal rank", "0 to 1"),
        means="over users",
        note="HR@10 and NDCG@10 are means over users, of held-out items ranked among the sampled "
        "candidates and, where it says full, among all items that the user does not have.",
    ),
}


def write_report(output_dir: pathlib.Path, part_dirs: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Writes the tables and pictures that this module's docstring lists, all of them or none.

    Args:
      output_dir: Where to; made if there is none.
      part_dirs: The directories of the finished parts: run directories with results.json.

    Returns:
      The files written.

    Raises:
      InputError: If a part is not finished, its files lack something, or the parts are not of one
        comparison.
    """
    output_dir = pathlib.Path(output_dir)
    feedback, groups, parts = _read_parts(part_dirs)
    changed = [column for column in parts if column.startswith("changed_")]
    unchanged = parts[(parts[changed] == "").all(axis="columns")]
    sections = [_main_section(feedback, groups, unchanged), *_given_sections(feedback, unchanged)]
    for column in changed:
        swept = _swept(parts, unchanged, column)
        sections.append(_sweep_section(feedback, groups, column, swept))
    blocks, pictures = [], {}
    for texts, drawn in sections:
        blocks += [*texts, *(f"![{pathlib.PurePath(name).stem}]({name})" for name in drawn)]
        pictures.update(drawn)
    table = parts.assign(part=[os.path.relpath(path, output_dir) for path in parts["path"]])
    first = ["part", "algorithm", "seed", *changed]
    table = table[[*first, *parts.columns.difference([*first, "path"], sort=False)]]

    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".report-") as folder:
        # All are whole before the first takes the place of an older one.
        new = pathlib.Path(folder)
        table.to_csv(new / TABLE, index=False)
        (new / SUMMARY).write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        for name, figure in pictures.items():
            figure.savefig(new / name, dpi=120)
        return [(new / name).replace(output_dir / name) for name in (TABLE, SUMMARY, *pictures)]


def _read_parts(
    part_dirs: Sequence[pathlib.Path],
) -> tuple[_Feedback, list[str], DataFrame]:
    """Returns the kind of feedback, whom there is, and comparison.csv with each part's `path`."""
    import pandas as pd

    # Once each: a sweep may name a value twice.
    rows = [_read_results(pathlib.Path(path)) for path in dict.fromkeys(part_dirs)]
    unchanged = [row for row in rows if not row["changes"]]
    if not unchanged:
        raise InputError(
            f"none of the {len(rows)} parts has its settings unchanged, so there is nothing to "
            "compare; give the parts that the sweeps start from, too."
        )
    _check_same(rows, "feedback")
    _check_same(unchanged, "watched_part")
    feedback = _FEEDBACKS[rows[0]["feedback"]]
    groups = [group for group in GROUPS if group in rows[0]["users"]]
    names = [measure.name for measure in feedback.measures]
    needed = [f"users.{{}}.deciles.{feedback.spread.name}.100"]
    needed += [f"{keys}.{name}" for keys in feedback.rankings.values() for name in names]
    for row in rows:
        _require(row, [key.format(group) for key in needed for group in groups])

    parts = pd.DataFrame(rows)
    parts = parts.drop(
        columns=["changes", "given", "users", "full_ranking", "validation"], errors="ignore"
    )
    columns = {
        rf"^{keys.format('([a-z]+)')}\.(\w+)": rf"\1_{name}\2"
        for name, keys in feedback.rankings.items()
    }
    parts.columns = parts.columns.to_series().replace({**columns, **_COLUMNS}, regex=True)
    parts["algorithm"] = pd.Categorical(parts["algorithm"], parts["algorithm"].unique())
    parts = parts.fillna({column: "" for column in parts if column.startswith("changed_")})
    return feedback, groups, parts.astype({"rounds": "Int64", "clients_per_round": "Int64"})


def _read_results(path: pathlib.Path) -> dict[str, Any]:
    """Returns results.json of a part, and what is nested in it by keys with dots."""
    import pandas as pd

    results = RunDirectory(path).read_results()
    if results is None:
        raise InputError(f"{path} has no {RESULTS}; finish this part before the report is written.")
    (flat,) = pd.json_normalize(results).to_dict("records")
    row = {"path": path, **results, **flat}
    _require(row, _HEAD)
    for key in flat:
        if key.startswith("changes."):
            row[key] = _value_text(row[key])
        elif ".deciles." in key:
            row.update({f"{key}.{share}": q for share, q in zip(figures.SHARES, row.pop(key))})
    return row


def _require(row: dict[str, Any], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        raise InputError(
            f"{row['path'] / RESULTS} lacks {', '.join(missing)}; run this part again in an empty "
            "directory."
        )


def _check_same(rows: Sequence[dict[str, Any]], key: str) -> None:
    for row in rows:
        if row[key] != rows[0][key]:
            raise InputError(
                f"{row['path'] / RESULTS} has {key} {row[key]!r} and {rows[0]['path'] / RESULTS} "
                f"has {rows[0][key]!r}; a comparison is of parts with the same {key}."
            )


def _read_watched(feedback: _Feedback, parts: DataFrame) -> DataFrame:
    """Returns the measures on the watched part, by `round` and by `megabytes` of all clients."""
    import pandas as pd

    tables = []
    for part in parts.itertuples():
        names = {f"{part.watched_part}/{m.name}": m.name for m in feedback.measures}
        table = pd.read_csv(part.path / METRICS, usecols=["round", *names]).dropna()
        table = table.rename(columns=names).assign(
            algorithm=part.algorithm, seed=part.seed, watched_part=part.watched_part
        )
        a_round = (part.bytes_down + part.bytes_up) * part.clients_per_round
        table["megabytes"] = table["round"] * a_round / _MB
        if part.bytes_up_once:
            in_all = part.num_training_users * part.bytes_up_once / _MB
            table.loc[table.index[-1], "megabytes"] = in_all
        tables.append(table)
    return pd.concat(tables).astype({"algorithm": parts["algorithm"].dtype})


def _swept(parts: DataFrame, unchanged: DataFrame, column: str) -> DataFrame:
    """Returns the parts that differ in one setting alone, its values the categories of `value`.

    Of the unchanged parts only those with seeds of the sweep, as a seed decides on the users, too.
    """
    import pandas as pd

    setting = column[len("changed_") :]
    swept = parts[parts[column] != ""]
    bases = unchanged.merge(swept[["algorithm", "seed"]].drop_duplicates())
    configs = [RunDirectory(path).read_config() for path in bases["path"]]
    base_values = [_value_text(config["settings"][setting]) for config in configs]
    values = pd.Series(sorted({*base_values, *swept[column]}))
    # Numbers by their size, then the others.
    values = values.sort_values(key=lambda v: pd.to_numeric(v, errors="coerce"), kind="stable")
    value = pd.Categorical([*base_values, *swept[column]], values)
    if len(set(base_values)) == 1:
        value = value.rename_categories({base_values[0]: f"{base_values[0]} (unchanged)"})
    return pd.concat([bases, swept]).assign(value=value)


def _main_section(feedback: _Feedback, whom: list[str], parts: DataFrame) -> _Section:
    import pandas as pd

    pictures = {}
    trained = parts.dropna(subset="rounds")  # What has no rounds has no metrics.csv.
    if not trained.empty:
        watched = _read_watched(feedback, trained)
        sent = watched[watched["megabytes"] > 0]
        pictures = {
            "quality_rounds.png": figures.curves_figure(watched, feedback.measures, "round"),
            "quality_bytes.png": figures.curves_figure(sent, feedback.measures, "megabytes"),
        }
    pictures["spread.png"] = figures.spread_figure(parts, feedback.spread, whom)

    quality = {}
    for group, name, measure in itertools.product(whom, feedback.rankings, feedback.measures):
        summary = over_seeds(parts, "algorithm", f"{group}_{name}{measure.name}")
        title = f"{group} {name.replace('_', ' ')}{measure.title}"
        quality[title] = _cells(summary, measure)
    groups = parts.groupby("algorithm", observed=True)
    means = groups.mean(numeric_only=True)
    once = _sizes(means["bytes_up_once"] / _KB) + " once"
    costs = {
        "KB down": _sizes(means["bytes_down"] / _KB),
        "KB up": once.where(means["bytes_up_once"] > 0, _sizes(means["bytes_up"] / _KB)),
        "device KB": _sizes(means["device_bytes"] / _KB),
        "server MB": _sizes(means["server_bytes"] / _MB),
        "seconds": _cells(over_seeds(parts, "algorithm", "seconds"), digits=1),
    }
    seeds = groups["seed"].agg(_seeds)
    text = seeds.iloc[0]
    if seeds.nunique() > 1:
        text = "; ".join(f"{algorithm}: {own}" for algorithm, own in seeds.items())
    text += "." if groups.size().max() == 1 else ". Mean ± sample standard deviation over seeds."
    blocks = [
        "# Comparison",
        text,
        _table(pd.DataFrame(quality)),
        f"{feedback.note} Seen users took part in training; unseen users did not, and are served "
        "from the ratings they give. Bold is the best mean of a column.",
        _table(pd.DataFrame(costs)),
        "KB down and up are what a client receives and sends in a round (once: what it sends in "
        "all), device KB the state that it keeps between rounds, server MB the server's state, "
        "seconds what training took; 1 KB is 1000 bytes.",
    ]
    return blocks, pictures


def _given_sections(feedback: _Feedback, parts: DataFrame) -> list[_Section]:
    """Returns a section, or none where no number of ratings was tried."""
    import pandas as pd

    names = [f"unseen_{measure.name}" for measure in feedback.measures]
    columns = parts.dropna(axis="columns", how="all").columns
    found = columns.str.extract(rf"^{names[0]}_given_(\d+)$")[0].dropna()
    numbers = sorted(found, key=int)
    if not numbers:
        return []
    given = pd.concat(
        parts[["algorithm", "seed"]].assign(
            value=number, **{name: parts[f"{name}_given_{number}"] for name in names}
        )
        for number in numbers
    ).astype({"value": pd.CategoricalDtype(numbers)})
    panels = {measure.title: ("unseen", measure) for measure in feedback.measures}
    xlabel = "ratings that the user gives"
    picture = figures.categories_figure(given, [[*panels.values()]], xlabel)
    blocks = [
        "## Unseen users by the number of ratings they give",
        _values_table(given, panels, "measure", among="value"),
        f"Means {feedback.means}; a column is for unseen users who give only so many ratings. "
        "Bold is the best mean of a column for each measure.",
    ]
    return [(blocks, {"given_ratings.png": picture})]


def _sweep_section(
    feedback: _Feedback, groups: list[str], column: str, swept: DataFrame
) -> _Section:
    setting, measure = column[len("changed_") :], feedback.measures[0]
    rows = [[(group, measure) for group in groups] for measure in feedback.measures]
    if len(groups) == 1:  # Beside each other, in the two columns of a picture.
        rows = [[panel for row in rows for panel in row]]
    picture = figures.categories_figure(swept, rows, setting)
    note = f"{measure.title}, a mean {feedback.means}; a column is for one value of `{setting}`."
    unchanged = swept[swept[column] == ""].groupby("algorithm", observed=True)["value"].first()
    if unchanged.nunique() > 1:
        pairs = (f"{algorithm} {value}" for algorithm, value in unchanged.items())
        note += f" Unchanged are: {', '.join(pairs)}."
    seeds = swept.groupby(["algorithm", "value"], observed=True)["seed"].agg(_seeds).unique()
    if len(seeds) == 1:
        note += f" Over {seeds[0]}."
    panels = {group: (group, measure) for group in groups}
    blocks = [
        f"## Sweep of `{setting}`",
        _values_table(swept, panels, "users", among="algorithm"),
        f"{note} Bold is the best mean of a row.",
    ]
    return blocks, {f"sweep_{setting}.png": picture}


def _values_table(
    table: DataFrame, panels: dict[str, tuple[str, Measure]], name: str, among: str
) -> str:
    """Returns a column for each `value`; `name` heads what tells rows of an algorithm apart."""
    import pandas as pd

    cells = {}
    for label, (group, measure) in panels.items():
        summary = over_seeds(table, ["algorithm", "value"], f"{group}_{measure.name}")
        cells[label] = _cells(summary, measure, among).unstack(fill_value=_NOTHING)
    rows = pd.concat(cells, names=[name]).swaplevel()
    return _table(rows.sort_index() if among == "algorithm" else rows)


def _value_text(value: Any) -> str:
    return "none" if value is None else str(value)


def _seeds(seeds: Series) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, sorted(seeds)))})"


def _sizes(sizes: Series) -> Series:
    return sizes.map(lambda size: f"{size:,.1f}" if size >= 0.1 else f"{size:.1g}")


def _cells(
    summary: DataFrame, measure: Measure | None = None, among: str | None = None, digits: int = 3
) -> Series:
    """Returns means and deviations as text, the best bold: of all, or of each `among`."""
    number = f"{{:,.{digits}f}}".format
    means, deviations = summary["mean"].map(number), summary["std"].map(number)
    cells = means.where(summary["std"].isna(), means + " ± " + deviations)
    if measure is not None:
        groups = summary["mean"].groupby(among or (lambda _: True), observed=True)
        best = groups.transform("min" if measure.is_error else "max").map(number)
        # As shown, so that a bold 0.934 never stands beside a plain one.
        cells = cells.mask((means == best) & (groups.transform("count") > 1), "**" + cells + "**")
    return cells.mask(summary["mean"].isna(), _NOTHING)


def _table(cells: DataFrame) -> str:
    """Returns a table of GitHub's Markdown that can be read as it is, too; the index is words."""
    words = cells.index.to_frame().astype(str)
    padded = []
    for columns, pad in ((words, str.ljust), (cells, str.rjust)):
        for heading, column in columns.items():
            width = max(map(len, ["---", heading, *column]))
            padded.append([pad(text, width) for text in (heading, pad(":", width, "-"), *column)])
    return "\n".join("| " + " | ".join(row) + " |" for row in zip(*padded))
