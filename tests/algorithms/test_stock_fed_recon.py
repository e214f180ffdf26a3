"""Stock FedRecon against a plain NumPy rendering of algorithm 1 of the paper."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import stock_fed_recon
from fedrecon.engine import client_metrics
from fedrecon.models.neural_cf import neumf
from fedrecon.options import FedReconOptions, OptimizerOptions
from tests.tiny import mf, sgd

pytestmark = pytest.mark.usefixtures("native_worker")

NUM_ITEMS, DIM = 6, 2
MODEL = mf(
    NUM_ITEMS,
    DIM,
    item_initializer=tf.keras.initializers.RandomUniform(0.2, 1.0, seed=1),
    user_initializer=tf.keras.initializers.RandomUniform(0.2, 1.0, seed=2),
)

# Sizes that reach the corners: partial last batches, a client whose query is one rating, a client
# that has a support and no query.
CLIENTS = [
    (np.array([0, 1, 2, 3, 4, 5, 0]), np.array([1.0, 2, 3, 4, 5, 1, 2], np.float32)),
    (np.array([5, 3, 1]), np.array([4.0, 2, 5], np.float32)),
    (np.array([2, 4]), np.array([3.0, 3], np.float32)),
]


OPTIONS = FedReconOptions(
    reconstruction_optimizer=sgd(0.2),
    client_optimizer=sgd(0.3),
    server_optimizer=sgd(0.7),
    batch_size=2,
    reconstruction_epochs=3,
    reconstruction_steps_max=5,
)


def initial_weights():
    model = MODEL()
    return model.global_weights[0].numpy(), model.local_weights[0].numpy()[0]


class NumpyFedRecon:
    """Plain gradient descent, one client and one batch at a time."""

    def __init__(self, options):
        self.options = options
        self.items, self.user = initial_weights()

    def stages(self, ids, ratings, *, is_training=True):
        size = self.options.batch_size
        batches = [(ids[i : i + size], ratings[i : i + size]) for i in range(0, len(ids), size)]
        if self.options.support_query_split == "none":
            return batches, batches
        if self.options.support_query_split == "query_of_all" and is_training:
            return batches[0::2], batches
        return batches[0::2], batches[1::2]

    def reconstruct(self, support):
        user = self.user.copy()
        steps = (support * self.options.reconstruction_epochs)[
            : self.options.reconstruction_steps_max
        ]
        for ids, ratings in steps:
            errors = self.items[ids] @ user - ratings
            user -= self.options.reconstruction_optimizer.learning_rate * (
                2 / len(ids) * errors @ self.items[ids]
            )
        return user

    def round(self, clients):
        deltas, weights, all_errors = [], [], []
        for ids, ratings in clients:
            support, query = self.stages(ids, ratings)
            user = self.reconstruct(support)
            items = self.items.copy()
            count = 0
            for ids, ratings in (query * self.options.client_epochs)[
                : self.options.client_steps_max
            ]:
                errors = items[ids] @ user - ratings
                all_errors.extend(errors)
                count += len(ids)
                gradient = np.zeros_like(items)
                np.add.at(gradient, ids, 2 / len(ids) * errors[:, np.newaxis] * user)
                items -= self.options.client_optimizer.learning_rate * gradient
            deltas.append(items - self.items)
            weights.append(count if self.options.client_weighting == "num_examples" else 1)
        rate = self.options.server_optimizer.learning_rate
        self.items = self.items + rate * np.average(deltas, axis=0, weights=weights)
        return summarize(all_errors)

    def evaluate(self, clients):
        errors = []
        for ids, ratings in clients:
            support, query = self.stages(ids, ratings, is_training=False)
            user = self.reconstruct(support)
            for query_ids, query_ratings in query:
                errors.extend(self.items[query_ids] @ user - query_ratings)
        return summarize(errors)


def summarize(errors):
    errors = np.array(errors)
    return {
        "loss": np.mean(errors**2),
        "rmse": np.sqrt(np.mean(errors**2)),
        "accuracy": np.mean(np.abs(errors) <= 0.5),
        "num_examples": len(errors),
    }


def datasets(clients, batch_size=2):
    return [stock_fed_recon.client_dataset(*c, batch_size=batch_size) for c in clients]


def replace(**changes):
    return dataclasses.replace(OPTIONS, **changes)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(OPTIONS, id="paper-like"),
        pytest.param(
            replace(support_query_split="none", client_epochs=2, client_steps_max=3),
            id="all-on-all",
        ),
        pytest.param(replace(support_query_split="query_of_all"), id="query-of-all"),
        pytest.param(replace(client_weighting="uniform"), id="uniform-weights"),
    ],
)
def test_rounds_and_evaluation_equal_numpy(options):
    process = stock_fed_recon.build_fed_recon(MODEL, options)
    evaluation = stock_fed_recon.build_fed_recon_evaluation(MODEL, options)
    oracle = NumpyFedRecon(options)
    state = process.initialize()
    np.testing.assert_array_equal(
        process.get_model_weights(state).trainable[0], oracle.items, "initial values"
    )
    for _ in range(2):
        output = process.next(state, datasets(CLIENTS))
        state = output.state
        expected = oracle.round(CLIENTS)
        assert client_metrics.training_metrics(output.metrics) == pytest.approx(expected, rel=1e-5)
        weights = process.get_model_weights(state)
        np.testing.assert_allclose(weights.trainable[0], oracle.items, rtol=1e-5)
    measured = evaluation.next(
        evaluation.set_model_weights(evaluation.initialize(), weights), datasets(CLIENTS)
    )
    assert client_metrics.evaluation_metrics(measured.metrics) == pytest.approx(
        oracle.evaluate(CLIENTS), rel=1e-5
    )


def test_a_round_without_any_query_leaves_the_model_as_it_was():
    process = stock_fed_recon.build_fed_recon(MODEL, OPTIONS)
    state = process.initialize()
    before = process.get_model_weights(state).trainable[0]
    empty = (np.array([], np.int64), np.array([], np.float32))
    output = process.next(state, datasets([CLIENTS[2], empty]))
    after = process.get_model_weights(output.state).trainable[0]
    np.testing.assert_array_equal(after, before)  # TFF's own mean would give NaN here.
    assert client_metrics.training_metrics(output.metrics)["num_examples"] == 0


def test_regularization_reaches_the_gradient_and_not_the_loss():
    # On one query batch with a zero rating error the data gradient vanishes: what is left is L2.
    options = replace(support_query_split="none", client_steps_max=1, batch_size=1)
    plain, decayed = MODEL, functools.partial(MODEL, l2=0.05)
    client = [(np.array([1]), np.array([3.0], np.float32))]
    results = {}
    for name, model in (("plain", plain), ("decayed", decayed)):
        # Reconstruction is regularized too, so its rate is set to nothing to compare the items.
        tiny = replace(
            support_query_split="none",
            client_steps_max=1,
            batch_size=1,
            reconstruction_optimizer=sgd(1e-12),
        )
        process = stock_fed_recon.build_fed_recon(model, tiny)
        output = process.next(process.initialize(), datasets(client, options.batch_size))
        results[name] = (
            process.get_model_weights(output.state).trainable[0],
            client_metrics.training_metrics(output.metrics)["loss"],
        )
    items, _ = initial_weights()
    # One step of gradient 2 * l2 * V on every row, through client rate 0.3 and server rate 0.7.
    np.testing.assert_allclose(
        results["decayed"][0] - results["plain"][0], -0.7 * 0.3 * 2 * 0.05 * items, atol=1e-6
    )
    assert results["decayed"][1] == pytest.approx(results["plain"][1], rel=1e-6)


def test_no_local_weight_is_in_what_the_server_holds_or_gets():
    process = stock_fed_recon.build_fed_recon(MODEL, OPTIONS)
    signature = process.next.type_signature
    for where in (signature.parameter[0], signature.result[0], signature.result[1]):
        assert where.placement.uri == "server"
        assert f"float32[{NUM_ITEMS},{DIM}]" in str(where) or where is signature.result[1]
        assert f"float32[1,{DIM}]" not in str(where)  # The user's row.


def test_neumf_learns_to_tell_liked_from_disliked():
    # Everybody likes the items below 3: after some rounds the loss is far below chance (0.693).
    options = FedReconOptions(
        reconstruction_optimizer=sgd(0.1),
        client_optimizer=OptimizerOptions("adam", 0.05),
        server_optimizer=sgd(1.0),
        batch_size=3,
    )
    model = functools.partial(neumf, NUM_ITEMS, gmf_dim=4, hidden_units=(8, 4))
    process = stock_fed_recon.build_fed_recon(model, options)
    ids = np.array([0, 3, 1, 4, 2, 5] * 2)
    client = (ids, (ids < 3).astype(np.float32))
    state = process.initialize()
    losses = []
    for _ in range(12):
        output = process.next(state, datasets([client] * 2, options.batch_size))
        state = output.state
        losses.append(client_metrics.training_metrics(output.metrics)["loss"])
    assert losses[0] == pytest.approx(0.693, abs=0.15)
    assert losses[-1] < 0.2


def test_client_dataset_keeps_order_types_and_the_partial_batch():
    batches = list(stock_fed_recon.client_dataset(*CLIENTS[1], batch_size=2))
    assert [b["x"].numpy().tolist() for b in batches] == [[[5], [3]], [[1]]]
    assert [b["y"].numpy().tolist() for b in batches] == [[[4.0], [2.0]], [[5.0]]]
    assert (batches[0]["x"].dtype, batches[0]["y"].dtype) == (tf.int64, tf.float32)
