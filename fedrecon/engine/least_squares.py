"""Exact reconstruction: the local part that minimizes a ridge regression, for all clients at once.

If the model is linear in its local part `u` and the loss is squared, reconstruction needs no steps
and no learning rate. With predictions `e_n . u + b_n` the local part is the solution of the normal
equations of `LeastSquaresOptions`,

    (E'E + R) u = E'(label - b)

with the rows `e_n` of the support in `E` and the regularization on the diagonal of `R`, divided by
the weight that the loss gives to a squared error (1 for the mean squared error). Closed-form
solvers as the inner loop of meta-learning: Bertinetto et al. 2019, "Meta-learning with
differentiable closed-form solvers" (arXiv:1805.08136). As the user's half of alternating least
squares: Zhou et al. 2008, "Large-scale Parallel Collaborative Filtering for the Netflix Prize".

`e_n` and `b_n` are the gradient and the value of the prediction at `u = 0`. So any Keras model that
is linear in its local part will do: a user's bias is one more entry of `u`; item biases and the
global bias are in `b_n`.

XLA forms the sums. TensorFlow's own batched Cholesky solves the systems: on a CPU it takes a
thirtieth to a hundredth of the time of XLA's (BUILD_NOTES.md). The sums are float64, because a sum
of squares loses half of the digits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from fedrecon.data.cohorts import Shard
from fedrecon.engine.calls import call_client, fresh_local_values, map_clients
from fedrecon.engine.shards import Examples, compile_for_shards
from fedrecon.engine.values import Values, in_order
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import SplitModel
from fedrecon.models.weights import Weight
from fedrecon.options import LeastSquaresOptions

# The items whose rows are worked out in one call.
_ITEMS_AT_ONCE = 8_192


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


def build_reconstruction(
    model: FunctionalModel, options: LeastSquaresOptions, spec: Shard, *, debug: bool = False
) -> Callable[[Values, Shard], Values]:
    """Returns a function of the whole global values and a shard to the clients' local values.

    Args:
      model: A model that `check_is_solvable` does not refuse.
      options: The regularization.
      spec: The specs of the shard.
      debug: See `shards.compile_for_shards`.
    """

    def sum_equations(values, shard):
        support = Examples.scheduled(shard, shard.support_batches).as_one_step()
        local_values = fresh_local_values(model, shard)
        rows, offsets = _linear_form(model, values | local_values, support)
        mask, labels = (array[:, 0] for array in (support.mask, support.labels))
        rows = tf.cast(tf.where(mask[..., tf.newaxis], rows, 0.0), tf.float64)
        rights = tf.cast(tf.where(mask, labels - offsets, 0.0), tf.float64)
        diagonals = _regularization(model, options, support.num_examples())
        matrices = tf.matmul(rows, rows, transpose_a=True) + tf.linalg.diag(diagonals)
        return matrices, tf.linalg.matvec(rows, rights, transpose_a=True), local_values

    sum_compiled = compile_for_shards(sum_equations, model, spec, debug=debug)

    def reconstruct(global_values, shard):
        matrices, vectors, local_values = sum_compiled(global_values, shard)
        return local_values | _unflatten(model, solve_systems(matrices, vectors))

    return reconstruct


def check_is_solvable(split_model: SplitModel, model: FunctionalModel) -> None:
    """Raises `InputError` unless least squares reconstructs the local part of this model.

    Linearity is tried at random values: a model that is not linear fails nearly everywhere.
    """
    name = split_model.keras_model.name
    otherwise = "; reconstruct it by gradient_steps."
    trainable = _solved(model)
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
    squares = _weight_of_squares(model) * tf.square(labels - predictions)[:, 0]
    if not np.allclose(losses, squares, rtol=1e-5):
        loss = split_model.loss_fn().name
        raise InputError(f"the loss {loss} of the model {name} is not squared{otherwise}")
    guilty = [weight.name for weight in trainable if not _is_linear(model, [weight])]
    if guilty or not _is_linear(model, trainable):
        names = ", ".join(guilty or [weight.name for weight in trainable])
        raise InputError(f"the model {name} is not linear in {names}{otherwise}")


def _solved(model: FunctionalModel) -> list[Weight]:
    """Returns the weights that are solved for, in the order of their entries in `u`."""
    return [weight for weight in model.local_weights if weight.trainable]


def _unflatten(model: FunctionalModel, vectors: tf.Tensor) -> Values:
    """Returns the values of the weights that are solved for, from their vectors `[clients, k]`."""
    values, start = {}, 0
    for weight in _solved(model):
        size = weight.shape.num_elements()
        part = tf.cast(vectors[:, start : start + size], weight.dtype)
        values[weight.name] = tf.reshape(part, [-1, *weight.shape])
        start += size
    return values


def _linear_form(model: FunctionalModel, values: Values, examples: Examples):
    """Returns `e_n`, `[clients, n, k]`, and `b_n`, `[clients, n]`, of examples of one step."""
    num_clients = examples.labels.shape[0]
    num_examples = tf.shape(examples.labels)[2]
    own = {}  # The values that differ between examples, `[clients * n, ...]`.
    for weight in model.weights:
        value = values[weight.name]
        if weight.is_item_table:
            rows = tf.gather(value, examples.positions[:, 0], batch_dims=1)
            own[weight.name] = tf.reshape(rows, [-1, 1, weight.shape[1]])
        elif weight.is_local and not weight.trainable:
            own[weight.name] = tf.repeat(value, num_examples, axis=0)
    item_ids = tf.reshape(examples.item_ids, [-1, 1])
    rows, offsets = _linear_form_of(model, values, item_ids, own)
    shape = [num_clients, num_examples]
    return tf.reshape(rows, [*shape, rows.shape[-1]]), tf.reshape(offsets, shape)


def _linear_form_of(model: FunctionalModel, values: Values, item_ids: tf.Tensor, own: Values):
    """Returns `e_n`, `[n, k]`, and `b_n`, `[n]`, of examples that need not share their values.

    Args:
      model: The model.
      values: The values that the examples share.
      item_ids: `[n, 1]`.
      own: The values that they do not share, `[n, ...]`; of item tables `[n, 1, dim]`.
    """
    solved = _solved(model)

    def of_example(example):
        item_id, own_values = example
        origin = {weight.name: tf.zeros(weight.shape, weight.dtype) for weight in solved}
        # Inside of what is vectorized, where shapes are static: XLA would compile the gradient of
        # arrays of unknown length anew for each round.
        with tf.GradientTape() as tape:
            tape.watch(origin)
            prediction = call_client(model, values | own_values | origin, item_id)
        gradients = tape.gradient(
            prediction, origin, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        row = tf.concat([tf.reshape(g, [-1]) for g in in_order(solved, gradients)], axis=0)
        return row, prediction[0]

    return map_clients(of_example, (item_ids, own))


def linear_tables(
    model: FunctionalModel, global_values: Values, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `e_i`, `[num_items, k]`, and `b_i`, `[num_items]`, float32, of every item.

    Args:
      model: A model that `check_is_solvable` does not refuse, whose local weights are trainable.
      global_values: The whole global values.
      num_items: How many items there are.
    """
    shared = {w.name: global_values[w.name] for w in model.global_weights if not w.is_item_table}
    tables = [weight.name for weight in model.global_weights if weight.is_item_table]

    traced = tf.function(lambda ids, own: _linear_form_of(model, shared, ids, own), autograph=False)
    of_items = traced.get_concrete_function(
        tf.TensorSpec([None, 1], tf.int32),
        {
            w.name: tf.TensorSpec([None, 1, w.shape[1]], w.dtype)
            for w in model.global_weights
            if w.is_item_table
        },
    )
    rows, offsets = [], []
    for start in range(0, num_items, _ITEMS_AT_ONCE):
        item_ids = np.arange(start, min(start + _ITEMS_AT_ONCE, num_items), dtype=np.int32)
        own = {name: tf.gather(global_values[name], item_ids)[:, tf.newaxis] for name in tables}
        of_part = of_items(tf.constant(item_ids[:, np.newaxis]), own)
        rows.append(of_part[0].numpy())
        offsets.append(of_part[1].numpy())
    return np.concatenate(rows), np.concatenate(offsets)


def squared_loss_weight(model: FunctionalModel) -> float:
    """Returns what an error of 1 adds to the loss of a batch of one."""
    return float(_weight_of_squares(model))


def regularization_strengths(model: FunctionalModel, options: LeastSquaresOptions) -> list[float]:
    """Returns the entries of the diagonal of `R`, for a support of one example."""
    weight = squared_loss_weight(model)
    return [strength / weight for strength in _strengths(model, options)]


def _weight_of_squares(model: FunctionalModel) -> tf.Tensor:
    # A tensor, since it is also needed where a function is traced.
    one = tf.ones([1])
    return model.loss(one, tf.zeros_like(one), tf.ones_like(one, tf.bool))


def _strengths(model: FunctionalModel, options: LeastSquaresOptions) -> list[float]:
    strengths = []
    for weight in _solved(model):
        size = weight.shape.num_elements()
        of_bias = options.bias_regularization
        is_bias = size == 1 and of_bias is not None
        strengths += [of_bias if is_bias else options.regularization] * size
    return strengths


def _regularization(model: FunctionalModel, options: LeastSquaresOptions, num_examples: tf.Tensor):
    """Returns the diagonals of the clients' systems, `[clients, k]` float64."""
    strengths = tf.constant(_strengths(model, options), tf.float64)
    strengths /= tf.cast(_weight_of_squares(model), tf.float64)
    # A client without a support is regularized too.
    growth = tf.cast(tf.maximum(num_examples, 1.0), tf.float64) ** options.exponent
    return growth[:, tf.newaxis] * strengths


def _is_linear(model: FunctionalModel, weights: list[Weight]) -> bool:
    """Returns whether predictions are linear in these weights together, an offset aside."""
    batch_size = 5
    generator = np.random.default_rng(0)
    item_ids = np.zeros(batch_size, np.int32)

    def draw(weight):
        shape = [batch_size, weight.shape[1]] if weight.is_item_table else weight.shape
        return generator.normal(size=shape).astype(weight.dtype.as_numpy_dtype)

    def draw_step():
        return {weight.name: draw(weight) for weight in chosen}

    values = {weight.name: draw(weight) for weight in model.weights}
    chosen = [weight for weight in model.weights if weight in weights]
    specs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in values.items()}
    predict = tf.function(lambda values: call_client(model, values, item_ids), autograph=False)
    predict = predict.get_concrete_function(specs)

    def at(*steps):
        moved = values | {w.name: sum(step[w.name] for step in steps) for w in chosen}
        constants = {name: tf.constant(value) for name, value in moved.items()}
        return predict(constants).numpy().astype(np.float64)

    for _ in range(5):
        zero = {weight.name: np.zeros_like(values[weight.name]) for weight in chosen}
        first, second = draw_step(), draw_step()
        far = {name: 1000.0 * step for name, step in first.items()}
        offset = at(zero)
        gaps = (
            at(first, second) - at(first) - at(second) + offset,
            at(far) - offset - 1000.0 * (at(first) - offset),
        )
        scale = np.abs(at(far)).max() + np.abs(offset).max() + 1.0
        if max(np.abs(gap).max() for gap in gaps) > 1e-4 * scale:
            return False
    return True
