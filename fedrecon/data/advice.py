"""How messages name the options of reading: as whoever asks has to write them."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Mapping
from typing import Any


class Advice(enum.Enum):
    """Who reads the message."""

    FLAGS = "a binary's user"
    FIELDS = "a caller of `read_ratings`, with its `ReadingOptions`"
    ARGUMENTS = "a caller of `Ratings.from_dataframe`"

    def called(self, option: str) -> str:
        """Returns how an option is called, such as `--columns`."""
        prefix = {Advice.FLAGS: "--", Advice.FIELDS: "ReadingOptions.", Advice.ARGUMENTS: ""}
        return prefix[self] + option

    def give(self, **options: Any) -> str:
        """Returns how options are given their values, such as `--off_scale=drop`."""
        if self is Advice.FLAGS:
            return " and ".join(_flag(name, value) for name, value in options.items())
        told = ", ".join(f"{name}={_literal(value)}" for name, value in options.items())
        return told if self is Advice.ARGUMENTS else f"ReadingOptions({told})"

    def no_ratings(self) -> str:
        """Returns how rows are taken for interactions."""
        return "rating=None" if self is Advice.ARGUMENTS else self.give(no_ratings=True)

    def no_times(self) -> str:
        """Returns how times are left out."""
        if self is Advice.ARGUMENTS:
            return "timestamp=None"
        return self.give(columns={"timestamp": None})


def _flag(name: str, value: Any) -> str:
    if value is True:
        return f"--{name}"
    if isinstance(value, Mapping):
        value = ",".join(f"{role}={column or 'none'}" for role, column in value.items())
    elif isinstance(value, tuple):
        value = ",".join(f"{number:g}" for number in value)
    return f"--{name}={shlex.quote(value)}"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(f'{number:g}' for number in value)})"
    return repr(value)
