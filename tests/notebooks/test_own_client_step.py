"""The client's step of notebook 03, an optimizer of one's own, in the engine of FedRecon."""

import numpy as np
import pytest
import tensorflow as tf

import fedrecon as fr
from notebooks import make

RATE, EPOCHS, BATCH, DIM = 0.1, 3, 5, 3


@pytest.fixture(scope="module")
def proximal_options():
    cells = [cell.source for cell in make.from_source("03_bring_your_own").cells]
    imports, classes = (
        next(text for text in cells if word in text)
        for word in ("import tensorflow_federated", "class ProximalOptions")
    )
    names = {"__name__": "notebook"}
    lines = imports.splitlines()
    wanted = ("import dataclasses", "import fedrecon", "import tensorflow")
    exec("\n".join(line for line in lines if line.startswith(wanted)), names)
    exec(classes, names)
    return names["ProximalOptions"]


@pytest.fixture(scope="module")
def population():
    ratings = fr.load_dataset("synthetic", num_users=30, num_items=60, mean_ratings_per_user=25)
    return fr.divide_by_user(ratings, max_ratings_per_user=20)


def round_of(population, client_optimizer):
    """Returns the users of a round of two clients, and the global weights before and after it."""
    model_fn = fr.model_fn(
        fr.matrix_factorization,
        60,
        DIM,
        **dict.fromkeys(("user_bias", "item_bias", "global_bias"), True),
        item_initializer=tf.keras.initializers.RandomUniform(-1.0, 1.0, seed=1),
        user_initializer=tf.keras.initializers.Constant(0.5),
    )
    options = fr.FedReconOptions(
        reconstruction_optimizer=fr.OptimizerOptions("sgd", RATE),
        client_optimizer=client_optimizer,
        client_epochs=EPOCHS,
        batch_size=BATCH,
    )
    algorithm = fr.prepare_fed_recon(model_fn, options, population, clients_per_round=2)
    state = algorithm.initialize()
    before = [np.array(weight) for weight in algorithm.get_weights(state).trainable]
    state, _ = algorithm.run_round(state, 1)
    after = [np.array(weight) for weight in algorithm.get_weights(state).trainable]
    return algorithm.sample_cohort(1), before, after


def fit(values, user, batches, strength, moves):
    """Takes the steps of one client, in float64; `moves` is which part they change."""
    rows, biases, middle = start = [np.array(value, np.float64) for value in values]
    rows, biases, middle = (value.copy() for value in start)
    user, user_bias = user
    for items, labels in batches:
        errors = rows[items] @ user + biases[items, 0] + user_bias + middle - labels
        slopes = 2 * errors / len(labels)
        if moves == "local":
            user, user_bias = user - RATE * slopes @ rows[items], user_bias - RATE * slopes.sum()
            continue
        pulls = [strength * (value - begun) for value, begun in zip((rows, biases, middle), start)]
        rows[items] -= RATE * np.outer(slopes, user)
        biases[items, 0] -= RATE * slopes
        middle = middle - RATE * slopes.sum()
        rows, biases, middle = (
            value - RATE * pull for value, pull in zip((rows, biases, middle), pulls)
        )
    return [rows, biases, middle], (user, user_bias)


def round_by_hand(population, users, before, strength):
    sums, weight = [0.0, 0.0, 0.0], 0
    for user in users:
        items, labels = population.examples.examples(user)
        cut = [(items[k : k + BATCH], labels[k : k + BATCH]) for k in range(0, len(items), BATCH)]
        _, local = fit(before, (np.full(DIM, 0.5), 0.0), cut[::2], 0.0, "local")
        moved, _ = fit(before, local, cut[1::2] * EPOCHS, strength, "global")
        num_query = sum(len(labels) for _, labels in cut[1::2])
        sums = [s + num_query * (m - b) for s, m, b in zip(sums, moved, before)]
        weight += num_query
    return [b + s / weight for b, s in zip(before, sums)]


@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_proximal_step_gives_the_numbers_worked_out_by_hand(
    proximal_options, population, strength
):
    users, before, after = round_of(population, proximal_options("sgd", RATE, strength=strength))
    expected = round_by_hand(population, users, before, strength)
    for found, wanted, begun in zip(after, expected, before):
        assert np.abs(wanted - begun).max() > 0.01  # Else equality would say little.
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    unlike = round_by_hand(population, users, before, strength + 1.0)
    assert np.abs(after[1] - unlike[1]).max() > 1e-3
