"""Runs the comparisons of docs/results.md again, and compares their tables with those of the page.

    python -m experiments.reproduce --only=ratings --data_dir=DIR --output_dir=runs/reproduce

Without `--only`, all of them are run, which takes about an hour on 2 cores. The same command again
resumes what was interrupted, and repeats nothing that is finished. `--write` puts the new tables
into the page. The exit status is 1 if a figure differs by more than its tolerance.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

from absl import flags

from experiments.comparison import page
from experiments.comparison.report import SUMMARY
from experiments.run import cli
from experiments.run.names import listed
from fedrecon.errors import InputError

_PRESETS = pathlib.Path(__file__).resolve().parent / "presets"


_ONLY = flags.DEFINE_list(
    "only",
    [],
    f"Which comparisons to run, from {listed(page.COMPARISONS)}. A name also stands for those that "
    "begin with it: paper for all of the paper.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder that has the data sets. Without it they are downloaded."
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "runs/reproduce", "Folder for the runs; each comparison has a folder in it."
)
_PAGE = flags.DEFINE_string(
    "page",
    str(pathlib.Path(__file__).resolve().parents[1] / "docs" / "results.md"),
    "The page with the tables.",
)
_WRITE = flags.DEFINE_bool("write", False, "Put the new tables into the page.")


def main(interruption: cli.Interruption) -> None:
    del interruption  # Each comparison keeps its own runs whole.
    asked = _ONLY.value or list(page.COMPARISONS)
    names = list(dict.fromkeys(name for each in asked for name in page.named(each)))
    path = pathlib.Path(_PAGE.value)
    text = path.read_text(encoding="utf-8")
    tables, num_different = {}, 0
    for name in names:
        found = _tables(name)
        for block in page.blocks(text):
            if block.comparison != name:
                continue
            if block.section not in found:
                raise InputError(
                    f"{path} wants the section {block.section!r} of {name}, whose report has "
                    f"{listed(list(found))}."
                )
            table = tables[name, block.section] = found[block.section]
            told = page.differences(block.table, table, tolerance=page.COMPARISONS[name].tolerance)
            num_different += len(told)
            print(f"{name}, {block.section}: {'as on the page' if not told else ''}")
            for line in told:
                print(f"  {line}")
    if _WRITE.value:
        path.write_text(page.with_tables(text, tables), encoding="utf-8")
        print(f"Written: {path}")
    elif num_different:
        raise InputError(f"{num_different} figures differ from {path}; --write takes the new ones.")


def _tables(name: str) -> dict[str, str]:
    """Runs a comparison, as far as it is not finished, and returns the tables of its report."""
    comparison = page.COMPARISONS[name]
    folder = pathlib.Path(_OUTPUT_DIR.value) / name
    command = [
        *(sys.executable, "-m", "experiments.compare"),
        f"--flagfile={_PRESETS / comparison.preset}.flags",
        *comparison.flags,
        f"--output_dir={folder}",
    ]
    if _DATA_DIR.value is not None:
        command.append(f"--data_dir={_DATA_DIR.value}")
    print(f"== {name}: {' '.join(command[1:])}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise InputError(f"the comparison {name} ended with status {status}; see above.")
    return page.tables_of((folder / SUMMARY).read_text(encoding="utf-8"))


if __name__ == "__main__":
    cli.run(main)
