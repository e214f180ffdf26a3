"""Ratings of large files as they were read before, kept in the cache folder.

What is kept is found by the content of the file and by how it is read, not by its name or place.
SHA-256 takes 0.7 s for 25 million rows; the time and size of a file would be known at once, but a
file can change without them, and old ratings would be used in silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from fedrecon import __version__
from fedrecon.data.advice import Advice
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.sources import default_cache_dir, reading

# Changes whenever the same file would be read otherwise, or kept otherwise.
FORMAT = 3
# Reading a million rows takes about as long as starting Python with TensorFlow; fewer leave nothing
# behind. A compressed row takes two bytes or more, so smaller files are not even looked up.
_LEAST_RATINGS = 1_000_000
_LEAST_BYTES = 2 * _LEAST_RATINGS
_MOST_KEPT = 4  # Ratings of 25 million rows take 0.5 GB.
_ARRAYS = ("user_ids", "item_ids", "ratings", "timestamps", "original_user_ids")
_ARRAYS += ("original_item_ids",)


def read_through(
    path: pathlib.Path, name: str, options: Any, read: Callable[[], Ratings], *, advice: Advice
) -> Ratings:
    """Returns the ratings of a file as kept before, or reads and keeps them.

    Warns if what is kept is damaged, or if nothing can be kept; the ratings are right all the same.

    Args:
      path: The file.
      name: What to call the ratings.
      options: How the file is read, a dataclass.
      read: Reads the file.
      advice: Who reads the notes, which are kept too.
    """
    if not path.is_file() or path.stat().st_size < _LEAST_BYTES:
        return read()  # Which also says why a file cannot be read.
    with reading(path):
        key = _key(path, options, advice)
    kept = default_cache_dir() / "ratings" / f"{key}.npz"
    ratings = _load(kept, name)
    if ratings is None:
        ratings = read()
        if ratings.num_ratings >= _LEAST_RATINGS:
            _keep(kept, ratings)
    return ratings


def _key(path: pathlib.Path, options: Any, advice: Advice) -> str:
    """Returns a text that is another one wherever the ratings may be others."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while stretch := file.read(2**20):
            digest.update(stretch)
    # Columns may come in any order; a file is taken for compressed, or for parquet, by its suffix.
    how = {
        "format": FORMAT,
        "fedrecon": __version__,
        "content": digest.hexdigest(),
        "suffixes": [each for each in (".gz", ".zip", ".parquet") if each in path.suffixes],
        "options": dataclasses.asdict(options),
        "advice": advice.name,
    }
    return hashlib.sha256(json.dumps(how, sort_keys=True, default=float).encode()).hexdigest()


def _load(path: pathlib.Path, name: str) -> Ratings | None:
    """Returns ratings that were kept, or None; zip files have a checksum of each array."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {field: kept.get(field) for field in _ARRAYS}
            about = json.loads(str(kept["about"]))
        if about["key"] != path.stem:
            raise ValueError("it was kept under another name")
        for array in arrays.values():
            if array is not None:
                array.flags.writeable = False  # Nobody else has it: no need of a copy.
        ratings = Ratings(
            name=name,
            **arrays,
            num_users=len(arrays["original_user_ids"]),
            num_items=len(arrays["original_item_ids"]),
            item_titles=None,
            item_genres=None,
            scale=RatingScale(*about["scale"]),
            notes=tuple(about["notes"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        warnings.warn(
            f"the kept ratings {path} cannot be used ({reason}), so the file of ratings is read "
            "again.",
            stacklevel=4,
        )
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # The least recently used are deleted first.
    return ratings


def _keep(path: pathlib.Path, ratings: Ratings) -> None:
    """Writes ratings, whole or not at all."""
    scale = dataclasses.astuple(ratings.scale)
    about = {"key": path.stem, "scale": scale, "notes": ratings.notes}
    arrays = {field: getattr(ratings, field) for field in _ARRAYS}
    written = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            written = file.name
            np.savez(
                file,
                about=np.array(json.dumps(about, default=float)),
                **{field: array for field, array in arrays.items() if array is not None},
            )
        os.replace(written, path)
        kept = sorted(path.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-_MOST_KEPT]:
            old.unlink()
    except OSError as error:
        warnings.warn(
            f"{path.parent} cannot keep the ratings ({error.strerror or error}), so the file will "
            "be read again next time.",
            stacklevel=4,
        )
    finally:
        if written is not None:
            with contextlib.suppress(OSError):  # It is gone where it was renamed.
                os.unlink(written)
