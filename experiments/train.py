"""Trains a federated recommender, evaluates it on people never seen, and leaves a run directory.

    python -m experiments.train --dataset=movielens-1m --data_dir=DIR --output_dir=runs/first

The same command again resumes the run where it ended.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time

from absl import flags

from experiments import cli, data, runtime, settings, tasks
from fedrecon.errors import InputError

settings.define_flags()
flags.adopt_module_key_flags(settings)


def main(interruption: cli.Interruption) -> None:
    chosen = settings.from_flags()
    clients = data.load_clients(chosen)

    from fedrecon import artifacts

    run = artifacts.RunDirectory(chosen.output_dir)
    done = max(run.checkpoints(), default=0)
    if done > chosen.total_rounds:
        raise InputError(
            f"{run.path} already has {done} rounds, more than --total_rounds={chosen.total_rounds}."
        )
    config = {
        "settings": chosen.to_json(),
        "data_fingerprint": clients.ratings.fingerprint(),
        "versions": artifacts.versions(),
    }
    with run.claim(config, free_settings=settings.FREE):
        final = run.read_final_metrics()
        if final is None or final["rounds"] != chosen.total_rounds:
            final = _train(chosen, clients, run, interruption)
        else:
            print(f"This run is finished: {final['rounds']} rounds.")
        print()
        cli.print_table({part: row for part, row in final.items() if isinstance(row, dict)})
        print(f"\n{final['rounds']} rounds in {final['seconds']:.0f} s. Files: {run.path}/")
        for name in (artifacts.FINAL_METRICS, artifacts.METRICS, artifacts.CURVES):
            print(f"  {name}")


def _train(chosen, clients, run, interruption):
    from tqdm import tqdm

    from fedrecon import artifacts
    from fedrecon.training import Training, TrainingOptions

    runtime.start(chosen.runtime, chosen.gpu_memory_limit_mb)
    task, _ = tasks.build_task(chosen, clients, store_dir=run.store_path)
    recorder = artifacts.RunRecorder(run)
    options = TrainingOptions(
        total_rounds=chosen.total_rounds,
        rounds_per_evaluation=chosen.rounds_per_evaluation,
        rounds_per_checkpoint=chosen.rounds_per_checkpoint,
    )
    training = Training(task, options, recorder)
    done = training.num_rounds_done
    if done:
        print(f"Resuming after round {done}.")

    def stop():
        training.stop()
        recorder.close()
        print("The same command resumes this run where it ended.", file=sys.stderr)

    # The curves at the end need it; meanwhile the first rounds wait for XLA.
    threading.Thread(target=importlib.import_module, args=["matplotlib.figure"]).start()
    bar = tqdm(total=options.total_rounds, initial=done, unit="round", disable=None)
    with interruption.do_first(stop), contextlib.closing(bar):
        latest: dict[str, str] = {}

        def on_round(round_num, row):
            evaluated = {name: row[name] for name in row if name.startswith(task.watched_part)}
            if evaluated:
                text = cli.describe(task.watched_part, evaluated)
                text = f"round {round_num:5}  {text}  ({row['seconds']:.0f} s)"
                tqdm.write(text, file=sys.stdout)
                sys.stdout.flush()
            main = [name for name in row if name.endswith(("/loss", "/rmse", "/hr_at_10"))]
            latest.update({name: f"{row[name]:.4f}" for name in main})
            bar.set_postfix(latest, refresh=False)
            bar.update(round_num - bar.n)

        state = training.run(on_round)
    recorder.close()
    parts = [part for part in clients.users if part != "train"]
    final = _final_metrics(task, parts, state, recorder, options.total_rounds)
    run.draw_curves()
    run.write_final_metrics(final)
    return final


def _final_metrics(task, parts, state, recorder, total_rounds):
    start = time.monotonic()
    # Measured with the last round, unless a longer run was cut short at this one.
    watched = recorder.metrics(total_rounds, task.watched_part)
    final = {
        part: watched if part == task.watched_part and watched else dict(task.evaluate(state, part))
        for part in parts
    }
    seconds = recorder.seconds(total_rounds) + time.monotonic() - start
    return {**final, "rounds": total_rounds, "seconds": round(seconds, 2)}


if __name__ == "__main__":
    cli.run(main)
