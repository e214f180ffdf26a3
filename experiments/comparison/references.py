"""The classical references of a comparison: one machine, everybody's data, no rounds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from experiments.run.settings import Settings

if TYPE_CHECKING:
    from fedrecon.data.population import Population


def config(chosen: Settings) -> dict[str, Any]:
    """Returns the settings that config.json names, and the options that they lead to."""
    return {**chosen.to_json(), **dataclasses.asdict(_options(chosen))}


def _options(chosen: Settings) -> Any:
    from fedrecon.baselines import ials, item_knn, popularity

    if chosen.algorithm == "popularity":
        return popularity.PopularityOptions()
    if chosen.algorithm == "item_knn":
        return item_knn.ItemKnnOptions()
    given = {"regularization": chosen.ridge, "unobserved_weight": chosen.unobserved_weight}
    return ials.IalsOptions(
        dim=chosen.dim,
        seed=chosen.seed,
        **{name: value for name, value in given.items() if value is not None},
    )


def train(chosen: Settings, population: Population) -> Any:
    """Returns the trained model, which scores users by what they give, by its method `score`."""
    import numpy as np

    from fedrecon.baselines import ials, item_knn, popularity

    examples, train = population.examples, population.train
    if chosen.is_explicit:
        given = [examples.examples(user) for user in train.tolist()]
        users = np.repeat(train, [len(labels) for _, labels in given])
        items, ratings = (np.concatenate(arrays) for arrays in zip(*given))
    else:
        is_used = np.isin(examples.ratings.user_ids, train)
        users, items = examples.ratings.user_ids[is_used], examples.ratings.item_ids[is_used]
        ratings = None
    sizes = {"num_users": examples.ratings.num_users, "num_items": examples.ratings.num_items}
    options = _options(chosen)
    if chosen.algorithm == "ials":
        return ials.train_ials(users, items, **sizes, options=options)
    if chosen.algorithm == "popularity":
        return popularity.train_popularity(users, items, ratings, **sizes, options=options)
    baseline = None
    if chosen.is_explicit:
        damping = popularity.PopularityOptions()
        baseline = popularity.train_popularity(users, items, ratings, **sizes, options=damping)
    return item_knn.train_item_knn(
        users, items, ratings, **sizes, options=options, baseline=baseline
    )


def num_bytes(model: Any) -> int:
    """Returns what a model holds: its arrays, and those of a model that it rests on."""
    parts = [getattr(model, field.name) for field in dataclasses.fields(model)]
    return sum(
        num_bytes(part) if dataclasses.is_dataclass(part) else getattr(part, "nbytes", 0)
        for part in parts
    )
