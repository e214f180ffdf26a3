"""What binaries say when they are interrupted: whether the same command goes on."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Callable, Collection
from typing import Any

from experiments.run import cli
from fedrecon.runs.run_directory import RunDirectory


@contextlib.contextmanager
def told(interruption: cli.Interruption, sentence: Callable[..., str], *arguments: Any):
    """While in this context, an interruption prints a sentence, after whatever is still saved."""
    with interruption.do_first(lambda: print(sentence(*arguments), file=sys.stderr)):
        yield


def of_run(run: RunDirectory) -> str:
    """Returns what the same command does about a run that has been interrupted."""
    if run.checkpoints():
        return "The same command resumes this run where it ended."
    return "There is no checkpoint yet: the same command begins this run anew."


def of_runs(paths: Collection[pathlib.Path], *, num_finished: int) -> str:
    """Returns what the same command does about runs that have been interrupted.

    Args:
      paths: The directories of all runs.
      num_finished: How many of the runs are finished.
    """
    if num_finished or any(RunDirectory(path).checkpoints() for path in paths):
        return (
            f"The same command goes on where this one ended; {num_finished} of {len(paths)} runs "
            f"{'is' if num_finished == 1 else 'are'} finished."
        )
    return "There is no checkpoint yet: the same command begins anew."
