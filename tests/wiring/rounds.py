"""Processes whose clients' work is simple enough to follow by hand."""

import numpy as np
import tensorflow as tf

from fedrecon.data.cohorts import PackingOptions, Passes
from fedrecon.models.functional import FunctionalModel
from fedrecon.options import OptimizerOptions
from fedrecon.wiring import process
from fedrecon.wiring.outputs import ShardOutput
from fedrecon.wiring.types import shard_type
from fedrecon.wiring.weights import global_part
from tests import tiny
from tests.tiny import mf, weights_of

NUM_ITEMS = 3
PACKING = PackingOptions(2, "none", Passes(), Passes())


MODEL_FN = mf(NUM_ITEMS, 1)


def server_weights():
    return global_part(MODEL_FN, FunctionalModel(MODEL_FN()))


def shards_of(*shards):
    """One shard of two clients for each list of clients' labels; all are of item 0."""
    return [
        tiny.pack(
            [tiny.client_of(np.zeros(len(labels)), labels) for labels in clients],
            PACKING,
            num_clients=2,
            num_examples=4,
        )[0]
        for clients in shards
    ]


ROWS = np.float32([[1.0], [2.0], [4.0]])


def sum_of_rows(values):
    return tf.reduce_sum(values["item_embedding/embeddings"])


def scaled_labels(message, shard):
    """A number for each client, whose labels are multiplied by what the server says."""
    return message * tf.reduce_sum(tf.where(shard.mask, shard.labels, 0.0), axis=[1, 2])


def scalar_update(message, shard):
    labels = tf.reduce_sum(scaled_labels(message, shard))
    count = tf.math.count_nonzero(shard.mask, dtype=tf.float32)
    return ShardOutput(update=[labels], weight=[count], metrics=message)


def scalar_training(**kwargs):
    return process.build_training_process(
        server_weights(),
        shard_type(2, 2),
        shard_update=scalar_update,
        finalize_metrics=lambda total: total,
        server_optimizer=OptimizerOptions("sgd", 0.5),
        server_message=sum_of_rows,
        server_update=lambda values, mean: [mean[0] + values["item_embedding/embeddings"]],
        **kwargs,
    )


def one_round(learning, shards, table=ROWS):
    state = learning.set_model_weights(learning.initialize(), weights_of(table))
    output = learning.next(state, shards)
    return output.state.global_model_weights.trainable[0], output.metrics
