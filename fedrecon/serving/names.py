"""Finds who or what a name means: as it is written, or else whatever the case of its letters."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

NUM_OFFERED = 3
_LEAST_LIKENESS = 0.6


class Names:
    """Rows by their names; a row may have several names, and a name several rows."""

    def __init__(self, named: Iterable[tuple[str, int]]):
        """Takes each name with its row, in the order in which near names are offered."""
        exact: dict[str, dict[int, None]] = {}
        alike: dict[str, dict[int, None]] = {}
        for name, row in named:
            exact.setdefault(name, {})[row] = None
            alike.setdefault(folded(name), {})[row] = None
        self._exact = {name: list(rows) for name, rows in exact.items()}
        self._folded = {name: list(rows) for name, rows in alike.items()}

    def find(self, text: str) -> Sequence[int]:
        """Returns the rows that a name means: one, or several if it is ambiguous, or none.

        One row that is called exactly so goes before others whose letters differ in case.
        """
        for spelled in (text, text.strip()):
            if len(self._exact.get(spelled, ())) == 1:
                return self._exact[spelled]
        return self._folded.get(folded(text), ())

    def near(self, text: str) -> list[int]:
        """Returns the rows that somebody may have meant by a name that means none.

        Rows whose names hold each word come in the order of the names; else those come that are
        written alike, the likeliest first.
        """
        wanted = folded(text)
        words = [word.strip("(),.:") for word in wanted.split()]
        rows = [
            row
            for name, of_name in self._folded.items()
            for row in of_name
            if words and all(word in name for word in words)
        ]
        if not rows:
            alike = difflib.get_close_matches(
                wanted, list(self._folded), NUM_OFFERED, _LEAST_LIKENESS
            )
            rows = [row for name in alike for row in self._folded[name]]
        return list(dict.fromkeys(rows))


def folded(name: str) -> str:
    """Returns a name without the case of its letters and without blanks that do not count."""
    return " ".join(name.casefold().split())


def refusal(
    text: str, names: Names, *, kind: str, unknown: str, offer: Callable[[int], str]
) -> str:
    """Returns why a name does not mean one row, in sentences; near names are offered.

    Args:
      text: The name.
      names: The names that there are.
      kind: What rows are, such as `item`.
      unknown: What to say if no row is called so, without a period.
      offer: Returns how to name a row.
    """
    meant = names.find(text)
    rows = meant or names.near(text)
    offers = " or ".join(offer(row) for row in rows[:NUM_OFFERED])
    if meant:
        return f"{text!r} names {len(meant)} {kind}s; name one of them alone: {offers}."
    return f"{unknown}.{f' Did you mean {offers}?' if offers else ''}"
