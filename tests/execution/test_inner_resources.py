"""Queues and tables that TensorFlow functions make, as in TFF's own runtime."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff


def mutable_table():
    return tf.lookup.experimental.MutableHashTable(tf.int32, tf.int32, -1)


def dense_table():
    return tf.lookup.experimental.DenseHashTable(tf.int32, tf.int32, -1, -2, -3)


def size_after_insert(make):
    @tf.function
    def run(x):
        table = make()
        table.insert([x, x + 1], [x, x])
        return tf.cast(table.size(), tf.int32) * 100 + table.lookup(x)

    return run


def queue_of(make):
    @tf.function
    def run(x):
        queue = make()
        for i in tf.range(x):
            queue.enqueue(i)
        return queue.size()

    return run


INNER = {
    "mutable table": size_after_insert(mutable_table),
    "dense table": size_after_insert(dense_table),
    "queue": queue_of(lambda: tf.queue.FIFOQueue(100, [tf.int32], shapes=[()])),
    "random queue": queue_of(lambda: tf.queue.RandomShuffleQueue(100, 0, [tf.int32], shapes=[()])),
    "priority queue": queue_of(lambda: tf.queue.PaddingFIFOQueue(100, [tf.int32], shapes=[()])),
}


@pytest.mark.parametrize("name", INNER)
def test_two_calls_of_a_function_of_a_function(in_both, assert_same, name):
    inner = INNER[name]

    @tff.tensorflow.computation(np.int32)
    def run(x):
        @tf.function
        def outer(x):
            return inner(x) + 1000 * inner(x + 1)

        first = outer(x)
        with tf.control_dependencies([first]):
            return first, outer(x)

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def by_clients(values):
        return tff.federated_map(run, values)

    assert_same(*in_both(lambda: [by_clients([2, 3, 4, 5]) for _ in range(2)]))


def test_a_table_that_is_made_in_a_loop_is_one_table(in_both, assert_same):
    inner = INNER["mutable table"]

    @tff.tensorflow.computation(np.int32)
    @tf.function
    def run(x):
        total = tf.constant(0)
        for i in tf.range(x):
            total += inner(3 * i)
        return total

    expected, found = in_both(lambda: [run(2), run(3)])
    assert_same(expected, found)
    # Sizes 2, 4 and 6, in hundreds, and the values 0, 3 and 6.
    assert found == [200 + 400 + 3, 200 + 400 + 600 + 9]


def test_clients_on_threads_do_not_share_what_their_functions_make(in_process_runtime):
    @tff.tensorflow.computation(np.int32)
    @tf.function
    def run(x):
        table = mutable_table()
        for i in tf.range(200):
            table.insert(x * 1000 + i, i)
        return tf.cast(table.size(), tf.int32)

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def by_clients(values):
        return tff.federated_map(run, values)

    for _ in range(3):
        assert by_clients(list(range(8))) == [200] * 8


@pytest.mark.slow
@pytest.mark.parametrize("bitwidth", [None, 8], ids=["plain sums", "secure sums"])
@pytest.mark.filterwarnings("ignore:.*nothing is secured")
def test_heavy_hitters(in_both, bitwidth):
    """TFF's sketches of words, whose decoder keeps a queue."""
    words = [["hello", "hey", "hey"], ["hey", "world", "a"], ["world", "hey"]]
    datasets = [tf.data.Dataset.from_tensor_slices(of_client).batch(2) for of_client in words]
    count = tff.analytics.heavy_hitters.iblt.build_iblt_computation(
        capacity=20, string_max_bytes=6, batch_size=2, secure_sum_bitwidth=bitwidth
    )

    def run():
        output = count(datasets)
        # As code written for TFF reads it.
        found = dict(zip([w.decode() for w in output.heavy_hitters], output.heavy_hitters_counts))
        return found, output.clients, output.num_not_decoded

    expected = ({"hello": 1, "hey": 4, "world": 2, "a": 1}, 3, 0)
    for _ in range(2):
        assert in_both(run) == [expected, expected]
