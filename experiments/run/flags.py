"""The one way from a command line to settings, for all binaries.

flags.define_flags()                     a flag for each setting
flags.settings_from_flags(seed=3)        the settings of one run
flags.refuse_unused([settings, ...])     a flag that no run has a use for
flags.parse_sweeps, flags.parse_changes  --sweep and --search; --set
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags

from experiments.run import defaults, fields, settings
from experiments.run.names import (
    ALGORITHMS,
    REFERENCES,
    current_algorithm,
    did_you_mean,
    listed,
    note,
)
from experiments.run.settings import Settings
from fedrecon.data.population import STRONG_GENERALIZATION
from fedrecon.errors import InputError

_NOT_CHANGEABLE = ("output_dir", "algorithm", "seed")


class _NumberParser(flags.ArgumentParser):
    """Reads a number; `Settings` checks its range."""

    def __init__(self, kind: type):
        self.syntactic_help = f"({fields.KIND_NAMES[kind]})"
        self._kind = kind

    def parse(self, argument):
        try:
            return self._kind(argument)
        except ValueError:
            raise ValueError(f"it must be {fields.KIND_NAMES[self._kind]}") from None

    def flag_type(self):
        return self._kind.__name__


def define_flags(*, without: Iterable[str] = ()) -> None:
    """Defines a flag for each setting but some."""
    for field in dataclasses.fields(Settings):
        if field.name in without:
            continue
        kind, text = fields.kind(field), field.metadata["help"]
        if kind is bool:
            flags.DEFINE_bool(field.name, field.default, text)
        elif kind is str:
            flags.DEFINE_string(field.name, field.default, text)
        else:
            flags.DEFINE(_NumberParser(kind), field.name, field.default, text)


def settings_from_flags(*, has_references: bool = False, **changes: Any) -> Settings:
    """Returns the settings of one run.

    A setting that has no effect beside the others has its default; see `refuse_unused`.

    Args:
      has_references: Whether the binary trains references such as `item_knn`, too.
      **changes: Settings in place of what the flags say.

    Raises:
      InputError: If a value is out of range, values do not go together, or --output_dir is missing.
    """
    given = flags.FLAGS
    names = [field.name for field in dataclasses.fields(Settings) if field.name in given]
    values = {name: given[name].value for name in names}
    values.update(changes)
    if values["ratings_file"] is not None:
        if given["dataset"].present and given["dataset"].value != "file":
            raise InputError("give --ratings_file or --dataset, not both.")
        values["dataset"] = "file"
    if "feedback" not in changes:
        values["feedback"] = chosen_feedback([values["algorithm"]])
    values["algorithm"] = current_algorithm(
        values["algorithm"], values["feedback"], flag="algorithm"
    )
    chosen = {name for name in values if name in changes or given[name].present}
    found = defaults.defaults_of(values, chosen)
    values.update({name: value for name, value in found.items() if name not in chosen})
    if values["algorithm"] in REFERENCES and not has_references:
        raise InputError(
            f"--algorithm={values['algorithm']} is a reference, which has no rounds to train; "
            "experiments.compare and experiments.tune have it."
        )
    if values["algorithm"] not in (*ALGORITHMS, *REFERENCES):
        known = (*ALGORITHMS, *REFERENCES) if has_references else ALGORITHMS
        raise InputError(
            f"--algorithm={values['algorithm']} must be {listed(known)}"
            f"{did_you_mean(values['algorithm'], known)}"
        )
    if values["output_dir"] is None:
        raise InputError("give --output_dir=DIR, a new folder or the folder of a run to resume.")
    return Settings.of_used(values)


def chosen_feedback(algorithms: Sequence[str]) -> str:
    """Returns the kind of feedback that the flags ask for, by themselves or by the data."""
    if flags.FLAGS["feedback"].present:
        return flags.FLAGS.feedback
    if flags.FLAGS.no_ratings or flags.FLAGS.split == STRONG_GENERALIZATION:
        return "implicit"
    return defaults.feedback_of(flags.FLAGS.dataset, algorithms)


def refuse_unused(runs: Sequence[Settings], *, is_comparison: bool = False) -> None:
    """Refuses a flag of the command line that has no effect on any of the runs.

    A flag of a preset (`--flagfile`) is only noted in a comparison, whose algorithms may be others
    than those of the preset; so is each flag where all runs are of references, which use few.

    Args:
      runs: The runs that the command line asks for; at least one.
      is_comparison: Whether the runs are of several algorithms.

    Raises:
      InputError: For the first such flag.
    """
    has_only_references = not any(run.is_trained for run in runs)
    unused, partly = [], []
    for name in (field.name for field in dataclasses.fields(Settings)):
        if name not in flags.FLAGS or not flags.FLAGS[name].present:
            continue
        without = [run.algorithm for run in runs if not settings.uses(run, name)]
        if len(without) == len(runs):
            is_from_preset = is_comparison and not _is_direct(name)
            if not is_from_preset and not has_only_references:
                raise InputError(settings.no_effect(runs[0], name))
            unused.append(f"--{name}")
            continue
        # References use few flags; to list them each time would tell nothing.
        without = [algorithm for algorithm in without if algorithm in ALGORITHMS]
        if without and is_comparison and _is_direct(name):
            partly.append(f"--{name} ({', '.join(dict.fromkeys(without))})")
    if unused:
        verb = "has" if len(unused) == 1 else "have"
        algorithms = ", ".join(dict.fromkeys(run.algorithm for run in runs))
        note(f"{', '.join(unused)} {verb} no effect on {algorithms}.")
    if partly:
        note(f"without effect on some algorithms: {', '.join(partly)}.")


def refuse_given(names: Iterable[str], sentence: Callable[[str], str]) -> None:
    """Refuses a flag that the command line gives.

    Args:
      names: The names of the flags.
      sentence: From a name to the reason.
    """
    for name in names:
        if flags.FLAGS[name].present:
            raise InputError(sentence(name))


def _is_direct(name: str) -> bool:
    """Whether a flag stands in the command line itself, and not only in a --flagfile."""
    words = [word.lstrip("-").partition("=")[0] for word in sys.argv[1:] if word.startswith("-")]
    return name in words or f"no{name}" in words


def parse_sweeps(flag: str, texts: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """Returns settings and their values of `SETTING:VALUE,VALUE,...`.

    Args:
      flag: The name of the flag, for errors.
      texts: The texts after the flag's `=`.
    """
    sweeps = []
    for text in texts:
        name, colon, values = text.partition(":")
        if not colon or not values:
            raise InputError(f"--{flag}={text} must be SETTING:VALUE,VALUE,...")
        sweeps.append((name, [_parse_value(flag, text, name, v) for v in values.split(",")]))
    return sweeps


def parse_changes(
    flag: str, texts: Sequence[str], *, feedback: str, known: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns the settings of each algorithm of `ALGORITHM:SETTING=VALUE`.

    Args:
      flag: The name of the flag, for errors.
      texts: The texts after the flag's `=`.
      feedback: The feedback of the runs.
      known: The algorithms that exist.
    """
    changes: dict[str, dict[str, Any]] = {}
    current: dict[str, str] = {}
    for text in texts:
        algorithm, colon, assignment = text.partition(":")
        name, equals, value = assignment.partition("=")
        if not (colon and equals):
            raise InputError(f"--{flag}={text} must be ALGORITHM:SETTING=VALUE.")
        if algorithm not in current:  # A name of before is noted once.
            current[algorithm] = current_algorithm(algorithm, feedback, flag=flag)
        algorithm = current[algorithm]
        if algorithm not in known:
            raise InputError(
                f"--{flag}={text} must be ALGORITHM:SETTING=VALUE; there is no algorithm "
                f"{algorithm!r}{did_you_mean(algorithm, known)}"
            )
        changes.setdefault(algorithm, {})[name] = _parse_value(flag, text, name, value)
    return changes


def _parse_value(flag: str, text: str, name: str, value: str) -> Any:
    """Returns the value of a setting that a flag changes.

    Args:
      flag: The name of the flag, for errors.
      text: The text after its `=`, for errors.
      name: The setting.
      value: Its value, as on the command line.
    """
    every = {field.name for field in dataclasses.fields(Settings)}
    if name in every and name not in _NOT_CHANGEABLE and settings.decides_questions(name):
        raise InputError(
            f"--{flag}={text}: {name} decides which users are judged, or what they are asked, so "
            f"figures would not be comparable. Give --{name} once, for all runs."
        )
    changeable = sorted(every.difference(_NOT_CHANGEABLE))
    if name in _NOT_CHANGEABLE:
        raise InputError(f"--{flag}={text}: {name} cannot be changed here.")
    if name not in changeable:
        raise InputError(
            f"--{flag}={text}: there is no setting {name!r}{did_you_mean(name, changeable)}"
        )
    try:
        return flags.FLAGS[name].parser.parse(value)
    except ValueError as error:
        raise InputError(f"--{flag}={text}: {error}.") from error


def refuse_comparison(path: pathlib.Path) -> None:
    """Refuses the folder of a comparison or a search where a run directory is wanted."""
    runs = path / "runs"
    if runs.is_dir() and any(runs.iterdir()):
        first = min(runs.iterdir())
        raise InputError(f"{path} holds several runs; give one of its runs, such as {first}.")
