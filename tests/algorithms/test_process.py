"""The wiring that algorithms share, with clients' work simple enough to follow by hand."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import process
from fedrecon.algorithms.options import OptimizerOptions
from fedrecon.data.cohorts import PackingOptions, Passes, pack_shard
from fedrecon.models.matrix_factorization import matrix_factorization

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
