"""The classical references of a comparison: one machine, everybody's data, no rounds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from experiments.run import settings
from experiments.run.settings import Settings

if TYPE_CHECKING:
    from fedrecon.data.population import Population

# By name, the settings that are neither of the data nor of how it is judged.
OPTIONS = {
    "ials": ("dim", "ridge", "unobserved_weight"),
    "popularity": (),
    "item_knn": (),
}
_OF_EVERY_RUN = ("output_dir", "runtime", "gpu_memory_limit_mb")
# How unseen users' ratings are cut into what they give and what is asked.
_OF_JUDGING = ("batch_size", "support_query_split")


def settings_algorithm(algorithm: str) -> str:
    """Returns what `Settings.algorithm` is for an algorithm, or for a reference, which is none."""
    return "centralized" if algorithm in OPTIONS else algorithm


def takes(algorithm: str, chosen: Settings, name: str) -> bool:
    """Whether the setting of this name may be given to an algorithm or a reference."""
    if algorithm not in OPTIONS:
        return settings.uses(chosen, name)
    return name in _OF_EVERY_RUN or uses(algorithm, chosen, name)


def uses(algorithm: str, chosen: Settings, name: str) -> bool:
    """Whether a reference depends on the setting of this name."""
    if name in OPTIONS[algorithm]:
        return True
    is_judging = chosen.is_explicit and name in _OF_JUDGING
    return (settings.is_of_data(name) or is_judging) and settings.uses(chosen, name)


def config(algorithm: str, chosen: Settings) -> dict[str, Any]:
    """Returns the settings that config.json names, and what the defaults of the others are."""
    names = (field.name for field in dataclasses.fields(Settings))
    values = {name: getattr(chosen, name) for name in names if uses(algorithm, chosen, name)}
    return {**values, "algorithm": algorithm, **dataclasses.asdict(_options(algorithm, chosen))}


def _options(algorithm: str, chosen: Settings) -> Any:
    from fedrecon.baselines import ials, item_knn, popularity

    if algorithm == "popularity":
        return popularity.PopularityOptions()
    if algorithm == "item_knn":
        return item_knn.ItemKnnOptions()
    given = {"regularization": chosen.ridge, "unobserved_weight": chosen.unobserved_weight}
    return ials.IalsOptions(
        dim=chosen.dim,
        seed=chosen.seed,
        **{name: value for name, value in given.items() if value is not None},
    )


def train(algorithm: str, chosen: Settings, population: Population) -> Any:
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
    options = _options(algorithm, chosen)
    if algorithm == "ials":
        return ials.train_ials(users, items, **sizes, options=options)
    if algorithm == "popularity":
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
