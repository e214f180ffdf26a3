"""How what users give becomes labels."""

import dataclasses
import json

import numpy as np
import pytest

from fedrecon.data.ratings import RatingScale
from fedrecon.errors import InputError
from fedrecon.serving.about import About

STARS = About(
    data="films",
    algorithm="fed_recon_ls",
    rounds=3,
    feedback="explicit",
    scale=RatingScale(0.5, 5, 0.5),
    label_threshold=None,
    negatives_per_positive=0,
    seed=5,
)
LIKES = dataclasses.replace(STARS, label_threshold=4.0)
RANKED = dataclasses.replace(STARS, feedback="implicit", negatives_per_positive=3)
ROWS = np.array([7, 2, 9])
RATINGS = np.array([4.0, 0.5, 5.0])


def test_ratings_are_labels_in_the_order_given():
    rows, labels = STARS.given(ROWS, RATINGS, 20)
    assert (rows.tolist(), labels.tolist()) == ([7, 2, 9], [4, 0.5, 5])
    assert labels.dtype == np.float32
    assert STARS.predicts_ratings


def test_a_threshold_makes_likes_of_them():
    _, labels = LIKES.given(ROWS, RATINGS, 20)
    assert labels.tolist() == [1, 0, 1]
    assert not LIKES.predicts_ratings


@pytest.mark.parametrize("rating", [0.0, 5.5, 3.25, np.nan, np.inf, -1.0])
def test_a_rating_off_the_scale_is_refused_in_a_sentence(rating):
    with pytest.raises(InputError, match=r"not on the scale of films, 0\.5 to 5 in steps of"):
        STARS.given(ROWS, np.array([4.0, rating, 5.0]), 20)


def test_ratings_that_are_needed_must_be_there():
    with pytest.raises(InputError, match="these items have none; give a rating for each"):
        STARS.given(ROWS, None, 20)


def test_without_negatives_what_a_user_has_is_all():
    rows, labels = dataclasses.replace(RANKED, negatives_per_positive=0).given(ROWS, None, 20)
    assert sorted(rows) == [2, 7, 9]
    assert labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("num_items", [4, 10, 1000])
def test_negatives_are_drawn_among_the_items_that_the_user_does_not_have(num_items):
    rows = ROWS % num_items
    found, labels = RANKED.given(rows, None, num_items)
    assert len(found) == len(labels) == 12
    assert sorted(found[labels == 1]) == sorted(rows)
    negatives = found[labels == 0]
    assert not set(negatives) & set(rows)
    assert negatives.min() >= 0
    assert negatives.max() < num_items


def test_negatives_are_uniform():
    about = dataclasses.replace(RANKED, negatives_per_positive=4000)
    found, labels = about.given(ROWS, None, 11)
    counts = np.bincount(found[labels == 0], minlength=11)
    assert counts[ROWS].tolist() == [0, 0, 0]
    # Of 12,000 draws of 8 items each has 1,500, with a deviation of 36.
    assert np.abs(np.delete(counts, ROWS) - 1500).max() < 200


def test_a_user_who_has_every_item_has_no_negatives():
    rows, labels = RANKED.given(np.arange(5)[::-1], None, 5)
    assert sorted(rows) == [0, 1, 2, 3, 4]
    assert labels.tolist() == [1] * 5


def test_the_draw_follows_from_the_set_of_items_and_the_seed():
    drawn = RANKED.given(ROWS, None, 50)
    for rows, ratings in ((ROWS[::-1], None), (np.sort(ROWS), RATINGS)):
        again = RANKED.given(rows, ratings, 50)
        np.testing.assert_array_equal(drawn, again)
    other = dataclasses.replace(RANKED, seed=6).given(ROWS, None, 50)
    assert not np.array_equal(drawn, other)


@pytest.mark.parametrize("about", [STARS, LIKES, RANKED])
def test_json_gives_it_back(about):
    assert About.from_json(json.loads(json.dumps(about.to_json()))) == about
