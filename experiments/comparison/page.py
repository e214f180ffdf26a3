"""Tables on a page of results: where they come from, and how far other figures are from them.

A table stands between two comments. The first names a comparison and a section of its report:

    <!-- from ratings: Differences to the best -->
    | ... |
    <!-- end -->
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from experiments.run.names import did_you_mean
from fedrecon.errors import InputError

_BLOCK = re.compile(r"(<!-- from (\w+): ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_NUMBER = re.compile(r"-?[\d,]*\.?\d+")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One comparison whose tables are on the page.

    Attributes:
      preset: The name of its preset.
      flags: What is given after the preset.
      tolerance: How far a figure may be from the page: another processor rounds otherwise, which
        500 rounds enlarge.
    """

    preset: str
    flags: tuple[str, ...] = ()
    tolerance: float = 0.004


_PAPER_SHARED = (
    *("--algorithms=fed_avg", "--references=", "--local_part=shared", "--mean_user"),
    "--set=fed_avg:total_rounds=2000",
    "--set=fed_avg:client_learning_rate=0.2",
)
_PAPER_QUERY_OF_ALL = (
    *("--algorithms=fed_recon", "--references=", "--support_query_split=query_of_all"),
    *("--set=fed_recon:total_rounds=1350", "--set=fed_recon:client_learning_rate=0.3"),
)
_FEW = "--algorithms=fed_recon_ls,fed_recon,centralized"
COMPARISONS = {
    "ratings": Comparison("comparison_ml1m"),
    "fixed_halves": Comparison("comparison_ml1m", (_FEW, "--example_order=shuffle_once")),
    "by_time": Comparison("comparison_ml1m", (_FEW, "--unseen_halves=by_time")),
    "cold_items": Comparison("comparison_cold_items_ml1m"),
    "paper": Comparison("comparison_paper_ml1m"),
    "paper_shared": Comparison("comparison_paper_ml1m", _PAPER_SHARED),
    "paper_query_of_all": Comparison("comparison_paper_ml1m", _PAPER_QUERY_OF_ALL),
    "rankings": Comparison("comparison_ncf_ml1m"),
    "rankings_unseen": Comparison("comparison_ncf_ml1m", ("--unseen_fraction=0.1",)),
    "strong": Comparison("comparison_strong_ml1m"),
    "neumf": Comparison("comparison_neumf_ncf_ml1m", tolerance=0.02),
}


def named(name: str) -> list[str]:
    """Returns the comparisons that a name stands for: itself, or all whose names begin with it.

    Raises:
      InputError: If there are none.
    """
    found = [each for each in COMPARISONS if each == name or each.startswith(f"{name}_")]
    if not found:
        raise InputError(
            f"there is no comparison {name!r}{did_you_mean(name, COMPARISONS)} Known are "
            f"{', '.join(COMPARISONS)}."
        )
    return found


@dataclasses.dataclass(frozen=True)
class Block:
    """A table of the page.

    Attributes:
      comparison: The name of the comparison that it comes from.
      section: The heading of the section of the report.
      table: Its lines, with newlines.
    """

    comparison: str
    section: str
    table: str


def blocks(page: str) -> list[Block]:
    """Returns the tables that a page takes from comparisons."""
    return [Block(*found.group(2, 3, 4)) for found in _BLOCK.finditer(page)]


def with_tables(page: str, tables: Mapping[tuple[str, str], str]) -> str:
    """Returns the page with other tables, by comparison and section; the others stay."""

    def replaced(found: re.Match) -> str:
        table = tables.get(found.group(2, 3), found[4])
        return f"{found[1]}{table}{found[5]}"

    return _BLOCK.sub(replaced, page)


def tables_of(report: str) -> dict[str, str]:
    """Returns the first table of each section of a report (`comparison.md`), by its heading."""
    tables = {}
    for part in re.split(r"^#+ ", report, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        lines = text.splitlines(keepends=True)
        first = next((n for n, line in enumerate(lines) if line.startswith("|")), None)
        if first is not None:
            last = first
            while last < len(lines) and lines[last].startswith("|"):
                last += 1
            tables[heading.strip()] = "".join(lines[first:last])
    return tables


def differences(old: str, new: str, *, tolerance: float) -> list[str]:
    """Returns a sentence for each cell of two tables that differs.

    Args:
      old: The table of the page.
      new: The table of a report.
      tolerance: How far the first number of a cell may be from the other. Spreads and intervals,
        the numbers after it, are not compared: they follow from the same figures.
    """
    before, after = _cells(old), _cells(new)
    told = [f"{_place(place)} is not in the new table" for place in before if place not in after]
    told += [f"{_place(place)} is new" for place in after if place not in before]
    for place, cell in before.items():
        if place not in after:
            continue
        numbers = [_first_number(text) for text in (cell, after[place])]
        if None in numbers:
            is_same = cell == after[place]
        else:
            is_same = abs(numbers[0] - numbers[1]) <= tolerance
        if not is_same:
            told.append(f"{_place(place)} was {cell} and is {after[place]}")
    return told


def _cells(table: str) -> dict[tuple[str, str], str]:
    """Returns the cells by row and column. The first column, and any other of words, name a row."""
    if not table.strip():  # A table that was never filled in.
        return {}
    lines = [line.strip().strip("|").split("|") for line in table.strip().splitlines()]
    if len(lines) < 2:
        raise InputError(f"expected a table with a heading, found {table!r}.")
    rows = [[cell.strip() for cell in line] for line in (lines[0], *lines[2:])]
    is_word = [cell.strip().startswith(":") for cell in lines[1]]
    found = {}
    for row in rows[1:]:
        name = " ".join(cell for cell, word in zip(row, is_word) if word)
        for heading, cell, word in zip(rows[0], row, is_word):
            if not word:
                found[name, heading] = cell.replace("*", "")
    return found


def _place(place: tuple[str, str]) -> str:
    return f"{place[0]}, {place[1]}"


def _first_number(cell: str) -> float | None:
    found = _NUMBER.search(cell)
    return None if found is None else float(found[0].replace(",", ""))
