"""TFF computations give the same in this process as in TFF's own runtime."""

import collections
import functools

import attrs
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff


def at_clients(member):
    return tff.FederatedType(member, tff.CLIENTS)


def at_server(member):
    return tff.FederatedType(member, tff.SERVER)


class Pair(collections.namedtuple("Pair", ["first", "second"])):
    pass


@attrs.define
class Attrs:
    x: object
    y: object


NESTED = collections.OrderedDict(
    b=np.float32, a=(np.int32, collections.OrderedDict(z=tff.TensorType(np.float32, [2])))
)


def nested(number):
    z = np.array([number, 0.1], np.float32)
    return collections.OrderedDict(
        b=np.float32(number / 3), a=(np.int32(number), collections.OrderedDict(z=z))
    )


CASES = {}


def case(*arguments, name=None):
    """Registers a function without arguments that makes a computation, and arguments for it."""

    def register(make):
        CASES[name or make.__name__] = (make, arguments)
        return make

    return register


def lazily(computation, *types):
    """Turns a function into one that makes its computation only when the test runs."""

    def decorate(function):
        @functools.wraps(function)
        def make():
            return computation(function, *types)

        return make

    return decorate


federated = functools.partial(lazily, tff.federated_computation)
local = functools.partial(lazily, tff.tensorflow.computation)


# Intrinsics.


@case([1, 2, 39], name="sum of integers")
@case([], name="sum of no clients")
@case([7], name="sum of one client")
@federated(at_clients(np.int32))
def sum_integers(values):
    return tff.federated_sum(values)


@case([nested(1), nested(2), nested(5)], name="sum of nested structs")
@case([], name="sum of nested structs, no clients")
@federated(at_clients(NESTED))
def sum_nested(values):
    return tff.federated_sum(values)


@case([nested(k)["a"][1] for k in (1, 2)], [0.25, 4.0])
@federated(at_clients(NESTED["a"][1]), at_clients(np.float32))
def means(values, weights):
    return tff.federated_mean(values, weights), tff.federated_mean(values)


@case([3.5, -2.0, 8.0])
@case([], name="extremes of no clients")
@federated(at_clients(np.float32))
def extremes(values):
    return tff.federated_min(values), tff.federated_max(values)


@case([1, 5, 7])
@case([], name="aggregate of no clients")
@federated(at_clients(np.int32))
def aggregate(values):
    state = (np.int32, np.float32)
    zero = tff.tensorflow.computation(lambda: (np.int32(0), np.float32(1)))
    accumulate = tff.tensorflow.computation(
        lambda s, v: (s[0] + v, s[1] * tf.cast(v, tf.float32)), state, np.int32
    )
    merge = tff.tensorflow.computation(lambda a, b: (a[0] + b[0], a[1] * b[1]), state, state)
    report = tff.tensorflow.computation(lambda s: {"sum": s[0], "product": s[1]}, state)
    return tff.federated_aggregate(values, zero(), accumulate, merge, report)


@case([1.0, 2.0], 10.0)
@federated(at_clients(np.float32), at_server(np.float32))
def broadcast_and_map(values, factor):
    multiply = tff.tensorflow.computation(lambda a, b: a * b, np.float32, np.float32)
    return tff.federated_map(multiply, (values, tff.federated_broadcast(factor)))


@case([1, 2], 3.0)
@federated(at_clients(np.int32), tff.FederatedType(np.float32, tff.CLIENTS, all_equal=True))
def map_all_equal(values, same):
    double = tff.tensorflow.computation(lambda x: 2 * x, np.float32)
    return tff.federated_sum(values), tff.federated_map(double, same)


@case([1, 2], 3.0, name="an all-equal argument beside another")
@federated(at_clients(np.int32), tff.FederatedType(np.float32, tff.CLIENTS, all_equal=True))
def zip_with_all_equal(values, same):
    return tff.federated_zip((values, same))


@case(4.0)
@federated(at_server(np.float32))
def map_at_server(value):
    return tff.federated_map(tff.tensorflow.computation(lambda x: x + 1, np.float32), value)


@case([1, 2], [0.5, 1.5], 9)
@federated(at_clients(np.int32), at_clients(np.float32), at_server(np.int32))
def zips(first, second, server):
    named = collections.OrderedDict(p=first, q=(second, first))
    return (
        tff.federated_zip(named),
        tff.federated_zip((server, collections.OrderedDict(s=server))),
    )


@case([1, 2], 5)
@federated(at_clients(np.int32), at_server(np.int32))
def values_placed(values, server):
    placed = tff.federated_value(np.float32(2.5), tff.SERVER)
    seven = tff.federated_value(7, tff.CLIENTS)
    return tff.federated_zip((placed, server)), seven, tff.federated_zip((values, seven))


@case([1, 2, 3])
@federated(at_clients(np.int32))
def evaluates(values):
    constant = tff.tensorflow.computation(lambda: (tf.constant(3), tf.constant([1.0, 2.0])))
    return (
        tff.federated_zip((values, tff.federated_eval(constant, tff.CLIENTS))),
        tff.federated_eval(constant, tff.SERVER),
    )


@case([[0, 2], [1, 1]], 3, ["a", "b", "c"])
@federated(
    at_clients(tff.TensorType(np.int32, [2])),
    at_server(np.int32),
    at_server(tff.TensorType(np.str_, [3])),
)
def select(keys, max_key, words):
    pick = tff.tensorflow.computation(
        lambda words, key: tf.gather(words, key), words.type_signature.member, np.int32
    )
    join = tff.tensorflow.computation(
        lambda picked: picked.reduce("", lambda a, b: a + b), tff.SequenceType(np.str_)
    )
    return tff.federated_map(join, tff.federated_select(keys, max_key, words, pick))


@case([1, 2, 3])
@federated(at_clients(np.int32))
def named_and_unnamed_results(values):
    total = tff.federated_sum(values)
    return collections.OrderedDict(z=total, a=(total, [total, total]))


@case([[1, 2, 3], [], [4]], name="reduce sequences")
@case([tf.data.Dataset.range(4), tf.data.Dataset.range(0)], name="reduce datasets")
@case([], name="sequences of no clients")
@federated(at_clients(tff.SequenceType(np.int64)))
def reduce_sequences(datasets):
    total = tff.tensorflow.computation(
        lambda dataset: dataset.reduce(np.int64(10), lambda a, b: 3 * a + b),
        tff.SequenceType(np.int64),
    )
    return tff.federated_sum(tff.federated_map(total, datasets))


@case([1, 2, 3])
@federated(tff.SequenceType(np.int32))
def sequence_reduce(values):
    add = tff.tensorflow.computation(lambda a, b: 2 * a + b, np.int32, np.int32)
    return tff.sequence_reduce(values, 1, add)


@case([1, 2, 3])
@federated(tff.SequenceType(np.int32))
def sequence_map(values):
    half = tff.tensorflow.computation(lambda x: (tf.cast(x, tf.float32) / 2, x), np.int32)
    add = tff.tensorflow.computation(
        lambda a, b: 2 * a + b[0], np.float32, half.type_signature.result
    )
    return tff.sequence_reduce(tff.sequence_map(half, values), np.float32(1), add)


# TensorFlow inside.


@case()
@local()
def no_argument():
    return tf.constant([1, 2]), collections.OrderedDict(x=tf.constant("word"))


@case(3, 4.0)
@local(np.int32, np.float32)
def passes_through(a, b):
    return Pair(b, (a, a)), b


@case(np.array([[1.0, 2.0]], np.float32))
@case(np.zeros([0, 2], np.float32), name="an empty array")
@local(tff.TensorType(np.float32, [None, 2]))
def open_shapes(x):
    return tf.reduce_sum(x, axis=0), tf.transpose(x)


@case(Attrs(np.int32(1), np.int32(2)))
@local(Attrs(np.int32, np.int32))
def attrs_classes(value):
    return Attrs(value.y, value.x)


@case(True, np.float16(1.5), np.int8(-3), np.uint16(7), b"bytes", 1 + 2j)
@local(np.bool_, np.float16, np.int8, np.uint16, np.str_, np.complex64)
def dtypes(a, b, c, d, e, f):
    return f, e, d, c, b, a


@case(2.0)
@local(np.float32)
def variables(x):
    counter = tf.Variable(3.0)
    with tf.control_dependencies([counter.assign_add(x)]):
        return counter.read_value()


@case([1, 2, 3], name="variables of clients")
@federated(at_clients(np.int32))
def variables_of_clients(values):
    @tff.tensorflow.computation(np.int32)
    def add(x):
        counter = tf.Variable(10)
        with tf.control_dependencies([counter.assign_add(x)]):
            return counter.read_value()

    return tff.federated_map(add, values)


@case([["b", "zzz"], ["a", "c"]])
@federated(at_clients(tff.TensorType(np.str_, [2])))
def tables(words):
    @tff.tensorflow.computation(tff.TensorType(np.str_, [2]))
    def look_up(words):
        entries = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], [5, 6, 7])
        return tf.lookup.StaticHashTable(entries, default_value=-1).lookup(words)

    return tff.federated_map(look_up, words)


@case([["a", "c"], ["b"]])
@federated(at_clients(tff.SequenceType(np.str_)))
def dataset_that_reads_a_table(words):
    @tff.tensorflow.computation(tff.SequenceType(np.str_))
    def numbered(words):
        entries = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], [5, 6, 7])
        return words.map(tf.lookup.StaticHashTable(entries, default_value=-1).lookup)

    @tff.tensorflow.computation(tff.SequenceType(np.int32))
    def total(numbers):
        return numbers.reduce(0, lambda a, b: a + b)

    numbers = tff.federated_map(numbered, words)
    return tff.federated_map(total, numbers)


@case(tf.data.Dataset.range(7))
@local(tff.SequenceType(np.int64))
def dataset_pipeline(dataset):
    def split(x):
        return collections.OrderedDict(y=tf.cast(x, tf.float32), x=(x, x + 1))

    return dataset.filter(lambda x: x != 2).map(split).batch(2)


@case([1.0, 2.0, 3.0])
@local(tff.SequenceType(np.float32))
def reductions_with_state_and_variables(dataset):
    seen = tf.Variable(0.0)
    factor = tf.constant(2.0)

    @tf.function
    def inner(dataset):
        return dataset.reduce(
            (tf.constant(0), {"sum": tf.constant(0.0)}),
            lambda s, x: (s[0] + 1, {"sum": s[1]["sum"] + factor * x + 0 * seen.assign_add(x)}),
        )

    count, sums = inner(dataset)
    with tf.control_dependencies([count]):
        return count, sums["sum"], seen.read_value()


@case(list(range(500)))
@local(tff.SequenceType(np.int64))
def a_reduction_that_only_writes_a_variable(dataset):
    """What it ends with depends on the order of the steps, which share nothing else."""
    last = tf.Variable(tf.zeros([1000], tf.int64))

    def step(count, x):
        with tf.control_dependencies([last.assign((3 * last.read_value() + x) % 10007)]):
            return count + 1

    with tf.control_dependencies([dataset.reduce(np.int64(0), step)]):
        return last.read_value()[:3]


@case(3.0)
@local(np.float32)
def waits_for_an_argument(x):
    with tf.control_dependencies([x]):
        return tf.constant(5.0)


@case([0.5, 2.0])
@local(tff.SequenceType(np.float32))
def loops_over_datasets(dataset):
    @tf.function
    def run(dataset):
        total = tf.constant(0.0)
        for x in dataset:
            if x > 1:
                total += x
            else:
                total -= 10 * x
        return total

    return run(dataset)


@case(5)
@local(np.int32)
def control_flow(n):
    loop = tf.while_loop(lambda i, _: i < n, lambda i, x: (i + 1, x * 2), (0, tf.constant(1)))
    return loop[1], tf.cond(n > 3, lambda: "big", lambda: "small")


@pytest.mark.parametrize("name", CASES)
def test_same_as_native(in_both, assert_same, name):
    make, arguments = CASES[name]
    computation = make()
    assert_same(*in_both(lambda: computation(*arguments)))
