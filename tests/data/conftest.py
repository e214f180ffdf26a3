"""Shared inputs: a small data set written by hand."""

import os
import pathlib

import numpy as np
import pytest

from fedrecon.data.ratings import Ratings, RatingScale


@pytest.fixture(scope="session")
def cases_dir(repository) -> pathlib.Path:
    """Where files of own data lie, one folder a case; they are no part of the project."""
    beside = repository.parent / "shared" / "cases"
    path = pathlib.Path(os.environ.get("FEDRECON_TEST_CASES") or beside)
    if not path.is_dir():
        pytest.skip(f"no cases: set FEDRECON_TEST_CASES to their folder ({path} does not exist)")
    return path


@pytest.fixture
def make_ratings():
    """Builds a `Ratings` from a list of (user, item, stars, seconds), all ids dense already."""

    def make(rows, *, num_users=None, num_items=None, with_timestamps=True, **overrides):
        columns = list(zip(*rows)) if rows else [(), (), (), ()]
        num_users = max(columns[0]) + 1 if num_users is None else num_users
        num_items = max(columns[1]) + 1 if num_items is None else num_items
        fields = {
            "name": "tiny",
            "user_ids": np.array(columns[0], np.int32),
            "item_ids": np.array(columns[1], np.int32),
            "ratings": np.array(columns[2], np.float32),
            "timestamps": np.array(columns[3], np.int64) if with_timestamps else None,
            "num_users": num_users,
            "num_items": num_items,
            "original_user_ids": np.arange(num_users) * 10,
            "original_item_ids": np.arange(num_items) * 100,
            "item_titles": None,
            "item_genres": None,
            "scale": RatingScale(1, 5, 1),
        }
        return Ratings(**{**fields, **overrides})

    return make
