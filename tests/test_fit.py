"""The common case in one call."""

import numpy as np
import pytest
import tensorflow_federated as tff

import fedrecon as fr
from fedrecon.data.population import GROUPS
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
