import dataclasses

import numpy as np
import pytest

from fedrecon.data.datasets import load_dataset
from fedrecon.data.features import genre_features
from fedrecon.data.splits import hold_out_items
from fedrecon.errors import DataError, InputError


@pytest.fixture(scope="module")
def ratings():
    return load_dataset("synthetic", num_users=20, num_items=40, mean_ratings_per_user=20, seed=0)


def of_genres(ratings, *genres):
    more = ((),) * (ratings.num_items - len(genres))
    return dataclasses.replace(ratings, item_genres=(*genres, *more))


def test_genres_by_hand(ratings):
    listed = of_genres(ratings, ("War",), ("War", "Drama", "War"), (), ("Comedy", "Drama"))
    features, names = genre_features(listed)
    assert names == ("Comedy", "Drama", "War")
    half = np.sqrt(0.5)
    expected = np.zeros([40, 3])
    expected[:4] = [[0, 0, 1], [0, half, half], [0, 0, 0], [half, half, 0]]
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    assert features.dtype == np.float32
    short, _ = genre_features(listed, norm=0.1)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1)[:4], [0.1, 0.1, 0, 0.1], rtol=1e-6)
    with pytest.raises(InputError, match="the norm of genre features is 0"):
        genre_features(listed, norm=0)


def test_no_genres_are_refused_in_a_sentence(ratings):
    for without in (ratings, of_genres(ratings)):
        with pytest.raises(DataError, match=r"^synthetic has no genres; take .* items_file\.$"):
            genre_features(without)


def test_a_cold_item_keeps_no_rating_and_others_keep_all(ratings):
    kept, cold = hold_out_items(ratings, fraction=0.25, seed=0)
    rated = np.unique(ratings.item_ids)
    assert len(np.unique(cold.item_ids)) == len(rated) // 4
    assert not np.intersect1d(kept.item_ids, cold.item_ids).size
    assert np.array_equal(np.sort([*kept.pairs(), *cold.pairs()]), ratings.pairs())
    assert (kept.num_items, cold.num_items) == (40, 40)
    again, _ = hold_out_items(ratings, fraction=0.25, seed=0)
    other, _ = hold_out_items(ratings, fraction=0.25, seed=1)
    assert kept.fingerprint() == again.fingerprint() != other.fingerprint()


def test_a_share_that_is_none_or_all_is_refused(ratings):
    for fraction in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(DataError, match="must be above 0 and below 1; found"):
            hold_out_items(ratings, fraction=fraction, seed=0)
    with pytest.raises(DataError, match=r"a share of 0\.01 is none; 100 items would do"):
        hold_out_items(ratings, fraction=0.01, seed=0)
