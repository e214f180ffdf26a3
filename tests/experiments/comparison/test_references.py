"""The classical references: what they are trained on, judged by, and recorded with."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.comparison import references, runs
from experiments.run.population import load_population
from experiments.run.settings import uses
from fedrecon import ials_units
from fedrecon.evaluation.judge import BaselineScores, Judge
from fedrecon.evaluation.metrics import UserResults
from tests.experiments.small import small_settings

EXPLICIT = small_settings(
    algorithm="item_knn",
    synthetic_num_items=260,
    max_ratings_per_user=20,
    held_out_fraction=0.2,
    dim=3,
    clients_per_round=5,
    support_batch_size=4,
)
IMPLICIT = dataclasses.replace(
    EXPLICIT, feedback="implicit", held_out_fraction=0.0, unseen_fraction=0.2
)


def of(algorithm, settings, **changes):
    return dataclasses.replace(settings, algorithm=algorithm, **changes)


def training_pairs(population):
    """The pairs of user and item that training users train on, by another way than `train`."""
    examples = population.examples
    ratings, pairs = examples.ratings, set()
    for user in population.train.tolist():
        is_implicit = population.feedback == "implicit"
        items = examples.positives(user) if is_implicit else examples.examples(user)[0]
        pairs |= {(user, item) for item in items.tolist()}
    assert 0 < len(pairs) < ratings.num_ratings
    return pairs


def test_popularity_counts_training_users_and_their_training_items_alone():
    population = load_population(IMPLICIT)
    model = references.train(of("popularity", IMPLICIT), population)
    expected = np.zeros(260)
    for _, item in training_pairs(population):
        expected[item] += 1
    np.testing.assert_array_equal(model.counts, expected)


def test_item_means_are_of_training_users_capped_ratings():
    population = load_population(EXPLICIT)
    model = references.train(of("popularity", EXPLICIT), population)
    given = [population.examples.examples(user) for user in population.train.tolist()]
    assert max(len(labels) for _, labels in given) <= 20
    assert model.mean == pytest.approx(np.concatenate([labels for _, labels in given]).mean())


def test_references_train_on_all_that_the_rounds_of_others_use():
    """Who shuffles in each round draws other ratings under the cap, and so uses all in the end."""
    settings = of("popularity", EXPLICIT, example_order="shuffle_each_round")
    population = load_population(settings)
    ratings = population.examples.ratings
    labels = ratings.ratings[np.isin(ratings.user_ids, population.train)]
    capped = sum(population.examples.num_examples(user) for user in population.train.tolist())
    assert len(labels) > capped
    assert references.train(settings, population).mean == pytest.approx(labels.mean())


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("popularity", EXPLICIT),
        ("item_knn", EXPLICIT),
        ("popularity", IMPLICIT),
        ("item_knn", IMPLICIT),
        ("ials", IMPLICIT),
        ("ease", IMPLICIT),
    ],
)
def test_users_are_judged_by_what_they_give_alone(algorithm, settings):
    population = load_population(settings)
    settings = of(algorithm, settings)
    model = references.train(settings, population)
    judge = Judge.of_scores(BaselineScores(), population)
    for group in population.groups:
        cases = judge.cases(group)
        results = judge.results(model, group)
        assert isinstance(results, UserResults)
        rows = [model.score(*given, ids) for given, ids in zip(cases.given, cases.item_ids)]
        if settings.is_explicit:
            errors = [
                np.sqrt(np.mean((row - labels)[ids >= 0] ** 2))
                for row, labels, ids in zip(rows, cases.labels, cases.item_ids)
            ]
            np.testing.assert_allclose(results.values["rmse"], errors, rtol=1e-5)
        else:
            ranks = [np.sum(row[1:] >= row[0]) for row in rows]
            np.testing.assert_allclose(results.values["mrr"], 1 / (np.array(ranks) + 1))
    if not settings.is_explicit:
        full = judge.full_ranking(model, "unseen_test").values["mrr"]
        cases = judge.cases("unseen_test")
        validation = population.groups["seen_validation"].held_out
        for place, user in enumerate(cases.users.tolist()):
            known = set(population.examples.positives(user).tolist())
            known.add(validation.items[np.searchsorted(validation.users, user)])
            scores = model.score(*cases.given[place], np.arange(260))
            own = cases.item_ids[place, 0]
            others = sorted(set(range(260)) - known - {own})
            assert full[place] == pytest.approx(1 / (1 + np.sum(scores[others] >= scores[own])))


def test_ials_takes_the_settings_that_it_says_it_uses():
    population = load_population(IMPLICIT)
    chosen = of("ials", IMPLICIT, ridge=3.0, unobserved_weight=0.5, seed=0)
    options = references.train(chosen, population).options
    users, items, _ = population.examples.interactions(population.train)
    of_user, of_item = len(users) / len(np.unique(users)), len(items) / 260
    assert options.dim == 3
    assert options.regularization == pytest.approx(3.0 * (of_user**0.5 + of_item**0.5))
    assert options.unobserved_weight == pytest.approx(0.5 * of_user / 260)
    default = references.train(of("ials", IMPLICIT), population).options
    in_units = ials_units.in_pairs(ials_units.PairCounts.of_training(population))
    assert default.regularization == in_units["regularization"]
    for name in ("dim", "ridge", "unobserved_weight", "unseen_fraction", "seed"):
        assert uses(of("ials", IMPLICIT), name), name
    for name in ("l2", "client_learning_rate", "total_rounds", "batch_size", "held_out_fraction"):
        assert not uses(of("ials", IMPLICIT), name), name
    assert uses(EXPLICIT, "support_batch_size")  # It cuts what unseen users give.
    assert not uses(of("popularity", EXPLICIT), "dim")


def test_other_references_take_their_settings():
    population = load_population(IMPLICIT)
    knn = references.train(of("item_knn", IMPLICIT, num_neighbors=7, shrinkage=3.0), population)
    assert (knn.options.num_neighbors, knn.options.shrinkage) == (7, 3.0)
    default = references.train(of("item_knn", IMPLICIT), population).options
    assert (default.num_neighbors, default.shrinkage) == (50, 0.0)
    ease = references.train(of("ease", IMPLICIT, ridge=30.0), population)
    assert ease.options.regularization == 30.0
    assert references.train(of("ease", IMPLICIT), population).options.regularization == 500.0


@pytest.mark.usefixtures("in_process_runtime")
def test_federated_ease_is_ease_and_costs_counts_of_items_squared():
    whole = dataclasses.replace(IMPLICIT, max_ratings_per_user=None, ridge=30.0)
    ease, fed_ease = (of(name, whole) for name in ("ease", "fed_ease"))
    central, population = references.train(ease, load_population(ease)), load_population(fed_ease)
    model = references.train(fed_ease, population)
    np.testing.assert_allclose(model.weights, central.weights, atol=1e-6)
    costs = references.costs(fed_ease, population, model)
    square = 4 * 260 * 260
    assert costs == (square, square, 0, 0, 2 * square, 0)
    assert references.costs(ease, population, central).bytes_up_once > 0
    assert references.costs(ease, population, central).bytes_up == 0


def test_config_names_what_defaults_are_and_changes_with_them():
    config = references.config(of("ials", IMPLICIT, ridge=3.0))
    assert (config["algorithm"], config["ridge"], config["dim"]) == ("ials", 3.0, 3)
    assert config["unobserved_weight"] > 0  # The default, not None.
    knn = references.config(EXPLICIT)
    assert knn["num_neighbors"] > 1
    assert knn["support_batch_size"] == 4
    assert "server_learning_rate" not in knn
    json.dumps([config, knn])


def test_a_models_bytes_are_those_of_its_arrays_and_of_what_it_rests_on():
    population = load_population(EXPLICIT)
    baseline = references.train(of("popularity", EXPLICIT), population)
    assert baseline.num_bytes == 8 * 260
    knn = references.train(EXPLICIT, population)
    assert knn.num_bytes == 4 * 260 * 260 + 8 * 260


def test_cold_items_are_judged_like_others_and_recommended_from_like_no_others():
    """The users of `cold_test` would get the lists of `unseen_test` once more."""
    settings = of("global_mean", EXPLICIT, cold_items_fraction=0.2)
    population = load_population(settings)
    model = references.train(settings, population)
    _, _, labels = population.examples.interactions(population.train)
    np.testing.assert_allclose(model.means, np.full(260, labels.mean()), rtol=1e-6)
    scores = BaselineScores()
    judge = Judge.of_scores(scores, population)
    groups, per_user = runs.judged(judge, scores, model, population)
    cases = judge.cases("cold_test")
    errors = cases.labels[cases.mask] - labels.mean()
    assert groups["cold_test"].means["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert groups["cold_test"].coverage["num_cold"] == cases.mask.sum() > 0
    np.testing.assert_array_equal(per_user["cold_test"].users, cases.users)
    assert [name for name in groups if groups[name].top_lists] == ["seen_test", "unseen_test"]
