"""The judge against TFF's evaluation, and against the scores of kept rows worked out by hand."""

import dataclasses
import functools

import numpy as np
import pytest

import fedrecon as fr
from fedrecon import baselines
from fedrecon.algorithms import fed_recon
from fedrecon.algorithms.algorithm import Algorithm
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import Population, divide_by_user, divide_for_ranking
from fedrecon.data.ratings import RatingScale
from fedrecon.engine.client_metrics import evaluation_metrics
from fedrecon.errors import InputError
from fedrecon.evaluation import scoring
from fedrecon.evaluation.judge import BaselineScores, Judge
from fedrecon.evaluation.protocols import Cases
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import model_fn
from fedrecon.models.neural_cf import gmf
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedReconOptions,
    LeastSquaresOptions,
    OptimizerOptions,
)
from fedrecon.runs.client_store import ClientStore

pytestmark = pytest.mark.usefixtures("in_process_runtime")

DIM = 3
NUM_ITEMS = {"explicit": 60, "implicit": 260}
BATCH_SIZE = {"explicit": 4, "implicit": 16}


@functools.cache
def population_of(feedback, **changes):
    ratings = load_dataset(
        "synthetic", num_users=90, num_items=NUM_ITEMS[feedback], mean_ratings_per_user=25, seed=0
    )
    if feedback == "implicit":
        return divide_for_ranking(
            ratings, **{"max_ratings_per_user": 23, "unseen_fraction": 0.2, **changes}
        )
    options = {"max_ratings_per_user": 23, "held_out_fraction": 0.25, "support_batch_size": 4}
    return divide_by_user(ratings, **{**options, **changes})


@dataclasses.dataclass(frozen=True)
class Trained:
    """Two rounds of an algorithm, and its judge."""

    population: Population
    algorithm: Algorithm
    judge: Judge
    state: object

    @property
    def weights(self):
        """The trainable ones: item rows, item biases and, where the server has them, users'."""
        return [np.asarray(w) for w in self.state.global_model_weights.trainable]

    def judge_without_kept_rows(self):
        """A judge that reconstructs all users."""
        return Judge(dataclasses.replace(self.algorithm, kept_rows=None), self.population)


def mf(feedback, **settings):
    """Of explicit feedback with biases of users, too."""
    settings = {"item_bias": True, "user_bias": feedback == "explicit", **settings}
    return model_fn(matrix_factorization, NUM_ITEMS[feedback], DIM, **settings)


def prepare_algorithm(name, population, build_model, options=None):
    common = {"clients_per_round": 20}
    options = options or FedReconOptions(batch_size=BATCH_SIZE[population.feedback])
    if name == "fed_recon":
        return fr.prepare_fed_recon(build_model, options, population, **common)
    common["reconstruction"] = options
    if name == "centralized":
        of_all = CentralizedOptions(OptimizerOptions("sgd", 0.5), 256)
        return fr.prepare_centralized(build_model, of_all, population, **common)
    of_clients = FedAvgOptions(batch_size=options.batch_size)
    if name == "fed_ncf":
        return fr.prepare_fed_ncf(build_model, of_clients, population, **common)
    return fr.prepare_stateful_fed_avg(
        build_model, of_clients, population, open_store=ClientStore, **common
    )


def train(algorithm, population):
    state = algorithm.initialize()
    for round_num in (1, 2):
        state, _ = algorithm.run_round(state, round_num)
        if algorithm.store is not None:
            algorithm.store.commit()
    return Trained(population, algorithm, Judge(algorithm, population), state)


@functools.cache
def trained(name, feedback="explicit"):
    population = population_of(feedback)
    return train(prepare_algorithm(name, population, mf(feedback)), population)


# --- two ways to the same numbers -----------------------------------------------------------------


def metrics_of_process(run, build_model, options, group):
    """What the counterpart of TFF's own reconstruction evaluation finds."""
    users, population = run.population.groups[group].users, run.population
    packing = fed_recon.evaluation_packing_options(options, seed=population.seed)
    packer = CohortPacker(population.examples, packing, clients_per_shard=4)
    process = fed_recon.build_fed_recon_evaluation(build_model, options, clients_per_shard=4)
    weights = run.algorithm.get_weights(run.state)
    state = process.set_model_weights(process.initialize(), weights)
    return evaluation_metrics(process.next(state, packer.pack(users, 0)).metrics)


LABELED = {"label_threshold": 4.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "build_model", "changes", "of_population"),
    [
        ("fed_recon", mf("explicit"), {}, {}),
        (
            "fed_recon",
            mf("explicit"),
            {"reconstruction_epochs": 3, "reconstruction_steps_max": 5},
            {},
        ),
        (
            "fed_recon",
            mf("explicit"),
            {"reconstruction_optimizer": OptimizerOptions("adam", 0.1)},
            {},
        ),
        ("centralized", mf("explicit"), {}, {}),
        # Regularization is no part of the loss of a rating.
        ("fed_recon", mf("explicit", l2=0.125), {}, {}),
        (
            "fed_recon",
            mf("explicit"),
            {
                "reconstruction": "least_squares",
                "least_squares": LeastSquaresOptions(2.0, bias_regularization=3.0),
            },
            {},
        ),
        # Binary cross-entropy, of labels.
        ("fed_recon", model_fn(gmf, NUM_ITEMS["explicit"], DIM), {}, LABELED),
        # However long training is, evaluation sees every query batch once.
        ("fed_recon", mf("explicit"), {"client_epochs": 3, "client_steps_max": 1}, {}),
    ],
)
def test_unseen_users_are_judged_as_by_tffs_evaluation(name, build_model, changes, of_population):
    population = population_of("explicit", **of_population)
    options = FedReconOptions(batch_size=4, **changes)
    run = train(prepare_algorithm(name, population, build_model, options), population)
    for group in ("unseen_validation", "unseen_test"):
        by_process = metrics_of_process(run, build_model, options, group)
        by_judge = run.judge.metrics(run.state, group)
        assert by_judge["num_examples"] == by_process["num_examples"] > 50
        for measure in ("rmse", "accuracy", "loss"):
            assert by_judge[measure] == pytest.approx(by_process[measure], abs=1e-5)
        if of_population is LABELED:  # Else the loss is the square of the error.
            assert abs(by_judge["loss"] - by_judge["rmse"] ** 2) > 0.1


@pytest.mark.slow
def test_every_query_batch_is_asked_once_however_long_training_is():
    population = population_of("explicit", support_batch_size=2, max_ratings_per_user=11)
    options = FedReconOptions(client_epochs=3, client_steps_max=1, batch_size=2)
    run = train(prepare_algorithm("fed_recon", population, mf("explicit"), options), population)
    users = population.groups["unseen_test"].users
    # Of batches 0, 1, 2, ... of two ratings, the odd ones are query.
    counts = [population.examples.num_examples(user) for user in users]
    asked = sum(n // 4 * 2 + max(n % 4 - 2, 0) for n in counts)
    assert run.judge.metrics(run.state, "unseen_test")["num_examples"] == asked > 0
    by_process = metrics_of_process(run, mf("explicit"), options, "unseen_test")
    assert by_process["num_examples"] == asked


# --- kept rows ------------------------------------------------------------------------------------


def user_rows(run, users):
    """Embeddings and biases of users, from the server's tables or the devices' rows."""
    if run.algorithm.store is None:
        return [table[users].reshape(len(users), -1) for table in run.weights[2:]]
    rows, _ = run.algorithm.store.read(users)  # Flat: the embedding, then the bias.
    return np.split(rows, [DIM], axis=1)


def expected_predictions(run, cases):
    items, item_biases = run.weights[:2]
    embeddings, *biases = user_rows(run, cases.users)
    ids = np.maximum(cases.item_ids, 0)
    scores = np.einsum("nd,nmd->nm", embeddings, items[ids]) + item_biases[ids][..., 0]
    return scores + biases[0] if biases else scores


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fed_ncf", "centralized", "stateful_fed_avg"])
def test_ratings_of_users_with_kept_rows_are_predicted_with_them(name):
    run = trained(name)
    cases = run.judge.cases("seen_test")
    results = run.judge.results(run.state, "seen_test")
    is_kept = np.ones(len(cases.users), bool)
    if name == "stateful_fed_avg":
        _, is_kept = run.algorithm.store.read(cases.users)
        sampled = {user for n in (1, 2) for user in run.algorithm.sample_cohort(n).tolist()}
        assert set(cases.users[is_kept].tolist()) == sampled & set(cases.users.tolist())
        assert 10 < is_kept.sum() < len(is_kept) - 10
    errors = np.where(cases.mask, expected_predictions(run, cases) - cases.labels, 0.0)
    num_asked = cases.mask.sum(axis=1)
    rmse = np.sqrt((errors**2).sum(axis=1) / num_asked)
    np.testing.assert_allclose(results.values["rmse"][is_kept], rmse[is_kept], rtol=1e-5)
    # The model's loss is the squared error.
    np.testing.assert_allclose(results.values["loss"][is_kept], rmse[is_kept] ** 2, rtol=1e-5)
    mae = np.abs(errors).sum(axis=1) / num_asked
    np.testing.assert_allclose(results.values["mae"][is_kept], mae[is_kept], rtol=1e-5)
    # Users whom no round has sampled have nothing kept; they are reconstructed.
    fresh = run.judge_without_kept_rows().results(run.state, "seen_test").values["rmse"]
    np.testing.assert_allclose(results.values["rmse"][~is_kept], fresh[~is_kept], rtol=1e-5)
    assert np.mean(np.abs(rmse - fresh)[is_kept] > 1e-3) > 0.9  # It makes a difference.


@pytest.mark.parametrize("name", ["fed_ncf", "centralized"])
def test_users_left_out_of_training_are_reconstructed_whatever_the_server_has(name):
    """The tables have rows for them too: initial ones, which nobody trained."""
    run = trained(name, "implicit")
    cases = run.judge.cases("unseen_test")
    assert not set(cases.users.tolist()) & set(run.population.train.tolist())
    by_judge = run.judge.results(run.state, "unseen_test").values["mrr"]
    fresh = run.judge_without_kept_rows().results(run.state, "unseen_test").values["mrr"]
    np.testing.assert_array_equal(by_judge, fresh)


def test_some_users_with_rows_and_some_without_are_judged_together():
    run = trained("fed_ncf", "implicit")
    groups = [run.judge.cases(group) for group in ("unseen_test", "seen_test")]
    order = np.random.default_rng(0).permutation(sum(len(group.users) for group in groups))
    mixed = Cases(
        np.concatenate([group.users for group in groups])[order],
        tuple(np.array(groups[0].given + groups[1].given, object)[order]),
        np.concatenate([group.item_ids for group in groups])[order],
        np.concatenate([group.labels for group in groups])[order],
    )
    together = run.judge.results_of_cases(run.state, mixed).values["mrr"]
    apart = [
        run.judge.results(run.state, group).values["mrr"] for group in ("unseen_test", "seen_test")
    ]
    np.testing.assert_array_equal(together, np.concatenate(apart)[order])


def ranks_by_hand(scores, known, own):
    """How many items that are neither known nor the held-out one score at least as high."""
    candidates = set(range(len(scores))) - set(known) - {own}
    return sum(scores[item] >= scores[own] for item in candidates)


@pytest.mark.parametrize("group", ["seen_test", "seen_validation"])
def test_users_with_kept_rows_are_ranked_for_with_them(group):
    run = trained("fed_ncf", "implicit")
    cases = run.judge.cases(group)
    scores = expected_predictions(run, cases)
    ranks = (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    results = run.judge.results(run.state, group)
    np.testing.assert_allclose(results.values["mrr"], 1 / (ranks + 1))
    np.testing.assert_array_equal(results.values["hr_at_10"], ranks < 10)
    metrics = run.judge.metrics(run.state, group)
    assert metrics["hr_at_10"] == pytest.approx(np.mean(ranks < 10))  # Over users.
    assert metrics["num_users"] == len(cases.users) == 72

    everything = dataclasses.replace(
        cases, item_ids=np.tile(np.arange(260, dtype=np.int32), (len(cases.users), 1))
    )
    scores = expected_predictions(run, everything)
    validation = run.population.groups["seen_validation"].held_out
    full_ranks = []
    for row, user in enumerate(cases.users.tolist()):
        known = set(run.population.examples.positives(user).tolist())
        if group == "seen_test":  # By then the validation item is known.
            known.add(validation.items[validation.users == user][0])
        full_ranks.append(ranks_by_hand(scores[row], known, cases.item_ids[row, 0]))
    full = run.judge.full_ranking(run.state, group)
    np.testing.assert_allclose(full.values["mrr"], 1 / (np.array(full_ranks) + 1))
    assert np.mean(full_ranks) > np.mean(ranks)


@pytest.mark.slow
def test_who_gives_less_is_served_by_less():
    population = population_of("explicit")
    options = FedReconOptions(
        batch_size=4,
        reconstruction_optimizer=OptimizerOptions("adam", 0.1),
    )
    run = train(prepare_algorithm("fed_recon", population, mf("explicit"), options), population)
    by_given = run.judge.results_by_given(run.state, "unseen_validation")
    counts = [len(labels) for _, labels in run.judge.cases("unseen_validation").given]
    assert min(by_given) == 1
    assert np.mean(np.array(counts) >= max(by_given)) >= 0.5
    # The same users and questions each time.
    for results in by_given.values():
        np.testing.assert_array_equal(results.counts, by_given[1].counts)
        assert len(results.counts) == sum(count >= max(by_given) for count in counts)
    few, many = (by_given[number].mean_over_ratings()["rmse"] for number in (1, max(by_given)))
    assert many < few


# --- what is shared, and what is not --------------------------------------------------------------


@pytest.mark.slow
def test_equal_algorithms_share_what_is_compiled_and_nothing_else():
    """The second has its own seed, by which its users' local parts are drawn."""
    scoring._scorer.cache_clear()
    first = trained("fed_recon")
    first.judge.metrics(first.state, "unseen_test")
    other = population_of("explicit", seed=1)
    algorithm = prepare_algorithm("fed_recon", other, mf("explicit", seed=1))
    second = train(algorithm, other)
    shared = second.judge.results(second.state, "unseen_test").values["rmse"]
    assert scoring._scorer.cache_info().currsize == 1
    scorers = [run.judge._scores._scorer for run in (first, second)]
    assert scorers[0].reconstruct is scorers[1].reconstruct
    assert scorers[0].score is scorers[1].score
    assert [scorer.packing.seed for scorer in scorers] == [0, 1]

    scoring._scorer.cache_clear()
    alone = Judge(algorithm, other).results(second.state, "unseen_test").values["rmse"]
    np.testing.assert_array_equal(shared, alone)


@pytest.mark.slow
def test_a_group_has_the_same_cases_at_each_evaluation():
    run = trained("fed_recon")
    assert run.judge.cases("seen_test") is run.judge.cases("seen_test")


# --- anything else that scores --------------------------------------------------------------------


class Known:
    """Scores that are written down: half a star too high for user 0, two too low for user 1."""

    def scores(self, state, cases):
        errors = np.where(cases.users == 0, 0.5, -2.0)[:, np.newaxis]
        return np.where(cases.mask, cases.labels + errors, np.nan).astype(np.float32)

    def losses(self, labels, scores):
        return np.where(np.isnan(scores), np.nan, 10 * np.abs(labels - scores) + labels)


def test_losses_are_means_over_ratings_and_padding_counts_for_nothing():
    judge = Judge.of_scores(Known(), population_of("explicit"))
    cases = Cases(
        users=np.array([0, 1]),
        given=((np.array([1]), np.array([3.0])),) * 2,
        item_ids=np.array([[4, 7, 9], [2, -1, -1]], np.int32),
        labels=np.array([[3, 5, 1], [4, 0, 0]], np.float32),
        scale=RatingScale(1, 5, 1),
    )
    results = judge.results_of_cases(None, cases)
    # User 0: 10 * 0.5 + (3 + 5 + 1) / 3; user 1: 10 * 2 + 4.
    np.testing.assert_allclose(results.values["loss"], [8.0, 24.0])
    np.testing.assert_allclose(results.values["mae"], [0.5, 2.0])
    assert results.counts.tolist() == [3, 1]
    means = results.mean_over_ratings()
    assert means["loss"] == pytest.approx((3 * 8 + 24) / 4)
    assert means["rmse"] == pytest.approx(((3 * 0.25 + 4) / 4) ** 0.5)
    assert means["accuracy"] == 0.75
    assert means["rounded_accuracy"] == 0.25  # 5.5 is cut to 5; 3.5 and 1.5 are half-way.


def test_baselines_are_judged_by_what_users_give():
    population = population_of("implicit")
    train_items = [population.examples.positives(user) for user in population.train.tolist()]
    users = np.repeat(population.train, [len(items) for items in train_items])
    model = baselines.IMPLICIT["popularity"](
        users,
        np.concatenate(train_items),
        None,
        num_users=90,
        num_items=260,
        options=baselines.OPTIONS["popularity"](),
    )
    judge = Judge.of_scores(BaselineScores(), population)
    cases = judge.cases("unseen_test")
    scores = model.counts[cases.item_ids]
    ranks = (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    metrics = judge.metrics(model, "unseen_test")
    assert "loss" not in metrics
    assert metrics["num_users"] == len(cases.users) == 18
    assert metrics["mrr"] == pytest.approx(np.mean(1 / (ranks + 1)))
    blocks = list(BaselineScores().score_blocks(model, cases, np.array([3, 7])))
    assert [places.tolist() for places, _ in blocks] == [[place] for place in range(18)]
    np.testing.assert_array_equal(blocks[5][1], [model.counts[[3, 7]]])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("feedback", "group", "there"),
    [
        ("explicit", "unseen", "seen_validation, seen_test, unseen_validation, unseen_test"),
        ("implicit", "unseen_validation", "seen_validation, seen_test, unseen_test"),
        ("implicit", "train", "seen_validation, seen_test, unseen_test"),  # No items of their own.
    ],
)
def test_groups_that_there_are_not_are_named(feedback, group, there):
    run = trained("fed_ncf", feedback)
    for ask in (run.judge.cases, lambda name: run.judge.metrics(run.state, name)):
        with pytest.raises(InputError, match=f"no {group} users to evaluate; there are {there}"):
            ask(group)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("feedback", "group"),
    [("explicit", "seen_test"), ("explicit", "unseen_test"), ("implicit", "seen_test")],
)
def test_a_model_that_diverged_is_an_error(feedback, group):
    run = trained("fed_ncf", feedback)
    weights = run.state.global_model_weights
    spoilt = weights._replace(trainable=[w * np.nan for w in weights.trainable])
    state = run.state._replace(global_model_weights=spoilt)
    with pytest.raises(InputError, match=r"predictions are not finite.*smaller learning rates"):
        run.judge.metrics(state, group)


@pytest.mark.slow
def test_batches_so_large_that_nothing_is_asked_are_an_error():
    population = population_of("explicit", support_batch_size=100)
    algorithm = prepare_algorithm(
        "fed_recon", population, mf("explicit"), FedReconOptions(batch_size=100)
    )
    judge = Judge(algorithm, population)
    with pytest.raises(InputError, match=r"none of the 9 users has enough ratings"):
        judge.metrics(algorithm.initialize(), "unseen_test")
