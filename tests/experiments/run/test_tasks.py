"""From settings to what trains: every algorithm, on data of both kinds."""

import dataclasses

import numpy as np
import pytest

from experiments.run import choices, data, tasks
from experiments.run.names import ALGORITHMS
from experiments.run.settings import FEEDBACKS, of_evaluation
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.runs.training import Training, TrainingOptions
from tests.experiments.small import small_settings

SETTINGS = small_settings(
    max_ratings_per_user=12,
    dim=2,
    clients_per_round=7,
    batch_size=5,
)


def replace(**changes):
    return dataclasses.replace(SETTINGS, **changes)


@pytest.fixture(scope="module")
def clients():
    return data.load_clients(SETTINGS)


@pytest.mark.parametrize("sampler", ["uniform", "queue"])
def test_only_training_users_train_and_each_is_a_client_with_own_ratings(clients, sampler):
    task, _ = tasks.build_task(replace(client_sampler=sampler, engine="stock"), clients)
    ratings = clients.examples.ratings
    for round_num in range(1, 20):
        cohort = task.sample_cohort(round_num)
        assert len(set(cohort)) == 7
        assert set(cohort) <= set(clients.users["train"])
    datasets = task.training_data(cohort, 19)
    assert len(datasets) == 7
    for user, dataset in zip(cohort, datasets):
        batches = list(dataset.as_numpy_iterator())
        assert [len(batch["x"]) for batch in batches] == [5, 5, 2]  # 12 ratings at most.
        rated = {
            (item, rating)
            for item, rating in zip(
                ratings.item_ids[ratings.user_ids == user],
                ratings.ratings[ratings.user_ids == user],
            )
        }
        given = {(x[0], y[0]) for batch in batches for x, y in zip(batch["x"], batch["y"])}
        assert len(given) == 12
        assert given <= rated


@pytest.mark.parametrize(
    ("changes", "global_shapes", "local_shapes"),
    [
        ({"item_bias": True, "user_bias": True}, [[9, 2], [9, 1]], [[1, 2], [1, 1]]),
        ({"model": "gmf"}, [[9, 2], [2, 1], [1]], [[1, 2]]),
        (
            {"model": "neumf", "hidden_units": "8,4"},
            [[9, 2], [9, 4], [8, 4], [4], [6, 1], [1]],
            [[1, 2], [1, 4]],
        ),
    ],
)
def test_settings_choose_the_model(changes, global_shapes, local_shapes):
    settings = replace(label_threshold=4.0, l2=0.125, **changes)
    model = choices.model_fn(settings, 9)()
    assert sorted(w.shape.as_list() for w in model.global_weights) == sorted(global_shapes)
    assert sorted(w.shape.as_list() for w in model.local_weights) == sorted(local_shapes)
    assert model.keras_model.losses  # L2 arrived.


def test_settings_choose_the_algorithm_options():
    options = choices.fed_recon_options(
        replace(
            reconstruction_optimizer="adam",
            reconstruction_learning_rate=0.25,
            client_steps_max=4,
            client_weighting="uniform",
            support_query_split="none",
        )
    )
    assert (options.reconstruction_optimizer.name, options.client_optimizer.name) == ("adam", "sgd")
    optimizers = (
        options.reconstruction_optimizer,
        options.client_optimizer,
        options.server_optimizer,
    )
    rates = [optimizer.learning_rate for optimizer in optimizers]
    assert rates == [0.25, 0.5, 1.0]
    assert (options.client_steps_max, options.reconstruction_steps_max) == (4, None)
    assert (options.client_weighting, options.support_query_split) == ("uniform", "none")


@pytest.mark.usefixtures("in_process_runtime")
def test_evaluation_sees_every_query_batch_once_however_long_training_is(clients):
    settings = replace(client_epochs=3, client_steps_max=1, batch_size=2)
    task, _ = tasks.build_task(settings, clients)
    metrics = task.evaluate(task.training.initialize(), "test")
    # Of batches 0, 1, 2, ... of two ratings, the odd ones are query.
    counts = [clients.examples.num_examples(user) for user in clients.users["test"]]
    assert metrics["num_examples"] == sum(n // 4 * 2 + max(n % 4 - 2, 0) for n in counts) > 0


def test_settings_choose_the_options_of_the_baselines():
    options = choices.fed_avg_options(
        replace(
            client_optimizer="adamw",
            client_learning_rate=0.25,
            client_epochs=3,
            averaging="by_row",
            gradient_clip_norm=2.0,
        )
    )
    assert (options.client_optimizer.name, options.client_optimizer.learning_rate) == (
        "adamw",
        0.25,
    )
    assert (options.client_epochs, options.averaging, options.gradient_clip_norm) == (
        3,
        "by_row",
        2.0,
    )


def test_settings_choose_exact_reconstruction():
    solved = {"ridge": 3.0, "ridge_exponent": 0.5, "bias_ridge": 2.0}
    options = choices.fed_recon_options(replace(algorithm="fed_recon_ls", **solved))
    assert (options.reconstruction, options.client_takes_one_step) == ("least_squares", True)
    # The server gets the gradient itself.
    assert (options.client_optimizer.name, options.client_optimizer.learning_rate) == ("sgd", 1.0)
    squares = options.least_squares
    assert (squares.regularization, squares.exponent) == (3.0, 0.5)
    assert squares.bias_regularization == 2.0
    # What is not given is left to the options' own defaults.
    default = choices.fed_recon_options(replace(algorithm="fed_recon_ls")).least_squares
    assert default == type(default)()

    by_steps = choices.fed_recon_options(replace(reconstruction="least_squares", **solved))
    assert (by_steps.reconstruction, by_steps.client_takes_one_step) == ("least_squares", False)
    assert by_steps.client_optimizer.learning_rate == 0.5

    implicit = choices.fed_ials_options(
        replace(
            algorithm="fed_ials",
            feedback="implicit",
            ridge=0.5,
            ridge_exponent=0.25,
            unobserved_weight=0.75,
            server_optimizer="adam",
            server_learning_rate=0.125,
        )
    )
    found = (implicit.regularization, implicit.exponent, implicit.unobserved_weight)
    assert found == (0.5, 0.25, 0.75)
    assert (implicit.server_optimizer.name, implicit.server_optimizer.learning_rate) == (
        "adam",
        0.125,
    )


@pytest.mark.parametrize(
    ("changes", "is_regularized"),
    [
        ({"algorithm": "fed_recon_ls"}, False),
        ({"reconstruction": "least_squares"}, False),
        # Its users' rows are trained by steps; unseen users are solved for by a model of their own.
        ({"algorithm": "centralized", "reconstruction": "least_squares"}, True),
        ({}, True),
    ],
)
def test_l2_leaves_out_what_is_solved_for_in_training(changes, is_regularized):
    settings = replace(l2=0.5, user_bias=True, **changes)
    layers = choices.model_fn(settings, 9)().local_layers
    assert [bool(layer.losses) for layer in layers] == [is_regularized] * 2
    evaluated = choices.model_fn(of_evaluation(settings), 9)().local_layers
    is_solved = settings.is_solved
    assert [bool(layer.losses) for layer in evaluated] == [not is_solved] * 2


def test_evaluations_share_what_they_follow_from_and_nothing_less():
    """Else one run would be judged by another's settings."""
    settings = replace(
        **{"model": "neumf", "dim": 5, "hidden_units": "8,4", "l2": 0.25, "label_threshold": 4.0},
        **{"batch_size": 7, "support_query_split": "none", "reconstruction_optimizer": "adam"},
        **{"reconstruction_learning_rate": 0.125, "reconstruction_epochs": 6},
        **{"reconstruction_steps_max": 9, "seed": 3, "algorithm": "fed_avg", "client_epochs": 2},
    )
    shared = of_evaluation(settings)
    own, ours = (choices.model_fn(each, 11) for each in (settings, shared))
    assert (ours.func, ours.args) == (own.func, own.args)
    assert ours.keywords == {**own.keywords, "seed": 0}
    biased = replace(user_bias=True, item_bias=True, global_bias=True, spread_out=0.5)
    own, ours = (choices.model_fn(each, 11) for each in (biased, of_evaluation(biased)))
    assert (ours.args, ours.keywords) == (own.args, own.keywords)

    own, ours = (choices.fed_recon_options(each) for each in (settings, shared))
    names = [f.name for f in dataclasses.fields(own) if f.name.startswith("reconstruction_")]
    for name in (*names, "batch_size", "support_query_split"):
        assert getattr(ours, name) == getattr(own, name), name
    # Runs that differ in nothing else share one.
    assert shared == of_evaluation(dataclasses.replace(settings, seed=4, client_epochs=1))


# --- every algorithm ----------------------------------------------------------------------------

# With users of every kind. Item biases learn fast what is popular.
EXPLICIT = replace(
    synthetic_num_users=80, held_out_fraction=0.2, item_bias=True, dim=3, clients_per_round=20
)
IMPLICIT = replace(
    feedback="implicit",
    synthetic_num_users=300,
    synthetic_num_items=260,
    max_ratings_per_user=32,
    unseen_fraction=0.1,
    item_bias=True,
    dim=4,
    clients_per_round=40,
    batch_size=20,
)
OF_ALGORITHM = {
    "centralized": {"client_optimizer": "adam", "client_learning_rate": 0.02},
    "fed_recon_ls": {"server_optimizer": "adam", "server_learning_rate": 0.1},
    # It takes no biases; it ranks by its rows alone.
    "fed_ials": {
        **{"item_bias": False, "ridge": 0.1},
        **{"server_optimizer": "adam", "server_learning_rate": 0.3},
    },
}
EXACT = {"item_bias": False, "server_optimizer": "adam", "server_learning_rate": 0.1}
OF_ONE_FEEDBACK = {"fed_recon_ls": "explicit", "fed_ials": "implicit"}
ALGORITHMS_AND_FEEDBACKS = [
    (algorithm, feedback)
    for algorithm in ALGORITHMS
    for feedback in FEEDBACKS
    if OF_ONE_FEEDBACK.get(algorithm, feedback) == feedback
]
CHANCE = 10 / 100  # Of the first ten of 100 candidates.


def is_near_chance(hit_rate, num_users):
    return abs(hit_rate - CHANCE) < 4 * (CHANCE * (1 - CHANCE) / num_users) ** 0.5


@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize(("algorithm", "feedback"), ALGORITHMS_AND_FEEDBACKS)
def test_every_algorithm_trains_and_is_judged_on_every_part(algorithm, feedback, tmp_path):
    """An untrained model ranks at chance level; one that was trained, even a little, does not."""
    settings = dataclasses.replace(
        EXPLICIT if feedback == "explicit" else IMPLICIT,
        algorithm=algorithm,
        **OF_ALGORITHM.get(algorithm, {}),
    )
    clients = data.load_clients(settings)
    parts = sorted(set(clients.users) - {"train"})
    run = RunDirectory(tmp_path)
    task, _ = tasks.build_task(settings, clients, store_dir=run.store_path)
    assert (task.store is not None) == (algorithm == "stateful_fed_avg")
    untrained = task.training.initialize()
    before = {part: task.evaluate(untrained, part) for part in parts}
    recorder = RunRecorder(run)
    state = Training(task, TrainingOptions(2, 1, 1), recorder).run()
    after = {part: task.evaluate(state, part) for part in parts}

    # What is trained comes back from a checkpoint as it was, optimiser and all.
    leaves, loaded = (
        [np.asarray(leaf) for leaf in flatten(tree)]
        for tree in (state, recorder.load(2, untrained))
    )
    assert [leaf.tobytes() for leaf in leaves] == [leaf.tobytes() for leaf in loaded]
    assert any(np.any(a != b) for a, b in zip(leaves, flatten(untrained)))
    row = run.read_metrics()[-1]
    assert row["train/num_examples"] >= 80
    assert np.isfinite(row["train/loss"])
    assert {name.split("/")[0] for name in row if "/" in name} == {"train", task.watched_part}
    for name, value in after[task.watched_part].items():
        assert row[f"{task.watched_part}/{name}"] == value

    if feedback == "explicit":
        assert parts == ["seen", "seen_validation", "test", "validation"]
        for part in parts:
            assert after[part]["num_examples"] == before[part]["num_examples"] > 20
            assert after[part]["rmse"] < before[part]["rmse"] - 0.01
            assert 0 <= after[part]["accuracy"] <= 1
        for part, later in clients.later.items():
            assert after[part]["num_examples"] == later.ratings.num_ratings
    else:
        assert parts == ["test", "unseen", "validation"]
        for part in parts:
            num_users = len(clients.users[part])
            assert after[part]["num_users"] == num_users == (30 if part == "unseen" else 270)
            assert is_near_chance(before[part]["hr_at_10"], num_users)
            assert after[part]["hr_at_10"] > 0.3
            assert after[part]["ndcg_at_10"] <= after[part]["hr_at_10"]

    if algorithm == "stateful_fed_avg" and feedback == "implicit":
        # An earlier checkpoint is judged with the rows that devices had then.
        then, _ = tasks.build_task(settings, clients, store_dir=run.store_path, store_round=1)
        expected = recorder.metrics(1, "validation")
        assert then.evaluate(recorder.load(1, untrained), "validation") == expected
        assert expected != recorder.metrics(2, "validation")


def flatten(tree):
    import tensorflow as tf

    return tf.nest.flatten(tree)


@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("algorithm", ["fed_recon", "fed_ials", "centralized"])
def test_where_there_is_nothing_to_learn_training_finds_nothing(algorithm, monkeypatch):
    """Held-out items are as likely as any other, unless training, or its negatives, betray them."""
    settings = dataclasses.replace(
        IMPLICIT,
        algorithm=algorithm,
        dim=12,
        unseen_fraction=0.0,
        client_optimizer="adam",
        client_learning_rate=0.05 if algorithm == "centralized" else 0.02,
        reconstruction_learning_rate=0.5,
        max_ratings_per_user=None,
        clients_per_round=150,
        **(EXACT if algorithm == "fed_ials" else {}),
    )
    from fedrecon.data import datasets

    real = datasets.load_dataset("synthetic", num_users=300, num_items=260)
    rng = np.random.default_rng(0)
    counts = np.full(300, 25)
    structureless = dataclasses.replace(
        real,
        user_ids=np.repeat(np.arange(300, dtype=np.int32), counts),
        item_ids=np.concatenate([rng.permutation(260)[:n] for n in counts]).astype(np.int32),
        ratings=np.full(counts.sum(), 3, np.float32),
        timestamps=np.arange(counts.sum()),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: structureless)
    clients = data.load_clients(settings)
    task, _ = tasks.build_task(settings, clients)
    state = task.training.initialize()
    losses = []
    for round_num in range(1, 61):
        state, metrics = task.run_round(state, task.prepare_round(round_num))
        losses.append(metrics["loss"])
    assert losses[-1] < losses[0]  # It fits what it is given.
    for part in sorted(set(clients.users) - {"train"}):
        assert is_near_chance(task.evaluate(state, part)["hr_at_10"], 300)


# --- centralised --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [EXPLICIT, IMPLICIT], ids=FEEDBACKS)
def test_centralised_training_sees_all_of_training_users_and_nobody_else(settings):
    settings = dataclasses.replace(settings, algorithm="centralized", clients_per_round=40)
    clients = data.load_clients(settings)
    task, _ = tasks.build_task(settings, clients)
    train = clients.users["train"]
    num_examples = sum(clients.examples.num_examples(user) for user in train)
    seen = []
    for round_num in range(1, 3 + len(train) // 40):  # More than an epoch.
        round_data = task.prepare_round(round_num)
        columns = (round_data.user_ids, round_data.item_ids, round_data.labels)
        seen.append(np.stack([column[round_data.mask] for column in columns], axis=1))
    # A round has as many examples as 40 users have on average.
    assert {len(rows) for rows in seen} == {round(num_examples / len(train) * 40)}
    users, items, labels = np.concatenate(seen).T
    assert set(users.astype(int)) == set(train.tolist())
    judged_by = clients.held_out.values() or [p.ratings for p in clients.later.values()]
    judged = set()
    for part in judged_by:
        names = ("user_ids", "item_ids") if settings.is_explicit else ("users", "items")
        judged |= set(zip(*(getattr(part, name).tolist() for name in names)))
    if settings.is_explicit:
        assert not judged & set(zip(users.astype(int), items.astype(int)))
    else:
        positives = labels == 1
        assert not judged & set(zip(users[positives].astype(int), items[positives].astype(int)))
        # As negatives they come as often as any other, since nobody could know.
        assert judged & set(zip(users[~positives].astype(int), items[~positives].astype(int)))
