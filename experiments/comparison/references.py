"""The references of a comparison, which have no rounds.

All but `fed_ease` are classical: one machine has everybody's data.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from experiments.run.names import OF_EASE
from experiments.run.settings import Settings
from fedrecon import baselines, ials_units
from fedrecon.baselines.ease import ease_of_gram
from fedrecon.data.population import Population

if TYPE_CHECKING:
    from fedrecon.algorithms.algorithm import Costs

# The settings from which options come, by the references that have any.
_OPTIONS = {
    "ials": {
        "dim": "dim",
        "regularization": "ridge",
        "unobserved_weight": "unobserved_weight",
        "seed": "seed",
    },
    **{name: {"regularization": "ridge"} for name in OF_EASE},
    "item_knn": {"num_neighbors": "num_neighbors", "shrinkage": "shrinkage"},
}
# Of fed_ease. The sum does not depend on it.
_CLIENTS_PER_ROUND = 256
_COUNT_BYTES = 4


def config(chosen: Settings) -> dict[str, Any]:
    """Returns the settings that config.json names, and the options that they lead to."""
    options = dataclasses.asdict(_record(chosen)(**_given(chosen)))
    if chosen.algorithm == "ials":  # In units, so not by the name of the library's number.
        options["ridge"] = options.pop("regularization")
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
    return _record(chosen)(**given)


def _record(chosen: Settings) -> Any:
    return baselines.OPTIONS["ease" if chosen.algorithm in OF_EASE else chosen.algorithm]


def train(chosen: Settings, population: Population) -> Any:
    """Returns the trained `Baseline`."""
    if chosen.algorithm == "fed_ease":
        from fedrecon.algorithms import fed_ease  # It imports TensorFlow.

        gram = fed_ease.gram_of_clients(population, clients_per_round=_CLIENTS_PER_ROUND)
        return ease_of_gram(gram, _options(chosen, population))
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


def costs(chosen: Settings, population: Population, model: Any) -> Costs:
    """Returns what a reference sends and keeps.

    Args:
      chosen: The settings.
      population: The users.
      model: The trained `Baseline`.
    """
    from fedrecon.algorithms import algorithm  # It imports TensorFlow.

    if chosen.algorithm != "fed_ease":
        return algorithm.costs_of_one_machine(population, model.num_bytes)
    counts = _COUNT_BYTES * population.ratings.num_items**2
    return algorithm.Costs(model.num_bytes, counts, 0, 0, counts + model.num_bytes)
