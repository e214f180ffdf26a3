"""Evaluates a checkpoint of a run anew: reconstruction evaluation on people never seen in training.

python -m experiments.evaluate --run_dir=runs/first --split=test
"""

from __future__ import annotations

import dataclasses

from absl import flags

from experiments.run import cli, data, runtime, settings, tasks
from fedrecon.errors import InputError

_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "The output directory of `experiments.train`.", required=True
)
_SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ("train", "validation", "test", "seen", "seen_validation", "unseen"),
    "Whose users to evaluate.",
)
_ROUND = flags.DEFINE_integer(
    "round", None, "The checkpoint after this round; by default the last.", lower_bound=0
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data set is now, if not where it was in training."
)
# By default that of the training.
_RUNTIME, _GPU_MEMORY_LIMIT_MB = runtime.define_flags(default=None)


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    from fedrecon.runs import run_directory

    run = run_directory.RunDirectory(_RUN_DIR.value)
    config = run.read_config()
    chosen = settings.Settings.from_json(config["settings"])
    if _DATA_DIR.value is not None:
        if "data_dir" not in config["settings"]:
            raise InputError(
                f"--data_dir has no effect on {run.path}, whose data set is {chosen.dataset}."
            )
        chosen = dataclasses.replace(chosen, data_dir=_DATA_DIR.value)
    clients = data.load_clients(chosen)
    if clients.ratings.fingerprint() != config["data_fingerprint"]:
        raise InputError(
            f"the ratings of {chosen.dataset} differ from those that {run.path} was trained on; "
            "give the same files with --data_dir."
        )

    checkpoints = run.checkpoints()
    if not checkpoints:
        raise InputError(f"{run.path} has no checkpoint yet.")
    round_num = checkpoints[-1] if _ROUND.value is None else _ROUND.value
    if round_num not in checkpoints:
        raise InputError(
            f"{run.path} has no checkpoint after round {round_num}; it has those after rounds "
            f"{', '.join(map(str, checkpoints))}."
        )

    runtime.start(_RUNTIME.value or chosen.runtime, _GPU_MEMORY_LIMIT_MB.value)
    task, _ = tasks.build_task(chosen, clients, store_dir=run.store_path, store_round=round_num)
    state = run.open_checkpoints().load(round_num, task.training.initialize())
    metrics = task.evaluate(state, _SPLIT.value)
    cli.print_table({_SPLIT.value: metrics})
    path = run.write_evaluation(_SPLIT.value, {**metrics, "round": round_num})
    print(f"\nModel after round {round_num}. File: {path}")


if __name__ == "__main__":
    cli.run(main)
