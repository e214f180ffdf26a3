"""Federated iALS: FedRecon on implicit feedback with exact reconstruction, and nothing sampled.

The model is matrix factorization, with a row `x_u` per user, on the device, and `v_i` per item. The
loss is that of iALS: Hu, Koren and Volinsky 2008, "Collaborative Filtering for Implicit Feedback
Datasets", as stated in Rendle et al. 2022, "Revisiting the Performance of iALS on Item
Recommendation Benchmarks" (arXiv:2110.14037), with its frequency-scaled regularization:

    L = sum over observed (u, i) of (1 - x_u . v_i)^2
        + a * sum over all (u, i) of (x_u . v_i)^2
        + r * (sum over u of (n_u + a * I)^nu |x_u|^2 + sum over i of (n_i + a * U)^nu |v_i|^2)

with U users and I items, of which user u has `n_u` and item i is had by `n_i`. To federate its user
half and take the item half by gradient is the idea of Federated Collaborative Filtering
(Ammad-ud-din et al. 2019, arXiv:1901.09888), whose clients compute a gradient of every item. Here
they do not. A round:

1. The server computes the Gram matrix `G = V'V`, `[dim, dim]`, once.
2. Each client needs it and the rows `V_u` of its own items, and solves for the minimum,
   `(V_u'V_u + a G + r (n_u + a I)^nu) x_u = V_u' 1`: the sum over all items is in `G`.
3. It returns, for its own items, the gradients `2 (x_u . v_i - 1) x_u` and a one (which counts
   `n_i`); and `x_u x_u'`, `[dim, dim]`, for all items.
4. The server sums. The gradient of the all-items part is `2 a V (sum of x_u x_u')`; that of the
   items' regularization follows from the counts. It applies the mean over clients with its
   optimiser.

So a client's work grows with its own items, not with the catalogue, and nothing is sampled. Since
`x_u` is the minimum of the same loss, the gradient in `V` is that of the loss minimised over all
users, although no gradient goes through the solution (the envelope theorem). A round with a uniform
sample of the users is a step on an unbiased estimate of it, but for the regularization of items if
`0 < nu < 1`, which is not linear in the counts.

**What one client's contribution reveals**, if the server sees it by itself: which items the client
has, from the counts; `x_u` up to its sign, from `x_u x_u'`, and its sign from the gradients. That
is all there is to know of a client. It must therefore only be summed, by secure aggregation
(`process.secure_mean`). There a client sends whole tables, since rows of its items alone would say
which they are, as would asking the server for these alone: traffic does grow with the catalogue.
And a sum hides a client only among others: that of `x_u x_u'` over fewer clients than `dim` spans
exactly their rows, and the row of an item that one client of a round has is that client's. The
metrics of a round are sums too, but plain ones. Secure sums are no differential privacy; use
cohorts much larger than `dim`.
"""

from __future__ import annotations

import collections

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.cohorts import PackingOptions, Passes, Shard
from fedrecon.engine import client_work
from fedrecon.engine.least_squares import solve_systems
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn, SplitModel
from fedrecon.options import FedIalsOptions
from fedrecon.wiring import process

# Clients have no steps, so batches mean nothing.
_BATCH_SIZE = 1


def packing_options(*, seed: int) -> PackingOptions:
    """Returns how clients are packed; all that they have are positives.

    Args:
      seed: As for other algorithms; nothing here is random.
    """
    return PackingOptions(
        batch_size=_BATCH_SIZE,
        support_query_split="none",
        support=Passes(0),
        query=Passes(0),
        seed=seed,
    )


def build_fed_ials(
    model_fn: ModelFn,
    options: FedIalsOptions,
    *,
    num_users: int,
    clients_per_shard: int,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds training.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      options: The settings.
      num_users: How many users there are who have items [U], positive.
      clients_per_shard: That of the `CohortPacker`.
      aggregator_factory: As for `fed_recon.build_fed_recon`.
      is_aggregator_linear: Likewise.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`,
      of examples without negatives: labels are not looked at, and every item is a positive. Clients
      without items count for nothing, and a round of nobody else leaves the model as it was. Its
      metrics, under `client_work` and `train`, are those that `training_metrics` reads.

    Raises:
      InputError: If the model is not an inner product, `num_users` is not positive, or see
        `fed_recon.build_fed_recon`.
    """
    if num_users < 1:
        raise InputError(f"num_users is {num_users}; it must be at least 1.")
    process.check_aggregator(
        aggregator_factory, is_linear=is_aggregator_linear, clients_per_shard=clients_per_shard
    )
    _check_is_inner_product(model_fn())

    def update_shard(message, shard):
        table, gram = message
        clients = _reconstruct(options, table, gram, shard)
        is_counted = clients.is_finite & (clients.num_items > 0)
        rows, mask = clients.rows, clients.mask & is_counted[:, tf.newaxis]
        users = tf.where(is_counted[:, tf.newaxis], clients.users, 0.0)
        scores = tf.linalg.matvec(rows, users)
        residuals = tf.where(mask, scores - 1.0, 0.0)
        gradients = 2.0 * residuals[..., tf.newaxis] * users[:, tf.newaxis]
        counts = tf.cast(mask, tf.float32)[..., tf.newaxis]
        num_items = table.shape[0]
        of_all_items = tf.reduce_sum(users * tf.matmul(users, gram), axis=1)
        losses = tf.reduce_sum(tf.square(residuals), axis=1)
        losses += options.unobserved_weight * of_all_items
        losses += clients.regularization * tf.reduce_sum(tf.square(users), axis=1)
        num_counted = tf.reduce_sum(tf.cast(is_counted, tf.float32))
        return process.ShardOutput(
            update=[
                client_work.sum_rows(gradients, shard.item_ids, num_items),
                client_work.sum_rows(counts, shard.item_ids, num_items),
                tf.matmul(users, users, transpose_a=True),
            ],
            weight=num_counted,
            metrics=collections.OrderedDict(
                loss=tf.reduce_sum(losses),
                num_examples=tf.math.count_nonzero(mask),
                num_clients_rejected=tf.math.count_nonzero(
                    ~clients.is_finite & (clients.num_items > 0)
                ),
            ),
        )

    def gradient(weights, mean):
        """Returns the gradient of the loss by users: `L / U`, if all of them took part."""
        (table,) = weights.trainable
        of_rows, frequencies, second_moment = mean
        alpha, nu = options.unobserved_weight, options.exponent
        strengths = (num_users * (frequencies + alpha)) ** nu * (options.regularization / num_users)
        of_all_items = alpha * tf.matmul(table, second_moment)
        return [of_rows + 2.0 * (of_all_items + strengths * table)]

    def finalize(sums):
        count = tf.cast(sums["num_examples"], tf.float32)
        return collections.OrderedDict(sums, loss=tf.math.divide_no_nan(sums["loss"], count))

    return process.build_training_process(
        process.initial_weights(model_fn),
        process.shard_type(_BATCH_SIZE, clients_per_shard),
        shard_update=update_shard,
        finalize_metrics=finalize,
        server_optimizer=options.server_optimizer,
        server_message=_table_and_gram,
        server_update=gradient,
        aggregator_factory=aggregator_factory,
    )


def training_metrics(metrics: collections.OrderedDict) -> dict[str, float]:
    """Returns the metrics of a round, before its update, over its clients.

    `loss` is the sum of the clients' parts of the loss, at their minima (without the regularization
    of items), by the interactions that they have, `num_examples`; `num_clients_rejected` is how
    many were left out because their rows were not finite.
    """
    ours = metrics["client_work"]["train"]
    return {
        "loss": float(ours["loss"]),
        "num_examples": int(ours["num_examples"]),
        "num_clients_rejected": int(ours["num_clients_rejected"]),
    }


def build_reconstruction(
    model_fn: ModelFn, options: FedIalsOptions, *, clients_per_shard: int
) -> tff.Computation:
    """Builds the reconstruction of users, by which anybody can be served.

    Only the loss of `options` matters. Somebody who gives nothing gets a row of zeros.

    Returns:
      A computation of `ModelWeights` of the global part, at SERVER, and shards packed with
      `packing_options`, at CLIENTS, to the local values `[clients, ...]`, at CLIENTS, for each of
      the local weights.
    """
    split_model = model_fn()
    _check_is_inner_product(split_model)
    (weight,) = split_model.local_weights

    def reconstruct_clients(message, shard):
        users = _reconstruct(options, *message, shard).users
        return [tf.reshape(users, [-1, *weight.shape])]

    return process.build_at_clients(
        model_fn,
        process.shard_type(_BATCH_SIZE, clients_per_shard),
        reconstruct_clients,
        server_message=_table_and_gram,
    )


class _Clients(collections.namedtuple("_Clients", "rows mask num_items users regularization")):
    """Reconstructed clients.

    Attributes:
      rows: `[clients, items, dim]`: the rows of their items; 0 where there is none.
      mask: `[clients, items]` bool: where there is one.
      num_items: `[clients]` float32.
      users: `[clients, dim]`: their own rows.
      regularization: `[clients]`: what their squares weigh.
    """

    @property
    def is_finite(self) -> tf.Tensor:
        return tf.reduce_all(tf.math.is_finite(self.users), axis=1)


def _reconstruct(options: FedIalsOptions, table, gram, shard: Shard) -> _Clients:
    mask = shard.item_ids >= 0
    rows = tf.gather(table, tf.maximum(shard.item_ids, 0))
    rows = tf.where(mask[..., tf.newaxis], rows, 0.0)
    num_items = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)
    alpha = options.unobserved_weight
    growth = (num_items + alpha * table.shape[0]) ** options.exponent
    regularization = options.regularization * growth
    penalties = regularization[:, tf.newaxis, tf.newaxis] * tf.eye(table.shape[1])
    systems = tf.matmul(rows, rows, transpose_a=True) + alpha * gram + penalties
    users = solve_systems(systems, tf.reduce_sum(rows, axis=1))
    return _Clients(rows, mask, num_items, users, regularization)


def _table_and_gram(weights):
    (table,) = weights.trainable
    return [table, tf.matmul(table, table, transpose_a=True)]


def _check_is_inner_product(split_model: SplitModel) -> None:
    """Raises `InputError` unless the model is `x_u . v_i` and nothing else."""
    model = FunctionalModel(split_model)
    name = split_model.keras_model.name
    kind = "federated iALS takes matrix factorization without biases"
    if len(model.global_weights) != 1 or len(model.local_weights) != 1:
        names = ", ".join(weight.name for weight in model.weights)
        raise InputError(f"{kind}; the model {name} has the weights {names}.")
    for weight in model.weights:
        if weight.regularizer is not None:
            raise InputError(
                f"{kind} and regularizers, since its loss has its own; that of {weight.name} in"
                f" the model {name} would be left out."
            )
        if not weight.trainable:
            raise InputError(f"{kind}; {weight.name} of the model {name} is not trainable.")
    (table,), (local,) = model.global_weights, model.local_weights
    is_product = table.is_item_table and local.shape.num_elements() == table.shape[1]
    if is_product:
        rows = tf.random.stateless_normal([5, table.shape[1]], seed=[0, 0])
        user = tf.random.stateless_normal(local.shape, seed=[0, 1])
        ids = tf.zeros([5], tf.int32)
        predict = tf.function(lambda: model.predict(ids, [rows, user]), autograph=False)
        found = predict.get_concrete_function()()
        expected = tf.linalg.matvec(rows, tf.reshape(user, [-1]))
        is_product = bool(tf.reduce_all(tf.abs(found - expected) < 1e-4))
    if not is_product:
        raise InputError(f"{kind}; the model {name} is no inner product of two rows.")
