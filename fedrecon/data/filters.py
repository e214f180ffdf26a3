"""Ratings without those that an experiment leaves out; each says what it left out.

Users and items without a rating left are no part of the data set any more.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.data.ratings import Ratings
from fedrecon.errors import DataError, check_at_least


def positives(ratings: Ratings, *, at_least: float) -> Ratings:
    """Returns the ratings that count as positives when items are ranked.

    Raises:
      DataError: If all ratings would be left, or none.
    """
    scale = ratings.scale
    if not scale.is_divided_by(at_least):
        raise DataError(
            f"positive_from is {at_least:g}, but the ratings of {ratings.name} are {scale}; a "
            f"rating above {scale.minimum:g} and of at most {scale.maximum:g} leaves some out."
        )
    # A rating is float32, and 4.1 as float32 is less than 4.1.
    is_kept = ratings.ratings >= np.float32(at_least)
    if not is_kept.any():
        raise DataError(
            f"{ratings.name} has no rating of {at_least:g} or more; its highest is "
            f"{ratings.ratings.max():g}."
        )
    return compacted(
        ratings, is_kept, f"each rating is {at_least:g} or more and counts as a positive"
    )


def k_core(
    ratings: Ratings, *, min_ratings_per_user: int = 1, min_ratings_per_item: int = 1
) -> Ratings:
    """Returns the largest part in which each user and each item has so many ratings.

    Whoever is left out takes ratings from others, so it is repeated until nobody is.

    Raises:
      DataError: If nothing is left.
    """
    check_at_least(1, "min_ratings_per_user", min_ratings_per_user)
    check_at_least(1, "min_ratings_per_item", min_ratings_per_item)
    is_kept = np.ones(ratings.num_ratings, bool)
    while True:
        users, items = ratings.user_ids[is_kept], ratings.item_ids[is_kept]
        has_enough = np.bincount(users, minlength=ratings.num_users) >= min_ratings_per_user
        is_popular = np.bincount(items, minlength=ratings.num_items) >= min_ratings_per_item
        stays = has_enough[users] & is_popular[items]
        if stays.all():
            break
        is_kept[is_kept] = stays
    if not is_kept.any():
        raise DataError(
            f"{ratings.name} has no part in which each user has {min_ratings_per_user} ratings and "
            f"each item {min_ratings_per_item}; give smaller numbers."
        )
    wanted = (("user", min_ratings_per_user), ("item", min_ratings_per_item))
    reason = " and ".join(f"each {kind} has {least} or more" for kind, least in wanted if least > 1)
    return compacted(ratings, is_kept, reason) if reason else ratings


def compacted(ratings: Ratings, is_kept: np.ndarray, reason: str | None) -> Ratings:
    """Returns some of the ratings, in an id space of their users and items alone.

    Args:
      ratings: All ratings.
      is_kept: `[num_ratings]` bool.
      reason: What is true of the ratings that are kept, for a note; None writes none.
    """
    users = np.unique(ratings.user_ids[is_kept])
    items = np.unique(ratings.item_ids[is_kept])
    counts = (
        (ratings.num_ratings - np.count_nonzero(is_kept), ratings.num_ratings, "ratings"),
        (ratings.num_users - len(users), ratings.num_users, "users"),
        (ratings.num_items - len(items), ratings.num_items, "items"),
    )
    left_out = ", ".join(f"{number:,} of {all_:,} {kind}" for number, all_, kind in counts)
    new_user = np.zeros(ratings.num_users, np.int32)
    new_user[users] = np.arange(len(users))
    new_item = np.zeros(ratings.num_items, np.int32)
    new_item[items] = np.arange(len(items))
    titles, genres = ratings.item_titles, ratings.item_genres
    notes = () if reason is None else (f"Left out, so that {reason}: {left_out}.",)
    return dataclasses.replace(
        ratings,
        user_ids=new_user[ratings.user_ids[is_kept]],
        item_ids=new_item[ratings.item_ids[is_kept]],
        ratings=ratings.ratings[is_kept],
        timestamps=None if ratings.timestamps is None else ratings.timestamps[is_kept],
        num_users=len(users),
        num_items=len(items),
        original_user_ids=ratings.original_user_ids[users],
        original_item_ids=ratings.original_item_ids[items],
        item_titles=None if titles is None else tuple(titles[item] for item in items.tolist()),
        item_genres=None if genres is None else tuple(genres[item] for item in items.tolist()),
        notes=(*ratings.notes, *notes),
    )
