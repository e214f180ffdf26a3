"""Writes report.html of finished runs, from their files alone.

    python -m experiments.report runs/first
    python -m experiments.report runs/first runs/second --output=both.html

RUN is the directory of a run (`train`), of a comparison (`compare`) or of a search (`tune`);
several runs are shown side by side. The page is one file without any request to a network.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments.run import cli
from fedrecon.errors import InputError

_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Where the page goes. Without it: report.html in the directory of RUN, or with several runs in "
    "the directory of the command.",
)


def main(interruption: cli.Interruption, runs: Sequence[str]) -> None:
    del interruption  # The page is written whole or not at all.
    if not runs:
        raise InputError(
            "give the directory of a run, of a comparison or of a search: "
            "python -m experiments.report RUN [RUN ...]"
        )
    from experiments.pages import write

    paths = [pathlib.Path(run) for run in runs]
    output = _OUTPUT.value and pathlib.Path(_OUTPUT.value)
    written = write.write_report(paths, output)
    print(f"File: {written}, to be opened in a browser: {written.resolve().as_uri()}")


if __name__ == "__main__":
    cli.run(main, takes_arguments=True)
