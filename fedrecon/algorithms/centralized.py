"""Centralized training: the server has everybody's examples, and fits the whole model to them.

Ordinary minibatch training with one optimizer, whose state lasts from round to round: what a
federation gives up. The model is the same split model; its local weights are tables of user rows,
of which each example uses its user's. A round is a number of minibatches, so that it can be
compared with a federated round of as many examples.

**What it reveals about one user**: everything. Users hand over their examples, so there is no
update to read items or ratings from, and nothing for secure aggregation to hide. The server keeps
each user's row.
"""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.algorithm import (
    Algorithm,
    bytes_of_state,
    cohort_sampler,
    costs_of_one_machine,
    rows_of_server,
)
from fedrecon.algorithms.reconstruction import prepare_reconstruction
from fedrecon.data.minibatches import Minibatches, MinibatchStream
from fedrecon.data.population import Population
from fedrecon.engine.calls import call_model
from fedrecon.engine.client_metrics import ClientMetrics, training_metrics
from fedrecon.engine.values import Values, by_name, in_order
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.models.weights import regularization
from fedrecon.options import CentralizedOptions, FedReconOptions
from fedrecon.wiring.outputs import State
from fedrecon.wiring.types import tensor_type
from fedrecon.wiring.user_tables import specs_with_user_rows, with_user_rows


class CentralizedOutput(NamedTuple):
    """What a round returns, all at SERVER."""

    state: State
    metrics: collections.OrderedDict


def build_centralized(
    model_fn: ModelFn, options: CentralizedOptions, *, num_users: int, num_steps: int, seed: int
) -> tff.templates.IterativeProcess:
    """Builds centralized training.

    Args:
      model_fn: Builds the model.
      options: The settings.
      num_users: User ids are in `[0, num_users)`.
      num_steps: The minibatches of a round.
      seed: Draws the initial user rows, as for FedNCF.

    Returns:
      A process whose `next(state, minibatches)` takes the `Minibatches` of a round, at SERVER, and
      returns a `CentralizedOutput`. The weights of its state are those of `wiring.user_tables`; the
      state of the optimizer is its `finalizer`. Its metrics are those of
      `client_metrics.training_metrics`, before each step.

    Raises:
      ValueError: If the model cannot be vectorized over examples; see `FunctionalModel`.
    """
    split_model = model_fn()
    training = _Training(FunctionalModel(split_model), options, num_users, num_steps)
    metrics = ClientMetrics(split_model)
    server_weights = with_user_rows(model_fn, training.model, num_users=num_users, seed=seed)
    data_type = tff.types.to_type(Minibatches(*map(tensor_type, training.minibatches_specs)))
    initialize_optimizer = tff.tensorflow.computation(training.initialize_optimizer)

    @tff.tensorflow.computation(
        server_weights.type, initialize_optimizer.type_signature.result, data_type
    )
    def train_round(weights, optimizer_state, minibatches):
        values = server_weights.to_values(weights)
        trained, optimizer_state, predictions = training.run(values, optimizer_state, minibatches)
        sums = _metric_sums(metrics, minibatches, predictions)
        return (
            server_weights.to_model_weights(values | trained),
            optimizer_state,
            metrics.finalize_training(sums),
        )

    return _iterative_process(server_weights, initialize_optimizer, data_type, train_round)


def _iterative_process(server_weights, initialize_optimizer, data_type, train_round):
    """Returns the TFF process of rounds at SERVER; all but two parts of its state are empty."""

    @tff.federated_computation
    def initialize():
        empty = tff.federated_value((), tff.SERVER)
        weights = tff.federated_eval(server_weights.initialize, tff.SERVER)
        optimizer_state = tff.federated_eval(initialize_optimizer, tff.SERVER)
        return tff.federated_zip(State(weights, empty, empty, empty, optimizer_state))

    @tff.federated_computation(
        initialize.type_signature.result, tff.FederatedType(data_type, tff.SERVER)
    )
    def run_round(state, minibatches):
        weights, optimizer_state, measured = tff.federated_map(
            train_round, (state.global_model_weights, state.finalizer, minibatches)
        )
        empty = state.distributor
        of_work = tff.federated_zip(collections.OrderedDict(train=measured))
        return CentralizedOutput(
            tff.federated_zip(State(weights, empty, empty, empty, optimizer_state)),
            tff.federated_zip(collections.OrderedDict(client_work=of_work)),
        )

    return tff.templates.IterativeProcess(initialize, run_round)


class _Training:
    """The steps of a round, compiled by XLA.

    Attributes:
      model: The model.
      minibatches_specs: The specs of the `Minibatches` of a round.
      run: From the values, the optimizer's state and minibatches to the values of the trained
        weights, the state and the predictions `[steps, batch_size]`, each before its step.
    """

    def __init__(
        self, model: FunctionalModel, options: CentralizedOptions, num_users: int, num_steps: int
    ):
        self.model = model
        self._trained = [weight for weight in model.weights if weight.trainable]
        self._optimizer = options.optimizer.build()
        self._specs = specs_with_user_rows(model, num_users)
        self.minibatches_specs = _minibatches_specs(num_steps, options.batch_size)
        state_specs = tf.nest.map_structure(
            lambda value: tf.TensorSpec.from_tensor(tf.convert_to_tensor(value)),
            self.initialize_optimizer(),
        )
        # Traced before anything of TFF: in its graphs Keras refuses a model made outside of them.
        self.run = tf.function(self._run, jit_compile=True, autograph=False).get_concrete_function(
            self._specs, state_specs, self.minibatches_specs
        )

    def initialize_optimizer(self) -> Any:
        """Returns the optimizer's initial state, of the trained weights in the model's order."""
        return self._optimizer.initialize(tuple(in_order(self._trained, self._specs)))

    def _run(self, values: Values, optimizer_state, minibatches: Minibatches):
        num_steps, batch_size = minibatches.labels.shape

        def step(number, trained, state, predictions):
            batch = Minibatches(*(array[number] for array in minibatches[:-1]), minibatches.seed)
            trained, state, predicted = self._step(values | trained, state, batch, number)
            return number + 1, trained, state, predictions.write(number, predicted)

        trained = {weight.name: values[weight.name] for weight in self._trained}
        predictions = tf.TensorArray(tf.float32, size=num_steps, element_shape=[batch_size])
        _, trained, state, predictions = tf.while_loop(
            lambda number, *_: number < num_steps,
            step,
            (0, trained, optimizer_state, predictions),
        )
        return trained, state, predictions.stack()

    def _step(self, values: Values, state, batch: Minibatches, number):
        trained = in_order(self._trained, values)
        with tf.GradientTape() as tape:
            tape.watch(trained)
            predicted = _predict(self.model, values, batch, number)
            loss = self.model.loss(batch.labels, predicted, batch.mask)
            loss += regularization(self._trained, trained)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, trained)]
        state, trained = self._optimizer.next(state, tuple(trained), tuple(gradients))
        return by_name(self._trained, trained), state, predicted


def _predict(model: FunctionalModel, values: Values, batch: Minibatches, number):
    """Returns the predictions of a batch, `[batch_size]`: each example is a client of one item."""
    item_ids = batch.item_ids[:, tf.newaxis]
    called = dict(values)
    for weight in model.weights:
        if weight.is_local:
            called[weight.name] = tf.gather(values[weight.name], batch.user_ids)
        elif weight.is_item_table:
            called[weight.name] = tf.gather(values[weight.name], item_ids)
    seeds = fold_in(fold_in(batch.seed, number), tf.range(batch.item_ids.shape[0]))
    return call_model(model, called, item_ids, dropout_seeds=seeds)[:, 0]


def _metric_sums(metrics: ClientMetrics, minibatches: Minibatches, predictions):
    """Returns the sums of a round, as if one client had taken its steps."""
    shape = [1, *minibatches.labels.shape]
    labels, predictions, mask = (
        tf.reshape(array, shape) for array in (minibatches.labels, predictions, minibatches.mask)
    )
    rejected = collections.OrderedDict(num_clients_rejected=tf.constant(0, tf.int64))
    return collections.OrderedDict(metrics.sums(labels, predictions, mask), **rejected)


def _minibatches_specs(num_steps: int, batch_size: int) -> Minibatches:
    dtypes = (tf.int32, tf.int32, tf.float32, tf.bool)
    arrays = (tf.TensorSpec([num_steps, batch_size], dtype) for dtype in dtypes)
    return Minibatches(*arrays, tf.TensorSpec([], tf.uint32))


def prepare_centralized(
    model_fn: ModelFn,
    options: CentralizedOptions,
    population: Population,
    *,
    clients_per_round: int,
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
) -> Algorithm:
    """Returns centralized training, ready to train on a population.

    A round has as many examples as `clients_per_round` clients have on average. Other arguments are
    those of `prepare_fed_avg`.
    """
    model = FunctionalModel(model_fn())
    examples, train = population.examples, population.train
    num_examples = sum(map(examples.num_examples, train.tolist()))
    stream = MinibatchStream(
        examples,
        users=train,
        batch_size=options.batch_size,
        examples_per_round=max(1, round(num_examples / len(train) * clients_per_round)),
        seed=population.seed,
    )
    training = build_centralized(
        model_fn,
        options,
        num_users=population.ratings.num_users,
        num_steps=stream.num_steps,
        seed=population.seed,
    )
    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(population, clients_per_round=clients_per_round),
        training_data=lambda users, round_num: stream.round(round_num),
        training_metrics=training_metrics,
        reconstruction=prepare_reconstruction(
            reconstruction_model_fn or model_fn,
            reconstruction or FedReconOptions(),
            seed=population.seed,
        ),
        costs=lambda state: costs_of_one_machine(
            population, bytes_of_state(state), item_steps=float(stream.num_steps)
        ),
        **rows_of_server(model, population),
    )
