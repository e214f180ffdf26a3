"""Layers and a regularizer that recommenders need and Keras lacks.

All layers use plain broadcasting arithmetic and keep their weights in public attributes, as Keras
does (`embeddings`, `bias`). So a model can be called with other tensors in place of its weights,
under `tf.vectorized_map` and compiled by XLA.
"""

from __future__ import annotations

import tensorflow as tf


class UserEmbedding(tf.keras.layers.Layer):
    """The embedding of one user, the owner of the device.

    A device has no table of users and needs no user id. The layer repeats its one row,
    `embeddings` of shape `[1, dim]`, for every example of the batch. With `dim=1` it is a user
    bias.
    """

    def __init__(self, dim: int, embeddings_initializer, embeddings_regularizer=None, **kwargs):
        """Creates the layer.

        Args:
          dim: The length of the row, `>= 1`.
          embeddings_initializer: An argument of `tf.keras.initializers.get`. There is no default,
            because Keras's own default draws from global state.
          embeddings_regularizer: An argument of `tf.keras.regularizers.get`, or None.
          **kwargs: `name` and the other arguments of a Keras layer.

        Raises:
          ValueError: If `dim` is not positive.
        """
        super().__init__(**kwargs)
        if dim < 1:
            raise ValueError(f"The user embedding {self.name} needs dim >= 1, but dim is {dim}.")
        self.dim = dim
        self.embeddings_initializer = tf.keras.initializers.get(embeddings_initializer)
        self.embeddings_regularizer = tf.keras.regularizers.get(embeddings_regularizer)

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(1, self.dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )
        super().build(input_shape)

    def call(self, item_ids):
        """Returns the row for each example, `[batch, dim]`; of `item_ids` only the size counts."""
        # A matmul with ones would round the row to TF32 on a GPU.
        return tf.broadcast_to(self.embeddings, [tf.shape(item_ids)[0], self.dim])

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "embeddings_initializer": tf.keras.initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": tf.keras.regularizers.serialize(self.embeddings_regularizer),
        }


class Bias(tf.keras.layers.Layer):
    """Adds one trained number, or one trained row, to each row of its input.

    `bias` has the shape `[]`, or `[dim]` for inputs `[..., dim]`.
    """

    def __init__(self, initializer="zeros", regularizer=None, *, dim: int | None = None, **kwargs):
        """Creates the layer.

        Args:
          initializer: An argument of `tf.keras.initializers.get`.
          regularizer: An argument of `tf.keras.regularizers.get`, or None.
          dim: The length of the row, `>= 1`; None for a number.
          **kwargs: `name` and the other arguments of a Keras layer.
        """
        super().__init__(**kwargs)
        self.dim = dim
        self.bias_initializer = tf.keras.initializers.get(initializer)
        self.bias_regularizer = tf.keras.regularizers.get(regularizer)

    def build(self, input_shape):
        self.bias = self.add_weight(
            name="bias",
            shape=() if self.dim is None else (self.dim,),
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
        )
        super().build(input_shape)

    def call(self, inputs):
        return inputs + self.bias

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": tf.keras.initializers.serialize(self.bias_initializer),
            "regularizer": tf.keras.regularizers.serialize(self.bias_regularizer),
            "dim": self.dim,
        }


class InnerProduct(tf.keras.layers.Layer):
    """The inner products of the rows of two `[batch, dim]` tensors, `[batch, 1]`.

    XLA fuses the product and the sum over many clients. `tf.keras.layers.Dot` would be a batch of
    matrix products with one number each.
    """

    def call(self, inputs):
        return _row_products(*inputs)


@tf.custom_gradient
def _row_products(left, right):
    def gradient(upstream):
        # TensorFlow's own gradient first repeats `upstream` to the shape of the rows, which takes
        # longer than all the rest.
        return upstream * right, upstream * left

    return tf.reduce_sum(left * right, axis=-1, keepdims=True), gradient


class SpreadOut(tf.keras.regularizers.Regularizer):
    """Keeps the embeddings of different items apart, and optionally small.

    `spread_out * sqrt(sum over i != j of (v_i . v_j)^2) + l2 * sum over i of |v_i|^2`: the first
    term is the Frobenius norm of the Gram matrix of the rows with its diagonal set to zero. From
    Zhang et al. 2017, "Learning Spread-out Local Feature Descriptors" (arXiv:1708.06320), in the
    form that the FedRecon paper's code has (google-research/federated, reconstruction/movielens).

    That code builds the `[num_items, num_items]` Gram matrix. For `num_items > dim` a `[dim, dim]`
    matrix is enough here: `|V V^T|_F = |V^T V|_F`, and the diagonal adds `sum of |v_i|^4` to its
    square. Rounding can make the difference negative; it is then taken as 0. Rounding also blurs
    norms below about `1e-3 |V^T V|_F`. Many rows in few dimensions are far above that, unless
    nearly all rows are 0. At 0 the norm has no derivative; its gradient is taken as 0.
    """

    def __init__(self, spread_out: float = 0.0, *, l2: float = 0.0):
        """Creates the regularizer; both strengths `>= 0`, where 0 leaves that term out.

        Raises:
          ValueError: If a strength is negative.
        """
        if spread_out < 0 or l2 < 0:
            raise ValueError(
                f"The strengths of a regularizer must be >= 0, but spread_out is {spread_out} and"
                f" l2 is {l2}."
            )
        self.spread_out = float(spread_out)
        self.l2 = float(l2)

    def __call__(self, embeddings):
        """Returns the scalar penalty of `embeddings`, `[num_items, dim]`."""
        penalty = tf.zeros([], embeddings.dtype)
        if self.spread_out:
            penalty += self.spread_out * _off_diagonal_gram_norm(embeddings)
        if self.l2:
            penalty += self.l2 * tf.reduce_sum(tf.square(embeddings))
        return penalty

    def get_config(self):
        return {"spread_out": self.spread_out, "l2": self.l2}


def _off_diagonal_gram_norm(rows):
    num_rows, dim = rows.shape
    if num_rows is not None and num_rows <= dim:
        gram = tf.matmul(rows, rows, transpose_b=True)
        off_diagonal = tf.linalg.set_diag(gram, tf.zeros([num_rows], rows.dtype))
        squared = tf.reduce_sum(tf.square(off_diagonal))
    else:
        squared = tf.reduce_sum(tf.square(tf.matmul(rows, rows, transpose_a=True)))
        squared -= tf.reduce_sum(tf.square(tf.reduce_sum(tf.square(rows), axis=1)))
    # Two selections, since one would still multiply the infinite slope of sqrt(0) by zero.
    is_positive = squared > 0
    norm = tf.sqrt(tf.where(is_positive, squared, tf.ones_like(squared)))
    return tf.where(is_positive, norm, tf.zeros_like(norm))
