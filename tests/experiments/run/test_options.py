"""From settings to the model and the options that they choose."""

import types

import numpy as np
import pytest

from experiments.run import build
from experiments.run import options as run_options
from fedrecon.data.ratings import RatingScale
from fedrecon.ials_units import PairCounts
from fedrecon.models.model_fn import structure
from tests.experiments.small import small_settings

RATINGS = types.SimpleNamespace(num_items=9, scale=RatingScale(1, 5, 1))


def replace(**changes):
    return small_settings(**{"dim": 2, "batch_size": 5, **changes})


@pytest.mark.parametrize(
    ("changes", "global_shapes", "local_shapes"),
    [
        ({"item_bias": True, "user_bias": True}, [[9, 2], [9, 1]], [[1, 2], [1, 1]]),
        ({"model": "gmf"}, [[9, 2], [2, 1], [1]], [[1, 2]]),
        (
            {"model": "neumf", "hidden_units": "8,4"},
            [[9, 2], [9, 4], [8, 4], [4], [6, 1], [1]],
            [[1, 2], [1, 4]],
        ),
    ],
)
def test_settings_choose_the_model(changes, global_shapes, local_shapes):
    settings = replace(label_threshold=4.0, l2=0.125, **changes)
    model = build.model_fn(settings, RATINGS)()
    assert sorted(w.shape.as_list() for w in model.global_weights) == sorted(global_shapes)
    assert sorted(w.shape.as_list() for w in model.local_weights) == sorted(local_shapes)
    assert model.keras_model.losses  # L2 arrived.


def test_settings_choose_the_algorithm_options():
    options = run_options.fed_recon_options(
        replace(
            reconstruction_optimizer="adam",
            reconstruction_learning_rate=0.25,
            client_steps_max=4,
            client_weighting="uniform",
            support_query_split="none",
        )
    )
    assert (options.reconstruction_optimizer.name, options.client_optimizer.name) == ("adam", "sgd")
    optimizers = (
        options.reconstruction_optimizer,
        options.client_optimizer,
        options.server_optimizer,
    )
    rates = [optimizer.learning_rate for optimizer in optimizers]
    assert rates == [0.25, 0.5, 1.0]
    assert (options.client_steps_max, options.reconstruction_steps_max) == (4, None)
    assert (options.client_weighting, options.support_query_split) == ("uniform", "none")


def test_settings_choose_the_options_of_the_baselines():
    options = run_options.fed_avg_options(
        replace(
            client_optimizer="adamw",
            client_learning_rate=0.25,
            client_epochs=3,
            averaging="by_row",
            gradient_clip_norm=2.0,
        )
    )
    assert (options.client_optimizer.name, options.client_optimizer.learning_rate) == (
        "adamw",
        0.25,
    )
    assert (options.client_epochs, options.averaging, options.gradient_clip_norm) == (
        3,
        "by_row",
        2.0,
    )
    central = run_options.centralized_options(
        replace(client_optimizer="adam", client_learning_rate=0.125, minibatch_size=33)
    )
    assert (central.optimizer.name, central.optimizer.learning_rate) == ("adam", 0.125)
    assert central.batch_size == 33


def test_settings_choose_exact_reconstruction():
    solved = {"ridge": 3.0, "ridge_exponent": 0.5, "bias_ridge": 2.0}
    options = run_options.fed_recon_options(replace(algorithm="fed_recon_ls", **solved))
    assert (options.reconstruction, options.client_takes_one_step) == ("least_squares", True)
    # The server gets the gradient itself.
    assert (options.client_optimizer.name, options.client_optimizer.learning_rate) == ("sgd", 1.0)
    squares = options.least_squares
    assert (squares.regularization, squares.exponent) == (3.0, 0.5)
    assert squares.bias_regularization == 2.0
    # What is not given is left to the options' own defaults.
    default = run_options.fed_recon_options(replace(algorithm="fed_recon_ls")).least_squares
    assert default == type(default)()

    by_steps = run_options.fed_recon_options(replace(reconstruction="least_squares", **solved))
    assert (by_steps.reconstruction, by_steps.client_takes_one_step) == ("least_squares", False)
    assert by_steps.client_optimizer.learning_rate == 0.5

    implicit = run_options.fed_ials_options(
        replace(
            algorithm="fed_ials",
            feedback="implicit",
            ridge=0.5,
            ridge_exponent=0.25,
            unobserved_weight=0.75,
            server_optimizer="adam",
            server_learning_rate=0.125,
        ),
        PairCounts(num_users=400, num_items=100, num_pairs=1600),
    )
    # 4 items a user and 16 users an item: noise reaches up to 2 + 4, and with all other pairs rows
    # weigh 1.75 times 4 and 16, of which 8 is the geometric mean.
    assert implicit.regularization == pytest.approx(0.5 * 6 / (1.75 * 8) ** 0.25)
    assert implicit.exponent == 0.25
    assert implicit.unobserved_weight == pytest.approx(0.75 * 1600 / 40_000)
    assert (implicit.server_optimizer.name, implicit.server_optimizer.learning_rate) == (
        "adam",
        0.125,
    )


@pytest.mark.parametrize(
    ("changes", "is_regularized"),
    [
        ({"algorithm": "fed_recon_ls"}, False),
        ({"reconstruction": "least_squares"}, False),
        # Its users' rows are trained by steps; unseen users are solved for by a model of their own.
        ({"algorithm": "centralized", "reconstruction": "least_squares"}, True),
        ({}, True),
    ],
)
def test_l2_leaves_out_what_is_solved_for_in_training(changes, is_regularized):
    settings = replace(l2=0.5, user_bias=True, **changes)
    layers = build.model_fn(settings, RATINGS)().local_layers
    assert [bool(layer.losses) for layer in layers] == [is_regularized] * 2
    serving = build.model_fn(settings, RATINGS, for_reconstruction=True)().local_layers
    assert [bool(layer.losses) for layer in serving] == [not settings.is_solved] * 2


@pytest.mark.parametrize(
    ("changes", "strengths"),
    [
        ({"l2": 0.5}, (0.5, 0.5)),
        ({"l2": 0.5, "user_l2": 2.0}, (0.5, 2.0)),
        ({"user_l2": 2.0}, (0, 2.0)),
    ],
)
def test_the_users_part_has_an_l2_of_its_own(changes, strengths):
    model = build.model_fn(replace(algorithm="stateful_fed_avg", **changes), RATINGS)()
    for (layer,), strength in zip((model.global_layers, model.local_layers), strengths):
        expected = strength * np.square(layer.embeddings.numpy()).sum()
        assert sum(map(float, layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_models_of_settings_have_a_structure_that_runs_share():
    """Runs that differ in their seeds or rounds share what is compiled for their models."""
    neural = {"model": "neumf", "dim": 5, "hidden_units": "8,4", "label_threshold": 4.0}
    biased = {"user_bias": True, "item_bias": True, "global_bias": True, "spread_out": 0.5}
    for values in (neural, biased):
        settings = replace(**values, l2=0.25, seed=3, client_epochs=2)
        other = replace(**values, l2=0.25, seed=4, client_epochs=1, algorithm="fed_avg")
        keys = [structure(build.model_fn(each, RATINGS)) for each in (settings, other)]
        assert keys[0] == keys[1]
        stronger = replace(**values, l2=0.125, seed=3)
        assert structure(build.model_fn(stronger, RATINGS)) != keys[0]
