"""New users served by a linear model: their vectors, and the ten best items of each."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pandas as pd

from experiments.bench.sizes import CATALOGUES, NUM_ITEMS, Sizes, Start, seconds_of
from fedrecon import rng
from fedrecon.data.ratings import RatingScale
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.linear import LeastSquares, LinearModel
from fedrecon.serving.person import Placed
from fedrecon.serving.recommender import Recommender

_NUM_BEST = 10
_LEAST_GIVEN, _MOST_GIVEN = 20, 200
_CATALOGUES = CATALOGUES[:2]


def time_recommend(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Serves users whom no model has seen, with drawn tables, in NumPy alone."""
    del start  # Nothing here needs a runtime.
    results = []
    for num_items in _CATALOGUES:
        recommender = _drawn_model(num_items, sizes)
        users = _drawn_users(recommender.items, sizes)

        def serve(users, recommender=recommender):
            for rows, _ in recommender.best_rows(users, _NUM_BEST):
                if len(rows) != _NUM_BEST:
                    raise AssertionError(f"{len(rows)} items are recommended.")

        def seconds(run, given):
            run(given)
            return statistics.median(seconds_of(run, given) for _ in range(sizes.rounds))

        of_arrays = seconds(serve, users)
        results.append(
            {
                "items": num_items,
                "seconds": of_arrays,
                "users_per_second": sizes.clients / of_arrays,
                "table_seconds": seconds(recommender.recommend_many, _table(users)),
            }
        )
    return {
        "engine": "numpy",
        "runtime": None,
        "items": list(_CATALOGUES),
        **{name: value for name, value in results[0].items() if name != "items"},
        "catalogues": results,
        "users": sizes.clients,
        "ratings_per_user": [_LEAST_GIVEN, _MOST_GIVEN],
        "dim": sizes.dim,
    }


def _drawn_model(num_items: int, sizes: Sizes) -> Recommender:
    """Returns a model with factors and biases of users and items, solved by least squares."""
    generator = rng.generator(0, "recommend_tables", num_items)
    factors = generator.normal(size=(num_items, sizes.dim + 1)).astype(np.float32)
    factors[:, -1] = 1.0  # What a user's bias is multiplied by.
    offsets = generator.normal(3.5, 0.5, size=num_items).astype(np.float32)
    rule = LeastSquares((10.0,) * (sizes.dim + 1), exponent=0.0)
    return Recommender(
        Items(
            ids=np.arange(num_items),
            titles=("",) * num_items,
            genres=((),) * num_items,
            num_ratings=np.ones(num_items, np.int64),
        ),
        LinearModel(factors, offsets, rule, (("user_factors", sizes.dim), ("user_bias", 1))),
        About(
            data="benchmark",
            algorithm="fed_recon_ls",
            rounds=0,
            feedback="explicit",
            scale=RatingScale(1, 5, 1),
            label_threshold=None,
            negatives_per_positive=0,
            seed=0,
        ),
        weights={},
    )


def _drawn_users(items: Items, sizes: Sizes) -> list[Placed]:
    """Returns users with 20 to 200 ratings among the first 3,706 items."""
    generator = rng.generator(0, "recommend_users")
    users = []
    for number in generator.integers(_LEAST_GIVEN, _MOST_GIVEN + 1, size=sizes.clients):
        rows = generator.choice(min(NUM_ITEMS, len(items)), number, replace=False)
        users.append(Placed(rows, generator.integers(1, 6, number).astype(np.float64), ()))
    return users


def _table(users: list[Placed]) -> pd.DataFrame:
    """Returns what users give as a data frame, one row a rating."""
    return pd.DataFrame(
        {
            "user": np.repeat(np.arange(len(users)), [len(of_user.rows) for of_user in users]),
            "item": np.concatenate([of_user.rows for of_user in users]),
            "rating": np.concatenate([of_user.ratings for of_user in users]),
        }
    )
