"""FedRecon with exact reconstruction: rounds, serving, evaluation."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_recon, reconstruction
from fedrecon.errors import InputError
from fedrecon.options import FedReconOptions, OptimizerOptions
from tests.engine.linear_models import (
    BIASED_MF,
    REGULARIZED_MF,
    mf,
    random_weights,
    tower_model,
)
from tests.engine.numpy_least_squares import (
    CLIENTS,
    DIM,
    NOTHING,
    RIDGE,
    descended,
    divided,
    normal_equations,
    query_errors,
    ridge_of_mf,
    tensorflow_mf,
    tensorflow_tower,
)
from tests.engine.test_least_squares_refusals import linear_model
from tests.tiny import assert_close, pack

pytestmark = pytest.mark.usefixtures("in_process_runtime")
# With both rates 1, what a round subtracts is the gradient.
EXACT = FedReconOptions(
    reconstruction="least_squares",
    least_squares=RIDGE,
    client_optimizer=OptimizerOptions("sgd", 1.0),
    server_optimizer=OptimizerOptions("sgd", 1.0),
    batch_size=2,
    client_takes_one_step=True,
)


def flat(local_values):
    return np.concatenate([np.reshape(v, [len(v), -1]) for v in local_values], axis=1)


@functools.cache
def serving():
    return reconstruction.build_reconstruction(mf(), EXACT, clients_per_shard=4)


def serve(weights, clients):
    packing = reconstruction.reconstruction_packing_options(EXACT, seed=0)
    shards = pack(clients, packing, num_clients=4, num_examples=None)
    found = serving()(tff.learning.models.ModelWeights(weights, []), shards)
    return np.concatenate([flat(of_shard) for of_shard in found])


def test_served_users_get_the_solution_of_all_their_ratings():
    weights = random_weights(mf())
    expected = [ridge_of_mf(weights, client) for client in [*CLIENTS, NOTHING, NOTHING]]
    np.testing.assert_allclose(serve(weights, CLIENTS), expected, atol=2e-6)


def test_a_user_that_cannot_be_served_does_not_harm_the_others():
    weights = random_weights(mf())
    broken = (np.array([0, 1]), np.array([np.nan, 3], np.float32))
    # Nobody's padding has what comes next, which is broken.
    found = serve(weights, [CLIENTS[0], NOTHING, broken, CLIENTS[1]])
    assert not np.isfinite(found[2]).any()
    for place, client in ((0, CLIENTS[0]), (1, NOTHING), (3, CLIENTS[1])):
        np.testing.assert_allclose(found[place], ridge_of_mf(weights, client), atol=2e-6)


@functools.cache
def built(model_fn, options, num_clients=5):
    return fed_recon.build_fed_recon(model_fn, options, clients_per_shard=num_clients)


def run_round(model_fn, options, weights, clients=CLIENTS, *, num_clients=5):
    """The global weights after a round from `weights`, and the metrics of the round."""
    process = built(model_fn, options, num_clients)
    state = process.initialize()
    num_trained = len(process.get_model_weights(state).trainable)
    state = process.set_model_weights(
        state, tff.learning.models.ModelWeights(weights[:num_trained], weights[num_trained:])
    )
    packing = fed_recon.packing_options(options, seed=0)
    output = process.next(state, pack(clients, packing, num_clients=num_clients, num_examples=None))
    after = process.get_model_weights(output.state)
    after = [*after.trainable, *after.non_trainable]
    return [np.array(weight) for weight in after], output.metrics["client_work"]["train"]


@pytest.mark.slow
def test_a_round_subtracts_the_gradient_of_the_mean_query_error():
    before = random_weights(mf())
    after, metrics = run_round(BIASED_MF, EXACT, before)
    fit = functools.partial(normal_equations, RIDGE, DIM)
    assert_close(after, descended(tensorflow_mf, fit, before))

    errors = query_errors(before)
    assert (metrics["num_examples"], metrics["num_clients_rejected"]) == (len(errors), 0)
    assert metrics["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)

    # The same by differences of two evaluations, for an entry of each weight. Item 0 is in one
    # client's support and in another's query.
    for index, entry in ((0, (0, 1)), (1, (0, 0)), (2, ())):
        sums = []
        for step in (1e-5, -1e-5):
            moved = [np.array(weight, np.float64) for weight in before]
            moved[index][entry] += step
            errors = query_errors(moved, solved_at=before)
            sums.append((errors**2).mean())
        slope = (sums[0] - sums[1]) / 2e-5
        assert abs(slope) > 1e-2
        assert before[index][entry] - after[index][entry] == pytest.approx(slope, abs=1e-5)


@pytest.mark.slow
def test_a_regularized_global_part_shrinks_as_a_whole():
    before = random_weights(mf())
    after, _ = run_round(REGULARIZED_MF, EXACT, before)
    fit = functools.partial(normal_equations, RIDGE, DIM)
    assert_close(after, descended(tensorflow_mf, fit, before, l2=0.1))
    for index in (0, 1):  # The rows and the bias of the item that nobody has.
        np.testing.assert_allclose(after[index][8], 0.8 * before[index][8], rtol=1e-5)


@pytest.mark.slow
def test_layers_below_the_local_part_get_their_gradient():
    before = random_weights(tower_model)
    (*after, facts), _ = run_round(tower_model, EXACT, before)
    fit = functools.partial(normal_equations, RIDGE, DIM + 4)
    *expected, _ = descended(tensorflow_tower, fit, before)
    assert_close(after, expected, 5e-5)
    np.testing.assert_array_equal(facts, before[3])


@pytest.mark.slow
def test_one_step_takes_the_whole_query_after_gradient_steps_too():
    options = dataclasses.replace(
        EXACT,
        reconstruction="gradient_steps",
        reconstruction_optimizer=OptimizerOptions("sgd", 0.1),
        reconstruction_epochs=3,
    )

    def descend(rows, targets):
        local = np.array([0.05] * DIM + [0.0])  # What its layers start from.
        starts = [*range(0, len(targets), 2)] * 3
        for start in starts:
            e_n, target = (array.numpy()[start : start + 2] for array in (rows, targets))
            local = local - 0.1 * 2 * e_n.T @ (e_n @ local - target) / len(target)
        return tf.constant(local)

    before = random_weights(mf())
    after, metrics = run_round(BIASED_MF, options, before)
    assert_close(after, descended(tensorflow_mf, descend, before))
    assert metrics["num_examples"] == 8


@pytest.mark.slow
def test_several_client_steps_follow_one_solution():
    options = dataclasses.replace(
        EXACT,
        client_takes_one_step=False,
        client_optimizer=OptimizerOptions("sgd", 0.2),
        client_epochs=2,
        # Settings of gradient steps, of which there are none.
        reconstruction_epochs=3,
        reconstruction_steps_max=1,
    )
    before = random_weights(mf())
    changes, num_used = [np.zeros(weight.shape) for weight in before], 0
    for client in CLIENTS:
        support, query = divided(client)
        local = ridge_of_mf(before, support)
        rows, biases, mean = (np.array(weight, np.float64) for weight in before)
        for start in [*range(0, len(query[0]), 2)] * 2:
            ids, labels = (array[start : start + 2] for array in query)
            slopes = rows[ids] @ local[:DIM] + local[DIM] + biases[ids, 0] + mean - labels
            slopes *= 0.2 * 2 / len(ids)
            for item, slope in zip(ids, slopes):
                rows[item] -= slope * local[:DIM]
                biases[item] -= slope
                mean -= slope
        for change, start, end in zip(changes, before, (rows, biases, mean)):
            change += 2 * len(query[0]) * (end - start)
        num_used += 2 * len(query[0])
    after, metrics = run_round(BIASED_MF, options, before)
    assert_close(after, [start + change / num_used for start, change in zip(before, changes)])
    assert metrics["num_examples"] == num_used == 16


@pytest.mark.slow
@pytest.mark.parametrize("num_clients", [1, 2])
def test_a_round_does_not_depend_on_how_it_is_packed(num_clients):
    weights = random_weights(mf())
    whole, metrics = run_round(REGULARIZED_MF, EXACT, weights)
    cut, cut_metrics = run_round(REGULARIZED_MF, EXACT, weights, num_clients=num_clients)
    assert_close(cut, whole)
    for name, value in metrics.items():
        assert cut_metrics[name] == pytest.approx(value, rel=1e-5), name


# The first has no number for a rating of its support, the second none for one of its query.
BROKEN = [
    (np.array([0, 1, 2, 3]), np.array([3, np.nan, 3, 3], np.float32)),
    (np.array([0, 1, 2, 3]), np.array([3, 3, 3, np.inf], np.float32)),
    # Infinite in the support.
    (np.array([0, 1, 2, 3]), np.array([np.inf, 3, 3, 3], np.float32)),
    # Item 8 is made so large that of its square nothing as small as the penalty is left.
    (np.array([8, 1, 2, 3]), np.array([3, 3, 3, 3], np.float32)),
]


@pytest.mark.slow
def test_a_client_that_cannot_be_solved_is_left_out_and_counted():
    weights = random_weights(mf())
    weights[0][8] = (1e7, -2e7, 1.5e7)
    alone, metrics = run_round(BIASED_MF, EXACT, weights)
    assert metrics["num_clients_rejected"] == 0
    for broken in BROKEN:
        # In the first shard, between others.
        clients = [*CLIENTS[:2], broken, *CLIENTS[2:]]
        beside, metrics = run_round(BIASED_MF, EXACT, weights, clients)
        assert metrics["num_clients_rejected"] == 1
        assert_close(beside, alone, 1e-6)
    # Who has no query gives nothing that could be rejected.
    ids, labels = BROKEN[0]
    clients = [*CLIENTS, (ids[:2], labels[:2])]
    beside, metrics = run_round(BIASED_MF, EXACT, weights, clients)
    assert metrics["num_clients_rejected"] == 0
    assert_close(beside, alone, 1e-6)


@pytest.mark.slow
def test_evaluation_is_at_the_solution():
    # What is done after reconstruction in training takes no part.
    options = dataclasses.replace(EXACT, server_optimizer=OptimizerOptions("adam", 0.1))
    process = fed_recon.build_fed_recon_evaluation(mf(), options, clients_per_shard=4)
    weights = random_weights(mf())
    state = process.set_model_weights(
        process.initialize(), tff.learning.models.ModelWeights(weights, [])
    )
    packing = fed_recon.evaluation_packing_options(options, seed=0)
    output = process.next(state, pack(CLIENTS, packing, num_clients=4))
    metrics = output.metrics["client_work"]["eval"]["current_round_metrics"]
    errors = query_errors(weights)
    assert metrics["num_examples"] == len(errors)
    assert metrics["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        fed_recon.build_fed_recon,
        fed_recon.build_fed_recon_evaluation,
        reconstruction.build_reconstruction,
    ],
)
def test_whatever_reconstructs_refuses_a_model_that_is_not_linear(build):
    with pytest.raises(InputError, match="layer noise of the model small"):
        build(functools.partial(linear_model, rate=0.5), EXACT, clients_per_shard=2)
