"""The users and halves of the FedRecon paper's released code, on MovieLens 1M.

google-research/federated, `reconstruction/movielens/movielens_dataset.py` (Singhal et al. 2021). It
seeds NumPy's legacy generator with 42 before each of its draws:

1. Users are shuffled. The first 80% train, the next 10% validate, the others test.
2. The ratings of each user are shuffled, from the order of the lines in the file. The first so many
   are kept, and cut into batches: even ones are given, odd ones are asked for.

So it always judges the same 604 users by the same ratings. No seed here changes that; a seed
decides initial values and cohorts only. The order of lines decides what is given, as nowhere else
in this project, so the lines of the published file are needed.
"""

from __future__ import annotations

import numpy as np

from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.data.population import EXPLICIT, PUBLISHED, Group, Population
from fedrecon.data.ratings import Ratings

_SEED = 42
_TRAIN, _VALIDATION = 0.8, 0.1


def divide_as_published(
    ratings: Ratings,
    rows_by_line: np.ndarray,
    *,
    seed: int = 0,
    max_ratings_per_user: int | None = 300,
    support_batch_size: int = 5,
) -> Population:
    """Returns the population of the released code, with explicit feedback.

    Args:
      ratings: The data set.
      rows_by_line: `[num_ratings]` integers: the row of `ratings` that each line of the file has
        become; see `datasets.load_rows_by_line`.
      seed: Everything else that an experiment draws follows from it.
      max_ratings_per_user: How many ratings of a user are kept; None keeps all.
      support_batch_size: See `Population`.
    """
    users = np.unique(ratings.user_ids)
    shuffled = users[_permutation(len(users))]
    first = int(len(users) * _TRAIN)
    second = int(len(users) * (_TRAIN + _VALIDATION))
    options = ExampleOptions(max_ratings_per_user=max_ratings_per_user, seed=seed)
    examples = ClientExamples(ratings, options, row_order=_shuffled_lines(ratings, rows_by_line))
    return Population(
        feedback=EXPLICIT,
        ratings=ratings,
        examples=examples,
        given=examples,
        train=np.sort(shuffled[:first]),
        groups={
            "unseen_validation": Group(np.sort(shuffled[first:second])),
            "unseen_test": Group(np.sort(shuffled[second:])),
        },
        seed=seed,
        support_batch_size=support_batch_size,
        split=PUBLISHED,
    )


def _shuffled_lines(ratings: Ratings, rows_by_line: np.ndarray) -> np.ndarray:
    """Returns `[num_ratings]` rows: each user's, in the order of step 2."""
    by_user = rows_by_line[np.argsort(ratings.user_ids[rows_by_line], kind="stable")]
    places = [_permutation(count) for count in ratings.counts().tolist()]
    starts = np.repeat(np.cumsum(ratings.counts()) - ratings.counts(), ratings.counts())
    return by_user[starts + np.concatenate([np.zeros(0, np.int64), *places])]


def _permutation(number: int) -> np.ndarray:
    """Returns the places from which `np.random.shuffle` takes the entries of a list."""
    return np.random.RandomState(_SEED).permutation(number)
