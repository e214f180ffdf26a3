"""Trains a federated recommender, evaluates it, and leaves a run directory.

    python -m experiments.train --dataset=movielens-1m --data_dir=DIR --output_dir=runs/first

The same command again resumes the run where it ended.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

from absl import flags

from experiments.run import cli, display, judged, reports, resuming, runtime
from experiments.run.claim import STARTED_FROM, claimed
from experiments.run.flags import define_flags, refuse_unused, settings_from_flags
from experiments.run.population import load_with_cohort, watched_group
from fedrecon.errors import DamagedError
from fedrecon.evaluation.feedback import feedback_of
from fedrecon.runs import run_directory, trackers
from fedrecon.runs.metrics_file import num_left_out
from fedrecon.serving import files

define_flags()
_TRACKER = flags.DEFINE_enum(
    "tracker", None, trackers.TRACKERS, "Also tell the run to MLflow or to Weights & Biases."
)
_OPEN_REPORT = flags.DEFINE_bool("open_report", False, "Open report.html in a browser at the end.")


def main(interruption: cli.Interruption) -> None:
    chosen = settings_from_flags()
    refuse_unused([chosen])
    is_given = flags.FLAGS["clients_per_round"].present
    chosen, population = load_with_cohort(chosen, is_cohort_given=bool(is_given))
    display.print_notes(population.ratings)
    with claimed(chosen, population) as run, resuming.told(interruption, resuming.of_run, run):
        started_from = run.read_config().get(STARTED_FROM)
        if started_from is not None:
            print(display.started_from(started_from), flush=True)
        final = _found(run, population, chosen.total_rounds)
        is_new = final is None
        if is_new:
            print(
                f"{chosen.algorithm} on {population.ratings.name}: {chosen.total_rounds} rounds of "
                f"{chosen.clients_per_round} of {len(population.train):,} training users. Loading "
                "TensorFlow, which takes some seconds.",
                flush=True,
            )
            from experiments.run import training

            runtime.start(chosen.runtime, chosen.gpu_memory_limit_mb)
            finished = training.train(
                chosen, population, run, interruption, tracker_kind=_TRACKER.value
            )
            final = _final_metrics(finished, population, chosen.total_rounds)
            final.update(judged.record(chosen, population, finished.judge, population.groups))
            final[judged.COSTS] = finished.algorithm.costs(finished.state)._asdict()
            if started_from is not None:
                final[STARTED_FROM] = started_from
            training.write_model(chosen, population, run, finished)
            _write_samples(population, run, finished)
            run.write_final_metrics(final)
            run.draw_curves()
        else:
            print(f"This run is finished: {final['rounds']} rounds.")
        print()
        display.print_table(
            {group: final[group] for group in population.groups},
            rating_step=population.label_scale.step,
        )
        print()
        judged.print_record(final, population.feedback)
        display.print_ending(
            run.read_metrics(),
            watched_group(chosen),
            feedback_of(population).chosen_by,
            total_rounds=chosen.total_rounds,
        )
        display.print_left_out(
            num_left_out(run.read_metrics()),
            num_clients=chosen.total_rounds * chosen.clients_per_round,
        )
        has_report = reports.write(run.path, is_new=is_new)
        took = f"{final['rounds']} rounds in {display.duration(final['seconds'])}"
        if is_new:
            whole = display.duration(cli.seconds())
            took += f"; this command took {whole}, with loading, judging and the report"
        print(f"\n{took}. Files: {run.path}/")
        for name in (run_directory.FINAL_METRICS, run_directory.METRICS, run_directory.CURVES):
            print(f"  {name}")
        print(f"  {files.FOLDER}/")
        if has_report:
            reports.tell(run.path / reports.REPORT, opens=_OPEN_REPORT.value)
        print(f"Recommendations: python -m experiments.recommend --run_dir={run.path}")


def _found(run, population, total_rounds: int) -> dict[str, Any] | None:
    """Returns the metrics of a run that is finished; warns if they are damaged."""
    try:
        final = run.read_final_metrics()
    except DamagedError as error:
        warnings.warn(f"{str(error).rstrip('.')}; it is made anew.", stacklevel=2)
        return None
    return final if final is not None and final["rounds"] == total_rounds else None


def _write_samples(population, run, finished) -> None:
    from experiments.run import training

    try:
        training.write_samples(population, run, finished)
    except Exception as error:  # Samples are for the reader's eye: no reason to lose the metrics.
        warnings.warn(f"{run_directory.SAMPLES} was not written: {error}", stacklevel=2)


def _final_metrics(finished, population, total_rounds):
    start = time.monotonic()
    final = {
        group: dict(
            finished.watched
            if group == finished.watched_group
            else finished.judge.metrics(finished.state, group)
        )
        for group in population.groups
    }
    seconds = round(finished.seconds + time.monotonic() - start, 2)
    return {**final, "rounds": total_rounds, "seconds": seconds}


if __name__ == "__main__":
    cli.run(main)
