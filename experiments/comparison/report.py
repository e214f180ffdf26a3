"""Tables and pictures of a comparison, from the files that its runs left in their directories.

    comparison.csv       one row a run, every figure in full precision
    comparison.md        who wins, means over seeds, differences to the best, what is recommended
    quality_rounds.png   quality while training, by rounds
    quality_bytes.png    the same, by what all clients have sent and received
    spread.png           quality of the users served best to those served worst
    given_ratings.png    quality on unseen users, by how many ratings they give
    sweep_<setting>.png  quality by the values of a setting

Every figure comes from results.json, user_results.npz and metrics.csv of the runs, never from
memory, so that the report of a comparison can be written again at any time.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from experiments.comparison import figures
from experiments.comparison.differences import Differences, Pairing
from experiments.comparison.figures import over_seeds
from experiments.comparison.results import RunResults, read_results, value_text
from fedrecon.errors import InputError
from fedrecon.evaluation.coverage import Coverage
from fedrecon.evaluation.feedback import FEEDBACKS, Feedback, Measure
from fedrecon.evaluation.intervals import NUM_RESAMPLES, Difference
from fedrecon.runs.run_directory import METRICS, RESULTS, RunDirectory

_Section = tuple[list[str], dict[str, Figure]]

TABLE = "comparison.csv"
SUMMARY = "comparison.md"

_KB, _MB = 1e3, 1e6
_NOTHING = "–"  # noqa: RUF001 - an empty cell of a table is easily taken for a mistake


def write_report(output_dir: pathlib.Path, run_dirs: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Writes the tables and pictures that this module's docstring lists, all of them or none.

    Args:
      output_dir: Where to; made if there is none.
      run_dirs: The directories of the finished runs, with results.json.

    Returns:
      The files written.

    Raises:
      InputError: If a run is not finished, its files are of another version, or the runs do not
        belong to one comparison.
    """
    output_dir = pathlib.Path(output_dir)
    feedback, groups, runs = _read_runs(run_dirs)
    changed = [column for column in runs if column.startswith("changed_")]
    unchanged = runs[(runs[changed] == "").all(axis="columns")]
    pairing = Pairing(unchanged, over=feedback.means_over)
    sections = [
        _quality_section(feedback, groups, unchanged, pairing),
        *_difference_sections(feedback, groups, unchanged, pairing),
        *_top_lists_sections(groups, unchanged),
        _coverage_section(feedback, groups, unchanged),
        _training_section(feedback, groups, unchanged),
        *_given_sections(feedback, unchanged),
    ]
    for column in changed:
        swept = _swept(runs, unchanged, column)
        sections.append(_sweep_section(feedback, groups, column, swept))
    blocks, pictures = ["# Comparison", *_headline(feedback, groups, unchanged, pairing)], {}
    for texts, drawn in sections:
        blocks += [*texts, *(f"![{pathlib.PurePath(name).stem}]({name})" for name in drawn)]
        pictures.update(drawn)
    table = runs.assign(run=[os.path.relpath(path, output_dir) for path in runs["path"]])
    first = ["run", "algorithm", "seed", *changed]
    table = table[[*first, *runs.columns.difference([*first, "path"], sort=False)]]

    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".report-") as folder:
        # All are whole before the first takes the place of an older one.
        new = pathlib.Path(folder)
        table.to_csv(new / TABLE, index=False)
        (new / SUMMARY).write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        for name, figure in pictures.items():
            figure.savefig(new / name, dpi=120)
        return [(new / name).replace(output_dir / name) for name in (TABLE, SUMMARY, *pictures)]


def _read_runs(run_dirs: Sequence[pathlib.Path]) -> tuple[Feedback, list[str], DataFrame]:
    """Returns the kind of feedback, the test groups that there are, and a row for each run.

    The rows are those of comparison.csv, with each run's `path`.
    """

    # Once each: a sweep may name a value twice.
    runs = {path: _read_results(path) for path in map(pathlib.Path, dict.fromkeys(run_dirs))}
    unchanged = {path: run for path, run in runs.items() if not run.changes}
    if not unchanged:
        raise InputError(
            f"none of the {len(runs)} runs has its settings unchanged, so there is nothing to "
            "compare; give the runs that the sweeps start from, too."
        )
    _check_same(runs, "feedback", lambda run: run.feedback)
    _check_same(runs, "groups of users", lambda run: ", ".join(run.groups))
    _check_same(unchanged, "watched_group", lambda run: run.watched_group)
    first = next(iter(runs.values()))
    shown = ("seen_test", "unseen_test", "cold_test")
    groups = [group for group in shown if group in first.groups]
    table = pd.DataFrame([{"path": path, **run.row()} for path, run in runs.items()])
    table["algorithm"] = pd.Categorical(table["algorithm"], table["algorithm"].unique())
    table = table.fillna({column: "" for column in table if column.startswith("changed_")})
    table = table.astype({"rounds": "Int64", "clients_per_round": "Int64"})
    return FEEDBACKS[first.feedback], groups, table


def _read_results(path: pathlib.Path) -> RunResults:
    results = read_results(RunDirectory(path))
    if results is None:
        raise InputError(f"{path} has no {RESULTS}; finish this run before the report is written.")
    return results


def _check_same(runs: Mapping[pathlib.Path, RunResults], name: str, key) -> None:
    (first_path, first), *_ = runs.items()
    for path, run in runs.items():
        if key(run) != key(first):
            raise InputError(
                f"{path / RESULTS} has {name} {key(run)!r} and {first_path / RESULTS} has "
                f"{key(first)!r}; a comparison is of runs with the same {name}."
            )


def _read_watched(feedback: Feedback, runs: DataFrame) -> DataFrame:
    """Returns the measures on the watched group, by `round` and by `megabytes` of all clients."""

    tables = []
    for run in runs.itertuples():
        names = {f"{run.watched_group}/{m.name}": m.name for m in feedback.measures}
        table = pd.read_csv(run.path / METRICS, usecols=["round", *names]).dropna()
        table = table.rename(columns=names).assign(
            algorithm=run.algorithm, seed=run.seed, watched_group=run.watched_group
        )
        a_round = (run.bytes_down + run.bytes_up) * run.clients_per_round
        table["megabytes"] = table["round"] * a_round / _MB
        if run.bytes_up_once:
            in_all = run.num_training_users * run.bytes_up_once / _MB
            table.loc[table.index[-1], "megabytes"] = in_all
        tables.append(table)
    return pd.concat(tables).astype({"algorithm": runs["algorithm"].dtype})


def _swept(runs: DataFrame, unchanged: DataFrame, column: str) -> DataFrame:
    """Returns the runs that differ in one setting alone; its values are the categories of `value`.

    Of the unchanged runs only those with seeds of the sweep count, as a seed also divides users.
    """

    setting = column[len("changed_") :]
    swept = runs[runs[column] != ""]
    bases = unchanged.merge(swept[["algorithm", "seed"]].drop_duplicates())
    configs = [RunDirectory(path).read_config() for path in bases["path"]]
    base_values = [value_text(config["settings"][setting]) for config in configs]
    values = pd.Series(sorted({*base_values, *swept[column]}))
    # Numbers by their size, then the others.
    values = values.sort_values(key=lambda v: pd.to_numeric(v, errors="coerce"), kind="stable")
    value = pd.Categorical([*base_values, *swept[column]], values)
    if len(set(base_values)) == 1:
        value = value.rename_categories({base_values[0]: f"{base_values[0]} (unchanged)"})
    return pd.concat([bases, swept]).assign(value=value)


def _headline(
    feedback: Feedback, groups: list[str], runs: DataFrame, pairing: Pairing
) -> list[str]:
    """Returns who won, on which users and by how much, and what the winner recommends.

    Where the winner has all ratings on one machine, the best of the others follows.
    """
    measure = feedback.measures[0]
    group = "unseen_test" if "unseen_test" in groups else groups[-1]
    means = over_seeds(runs, "algorithm", f"{group}_{measure.name}")["mean"].dropna()
    if len(means) < 2:
        return []
    order = means.sort_values(key=measure.best_first, kind="stable")

    def gap(one: str, other: str) -> Difference | None:
        """How much better `one` is, whether the measure is an error or not."""
        pair = (other, one) if measure.is_error else (one, other)
        found = pairing.differences(group, measure.name, *pair)
        return found and found.over_seeds

    def better(one: str, other: str, ties: Sequence[str]) -> str:
        found = gap(one, other)
        by = order[other] - order[one] if measure.is_error else order[one] - order[other]
        by = by if found is None else found.mean
        text = f"{abs(by):.3f} {'better' if by >= 0 else 'worse'} than {other}"
        if found is None:
            return text
        if by < 0:
            found = Difference(-found.mean, -found.high, -found.low)
        new_tie = "a tie, " if found.is_noise and other not in ties else ""
        return f"{text} ({new_tie}95% interval {_interval(found)})"

    def told(first: str, others: list[str], start: str, on: str = "") -> str:
        gaps = {name: gap(first, name) for name in others}
        ties = [name for name, found in gaps.items() if found is not None and found.is_noise]
        compared = others[:1]
        if first != "popularity" and "popularity" in order and "popularity" not in compared:
            compared = [*compared, "popularity"]
        by = " and ".join(better(first, other, ties) for other in compared)
        value = f"{order[first]:.3f}"
        if ties:
            tie = f"a tie with {', '.join(ties)}"
            return f"**{start}{first} has {measure.title} {value}{on}, {tie}: {by}.**"
        return f"**{start}{first} has the best {measure.title}{on}: {value}{by and ', ' + by}.**"

    winner, *others = order.index
    blocks = [told(winner, others, "", f" on {group} users")]
    # What clients send once, in all, are their ratings.
    sends_ratings = runs.groupby("algorithm", observed=True)["bytes_up_once"].first() > 0
    federated = [name for name in order.index if not sends_ratings[name]]
    if federated and federated[0] != winner:
        winner, *others = federated
        blocks.append(
            told(winner, others, "Of the algorithms that leave the ratings on the devices, ")
        )
    path = runs[runs["algorithm"] == winner]["path"].iloc[0]
    sample = _read_results(path).sample
    if sample is not None and sample.recommended:
        titles = ", ".join(f"{title} ({score:.2f})" for title, score in sample.recommended)
        blocks.append(
            f"To user {sample.user}, who took no part in training and likes "
            f"{', '.join(sample.given) or 'nothing yet'}, {winner} recommends {titles}."
        )
    return blocks


def _quality_section(
    feedback: Feedback, groups: list[str], runs: DataFrame, pairing: Pairing
) -> _Section:
    quality = {}
    rankings = ("", "full_") if feedback.ranks_all_items else ("",)
    for group, ranking, measure in itertools.product(groups, rankings, feedback.measures):
        name = f"{ranking}{measure.name}"
        summary = over_seeds(runs, "algorithm", f"{group}_{name}")
        found = _to_the_best(summary["mean"], pairing, group, measure, name)
        ties = [algorithm for algorithm, own in found.items() if own and own.over_seeds.is_noise]
        title = f"{group} {ranking.replace('_', ' ')}{measure.title}"
        quality[title] = _cells(summary, measure, ties=ties)
    algorithms = runs.groupby("algorithm", observed=True)
    seeds = algorithms["seed"].agg(_seeds)
    text = seeds.iloc[0]
    if seeds.nunique() > 1:
        text = "; ".join(f"{algorithm}: {own}" for algorithm, own in seeds.items())
    text += "."
    if algorithms.size().max() > 1:
        text += (
            " Mean ± sample standard deviation over seeds. Each seed draws other users, and ± is "
            "the spread of the users drawn, not the error of the mean. Algorithms meet the same "
            "users within a seed, so their differences are paired and surer than ± suggests."
        )
    blocks = [
        text,
        _table(pd.DataFrame(quality)),
        f"{feedback.note} Seen users took part in training; unseen users did not, and are served "
        "from the ratings they give. Cold users are unseen users who give the same ratings and are "
        "asked for the ratings of items that nobody trains on. Bold is the best mean of a column, "
        "and each mean whose difference to it is noise: its 95% interval contains 0.",
    ]
    return blocks, {}


def _to_the_best(
    means: Series, pairing: Pairing, group: str, measure: Measure, name: str
) -> dict[str, Differences | None]:
    """Returns how each other algorithm differs from the best, the best first; None if unknown."""
    order = means.dropna().sort_values(key=measure.best_first, kind="stable").index
    return {algorithm: pairing.differences(group, name, algorithm, order[0]) for algorithm in order}


def _difference_sections(
    feedback: Feedback, groups: list[str], runs: DataFrame, pairing: Pairing
) -> list[_Section]:
    """Returns a section, or none where no two algorithms can be paired."""
    measure = feedback.measures[0]
    seeds = sorted(runs["seed"].unique())
    rows = {}
    for group in groups:
        means = over_seeds(runs, "algorithm", f"{group}_{measure.name}")["mean"]
        best, *others = _to_the_best(means, pairing, group, measure, measure.name).items()
        if not any(found for _, found in others):
            continue
        columns = [*(f"seed {seed}" for seed in seeds), *["all seeds"] * (len(seeds) > 1)]
        rows[group, best[0]] = {**dict.fromkeys(columns, "0"), "verdict": "best"}
        for algorithm, found in others:
            cells = dict.fromkeys(columns, _NOTHING)
            if found is not None:
                cells.update({f"seed {s}": _gap(own) for s, own in found.by_seed.items()})
                if len(seeds) > 1:
                    cells["all seeds"] = _gap(found.over_seeds)
                cells["verdict"] = "noise" if found.over_seeds.is_noise else "worse"
            rows[group, algorithm] = {"verdict": _NOTHING, **cells}
    if not rows:
        return []
    table = DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["users", "algorithm"])
    table = table[[*table.columns.drop("verdict"), "verdict"]]
    blocks = [
        "## Differences to the best",
        _table(table),
        f"{measure.title} less the {measure.title} of the best algorithm, and its 95% interval: "
        f"users are resampled {NUM_RESAMPLES:,} times within each seed, the same ones for both "
        "algorithms and in all seeds that judge the same users. Where seeds share only a part "
        "of their users, as seen users do, the interval over all seeds is somewhat too short. A "
        "difference is noise if the interval over all seeds contains 0. The interval "
        "holds for these trained models; another seed of training would move them too.",
    ]
    return [(blocks, {})]


_TOP_LISTS = {
    "num_items_at_10": ("items in any list", 0),
    "coverage_at_10": ("share of all items", 3),
    "most_recommended_share": ("users with the top item", 3),
    "mean_popularity_at_10": ("popularity", 3),
    "few_ratings_share": ("few ratings", 3),
}


def _top_lists_sections(groups: list[str], runs: DataFrame) -> list[_Section]:
    """Returns a section, or none where no run has lists."""
    groups = [group for group in groups if f"{group}_num_items_at_10" in runs]
    if not groups:
        return []
    parts = {}
    for group in groups:
        parts[group] = pd.DataFrame(
            {
                title: _cells(over_seeds(runs, "algorithm", f"{group}_{name}"), digits=digits)
                for name, (title, digits) in _TOP_LISTS.items()
            }
        )
    table = pd.concat(parts, names=["users"])
    blocks = [
        "## What is recommended",
        "The quality above is of items that users chose themselves, but a list may hold any item. "
        "On MovieLens 1M the FedRecon paper's own preset, trained to the letter, recommends one "
        "film with 18 ratings to 580 of 604 unseen users (seed 0).",
        _table(table),
        "A list is the 10 best items that a user does not have. Items in any list: how many there "
        "are, and their share of all items. The top item is in most lists. Popularity: the mean "
        "share of training users who have a recommended item. Few ratings: the share of "
        "recommendations whose item has fewer than 20 training ratings.",
    ]
    return [(blocks, {})]


def _coverage_section(feedback: Feedback, groups: list[str], runs: DataFrame) -> _Section:
    """Returns who was judged: a sentence or more for each seed and group."""
    told = []
    for seed, path in runs.groupby("seed")["path"].first().items():
        results = _read_results(path)
        for group in groups:
            sentences = Coverage(**results.groups[group].coverage).sentences(feedback.name)
            told.append(f"- seed {seed}, {group}: {' '.join(sentences)}")
    return ["## Who is judged", "\n".join(told)], {}


def _training_section(feedback: Feedback, groups: list[str], runs: DataFrame) -> _Section:
    """Returns what training costs, and the pictures of it."""
    pictures = {}
    trained = runs.dropna(subset="rounds")  # A baseline has no rounds and no metrics.csv.
    if not trained.empty:
        watched = _read_watched(feedback, trained)
        sent = watched[watched["megabytes"] > 0]
        pictures = {
            "quality_rounds.png": figures.curves_figure(watched, feedback.measures, "round"),
            "quality_bytes.png": figures.curves_figure(sent, feedback.measures, "megabytes"),
        }
    pictures["spread.png"] = figures.spread_figure(runs, feedback.spread, groups)
    means = runs.groupby("algorithm", observed=True).mean(numeric_only=True)
    once = _sizes(means["bytes_up_once"] / _KB) + " once"
    costs = {
        "KB down": _sizes(means["bytes_down"] / _KB),
        "KB up": once.where(means["bytes_up_once"] > 0, _sizes(means["bytes_up"] / _KB)),
        "device KB": _sizes(means["device_bytes"] / _KB),
        "server MB": _sizes(means["server_bytes"] / _MB),
        "seconds": _cells(over_seeds(runs, "algorithm", "seconds"), digits=1),
    }
    blocks = [
        "## What it costs",
        _table(pd.DataFrame(costs)),
        "KB down and up are what a client receives and sends in a round (once: what it sends in "
        "all), device KB the state that it keeps between rounds, server MB the server's state, "
        "seconds what training took; 1 KB is 1000 bytes.",
    ]
    return blocks, pictures


def _given_sections(feedback: Feedback, runs: DataFrame) -> list[_Section]:
    """Returns a section, or none where no number of ratings was tried."""

    names = [f"unseen_test_{measure.name}" for measure in feedback.measures]
    columns = runs.dropna(axis="columns", how="all").columns
    found = columns.str.extract(rf"^{names[0]}_given_(\d+)$")[0].dropna()
    numbers = sorted(found, key=int)
    if not numbers:
        return []
    given = pd.concat(
        runs[["algorithm", "seed"]].assign(
            value=number, **{name: runs[f"{name}_given_{number}"] for name in names}
        )
        for number in numbers
    ).astype({"value": pd.CategoricalDtype(numbers)})
    panels = {measure.title: ("unseen_test", measure) for measure in feedback.measures}
    xlabel = "ratings that the user gives"
    picture = figures.categories_figure(given, [[*panels.values()]], xlabel)
    blocks = [
        "## Unseen users by the number of ratings they give",
        _values_table(given, panels, "measure", among="value"),
        f"Means over {feedback.means_over}; a column is for unseen users who give only so many "
        "ratings. Bold is the best mean of a column for each measure.",
    ]
    return [(blocks, {"given_ratings.png": picture})]


def _sweep_section(
    feedback: Feedback, groups: list[str], column: str, swept: DataFrame
) -> _Section:
    setting, measure = column[len("changed_") :], feedback.measures[0]
    rows = [[(group, measure) for group in groups] for measure in feedback.measures]
    if len(groups) == 1:  # Beside each other, in the two columns of a picture.
        rows = [[panel for row in rows for panel in row]]
    picture = figures.categories_figure(swept, rows, setting)
    note = f"{measure.title}, a mean over {feedback.means_over}; "
    note += f"a column is for one value of `{setting}`."
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

    cells = {}
    for label, (group, measure) in panels.items():
        summary = over_seeds(table, ["algorithm", "value"], f"{group}_{measure.name}")
        cells[label] = _cells(summary, measure, among).unstack(fill_value=_NOTHING)
    rows = pd.concat(cells, names=[name]).swaplevel()
    return _table(rows.sort_index() if among == "algorithm" else rows)


def _seeds(seeds: Series) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, sorted(seeds)))})"


def _interval(found: Difference, sign: str = "") -> str:
    # Adding 0 makes a negative zero positive.
    low, high = (f"{round(end, 3) + 0.0:{sign}.3f}" for end in (found.low, found.high))
    return f"{low} to {high}"


def _gap(found: Difference) -> str:
    return f"{round(found.mean, 3) + 0.0:+.3f} ({_interval(found, '+')})"


def _sizes(sizes: Series) -> Series:
    return sizes.map(lambda size: f"{size:,.1f}" if size >= 0.1 else f"{size:.1g}")


def _cells(
    summary: DataFrame,
    measure: Measure | None = None,
    among: str | None = None,
    digits: int = 3,
    ties: Sequence[str] = (),
) -> Series:
    """Returns means and deviations as text, the best bold: of all, or of each `among`.

    Where rows are algorithms, `ties` are bold too.
    """
    number = f"{{:,.{digits}f}}".format
    means, deviations = summary["mean"].map(number), summary["std"].map(number)
    cells = means.where(summary["std"].isna(), means + " ± " + deviations)
    if measure is not None:
        groups = summary["mean"].groupby(among or (lambda _: True), observed=True)
        best = groups.transform("min" if measure.is_error else "max").map(number)
        # As shown, so that a bold 0.934 never stands beside a plain one.
        is_bold = (means == best) | summary.index.isin(ties)
        cells = cells.mask(is_bold & (groups.transform("count") > 1), "**" + cells + "**")
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
