"""Titles and genres of items, from a file of any layout."""

from __future__ import annotations

import dataclasses

from fedrecon.data import columns as columns_lib
from fedrecon.data.columns import ITEM
from fedrecon.data.delimited import TextTable
from fedrecon.data.ratings import Ratings


def with_items(ratings: Ratings, table: TextTable) -> Ratings:
    """Returns the ratings with the titles and genres of a file; an item may have no line in it."""
    chosen = columns_lib.choose_of_items(table.header, len(table.sample[0]), label=table.label)
    titles: dict[str, str] = {}
    genres: dict[str, tuple[str, ...]] = {}
    num_again = 0
    for _, part in table.chunks(chosen.places, {}):
        ids = part[ITEM].str.strip().tolist()
        no_text = [""] * len(ids)
        of_titles = part.get(columns_lib.TITLE, no_text)
        of_genres = part.get(columns_lib.GENRES, no_text)
        for item, title, listed in zip(ids, of_titles, of_genres):
            num_again += item in titles
            titles.setdefault(item, title.strip())
            genres.setdefault(item, _split_genres(listed))
    names = [str(item) for item in ratings.original_item_ids.tolist()]
    missing = sum(name not in titles for name in names)
    notes = [*chosen.notes]
    if missing:
        notes.append(f"{missing:,} of {len(names):,} items have no line in {table.label}.")
    if num_again:
        notes.append(f"{num_again:,} lines of {table.label} are of an item that came before.")
    has_titles, has_genres = (role in chosen.places for role in ("title", "genres"))
    return dataclasses.replace(
        ratings,
        item_titles=tuple(titles.get(name, "") for name in names) if has_titles else None,
        item_genres=tuple(genres.get(name, ()) for name in names) if has_genres else None,
        notes=(*ratings.notes, *notes),
    )


def _split_genres(text: str) -> tuple[str, ...]:
    separator = "|" if "|" in text else ","
    parts = (part.strip() for part in text.split(separator))
    return tuple(part for part in parts if part and part != "(no genres listed)")
