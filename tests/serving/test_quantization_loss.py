"""What a smaller item table costs test users."""

import dataclasses
import types

import numpy as np
import pytest

import fedrecon as fr
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.data.strong_generalization import divide_by_strong_generalization
from fedrecon.evaluation.feedback import feedback_of
from fedrecon.evaluation.judge import Judge
from fedrecon.serving.item_table import KINDS, StoredTable
from fedrecon.serving.quantization_loss import quantization_loss
from fedrecon.serving.scores import RecommenderScores
from tests.serving.random_models import RULES, linear_model


@pytest.fixture(scope="module")
def ratings():
    return fr.load_dataset(
        "synthetic", num_users=80, num_items=60, mean_ratings_per_user=25, seed=0
    )


def test_rmse_is_over_what_unseen_users_are_asked(ratings):
    population = divide_by_user(ratings)
    model = linear_model(RULES["least_squares"], num_items=ratings.num_items)
    found = quantization_loss(model, population)
    assert (found["group"], found["num_users"]) == ("unseen_test", 8)
    cases = feedback_of(population).cases(population, "unseen_test")
    for kind in KINDS:
        table = StoredTable.of(model.factors, kind).to_float32()
        stored = dataclasses.replace(model, factors=table)
        squares = []
        for of_user, items, labels in zip(cases.given, cases.item_ids, cases.labels):
            scores = stored.scores(stored.user_vectors([of_user]))[0]
            squares += ((scores[items] - labels) ** 2)[items >= 0].tolist()
        rmse = found["measures"][kind]["rmse"]
        assert rmse == pytest.approx(np.mean(squares) ** 0.5, rel=1e-6)
        change = found["change_from_float32"][kind]["rmse"]
        assert change == rmse - found["measures"]["float32"]["rmse"]


def test_where_all_train_the_seen_users_are_ranked(ratings):
    population = divide_for_ranking(ratings, negatives_per_positive=0)
    model = linear_model(RULES["implicit_least_squares"], num_items=ratings.num_items)
    found = quantization_loss(model, population)
    assert found["group"] == "seen_test"
    assert set(found["measures"]["int8"]) == {"hr_at_10", "ndcg_at_10"}
    assert 0 < found["measures"]["float32"]["ndcg_at_10"] < 1


def test_users_never_seen_are_ranked_among_the_catalog(ratings):
    population = divide_by_strong_generalization(
        ratings, num_held_out_users=20, negatives_per_positive=0
    )
    num_items = population.ratings.num_items
    model = linear_model(RULES["implicit_least_squares"], num_items=num_items)
    found = quantization_loss(model, population)
    assert (found["group"], found["num_users"]) == ("unseen_test", 20)
    assert set(found["measures"]["int8"]) == {"ndcg_at_100", "recall_at_20", "recall_at_50"}
    recommender = types.SimpleNamespace(model=model)  # As a judge takes it.
    judge = Judge.of_scores(RecommenderScores(), population)
    expected = judge.metrics(recommender, "unseen_test")
    for name, value in found["measures"]["float32"].items():
        assert value == pytest.approx(expected[name])


@pytest.mark.slow
def test_int8_costs_less_than_two_thousandths_of_a_star_on_movielens_1m(real_data_dir):
    data = fr.load_dataset("movielens-1m", data_dir=real_data_dir)
    fitted = fr.fit(data, algorithm="fed_recon_ls", rounds=15, rounds_per_evaluation=15)
    found = quantization_loss(fitted.recommender.model, fitted.population)
    trained = fitted.metrics["unseen_test"]["rmse"]
    assert found["measures"]["float32"]["rmse"] == pytest.approx(trained, abs=1e-5)
    assert trained < 1.1  # The middle of the scale has 1.26.
    assert abs(found["change_from_float32"]["int8"]["rmse"]) < 0.002
    assert abs(found["change_from_float32"]["float16"]["rmse"]) < 0.0002
