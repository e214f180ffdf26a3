"""Rounds of TFF's processes, by hand."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.execution.lowering import parts_of
from fedrecon.options import OptimizerOptions
from fedrecon.wiring import process
from fedrecon.wiring.at_clients import build_at_clients
from fedrecon.wiring.outputs import ShardOutput
from fedrecon.wiring.types import shard_type
from tests.tiny import weights_of
from tests.wiring.rounds import (
    NUM_ITEMS,
    ROWS,
    one_round,
    scalar_training,
    scaled_labels,
    server_weights,
    shards_of,
    sum_of_rows,
)

pytestmark = pytest.mark.usefixtures("in_process_runtime")


def shard_update(values, shard):
    """Every row should lose the mean of all labels."""
    mask = tf.cast(shard.mask, tf.float32)
    total = tf.reduce_sum(shard.labels * mask)
    return ShardOutput(
        update=[total * tf.ones([NUM_ITEMS, 1])], weight=[tf.reduce_sum(mask)], metrics=total
    )


@pytest.fixture(scope="module")
def training():
    return process.build_training_process(
        server_weights(),
        shard_type(2, 2),
        shard_update=shard_update,
        finalize_metrics=lambda total: total,
        server_optimizer=OptimizerOptions("adam", 0.5),
        aggregator_factory=None,
    )


def test_the_server_applies_the_mean_over_all_shards(training):
    start = training.initialize()
    output = training.next(start, shards_of([[1.0, 2.0], [3.0]], [[-4.0]]))
    # The mean of 1, 2, 3 and -4 is 0.5. Adam's first step is the rate, against the sign.
    before, after = (s.global_model_weights.trainable[0] for s in (start, output.state))
    np.testing.assert_allclose(before - after, np.full([NUM_ITEMS, 1], 0.5), atol=1e-5)
    assert output.metrics["client_work"]["train"] == pytest.approx(2.0)
    assert output.metrics["finalizer"]["update_non_finite"] == 0


def test_a_mean_that_is_not_finite_changes_nothing(training):
    start = training.next(training.initialize(), shards_of([[1.0]])).state
    output = training.next(start, shards_of([[3e38, 1.0]], [[3e38]]))  # Finite, but not their sum.
    for before, after in zip(tf.nest.flatten(start), tf.nest.flatten(output.state)):
        np.testing.assert_array_equal(before, after)
    assert output.metrics["finalizer"]["update_non_finite"] == 1


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


def test_a_server_update_that_is_not_finite_changes_nothing():
    table = np.float32([[3e38], [-3e38], [1.0]])  # So the message is 1.
    learning = scalar_training()
    after, metrics = one_round(learning, shards_of([[1e37]]), table)
    np.testing.assert_allclose(after, table - 0.5 * (np.float32(1e37) + table), rtol=1e-6)
    assert metrics["finalizer"]["update_non_finite"] == 0
    # The mean is finite, and so are the rows, but not their sum.
    after, metrics = one_round(learning, shards_of([[1e38]]), table)
    np.testing.assert_array_equal(after, table)
    assert metrics["finalizer"]["update_non_finite"] == 1


def test_what_clients_find_out_follows_from_the_message():
    computation = build_at_clients(
        server_weights(), shard_type(2, 2), scaled_labels, server_message=sum_of_rows
    )
    assert computation.type_signature.result == tff.FederatedType(
        tff.TensorType(np.float32, [2]), tff.CLIENTS
    )
    first, second = computation(weights_of(ROWS), shards_of([[1.0, 2.0], [3.0]], [[-4.0]]))
    np.testing.assert_allclose(first, [21.0, 21.0])
    np.testing.assert_allclose(second, [-28.0, 0.0])
