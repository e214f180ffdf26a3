"""Which models least squares takes, and which it refuses by name."""

import dataclasses
import functools

import pytest
import tensorflow as tf

from fedrecon.engine import least_squares
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.neural_cf import neumf
from tests.engine.linear_models import (
    split_of,
)
from tests.engine.numpy_least_squares import (
    DIM,
    NUM_ITEMS,
)


def linear_model(*, change=None, user=None, rate=None, loss=tf.keras.losses.MeanSquaredError):
    """`change(<u, v>, b)`, by default the sum; dropout of the item rows `v` if there is a rate."""
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, DIM, name="items")
    user = user or UserEmbedding(DIM, "zeros", name="user")
    bias = UserEmbedding(1, "zeros", name="bias")
    rows = tf.keras.layers.Flatten()(items(item_id))
    if rate is not None:
        rows = tf.keras.layers.Dropout(rate, name="noise")(rows)
    change = change or (lambda product, bias: product + bias)
    rating = change(InnerProduct()([user(item_id), rows]), bias(item_id))
    return split_of(item_id, rating, [items], [user, bias], loss)


def without_local_weights():
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, 1, name="items")
    return split_of(item_id, tf.keras.layers.Flatten()(items(item_id)), [items], [])


def with_fixed_local_weights():
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, DIM, name="items")
    user = UserEmbedding(DIM, "ones", trainable=False, name="user")
    rows = tf.keras.layers.Flatten()(items(item_id))
    return split_of(item_id, InnerProduct()([user(item_id), rows]), [items], [user])


def squared_neumf():
    """NeuMF with a loss that would do."""
    model = neumf(NUM_ITEMS, gmf_dim=2, hidden_units=(4, 2))
    return dataclasses.replace(model, loss_fn=tf.keras.losses.MeanSquaredError)


NOT_LINEAR = "model small is not linear in "
REFUSALS = {
    "neumf": (
        functools.partial(neumf, NUM_ITEMS, gmf_dim=2, hidden_units=(4, 2)),
        "the loss binary_crossentropy of the model neumf is not squared",
    ),
    "squared_neumf": (
        squared_neumf,
        "the model neumf is not linear in gmf_user_embedding/embeddings,"
        " mlp_user_embedding/embeddings;",
    ),
    "sigmoid": (
        functools.partial(linear_model, change=lambda product, bias: tf.sigmoid(product + bias)),
        NOT_LINEAR + "user/embeddings, bias/embeddings; reconstruct it by gradient_steps",
    ),
    # The bias is outside.
    "relu": (
        functools.partial(linear_model, change=lambda product, bias: tf.nn.relu(product) + bias),
        NOT_LINEAR + "user/embeddings;",
    ),
    "square": (
        functools.partial(linear_model, change=lambda product, bias: product + bias**2),
        NOT_LINEAR + "bias/embeddings;",
    ),
    # What saturates far from zero alone.
    "ceiling": (
        functools.partial(
            linear_model, change=lambda product, bias: bias + tf.minimum(product, 12.0)
        ),
        NOT_LINEAR + "user/embeddings;",
    ),
    # Linear in each of them.
    "product": (
        functools.partial(linear_model, change=lambda product, bias: product * bias),
        NOT_LINEAR + "user/embeddings, bias/embeddings;",
    ),
    "regularizer": (
        lambda: linear_model(
            user=UserEmbedding(DIM, "zeros", tf.keras.regularizers.L2(0.1), name="user")
        ),
        "the local weight user/embeddings has a regularizer",
    ),
    "dropout": (
        functools.partial(linear_model, rate=0.5),
        "the layer noise of the model small drops at random",
    ),
    "absolute_error": (
        functools.partial(linear_model, loss=tf.keras.losses.MeanAbsoluteError),
        "the loss mean_absolute_error of the model small is not squared",
    ),
    # Half of the square at small errors.
    "huber": (
        functools.partial(linear_model, loss=tf.keras.losses.Huber),
        "the loss huber_loss of the model small is not squared",
    ),
    "nothing_local": (without_local_weights, "the model small has no local weights to solve for"),
    "nothing_trained": (
        with_fixed_local_weights,
        "the model small has no local weights to solve for",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSALS)
def test_what_least_squares_cannot_reconstruct_is_refused_by_name(name):
    make, message = REFUSALS[name]
    split_model = make()
    with pytest.raises(InputError) as caught:
        least_squares.check_is_solvable(split_model, FunctionalModel(split_model))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        linear_model,
        functools.partial(linear_model, rate=0.0),
        functools.partial(
            linear_model,
            loss=functools.partial(
                tf.keras.losses.MeanSquaredError, reduction=tf.keras.losses.Reduction.SUM
            ),
        ),
        functools.partial(linear_model, change=lambda product, bias: bias - product),
    ],
)
def test_what_least_squares_can_reconstruct_is_not_refused(make):
    split_model = make()
    least_squares.check_is_solvable(split_model, FunctionalModel(split_model))
