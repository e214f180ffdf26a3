"""Strengths of iALS that carry over from one data set to another: worked-out numbers."""

import math

import numpy as np
import pytest

from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_for_ranking
from fedrecon.errors import InputError
from fedrecon.ials_units import PairCounts, in_pairs
from fedrecon.options import FedIalsOptions

# 25 items a user, 100 users an item: noise reaches up to 5 + 10.
COUNTS = PairCounts(num_users=4000, num_items=1000, num_pairs=100_000)


def test_the_units_are_noise_and_the_observed():
    strengths = in_pairs(COUNTS, regularization=0.5, unobserved_weight=3.0)
    assert strengths["regularization"] == pytest.approx(0.5 * 15)
    # All 4,000,000 pairs weigh 3 times what 100,000 do.
    assert strengths["unobserved_weight"] == pytest.approx(0.075)


def test_a_regularization_that_grows_with_pairs_is_as_strong_for_average_rows():
    strengths = in_pairs(COUNTS, regularization=0.5, unobserved_weight=3.0, exponent=1.0)
    weight = strengths["unobserved_weight"]
    of_user = strengths["regularization"] * (25 + weight * 1000)
    of_item = strengths["regularization"] * (100 + weight * 4000)
    assert math.sqrt(of_user * of_item) == pytest.approx(0.5 * 15)


def test_the_released_numbers_of_movielens_1m():
    # What its search chose, 0.008 and 0.2 per pair.
    counts = PairCounts(6040, 3704, 988_129)
    found = in_pairs(counts, regularization=0.31724, unobserved_weight=4.5282, exponent=1.0)
    assert found["regularization"] == pytest.approx(0.008, rel=1e-4)
    assert found["unobserved_weight"] == pytest.approx(0.2, rel=1e-4)


def test_options_of_a_population_are_those_of_its_training_pairs():
    ratings = load_dataset("synthetic", num_users=60, num_items=80, mean_ratings_per_user=25)
    population = divide_for_ranking(ratings, negatives_per_positive=0, unseen_fraction=0.2)
    users, _, _ = population.examples.interactions(population.train)
    counts = PairCounts.of_training(population)
    assert counts == (len(population.train), 80, len(users))
    assert len(np.unique(users)) == len(population.train) == 48
    options = FedIalsOptions.of_data(counts, unobserved_weight=2.0, exponent=0.5)
    expected = in_pairs(counts, unobserved_weight=2.0, exponent=0.5)
    assert options.exponent == 0.5
    assert options.regularization == expected["regularization"]
    assert options.unobserved_weight == expected["unobserved_weight"]


def test_data_without_pairs_are_refused():
    with pytest.raises(InputError, match="iALS needs users, items and pairs of them"):
        in_pairs(PairCounts(3, 4, 0))
