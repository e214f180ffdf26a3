"""Exact reconstruction against `numpy.linalg.lstsq`, autodiff client by client, and differences."""

import dataclasses
import functools
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_recon
from fedrecon.data.cohorts import PackingOptions, Passes, pack_shard
from fedrecon.engine import client_work, least_squares
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.neural_cf import neumf
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import FedReconOptions, LeastSquaresOptions, OptimizerOptions

pytestmark = pytest.mark.usefixtures("in_process_runtime")

NUM_ITEMS, DIM = 9, 3
BIASES = ("user_bias", "item_bias", "global_bias")
SAME_START = tf.keras.initializers.Constant(0.05)
NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.float32))
# In batches of two: a partial last batch and an item rated twice, a query of one rating, a support
# without a query, one rating, none, more queries than one. Nobody has item 8.
CLIENTS = [
    ([0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 1, 2]),
    ([5, 3, 1], [4, 2, 5]),
    ([2, 4], [3, 3]),
    ([6], [5]),
    ([], []),
    ([1, 6, 2, 5, 3, 0, 4, 7], [1, 5, 2, 4, 3, 3, 2, 1]),
]
CLIENTS = [(np.array(ids, np.int64), np.array(labels, np.float32)) for ids, labels in CLIENTS]

RIDGE = LeastSquaresOptions(regularization=0.5, exponent=0.5, bias_regularization=0.2)
# With both rates 1, what a round subtracts is the gradient.
EXACT = FedReconOptions(
    reconstruction="least_squares",
    least_squares=RIDGE,
    client_optimizer=OptimizerOptions("sgd", 1.0),
    server_optimizer=OptimizerOptions("sgd", 1.0),
    batch_size=2,
    client_takes_one_step=True,
)


# ---- Models.


def mf(biases=BIASES, **kwargs):
    kwargs.update(dict.fromkeys(biases, True))
    return functools.partial(matrix_factorization, NUM_ITEMS, DIM, **kwargs)


BIASED_MF = mf(user_initializer=SAME_START)
# Only the global part is regularized.
REGULARIZED_MF = mf(l2=0.1, user_l2=0.0)

HABIT = 0.7
HABIT_EVERYWHERE = tf.keras.initializers.Constant(HABIT)


def tower_model(habit=HABIT_EVERYWHERE):
    """`c * <u, h> + <k, v> + b + c`, with `h` a layer over an item's row `v` and its fixed `f`.

    Local: `u`, `k`, `b`, and `c`, which is not trained.
    """
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, 4, name="items")
    facts = tf.keras.layers.Embedding(NUM_ITEMS, 2, trainable=False, name="facts")
    tower = tf.keras.layers.Dense(DIM, activation="tanh", name="tower")
    user = UserEmbedding(DIM, "zeros", name="user")
    head = tf.keras.layers.Dense(1, name="head")
    habit = UserEmbedding(1, habit, trainable=False, name="habit")
    rows = tf.keras.layers.Flatten()(items(item_id))
    both = tf.keras.layers.Concatenate()([rows, tf.keras.layers.Flatten()(facts(item_id))])
    product = InnerProduct()([user(item_id), tower(both)])
    scaled = tf.keras.layers.Multiply()([product, habit(item_id)])
    rating = tf.keras.layers.Add()([scaled, head(rows), habit(item_id)])
    return split_of(item_id, rating, [items, facts, tower], [user, head, habit])


def split_of(item_id, rating, global_layers, local_layers, loss=tf.keras.losses.MeanSquaredError):
    keras_model = tf.keras.Model(item_id, rating, name="small")
    return SplitModel(
        keras_model, global_layers, local_layers, rating_input_spec(), loss, lambda: []
    )


def random_weights(model_fn, seed=3):
    generator = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model_fn().global_weights]
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


# ---- The same models as rows `e_n` and offsets `b_n`, and their solutions, in float64.


def numpy_mf(weights, ids, biases=BIASES):
    item_rows, *others = (np.asarray(weight, np.float64) for weight in weights)
    rows, offsets = item_rows[ids], np.zeros(len(ids))
    if "user_bias" in biases:
        rows = np.concatenate([rows, np.ones([len(ids), 1])], axis=1)
    if "item_bias" in biases:
        offsets = offsets + others.pop(0)[ids, 0]
    if "global_bias" in biases:
        offsets = offsets + others.pop(0)
    return rows, offsets


def tensorflow_mf(weights, ids):
    item_rows, item_biases, mean = weights
    rows = tf.concat([tf.gather(item_rows, ids), tf.ones([len(ids), 1], tf.float64)], axis=1)
    return rows, tf.gather(item_biases, ids)[:, 0] + mean


def tensorflow_tower(weights, ids, habit=HABIT):
    items, kernel, bias, facts = weights
    items = tf.gather(items, ids)
    hidden = tf.tanh(tf.matmul(tf.concat([items, tf.gather(facts, ids)], 1), kernel) + bias)
    ones = tf.ones([len(ids), 1], tf.float64)
    return tf.concat([habit * hidden, items, ones], axis=1), habit * ones[:, 0]


def strengths(options, num_vector, num_biases, num_examples):
    of_bias = options.bias_regularization
    of_bias = options.regularization if of_bias is None else of_bias
    each = [options.regularization] * num_vector + [of_bias] * num_biases
    return np.array(each) * max(num_examples, 1) ** options.exponent


def ridge(rows, targets, penalties):
    """The minimum of `|targets - rows u|^2 + sum of penalties * u^2`, as plain least squares."""
    left = np.concatenate([rows, np.diag(np.sqrt(penalties))])
    right = np.concatenate([targets, np.zeros(len(penalties))])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def ridge_of_mf(weights, support, options=RIDGE, biases=BIASES):
    ids, labels = support
    rows, offsets = numpy_mf(weights, ids, biases)
    penalties = strengths(options, DIM, int("user_bias" in biases), len(ids))
    return ridge(rows, labels - offsets, penalties)


def divided(client, batch_size=2, split="alternating_batches"):
    """A client's support and query, each ids and labels."""
    ids, labels = client
    batch = np.arange(len(ids)) // batch_size
    if split == "none":
        return client, client
    return tuple((ids[batch % 2 == part], labels[batch % 2 == part]) for part in (0, 1))


# ---- Packing.


def pack(clients, packing, *, num_clients):
    """Cuts clients into shards, each with room for its longest client."""
    shards = []
    for start in range(0, len(clients), num_clients):
        chosen = clients[start : start + num_clients]
        numbers = np.arange(start, start + len(chosen))
        shards.append(
            pack_shard(
                chosen,
                numbers,
                numbers.astype(np.uint32) * 7919,
                packing,
                num_clients=num_clients,
                num_examples=max([1, *(len(ids) for ids, _ in chosen)]),
            )
        )
    return shards


def solve(model_fn, options, weights, *, split, support_epochs=1):
    """The local values of `CLIENTS` and two for padding, by `least_squares` alone."""
    packing = PackingOptions(2, split, Passes(support_epochs), Passes(), seed=0)
    (shard,) = pack(CLIENTS, packing, num_clients=8)
    spec = client_work.shard_spec(2, 8)
    reconstruct = least_squares.build_reconstruction(FunctionalModel(model_fn()), options, spec)
    return reconstruct(weights, tf.nest.map_structure(tf.constant, shard))


def flat(local_values):
    return np.concatenate([np.reshape(v, [len(v), -1]) for v in local_values], axis=1)


# ---- The solution.


@pytest.mark.parametrize(
    ("biases", "options", "split"),
    [
        (biases, options, split)
        for biases, (options, split) in zip(
            itertools.chain.from_iterable(itertools.combinations(BIASES, n) for n in range(4)),
            itertools.cycle(
                [
                    (LeastSquaresOptions(regularization=0.5), "alternating_batches"),
                    (LeastSquaresOptions(regularization=0.1, exponent=1.0), "none"),
                    (RIDGE, "alternating_batches"),
                    (dataclasses.replace(RIDGE, exponent=1.0), "none"),
                    (dataclasses.replace(RIDGE, exponent=0.0), "alternating_batches"),
                ]
            ),
        )
    ],
    ids=str,
)
def test_the_solution_is_that_of_least_squares_with_rows_for_the_penalty(biases, options, split):
    weights = random_weights(mf(biases))
    found = flat(solve(mf(biases), options, weights, split=split))
    expected = [
        ridge_of_mf(weights, divided(client, split=split)[0], options, biases)
        for client in [*CLIENTS, NOTHING, NOTHING]  # Two for padding.
    ]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(expected[0]).max() > 0.3
    assert not found[[4, 6, 7]].any()  # Without a rating there is only the penalty.


def test_without_any_support_all_are_zero():
    weights = random_weights(mf())
    found = solve(mf(), RIDGE, weights, split="none", support_epochs=0)
    assert [value.shape for value in found] == [[8, 1, DIM], [8, 1, 1]]
    assert not flat(found).any()


def test_any_model_that_is_linear_in_its_trained_local_part_is_solved():
    weights = random_weights(tower_model)
    # Each client has a fixed number of its own.
    initializer = tf.keras.initializers.RandomUniform(0.5, 1.5, seed=0)
    model_fn = functools.partial(tower_model, initializer)
    split_model = model_fn()
    model = FunctionalModel(split_model)
    least_squares.check_is_solvable(split_model, model)
    names = [weight.name for weight in model.local_weights]
    assert names == ["user/embeddings", "head/kernel", "head/bias", "habit/embeddings"]
    *found, habits = solve(model_fn, RIDGE, weights, split="none")
    habits = habits.numpy()[:, 0, 0].astype(np.float64)
    assert len(set(habits[: len(CLIENTS)])) == len(CLIENTS)
    expected = []
    for (ids, labels), habit in zip([*CLIENTS, NOTHING, NOTHING], habits):
        rows, offsets = tensorflow_tower([tf.constant(w, tf.float64) for w in weights], ids, habit)
        # The bias of the head is one number and so a bias; the fixed one takes no part.
        penalties = strengths(RIDGE, DIM + 4, 1, len(ids))
        expected.append(ridge(rows.numpy(), labels - offsets.numpy(), penalties))
    np.testing.assert_allclose(flat(found), expected, atol=5e-6)


def test_squares_keep_the_digits_of_what_is_squared():
    weights = random_weights(mf())
    # Nearly one direction; what tells the rows apart is a thousandth of them.
    weights[0] = 300.0 + 0.3 * weights[0]
    found = flat(solve(mf(), RIDGE, weights, split="none"))
    expected = [ridge_of_mf(weights, client) for client in [*CLIENTS, NOTHING, NOTHING]]
    assert np.abs(expected[0]).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


@functools.cache
def serving():
    return fed_recon.build_reconstruction(mf(), EXACT, clients_per_shard=4)


def serve(weights, clients):
    packing = fed_recon.reconstruction_packing_options(EXACT, seed=0)
    shards = pack(clients, packing, num_clients=4)
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


# ---- A round.


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
    output = process.next(state, pack(clients, packing, num_clients=num_clients))
    after = process.get_model_weights(output.state)
    after = [*after.trainable, *after.non_trainable]
    return [np.array(weight) for weight in after], output.metrics["client_work"]["train"]


def assert_close(found, expected, tolerance=1e-5):
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def descended(form, fit, weights, *, l2=0.0):
    """Weights minus the gradient of the mean squared query error over all clients' ratings.

    Client by client, by autodiff, with what `fit` gives of a client's rows and targets frozen.
    """
    weights = [tf.constant(weight, tf.float64) for weight in weights]
    num_query = sum(len(divided(client)[1][0]) for client in CLIENTS)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = tf.zeros([], tf.float64)
        for client in CLIENTS:
            (ids, labels), (query_ids, query_labels) = divided(client)
            rows, offsets = form(weights, ids)
            local = tf.stop_gradient(fit(rows, labels - offsets))
            rows, offsets = form(weights, query_ids)
            errors = query_labels - offsets - tf.linalg.matvec(rows, local)
            loss += tf.reduce_sum(errors**2) / num_query
        # Of the whole table in each client's loss, of whose mean this is the part.
        loss += l2 * tf.add_n([tf.reduce_sum(weight**2) for weight in weights])
    return [(w - g).numpy() for w, g in zip(weights, tape.gradient(loss, weights))]


def normal_equations(options, num_vector, rows, targets):
    penalties = strengths(options, num_vector, 1, len(rows))
    left = tf.matmul(rows, rows, transpose_a=True) + tf.linalg.diag(tf.constant(penalties))
    right = tf.linalg.matvec(rows, targets, transpose_a=True)
    return tf.linalg.solve(left, right[:, tf.newaxis])[:, 0]


def query_errors(weights, clients=CLIENTS, *, solved_at=None):
    """All clients' errors at their queries in NumPy, reconstructed at `solved_at` or `weights`."""
    errors = []
    for client in clients:
        support, (ids, labels) = divided(client)
        local = ridge_of_mf(weights if solved_at is None else solved_at, support)
        rows, offsets = numpy_mf(weights, ids)
        errors.append(labels - offsets - rows @ local)
    return np.concatenate(errors)


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


def test_a_regularized_global_part_shrinks_as_a_whole():
    before = random_weights(mf())
    after, _ = run_round(REGULARIZED_MF, EXACT, before)
    fit = functools.partial(normal_equations, RIDGE, DIM)
    assert_close(after, descended(tensorflow_mf, fit, before, l2=0.1))
    for index in (0, 1):  # The rows and the bias of the item that nobody has.
        np.testing.assert_allclose(after[index][8], 0.8 * before[index][8], rtol=1e-5)


def test_layers_below_the_local_part_get_their_gradient():
    before = random_weights(tower_model)
    (*after, facts), _ = run_round(tower_model, EXACT, before)
    fit = functools.partial(normal_equations, RIDGE, DIM + 4)
    *expected, _ = descended(tensorflow_tower, fit, before)
    assert_close(after, expected, 5e-5)
    np.testing.assert_array_equal(facts, before[3])


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


# ---- Systems.


def test_systems_without_a_solution_leave_the_others_alone():
    generator = np.random.default_rng(0)
    factors = generator.normal(size=[8, 4, 3])
    matrices = np.swapaxes(factors, 1, 2) @ factors + 0.5 * np.eye(3)
    vectors = generator.normal(size=[8, 3])
    matrices[1, 0, 2] = np.nan
    matrices[2, 2, 0] = np.inf
    vectors[3, 1] = np.nan
    vectors[4, 1] = -np.inf
    # Of 0.5 only a digit or two are left beside 1e15; the factors are finite.
    row = np.array([1e7, -2e7, 3e7])
    matrices[5] = np.outer(row, row) + 0.5 * np.eye(3)
    assert np.isfinite(tf.linalg.cholesky(matrices[5])).all()
    matrices[6] *= 1e6  # Large, and yet far from losing its digits.
    found = least_squares.solve_systems(tf.constant(matrices), tf.constant(vectors))
    for client in (0, 6, 7):
        expected = np.linalg.solve(matrices[client], vectors[client])
        np.testing.assert_allclose(found[client], expected, rtol=1e-9)
    for client in (1, 2, 3, 4, 5):
        assert np.isnan(found[client]).all()


# ---- Refusals.


def linear_model(*, change=None, user=None, rate=None, loss=tf.keras.losses.MeanSquaredError):
    """`change(<u, v>, b)`, by default the sum; dropout of the item rows `v` if there is a rate."""
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, DIM, name="items")
    user = user or UserEmbedding(DIM, "zeros", name="user")
    bias = UserEmbedding(1, "zeros", name="bias")
    rows = tf.keras.layers.Flatten()(items(item_id))
    if rate is not None:
        rows = tf.keras.layers.Dropout(rate, name="noise")(rows)
    change = change or (lambda product, bias: product + bias)
    rating = change(InnerProduct()([user(item_id), rows]), bias(item_id))
    return split_of(item_id, rating, [items], [user, bias], loss)


def without_local_weights():
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, 1, name="items")
    return split_of(item_id, tf.keras.layers.Flatten()(items(item_id)), [items], [])


def with_fixed_local_weights():
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(NUM_ITEMS, DIM, name="items")
    user = UserEmbedding(DIM, "ones", trainable=False, name="user")
    rows = tf.keras.layers.Flatten()(items(item_id))
    return split_of(item_id, InnerProduct()([user(item_id), rows]), [items], [user])


def squared_neumf():
    """NeuMF with a loss that would do."""
    model = neumf(NUM_ITEMS, gmf_dim=2, hidden_units=(4, 2))
    return dataclasses.replace(model, loss_fn=tf.keras.losses.MeanSquaredError)


NOT_LINEAR = "model small is not linear in "
REFUSALS = {
    "neumf": (
        functools.partial(neumf, NUM_ITEMS, gmf_dim=2, hidden_units=(4, 2)),
        "the loss binary_crossentropy of the model neumf is not squared",
    ),
    "squared_neumf": (
        squared_neumf,
        "the model neumf is not linear in gmf_user_embedding/embeddings,"
        " mlp_user_embedding/embeddings;",
    ),
    "sigmoid": (
        functools.partial(linear_model, change=lambda product, bias: tf.sigmoid(product + bias)),
        NOT_LINEAR + "user/embeddings, bias/embeddings; reconstruct it by gradient_steps",
    ),
    # The bias is outside.
    "relu": (
        functools.partial(linear_model, change=lambda product, bias: tf.nn.relu(product) + bias),
        NOT_LINEAR + "user/embeddings;",
    ),
    "square": (
        functools.partial(linear_model, change=lambda product, bias: product + bias**2),
        NOT_LINEAR + "bias/embeddings;",
    ),
    # What saturates far from zero alone.
    "ceiling": (
        functools.partial(
            linear_model, change=lambda product, bias: bias + tf.minimum(product, 12.0)
        ),
        NOT_LINEAR + "user/embeddings;",
    ),
    # Linear in each of them.
    "product": (
        functools.partial(linear_model, change=lambda product, bias: product * bias),
        NOT_LINEAR + "user/embeddings, bias/embeddings;",
    ),
    "regularizer": (
        lambda: linear_model(
            user=UserEmbedding(DIM, "zeros", tf.keras.regularizers.L2(0.1), name="user")
        ),
        "the local weight user/embeddings has a regularizer",
    ),
    "dropout": (
        functools.partial(linear_model, rate=0.5),
        "the layer noise of the model small drops at random",
    ),
    "absolute_error": (
        functools.partial(linear_model, loss=tf.keras.losses.MeanAbsoluteError),
        "the loss mean_absolute_error of the model small is not squared",
    ),
    # Half of the square at small errors.
    "huber": (
        functools.partial(linear_model, loss=tf.keras.losses.Huber),
        "the loss huber_loss of the model small is not squared",
    ),
    "nothing_local": (without_local_weights, "the model small has no local weights to solve for"),
    "nothing_trained": (
        with_fixed_local_weights,
        "the model small has no local weights to solve for",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_least_squares_cannot_reconstruct_is_refused_by_name(name):
    make, message = REFUSALS[name]
    split_model = make()
    with pytest.raises(InputError) as caught:
        least_squares.check_is_solvable(split_model, FunctionalModel(split_model))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        linear_model,
        functools.partial(linear_model, rate=0.0),
        functools.partial(
            linear_model,
            loss=functools.partial(
                tf.keras.losses.MeanSquaredError, reduction=tf.keras.losses.Reduction.SUM
            ),
        ),
        functools.partial(linear_model, change=lambda product, bias: bias - product),
    ],
)
def test_what_least_squares_can_reconstruct_is_not_refused(make):
    split_model = make()
    least_squares.check_is_solvable(split_model, FunctionalModel(split_model))


@pytest.mark.parametrize(
    "build",
    [
        fed_recon.build_fed_recon,
        fed_recon.build_fed_recon_evaluation,
        fed_recon.build_reconstruction,
    ],
)
def test_all_that_reconstructs_refuses_it(build):
    with pytest.raises(InputError, match="layer noise of the model small"):
        build(functools.partial(linear_model, rate=0.5), EXACT, clients_per_shard=2)


# ---- Compilations.

COUNTED = """
import functools
import numpy as np
from fedrecon.algorithms import fed_recon
from fedrecon.options import FedReconOptions, OptimizerOptions
from fedrecon.data.cohorts import pack_shard
from fedrecon.execution import set_in_process_context
from fedrecon.models.matrix_factorization import matrix_factorization

set_in_process_context()
options = FedReconOptions(
    reconstruction="least_squares",
    client_optimizer=OptimizerOptions("sgd", 1.0),
    client_takes_one_step=True,
)
packing = fed_recon.packing_options(options, seed=0)
model_fn = functools.partial(matrix_factorization, 30, 2, user_bias=True, item_bias=True)
process = fed_recon.build_fed_recon(model_fn, options, clients_per_shard=3)
state, generator = process.initialize(), np.random.default_rng(0)
for round_num in range(5):
    clients = [
        (generator.choice(30, 16, replace=False), generator.integers(1, 6, 16).astype(np.float32))
        for _ in range(3)
    ]
    users, seeds = np.arange(3), np.arange(3, dtype=np.uint32)
    shard = pack_shard(clients, users, seeds, packing, num_clients=3, num_examples=16)
    state = process.next(state, [shard]).state
    print("round", round_num)
"""


def test_rounds_of_the_same_sizes_are_compiled_once():
    """A gradient over lengths unknown to XLA is compiled anew for each round's values."""
    logging = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compiler=2"}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        capture_output=True,
        text=True,
        env={**os.environ, **logging},
        timeout=300,
        check=True,
    )
    assert done.stdout.count("round") == 5
    # The sums, and the update.
    assert done.stderr.count("Compilation of XLA executable time") == 2
