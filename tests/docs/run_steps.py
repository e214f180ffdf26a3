"""Runs commands and Python code one after another in this process, which imports TensorFlow once.

    python -m tests.docs.run_steps < steps.json > outcomes.json

A step is `{"page": ..., "label": ..., "command": [...]}`, or `"python": code` in place of the
command; the Python of a page shares its names. A command that ran before is not run again. An
outcome is `{"seconds": ..., "error": null or text}`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import sys
import time
import traceback

from absl import flags

from tests.docs import small


def run_binary(name: str, arguments: list[str]) -> None:
    """Runs `experiments.NAME` as its command line does, but for the end of the process."""
    _forget_binaries()
    binary = importlib.import_module(f"experiments.{name}")
    cli = importlib.import_module("experiments.run.cli")
    sys.argv = [name, *arguments]
    rest = flags.FLAGS(sys.argv)
    assert len(rest) == 1, rest
    binary.main(cli.Interruption())


def _forget_binaries() -> None:
    """Makes absl and Python forget the binaries: two of them define flags of one name."""
    by_module = flags.FLAGS.flags_by_module_dict()
    for module in [*by_module]:
        if module.partition(".")[0] == "experiments":
            for flag in [*by_module[module]]:
                if flag.name in flags.FLAGS:
                    delattr(flags.FLAGS, flag.name)
    for module in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        del sys.modules[module]


def run_command(words: list[str]) -> None:
    """Runs `python -m experiments.NAME ...` or `python FILE ...`."""
    assert words[0] == "python", words
    if words[1] == "-m":
        run_binary(words[2].removeprefix("experiments."), words[3:])
    else:
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")


def run_step(step: dict, names: dict[str, dict]) -> str | None:
    """Runs a step. Returns its error as text, or None."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if "command" in step:
                run_command(step["command"])
            else:
                code = compile(step["python"], step["label"], "exec")
                exec(code, names.setdefault(step["page"], small.names()))
    except SystemExit as end:
        return f"status {end.code}" if end.code else None
    except Exception:
        return traceback.format_exc()
    return None


def main() -> None:
    outcomes, names, done = [], {}, {}
    for step in json.load(sys.stdin):
        key, began = json.dumps(step.get("command")), time.monotonic()
        if "command" not in step or key not in done:
            done[key] = run_step(step, names)
        seconds = time.monotonic() - began
        print(f"== {seconds:.1f} s: {step['label']}", file=sys.stderr, flush=True)
        outcomes.append({"seconds": seconds, "error": done[key]})
    sys.stdout.write(json.dumps(outcomes))
    sys.stdout.flush()
    os._exit(0)  # Python would take TensorFlow apart for two seconds more.


if __name__ == "__main__":
    main()
