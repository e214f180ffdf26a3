"""Centralised training: the server has everybody's examples, and fits the whole model to them.

Ordinary minibatch training with one optimiser, whose state lasts from round to round: what a
federation gives up. The model is the same split model; its local weights are tables of user rows,
of which each example uses its user's. A round is a number of minibatches, so that it can be
compared with a federated round of as many examples.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.data.minibatches import Minibatches
from fedrecon.engine import client_work
from fedrecon.engine.client_metrics import ClientMetrics
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.models.weights import regularization
from fedrecon.options import CentralizedOptions
from fedrecon.wiring import process


class CentralizedOutput(NamedTuple):
    """What a round returns, all at SERVER."""

    state: process.State
    metrics: collections.OrderedDict


def build_centralized(
    model_fn: ModelFn, options: CentralizedOptions, *, num_users: int, num_steps: int, seed: int
) -> tff.templates.IterativeProcess:
    """Builds centralised training.

    Args:
      model_fn: Builds the model anew at each call, with the same initial values each time.
      options: The settings.
      num_users: User ids are in `[0, num_users)`.
      num_steps: Of a round.
      seed: Draws the initial user rows, as for FedNCF.

    Returns:
      A process whose `next(state, minibatches)` takes the `Minibatches` of a round, at SERVER, and
      returns a `CentralizedOutput`. The weights of its state are those of
      `process.initial_weights_with_user_rows`; the state of the optimiser is its `finalizer`. Its
      metrics are those of `client_metrics.training_metrics`, before each step.

    Raises:
      ValueError: If the model cannot be vectorised over examples; see `FunctionalModel`.
    """
    split_model = model_fn()
    model, metrics = FunctionalModel(split_model), ClientMetrics(split_model)
    optimizer = options.optimizer.build()
    weights_specs = process.specs_with_user_rows(model, num_users)
    state_specs = tf.nest.map_structure(
        lambda value: tf.TensorSpec.from_tensor(tf.convert_to_tensor(value)),
        optimizer.initialize(tuple(weights_specs.trainable)),
    )
    minibatches_specs = _specs(num_steps, options.batch_size)
    # Traced before anything of TFF: Keras then refuses a model that was made outside of its graphs.
    train = tf.function(
        lambda weights, state, minibatches: _train(model, optimizer, weights, state, minibatches),
        jit_compile=True,
        autograph=False,
    ).get_concrete_function(weights_specs, state_specs, minibatches_specs)

    initialize_weights = process.initial_weights_with_user_rows(
        model_fn, model, num_users=num_users, seed=seed
    )
    weights_type = initialize_weights.type_signature.result
    data_type = tff.types.to_type(Minibatches(*map(process.tensor_type, minibatches_specs)))

    @tff.tensorflow.computation
    def initialize_optimizer():
        return optimizer.initialize(tuple(weights_specs.trainable))

    state_type = initialize_optimizer.type_signature.result

    @tff.tensorflow.computation(weights_type, state_type, data_type)
    def train_round(weights, optimizer_state, minibatches):
        trainable, optimizer_state, predictions = train(weights, optimizer_state, minibatches)
        # As one client whose steps these are.
        shape = [1, *minibatches.labels.shape]
        labels, predictions, mask = (
            tf.reshape(array, shape)
            for array in (minibatches.labels, predictions, minibatches.mask)
        )
        sums = metrics.sums(labels, predictions, mask)
        rejected = collections.OrderedDict(num_clients_rejected=tf.constant(0, tf.int64))
        return (
            tff.learning.models.ModelWeights(trainable, list(weights.non_trainable)),
            optimizer_state,
            metrics.finalize_training(collections.OrderedDict(sums, **rejected)),
        )

    @tff.federated_computation
    def initialize():
        empty = tff.federated_value((), tff.SERVER)
        weights = tff.federated_eval(initialize_weights, tff.SERVER)
        optimizer_state = tff.federated_eval(initialize_optimizer, tff.SERVER)
        return tff.federated_zip(process.State(weights, empty, empty, empty, optimizer_state))

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
            tff.federated_zip(process.State(weights, empty, empty, empty, optimizer_state)),
            tff.federated_zip(collections.OrderedDict(client_work=of_work)),
        )

    return tff.templates.IterativeProcess(initialize, run_round)


def _train(model: FunctionalModel, optimizer, weights, optimizer_state, minibatches: Minibatches):
    """Returns the trainable weights and the optimiser's state after a round, and predictions.

    Those are `[steps, batch_size]`, each before its step.
    """
    num_steps, batch_size = minibatches.labels.shape
    fixed = list(weights.non_trainable)
    trained = [w for w in model.global_weights if w.trainable]
    trained += [w for w in model.local_weights if w.trainable]

    def step(number, values, state, predictions):
        batch = Minibatches(*(array[number] for array in minibatches[:-1]), minibatches.seed)
        with tf.GradientTape() as tape:
            tape.watch(values)
            predicted = _predict(
                model, tff.learning.models.ModelWeights(values, fixed), batch, number
            )
            loss = model.loss(batch.labels, predicted, batch.mask) + regularization(trained, values)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]
        state, values = optimizer.next(state, tuple(values), tuple(gradients))
        return number + 1, list(values), state, predictions.write(number, predicted)

    predictions = tf.TensorArray(tf.float32, size=num_steps, element_shape=[batch_size])
    _, values, state, predictions = tf.while_loop(
        lambda number, *_: number < num_steps,
        step,
        (0, list(weights.trainable), optimizer_state, predictions),
    )
    return values, state, predictions.stack()


def _predict(model: FunctionalModel, weights, batch: Minibatches, number):
    """Returns the predictions of a batch, `[batch_size]`: each example is a client of one item."""
    values, tables = process.split_user_rows(model, weights)
    item_ids = batch.item_ids[:, tf.newaxis]
    called = [
        tf.gather(value, item_ids) if weight.is_item_table else value
        for weight, value in zip(model.global_weights, values)
    ]
    called += [tf.gather(table, batch.user_ids) for table in tables]
    seeds = fold_in(fold_in(batch.seed, number), tf.range(batch.item_ids.shape[0]))
    return client_work.call_model(model, called, item_ids, dropout_seeds=seeds)[:, 0]


def _specs(num_steps: int, batch_size: int) -> Minibatches:
    dtypes = (tf.int32, tf.int32, tf.float32, tf.bool)
    arrays = (tf.TensorSpec([num_steps, batch_size], dtype) for dtype in dtypes)
    return Minibatches(*arrays, tf.TensorSpec([], tf.uint32))
