"""How a damaged run may end, and how to tell."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import sqlite3
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.faults.served import DONE, SENTENCE, Ended

EQUAL, OLDER, REFUSED = "equal", "equal, told", "refused in a sentence"
OTHER, TRACEBACK = "OTHER NUMBERS", "TRACEBACK"
OUTCOMES = (EQUAL, OLDER, REFUSED, OTHER, TRACEBACK)
_MAX_CHARACTERS = 600


class Case(NamedTuple):
    """One damage and one command, and what became of it."""

    command: str
    file: str
    how: str
    outcome: str
    text: str


def judged(ended: Ended, is_equal: Callable[[], bool]) -> str:
    """Returns one of `OUTCOMES`."""
    if ended.how == SENTENCE:
        is_one = "\n" not in ended.text and len(ended.text) < _MAX_CHARACTERS
        return REFUSED if is_one else TRACEBACK
    if ended.how != DONE:
        return TRACEBACK
    if not is_equal():
        return OTHER
    return OLDER if ended.text else EQUAL


def is_same(run: pathlib.Path, expected: dict[str, Any]) -> bool:
    """Whether a run found what another one found.

    An older checkpoint may be damaged and stay so; nothing was made of it.

    Args:
      run: The run directory.
      expected: What `what_a_run_found` returns of the other one.
    """
    found = what_a_run_found(run)
    final, states = found.pop("final"), found.pop("states")
    others = {name: values for name, values in expected.items() if name in found}
    return (
        found == others
        and max(states) == max(expected["states"])
        and states.items() <= expected["states"].items()
        and expected["final"].items() <= final.items()
    )


def what_a_run_found(run: pathlib.Path) -> dict[str, Any]:
    """Returns everything in a run directory that a repetition gives again to the bit."""
    lines = (run / "metrics.csv").read_text().splitlines()
    seconds = lines[0].split(",").index("seconds")
    rows = [[c for n, c in enumerate(line.split(",")) if n != seconds] for line in lines]
    final = json.loads((run / "final_metrics.json").read_text())
    for name in ("seconds", "sha256"):
        final.pop(name, None)
    return {"metrics": rows, "final": final, "states": _states(run), "rows": _client_rows(run)}


def _states(run: pathlib.Path) -> dict[int, str]:
    """Returns the arrays of the checkpoints that can be read, as text, by round."""
    states = {}
    for path in (run / "checkpoints").iterdir():
        with contextlib.suppress(OSError, EOFError, ValueError, zipfile.BadZipFile):
            with np.load(path / "state.npz") as file:
                arrays = {name: file[name].tobytes() for name in file}
            states[int(path.name.rpartition("_")[2])] = repr(arrays)
    return states


def _client_rows(run: pathlib.Path) -> list:
    connection = sqlite3.connect(run / "client_store" / "rows.sqlite")
    try:
        newest = {}
        for row_id, row in connection.execute("SELECT id, row FROM rows ORDER BY id"):
            newest[row_id >> 32] = row
        return sorted(newest.items())
    finally:
        connection.close()


def table(cases: Sequence[Case]) -> str:
    """Returns a table in Markdown: how many damages of each file ended in which way."""
    rows: dict[tuple[str, str], collections.Counter] = collections.defaultdict(collections.Counter)
    for case in cases:
        rows[case.file, case.command][case.outcome] += 1
    for case in cases:
        rows["**all**", case.command][case.outcome] += 1
    lines = [
        "| file | command | damages | " + " | ".join(OUTCOMES) + " |",
        "|---|---|" + "---|" * (len(OUTCOMES) + 1),
    ]
    for (file, command), counts in rows.items():
        cells = [str(counts[outcome]) for outcome in OUTCOMES]
        lines.append(f"| {file} | {command} | {sum(counts.values())} | {' | '.join(cells)} |")
    return "\n".join(lines)
