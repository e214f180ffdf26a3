"""The time of training without compilation, from the seconds in metrics.csv.

XLA compiles for seconds where a round takes hundredths of one, and what runs later in the same
process finds much of it compiled. So the seconds as they passed rank algorithms by who ran first.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
from pandas import DataFrame

from fedrecon.runs.run_directory import METRICS

_NO_MEASURES = ("round", "seconds")


def seconds_without_compilation(path: pathlib.Path, *, rounds: int | None, seconds: float) -> float:
    """Returns the median seconds of a round times the rounds.

    Args:
      path: The directory of the run.
      rounds: How many it has; None for a reference, which compiles nothing.
      seconds: What its training took as the time passed, which a reference keeps.
    """
    if rounds is None:
        return seconds
    return rounds * seconds_of_a_round(pd.read_csv(path / METRICS))


def seconds_of_a_round(rows: DataFrame) -> float:
    """Returns the median seconds of a round without an evaluation; of any, if all have one.

    Args:
      rows: metrics.csv: `seconds` had passed after each `round`; a round with an evaluation has
        metrics of another group than `train`.
    """
    steps = rows["seconds"].diff()[rows["round"].diff() == 1].to_numpy()
    measured = [c for c in rows if c not in _NO_MEASURES and not c.startswith("train/")]
    is_evaluated = rows.loc[rows["round"].diff() == 1, measured].notna().any(axis=1).to_numpy()
    plain = steps[~is_evaluated]
    chosen = plain if len(plain) else steps
    return float(np.median(chosen)) if len(chosen) else 0.0
