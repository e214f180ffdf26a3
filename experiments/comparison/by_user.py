"""How single users fare with each algorithm: differences to a reference, user by user.

The quantiles of five algorithms nearly lie on each other, as users differ far more than algorithms
do. A difference of the same user's figures takes the users' own spread away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pandas import DataFrame, Series, concat

from experiments.comparison import figures
from experiments.comparison.differences import Pairing
from experiments.comparison.figures import over_seeds
from experiments.comparison.headline import main_group
from experiments.comparison.run_table import Runs
from experiments.pages.sections import Section, Table, Text
from fedrecon.evaluation.feedback import Measure

_QUANTILES = (5, 25, 50, 75, 95)
# What is this small is the arithmetic of another order of sums.
_SAME = 1e-9


def by_user_sections(runs: Runs, pairing: Pairing) -> list[Section]:
    """Returns a section, or none where there is nobody to compare with."""
    chosen = _reference(runs, pairing)
    if chosen is None:
        return []
    reference, reason = chosen
    measure = runs.feedback.spread
    spreads = []
    for group in runs.groups:
        found = _differences(runs, pairing, group, measure, reference)
        if found:
            spreads.append((group, _quantiles(found, measure)))
    if not spreads:
        return []
    table = concat({group: _cells(own) for group, own in spreads}, names=["users", "algorithm"])
    blocks = (
        Text(
            f"A user's {measure.title} less the same user's {measure.title} with {reference}, "
            f"{reason}. Below 0 the user is {'better' if measure.is_error else 'worse'} off than "
            f"with {reference}."
        ),
        figures.by_user_picture(spreads, measure, reference),
        Table(f"{measure.title} of each user, less the same with {reference}", table),
        Text(
            "Each user counts once for each seed that judges it. Columns of percentages are "
            "quantiles of the differences. In the picture a line holds nine of ten users (5% to "
            "95%), a box the middle half of them (25% to 75%), and the mark is the median user."
        ),
    )
    return [Section("User by user", blocks)]


def _reference(runs: Runs, pairing: Pairing) -> tuple[str, str] | None:
    """Returns whom to compare with, and why: the best reference, or without one the winner.

    A reference is there before anything is federated, so "better off" has a meaning for a user.
    """
    unchanged, measure = runs.unchanged, runs.feedback.measures[0]
    column = f"{main_group(runs.groups)}_{measure.name}"
    for is_candidate, reason in (
        (unchanged["rounds"].isna(), "the best reference"),
        (unchanged["rounds"].notna(), "the best algorithm, as there is no reference"),
    ):
        means = over_seeds(unchanged[is_candidate], "algorithm", column)["mean"].dropna()
        means = means[[name for name in means.index if pairing.has_users(name)]]
        if len(means):
            best = means.sort_values(key=measure.best_first, kind="stable").index[0]
            return best, reason
    return None


def _differences(
    runs: Runs, pairing: Pairing, group: str, measure: Measure, reference: str
) -> dict[str, np.ndarray]:
    found = {}
    for algorithm in runs.unchanged["algorithm"].unique():
        if algorithm == reference:
            continue
        differences = pairing.by_user(group, measure.name, algorithm, reference)
        if differences is not None and np.isfinite(differences).all():
            found[algorithm] = differences
    return found


def _quantiles(found: dict[str, np.ndarray], measure: Measure) -> DataFrame:
    """Returns a row for each algorithm: shares of users better and worse off, and quantiles."""
    rows = {}
    for algorithm, differences in found.items():
        gains = -differences if measure.is_error else differences
        rows[algorithm] = {
            "users": len(gains),
            "better off": float(np.mean(gains > _SAME)),
            "the same": float(np.mean(np.abs(gains) <= _SAME)),
            "worse off": float(np.mean(gains < -_SAME)),
            **{
                f"{share}%": value
                for share, value in zip(
                    _QUANTILES, np.quantile(differences, np.array(_QUANTILES) / 100)
                )
            },
        }
    return DataFrame.from_dict(rows, orient="index")


def _cells(table: DataFrame) -> DataFrame:
    shares = ["better off", "the same", "worse off"]
    texts = {"judged": table["users"].map("{:,.0f}".format)}
    rounded = DataFrame(map(percents, table[shares].to_numpy()), table.index, shares)
    texts.update({name: rounded[name].map("{}%".format) for name in shares})
    quantiles = {f"{share}%": _signed(table[f"{share}%"]) for share in _QUANTILES}
    quantiles["median"] = quantiles.pop("50%")
    order = ["5%", "25%", "median", "75%", "95%"]
    return DataFrame({**texts, **{name: quantiles[name] for name in order}})


def percents(shares: Sequence[float]) -> list[int]:
    """Returns shares of a whole as percentages that add up to 100, by largest remainders."""
    hundredths = [round(100 * float(share), 9) for share in shares]
    found = [math.floor(value) for value in hundredths]
    by_rest = sorted(range(len(found)), key=lambda n: found[n] - hundredths[n])
    for place in by_rest[: 100 - sum(found)]:
        found[place] += 1
    return found


def _signed(values: Series) -> Series:
    return values.map(lambda value: f"{round(value, 3) + 0.0:+.3f}")
