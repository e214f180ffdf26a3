"""Ratings by other users, or of another time, in the item ids of a data set that a model knows."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.data.examples import ClientExamples
from fedrecon.data.population import EXPLICIT, Group, Population
from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError, InputError


@dataclasses.dataclass(frozen=True, eq=False)
class OtherRatings:
    """Ratings of known items.

    Attributes:
      ratings: They, in the item ids of the known items; users without such a rating are no part.
      num_items_left_out: How many items are not known.
      num_ratings_left_out: How many ratings these have.
      num_users_left_out: How many users have no other ratings.
      num_ratings_trained_on: How many other ratings are left out because the run trained on the
        same user's rating of the same item.
    """

    ratings: Ratings
    num_items_left_out: int
    num_ratings_left_out: int
    num_users_left_out: int
    num_ratings_trained_on: int = 0

    def counts(self) -> dict[str, int]:
        """Returns how many items, ratings and users are left out, by the names above."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name.startswith("num_")
        }

    def sentence(self) -> str:
        """Returns what is left out."""
        return (
            f"Left out: {self.num_items_left_out:,} items that the run does not know, with "
            f"{self.num_ratings_left_out:,} ratings; {self.num_ratings_trained_on:,} ratings that "
            f"the run trained on; and {self.num_users_left_out:,} users who have no others."
        )


def of_known_items(ratings: Ratings, known_items: np.ndarray) -> OtherRatings:
    """Returns the ratings of items that are known, by their original ids.

    An id is the same as number and as text: a file in which one id is a text has texts alone.

    Args:
      ratings: The ratings, with item ids of their own.
      known_items: `[num_items]`, original ids by dense id, all different.

    Raises:
      DataError: If no item is known.
    """
    place = {str(item): dense for dense, item in enumerate(known_items.tolist())}
    new_item = np.array([place.get(str(i), -1) for i in ratings.original_item_ids.tolist()])
    is_known = new_item[ratings.item_ids] >= 0
    if not is_known.any():
        raise DataError(
            f"{ratings.name} has no item of the run: its items are called "
            f"{ratings.item_name(0)!r} to {ratings.item_name(ratings.num_items - 1)!r}, and those "
            f"of the run {known_items[0]!s} to {known_items[-1]!s}; give ratings with the same "
            "item ids."
        )
    users = np.unique(ratings.user_ids[is_known])
    times = ratings.timestamps
    kept = dataclasses.replace(
        ratings,
        user_ids=np.searchsorted(users, ratings.user_ids[is_known]),
        item_ids=new_item[ratings.item_ids[is_known]],
        ratings=ratings.ratings[is_known],
        timestamps=None if times is None else times[is_known],
        num_users=len(users),
        num_items=len(known_items),
        original_user_ids=ratings.original_user_ids[users],
        original_item_ids=known_items,
        item_titles=None,
        item_genres=None,
    )
    return OtherRatings(
        ratings=kept,
        num_items_left_out=int(np.count_nonzero(new_item < 0)),
        num_ratings_left_out=int(np.count_nonzero(~is_known)),
        num_users_left_out=ratings.num_users - len(users),
    )


def without_trained(others: OtherRatings, population: Population) -> OtherRatings:
    """Returns the ratings without those that a run trained on, by the ids of user and item.

    Args:
      others: Ratings in the item ids of the run.
      population: The users of the run.

    Raises:
      DataError: If none is left.
    """
    ratings = others.ratings
    trained_users, trained_items, _ = population.examples.interactions(population.train)
    row_of = {name: row for row, name in enumerate(map(str, ratings.original_user_ids.tolist()))}
    names = map(str, population.ratings.original_user_ids.tolist())
    other_row = np.array([row_of.get(name, -1) for name in names], np.int64)
    rows = other_row[trained_users]
    trained = rows[rows >= 0] * ratings.num_items + trained_items[rows >= 0]
    is_kept = ~np.isin(ratings.pairs(), trained)
    if not is_kept.any():
        raise DataError(f"the run trained on all ratings of {ratings.name}; give others.")
    kept = ratings.select(is_kept)
    return dataclasses.replace(
        others,
        ratings=kept,
        num_ratings_trained_on=int(np.count_nonzero(~is_kept)),
        num_users_left_out=others.num_users_left_out
        + len(np.unique(ratings.user_ids))
        - len(np.unique(kept.user_ids)),
    )


def unseen_users(population: Population, ratings: Ratings) -> Population:
    """Returns a population whose group `unseen_test` are all users of some other ratings.

    Who trained on what stays as it is, so that items which nobody trained on are known.

    Args:
      population: The users of a run, with explicit feedback.
      ratings: Ratings of other users, in the item ids of `population`.

    Raises:
      InputError: If the feedback is implicit, or the scales differ.
    """
    if population.feedback != EXPLICIT:
        raise InputError(
            "a run that ranks items cannot be judged on other ratings, only a run that predicts "
            "ratings (--feedback=explicit)."
        )
    if ratings.scale != population.ratings.scale:
        raise InputError(
            f"the ratings of {ratings.name} are {ratings.scale}, and those of the run "
            f"{population.ratings.scale}; give ratings on the scale of the run."
        )
    return dataclasses.replace(
        population,
        ratings=ratings,
        given=ClientExamples(ratings, population.given.options),
        groups={"unseen_test": Group(np.unique(ratings.user_ids))},
    )
