"""How good algorithms are: means over seeds, and differences to the best with their intervals."""

from __future__ import annotations

import itertools

from pandas import DataFrame, MultiIndex, Series

from experiments.comparison import figures
from experiments.comparison.cells import cells, counted_seeds, gap
from experiments.comparison.differences import Differences, Pairing
from experiments.comparison.figures import over_seeds
from experiments.comparison.run_table import Runs
from experiments.pages.sections import NOTHING, Section, Table, Text
from experiments.run import accuracy
from fedrecon.data.population import EXPLICIT, IMPLICIT
from fedrecon.evaluation.feedback import Measure
from fedrecon.evaluation.intervals import NUM_RESAMPLES, Difference
from fedrecon.runs.run_directory import RunDirectory

# How a reference predicts, by its name and the kind of feedback.
_PREDICTS = {
    ("popularity", EXPLICIT): "predicts the mean of all ratings, moved by how far the item's and "
    "the user's ratings lie from it on average",
    ("popularity", IMPLICIT): "ranks items by how many training users have them",
    ("item_knn", EXPLICIT): "predicts from the user's ratings of similar items",
    ("item_knn", IMPLICIT): "ranks items by how similar they are to the user's own",
    ("ials", IMPLICIT): "factorizes the matrix of all interactions",
    ("ease", IMPLICIT): "adds up weights from each item to each other item, solved for",
    ("fed_ease", IMPLICIT): "solves for the same from counts that clients add up, once each",
    ("global_mean", EXPLICIT): "predicts the mean of all ratings",
    ("genre_mean", EXPLICIT): "predicts the mean rating of items with the same genres",
    ("genre_popularity", EXPLICIT): "predicts the same, drawn to the mean and moved by the user",
}


def quality_section(runs: Runs, pairing: Pairing) -> Section:
    """Returns the means over seeds of each measure on each group."""
    feedback, unchanged = runs.feedback, runs.unchanged
    config = RunDirectory(unchanged["path"].iloc[0]).read_config()
    quality = {}
    rankings = ("", "full_") if feedback.ranks_all_items else ("",)
    for group, ranking, measure in itertools.product(runs.groups, rankings, feedback.measures):
        name = f"{ranking}{measure.name}"
        summary = over_seeds(unchanged, "algorithm", f"{group}_{name}")
        found = _to_the_best(summary["mean"], pairing, group, measure, name)
        ties = [algorithm for algorithm, own in found.items() if own and own.over_seeds.is_noise]
        title = f"{group} {ranking.replace('_', ' ')}{measure.title}"
        quality[title] = cells(summary, measure, ties=ties)
    blocks = (
        Text(_about_seeds(unchanged, pairing)),
        Table("Means over seeds", DataFrame(quality)),
        Text(
            f"{accuracy.note(feedback, config)} Seen users took part in training; unseen users did "
            "not, and are served from the ratings they give. Cold users are unseen users who give "
            "the same ratings and are asked for the ratings of items that nobody trains on. Bold "
            "is the best mean of a column, and each mean whose difference to it is noise: its 95% "
            "interval contains 0."
        ),
        *_about_references(unchanged, feedback.name),
    )
    return Section("", blocks)


def _about_references(runs: DataFrame, feedback: str) -> list[Text]:
    """Returns how references predict, where there is any."""
    observed = EXPLICIT if feedback == EXPLICIT else IMPLICIT
    predicts = {name: _PREDICTS.get((name, observed)) for name in runs["algorithm"].unique()}
    told = [f"{name} {how}" for name, how in predicts.items() if how is not None]
    if not told:
        return []
    how = "are trained on one machine, without rounds"
    if "fed_ease" in predicts:
        how = "have no rounds, and all but fed_ease are trained on one machine"
    return [Text(f"References {how}: {'; '.join(told)}.")]


def _about_seeds(runs: DataFrame, pairing: Pairing) -> str:
    algorithms = runs.groupby("algorithm", observed=True)
    seeds = algorithms["seed"].agg(counted_seeds)
    text = seeds.iloc[0]
    if seeds.nunique() > 1:
        text = "; ".join(f"{algorithm}: {own}" for algorithm, own in seeds.items())
    text += "."
    if algorithms.size().max() > 1:
        text += " Mean ± sample standard deviation over seeds. "
        text += (
            "All seeds judge the same users, and ± is the spread of training alone, not of users."
            if pairing.seeds_judge_the_same_users()
            else "Each seed draws other users, and ± is the spread of the users drawn, not the "
            "error of the mean. Algorithms meet the same users within a seed, so their differences "
            "are paired and surer than ± suggests."
        )
    return text


def _to_the_best(
    means: Series, pairing: Pairing, group: str, measure: Measure, name: str
) -> dict[str, Differences | None]:
    """Returns how each other algorithm differs from the best, the best first; None if unknown."""
    order = means.dropna().sort_values(key=measure.best_first, kind="stable").index
    return {algorithm: pairing.differences(group, name, algorithm, order[0]) for algorithm in order}


def difference_sections(runs: Runs, pairing: Pairing) -> list[Section]:
    """Returns a section, or none where no two algorithms can be paired."""
    measure, unchanged = runs.feedback.measures[0], runs.unchanged
    seeds = sorted(unchanged["seed"].unique())
    rows, drawn = {}, []
    for group in runs.groups:
        means = over_seeds(unchanged, "algorithm", f"{group}_{measure.name}")["mean"]
        found = _to_the_best(means, pairing, group, measure, measure.name)
        best, *others = found.items()
        if not any(own for _, own in others):
            continue
        rows.update(_rows(group, best[0], others, seeds))
        known = {name: own.over_seeds for name, own in others if own is not None}
        drawn.append((group, measure, {best[0]: Difference(0.0, 0.0, 0.0), **known}))
    if not rows:
        return []
    table = DataFrame.from_dict(rows, orient="index")
    table.index = MultiIndex.from_tuples(rows, names=["users", "algorithm"])
    table = table[[*table.columns.drop("verdict"), "verdict"]]
    blocks = (
        figures.differences_picture(drawn, list(unchanged["algorithm"].unique())),
        Table(f"{measure.title} less the {measure.title} of the best", table),
        Text(
            f"{measure.title} less the {measure.title} of the best algorithm, and its 95% "
            f"interval: users are resampled {NUM_RESAMPLES:,} times within each seed, the same "
            "ones for both algorithms and in all seeds that judge the same users. Where seeds "
            "share only a part of their users, as seen users do, the interval over all seeds is "
            "somewhat too short. A difference is noise if the interval over all seeds contains 0. "
            "The interval holds for these trained models; another seed of training would move "
            "them too."
        ),
    )
    return [Section("Differences to the best", blocks)]


def _rows(group: str, best: str, others, seeds: list[int]) -> dict[tuple[str, str], dict[str, str]]:
    """Returns the cells of a group by users and algorithm."""
    columns = [*(f"seed {seed}" for seed in seeds), *["all seeds"] * (len(seeds) > 1)]
    rows = {(group, best): {**dict.fromkeys(columns, "0"), "verdict": "best"}}
    for algorithm, found in others:
        own = {"verdict": NOTHING, **dict.fromkeys(columns, NOTHING)}
        if found is not None:
            own.update({f"seed {seed}": gap(of_seed) for seed, of_seed in found.by_seed.items()})
            if len(seeds) > 1:
                own["all seeds"] = gap(found.over_seeds)
            own["verdict"] = "noise" if found.over_seeds.is_noise else "worse"
        rows[group, algorithm] = own
    return rows
