"""What `--help` shows: the flags to start with, then the other flags by group."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence

from absl import app, flags

from experiments.run import defaults, fields, past_run, relevance, runtime
from experiments.run.settings import Settings

PRESETS = pathlib.Path(__file__).resolve().parents[1] / "presets"
_ALL = "all"
_DEPENDS = {"feedback": "implicit for the NCF files, fed_ials, ials and EASE; else explicit"}
_WIDTH = 100
_INDENT = " " * 8


class Wanted(Exception):
    """The user wants help; `group` says on which flags, see `text`."""

    def __init__(self, group: str):
        super().__init__(group)
        self.group = group


class HelpFlag(flags.BooleanFlag):
    """`--help` explains the flags to start with, `--help=GROUP` a group, `--help=all` each flag."""

    def __init__(self):
        super().__init__("help", False, "Explain the flags.", short_name="h")

    def parse(self, argument):
        if argument not in ("false", "0"):
            raise Wanted("" if argument in ("true", "1", None) else str(argument))


def define() -> None:
    """Defines `--help` and `--helpfull`, which also explains the flags of absl."""
    flags.DEFINE_flag(HelpFlag())
    flags.DEFINE_flag(app.HelpfullFlag())


def text(group: str) -> str:
    """Returns the help of the running binary.

    Args:
      group: One of `fields.GROUPS`, `all`, or empty for the overview.
    """
    own, has_settings = own_flags(), "dataset" in flags.FLAGS
    settings = [f for f in dataclasses.fields(Settings) if f.name in flags.FLAGS]
    if group in fields.GROUPS and has_settings:
        return "\n".join(_explained(_in_group(settings, group)))
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), ""]
    if not has_settings:
        return "\n".join([*lines, "Flags", *_explain(own)])
    (output_dir,) = (field for field in settings if field.name == "output_dir")
    lines.append("Start here")
    if group == _ALL:
        lines += [*_explained([output_dir]), *_explain(own)]
        for each in fields.GROUPS:
            lines += ["", f"Flags of the {each}", *_explained(_in_group(settings, each))]
    else:
        start = [field for field in settings if field.metadata["start"]]
        lines.append(_in_short("output_dir", "required", output_dir.metadata["help"]))
        for flag in (flags.FLAGS[name] for name in own):
            lines.append(_in_short(flag.name, default_in_words(flag.default), flag.help))
        for field in start:
            if field is not output_dir:
                told, choices = field.metadata["help"], field.metadata["choices"] or ()
                lines.append(_in_short(field.name, _default(field), told, choices))
        lines += ["", "Other flags, by group; --help=GROUP explains them, --help=all explains all"]
        for each in fields.GROUPS:
            others = [f for f in _in_group(settings, each) if not f.metadata["start"]]
            names = " ".join(f"--{field.name}" for field in others)
            lines.append(_wrapped(names, f"  {each:11}", " " * 13))
    lines += ["", *_presets(own)]
    return "\n".join(lines)


def own_flags() -> list[str]:
    """Returns the names of the flags that the binary defines beside the settings."""
    by_module = flags.FLAGS.flags_by_module_dict()
    # absl names the module that is run by its path.
    modules = (past_run.__name__, sys.argv[0], runtime.__name__)
    found = [flag for module in modules for flag in by_module.get(module, [])]
    return [flag.name for flag in found if not isinstance(flag, (HelpFlag, app.HelpfullFlag))]


def _in_group(settings: Sequence[dataclasses.Field], group: str) -> list[dataclasses.Field]:
    return [field for field in settings if field.metadata["group"] == group]


def _explain(names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        flag = flags.FLAGS[name]
        # absl tells how to repeat a flag; so do the texts.
        lines += _entry(name, default_in_words(flag.default), flag.help.partition(";\n")[0])
    return lines


def _explained(settings: Sequence[dataclasses.Field]) -> list[str]:
    lines = []
    for field in settings:
        default = "required" if field.name == "output_dir" else _default(field)
        only = relevance.in_words(field.metadata["only"])
        only = f" Only with {only}." if only else ""
        lines += _entry(field.name, default, field.metadata["help"] + only)
    return lines


def _default(field: dataclasses.Field) -> str:
    told = _DEPENDS.get(field.name) or defaults.told(field.name)
    return told or default_in_words(field.default)


def _in_short(name: str, default: str, explanation: str, choices: Sequence[str] = ()) -> str:
    """Returns the first sentence about a flag and its default, on a line or two."""
    first, others = f"  --{name:20}", " " * 24
    if len(name) >= 20:
        first += "  "
    # absl tells how to repeat a flag and which values it has; so do the texts.
    explanation = re.sub(r"^<[^>]*>: ", "", explanation.partition(";\n")[0])
    sentence = re.split(r"\.\s+(?=[A-Z`-])|\.$|: (?=[a-z_]+:)|\.\s(?=[a-z_]+: )", explanation)[0]
    # A binary may refuse others.
    choices = [choice for choice in choices if re.search(rf"\b{choice}\b", explanation)]
    if choices and not all(choice in sentence for choice in choices):
        # The sentence may explain the first choice.
        said = "" if any(choice in sentence for choice in choices) else f"{sentence}: "
        sentence = f"{said}{', '.join(choices)}"
    return _wrapped(f"{sentence} ({default})", first, others)


def _entry(name: str, default: str, explanation: str) -> Iterator[str]:
    yield f"  --{name}  ({default})"
    yield _wrapped(explanation, _INDENT, _INDENT)


def default_in_words(value: object) -> str:
    """Returns the default of a flag as `--help` shows it."""
    if value is None or value == []:
        return "not given"
    return ",".join(value) if isinstance(value, list) else str(value)


def _wrapped(words: str, first: str, others: str) -> str:
    return textwrap.fill(
        words,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _presets(own: Sequence[str]) -> list[str]:
    """Returns the presets of this binary: each binary has a flag that the others do not have."""
    marks = {"algorithms": "--algorithms=", "search": "--search="}
    (mark,) = [marks[name] for name in own if name in marks] or [None]
    names = []
    for path in sorted(PRESETS.glob("*.flags")):
        lines = path.read_text().splitlines()
        found = [m for m in marks.values() if any(line.startswith(m) for line in lines)]
        if found == ([mark] if mark else []):
            names.append(path.name)
    if not names:
        return []
    title = "Presets, as --flagfile=experiments/presets/NAME; a flag after it overrides it"
    return [title, *(f"  {name}" for name in names)]
