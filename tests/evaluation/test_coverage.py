"""Who of a group is judged, counted by hand."""

import numpy as np
import pytest

from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.evaluation.coverage import Coverage, coverage, num_able_to_train
from fedrecon.evaluation.feedback import feedback_of


def ratings_of(counts, num_items=40):
    """User `u` rates the first `counts[u]` items, all at the same time."""
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([np.arange(count) for count in counts])
    return Ratings.from_original_ids(
        "tiny",
        user_ids=users,
        item_ids=items,
        ratings=np.full(len(users), 3.0),
        timestamps=np.zeros(len(users), np.int64),
        scale=RatingScale(1, 5, 1),
    )


def of(population, group):
    return coverage(population, group, feedback_of(population).cases(population, group))


COUNTS = [3, 5, 6, 9, 12, 20, 40, 4, 11, 6] * 3


def test_unseen_users_with_one_batch_are_counted_with_the_reason():
    population = divide_by_user(ratings_of(COUNTS), support_batch_size=5)
    for group in ("unseen_validation", "unseen_test"):
        counts = np.array(COUNTS)[population.group(group).users]
        asked = sum(n // 10 * 5 + max(n % 10 - 5, 0) for n in counts.tolist())
        found = of(population, group)
        assert (found.num_users, found.num_judged) == (3, int((counts > 5).sum()))
        assert found.num_asked == asked
        too_few = int((counts <= 5).sum())
        assert list(found.left_out.values()) == ([too_few] if too_few else [])
        assert found.num_fewer_candidates == found.num_copies == found.num_tied == 0
    by_time = divide_by_user(ratings_of(COUNTS), unseen_halves="by_time")
    assert of(by_time, "unseen_test").num_judged == 3


def test_items_that_nobody_trains_on_are_counted():
    population = divide_by_user(ratings_of(COUNTS), support_batch_size=1, seed=1)
    most = max(np.array(COUNTS)[population.train])
    cold = (population.training_counts() == 0).nonzero()[0]
    assert cold.tolist() == list(range(most, 40))
    cases = feedback_of(population).cases(population, "unseen_test")
    expected = np.isin(cases.item_ids[cases.mask], cold).sum()
    assert of(population, "unseen_test").num_cold == expected


def test_rankings_count_ties_few_candidates_and_who_has_too_little():
    # Of 6 users one has one item, and one has all items.
    population = divide_for_ranking(
        ratings_of([1, 4, 12, 30, 36, 40]), holds_out_validation=False, negatives_per_positive=1
    )
    found = of(population, "seen_test")
    assert (found.num_users, found.num_judged, found.num_asked) == (6, 4, 4)
    assert list(found.left_out.values()) == [2]
    assert found.num_tied == 4
    # 39 items at most are left, so everybody is ranked among fewer than 99.
    assert found.num_fewer_candidates == 4


def test_clients_with_one_batch_cannot_train():
    population = divide_by_user(ratings_of(COUNTS))
    counts = np.array(COUNTS)[population.train]
    assert num_able_to_train(population, more_than=5) == (counts > 5).sum()
    assert num_able_to_train(population, more_than=0) == 24


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "4 of 5 users are judged, on 6 ratings. Not judged: users who have few (1)."),
        ({"num_cold": 2}, "2 of the ratings are of items that nobody trains on."),
        ({"num_tied": 2}, "Of 2 users (50%) the latest was drawn among several with the same time"),
        ({"num_fewer_candidates": 3}, "3 users have so many items that they are ranked among few"),
        ({"num_copies": 1}, "1 users have the held-out item among their own negatives"),
    ],
)
def test_it_is_said_in_sentences(changes, sentence):
    values = {"num_users": 5, "num_judged": 4, "left_out": {"who have few": 1}, "num_asked": 6}
    told = Coverage(**{**values, "num_cold": 0, **changes}).sentences("explicit")
    assert sentence in " ".join(told)
