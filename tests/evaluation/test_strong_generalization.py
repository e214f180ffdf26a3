"""Strong generalization is judged as the field judges it: two other renderings give the same.

One is written like the code published with Liang et al. 2018 (arXiv:1802.05814), on dense arrays;
the other is scikit-learn's NDCG.
"""

import functools

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from fedrecon import baselines
from fedrecon.data.datasets import load_dataset
from fedrecon.data.strong_generalization import divide_by_strong_generalization
from fedrecon.errors import InputError
from fedrecon.evaluation.coverage import coverage
from fedrecon.evaluation.feedback import FEEDBACKS, feedback_by, feedback_of
from fedrecon.evaluation.judge import BaselineScores, Judge

GROUPS = ("unseen_validation", "unseen_test")


@functools.cache
def population_of(num_items=160):
    ratings = load_dataset(
        "synthetic",
        num_users=120,
        num_items=num_items,
        mean_ratings_per_user=num_items // 4,
        seed=0,
    )
    return divide_by_strong_generalization(ratings, num_held_out_users=25)


class RandomScores:
    """A score for each user and item that follows from nothing."""

    def __init__(self, *, largest=2**20):
        self.largest = largest

    def of(self, users, items):
        rows = [np.random.default_rng([7, user]).integers(self.largest, size=500) for user in users]
        return np.array(rows, np.float32)[:, items]

    def losses(self, labels, scores):
        return None

    def score_blocks(self, state, cases, items):
        for start in range(0, len(cases.users), 7):
            places = np.arange(start, min(start + 7, len(cases.users)))
            yield places, self.of(cases.users[places].tolist(), items)


def dense(population, group):
    """What each user gives and is asked for, `[users, items]` bool."""
    users, shape = population.groups[group].users, population.ratings.num_items
    given, asked = np.zeros((2, len(users), shape), bool)
    for row, user in enumerate(users.tolist()):
        given[row, population.given.positives(user)] = True
        targets = population.groups[group].targets
        asked[row, targets.item_ids[targets.rows_of(user)]] = True
    return given, asked


def published(scores, given, asked):
    """NDCG@100, Recall@20 and Recall@50 of each user, in the way of the published code."""
    scores = np.where(given, -np.inf, scores)
    order = np.argsort(-scores, axis=1)
    hits = np.take_along_axis(asked, order, axis=1)
    discounts = 1 / np.log2(np.arange(2, 102))
    number = asked.sum(axis=1)
    ideal = np.array([discounts[: min(n, 100)].sum() for n in number])
    top = hits[:, :100]
    found = {"ndcg_at_100": (top * discounts[: top.shape[1]]).sum(axis=1) / ideal}
    for k in (20, 50):
        found[f"recall_at_{k}"] = hits[:, :k].sum(axis=1) / np.minimum(k, number)
    return found


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("num_items", [160, 80])  # More and fewer than 100 candidates.
def test_as_published(group, num_items):
    population, scores = population_of(num_items), RandomScores()
    results = Judge.of_scores(scores, population).results(None, group)
    users = population.groups[group].users
    items = np.arange(population.ratings.num_items)
    given, asked = dense(population, group)
    assert asked.sum() > 50
    expected = published(scores.of(users.tolist(), items), given, asked)
    assert set(results.values) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(results.values[name], values, rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(results.counts, asked.sum(axis=1))


def test_ndcg_as_scikit_learn():
    population, scores = population_of(), RandomScores()
    results = Judge.of_scores(scores, population).results(None, "unseen_test")
    users = population.groups["unseen_test"].users
    given, asked = dense(population, "unseen_test")
    of_items = scores.of(users.tolist(), np.arange(population.ratings.num_items))
    for row, value in enumerate(results.values["ndcg_at_100"]):
        candidates = ~given[row]
        expected = ndcg_score([asked[row, candidates]], [of_items[row, candidates]], k=100)
        assert value == pytest.approx(expected, rel=1e-12)


def test_ties_count_against_the_model():
    """Equal scores for all items find nothing among 160, whose first hundred places are others."""
    population = population_of()
    results = Judge.of_scores(RandomScores(largest=1), population).results(None, "unseen_test")
    assert results.mean_over_users()["recall_at_50"] == 0


def test_what_a_user_gives_is_no_candidate():
    """A scorer that prefers items that the user has would find nothing else."""
    population = population_of()
    given, asked = dense(population, "unseen_test")

    class Knows(RandomScores):
        def of(self, users, items):
            places = [population.groups["unseen_test"].users.tolist().index(user) for user in users]
            return (2 * given[places] + asked[places]).astype(np.float32)[:, items]

    means = Judge.of_scores(Knows(), population).metrics(None, "unseen_test")
    # Targets tie with each other, so the first of many takes the last of their places.
    assert means["recall_at_50"] == 1
    assert means["num_users"] == 25


def test_means_come_with_standard_errors_over_users():
    population = population_of()
    judge = Judge.of_scores(RandomScores(), population)
    results = judge.results(None, "unseen_test")
    metrics = judge.summarize(results)
    for name, values in results.values.items():
        assert metrics[name] == pytest.approx(values.mean())
        assert metrics[f"{name}_standard_error"] == pytest.approx(values.std() / 5)  # 25 users.


def test_a_baseline_is_judged_by_what_users_give_alone():
    population = population_of()
    users, items, _ = population.examples.interactions(population.train)
    sizes = {"num_users": 120, "num_items": population.ratings.num_items}
    model = baselines.train_popularity(users, items, **sizes, options=baselines.PopularityOptions())
    judge = Judge.of_scores(BaselineScores(), population)
    results = judge.results(model, "unseen_test")
    given, asked = dense(population, "unseen_test")
    counts = np.bincount(items, minlength=sizes["num_items"])
    # Popular items tie; a tie that counts against the model puts targets behind their equals.
    scores = np.broadcast_to(counts, given.shape) - 0.5 * asked
    np.testing.assert_allclose(
        results.values["recall_at_20"], published(scores, given, asked)["recall_at_20"]
    )


def test_whoever_gives_fewer_items_is_not_asked_for_the_others():
    population = population_of()
    feedback = feedback_of(population)
    cases = feedback.cases(population, "unseen_test")
    who = feedback.given_counts(cases) >= 10
    fewer = feedback.fewer_given(population, "unseen_test", cases, 3, who)
    assert [np.sum(labels >= 1) for _, labels in fewer.given] == [3] * np.sum(who)
    chosen = cases.select(who)
    np.testing.assert_array_equal(fewer.item_ids, chosen.item_ids)
    for known, (items, labels), whole in zip(fewer.known, fewer.given, chosen.known):
        np.testing.assert_array_equal(known, whole)
        assert set(items[labels >= 1].tolist()) <= set(known.tolist())
    by_given = Judge.of_scores(RandomScores(), population).results_by_given(None, "unseen_test")
    # These scores do not depend on what a user gives, so nothing else may.
    (first, *others) = by_given.values()
    assert len(others) >= 3
    for results in others:
        np.testing.assert_array_equal(results.values["ndcg_at_100"], first.values["ndcg_at_100"])


def test_scores_that_are_not_finite_are_refused():
    class Diverged(RandomScores):
        def of(self, users, items):
            return np.full((len(users), len(items)), np.nan, np.float32)

    with pytest.raises(InputError, match="predictions are not finite"):
        Judge.of_scores(Diverged(), population_of()).results(None, "unseen_test")


def test_coverage_counts_targets_and_those_asked_nothing():
    population = population_of()
    found = coverage(
        population, "unseen_test", feedback_of(population).cases(population, "unseen_test")
    )
    _, asked = dense(population, "unseen_test")
    assert (found.num_users, found.num_judged, found.num_asked) == (25, 25, asked.sum())
    assert (found.left_out, found.num_cold, found.num_fewer_candidates) == ({}, 0, 0)


def test_the_split_says_how_users_are_asked():
    assert feedback_by("implicit", "standard") is FEEDBACKS["implicit"]
    assert feedback_by("explicit", "standard") is FEEDBACKS["explicit"]
    strong = feedback_by("implicit", "strong_generalization")
    assert feedback_of(population_of()) is strong
    assert [m.title for m in strong.measures] == ["NDCG@100", "Recall@20", "Recall@50"]
    assert strong.chosen_by.name == "ndcg_at_100"
