"""The wiring that algorithms share, with clients' work simple enough to follow by hand."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.cohorts import PackingOptions, Passes, pack_shard
from fedrecon.errors import InputError
from fedrecon.execution.lowering import parts_of
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.options import OptimizerOptions
from fedrecon.wiring import process

pytestmark = pytest.mark.usefixtures("in_process_runtime")

NUM_ITEMS = 3
PACKING = PackingOptions(2, "none", Passes(), Passes())


def model_fn():
    return matrix_factorization(NUM_ITEMS, 1)


def shard_update(weights, shard):
    """Every row should lose the mean of all labels."""
    mask = tf.cast(shard.mask, tf.float32)
    total = tf.reduce_sum(shard.labels * mask)
    return process.ShardOutput(
        update=[total * tf.ones([NUM_ITEMS, 1])], weight=tf.reduce_sum(mask), metrics=total
    )


@pytest.fixture(scope="module")
def training():
    return process.build_training_process(
        process.initial_weights(model_fn),
        process.shard_type(2, 2),
        shard_update=shard_update,
        finalize_metrics=lambda total: total,
        server_optimizer=OptimizerOptions("adam", 0.5),
        aggregator_factory=None,
    )


def shards_of(*shards):
    """One shard for each list of clients' labels."""
    return [
        pack_shard(
            [(np.zeros(len(c), np.int64), np.array(c, np.float32)) for c in clients],
            np.arange(len(clients)),
            np.zeros(len(clients), np.uint32),
            PACKING,
            num_clients=2,
            num_examples=4,
        )
        for clients in shards
    ]


def test_the_server_applies_the_mean_over_all_shards(training):
    start = training.initialize()
    output = training.next(start, shards_of([[1.0, 2.0], [3.0]], [[-4.0]]))
    # The mean of 1, 2, 3 and -4 is 0.5. Adam's first step is the rate, against the sign.
    before, after = (s.global_model_weights.trainable[0] for s in (start, output.state))
    np.testing.assert_allclose(before - after, np.full([NUM_ITEMS, 1], 0.5), atol=1e-5)
    assert output.metrics["client_work"]["train"] == pytest.approx(2.0)
    assert output.metrics["finalizer"]["update_non_finite"] == 0


def test_a_mean_that_is_not_finite_changes_nothing_and_is_told(training):
    start = training.next(training.initialize(), shards_of([[1.0]])).state
    output = training.next(start, shards_of([[3e38, 1.0]], [[3e38]]))  # Finite, but not their sum.
    for before, after in zip(tf.nest.flatten(start), tf.nest.flatten(output.state)):
        np.testing.assert_array_equal(before, after)
    assert output.metrics["finalizer"]["update_non_finite"] == 1


# What the server sends, and what it makes of what it gets.

ROWS = np.float32([[1.0], [2.0], [4.0]])


def weights_of(table):
    return tff.learning.models.ModelWeights([np.float32(table)], [])


def sum_of_rows(weights):
    return tf.reduce_sum(weights.trainable[0])


def scaled_labels(message, shard):
    """A number for each client, whose labels are multiplied by what the server says."""
    return message * tf.reduce_sum(tf.where(shard.mask, shard.labels, 0.0), axis=[1, 2])


def scalar_update(message, shard):
    labels = tf.reduce_sum(scaled_labels(message, shard))
    count = tf.math.count_nonzero(shard.mask, dtype=tf.float32)
    return process.ShardOutput(update=[labels], weight=count, metrics=message)


def scalar_training(**kwargs):
    return process.build_training_process(
        process.initial_weights(model_fn),
        process.shard_type(2, 2),
        shard_update=scalar_update,
        finalize_metrics=lambda total: total,
        server_optimizer=OptimizerOptions("sgd", 0.5),
        server_message=sum_of_rows,
        server_update=lambda weights, mean: [mean[0] + weights.trainable[0]],
        **kwargs,
    )


def one_round(learning, shards, table=ROWS):
    state = learning.set_model_weights(learning.initialize(), weights_of(table))
    output = learning.next(state, shards)
    return output.state.global_model_weights.trainable[0], output.metrics


def test_the_server_makes_the_message_and_the_update():
    learning = scalar_training()
    after, metrics = one_round(learning, shards_of([[1.0, 2.0], [3.0]], [[-4.0]]))
    # The message is 7; the mean of 7, 14, 21 and -28 is 3.5. A half of that and of the row.
    np.testing.assert_allclose(after, ROWS - 0.5 * (3.5 + ROWS), rtol=1e-6)
    assert metrics["client_work"]["train"] == pytest.approx(2 * 7.0)  # Of each shard.
    # Clients get nothing else.
    sent = [
        part.type_signature.parameter.member.compact_representation()
        for part in parts_of(learning.next.to_building_block())
        if isinstance(part, tff.framework.Intrinsic) and part.uri == "federated_broadcast"
    ]
    assert sent == ["float32"]


def test_an_update_of_the_server_that_is_not_finite_changes_nothing_and_is_told():
    table = np.float32([[3e38], [-3e38], [1.0]])  # So the message is 1.
    learning = scalar_training()
    after, metrics = one_round(learning, shards_of([[1e37]]), table)
    np.testing.assert_allclose(after, table - 0.5 * (np.float32(1e37) + table), rtol=1e-6)
    assert metrics["finalizer"]["update_non_finite"] == 0
    # The mean is finite, and so are the rows, but not their sum.
    after, metrics = one_round(learning, shards_of([[1e38]]), table)
    np.testing.assert_array_equal(after, table)
    assert metrics["finalizer"]["update_non_finite"] == 1


def test_what_clients_find_out_for_themselves_is_of_the_servers_message():
    computation = process.build_at_clients(
        model_fn, process.shard_type(2, 2), scaled_labels, server_message=sum_of_rows
    )
    assert computation.type_signature.result == tff.FederatedType(
        tff.TensorType(np.float32, [2]), tff.CLIENTS
    )
    first, second = computation(weights_of(ROWS), shards_of([[1.0, 2.0], [3.0]], [[-4.0]]))
    np.testing.assert_allclose(first, [21.0, 21.0])
    np.testing.assert_allclose(second, [-28.0, 0.0])


# Aggregators.


def test_an_aggregator_that_may_need_clients_is_refused_shards():
    mean = tff.aggregators.MeanFactory()
    process.check_aggregator(None, is_linear=False, clients_per_shard=2)
    process.check_aggregator(mean, is_linear=False, clients_per_shard=1)
    process.check_aggregator(mean, is_linear=True, clients_per_shard=2)
    with pytest.raises(InputError, match=r"a shard of 2 clients .*; use clients_per_shard=1"):
        process.check_aggregator(mean, is_linear=False, clients_per_shard=2)
    # As everywhere an aggregator can do more than a weighted mean.
    with pytest.raises(InputError, match="a shard of 3 clients"):
        process.check_aggregator(
            process.secure_mean(1.0, weight_bound=1.0), is_linear=False, clients_per_shard=3
        )


@pytest.fixture(scope="module")
def secure_training():
    return scalar_training(aggregator_factory=process.secure_mean(20.0, weight_bound=3.0))


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize(
    ("labels", "total", "weight", "num_cut"),
    [
        # Sent are sums times 7, of 20 at most, and counts, of 3 at most.
        ([[[1.0, 1.0]], [[-1.5]]], 14 - 10.5, 2 + 1, (0, 0, 0)),
        ([[[1.0, 2.0]], [[0.5]]], 20 + 3.5, 2 + 1, (1, 0, 0)),
        ([[[-9.0]], [[-1.0], [-2.0]], [[1.0]]], -20 - 20 + 7, 1 + 2 + 1, (0, 2, 0)),
        ([[[1.0, 1.0], [0.0, 0.0]], [[-1.0]]], 14 - 7, 3 + 1, (0, 0, 1)),
    ],
)
def test_a_secure_mean_cuts_what_shards_send_to_the_bounds(
    secure_training, labels, total, weight, num_cut
):
    after, metrics = one_round(secure_training, shards_of(*labels))
    # 32 bits from -20 to 20 are steps of 1e-8.
    np.testing.assert_allclose(after, ROWS - 0.5 * (total / weight + ROWS), rtol=0, atol=1e-6)
    sums, weights = (metrics["aggregator"][name] for name in ("mean_value", "mean_weight"))
    assert num_cut == (
        sums["secure_upper_clipped_count"],
        sums["secure_lower_clipped_count"],
        weights["secure_upper_clipped_count"],
    )
    bounds = ("secure_lower_threshold", "secure_upper_threshold")
    assert [sums[name] for name in bounds] == [-20.0, 20.0]
    assert [weights[name] for name in bounds] == [0.0, 3.0]  # All 32 bits are for what can be.


def test_a_secure_mean_sums_updates_and_weights_securely_and_metrics_in_the_open(secure_training):
    sums = collections.defaultdict(list)
    for part in parts_of(secure_training.next.to_building_block()):
        if isinstance(part, tff.framework.Intrinsic) and "sum" in part.uri:
            sums[part.uri].append(part.type_signature.result.member.compact_representation())
    assert sums.keys() == {"federated_secure_sum_bitwidth", "federated_sum"}
    # A secure sum comes with how many were summed, cut above and cut below.
    assert sorted(sums["federated_secure_sum_bitwidth"]) == ["<int64>", *["int32"] * 6, "int64"]
    assert sums["federated_sum"] == ["float32"]


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_secure_mean_without_a_bound_is_refused(bound):
    with pytest.raises(InputError, match=f"the bound of a secure mean is {bound}; it must be pos"):
        process.secure_mean(bound, weight_bound=1.0)
    with pytest.raises(InputError, match=f"the weight_bound of a secure mean is {bound}"):
        process.secure_mean(1.0, weight_bound=bound)
