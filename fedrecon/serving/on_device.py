"""A linear model in TensorFlow operations that every TensorFlow Lite runtime has.

The same arithmetic as `fedrecon.serving.linear`, in float32. Systems of equations are solved by
conjugate gradients (Hestenes and Stiefel 1952), since TensorFlow Lite has no Cholesky. They only
multiply by the given rows, and `E'E` is never formed, so no digits are lost in it. The other choice
was Gauss-Jordan elimination, each step of which writes the whole matrix anew. Measured in the
interpreter with one thread, for 20 and 300 ratings and condition numbers of 9 to 4,000:

                          relative error       ms, 51 unknowns    ms, 193 unknowns
    conjugate gradients   1e-7 to 4e-7         0.2 to 1.1         0.3 to 7
    Gauss-Jordan          6e-7 to 3e-4         0.1 to 0.4         5 to 8
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from fedrecon.serving.item_table import StoredTable
from fedrecon.serving.linear import GradientSteps, ImplicitLeastSquares, LeastSquares, LinearModel

# Conjugate gradients end where the residual has shrunk to this part of the first. A second pass
# starts from a residual that is worked out anew, so each needs only half of the digits, and the
# rounding of the first is corrected.
_TOLERANCE = 1e-5
_PASSES = 2
SIGNATURES = ("reconstruct", "score", "score_items")


class Given(NamedTuple):
    """What a user gives.

    Attributes:
      rows: `[n, k]` float32: the factors of the items, 0 for padding.
      targets: `[n]` float32: labels without the items' offsets, 0 for padding.
      is_real: `[n]` float32: 0 for padding, else 1.
    """

    rows: tf.Tensor
    targets: tf.Tensor
    is_real: tf.Tensor


class OnDevice(tf.Module):
    """A linear model with the signatures `reconstruct`, `score` and `score_items`.

    An item row of -1 is padding, for devices whose inputs have a fixed length. Padding stands
    behind what is given.
    """

    def __init__(self, model: LinearModel, table: StoredTable):
        """Makes the signatures of a model.

        Args:
          model: The model; its offsets and its rule count.
          table: The item table, in place of the model's.
        """
        super().__init__()
        self._rule = model.rule
        self._num_items, self._size = table.values.shape
        # Variables have files of their own in a SavedModel; a constant may have 2 GB at most.
        self._values = tf.Variable(table.values, trainable=False)
        self._scales = None
        if table.scales is not None:
            self._scales = tf.Variable(table.scales, trainable=False)
        self._offsets = tf.Variable(model.offsets, trainable=False)
        self._gram = None
        if isinstance(model.rule, ImplicitLeastSquares):
            whole = table.to_float32().astype(np.float64)
            gram = model.rule.unobserved_weight * (whole.T @ whole)
            self._gram = tf.constant(gram, tf.float32)
            self._gram_diagonal = tf.constant(np.diag(gram), tf.float32)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the functions by name."""
        rows = tf.TensorSpec([None], tf.int32, "item_rows")
        ratings = tf.TensorSpec([None], tf.float32, "ratings")
        vector = tf.TensorSpec([self._size], tf.float32, "user_vector")
        functions = (
            (self._reconstruct, rows, ratings),
            (self._score, vector),
            (self._score_items, vector, rows),
        )
        return {
            name: tf.function(function, autograph=False).get_concrete_function(*inputs)
            for name, (function, *inputs) in zip(SIGNATURES, functions)
        }

    def _reconstruct(self, item_rows, ratings):
        # TensorFlow Lite multiplies matrices without rows to whatever its memory holds, so a row of
        # padding comes behind.
        item_rows = tf.concat([item_rows, [-1]], axis=0)
        given = self._given(item_rows, tf.concat([ratings, [0.0]], axis=0))
        steps = isinstance(self._rule, GradientSteps)
        vector = _descended(self._rule, given) if steps else self._solved(given)
        return {"user_vector": tf.reshape(vector, [self._size])}

    def _score(self, user_vector):
        values = tf.cast(self._values, tf.float32)
        if self._scales is None:
            return {"scores": _times(values, user_vector) + self._offsets}
        # Scales come after the product, so that the table need not be multiplied out. The converter
        # would do that to a product that it makes a fully connected layer, as `_times` is one.
        products = tf.reshape(tf.matmul(values, user_vector[:, tf.newaxis]), [self._num_items])
        return {"scores": products * self._scales + self._offsets}

    def _score_items(self, user_vector, item_rows):
        rows = tf.maximum(item_rows, 0)
        return {"scores": _times(self._rows(rows), user_vector) + tf.gather(self._offsets, rows)}

    def _given(self, item_rows, ratings) -> Given:
        is_real = tf.cast(item_rows >= 0, tf.float32)
        rows = tf.maximum(item_rows, 0)
        if isinstance(self._rule, ImplicitLeastSquares):
            ratings = tf.ones_like(ratings)
        targets = (ratings - tf.gather(self._offsets, rows)) * is_real
        return Given(self._rows(rows) * is_real[:, tf.newaxis], targets, is_real)

    def _rows(self, rows):
        """Returns rows of the item table, `[n, k]` float32."""
        values = tf.cast(tf.gather(self._values, rows), tf.float32)
        if self._scales is None:
            return values
        return values * tf.gather(self._scales, rows)[:, tf.newaxis]

    def _solved(self, given: Given):
        """Returns the solution of `(E'E + P) u = E' targets`; see the rules of `linear`."""
        penalties = self._penalties(tf.reduce_sum(given.is_real))

        def penalized(vector):
            """Returns `P vector`."""
            of_own = penalties * vector
            return of_own if self._gram is None else of_own + _times(self._gram, vector)

        def system(vector):
            inner = _times(given.rows, vector)
            return _times(given.rows, inner, transpose=True) + penalized(vector)

        diagonal = tf.reduce_sum(tf.square(given.rows), axis=0) + penalties
        if self._gram is not None:
            diagonal += self._gram_diagonal
        vector = tf.zeros([self._size])
        for _ in range(_PASSES):
            errors = given.targets - _times(given.rows, vector)
            residual = _times(given.rows, errors, transpose=True) - penalized(vector)
            vector += _conjugate_gradients(system, diagonal, residual, self._size)
        return vector

    def _penalties(self, number):
        """Returns the regularization of each entry of a user's vector, `[k]` or a scalar.

        Args:
          number: How many items are given, a scalar float32.
        """
        rule = self._rule
        if isinstance(rule, LeastSquares):
            growth = tf.pow(tf.maximum(number, 1.0), rule.exponent)
            return growth * tf.constant(rule.strengths, tf.float32)
        growth = tf.pow(number + rule.unobserved_weight * self._num_items, rule.exponent)
        return rule.regularization * growth


def _descended(rule: GradientSteps, given: Given):
    """Returns the vector after the steps of a rule; see `GradientSteps`."""
    number = tf.cast(tf.reduce_sum(given.is_real), tf.int32)
    num_batches = (number + rule.batch_size - 1) // rule.batch_size
    num_steps = num_batches * rule.epochs
    if rule.steps_max is not None:
        num_steps = tf.minimum(num_steps, rule.steps_max)

    def step(index, vector):
        places = (index % num_batches) * rule.batch_size + tf.range(rule.batch_size)
        in_batch = tf.cast(places < number, tf.float32)
        places = tf.minimum(places, number - 1)
        rows = tf.gather(given.rows, places)
        errors = (_times(rows, vector) - tf.gather(given.targets, places)) * in_batch
        gradient = (2.0 / tf.reduce_sum(in_batch)) * _times(rows, errors, transpose=True)
        return index + 1, vector - rule.learning_rate * gradient

    initial = tf.constant(rule.initial, tf.float32)
    return tf.while_loop(lambda index, _: index < num_steps, step, [tf.constant(0), initial])[1]


def _conjugate_gradients(system, diagonal, right, size: int):
    """Returns the solution of a positive definite system, `[k]`, preconditioned by its diagonal.

    Args:
      system: From a vector `[k]` to the product of the system's matrix with it.
      diagonal: `[k]`: of the matrix.
      right: `[k]`.
      size: k.
    """
    first = right / diagonal
    square = tf.reduce_sum(right * first)

    def goes_on(index, solution, residual, direction, square_now):
        del solution, residual, direction
        # Without rounding, `size` steps reach the solution.
        return tf.logical_and(index < 2 * size, square_now > _TOLERANCE**2 * square)

    def step(index, solution, residual, direction, square_now):
        product = system(direction)
        length = square_now / tf.reduce_sum(direction * product)
        residual -= length * product
        scaled = residual / diagonal
        square_next = tf.reduce_sum(residual * scaled)
        direction_next = scaled + (square_next / square_now) * direction
        return index + 1, solution + length * direction, residual, direction_next, square_next

    start = [tf.constant(0), tf.zeros([size]), right, first, square]
    return tf.while_loop(goes_on, step, start)[1]


def _times(matrix, vector, *, transpose: bool = False):
    """Returns `matrix @ vector`, or `matrix.T @ vector`, `[m]`."""
    product = tf.matmul(vector[tf.newaxis], matrix, transpose_b=not transpose)
    return tf.reshape(product, [-1])


def write(model: LinearModel, table: StoredTable, path: str | os.PathLike) -> None:
    """Writes a model as a SavedModel with the signatures of `OnDevice`."""
    module = OnDevice(model, table)
    tf.saved_model.save(module, os.fspath(path), signatures=module.signatures())
