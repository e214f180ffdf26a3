"""Federated averaging gives stock TFF's numbers, and those of plain loops where stock has none."""

import functools

import numpy as np
import pytest

from fedrecon.algorithms import fed_avg
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.options import FedAvgOptions
from tests.algorithms import numpy_fed_avg
from tests.algorithms.fed_avg_case import (
    BROKEN,
    BY_ROW_UNIFORM,
    CLIENTS,
    MODEL,
    NUM_ITEMS,
    OPTIONS,
    UNIFORM,
    drawn_local_values,
    pack,
    replaced,
)
from tests.algorithms.stock_fed_avg import StockFedAvg
from tests.tiny import (
    BIASES,
    SAME_START,
    assert_close,
    drawn_mf,
    mf,
    optimizers,
    small_neumf,
    trainable,
)

pytestmark = pytest.mark.usefixtures("in_process_runtime")


@pytest.fixture(scope="module")
def synthetic():
    return load_dataset("synthetic", num_users=36, num_items=60, mean_ratings_per_user=24, seed=0)


def biased_mf(num_items, **kwargs):
    return mf(num_items, biases=BIASES, user_initializer=SAME_START, **kwargs)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (biased_mf, optimizers("sgd", 0.1, "adam", 0.05) | {"client_weighting": "uniform"}),
        (biased_mf, optimizers("momentum", 0.05) | {"client_epochs": 2, "client_steps_max": 5}),
        (biased_mf, optimizers("adamw", 0.02) | {"client_epochs": 2}),
        (functools.partial(biased_mf, l2=0.02), optimizers("adam", 0.01) | {"client_epochs": 2}),
        (small_neumf, optimizers("adam", 0.01) | {"client_epochs": 2}),
    ],
    ids=["sgd, adam, uniform", "momentum, steps_max", "adamw", "l2, adam", "neumf, adam"],
)
def test_stateless_equals_stock(in_tffs_runtime, synthetic, model, changes):
    options = FedAvgOptions(batch_size=5, **changes)
    threshold = 4.0 if model is small_neumf else None
    # Shuffled each round, so that an epoch after the first has its own order only if ours has.
    example_options = ExampleOptions(20, label_threshold=threshold, order="shuffle_each_round")
    examples = ClientExamples(synthetic, example_options)
    model_fn = model(synthetic.num_items)
    packer = CohortPacker(examples, fed_avg.packing_options(options, seed=0), clients_per_shard=6)
    ours = fed_avg.build_fed_avg(model_fn, options, clients_per_shard=6)
    stock = StockFedAvg(model_fn, options, in_tffs_runtime)
    state = ours.initialize()
    start = state.global_model_weights.trainable
    assert_close(list(start), stock.global_values, 0)
    for round_num in range(3):
        users = examples.users[round_num * 12 :][:12]
        output = ours.next(state, packer.pack(users, round_num))
        expected = stock.next([examples.examples(user, round_num) for user in users])
        state = output.state
        assert_close(list(state.global_model_weights.trainable), stock.global_values)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics["num_clients_rejected"] == 0
        assert metrics["num_examples"] == expected["num_examples"] > 100
        for name in ("mean_loss", "rmse"):
            assert metrics[name] == pytest.approx(expected[name], rel=1e-5), name
        # A prediction may lie within rounding of the edge of being right.
        assert metrics["accuracy"] == pytest.approx(expected["accuracy"], abs=0.01)
    moved = [np.abs(a - b).max() for a, b in zip(start, state.global_model_weights.trainable)]
    assert min(moved) > 1e-3  # Else equality would say little.


@pytest.fixture(scope="module")
def functional():
    return FunctionalModel(MODEL())


@functools.cache
def stateless(options, num_clients=8):
    return fed_avg.build_fed_avg(MODEL, options, clients_per_shard=num_clients)


CLIPPED = replaced(gradient_clip_norm=5.0)
CLIPPED_UNIFORM = replaced(gradient_clip_norm=5.0, **UNIFORM)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [CLIPPED, CLIPPED_UNIFORM, BY_ROW_UNIFORM],
    ids=["clipped", "clipped, uniform", "by row, uniform"],
)
def test_stateless_equals_plain_loops(functional, options):
    process = stateless(options)
    state = process.initialize()
    values = trainable(state)
    for round_num in range(3):
        shards = pack(CLIENTS, options, num_clients=8, round_num=round_num)
        drawn = drawn_local_values(functional, shards)
        output = process.next(state, shards)
        local_values = [drawn[user] for user in CLIENTS]
        results = numpy_fed_avg.fit_all(values, local_values, CLIENTS.values(), options)
        before, values = values, numpy_fed_avg.average(values, results, CLIENTS.values(), options)
        state = output.state
        assert_close(trainable(state), values)
        metrics = dict(output.metrics["client_work"]["train"])
        assert metrics == pytest.approx(numpy_fed_avg.metrics(results), rel=1e-5)
        np.testing.assert_array_equal(trainable(state)[0][7], before[0][7])  # Nobody has item 7.
        assert all(np.abs(a - b).max() > 0.01 for a, b in zip(before, values))
    # Those of round 0 were other values, and each client has its own.
    again = drawn_local_values(functional, pack(CLIENTS, options, num_clients=8))
    rows = [tuple(row[0].ravel().tolist()) for row in [*drawn.values(), *again.values()]]
    assert len(set(rows)) == 2 * len(CLIENTS) + 1  # Padding has the same in all rounds.


@pytest.mark.slow
def test_the_tested_gradients_are_clipped_and_some_are_not(functional):
    drawn = drawn_local_values(functional, pack(CLIENTS, OPTIONS, num_clients=8))
    values = trainable(stateless(CLIPPED).initialize())
    lengths = []
    for user, (ids, labels) in CLIENTS.items():
        for start in range(0, len(ids), 3):
            batch = slice(start, start + 3)
            _, gradients = numpy_fed_avg.errors_and_gradients(
                [*values, *drawn[user]], ids[batch], labels[batch]
            )
            lengths.append(np.sqrt(sum(np.sum(g**2) for g in gradients)))
    assert min(lengths) < CLIPPED.gradient_clip_norm < max(lengths)


def test_clipping_and_regularized_item_tables_do_not_go_together():
    with pytest.raises(InputError, match="item_embedding/embeddings is regularized, so the norm"):
        fed_avg.build_fed_avg(drawn_mf(NUM_ITEMS, l2=0.1), CLIPPED, clients_per_shard=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [replaced(**optimizers("adamw", 0.05)), BY_ROW_UNIFORM],
    ids=["adamw", "by row"],
)
def test_a_round_does_not_depend_on_how_it_is_packed(options):
    outputs = []
    for num_clients in (8, 3):
        process = stateless(options, num_clients)
        shards = pack(CLIENTS, options, num_clients=num_clients)
        outputs.append(process.next(process.initialize(), shards))
    whole, cut = outputs
    assert_close(trainable(cut.state), trainable(whole.state), 1e-6)
    metrics, cut_metrics = (dict(each.metrics["client_work"]["train"]) for each in outputs)
    assert cut_metrics == pytest.approx(metrics, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [CLIPPED, BY_ROW_UNIFORM], ids=["plain", "by row"])
def test_a_client_whose_update_is_not_finite_is_left_out_and_counted(options):
    process = stateless(options)
    start = process.initialize()
    alone = process.next(start, pack(CLIENTS, options, num_clients=8))
    beside = process.next(start, pack(CLIENTS | {5: BROKEN}, options, num_clients=8))
    assert_close(trainable(beside.state), trainable(alone.state), 1e-6)
    assert alone.metrics["client_work"]["train"]["num_clients_rejected"] == 0
    assert beside.metrics["client_work"]["train"]["num_clients_rejected"] == 1
    # Nor does it spoil the figures of the others.
    metrics, of_all = (dict(each.metrics["client_work"]["train"]) for each in (alone, beside))
    assert {**of_all, "num_clients_rejected": 0} == pytest.approx(metrics, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [CLIPPED_UNIFORM, BY_ROW_UNIFORM], ids=["plain", "by row"])
def test_a_round_of_nobody_leaves_the_model_as_it_was(options):
    process = stateless(options)
    output = process.next(process.initialize(), pack({6: CLIENTS[6]}, options, num_clients=8))
    assert_close(trainable(output.state), trainable(process.initialize()), 0)
