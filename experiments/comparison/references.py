"""The classical references of a comparison: one machine, everybody's data, no rounds."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.run import settings
from experiments.run.data import Clients
from experiments.run.settings import Settings

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
    from fedrecon import baselines

    if algorithm != "ials":
        return baselines.OPTIONS[algorithm]()
    given = {"regularization": chosen.ridge, "unobserved_weight": chosen.unobserved_weight}
    return baselines.IalsOptions(
        dim=chosen.dim,
        seed=chosen.seed,
        **{name: value for name, value in given.items() if value is not None},
    )


def train(algorithm: str, chosen: Settings, clients: Clients) -> Any:
    """Returns the trained `Baseline`."""
    import numpy as np

    from fedrecon import baselines

    examples, train = clients.examples, clients.users["train"]
    if chosen.is_explicit:
        given = [examples.examples(user) for user in train.tolist()]
        users = np.repeat(train, [len(labels) for _, labels in given])
        items, ratings = (np.concatenate(arrays) for arrays in zip(*given))
    else:
        is_used = np.isin(examples.ratings.user_ids, train)
        users, items = examples.ratings.user_ids[is_used], examples.ratings.item_ids[is_used]
        ratings = None
    sizes = {"num_users": examples.ratings.num_users, "num_items": examples.ratings.num_items}
    train_baseline = (baselines.EXPLICIT if chosen.is_explicit else baselines.IMPLICIT)[algorithm]
    return train_baseline(users, items, ratings, **sizes, options=_options(algorithm, chosen))
