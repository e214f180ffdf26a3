"""The columns of one file, as somebody names them and as messages do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from fedrecon.data.advice import Advice
from fedrecon.data.column_names import GENRES, RATING, ROLES, TIMESTAMP, TITLE, is_known
from fedrecon.errors import DataError

# In place of a column: there is none.
NO_COLUMN = "none"


class FileColumns(NamedTuple):
    """The columns of a file, which messages name.

    Attributes:
      label: What to call the file.
      header: The names of the columns; None if there are none.
      num_columns: How many there are.
      advice: Who reads messages.
      given: What somebody says of the columns, see `columns.parse_columns`.
    """

    label: str
    header: Sequence[str] | None
    num_columns: int
    advice: Advice
    given: Mapping[str, str | None]

    def places(self) -> dict[str, int]:
        """Returns the places, from 0, of the columns that somebody names, by role.

        Raises:
          DataError: If there is no such column, or one is given two roles.
        """
        places = {role: self._place(name) for role, name in self.given.items() if name is not None}
        if len(set(places.values())) < len(places):
            option = self.advice.called("columns")
            raise DataError(
                f"{self.label}: {option} gives one column two roles; give one for each."
            )
        return places

    def _place(self, name: str) -> int:
        header = list(self.header or ())
        option = self.advice.called("columns")
        if header.count(name) > 1:
            raise DataError(
                f"{self.label}: two columns are called {name!r}; give their number from 1 in "
                f"{option}."
            )
        if name in header:
            return header.index(name)
        if re.fullmatch("[1-9][0-9]{0,3}", name) and int(name) <= self.num_columns:
            return int(name) - 1
        names = f"named {', '.join(header)}" if header else "without a header"
        raise DataError(
            f"{self.label} has no column {name!r}, as {option} says; it has {self.num_columns} "
            f"columns {names}, which may also be given by number from 1."
        )

    def ambiguous(self, role: str, places: Sequence[int]) -> str:
        """Returns that several columns may have a role, and how to say which one it is."""
        names = {self.header[place] for place in places}
        if len(names) == 1:
            told = f"two columns are called {names.pop()!r}, so it cannot be told which"
            told += f" is the {role}"
        else:
            told = f"{' and '.join(map(self.told, places))} may each be the {role}"
        ways = [
            self.advice.give(columns={**self.given, role: self.name(place)}) for place in places
        ]
        if role == TIMESTAMP:
            ways.append(self.advice.give(columns={**self.given, role: None}))
        return f"{self.label}: {told}; give {' or '.join(ways)}."

    def refusal(self, places: Mapping[str, int], missing: Sequence[str]) -> str:
        """Returns which roles have no column, which have one, and what would work."""
        others = self._others(places.values())
        *before, last = missing
        listed = f"{', the '.join(before)} or the {last}" if before else last
        told = f"no column is known as the {listed}"
        if self.header is None:
            told += f"; it has {self.num_columns} columns and no header"
        if places:
            told += f"; recognized: {self.told_roles(places)}"
        if others and self.header is not None:
            told += f"; not recognized: {', '.join(map(self.told, others))}"
        ways = []
        if len(others) >= len(missing):
            names = {role: self.name(place) for role, place in zip(missing, others)}
            example = {**self.given, **names}
            is_sure = len(others) == 1
            ways.append(f"{'' if is_sure else 'for example '}{self.advice.give(columns=example)}")
        if missing == [RATING]:
            ways.append(
                f"{self.advice.no_ratings()} if each row is an interaction without a rating"
            )
        if not ways:
            return f"{self.label}: {told}; a file of ratings needs such a column."
        return f"{self.label}: {told}; give {', or '.join(ways)}."

    def notes(self, places: Mapping[str, int], unused: int | None) -> list[str]:
        """Returns what was decided, in sentences.

        Args:
          places: The columns that are read.
          unused: The column of ratings that are not wanted, if any.
        """
        option = self.advice.called("columns")
        by = ", by their place" if self.header is None else ""
        if self.given and set(self.given) >= set(places):
            by = f", as {option} says"
        elif self.given:
            by = f" ({' and '.join(self.given)} as {option} says)"
        notes = [f"Columns{by}: {self.told_roles(places)}."]
        if self.header and self._is_index(0) and 0 not in places.values():
            notes.append(
                "The first column has no name and is not used: pandas writes its index so."
            )
        others = self._others((*places.values(), unused))
        if others:
            notes.append(f"Not used: {', '.join(map(self.told, others))}.")
        if self.header and TIMESTAMP not in (*places, *self.given):
            unknown = [place for place in others if not is_known(self.header[place])]
            if unknown:
                columns = {**self.given, TIMESTAMP: self.name(unknown[0])}
                way = self.advice.give(columns=columns)
                notes.append(f"No column is known as the time; {way} names one.")
        if unused is not None:
            notes.append(
                f"The ratings in {self.told(unused)} are not used, as "
                f"{self.advice.called('no_ratings')} says."
            )
        return notes

    def _others(self, places: Collection[int | None]) -> list[int]:
        """Returns the places of the other columns."""
        every = range(self.num_columns)
        return [place for place in every if place not in places and not self._is_index(place)]

    def _is_index(self, place: int) -> bool:
        return bool(self.header) and self.header[place].strip() in ("", "Unnamed: 0")

    def told_roles(self, places: Mapping[str, int]) -> str:
        order = [role for role in (*ROLES, TITLE, GENRES) if role in places]
        return ", ".join(f"{role} is {self.told(places[role])}" for role in order)

    def told(self, place: int) -> str:
        return repr(self.header[place]) if self.header else f"column {place + 1}"

    def name(self, place: int) -> str:
        """Returns how a column is given: by its name, or by its number where that does not do."""
        name = self.header[place] if self.header else ""
        is_plain = name and name == name.strip() and not set(name) & set(",=")
        if is_plain and self.header.count(name) == 1 and name != NO_COLUMN:
            return name
        return str(place + 1)
