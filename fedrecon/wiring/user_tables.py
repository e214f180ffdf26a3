"""A server that keeps user rows: for each local weight a table `[num_users, ...]`, by user id.

In `ModelWeights` the tables of trainable local weights follow the trainable global weights, and the
other tables the other global weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon import rng
from fedrecon.engine.values import Values, by_name, in_order
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import initial_global_values
from fedrecon.models.split_model import ModelFn
from fedrecon.wiring.weights import ModelWeights, ServerWeights


def with_user_rows(
    model_fn: ModelFn, model: FunctionalModel, *, num_users: int, seed: int
) -> ServerWeights:
    """Returns the weights of a server that keeps the global part and user rows.

    Args:
      model_fn: Builds the model.
      model: What it builds.
      num_users: User ids are in `[0, num_users)`.
      seed: Draws the rows, with the user id.
    """
    seeds = rng.derive_seeds(seed, "user_rows", ids=np.arange(num_users))

    def initial_values():
        names = [weight.name for weight in model.global_weights]
        rows = model.initial_local_values(tf.constant(seeds))
        return by_name(model.weights, [*initial_global_values(model_fn, names), *rows])

    return ServerWeights(model.weights, initial_values)


def specs_with_user_rows(model: FunctionalModel, num_users: int) -> Values:
    """Returns the specs of the weights of a server that keeps user rows."""
    return {
        weight.name: tf.TensorSpec(
            [num_users, *weight.shape] if weight.is_local else weight.shape, weight.dtype
        )
        for weight in model.weights
    }


def global_weights_of(model: FunctionalModel, weights: ModelWeights) -> ModelWeights:
    """Returns the `ModelWeights` of the global part alone."""
    return _layout(model.global_weights).to_model_weights(_layout(model.weights).to_values(weights))


def user_tables_of(model: FunctionalModel, weights: ModelWeights) -> list[Any]:
    """Returns the tables of user rows, `[num_users, ...]` for each of the local weights."""
    return in_order(model.local_weights, _layout(model.weights).to_values(weights))


def _layout(weights) -> ServerWeights:
    return ServerWeights(weights, dict)
