"""Models by the name of the function that builds them: what such functions get, and refusals."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import InputError
from fedrecon.models import by_name, functional, layers, neural_cf, split_model
from fedrecon.models.matrix_factorization import matrix_factorization
from tests.models.small_models import TutorialUserEmbedding, call_keras, given_values, tutorial

K = tf.keras.layers
NUM_ITEMS = 8
GENRES = tuple(("Drama",) if item % 3 else ("Comedy", "Drama") for item in range(NUM_ITEMS))
RATINGS = dataclasses.replace(
    synthetic_ratings(
        num_users=4, num_items=NUM_ITEMS, mean_ratings_per_user=3, min_ratings_per_user=2
    ),
    item_genres=GENRES,
)
SETTINGS = {"seed": 3, "dim": 4, "l2": 0.5}


@pytest.fixture
def resolve(monkeypatch):
    """A function that names another function `own_models:f` and resolves that name."""

    def call(function, *, is_explicit=True, name="own_models:f", **more):
        module = types.ModuleType("own_models")
        module.__file__ = "own_models.py"
        if function is not None:
            module.f = function
            if hasattr(function, "__module__"):
                function.__module__ = "own_models"
        monkeypatch.setitem(sys.modules, "own_models", module)
        return by_name.model_from_name(name, RATINGS, is_explicit=is_explicit, **SETTINGS, **more)

    return call


def two_layers(ratings, *, loss_fn=tf.keras.losses.MeanSquaredError, **changes):
    """The least that trains: an item table and a local layer, both with fixed initial values."""
    item_id = K.Input([1], dtype=tf.int64)
    table = K.Embedding(ratings.num_items, 2, embeddings_initializer="ones", name="item")
    taste = K.Dense(1, kernel_initializer="ones", name="taste")
    values = {
        "keras_model": tf.keras.Model(item_id, taste(K.Flatten()(table(item_id)))),
        "global_layers": [table],
        "local_layers": [taste],
        "input_spec": split_model.rating_input_spec(),
        "loss_fn": loss_fn,
        "metrics_fn": list,
    }
    return split_model.SplitModel(**{**values, **changes})


def test_a_function_gets_the_ratings_and_the_settings_that_it_names(resolve):
    calls = []

    def f(ratings, dim, hidden=7, *, seed=0):
        calls.append((ratings, dim, hidden, seed))
        return matrix_factorization(ratings.num_items, dim, seed=seed)

    build = resolve(f)
    model = build()
    assert set(calls) == {(RATINGS, 4, 7, 3)}
    expected = matrix_factorization(NUM_ITEMS, 4, seed=3)
    for one, other in zip(model.keras_model.weights, expected.keras_model.weights):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("is_explicit", [True, False])
def test_our_own_models_can_be_named(resolve, is_explicit):
    def f(ratings, seed):
        if is_explicit:
            return matrix_factorization(ratings.num_items, 2, seed=seed)
        return neural_cf.gmf(ratings.num_items, 2, seed=seed)

    assert isinstance(resolve(f, is_explicit=is_explicit)(), split_model.SplitModel)


def test_a_module_of_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "helper_of_mine.py").write_text("DIM = 3\n")
    (tmp_path / "model_of_mine.py").write_text(
        "from fedrecon.models.matrix_factorization import matrix_factorization\n"
        "class Models:\n"
        "    def small(ratings):\n"
        "        from helper_of_mine import DIM\n"
        "        return matrix_factorization(ratings.num_items, DIM)\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    name = "model_of_mine:Models.small"
    model = by_name.model_from_name(name, RATINGS, is_explicit=True)()
    assert model.keras_model.get_layer("item_embedding").output_dim == 3
    assert sys.path == before


def test_features_by_item_are_a_frozen_embedding(resolve):
    def f(ratings, dim, seed):
        names = sorted({name for of_item in ratings.item_genres for name in of_item})
        features = np.array([[n in of_item for n in names] for of_item in ratings.item_genres])
        item_id = K.Input([1], dtype=tf.int64)
        genres = K.Embedding(
            ratings.num_items,
            len(names),
            embeddings_initializer=tf.keras.initializers.Constant(features.astype(np.float32)),
            trainable=False,
            name="genres",
        )
        encode = K.Dense(
            dim, kernel_initializer=tf.keras.initializers.GlorotUniform(seed), name="encode"
        )
        user = layers.UserEmbedding(dim, tf.keras.initializers.RandomUniform(seed=seed))
        score = layers.InnerProduct()([user(item_id), encode(K.Flatten()(genres(item_id)))])
        return two_layers(
            ratings,
            keras_model=tf.keras.Model(item_id, score),
            global_layers=[genres, encode],
            local_layers=[user],
        )

    split = resolve(f)()
    np.testing.assert_array_equal(
        split.keras_model.get_layer("genres").get_weights()[0],
        [[1, 1] if item % 3 == 0 else [0, 1] for item in range(NUM_ITEMS)],
    )
    model = functional.FunctionalModel(split)
    (table,) = [weight for weight in model.weights if weight.is_item_table]
    assert (table.name, table.trainable) == ("genres/embeddings", False)
    wholes = [variable.numpy() for variable in split.global_weights + split.local_weights]
    ids = np.array([3, 0, 7, 2], np.int32)
    predictions = model.predict(ids, given_values(model, wholes, ids))
    np.testing.assert_allclose(predictions, call_keras(split, wholes, ids)[0], 1e-5)


def _with_two_inputs(ratings):
    item_id, age = K.Input([1], dtype=tf.int64, name="item_id"), K.Input([1], name="age")
    table = K.Embedding(ratings.num_items, 2, embeddings_initializer="ones")
    taste = K.Dense(1, kernel_initializer="ones", name="taste")
    score = taste(K.Concatenate()([K.Flatten()(table(item_id)), age]))
    model = tf.keras.Model([item_id, age], score, name="two_inputs")
    return two_layers(ratings, keras_model=model, global_layers=[table], local_layers=[taste])


def _of_history(ratings):
    history = K.Input([5], dtype=tf.int64, name="history")
    taste = K.Dense(1, kernel_initializer="ones")
    model = tf.keras.Model(history, taste(tf.cast(history, tf.float32)), name="of_history")
    return two_layers(ratings, keras_model=model, global_layers=[], local_layers=[taste])


def _many_scores(ratings):
    item_id = K.Input([1], dtype=tf.int64)
    taste = K.Dense(5, kernel_initializer="ones")
    model = tf.keras.Model(item_id, taste(tf.cast(item_id, tf.float32)), name="many_scores")
    return two_layers(ratings, keras_model=model, global_layers=[], local_layers=[taste])


def _noisy(ratings):
    item_id = K.Input([1], dtype=tf.int64)
    noise, taste = K.GaussianNoise(0.1, name="noise"), K.Dense(1, kernel_initializer="ones")
    score = taste(noise(tf.cast(item_id, tf.float32)))
    model = tf.keras.Model(item_id, score, name="noisy")
    return two_layers(ratings, keras_model=model, global_layers=[], local_layers=[taste])


def _other_weights():
    dims = iter([2, 3])
    return lambda ratings: matrix_factorization(ratings.num_items, next(dims))


_WITHOUT_A_SEED = tf.keras.initializers.RandomUniform
_BCE = tf.keras.losses.BinaryCrossentropy
# Functions, and what their refusals say.
REFUSED = {
    "needs_more": (lambda ratings, width: None, "needs width; .* by name, dim, l2, seed, so give"),
    "no_argument": (lambda: None, "takes no argument"),
    "not_callable": (3, "own_models:f is a int; it must be a function"),
    "keras_model": (lambda ratings: two_layers(ratings).keras_model, "returned a Functional"),
    "nothing": (lambda ratings: None, "returned a NoneType; it must return a .*SplitModel"),
    "other_weights": (_other_weights(), "other weights at its second call"),
    "no_seed": (
        lambda ratings: matrix_factorization(
            ratings.num_items, 2, item_initializer=_WITHOUT_A_SEED()
        ),
        r"other values of item_embedding/embeddings:0 at its second call.* seed=seed",
    ),
    "spec": (
        lambda ratings: two_layers(
            ratings, input_spec={"x": tf.TensorSpec([None, 1]), "y": tf.TensorSpec([None, 1])}
        ),
        "input_spec of x, but",
    ),
    "loss": (lambda ratings: two_layers(ratings, loss_fn=lambda **_: 3), "makes a int"),
    "binary": (lambda ratings: two_layers(ratings, loss_fn=_BCE), "ratings of 1 to 5 in steps"),
    "classes": (
        lambda ratings: two_layers(ratings, loss_fn=tf.keras.losses.CategoricalCrossentropy),
        "CategoricalCrossentropy, which needs a prediction for each of many classes",
    ),
    "too_few_items": (
        lambda ratings: matrix_factorization(ratings.num_items - 1, 2),
        "has 7 rows in the embedding item_embedding, but the data set has 8 items",
    ),
    "two_inputs": (
        _with_two_inputs,
        r"two_inputs has 2 inputs \(item_id \[None, 1\], age \[None, 1\]\).*trainable=False",
    ),
    "history": (_of_history, r"takes history \[None, 5\], but a client's examples are item ids"),
    "many_scores": (_many_scores, r"gives \[None, 5\], but a prediction is one number"),
    "noise": (_noisy, r"cannot be trained: The layer noise \(GaussianNoise\) runs"),
    "tutorial": (
        lambda ratings: tutorial(TutorialUserEmbedding(3)),
        "other values of ItemEmbedding/embeddings:0",
    ),
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_a_function_that_builds_no_such_model_is_refused(resolve, function, message):
    with pytest.raises(InputError, match=message):
        resolve(function)


def test_zeros_and_ones_may_have_a_binary_loss_and_stock_tff_may_draw(resolve):
    resolve(lambda ratings: two_layers(ratings, loss_fn=_BCE), is_explicit=False)
    resolve(_noisy, is_vectorized=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:f", "no module nowhere, neither here .* nor among the installed packages"),
        ("fedrecon.nowhere:f", "no module fedrecon.nowhere"),
        ("no colon", "'no colon' is not of the form package.module:function"),
        (":f", "is not of the form"),
        ("own_models:", "is not of the form"),
        ("own_models:f:g", "is not of the form"),
        ("own_models:g", r"own_models \(own_models.py\) has no g; its functions are f"),
    ],
)
def test_a_name_of_nothing_is_refused(resolve, name, message):
    with pytest.raises(InputError, match=message):
        resolve(two_layers, name=name)


def test_a_module_that_misses_another_one_says_which(tmp_path, monkeypatch):
    (tmp_path / "model_that_imports.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="imports surely_not_installed, which is not installed"):
        by_name.load_function("model_that_imports:f")


def test_names_of_functions_have_a_colon():
    assert by_name.is_function_name("own_models:f")
    assert not by_name.is_function_name("matrix_factorization")
