"""Each reader of a dataset gets it as if it were fresh, as in TFF's own runtime."""

import gc

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.execution.datasets import FreshDataset

NUMBERS = tff.SequenceType(np.int64)


def eight():
    return tf.data.Dataset.range(8)


def digits(dataset):
    return dataset.reduce("", lambda text, x: text + tf.strings.as_string(x))


@pytest.fixture(scope="module")
def computations():
    """What reads datasets: once, twice in a graph, in two graphs, at each client."""
    read = tff.tensorflow.computation(digits, NUMBERS)

    @tff.tensorflow.computation(NUMBERS)
    def read_twice(dataset):
        first = digits(dataset)
        with tf.control_dependencies([first]):
            return first, digits(dataset)

    @tff.federated_computation(NUMBERS)
    def read_in_two_graphs(dataset):
        return read(dataset), read(dataset)

    @tff.federated_computation(tff.FederatedType(NUMBERS, tff.CLIENTS))
    def read_by_clients(datasets):
        return tff.federated_map(read, datasets)

    return read, read_twice, read_in_two_graphs, read_by_clients


def readings(computations, dataset):
    read, read_twice, read_in_two_graphs, read_by_clients = computations
    return (
        [read(dataset) for _ in range(3)],
        read_twice(dataset),
        read_in_two_graphs(dataset),
        read_by_clients([dataset] * 8),
    )


def times(seed):
    return lambda x: x + tf.random.uniform([], maxval=9, dtype=tf.int64, seed=seed)


SEEDED = {
    "shuffled": lambda: eight().shuffle(8, seed=1),
    "shuffled once": lambda: eight().shuffle(8, seed=1, reshuffle_each_iteration=False),
    "shuffled and repeated": lambda: eight().shuffle(8, seed=1).repeat(2),
    "shuffled, batched and prefetched": (
        lambda: eight().shuffle(8, seed=1).batch(3).prefetch(2).unbatch()
    ),
    "shuffled and cached": lambda: eight().shuffle(8, seed=1).cache().repeat(2),
    "shuffled twice": lambda: eight().shuffle(8, seed=1).shuffle(3, seed=2),
    "random": lambda: tf.data.Dataset.random(seed=3).take(2).map(lambda x: x % 100),
    "mapped at random": lambda: eight().map(times(4)),
    "interleaved": lambda: eight().interleave(
        lambda x: tf.data.Dataset.range(2).shuffle(2, seed=7).map(lambda y: y + 2 * x),
        cycle_length=3,
    ),
    "plain": lambda: eight().map(lambda x: 3 * x).filter(lambda x: x != 9).take(5),
}


@pytest.mark.parametrize("name", SEEDED)
def test_same_as_native(in_both, assert_same, computations, name):
    dataset = SEEDED[name]()
    expected, found = in_both(lambda: readings(computations, dataset))
    assert_same(expected, found)
    assert len(set(found[0])) == 1
    assert len(set(found[3])) == 1


def test_the_orders_of_a_shuffled_dataset(in_process_runtime, computations):
    """The first order is what TensorFlow gives a new dataset, the second that of a second epoch."""
    new = eight().shuffle(8, seed=1)
    first, second = ("".join(str(int(x)) for x in new).encode() for _ in range(2))
    assert first != second
    in_turn, (once, again), graphs, clients = readings(computations, eight().shuffle(8, seed=1))
    assert in_turn == [first] * 3
    assert (once, again) == (first, second)
    assert graphs == (first, first)
    assert clients == [first] * 8


@pytest.fixture
def no_global_seed():
    """Undoes a `tf.random.set_seed` of another test, which would be the seed of any dataset."""
    tf.random.set_seed(None)


@pytest.mark.usefixtures("no_global_seed")
@pytest.mark.parametrize("reshuffles", [True, False])
def test_without_a_seed_each_reader_has_an_order_of_its_own(in_both, computations, reshuffles):
    dataset = tf.data.Dataset.range(20).shuffle(20, reshuffle_each_iteration=reshuffles)
    for in_turn, (once, again), graphs, clients in in_both(lambda: readings(computations, dataset)):
        assert len({*in_turn, *graphs, *clients}) == 3 + 2 + 8
        assert (once != again) == reshuffles


@pytest.mark.usefixtures("no_global_seed")
def test_without_a_seed_a_cache_lasts_for_one_reader(in_both, computations):
    dataset = tf.data.Dataset.range(20).shuffle(20).cache()
    for in_turn, (once, again), graphs, clients in in_both(lambda: readings(computations, dataset)):
        assert len({*in_turn, *graphs, *clients}) == 3 + 2 + 8
        assert once == again


def test_what_a_computation_shuffles_is_fresh_for_each_of_its_readers(in_both, assert_same):
    shuffle = tff.tensorflow.computation(lambda dataset: dataset.shuffle(8, seed=1), NUMBERS)
    read = tff.tensorflow.computation(digits, NUMBERS)

    @tff.federated_computation(NUMBERS)
    def run(dataset):
        shuffled = shuffle(dataset)
        return read(shuffled), read(shuffled), shuffled

    expected, found = in_both(lambda: [run(eight()) for _ in range(2)])
    assert_same(expected, found)
    assert found[0][0] == found[0][1] == found[1][0]


def test_a_callers_dataset_is_left_as_it_was(in_process_runtime, computations):
    dataset, untouched = (eight().shuffle(8, seed=1) for _ in range(2))
    readings(computations, dataset)
    assert [int(x) for x in dataset] == [int(x) for x in untouched]


@pytest.fixture
def generated():
    return tf.data.Dataset.from_generator(
        lambda: iter(range(4)), output_signature=tf.TensorSpec([], tf.int64)
    )


def test_a_generator_runs_here_only(in_both, computations, generated):
    """TFF's worker has no Python. Here each reader calls the generator's function again."""

    def run():
        try:
            return readings(computations, generated)
        except grpc.RpcError as error:
            return error.details()

    expected, (in_turn, twice, graphs, clients) = in_both(run)
    assert "PyFunc" in expected
    assert {*in_turn, *twice, *graphs, *clients} == {b"0123"}


def test_a_shuffled_generator_is_fresh_too(in_process_runtime, computations, generated):
    in_turn, (once, again), graphs, clients = readings(computations, generated.shuffle(4, seed=1))
    assert len({*in_turn, once, *graphs, *clients}) == 1
    assert sorted(again) == sorted(once)


def test_a_returned_copy_outlives_what_it_was_made_from(in_process_runtime, generated):
    identity = tff.tensorflow.computation(lambda dataset: dataset, NUMBERS)
    returned = identity(generated.shuffle(4, seed=1))
    del generated
    gc.collect()
    assert sorted(int(x) for x in returned) == [0, 1, 2, 3]


def test_a_dataset_without_state_is_not_copied():
    plain = tf.data.Dataset.from_tensor_slices(np.arange(5)).batch(2).map(lambda x: x + 1)
    assert FreshDataset.of_argument(plain)._serialized is None
    assert FreshDataset.of_argument(plain.shuffle(2))._serialized is not None


def test_a_dataset_is_serialized_once_in_its_life():
    dataset = eight().shuffle(8)
    first = FreshDataset.of_argument(dataset)
    assert FreshDataset.of_argument(dataset)._serialized is first._serialized


def reads_a_table():
    keys = tf.range(8, dtype=tf.int64)
    entries = tf.lookup.KeyValueTensorInitializer(keys, keys + 10)
    return tf.lookup.StaticHashTable(entries, -1).lookup


def reads_a_mutable_table():
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    table.insert(tf.range(8, dtype=tf.int64), tf.range(1, 9, dtype=tf.int64))
    return lambda x: tf.ensure_shape(table.lookup(x), [])


def reads_a_variable():
    variable = tf.Variable(5, dtype=tf.int64)
    return lambda x: x + variable


@pytest.mark.parametrize("reads", [reads_a_table, reads_a_mutable_table, reads_a_variable])
def test_what_a_dataset_reads_outside_of_it(in_both, assert_same, computations, reads):
    dataset = eight().map(reads()).shuffle(8, seed=1)
    assert_same(*in_both(lambda: readings(computations, dataset)))


def test_a_dataset_may_read_what_is_in_this_process_only(in_both, computations):
    queue = tf.queue.FIFOQueue(100, [tf.int64], shapes=[()])
    queue.enqueue_many([tf.range(100, dtype=tf.int64) // 8])
    dataset = eight().map(lambda x: 0 * x + queue.dequeue()).shuffle(8, seed=1)
    read, *_ = computations

    def run():
        try:
            return [read(dataset) for _ in range(2)]
        except grpc.RpcError as error:
            return error.details()

    refusal, found = in_both(run)
    assert "QueueInterface" in refusal
    assert "does not exist" in refusal
    assert found == [b"00000000", b"11111111"]


def test_what_cannot_be_written_is_read_as_it_is(monkeypatch, in_process_runtime, computations):
    """For example more than two gigabytes; TFF refuses 100 megabytes."""

    def refuse(**arguments):
        raise tf.errors.InvalidArgumentError(None, None, "larger than a protocol buffer may be")

    monkeypatch.setattr(tf.raw_ops, "DatasetToGraphV2", refuse)
    read, *_ = computations
    new = eight().shuffle(8, seed=1)
    epochs = ["".join(str(int(x)) for x in new).encode() for _ in range(2)]
    dataset = eight().shuffle(8, seed=1)
    assert [read(dataset) for _ in range(2)] == epochs
