"""Matrix factorization: predictions by hand, the split, and reproducible initial values."""

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models import matrix_factorization
from fedrecon.models.functional import FunctionalModel


def _build(**kwargs):
    return matrix_factorization.matrix_factorization(5, 3, **kwargs)


def _values(split):
    return [weight.numpy() for weight in split.global_weights + split.local_weights]


def test_predictions_by_hand():
    split = matrix_factorization.matrix_factorization(
        3, 2, user_bias=True, item_bias=True, global_bias=True
    )
    items, item_bias, global_bias = split.global_weights
    user, user_bias = split.local_weights
    items.assign([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    item_bias.assign([[0.1], [0.2], [0.3]])
    global_bias.assign(3.5)
    user.assign([[2.0, -1.0]])
    user_bias.assign([[-0.5]])
    predictions = split.keras_model(tf.constant([[2], [0], [2]], tf.int64))
    # Item 2: 10 - 6 + 0.3 + 3.5 - 0.5; item 0: 2 - 2 + 0.1 + 3.5 - 0.5.
    np.testing.assert_allclose(predictions, [[7.3], [3.1], [7.3]], rtol=1e-6)


def test_the_mean_user_adds_to_the_user():
    split = matrix_factorization.matrix_factorization(3, 2, item_bias=True, mean_user=True)
    items, mean_user, item_bias = split.global_weights
    (user,) = split.local_weights
    assert not mean_user.numpy().any()
    items.assign([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    mean_user.assign([0.5, 1.0])
    item_bias.assign([[0.1], [0.2], [0.3]])
    user.assign([[2.0, -1.0]])
    predictions = split.keras_model(tf.constant([[2], [0]], tf.int64))
    # Item 2: 5 * 2.5 + 6 * 0 + 0.3; item 0: 1 * 2.5 + 2 * 0 + 0.1.
    np.testing.assert_allclose(predictions, [[12.8], [2.6]], rtol=1e-6)


def test_without_biases_it_is_the_inner_product():
    split = _build()
    (items,), (user,) = split.global_weights, split.local_weights
    np.testing.assert_allclose(
        split.keras_model(tf.reshape(tf.range(5, dtype=tf.int64), [5, 1])),
        items.numpy() @ user.numpy().T,
        rtol=1e-6,
    )


def test_split_layer_names_and_shapes():
    split = _build(user_bias=True, item_bias=True, global_bias=True)
    assert [layer.name for layer in split.global_layers] == [
        "item_embedding",
        "item_bias",
        "global_bias",
    ]
    assert [layer.name for layer in split.local_layers] == ["user_embedding", "user_bias"]
    assert [tuple(w.shape) for w in split.global_weights] == [(5, 3), (5, 1), ()]
    assert [tuple(w.shape) for w in split.local_weights] == [(1, 3), (1, 1)]
    assert list(split.input_spec) == ["x", "y"]
    assert split.loss_fn is tf.keras.losses.MeanSquaredError
    assert [m.name for m in split.metrics_fn()] == ["mean_loss", "rmse", "accuracy", "num_examples"]


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ({"user_bias": True}, ["user_embedding", "user_bias"]),
        ({"item_bias": True}, ["item_embedding", "item_bias"]),
        ({"global_bias": True}, ["item_embedding", "global_bias"]),
        ({"mean_user": True}, ["item_embedding", "mean_user"]),
    ],
)
def test_each_bias_alone(biases, expected):
    split = _build(**biases)
    listed = split.local_layers if "user_bias" in biases else split.global_layers
    assert [layer.name for layer in listed] == expected
    assert split.keras_model(tf.zeros([2, 1], tf.int64)).shape == (2, 1)


def test_the_regularization_of_every_weight():
    split = _build(
        user_bias=True, item_bias=True, global_bias=True, mean_user=True, l2=0.5, spread_out=2.0
    )
    for weight in split.global_weights + split.local_weights:
        weight.assign(tf.ones_like(weight))
    # l2: 15 + 3 + 5 + 1 + 3 + 1 ones; spread-out: 5 * 4 ordered pairs with the inner product 3.
    expected = 0.5 * 28 + 2.0 * np.sqrt(20 * 9)
    np.testing.assert_allclose(sum(split.keras_model.losses), expected, rtol=1e-6)
    assert _build().keras_model.losses == []


def test_initial_values_are_uniform_and_biases_zero():
    split = matrix_factorization.matrix_factorization(400, 10, item_bias=True, global_bias=True)
    items, item_bias, global_bias = (w.numpy() for w in split.global_weights)
    assert -0.05 <= items.min() < -0.049
    assert 0.049 < items.max() < 0.05
    np.testing.assert_allclose(items.std(), 0.1 / np.sqrt(12), rtol=0.03)
    assert not item_bias.any()
    assert global_bias == 0


def test_equal_seeds_give_equal_values_whatever_the_process_did():
    first = _values(_build(seed=3))
    tf.random.set_seed(1)
    tf.random.uniform([4])
    tf.keras.layers.Dense(1).build([None, 1])
    second = _values(_build(seed=3))
    tf.random.set_seed(2)
    third = _values(_build(seed=3))
    for a, b, c in zip(first, second, third):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_a_graph_gives_the_same_values_as_eager_execution():
    # TFF builds its models in a graph of its own.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        split = _build(seed=3)
        session.run(tf.compat.v1.global_variables_initializer())
        values = session.run(split.global_weights + split.local_weights)
    for in_graph, eager in zip(values, _values(_build(seed=3))):
        np.testing.assert_array_equal(in_graph, eager)


def test_another_seed_gives_other_values():
    for a, b in zip(_values(_build(seed=3)), _values(_build(seed=4))):
        assert not np.any(a == b)


def test_tables_of_one_shape_start_different():
    items, user = _values(matrix_factorization.matrix_factorization(1, 8))
    assert not np.any(items == user)


def test_names_do_not_depend_on_what_was_built_before():
    def names():
        model = _build(user_bias=True, item_bias=True, global_bias=True).keras_model
        return [model.name, *(x.name for x in model.layers), *(w.name for w in model.weights)]

    assert names() == names()


def test_initializers_by_argument():
    split = _build(
        item_initializer=tf.keras.initializers.Constant(2.0),
        user_initializer=tf.keras.initializers.Constant(0.5),
    )
    np.testing.assert_allclose(split.keras_model(tf.zeros([1, 1], tf.int64)), [[3.0]])


FEATURES = np.float32([[1, 0], [0, 1], [0.6, 0.8], [0, 0], [1, 0]])


def test_features_by_hand():
    split = matrix_factorization.matrix_factorization(
        5, 3, item_features=FEATURES, user_bias=True, item_bias=True, global_bias=True
    )
    *trainable, frozen = split.global_weights
    values = {weight.name.split("/")[0]: weight for weight in trainable}
    assert list(values) == [
        *("item_embedding", "feature_embedding", "item_bias", "feature_bias", "global_bias"),
    ]
    assert [weight.name for weight in split.global_non_trainable_weights] == [frozen.name]
    np.testing.assert_array_equal(frozen, FEATURES)
    user, user_bias = split.local_weights
    values["item_embedding"].assign(np.reshape(np.arange(15.0), [5, 3]))
    values["feature_embedding"].assign([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    values["item_bias"].assign([[0.0], [0.1], [0.2], [0.3], [0.4]])
    values["feature_bias"].assign([[1.0], [-1.0]])
    values["global_bias"].assign(3.0)
    user.assign([[1.0, 0.0, -1.0]])
    user_bias.assign([[0.5]])
    # Item 2: the row (6, 7, 8) + (8.6, 17.2, 25.8), the bias 0.2 + 0.6 - 0.8. Item 3 has no
    # features: (9, 10, 11) and 0.3.
    found = split.keras_model(tf.constant([[2], [3]], tf.int64))
    np.testing.assert_allclose(found, [[-19.2 + 0.0 + 3.5], [-2.0 + 0.3 + 3.5]], rtol=1e-6)


def test_an_item_that_nobody_trains_starts_as_its_features_say_and_as_long_as_without():
    split = matrix_factorization.matrix_factorization(
        400, 50, item_features=np.eye(400, 200, dtype=np.float32), seed=3
    )
    rows, of_features, _ = (weight.numpy() for weight in split.global_weights)
    assert not rows.any()
    np.testing.assert_allclose(of_features.std(), 0.1 / np.sqrt(12), rtol=0.03)


def test_clients_look_the_features_up_and_train_none():
    model = FunctionalModel(_build(item_features=FEATURES, item_bias=True, l2=0.1))
    found = {w.name: (w.is_item_table, w.trainable) for w in model.global_weights}
    assert found == {
        "item_embedding/embeddings": (True, True),
        "feature_embedding/kernel": (False, True),
        "item_bias/embeddings": (True, True),
        "feature_bias/kernel": (False, True),
        "item_features/embeddings": (True, False),
    }
    assert [w.name for w in model.weights if w.regularizer is None] == ["item_features/embeddings"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones([4, 2]), r"num_items = 5 and f >= 1, but has the shape \[4, 2\]"),
        (np.ones([5, 0]), r"has the shape \[5, 0\]"),
        (np.ones(5), r"has the shape \[5\]"),
        (np.where(np.arange(10).reshape(5, 2) == 7, np.nan, 1.0), "the row of item 3 is not"),
    ],
)
def test_features_are_one_finite_row_for_each_item(features, message):
    with pytest.raises(ValueError, match=message):
        _build(item_features=features)


@pytest.mark.parametrize("sizes", [(0, 3), (5, 0)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="needs num_items >= 1 and dim >= 1"):
        matrix_factorization.matrix_factorization(*sizes)


def test_strengths_must_not_be_negative():
    with pytest.raises(ValueError, match="must be >= 0"):
        _build(l2=-0.1)


def test_the_global_bias_starts_where_it_is_told_and_local_weights_have_an_l2_of_their_own():
    split = _build(user_bias=True, item_bias=True, global_bias=True, initial_rating=3.5)
    weights = {weight.name.split("/")[0]: weight.numpy() for weight in split.global_weights}
    assert weights["global_bias"] == 3.5
    assert not weights["item_bias"].any()
    assert _build(global_bias=True).global_weights[-1].numpy() == 0.0

    regularized = {
        layer.name
        for layer in _build(
            user_bias=True, global_bias=True, l2=0.5, user_l2=0.0
        ).keras_model.layers
        if layer.losses
    }
    assert regularized == {"item_embedding", "global_bias"}
    local_only = _build(user_bias=True, l2=0.0, user_l2=0.5).keras_model
    assert {layer.name for layer in local_only.layers if layer.losses} == {
        "user_embedding",
        "user_bias",
    }
