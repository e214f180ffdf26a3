"""From settings to users and algorithms: what the library makes of the same options."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import fedrecon as fr
from experiments.run import build
from experiments.run.population import load_population, watched_group
from experiments.run.settings import Settings
from fedrecon.data.datasets import load_dataset, load_leave_one_out
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.errors import DataError, InputError
from fedrecon.evaluation.judge import Judge
from fedrecon.ials_units import PairCounts
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import model_fn
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
    LeastSquaresOptions,
    OptimizerOptions,
)
from fedrecon.runs.client_store import ClientStore
from tests.experiments.small import small_settings

EXPLICIT = small_settings(max_ratings_per_user=12, dim=2, clients_per_round=7, batch_size=5)
IMPLICIT = dataclasses.replace(
    EXPLICIT, feedback="implicit", synthetic_num_items=270, max_ratings_per_user=None
)


def explicit(**changes):
    return dataclasses.replace(EXPLICIT, **changes)


def implicit(**changes):
    return dataclasses.replace(IMPLICIT, **changes)


def ratings_of(num_items, seed=0):
    return load_dataset(
        "synthetic", num_users=60, num_items=num_items, mean_ratings_per_user=25, seed=seed
    )


# --- users ----------------------------------------------------------------------------------------


def assert_same_population(found, expected):
    assert (found.feedback, found.seed) == (expected.feedback, expected.seed)
    assert found.ratings.fingerprint() == expected.ratings.fingerprint()
    assert found.examples.options == expected.examples.options
    assert found.examples.ratings.fingerprint() == expected.examples.ratings.fingerprint()
    np.testing.assert_array_equal(found.train, expected.train)
    assert list(found.groups) == list(expected.groups)
    for name, group in found.groups.items():
        other = expected.groups[name]
        np.testing.assert_array_equal(group.users, other.users)
        if other.later is not None:
            assert group.later.options == other.later.options
            assert group.later.ratings.fingerprint() == other.later.ratings.fingerprint()
        if other.held_out is not None:
            np.testing.assert_array_equal(group.held_out.items, other.held_out.items)
            np.testing.assert_array_equal(group.held_out.negatives, other.held_out.negatives)
    assert found.support_batch_size == expected.support_batch_size
    assert found.unseen_halves == expected.unseen_halves


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (explicit(), divide_by_user(ratings_of(60), max_ratings_per_user=12)),
        (
            explicit(
                seed=2,
                max_ratings_per_user=None,
                example_order="shuffle_each_round",
                label_threshold=4.0,
                held_out_fraction=0.25,
                batch_size=7,
                support_query_split="none",
                support_batch_size=3,
            ),
            divide_by_user(
                ratings_of(60, seed=2),
                seed=2,
                order="shuffle_each_round",
                label_threshold=4.0,
                held_out_fraction=0.25,
                support_batch_size=3,
            ),
        ),
        (
            explicit(unseen_halves="by_time"),
            divide_by_user(ratings_of(60), max_ratings_per_user=12, unseen_halves="by_time"),
        ),
        (implicit(), divide_for_ranking(ratings_of(270))),
        (
            implicit(
                seed=2,
                max_ratings_per_user=5,
                negatives_per_positive=2,
                unseen_fraction=0.15,
                evaluate_on="test",
            ),
            divide_for_ranking(
                ratings_of(270, seed=2),
                seed=2,
                max_ratings_per_user=5,
                negatives_per_positive=2,
                unseen_fraction=0.15,
                holds_out_validation=False,
            ),
        ),
        # Clients of federated iALS have no negatives.
        (
            implicit(algorithm="fed_ials"),
            divide_for_ranking(ratings_of(270), negatives_per_positive=0),
        ),
    ],
)
def test_settings_choose_the_population(settings, expected):
    assert_same_population(load_population(settings), expected)


def test_runs_that_differ_in_nothing_else_share_their_users():
    population = load_population(explicit())
    again = load_population(
        explicit(dim=5, clients_per_round=3, algorithm="centralized", batch_size=2)
    )
    assert again is population


def with_genres(ratings):
    genres = tuple((("Drama", "War") if item % 2 else ("War",)) for item in range(60))
    return dataclasses.replace(ratings, item_genres=genres)


def test_item_features_are_the_genres_of_the_data_set():
    chosen = explicit(item_features="genres", item_features_norm=0.5, item_bias=True)
    model = build.model_fn(chosen, with_genres(ratings_of(60)))()
    (features,) = model.global_non_trainable_weights
    half = 0.5 / np.sqrt(2)
    np.testing.assert_allclose(features[:2], [[0, 0.5], [half, half]], rtol=1e-6)
    (none,) = build.model_fn(explicit(), ratings_of(60))().global_weights
    assert none.shape == [60, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"item_features": "genres"},
        {"algorithm": "genre_mean"},
        {"algorithm": "genre_popularity"},
    ],
)
def test_genres_that_there_are_not_are_refused_when_the_data_are_loaded(changes):
    with pytest.raises(DataError, match=r"^synthetic has no genres"):
        load_population(explicit(**changes))


def test_an_initial_rating_that_no_rating_can_have_is_refused():
    message = r"--initial_rating=6 is not on the scale of the labels, 1 to 5 in steps of 1"
    with pytest.raises(InputError, match=message):
        load_population(explicit(global_bias=True, initial_rating=6.0))
    with pytest.raises(InputError, match=r"--initial_rating=3 .* labels, 0 to 1"):
        load_population(explicit(global_bias=True, initial_rating=3.0, label_threshold=4.0))


@pytest.mark.filterwarnings("ignore:.*was published with")
def test_published_files_decide_the_test(leave_one_out_dir):
    settings = Settings(
        dataset="ncf-ml-1m",
        data_dir=str(leave_one_out_dir),
        feedback="implicit",
        evaluate_on="test",
        clients_per_round=1,
    )
    files = load_leave_one_out("ncf-ml-1m", data_dir=leave_one_out_dir)
    assert_same_population(
        load_population(settings), divide_for_ranking(files, holds_out_validation=False)
    )


def test_a_share_of_users_that_is_nobody_is_refused():
    with pytest.raises(InputError, match=r"unseen_fraction=0\.01 of 60 users is nobody"):
        load_population(implicit(unseen_fraction=0.01))


@pytest.mark.parametrize(("settings", "most"), [(explicit, 48), (implicit, 60)])
def test_a_cohort_larger_than_the_population_is_refused(settings, most):
    load_population(settings(clients_per_round=most))
    with pytest.raises(InputError, match=f"={most + 1} is more than the {most} training users"):
        load_population(settings(clients_per_round=most + 1))
    # A reference has no cohorts.
    load_population(settings(clients_per_round=most + 1, algorithm="popularity"))


@pytest.mark.parametrize(
    ("settings", "group"),
    [
        (explicit(), "unseen_validation"),
        (implicit(), "seen_validation"),
        (implicit(evaluate_on="test"), "seen_test"),
    ],
)
def test_curves_follow_a_group_that_there_is(settings, group):
    assert watched_group(settings) == group
    assert group in load_population(settings).groups


# --- algorithms -----------------------------------------------------------------------------------


def mf(population, **settings):
    return model_fn(matrix_factorization, population.ratings.num_items, 2, **settings)


def sgd(rate):
    return OptimizerOptions("sgd", rate)


FITTED = {
    "reconstruction_optimizer": "adam",
    "reconstruction_learning_rate": 0.125,
    "reconstruction_epochs": 2,
    "reconstruction_steps_max": 3,
}
FIT = {
    "reconstruction_optimizer": OptimizerOptions("adam", 0.125),
    "reconstruction_epochs": 2,
    "reconstruction_steps_max": 3,
}
STEPS = {
    "client_learning_rate": 0.25,
    "server_optimizer": "momentum",
    "server_learning_rate": 0.5,
    "client_epochs": 2,
    "client_steps_max": 4,
    "client_weighting": "uniform",
    "batch_size": 3,
}
TAKE_STEPS = {
    "client_optimizer": sgd(0.25),
    "server_optimizer": OptimizerOptions("momentum", 0.5),
    "client_epochs": 2,
    "client_steps_max": 4,
    "client_weighting": "uniform",
    "batch_size": 3,
}
AVERAGE = FedAvgOptions(**TAKE_STEPS, averaging="by_row", gradient_clip_norm=2.0)
AVERAGED = {**STEPS, **FITTED, "averaging": "by_row", "gradient_clip_norm": 2.0}
SERVE = {"reconstruction": FedReconOptions(**FIT, batch_size=3)}


def of_fed_recon(prepared, options, **model_settings):
    def expected(population):
        return prepared(mf(population, **model_settings), options, population, clients_per_round=7)

    return expected


def of_fed_ials(**in_units):
    def expected(population):
        options = FedIalsOptions.of_data(PairCounts.of_training(population), **in_units)
        model = mf(population, user_l2=0.0)
        return fr.prepare_fed_ials(model, options, population, clients_per_round=7)

    return expected


def of_averaging(prepared, **more):
    def expected(population):
        return prepared(
            mf(population, item_bias=True, seed=1),
            AVERAGE,
            population,
            clients_per_round=7,
            sampler="queue",
            **SERVE,
            **more,
        )

    return expected


def of_averaging_settings(algorithm):
    return explicit(**AVERAGED, algorithm=algorithm, item_bias=True, client_sampler="queue", seed=1)


EXACT = FedReconOptions(
    reconstruction="least_squares",
    least_squares=LeastSquaresOptions(3.0, 0.5, bias_regularization=2.0),
    client_optimizer=sgd(1.0),
    client_takes_one_step=True,
)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            explicit(**STEPS, **FITTED, support_query_split="none"),
            of_fed_recon(
                fr.prepare_fed_recon,
                FedReconOptions(**TAKE_STEPS, **FIT, support_query_split="none"),
            ),
        ),
        (
            explicit(engine="stock", client_learning_rate=0.25),
            of_fed_recon(fr.prepare_stock_fed_recon, FedReconOptions(client_optimizer=sgd(0.25))),
        ),
        (
            explicit(
                algorithm="fed_recon_ls",
                ridge=3.0,
                ridge_exponent=0.5,
                bias_ridge=2.0,
                l2=0.125,
                user_bias=True,
            ),
            # What is solved for has no L2 beside its ridge.
            of_fed_recon(fr.prepare_fed_recon, EXACT, user_bias=True, l2=0.125, user_l2=0.0),
        ),
        (
            implicit(
                algorithm="fed_ials",
                ridge=0.5,
                ridge_exponent=0.25,
                unobserved_weight=0.75,
                server_optimizer="adam",
                server_learning_rate=0.125,
            ),
            of_fed_ials(
                regularization=0.5,
                unobserved_weight=0.75,
                exponent=0.25,
                server_optimizer=OptimizerOptions("adam", 0.125),
            ),
        ),
        (of_averaging_settings("fed_avg"), of_averaging(fr.prepare_fed_avg)),
        (
            of_averaging_settings("stateful_fed_avg"),
            of_averaging(fr.prepare_stateful_fed_avg, open_store=ClientStore),
        ),
        (of_averaging_settings("fed_ncf"), of_averaging(fr.prepare_fed_ncf)),
        (
            explicit(
                **FITTED,
                algorithm="centralized",
                client_optimizer="adam",
                client_learning_rate=0.125,
                minibatch_size=33,
                batch_size=3,
            ),
            lambda population: fr.prepare_centralized(
                mf(population),
                CentralizedOptions(OptimizerOptions("adam", 0.125), 33),
                population,
                clients_per_round=7,
                **SERVE,
            ),
        ),
    ],
    ids=[
        *("fed_recon", "stock", "fed_recon_ls", "fed_ials", "fed_avg", "stateful_fed_avg"),
        *("fed_ncf", "centralized"),
    ],
)
def test_settings_choose_the_algorithm(settings, expected):
    """Two rounds give, bit for bit, what the library gives with options written by hand."""
    population = load_population(settings)
    algorithms = [build.build_algorithm(settings, population), expected(population)]
    states = [algorithm.initialize() for algorithm in algorithms]
    for round_num in (1, 2):
        (first, ours), (second, theirs) = (
            algorithm.run_round(state, round_num) for algorithm, state in zip(algorithms, states)
        )
        states = [first, second]
        assert ours == theirs
    for ours, theirs in zip(*map(tf.nest.flatten, states)):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    keys, packings = zip(*((a.reconstruction.key, a.reconstruction.packing) for a in algorithms))
    assert keys[0] == keys[1]
    assert packings[0] == packings[1]
    assert (algorithms[0].kept_rows is None) == (algorithms[1].kept_rows is None)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("algorithm", ["centralized", "fed_avg", "stateful_fed_avg", "fed_ncf"])
def test_users_without_a_row_are_solved_for_though_others_are_regularized(algorithm):
    """Exact reconstruction takes a model whose local part has no L2 of its own."""
    settings = explicit(
        algorithm=algorithm, reconstruction="least_squares", ridge=3.0, l2=0.125, user_bias=True
    )
    population = load_population(settings)
    built = build.build_algorithm(settings, population)
    state = built.initialize()
    metrics = Judge(built, population).metrics(state, "unseen_test")
    solved = fr.prepare_fed_recon(
        mf(population, user_bias=True),
        dataclasses.replace(EXACT, least_squares=LeastSquaresOptions(3.0)),
        population,
        clients_per_round=7,
    )
    # The untrained global part is the same, so the users are served alike.
    expected = Judge(solved, population).metrics(solved.initialize(), "unseen_test")
    assert metrics == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
def test_devices_rows_are_where_the_run_keeps_them(tmp_path):
    settings = explicit(algorithm="stateful_fed_avg", client_sampler="queue")
    population = load_population(settings)
    path = tmp_path / "client_store"
    algorithm = build.build_algorithm(settings, population, store_dir=path)
    algorithm.store.clear()
    state, read = algorithm.initialize(), {}
    everybody = np.arange(60)
    for round_num in (1, 2):
        state, _ = algorithm.run_round(state, round_num)
        algorithm.store.commit()
        algorithm.store.snapshot(round_num)()
        read[round_num] = algorithm.store.read(everybody)
    assert read[2][1].sum() > read[1][1].sum() == 7
    for round_num in (1, 2):
        then = build.build_algorithm(settings, population, store_dir=path, store_round=round_num)
        rows, is_known = then.store.read(everybody)
        np.testing.assert_array_equal(rows, read[round_num][0])
        np.testing.assert_array_equal(is_known, read[round_num][1])
