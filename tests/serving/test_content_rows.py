"""Items that nobody rated, by the rows of items with the same genres."""

import dataclasses

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.evaluation.protocols import Cases
from fedrecon.serving.scores import RecommenderScores
from fedrecon.serving.warm_start import with_rows_from_content
from tests.serving.served import DIM, NUM_ITEMS, recommender


def with_genres(genres, **items):
    drawn = recommender()
    drawn.items = dataclasses.replace(drawn.items, genres=genres, **items)
    return drawn


def test_an_item_without_ratings_gets_the_mean_row_of_its_genre():
    # Two genres, no shrinking to speak of: so many items, and many ratings of each.
    genres = tuple(("a",) if row % 2 else ("b",) for row in range(NUM_ITEMS))
    counts = np.full(NUM_ITEMS, 1_000_000)
    counts[[4, 5]] = 0
    drawn = with_genres(genres, num_ratings=counts)
    drawn.model.factors[:, :DIM] += np.where(np.arange(NUM_ITEMS) % 2, 2, -2)[:, np.newaxis]
    filled = with_rows_from_content(drawn).model
    is_known = counts > 0
    is_even = np.arange(NUM_ITEMS) % 2 == 0
    # Least squares on ones and two genres, each shrunk by a ridge of 1, by augmented rows.
    content = np.column_stack([np.ones(NUM_ITEMS), ~is_even, is_even]).astype(float)
    penalty = np.diag([1e-3, 1.0, 1.0])
    for found, rows in (
        (filled.factors, drawn.model.factors),
        (filled.offsets[:, np.newaxis], drawn.model.offsets[:, np.newaxis]),
    ):
        left = np.vstack([content[is_known], penalty])
        right = np.vstack([rows[is_known], np.zeros((3, rows.shape[1]))])
        expected = content @ np.linalg.lstsq(left, right, rcond=None)[0]
        np.testing.assert_allclose(found[~is_known], expected[~is_known], atol=1e-4)
        np.testing.assert_array_equal(found[is_known], rows[is_known])
    np.testing.assert_allclose(filled.factors[[4, 5], DIM], 1.0, atol=1e-4)  # A user's bias counts.


def test_without_genres_nothing_is_guessed():
    with pytest.raises(InputError, match="the items of films have no genres"):
        with_rows_from_content(with_genres(((),) * NUM_ITEMS))


def test_judges_see_the_scores_that_users_get():
    drawn = recommender()
    ids = drawn.items.ids
    given = (np.array([3, 8]), np.array([5, 2], np.float32))
    cases = Cases(
        np.array([7]), (given,), np.array([[1, 4, -1]], np.int32), np.zeros((1, 3), np.float32)
    )
    expected = drawn.predict({ids[3]: 5, ids[8]: 2}, [ids[1], ids[4]])
    scores = RecommenderScores().scores(drawn, cases)
    np.testing.assert_array_equal(scores[0, :2], expected)
    ((places, block),) = RecommenderScores().score_blocks(drawn, cases, np.array([4, 1]))
    assert places.tolist() == [0]
    np.testing.assert_array_equal(block[0], expected[::-1])
