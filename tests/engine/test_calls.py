"""Values by name, and work for all clients, vectorized and one client after the other."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.engine.calls import call_model, map_clients
from fedrecon.engine.values import by_name, in_order, own_values
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import SplitModel, rating_input_spec

ARGUMENTS = {"b": tf.constant([1.0, 2.0, 3.0]), "a": (tf.constant([[1.0], [2.0], [4.0]]), {})}


def work(client):
    return {"sum": client["b"] + client["a"][0], "none": (), "twice": 2.0 * client["b"]}


def test_clients_come_back_stacked_in_a_graph_and_outside():
    outside = map_clients(work, ARGUMENTS)
    in_a_graph = tf.function(lambda: map_clients(work, ARGUMENTS), autograph=False)()
    for found in (outside, in_a_graph):
        np.testing.assert_array_equal(found["sum"], [[2.0], [4.0], [7.0]])
        np.testing.assert_array_equal(found["twice"], [2.0, 4.0, 6.0])
        assert found["none"] == ()


def test_outside_of_graphs_the_values_of_each_client_are_concrete():
    seen = []

    def look(client):
        seen.append(float(client.numpy()))
        return client

    map_clients(look, tf.constant([3.0, 1.0, 2.0]))
    assert seen == [3.0, 1.0, 2.0]


def nested_model():
    """Two nested models whose layers have the same names."""

    def half(size):
        inputs = tf.keras.Input([3])
        outputs = tf.keras.layers.Dense(size, name="dense")(inputs)
        return tf.keras.Model(inputs, outputs, name=f"half_{size}")

    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(4, 3, name="items")
    first, second = half(2), half(5)
    last = tf.keras.layers.Dense(1, name="last")
    rows = tf.keras.layers.Flatten()(items(item_id))
    hidden = tf.keras.layers.Concatenate()([first(rows), second(rows)])
    return SplitModel(
        tf.keras.Model(item_id, last(hidden)),
        [items, first],
        [second, last],
        rating_input_spec(),
        tf.keras.losses.MeanSquaredError,
        list,
    )


def test_like_named_layers_of_nested_models_have_names_of_their_own():
    split_model = nested_model()
    model = FunctionalModel(split_model)
    assert [weight.name for weight in model.weights] == [
        "items/embeddings",
        "dense/kernel",
        "dense/bias",
        "dense/kernel_1",
        "dense/bias_1",
        "last/kernel",
        "last/bias",
    ]
    assert model.weights[1].shape == [3, 2]
    assert model.weights[3].shape == [3, 5]

    values = [*split_model.global_weights, *split_model.local_weights]
    item_ids = tf.constant([[1, 3, 1], [0, 2, 2]])
    called = by_name(model.weights, map(tf.convert_to_tensor, values))
    called["items/embeddings"] = tf.gather(called["items/embeddings"], item_ids)
    expected = split_model.keras_model(tf.reshape(item_ids, [-1, 1]))
    backwards = dict(reversed(list(called.items())))  # The order of a dictionary decides nothing.
    for given in (called, backwards):
        call = tf.function(lambda given: call_model(model, given, item_ids), autograph=False)
        found = call(given)
        np.testing.assert_allclose(found, tf.reshape(expected, [2, 3]), rtol=1e-5)


def test_values_go_by_the_order_of_weights():
    model = FunctionalModel(nested_model())
    values = by_name(model.weights, range(7))
    assert in_order(model.local_weights, values) == [3, 4, 5, 6]
    with pytest.raises(KeyError):
        in_order(model.weights, {"items/embeddings": 0})


def test_clients_have_their_own_of_the_values_with_an_axis_more():
    model = FunctionalModel(nested_model())
    values = {weight.name: tf.zeros(weight.shape) for weight in model.weights}
    assert own_values(model.weights, values) == {}
    values["dense/bias_1"] = tf.zeros([9, 5])
    assert list(own_values(model.weights, values)) == ["dense/bias_1"]
