"""A small recommender without training, for the tests of serving."""

import dataclasses

import numpy as np

from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.linear import ImplicitLeastSquares, LeastSquares, LinearModel
from fedrecon.serving.recommender import Recommender

NUM_ITEMS, DIM = 30, 3
SCALE = RatingScale(1, 5, 1)
EXPLICIT = About("films", "fed_recon_ls", 3, "explicit", SCALE, None, 0, 5)
IMPLICIT = dataclasses.replace(EXPLICIT, algorithm="fed_ials", feedback="implicit")
RIDGE = LeastSquares((1.0,) * (DIM + 1), exponent=0.0)
IALS = ImplicitLeastSquares(regularization=0.03, exponent=1.0, unobserved_weight=0.2)
TITLES = (
    *("Heat (1995)", "Matrix, The (1999)", 'The "Burbs"', "Amélie 天使", "Alien", "Alien", ""),
    *("a\rb\r\nc\nd", "Movie=5", "Movie"),
    *(f"Film {row}" for row in range(10, NUM_ITEMS)),
)


def ids_of_rows():
    return np.arange(NUM_ITEMS) * 3 + 100


def text_ids():
    return np.array([f"{row:03}" for row in range(NUM_ITEMS)])


def recommender(*, about=EXPLICIT, rule=RIDGE, ids=None, ratings=None, seed=0):
    """Serves by drawn tables; item 29 has no ratings, item 28 the most."""
    generator = np.random.default_rng(seed)
    factors = generator.normal(size=(NUM_ITEMS, DIM + 1)).astype(np.float32)
    factors[:, DIM] = 1.0  # The bias.
    offsets = (3 + 0.3 * generator.normal(size=NUM_ITEMS)).astype(np.float32)
    if about.is_implicit:
        offsets[:] = 0.0
    counts = np.arange(NUM_ITEMS)
    counts[-1] = 0
    return Recommender(
        Items(
            ids=ids_of_rows() if ids is None else ids,
            titles=TITLES,
            genres=(("Drama", "Crime"), *((),) * (NUM_ITEMS - 1)),
            num_ratings=counts,
        ),
        LinearModel(factors, offsets, rule, (("user_factors", DIM), ("user_bias", 1))),
        about,
        weights={"item_factors": factors[:, :DIM].copy(), "item_bias": offsets[:, np.newaxis]},
        ratings=ratings,
    )


def implicit_recommender(*, negatives_per_positive=0, **kwargs):
    about = dataclasses.replace(IMPLICIT, negatives_per_positive=negatives_per_positive)
    rule = RIDGE if negatives_per_positive else IALS
    return recommender(about=about, rule=rule, **kwargs)


def data_of(users, *, ids_are_text=False):
    """Ratings of all items by their ids: user `u` rates the rows `users[u]` with 4."""
    item_ids = text_ids() if ids_are_text else ids_of_rows()
    # Some user has each item, so that rows are those of the recommender.
    rows = [(user, row) for user, rows in users.items() for row in rows]
    return Ratings.from_original_ids(
        "films",
        user_ids=np.array([user for user, _ in rows]),
        item_ids=item_ids[[row for _, row in rows]],
        ratings=np.full(len(rows), 4, np.float32),
        timestamps=None,
        scale=SCALE,
    )
