"""From settings to the users of a run. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
import functools

from experiments.run.settings import Settings, of_data
from fedrecon.data import datasets
from fedrecon.data.population import Population, divide_by_user, divide_for_ranking
from fedrecon.data.ratings import Ratings
from fedrecon.errors import InputError


def load_population(settings: Settings) -> Population:
    """Loads the data and divides the users.

    Raises:
      InputError: If a cohort would be larger than the number of training users.
      DataError: If the data cannot be read or divided.
    """
    population = _load(of_data(settings))
    if settings.is_explicit:
        population = dataclasses.replace(
            population,
            support_batch_size=settings.batch_size,
            support_query_split=settings.support_query_split,
        )
    if settings.is_trained and settings.clients_per_round > len(population.train):
        raise InputError(
            f"--clients_per_round={settings.clients_per_round} is more than the "
            f"{len(population.train)} training users of {settings.dataset}."
        )
    return population


@functools.lru_cache(maxsize=2)
def _load(settings: Settings) -> Population:
    """Loads the data that the many runs of a comparison share once."""
    if settings.is_explicit:
        return divide_by_user(
            _load_ratings(settings),
            seed=settings.seed,
            max_ratings_per_user=settings.max_ratings_per_user,
            order=settings.example_order,
            label_threshold=settings.label_threshold,
            held_out_fraction=settings.held_out_fraction,
        )
    if settings.dataset in datasets.LEAVE_ONE_OUT_NAMES:
        data = datasets.load_leave_one_out(settings.dataset, data_dir=settings.data_dir)
    else:
        data = _load_ratings(settings)
    return divide_for_ranking(
        data,
        seed=settings.seed,
        max_ratings_per_user=settings.max_ratings_per_user,
        negatives_per_positive=settings.negatives_per_positive,
        unseen_fraction=settings.unseen_fraction,
        holds_out_validation=settings.evaluate_on == "validation",
    )


def _load_ratings(settings: Settings) -> Ratings:
    synthetic = {}
    if settings.dataset == "synthetic":
        synthetic = {
            "num_users": settings.synthetic_num_users,
            "num_items": settings.synthetic_num_items,
            "mean_ratings_per_user": settings.synthetic_mean_ratings_per_user,
            "seed": settings.seed,
        }
    return datasets.load_dataset(settings.dataset, data_dir=settings.data_dir, **synthetic)


def watched_group(settings: Settings) -> str:
    """Returns the group of users that is evaluated while training."""
    return "unseen_validation" if settings.is_explicit else f"seen_{settings.evaluate_on}"
