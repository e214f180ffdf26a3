"""The split contract, and that stock TFF's way of differentiating sees the regularization."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.models import layers, matrix_factorization, metrics, split_model

_LOSS = tf.keras.losses.MeanSquaredError


def _dense(name, units=1, **kwargs):
    return tf.keras.layers.Dense(units, kernel_initializer="ones", name=name, **kwargs)


def _split(keras_model, global_layers, local_layers, input_spec=None):
    return split_model.SplitModel(
        keras_model=keras_model,
        global_layers=global_layers,
        local_layers=local_layers,
        input_spec=input_spec or split_model.rating_input_spec(),
        loss_fn=_LOSS,
        metrics_fn=lambda: metrics.rating_metrics(_LOSS),
    )


def _two_dense():
    first, second = _dense("first"), _dense("second")
    inputs = tf.keras.Input([1], name="x")
    return tf.keras.Model(inputs, second(first(inputs)), name="two_dense"), first, second


def test_a_complete_split_is_accepted_and_lists_become_tuples():
    model, first, second = _two_dense()
    split = _split(model, [first], [second])
    assert split.global_layers == (first,)
    assert [w.name for w in split.global_weights] == ["first/kernel:0", "first/bias:0"]
    assert [w.name for w in split.local_weights] == ["second/kernel:0", "second/bias:0"]


def test_weights_are_trainable_first_as_tff_orders_them():
    inputs = tf.keras.Input([2], name="x")
    norm = tf.keras.layers.BatchNormalization(name="norm")
    dense, local = _dense("dense"), _dense("local")
    model = tf.keras.Model(inputs, local(dense(norm(inputs))), name="m")
    split = _split(model, [norm, dense], [local])
    stock = tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
        model, global_layers=[norm, dense], local_layers=[local], input_spec=split.input_spec
    )
    expected = stock.global_trainable_variables + stock.global_non_trainable_variables
    assert [w.ref() for w in split.global_weights] == [w.ref() for w in expected]
    assert [w.name.split(":")[0] for w in split.global_weights] == [
        "norm/gamma",
        "norm/beta",
        "dense/kernel",
        "dense/bias",
        "norm/moving_mean",
        "norm/moving_variance",
    ]


def test_an_unlisted_weight_is_refused_by_name():
    model, first, _ = _two_dense()
    with pytest.raises(
        ValueError, match="two_dense are in no global or local layer: second/kernel:0, second/bias"
    ):
        _split(model, [first], [])


def test_a_weight_in_both_parts_is_refused():
    model, first, second = _two_dense()
    with pytest.raises(
        ValueError,
        match="first/kernel:0 is listed twice: in the global layer first and in the local layer",
    ):
        _split(model, [first, second], [first])


def test_a_layer_listed_twice_is_refused():
    model, first, second = _two_dense()
    with pytest.raises(ValueError, match="second/kernel:0 is listed twice: in the local layer"):
        _split(model, [first], [second, second])


def test_a_nested_layer_listed_through_its_parent_too_is_refused():
    inner = _dense("inner")
    parent = tf.keras.Sequential([tf.keras.Input([1]), inner], name="parent")
    inputs = tf.keras.Input([1], name="x")
    model = tf.keras.Model(inputs, parent(inputs), name="m")
    assert len(_split(model, [parent], []).global_weights) == 2
    with pytest.raises(ValueError, match="in the global layer parent and in the local layer inner"):
        _split(model, [parent], [inner])


def test_a_layer_of_another_model_is_refused():
    model, first, second = _two_dense()
    _, stranger, _ = _two_dense()
    with pytest.raises(
        ValueError, match="local layer first holds the weight first/kernel:0, which"
    ):
        _split(model, [first, second], [stranger])


def test_a_compiled_model_is_refused():
    model, first, second = _two_dense()
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="two_dense is compiled"):
        _split(model, [first], [second])


def test_a_model_that_is_not_built_is_refused():
    layer = _dense("first")
    with pytest.raises(ValueError, match="unbuilt is not built"):
        _split(tf.keras.Sequential([layer], name="unbuilt"), [layer], [])


@pytest.mark.parametrize("keys", [["x"], ["x", "y", "z"], ["inputs", "labels"]])
def test_input_spec_must_have_the_keys_x_and_y(keys):
    model, first, second = _two_dense()
    spec = collections.OrderedDict((key, tf.TensorSpec([None, 1])) for key in keys)
    with pytest.raises(ValueError, match="with the keys x and y, but it has"):
        _split(model, [first], [second], spec)


def _gradients(split, batch):
    """The data loss and the gradients of all weights, as stock build_fed_recon computes them."""
    model = split.to_reconstruction_model()
    loss = split.loss_fn()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            output = model.forward_pass(batch, training=True)
            batch_loss = loss(y_true=output.labels, y_pred=output.predictions)
        variables = model.global_trainable_variables + model.local_trainable_variables
        gradients = tape.gradient(batch_loss, variables)
        return output, batch_loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    output, batch_loss, gradients = step()
    return output, batch_loss.numpy(), [gradient.numpy() for gradient in gradients]


def _batch():
    return collections.OrderedDict(
        x=tf.constant([[0], [2], [0]], tf.int64), y=tf.constant([[4.0], [1.0], [5.0]])
    )


def _matrix_factorization_with_weights(**kwargs):
    """A model and its weights: items, item biases, global bias, user, user bias."""
    split = matrix_factorization.matrix_factorization(
        4, 2, user_bias=True, item_bias=True, global_bias=True, **kwargs
    )
    weights = [
        np.array([[0.5, -1.0], [2.0, 0.25], [-0.5, 1.5], [1.0, 1.0]]),
        np.array([[0.1], [0.2], [-0.3], [0.4]]),
        np.array(3.0),
        np.array([[0.8, -0.6]]),
        np.array([[0.05]]),
    ]
    for variable, value in zip(split.global_weights + split.local_weights, weights):
        variable.assign(value)
    return split, weights


def _data_gradients(weights):
    """The mean squared error on `_batch()` and its gradients, in NumPy."""
    items, item_bias, global_bias, user, user_bias = weights
    ids, labels = np.array([0, 2, 0]), np.array([4.0, 1.0, 5.0])
    predictions = items[ids] @ user[0] + item_bias[ids, 0] + global_bias + user_bias[0, 0]
    errors = predictions - labels
    slopes = 2 * errors / 3
    by_item, by_item_bias = np.zeros_like(items), np.zeros_like(item_bias)
    np.add.at(by_item, ids, slopes[:, None] * user)
    np.add.at(by_item_bias[:, 0], ids, slopes)
    by_user = (slopes @ items[ids])[None]
    total = slopes.sum()
    return np.mean(errors**2), [by_item, by_item_bias, total, by_user, np.array([[total]])]


def test_gradients_without_regularization():
    split, weights = _matrix_factorization_with_weights()
    expected_loss, expected = _data_gradients(weights)
    output, loss, gradients = _gradients(split, _batch())
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for gradient, value in zip(gradients, expected):
        np.testing.assert_allclose(gradient, value, rtol=1e-5, atol=1e-6)
    assert output.num_examples == 3
    assert output.num_examples.dtype == tf.int32
    np.testing.assert_array_equal(output.labels, _batch()["y"])


def test_gradients_carry_l2_and_spread_out_and_the_loss_does_not():
    split, weights = _matrix_factorization_with_weights(l2=0.3, spread_out=0.7)
    expected_loss, expected = _data_gradients(weights)
    expected = [gradient + 2 * 0.3 * weight for gradient, weight in zip(expected, weights)]
    off_diagonal = weights[0] @ weights[0].T
    np.fill_diagonal(off_diagonal, 0.0)
    expected[0] += 0.7 * 2 * off_diagonal @ weights[0] / np.linalg.norm(off_diagonal)
    output, loss, gradients = _gradients(split, _batch())
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for gradient, value in zip(gradients, expected):
        np.testing.assert_allclose(gradient, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(output.predictions, split.keras_model(_batch()["x"]))


def test_gradients_follow_the_weights_of_the_moment():
    # The losses must be computed anew at each call, not once when forward_pass is traced.
    split, _ = _matrix_factorization_with_weights(l2=0.5)
    model = split.to_reconstruction_model()
    user = split.local_weights[0]

    def user_gradient():
        with tf.GradientTape() as tape:
            output = model.forward_pass(_batch())
            loss = tf.reduce_sum(output.predictions)
        return tape.gradient(loss, user).numpy()

    before = user_gradient()
    user.assign_add([[1.0, 2.0]])
    np.testing.assert_allclose(user_gradient() - before, [[1.0, 2.0]], rtol=1e-5)


def test_stock_tff_ignores_regularization():
    # The reason for our own subclass; if a later TFF changes this, regularization counts twice.
    split, weights = _matrix_factorization_with_weights(l2=0.3)
    stock = tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
        split.keras_model,
        global_layers=split.global_layers,
        local_layers=split.local_layers,
        input_spec=split.input_spec,
    )
    with tf.GradientTape() as tape:
        output = stock.forward_pass(_batch())
        loss = _LOSS()(output.labels, output.predictions)
    gradient = tape.gradient(loss, split.local_weights[0])
    np.testing.assert_allclose(gradient, _data_gradients(weights)[1][3], rtol=1e-5)


def test_the_reconstruction_model_takes_batches_as_tff_gives_them():
    split, _ = _matrix_factorization_with_weights(l2=0.1)
    model = split.to_reconstruction_model()
    batch = _batch()
    named = collections.namedtuple("Batch", ["x", "y"])(**batch)
    expected = model.forward_pass(batch, training=False).predictions
    for other in (named, (batch["x"], batch["y"])):
        np.testing.assert_array_equal(model.forward_pass(other).predictions, expected)
    assert tff.learning.models.ReconstructionModel.has_only_global_variables(model) is False
    weights = tff.learning.models.ReconstructionModel.get_global_variables(model)
    assert [w.ref() for w in weights.trainable] == [w.ref() for w in split.global_weights]
    assert weights.non_trainable == []


@pytest.mark.slow
def test_stock_fed_recon_can_be_built_from_it():
    # Built, not run: running would start TFF's worker process.
    split, _ = _matrix_factorization_with_weights()

    def model_fn():
        built, _ = _matrix_factorization_with_weights(l2=0.1, spread_out=0.1)
        return built.to_reconstruction_model()

    process = tff.learning.algorithms.build_fed_recon(
        model_fn, loss_fn=split.loss_fn, metrics_fn=split.metrics_fn
    )
    weights_type = process.get_model_weights.type_signature.result
    assert [tuple(leaf.shape) for leaf in weights_type.trainable] == [(4, 2), (4, 1), ()]


def test_training_false_reaches_the_layers():
    inputs = tf.keras.Input([1], dtype=tf.int64, name="x")
    user = layers.UserEmbedding(1, "ones", name="user")
    dropped = tf.keras.layers.Dropout(0.5, seed=1, name="drop")(user(inputs))
    split = _split(tf.keras.Model(inputs, dropped, name="m"), [], [user])
    ids = tf.zeros([50, 1], tf.int64)
    model = split.to_reconstruction_model()
    batch = collections.OrderedDict(x=ids, y=tf.zeros([50, 1]))
    np.testing.assert_array_equal(model.forward_pass(batch, training=False).predictions, [[1]] * 50)
    assert set(model.forward_pass(batch, training=True).predictions.numpy().ravel()) == {0.0, 2.0}
