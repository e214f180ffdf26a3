"""Exact reconstruction: the local part that minimises a ridge regression, for all clients at once.

Where the model is linear in its local part `u` and the loss is squared, reconstruction needs no
steps and no learning rate. With predictions `e_n . u + b_n` it is the solution of the normal
equations of `LeastSquaresOptions`,

    (E'E + R) u = E'(label - b)

with the rows `e_n` of the support in `E` and the regularization on the diagonal of `R`. Solvers in
closed form as the inner loop of meta-learning: Bertinetto et al. 2019, "Meta-learning with
differentiable closed-form solvers" (arXiv:1805.08136); as the user's half of alternating least
squares: Zhou et al. 2008, "Large-scale Parallel Collaborative Filtering for the Netflix Prize".

`e_n` and `b_n` are the gradient and the value of the prediction at `u = 0`, so any Keras model that
is linear in its local part will do: biases of users are one more entry of `u`, biases of items and
the global mean are in `b_n`.

The sums are formed by XLA; the systems are factorised by TensorFlow's own batched Cholesky, which
takes a thirtieth to a hundredth of the time of XLA's on a CPU (BUILD_NOTES.md). They are float64:
sums of squares lose half of the digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from fedrecon.data.cohorts import Shard
from fedrecon.engine import client_work
from fedrecon.engine.client_work import Examples, Tensors
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import SplitModel
from fedrecon.options import LeastSquaresOptions


def solve_systems(matrices: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Returns the solutions of positive definite systems, `[clients, k]`, by Cholesky.

    If a system is not finite or is numerically singular (a pivot is lost in the rounding of the
    others), the client's solution is NaN.

    Args:
      matrices: `[clients, k, k]`.
      vectors: `[clients, k]`: the right sides.
    """
    is_solvable = tf.ones_like(vectors[:, 0], tf.bool)
    for array in (matrices, vectors):
        of_entries = tf.math.is_finite(array)
        is_solvable &= tf.reduce_all(of_entries, axis=list(range(1, array.shape.rank)))
    identity = tf.eye(matrices.shape[-1], dtype=matrices.dtype)
    matrices = tf.where(is_solvable[:, tf.newaxis, tf.newaxis], matrices, identity)
    factors = tf.linalg.cholesky(matrices)
    rounding = tf.linalg.trace(matrices) * np.finfo(matrices.dtype.as_numpy_dtype).eps
    pivots = tf.square(tf.linalg.diag_part(factors))
    is_solvable &= 0.01 * tf.reduce_min(pivots, axis=1) > rounding  # False for NaN.
    solved = tf.linalg.cholesky_solve(factors, vectors[..., tf.newaxis])[..., 0]
    nothing = tf.constant(np.nan, vectors.dtype)
    return tf.where(is_solvable[:, tf.newaxis], solved, nothing)


def build_reconstruction(model: FunctionalModel, options: LeastSquaresOptions, spec: Shard):
    """Returns a function of the whole global values and a shard to local values.

    Args:
      model: A model that `check_is_solvable` does not refuse.
      options: The regularization.
      spec: As `client_work.shard_spec` gives it.
    """

    def sum_equations(values, shard):
        support = Examples.scheduled(shard, shard.support_batches).as_one_step()
        local_values = client_work.fresh_local_values(model, shard)
        rows, offsets = _linear_form(model, [*values, *local_values], support)
        mask, labels = (array[:, 0] for array in (support.mask, support.labels))
        rows = tf.cast(tf.where(mask[..., tf.newaxis], rows, 0.0), tf.float64)
        rights = tf.cast(tf.where(mask, labels - offsets, 0.0), tf.float64)
        diagonals = _regularization(model, options, support.num_examples())
        matrices = tf.matmul(rows, rows, transpose_a=True) + tf.linalg.diag(diagonals)
        return matrices, tf.linalg.matvec(rows, rights, transpose_a=True), local_values

    sum_compiled = client_work.compile_for_shards(sum_equations, model, spec)

    def reconstruct(global_values: Sequence[tf.Tensor], shard: Shard) -> Tensors:
        matrices, vectors, local_values = sum_compiled(global_values, shard)
        return unflatten(model, solve_systems(matrices, vectors), local_values)

    return reconstruct


def unflatten(model: FunctionalModel, vectors: tf.Tensor, others: Sequence[tf.Tensor]) -> Tensors:
    """Returns the local values of vectors, and `others` of what is not trainable."""
    values, start = [], 0
    for weight, value in zip(model.local_weights, others):
        if weight.trainable:
            size = weight.shape.num_elements()
            part = tf.cast(vectors[:, start : start + size], weight.dtype)
            value = tf.reshape(part, [-1, *weight.shape])
            start += size
        values.append(value)
    return values


def check_is_solvable(split_model: SplitModel, model: FunctionalModel) -> None:
    """Raises `InputError` unless least squares reconstructs the local part of this model.

    Linearity is tried at random values: a model that is not linear is so nearly everywhere.
    """
    name = split_model.keras_model.name
    otherwise = "; reconstruct it by gradient_steps."
    trainable = [weight for weight in model.local_weights if weight.trainable]
    if not trainable:
        raise InputError(f"the model {name} has no local weights to solve for{otherwise}")
    for weight in trainable:
        if weight.regularizer is not None:
            raise InputError(
                f"the local weight {weight.name} has a regularizer, which least squares would leave"
                " out; it has a regularization of its own."
            )
    for layer in split_model.keras_model._flatten_layers(include_self=False):
        if isinstance(layer, tf.keras.layers.Dropout) and layer.rate:
            raise InputError(
                f"the layer {layer.name} of the model {name} drops at random, so its least squares"
                f" have no one solution{otherwise}"
            )
    labels, predictions = tf.constant([[0.5], [3.0], [-2.0]]), tf.constant([[0.7], [1.0], [2.0]])
    losses = model.loss(labels, predictions, tf.ones_like(labels, tf.bool))
    squares = tf.square(labels - predictions)[:, 0]
    if not np.allclose(losses, squares, rtol=1e-5):
        loss = split_model.loss_fn().name
        raise InputError(f"the loss {loss} of the model {name} is not squared{otherwise}")
    guilty = [weight.name for weight in trainable if not _is_linear(model, [weight])]
    if guilty or not _is_linear(model, trainable):
        names = ", ".join(guilty or [weight.name for weight in trainable])
        raise InputError(f"the model {name} is not linear in {names}{otherwise}")


def _linear_form(model: FunctionalModel, values: Tensors, examples: Examples):
    """Returns `e_n`, `[clients, n, k]`, and `b_n`, `[clients, n]`, of examples of one step."""
    num_clients = examples.labels.shape[0]
    num_examples = tf.shape(examples.labels)[2]
    own = {}  # What examples differ in, `[clients * n, ...]`, by the place of the weight.
    for index, (weight, value) in enumerate(zip(model.weights, values)):
        if weight.is_item_table:
            rows = tf.gather(value, examples.positions[:, 0], batch_dims=1)
            own[index] = tf.reshape(rows, [-1, 1, weight.shape[1]])
        elif weight.is_local and not weight.trainable:
            own[index] = tf.repeat(value, num_examples, axis=0)
    solved = [i for i, weight in enumerate(model.weights) if weight.is_local and weight.trainable]

    def of_example(example):
        item_id, own_values = example
        called = list(values)
        for index, value in own_values.items():
            called[index] = value
        for index in solved:
            called[index] = tf.zeros(model.weights[index].shape, model.weights[index].dtype)
        # Inside of what is vectorised, where shapes are static: XLA would compile the gradient of
        # what has unknown ones anew for each round.
        with tf.GradientTape() as tape:
            origin = [called[index] for index in solved]
            tape.watch(origin)
            prediction = model.predict(item_id, called)
        gradients = tape.gradient(
            prediction, origin, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        row = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)
        return row, prediction[0]

    item_ids = tf.reshape(examples.item_ids, [-1, 1])
    rows, offsets = tf.vectorized_map(of_example, (item_ids, own), fallback_to_while_loop=False)
    shape = [num_clients, num_examples]
    return tf.reshape(rows, [*shape, rows.shape[-1]]), tf.reshape(offsets, shape)


def _regularization(model: FunctionalModel, options: LeastSquaresOptions, num_examples: tf.Tensor):
    """Returns the diagonals of the clients' systems, `[clients, k]` float64."""
    strengths = []
    for weight in model.local_weights:
        if weight.trainable:
            size = weight.shape.num_elements()
            of_bias = options.bias_regularization
            is_bias = size == 1 and of_bias is not None
            strengths += [of_bias if is_bias else options.regularization] * size
    # Somebody who gives nothing is regularized too.
    growth = tf.cast(tf.maximum(num_examples, 1.0), tf.float64) ** options.exponent
    return growth[:, tf.newaxis] * tf.constant(strengths, tf.float64)


def _is_linear(model: FunctionalModel, weights) -> bool:
    """Whether predictions are linear in these weights together, an offset aside."""
    batch_size = 5
    generator = np.random.default_rng(0)
    item_ids = np.zeros(batch_size, np.int32)

    def draw(weight):
        shape = [batch_size, weight.shape[1]] if weight.is_item_table else weight.shape
        return generator.normal(size=shape).astype(weight.dtype.as_numpy_dtype)

    values = [draw(weight) for weight in model.weights]
    chosen = [index for index, weight in enumerate(model.weights) if weight in weights]
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
    predict = tf.function(lambda values: model.predict(item_ids, values), autograph=False)
    predict = predict.get_concrete_function(specs)

    def at(*steps):
        moved = list(values)
        for index, *of_weight in zip(chosen, *steps):
            moved[index] = sum(of_weight)
        return predict([tf.constant(value) for value in moved]).numpy().astype(np.float64)

    for _ in range(5):
        zero = [np.zeros_like(values[index]) for index in chosen]
        first, second = ([draw(model.weights[index]) for index in chosen] for _ in range(2))
        far = [1000.0 * step for step in first]
        offset = at(zero)
        gaps = (
            at(first, second) - at(first) - at(second) + offset,
            at(far) - offset - 1000.0 * (at(first) - offset),
        )
        scale = np.abs(at(far)).max() + np.abs(offset).max() + 1.0
        if max(np.abs(gap).max() for gap in gaps) > 1e-4 * scale:
            return False
    return True
