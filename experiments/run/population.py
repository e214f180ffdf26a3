"""From settings to the users of a run. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.run import users
from experiments.run.names import OF_GENRES, note
from experiments.run.settings import Settings, of_data
from fedrecon.data import columns, datasets, filters, own_ratings, own_values
from fedrecon.data.advice import Advice
from fedrecon.data.features import genre_features
from fedrecon.data.ncf import LeaveOneOut
from fedrecon.data.population import (
    PUBLISHED,
    STANDARD,
    STRONG_GENERALIZATION,
    Population,
    divide_by_user,
    divide_for_ranking,
    known_parts,
    read_parts,
)
from fedrecon.data.published import divide_as_published
from fedrecon.data.ratings import Ratings
from fedrecon.data.strong_generalization import divide_by_strong_generalization
from fedrecon.errors import InputError
from fedrecon.runs.run_directory import USERS, RunDirectory


def load_population(settings: Settings) -> Population:
    """Loads the data and divides the users.

    Raises:
      InputError: If a cohort would be larger than the number of training users, or the initial
        rating is not on the scale.
      DataError: If the data cannot be read or divided, or lack the features of items.
    """
    population = _load(of_data(settings), _users_file(settings))
    if settings.item_features is not None or settings.algorithm in OF_GENRES:
        genre_features(population.ratings)  # Refuses a data set without genres.
    scale = population.label_scale
    initial = settings.initial_rating
    if initial is not None and not scale.minimum <= initial <= scale.maximum:
        raise InputError(
            f"--initial_rating={initial:g} is not on the scale of the labels, {scale}; leave it "
            "out for the middle."
        )
    if settings.is_trained and settings.clients_per_round > len(population.train):
        raise InputError(
            f"--clients_per_round={settings.clients_per_round} is more than the "
            f"{len(population.train)} training users of {population.ratings.name}; give at most "
            "that many."
        )
    return population


def load_first(runs: Sequence[Settings]) -> Population:
    """Returns the population of the first of some runs; errors are those of `load_population`.

    What another run with its seed cannot use is said here too, before any run begins.
    """
    for settings in runs:
        if settings.seed == runs[0].seed:
            load_population(settings)
    return load_population(runs[0])


def load_with_cohort(settings: Settings, *, is_cohort_given: bool) -> tuple[Settings, Population]:
    """Returns the settings and the population, as `load_population` loads it.

    A cohort whose size nobody gave is no larger than the number of training users.
    """
    if is_cohort_given:
        return settings, load_population(settings)
    population = load_population(dataclasses.replace(settings, clients_per_round=1))
    size = min(settings.clients_per_round, len(population.train))
    return dataclasses.replace(settings, clients_per_round=size), population


def _users_file(settings: Settings) -> pathlib.Path | None:
    """Returns the file that says which users train; None draws them.

    Whoever trained the model that a run starts from is no unseen user of it.
    """
    if settings.warm_start is None:
        return None
    for path in (settings.output_dir, settings.warm_start):
        if path is not None and RunDirectory(path).users_path.exists():
            users.check(RunDirectory(path))
            return RunDirectory(path).users_path
    raise InputError(
        f"--warm_start={settings.warm_start} is no directory of a run with {USERS}, which says "
        "whom it was trained on; train it again with this version."
    )


@functools.lru_cache(maxsize=2)
def _load(settings: Settings, users_file: pathlib.Path | None) -> Population:
    """Loads the data that the many runs of a comparison share once."""
    return _DIVIDE[settings.split](settings, users_file)


def _standard(settings: Settings, users_file: pathlib.Path | None) -> Population:
    """Divides by the protocol of the kind of feedback."""
    if settings.is_explicit:
        ratings = _load_ratings(settings)
        return divide_by_user(
            ratings,
            known_parts=_known_parts(ratings, users_file),
            seed=settings.seed,
            max_ratings_per_user=settings.max_ratings_per_user,
            order=settings.example_order,
            label_threshold=settings.label_threshold,
            held_out_fraction=settings.held_out_fraction,
            cold_items_fraction=settings.cold_items_fraction,
            unseen_halves=settings.unseen_halves,
            support_batch_size=settings.support_batch_size,
        )
    if settings.dataset in datasets.LEAVE_ONE_OUT_NAMES:
        data = datasets.load_leave_one_out(settings.dataset, data_dir=settings.data_dir)
    else:
        data = _load_ratings(settings)
    ratings = data.ratings if isinstance(data, LeaveOneOut) else data
    if settings.leaks_test_item:
        note("a user's test item is never drawn as a negative, so figures are too good.")
    return divide_for_ranking(
        data,
        known_parts=_known_parts(ratings, users_file),
        seed=settings.seed,
        max_ratings_per_user=settings.max_ratings_per_user,
        negatives_per_positive=settings.negatives_per_positive,
        unseen_fraction=settings.unseen_fraction,
        holds_out_validation=settings.evaluate_on == "validation",
        leaks_test_item=settings.leaks_test_item,
    )


def _strong_generalization(settings: Settings, users_file: pathlib.Path | None) -> Population:
    """Divides by the protocol of Liang et al. 2018."""
    assert users_file is None, "Settings refuse to start from another run."
    return divide_by_strong_generalization(
        _load_ratings(settings),
        seed=settings.seed,
        num_held_out_users=settings.num_held_out_users,
        published_draw=settings.published_draw,
        max_ratings_per_user=settings.max_ratings_per_user,
        negatives_per_positive=settings.negatives_per_positive,
    )


def _published(settings: Settings, users_file: pathlib.Path | None) -> Population:
    """Divides as the FedRecon paper's released code does."""
    assert users_file is None, "Settings refuse to start from another run."
    return divide_as_published(
        _load_ratings(settings),
        datasets.load_rows_by_line(settings.dataset, data_dir=settings.data_dir),
        seed=settings.seed,
        max_ratings_per_user=settings.max_ratings_per_user,
        support_batch_size=settings.support_batch_size,
    )


# A way to divide the users for each value of --split.
_DIVIDE = {
    STANDARD: _standard,
    PUBLISHED: _published,
    STRONG_GENERALIZATION: _strong_generalization,
}


def _known_parts(ratings: Ratings, users_file: pathlib.Path | None) -> np.ndarray | None:
    """Returns the part that each user had in the run that training starts from, if any."""
    before = None if users_file is None else read_parts(users_file)
    return None if before is None else known_parts(ratings, before)


def _load_ratings(settings: Settings) -> Ratings:
    """Returns the ratings without those that the settings leave out."""
    ratings = read_ratings(settings)
    if settings.positive_from is not None:
        ratings = filters.positives(ratings, at_least=settings.positive_from)
    if settings.min_ratings_per_user is None and settings.min_ratings_per_item is None:
        return ratings
    return filters.k_core(
        ratings,
        min_ratings_per_user=settings.min_ratings_per_user or 1,
        min_ratings_per_item=settings.min_ratings_per_item or 1,
    )


def read_ratings(settings: Settings) -> Ratings:
    """Returns all ratings, from a file or under a name."""
    if settings.ratings_file is not None:
        given, scale = settings.columns, settings.rating_scale
        options = own_values.ReadingOptions(
            columns=None if given is None else columns.parse_columns(given),
            rating_scale=None if scale is None else own_values.parse_scale(scale),
            off_scale=settings.off_scale,
            no_ratings=settings.no_ratings,
            duplicates=settings.duplicates,
        )
        return own_ratings.read_ratings(
            settings.ratings_file,
            options=options,
            items_file=settings.items_file,
            keep=settings.cache_ratings,
            advice=Advice.FLAGS,
        )
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
    judges_unseen = settings.is_explicit or settings.split == STRONG_GENERALIZATION
    return "unseen_validation" if judges_unseen else f"seen_{settings.evaluate_on}"
