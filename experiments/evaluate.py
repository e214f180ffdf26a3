"""Evaluates a checkpoint of a run anew.

python -m experiments.evaluate --run_dir=runs/first --group=unseen_test
"""

from __future__ import annotations

from absl import flags

from experiments.run import cli, display, judged, past_run, runtime
from fedrecon.data.population import GROUPS

_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Required: the output directory of a run (experiments.train)."
)
_GROUP = flags.DEFINE_enum(
    "group", None, GROUPS, "Which users to evaluate; by default every group that the run has."
)
_ROUND = flags.DEFINE_integer(
    "round", None, "The checkpoint after this round; by default the last.", lower_bound=0
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data set is now, if not where it was in training."
)
_RATINGS_FILE = flags.DEFINE_string(
    "ratings_file", None, "Where the file of ratings is now, if not where it was in training."
)
# By default that of the training.
_RUNTIME, _GPU_MEMORY_LIMIT_MB = runtime.define_flags(default=None)


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    run, chosen, population = past_run.load(
        _RUN_DIR.value, data_dir=_DATA_DIR.value, ratings_file=_RATINGS_FILE.value
    )
    display.print_notes(population.ratings)

    groups = list(population.groups) if _GROUP.value is None else [_GROUP.value]
    for group in groups:
        population.group(group)  # Raises where there is no such group.

    round_num = past_run.checkpoint(run, _ROUND.value)
    runtime.start(_RUNTIME.value or chosen.runtime, _GPU_MEMORY_LIMIT_MB.value)
    from experiments.run import build
    from fedrecon.evaluation.judge import Judge

    algorithm = build.build_algorithm(
        chosen, population, store_dir=run.store_path, store_round=round_num
    )
    state = run.open_checkpoints().load(round_num, algorithm.initialize())
    judge = Judge(algorithm, population)
    metrics = {group: judge.metrics(state, group) for group in groups}
    recorded = judged.record(chosen, population, judge, groups)
    display.print_table(metrics)
    print()
    judged.print_record(recorded, population.feedback)
    print(f"\nModel after round {round_num}. Files:")
    for group, row in metrics.items():
        coverage = recorded[judged.COVERAGE][group]
        written = {**row, "round": round_num, judged.COVERAGE: coverage}
        print(f"  {run.write_evaluation(group, written)}")


if __name__ == "__main__":
    cli.run(main)
