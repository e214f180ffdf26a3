"""The loss of federated iALS as the paper states it, over the full users x items matrix.

The oracles know no Gram matrix and no gradient formula: users by NumPy's least squares over all
items, gradients by TensorFlow's autodiff of the dense loss, both in float64.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from fedrecon.options import FedIalsOptions, OptimizerOptions

NUM_USERS, NUM_ITEMS, DIM = 12, 9, 3
# User 5 has all items but one, users 2, 6 and 9 have one; nobody has item 8.
ITEMS_OF = [[0, 1], [1, 2, 3], [0], [2, 5, 7], [3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7]]
ITEMS_OF += [[7], [0, 6], [1, 5], [2], [4, 6, 7], [0, 2, 4, 6]]
OBSERVED = np.zeros((NUM_USERS, NUM_ITEMS))


for _user, _items in enumerate(ITEMS_OF):
    OBSERVED[_user, _items] = 1
ALL = np.arange(NUM_USERS)
START = np.random.default_rng(0).normal(0.0, 0.6, (NUM_ITEMS, DIM)).astype(np.float32)
# With this rate of SGD the item rows lose their gradient.
GRADIENT = OptimizerOptions("sgd", 1.0)
OPTIONS = FedIalsOptions(
    regularization=0.3, exponent=1.0, unobserved_weight=0.2, server_optimizer=GRADIENT
)
EXPONENTS = [0.0, 0.5, 1.0]


def with_exponent(exponent):
    return dataclasses.replace(OPTIONS, exponent=exponent)


def least_squares(table, observed, options, concatenate=np.concatenate):
    """All users' weighted least squares, over all items: `[users, items + dim, dim]` and targets.

    Item i costs (o - s)^2 + a s^2 if o = 1 and a s^2 if o = 0: (o + a) (s - o / (o + a))^2 and a
    constant. Below are the rows of the penalty.
    """
    weights = np.sqrt(observed + options.unobserved_weight)
    penalty = np.sqrt(strengths_of_users(observed, options))[:, np.newaxis, np.newaxis]
    matrices = concatenate(
        [weights[..., np.newaxis] * table[np.newaxis], penalty * np.eye(table.shape[1])], 1
    )
    zeros = np.zeros((len(observed), table.shape[1]))
    return matrices, np.concatenate([observed / weights, zeros], axis=1)


def strengths_of_users(observed, options):
    everything = options.unobserved_weight * observed.shape[1]
    return options.regularization * (observed.sum(axis=1) + everything) ** options.exponent


def minimum(table, observed=OBSERVED, options=OPTIONS):
    """The users' rows that minimize the loss, each by itself."""
    matrices, targets = least_squares(np.float64(table), observed, options)
    return np.stack([np.linalg.lstsq(*pair, rcond=None)[0] for pair in zip(matrices, targets)])


def minimum_with_gradient(table, observed, options):
    """The same in TensorFlow, which differentiates through it."""
    matrices, targets = least_squares(table, observed, options, tf.concat)
    return tf.linalg.lstsq(matrices, targets[..., np.newaxis], fast=True)[..., 0]


def losses_of_users(table, rows, observed, options):
    """What of the loss is a user's, `[users]`: its pairs and its row's penalty."""
    scores = tf.reduce_sum(rows[:, np.newaxis] * table[np.newaxis], axis=2)
    of_pairs = observed * (1.0 - scores) ** 2 + options.unobserved_weight * scores**2
    penalty = strengths_of_users(observed, options) * tf.reduce_sum(rows**2, axis=1)
    return tf.reduce_sum(of_pairs, axis=1) + penalty


def penalty_of_items(table, num_having, options):
    everybody = options.unobserved_weight * NUM_USERS
    strengths = options.regularization * (num_having + everybody) ** options.exponent
    return tf.reduce_sum(strengths * tf.reduce_sum(table**2, axis=1))


def whole_loss(table, rows, options, observed=OBSERVED):
    """L of the module."""
    of_users = tf.reduce_sum(losses_of_users(table, rows, observed, options))
    return of_users + penalty_of_items(table, observed.sum(axis=0), options)


def gradient_of(loss, table):
    table = tf.constant(table, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(table)
        value = loss(table)
    return tape.gradient(value, table).numpy()


def cohort_gradient(table, users, options, *, observed=OBSERVED):
    """The gradient where a cohort stands for all: n_i is U times the share of it that has i."""
    seen = observed[users]
    rows = minimum(table, seen, options)

    def loss(table):
        of_items = penalty_of_items(table, NUM_USERS * seen.mean(axis=0), options)
        return tf.reduce_mean(losses_of_users(table, rows, seen, options)) + of_items / NUM_USERS

    return gradient_of(loss, table)


def contribution_of(user, table=START, options=OPTIONS):
    """What the module says a client returns, from dense rows."""
    seen = OBSERVED[user]
    row = minimum(table, seen[np.newaxis], options)[0]
    of_pairs = gradient_of(
        lambda table: tf.reduce_sum(seen * (1 - tf.linalg.matvec(table, row)) ** 2), table
    )
    return [of_pairs, seen[:, np.newaxis], np.outer(row, row)]
