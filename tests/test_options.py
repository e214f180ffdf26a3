import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.errors import InputError
from fedrecon.options import (
    OPTIMIZERS,
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
    LeastSquaresOptions,
    OptimizerOptions,
)

# Two steps with gradients 2 and 1 from weight 1 at rate 0.1, by the published update rules.
# adam, yogi: beta 0.9 and 0.999, epsilon 1e-7 and 1e-3; adagrad: accumulator from 0.1; adamw: decay
# 0.004. Second moments: adam v = 0.004, 0.004996; yogi as adam while v < g^2.
_SECOND_ADAM = (0.28 / 0.19) / (np.sqrt(0.004996 / 0.001999) + 1e-7)
EXPECTED = {
    "sgd": 1 - 0.1 * 2 - 0.1 * 1,
    "momentum": 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 1),
    "adagrad": 1 - 0.1 * 2 / np.sqrt(4.1) - 0.1 * 1 / np.sqrt(5.1),
    "adam": 1 - 0.1 - 0.1 * _SECOND_ADAM,
}


def two_steps(name):
    optimizer = OptimizerOptions(name, 0.1).build()
    weight = tf.constant([1.0])
    state = optimizer.initialize(tf.TensorSpec([1]))
    for gradient in (2.0, 1.0):
        state, weight = optimizer.next(state, weight, tf.constant([gradient]))
    return float(weight[0])


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_optimizer_follows_its_published_rule(name):
    assert two_steps(name) == pytest.approx(EXPECTED[name], rel=1e-4)


def test_the_names_build_different_optimizers():
    # adamw shrinks the weight as well; yogi adds a larger epsilon. Rounded: adam and yogi are near.
    assert len({round(two_steps(name), 4) for name in OPTIMIZERS}) == len(OPTIMIZERS)


_MOMENTUM = OptimizerOptions("momentum", 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerOptions("lion", 0.1), "is 'lion'; it must be one of sgd, momentum"),
        (lambda: OptimizerOptions("sgd", 0.0), "learning rate of sgd is 0.0; it must be positive"),
        (lambda: OptimizerOptions("sgd", float("nan")), "is nan; it must be positive"),
        (lambda: FedReconOptions(batch_size=0), "batch_size is 0; it must be at least 1"),
        (lambda: FedReconOptions(client_steps_max=0), "client_steps_max is 0"),
        (lambda: FedReconOptions(support_query_split="half"), "is 'half'; it must be one of"),
        (lambda: FedReconOptions(client_weighting="size"), "is 'size'; it must be one of"),
        (
            lambda: FedReconOptions(reconstruction="exact"),
            "reconstruction is 'exact'; it must be one of gradient_steps, least_squares",
        ),
        (
            lambda: FedReconOptions(client_takes_one_step=True, client_epochs=2),
            "client_takes_one_step is with client_epochs=2 and client_steps_max=None; with 1 and",
        ),
        (
            lambda: FedReconOptions(client_takes_one_step=True, client_steps_max=1),
            "client_takes_one_step is with client_epochs=1 and client_steps_max=1; with 1 and",
        ),
    ],
)
def test_options_refuse_what_cannot_work(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regularization": 0.0}, "the regularization of least squares is 0.0; it must be pos"),
        ({"regularization": float("nan")}, "the regularization of least squares is nan"),
        ({"regularization": float("inf")}, "the regularization of least squares is inf"),
        ({"bias_regularization": 0.0}, "the bias_regularization of least squares is 0.0"),
        ({"bias_regularization": float("nan")}, "the bias_regularization of least squares is nan"),
        ({"exponent": -0.01}, "the exponent of the regularization is -0.01; it must be from 0"),
        ({"exponent": 1.01}, "the exponent of the regularization is 1.01; it must be from 0"),
        ({"exponent": float("nan")}, "the exponent of the regularization is nan"),
    ],
    ids=str,
)
def test_least_squares_refuses_what_cannot_work(settings, message):
    with pytest.raises(InputError, match=message):
        LeastSquaresOptions(**settings)


def test_options_at_their_limits_are_taken():
    for exponent in (0.0, 1.0):
        assert LeastSquaresOptions(exponent=exponent).bias_regularization is None
    # Steps of any kind and number go with a solution.
    frozen = FedReconOptions(
        reconstruction="least_squares", client_optimizer=_MOMENTUM, client_epochs=2
    )
    assert frozen.is_exact
    assert not FedReconOptions(client_optimizer=_MOMENTUM).is_exact


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FedReconOptions().batch_size = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"averaging": "median"}, "averaging is 'median'; it must be one of plain, by_row"),
        ({"client_weighting": "size"}, "client weighting is 'size'; it must be one of"),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm is 0.0; it must be positive"),
        ({"gradient_clip_norm": float("nan")}, "gradient_clip_norm is nan; it must be positive"),
        ({"client_epochs": 0}, "client_epochs is 0; it must be at least 1"),
        ({"client_steps_max": 0}, "client_steps_max is 0; it must be at least 1, or None"),
    ],
)
def test_federated_averaging_refuses_what_cannot_work(changes, message):
    with pytest.raises(InputError, match=message):
        FedAvgOptions(**changes)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"regularization": 0.0}, "regularization of federated iALS is 0.0; it must be positive"),
        ({"regularization": float("nan")}, "regularization of federated iALS is nan"),
        ({"regularization": float("inf")}, "regularization of federated iALS is inf"),
        ({"unobserved_weight": 0.0}, "unobserved_weight of federated iALS is 0.0"),
        ({"unobserved_weight": -1.0}, "unobserved_weight of federated iALS is -1.0"),
        ({"exponent": 1.5}, "exponent of the regularization is 1.5; it must be from 0"),
        ({"exponent": -0.5}, "exponent of the regularization is -0.5"),
        ({"exponent": float("nan")}, "exponent of the regularization is nan"),
    ],
)
def test_federated_ials_refuses_what_cannot_work(setting, words):
    with pytest.raises(InputError, match=words):
        FedIalsOptions(**setting)


def test_centralized_training_refuses_what_cannot_work():
    with pytest.raises(InputError, match="batch_size is 0; it must be at least 1"):
        CentralizedOptions(batch_size=0)
