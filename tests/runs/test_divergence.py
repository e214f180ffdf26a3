"""Real algorithms with absurd settings: they end within one round."""

import dataclasses

import numpy as np
import pytest

import fedrecon as fr
from fedrecon.errors import InputError
from fedrecon.runs.divergence import first_not_finite
from fedrecon.runs.recorder import RunRecorder
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.runs.training import Training, TrainingOptions
from tests.tiny import mf, sgd

pytestmark = pytest.mark.usefixtures("in_process_runtime")


def explicit():
    ratings = fr.load_dataset(
        "synthetic", num_users=40, num_items=60, mean_ratings_per_user=25, seed=0
    )
    return fr.divide_by_user(ratings, max_ratings_per_user=12)


def implicit():
    ratings = fr.load_dataset(
        "synthetic", num_users=60, num_items=260, mean_ratings_per_user=25, seed=0
    )
    return fr.divide_for_ranking(ratings, max_ratings_per_user=32, negatives_per_positive=0)


def fed_avg(store=None):
    options = fr.FedAvgOptions(client_optimizer=sgd(50.0), batch_size=5)
    common = (mf(60, 3, biases=("item_bias",)), options, explicit())
    if store is None:
        return fr.prepare_fed_avg(*common, clients_per_round=10)
    return fr.prepare_stateful_fed_avg(*common, clients_per_round=10, open_store=store)


def stateful_fed_avg():
    return fed_avg(fr.ClientStore)


def centralized():
    return fr.prepare_centralized(
        mf(60, 3, biases=("item_bias",)),
        fr.CentralizedOptions(sgd(50.0), 64),
        explicit(),
        clients_per_round=10,
    )


def fed_ials():
    options = fr.FedIalsOptions(regularization=0.1, server_optimizer=sgd(1e20))
    return fr.prepare_fed_ials(mf(260, 3), options, implicit(), clients_per_round=10)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def train(algorithm, run):
    recorder = RunRecorder(run)
    training = Training(
        algorithm,
        TrainingOptions(total_rounds=30, rounds_per_evaluation=30, rounds_per_checkpoint=30),
        recorder,
        evaluate=lambda state: {},
        watched_group="seen_validation",
    )
    with pytest.raises(InputError) as error:
        training.run()
    return recorder, str(error.value)


def rounds_by_hand(algorithm):
    """Yields the number of each round, its metrics, and whether metrics and state are finite."""
    state = algorithm.initialize()
    for round_num in range(1, 31):
        state, metrics = algorithm.run_round(state, round_num)
        is_finite = np.isfinite(list(metrics.values())).all() and first_not_finite(state) is None
        if algorithm.store is not None:
            algorithm.store.commit()
        yield round_num, metrics, is_finite


@pytest.mark.filterwarnings("ignore:.* clients of round .* were left out")
@pytest.mark.parametrize("prepare", [fed_avg, stateful_fed_avg, centralized])
def test_a_rate_of_50_ends_the_run_in_its_first_round_that_is_of_no_use(prepare, run):
    first = next(
        number
        for number, metrics, is_finite in rounds_by_hand(prepare())
        if not is_finite or metrics["num_clients_rejected"] == 10
    )
    assert first > 1
    algorithm = prepare()
    recorder, message = train(algorithm, run)
    assert f"round {first} " in message
    assert ("train/loss is " if prepare is centralized else "all 10 clients") in message
    assert "smaller learning rates" in message
    assert run.checkpoints() == [0, first - 1]
    assert first_not_finite(recorder.load(first - 1, algorithm.initialize())) is None
    assert [row["round"] for row in run.read_metrics()] == list(range(first))
    if algorithm.store is not None:
        trained = np.concatenate([algorithm.sample_cohort(n) for n in range(1, first)])
        _, is_known = algorithm.store.read(np.arange(40))
        np.testing.assert_array_equal(np.flatnonzero(is_known), np.unique(trained))


@pytest.mark.filterwarnings("ignore:.* clients of round .* were left out")
def test_federated_ials_ends_in_the_first_round_without_a_client(run):
    without = [
        number
        for number, metrics, is_finite in rounds_by_hand(fed_ials())
        if is_finite and metrics["num_clients_rejected"] == 10
    ]
    first = without[0]
    assert without == list(range(first, 31))
    _, message = train(fed_ials(), run)
    assert f"all 10 clients of round {first} were left out" in message
    assert run.checkpoints() == [0, first - 1]


@pytest.mark.filterwarnings("ignore:.* clients of round .* were left out")
def test_fit_ends_alike():
    options = dataclasses.replace(fr.FedAvgOptions(batch_size=5), client_optimizer=sgd(50.0))
    with pytest.raises(InputError, match=r"all \d+ clients of rounds? .* training diverged"):
        fr.fit(explicit(), "fed_avg", options=options, rounds=30, rounds_per_evaluation=30)


def test_sums_that_overflow_are_no_divergence():
    state = {"a": np.full(4, 3e38, np.float32), "b": np.array([2**62]), "c": np.float32(1)}
    assert first_not_finite(state) is None
    assert first_not_finite({**state, "c": np.float32("inf")}) == "c"
    # Infinities of both signs.
    assert first_not_finite([np.zeros(2), np.array([np.inf, -np.inf])]) == "1"
