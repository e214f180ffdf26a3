"""Linear models with random tables, which no run has trained."""

import numpy as np

from fedrecon.data.ratings import RatingScale
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.linear import (
    GradientSteps,
    ImplicitLeastSquares,
    LeastSquares,
    LinearModel,
)
from fedrecon.serving.recommender import Recommender

NUM_ITEMS, SIZE = 300, 9
RULES = {
    "least_squares": LeastSquares((0.5,) * (SIZE - 1) + (0.1,), exponent=0.5),
    "implicit_least_squares": ImplicitLeastSquares(0.02, exponent=1.0, unobserved_weight=0.1),
    "gradient_steps": GradientSteps(
        (0.1, -0.2) * 4 + (0.3,), 0.1, batch_size=3, epochs=4, steps_max=7
    ),
}


def linear_model(rule, *, num_items=NUM_ITEMS, size=SIZE, seed=0):
    """A model whose last factor is 1, as the factor of a user's bias is."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(scale=0.4, size=(num_items, size)).astype(np.float32)
    factors[:, -1] = 1.0
    offsets = rng.normal(loc=3.0, size=num_items).astype(np.float32)
    return LinearModel(factors, offsets, rule, (("user", size - 1), ("bias", 1)))


def about(**changes):
    """Says that a model predicts 1 to 5 stars, with changes."""
    values = {
        "data": "drawn",
        "algorithm": "fed_recon_ls",
        "rounds": 7,
        "feedback": "explicit",
        "scale": RatingScale(1, 5, 1),
        "label_threshold": None,
        "negatives_per_positive": 0,
        "seed": 0,
    }
    return About(**{**values, **changes})


def recommender(rule=RULES["least_squares"], **changes):
    """A model of items with the ids a0, a1, ..., the first of which has no training ratings."""
    model = linear_model(rule)
    number = model.num_items
    named = {0: "Unseen", 1: "Matrix, The (1999)", 2: "Babe (1995)", 3: 'The "Quoted", Ünïcode'}
    items = Items(
        ids=np.array([f"a{row}" for row in range(number)]),
        titles=tuple(named.get(row, f"Film {row}") for row in range(number)),
        genres=((),) * number,
        num_ratings=np.minimum(np.arange(number), 5),
    )
    return Recommender(items, model, about(**changes), weights={"table": model.factors})


def given(rng, number, num_items=NUM_ITEMS):
    """Rows of different items, and ratings of 1 to 5."""
    rows = rng.choice(num_items, number, replace=False).astype(np.int32)
    return rows, rng.integers(1, 6, number).astype(np.float32)
