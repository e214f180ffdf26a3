"""Which column of a file of ratings is which: by its header, by its place, or as somebody says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fedrecon.data.advice import Advice
from fedrecon.data.column_names import (
    GENRES,
    ITEM,
    RATING,
    ROLES,
    TIMESTAMP,
    TITLE,
    USER,
    candidates,
    is_known,
)
from fedrecon.data.file_columns import NO_COLUMN, FileColumns
from fedrecon.errors import DataError, InputError

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
# No scale of ratings goes so far; seconds since 1970 do, from 1973 on.
_LEAST_TIME = 1e8


class Chosen(NamedTuple):
    """The columns of a file that are read.

    Attributes:
      places: For each role the place of its column, from 0.
      notes: What was decided, in sentences.
    """

    places: dict[str, int]
    notes: list[str]


def is_number(text: str) -> bool:
    """Whether a text is a finite number, as in `4`, `-3.75` and `1e9`."""
    return _NUMBER.fullmatch(text) is not None


def parse_columns(text: str) -> dict[str, str | None]:
    """Returns the names or numbers of columns by role, of `user=...,item=...`.

    Not every role need be named. `timestamp=none` gives None: there are no times.

    Raises:
      InputError: If a role is unknown or comes twice.
    """
    found: dict[str, str | None] = {}
    for part in text.split(","):
        role, equals, column = (word.strip() for word in part.partition("="))
        if not (equals and column) or role not in ROLES or role in found:
            raise InputError(
                f"--columns={text} must be some of user=COLUMN,item=COLUMN,rating=COLUMN,"
                "timestamp=COLUMN, each a name of the header or a number from 1."
            )
        found[role] = None if role == TIMESTAMP and column == NO_COLUMN else column
    return found


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds names: some that are usual, or no number above numbers."""
    num_known = sum(map(is_known, rows[0]))
    if any(map(is_number, rows[0])):
        return num_known > 1
    return num_known > 0 or (len(rows) > 1 and any(map(is_number, rows[1])))


def choose(
    header: Sequence[str] | None,
    sample: Sequence[Sequence[str]],
    *,
    label: str,
    given: Mapping[str, str | None] | None,
    no_ratings: bool,
    advice: Advice,
) -> Chosen:
    """Returns which columns are the user, the item, the rating and the time.

    Args:
      header: The names of the columns; None if there are none.
      sample: The first rows, at least one.
      label: What to call the file in messages.
      given: What somebody says, see `parse_columns`; the other roles are found out.
      no_ratings: Whether no rating is wanted.
      advice: Who reads messages.

    Raises:
      DataError: If a column is not there, or it cannot be told which one it is.
    """
    given = given or {}
    file = FileColumns(label, header, len(sample[0]), advice, given)
    places = file.places()
    by_place = _by_place(sample) if header is None else {}
    for role in ROLES:
        if role in given:
            continue
        found = [by_place[role]] if role in by_place else candidates(header or (), role)
        found = [place for place in found if place not in places.values()]
        if len(found) > 1 and not (role == RATING and no_ratings):
            raise DataError(file.ambiguous(role, found))
        places.update({role: found[0]} if found else {})
    unused = places.pop(RATING, None) if no_ratings else None
    missing = [role for role in ROLES[: 2 if no_ratings else 3] if role not in places]
    if missing:
        raise DataError(file.refusal(places, missing))
    return Chosen(places, file.notes(places, unused))


def choose_of_items(header: Sequence[str] | None, num_columns: int, *, label: str) -> Chosen:
    """Returns which columns of an items file are the item, its title and its genres.

    Raises:
      DataError: If there is no column of items.
    """
    roles = (ITEM, TITLE, GENRES)
    if header is None:
        # u.item has 24 columns, of which the third is a date.
        places = {role: place for place, role in enumerate(roles) if place < num_columns}
        if num_columns > len(roles):
            del places[GENRES]
    else:
        # Two ids beside each other (a book's own and its ISBN) are usual here: the first is taken.
        found = {role: candidates(header, role)[:1] for role in roles}
        places = {role: place for role, of_role in found.items() for place in of_role}
        if places.get(ITEM) == places.get(TITLE):  # No other column names the item.
            places.pop(ITEM, None)
        names = [name.strip().lower() for name in header]
        if ITEM not in places and "id" in names:
            places[ITEM] = names.index("id")  # The table is one of items.
        if ITEM not in places:
            raise DataError(
                f"{label}: none of its columns {', '.join(header)} is known as the item's id; "
                "call it item."
            )
    file = FileColumns(label, header, num_columns, Advice.FLAGS, {})
    return Chosen(places, [f"Columns of the items file: {file.told_roles(places)}."])


def choose_given(
    header: Sequence[str] | None,
    sample: Sequence[Sequence[str]],
    *,
    label: str,
    given: Mapping[str, str | None] | None = None,
    known: Mapping[str, str | None] | None = None,
) -> Chosen:
    """Returns which columns of what users give are the item, and the rating and user if any.

    An item may be named by its title.

    Args:
      header: The names of the columns; None if there are none.
      sample: The first rows, at least one.
      label: What to call the file in messages.
      given: What somebody says of this file, see `parse_columns`.
      known: What was said of the file that the model was trained on: names that this one may have.

    Raises:
      DataError: If there is no column of items, or it cannot be told which one it is.
    """
    file = FileColumns(label, header, len(sample[0]), Advice.FLAGS, given or {})
    places = file.places()
    for role, name in (known or {}).items():
        if role not in places and header is not None and header.count(name) == 1:
            places[role] = header.index(name)
    order = {1: (ITEM,), 2: (ITEM, RATING), 3: (USER, ITEM, RATING)}.get(file.num_columns, ())
    for role in ROLES:
        if role in places:
            continue
        found = [order.index(role)] if header is None and role in order else []
        found = found or candidates(header or (), role)
        found = [place for place in found if place not in places.values()]
        if len(found) > 1 and role != TIMESTAMP:
            raise DataError(file.ambiguous(role, found))
        places.update({role: found[0]} if found else {})
    if ITEM not in places:
        raise DataError(file.refusal(places, [ITEM]))
    if header is not None and USER not in places and not given:
        for place, name in enumerate(header):
            if place not in places.values() and name.strip() and not is_known(name):
                raise DataError(
                    f"{label}: it cannot be told what the column {name!r} is; give "
                    f"{Advice.FLAGS.give(columns={USER: file.name(place)})} if it says who rates, "
                    "and leave it out otherwise."
                )
    places.pop(TIMESTAMP, None)
    return Chosen(places, [f"Columns of {label}: {file.told_roles(places)}."])


def choose_of_frame(names: Sequence[object]) -> dict[str, object]:
    """Returns the columns of a data frame by role: user, item and rating, as far as there are such.

    Raises:
      InputError: If two columns may have one role.
    """
    found = {}
    header = list(map(str, names))
    for role in (USER, ITEM, RATING):
        places = candidates(header, role)
        if len(places) > 1:
            told = " and ".join(repr(header[place]) for place in places)
            raise InputError(
                f"the columns {told} may each be the {role}; leave all but one of them out."
            )
        if places:
            found[role] = names[places[0]]
    return found


def _by_place(sample: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns user, item, rating, timestamp for 2 to 4 columns; nothing for more."""
    num_columns = len(sample[0])
    if not 2 <= num_columns <= len(ROLES):
        return {}
    places = {role: place for place, role in enumerate(ROLES[:num_columns])}
    third = [row[2] for row in sample] if num_columns == 3 else []
    if third and all(is_number(cell) and float(cell) >= _LEAST_TIME for cell in third):
        places[TIMESTAMP] = places.pop(RATING)
    return places
