"""Federated iALS against the loss as the paper states it, over the full users x items matrix.

The oracles know no Gram matrix and no gradient formula: users by NumPy's least squares over all
items, gradients by TensorFlow's autodiff of the dense loss, both in float64.
"""

import collections
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon import rng
from fedrecon.algorithms import fed_ials
from fedrecon.baselines.ials import Ials, IalsOptions, train_ials
from fedrecon.data.cohorts import CohortPacker, pack_shard
from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import InputError
from fedrecon.execution.lowering import parts_of
from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.neural_cf import gmf, neumf
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import FedIalsOptions, OptimizerOptions
from fedrecon.wiring import process

pytestmark = pytest.mark.usefixtures("in_process_runtime")

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


# The oracles.


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
    """The users' rows that minimise the loss, each by itself."""
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


# Rounds.


def mf(num_items=NUM_ITEMS, dim=DIM, **kwargs):
    return functools.partial(matrix_factorization, num_items, dim, **kwargs)


MODEL = mf()


@functools.cache
def training(options=OPTIONS, clients_per_shard=NUM_USERS, **kwargs):
    return fed_ials.build_fed_ials(
        MODEL, options, num_users=NUM_USERS, clients_per_shard=clients_per_shard, **kwargs
    )


@functools.cache
def reconstruction(options, clients_per_shard=NUM_USERS):
    return fed_ials.build_reconstruction(MODEL, options, clients_per_shard=clients_per_shard)


def pack(users, *, clients_per_shard=NUM_USERS, items_of=ITEMS_OF):
    packing = fed_ials.packing_options(seed=0)
    users = list(users)
    return [
        pack_shard(
            [(np.array(items_of[u], np.int64), np.ones(len(items_of[u]), np.float32)) for u in ids],
            np.array(ids),
            np.array(ids, np.uint32),
            packing,
            num_clients=clients_per_shard,
            num_examples=16,
        )
        for ids in (
            users[i : i + clients_per_shard] for i in range(0, len(users), clients_per_shard)
        )
    ]


def weights_of(table):
    return tff.learning.models.ModelWeights([np.float32(table)], [])


def one_round(learning, shards, table=START):
    state = learning.set_model_weights(learning.initialize(), weights_of(table))
    return learning.next(state, shards)


def table_of(state):
    return np.asarray(state.global_model_weights.trainable[0])


def moved(learning, shards, table=START):
    """What the item rows lost: with `GRADIENT`, their gradient."""
    return np.float64(table) - table_of(one_round(learning, shards, table).state)


def assert_close(found, expected, tolerance=2e-6):
    assert np.abs(expected).max() > 0.01  # Else equality would say little.
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


# The gradient.


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_round_of_all_users_is_the_gradient_of_the_dense_loss(exponent):
    options = with_exponent(exponent)
    rows = minimum(START, OBSERVED, options)

    def at_fixed_rows(table):
        return whole_loss(table, rows, options) / NUM_USERS

    def minimised(table):
        rows = minimum_with_gradient(table, OBSERVED, options)
        return whole_loss(table, rows, options) / NUM_USERS

    expected = gradient_of(at_fixed_rows, START)
    assert_close(moved(training(options), pack(ALL)), expected)
    # At the minimum nothing comes through the rows (the envelope theorem), though they move.
    assert_close(gradient_of(minimised, START), expected, 1e-12)
    through_rows = gradient_of(
        lambda table: tf.reduce_sum(minimum_with_gradient(table, OBSERVED, options)), START
    )
    assert np.abs(through_rows).max() > 0.1


def test_a_cohort_is_a_sample_of_as_many_users_as_there_are_said_to_be():
    options = with_exponent(0.5)
    more = fed_ials.build_fed_ials(
        MODEL, options, num_users=4 * NUM_USERS, clients_per_shard=NUM_USERS
    )
    # Four copies of each user: the same mean over users, four times the counts.
    observed = np.tile(OBSERVED, (4, 1))
    strengths = 0.3 * (observed.sum(axis=0) + 0.2 * 48) ** 0.5
    rows = minimum(START, observed, options)

    def loss(table):
        of_users = tf.reduce_sum(losses_of_users(table, rows, observed, options))
        return (of_users + tf.reduce_sum(strengths * tf.reduce_sum(table**2, axis=1))) / 48

    assert_close(moved(more, pack(ALL)), gradient_of(loss, START))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_sample_of_the_users_estimates_the_counts_by_its_shares(exponent):
    options = with_exponent(exponent)
    for users in ([0, 3, 4, 7, 10], [5, 2], [9]):
        expected = cohort_gradient(START, users, options)
        found = moved(training(options), pack(users))
        assert_close(found, expected)


def test_the_mean_over_samples_is_the_gradient_unless_the_exponent_is_between_0_and_1():
    cohorts = np.random.default_rng(1).permutation(NUM_USERS).reshape(4, 3)
    gaps = {}
    for exponent in EXPONENTS:
        options = with_exponent(exponent)
        whole = moved(training(options), pack(ALL))
        means = np.mean([moved(training(options), pack(users)) for users in cohorts], axis=0)
        gaps[exponent] = np.abs(means - whole).max()
    assert gaps[0.0] < 1e-6
    assert gaps[1.0] < 1e-6
    assert gaps[0.5] > 1e-3


def test_a_round_by_hand():
    # One item, row 2, one user of two who has it; a = 1/4, r = 1 and nu = 1. The user's system is
    # 4 + 1/4 * 4 + (1 + 1/4 * 1) = 6.25, so x = 2 / 6.25 = 0.32 and x v = 0.64. The gradient by
    # users is 2 (0.64 - 1) 0.32 + 2 (1/4) 2 * 0.32^2 + 2 (1/2) (2 + 1/4 * 2) 2 = 4.872.
    options = FedIalsOptions(
        regularization=1.0, exponent=1.0, unobserved_weight=0.25, server_optimizer=GRADIENT
    )
    learning = fed_ials.build_fed_ials(mf(1, 1), options, num_users=2, clients_per_shard=1)
    shards = pack([0], clients_per_shard=1, items_of=[[0]])
    output = one_round(learning, shards, [[2.0]])
    assert_close(2.0 - table_of(output.state), [[4.872]])
    # (1 - 0.64)^2 + 1/4 * 0.64^2 + 1.25 * 0.32^2.
    assert fed_ials.training_metrics(output.metrics)["loss"] == pytest.approx(0.36, abs=1e-6)


# The users.


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_users_rows_are_the_dense_ridge_regression_over_all_items(exponent):
    options = with_exponent(exponent)
    items_of = [*ITEMS_OF, [], list(range(NUM_ITEMS))]  # Two newcomers: nothing, and everything.
    observed = np.concatenate([OBSERVED, np.zeros((1, NUM_ITEMS)), np.ones((1, NUM_ITEMS))])
    (found,) = reconstruction(options, 20)(
        weights_of(START), pack(range(14), clients_per_shard=20, items_of=items_of)
    )
    (rows,) = found
    assert rows.shape == (20, 1, DIM)
    assert_close(rows[:14, 0], minimum(START, observed, options), 5e-6)
    np.testing.assert_array_equal(rows[12], np.zeros((1, DIM)))
    np.testing.assert_array_equal(rows[14:], np.zeros((6, 1, DIM)))


def test_each_shard_gets_its_own_users_back():
    (first,), (second,) = reconstruction(OPTIONS, 8)(
        weights_of(START), pack(ALL[::-1], clients_per_shard=8)
    )
    rows = np.concatenate([first, second])[:NUM_USERS, 0]
    assert_close(rows, minimum(START)[::-1], 5e-6)


def test_reconstruction_without_exponent_is_that_of_ials():
    options = with_exponent(0.0)
    ials = Ials(
        IalsOptions(dim=DIM, regularization=0.3, unobserved_weight=0.2), np.zeros((0, DIM)), START
    )
    ((rows,),) = reconstruction(options)(weights_of(START), pack(ALL))
    expected = [ials.reconstruct(np.array(items)) for items in ITEMS_OF]
    assert_close(rows[:, 0], expected, 5e-6)


# Against alternating least squares.


def train_by_ials(num_iterations):
    options = IalsOptions(DIM, 0.3, 0.2, num_iterations, seed=1)
    users, items = np.nonzero(OBSERVED)
    return train_ials(users, items, num_users=NUM_USERS, num_items=NUM_ITEMS, options=options)


def initial_rows_of_ials():
    stddev = 0.1 / np.sqrt(DIM)
    return stddev * rng.generator(1, "iALS item rows").normal(0.0, 1.0, (NUM_ITEMS, DIM))


def test_the_end_of_ials_is_a_fixed_point():
    rows = train_by_ials(500).item_rows
    learning, shards = training(with_exponent(0.0)), pack(ALL)
    assert np.abs(moved(learning, shards, rows)).max() < 2e-6
    # Of terms that are not: the penalty's alone, and the gradient a little further on.
    assert np.abs(2 * 0.3 / NUM_USERS * rows).max() > 0.01
    assert np.abs(moved(learning, shards, 1.1 * rows)).max() > 0.01


@pytest.mark.parametrize(
    ("optimizer", "num_rounds"),
    [(OptimizerOptions("adam", 0.02), 400), (OptimizerOptions("sgd", 0.5), 800)],
)
def test_training_ends_at_the_loss_that_ials_reaches_from_the_same_start(optimizer, num_rounds):
    options = dataclasses.replace(with_exponent(0.0), server_optimizer=optimizer)
    start = initial_rows_of_ials()

    def loss(table):
        table = np.float64(table)
        return float(whole_loss(table, minimum(table, OBSERVED, options), options))

    learning, shards = training(options), pack(ALL)
    state = learning.set_model_weights(learning.initialize(), weights_of(start))
    for _ in range(num_rounds):
        state = learning.next(state, shards).state
    reached = loss(train_by_ials(500).item_rows)
    assert loss(table_of(state)) < reached * (1 + 1e-4) < 0.9 * loss(start)


# Who counts.


@functools.cache
def reference():
    output = one_round(training(), pack(ALL))
    return table_of(output.state), fed_ials.training_metrics(output.metrics)


@pytest.mark.parametrize("clients_per_shard", [1, 3, 12])
def test_a_round_depends_neither_on_the_packing_nor_on_the_order(clients_per_shard):
    table, metrics = reference()
    for seed in range(2):
        users = np.random.default_rng(seed).permutation(NUM_USERS)
        shards = pack(users, clients_per_shard=clients_per_shard)
        output = one_round(training(clients_per_shard=clients_per_shard), shards)
        np.testing.assert_allclose(table_of(output.state), table, rtol=0, atol=1e-6)
        assert fed_ials.training_metrics(output.metrics) == pytest.approx(metrics, abs=1e-5)


def test_clients_without_items_and_padding_count_for_nothing():
    table, metrics = reference()
    items_of = [*ITEMS_OF, [], []]
    users = [12, *ALL[:5], 13, *ALL[5:]]
    for room in (3, 20):
        shards = pack(users, clients_per_shard=room, items_of=items_of)
        output = one_round(training(clients_per_shard=room), shards)
        np.testing.assert_allclose(table_of(output.state), table, rtol=0, atol=1e-6)
        assert fed_ials.training_metrics(output.metrics) == pytest.approx(metrics, abs=1e-5)


def test_a_round_of_packed_examples_with_the_packing_of_the_module():
    users, items = np.nonzero(OBSERVED)
    ratings = Ratings(
        name="tiny",
        user_ids=users.astype(np.int32),
        item_ids=items.astype(np.int32),
        ratings=np.full(len(users), 3.0, np.float32),
        timestamps=None,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        original_user_ids=ALL,
        original_item_ids=np.arange(NUM_ITEMS),
        item_titles=None,
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )
    examples = ImplicitExamples(ratings, ImplicitOptions(negatives_per_positive=0))
    for seed, room in ((0, 3), (1, 12)):
        packing = fed_ials.packing_options(seed=seed)
        shards = CohortPacker(examples, packing, clients_per_shard=room).pack(ALL, 1)
        for shard in shards:  # There are no steps to make room for.
            assert shard.support_batches.tolist() == shard.query_batches.tolist() == [[-1]] * room
        output = one_round(training(clients_per_shard=room), shards)
        np.testing.assert_allclose(table_of(output.state), reference()[0], rtol=0, atol=1e-6)


def test_a_table_that_is_not_finite_stays_as_it_was_and_everybody_is_rejected():
    broken = START.copy()
    broken[8, 1] = np.nan  # Nobody has this item, but it is in the Gram matrix.
    adam = OptimizerOptions("adam", 1.0)
    learning = training(dataclasses.replace(OPTIONS, server_optimizer=adam))
    start = learning.set_model_weights(learning.initialize(), weights_of(broken))
    output = learning.next(start, pack(ALL))
    for before, after in zip(tf.nest.flatten(start), tf.nest.flatten(output.state)):
        np.testing.assert_array_equal(before, after)
    assert output.metrics["finalizer"]["update_non_finite"] == 1
    metrics = fed_ials.training_metrics(output.metrics)
    assert metrics["num_clients_rejected"] == NUM_USERS
    assert metrics["num_examples"] == 0


def test_a_client_that_cannot_be_solved_for_is_left_out_and_counted():
    """Row 7 is so large that the systems of those who have it mean nothing in float32."""
    options = FedIalsOptions(
        regularization=1.0, exponent=0.5, unobserved_weight=1e-6, server_optimizer=GRADIENT
    )
    table = START.copy()
    table[7] = 1000.0
    having = [user for user, items in enumerate(ITEMS_OF) if 7 in items]
    others = [user for user in ALL if user not in having]
    learning = training(options)
    output, alone = (one_round(learning, pack(users), table) for users in (ALL, others))
    np.testing.assert_allclose(table_of(output.state), table_of(alone.state), rtol=0, atol=1e-6)
    gradient = np.float64(table) - table_of(output.state)
    expected = cohort_gradient(table, others, options)
    assert_close(gradient[:7], expected[:7])
    metrics, of_others = (fed_ials.training_metrics(o.metrics) for o in (output, alone))
    assert metrics.pop("num_clients_rejected") == len(having) == 4
    assert of_others.pop("num_clients_rejected") == 0
    assert metrics == pytest.approx(of_others, rel=1e-6)


def test_a_round_of_nobody_leaves_everything_as_it_was():
    """With Adam even the momentum of earlier rounds would move the model."""
    adam = OptimizerOptions("adam", 0.1)
    learning = training(dataclasses.replace(OPTIONS, server_optimizer=adam))
    begun = one_round(learning, pack(ALL)).state
    output = learning.next(begun, pack([0, 1], items_of=[[], []]))
    for before, after in zip(tf.nest.flatten(begun), tf.nest.flatten(output.state)):
        np.testing.assert_array_equal(before, after)
    assert fed_ials.training_metrics(output.metrics)["num_clients_rejected"] == 0


def test_neither_padding_nor_who_has_nothing_is_counted_as_rejected():
    broken = np.where(np.arange(NUM_ITEMS)[:, np.newaxis] == 8, np.nan, START)
    items_of = [*ITEMS_OF[:3], []]
    output = one_round(training(), pack(range(4), items_of=items_of), broken)
    assert fed_ials.training_metrics(output.metrics)["num_clients_rejected"] == 3


def test_large_but_well_conditioned_systems_are_solved():
    """The Gram matrix makes them definite, however little regularization there is beside it."""
    options = FedIalsOptions(
        regularization=1e-6, exponent=0.0, unobserved_weight=0.2, server_optimizer=GRADIENT
    )
    table = (START * 50.0).astype(np.float32)
    output = one_round(training(options), pack(ALL), table)
    assert fed_ials.training_metrics(output.metrics)["num_clients_rejected"] == 0
    rows = reconstruction(options)(weights_of(table), pack(ALL))[0][0]
    np.testing.assert_allclose(
        np.reshape(rows, [NUM_USERS, DIM]), minimum(table, OBSERVED, options), atol=1e-5
    )


@pytest.mark.parametrize("num_users", [0, -5])
def test_a_population_of_nobody_is_refused(num_users):
    with pytest.raises(InputError, match=f"num_users is {num_users}; it must be at least 1"):
        fed_ials.build_fed_ials(MODEL, OPTIONS, num_users=num_users, clients_per_shard=2)


# Metrics.


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_metrics_are_the_loss_of_clients_at_their_minima_by_interaction_and_counts(exponent):
    options = with_exponent(exponent)
    for users in ([0, 3, 4, 7, 10], ALL):
        seen = OBSERVED[users]
        expected = losses_of_users(np.float64(START), minimum(START, seen, options), seen, options)
        output = one_round(training(options), pack(users))
        assert fed_ials.training_metrics(output.metrics) == {
            "loss": pytest.approx(np.sum(expected) / seen.sum(), rel=1e-5),
            "num_examples": seen.sum(),
            "num_clients_rejected": 0,
        }


def test_a_round_of_nobody_has_a_loss_of_nothing():
    output = one_round(training(clients_per_shard=3), pack([0], items_of=[[]], clients_per_shard=3))
    assert fed_ials.training_metrics(output.metrics) == {
        "loss": 0.0,
        "num_examples": 0,
        "num_clients_rejected": 0,
    }


# Secure sums.

# TFF's SecureSumFactory cuts to [-bound, bound] and rounds to a multiple of 2 bound / (2^32 - 1),
# so an entry of what a shard sends is off by up to bound / 2^32.
WIDE = 2.0**20
NUM_BITS = 32


@functools.cache
def secure_training(bound, clients_per_shard, options=OPTIONS):
    return training(
        options,
        clients_per_shard,
        aggregator_factory=process.secure_mean(bound, weight_bound=float(NUM_USERS)),
        is_aggregator_linear=clients_per_shard > 1,
    )


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize("clients_per_shard", [1, 3])
def test_secure_sums_give_the_same_within_their_quantisation(clients_per_shard):
    learning = secure_training(WIDE, clients_per_shard)
    shards = pack(ALL, clients_per_shard=clients_per_shard)
    output = one_round(learning, shards)
    found = np.float64(START) - table_of(output.state)
    # The gradient takes the mean of the rows, of the frequencies (times 2 r V here, as nu is 1) and
    # of the second moment (times 2 a V); each is off by the error of the sum over clients.
    of_mean = len(shards) * WIDE / 2**NUM_BITS / NUM_USERS
    largest = np.abs(START).max(axis=1, keepdims=True)
    tolerance = of_mean * (1 + 2 * 0.3 * largest + 2 * 0.2 * DIM * largest) + 1e-6
    gap = np.abs(found - cohort_gradient(START, ALL, OPTIONS))
    assert (gap < tolerance).all()
    assert gap.max() > 2e-5  # It is quantised.
    assert fed_ials.training_metrics(output.metrics) == pytest.approx(reference()[1], abs=1e-5)
    sums = output.metrics["aggregator"]["mean_value"]
    assert sums["secure_upper_clipped_count"] == sums["secure_lower_clipped_count"] == 0
    # With a bound for this data it is as good as none.
    found = moved(secure_training(8.0, clients_per_shard), shards)
    assert_close(found, cohort_gradient(START, ALL, OPTIONS))


def contribution_of(user, table=START, options=OPTIONS):
    """What the module says a client returns, from dense rows."""
    seen = OBSERVED[user]
    row = minimum(table, seen[np.newaxis], options)[0]
    of_pairs = gradient_of(
        lambda table: tf.reduce_sum(seen * (1 - tf.linalg.matvec(table, row)) ** 2), table
    )
    return [of_pairs, seen[:, np.newaxis], np.outer(row, row)]


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize("clients_per_shard", [1, 3])
def test_secure_sums_cut_what_is_sent_by_the_entry(clients_per_shard):
    bound = 0.5
    sent = [
        [sum(parts) for parts in zip(*map(contribution_of, users))]
        for users in ALL.reshape(-1, clients_per_shard)
    ]
    cut = [[np.clip(part, -bound, bound) for part in parts] for parts in sent]
    assert min(np.abs(part).max() for part in sent[0]) < bound  # Not all of it.
    of_rows, frequencies, moment = (sum(parts) / NUM_USERS for parts in zip(*cut))
    strengths = 0.3 * (frequencies + 0.2)  # With nu = 1.
    expected = of_rows + 2 * (0.2 * START @ moment + strengths * START)
    learning = secure_training(bound, clients_per_shard)
    output = one_round(learning, pack(ALL, clients_per_shard=clients_per_shard))
    assert_close(np.float64(START) - table_of(output.state), expected)
    sums = output.metrics["aggregator"]["mean_value"]
    assert sums["secure_upper_clipped_count"] == len(sent)  # All count some item as 1.


def test_the_update_and_the_weights_are_summed_securely_and_metrics_in_the_open():
    update = f"<int64[{NUM_ITEMS},{DIM}],int64[{NUM_ITEMS},1],int64[{DIM},{DIM}]>"
    metrics = "<loss=float32,num_examples=int64,num_clients_rejected=int64>"
    for clients_per_shard in (1, 3):
        sums = sums_of(secure_training(8.0, clients_per_shard).next)
        assert sums.keys() == {"federated_secure_sum_bitwidth", "federated_sum"}
        # A secure sum comes with how many were summed, cut above and cut below.
        securely = sorted(sums["federated_secure_sum_bitwidth"])
        assert securely == [update, *["int32"] * 6, "int64"]
        assert sums["federated_sum"] == [metrics]


def sums_of(computation):
    """By the intrinsic, the types that go from clients to the server."""
    found = collections.defaultdict(list)
    for part in parts_of(computation.to_building_block()):
        if not isinstance(part, tff.framework.Intrinsic):
            continue
        parameter, result = part.type_signature.parameter, part.type_signature.result
        if not (isinstance(result, tff.FederatedType) and result.placement is tff.SERVER):
            continue
        arguments = parameter if isinstance(parameter, tff.StructType) else [parameter]
        for argument in arguments:
            if isinstance(argument, tff.FederatedType) and argument.placement is tff.CLIENTS:
                found[part.uri].append(argument.member.compact_representation())
    return found


def test_an_aggregator_of_clients_gets_no_shards():
    with pytest.raises(InputError, match="a shard of 2 clients sends their mean"):
        fed_ials.build_fed_ials(
            MODEL,
            OPTIONS,
            num_users=NUM_USERS,
            clients_per_shard=2,
            aggregator_factory=process.secure_mean(1.0, weight_bound=1.0),
        )


# What is where, and what it tells.


def tensors_of(type_spec):
    """Yields the tensors of a type, with where they are."""
    if isinstance(type_spec, tff.FederatedType):
        for tensor, _ in tensors_of(type_spec.member):
            yield tensor, type_spec.placement
    elif isinstance(type_spec, tff.StructType):
        for part in type_spec:
            yield from tensors_of(part)
    else:
        yield type_spec, None


def test_no_users_row_is_in_any_type_of_the_server():
    """Types as a privacy proof: 11 clients, 5 items, rows of 7."""
    secure = {"aggregator_factory": process.secure_mean(1.0, weight_bound=11.0)}
    for kwargs in ({}, {**secure, "is_aggregator_linear": True}):
        learning = fed_ials.build_fed_ials(
            mf(5, 7), FedIalsOptions(), num_users=100, clients_per_shard=11, **kwargs
        )
        for computation in (learning.initialize, learning.next):
            shapes = collections.Counter()
            for part in (computation.type_signature.parameter, computation.type_signature.result):
                for tensor, placement in tensors_of(part) if part is not None else ():
                    if placement is tff.SERVER:
                        shapes[tuple(tensor.shape)] += 1
            # The item rows, and two moments of Adam's.
            assert shapes.keys() <= {(5, 7), ()}, shapes
            assert shapes[5, 7] > 0
        result = learning.next.type_signature.result
        assert all(placement is tff.SERVER for _, placement in tensors_of(result))
        # Nor on the way: what is summed has the sizes of items and of a row, not of clients.
        summed = [spec for specs in sums_of(learning.next).values() for spec in specs]
        assert any("[5,7]" in spec and "[5,1]" in spec and "[7,7]" in spec for spec in summed)
        assert not [spec for spec in summed if "11" in spec or "?" in spec]


def test_reconstruction_stays_at_the_clients():
    computation = fed_ials.build_reconstruction(mf(5, 7), FedIalsOptions(), clients_per_shard=11)
    result = computation.type_signature.result
    assert result.placement is tff.CLIENTS
    assert result.member.compact_representation() == "<float32[11,1,7]>"
    assert not sums_of(computation)


@functools.cache
def watched(clients_per_shard):
    """Training in which the server's sum of contributions is seen, divided by the clients."""

    def measure(mean):
        return collections.OrderedDict(mean=mean)

    factory = tff.aggregators.add_measurements(
        tff.aggregators.MeanFactory(), server_measurement_fn=measure
    )
    return training(
        clients_per_shard=clients_per_shard, aggregator_factory=factory, is_aggregator_linear=True
    )


def seen_by_the_server(users):
    learning = watched(len(users))
    output = one_round(learning, pack(users, clients_per_shard=len(users)))
    return [np.float64(part) for part in output.metrics["aggregator"]["mean"]]


@pytest.mark.parametrize("user", [3, 5, 6])
def test_a_contribution_by_itself_tells_the_items_and_the_row(user):
    of_rows, counts, moment = seen = seen_by_the_server([user])
    for part, expected in zip(seen, contribution_of(user)):
        assert_close(part, expected, 5e-6)
    assert np.flatnonzero(counts[:, 0]).tolist() == ITEMS_OF[user]
    assert np.flatnonzero(of_rows.any(axis=1)).tolist() == ITEMS_OF[user]
    # Up to its sign, the row is the one direction of its square, and its length the root's.
    values, vectors = np.linalg.eigh(moment)
    assert (np.abs(values[:-1]) < 1e-6).all()
    row = np.sqrt(values[-1]) * vectors[:, -1]
    # One of the two signs gives the gradients.
    item = ITEMS_OF[user][0]
    gaps = {
        sign: np.abs(2 * (START[item] @ (sign * row) - 1) * sign * row - of_rows[item]).max()
        for sign in (1, -1)
    }
    sign = min(gaps, key=gaps.get)
    assert gaps[sign] < 1e-4 < 0.01 < gaps[-sign]
    assert_close(sign * row, minimum(START)[user], 1e-4)


def test_a_sum_of_few_contributions_tells_what_their_rows_span_and_whose_an_item_is():
    users = [0, 3]  # They share no item.
    of_rows, counts, moment = seen_by_the_server(users)
    rows = minimum(START)[users]
    values, vectors = np.linalg.eigh(moment)
    assert values[0] < 1e-7
    assert values[1] > 1e-3
    np.testing.assert_allclose(rows @ vectors[:, 0], 0, atol=1e-4)
    for item, user in ((1, 0), (5, 1)):
        assert counts[item] == 0.5  # Of two clients one.
        expected = contribution_of(users[user])[0][item] / 2
        assert_close(of_rows[item], expected)
        np.testing.assert_allclose(np.cross(of_rows[item], rows[user]), 0, atol=1e-5)


def test_clients_compute_with_nothing_of_the_size_of_the_catalogue_but_the_table():
    num_items = 1009
    learning = fed_ials.build_fed_ials(
        mf(num_items, 7), FedIalsOptions(), num_users=100, clients_per_shard=11
    )
    operations = [
        (operation, output)
        for operation in client_operations(learning.next)
        for output in operation.outputs
    ]
    assert len(operations) > 30
    large = collections.Counter(
        (operation.type, tuple(output.shape))
        for operation, output in operations
        if output.shape.rank and num_items in output.shape.as_list()
    )
    passed_on = {"Identity", "IdentityN", "StatefulPartitionedCall", "PartitionedCall"}
    kinds = {kind for kind, _ in large} - passed_on
    assert kinds == {"Placeholder", "UnsortedSegmentSum"}
    assert large["Placeholder", (num_items, 7)] == 1  # The table, which is gathered from.
    assert large["UnsortedSegmentSum", (num_items, 7)] == 1
    assert large["UnsortedSegmentSum", (num_items, 1)] == 1


def client_operations(computation):
    """Returns the operations of the graph that has the clients' shards as its input."""
    graphs = []
    for part in parts_of(computation.to_building_block()):
        if isinstance(part, tff.framework.CompiledComputation):
            parameter = part.type_signature.parameter
            # Shards are what has arrays of open length.
            if parameter is not None and "?" in parameter.compact_representation():
                graphs.append(part.proto.tensorflow.graph_def)
    (serialised,) = graphs
    definition = tf.compat.v1.GraphDef.FromString(serialised.value)
    assert not definition.library.function  # All of it is in sight.
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition)
    return graph.get_operations()


# Refusals.


def custom(*, combine, dim=DIM, local_dim=DIM, trains=(True, True)):
    """A model of item rows and a user's row, as `combine` has it."""

    def model():
        item_id = tf.keras.Input([1], dtype=tf.int64)
        items = tf.keras.layers.Embedding(NUM_ITEMS, dim, name="items", trainable=trains[0])
        user = UserEmbedding(local_dim, "ones", name="user", trainable=trains[1])
        rows = tf.keras.layers.Flatten()(items(item_id))
        return SplitModel(
            tf.keras.Model(item_id, combine(user(item_id), rows), name="custom"),
            [items],
            [user],
            rating_input_spec(),
            tf.keras.losses.MeanSquaredError,
            lambda: [],
        )

    return model


def product(user, rows):
    return InnerProduct(name="inner_product")([user, rows])


def builders(model):
    yield lambda: fed_ials.build_fed_ials(model, OPTIONS, num_users=3, clients_per_shard=2)
    yield lambda: fed_ials.build_reconstruction(model, OPTIONS, clients_per_shard=2)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (mf(user_bias=True), "without biases; .*item_embedding/.*, user_embedding/.*, user_bias/"),
        (mf(item_bias=True), "without biases; the model matrix_factorization .*, item_bias/"),
        (mf(global_bias=True), "without biases; .*, global_bias/bias"),
        (mf(l2=0.1), "and regularizers, .*; that of item_embedding/embeddings in the model matrix"),
        (mf(spread_out=0.1), "and regularizers, .*; that of item_embedding/embeddings"),
        (functools.partial(gmf, NUM_ITEMS, 4), "the model gmf has the weights .* prediction/"),
        (
            functools.partial(neumf, NUM_ITEMS, gmf_dim=4, hidden_units=(8, 4)),
            "the model neumf has the weights gmf_item_embedding/",
        ),
        (
            custom(combine=product, trains=(False, True)),
            "items/embeddings of the model custom is not trainable",
        ),
        (
            custom(combine=product, trains=(True, False)),
            "user/embeddings of the model custom is not trainable",
        ),
        (
            custom(combine=lambda *rows: tf.keras.activations.sigmoid(product(*rows))),
            "the model custom is no inner product of two rows",
        ),
        (
            custom(combine=lambda user, rows: product(user, rows[:, ::-1])),
            "the model custom is no inner product",
        ),
        (
            custom(combine=lambda user, rows: product(user, rows[:, :2]), local_dim=2),
            "the model custom is no inner product",
        ),
    ],
)
def test_what_is_no_matrix_factorization_is_refused(model, words):
    for build in builders(model):
        with pytest.raises(InputError, match=f"federated iALS takes matrix factor.*{words}"):
            build()


def test_what_is_a_matrix_factorization_by_another_name_is_taken():
    for build in builders(custom(combine=product)):
        build()


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
def test_what_cannot_be_is_refused(setting, words):
    with pytest.raises(InputError, match=words):
        FedIalsOptions(**setting)
