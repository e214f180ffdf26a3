"""Exact reconstruction by `numpy.linalg.lstsq` and autodiff, client by client, in float64.

A model is given as a function of weights and item ids: the rows `e_n` and the offsets `b_n`.
"""

import numpy as np
import tensorflow as tf

from fedrecon.options import LeastSquaresOptions
from tests.tiny import BIASES, client_of

NUM_ITEMS, DIM = 9, 3
HABIT = 0.7
NOTHING = client_of([], [])
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
CLIENTS = [client_of(*of_client) for of_client in CLIENTS]
RIDGE = LeastSquaresOptions(regularization=0.5, exponent=0.5, bias_regularization=0.2)


def numpy_mf(weights, ids, biases=BIASES):
    item_rows, *others = (np.asarray(weight, np.float64) for weight in weights)
    rows, offsets = item_rows[ids], np.zeros(len(ids))
    if "mean_user" in biases:
        offsets = offsets + item_rows[ids] @ others.pop(0)
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


def divided(of_client, batch_size=2, split="alternating_batches"):
    """A client's support and query, each ids and labels."""
    ids, labels = of_client
    batch = np.arange(len(ids)) // batch_size
    if split == "none":
        return of_client, of_client
    return tuple((ids[batch % 2 == part], labels[batch % 2 == part]) for part in (0, 1))


def normal_equations(options, num_vector, rows, targets):
    penalties = strengths(options, num_vector, 1, len(rows))
    left = tf.matmul(rows, rows, transpose_a=True) + tf.linalg.diag(tf.constant(penalties))
    right = tf.linalg.matvec(rows, targets, transpose_a=True)
    return tf.linalg.solve(left, right[:, tf.newaxis])[:, 0]


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


def query_errors(weights, clients=CLIENTS, *, solved_at=None):
    """All clients' errors at their queries in NumPy, reconstructed at `solved_at` or `weights`."""
    errors = []
    for client in clients:
        support, (ids, labels) = divided(client)
        local = ridge_of_mf(weights if solved_at is None else solved_at, support)
        rows, offsets = numpy_mf(weights, ids)
        errors.append(labels - offsets - rows @ local)
    return np.concatenate(errors)
