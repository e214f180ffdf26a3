"""What kind of items a model recommends, as a function of the users' lists.

A low error on rated items says nothing about the other items, which nobody compares with anything.
A model may give an item that hardly anybody rated the best score for nearly everybody.
"""

from __future__ import annotations

import numpy as np

# An item with fewer training ratings than this has few.
_MANY_RATINGS = 20


def top_list_results(
    lists: np.ndarray, *, item_counts: np.ndarray, num_training_users: int
) -> dict[str, float]:
    """Returns what is in the lists of the k best items, of all users together.

    - `coverage_at_k`: the share of all items that are in at least one list.
    - `num_items_at_k`: how many items those are.
    - `most_recommended_share`: the share of users whose list holds the most frequent item.
    - `mean_popularity_at_k`: the mean over list entries of the share of training users who have the
      item.
    - `few_ratings_share`: the share of list entries whose item has fewer than 20 training ratings.

    All are 0 where no list has an entry.

    Args:
      lists: `[users, k]` int64 item ids, distinct within a user, as from
        `best_lists.recommend`; -1 is padding. At least one user.
      item_counts: `[num_items]` int64: how many training users have each item.
      num_training_users: How many users trained.

    Raises:
      ValueError: If there is no user or an id is no item.
    """
    lists, item_counts = np.asarray(lists), np.asarray(item_counts)
    num_users, k = lists.shape
    entries = lists[lists != -1]
    if not num_users or not ((entries >= 0) & (entries < len(item_counts))).all():
        raise ValueError(
            f"lists must be of at least one user and hold -1 or ids below {len(item_counts)}."
        )
    times = np.bincount(entries, minlength=len(item_counts))
    num_entries = max(1, len(entries))
    num_items = int(np.count_nonzero(times))
    popularity = item_counts[entries] / num_training_users
    return {
        f"coverage_at_{k}": num_items / len(item_counts),
        f"num_items_at_{k}": num_items,
        "most_recommended_share": float(times.max() / num_users),
        f"mean_popularity_at_{k}": float(popularity.sum() / num_entries),
        "few_ratings_share": float((item_counts[entries] < _MANY_RATINGS).sum() / num_entries),
    }
