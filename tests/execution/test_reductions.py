"""Loops over datasets end and step as in TFF's own runtime."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.execution.reductions import replace_by_loops

NUMBERS = tff.SequenceType(np.int64)
PAIRS = tff.SequenceType(collections.OrderedDict(x=np.int64, y=np.float32))


@tf.function
def plain(dataset):
    total = tf.constant(0, tf.int64)
    for x in dataset:
        total = 3 * total + x
    return total


@tf.function
def with_break(dataset):
    total, count = tf.constant(0, tf.int64), 0
    for x in dataset:
        if tf.equal(x, 4):
            break
        if tf.equal(x, 2):
            continue
        total = 3 * total + x
        count += 1
    return total, count


@tf.function
def that_stops_before_the_first(dataset):
    found = tf.constant(-1, tf.int64)
    stop = tf.constant(False)
    for x in dataset:
        if stop or tf.equal(x, 0):
            break
        found = x
    return found


@tf.function
def nested(dataset):
    total = tf.constant(0, tf.int64)
    for x in dataset:
        for y in dataset.take(2):
            if y + x > 4:
                break
            total += 10 * x + y
    return total


@tf.function
def by_iterator(dataset):
    total = tf.constant(0, tf.int64)
    for x in iter(dataset):
        total = 3 * total + x
    return total


@tf.function
def that_grows(dataset):
    seen = tf.zeros([0], tf.int64)
    for x in dataset:
        tf.autograph.experimental.set_loop_options(
            shape_invariants=[(seen, tf.TensorShape([None]))]
        )
        seen = tf.concat([seen, [x]], 0)
    return seen


@tf.function
def enumerated(dataset):
    total = tf.constant(0, tf.int64)
    for index, x in enumerate(dataset):
        total += index * x
    return total


def scanned(dataset):
    sums = dataset.scan(tf.constant(0, tf.int64), lambda s, x: (s + x, (s, x)))
    return sums.reduce((np.int64(0), 0), lambda state, e: (2 * state[0] + e[0] * e[1], 7))


def taken(dataset):
    few = dataset.take_while(lambda x: x < 3)
    both = few.reduce(np.int64(0), lambda s, x: 2 * s + x), few.reduce("", lambda s, _: s + "x")
    return both, dataset.take_while(lambda x: x < 2).reduce(0, lambda s, _: s + 1)


def taken_and_scanned(dataset):
    once = dataset.take_while(lambda x: x != 5).scan(np.int64(1), lambda s, x: (s * 2, s + x))
    return once.take_while(lambda x: x < 12).reduce(np.int64(0), lambda s, x: 3 * s + x)


def read_by_two(dataset):
    """A scan that two reductions read cannot become part of either."""
    sums = dataset.scan(np.int64(0), lambda s, x: (s + x, s))
    return sums.reduce(np.int64(0), lambda s, x: s + x), sums.reduce(
        np.int64(1), lambda s, x: s * x
    )


def waits(dataset):
    """The second reduction waits for the first one by nothing but an argument."""
    last = tf.Variable(tf.zeros([500], tf.int64))
    with tf.control_dependencies([dataset.repeat(50).reduce(np.int64(0), lambda s, x: s + x)]):
        start = tf.identity(np.int64(3))
    first = dataset.repeat(50).reduce(
        np.int64(0), lambda s, x: s + 0 * last.assign(last.read_value() + x)[0] + 1
    )
    with tf.control_dependencies([first]):
        zero = tf.constant(0, tf.int64)
    seen = dataset.take(1).reduce(zero, lambda s, _: s + last.read_value()[0])
    return seen, start


FUNCTIONS = [
    *(plain, with_break, that_stops_before_the_first, nested, by_iterator, that_grows, enumerated),
    *(scanned, taken, taken_and_scanned, read_by_two, waits),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: getattr(f, "__name__", str(f)))
def test_same_as_native(in_both, assert_same, function):
    computation = tff.tensorflow.computation(function, NUMBERS)
    for length in (0, 1, 9):
        data = tf.data.Dataset.range(length)
        assert_same(*in_both(lambda: computation(data)))  # noqa: B023 - called at once


def test_variables_and_structs(in_both, assert_same):
    @tff.tensorflow.computation(PAIRS)
    @tf.function
    def run(dataset):
        a, b = tf.constant(0, tf.int64), {"b": tf.constant(0.0)}
        for batch in dataset:
            if tf.equal(batch["x"], 3):
                break
            a += batch["x"]
            b["b"] = 2 * b["b"] + batch["y"]
        return collections.OrderedDict(a=a, b=b["b"])

    data = [collections.OrderedDict(x=x, y=x / 2) for x in (1, 2, 3, 4)]
    expected, found = in_both(lambda: run(data))
    assert_same(expected, found)
    assert found == {"a": 3, "b": 2.0}


def test_a_loop_that_only_writes_a_variable(in_both, assert_same):
    @tff.tensorflow.computation(NUMBERS)
    def run(dataset):
        last = tf.Variable(1, dtype=tf.int64)

        @tf.function
        def loop():
            for x in dataset:
                last.assign((5 * last + x) % 1009)
                if tf.equal(last, 7):
                    break
            return tf.constant(True)

        with tf.control_dependencies([loop()]):
            return last.read_value()

    value = 1
    for x in range(40):
        value = (5 * value + x) % 1009
    expected, found = in_both(lambda: run(list(range(40))))
    assert_same(expected, found)
    assert found == value


def graph_of(function):
    with tf.Graph().as_default() as graph:
        function.get_concrete_function(tf.data.DatasetSpec(tf.TensorSpec([], tf.int64)))
        traced = function.get_concrete_function(tf.data.DatasetSpec(tf.TensorSpec([], tf.int64)))
    del graph
    return traced.graph.as_graph_def()


@pytest.mark.parametrize("function", [plain, with_break], ids=["plain", "break"])
def test_no_scan_is_left_to_be_made_anew(function):
    """A loop is fast because its body is made once."""
    graph_def = graph_of(function)
    before = {node.op for node in graph_def.node}
    assert {"ScanDataset", "ReduceDataset"} <= before
    replace_by_loops(graph_def)
    after = {node.op for node in graph_def.node}
    after |= {node.op for function in graph_def.library.function for node in function.node_def}
    assert not after & {"ScanDataset", "ReduceDataset", "TakeWhileDataset"}
    assert "While" in after
