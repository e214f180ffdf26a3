"""Neural collaborative filtering for implicit feedback, split for federated training.

GMF, MLP and NeuMF of He et al. 2017, "Neural Collaborative Filtering" (arXiv:1708.05031, equations
8 to 12). They predict the probability that a user interacts with an item, `[batch, 1]` in (0, 1),
and are trained with binary cross-entropy on labels of 0 and 1. Item tables and dense layers are
global, user rows are local.

Where the equations leave a choice, the models follow the authors' code
(hexiangnan/neural_collaborative_filtering):

- `hidden_units=(64, 32, 16, 8)`: the first number is the width of the concatenated user and item
  embeddings, so each has 32 entries; dense layers of 32, 16 and 8 units follow.
- The last layer has a bias beside the equations' `h`.
- Embeddings start normal with standard deviation 0.01, the kernels of the tower Glorot-uniform, the
  last kernel LeCun-uniform, biases at 0. `l2`, if any, is on embeddings and kernels of the tower.

Arguments that all three models have:

- `num_items`: the number of items; ids are in `[0, num_items)`.
- `l2`: adds `l2 * sum of squares` of the weights just named to the loss of each batch.
- `item_initializer`, `user_initializer`, `dense_initializer`, `output_initializer`: initialize the
  item tables, the user rows, the kernels of the tower and the last kernel. Each serves every weight
  of its kind with its own seed, so with a fixed seed equal shapes start equal.
- `seed`: decides the default initial values, whatever else the process has built or drawn.

A size that is not positive, an odd first hidden width or a negative `l2` raises ValueError.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from fedrecon import rng
from fedrecon.models import layers, metrics, split_model

Initializer = tf.keras.initializers.Initializer


def gmf(
    num_items: int,
    dim: int = 8,
    *,
    l2: float = 0.0,
    item_initializer: Initializer | None = None,
    user_initializer: Initializer | None = None,
    output_initializer: Initializer | None = None,
    seed: int = 0,
) -> split_model.SplitModel:
    """Returns generalized matrix factorization: `sigmoid(h . (u * v_i) + b)` (equations 8 and 9).

    Global: `item_embedding`, `prediction`; local: `user_embedding`, `[1, dim]`.
    """
    pieces = _Pieces(num_items, seed=seed, l2=l2)
    user, item = pieces.embed("", dim, user_initializer, item_initializer)
    product = tf.keras.layers.Multiply(name="product")([user, item])
    return pieces.finish("gmf", product, output_initializer)


def mlp(
    num_items: int,
    hidden_units: Sequence[int] = (64, 32, 16, 8),
    *,
    l2: float = 0.0,
    item_initializer: Initializer | None = None,
    user_initializer: Initializer | None = None,
    dense_initializer: Initializer | None = None,
    output_initializer: Initializer | None = None,
    seed: int = 0,
) -> split_model.SplitModel:
    """Returns the multi-layer perceptron: a ReLU tower on `[u, v_i]`, then a sigmoid (equation 10).

    Global: `item_embedding`, `dense_1`, `dense_2`, ..., `prediction`; local: `user_embedding`,
    `[1, hidden_units[0] / 2]`.
    """
    pieces = _Pieces(num_items, seed=seed, l2=l2)
    user, item = pieces.embed("", _half(hidden_units), user_initializer, item_initializer)
    hidden = pieces.tower("", [user, item], hidden_units, dense_initializer)
    return pieces.finish("mlp", hidden, output_initializer)


def neumf(
    num_items: int,
    *,
    gmf_dim: int = 8,
    hidden_units: Sequence[int] = (64, 32, 16, 8),
    l2: float = 0.0,
    item_initializer: Initializer | None = None,
    user_initializer: Initializer | None = None,
    dense_initializer: Initializer | None = None,
    output_initializer: Initializer | None = None,
    seed: int = 0,
) -> split_model.SplitModel:
    """Returns neural matrix factorization: GMF and MLP with embeddings of their own (equation 12).

    The element-wise product of the one and the last hidden layer of the other are concatenated, in
    this order, below one sigmoid. It starts from scratch, without the paper's pre-training.

    Global: `gmf_item_embedding`, `mlp_item_embedding`, `mlp_dense_1`, `mlp_dense_2`, ...,
    `prediction`; local: `gmf_user_embedding`, `[1, gmf_dim]`, and `mlp_user_embedding`,
    `[1, hidden_units[0] / 2]`.
    """
    pieces = _Pieces(num_items, seed=seed, l2=l2)
    gmf_rows = pieces.embed("gmf_", gmf_dim, user_initializer, item_initializer)
    mlp_rows = pieces.embed("mlp_", _half(hidden_units), user_initializer, item_initializer)
    product = tf.keras.layers.Multiply(name="gmf_product")(gmf_rows)
    hidden = pieces.tower("mlp_", mlp_rows, hidden_units, dense_initializer)
    both = tf.keras.layers.Concatenate(name="towers")([product, hidden])
    return pieces.finish("neumf", both, output_initializer)


class _Pieces:
    """The parts that the three models share, and the list of the layers made so far.

    Every layer has a name: Keras numbers unnamed layers through the whole process.
    """

    def __init__(self, num_items: int, *, seed: int, l2: float):
        if num_items < 1 or l2 < 0:
            raise ValueError(
                f"Neural collaborative filtering needs num_items >= 1 and l2 >= 0, but num_items is"
                f" {num_items} and l2 is {l2}."
            )
        self._num_items = num_items
        self._seed = seed
        self._regularizer = tf.keras.regularizers.L2(l2) if l2 else None
        self._item_id = tf.keras.Input([1], dtype=tf.int64, name="item_id")
        self._global_layers = []
        self._local_layers = []

    def embed(self, prefix, dim, user_initializer, item_initializer):
        """Returns the user's row and the items' rows, both `[batch, dim]`."""
        if dim < 1:
            raise ValueError(f"The embeddings need dim >= 1, but dim is {dim}.")
        user_name, item_name = f"{prefix}user_embedding", f"{prefix}item_embedding"
        user_embedding = layers.UserEmbedding(
            dim,
            embeddings_initializer=user_initializer or self._normal(user_name),
            embeddings_regularizer=self._regularizer,
            name=user_name,
        )
        item_embedding = tf.keras.layers.Embedding(
            self._num_items,
            dim,
            embeddings_initializer=item_initializer or self._normal(item_name),
            embeddings_regularizer=self._regularizer,
            name=item_name,
        )
        self._local_layers.append(user_embedding)
        self._global_layers.append(item_embedding)
        item_rows = tf.keras.layers.Flatten(name=f"{prefix}item_row")(item_embedding(self._item_id))
        return [user_embedding(self._item_id), item_rows]

    def tower(self, prefix, rows, hidden_units, initializer):
        """Returns the last hidden layer over the concatenated rows, `[batch, hidden_units[-1]]`."""
        hidden = tf.keras.layers.Concatenate(name=f"{prefix}concatenation")(rows)
        for number, units in enumerate(hidden_units[1:], start=1):
            name = f"{prefix}dense_{number}"
            layer = tf.keras.layers.Dense(
                units,
                activation="relu",
                kernel_initializer=initializer
                or tf.keras.initializers.GlorotUniform(self._weight_seed(f"{name}/kernel")),
                kernel_regularizer=self._regularizer,
                name=name,
            )
            self._global_layers.append(layer)
            hidden = layer(hidden)
        return hidden

    def finish(self, name, features, output_initializer) -> split_model.SplitModel:
        """Returns the model that predicts from `features`, `[batch, width]`."""
        layer = tf.keras.layers.Dense(
            1,
            activation=_probability,
            kernel_initializer=output_initializer
            or tf.keras.initializers.LecunUniform(self._weight_seed("prediction/kernel")),
            name="prediction",
        )
        self._global_layers.append(layer)
        loss_fn = tf.keras.losses.BinaryCrossentropy
        return split_model.SplitModel(
            keras_model=tf.keras.Model(self._item_id, layer(features), name=name),
            global_layers=tuple(self._global_layers),
            local_layers=tuple(self._local_layers),
            input_spec=split_model.rating_input_spec(),
            loss_fn=loss_fn,
            metrics_fn=functools.partial(metrics.rating_metrics, loss_fn),
        )

    def _normal(self, layer_name: str) -> Initializer:
        seed = self._weight_seed(f"{layer_name}/embeddings")
        return tf.keras.initializers.RandomNormal(stddev=0.01, seed=seed)

    def _weight_seed(self, weight: str) -> int:
        return rng.derive_seed(self._seed, weight)


def _half(hidden_units: Sequence[int]) -> int:
    if not hidden_units or min(hidden_units) < 1 or hidden_units[0] % 2:
        raise ValueError(
            "hidden_units must be positive widths, the first of them even because the user and the"
            f" item embedding share it, but hidden_units is {tuple(hidden_units)}."
        )
    return hidden_units[0] // 2


def _probability(logits):
    # Keras's cross-entropy looks for a sigmoid right before the prediction. If it finds one, it
    # uses the logits instead. Whether it finds one depends on how the model is called (eagerly, in
    # a graph, through a tf.function, with a regularizer), so losses and gradients would differ by
    # the 1e-7 of its clipping. Through an identity it never finds one.
    return tf.identity(tf.sigmoid(logits))
