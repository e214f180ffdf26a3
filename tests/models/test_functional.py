"""A model called with given weights, against the same Keras model whose variables hold them."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models import functional, layers, neural_cf, split_model
from fedrecon.models.matrix_factorization import matrix_factorization

K = tf.keras.layers
_NUM_ITEMS = 6
_IDS = np.array([3, 0, 3, 5], np.int32)
_SLOPES = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
_MSE = tf.keras.losses.MeanSquaredError
_BCE = tf.keras.losses.BinaryCrossentropy


def _input():
    return tf.keras.Input([1], dtype=tf.int64, name="item_id")


def _embedding(dim=3, **kwargs):
    return K.Embedding(_NUM_ITEMS, dim, **{"name": "item", **kwargs})


def _shift(ids):
    return K.Lambda(lambda ids: (ids + 1) % _NUM_ITEMS, name="shift")(ids)


def _split(item_id, output, local):
    """A split model whose layers named in `local` are local and all others are global."""
    model = tf.keras.Model(item_id, output, name="model")
    return split_model.SplitModel(
        keras_model=model,
        global_layers=[layer for layer in model.layers if layer.name not in local],
        local_layers=[model.get_layer(name) for name in local],
        input_spec=split_model.rating_input_spec(),
        loss_fn=_MSE,
        metrics_fn=list,
    )


def _small(middle=lambda row: row, *, embed=None, ids=lambda ids: ids, last=None, local=("taste",)):
    """Item rows, `middle`, and a local dense layer."""
    item_id = _input()
    row = K.Flatten(name="row")((embed or _embedding())(ids(item_id)))
    return _split(item_id, (last or K.Dense(1, name="taste"))(middle(row)), local)


def _foreign():
    """A model of layers of Keras alone, in ways that ours do not use them."""
    item_id = _input()
    frozen = K.Dense(4, name="frozen", kernel_regularizer="l1", trainable=False)
    hidden = [K.Dense(5, name="hidden", bias_regularizer="l2"), K.PReLU(name="prelu")]
    hidden += [K.LayerNormalization(name="norm"), K.Dropout(0.0, name="drop")]
    tower = tf.keras.Sequential([tf.keras.Input([4]), *hidden], name="tower")
    rows = _embedding(embeddings_regularizer="l1_l2")(K.Reshape([1, 1])(item_id))
    neighbours = _embedding(2, name="neighbour", embeddings_regularizer="l2")(_shift(item_id))
    features = K.Concatenate()([K.Flatten()(rows), K.Flatten()(neighbours)])
    taste = K.Dense(2, "tanh", name="taste", kernel_regularizer="l2")
    bias = K.Reshape([1])(_embedding(1, name="popularity")(item_id))
    output = K.Dense(1, name="output")(tower(frozen(taste(features)))) * 2.0 + bias
    return _split(item_id, K.Dense(1, name="fixed", trainable=False)(output), ("fixed", "taste"))


_factorize = functools.partial(matrix_factorization, _NUM_ITEMS, 3, item_bias=True)
_MODELS = {
    "matrix_factorization": lambda: _factorize(user_bias=True, global_bias=True, l2=0.3),
    "spread_out": lambda: _factorize(l2=0.1, spread_out=0.7),
    "gmf": lambda: neural_cf.gmf(_NUM_ITEMS, 3),
    "mlp": lambda: neural_cf.mlp(_NUM_ITEMS, (6, 4, 2), l2=0.2),
    "neumf": lambda: neural_cf.neumf(_NUM_ITEMS, gmf_dim=3, hidden_units=(6, 4, 2), l2=0.2),
    "foreign": _foreign,
}


@pytest.fixture(scope="module", params=_MODELS)
def models(request):
    """A split model and its functional form."""
    split = _MODELS[request.param]()
    return split, functional.FunctionalModel(split)


def _seed(number):
    return tf.constant(np.array(number), tf.uint32)


def _draw(model, seed=0):
    """Values of the shapes of all weights, whole."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=w.shape).astype(np.float32) for w in model.weights]


def _given(model, wholes, ids=_IDS):
    """What `predict` takes for them."""
    return [v[ids] if w.is_item_table else v for w, v in zip(model.weights, wholes)]


def _gradients(tape, target, sources):
    found = tape.gradient(target, sources, unconnected_gradients="zero")
    return [tf.convert_to_tensor(gradient) for gradient in found]


def _keras(split, wholes, ids=_IDS):
    """Predictions, their gradients and the regularization of the ordinary model with such values.

    The gradients are those of `sum(_SLOPES * predictions)` and of the regularization, separately.
    """
    variables = split.global_weights + split.local_weights
    before = [v.numpy() for v in variables]
    for variable, value in zip(variables, wholes):
        variable.assign(value)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(variables)
        predictions = split.keras_model(ids[:, None].astype(np.int64))[:, 0]
        slopes = tf.reduce_sum(_SLOPES * predictions)
        regularization = tf.add_n([tf.zeros([]), *split.keras_model.losses])
    gradients = [
        [g.numpy() for g in _gradients(tape, y, variables)] for y in (slopes, regularization)
    ]
    for variable, value in zip(variables, before):
        variable.assign(value)
    return predictions.numpy(), *gradients, regularization.numpy()


def _predict_and_differentiate(model, ids, given):
    with tf.GradientTape() as tape:
        tape.watch(given)
        predictions = model.predict(ids, given)
        slopes = tf.reduce_sum(_SLOPES * predictions)
    return predictions, _gradients(tape, slopes, given)


def _state(split):
    """The attributes of all layers, and copies of the variables."""
    found = split.keras_model._flatten_layers()
    attributes = {(layer.name, k): v for layer in found for k, v in vars(layer).items()}
    return attributes, [variable.numpy() for variable in split.keras_model.weights]


def _assert_same_state(split, before):
    (old, old_values), (new, new_values) = before, _state(split)
    assert [key for key in {**old, **new} if old.get(key) is not new.get(key)] == []
    for old_value, new_value in zip(old_values, new_values):
        np.testing.assert_array_equal(old_value, new_value)


def _assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def _assert_all_close(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected):
        _assert_close(a, e)


@pytest.mark.parametrize("ids", [_IDS, np.array([2, 2, 2, 2], np.int64)], ids=["mixed", "same"])
def test_predictions_and_gradients_are_those_of_the_keras_model(models, ids):
    split, model = models
    wholes = _draw(model)
    expected, expected_gradients, _, _ = _keras(split, wholes, ids)
    given = [tf.constant(value) for value in _given(model, wholes, ids)]
    predictions, gradients = _predict_and_differentiate(model, ids, given)
    _assert_close(predictions, expected)
    assert np.ptp(expected) > 0.01 or ids is not _IDS  # Else anything would pass.
    for weight, gradient, oracle in zip(model.weights, gradients, expected_gradients):
        gradient = gradient.numpy()
        if weight.is_item_table:
            rows, gradient = gradient, np.zeros_like(oracle)
            np.add.at(gradient, ids, rows)
        _assert_close(gradient, oracle)


def test_a_call_changes_nothing_of_the_keras_model(models):
    split, model = models
    given = _given(model, _draw(model))
    misshapen = [*given[:-1], np.zeros([7, 5, 3], np.float32)]
    expected, before = split.keras_model(_IDS[:, None]), _state(split)
    model.predict(_IDS, given)
    model.predict(_IDS, given, dropout_seed=_seed(1))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        model.predict(_IDS, misshapen, dropout_seed=_seed(1))
    _assert_same_state(split, before)
    np.testing.assert_array_equal(split.keras_model(_IDS[:, None]), expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_clients_at_once_are_as_one_by_one(models, jit_compile):
    _, model = models
    of_ids = enumerate((_IDS, np.array([1, 1, 4, 0], np.int32)))
    clients = [(ids, _given(model, _draw(model, seed), ids)) for seed, ids in of_ids]
    one = functools.partial(_predict_and_differentiate, model)

    @tf.function(jit_compile=jit_compile)
    def at_once(stacked):
        return tf.vectorized_map(lambda c: one(*c), stacked, fallback_to_while_loop=False)

    predictions, gradients = at_once(tf.nest.map_structure(lambda *v: np.stack(v), *clients))
    for client, (ids, given) in enumerate(clients):
        expected, expected_gradients = one(ids, [tf.constant(v) for v in given])
        _assert_close(predictions[client], expected)
        _assert_all_close([g[client] for g in gradients], expected_gradients)


def test_the_weights_are_those_of_the_split_model_in_its_order(models):
    split, model = models
    trainable = {v.ref() for v in split.keras_model.trainable_weights}
    for weights, variables, is_local in (
        (model.global_weights, split.global_weights, False),
        (model.local_weights, split.local_weights, True),
    ):
        refs = [getattr(*weight.sites[0]).ref() for weight in weights]
        assert refs == [v.ref() for v in variables]
        assert [w.trainable for w in weights] == [ref in trainable for ref in refs]
        assert {w.is_local for w in weights} == {is_local}
        assert [(f"{w.name}:0", w.shape, w.dtype) for w in weights] == [
            (v.name, v.shape, v.dtype) for v in variables
        ]
    assert model.weights == model.global_weights + model.local_weights


def test_regularization_is_the_sum_of_the_losses_of_the_keras_model(models):
    split, model = models
    wholes = [tf.constant(value) for value in _draw(model)]
    _, _, expected_gradients, expected = _keras(split, wholes)
    with tf.GradientTape() as tape:
        tape.watch(wholes)
        value = functional.regularization(model.weights, wholes)
    _assert_close(value, expected)
    _assert_all_close(_gradients(tape, value, wholes), expected_gradients)
    # Of an item table, rows alone give the gradient of these rows.
    for weight, whole, gradient in zip(model.weights, wholes, expected_gradients):
        if weight.is_item_table:
            rows = tf.gather(whole, _IDS)
            with tf.GradientTape() as tape:
                tape.watch(rows)
                value = functional.regularization([weight], [rows])
            _assert_all_close(_gradients(tape, value, [rows]), [gradient[_IDS]])


def _called_again_on(change):
    """An embedding, used as one layer, whose rows of `change(ids)` are added to those of `ids`."""
    embedding = _embedding()
    return lambda ids: K.Add()([embedding(ids), embedding(change(ids))])


class _Tied(K.Layer):
    """Products with all rows of a table that is an embedding's, past Keras's tracking."""

    def __init__(self, embedding):
        super().__init__(name="tied")
        embedding.build(None)
        vars(self)["embeddings"] = embedding.embeddings

    def call(self, row):
        return tf.matmul(row, self.embeddings, transpose_b=True)


def _tied():
    embedding = _embedding()
    return _small(_Tied(embedding), embed=embedding)


def _regularized(regularizer):
    return lambda: _small(embed=_embedding(embeddings_regularizer=regularizer))


_REGULARIZERS = tf.keras.regularizers
_ITEM_TABLES = {
    "direct": _small,
    "reshape": lambda: _small(ids=K.Reshape([1, 1, 1])),
    "flatten": lambda: _small(ids=lambda ids: K.Flatten()(K.Reshape([1, 1])(ids))),
    "twice_on_ids": lambda: _small(embed=_called_again_on(K.Reshape([1]))),
    "frozen": lambda: _small(embed=_embedding(trainable=False)),
    "l1": _regularized(_REGULARIZERS.L1(0.1)),
    "l2": _regularized(_REGULARIZERS.L2(0.1)),
    "l1_l2": _regularized(_REGULARIZERS.L1L2(0.1, 0.1)),
}
_WHOLE_TABLES = {
    "spread_out": _regularized(layers.SpreadOut(0.1)),
    "orthogonal": _regularized(_REGULARIZERS.OrthogonalRegularizer(0.1)),
    "lambda": lambda: _small(ids=_shift),
    "arithmetic": lambda: _small(ids=lambda ids: ids % 4),
    "reshaped_arithmetic": lambda: _small(ids=lambda ids: K.Reshape([1])(ids % 4)),
    "tied": _tied,
    "shared": lambda: _small(embed=_called_again_on(_shift)),
    "local": lambda: _small(local=("item", "taste")),
}


@pytest.mark.parametrize("case", [*_ITEM_TABLES, *_WHOLE_TABLES])
def test_item_tables_are_looked_up_by_the_ids_themselves(case):
    split = {**_ITEM_TABLES, **_WHOLE_TABLES}[case]()
    model = functional.FunctionalModel(split)
    (weight,) = [w for w in model.weights if w.name == "item/embeddings"]
    assert weight.is_item_table == (case in _ITEM_TABLES)
    assert weight.trainable == (case != "frozen")
    wholes = _draw(model)
    _assert_close(model.predict(_IDS, _given(model, wholes)), _keras(split, wholes)[0])


def _summed(reduction=tf.keras.losses.Reduction.SUM):
    return _MSE(reduction=reduction)


_HUBER = functools.partial(tf.keras.losses.Huber, delta=0.3)


@pytest.mark.parametrize("loss_fn", [_MSE, _BCE, _HUBER, _summed])
def test_batch_loss_is_the_loss_of_the_unmasked_examples(loss_fn):
    generator = np.random.default_rng(0)
    mask = generator.random([2, 3, 5]) < 0.6
    mask[0, 1], mask[1, 2] = False, True
    labels = generator.integers(2, size=mask.shape).astype(np.float32)
    predictions = generator.uniform(0.1, 0.9, size=mask.shape).astype(np.float32)
    expected = np.zeros([2, 3])
    for at in np.ndindex(2, 3):
        if mask[at].any():
            real = [values[at][mask[at]][:, None] for values in (labels, predictions)]
            expected[at] = loss_fn()(*real)
    loss = functional.batch_loss(loss_fn)
    np.testing.assert_allclose(loss(labels, predictions, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(labels[1, 0], predictions[1, 0], mask[1, 0]), expected[1, 0])
    for junk in (np.nan, np.inf):
        spoilt = [np.where(mask, values, junk) for values in (labels, predictions)]
        np.testing.assert_allclose(loss(*spoilt, mask), expected, rtol=1e-5)


def test_batch_loss_by_hand():
    labels, predictions = tf.constant([[1.0, 2.0, 9.0]]), tf.constant([[2.0, 4.0, 0.0]])
    mask = tf.constant([[True, True, False]])
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        mean = functional.batch_loss(_MSE)(labels, predictions, mask)
    np.testing.assert_array_equal(mean, [2.5])
    np.testing.assert_array_equal(tape.gradient(mean, predictions), [[1, 2, 0]])
    total = functional.batch_loss(_summed)(labels, predictions, mask)
    np.testing.assert_array_equal(total, [5])
    model = functional.FunctionalModel(_small())
    np.testing.assert_array_equal(model.loss(labels, predictions, mask), [2.5])


def test_a_loss_for_each_example_is_refused():
    with pytest.raises(ValueError, match="mean_squared_error has reduction 'none'"):
        functional.batch_loss(functools.partial(_MSE, reduction="none"))


def _dropout_model(rate):
    """Two item tables of width 500, each behind a dropout of its own, and a local sum of all."""
    item_id = _input()
    rows = [
        K.Dropout(rate, name=f"drop_{name}")(K.Flatten()(_embedding(500, name=name)(item_id)))
        for name in ("left", "right")
    ]
    taste = K.Dense(1, use_bias=False, name="taste")
    return functional.FunctionalModel(_split(item_id, taste(K.Concatenate()(rows)), ("taste",)))


def _dropped(model, seed, num_examples=8):
    """Predictions from ones, and what each entry is multiplied by: `[2, num_examples, 500]`."""
    rows = tf.ones([2, num_examples, 500])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = [rows[0], rows[1], tf.ones([1000, 1])]
        predictions = model.predict(tf.zeros(num_examples, tf.int32), values, dropout_seed=seed)
    return predictions, tape.gradient(predictions, rows)


@pytest.fixture(scope="module")
def dropout_model():
    return _dropout_model(0.4)


def test_dropout_zeroes_its_share_and_scales_the_rest(dropout_model):
    predictions, factors = _dropped(dropout_model, _seed(5))
    factors = factors.numpy()
    np.testing.assert_allclose(factors[factors > 0], 1 / 0.6, rtol=1e-6)
    np.testing.assert_allclose(predictions, factors.sum(axis=(0, 2)), rtol=1e-5)
    # 0.03 is four standard errors of 4000 entries.
    np.testing.assert_allclose((factors == 0).mean(axis=(1, 2)), 0.4, atol=0.03)
    assert len(np.unique(factors.reshape(16, 500), axis=0)) == 16


def test_dropout_follows_from_the_seed_and_the_layer(dropout_model):
    (left, right), (again, _), (other, _) = (
        _dropped(dropout_model, _seed(seed))[1].numpy() == 0 for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(left, again)
    for mask in (right, other):
        np.testing.assert_allclose((left & mask).mean(), 0.4 * 0.4, atol=0.03)
    # Examples behind it change nothing for an example.
    longer = _dropped(dropout_model, _seed(5), num_examples=11)[1].numpy() == 0
    np.testing.assert_array_equal(longer[:, :8], [left, right])


def test_without_a_seed_or_a_rate_nothing_is_dropped(dropout_model):
    for model, seed in ((dropout_model, None), (_dropout_model(0.0), _seed(5))):
        predictions, factors = _dropped(model, seed)
        np.testing.assert_array_equal(factors, np.ones([2, 8, 500]))
        np.testing.assert_array_equal(predictions, [1000] * 8)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_dropout_of_clients_at_once_is_as_one_by_one(dropout_model, jit_compile):
    seeds = _seed([0, 7, 2**32 - 1])
    drop = functools.partial(_dropped, dropout_model)

    @tf.function(jit_compile=jit_compile)
    def at_once(seeds):
        return tf.vectorized_map(lambda s: drop(s)[1], seeds, fallback_to_while_loop=False)

    np.testing.assert_allclose(at_once(seeds), [drop(s)[1] for s in seeds], rtol=1e-6)


class _Plus(K.Layer):
    """Adds the entries of its weight, an attribute or in a list, to the sum of each row."""

    def __init__(self, shape=(), initializer=None, in_a_list=False):
        super().__init__(name="guilty")
        if initializer is not None:
            self.entries_initializer = initializer
        self._of_weight = {"shape": shape, "initializer": initializer}
        self._in_a_list = in_a_list

    def build(self, input_shape):
        entries = self.add_weight(name="entries", **self._of_weight)
        self.entries = [entries] if self._in_a_list else entries

    def call(self, row):
        entries = self.entries[0] if self._in_a_list else self.entries
        return tf.reduce_sum(row, axis=-1, keepdims=True) + tf.reduce_sum(entries)


def _small_plus(*args, **kwargs):
    return _small(last=_Plus(*args, **kwargs), local=("guilty",))


_INITIALIZERS = tf.keras.initializers


@pytest.mark.parametrize(
    ("name", "config", "shape"),
    [
        ("RandomUniform", {"minval": -0.3, "maxval": 0.7}, (1, 50)),
        ("RandomNormal", {"mean": 1.0, "stddev": 2.0}, (50,)),
        ("TruncatedNormal", {"mean": 1.0, "stddev": 2.0}, (5, 10)),
        ("GlorotUniform", {}, (4, 12)),
        ("HeNormal", {}, (50,)),
        ("LecunNormal", {}, (3, 4, 5)),
        ("VarianceScaling", {"mode": "fan_out", "distribution": "untruncated_normal"}, (4, 12)),
        ("VarianceScaling", {"scale": 0.2, "mode": "fan_avg", "distribution": "uniform"}, (4, 12)),
    ],
)
def test_initial_local_values_are_distributed_as_keras_draws_them(name, config, shape):
    make = getattr(_INITIALIZERS, name)
    oracle = np.stack([make(**config, seed=seed)(shape) for seed in range(200)])
    model = functional.FunctionalModel(_small_plus(shape, make(**config)))
    (values,) = model.initial_local_values(_seed(range(1000)))
    assert values.shape == (1000, *shape)
    assert values.dtype == tf.float32
    # At least 9600 values each: the tolerances are over three standard errors.
    scale = oracle.std()
    np.testing.assert_allclose(np.std(values) / scale, 1, atol=0.03)
    quantiles = [np.quantile(v, [0.05, 0.25, 0.5, 0.75, 0.95]) for v in (values, oracle)]
    np.testing.assert_allclose(quantiles[0] / scale, quantiles[1] / scale, atol=0.1)
    bounds = [np.array([np.min(v), np.max(v)]) / scale for v in (values, oracle)]
    is_bounded = name != "RandomNormal" and config.get("distribution") != "untruncated_normal"
    np.testing.assert_allclose(*bounds, atol=0.05 if is_bounded else 1.5)


def _local_model(seed=None):
    """A model with local weights `[1, 50]`; the first two have the same initializer."""
    initializers = {
        "uniform": _INITIALIZERS.RandomUniform(-0.3, 0.7, seed=seed),
        "alike": _INITIALIZERS.RandomUniform(-0.3, 0.7, seed=seed),
        "normal": _INITIALIZERS.RandomNormal(1.0, 2.0, seed=seed),
        "constant": _INITIALIZERS.Constant(0.25),
        "zeros": "zeros",
    }
    item_id = _input()
    rows = [layers.UserEmbedding(50, i, name=name)(item_id) for name, i in initializers.items()]
    item = K.Flatten()(_embedding(50)(item_id))
    output = layers.InnerProduct()([item, K.Add()(rows)])
    return functional.FunctionalModel(_split(item_id, output, tuple(initializers)))


def test_initial_local_values_differ_by_client_and_weight():
    seeds = _seed(range(100))
    values = [value.numpy()[:, 0] for value in _local_model().initial_local_values(seeds)]
    uniform, alike, _, constant, zeros = values
    np.testing.assert_array_equal(constant, np.full([100, 50], 0.25))
    np.testing.assert_array_equal(zeros, np.zeros([100, 50]))
    # Of 5000 pairs: four standard errors.
    for others in (alike[1:], uniform[:-1], np.roll(uniform[1:], 1, axis=1)):
        assert abs(np.corrcoef(uniform[1:].ravel(), others.ravel())[0, 1]) < 0.06


@pytest.mark.parametrize("jit_compile", [False, True])
def test_initial_local_values_follow_from_the_seeds_alone(jit_compile):
    seeds = _seed([9, 0, 2**32 - 1])
    expected = _local_model().initial_local_values(seeds)
    for state in (1, 2):
        tf.keras.utils.set_random_seed(state)  # Of TensorFlow, NumPy and Python.
        tf.random.normal([state])
        model = _local_model(seed=state)
        draw = tf.function(model.initial_local_values, jit_compile=jit_compile)
        one_by_one = [np.stack(values) for values in zip(*map(draw, seeds))]
        for values in (draw(seeds), one_by_one):
            _assert_all_close(values, expected)


def _mixed(seed, number):
    """`fold_in` of Python's integers."""
    bits = (seed + (number + 1) * 0x9E3779B9) % 2**32
    bits = (bits ^ bits >> 16) * 0x85EBCA6B % 2**32
    bits = (bits ^ bits >> 13) * 0xC2B2AE35 % 2**32
    return bits ^ bits >> 16


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fold_in_is_murmur_hash_3s_finalizer(jit_compile):
    edges = [0, 1, 2, 77, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    seeds, numbers = (np.ravel(n).astype(np.uint32) for n in np.meshgrid(edges, edges))
    expected = [_mixed(int(s), int(n)) for s, n in zip(seeds, numbers)]
    fold_in = tf.function(functional.fold_in, jit_compile=jit_compile)
    result = fold_in(seeds, numbers)
    assert result.dtype == tf.uint32
    np.testing.assert_array_equal(result, expected)

    @tf.function(jit_compile=jit_compile)
    def at_once(*pairs):
        return tf.vectorized_map(lambda p: fold_in(*p), pairs, fallback_to_while_loop=False)

    np.testing.assert_array_equal(at_once(seeds, numbers), expected)
    np.testing.assert_array_equal(fold_in(_seed(3), 4), _mixed(3, 4))
    by_example = fold_in(_seed(3), tf.range(5))
    np.testing.assert_array_equal(by_example, [_mixed(3, n) for n in range(5)])


class _AddsLoss(K.Layer):
    def call(self, row):
        self.add_loss(tf.reduce_sum(row))
        return row


def _lambda(function):
    return K.Lambda(function, name="guilty")


def _convolution(row):
    return K.Flatten()(K.Conv1D(2, 2, name="guilty")(K.Reshape([3, 1])(row)))


def _captures(tensor):
    return _lambda(lambda row: row * tensor[..., :3])


# Models, and what their refusals say.
_REFUSED = {
    "batch_normalization": (lambda: _small(K.BatchNormalization(name="guilty")), "layer guilty"),
    "noise": (lambda: _small(K.GaussianNoise(0.1, name="guilty")), r"guilty \(GaussianNoise\)"),
    "random_op": (
        lambda: _small(_lambda(lambda row: row + tf.random.normal(tf.shape(row)))),
        "guilty runs RandomStandardNormal, which has a state or draws random numbers",
    ),
    "activity_regularizer": (
        lambda: _small(K.Dense(2, activity_regularizer="l2", name="guilty")),
        "guilty has an activity regularizer",
    ),
    "mask_zero": (lambda: _small(embed=_embedding(name="guilty", mask_zero=True)), "guilty has ma"),
    "sort": (lambda: _small(_lambda(tf.sort)), "guilty cannot be vectorised .*TopKV2"),
    "loop": (
        lambda: _small(_lambda(lambda rows: tf.map_fn(lambda row: row * 2.0, rows))),
        "guilty cannot be vectorised",
    ),
    "convolution": (lambda: _small(_convolution), "guilty cannot be vectorised .*loop invariant"),
    "mixed_examples": (
        lambda: _small(_lambda(lambda row: row - tf.reduce_mean(row, axis=0))),
        "depends on the other items of its batch",
    ),
    "variable": (lambda: _small(_captures(tf.Variable([1.0] * 3))), "guilty runs ReadVariableOp"),
    "constant": (lambda: _small(_captures(tf.ones([300]))), r"no weight .*shape=\(300,\)"),
    "added_loss": (lambda: _small(_AddsLoss(name="guilty")), "guilty adds a loss"),
    "no_initializer": (_small_plus, r"guilty/entries has no .*\(entries_initializer\)"),
    "in_a_list": (lambda: _small_plus(in_a_list=True), "guilty/entries:0 is no attribute"),
    "initializer": (
        lambda: _small_plus((3, 3), _INITIALIZERS.Orthogonal()),
        "entries .*Orthogonal",
    ),
}


@pytest.mark.parametrize(("build", "message"), _REFUSED.values(), ids=_REFUSED)
def test_what_cannot_be_called_for_many_clients_is_refused(build, message):
    split = build()
    before = _state(split)
    with pytest.raises(ValueError, match=message):
        functional.FunctionalModel(split)
    _assert_same_state(split, before)


def test_what_tensorflow_logs_of_a_refusal_is_held_back(caplog):
    split = _small(_convolution)
    with pytest.raises(ValueError, match="guilty"):
        functional.FunctionalModel(split)
    assert caplog.text == ""

    # Only then: the same outside of a refusal is logged.
    def convolve(kernel):
        return tf.nn.conv1d(tf.ones([2, 3, 1]), kernel, 1, "VALID")

    with pytest.raises(ValueError, match="loop invariant"):
        tf.function(tf.vectorized_map)(convolve, tf.ones([2, 2, 1, 1]), False)
    assert "Got error while pfor was converting" in caplog.text
