"""The judge against TFF's evaluation, and against the scores of kept rows worked out by hand."""

import dataclasses
import functools

import numpy as np
import pytest

from experiments.run import data, tasks
from experiments.run.judging import Judge
from experiments.run.settings import Settings
from fedrecon.errors import InputError
from fedrecon.evaluation.protocols import Cases
from tests.experiments.small import small_settings

pytestmark = pytest.mark.usefixtures("in_process_runtime")

EXPLICIT = small_settings(
    synthetic_num_users=90,
    max_ratings_per_user=23,
    held_out_fraction=0.25,
    dim=3,
    user_bias=True,
    item_bias=True,
    clients_per_round=20,
    batch_size=4,
)
IMPLICIT = dataclasses.replace(
    EXPLICIT,
    feedback="implicit",
    held_out_fraction=0.0,
    unseen_fraction=0.2,
    synthetic_num_items=260,
    user_bias=False,
    batch_size=16,
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Two rounds of something, and its parts."""

    settings: Settings
    clients: data.Clients
    task: object
    judge: Judge
    state: object

    @property
    def weights(self):
        """The trainable ones: item rows, item biases and, where the server has them, users'."""
        return [np.asarray(w) for w in self.state.global_model_weights.trainable]

    def judge_without_kept_rows(self):
        """One that reconstructs everybody."""
        return Judge(self.settings, self.clients, self.judge._get_weights)


def trained(algorithm, feedback="explicit", **changes):
    return train(algorithm, feedback, **changes)


@functools.cache
def train(algorithm, feedback, **changes):
    settings = EXPLICIT if feedback == "explicit" else IMPLICIT
    settings = dataclasses.replace(settings, algorithm=algorithm, **changes)
    clients = data.load_clients(settings)
    task, judge = tasks.build_task(settings, clients)
    state = task.training.initialize()
    for round_num in (1, 2):
        state, _ = task.run_round(state, task.prepare_round(round_num))
    return Trained(settings, clients, task, judge, state)


# --- two ways to the same numbers -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("fed_recon", {}),
        ("fed_recon", {"reconstruction_epochs": 3, "reconstruction_steps_max": 5}),
        ("fed_recon", {"support_query_split": "none", "reconstruction_optimizer": "adam"}),
        ("centralized", {}),
    ],
)
def test_unseen_users_are_judged_as_by_tffs_evaluation(algorithm, changes):
    run = trained(algorithm, **changes)
    for part in ("validation", "test"):
        by_process = run.task.evaluate(run.state, part)
        by_judge = run.judge.metrics(run.state, part)
        assert by_judge["num_examples"] == by_process["num_examples"] > 50
        assert by_judge["rmse"] == pytest.approx(by_process["rmse"], abs=1e-5)
        assert by_judge["accuracy"] == pytest.approx(by_process["accuracy"], abs=1e-5)
    assert "loss" in by_process  # Not the judge under another name.
    assert "loss" not in by_judge


def test_seen_users_are_judged_by_the_judge():
    run = trained("fed_recon")
    assert run.task.evaluate(run.state, "seen") == run.judge.metrics(run.state, "seen")


# --- kept rows ------------------------------------------------------------------------------------


def user_rows(run, users):
    """Embeddings and biases of users, from the server's tables or the devices' rows."""
    if run.task.store is None:
        return [table[users].reshape(len(users), -1) for table in run.weights[2:]]
    rows, _ = run.task.store.read(users)  # Flat: the embedding, then the bias.
    return np.split(rows, [run.settings.dim], axis=1)


def expected_predictions(run, cases):
    items, item_biases = run.weights[:2]
    embeddings, *biases = user_rows(run, cases.users)
    ids = np.maximum(cases.item_ids, 0)
    scores = np.einsum("nd,nmd->nm", embeddings, items[ids]) + item_biases[ids][..., 0]
    return scores + biases[0] if biases else scores


@pytest.mark.parametrize("algorithm", ["fed_ncf", "centralized", "stateful_fed_avg"])
def test_ratings_of_users_with_kept_rows_are_predicted_with_them(algorithm):
    run = trained(algorithm)
    cases = run.judge.cases("seen")
    results = run.judge.results(run.state, "seen")
    is_kept = np.ones(len(cases.users), bool)
    if algorithm == "stateful_fed_avg":
        _, is_kept = run.task.store.read(cases.users)
        sampled = {user for n in (1, 2) for user in run.task.sample_cohort(n).tolist()}
        assert set(cases.users[is_kept].tolist()) == sampled & set(cases.users.tolist())
        assert 10 < is_kept.sum() < len(is_kept) - 10
    errors = np.where(cases.mask, expected_predictions(run, cases) - cases.labels, 0.0)
    rmse = np.sqrt((errors**2).sum(axis=1) / cases.mask.sum(axis=1))
    np.testing.assert_allclose(results.values["rmse"][is_kept], rmse[is_kept], rtol=1e-5)
    # Those whom no round has sampled have nothing kept; they are reconstructed.
    fresh = run.judge_without_kept_rows().results(run.state, "seen").values["rmse"]
    np.testing.assert_allclose(results.values["rmse"][~is_kept], fresh[~is_kept], rtol=1e-5)
    assert np.mean(np.abs(rmse - fresh)[is_kept] > 1e-3) > 0.9  # It makes a difference.


@pytest.mark.parametrize("algorithm", ["fed_ncf", "centralized"])
def test_people_left_out_of_training_are_reconstructed_whatever_the_server_has(algorithm):
    """The tables have rows for them too: initial ones, which nobody trained."""
    run = trained(algorithm, "implicit")
    cases = run.judge.cases("unseen")
    assert not set(cases.users.tolist()) & set(run.clients.users["train"].tolist())
    by_judge = run.judge.results(run.state, "unseen").values["mrr"]
    fresh = run.judge_without_kept_rows().results(run.state, "unseen").values["mrr"]
    np.testing.assert_array_equal(by_judge, fresh)


def test_some_users_with_rows_and_some_without_are_judged_together():
    run = trained("fed_ncf", "implicit")
    parts = [run.judge.cases(part) for part in ("unseen", "test")]
    order = np.random.default_rng(0).permutation(sum(len(part.users) for part in parts))
    mixed = Cases(
        np.concatenate([part.users for part in parts])[order],
        tuple(np.array(parts[0].given + parts[1].given, object)[order]),
        np.concatenate([part.item_ids for part in parts])[order],
        np.concatenate([part.labels for part in parts])[order],
    )
    together = run.judge.results_of_cases(run.state, mixed).values["mrr"]
    apart = [run.judge.results(run.state, part).values["mrr"] for part in ("unseen", "test")]
    np.testing.assert_array_equal(together, np.concatenate(apart)[order])


def ranks_by_hand(scores, known, own):
    """How many items that are neither known nor the held-out one score at least as high."""
    candidates = set(range(len(scores))) - set(known) - {own}
    return sum(scores[item] >= scores[own] for item in candidates)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_users_with_kept_rows_are_ranked_for_with_them(part):
    run = trained("fed_ncf", "implicit")
    cases = run.judge.cases(part)
    scores = expected_predictions(run, cases)
    ranks = (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    results = run.judge.results(run.state, part)
    np.testing.assert_allclose(results.values["mrr"], 1 / (ranks + 1))
    np.testing.assert_array_equal(results.values["hr_at_10"], ranks < 10)
    metrics = run.judge.metrics(run.state, part)
    assert metrics["hr_at_10"] == pytest.approx(np.mean(ranks < 10))  # Over users.
    assert metrics["num_users"] == len(cases.users) == 72

    everything = dataclasses.replace(
        cases, item_ids=np.tile(np.arange(260, dtype=np.int32), (len(cases.users), 1))
    )
    scores = expected_predictions(run, everything)
    held_out = run.clients.held_out
    full_ranks = []
    for row, user in enumerate(cases.users.tolist()):
        known = set(run.clients.examples.positives(user).tolist())
        if part == "test":  # By then the validation item is known.
            known.add(held_out["validation"].items[held_out["validation"].users == user][0])
        full_ranks.append(ranks_by_hand(scores[row], known, cases.item_ids[row, 0]))
    full = run.judge.full_ranking(run.state, part)
    np.testing.assert_allclose(full.values["mrr"], 1 / (np.array(full_ranks) + 1))
    assert np.mean(full_ranks) > np.mean(ranks)


def test_who_gives_less_is_served_by_less():
    run = trained("fed_recon", support_query_split="none", reconstruction_optimizer="adam")
    by_given = run.judge.results_by_given(run.state, "validation")
    counts = [len(labels) for _, labels in run.judge.cases("validation").given]
    assert min(by_given) == 1
    assert np.mean(np.array(counts) >= max(by_given)) >= 0.5
    # The same users and questions each time.
    for results in by_given.values():
        np.testing.assert_array_equal(results.counts, by_given[1].counts)
        assert len(results.counts) == sum(count >= max(by_given) for count in counts)
    few, many = (by_given[number].mean_over_ratings()["rmse"] for number in (1, max(by_given)))
    assert many < few


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feedback", "part", "there"),
    [
        ("explicit", "unseen", "train, validation, test, seen, seen_validation"),
        ("implicit", "seen", "test, validation, unseen"),
        ("implicit", "train", "test, validation, unseen"),  # They have no items of their own.
    ],
)
def test_parts_that_there_are_not_are_named(feedback, part, there):
    run = trained("fed_ncf", feedback)
    with pytest.raises(InputError, match=f"has no {part} users.*; it has {there}"):
        run.judge.cases(part)
    with pytest.raises(InputError, match=f"has no {part} users"):
        run.task.evaluate(run.state, part)


@pytest.mark.parametrize(("feedback", "part"), [("explicit", "seen"), ("implicit", "test")])
def test_a_model_that_diverged_is_an_error(feedback, part):
    run = trained("fed_ncf", feedback)
    weights = run.state.global_model_weights
    spoilt = weights._replace(trainable=[w * np.nan for w in weights.trainable])
    state = run.state._replace(global_model_weights=spoilt)
    with pytest.raises(InputError, match=r"predictions are not finite.*smaller learning rates"):
        run.judge.metrics(state, part)


def test_batches_so_large_that_nothing_is_asked_are_an_error():
    settings = dataclasses.replace(EXPLICIT, batch_size=100)
    clients = data.load_clients(settings)
    task, judge = tasks.build_task(settings, clients)
    state = task.training.initialize()
    with pytest.raises(InputError, match=r"9 users have no query ratings.*smaller batch size"):
        judge.metrics(state, "test")
