"""Ratings of another file in the item ids of a run: what is kept, counted and refused."""

import numpy as np
import pytest

from fedrecon.data.other_ratings import of_known_items, unseen_users, without_trained
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import DataError, InputError
from fedrecon.evaluation.coverage import coverage
from fedrecon.evaluation.feedback import feedback_of

SCALE = RatingScale(1, 5, 1)


def ratings_of(*rows, scale=SCALE):
    """Ratings of rows of user, item and stars; times are the numbers of the rows."""
    users, items, stars = zip(*rows)
    return Ratings.from_original_ids(
        "february",
        user_ids=list(users),
        item_ids=list(items),
        ratings=np.array(stars, np.float32),
        timestamps=np.arange(len(rows)),
        scale=scale,
    )


def test_items_are_matched_by_their_ids():
    others = of_known_items(
        ratings_of((7, 30, 1), (7, 10, 2), (7, 99, 3), (8, 98, 4), (9, 20, 5), (9, 99, 1)),
        np.array([10, 20, 25, 30]),
    )
    found = others.ratings
    assert found.num_items == 4
    assert found.original_item_ids.tolist() == [10, 20, 25, 30]
    assert found.original_user_ids.tolist() == [7, 9]
    rows = (found.user_ids, found.item_ids, found.ratings, found.timestamps)
    assert list(zip(*(column.tolist() for column in rows))) == [
        (0, 0, 2, 1),
        (0, 3, 1, 0),
        (1, 1, 5, 4),
    ]
    assert others.counts() == {
        "num_items_left_out": 2,
        "num_ratings_left_out": 3,
        "num_users_left_out": 1,
        "num_ratings_trained_on": 0,
    }
    assert others.sentence() == (
        "Left out: 2 items that the run does not know, with 3 ratings; 0 ratings that the run "
        "trained on; and 1 users who have no others."
    )


def test_ratings_that_the_run_trained_on_are_not_asked_for():
    # Users a to j rate items 1 and 2; nine tenths of them train or validate.
    population = divide_by_user(
        ratings_of(*((user, item, 3) for user in "abcdefghij" for item in (1, 2)))
    )
    ratings = population.ratings
    trained = ratings.user_name(population.train[0])
    unseen = ratings.user_name(population.groups["unseen_test"].users[0])
    rows = ((trained, 1, 3), (trained, 2, 4), (unseen, 1, 2), ("new", 2, 5))
    other = of_known_items(ratings_of(*rows), ratings.original_item_ids)
    left = without_trained(other, population)
    assert left.num_ratings_trained_on == 2
    assert left.num_users_left_out == 1
    names = [left.ratings.user_name(user) for user in left.ratings.user_ids]
    assert sorted(names) == sorted([unseen, "new"])
    whole = of_known_items(ratings_of(*rows[:2]), ratings.original_item_ids)
    with pytest.raises(DataError, match="the run trained on all ratings"):
        without_trained(whole, population)


def test_a_number_is_the_same_as_its_text():
    others = of_known_items(
        ratings_of(("u", "10", 1), ("u", "x", 2), ("u", "010", 3)), np.array([10])
    )
    assert others.ratings.ratings.tolist() == [1]
    others = of_known_items(ratings_of(("u", 10, 1), ("u", 11, 2)), np.array(["010", "11"]))
    assert others.ratings.item_ids.tolist() == [1]


def test_ratings_without_a_common_item_are_refused():
    with pytest.raises(DataError, match=r"february has no item of the run: its items are called '"):
        of_known_items(ratings_of((1, 5, 3), (1, 6, 3)), np.array([7, 8]))


@pytest.fixture(scope="module")
def population():
    return divide_by_user(
        synthetic_ratings(num_users=40, num_items=60, mean_ratings_per_user=25),
        unseen_halves="by_time",
    )


def test_all_users_are_unseen_and_cold_items_are_those_of_the_training(population):
    known = population.ratings.original_item_ids
    scale = population.ratings.scale
    items = [str(item) for item in known[:5].tolist()]
    rows = [("a", item, 3) for item in items] + [("b", items[0], 4)]
    others = of_known_items(ratings_of(*rows, scale=scale), known)
    found = unseen_users(population, others.ratings)
    cases = feedback_of(found).cases(found, "unseen_test")
    told = coverage(found, "unseen_test", cases)
    assert (told.num_users, told.num_judged) == (2, 1)
    assert told.num_asked in (2, 3)  # A half of five.
    trained = np.zeros(len(known), bool)
    trained[population.examples.interactions(population.train)[1]] = True
    asked = cases.item_ids[cases.mask]
    assert told.num_cold == np.count_nonzero(~trained[asked])
    given = cases.given[0][0]
    assert sorted([*given.tolist(), *asked.tolist()]) == [0, 1, 2, 3, 4]
    assert max(given) < min(asked)  # By time.


def test_what_does_not_fit_a_run_is_refused(population):
    item = population.ratings.item_name(0)
    others = ratings_of((1, item, 3), scale=RatingScale(1, 10, 1))
    with pytest.raises(InputError, match="february are 1 to 10 in steps of 1, and those of the ru"):
        unseen_users(population, others)
    ranked = divide_for_ranking(population.ratings)
    with pytest.raises(InputError, match="a run that ranks items cannot be judged on other rat"):
        unseen_users(ranked, population.ratings)
