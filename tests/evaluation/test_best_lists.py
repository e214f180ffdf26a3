"""The best items of users, by scores that are written down."""

import numpy as np

from fedrecon.evaluation.best_lists import recommend
from fedrecon.evaluation.protocols import Cases


class Table:
    """Scores by user and item, in two blocks."""

    TABLE = np.array([[1.0, 5.0, 3.0, 5.0], [2.0, 2.0, 9.0, 0.0], [0.0, 1.0, 2.0, 3.0]], np.float32)

    def score_blocks(self, state, cases, items):
        for places in (np.array([0, 1]), np.array([2])):
            yield places, state * self.TABLE[np.ix_(places, items)]


def given(*item_ids):
    return np.array(item_ids, np.int64), np.ones(len(item_ids), np.float32)


CASES = Cases(
    np.array([7, 8, 9]),
    (given(), given(2), given(0, 1, 3)),
    np.zeros((3, 1), np.int32),
    np.zeros((3, 1), np.float32),
)


def test_the_best_come_first_without_the_items_that_are_given_and_ties_by_id():
    items, scores = recommend(Table(), np.float32(2), CASES, num_items=4, k=3)
    assert items.tolist() == [[1, 3, 2], [0, 1, 3], [2, -1, -1]]
    assert scores.tolist() == [[10, 10, 6], [4, 4, 0], [4, -np.inf, -np.inf]]


def test_more_recommendations_than_items_are_padded():
    items, scores = recommend(Table(), np.float32(1), CASES, num_items=4, k=6)
    assert items.shape == scores.shape == (3, 6)
    assert items[0].tolist() == [1, 3, 2, 0, -1, -1]


def test_items_that_a_user_gives_but_does_not_have_are_recommended():
    # As negatives with implicit feedback: user 9 gives items 0, 1 and 3 and has 1.
    known = [np.array([], int), np.array([2]), np.array([1])]
    items, _ = recommend(Table(), np.float32(1), CASES, num_items=4, k=3, known_items=known)
    assert items.tolist() == [[1, 3, 2], [0, 1, 3], [3, 2, 0]]
