"""Federated iALS: FedRecon on implicit feedback with exact reconstruction, and nothing sampled.

The model is matrix factorization, with a row `x_u` for each user, on the device, and a row `v_i`
for each item. The loss is the one of iALS: Hu, Koren and Volinsky 2008, "Collaborative Filtering
for Implicit Feedback Datasets", as stated in Rendle et al. 2022, "Revisiting the Performance of
iALS on Item Recommendation Benchmarks" (arXiv:2110.14037), with its frequency-scaled
regularization:

    L = sum over observed (u, i) of (1 - x_u . v_i)^2
        + a * sum over all (u, i) of (x_u . v_i)^2
        + r * (sum over u of (n_u + a * I)^nu |x_u|^2 + sum over i of (n_i + a * U)^nu |v_i|^2)

with U users and I items; user u has `n_u` items, and `n_i` users have item i. To federate its user
half and take the item half by gradient is the idea of Federated Collaborative Filtering
(Ammad-ud-din et al. 2019, arXiv:1901.09888), whose clients compute a gradient of every item. Here
they do not. A round:

1. The server computes the Gram matrix `G = V'V`, `[dim, dim]`, once.
2. Each client needs it and the rows `V_u` of its own items, and solves for the minimum,
   `(V_u'V_u + a G + r (n_u + a I)^nu) x_u = V_u' 1`: the sum over all items is in `G`.
3. It returns, for its own items, the gradients `2 (x_u . v_i - 1) x_u` and a one (which counts
   `n_i`); and `x_u x_u'`, `[dim, dim]`, for all items.
4. The server sums. The gradient of the all-items part is `2 a V (sum of x_u x_u')`; the gradient of
   the items' regularization follows from the counts. It applies the mean over clients with its
   optimizer.

So a client's work grows with its own items, not with the catalog, and nothing is sampled. Since
`x_u` is the minimum of the same loss, the gradient in `V` is the gradient of the loss minimized
over all users, although no gradient goes through the solution (the envelope theorem). A round with
a uniform sample of the users is a step on an unbiased estimate of it, but for the regularization of
items if `0 < nu < 1`, which is not linear in the counts.

**What one client's contribution reveals**, if the server sees it by itself: which items the client
has, from the counts; `x_u` up to its sign, from `x_u x_u'`, and its sign from the gradients. That
is all there is to know of a client. It must therefore only be summed, by secure aggregation
(`wiring.secure.secure_mean`). There a client sends whole tables, since rows of its items alone
would name them, as would a request to the server for these alone: traffic does grow with the
catalog. And a sum hides a client only among others: the sum of `x_u x_u'` over fewer clients than
`dim` spans exactly their rows, and if one client alone in a round has an item, the item's row is
its own. The metrics of a round are sums too, but plain ones. Secure sums are no differential
privacy; use cohorts much larger than `dim`.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.algorithm import (
    BATCH_OF_ITEMS,
    Algorithm,
    Reconstruction,
    check_clients_per_shard,
    cohort_sampler,
    costs_of_rounds,
    packing_of_items,
)
from fedrecon.data.cohorts import CohortPacker, Shard
from fedrecon.data.population import IMPLICIT, Population
from fedrecon.engine.least_squares import solve_systems
from fedrecon.engine.updates import sum_rows
from fedrecon.engine.values import Values
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import structure
from fedrecon.models.split_model import ModelFn, SplitModel
from fedrecon.options import FedIalsOptions
from fedrecon.wiring.at_clients import build_at_clients
from fedrecon.wiring.outputs import ShardOutput
from fedrecon.wiring.process import build_training_process
from fedrecon.wiring.secure import check_aggregator
from fedrecon.wiring.types import shard_type
from fedrecon.wiring.weights import global_part

# No steps are waited for, and small shards have less padding (measured; see BUILD_NOTES.md).
_CLIENTS_PER_SHARD = 32

packing_options = packing_of_items


class Message(NamedTuple):
    """What clients get of the server.

    Attributes:
      table: The item rows, `[items, dim]`; a client needs those of its own items.
      gram: The Gram matrix of all items, `[dim, dim]`.
    """

    table: tf.Tensor
    gram: tf.Tensor


def build_fed_ials(
    model_fn: ModelFn,
    options: FedIalsOptions,
    *,
    num_users: int,
    clients_per_shard: int,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
    debug: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds training.

    Args:
      model_fn: Builds the model.
      options: The settings.
      num_users: How many users have items [U], positive.
      clients_per_shard: As for the `CohortPacker`.
      aggregator_factory: As for `fed_recon.build_fed_recon`.
      is_aggregator_linear: As for `fed_recon.build_fed_recon`.
      debug: As for `fed_recon.build_fed_recon`; clients are solved together, not one by one.

    Returns:
      A process whose `next(state, shards)` takes a list of shards packed with `packing_options`,
      of examples without negatives: labels are not looked at, and every item is a positive. Clients
      without items count for nothing, and a round of such clients alone leaves the model as it was.
      Its metrics, under `client_work` and `train`, are read by `training_metrics`.

    Raises:
      InputError: If the model is not an inner product, `num_users` is not positive, or see
        `fed_recon.build_fed_recon`.
    """
    if num_users < 1:
        raise InputError(f"num_users is {num_users}; it must be at least 1.")
    check_aggregator(
        aggregator_factory, is_linear=is_aggregator_linear, clients_per_shard=clients_per_shard
    )
    model = _inner_product(model_fn())
    return build_training_process(
        global_part(model_fn, model),
        shard_type(BATCH_OF_ITEMS, clients_per_shard),
        shard_update=lambda message, shard: _update_shard(options, message, shard),
        finalize_metrics=_finalize_metrics,
        server_optimizer=options.server_optimizer,
        server_message=_table_and_gram,
        server_update=lambda values, mean: _gradient(options, num_users, values, mean),
        aggregator_factory=aggregator_factory,
        debug=debug,
    )


def prepare_fed_ials(
    model_fn: ModelFn,
    options: FedIalsOptions,
    population: Population,
    *,
    clients_per_round: int,
    clients_per_shard: int | None = None,
    sampler: str = "uniform",
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
) -> Algorithm:
    """Returns federated iALS, ready to train on a population with implicit feedback.

    Arguments and errors are those of `prepare_fed_recon`, and:

    Raises:
      InputError: If the population has explicit feedback, or its clients draw negatives.
    """
    _check_population(population)
    packing = packing_options(seed=population.seed)
    is_alone = aggregator_factory is not None and not is_aggregator_linear
    most = 1 if is_alone else clients_per_round
    check_clients_per_shard(clients_per_shard, most=most)
    size = clients_per_shard or min(_CLIENTS_PER_SHARD, most)
    training = build_fed_ials(
        model_fn,
        options,
        num_users=len(population.train),
        clients_per_shard=size,
        aggregator_factory=aggregator_factory,
        is_aggregator_linear=is_aggregator_linear,
    )
    model = FunctionalModel(model_fn())
    # A client also gets the Gram matrix, and sends the sum of outer products and the item counts.
    (table,) = model.global_weights
    num_items, dim = table.shape
    square = dim * dim * table.dtype.size

    def build(clients_per_shard: int):
        return build_reconstruction(model_fn, options, clients_per_shard=clients_per_shard)

    of_loss = (options.regularization, options.exponent, options.unobserved_weight)
    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        training_data=CohortPacker(population.examples, packing, clients_per_shard=size).pack,
        training_metrics=training_metrics,
        get_weights=training.get_model_weights,
        reconstruction=Reconstruction(
            model_fn,
            build,
            packing,
            key=("fed_ials", structure(model_fn), of_loss),
            options=options,
        ),
        costs=costs_of_rounds(
            model, item_steps=1.0, more_down=square, more_up=square + num_items * table.dtype.size
        ),
    )


def _check_population(population: Population) -> None:
    """Refuses examples that are no positives; labels are not looked at."""
    if population.feedback != IMPLICIT:
        raise InputError(
            "federated iALS ranks items, and the population has explicit feedback; "
            "divide_for_ranking makes one with implicit feedback."
        )
    number = population.examples.options.negatives_per_positive
    if number:
        raise InputError(
            f"the clients of federated iALS draw no negatives, and the population has {number} for "
            "each positive; divide_for_ranking(..., negatives_per_positive=0) makes one without."
        )


def training_metrics(metrics: collections.OrderedDict) -> dict[str, float]:
    """Returns the metrics of a round, before its update, over its clients.

    `loss` is the sum of the clients' parts of the loss, at their minima (without the regularization
    of items), divided by `num_examples`, the interactions that they have; `num_clients_rejected`
    is the number of clients left out because their rows were not finite.
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

    Only the loss of `options` matters. A user who gives nothing gets a row of zeros.

    Returns:
      A computation of `ModelWeights` of the global part, at SERVER, and shards packed with
      `packing_options`, at CLIENTS, to the local values `[clients, ...]`, at CLIENTS, for each of
      the local weights.
    """
    model = _inner_product(model_fn())
    (weight,) = model.local_weights

    def reconstruct_clients(message, shard):
        users = _reconstruct(options, message, shard).users
        return [tf.reshape(users, [-1, *weight.shape])]

    return build_at_clients(
        global_part(model_fn, model),
        shard_type(BATCH_OF_ITEMS, clients_per_shard),
        reconstruct_clients,
        server_message=_table_and_gram,
    )


def _table_and_gram(values: Values) -> Message:
    """Returns the result of step 1 of a round."""
    (table,) = values.values()
    return Message(table, tf.matmul(table, table, transpose_a=True))


class _Clients(NamedTuple):
    """Reconstructed clients.

    Attributes:
      rows: `[clients, items, dim]`: the rows of their items; 0 where there is none.
      mask: `[clients, items]` bool: where there is one.
      num_items: `[clients]` float32.
      users: `[clients, dim]`: their own rows.
      regularization: `[clients]`: the L2 strength on each client's own row.
    """

    rows: tf.Tensor
    mask: tf.Tensor
    num_items: tf.Tensor
    users: tf.Tensor
    regularization: tf.Tensor

    @property
    def is_finite(self) -> tf.Tensor:
        return tf.reduce_all(tf.math.is_finite(self.users), axis=1)


def _reconstruct(options: FedIalsOptions, message: Message, shard: Shard) -> _Clients:
    """Returns the result of step 2 of a round."""
    mask = shard.item_ids >= 0
    rows = tf.gather(message.table, tf.maximum(shard.item_ids, 0))
    rows = tf.where(mask[..., tf.newaxis], rows, 0.0)
    num_items = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)
    alpha = options.unobserved_weight
    growth = (num_items + alpha * message.table.shape[0]) ** options.exponent
    regularization = options.regularization * growth
    penalties = regularization[:, tf.newaxis, tf.newaxis] * tf.eye(message.table.shape[1])
    systems = tf.matmul(rows, rows, transpose_a=True) + alpha * message.gram + penalties
    users = solve_systems(systems, tf.reduce_sum(rows, axis=1))
    return _Clients(rows, mask, num_items, users, regularization)


def _update_shard(options: FedIalsOptions, message: Message, shard: Shard) -> ShardOutput:
    """Returns the result of steps 2 and 3 of a round: gradients, counts, and the second moment."""
    clients = _reconstruct(options, message, shard)
    is_counted = clients.is_finite & (clients.num_items > 0)
    rows, mask = clients.rows, clients.mask & is_counted[:, tf.newaxis]
    users = tf.where(is_counted[:, tf.newaxis], clients.users, 0.0)
    residuals = tf.where(mask, tf.linalg.matvec(rows, users) - 1.0, 0.0)
    gradients = 2.0 * residuals[..., tf.newaxis] * users[:, tf.newaxis]
    counts = tf.cast(mask, tf.float32)[..., tf.newaxis]
    num_items = message.table.shape[0]
    of_all_items = tf.reduce_sum(users * tf.matmul(users, message.gram), axis=1)
    losses = tf.reduce_sum(tf.square(residuals), axis=1)
    losses += options.unobserved_weight * of_all_items
    losses += clients.regularization * tf.reduce_sum(tf.square(users), axis=1)
    num_counted = tf.reduce_sum(tf.cast(is_counted, tf.float32))
    return ShardOutput(
        update=[
            sum_rows(gradients, shard.item_ids, num_items),
            sum_rows(counts, shard.item_ids, num_items),
            tf.matmul(users, users, transpose_a=True),
        ],
        weight=[num_counted] * 3,
        metrics=collections.OrderedDict(
            loss=tf.reduce_sum(losses),
            num_examples=tf.math.count_nonzero(mask),
            num_clients_rejected=tf.math.count_nonzero(
                ~clients.is_finite & (clients.num_items > 0)
            ),
        ),
    )


def _gradient(
    options: FedIalsOptions, num_users: int, values: Values, mean: list[tf.Tensor]
) -> list[tf.Tensor]:
    """Returns the result of step 4: the gradient of `L / U`, if all users took part."""
    (table,) = values.values()
    of_rows, frequencies, second_moment = mean
    alpha, nu = options.unobserved_weight, options.exponent
    strengths = (num_users * (frequencies + alpha)) ** nu * (options.regularization / num_users)
    of_all_items = alpha * tf.matmul(table, second_moment)
    return [of_rows + 2.0 * (of_all_items + strengths * table)]


def _finalize_metrics(sums: collections.OrderedDict) -> collections.OrderedDict:
    count = tf.cast(sums["num_examples"], tf.float32)
    return collections.OrderedDict(sums, loss=tf.math.divide_no_nan(sums["loss"], count))


def _inner_product(split_model: SplitModel) -> FunctionalModel:
    """Returns the functional form of a model that is `x_u . v_i` and nothing else.

    Raises:
      InputError: If it is not.
    """
    model = FunctionalModel(split_model)
    name = split_model.keras_model.name
    kind = "federated iALS takes matrix factorization without biases"
    if len(model.global_weights) != 1 or len(model.local_weights) != 1:
        names = ", ".join(weight.name for weight in model.weights)
        raise InputError(f"{kind}; the model {name} has the weights {names}.")
    for weight in model.weights:
        if weight.regularizer is not None:
            raise InputError(
                f"{kind} and regularizers, since its loss has its own; the one of {weight.name} in"
                f" the model {name} would be left out."
            )
        if not weight.trainable:
            raise InputError(f"{kind}; {weight.name} of the model {name} is not trainable.")
    if not _predicts_inner_products(model):
        raise InputError(f"{kind}; the model {name} is no inner product of two rows.")
    return model


def _predicts_inner_products(model: FunctionalModel) -> bool:
    """Returns whether a model of two weights predicts their inner product, tried at random rows."""
    (table,), (local,) = model.global_weights, model.local_weights
    if not table.is_item_table or local.shape.num_elements() != table.shape[1]:
        return False
    rows = tf.random.stateless_normal([5, table.shape[1]], seed=[0, 0])
    user = tf.random.stateless_normal(local.shape, seed=[0, 1])
    ids = tf.zeros([5], tf.int32)
    predict = tf.function(lambda: model.predict(ids, [rows, user]), autograph=False)
    found = predict.get_concrete_function()()
    expected = tf.linalg.matvec(rows, tf.reshape(user, [-1]))
    return bool(tf.reduce_all(tf.abs(found - expected) < 1e-4))
