"""The data sets by name: one table of variants, and the calls that load them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings
from typing import Any

import numpy as np

from fedrecon.data.movielens import MovieLensLayout
from fedrecon.data.ncf import LeaveOneOut, NcfLayout
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.sources import (
    FolderSource,
    Source,
    ZipSource,
    default_cache_dir,
    download,
    find_source,
)
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import DataError

_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
_NCF = "https://raw.githubusercontent.com/hexiangnan/neural_collaborative_filtering/master/Data/"

_U_DATA = MovieLensLayout(
    ratings_file="u.data",
    separator="\t",
    items_file="u.item",
    items_separator="|",
    items_encoding="latin-1",
    has_header=False,
    scale=RatingScale(1, 5, 1),
)
_DAT = MovieLensLayout(
    ratings_file="ratings.dat",
    separator="::",
    items_file="movies.dat",
    items_separator="::",
    items_encoding="latin-1",
    has_header=False,
    scale=RatingScale(1, 5, 1),
)
_DAT_HALF_STARS = dataclasses.replace(_DAT, items_encoding="utf-8", scale=RatingScale(0.5, 5, 0.5))
_CSV = MovieLensLayout(
    ratings_file="ratings.csv",
    separator=",",
    items_file="movies.csv",
    items_separator=",",
    items_encoding="utf-8",
    has_header=True,
    scale=RatingScale(0.5, 5, 0.5),
)
# Each rating is 1, and each time 0.
_PINTEREST = NcfLayout("pinterest-20", RatingScale(0, 1, 1), allows_test_item=True)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One data set that can be downloaded.

    Attributes:
      name: What to ask for.
      addresses: Where it is published: one zip, or each file.
      checksum: Of the zip, as pooch writes it; None where what is published may change.
      folder: Name of its folder, in the zip and unpacked.
      layout: How its files are written, and their reader.
      num_ratings: How many ratings were published; None where that may change.
    """

    name: str
    addresses: tuple[str, ...]
    checksum: str | None
    folder: str
    layout: MovieLensLayout | NcfLayout
    num_ratings: int | None


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "movielens-100k",
            (f"{_GROUPLENS}ml-100k.zip",),
            "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            "ml-100k",
            _U_DATA,
            100_000,
        ),
        Variant(
            "movielens-1m",
            (f"{_GROUPLENS}ml-1m.zip",),
            "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            "ml-1m",
            _DAT,
            1_000_209,
        ),
        Variant(
            "movielens-10m",
            (f"{_GROUPLENS}ml-10m.zip",),
            "md5:ce571fd55effeba0271552578f2648bd",
            "ml-10M100K",
            _DAT_HALF_STARS,
            10_000_054,
        ),
        Variant(
            "movielens-20m",
            (f"{_GROUPLENS}ml-20m.zip",),
            "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            "ml-20m",
            _CSV,
            20_000_263,
        ),
        Variant(
            "movielens-25m",
            (f"{_GROUPLENS}ml-25m.zip",),
            "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            "ml-25m",
            _CSV,
            25_000_095,
        ),
        Variant(
            "movielens-32m",
            (f"{_GROUPLENS}ml-32m.zip",),
            None,  # Nobody here has seen the published file.
            "ml-32m",
            _CSV,
            32_000_204,
        ),
        Variant(
            "movielens-latest",
            (f"{_GROUPLENS}ml-latest.zip",),
            None,
            "ml-latest",
            _CSV,
            None,
        ),
        Variant(
            "movielens-latest-small",
            (f"{_GROUPLENS}ml-latest-small.zip",),
            None,
            "ml-latest-small",
            _CSV,
            None,
        ),
        Variant(
            "ncf-ml-1m",
            tuple(f"{_NCF}{file}" for file in NcfLayout().files),
            None,
            "ncf-ml-1m",
            NcfLayout(),
            1_000_209,
        ),
        Variant(
            "ncf-pinterest-20",
            tuple(f"{_NCF}{file}" for file in _PINTEREST.files),
            None,  # Nobody here has seen the published files.
            "ncf-pinterest-20",
            _PINTEREST,
            1_500_809,
        ),
    )
}

DATASET_NAMES = (*VARIANTS, "synthetic")
LEAVE_ONE_OUT_NAMES = tuple(v.name for v in VARIANTS.values() if isinstance(v.layout, NcfLayout))


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    **synthetic_options: Any,
) -> Ratings:
    """Returns a data set by name.

    Warns if up to half of the published ratings are missing, as in a file that was cut between two
    lines. A file with fewer or more ratings is somebody's own, in the published layout.

    Args:
      name: One of `DATASET_NAMES`.
      data_dir: Where to read it from: a folder that holds the data set's folder, its zip, or its
        files. Nothing is downloaded then. None downloads what is not yet in the cache.
      cache_dir: Where downloads are kept; None is `$FEDRECON_CACHE`, else `~/.cache/fedrecon`.
      **synthetic_options: For `"synthetic"` only, which ignores the folders: the arguments of
        `synthetic_ratings`.

    Raises:
      DataError: If the name is unknown, the data set is not where it should be or cannot be
        downloaded, or anything in its files is wrong.
    """
    if name == "synthetic":
        return synthetic_ratings(**synthetic_options)
    if synthetic_options:
        raise DataError(
            f"{', '.join(synthetic_options)}: only the synthetic data set can be configured, not "
            f"{name!r}."
        )
    variant = _variant(name)
    source = _open(variant, data_dir, cache_dir)
    ratings = variant.layout.read(source, name=name)
    _warn_if_incomplete(variant, ratings.num_ratings)
    return ratings


def load_rows_by_line(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> np.ndarray:
    """Returns the row of `load_dataset` that each line of a MovieLens file becomes.

    Rows have an order of their own, so that no result depends on lines. What repeats a published
    code that does depend on them needs theirs (`fedrecon.data.published`).

    Returns:
      `[num_ratings]`, int64. Arguments and errors are those of `load_dataset`.
    """
    variant = _variant(name)
    if not isinstance(variant.layout, MovieLensLayout):
        raise DataError(f"{name!r} is no MovieLens data set, so its lines have no published order.")
    return variant.layout.rows_by_line(_open(variant, data_dir, cache_dir))


def load_leave_one_out(
    name: str = "ncf-ml-1m",
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> LeaveOneOut:
    """Returns published train, test and negatives; arguments and errors as in `load_dataset`."""
    variant = _variant(name)
    if not isinstance(variant.layout, NcfLayout):
        known = ", ".join(LEAVE_ONE_OUT_NAMES)
        raise DataError(f"{name!r} has no published leave-one-out files; {known} have.")
    source = _open(variant, data_dir, cache_dir)
    result = variant.layout.read_leave_one_out(source, name=name)
    _warn_if_incomplete(variant, result.train.num_ratings + result.test.num_ratings)
    return result


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise DataError(f"There is no data set {name!r}; known are {', '.join(DATASET_NAMES)}.")
    return VARIANTS[name]


def _open(
    variant: Variant, data_dir: str | os.PathLike | None, cache_dir: str | os.PathLike | None
) -> Source:
    zip_name = variant.addresses[0].rsplit("/", 1)[-1]
    is_zip = zip_name.endswith(".zip")
    if data_dir is not None:
        return find_source(
            data_dir,
            folder=variant.folder,
            zip_name=zip_name if is_zip else f"{variant.folder}.zip",
            file=variant.layout.files[0],
        )
    cache = default_cache_dir() if cache_dir is None else pathlib.Path(cache_dir).expanduser()
    if is_zip:
        path = download(variant.addresses[0], checksum=variant.checksum, folder=cache)
        return ZipSource(path, variant.folder)
    folder = cache / variant.folder
    for address in variant.addresses:
        download(address, checksum=variant.checksum, folder=folder)
    return FolderSource(folder)


def _warn_if_incomplete(variant: Variant, num_ratings: int) -> None:
    published = variant.num_ratings
    if published is not None and published / 2 <= num_ratings < published:
        warnings.warn(
            f"{variant.name} was published with {published:,} ratings; the files at hand "
            f"have {num_ratings:,}.",
            stacklevel=3,
        )
