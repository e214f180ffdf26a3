"""A trained algorithm serves users as evaluation judged it, from memory and from files."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import fedrecon as fr
from fedrecon import rng
from fedrecon.algorithms.reconstruction import (
    build_reconstruction,
    reconstruction_packing_options,
)
from fedrecon.data.cohorts import pack_shard
from fedrecon.errors import InputError
from fedrecon.evaluation.scoring import ModelScores
from fedrecon.models.functional import FunctionalModel
from fedrecon.options import CentralizedOptions, FedReconOptions, LeastSquaresOptions
from fedrecon.serving.build import recommender_of
from fedrecon.serving.files import load_run
from fedrecon.serving.linear import GradientSteps, ImplicitLeastSquares, LeastSquares, LinearModel
from fedrecon.serving.stepwise import StepwiseModel
from tests.tiny import adam, drawn_mf, sgd, small_neumf

pytestmark = [pytest.mark.usefixtures("in_process_runtime"), pytest.mark.slow]

NUM_ITEMS = 160
RIDGE = LeastSquaresOptions(regularization=0.5, exponent=0.3, bias_regularization=2.0)
EXACT = FedReconOptions(reconstruction="least_squares", least_squares=RIDGE)
STEPS = FedReconOptions(
    reconstruction_optimizer=sgd(0.05),
    batch_size=3,
    reconstruction_epochs=4,
    reconstruction_steps_max=9,
)
ADAM = dataclasses.replace(STEPS, reconstruction_optimizer=adam(0.1))


@pytest.fixture(scope="module")
def ratings():
    return fr.load_dataset(
        "synthetic", num_users=90, num_items=NUM_ITEMS, mean_ratings_per_user=25, seed=2
    )


@pytest.fixture(scope="module")
def populations(ratings):
    return {
        "explicit": fr.divide_by_user(ratings, seed=0),
        "positives": fr.divide_for_ranking(
            ratings, seed=0, negatives_per_positive=0, unseen_fraction=0.4
        ),
        "negatives": fr.divide_for_ranking(
            ratings, seed=0, negatives_per_positive=2, unseen_fraction=0.4
        ),
    }


def described_mf(**kwargs):
    return fr.model_fn(fr.matrix_factorization, NUM_ITEMS, dim=4, **kwargs)


BIASED = {"user_bias": True, "item_bias": True, "global_bias": True}
CASES = {
    "fed_recon_ls": (fr.prepare_fed_recon, described_mf(**BIASED), EXACT, "explicit", LeastSquares),
    "fed_ials": (
        fr.prepare_fed_ials,
        described_mf(),
        fr.FedIalsOptions(),
        "positives",
        ImplicitLeastSquares,
    ),
    "centralized": (
        functools.partial(fr.prepare_centralized, reconstruction=EXACT),
        described_mf(**BIASED),
        CentralizedOptions(),
        "explicit",
        LeastSquares,
    ),
    "fed_recon": (
        fr.prepare_fed_recon,
        fr.model_fn(fr.matrix_factorization, NUM_ITEMS, 4, **BIASED, initial_rating=3.0, seed=3),
        STEPS,
        "explicit",
        GradientSteps,
    ),
    "fed_recon in units": (
        fr.prepare_fed_recon,
        described_mf(**BIASED, rating_unit=1.7, initial_rating=3.0),
        STEPS,
        "explicit",
        GradientSteps,
    ),
    "fed_recon_ls in units": (
        fr.prepare_fed_recon,
        described_mf(**BIASED, rating_unit=1.7),
        EXACT,
        "explicit",
        LeastSquares,
    ),
    "adam": (fr.prepare_fed_recon, described_mf(**BIASED), ADAM, "explicit", None),
    "neumf": (
        fr.prepare_fed_recon,
        fr.model_fn(fr.neumf, NUM_ITEMS, gmf_dim=3, hidden_units=(6, 3)),
        STEPS,
        "negatives",
        None,
    ),
}
SOLVED = ("fed_recon_ls", "fed_recon_ls in units", "fed_ials", "centralized")


class Trained:
    """An algorithm after two rounds, and what serves users by it."""

    def __init__(self, name, populations):
        prepare, model_fn, options, population, self.rule = CASES[name]
        self.population = populations[population]
        self.algorithm = prepare(model_fn, options, self.population, clients_per_round=8)
        self.state = self.algorithm.initialize()
        for round_num in (1, 2):
            self.state, _ = self.algorithm.run_round(self.state, round_num)
        self.recommender = recommender_of(
            self.algorithm, self.state, self.population, name=name, rounds=2
        )
        self.cases = fr.Judge(self.algorithm, self.population).cases("unseen_test")


@pytest.fixture(scope="module")
def trained(populations, in_process_context):
    import tensorflow_federated as tff

    @functools.cache
    def of_name(name):
        with tff.framework.get_context_stack().install(in_process_context):
            return Trained(name, populations)

    return of_name


def scores_of_cases(recommender, cases):
    """The served model's scores of the items that evaluation asks about."""
    model = recommender.model
    scores = model.scores(model.user_vectors(list(cases.given)))
    return np.take_along_axis(scores, np.maximum(cases.item_ids, 0), axis=1)


def reconstructed_by_the_engine(trained, given):
    """The local values of users whom the engine reconstructs from the seed of new users."""
    reconstruction = trained.algorithm.reconstruction
    options, number = reconstruction.options, len(given)
    model = FunctionalModel(reconstruction.model_fn())
    seed = int(rng.derive_seeds(trained.population.seed, "new_user", ids=np.zeros(1))[0])
    shard = pack_shard(
        given,
        np.arange(number),
        np.full(number, seed, np.uint32),
        reconstruction_packing_options(options, seed=0),
        num_clients=number,
        num_examples=max(len(labels) for _, labels in given),
    )
    reconstruct = build_reconstruction(reconstruction.model_fn, options, clients_per_shard=number)
    weights = trained.algorithm.get_weights(trained.state)
    (found,) = reconstruct(weights, [shard])
    assert len(found) == len(model.local_weights)
    return np.concatenate([np.asarray(value).reshape(number, -1) for value in found], axis=1)


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_served_by_tables_where_it_is_linear(trained, name):
    recommender = trained(name).recommender
    rule = CASES[name][-1]
    assert isinstance(recommender.model, StepwiseModel if rule is None else LinearModel)
    if rule is not None:
        assert isinstance(recommender.model.rule, rule)
    assert recommender.about.algorithm == name
    assert recommender.about.rounds == 2
    counts = trained(name).population.training_counts()
    assert recommender.items.num_ratings.tolist() == counts.tolist()


@pytest.mark.parametrize("name", SOLVED)
def test_scores_are_those_that_evaluation_judged(trained, name):
    of = trained(name)
    expected = ModelScores(of.algorithm).scores(of.state, of.cases)
    found = scores_of_cases(of.recommender, of.cases)
    mask = of.cases.mask
    assert mask.sum() > 30
    assert np.ptp(expected[mask]) > 0.01
    np.testing.assert_allclose(found[mask], expected[mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted({*CASES} - {"fed_ials"}))
def test_users_vectors_are_those_of_the_engine(trained, name):
    of = trained(name)
    given = list(of.cases.given)
    found = of.recommender.model.user_vectors(given)
    expected = reconstructed_by_the_engine(of, given)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_nobody_else_in_the_call_matters(trained, name):
    of = trained(name)
    model, (given, *_) = of.recommender.model, of.cases.given
    generator = np.random.default_rng(1)
    others = [
        (generator.permutation(NUM_ITEMS)[:n], generator.integers(0, 2, n).astype(np.float32))
        for n in generator.integers(1, NUM_ITEMS, size=66)
    ]
    alone = model.user_vectors([given])
    scores = model.scores(alone)
    for place in (32, 66):
        together = model.user_vectors([*others[:place], given, *others[place:]])
        assert together.shape == (67, alone.shape[1])
        np.testing.assert_allclose(together[place], alone[0], rtol=0, atol=1e-5)
    of_all = model.scores(together)
    assert of_all.shape == (67, NUM_ITEMS)
    np.testing.assert_allclose(of_all[66], scores[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SOLVED)
def test_the_order_of_what_is_given_does_not_matter_to_a_solution(trained, name):
    of = trained(name)
    for rows, labels in of.cases.given[:3]:
        order = np.random.default_rng(3).permutation(len(rows))
        first, second = of.recommender.model.user_vectors(
            [(rows, labels), (rows[order], labels[order])]
        )
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_model_from_files_serves_the_same(trained, name, tmp_path):
    of = trained(name)
    of.recommender.save(tmp_path / "model")
    read = load_run(tmp_path / "model")
    assert read.about == of.recommender.about
    np.testing.assert_allclose(
        scores_of_cases(read, of.cases), scores_of_cases(of.recommender, of.cases), atol=1e-6
    )
    for weight, value in of.recommender.weights.items():
        np.testing.assert_array_equal(read.weights[weight], value)
    ids = read.items.ids[:6].tolist()
    given = dict.fromkeys(ids, 4)
    of_read = read.recommend(given, 8)
    of_memory = of.recommender.recommend(given, 8)
    assert of_read["item_id"].tolist() == of_memory["item_id"].tolist()
    np.testing.assert_allclose(of_read["score"], of_memory["score"], atol=1e-6)
    np.testing.assert_array_equal(read.item_factors(), of.recommender.item_factors())


@pytest.mark.parametrize("name", ["neumf"])
def test_steps_through_the_model_serve_many_as_each_alone(trained, name):
    recommender = trained(name).recommender
    ids = recommender.items.ids
    generator = np.random.default_rng(5)
    import pandas as pd

    users = {
        user: dict.fromkeys(ids[generator.permutation(NUM_ITEMS)[: 1 + user % 9]].tolist(), 4)
        for user in range(40)
    }
    rows = [(user, item, 4) for user, given in users.items() for item in given]
    many = recommender.recommend_many(pd.DataFrame(rows, columns=["user", "item", "rating"]), 3)
    for user in (0, 31, 32, 39):
        alone = recommender.recommend(users[user], 3)
        of_user = many[many["user"] == user]
        np.testing.assert_allclose(of_user["score"], alone["score"], rtol=0, atol=1e-5)
        assert of_user["item_id"].tolist() == alone["item_id"].tolist()


def test_steps_through_the_model_serve_nobody_and_one_who_gives_nothing(trained):
    model = trained("neumf").recommender.model
    assert model.scores(model.user_vectors([])).shape == (0, NUM_ITEMS)
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert np.isfinite(model.scores(model.user_vectors([nothing]))).all()


@pytest.mark.parametrize("name", ["fed_recon", "adam", "neumf"])
def test_gradient_steps_explain_nothing(trained, name):
    recommender = trained(name).recommender
    given = dict.fromkeys(recommender.items.ids[:3].tolist(), 4)
    with pytest.raises(InputError, match=r"gradient steps|drawn negatives"):
        recommender.explain(given, recommender.items.ids[5])


# --- models of one's own --------------------------------------------------------------------------


def served(model_fn, options, populations, population="explicit"):
    algorithm = fr.prepare_fed_recon(
        model_fn, options, populations[population], clients_per_round=4
    )
    return recommender_of(
        algorithm, algorithm.initialize(), populations[population], name="fed_recon", rounds=0
    )


def test_a_model_of_ones_own_is_passed_where_steps_need_it(populations, tmp_path):
    build = small_neumf(NUM_ITEMS)
    recommender = served(lambda: build(), STEPS, populations, "negatives")
    with tf.Graph().as_default():  # As TFF does; Keras then calls no model that was built before.
        build()
    recommender.save(tmp_path / "model")
    with pytest.raises(InputError, match="pass the function that builds it, as load_run"):
        load_run(tmp_path / "model")
    read = load_run(tmp_path / "model", model=build)
    given = recommender.items.ids[:4].tolist()
    np.testing.assert_allclose(read.score_all(given), recommender.score_all(given), atol=1e-6)
    with pytest.raises(InputError, match="the model has the weights"):
        load_run(tmp_path / "model", model=small_neumf(NUM_ITEMS + 1))


def test_a_linear_model_of_ones_own_needs_no_code(populations, tmp_path):
    build = drawn_mf(NUM_ITEMS)
    recommender = served(lambda: build(), EXACT, populations)
    recommender.save(tmp_path / "model")
    read = load_run(tmp_path / "model")
    assert read.model_description is None
    given = dict.fromkeys(recommender.items.ids[:4].tolist(), 4)
    np.testing.assert_array_equal(read.score_all(given), recommender.score_all(given))
