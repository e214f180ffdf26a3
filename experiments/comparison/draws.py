"""What a figure on a draw of 100 test users is worth, as the FedRecon paper's code computes it.

The released code evaluates as many test users as train in a round, drawn once. Which draw that is
depends on all that was drawn before, so it cannot be repeated; its distribution can.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pandas import DataFrame

from experiments.comparison.differences import Pairing
from experiments.comparison.run_table import Runs
from experiments.pages.sections import Section, Table, Text
from fedrecon import rng
from fedrecon.data.population import PUBLISHED
from fedrecon.evaluation.metrics import UserResults
from fedrecon.runs.run_directory import RunDirectory

NUM_USERS = 100
_NUM_DRAWS = 10_000
_GROUP, _MEASURE = "unseen_test", "rmse"
_QUANTILES = (5, 25, 50, 75, 95)


def draw_sections(runs: Runs, pairing: Pairing) -> list[Section]:
    """Returns a section for a comparison on the released code's users, and none for others."""
    first = RunDirectory(runs.unchanged["path"].iloc[0])
    if (first.read_config() or {}).get("settings", {}).get("split") != PUBLISHED:
        return []
    rows = {}
    for algorithm in runs.unchanged["algorithm"].unique():
        found = [drawn_rmse(own) for own in pairing.results_of(algorithm, _GROUP).values()]
        if found:
            rows[algorithm] = _row(np.array(found))
    if not rows:
        return []
    table = DataFrame.from_dict(rows, orient="index").rename_axis("algorithm")
    return [
        Section(
            "Draws of 100 test users",
            (
                Table(f"RMSE of {_NUM_DRAWS:,} draws of {NUM_USERS} test users", table),
                Text(
                    f"The released code tests on {NUM_USERS} test users, drawn once. Here all "
                    "algorithms and seeds have the same draws. The deviation is that of one seed's "
                    "draws, a mean over seeds; quantiles are of the draws of all seeds together."
                ),
            ),
        )
    ]


def drawn_rmse(results: UserResults) -> np.ndarray:
    """Returns the RMSE over the ratings of draws of `NUM_USERS` judged users, `[draws]`."""
    is_judged = results.counts > 0
    counts = results.counts[is_judged].astype(np.float64)
    squares = results.values[_MEASURE][is_judged] ** 2 * counts
    generator = rng.generator(0, "draws of test users")
    size = min(NUM_USERS, len(counts))
    found = np.empty(_NUM_DRAWS)
    for place in range(_NUM_DRAWS):
        users = generator.choice(len(counts), size, replace=False)
        found[place] = np.sqrt(squares[users].sum() / counts[users].sum())
    return found


def _row(found: np.ndarray) -> Mapping[str, str]:
    """Returns the cells of an algorithm, from its draws, `[seeds, draws]`."""
    quantiles = np.quantile(found, np.array(_QUANTILES) / 100)
    return {
        "mean": f"{found.mean():.3f}",
        "deviation": f"{found.std(axis=1).mean():.3f}",
        **{f"{share}%": f"{value:.3f}" for share, value in zip(_QUANTILES, quantiles)},
    }
