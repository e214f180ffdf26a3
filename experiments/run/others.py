"""Other ratings than those of a run, on which `experiments.evaluate` judges it."""

from __future__ import annotations

from experiments.run.settings import Settings
from fedrecon.data import columns as columns_lib
from fedrecon.data.advice import Advice
from fedrecon.data.other_ratings import OtherRatings, of_known_items, unseen_users, without_trained
from fedrecon.data.own_ratings import read_ratings
from fedrecon.data.own_values import ReadingOptions
from fedrecon.data.population import Population
from fedrecon.errors import DataError, InputError


def load_others(
    chosen: Settings,
    population: Population,
    path: str,
    *,
    columns: str | None,
    off_scale: str | None,
    duplicates: str | None,
) -> tuple[Population, OtherRatings]:
    """Returns the users of another file as unseen users, and what was left out.

    Args:
      chosen: Its settings.
      population: Its users.
      path: The file.
      columns: See `Settings`; None takes those of the run, or guesses them.
      off_scale: See `Settings`; None takes it from the run.
      duplicates: See `Settings`; None takes it from the run.

    Raises:
      InputError: If the run ranks items.
      DataError: If the file cannot be read, or its ratings are not on the run's scale or of its
        items.
    """
    scale = population.ratings.scale
    unseen_users(population, population.ratings)  # Raises before the file is read.
    columns = columns or chosen.columns
    options = ReadingOptions(
        columns=None if columns is None else columns_lib.parse_columns(columns),
        rating_scale=scale,
        off_scale=off_scale or chosen.off_scale,
        duplicates=duplicates or chosen.duplicates,
    )
    try:
        ratings = read_ratings(
            path, options=options, keep=chosen.cache_ratings, advice=Advice.FLAGS
        )
    except DataError as error:
        place, is_off, _ = str(error).partition(f" is not {scale};")
        if not is_off:
            raise
        raise InputError(
            f"{place} is not on the scale of the run, {scale}; give ratings on this scale, or "
            "--off_scale=drop to leave the others out."
        ) from error
    others = of_known_items(ratings, population.ratings.original_item_ids)
    others = without_trained(others, population)
    return unseen_users(population, others.ratings), others
