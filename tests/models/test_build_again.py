import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models.build_again import initializer_of
from fedrecon.models.functional import FunctionalModel
from tests.models import small_models
from tests.models.small_models import K


class OwnRow(K.Layer):
    """A user's row as tutorials write it: the initializer is known to `build` alone."""

    def __init__(self, initializer, num_rows=1, **kwargs):
        super().__init__(**kwargs)
        self.given, self.num_rows, self.num_builds = initializer, num_rows, 0

    def build(self, input_shape):
        self.num_builds += 1
        assert input_shape[-1] == 1
        self.row = self.add_weight("row", (self.num_rows, 3), initializer=self.given)
        self.offset = self.add_weight("offset", (1, 3), initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, inputs):
        return self.row[:1] + self.offset


def model_of(layer):
    item_id = small_models.item_input()
    row = K.Flatten()(small_models.item_embedding()(item_id))
    return small_models.split_by_name(item_id, K.Dot(1)([layer(item_id), row]), [layer.name])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("uniform", tf.keras.initializers.RandomUniform(-0.05, 0.05)),
        (tf.keras.initializers.RandomNormal(0, 2.0), tf.keras.initializers.RandomNormal(0, 2.0)),
        (None, tf.keras.initializers.GlorotUniform()),
        ("ones", tf.keras.initializers.Ones()),
    ],
    ids=["by name", "an object", "none", "constant"],
)
def test_a_client_draws_what_build_gives(given, expected):
    layer = OwnRow(given, name="user")
    model = model_of(layer)
    variable = layer.row
    found = initializer_of(layer, variable)
    assert type(found) is type(expected)
    assert found.get_config() == expected.get_config()
    # The layer is what it was.
    assert layer.row is variable
    assert len(layer.weights) == 2
    assert "add_weight" not in vars(layer)
    drawn, offsets = FunctionalModel(model).initial_local_values(np.arange(3000, dtype=np.uint32))
    assert drawn.shape == [3000, 1, 3]
    np.testing.assert_array_equal(offsets, np.zeros([3000, 1, 3]))
    oracle = expected([3000, 3]) if given is not None else expected([1, 3])
    if given is not None:
        assert np.std(drawn) == pytest.approx(np.std(oracle), rel=0.1)
    else:
        assert np.abs(drawn).max() == pytest.approx(np.sqrt(6 / (1 + 3)), rel=0.01)


class Inner(K.Layer):
    """`build` makes a layer: to run it again would make another one."""

    def build(self, input_shape):
        self.row = self.add_weight("row", (1, 3))
        self.inner = K.Dense(3)
        super().build(input_shape)

    def call(self, inputs):
        return self.row + self.inner(tf.zeros([1, 2]))


class Once(OwnRow):
    def build(self, input_shape):
        if self.num_builds:
            raise RuntimeError("built before")
        super().build(input_shape)


@pytest.mark.parametrize(
    "layer", [Inner(name="user"), Once("zeros", name="user")], ids=["inner", "once"]
)
def test_where_it_is_unclear_the_refusal_shows_what_to_write(layer):
    model = model_of(layer)
    assert initializer_of(layer, layer.row) is None
    with pytest.raises(ValueError, match="The local weight user/row") as refusal:
        FunctionalModel(model)
    for line in (
        "The local weight user/row has no initializer",
        "`self.row_initializer = tf.keras.initializers.get(...)` in __init__",
        "`self.row = self.add_weight(..., initializer=self.row_initializer)` in build",
        "fedrecon.models.layers.UserEmbedding",
    ):
        assert line in str(refusal.value)
