"""The classical references of a comparison: one machine, everybody's data, no rounds."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.run.settings import Settings
from fedrecon import baselines, ials_units
from fedrecon.data.population import Population

# The settings from which options come, by the references that have any.
_OPTIONS = {
    "ials": {
        "dim": "dim",
        "regularization": "ridge",
        "unobserved_weight": "unobserved_weight",
        "seed": "seed",
    },
    "ease": {"regularization": "ridge"},
    "item_knn": {"num_neighbors": "num_neighbors", "shrinkage": "shrinkage"},
}


def config(chosen: Settings) -> dict[str, Any]:
    """Returns the settings that config.json names, and the options that they lead to."""
    options = dataclasses.asdict(baselines.OPTIONS[chosen.algorithm](**_given(chosen)))
    return {**chosen.to_json(), **options}


def _given(chosen: Settings) -> dict[str, Any]:
    """Returns the options that are no defaults of the library; those of iALS are in units."""
    names = _OPTIONS.get(chosen.algorithm, {})
    given = {option: getattr(chosen, setting) for option, setting in names.items()}
    given = {option: value for option, value in given.items() if value is not None}
    if chosen.algorithm == "ials":
        return {**ials_units.DEFAULTS, **given}
    return given


def _options(chosen: Settings, population: Population) -> Any:
    given = _given(chosen)
    if chosen.algorithm == "ials":
        strengths = {name: given[name] for name in ials_units.DEFAULTS}
        counts = ials_units.PairCounts.of_training(population)
        given.update(ials_units.in_pairs(counts, **strengths))
    return baselines.OPTIONS[chosen.algorithm](**given)


def train(chosen: Settings, population: Population) -> Any:
    """Returns the trained `Baseline`."""
    examples = population.examples
    users, items, ratings = examples.interactions(population.train)
    settings = {"num_users": examples.ratings.num_users, "num_items": examples.ratings.num_items}
    settings["options"] = _options(chosen, population)
    if chosen.algorithm in baselines.BY_GENRES:
        train_baseline = baselines.BY_GENRES[chosen.algorithm]
        settings["item_genres"] = population.ratings.item_genres
        return train_baseline(users, items, ratings, **settings)
    tables = baselines.EXPLICIT if chosen.is_explicit else baselines.IMPLICIT
    return tables[chosen.algorithm](users, items, ratings, **settings)
