"""Writes the predictions of a checkpoint for one group of users, for metrics of your own.

    python -m experiments.export_predictions --run_dir=RUN --output=predictions.csv

The file has the columns user_id, item_id, label and prediction, one line for each item that a user
of the group is asked about, by the ids of the data.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np
from absl import flags

from experiments.run import cli, past_run, runtime
from fedrecon.data.population import GROUPS
from fedrecon.errors import InputError

_RUN_DIR, _DATA_DIR, _RATINGS_FILE = past_run.define_flags()
_GROUP = flags.DEFINE_enum("group", "unseen_test", GROUPS, "Which users.")
_OUTPUT = flags.DEFINE_string("output", None, "Required: the csv file to write; .gz compresses.")
_ROUND = flags.DEFINE_integer(
    "round", None, "The checkpoint after this round; by default the last.", lower_bound=0
)
_RUNTIME, _GPU_MEMORY_LIMIT_MB = runtime.define_flags(default=None)


def main(interruption: cli.Interruption) -> None:
    del interruption  # The file is written at once.
    if _OUTPUT.value is None:
        raise InputError("give --output=FILE, the csv file to write.")
    output = pathlib.Path(_OUTPUT.value)
    if not output.parent.is_dir():
        raise InputError(f"{output.parent} is no folder; make it, or give another --output.")
    if output.is_dir():
        raise InputError(f"{output} is a folder; give --output=FILE, the csv file to write.")
    past = past_run.load(_RUN_DIR.value, data_dir=_DATA_DIR.value, ratings_file=_RATINGS_FILE.value)
    run, chosen, population = past
    population.group(_GROUP.value)  # Raises where there is no such group.
    round_num = past_run.checkpoint(run, _ROUND.value)

    runtime.start(_RUNTIME.value or chosen.runtime, _GPU_MEMORY_LIMIT_MB.value)
    from fedrecon.evaluation.judge import Judge
    from fedrecon.evaluation.scoring import ModelScores

    algorithm, state = past_run.restored(past, round_num)
    cases = Judge(algorithm, population).cases(_GROUP.value)
    scores = ModelScores(algorithm).scores(state, cases)
    num_lines = _write(output, population.ratings, cases, scores)
    print(f"{output}: {num_lines:,} predictions of {_GROUP.value} after round {round_num}.")


def _write(output: pathlib.Path, ratings, cases, scores: np.ndarray) -> int:
    """Writes the file whole or not at all; returns how many lines it has below its header."""
    import pandas as pd

    users, columns = np.nonzero(cases.mask)
    table = pd.DataFrame(
        {
            "user_id": ratings.original_user_ids[cases.users[users]],
            "item_id": ratings.original_item_ids[cases.item_ids[users, columns]],
            "label": cases.labels[users, columns],
            "prediction": scores[users, columns],
        }
    )
    part = output.with_name(f".part-{output.name}")
    table.to_csv(part, index=False)
    os.replace(part, output)
    return len(table)


if __name__ == "__main__":
    cli.run(main)
