"""Which column of a file of ratings is which: by its header, by its place, or as somebody says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fedrecon.errors import DataError, InputError

USER, ITEM, RATING, TIMESTAMP = ROLES = ("user", "item", "rating", "timestamp")
TITLE, GENRES = "title", "genres"

# Usual names, the better first, in small letters and without signs between.
_NAMES = {
    USER: (
        *("user", "userid", "uid", "reviewerid", "userindex", "useridx", "customerid", "customer"),
        *("memberid", "profileid", "visitorid", "viewerid", "playerid", "steamid", "accountid"),
        *("reviewprofilename", "username", "reviewer", "author", "u"),
    ),
    ITEM: (
        *("item", "itemid", "iid", "movieid", "movie", "asin", "parentasin", "productid"),
        *("product", "isbn", "bookid", "book", "artistid", "animeid", "gameid", "appid", "songid"),
        *("trackid", "jokeid", "businessid", "gmapid", "beerid", "beerbeerid", "recipeid"),
        *("contentid", "articleid", "newsid", "itemindex", "itemidx", "game", "artist", "i"),
    ),
    RATING: (
        *("rating", "ratings", "score", "stars", "star", "overall", "bookrating", "userrating"),
        *("reviewscore", "reviewoverall", "starrating", "myscore", "value", "preference"),
        *("weight", "r"),
    ),
    TIMESTAMP: (
        *("timestamp", "time", "unixreviewtime", "unixtime", "reviewtime", "datetime", "date"),
        *("ts", "createdat", "created", "eventtime", "ratedat", "ratingtimestamp", "dateadded"),
        *("tstamp", "lastupdated", "reviewdate", "t"),
    ),
    TITLE: ("title", "name", "movietitle", "booktitle", "itemname", "itemtitle", "originaltitle"),
    GENRES: ("genres", "genre", "categories", "category", "tags"),
}
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


def parse_columns(text: str) -> dict[str, str]:
    """Returns the names or numbers of columns by role, of `user=...,item=...`.

    Raises:
      InputError: If a role is unknown or comes twice, or the user or the item is missing.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        role, equals, column = (word.strip() for word in part.partition("="))
        if not (equals and column) or role not in ROLES or role in found:
            raise InputError(
                f"--columns={text} must be user=COLUMN,item=COLUMN,rating=COLUMN,timestamp=COLUMN, "
                "each a name of the header or a number from 1; rating and timestamp may be left "
                "out."
            )
        found[role] = column
    if USER not in found or ITEM not in found:
        raise InputError(f"--columns={text} must have user=COLUMN and item=COLUMN.")
    return found


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds names: some that are usual, or no number above numbers."""
    num_known = sum(any(_plain(cell) in names for names in _NAMES.values()) for cell in rows[0])
    if any(map(is_number, rows[0])):
        return num_known > 1
    return num_known > 0 or (len(rows) > 1 and any(map(is_number, rows[1])))


def choose(
    header: Sequence[str] | None,
    sample: Sequence[Sequence[str]],
    *,
    label: str,
    given: Mapping[str, str] | None,
    no_ratings: bool,
) -> Chosen:
    """Returns which columns are the user, the item, the rating and the time.

    Args:
      header: The names of the columns; None if there are none.
      sample: The first rows, at least one.
      label: What to call the file in messages.
      given: What somebody says, see `parse_columns`; nothing else is used then.
      no_ratings: Whether no rating is wanted.

    Raises:
      DataError: If a column is not there, or it cannot be told which one it is.
    """
    num_columns = len(sample[0])
    if given is not None:
        places = {role: _place(header, num_columns, name, label) for role, name in given.items()}
    elif header is not None:
        places = _by_name(header, ROLES)
    else:
        places = _by_place(sample)
    unused = places.pop(RATING, None) if no_ratings else None
    _check(places, header, num_columns, label, no_ratings=no_ratings, is_given=given is not None)
    told = [f"{role} is {_told(header, place)}" for role, place in places.items()]
    by = ", by their place" if header is None else ""
    by = ", as --columns says" if given is not None else by
    notes = [f"Columns{by}: {', '.join(told)}."]
    if header and header[0].strip() in ("", "Unnamed: 0") and 0 not in places.values():
        notes.append("The first column has no name and is not used: pandas writes its index so.")
    elif given is None and unused is None:
        others = [
            _told(header, place) for place in range(num_columns) if place not in places.values()
        ]
        if others:
            notes.append(f"Not used: {', '.join(others)}.")
    if unused is not None:
        notes.append(f"The ratings in {_told(header, unused)} are not used, as --no_ratings says.")
    return Chosen(places, notes)


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
        places = _by_name(header, roles)
        if ITEM not in places:  # The table is one of items: their id may be called just that.
            names = [_plain(name) for name in header]
            places.update({ITEM: names.index("id")} if "id" in names else {})
        if ITEM not in places:
            raise DataError(
                f"{label}: none of its columns {', '.join(header)} is known as the item's id; "
                "call it item."
            )
    told = ", ".join(f"{role} is {_told(header, place)}" for role, place in places.items())
    return Chosen(places, [f"Columns of the items file: {told}."])


def choose_given(
    header: Sequence[str] | None, sample: Sequence[Sequence[str]], *, label: str
) -> Chosen:
    """Returns which columns of what users give are the item, and the rating and user if any.

    An item may be named by its title.

    Raises:
      DataError: If there is no column of items.
    """
    num_columns = len(sample[0])
    if header is None:
        order = {1: (ITEM,), 2: (ITEM, RATING), 3: (USER, ITEM, RATING)}.get(num_columns, ())
        places = {role: place for place, role in enumerate(order)}
    else:
        places = _by_name(header, (USER, ITEM, RATING, TITLE))
        title = places.pop(TITLE, None)
        if ITEM not in places and title is not None:
            places[ITEM] = title
        known = {name for names in _NAMES.values() for name in names}
        others = [name for name in header if _plain(name) not in known | {""}]
        if ITEM in places and others:
            raise DataError(
                f"{label}: it cannot be told what the column {others[0]!r} is; call it user if it "
                "says who rates, and leave it out otherwise."
            )
    if ITEM not in places:
        held = f"its header is {','.join(header)!r}" if header else f"it has {num_columns} columns"
        raise DataError(
            f"{label}: it cannot be told which column is the item; {held}; begin the file with a "
            "header such as item,rating."
        )
    told = ", ".join(f"{role} is {_told(header, place)}" for role, place in places.items())
    return Chosen(places, [f"Columns of {label}: {told}."])


def _plain(name: str) -> str:
    """Returns a name as it stands in `_NAMES`; RecBole writes its type behind a colon."""
    return re.sub("[^a-z0-9]", "", name.partition(":")[0].lower())


def _by_name(header: Sequence[str], roles: Sequence[str]) -> dict[str, int]:
    names = [_plain(name) for name in header]
    places: dict[str, int] = {}
    for role in roles:
        found = [names.index(name) for name in _NAMES[role] if name in names]
        if found:
            places[role] = found[0]
    return places


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


def _place(header: Sequence[str] | None, num_columns: int, name: str, label: str) -> int:
    if header is not None and list(header).count(name) > 1:
        raise DataError(
            f"{label}: two columns are called {name!r}; give their number from 1 in --columns."
        )
    if header is not None and name in header:
        return list(header).index(name)
    if re.fullmatch("[1-9][0-9]{0,3}", name) and int(name) <= num_columns:
        return int(name) - 1
    names = f"named {', '.join(header)}" if header else "without a header"
    raise DataError(
        f"{label} has no column {name!r}, as --columns says; it has {num_columns} columns {names}, "
        "which may also be given by number from 1."
    )


def _check(
    places: Mapping[str, int],
    header: Sequence[str] | None,
    num_columns: int,
    label: str,
    *,
    no_ratings: bool,
    is_given: bool,
) -> None:
    held = f"its header is {','.join(header)!r}" if header else f"it has {num_columns} columns"
    example = "user=...,item=...,rating=...,timestamp=..."
    for role in (USER, ITEM):
        if role not in places:
            raise DataError(
                f"{label}: it cannot be told which column is the {role}; {held}; give --columns="
                f"{example}, {'names' if header else 'numbers from 1'}, the last two if there are "
                "any."
            )
    if RATING not in places and not no_ratings:
        where = (
            "--columns names no rating" if is_given else f"no column is known as the rating; {held}"
        )
        raise DataError(
            f"{label}: {where}; give --columns={example}, or --no_ratings if each row is an "
            "interaction without a rating."
        )
    for role, place in places.items():
        if header and header.count(header[place]) > 1 and not is_given:
            raise DataError(
                f"{label}: two columns are called {header[place]!r}, so it cannot be told which is "
                f"the {role}; give --columns={example}, numbers from 1."
            )
    if len(set(places.values())) < len(places):
        raise DataError(f"{label}: --columns gives one column two roles; give one for each.")


def _told(header: Sequence[str] | None, place: int) -> str:
    return repr(header[place]) if header else f"column {place + 1}"
