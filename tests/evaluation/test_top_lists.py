"""What is recommended, by hand."""

import numpy as np
import pytest

from fedrecon.evaluation.top_lists import top_list_results


def test_lists_by_hand():
    # Of 8 items, 0, 1, 2 and 5 are in a list; item 2 in three of four. Two lists are shorter.
    lists = [[2, 0, 1], [2, 5, -1], [2, 0, 5], [-1, -1, -1]]
    counts = [30, 20, 19, 50, 50, 0, 50, 50]
    results = top_list_results(lists, item_counts=counts, num_training_users=50)
    # The 8 entries: item 0 twice (60% have it), 1 once (40%), 2 three times (38%), 5 twice (0%).
    assert results == pytest.approx(
        {
            "coverage_at_3": 4 / 8,
            "num_items_at_3": 4,
            "most_recommended_share": 3 / 4,
            "mean_popularity_at_3": (2 * 0.6 + 0.4 + 3 * 0.38 + 2 * 0.0) / 8,
            "few_ratings_share": 5 / 8,  # Items 2 and 5; 20 ratings are enough.
        }
    )
    assert {type(value) for value in results.values()} == {int, float}


def test_everybody_gets_one_list_or_each_a_list_of_its_own():
    counts = np.arange(40)
    same = np.tile(np.arange(10), (4, 1))
    results = top_list_results(same, item_counts=counts, num_training_users=100)
    assert results["coverage_at_10"] == 0.25
    assert results["most_recommended_share"] == 1
    assert results["mean_popularity_at_10"] == pytest.approx(0.045)
    assert results["few_ratings_share"] == 1
    apart = np.arange(40).reshape(4, 10)
    results = top_list_results(apart, item_counts=counts, num_training_users=100)
    assert results["coverage_at_10"] == 1
    assert results["most_recommended_share"] == 0.25
    assert results["few_ratings_share"] == 0.5


def test_users_who_have_everything_get_nothing():
    nothing = top_list_results(np.full((2, 10), -1), item_counts=[3, 4], num_training_users=5)
    assert set(nothing.values()) == {0}


@pytest.mark.parametrize("lists", [[[0, 3]], [[-2, 0]], np.empty((0, 10), int)])
def test_what_are_no_lists_is_refused(lists):
    with pytest.raises(ValueError, match="at least one user and hold -1 or ids below 3"):
        top_list_results(lists, item_counts=[1, 1, 1], num_training_users=1)
