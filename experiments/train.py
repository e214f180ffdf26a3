"""Trains a federated recommender, evaluates it, and leaves a run directory.

    python -m experiments.train --dataset=movielens-1m --data_dir=DIR --output_dir=runs/first

The same command again resumes the run where it ended.
"""

from __future__ import annotations

import time

from absl import flags

from experiments.run import cli, data, runtime, settings

settings.define_flags()
flags.adopt_module_key_flags(settings)


def main(interruption: cli.Interruption) -> None:
    from experiments.run import running
    from fedrecon.runs import run_directory

    chosen = settings.from_flags()
    clients = data.load_clients(chosen)
    with running.claimed(chosen, clients) as run:
        final = run.read_final_metrics()
        if final is None or final["rounds"] != chosen.total_rounds:
            runtime.start(chosen.runtime, chosen.gpu_memory_limit_mb)
            finished = running.train(chosen, clients, run, interruption)
            final = _final_metrics(finished, clients, chosen.total_rounds)
            run.write_final_metrics(final)
            run.draw_curves()
        else:
            print(f"This run is finished: {final['rounds']} rounds.")
        print()
        cli.print_table({part: row for part, row in final.items() if isinstance(row, dict)})
        print(f"\n{final['rounds']} rounds in {final['seconds']:.0f} s. Files: {run.path}/")
        for name in (run_directory.FINAL_METRICS, run_directory.METRICS, run_directory.CURVES):
            print(f"  {name}")


def _final_metrics(finished, clients, total_rounds):
    start = time.monotonic()
    task, watched = finished.task, finished.watched
    final = {
        part: dict(watched if part == task.watched_part else task.evaluate(finished.state, part))
        for part in clients.users
        if part != "train"
    }
    seconds = round(finished.seconds + time.monotonic() - start, 2)
    return {**final, "rounds": total_rounds, "seconds": seconds}


if __name__ == "__main__":
    cli.run(main)
