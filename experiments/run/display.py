"""What binaries print of metrics, and of many runs one after the other."""

from __future__ import annotations

import collections
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from experiments.run import accuracy, convergence
from fedrecon.data.ratings import Ratings
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import STANDARD_ERROR, Measure

_Run = TypeVar("_Run")

# The metrics that are shown, by name: title and form.
_SHOWN = {
    "rmse": ("RMSE", "8.4f"),
    "accuracy": ("accuracy", "10.1%"),
    "rounded_accuracy": ("rounded", "9.1%"),
    "loss": ("loss", "8.4f"),
    "hr_at_10": ("HR@10", "8.4f"),
    "ndcg_at_10": ("NDCG@10", "9.4f"),
    "hr_at_10_as_listed": ("as listed", "11.4f"),
    "ndcg_at_10_as_listed": ("as listed", "11.4f"),
    "ndcg_at_100": ("NDCG@100", "10.4f"),
    f"ndcg_at_100{STANDARD_ERROR}": ("± s.e.", "8.4f"),
    "recall_at_20": ("Recall@20", "11.4f"),
    f"recall_at_20{STANDARD_ERROR}": ("± s.e.", "8.4f"),
    "recall_at_50": ("Recall@50", "11.4f"),
    f"recall_at_50{STANDARD_ERROR}": ("± s.e.", "8.4f"),
    "mrr": ("MRR", "8.4f"),
    "num_examples": ("ratings", "10,"),
    "num_users": ("users", "10,"),
}
_IN_A_LINE = ("rmse", "accuracy", "hr_at_10", "ndcg_at_10", "ndcg_at_100", "recall_at_20")


class Pace:
    """How long a run has taken, and about how long it will take.

    The rounds between two lines tell how long a round takes, an evaluation among them. Those before
    the first line also compile, and so do some later ones, whenever a shard has a new shape. So the
    median of the last few tells.
    """

    _NUM_STRETCHES = 7

    def __init__(self, total_rounds: int):
        self._total_rounds = total_rounds
        self._before: list[tuple[int, float]] = []
        self._of_a_round: collections.deque[float] = collections.deque(maxlen=self._NUM_STRETCHES)

    def times(self, round_num: int, seconds: float) -> str:
        """Returns the times after a round, such as `35 s, 10 s to go`."""
        told = duration(seconds)
        if len(self._before) > 1:
            last_round, last_seconds = self._before[-1]
            self._of_a_round.append((seconds - last_seconds) / (round_num - last_round))
            if round_num < self._total_rounds:
                to_go = statistics.median(self._of_a_round) * (self._total_rounds - round_num)
                told += f", {duration(to_go)} to go"
        self._before.append((round_num, seconds))
        return told


def duration(seconds: float) -> str:
    """Returns a time in words, such as `51 s` and `1 min 46 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def print_notes(ratings: Ratings) -> None:
    """Prints what was decided and left out when the ratings were read."""
    if ratings.notes:
        print(f"{ratings.name}: {' '.join(ratings.notes)}", flush=True)


def started_from(begun: Mapping[str, Any]) -> str:
    """Returns what a run started from, in sentences."""
    return (
        f"Started from {begun['run_dir']} ({begun['algorithm']}, {begun['rounds']} rounds on "
        f"{begun['data']}). {begun['items']}"
    )


def print_table(rows: dict[str, dict[str, float]], *, rating_step: float) -> None:
    """Prints one line for each group of users.

    RMSE, accuracies and loss are means over ratings; HR, NDCG, recall and MRR are means over users,
    and s.e. are their standard errors.

    Args:
      rows: The metrics of each group.
      rating_step: The step between two ratings, on which accuracy depends.
    """
    shown = {
        name: (title, form, int(re.match(r"\d+", form)[0]))
        for name, (title, form) in _SHOWN.items()
        if any(name in row for row in rows.values())
    }
    first = max(12, *(len(group) + 1 for group in rows))
    print(" " * first + "".join(f"{title:>{width}}" for title, _, width in shown.values()))
    for group, row in rows.items():
        cells = (
            format(row[name], form) if name in row else " " * width
            for name, (_, form, width) in shown.items()
        )
        print(f"{group:{first}}" + "".join(cells))
    if "accuracy" in shown:
        print(accuracy.sentence(rating_step))


def print_ending(
    rows: Sequence[dict[str, Any]], watched: str, measure: Measure, *, total_rounds: int
) -> None:
    """Prints that training had not converged, or had been better earlier, where it was so.

    Args:
      rows: The rows of metrics.csv; a run that was longer once may have rows after the last round.
      watched: The group that was evaluated while training.
      measure: The measure by which settings are chosen.
      total_rounds: How many rounds there are.
    """
    done = [row for row in rows if row["round"] <= total_rounds]
    found = convergence.ending_of_rows(done, watched, measure)
    told = found and found.sentence(watched)
    if told:
        print(f"\n{told}")


def print_left_out(number: int, *, num_clients: int) -> None:
    """Prints how many clients of a run's rounds were left out, where any was."""
    if number:
        print(
            f"\n{number:,} of the {num_clients:,} clients of all rounds were left out, since their "
            "updates were not finite; the model is of the others."
        )


def describe(group: str, metrics: dict[str, float]) -> str:
    """Returns the main metrics of a group of users in a line; their names are `group/metric`."""
    line = [
        f"{title} {format(metrics[f'{group}/{name}'], form.lstrip('0123456789'))}"
        for name, (title, form) in _SHOWN.items()
        if f"{group}/{name}" in metrics and name in _IN_A_LINE
    ]
    return f"{group} " + "  ".join(line)


def run_all(runs: Sequence[tuple[str, _Run]], run_one: Callable[[_Run], str]) -> list[str]:
    """Does one run after the other, with a bar and a line for each; one failure stops no other.

    Args:
      runs: The label of each run, and the run.
      run_one: Does a run, and returns the text of its line.

    Returns:
      The label of each run that raised an `InputError`, with the reason.
    """
    failures = []
    with tqdm(total=len(runs), unit="run", disable=None, desc="all runs") as bar:
        for number, (label, run) in enumerate(runs, start=1):
            try:
                text = run_one(run)
            except InputError as error:
                failures.append(f"{label}: {error}")
                text = "not finished: see below"
            tqdm.write(f"{number:3} of {len(runs)}  {label:40} {text}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    return failures
