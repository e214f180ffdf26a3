"""Strong generalization: users never seen, divided and asked as Liang et al. 2018 do it.

Liang, Krishnan, Hoffman and Jebara 2018, "Variational Autoencoders for Collaborative Filtering"
(arXiv:1802.05814), section 4, and the code published with it. On star scales a rating above 3.5 is
a positive, and users with fewer than 5 positives are left out (`filters.positives`,
`filters.k_core`). Then:

1. The users are permuted. The last `n` test, the `n` before validate, all others train.
2. The catalog is the items of training users. Other items are dropped from everybody's.
3. A held-out user with at least 5 items left is asked for a fifth of them (rounded down), drawn at
   random, and gives the others. A user with fewer gives all and is asked nothing.
4. What is asked for is ranked among all items of the catalog that the user does not give.

All draws follow from the seed of the run. The published code draws by NumPy's global state, seeded
with 98765 before steps 1, 3 (validation) and 3 (test); `published_draw` draws the same numbers.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from fedrecon import rng as rng_lib
from fedrecon.data import filters
from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.population import IMPLICIT, STRONG_GENERALIZATION, Group, Population
from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError, InputError, check_at_least

# A held-out user is asked for one of so many items, and asked nothing with fewer.
ITEMS_PER_TARGET = 5
_DEFAULT_SHARE = 10  # Of so many users one validates and one tests.


class Counts(NamedTuple):
    """What is left of a data set before the users are divided."""

    events: int
    users: int
    items: int

    def __str__(self) -> str:
        return f"{self.events:,} events of {self.users:,} users and {self.items:,} items"


# What the published preprocessing prints, by the name of the data set.
PUBLISHED_COUNTS = {"movielens-20m": Counts(9_990_682, 136_677, 20_720)}
# The items of training users there, if 10,000 users validate and as many test.
PUBLISHED_CATALOG = {"movielens-20m": 20_108}
_PUBLISHED_SEED = 98765


def divide_by_strong_generalization(
    ratings: Ratings,
    *,
    seed: int = 0,
    num_held_out_users: int | None = None,
    published_draw: bool = False,
    max_ratings_per_user: int | None = None,
    negatives_per_positive: int = 4,
) -> Population:
    """Returns a population with implicit feedback, divided by steps 1 to 3 of this module.

    Guarantees: no held-out user is in `examples` or `train`, and no target is in `examples` or
    `given`. Every item of the population is of a training user.

    Cannot measure: forecasting (targets are drawn at random, not the latest), or items that no
    training user has.

    Args:
      ratings: The positives; each row counts as one.
      seed: Permutes the users, and draws targets and negatives.
      num_held_out_users: How many users validate, and how many test; None is a tenth of the users.
      published_draw: Whether users and targets are drawn as in the published code, whatever the
        seed: of MovieLens 20M, they are the users and items of published figures.
      max_ratings_per_user: See `ImplicitOptions.max_positives_per_user`.
      negatives_per_positive: See `ImplicitOptions`.

    Returns:
      A population with the groups `unseen_validation` and `unseen_test`, whose `targets` hold what
      they are asked for. Its items are the catalog.

    Raises:
      InputError: If fewer than one user would train.
      DataError: If nobody of a group has enough items.
    """
    drawn_by = None if published_draw else seed
    part = _parts(ratings, num_held_out_users, seed=drawn_by)
    notes = [_counts_note(ratings)]
    in_catalog = np.isin(ratings.item_ids, ratings.item_ids[part[ratings.user_ids] == 0])
    part = part[np.unique(ratings.user_ids[in_catalog])]
    reason = None if in_catalog.all() else "each item is one of a training user's"
    ratings = filters.compacted(ratings, in_catalog, reason)
    if published_draw:
        notes.append(_catalog_note(ratings))
    is_target = _targets(ratings, part == 1, seed=drawn_by)
    is_target |= _targets(ratings, part == 2, seed=drawn_by)
    options = ImplicitOptions(
        negatives_per_positive=negatives_per_positive,
        max_positives_per_user=max_ratings_per_user,
        seed=seed,
    )
    return Population(
        feedback=IMPLICIT,
        split=STRONG_GENERALIZATION,
        ratings=dataclasses.replace(ratings, notes=(*ratings.notes, *filter(None, notes))),
        examples=ImplicitExamples(ratings.select(part[ratings.user_ids] == 0), options),
        given=ImplicitExamples(ratings.select(~is_target), options),
        train=np.flatnonzero(part == 0),
        groups={
            "unseen_validation": _group(ratings, part == 1, is_target),
            "unseen_test": _group(ratings, part == 2, is_target),
        },
        seed=seed,
    )


def _parts(ratings: Ratings, num_held_out_users: int | None, *, seed: int | None) -> np.ndarray:
    """Returns the result of step 1 by user, `[num_users]` int8: train 0, validation 1, test 2.

    Args:
      ratings: All ratings.
      num_held_out_users: See `divide_by_strong_generalization`.
      seed: None draws as the published code does.
    """
    users = np.unique(ratings.user_ids).astype(np.int64)
    number = len(users) // _DEFAULT_SHARE if num_held_out_users is None else num_held_out_users
    check_at_least(1, "num_held_out_users", number)
    if 2 * number >= len(users):
        raise InputError(
            f"num_held_out_users is {number:,}, for validation and as many for test, but "
            f"{ratings.name} has {len(users):,} users; give at most {(len(users) - 1) // 2:,}, so "
            "that somebody trains."
        )
    if seed is None:
        permuted = users[np.random.RandomState(_PUBLISHED_SEED).permutation(len(users))]
    else:
        permuted = rng_lib.generator(seed, "strong_generalization_users").permutation(users)
    part = np.zeros(ratings.num_users, np.int8)
    part[permuted[-2 * number : -number]], part[permuted[-number:]] = 1, 2
    return part


def _counts_note(ratings: Ratings) -> str | None:
    """Returns whether a data set is as the published preprocessing leaves it, where that is known.

    A data set that is not keeps its figures from being compared with published ones, so it says so.
    """
    expected = PUBLISHED_COUNTS.get(ratings.name)
    if expected is None:
        return None
    found = Counts(ratings.num_ratings, ratings.num_users, ratings.num_items)
    if found == expected:
        return f"The data before the division are {found}, as in Liang et al. 2018."
    return (
        f"The data before the division are {found}, but {expected} in Liang et al. 2018, so "
        "figures cannot be compared with published ones; --positive_from=4 and "
        "--min_ratings_per_user=5 leave as many."
    )


def _catalog_note(ratings: Ratings) -> str | None:
    """Returns whether the catalog of the published draw has as many items, where that is known."""
    expected = PUBLISHED_CATALOG.get(ratings.name)
    if expected is None:
        return None
    if ratings.num_items == expected:
        return f"The catalog has {expected:,} items, as in Liang et al. 2018."
    return (
        f"The catalog has {ratings.num_items:,} items, but {expected:,} in Liang et al. 2018, who "
        "hold out 10,000 users twice (--num_held_out_users=10000)."
    )


def _targets(ratings: Ratings, is_asked: np.ndarray, *, seed: int | None) -> np.ndarray:
    """Returns which rows some users are asked for, `[num_ratings]` bool.

    Args:
      ratings: All rows.
      is_asked: Which users, `[num_users]` bool.
      seed: None draws as the published code does.
    """
    is_target = np.zeros(ratings.num_ratings, bool)
    published = np.random.RandomState(_PUBLISHED_SEED)  # Its draws follow each other.
    for user in np.flatnonzero(is_asked).tolist():
        rows = ratings.rows_of(user)
        number = len(rows) // ITEMS_PER_TARGET
        if seed is not None:
            rng = rng_lib.generator(seed, "strong_generalization_targets", user)
            is_target[rng.choice(rows, number, replace=False)] = True
        elif number:
            is_target[rows[published.choice(len(rows), number, replace=False)]] = True
    return is_target


def _group(ratings: Ratings, is_member: np.ndarray, is_target: np.ndarray) -> Group:
    asked = ratings.select(is_target & is_member[ratings.user_ids])
    if not asked.num_ratings:
        raise DataError(
            f"{ratings.name}: none of the {np.count_nonzero(is_member)} held-out users has "
            f"{ITEMS_PER_TARGET} items that training users have; hold out more users."
        )
    return Group(np.flatnonzero(is_member), targets=asked)
