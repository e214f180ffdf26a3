"""Paired intervals: by hand, by the normal approximation, and by SciPy's bootstrap."""

import time

import numpy as np
import pytest
from scipy import stats

from fedrecon.evaluation import intervals
from fedrecon.evaluation.intervals import paired_difference
from fedrecon.evaluation.metrics import UserResults

NAN = np.nan


def two_algorithms(rng, num_users, shift=0.01):
    """Users differ by 0.3, the two algorithms by 0.05 for each user, and by `shift` in the mean."""
    counts = rng.integers(1, 60, num_users)
    first = 0.9 + 0.3 * rng.random(num_users)
    second = first + shift + 0.05 * rng.normal(size=num_users)
    return [UserResults({"rmse": v, "hr": v}, counts) for v in (first, second)]


def test_two_users_by_hand():
    # A resample has user 0 twice, user 1 twice, or each once, with probability 1/4, 1/4 and 1/2, so
    # the 95% interval reaches from one user's difference to the other's.
    first = UserResults({"hr": np.array([1.0, 0.5, NAN])}, np.array([3, 1, 0]))
    second = UserResults({"hr": np.array([0.25, 0.75, NAN])}, np.array([3, 1, 0]))
    over_users = paired_difference([first], [second], "hr", over="users")
    assert (over_users.mean, over_users.low, over_users.high) == (0.25, -0.25, 0.75)
    assert over_users.is_noise
    over_ratings = paired_difference([first], [second], "hr", over="ratings")
    assert (over_ratings.mean, over_ratings.low, over_ratings.high) == (0.5, -0.25, 0.75)


def test_the_rmse_of_ratings_is_the_root_of_the_mean_of_squares():
    # (3 * 4 + 1 * 16) / 4 = 7 and (3 * 1 + 1 * 25) / 4 = 7; the roots of users differ by 1 and -1.
    first = UserResults({"rmse": np.array([2.0, 4.0])}, np.array([3, 1]))
    second = UserResults({"rmse": np.array([1.0, 5.0])}, np.array([3, 1]))
    found = paired_difference([first], [second], "rmse", over="ratings")
    assert (found.mean, found.low, found.high) == (0, -1, 1)
    # Over users it is a plain mean of roots: 3 less 3.
    assert paired_difference([first], [second], "rmse", over="users").mean == 0


def test_seeds_count_alike_and_are_resampled_apart():
    # With seed 0 everybody differs by 1, with seed 1 by 3, so there is nothing to be unsure of.
    of_seed = [
        UserResults({"hr": np.full(n, value)}, np.ones(n, int))
        for n, value in zip((5, 2), (2.0, 7.0))
    ]
    others = [
        UserResults({"hr": np.full(n, value)}, np.ones(n, int))
        for n, value in zip((5, 2), (1.0, 4.0))
    ]
    found = paired_difference(of_seed, others, "hr", over="users")
    assert (found.mean, found.low, found.high) == (2, 2, 2)
    assert not found.is_noise
    # Two seeds of two users: differences 1 and -1 in each. Both seeds are 1 with probability 1/16.
    plus = [UserResults({"hr": np.array([1.0, 0.0])}, np.ones(2, int))] * 2
    minus = [UserResults({"hr": np.array([0.0, 1.0])}, np.ones(2, int))] * 2
    found = paired_difference(plus, minus, "hr", over="users")
    assert (found.mean, found.low, found.high) == (0, -1, 1)
    means = [
        intervals.resampled_means([r], "hr", over="users", seed=s)[0] for s, r in enumerate(plus)
    ]
    apart = np.stack([each.resampled for each in means])
    assert np.corrcoef(apart)[0, 1] == pytest.approx(0, abs=0.15)
    assert np.mean((apart == 1).all(axis=0)) == pytest.approx(1 / 16, abs=0.03)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_mean_over_users_has_the_normal_interval(num_seeds):
    rng = np.random.default_rng(1)
    pairs = [two_algorithms(rng, 400) for _ in range(num_seeds)]
    found = paired_difference(*zip(*pairs), "hr", over="users")
    gaps = [first.values["hr"] - second.values["hr"] for first, second in pairs]
    mean = np.mean([gap.mean() for gap in gaps])
    error = np.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps)) / num_seeds
    assert found.mean == pytest.approx(mean)
    # An end is a quantile of 1000 draws: its own error is about 0.08 standard errors.
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)
    assert not found.is_noise
    # Unpaired, the spread of the users would hide the difference: 0.087 sqrt(2 / 400) = 0.006.
    unpaired = np.sqrt(sum(r.values["hr"].var() for r in pairs[0]) / 400)
    assert error * num_seeds**0.5 < unpaired / 2


def test_the_mean_over_ratings_has_the_interval_of_scipy():
    first, second = two_algorithms(np.random.default_rng(2), 200, shift=0.0)

    def statistic(one, other, counts, axis):
        roots = [np.sqrt(np.sum(v**2 * counts, axis) / np.sum(counts, axis)) for v in (one, other)]
        return roots[0] - roots[1]

    wanted = stats.bootstrap(
        (first.values["rmse"], second.values["rmse"], first.counts),
        statistic,
        vectorized=True,
        paired=True,
        n_resamples=20_000,
        batch=1000,
        method="percentile",
        random_state=np.random.default_rng(3),
    )
    found = paired_difference([first], [second], "rmse", over="ratings")
    assert found.mean == pytest.approx(
        first.mean_over_ratings()["rmse"] - second.mean_over_ratings()["rmse"]
    )
    tolerance = 0.3 * wanted.standard_error
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=tolerance)


def test_intervals_cover_the_truth_and_come_out_the_same_again():
    rng = np.random.default_rng(4)
    found = [
        paired_difference(*([r] for r in two_algorithms(rng, 60, shift=0.0)), "hr", over="users")
        for _ in range(200)
    ]
    # 95% of 200, with a deviation of 1.5%; the percentile interval is a little too short.
    assert 0.9 <= np.mean([each.is_noise for each in found]) <= 0.99
    pair = [[r] for r in two_algorithms(rng, 60)]
    assert paired_difference(*pair, "hr", over="users") == paired_difference(
        *pair, "hr", over="users"
    )


def test_one_user_alone_proves_nothing():
    results = [UserResults({"hr": np.array([NAN, v])}, np.array([0, 9])) for v in (1.0, 0.0)]
    found = paired_difference([results[0]], [results[1]], "hr", over="ratings")
    assert (found.mean, found.low, found.high) == (1, -np.inf, np.inf)
    assert found.is_noise


def test_what_cannot_be_paired_is_refused():
    one, other = (UserResults({"hr": np.ones(2)}, np.array(n)) for n in ([1, 2], [2, 1]))
    with pytest.raises(ValueError, match="differ in their users"):
        paired_difference([one], [other], "hr", over="users")
    with pytest.raises(ValueError, match="one has 2 seeds and the other 1"):
        paired_difference([one, one], [one], "hr", over="users")
    nobody = UserResults({"hr": np.full(2, NAN)}, np.zeros(2, int))
    with pytest.raises(ValueError, match="none of 2 users was judged"):
        paired_difference([nobody], [nobody], "hr", over="users")


def test_all_users_of_movielens_take_well_under_a_second():
    pair = [[r] for r in two_algorithms(np.random.default_rng(5), 6040)]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        paired_difference(*pair, "rmse", over="ratings")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.6  # It takes 0.1 s.
