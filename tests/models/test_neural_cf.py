"""GMF, MLP and NeuMF against the paper's equations in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models import neural_cf

_IDS = tf.constant([[3], [0], [3], [1]], tf.int64)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _randomize(split):
    """Gives all weights large values, so that a wrong one shows; returns them by name."""
    generator = np.random.default_rng(0)
    weights = {}
    for weight in split.global_weights + split.local_weights:
        value = generator.normal(size=weight.shape)
        weight.assign(value)
        weights[weight.name.split(":")[0]] = value
    return weights


def _rows(weights, prefix):
    items = weights[f"{prefix}item_embedding/embeddings"][_IDS.numpy()[:, 0]]
    return np.repeat(weights[f"{prefix}user_embedding/embeddings"], len(items), axis=0), items


def _tower(weights, prefix, num_layers):
    hidden = np.concatenate(_rows(weights, prefix), axis=1)
    for number in range(1, num_layers + 1):
        name = f"{prefix}dense_{number}"
        hidden = np.maximum(hidden @ weights[f"{name}/kernel"] + weights[f"{name}/bias"], 0)
    return hidden


def _predict(weights, features):
    return _sigmoid(features @ weights["prediction/kernel"] + weights["prediction/bias"])


def test_gmf_is_equations_8_and_9():
    split = neural_cf.gmf(5, 3)
    weights = _randomize(split)
    user, items = _rows(weights, "")
    np.testing.assert_allclose(split.keras_model(_IDS), _predict(weights, user * items), rtol=1e-5)


def test_mlp_is_equation_10():
    split = neural_cf.mlp(5, (6, 4, 2))
    weights = _randomize(split)
    expected = _predict(weights, _tower(weights, "", 2))
    np.testing.assert_allclose(split.keras_model(_IDS), expected, rtol=1e-5)


def test_neumf_is_equation_12():
    split = neural_cf.neumf(5, gmf_dim=3, hidden_units=(6, 4, 2))
    weights = _randomize(split)
    user, items = _rows(weights, "gmf_")
    features = np.concatenate([user * items, _tower(weights, "mlp_", 2)], axis=1)
    np.testing.assert_allclose(split.keras_model(_IDS), _predict(weights, features), rtol=1e-5)


def test_the_published_widths():
    split = neural_cf.neumf(10)
    shapes = {w.name.split(":")[0]: tuple(w.shape) for w in split.keras_model.weights}
    assert shapes == {
        "gmf_item_embedding/embeddings": (10, 8),
        "gmf_user_embedding/embeddings": (1, 8),
        "mlp_item_embedding/embeddings": (10, 32),
        "mlp_user_embedding/embeddings": (1, 32),
        "mlp_dense_1/kernel": (64, 32),
        "mlp_dense_1/bias": (32,),
        "mlp_dense_2/kernel": (32, 16),
        "mlp_dense_2/bias": (16,),
        "mlp_dense_3/kernel": (16, 8),
        "mlp_dense_3/bias": (8,),
        "prediction/kernel": (16, 1),
        "prediction/bias": (1,),
    }


@pytest.mark.parametrize("build", [neural_cf.gmf, neural_cf.mlp, neural_cf.neumf])
def test_only_user_rows_are_local(build):
    split = build(5)
    assert split.local_layers
    assert all("user_embedding" in layer.name for layer in split.local_layers)
    assert not any("user" in layer.name for layer in split.global_layers)
    assert split.loss_fn is tf.keras.losses.BinaryCrossentropy
    predictions = split.keras_model(_IDS).numpy()
    assert predictions.shape == (4, 1)
    assert np.all((predictions > 0) & (predictions < 1))


@pytest.mark.parametrize("build", [neural_cf.gmf, neural_cf.mlp, neural_cf.neumf])
def test_seeds(build):
    def values(seed):
        weights = build(4, seed=seed).keras_model.weights
        return {w.name: w.numpy() for w in weights if "bias" not in w.name}

    first = values(1)
    tf.random.set_seed(7)
    again, other = values(1), values(2)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert not np.any(value == other[name])
    # Tables differ also where they are equally wide, and the user from the items.
    rows = [value[0] for name, value in first.items() if "embedding" in name]
    assert len({row[0] for row in rows}) == len(rows)


def test_initial_distributions():
    weights = {w.name.split(":")[0]: w.numpy() for w in neural_cf.neumf(2000).keras_model.weights}
    np.testing.assert_allclose(weights["gmf_item_embedding/embeddings"].std(), 0.01, rtol=0.03)
    np.testing.assert_allclose(weights["mlp_item_embedding/embeddings"].std(), 0.01, rtol=0.03)
    # Glorot: uniform within sqrt(6 / (fan_in + fan_out)); LeCun: within sqrt(3 / fan_in).
    for name, bound in [
        ("mlp_dense_1/kernel", np.sqrt(6 / 96)),
        ("mlp_dense_2/kernel", np.sqrt(6 / 48)),
        ("prediction/kernel", np.sqrt(3 / 16)),
    ]:
        assert 0.8 * bound < np.abs(weights[name]).max() <= bound, name
    for name in ("mlp_dense_1/bias", "prediction/bias"):
        assert not weights[name].any()


def test_initializers_by_argument():
    constant = tf.keras.initializers.Constant
    split = neural_cf.neumf(
        4,
        gmf_dim=2,
        hidden_units=(4, 1),
        item_initializer=constant(1.0),
        user_initializer=constant(2.0),
        dense_initializer=constant(0.5),
        output_initializer=constant(0.1),
    )
    # Products 2 and 2; hidden 0.5 * (2 + 2 + 1 + 1) = 3; logit 0.1 * 7.
    np.testing.assert_allclose(split.keras_model(_IDS), [[_sigmoid(0.7)]] * 4, rtol=1e-6)


def test_l2_is_on_embeddings_and_the_tower():
    split = neural_cf.neumf(3, gmf_dim=1, hidden_units=(4, 2), l2=0.5)
    for weight in split.keras_model.weights:
        weight.assign(tf.ones_like(weight))
    # GMF rows 3 + 1, MLP rows 6 + 2, one kernel 4 x 2.
    np.testing.assert_allclose(sum(split.keras_model.losses), 0.5 * 20, rtol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_the_loss_is_the_same_however_the_model_is_called(l2):
    # Keras's cross-entropy would use the logits in some of these ways and not in others.
    split = neural_cf.gmf(4, 1, l2=l2)
    items, kernel, _ = split.global_weights
    for weight, value in [(items, [[-9], [2], [0], [-8]]), (kernel, [[1]])]:
        weight.assign(value)
    split.local_weights[0].assign([[1]])
    logits, labels = np.array([[-8], [-9], [-8], [2]]), tf.constant([[1.0], [1.0], [1.0], [0.0]])
    # With Keras's epsilon, which by way of the logits it would not add.
    signs = 2 * labels.numpy() - 1
    expected = -np.mean(np.log(_sigmoid(signs * logits) + 1e-7))
    assert abs(expected + np.mean(np.log(_sigmoid(signs * logits)))) > 1e-5 * expected
    model, loss_fn = split.to_reconstruction_model(), split.loss_fn()
    batch = collections.OrderedDict(x=_IDS, y=labels)
    losses = [
        loss_fn(labels, split.keras_model(_IDS)),
        tf.function(lambda: loss_fn(labels, split.keras_model(_IDS)))(),
        loss_fn(labels, model.forward_pass(batch).predictions),
        tf.function(lambda: loss_fn(labels, model.forward_pass(batch).predictions))(),
    ]
    np.testing.assert_allclose(losses, [expected] * 4, rtol=1e-6)
    mean_loss = split.metrics_fn()[0]
    mean_loss.update_state(labels, split.keras_model(_IDS))
    np.testing.assert_allclose(mean_loss.result(), expected, rtol=1e-6)


def test_a_users_rows_learn_from_feedback():
    split = neural_cf.neumf(4, gmf_dim=2, hidden_units=(4, 2), seed=1)
    model, loss_fn = split.to_reconstruction_model(), split.loss_fn()
    batch = collections.OrderedDict(
        x=tf.constant([[0], [1]], tf.int64), y=tf.constant([[1.0], [0.0]])
    )
    with tf.GradientTape() as tape:
        output = model.forward_pass(batch)
        loss = loss_fn(output.labels, output.predictions)
    gradients = tape.gradient(loss, model.local_trainable_variables)
    assert all(np.any(gradient.numpy()) for gradient in gradients)


@pytest.mark.parametrize("hidden_units", [(), (5, 2), (4, 0)])
def test_hidden_units_are_checked(hidden_units):
    with pytest.raises(ValueError, match="hidden_units must be positive widths"):
        neural_cf.mlp(5, hidden_units)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="num_items >= 1"):
        neural_cf.gmf(0)
    with pytest.raises(ValueError, match="dim >= 1"):
        neural_cf.gmf(5, 0)
    with pytest.raises(ValueError, match="l2 >= 0"):
        neural_cf.neumf(5, l2=-1.0)
