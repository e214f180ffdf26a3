"""Means of genres by hand: four items, of which the last is cold."""

import numpy as np
import pytest

from fedrecon import baselines
from fedrecon.baselines.genres import GenreMeanOptions
from fedrecon.baselines.popularity import PopularityOptions
from fedrecon.errors import InputError

# Items 0 and 3 have the same genres in another order, item 2 has one of them alone. Mean: 3.
GENRES = (("War", "Drama"), ("Comedy",), ("War",), ("Drama", "War"), ())
USERS, ITEMS = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 1, 2])
STARS = np.float32([5, 3, 4, 1, 2])
NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.float32))


def train(name, options, genres=GENRES):
    return baselines.BY_GENRES[name](
        USERS, ITEMS, STARS, num_users=3, num_items=5, item_genres=genres, options=options
    )


def test_the_mean_of_items_with_exactly_the_same_genres():
    model = train("genre_mean", GenreMeanOptions())
    given = (np.array([1]), np.float32([5]))
    for gives in (given, NOTHING):  # Whatever the user gives.
        np.testing.assert_allclose(model.score(*gives, np.arange(5)), [4.5, 2, 2, 4.5, 3])
    # Two more ratings of 3 for each set: 3 + 3 / 4, 3 - 2 / 4 and 3 - 1 / 3.
    damped = train("genre_mean", GenreMeanOptions(damping=2.0))
    np.testing.assert_allclose(
        damped.score(*NOTHING, np.array([3, 1, 2, 4])), [3.75, 2.5, 8 / 3, 3], rtol=1e-6
    )


def test_the_global_mean_needs_no_genres():
    model = train("global_mean", baselines.OPTIONS["global_mean"](), genres=None)
    np.testing.assert_allclose(model.score(*NOTHING, np.arange(5)), [3] * 5)


def test_popularity_by_genres_adds_the_users_offset():
    model = train("genre_popularity", PopularityOptions(item_damping=2.0, user_damping=1.0))
    # A user who gives 5 stars to item 1 (predicted 2.5): b_u = 2.5 / 2.
    found = model.score(np.array([1]), np.float32([5]), np.array([3, 4]))
    np.testing.assert_allclose(found, [3.75 + 1.25, 3 + 1.25], rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="the damping of genre_mean is -1"):
        GenreMeanOptions(damping=-1.0)
    with pytest.raises(ValueError, match="there are no genres"):
        train("genre_mean", GenreMeanOptions(), genres=None)
