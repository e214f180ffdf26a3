"""Writes docs/flags.md, the reference of all flags, from the settings and the binaries.

    python -m docs.tools.flags_page            # writes the page
    python -m docs.tools.flags_page --check    # ends with status 1 if the page is another

A setting's text, default and condition are the ones that `--help` shows.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from experiments.run import defaults, fields, relevance
from experiments.run.names import ALGORITHMS, listed
from experiments.run.settings import Settings, decides_questions

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "flags.md"
COMMANDS = (
    *("train", "compare", "tune", "evaluate", "recommend", "export", "export_predictions"),
    *("report", "benchmark", "reproduce", "check_leak", "torture"),
)
# absl puts the values of a flag before its text.
_CHOICES = re.compile(r"(?:<([^>]*)>: )?(.*)", re.DOTALL)
# In a process of its own for each binary: two of them define flags of the same name.
_LIST_FLAGS = """
import importlib, json, sys
from absl import flags
from experiments.run import help
name = "experiments." + sys.argv.pop()
importlib.import_module(name)
sys.argv[0] = name
own = [flags.FLAGS[flag] for flag in help.own_flags()]
print(json.dumps({
    "own": [[flag.name, help.default_in_words(flag.default), flag.help] for flag in own],
    "has_settings": "total_rounds" in flags.FLAGS,
    "missing": [name for name in help.Settings.__dataclass_fields__ if name not in flags.FLAGS],
}))
"""

_HEAD = """\
# Flags

Every flag of every command, with its default. This page is generated from the code by
`python -m docs.tools.flags_page`, so it says the same as `--help=all`.

[Data](#data), [model](#model), [algorithm](#algorithm), [training](#training), [defaults by
algorithm](#defaults-by-algorithm), [flags of single commands](#flags-of-single-commands).

Each setting is a flag of `train`, `compare` and `tune`, and a field of `config.json`. **A setting
that a run does not use is refused** when it is given; in `compare`, a flag of a preset that has no
effect on the chosen algorithms is only noted. `--flagfile=FILE` reads flags from a file; a flag
after it overrides it. A flag that is true or false is switched off with `--no` before its name.
"""
_BY_ALGORITHM = """\
## Defaults by algorithm

A default may depend on the algorithm and on the kind of feedback. `fedrecon/defaults.py` has the
values. With explicit feedback they were chosen by validation users, for the default model: matrix
factorization with three biases, whose global bias starts at the middle of the scale. (`fed_ials`
has no biases.) [The notes](../BUILD_NOTES.md#defaults) have the searches.
"""
_NOTES = """\
- "-" stands where the algorithm does not use the setting. Of two values, the second is for implicit
  feedback.
- **Unseen users are solved for**, except with `fed_recon` and with models that are not linear in
  their local part. Any of `reconstruction_optimizer`, `reconstruction_learning_rate`,
  `reconstruction_epochs` and `reconstruction_steps_max` asks for gradient steps instead.
- The neural models have the same rates, which were not chosen for them.
- Optimizers have TFF's defaults apart from the rate.
- `fr.fit` has the same options, with 32 factors and 200 rounds.
"""
_OF_COMMANDS = """\
## Flags of single commands

`train`, `compare` and `tune` have the settings above, and these.
"""


def page() -> str:
    """Returns the page. It starts a process for each command."""
    return "\n".join([*of_settings(), *_of_commands(commands())])


def of_settings() -> Iterator[str]:
    """Yields the lines of the page about settings, which need no process."""
    yield _HEAD
    for group in fields.GROUPS:
        yield f"## {group.title()}\n"
        if group == "data":
            yield _searched()
        for field in dataclasses.fields(Settings):
            if field.metadata["group"] == group:
                yield from _of_setting(field)
    yield _BY_ALGORITHM
    yield from _table_by_algorithm()
    yield "\n" + _NOTES


def default_of(field: dataclasses.Field) -> str:
    """Returns the default of a setting in Markdown."""
    if field.name == "output_dir":
        return "none; required"
    if field.name == "feedback":
        return (
            "`implicit` for the NCF files, `no_ratings`, `strong_generalization`, `fed_ials`, "
            "`ials` and EASE; else `explicit`"
        )
    values = _by_algorithm(field)
    if len(values) > 1:
        return "[by algorithm](#defaults-by-algorithm)"
    return _cell(values.pop() if values else field.default) or "not given"


def commands() -> dict[str, dict]:
    """Returns for each command its own flags and whether it has the settings."""

    def of(name: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-c", _LIST_FLAGS, name],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"experiments.{name}: {done.stderr}")
        return json.loads(done.stdout)

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(COMMANDS, pool.map(of, COMMANDS)))


def _of_commands(found: Mapping[str, dict]) -> Iterator[str]:
    yield _OF_COMMANDS
    for name, described in found.items():
        yield f"### {name}\n"
        if described["has_settings"]:
            missing = " and ".join(f"`--{flag}`" for flag in described["missing"])
            yield f"The settings{missing and f' except {missing}'}, and:\n"
        for flag, default, text in described["own"]:
            # absl tells how to repeat a flag; so do the texts.
            choices, text = _CHOICES.fullmatch(text.partition(";\n")[0]).groups()
            one_of = ", ".join(f"`{choice}`" for choice in choices.split("|")) if choices else ""
            marked = _marked(text) + (f" One of {one_of}." if one_of else "")
            yield from _entry("####", flag, _as_code(default), marked)


def _entry(level: str, name: str, default: str, explanation: str, only: str = "") -> Iterator[str]:
    yield f"{level} `--{name}`\n"
    yield f"{explanation}\n"
    yield f"Default: {default}." + (f" Only with {_marked(only)}." if only else "") + "\n"


def _of_setting(field: dataclasses.Field) -> Iterator[str]:
    explanation = _marked(field.metadata["help"], field.metadata["choices"] or ())
    only = relevance.in_words(field.metadata["only"])
    only = "" if only == f"--{field.name}" else only
    yield from _entry("###", field.name, default_of(field), explanation, only)


def _searched() -> str:
    """Returns which settings cannot be searched, in words."""
    every = dataclasses.fields(Settings)
    of_data = [field for field in every if field.metadata["group"] == "data"]
    free = [f"`--{field.name}`" for field in of_data if not decides_questions(field.name)]
    others = [
        f"`--{field.name}`"
        for field in every
        if field not in of_data and decides_questions(field.name)
    ]
    return (
        "Settings of the data decide what users are asked, apart from "
        f"{listed(free, 'and')}; so do "
        f"{listed(others, 'and')}. Therefore a search, a sweep and `--set` refuse them by name: "
        "give them once, for all runs.\n"
    )


def _marked(text: str, choices: Sequence[str] = ()) -> str:
    """Returns a text with flags as code, and with a value that it explains on a line of its own."""
    text = text.replace("|", r"\|").replace("<", "&lt;")
    text = re.sub(r"--\w+(=[\w,.]+\w)?", r"`\g<0>`", text)
    listed = [choice for choice in choices if re.search(rf"(?<![\w`=]){choice}: ", text)]
    if len(listed) < 2:
        return text
    for choice in listed:
        text = re.sub(rf"\s*(?<![\w`=]){choice}: ", f"\n- `{choice}`: ", text, count=1)
    return text.replace("\n- ", "\n\n- ", 1).strip()


def _as_code(default: str) -> str:
    if default in ("True", "False"):
        default = default.lower()
    # Where a checkout is does not belong on the page.
    default = default.removeprefix(f"{REPOSITORY}/")
    return default if default == "not given" else f"`{default}`"


def _table_by_algorithm() -> Iterator[str]:
    yield "| setting | " + " | ".join(f"`{name}`" for name in ALGORITHMS) + " |"
    yield "|---" * (len(ALGORITHMS) + 1) + "|"
    for field in dataclasses.fields(Settings):
        if len(_by_algorithm(field)) < 2:
            continue
        found = defaults.by_algorithm(field.name)
        cells = []
        for algorithm in ALGORITHMS:
            values = [value for (name, _), value in found.items() if name == algorithm]
            told = dict.fromkeys(_cell(value) or "-" for value in values)
            cells.append(" / ".join(told) or "-")
        yield f"| [`{field.name}`](#--{field.name}) | " + " | ".join(cells) + " |"


def _by_algorithm(field: dataclasses.Field) -> set:
    """Returns the defaults of a setting; more than one if it depends on the algorithm."""
    if field.name in ("algorithm", "feedback"):
        return set()
    return set(defaults.by_algorithm(field.name).values())


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


def main(arguments: Sequence[str]) -> int:
    text = page()
    if "--check" in arguments:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
