"""Functions that build models, and which of them build models that differ in values alone."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import model_fn, structure
from fedrecon.models.neural_cf import gmf, mlp, neumf

BUILDERS = [
    model_fn(
        matrix_factorization, 7, 2, user_bias=True, item_bias=True, global_bias=True, l2=0.1, seed=3
    ),
    model_fn(gmf, 7, 2, seed=3),
    model_fn(mlp, 7, (8, 4), seed=3),
    model_fn(neumf, 7, gmf_dim=2, hidden_units=(8, 4), seed=3),
]
IDS = ["matrix_factorization", "gmf", "mlp", "neumf"]


def with_settings(build_model, **changes):
    return model_fn(build_model.func, *build_model.args, **{**build_model.keywords, **changes})


def values_of(model):
    layers = (*model.global_layers, *model.local_layers)
    return [weight.numpy() for layer in layers for weight in layer.weights]


@pytest.mark.parametrize("build_model", BUILDERS, ids=IDS)
def test_each_call_builds_the_same_model_anew(build_model):
    first, second = build_model(), build_model()
    assert first.keras_model is not second.keras_model
    for one, other in zip(values_of(first), values_of(second)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("build_model", BUILDERS, ids=IDS)
def test_models_of_one_structure_differ_in_values_alone(build_model):
    other = with_settings(build_model, seed=4)
    assert structure(build_model) == structure(other)
    assert hash(structure(build_model)) == hash(structure(other))
    models = [build_model(), other()]
    configs = [model.keras_model.get_config() for model in models]
    for config in configs:
        for layer in config["layers"]:
            for name in [name for name in layer["config"] if name.endswith("_initializer")]:
                layer["config"][name]["config"].pop("seed", None)
    assert configs[0] == configs[1]
    values = [values_of(model) for model in models]
    assert [v.shape for v in values[0]] == [v.shape for v in values[1]]
    assert any(np.any(a != b) for a, b in zip(*values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_bias", False),
        ("item_bias", False),
        ("global_bias", False),
        ("initial_rating", 3.0),
        ("l2", 0.2),
        ("user_l2", 0.0),
        ("spread_out", 0.1),
    ],
)
def test_every_setting_but_the_seed_is_part_of_the_structure(name, value):
    assert structure(with_settings(BUILDERS[0], **{name: value})) != structure(BUILDERS[0])


def test_the_builder_and_the_sizes_are_part_of_the_structure():
    keys = {
        structure(model_fn(matrix_factorization, 7, 2)),
        structure(model_fn(matrix_factorization, 8, 2)),
        structure(model_fn(matrix_factorization, 7, 3)),
        structure(model_fn(gmf, 7, 2)),
    }
    assert len(keys) == 4


def test_other_functions_equal_only_themselves():
    def build():
        return matrix_factorization(7, 2)

    assert structure(build) is build
    assert structure(build) != structure(lambda: matrix_factorization(7, 2))


def test_arguments_that_cannot_be_hashed_equal_nothing_else():
    build_model = model_fn(mlp, 7, [8, 4])
    assert structure(build_model) is build_model
    assert structure(build_model) != structure(model_fn(mlp, 7, [8, 4]))


def test_initializers_are_told_apart():
    """An object is equal to itself alone: one that looks the same may draw otherwise."""
    start = tf.keras.initializers.Constant(0.5)
    same = [model_fn(matrix_factorization, 7, 2, user_initializer=start) for _ in range(2)]
    assert structure(same[0]) == structure(same[1])
    other = with_settings(same[0], user_initializer=tf.keras.initializers.Constant(0.5))
    assert structure(other) != structure(same[0])


def test_any_partial_function_has_a_structure():
    build_model = functools.partial(matrix_factorization, 7, dim=2, seed=9)
    assert structure(build_model) == structure(model_fn(matrix_factorization, 7, dim=2))
