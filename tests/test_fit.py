"""The common case in one call."""

import dataclasses

import numpy as np
import pytest
import tensorflow_federated as tff

import fedrecon as fr
from fedrecon.data.population import GROUPS
from fedrecon.data.ratings import RatingScale
from fedrecon.serving.linear import LeastSquares
from fedrecon.wiring.secure import secure_mean

EXPLICIT = ("fed_recon", "fed_recon_ls", "fed_avg", "stateful_fed_avg", "fed_ncf", "centralized")


@pytest.fixture(scope="module")
def ratings():
    return fr.load_dataset("synthetic", num_users=150, num_items=260, seed=1)


@pytest.fixture(scope="module")
def mean_rating_rmse(ratings):
    """The error of always predicting the mean of all ratings."""
    return float(np.std(ratings.ratings))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", EXPLICIT)
def test_every_algorithm_fits_ratings_and_says_how_well(ratings, mean_rating_rmse, algorithm):
    before = tff.framework.get_context_stack().current
    run = fr.fit(ratings, algorithm=algorithm, rounds=12)
    assert tff.framework.get_context_stack().current is before
    assert tuple(run.metrics) == GROUPS[:4]  # No items are held out.
    for metrics in run.metrics.values():
        assert metrics["num_examples"] > 50
        assert metrics["rmse"] < 1.15 * mean_rating_rmse
    assert run.curves.index.tolist() == list(range(13))
    watched = run.curves["unseen_validation/rmse"]
    assert watched.notna().all()  # Twelve rounds, evaluated after each.
    assert watched.iloc[-1] == run.metrics["unseen_validation"]["rmse"]
    assert run.curves["train/loss"].notna().sum() == 12
    assert run.algorithm.costs(run.state).server_bytes > 0


@pytest.mark.slow
# FedAvg's clients and the users of both are served by the same code as here.
@pytest.mark.parametrize("algorithm", ["fed_recon", "fed_recon_ls", "fed_ncf", "centralized"])
def test_the_scale_of_ratings_changes_nothing_but_the_unit(ratings, algorithm):
    # A factor of two to the third changes no digit, so everything is equal.
    factor = 8
    wide = dataclasses.replace(
        ratings, ratings=ratings.ratings * factor, scale=RatingScale(8, 40, 8)
    )
    given = {ratings.item_name(item): stars for item, stars in ((3, 5.0), (30, 2.0), (7, 4.0))}
    of_stars, of_wide = [
        (run, run.recommender.score_all({item: stars * unit for item, stars in given.items()}))
        for unit, run in (
            (1, fr.fit(ratings, algorithm=algorithm, rounds=3)),
            (factor, fr.fit(wide, algorithm=algorithm, rounds=3)),
        )
    ]
    for group, metrics in of_stars[0].metrics.items():
        expected = {
            **metrics,
            "rmse": factor * metrics["rmse"],
            "mae": factor * metrics["mae"],
        }
        assert of_wide[0].metrics[group] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(of_wide[1], factor * of_stars[1])
    of_training = of_stars[0].curves.filter(regex="^train/(loss|accuracy)$")
    assert len(of_training.columns)
    assert of_wide[0].curves[of_training.columns].equals(of_training)


def test_each_user_has_a_row_with_the_data_sets_own_id(ratings):
    run = fr.fit(ratings, algorithm="fed_recon", rounds=1, rounds_per_evaluation=1)
    table = run.per_user
    unseen = table[table["group"] == "unseen_test"]
    own_ids = np.asarray(ratings.original_user_ids)[run.population.groups["unseen_test"].users]
    assert unseen["user_id"].tolist() == own_ids.tolist()
    by_hand = np.sqrt(np.average(unseen["rmse"] ** 2, weights=unseen["count"]))
    assert by_hand == pytest.approx(run.metrics["unseen_test"]["rmse"], abs=1e-12)


def test_rankings_and_a_population_of_ones_own(ratings):
    population = fr.divide_for_ranking(ratings, seed=3, negatives_per_positive=0)
    run = fr.fit(population, algorithm="fed_ials", rounds=10)
    assert tuple(run.metrics) == ("seen_validation", "seen_test")
    assert run.metrics["seen_test"]["hr_at_10"] > 0.2  # Chance is 0.1.


def test_an_aggregator_sees_the_updates(ratings):
    plain = fr.fit(ratings, algorithm="fed_recon_ls", rounds=2)
    secure = fr.fit(
        ratings,
        algorithm="fed_recon_ls",
        rounds=2,
        aggregator=secure_mean(1e4, weight_bound=1e5),
        is_aggregator_linear=True,
    )
    rmses = [run.metrics["unseen_test"]["rmse"] for run in (plain, secure)]
    assert rmses[0] == pytest.approx(rmses[1], abs=1e-2)
    assert rmses[0] != rmses[1]  # Sums are rounded.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "fedrecon"}, r"no algorithm 'fedrecon'; there are fed_recon, .*centralized"),
        (
            {"algorithm": "fed_avg", "aggregator": secure_mean(1.0, weight_bound=1.0)},
            "fed_avg takes no aggregator",
        ),
        ({"clients_per_round": 1000}, "clients_per_round is 1000; it must be from 1 to the 120"),
    ],
)
def test_bad_arguments_are_one_sentence(ratings, arguments, message):
    with pytest.raises(fr.InputError, match=message):
        fr.fit(ratings, **arguments)


def test_a_warm_start_goes_on_with_the_penalties_of_training_and_serves_by_solving(ratings):
    first = fr.fit(ratings, algorithm="fed_ncf", rounds=1)
    again = fr.fit(ratings, algorithm="fed_ncf", rounds=1, warm_start=first.recommender)
    for run in (first, again):
        arguments = run.recommender.model_description["arguments"]
        assert (arguments["l2"], arguments.get("user_l2")) == (0.001, None)
        # The penalty of whoever is solved for is in the system of equations.
        assert isinstance(run.recommender.model.rule, LeastSquares)


@pytest.mark.slow
def test_a_warm_start_has_the_model_of_the_run_and_no_unseen_user_who_trained_it(ratings):
    first = fr.fit(ratings, rounds=4, seed=1)
    trained = {user for user, part in first.recommender.parts.items() if part == "train"}
    second = fr.fit(ratings, rounds=1, seed=2, warm_start=first.recommender)
    for group in ("unseen_validation", "unseen_test"):
        users = second.population.groups[group].users
        assert not trained & {ratings.user_name(user) for user in users}
    # The first run may have trained on whatever would be held out of seen users.
    assert set(second.metrics) == {"unseen_validation", "unseen_test"}
    assert second.population.examples.num_examples(int(second.population.train[0])) == len(
        ratings.rows_of(int(second.population.train[0]))
    )
    # The model is the first one's. By the same seed the same is asked, so it starts as that ended.
    again = fr.fit(ratings, rounds=1, seed=1, warm_start=first.recommender)
    ended = first.curves["unseen_validation/rmse"].iloc[-1]
    assert again.curves["unseen_validation/rmse"].iloc[0] == pytest.approx(ended, abs=1e-5)
    divided = fr.divide_by_user(ratings, seed=2)
    with pytest.raises(fr.InputError, match="trained the model to start from; divide the users"):
        fr.fit(divided, rounds=1, warm_start=first.recommender)
    first.recommender.parts = None
    with pytest.raises(fr.InputError, match="does not say whom it was trained on"):
        fr.fit(ratings, rounds=1, warm_start=first.recommender)
