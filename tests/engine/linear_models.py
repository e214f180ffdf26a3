"""Models that are linear in their local part."""

import numpy as np
import tensorflow as tf

from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.split_model import SplitModel, rating_input_spec
from tests import tiny
from tests.engine.numpy_least_squares import DIM, HABIT, NUM_ITEMS
from tests.tiny import BIASES, SAME_START


def mf(biases=BIASES, **kwargs):
    return tiny.mf(NUM_ITEMS, DIM, biases=biases, **kwargs)


BIASED_MF = mf(user_initializer=SAME_START)
# Only the global part is regularized.
REGULARIZED_MF = mf(l2=0.1, user_l2=0.0)
HABIT_EVERYWHERE = tf.keras.initializers.Constant(HABIT)


def tower_model(habit=HABIT_EVERYWHERE):
    """`c * <u, h> + <k, v> + b + c`, with `h` a layer over an item's row `v` and its fixed `f`.

    Local: `u`, `k`, `b`, and `c`, which is not trained.
    """
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, 4, name="items")
    facts = tf.keras.layers.Embedding(NUM_ITEMS, 2, trainable=False, name="facts")
    tower = tf.keras.layers.Dense(DIM, activation="tanh", name="tower")
    user = UserEmbedding(DIM, "zeros", name="user")
    head = tf.keras.layers.Dense(1, name="head")
    habit = UserEmbedding(1, habit, trainable=False, name="habit")
    rows = tf.keras.layers.Flatten()(items(item_id))
    both = tf.keras.layers.Concatenate()([rows, tf.keras.layers.Flatten()(facts(item_id))])
    product = InnerProduct()([user(item_id), tower(both)])
    scaled = tf.keras.layers.Multiply()([product, habit(item_id)])
    rating = tf.keras.layers.Add()([scaled, head(rows), habit(item_id)])
    return split_of(item_id, rating, [items, facts, tower], [user, head, habit])


def split_of(item_id, rating, global_layers, local_layers, loss=tf.keras.losses.MeanSquaredError):
    keras_model = tf.keras.Model(item_id, rating, name="small")
    return SplitModel(
        keras_model, global_layers, local_layers, rating_input_spec(), loss, lambda: []
    )


def random_weights(model_fn, seed=3):
    generator = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model_fn().global_weights]
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]
