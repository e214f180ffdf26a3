"""Matrix factorization for explicit ratings, split for federated training.

The rating of item i by user u is predicted as `<u, v_i> + b_u + b_i + mu`; each bias is optional.
The item rows `v_i`, the item biases `b_i` and the global bias `mu` are global; the user's row `u`
and bias `b_u` are local. From the FedRecon paper (Singhal et al. 2021, arXiv:2102.03448) and its
code (google-research/federated, reconstruction/movielens).

With a mean user `m`, `u + m` takes the place of `u`. `m` is global: the server learns it. What a
user gives then decides how far the user is from the mean user, and who gives little stays near it.
A prior whose mean is learned, as in hierarchical Bayes and as the learned initial values of MAML
(Finn et al. 2017, arXiv:1703.03400).

In a unit `c` other than 1 the model predicts `c` times the sum above, and its loss is
`((label - prediction) / c)^2`: what every weight and every learning rate means is then the same on
all scales of ratings.

With known features `F_i` of the items, `v_i + F_i W` takes the place of `v_i`, and `b_i + F_i w`
the place of `b_i`; `W` and `w` are global. So an item that nobody rated has a row, too: an item is
the sum of its features' rows and a row of its own, as in LightFM (Kula 2015, arXiv:1507.08439).
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from fedrecon import rng
from fedrecon.models import layers, losses, metrics, split_model


def matrix_factorization(
    num_items: int,
    dim: int,
    *,
    user_bias: bool = False,
    item_bias: bool = False,
    global_bias: bool = False,
    mean_user: bool = False,
    initial_rating: float = 0.0,
    rating_unit: float = 1.0,
    rating_step: float = 1.0,
    l2: float = 0.0,
    user_l2: float | None = None,
    spread_out: float = 0.0,
    item_features: np.ndarray | None = None,
    item_initializer: tf.keras.initializers.Initializer | None = None,
    user_initializer: tf.keras.initializers.Initializer | None = None,
    seed: int = 0,
) -> split_model.SplitModel:
    """Returns a matrix factorization with mean squared error as its loss.

    Its layers with weights are, in this order, `item_embedding`, `mean_user`, `item_bias` and
    `global_bias` (global), and `user_embedding` and `user_bias` (local). Biases of users and items
    start at 0, as does the mean user.
    Features add global layers after `item_embedding`: `item_features` (`F`, frozen) and
    `feature_embedding` (`W`), and after `item_bias`: `feature_bias` (`w`).

    Args:
      num_items: The number of items; ids are in `[0, num_items)`.
      dim: The number of latent factors.
      user_bias: Whether to add `b_u`.
      item_bias: Whether to add `b_i`.
      global_bias: Whether to add `mu`.
      mean_user: Whether to add `m` to the user's row. Without it, items that are liked in general
        get a part of their rating from what users have in common, which whoever gives few ratings
        does not have: they are predicted too low.
      initial_rating: Where predictions start, by the initial value of `mu`. Reconstruction shrinks
        a user's part towards 0, and so the user's predictions towards `mu + b_i`. While that is far
        from typical ratings, it serves users with few ratings badly. The middle of the scale is
        known without any data.
      rating_unit: The unit `c`, positive; `RatingScale.unit` makes any scale as wide as 1 to 5.
      rating_step: What neighboring ratings differ by; it decides which prediction counts as right
        in the training metric `accuracy`.
      l2: Adds `l2 * sum of squares` of every weight, biases too, to the loss of each batch.
      user_l2: In place of `l2` for the local weights; None is the same.
      spread_out: The strength of `layers.SpreadOut` on the item rows `v_i`.
      item_features: `[num_items, f]` float32, such as `genre_features`; None for none. They are
        known to everybody and not trained. `W` takes the gradients of all items, so it moves much
        further than a row `v_i` under plain averaging and where the optimizer is SGD: then smaller
        features (a norm of 0.1 in place of 1) or lower rates keep it from diverging.
      item_initializer: Initializes the item rows, with its own seed. None is uniform in
        `[-0.05, 0.05)`, Keras's default, drawn by `seed`. With features, None is 0: a row that is
        never trained then adds no noise to `F_i W`.
      user_initializer: Initializes the user's row, which FedRecon draws anew in each round. None is
        as for the items.
      seed: Decides the default initial values, whatever else the process has built or drawn.

    Raises:
      ValueError: If a size or the unit is not positive, a strength is negative, or the features are
        not one finite row for each item.
    """
    _check_sizes(num_items, dim)
    user_l2 = l2 if user_l2 is None else user_l2
    _check_strengths(l2=l2, user_l2=user_l2, spread_out=spread_out)
    if not rating_unit > 0:
        raise ValueError(f"The unit of ratings must be > 0, but is {rating_unit}.")
    l2_regularizer = tf.keras.regularizers.L2(l2) if l2 else None
    user_regularizer = tf.keras.regularizers.L2(user_l2) if user_l2 else None
    # Spread-out ties all rows of the table together, so that none can be trained alone.
    item_regularizer = layers.SpreadOut(spread_out, l2=l2) if spread_out else l2_regularizer

    if item_initializer is None:
        has_features = item_features is not None
        item_initializer = "zeros" if has_features else _uniform(seed, "item_embedding/embeddings")

    item_id = tf.keras.Input([1], dtype=tf.int64, name="item_id")
    flatten_item = tf.keras.layers.Flatten(name="item_row")
    item_embedding = tf.keras.layers.Embedding(
        num_items,
        dim,
        embeddings_initializer=item_initializer,
        embeddings_regularizer=item_regularizer,
        name="item_embedding",
    )
    user_embedding = layers.UserEmbedding(
        dim,
        embeddings_initializer=user_initializer or _uniform(seed, "user_embedding/embeddings"),
        embeddings_regularizer=user_regularizer,
        name="user_embedding",
    )
    global_layers, local_layers = [item_embedding], [user_embedding]
    item_row = flatten_item(item_embedding(item_id))
    if item_features is not None:
        table = _frozen_table(_checked_features(item_features, num_items))
        features = tf.keras.layers.Flatten(name="features_row")(table(item_id))
        layer = tf.keras.layers.Dense(
            dim,
            use_bias=False,
            kernel_initializer=_uniform(seed, "feature_embedding/kernel"),
            kernel_regularizer=l2_regularizer,
            name="feature_embedding",
        )
        global_layers += [table, layer]
        item_row = tf.keras.layers.Add(name="item_row_of_both")([item_row, layer(features)])
    user_row = user_embedding(item_id)
    if mean_user:
        layer = layers.Bias(regularizer=l2_regularizer, dim=dim, name="mean_user")
        global_layers.append(layer)
        user_row = layer(user_row)
    terms = [layers.InnerProduct(name="inner_product")([user_row, item_row])]
    if user_bias:
        layer = layers.UserEmbedding(1, "zeros", user_regularizer, name="user_bias")
        local_layers.append(layer)
        terms.append(layer(item_id))
    if item_bias:
        layer = tf.keras.layers.Embedding(
            num_items,
            1,
            embeddings_initializer="zeros",
            embeddings_regularizer=l2_regularizer,
            name="item_bias",
        )
        global_layers.append(layer)
        terms.append(tf.keras.layers.Flatten(name="item_bias_row")(layer(item_id)))
    if item_bias and item_features is not None:
        layer = tf.keras.layers.Dense(
            1,
            use_bias=False,
            kernel_initializer="zeros",
            kernel_regularizer=l2_regularizer,
            name="feature_bias",
        )
        global_layers.append(layer)
        terms.append(layer(features))
    rating = tf.keras.layers.Add(name="sum")(terms) if len(terms) > 1 else terms[0]
    if global_bias:
        initializer = tf.keras.initializers.Constant(initial_rating / rating_unit)
        layer = layers.Bias(initializer, l2_regularizer, name="global_bias")
        global_layers.append(layer)
        rating = layer(rating)
    if rating_unit != 1.0:
        rating = tf.keras.layers.Rescaling(rating_unit, name="rating_unit")(rating)

    loss_fn = losses.squared_error_in(rating_unit)
    return split_model.SplitModel(
        keras_model=tf.keras.Model(item_id, rating, name="matrix_factorization"),
        global_layers=tuple(global_layers),
        local_layers=tuple(local_layers),
        input_spec=split_model.rating_input_spec(),
        loss_fn=loss_fn,
        metrics_fn=functools.partial(metrics.rating_metrics, loss_fn, rating_step),
    )


def _uniform(seed: int, weight: str) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomUniform(-0.05, 0.05, seed=rng.derive_seed(seed, weight))


def _frozen_table(features: np.ndarray) -> tf.keras.layers.Embedding:
    """Returns a table that is looked up by item id, so a client takes the rows of its own items."""
    return tf.keras.layers.Embedding(
        *features.shape,
        embeddings_initializer=tf.keras.initializers.Constant(features),
        trainable=False,
        name="item_features",
    )


def _checked_features(item_features: np.ndarray, num_items: int) -> np.ndarray:
    features = np.asarray(item_features, np.float32)
    if features.ndim != 2 or len(features) != num_items or not features.shape[1]:
        raise ValueError(
            f"item_features must be [num_items, f] with num_items = {num_items} and f >= 1, but has"
            f" the shape {list(features.shape)}."
        )
    if not np.isfinite(features).all():
        item = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise ValueError(f"item_features must be finite, but the row of item {item} is not.")
    return features


def _check_sizes(num_items: int, dim: int) -> None:
    if num_items < 1 or dim < 1:
        raise ValueError(
            f"Matrix factorization needs num_items >= 1 and dim >= 1, but num_items is {num_items}"
            f" and dim is {dim}."
        )


def _check_strengths(**strengths: float) -> None:
    if min(strengths.values()) < 0:
        raise ValueError(f"The strengths of regularizers must be >= 0, but are {strengths}.")
