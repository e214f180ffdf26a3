"""What differs between the kinds of feedback: questions, measures, means; without any model."""

import functools

import numpy as np
import pytest

from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import EXPLICIT, IMPLICIT, divide_by_user, divide_for_ranking
from fedrecon.data.ratings import RatingScale
from fedrecon.evaluation.feedback import FEEDBACKS, Measure, feedback_of
from fedrecon.evaluation.metrics import UserResults


@functools.cache
def population_of(feedback):
    ratings = load_dataset(
        "synthetic", num_users=60, num_items=270, mean_ratings_per_user=25, seed=0
    )
    if feedback == IMPLICIT:
        return divide_for_ranking(ratings, unseen_fraction=0.2, negatives_per_positive=3)
    return divide_by_user(ratings, held_out_fraction=0.25, support_batch_size=3)


def test_the_best_value_comes_first():
    values = np.array([0.5, 0.25, 0.75])
    error, quality = (Measure("m", "M", "1", is_error=is_error) for is_error in (True, False))
    assert values[np.argsort(error.best_first(values))].tolist() == [0.25, 0.5, 0.75]
    assert values[np.argsort(quality.best_first(values))].tolist() == [0.75, 0.5, 0.25]


def test_ratings_are_judged_by_errors_and_rankings_by_hits():
    measures = {
        name: {m.name: m.is_error for m in feedback.measures}
        for name, feedback in FEEDBACKS.items()
    }
    assert measures == {
        "explicit": {"rmse": True, "accuracy": False, "rounded_accuracy": False},
        "implicit": {"hr_at_10": False, "ndcg_at_10": False},
        "strong_generalization": {
            "ndcg_at_100": False,
            "recall_at_20": False,
            "recall_at_50": False,
        },
    }
    chosen_by = {name: feedback.chosen_by.name for name, feedback in FEEDBACKS.items()}
    assert chosen_by == {
        "explicit": "rmse",
        "implicit": "ndcg_at_10",
        "strong_generalization": "ndcg_at_100",
    }
    spread = {name: feedback.spread.name for name, feedback in FEEDBACKS.items()}
    assert spread == {
        "explicit": "rmse",
        "implicit": "mrr",
        "strong_generalization": "ndcg_at_100",
    }


@pytest.mark.parametrize("name", [EXPLICIT, IMPLICIT])
def test_a_population_has_its_own_kind(name):
    feedback = feedback_of(population_of(name))
    assert feedback is FEEDBACKS[name]
    assert feedback.name == name
    assert feedback.ranks_all_items == (name == IMPLICIT)


def test_means_are_over_ratings_or_over_users():
    # Two ratings of one user, six of the other; a third is asked nothing.
    values = np.array([1.0, 2.0, np.nan])
    results = UserResults({"rmse": values, "hr_at_10": values}, np.array([2, 6, 0]))
    explicit, implicit = FEEDBACKS[EXPLICIT], FEEDBACKS[IMPLICIT]
    assert (explicit.means_over, implicit.means_over) == ("ratings", "users")
    assert explicit.means(results)["rmse"] == pytest.approx(((2 * 1 + 6 * 4) / 8) ** 0.5)
    assert implicit.means(results)["hr_at_10"] == 1.5
    assert explicit.count(results) == {"num_examples": 8}
    assert implicit.count(results) == {"num_users": 2}


def test_cases_know_the_scale_of_their_labels():
    explicit, implicit = (population_of(name) for name in (EXPLICIT, IMPLICIT))
    binary = divide_by_user(explicit.ratings, held_out_fraction=0.25, label_threshold=4)
    for group in ("seen_test", "unseen_test"):
        for population, scale in ((explicit, explicit.ratings.scale), (binary, (0, 1, 1))):
            cases = feedback_of(population).cases(population, group)
            scale = scale if isinstance(scale, RatingScale) else RatingScale(*scale)
            assert cases.scale == cases.give_at_most(1).scale == scale
            assert scale.contains(cases.labels[cases.mask]).all()
            assert cases.select(np.arange(len(cases.users)) < 2).scale == scale
    assert feedback_of(implicit).cases(implicit, "seen_test").scale is None


@pytest.mark.parametrize("name", ["unseen_validation", "unseen_test"])
def test_unseen_users_give_even_batches_and_are_asked_for_odd_ones(name):
    population = population_of(EXPLICIT)
    cases = feedback_of(population).cases(population, name)
    np.testing.assert_array_equal(cases.users, population.groups[name].users)
    for place, user in enumerate(cases.users.tolist()):
        items, labels = population.examples.examples(user)
        is_given = np.arange(len(items)) // 3 % 2 == 0
        np.testing.assert_array_equal(cases.given[place][0], items[is_given])
        np.testing.assert_array_equal(cases.given[place][1], labels[is_given])
        mask = cases.mask[place]
        np.testing.assert_array_equal(cases.item_ids[place][mask], items[~is_given])
        np.testing.assert_array_equal(cases.labels[place][mask], labels[~is_given])


@pytest.mark.parametrize("name", ["seen_validation", "seen_test"])
def test_seen_users_give_what_they_train_on_and_are_asked_for_later_ratings(name):
    population = population_of(EXPLICIT)
    group = population.groups[name]
    cases = feedback_of(population).cases(population, name)
    for place, user in enumerate(cases.users.tolist()):
        given, _ = population.examples.examples(user)
        np.testing.assert_array_equal(cases.given[place][0], given)
        later, labels = group.later.examples(user)
        np.testing.assert_array_equal(cases.item_ids[place][cases.mask[place]], later)
        np.testing.assert_array_equal(cases.labels[place][cases.mask[place]], labels)


def test_held_out_items_come_first_among_their_candidates():
    population = population_of(IMPLICIT)
    for name, group in population.groups.items():
        cases = feedback_of(population).cases(population, name)
        np.testing.assert_array_equal(cases.users, group.users)
        rows = np.searchsorted(group.held_out.users, group.users)
        np.testing.assert_array_equal(cases.item_ids[:, 0], group.held_out.items[rows])
        np.testing.assert_array_equal(cases.item_ids[:, 1:], group.held_out.negatives[rows])
        np.testing.assert_array_equal(cases.labels[:, :2], [[1, 0]] * len(cases.users))


def test_fewer_ratings_are_the_first_ones():
    population = population_of(EXPLICIT)
    feedback = feedback_of(population)
    cases = feedback.cases(population, "unseen_test")
    counts = feedback.given_counts(cases)
    assert counts.tolist() == [len(labels) for _, labels in cases.given]
    who = counts >= np.median(counts)
    fewer = feedback.fewer_given(population, "unseen_test", cases, 2, who)
    np.testing.assert_array_equal(fewer.users, cases.users[who])
    np.testing.assert_array_equal(fewer.item_ids, cases.item_ids[who])
    for (items, labels), place in zip(fewer.given, np.flatnonzero(who)):
        np.testing.assert_array_equal(items, cases.given[place][0][:2])
        np.testing.assert_array_equal(labels, cases.given[place][1][:2])


def test_fewer_positives_come_with_fewer_negatives():
    population = population_of(IMPLICIT)
    feedback = feedback_of(population)
    cases = feedback.cases(population, "unseen_test")
    counts = feedback.given_counts(cases)
    users = cases.users.tolist()
    assert counts.tolist() == [len(population.examples.positives(user)) for user in users]
    who = counts > counts.min()
    assert 0 < who.sum() < len(who)
    fewer = feedback.fewer_given(population, "unseen_test", cases, 2, who)
    np.testing.assert_array_equal(fewer.users, cases.users[who])
    np.testing.assert_array_equal(fewer.item_ids, cases.item_ids[who])
    for user, (items, labels) in zip(fewer.users.tolist(), fewer.given):
        assert (labels.sum(), len(labels)) == (2, 2 + 2 * 3)
        assert set(items[labels == 1].tolist()) < set(population.examples.positives(user).tolist())
