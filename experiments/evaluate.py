"""Evaluates a checkpoint of a run anew.

python -m experiments.evaluate --run_dir=runs/first --group=unseen_test

On other ratings of the same items, all of whose users count as unseen:

python -m experiments.evaluate --run_dir=runs/first --other_ratings_file=february.csv
"""

from __future__ import annotations

import dataclasses

from absl import flags

from experiments.run import cli, display, judged, past_run, runtime, settings
from experiments.run.flags import refuse_given
from experiments.run.others import load_others
from fedrecon.data.other_ratings import OtherRatings
from fedrecon.data.population import GROUPS, Population

_RUN_DIR, _DATA_DIR, _RATINGS_FILE = past_run.define_flags()
_GROUP = flags.DEFINE_enum(
    "group", None, GROUPS, "Which users to evaluate; by default every group that the run has."
)
_ROUND = flags.DEFINE_integer(
    "round", None, "The checkpoint after this round; by default the last.", lower_bound=0
)
_OTHER_RATINGS_FILE = flags.DEFINE_string(
    "other_ratings_file",
    None,
    "File of other ratings to judge the run on, whose items have the ids of the run's data. Its "
    "users count as unseen; items that the run does not know are left out.",
)
_COLUMNS = flags.DEFINE_string(
    "columns", None, "The columns of --other_ratings_file, as in experiments.train."
)
_OFF_SCALE = flags.DEFINE_string(
    "off_scale",
    None,
    "What to do with ratings of --other_ratings_file that are not on the scale of the run: refuse "
    "or drop.",
)
_DUPLICATES = flags.DEFINE_string(
    "duplicates",
    None,
    "What to do where a user of --other_ratings_file rates an item more than once: refuse, latest "
    "or mean.",
)
_NEW_ITEM_ROWS = flags.DEFINE_enum(
    "new_item_rows",
    "trained",
    ("trained", "genres"),
    "The rows of items without training ratings. trained: as the run left them, which is as they "
    "were drawn. genres: from the rows of items with the same genres, as --warm_start begins them.",
)
# By default that of the training.
_RUNTIME, _GPU_MEMORY_LIMIT_MB = runtime.define_flags(default=None)


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    past = past_run.load(_RUN_DIR.value, data_dir=_DATA_DIR.value, ratings_file=_RATINGS_FILE.value)
    run, chosen, population = past
    judged_on, others = _judged_on(chosen, population)
    display.print_notes(judged_on.ratings)
    if others is not None:
        print(others.sentence())

    groups = list(judged_on.groups) if _GROUP.value is None else [_GROUP.value]
    for group in groups:
        judged_on.group(group)  # Raises where there is no such group.

    round_num = past_run.checkpoint(run, _ROUND.value)
    runtime.start(_RUNTIME.value or chosen.runtime, _GPU_MEMORY_LIMIT_MB.value)
    from fedrecon.evaluation.judge import Judge
    from fedrecon.serving.build import recommender_of
    from fedrecon.serving.scores import RecommenderScores
    from fedrecon.serving.warm_start import with_rows_from_content

    algorithm, state = past_run.restored(past, round_num)
    if others is not None:
        # A row that is kept is of a user of the run, whatever the other users are called.
        algorithm = dataclasses.replace(algorithm, kept_rows=None)
    judge = Judge(algorithm, judged_on)
    if _NEW_ITEM_ROWS.value == "genres":
        trained = recommender_of(
            algorithm, state, population, name=chosen.algorithm, rounds=round_num
        )
        state = with_rows_from_content(trained)
        judge = Judge.of_scores(RecommenderScores(), judged_on)
    metrics = {group: judge.metrics(state, group) for group in groups}
    recorded = judged.record(chosen, judged_on, judge, groups)
    display.print_table(metrics, rating_step=judged_on.label_scale.step)
    print()
    judged.print_record(recorded, population.feedback)
    print(f"\nModel after round {round_num}. Files:")
    for group, row in metrics.items():
        coverage = recorded[judged.COVERAGE][group]
        written = {**row, "round": round_num, judged.COVERAGE: coverage}
        name = group
        if others is not None:
            name = f"other_{others.ratings.name}"
            written.update(others.counts(), data_fingerprint=others.ratings.fingerprint())
        if _NEW_ITEM_ROWS.value == "genres":
            name = f"{name}_by_genres"
        print(f"  {run.write_evaluation(name, written)}")


def _judged_on(
    chosen: settings.Settings, population: Population
) -> tuple[Population, OtherRatings | None]:
    """Returns whose questions are asked, and what was left out where they are of another file."""
    if _OTHER_RATINGS_FILE.value is None:
        refuse_given(
            ("columns", "off_scale", "duplicates"),
            lambda flag: f"--{flag} has no effect without --other_ratings_file.",
        )
        return population, None
    refuse_given(
        ("group",),
        lambda flag: f"--{flag} has no effect with --other_ratings_file: its users are all unseen.",
    )
    return load_others(
        chosen,
        population,
        _OTHER_RATINGS_FILE.value,
        columns=_COLUMNS.value,
        off_scale=_OFF_SCALE.value,
        duplicates=_DUPLICATES.value,
    )


if __name__ == "__main__":
    cli.run(main)
