"""Models of a few numbers, their values, and the ordinary Keras model as an oracle."""

import functools

import numpy as np
import tensorflow as tf

from fedrecon.models import neural_cf, split_model
from fedrecon.models.matrix_factorization import matrix_factorization

K = tf.keras.layers
NUM_ITEMS = 6
IDS = np.array([3, 0, 3, 5], np.int32)
SLOPES = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
MSE = tf.keras.losses.MeanSquaredError
BCE = tf.keras.losses.BinaryCrossentropy


def item_input():
    return tf.keras.Input([1], dtype=tf.int64, name="item_id")


def item_embedding(dim=3, **kwargs):
    return K.Embedding(NUM_ITEMS, dim, **{"name": "item", **kwargs})


def shift(ids):
    return K.Lambda(lambda ids: (ids + 1) % NUM_ITEMS, name="shift")(ids)


def split_by_name(item_id, output, local):
    """A split model whose layers named in `local` are local and all others are global."""
    model = tf.keras.Model(item_id, output, name="model")
    return split_model.SplitModel(
        keras_model=model,
        global_layers=[layer for layer in model.layers if layer.name not in local],
        local_layers=[model.get_layer(name) for name in local],
        input_spec=split_model.rating_input_spec(),
        loss_fn=MSE,
        metrics_fn=list,
    )


def small_model(
    middle=lambda row: row, *, embed=None, ids=lambda ids: ids, last=None, local=("taste",)
):
    """Item rows, `middle`, and a local dense layer."""
    item_id = item_input()
    row = K.Flatten(name="row")((embed or item_embedding())(ids(item_id)))
    return split_by_name(item_id, (last or K.Dense(1, name="taste"))(middle(row)), local)


def _foreign():
    """A model of layers of Keras alone, in ways that ours do not use them."""
    item_id = item_input()
    frozen = K.Dense(4, name="frozen", kernel_regularizer="l1", trainable=False)
    hidden = [K.Dense(5, name="hidden", bias_regularizer="l2"), K.PReLU(name="prelu")]
    hidden += [K.LayerNormalization(name="norm"), K.Dropout(0.0, name="drop")]
    tower = tf.keras.Sequential([tf.keras.Input([4]), *hidden], name="tower")
    rows = item_embedding(embeddings_regularizer="l1_l2")(K.Reshape([1, 1])(item_id))
    neighbors = item_embedding(2, name="neighbor", embeddings_regularizer="l2")(shift(item_id))
    features = K.Concatenate()([K.Flatten()(rows), K.Flatten()(neighbors)])
    taste = K.Dense(2, "tanh", name="taste", kernel_regularizer="l2")
    bias = K.Reshape([1])(item_embedding(1, name="popularity")(item_id))
    output = K.Dense(1, name="output")(tower(frozen(taste(features)))) * 2.0 + bias
    return split_by_name(
        item_id, K.Dense(1, name="fixed", trainable=False)(output), ("fixed", "taste")
    )


def steps(row):
    """Item rows `[batch, 3]` as sequences `[batch, 3, 1]`."""
    return K.Reshape([3, 1])(row)


def _attend(row):
    attention = K.MultiHeadAttention(2, 3, dropout=0.5, kernel_regularizer="l2", name="attention")
    return K.Flatten()(attention(steps(row), steps(row)))


class TutorialUserEmbedding(K.Layer):
    """The layer of TFF's tutorial on reconstruction, which keeps no initializer for its row.

    `start` is named by no name that Keras would look for; in the tutorial it is "uniform".
    """

    def __init__(self, num_latent_factors, start="uniform", **kwargs):
        super().__init__(**kwargs)
        self.num_latent_factors = num_latent_factors
        self.start = start

    def build(self, input_shape):
        self.embedding = self.add_weight(
            shape=(1, self.num_latent_factors),
            initializer=self.start,
            dtype=tf.float32,
            name="UserEmbeddingKernel",
        )
        super().build(input_shape)

    def call(self, inputs):
        return self.embedding

    def compute_output_shape(self):
        return (1, self.num_latent_factors)


def tutorial(user_embedding):
    """The model of TFF's tutorial."""
    item_input = K.Input(shape=[1], name="Item")
    item_rows = K.Embedding(NUM_ITEMS, 3, name="ItemEmbedding")(item_input)
    flat_item_rows = K.Flatten(name="FlattenItems")(item_rows)
    prediction = K.Dot(1, normalize=False, name="Dot")([user_embedding(item_input), flat_item_rows])
    return split_by_name(item_input, prediction, (user_embedding.name,))


_factorize = functools.partial(matrix_factorization, NUM_ITEMS, 3, item_bias=True)
MODELS = {
    "matrix_factorization": lambda: _factorize(user_bias=True, global_bias=True, l2=0.3),
    "spread_out": lambda: _factorize(l2=0.1, spread_out=0.7),
    "gmf": lambda: neural_cf.gmf(NUM_ITEMS, 3),
    "mlp": lambda: neural_cf.mlp(NUM_ITEMS, (6, 4, 2), l2=0.2),
    "neumf": lambda: neural_cf.neumf(NUM_ITEMS, gmf_dim=3, hidden_units=(6, 4, 2), l2=0.2),
    "foreign": _foreign,
    "gru": lambda: small_model(
        lambda row: K.GRU(2, recurrent_regularizer="l2", name="gru")(steps(row))
    ),
    "lstm": lambda: small_model(lambda row: K.LSTM(2, name="lstm")(steps(row))),
    "bidirectional": lambda: small_model(
        lambda row: K.Bidirectional(K.SimpleRNN(2, name="rnn"), name="both")(steps(row))
    ),
    "attention": lambda: small_model(_attend),
    "frozen_batch_normalization": lambda: small_model(
        K.BatchNormalization(trainable=False, name="norm")
    ),
    "tutorial": lambda: tutorial(TutorialUserEmbedding(3, name="UserEmbedding")),
}


def uint32(number):
    return tf.constant(np.array(number), tf.uint32)


def draw_values(model, seed=0):
    """Values of the shapes of all weights, whole; variances are positive."""
    generator = np.random.default_rng(seed)
    values = [generator.normal(size=w.shape).astype(np.float32) for w in model.weights]
    return [abs(v) if "variance" in w.name else v for w, v in zip(model.weights, values)]


def given_values(model, wholes, ids=IDS):
    """The values that `predict` takes: rows of item tables, the rest whole."""
    return [v[ids] if w.is_item_table else v for w, v in zip(model.weights, wholes)]


def gradients_of(tape, target, sources):
    found = tape.gradient(target, sources, unconnected_gradients="zero")
    return [tf.convert_to_tensor(gradient) for gradient in found]


def keras_predict(split, ids=IDS):
    """Predictions of the ordinary model, which knows, as in stock TFF, no size of the batch."""
    call = tf.function(split.keras_model, [tf.TensorSpec([None, 1], tf.int64)])
    return call(ids[:, None].astype(np.int64))[:, 0]


def call_keras(split, wholes, ids=IDS):
    """Predictions, their gradients and the regularization of the ordinary model with such values.

    The gradients are those of `sum(SLOPES * predictions)` and of the regularization, separately.
    """
    variables = split.global_weights + split.local_weights
    before = [v.numpy() for v in variables]
    for variable, value in zip(variables, wholes):
        variable.assign(value)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(variables)
        predictions = keras_predict(split, ids)
        slopes = tf.reduce_sum(SLOPES * predictions)
        regularization = tf.add_n([tf.zeros([]), *split.keras_model.losses])
    gradients = [
        [g.numpy() for g in gradients_of(tape, y, variables)] for y in (slopes, regularization)
    ]
    for variable, value in zip(variables, before):
        variable.assign(value)
    return predictions.numpy(), *gradients, regularization.numpy()


def predict_and_differentiate(model, ids, given):
    with tf.GradientTape() as tape:
        tape.watch(given)
        predictions = model.predict(ids, given)
        slopes = tf.reduce_sum(SLOPES * predictions)
    return predictions, gradients_of(tape, slopes, given)


def state_of(split):
    """The attributes of all layers, and copies of the variables."""
    found = split.keras_model._flatten_layers()
    attributes = {(layer.name, k): v for layer in found for k, v in vars(layer).items()}
    return attributes, [variable.numpy() for variable in split.keras_model.weights]


def assert_same_state(split, before):
    (old, old_values), (new, new_values) = before, state_of(split)
    assert [key for key in {**old, **new} if old.get(key) is not new.get(key)] == []
    for old_value, new_value in zip(old_values, new_values):
        np.testing.assert_array_equal(old_value, new_value)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def assert_all_close(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected):
        assert_close(a, e)


class Plus(K.Layer):
    """Adds the entries of its weight, an attribute or in a list, to the sum of each row."""

    def __init__(self, shape=(), initializer=None, in_a_list=False, makes_layer=False):
        super().__init__(name="guilty")
        if initializer is not None:
            self.entries_initializer = initializer
        self._of_weight = {"shape": shape, "initializer": initializer}
        self._in_a_list, self._makes_layer = in_a_list, makes_layer

    def build(self, input_shape):
        entries = self.add_weight(name="entries", **self._of_weight)
        self.entries = [entries] if self._in_a_list else entries
        if self._makes_layer:
            self.inner = K.Activation("linear")

    def call(self, row):
        entries = self.entries[0] if self._in_a_list else self.entries
        return tf.reduce_sum(row, axis=-1, keepdims=True) + tf.reduce_sum(entries)


def small_plus(*args, **kwargs):
    return small_model(last=Plus(*args, **kwargs), local=("guilty",))


_INITIALIZERS = tf.keras.initializers
