"""The layout of a server's weights: by name, as TFF has them, and their global part."""

import numpy as np
import tensorflow as tf

from fedrecon.models.functional import FunctionalModel
from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.wiring import user_tables
from fedrecon.wiring.weights import ModelWeights, global_part


def model_fn():
    """Global: `items` and, fixed, `facts`. Local: `user` and, fixed, `habit`."""
    item_id = tf.keras.Input([1], dtype=tf.int64)
    facts = tf.keras.layers.Embedding(3, 2, trainable=False, name="facts")
    items = tf.keras.layers.Embedding(3, 2, name="items")
    habit = UserEmbedding(2, "ones", trainable=False, name="habit")
    user = UserEmbedding(2, "uniform", name="user")
    rows = [tf.keras.layers.Flatten()(table(item_id)) for table in (facts, items)]
    owns = [layer(item_id) for layer in (habit, user)]
    both = tf.keras.layers.Add()([InnerProduct()(pair) for pair in zip(owns, rows)])
    return SplitModel(
        tf.keras.Model(item_id, both),
        [facts, items],
        [habit, user],
        rating_input_spec(),
        tf.keras.losses.MeanSquaredError,
        list,
    )


NAMES = ["items/embeddings", "facts/embeddings", "user/embeddings", "habit/embeddings"]


def test_values_by_name_and_model_weights_say_the_same():
    model = FunctionalModel(model_fn())
    assert [weight.name for weight in model.weights] == NAMES
    weights = user_tables.with_user_rows(model_fn, model, num_users=5, seed=0)
    assert [weight.name for weight in weights.trainable] == [NAMES[0], NAMES[2]]
    given = ModelWeights(["items", "user"], ["facts", "habit"])
    values = weights.to_values(given)
    assert list(values) == NAMES
    assert list(values.values()) == ["items", "facts", "user", "habit"]
    # The order of a dictionary decides nothing.
    backwards = dict(reversed(list(values.items())))
    assert weights.to_model_weights(backwards) == given

    assert user_tables.global_weights_of(model, given) == ModelWeights(["items"], ["facts"])
    assert user_tables.user_tables_of(model, given) == ["user", "habit"]


def test_initial_values_have_the_shapes_of_the_specs():
    model = FunctionalModel(model_fn())
    weights = user_tables.with_user_rows(model_fn, model, num_users=5, seed=0)
    initial = weights.to_values(weights.initial())
    specs = user_tables.specs_with_user_rows(model, 5)
    assert list(initial) == list(specs) == NAMES
    for name, spec in specs.items():
        assert (initial[name].shape, initial[name].dtype) == (spec.shape, spec.dtype)
    np.testing.assert_array_equal(initial["habit/embeddings"], np.ones([5, 1, 2]))
    assert len(np.unique(initial["user/embeddings"])) == 10
    alone = global_part(model_fn, model)
    assert [value.shape for value in alone.initial().trainable] == [[3, 2]]
