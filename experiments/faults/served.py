"""A binary that takes one command after another in one process, since TensorFlow takes seconds.

    python -m experiments.faults.served train

A line of stdin is the arguments, a list in JSON. A line of stdout says how the command ended.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from fedrecon.errors import InputError

DONE, SENTENCE, TRACEBACK = "done", "sentence", "traceback"


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
      how: `DONE`, `SENTENCE` (one that says what was found) or `TRACEBACK`.
      text: The error, or the warnings if there is none.
      output: What was printed.
    """

    how: str
    text: str
    output: str


class Served:
    """A binary in a process of its own; close it."""

    def __init__(self, binary: str):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.faults.served", binary],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object) -> Ended:
        """Gives it the arguments of a command line."""
        self._process.stdin.write(json.dumps(list(map(str, arguments))) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def kill(self) -> None:
        """Ends the process as a power cut would."""
        self._process.kill()
        self._process.wait()


def _serve(binary: str) -> None:
    from experiments.run import cli
    from experiments.run.temporary import TemporaryFolder

    atexit.register(TemporaryFolder().remove)
    module = importlib.import_module(f"experiments.{binary}")
    answers, requests = sys.stdout, sys.stdin
    sys.stdout = sys.stderr
    for line in requests:
        ended = _ended(module, cli, json.loads(line))
        print(json.dumps(ended), file=answers, flush=True)


def _ended(module, cli, arguments: Sequence[str]) -> Ended:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                _parse(arguments)
                module.main(cli.Interruption())
                how, text = DONE, ""
            except InputError as error:
                how, text = SENTENCE, str(error)
            except BaseException:
                how, text = TRACEBACK, traceback.format_exc()
    if how == DONE:
        told = [str(w.message) for w in warned if issubclass(w.category, UserWarning)]
        text = "\n".join(told)
    return Ended(how, text, output.getvalue())


def _parse(arguments: Sequence[str]) -> None:
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
        flags.FLAGS[name].present = 0
    flags.FLAGS(["binary", *arguments])


if __name__ == "__main__":
    _serve(*sys.argv[1:])
