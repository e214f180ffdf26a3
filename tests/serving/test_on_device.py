"""A linear model in TensorFlow: in a SavedModel, and in the interpreter of TensorFlow Lite."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.serving import on_device, tflite
from fedrecon.serving.item_table import KINDS, StoredTable
from fedrecon.serving.linear import LeastSquares
from tests.serving.random_models import NUM_ITEMS, RULES, SIZE, given, linear_model

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
# 0: a user who gives nothing. 20 comes again, after other lengths.
LENGTHS = (20, 0, 1, 7, 120, 20)


@functools.cache
def converted(name, kind):
    model = linear_model(RULES[name])
    return tflite.convert(model, StoredTable.of(model.factors, kind))


def runners(content):
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    return {name: interpreter.get_signature_runner(name) for name in on_device.SIGNATURES}


def check_functions(functions, model):
    """Checks reconstruct, score and score_items against NumPy in float64."""
    rng = np.random.default_rng(3)
    for number in LENGTHS:
        rows, ratings = given(rng, number, model.num_items)
        vector = functions["reconstruct"](item_rows=rows, ratings=ratings)["user_vector"]
        (expected,) = model.user_vectors([(rows, ratings)])
        np.testing.assert_allclose(vector, expected, **TOLERANCE)
        scores = functions["score"](user_vector=expected)["scores"]
        np.testing.assert_allclose(scores, model.scores(expected[np.newaxis])[0], **TOLERANCE)
        some = functions["score_items"](user_vector=expected, item_rows=rows)["scores"]
        np.testing.assert_allclose(some, np.asarray(scores)[rows], **TOLERANCE)


@pytest.mark.parametrize("name", RULES)
def test_tensorflow_lite_gives_what_numpy_gives(name):
    check_functions(runners(converted(name, "float32")), linear_model(RULES[name]))


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_quantized_file_gives_what_its_table_gives(kind):
    model = linear_model(RULES["implicit_least_squares"])
    table = StoredTable.of(model.factors, kind).to_float32()
    assert np.abs(table - model.factors).max() > 0
    stored = dataclasses.replace(model, factors=table)
    check_functions(runners(converted("implicit_least_squares", kind)), stored)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "float32") for name in RULES),
        ("least_squares", "float16"),
        ("gradient_steps", "int8"),
    ],
)
def test_a_saved_model_gives_what_numpy_gives(name, kind, tmp_path):
    model = linear_model(RULES[name])
    table = StoredTable.of(model.factors, kind)
    on_device.write(model, table, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))

    def call(signature, **inputs):
        return loaded.signatures[signature](**{k: tf.constant(v) for k, v in inputs.items()})

    functions = {key: functools.partial(call, key) for key in on_device.SIGNATURES}
    check_functions(functions, dataclasses.replace(model, factors=table.to_float32()))


@pytest.mark.parametrize("name", RULES)
def test_padding_changes_nothing(name):
    reconstruct = runners(converted(name, "float32"))["reconstruct"]
    rows, ratings = given(np.random.default_rng(0), 8)
    plain = reconstruct(item_rows=rows, ratings=ratings)["user_vector"]
    padded = reconstruct(
        item_rows=np.append(rows, np.full(5, -1, np.int32)),
        ratings=np.append(ratings, np.full(5, 9.0, np.float32)),
    )["user_vector"]
    np.testing.assert_allclose(padded, plain, rtol=1e-6, atol=1e-7)


def test_gradient_steps_depend_on_the_order_of_what_is_given():
    reconstruct = runners(converted("gradient_steps", "float32"))["reconstruct"]
    rows, ratings = given(np.random.default_rng(0), 8)
    forth = reconstruct(item_rows=rows, ratings=ratings)["user_vector"]
    back = reconstruct(item_rows=rows[::-1].copy(), ratings=ratings[::-1].copy())["user_vector"]
    assert np.abs(forth - back).max() > 1e-3


def test_an_ill_conditioned_system_is_solved():
    """One rating of each of a few items, and hardly any regularization."""
    model = linear_model(LeastSquares((1e-3,) * SIZE, exponent=0.0))
    module = on_device.OnDevice(model, StoredTable.of(model.factors, "float32"))
    rows, ratings = given(np.random.default_rng(1), 4)
    reconstruct = module.signatures()["reconstruct"]
    vector = reconstruct(item_rows=tf.constant(rows), ratings=tf.constant(ratings))["user_vector"]
    (expected,) = model.user_vectors([(rows, ratings)])
    np.testing.assert_allclose(vector, expected, **TOLERANCE)


def test_a_file_has_only_operations_of_its_own_runtime_and_the_table_once():
    table_bytes = NUM_ITEMS * SIZE * 4
    sizes = {kind: len(converted("implicit_least_squares", kind)) for kind in KINDS}
    assert sizes["float32"] - sizes["float16"] == pytest.approx(table_bytes / 2, abs=2000)
    assert sizes["float32"] < table_bytes + 40_000
    assert b"Flex" not in converted("implicit_least_squares", "int8")


@pytest.mark.slow
def test_int8_takes_about_a_quarter_and_193_unknowns_some_milliseconds():
    model = linear_model(RULES["implicit_least_squares"], num_items=4000, size=193)
    files = {kind: tflite.convert(model, StoredTable.of(model.factors, kind)) for kind in KINDS}
    gram = 193 * 193 * 4
    assert len(files["int8"]) - gram < 0.30 * (len(files["float32"]) - gram)
    assert len(files["float16"]) - gram < 0.53 * (len(files["float32"]) - gram)
    found = tflite.latencies(files["int8"], model.num_items)
    assert set(found) == {"reconstruct_from_20", "score_and_top_10"}
    # About 0.4 ms where little else runs.
    assert found["reconstruct_from_20"] < 50
