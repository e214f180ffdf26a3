"""Every algorithm, on data of both kinds: it trains, is judged, and has its costs."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import fedrecon as fr
from fedrecon.algorithms.algorithm import Costs
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.errors import InputError
from fedrecon.evaluation.judge import Judge
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import model_fn
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
    OptimizerOptions,
)
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.runs.training import Training, TrainingOptions
from fedrecon.wiring.debug import DebugProcess

FEEDBACKS = ("explicit", "implicit")
CLIENTS_PER_ROUND = {"explicit": 20, "implicit": 40}
NUM_ITEMS = {"explicit": 60, "implicit": 260}
DIM = {"explicit": 3, "implicit": 4}
CHANCE = 10 / 100  # Of the first ten of 100 candidates.


@functools.cache
def population_of(feedback, **changes):
    """With users of every kind."""
    if feedback == "explicit":
        ratings = load_dataset(
            "synthetic", num_users=80, num_items=60, mean_ratings_per_user=25, seed=0
        )
        options = {"max_ratings_per_user": 12, "held_out_fraction": 0.2, **changes}
        return divide_by_user(ratings, **options)
    ratings = load_dataset(
        "synthetic", num_users=300, num_items=260, mean_ratings_per_user=25, seed=0
    )
    options = {"max_ratings_per_user": 32, "unseen_fraction": 0.1, **changes}
    return divide_for_ranking(ratings, **options)


def mf(feedback, **settings):
    """Item biases learn fast what is popular."""
    settings = {"item_bias": True, **settings}
    return model_fn(matrix_factorization, NUM_ITEMS[feedback], DIM[feedback], **settings)


def exact(batch_size, server_rate):
    """The server gets the gradient of all of a client's query."""
    return FedReconOptions(
        reconstruction="least_squares",
        client_optimizer=OptimizerOptions("sgd", 1.0),
        client_takes_one_step=True,
        server_optimizer=OptimizerOptions("adam", server_rate),
        batch_size=batch_size,
    )


@functools.cache
def prepare_algorithm(name, feedback, *, store_dir=None, read_round=None):
    population, build_model = population_of(feedback), mf(feedback)
    common = {"clients_per_round": CLIENTS_PER_ROUND[feedback]}
    batch_size = 5 if feedback == "explicit" else 20
    if name == "fed_ials":
        # It takes no biases; it ranks by its rows alone. Its clients draw no negatives.
        options = FedIalsOptions(regularization=0.1, server_optimizer=OptimizerOptions("adam", 0.3))
        population = population_of(feedback, negatives_per_positive=0)
        return population, fr.prepare_fed_ials(
            mf(feedback, item_bias=False), options, population, **common
        )
    if name in ("fed_recon", "fed_recon_ls"):
        options = FedReconOptions(batch_size=batch_size)
        if name == "fed_recon_ls":
            options = exact(batch_size, 0.1)
        return population, fr.prepare_fed_recon(build_model, options, population, **common)
    common["reconstruction"] = FedReconOptions(batch_size=batch_size)
    if name == "centralized":
        options = CentralizedOptions(OptimizerOptions("adam", 0.02), 256)
        return population, fr.prepare_centralized(build_model, options, population, **common)
    options = FedAvgOptions(batch_size=batch_size)
    if name == "stateful_fed_avg":
        open_store = functools.partial(ClientStore, path=store_dir, read_round=read_round)
        return population, fr.prepare_stateful_fed_avg(
            build_model, options, population, open_store=open_store, **common
        )
    of_name = {"fed_avg": fr.prepare_fed_avg, "fed_ncf": fr.prepare_fed_ncf}
    return population, of_name[name](build_model, options, population, **common)


def is_near_chance(hit_rate, num_users):
    return abs(hit_rate - CHANCE) < 4 * (CHANCE * (1 - CHANCE) / num_users) ** 0.5


EVERY_ALGORITHM = [
    *(
        (name, feedback)
        for name in ("fed_recon", "fed_avg", "stateful_fed_avg", "fed_ncf", "centralized")
        for feedback in FEEDBACKS
    ),
    ("fed_recon_ls", "explicit"),
    ("fed_ials", "implicit"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize(("name", "feedback"), EVERY_ALGORITHM)
def test_every_algorithm_trains_and_is_judged_on_every_group(name, feedback, tmp_path):
    """An untrained model ranks at chance level; one that was trained, even a little, does not."""
    run = RunDirectory(tmp_path)
    store = {"store_dir": run.store_path} if name == "stateful_fed_avg" else {}
    population, algorithm = prepare_algorithm(name, feedback, **store)
    judge, groups = Judge(algorithm, population), list(population.groups)
    watched = "unseen_validation" if feedback == "explicit" else "seen_validation"
    assert (algorithm.store is not None) == (name == "stateful_fed_avg")
    untrained = algorithm.initialize()
    before = {group: judge.metrics(untrained, group) for group in groups}
    recorder = RunRecorder(run)
    state = Training(
        algorithm,
        TrainingOptions(2, 1, 1),
        recorder,
        evaluate=lambda state: judge.metrics(state, watched),
        watched_group=watched,
    ).run()
    after = {group: judge.metrics(state, group) for group in groups}

    # What is trained comes back from a checkpoint as it was, optimizer and all.
    leaves, loaded = (
        [np.asarray(leaf) for leaf in tf.nest.flatten(tree)]
        for tree in (state, recorder.load(2, untrained))
    )
    assert [leaf.tobytes() for leaf in leaves] == [leaf.tobytes() for leaf in loaded]
    assert any(np.any(a != b) for a, b in zip(leaves, tf.nest.flatten(untrained)))
    row = run.read_metrics()[-1]
    assert row["train/num_examples"] >= 80
    assert np.isfinite(row["train/loss"])
    assert {key.split("/")[0] for key in row if "/" in key} == {"train", watched}
    for key, value in after[watched].items():
        assert row[f"{watched}/{key}"] == value

    if feedback == "explicit":
        assert groups == ["seen_validation", "seen_test", "unseen_validation", "unseen_test"]
        for group in groups:
            assert after[group]["num_examples"] == before[group]["num_examples"] > 20
            assert after[group]["rmse"] < before[group]["rmse"] - 0.01
            assert 0 <= after[group]["accuracy"] <= 1
        for group in ("seen_validation", "seen_test"):
            later = population.groups[group].later
            assert after[group]["num_examples"] == later.ratings.num_ratings
    else:
        assert groups == ["seen_validation", "seen_test", "unseen_test"]
        for group in groups:
            num_users = len(population.groups[group].users)
            assert after[group]["num_users"] == num_users == (30 if group == "unseen_test" else 270)
            assert is_near_chance(before[group]["hr_at_10"], num_users)
            assert after[group]["hr_at_10"] > 0.3
            assert after[group]["ndcg_at_10"] <= after[group]["hr_at_10"]

    if name == "stateful_fed_avg" and feedback == "implicit":
        # An earlier checkpoint is judged with the rows that devices had then.
        _, then = prepare_algorithm(name, feedback, **store, read_round=1)
        expected = recorder.metrics(1, watched)
        assert Judge(then, population).metrics(recorder.load(1, untrained), watched) == expected
        assert expected != recorder.metrics(2, watched)


# --- costs ----------------------------------------------------------------------------------------

# A number has 4 bytes. Explicit: 60 items of 3 factors and a bias; a user's row has 3 numbers; 80
# users. Plain SGD keeps its rate beside the weights.
GLOBAL = 4 * 60 * (3 + 1)
ROW = 4 * 3
SGD = 4
# Adam's rate, two decays, epsilon and its count of steps, beside two moments of each weight.
ADAM = 4 * 5
# Of 12 ratings in batches of 5, one batch is query and all three are FedAvg's.
# Implicit: 260 items of 4 factors, and the Gram matrix; up, also how often each item was counted.
TABLE, SQUARE, COUNTS = 4 * 260 * 4, 4 * 4 * 4, 4 * 260


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize(
    ("name", "feedback", "expected"),
    [
        ("fed_recon", "explicit", (GLOBAL, GLOBAL, 0, GLOBAL + SGD, 1)),
        ("fed_recon_ls", "explicit", (GLOBAL, GLOBAL, 0, 3 * GLOBAL + ADAM, 1)),
        ("fed_avg", "explicit", (GLOBAL, GLOBAL, 0, GLOBAL + SGD, 3)),
        # The row stays on the device.
        ("stateful_fed_avg", "explicit", (GLOBAL, GLOBAL, ROW, GLOBAL + SGD, 3)),
        # The server sends the client its row, and keeps the rows of all.
        ("fed_ncf", "explicit", (GLOBAL + ROW, GLOBAL + ROW, 0, GLOBAL + 80 * ROW + SGD, 3)),
        ("fed_ials", "implicit", (TABLE + SQUARE, TABLE + SQUARE + COUNTS, 0, 3 * TABLE + ADAM, 1)),
    ],
)
def test_costs_of_algorithms_with_rounds(name, feedback, expected):
    _, algorithm = prepare_algorithm(name, feedback)
    down, up, device, server, steps = expected
    assert algorithm.costs(algorithm.initialize()) == Costs(down, up, 0, device, server, steps)


@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_centralized_training_costs_the_ratings_once(feedback):
    population, algorithm = prepare_algorithm("centralized", feedback)
    if feedback == "explicit":
        # Everybody has at least 20 ratings, of which at most 12 are used.
        assert population.mean_ratings() == 12
        once, weights = 12 * 8, GLOBAL + 80 * ROW
    else:
        positives = [len(population.examples.positives(user)) for user in population.train]
        once, weights = round(8 * np.mean(positives)), 4 * 260 * (4 + 1) + 4 * 300 * 4
    # With two moments of each weight.
    num_examples = np.mean([population.examples.num_examples(user) for user in population.train])
    steps = -(-round(num_examples * CLIENTS_PER_ROUND[feedback]) // 256)
    expected = Costs(0, 0, once, 0, 3 * weights + ADAM, steps)
    assert algorithm.costs(algorithm.initialize()) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
def test_tffs_builder_costs_what_ours_does():
    population = population_of("explicit")
    common = (mf("explicit"), FedReconOptions(), population)
    stock, ours = (
        prepared(*common, clients_per_round=5)
        for prepared in (fr.prepare_stock_fed_recon, fr.prepare_fed_recon)
    )
    assert stock.costs(stock.initialize()) == ours.costs(ours.initialize())


# --- who trains, and on what ----------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["uniform", "queue"])
def test_only_training_users_train_and_each_is_a_client_with_own_ratings(sampler):
    population = population_of("explicit")
    algorithm = fr.prepare_stock_fed_recon(
        mf("explicit"),
        FedReconOptions(batch_size=5),
        population,
        clients_per_round=7,
        sampler=sampler,
    )
    ratings = population.examples.ratings
    for round_num in range(1, 20):
        cohort = algorithm.sample_cohort(round_num)
        assert len(set(cohort)) == 7
        assert set(cohort) <= set(population.train)
    datasets = algorithm.training_data(cohort, 19)
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


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_centralized_training_sees_all_of_training_users_and_nobody_else(feedback):
    population = population_of(feedback)
    algorithm = fr.prepare_centralized(
        mf(feedback), CentralizedOptions(), population, clients_per_round=40
    )
    train, examples = population.train, population.examples
    num_examples = sum(examples.num_examples(user) for user in train)
    seen = []
    for round_num in range(1, 3 + len(train) // 40):  # More than an epoch.
        round_data = algorithm.prepare_round(round_num)
        columns = (round_data.user_ids, round_data.item_ids, round_data.labels)
        seen.append(np.stack([column[round_data.mask] for column in columns], axis=1))
    # A round has as many examples as 40 users have on average.
    assert {len(rows) for rows in seen} == {round(num_examples / len(train) * 40)}
    users, items, labels = np.concatenate(seen).T
    assert set(users.astype(int)) == set(train.tolist())
    judged = set()
    for group in population.groups.values():
        if group.later is not None:
            asked = group.later.ratings
            judged |= set(zip(asked.user_ids.tolist(), asked.item_ids.tolist()))
        elif group.held_out is not None:
            judged |= set(zip(group.held_out.users.tolist(), group.held_out.items.tolist()))
    assert judged
    if feedback == "explicit":
        assert not judged & set(zip(users.astype(int), items.astype(int)))
    else:
        positives = labels == 1
        assert not judged & set(zip(users[positives].astype(int), items[positives].astype(int)))
        # As negatives they come as often as any other, since nobody could know.
        assert judged & set(zip(users[~positives].astype(int), items[~positives].astype(int)))


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ("explicit", "the population has explicit feedback; divide_for_ranking makes one"),
        (
            "implicit",
            r"has 4 for each positive; .*\(..., negatives_per_positive=0\)",
        ),
    ],
)
def test_federated_ials_refuses_examples_that_are_no_positives(feedback, message):
    """It looks at no label: a negative would count as an interaction."""
    build_model = mf(feedback, item_bias=False)
    with pytest.raises(InputError, match=message):
        fr.prepare_fed_ials(
            build_model, FedIalsOptions(), population_of(feedback), clients_per_round=5
        )


# --- nothing is betrayed --------------------------------------------------------------------------


def structureless_population(**options):
    real = load_dataset("synthetic", num_users=300, num_items=260)
    generator = np.random.default_rng(0)
    counts = np.full(300, 25)
    ratings = dataclasses.replace(
        real,
        user_ids=np.repeat(np.arange(300, dtype=np.int32), counts),
        item_ids=np.concatenate([generator.permutation(260)[:n] for n in counts]).astype(np.int32),
        ratings=np.full(counts.sum(), 3, np.float32),
        timestamps=np.arange(counts.sum()),
    )
    return divide_for_ranking(ratings, **options)


def adam(rate):
    return OptimizerOptions("adam", rate)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("name", ["fed_recon", "fed_ials", "centralized"])
def test_where_there_is_nothing_to_learn_training_finds_nothing(name):
    """Held-out items are as likely as any other, unless training, or its negatives, betray them."""
    is_ials = name == "fed_ials"
    population = structureless_population(**({"negatives_per_positive": 0} if is_ials else {}))
    build_model = model_fn(matrix_factorization, 260, 12, item_bias=not is_ials)
    fitted = FedReconOptions(
        reconstruction_optimizer=OptimizerOptions("sgd", 0.5),
        client_optimizer=adam(0.02),
        batch_size=20,
    )
    if name == "fed_recon":
        prepared, options, more = fr.prepare_fed_recon, fitted, {}
    elif is_ials:
        prepared, options, more = (
            fr.prepare_fed_ials,
            FedIalsOptions(server_optimizer=adam(0.1)),
            {},
        )
    else:
        prepared, options = fr.prepare_centralized, CentralizedOptions(adam(0.05), 256)
        more = {"reconstruction": fitted}
    algorithm = prepared(build_model, options, population, clients_per_round=150, **more)
    state, losses = algorithm.initialize(), []
    for round_num in range(1, 61):
        state, metrics = algorithm.run_round(state, round_num)
        losses.append(metrics["loss"])
    assert losses[-1] < losses[0]  # It fits what it is given.
    judge = Judge(algorithm, population)
    assert list(population.groups) == ["seen_validation", "seen_test"]
    for group in population.groups:
        assert is_near_chance(judge.metrics(state, group)["hr_at_10"], 300)


# --- the debug engine -----------------------------------------------------------------------------


def test_debugging_reaches_the_process_of_every_algorithm_that_offers_it():
    ratings = fr.load_dataset("synthetic", num_users=40, num_items=60, mean_ratings_per_user=25)
    population = fr.divide_by_user(ratings)
    build_model = fr.model_fn(fr.matrix_factorization, ratings.num_items, dim=2)
    common = {"clients_per_round": 3, "debug": True}
    prepared = [
        fr.prepare_fed_recon(build_model, fr.FedReconOptions(), population, **common),
        fr.prepare_fed_avg(build_model, fr.FedAvgOptions(), population, **common),
        fr.prepare_fed_ncf(build_model, fr.FedAvgOptions(), population, **common),
    ]
    for algorithm in prepared:
        assert isinstance(algorithm.process, DebugProcess)
        assert [len(shard.seeds) for shard in algorithm.prepare_round(1)] == [1, 1, 1]
    stateful = fr.prepare_stateful_fed_avg(
        build_model, fr.FedAvgOptions(), population, open_store=fr.ClientStore, **common
    )
    assert isinstance(stateful.process._training, DebugProcess)
