"""Metrics by hand, by brute force, by scikit-learn, and of scorers that know nothing."""

import math
import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fedrecon.data.ratings import RatingScale
from fedrecon.evaluation.metrics import (
    UserResults,
    ranking_results,
    ranks,
    rating_results,
    targets_results,
)

NAN = float("nan")
STARS, HALF_STARS, ZERO_OR_ONE = (
    RatingScale(1, 5, 1),
    RatingScale(0.5, 5, 0.5),
    RatingScale(0, 1, 1),
)

# User 0 has errors 0.5 (just accurate), -1 and 2; user 1 an error of 0.75; user 2 no rating. The
# padding is what would show if it were read.
LABELS = [[4.0, 2.0, 3.0], [1.0, NAN, 5.0], [3.0, 3.0, 3.0]]
PREDICTIONS = [[4.5, 1.0, 5.0], [1.75, 9.0, math.inf], [3.0, NAN, 3.0]]
MASK = [[True, True, True], [True, False, False], [False, False, False]]


def drawn_without_ties(rng, num_users, num_columns):
    """Every row an order of 0, 1, ..., drawn uniformly."""
    return rng.permuted(np.tile(np.arange(float(num_columns)), (num_users, 1)), axis=1)


def test_ratings_by_hand():
    results = rating_results(LABELS, PREDICTIONS, MASK, scale=STARS)
    np.testing.assert_array_equal(results.counts, [3, 1, 0])
    # Squares 0.25 + 1 + 4 = 5.25; absolutes 0.5 + 1 + 2 = 3.5; one of three is accurate, but 4.5 is
    # half-way to 5, so none is nearest.
    expected = {
        "rmse": [math.sqrt(5.25 / 3), 0.75, NAN],
        "mae": [3.5 / 3, 0.75, NAN],
        "accuracy": [1 / 3, 0, NAN],
        "rounded_accuracy": [0, 0, NAN],
    }
    assert list(results.values) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(results.values[name], values, rtol=1e-15)


@pytest.mark.parametrize(
    ("scale", "label", "predictions", "accurate", "nearest"),
    [
        # Half-way, just inside of it, exact; beyond the ends, where 5.6 is cut to 5 and is right.
        (STARS, 4, [3.5, 4.5, 3.51, 4.49, 4, 5.6], [1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0]),
        (STARS, 5, [4.5, 4.51, 5.6, 99], [1, 1, 0, 0], [0, 1, 1, 1]),
        (STARS, 1, [1.5, 0.4, -99], [1, 0, 0], [0, 1, 1]),
        (HALF_STARS, 3.5, [3.5, 3.75, 3.25, 3.74, 4.0], [1, 1, 1, 1, 0], [1, 0, 0, 1, 0]),
        (HALF_STARS, 0.5, [0.0, 0.75, 0.74], [0, 1, 1], [1, 0, 1]),
        (ZERO_OR_ONE, 1, [0.5, 0.51, 0.49, 1.7], [1, 1, 0, 0], [0, 1, 0, 1]),
        (ZERO_OR_ONE, 0, [0.5, 0.51, 0.49, -0.7], [1, 0, 1, 0], [0, 0, 1, 1]),
        (STARS, 5, [math.inf, NAN], [0, 0], [0, 0]),
        (STARS, 1, [-math.inf, NAN], [0, 0], [0, 0]),
    ],
)
def test_accuracies_of_single_predictions(scale, label, predictions, accurate, nearest):
    predictions = np.array(predictions, float)[:, np.newaxis]
    labels = np.full(predictions.shape, float(label))
    results = rating_results(labels, predictions, np.ones(labels.shape), scale=scale)
    np.testing.assert_array_equal(results.values["accuracy"], accurate)
    np.testing.assert_array_equal(results.values["rounded_accuracy"], nearest)


def test_half_a_star_everywhere_is_accurate_for_nothing_and_never_nearest():
    # The shares of the stars in MovieLens 1M, in per cent.
    stars = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], [6, 11, 26, 35, 22])[np.newaxis]
    results = rating_results(stars, np.full(stars.shape, 3.5), stars > 0, scale=STARS)
    assert results.values["accuracy"].tolist() == [0.61]
    assert results.values["rounded_accuracy"].tolist() == [0]


def test_rounded_accuracy_is_the_accuracy_of_the_nearest_star():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(8)
    labels = rng.integers(1, 6, (1, 500))
    predictions = labels + rng.normal(size=labels.shape)  # No draw is half-way.
    results = rating_results(labels, predictions, np.ones(labels.shape), scale=STARS)
    nearest = np.rint(predictions).astype(int).clip(1, 5)
    wanted = sklearn_metrics.accuracy_score(labels[0], nearest[0])
    assert results.values["rounded_accuracy"][0] == pytest.approx(wanted)


def test_the_two_means_differ():
    results = rating_results(LABELS, PREDICTIONS, MASK, scale=STARS)
    assert results.mean_over_users() == pytest.approx(
        {
            "rmse": (math.sqrt(1.75) + 0.75) / 2,  # The mean of the roots.
            "mae": (3.5 / 3 + 0.75) / 2,
            "accuracy": (1 / 3 + 0) / 2,
            "rounded_accuracy": 0,
        }
    )
    assert results.mean_over_ratings() == pytest.approx(
        {
            "rmse": math.sqrt((5.25 + 0.5625) / 4),  # All four squares, 0.75**2 among them.
            "mae": (3.5 + 0.75) / 4,
            "accuracy": 1 / 4,
            "rounded_accuracy": 0,
        }
    )


def test_results_are_float64_whatever_comes_in():
    arrays = (np.array(x, dtype) for x, dtype in ((LABELS, "f4"), (PREDICTIONS, "f4"), (MASK, "?")))
    for results in (
        rating_results(*arrays, scale=STARS),
        ranking_results(np.array([[3], [-1]], np.int32)),
    ):
        assert results.counts.dtype == np.int64
        assert {values.dtype for values in results.values.values()} == {np.dtype(np.float64)}
        means = {**results.mean_over_users(), **results.mean_over_ratings()}
        assert {type(mean) for mean in means.values()} == {float}


def test_sums_do_not_lose_small_errors():
    # In float32, 2**24 + 1 is 2**24.
    predictions = np.ones((1, 3), np.float32)
    predictions[0, 0] = 2.0**24
    results = rating_results(
        np.zeros((1, 3), np.float32), predictions, np.ones((1, 3), bool), scale=STARS
    )
    assert results.values["mae"][0] == (2**24 + 2) / 3


def test_a_prediction_that_is_not_finite_shows():
    results = rating_results(
        [[1.0, 2.0], [1.0, 2.0]], [[1.0, NAN], [1.0, 2.0]], np.ones((2, 2)), scale=STARS
    )
    np.testing.assert_array_equal(results.values["rmse"], [NAN, 0])
    np.testing.assert_array_equal(results.values["mae"], [NAN, 0])
    np.testing.assert_array_equal(results.values["accuracy"], [0.5, 1])
    assert math.isnan(results.mean_over_users()["rmse"])
    assert math.isnan(results.mean_over_ratings()["rmse"])


def test_shapes_are_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3\), predictions \(2, 3, 1\) and mask \(2, 3\)"):
        rating_results(np.ones((2, 3)), np.ones((2, 3, 1)), np.ones((2, 3)), scale=STARS)


def test_deciles():
    # Values 0, 1, 4, ..., 36 lie at 0, 1/6, ..., 1. The 10% quantile is 0.6 of the way from 0 to 1,
    # the 20% one 0.2 of the way from 1 to 4, the 90% one 0.4 of the way from 25 to 36.
    values = np.array([16, 4, NAN, 0, 1, 36, 25, 9])
    results = UserResults({"mae": values}, np.array([1, 9, 0, 1, 1, 1, 1, 1]))
    deciles = results.deciles("mae")
    assert deciles.shape == (11,)
    np.testing.assert_allclose(deciles[[0, 1, 2, 5, 9, 10]], [0, 0.6, 1.6, 9, 29.4, 36])
    # Two users: the worse one is the maximum and everything between is interpolated.
    results = rating_results(LABELS, PREDICTIONS, MASK, scale=STARS)
    np.testing.assert_allclose(results.deciles("accuracy"), np.arange(11) / 30, atol=1e-15)


@pytest.mark.parametrize(
    "summarise",
    [UserResults.mean_over_users, UserResults.mean_over_ratings, lambda r: r.deciles("mae")],
)
def test_nobody_judged(summarise):
    results = rating_results(np.ones((3, 2)), np.ones((3, 2)), np.zeros((3, 2), bool), scale=STARS)
    with pytest.raises(ValueError, match="none of 3 users has a rating or held-out item"):
        summarise(results)


def test_ranks_by_hand():
    scores = [[0.5, 0.9, 0.5, 0.1, 0.7], [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    targets = [[0, 4], [4, -1], [-1, -1]]
    # User 0: at or above column 0 are 1, 2 (a tie) and 4; above column 4 is 1.
    found = ranks(scores, None, targets)
    np.testing.assert_array_equal(found, [[3, 1], [0, -1], [-1, -1]])
    assert found.dtype == np.int64
    # Without column 1, each of user 0's targets gains a place. User 1's only target is no
    # candidate by the mask and counts all the same.
    is_candidate = [[True, False, True, True, True], [True] * 4 + [False], [False] * 5]
    np.testing.assert_array_equal(ranks(scores, is_candidate, targets), [[2, 0], [0, -1], [-1, -1]])


def test_held_out_items_compete_with_each_other():
    # Column 2 is a candidate because it is held out, so it stands above column 0.
    is_candidate = np.array([[False, True, False]])
    before = is_candidate.copy()
    np.testing.assert_array_equal(ranks([[0.5, 0.1, 0.9]], is_candidate, [[0, 2]]), [[1, 0]])
    np.testing.assert_array_equal(is_candidate, before)


def test_another_column_for_the_same_item_ties():
    # The item of column 0 was drawn as a negative too, into columns 2 and 3.
    np.testing.assert_array_equal(ranks([[0.9, 0.1, 0.9, 0.9]], None, [[0]]), [[2]])


@st.composite
def rankings(draw):
    """Up to 6 users and 8 columns, scores of few values, so that most are tied."""
    num_users, num_columns = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    num_targets = draw(st.integers(0, num_columns))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scores = rng.integers(0, draw(st.integers(1, 5)), (num_users, num_columns)) - 2.0
    targets = drawn_without_ties(rng, num_users, num_columns).astype(int)[:, :num_targets]
    targets[rng.random(targets.shape) < 0.3] = -1
    is_candidate = rng.random(scores.shape) < 0.7 if draw(st.booleans()) else None
    return scores, is_candidate, targets


@hypothesis.given(rankings())
def test_ranks_by_brute_force(ranking):
    scores, is_candidate, targets = ranking
    expected = np.full(targets.shape, -1)
    for user, row in enumerate(targets):
        for place, target in enumerate(row):
            if target == -1:
                continue
            others = set(range(scores.shape[1])) - {target}
            if is_candidate is not None:
                others = {c for c in others if is_candidate[user, c] or c in row}
            expected[user, place] = sum(scores[user, c] >= scores[user, target] for c in others)
    np.testing.assert_array_equal(ranks(scores, is_candidate, targets), expected)


@hypothesis.given(rankings(), st.integers(1, 9))
def test_results_stay_within_0_and_1(ranking, k):
    results = ranking_results(ranks(*ranking), k)
    np.testing.assert_array_equal(results.counts, (ranking[2] >= 0).sum(axis=1))
    for values in results.values.values():
        np.testing.assert_array_equal(np.isnan(values), results.counts == 0)
        judged = values[results.counts > 0]
        assert ((judged >= 0) & (judged <= 1 + 1e-12)).all()


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("column", [1, 2], ids=["candidate", "target"])
def test_scores_that_are_not_finite(bad, column):
    scores = np.arange(20.0).reshape(5, 4)
    targets = np.full((5, 1), 2)
    is_candidate = np.tile([True, True, False, False], (5, 1))
    # Column 3 is neither candidate nor target.
    scores[:, 3] = bad
    np.testing.assert_array_equal(ranks(scores, is_candidate, targets), np.zeros((5, 1)))
    scores[3:, column] = bad
    with pytest.raises(ValueError, match="the scores of user row 3 are not finite for 1 of its 3"):
        ranks(scores, is_candidate, targets)
    with pytest.raises(ValueError, match="the scores of user row 0 are not finite for 1 of its 4"):
        ranks(scores, None, targets)


@pytest.mark.parametrize("targets", [[[0, 5]], [[0, -2]], [[3, 3]], [[-1, 5]]])
def test_targets_that_are_no_distinct_columns(targets):
    with pytest.raises(ValueError, match="columns of 5, distinct within a user"):
        ranks(np.zeros((1, 5)), None, targets)


def test_ranking_by_hand():
    # Held out at places 1 and 4; at places 1, 2 and 3; at place 12; nothing.
    results = ranking_results([[3, 0, -1], [0, 1, 2], [-1, 11, -1], [-1, -1, -1]], k=(2, 10))
    np.testing.assert_array_equal(results.counts, [2, 3, 1, 0])
    # The discounts of places 1 to 4 are 1 / log2(2), ..., 1 / log2(5). At 2, two held-out items
    # would ideally fill both places; at 10, user 0's two would come first and second.
    second, fourth = 1 / math.log2(3), 1 / math.log2(5)
    expected = {
        "hr_at_2": [1, 1, 0, NAN],
        "ndcg_at_2": [1 / (1 + second), 1, 0, NAN],
        "recall_at_2": [1 / 2, 2 / 3, 0, NAN],
        "hr_at_10": [1, 1, 0, NAN],
        "ndcg_at_10": [(1 + fourth) / (1 + second), 1, 0, NAN],
        "recall_at_10": [1, 1, 0, NAN],
        "mrr": [1, 1, 1 / 12, NAN],
    }
    assert list(results.values) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(results.values[name], values, rtol=1e-14, err_msg=name)
    # Of six held-out items, three are among the first two: 1 of 2, 2 of 3 and 0 of 1.
    assert results.mean_over_ratings()["recall_at_2"] == pytest.approx(3 / 6)
    assert results.mean_over_users()["recall_at_2"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_one_held_out_item_as_in_the_ncf_paper():
    # The paper's code: HR is whether the item is in the top 10, NDCG log(2) / log(place + 2).
    results = ranking_results(np.arange(12)[:, None])
    is_hit = np.arange(12) < 10
    np.testing.assert_array_equal(results.values["hr_at_10"], is_hit)
    np.testing.assert_array_equal(results.values["recall_at_10"], is_hit)
    ndcg = [math.log(2) / math.log(place + 2) for place in range(10)]
    np.testing.assert_allclose(results.values["ndcg_at_10"], [*ndcg, 0, 0])
    np.testing.assert_allclose(results.values["mrr"], [1 / n for n in range(1, 13)])


def test_no_column_of_held_out_items():
    results = ranking_results(np.empty((2, 0), np.int64))
    np.testing.assert_array_equal(results.counts, [0, 0])
    assert all(np.isnan(values).all() for values in results.values.values())


@pytest.mark.parametrize("k", [0, (10, 0), (), -1])
def test_unusable_cutoffs(k):
    with pytest.raises(ValueError, match="k must be one or more integers, at least 1; found"):
        ranking_results([[0]], k)


def test_many_targets_are_ranked_as_few_are():
    """With many columns of targets users are ranked one by one, else all at once."""
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 9, (40, 30)).astype(float)  # Many ties.
    is_candidate = rng.random((40, 30)) < 0.8
    targets = np.full((40, 12), -1)
    for row in targets:
        number = rng.integers(0, 13)
        row[:number] = rng.permutation(30)[:number]
    one_by_one = [ranks(scores, is_candidate | _has(targets), targets[:, [n]]) for n in range(12)]
    np.testing.assert_array_equal(ranks(scores, is_candidate, targets), np.hstack(one_by_one))


def _has(targets):
    """All targets of a user are candidates, also where only one of them is ranked."""
    found = np.zeros((len(targets), 30), bool)
    for row, own in zip(found, targets):
        row[own[own >= 0]] = True
    return found


def test_several_targets_by_hand():
    # Targets at places 1 and 4; at places 1, 2 and 3; at place 12; none.
    results = targets_results(
        [[3, 0, -1], [0, 1, 2], [-1, 11, -1], [-1, -1, -1]], recall_at=(1, 2, 10), ndcg_at=(2, 10)
    )
    np.testing.assert_array_equal(results.counts, [2, 3, 1, 0])
    second, fourth = 1 / math.log2(3), 1 / math.log2(5)
    expected = {
        "ndcg_at_2": [1 / (1 + second), 1, 0, NAN],
        "ndcg_at_10": [(1 + fourth) / (1 + second), 1, 0, NAN],
        # One hit of min(1, targets); one or two of min(2, targets); of all.
        "recall_at_1": [1, 1, 0, NAN],
        "recall_at_2": [1 / 2, 1, 0, NAN],
        "recall_at_10": [1, 1, 0, NAN],
    }
    assert list(results.values) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(results.values[name], values, rtol=1e-14, err_msg=name)


def test_standard_errors_over_users():
    values = {"recall_at_20": np.array([0.0, 1.0, NAN, 1.0, 1.0])}
    results = UserResults(values, np.array([3, 1, 0, 2, 2]))
    # Mean 3/4 of four judged users; variance 3/16.
    assert results.standard_errors() == {"recall_at_20": pytest.approx((3 / 16 / 4) ** 0.5)}


def test_constant_scores_find_nothing():
    # All 99 negatives tie with the held-out item, which so comes last.
    found = ranks(np.zeros((50, 100)), None, np.zeros((50, 1), int))
    np.testing.assert_array_equal(found, np.full((50, 1), 99))
    means = ranking_results(found).mean_over_users()
    assert means == pytest.approx(
        {"hr_at_10": 0, "ndcg_at_10": 0, "recall_at_10": 0, "mrr": 0.01}, abs=0, rel=1e-12
    )


def test_random_scores_find_a_tenth():
    num_users = 20_000
    scores = np.random.default_rng(5).random((num_users, 100))
    results = ranking_results(ranks(scores, None, np.zeros((num_users, 1), int)))
    means = results.mean_over_users()
    # A hit is a draw of probability 10 / 100: deviation 0.3 / sqrt(20 000) = 0.0021.
    assert means["hr_at_10"] == pytest.approx(0.1, abs=4 * 0.3 / math.sqrt(num_users))
    # Places 1 to 100 are equally likely. A user's NDCG and reciprocal rank are in [0, 1], so their
    # variance is at most the mean.
    ndcg = sum(1 / math.log2(place + 1) for place in range(1, 11)) / 100
    mrr = sum(1 / place for place in range(1, 101)) / 100
    assert means["ndcg_at_10"] == pytest.approx(ndcg, abs=4 * math.sqrt(ndcg / num_users))
    assert means["mrr"] == pytest.approx(mrr, abs=4 * math.sqrt(mrr / num_users))


def test_ratings_as_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(6)
    labels = rng.integers(1, 6, (30, 12)).astype(float)
    predictions = labels + rng.normal(size=labels.shape)
    mask = rng.random(labels.shape) < 0.6
    mask[0] = True
    results = rating_results(labels, predictions, mask, scale=STARS)
    for user in np.flatnonzero(mask.any(axis=1)):
        pair = labels[user, mask[user]], predictions[user, mask[user]]
        mse = sklearn_metrics.mean_squared_error(*pair)
        np.testing.assert_allclose(results.values["rmse"][user], math.sqrt(mse))
        mae = sklearn_metrics.mean_absolute_error(*pair)
        np.testing.assert_allclose(results.values["mae"][user], mae)
    everything = labels[mask], predictions[mask]
    means = results.mean_over_ratings()
    assert means["rmse"] ** 2 == pytest.approx(sklearn_metrics.mean_squared_error(*everything))
    assert means["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(*everything))


@pytest.mark.parametrize("num_held_out", [1, 3, 15])
def test_rankings_as_scikit_learn(num_held_out):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(num_held_out)
    scores = drawn_without_ties(rng, 25, 40)
    targets = drawn_without_ties(rng, 25, 40).astype(int)[:, :num_held_out]
    # Not everybody has all of them.
    targets[rng.random(targets.shape) < 0.2] = -1
    targets[:, 0] = np.where((targets < 0).all(axis=1), 7, targets[:, 0])
    results = ranking_results(ranks(scores, None, targets), k=(5, 10))
    for user in range(25):
        relevance = np.zeros(40, int)
        relevance[targets[user][targets[user] >= 0]] = 1
        for k in (5, 10):
            ndcg = sklearn_metrics.ndcg_score([relevance], [scores[user]], k=k)
            np.testing.assert_allclose(results.values[f"ndcg_at_{k}"][user], ndcg)
            is_in_first = scores[user] >= np.sort(scores[user])[-k]
            recall = sklearn_metrics.recall_score(relevance, is_in_first)
            np.testing.assert_allclose(results.values[f"recall_at_{k}"][user], recall)
            assert results.values[f"hr_at_{k}"][user] == (recall > 0)
        if relevance.sum() == 1:
            # With one relevant item, this average precision is the reciprocal rank.
            mrr = sklearn_metrics.label_ranking_average_precision_score([relevance], [scores[user]])
            np.testing.assert_allclose(results.values["mrr"][user], mrr)


@pytest.mark.parametrize("shape", [(6040, 100), (500, 3706)])
def test_ranks_are_fast(shape):
    rng = np.random.default_rng(7)
    scores, targets = rng.random(shape), rng.integers(0, shape[1], (shape[0], 1))
    is_candidate = rng.random(shape) < 0.9
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        ranks(scores, is_candidate, targets)
        seconds.append(time.perf_counter() - start)
    # It takes 2 to 5 ms; user by user, 6,040 calls take 130 ms.
    assert min(seconds) < 0.05
