"""The highest scores, against sorting by hand."""

import numpy as np
import pytest

from fedrecon.evaluation.best_items import best_items


def sorted_by_hand(scores, k):
    """Places by score, of equal scores the lower; without -inf and NaN."""
    wanted = [place for place, score in enumerate(scores) if score > -np.inf]
    return sorted(wanted, key=lambda place: (-scores[place], place))[:k]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("k", [1, 3, 10, 40, 200])
def test_they_are_those_of_sorting_whatever_the_ties(seed, k):
    generator = np.random.default_rng(seed)
    scores = generator.integers(-3, 4, size=60).astype(np.float32)  # Nearly all are tied.
    scores[generator.random(60) < 0.2] = -np.inf
    scores[generator.random(60) < 0.1] = np.inf
    found = best_items(scores, k)
    assert found.dtype == np.int64
    assert found.tolist() == sorted_by_hand(scores.tolist(), k)


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("has_nan", [False, True])
@pytest.mark.parametrize("k", [1, 7, 20, 39, 40])
def test_of_a_large_catalogue_too(k, has_nan, holes):
    # 39 blocks of 128, and 8 places more; many scores are tied.
    generator = np.random.default_rng(k)
    scores = generator.integers(0, 900, size=5_000).astype(np.float32)
    scores[generator.random(5_000) < holes] = -np.inf
    scores[-3:] = 2_000  # Beyond the last block.
    if has_nan:
        scores[[5, 200]] = np.nan
    assert best_items(scores, k).tolist() == sorted_by_hand(scores.tolist(), k)


def test_no_score_that_is_no_number_takes_the_place_of_another():
    scores = np.array([np.nan, 1.0, np.nan, 3.0, 2.0, np.nan, 0.0])
    assert best_items(scores, 2).tolist() == [3, 4]
    assert best_items(scores, 4).tolist() == [3, 4, 1, 6]
    assert best_items(scores, 9).tolist() == [3, 4, 1, 6]


def test_there_may_be_none():
    assert best_items(np.full(5, -np.inf), 3).tolist() == []
    assert best_items(np.zeros(0), 3).tolist() == []
