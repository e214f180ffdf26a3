"""Tells whether training negatives give away the test items; needs no model.

    python -m experiments.check_leak --train=FILE --test=FILE --negatives=FILE
    python -m experiments.check_leak --simulate=excluding_test

A line of a file is `user<TAB>item`, and more that does not matter. Or it is a list, as in the NCF
paper's file of negatives: `(user,item)<TAB>item<TAB>item...` is a pair of the user and each item
after the parentheses. Files may be compressed (.gz).

Status 0: no leak was found. Status 1: the negatives leak, or a file is wrong.
"""

from __future__ import annotations

import pathlib
import re
import sys

import numpy as np
from absl import flags

from experiments.run import cli
from experiments.run.flags import refuse_given
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.held_out import hold_out_last
from fedrecon.data.rating_table import show
from fedrecon.data.sources import FolderSource
from fedrecon.errors import DataError, InputError
from fedrecon.evaluation.leak import LeakReport, check_leak

_FILES = {
    name: flags.DEFINE_string(name, None, text)
    for name, text in (
        ("train", "The training interactions."),
        ("test", "The held-out item of each user."),
        ("negatives", "The training negatives of all rounds, with repeats."),
        (
            "candidates",
            "The items that each user's test item is ranked against, such as ml-1m.test.negative; "
            "by default all items that are no training interactions of the user.",
        ),
    )
}
_SIMULATE = flags.DEFINE_enum(
    "simulate",
    None,
    ("excluding_test", "fair"),
    "In place of files: draw 4 negatives for each training interaction, either from all items that "
    "the user never touched, as published, or from all but the user's training items.",
)
_SIMULATE_ON = flags.DEFINE_string("simulate_on", "synthetic", "The data set to simulate on.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where that data set is; by default it is downloaded."
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 20, "How often each training interaction draws negatives.", lower_bound=1
)
_NUMBER = rb"[0-9]{1,18}"  # More digits might not fit int64.
_PAIR = re.compile(rb"^(%b)\t(%b)(?:\t.*)?$" % (_NUMBER, _NUMBER), re.MULTILINE)
_LIST = re.compile(rb"^\((%b),%b\)((?:\t%b)+)$" % (_NUMBER, _NUMBER, _NUMBER), re.MULTILINE)


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    report = _check_files() if _SIMULATE.value is None else _check_simulated()
    _print(report)
    print(report.verdict)
    if report.has_leak:
        sys.exit(1)


def _check_files() -> LeakReport:
    refuse_given(
        ("simulate_on", "data_dir", "epochs"),
        lambda name: f"--{name} has no effect without --simulate.",
    )
    paths = {name: flag.value for name, flag in _FILES.items()}
    missing = [f"--{name}=FILE" for name in ("train", "test", "negatives") if not paths[name]]
    if missing:
        raise InputError(f"give {' '.join(missing)}, or --simulate=excluding_test to see a leak.")
    held_out = _read_pairs(paths["test"])
    candidates = None
    if paths["candidates"]:
        candidates = _candidate_rows(_read_pairs(paths["candidates"]), held_out)
    return check_leak(
        _read_pairs(paths["train"]), _read_pairs(paths["negatives"]), held_out, candidates
    )


def _check_simulated() -> LeakReport:
    refuse_given(_FILES, lambda name: f"--{name} has no effect with --simulate.")
    ratings = load_dataset(_SIMULATE_ON.value, data_dir=_DATA_DIR.value)
    train, held_out = hold_out_last(ratings, seed=0)
    # Whoever takes all of a user's items for positives draws none of them, the test item included.
    known = ratings if _SIMULATE.value == "excluding_test" else train
    examples = ImplicitExamples(known, ImplicitOptions())
    drawn = []
    for epoch_num in range(_EPOCHS.value):
        users, items, labels = examples.epoch(epoch_num)
        drawn.append(np.stack([users, items], axis=1).astype(np.int32)[labels == 0])
    return check_leak(
        np.stack([train.user_ids, train.item_ids], axis=1),
        np.concatenate(drawn),
        np.stack([held_out.users, held_out.items], axis=1),
        held_out.negatives,
    )


def _print(report: LeakReport) -> None:
    low, high = report.chance_interval
    print(
        f"{report.num_users:,} users, {report.num_candidates:.1f} candidates each; the test item "
        f"came {report.num_drawn:,} times as a negative, fair draws give "
        f"{report.num_expected:,.0f}\n\n"
        "| ranking without a model |  HR@10 | NDCG@10 |\n"
        "|-------------------------|-------:|--------:|"
    )
    for title, ranking in (
        ("how seldom an item came", report.seldom),
        ("how often an item came", report.often),
    ):
        print(f"| {title:23} | {ranking.hr_at_10:6.4f} | {ranking.ndcg_at_10:7.4f} |")
    print(f"| {'chance':23} | {report.chance:6.4f} |         |")
    print(f"\nBy chance HR@10 is from {low:.4f} to {high:.4f} in 95 of 100 checks.")


def _read_pairs(path: str) -> np.ndarray:
    """Returns the pairs of a file, `[n, 2]` int64, in its order; see the head of this file."""
    file = pathlib.Path(path)
    data = FolderSource(file.parent).read(file.name).replace(b"\r\n", b"\n")
    data = data if data.endswith(b"\n") else data + b"\n"
    if data.startswith(b"("):
        found = _find(_LIST, data, path, r"'(user,item)\titem\titem...'")
        found = [(user, item) for user, items in found for item in items.split()]
    else:
        found = _find(_PAIR, data, path, r"'user\titem', whole numbers")
    return np.array(found).astype(np.int64)


def _find(line: re.Pattern[bytes], data: bytes, path: str, expected: str) -> list:
    """Returns the groups of each line of a file, all of which must be as expected."""
    found = line.findall(data)
    if len(found) < data.count(b"\n"):
        for number, text in enumerate(data[:-1].split(b"\n"), 1):
            if not line.fullmatch(text):
                what = show(text) if text else "an empty line"
                raise DataError(f"{path}, line {number}: expected {expected}; found {what}.")
    return found


def _candidate_rows(pairs: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Returns the candidates of each row of `held_out`, `[num_users, m]`, padded with -1."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.searchsorted(pairs[:, 0], held_out[:, 0], side="left")
    ends = np.searchsorted(pairs[:, 0], held_out[:, 0], side="right")
    without = held_out[starts == ends]
    if len(without):
        raise DataError(f"{_FILES['candidates'].value} has no candidates of user {without[0, 0]}.")
    rows = np.full((len(held_out), (ends - starts).max()), -1, np.int64)
    for row, start, end in zip(rows, starts, ends):
        row[: end - start] = pairs[start:end, 1]
    return rows


if __name__ == "__main__":
    cli.run(main)
