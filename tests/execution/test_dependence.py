"""A result is a constant unless it depends on the value, not only on the shape, of an argument."""

import pytest
import tensorflow as tf

from fedrecon.execution.dependence import Dependence


@tf.function
def first_of_two(x, y):
    return x + 1.0, tf.fill([4], 3.0) * tf.ones_like(y)


CASES = {
    "argument": (lambda x, y: x, {"x"}),
    "sum": (lambda x, y: x + 2.0 * y, {"x", "y"}),
    "constant": (lambda x, y: tf.fill([3], 2.0), set()),
    "size": (lambda x, y: tf.cast(tf.size(x), tf.float32) / 2.0, set()),
    "shape and value": (lambda x, y: tf.ones_like(x) * y, {"y"}),
    "result of a function": (lambda x, y: first_of_two(x, y)[0], {"x"}),
    "constant of a function": (lambda x, y: first_of_two(x, y)[1], set()),
    "loop": (lambda x, y: tf.while_loop(lambda v: v[0] < 9.0, lambda v: [v + 1.0], [x])[0], {"x"}),
}


@pytest.mark.parametrize("name", CASES)
def test_dependence_on_values(name):
    make, expected = CASES[name]
    graph = tf.Graph()
    with graph.as_default():
        x, y = (tf.compat.v1.placeholder(tf.float32, [4], name) for name in "xy")
        result = make(x, y).name
    assert Dependence(graph.as_graph_def()).on_values(result, {"x", "y"}) == expected
