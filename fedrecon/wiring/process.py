"""The TFF wiring that algorithms share: from what a shard computes to a `LearningProcess`.

TFF sees a shard as one client. A shard returns the weighted sum of its clients' updates and the sum
of their weights; their sums over shards are those over clients, and the server divides them. An
aggregator gets the weighted mean and the weight instead.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon import rng
from fedrecon.data.cohorts import Shard
from fedrecon.engine.client_work import compile_scoring, local_specs, shard_spec
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import OptimizerOptions

State = tff.learning.templates.LearningAlgorithmState


class ShardOutput(NamedTuple):
    """What a shard sends.

    Attributes:
      update: The weighted sum of its clients' updates of the server's trainable weights, or of what
        `server_update` makes these of.
      weight: The sum of their weights, a scalar float32; or, for each of the trainable weights, one
        that broadcasts to it, if not all clients count for all entries.
      metrics: Sums over its clients, any structure of numbers.
    """

    update: list
    weight: Any
    metrics: Any


def shard_type(batch_size: int, num_clients: int) -> tff.Type:
    """Returns the TFF type of shards with `num_clients` clients."""
    return tff.types.to_type(Shard(*map(tensor_type, shard_spec(batch_size, num_clients))))


def local_values_type(model: FunctionalModel, num_clients: int) -> tff.Type:
    """Returns the TFF type of the local values of a shard's clients, `[clients, ...]` each."""
    return tff.types.to_type([tensor_type(spec) for spec in local_specs(model, num_clients)])


def tensor_type(spec: tf.TensorSpec) -> tff.TensorType:
    """Returns the TFF type of what a spec describes."""
    return tff.TensorType(spec.dtype.as_numpy_dtype, spec.shape)


def initial_weights(model_fn: ModelFn) -> tff.Computation:
    """Returns the computation of the initial `tff.learning.models.ModelWeights`, global part."""

    @tff.tensorflow.computation
    def initialize():
        model = model_fn()
        return tff.learning.models.ModelWeights(
            trainable=[weight.read_value() for weight in model.global_trainable_weights],
            non_trainable=[weight.read_value() for weight in model.global_non_trainable_weights],
        )

    return initialize


def initial_weights_with_user_rows(
    model_fn: ModelFn, model: FunctionalModel, *, num_users: int, seed: int
) -> tff.Computation:
    """Returns the computation of the initial `ModelWeights` of a server that keeps user rows.

    Behind the trainable global weights, and behind the others, it has a table `[num_users, ...]`
    for each of the local weights of that kind.

    Args:
      model_fn: As for `initial_weights`.
      model: What it builds.
      num_users: User ids are in `[0, num_users)`.
      seed: Draws the rows, with the user id.
    """
    seeds = rng.derive_seeds(seed, "user_rows", ids=np.arange(num_users))

    @tff.tensorflow.computation
    def initialize():
        split_model = model_fn()
        tables = list(zip(model.local_weights, model.initial_local_values(tf.constant(seeds))))

        def with_tables(weights, *, trainable):
            rows = [table for weight, table in tables if weight.trainable == trainable]
            return [*(weight.read_value() for weight in weights), *rows]

        return tff.learning.models.ModelWeights(
            with_tables(split_model.global_trainable_weights, trainable=True),
            with_tables(split_model.global_non_trainable_weights, trainable=False),
        )

    return initialize


def specs_with_user_rows(
    model: FunctionalModel, num_users: int
) -> tff.learning.models.ModelWeights:
    """Returns the specs of the weights of a server that keeps user rows."""

    def of_part(*, trainable):
        parts = ((model.global_weights, []), (model.local_weights, [num_users]))
        return [
            tf.TensorSpec([*axis, *weight.shape], weight.dtype)
            for weights, axis in parts
            for weight in weights
            if weight.trainable == trainable
        ]

    return tff.learning.models.ModelWeights(of_part(trainable=True), of_part(trainable=False))


def split_user_rows(model: FunctionalModel, weights) -> tuple[list, list]:
    """Returns the global values and the tables of user rows, in the order of the model's weights.

    Args:
      model: The model.
      weights: `ModelWeights` as `initial_weights_with_user_rows` has them.
    """
    values, tables = [], []
    for part, trainable in ((list(weights.trainable), True), (list(weights.non_trainable), False)):
        num_global = sum(weight.trainable == trainable for weight in model.global_weights)
        values += part[:num_global]
        tables += part[num_global:]
    return values, tables


def build_training_process(
    initialize_weights: tff.Computation,
    data_type: tff.Type,
    *,
    shard_update: Callable[[Any, Shard], ShardOutput],
    finalize_metrics: Callable[[Any], Any],
    server_optimizer: OptimizerOptions,
    server_message: Callable[[Any], Any] = lambda weights: weights,
    server_update: Callable[[Any, list], list] = lambda weights, update: update,
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds the process that broadcasts, updates, aggregates and applies.

    Args:
      initialize_weights: As `initial_weights` gives it.
      data_type: As `shard_type` gives it.
      shard_update: From the server's message and a shard, as tensors, to what it sends.
      finalize_metrics: From the sum of the shards' metrics to what is reported.
      server_optimizer: Applies the mean update.
      server_message: From `ModelWeights` to what clients get, once a round.
      server_update: From `ModelWeights` and the mean of what the clients sent to the update of the
        trainable weights.
      aggregator_factory: Aggregates updates; None takes their weighted mean, 0 where all weights
        are 0.

    Returns:
      A process with the state and the structure of metrics of
      `tff.learning.algorithms.build_fed_recon`.
    """
    initialize, run = _build_round(
        initialize_weights,
        data_type,
        shard_update=lambda message, shard: _Worked(shard_update(message, shard), ()),
        finalize_metrics=finalize_metrics,
        server_optimizer=server_optimizer,
        server_message=server_message,
        server_update=server_update,
        aggregator_factory=aggregator_factory,
    )

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def run_round(state, shards):
        state, metrics, _ = run(state, shards)
        return tff.learning.templates.LearningProcessOutput(state, metrics)

    return _learning_process(initialize, run_round)


class StatefulOutput(NamedTuple):
    """What a round with kept rows returns.

    Attributes:
      state: At SERVER, as of a `LearningProcess`.
      local_values: At CLIENTS: for each of the local weights `[clients, ...]`, to be kept.
      metrics: At SERVER.
    """

    state: Any
    local_values: Any
    metrics: Any


def build_stateful_training_process(
    initialize_weights: tff.Computation,
    data_type: tff.Type,
    *,
    shard_update: Callable[[Any, Any], tuple[ShardOutput, list]],
    finalize_metrics: Callable[[Any], Any],
    server_optimizer: OptimizerOptions,
) -> tff.templates.IterativeProcess:
    """Builds the process whose clients have rows that enter and leave at CLIENTS.

    A `LearningProcess` cannot return what is placed there.

    Args:
      initialize_weights: As for `build_training_process`.
      data_type: Of a shard with its rows.
      shard_update: From `ModelWeights` and a shard with its rows to what the shard sends and what
        its clients keep.
      finalize_metrics: As for `build_training_process`.
      server_optimizer: Likewise.

    Returns:
      A process whose `next(state, shards with rows)` returns a `StatefulOutput`.
    """
    initialize, run = _build_round(
        initialize_weights,
        data_type,
        shard_update=lambda weights, shard: _Worked(*shard_update(weights, shard)),
        finalize_metrics=finalize_metrics,
        server_optimizer=server_optimizer,
    )

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def run_round(state, shards):
        state, metrics, local_values = run(state, shards)
        return StatefulOutput(state, local_values, metrics)

    return tff.templates.IterativeProcess(initialize, run_round)


class _Worked(NamedTuple):
    """What a shard comes to: what it sends, and what stays at CLIENTS."""

    sent: ShardOutput
    kept: Any


def _build_round(
    initialize_weights,
    data_type,
    *,
    shard_update,
    finalize_metrics,
    server_optimizer,
    server_message=lambda weights: weights,
    server_update=lambda weights, update: update,
    aggregator_factory=None,
):
    """Returns the computation of the initial state, and a round.

    The round is a function of state and shards, inside of a federated computation, to the state,
    the metrics and what the shards keep.
    """
    weights_type = initialize_weights.type_signature.result
    optimizer = server_optimizer.build()

    message_of_weights = tff.tensorflow.computation(server_message, weights_type)
    message_type = message_of_weights.type_signature.result

    @tff.tensorflow.computation(message_type, data_type)
    def update_of_shard(message, shard):
        worked = shard_update(message, shard)
        if aggregator_factory is None:  # Then the sum over shards is what is wanted.
            return worked
        output = worked.sent
        mean = [tf.math.divide_no_nan(change, output.weight) for change in output.update]
        return worked._replace(sent=output._replace(update=mean))

    output_type = update_of_shard.type_signature.result.sent
    aggregator = (
        None
        if aggregator_factory is None
        else aggregator_factory.create(output_type.update, output_type.weight)
    )

    @tff.tensorflow.computation
    def initialize_optimizer():
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in weights_type.trainable]
        return optimizer.initialize(specs)

    @tff.tensorflow.computation(
        weights_type, initialize_optimizer.type_signature.result, output_type
    )
    def update_server(weights, optimizer_state, total):
        trainable = list(weights.trainable)
        divisors = (
            total.weight if isinstance(total.weight, list) else [total.weight] * len(total.update)
        )
        mean = [tf.math.divide_no_nan(*pair) for pair in zip(total.update, divisors)]
        update = server_update(weights, mean)
        is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(change)) for change in update])
        is_anybodys = tf.reduce_any([tf.reduce_any(divisor > 0) for divisor in divisors])
        new_state, new_trainable = tf.cond(
            is_finite & is_anybodys,
            lambda: optimizer.next(optimizer_state, trainable, update),
            lambda: (optimizer_state, trainable),
        )
        return (
            tff.learning.models.ModelWeights(list(new_trainable), list(weights.non_trainable)),
            new_state,
            finalize_metrics(total.metrics),
            collections.OrderedDict(update_non_finite=tf.cast(~is_finite, tf.int32)),
        )

    nothing = tff.tensorflow.computation(lambda: ())

    @tff.federated_computation
    def initialize():
        return tff.federated_zip(
            State(
                global_model_weights=tff.federated_eval(initialize_weights, tff.SERVER),
                distributor=tff.federated_eval(nothing, tff.SERVER),
                client_work=tff.federated_eval(nothing, tff.SERVER),
                aggregator=aggregator.initialize()
                if aggregator
                else tff.federated_eval(nothing, tff.SERVER),
                finalizer=tff.federated_eval(initialize_optimizer, tff.SERVER),
            )
        )

    def run(state, shards):
        message = tff.federated_map(message_of_weights, state.global_model_weights)
        worked = tff.federated_map(update_of_shard, (tff.federated_broadcast(message), shards))
        output = worked.sent
        if aggregator is None:
            aggregator_state, measurements = state.aggregator, tff.federated_value((), tff.SERVER)
            total = tff.federated_sum(output)
        else:
            aggregated = aggregator.next(state.aggregator, output.update, output.weight)
            aggregator_state, measurements = aggregated.state, aggregated.measurements
            total = tff.federated_zip(
                ShardOutput(
                    aggregated.result,
                    tff.federated_value(np.float32(1.0), tff.SERVER),
                    tff.federated_sum(output.metrics),
                )
            )
        weights, optimizer_state, metrics, checks = tff.federated_map(
            update_server, (state.global_model_weights, state.finalizer, total)
        )
        new_state = tff.federated_zip(
            State(
                global_model_weights=weights,
                distributor=state.distributor,
                client_work=state.client_work,
                aggregator=aggregator_state,
                finalizer=optimizer_state,
            )
        )
        all_metrics = tff.federated_zip(
            collections.OrderedDict(
                distributor=state.distributor,
                client_work=tff.federated_zip(collections.OrderedDict(train=metrics)),
                aggregator=measurements,
                finalizer=checks,
            )
        )
        return new_state, all_metrics, worked.kept

    return initialize, run


def build_evaluation_process(
    initialize_weights: tff.Computation,
    data_type: tff.Type,
    *,
    shard_metrics: Callable[[Any, Shard], Any],
    finalize_metrics: Callable[[Any], Any],
) -> tff.learning.templates.LearningProcess:
    """Builds the process that broadcasts, measures and sums; its state only holds the weights.

    Args:
      initialize_weights: As `initial_weights` gives it.
      data_type: As `shard_type` gives it.
      shard_metrics: From `ModelWeights` and a shard, as tensors, to sums over its clients.
      finalize_metrics: From the sum over shards to what is reported, as
        `metrics["client_work"]["eval"]["current_round_metrics"]`.
    """
    weights_type = initialize_weights.type_signature.result

    @tff.tensorflow.computation(weights_type, data_type)
    def metrics_of_shard(weights, shard):
        return shard_metrics(weights, shard)

    @tff.tensorflow.computation(metrics_of_shard.type_signature.result)
    def metrics_of_sums(sums):
        return finalize_metrics(sums)

    @tff.federated_computation
    def initialize():
        empty = tff.federated_value((), tff.SERVER)
        weights = tff.federated_eval(initialize_weights, tff.SERVER)
        return tff.federated_zip(State(weights, empty, empty, empty, empty))

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.CLIENTS)
    )
    def evaluate(state, shards):
        weights = tff.federated_broadcast(state.global_model_weights)
        sums = tff.federated_sum(tff.federated_map(metrics_of_shard, (weights, shards)))
        metrics = tff.federated_map(metrics_of_sums, sums)
        of_round = tff.federated_zip(collections.OrderedDict(current_round_metrics=metrics))
        of_clients = tff.federated_zip(collections.OrderedDict(eval=of_round))
        return tff.learning.templates.LearningProcessOutput(
            state, tff.federated_zip(collections.OrderedDict(client_work=of_clients))
        )

    return _learning_process(initialize, evaluate)


class Candidates(NamedTuple):
    """Users and the items asked about.

    Attributes:
      local_values: For each of the local weights `[clients, ...]`.
      item_ids: `[clients, n]` int32; -1 is padding, whose predictions mean nothing.
    """

    local_values: list
    item_ids: Any


def build_scoring(model_fn: ModelFn, *, clients_per_shard: int) -> tff.Computation:
    """Builds the prediction of items for users whose local part is known.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      clients_per_shard: How many users a shard has.

    Returns:
      A computation of `ModelWeights` of the global part, at SERVER, and `Candidates`, at CLIENTS,
      to predictions `[clients, n]` float32, at CLIENTS: the devices score, nobody else sees it.
    """
    model = FunctionalModel(model_fn())
    score_candidates = compile_scoring(model, clients_per_shard)
    data_type = tff.types.to_type(
        Candidates(
            local_values_type(model, clients_per_shard),
            tff.TensorType(np.int32, [clients_per_shard, None]),
        )
    )

    def score_shard(global_values, shard):
        return score_candidates(global_values, list(shard.local_values), shard.item_ids)

    return build_at_clients(model_fn, data_type, score_shard)


def build_at_clients(
    model_fn: ModelFn,
    data_type: tff.Type,
    work: Callable[[Any, Any], Any],
    *,
    server_message: Callable[[Any], Any] = lambda w: [*w.trainable, *w.non_trainable],
) -> tff.Computation:
    """Builds the computation of what clients find out with the global part, for themselves.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      data_type: Of a shard.
      work: From the server's message and a shard to any structure of tensors.
      server_message: From `ModelWeights` to what clients get; by default the global values.

    Returns:
      A computation of `ModelWeights` of the global part, at SERVER, and shards, at CLIENTS, to what
      `work` gives, at CLIENTS.
    """
    weights_type = initial_weights(model_fn).type_signature.result

    message_of_weights = tff.tensorflow.computation(server_message, weights_type)

    @tff.tensorflow.computation(message_of_weights.type_signature.result, data_type)
    def work_on_shard(message, shard):
        return work(message, shard)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS)
    )
    def at_clients(weights, shards):
        message = tff.federated_broadcast(tff.federated_map(message_of_weights, weights))
        return tff.federated_map(work_on_shard, (message, shards))

    return at_clients


def check_aggregator(
    factory: tff.aggregators.WeightedAggregationFactory | None,
    *,
    is_linear: bool,
    clients_per_shard: int,
) -> None:
    """Raises `InputError` if an aggregator may need clients' own updates and gets those of shards.

    Args:
      factory: The aggregator, or None.
      is_linear: Says that it gives the same for clients as for the weighted means and weights of
        groups of them.
      clients_per_shard: How many clients send their weighted mean as one.
    """
    if factory is not None and not is_linear and clients_per_shard != 1:
        raise InputError(
            f"an aggregator may need each client's own update, but a shard of {clients_per_shard}"
            " clients sends their mean; use clients_per_shard=1, or say is_aggregator_linear=True"
            " if it is a weighted mean."
        )


def secure_mean(bound: float, *, weight_bound: float) -> tff.aggregators.MeanFactory:
    """Returns a weighted mean whose sums, of updates and of weights, are TFF's secure sums.

    Under secure aggregation (Bonawitz et al. 2017, "Practical Secure Aggregation for
    Privacy-Preserving Machine Learning") a server learns sums over the clients of a round and
    nothing of one of them. What is summed is cut to the bounds and rounded, by the entry, to one of
    2^32 numbers between them. It is `is_aggregator_linear` as far as nothing is cut, up to that
    rounding. Of TFF's runtimes none encrypts: they check the arithmetic. Metrics stay plain sums.

    Args:
      bound: On the entries of an update times its weight, of what sends them (in simulation a
        shard, so that it grows with the clients of one), in absolute value; positive. One bound is
        for all parts of an update: counts reach the number of clients.
      weight_bound: On the weight, positive; with uniform weights, the clients of what sends them.

    Raises:
      InputError: If a bound is not a positive number.
    """
    for name, value in (("bound", bound), ("weight_bound", weight_bound)):
        if not 0.0 < value < float("inf"):
            raise InputError(f"the {name} of a secure mean is {value}; it must be positive.")
    secure_sum = tff.aggregators.SecureSumFactory
    return tff.aggregators.MeanFactory(
        value_sum_factory=secure_sum(float(bound), -float(bound)),
        weight_sum_factory=secure_sum(float(weight_bound), 0.0),
    )


def _learning_process(initialize, run) -> tff.learning.templates.LearningProcess:
    state_type = initialize.type_signature.result.member

    @tff.tensorflow.computation(state_type)
    def get_model_weights(state):
        return state.global_model_weights

    @tff.tensorflow.computation(state_type, state_type.global_model_weights)
    def set_model_weights(state, weights):
        return State(
            weights, state.distributor, state.client_work, state.aggregator, state.finalizer
        )

    return tff.learning.templates.LearningProcess(
        initialize, run, get_model_weights, set_model_weights
    )
