"""Damages run directories in every way that we know of, and shows what each binary makes of it.

    python -m experiments.torture

A run of stateful FedAvg is damaged, one file at a time, in a copy. Then it is resumed to more
rounds, and evaluated. What comes out is compared with the run that nobody damaged: the rows of
metrics.csv, final_metrics.json, the bits of the checkpoints, the rows of the clients. What is not
equal must have been refused, in one sentence. It takes about half an hour.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from experiments.faults import damages
from experiments.faults.damages import Damage
from experiments.faults.outcomes import Case, is_same, judged, table, what_a_run_found
from experiments.faults.served import DONE, Ended, Served
from experiments.run import cli

_RESUME, _EVALUATE, _AGAIN = "resume", "evaluate", "the same again"
_ONLY = flags.DEFINE_list(
    "only", None, "Only damages whose name contains one of these. Without it: all."
)
_COMMANDS = flags.DEFINE_list(
    "commands", [_RESUME, _EVALUATE, _AGAIN], "What is done after each damage."
)
_OUTPUT = flags.DEFINE_string("output", None, "Where to write each case, as JSON lines.")

_ROUNDS, _MORE_ROUNDS = 8, 12
_GROUP = "unseen_test"
_FLAGS = (
    "--algorithm=stateful_fed_avg",
    "--synthetic_num_users=60",
    "--synthetic_num_items=60",
    "--synthetic_mean_ratings_per_user=25",
    "--held_out_fraction=0.1",
    "--dim=4",
    "--clients_per_round=4",
    "--rounds_per_evaluation=2",
    "--rounds_per_checkpoint=2",
)


def main(interruption: cli.Interruption) -> None:
    del interruption
    with tempfile.TemporaryDirectory(prefix="torture") as folder:
        cases = list(_damaged_runs(pathlib.Path(folder)))
    print()
    print(table(cases))


def _damaged_runs(folder: pathlib.Path) -> Iterable[Case]:
    train, evaluate = Served("train"), Served("evaluate")
    whole, begun, copy = folder / "whole", folder / "begun", folder / "copy"
    _must(train(*_FLAGS, f"--total_rounds={_ROUNDS}", f"--output_dir={begun}"))
    train.kill()  # It leaves a log beside the rows of clients.
    train = Served("train")
    shutil.copytree(begun, whole)
    evaluations = {}
    for round_num in (damages.OLDEST, damages.MIDDLE, damages.NEWEST):
        _must(evaluate(f"--run_dir={whole}", f"--group={_GROUP}", f"--round={round_num}"))
        evaluations[round_num] = _evaluation(whole)
        (whole / f"evaluation_{_GROUP}.json").unlink()
    finished = what_a_run_found(whole)
    _must(train(*_FLAGS, f"--total_rounds={_MORE_ROUNDS}", f"--output_dir={whole}"))
    expected = what_a_run_found(whole)

    def resumed(rounds: int) -> Ended:
        return train(*_FLAGS, f"--total_rounds={rounds}", f"--output_dir={copy}")

    def run(damage: Damage, command: str, start, is_as_wanted) -> Case:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(begun, copy)
        damage.apply(copy)
        ended = start()
        outcome = judged(ended, lambda: is_as_wanted(copy))
        case = Case(command, damage.file, damage.how, outcome, ended.text.strip())
        _tell(case)
        return case

    def evaluation_is_known(run_dir) -> bool:
        found = _evaluation(run_dir)
        return evaluations.get(found["round"]) == found

    commands = {
        _RESUME: (lambda: resumed(_MORE_ROUNDS), lambda path: is_same(path, expected)),
        _EVALUATE: (
            lambda: evaluate(f"--run_dir={copy}", f"--group={_GROUP}"),
            evaluation_is_known,
        ),
        _AGAIN: (lambda: resumed(_ROUNDS), lambda path: is_same(path, finished)),
    }
    for some, tried in (
        (damages.of_a_run_to_go_on(), (_RESUME, _EVALUATE)),
        (damages.of_a_finished_run(), (_AGAIN,)),
    ):
        for damage in _chosen(some):
            for command in tried:
                if command in _COMMANDS.value:
                    yield run(damage, command, *commands[command])
    train.close()
    evaluate.close()


def _chosen(some: Sequence[Damage]) -> list[Damage]:
    names = {f"{damage.file}: {damage.how}": damage for damage in some}
    return [
        names[name]
        for name in names
        if _ONLY.value is None or any(part in name for part in _ONLY.value)
    ]


def _tell(case: Case) -> None:
    print(" | ".join(case[:4]), "|", case.text.replace("\n", " ")[-300:], flush=True)
    if _OUTPUT.value:
        with open(_OUTPUT.value, "a", encoding="utf-8") as file:
            file.write(json.dumps(case._asdict()) + "\n")


def _evaluation(run: pathlib.Path) -> dict[str, Any]:
    found = json.loads((run / f"evaluation_{_GROUP}.json").read_text())
    found.pop("sha256", None)
    return found


def _must(ended: Ended) -> None:
    if ended.how != DONE:
        raise RuntimeError(ended.text)


if __name__ == "__main__":
    cli.run(main)
