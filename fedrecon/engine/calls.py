"""Calls of the model for all clients of a shard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedrecon.data.cohorts import Shard
from fedrecon.engine.shards import Examples, compile_for_candidates
from fedrecon.engine.values import Values, by_name, in_order, local_specs, own_values
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel

# What a client's seed is used for; algorithms number their uses from `FREE_SEED`.
_INITIAL, FREE_SEED = 0, 1


def map_clients(function: Callable[[Any], Any], arguments: Any) -> Any:
    """Returns what `function` gives for each client, stacked.

    In a graph the function is traced once and vectorized (`tf.vectorized_map`). Outside of graphs,
    which is how the debug engine works, one client follows the other and the function sees concrete
    values: a breakpoint stops in it.

    Args:
      function: From one client's part of `arguments` to any structure of tensors.
      arguments: Any structure of tensors, `[clients, ...]` each.
    """
    if not tf.executing_eagerly():
        return tf.vectorized_map(function, arguments, fallback_to_while_loop=False)
    num_clients = len(tf.nest.flatten(arguments)[0])
    results = [
        function(tf.nest.map_structure(lambda array: array[client], arguments))  # noqa: B023
        for client in range(num_clients)
    ]
    return tf.nest.map_structure(lambda *of_clients: tf.stack(of_clients), *results)


def call_client(
    model: FunctionalModel, called: Values, item_ids: tf.Tensor, seed: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns one client's predictions `[n]`.

    Args:
      model: The model.
      called: For an item table the rows of these items, `[n, dim]`; for other weights the whole.
      item_ids: `[n]`.
      seed: A scalar uint32 from which dropout follows; None predicts without dropout.
    """
    return model.predict(item_ids, in_order(model.weights, called), dropout_seed=seed)


def call_model(
    model: FunctionalModel,
    called: Values,
    item_ids: tf.Tensor,
    *,
    dropout_seeds: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns predictions `[clients, n]`.

    Args:
      model: The model.
      called: For an item table the rows of these items, `[clients, n, dim]`; for other weights the
        whole, with an axis of clients or, if the clients share it, without.
      item_ids: `[clients, n]`.
      dropout_seeds: `[clients]` uint32 from which dropout follows; None predicts without dropout.
    """
    seeds = () if dropout_seeds is None else (dropout_seeds,)

    def of_client(client):
        own, item_ids, *seed = client
        return call_client(model, {**called, **own}, item_ids, *seed)

    return map_clients(of_client, (own_values(model.weights, called), item_ids, *seeds))


def rows_of_batch(model: FunctionalModel, values: Values, positions: tf.Tensor) -> Values:
    """Returns the values with the rows of a batch, `[clients, n, dim]`, in place of item tables.

    Args:
      model: Says which weights are item tables.
      values: Item tables as each client's own rows, `[clients, items, dim]`.
      positions: `[clients, n]`: where the items of the batch are among these rows.
    """
    return {
        weight.name: tf.gather(values[weight.name], positions, batch_dims=1)
        if weight.is_item_table
        else values[weight.name]
        for weight in model.weights
    }


def predict(model: FunctionalModel, values: Values, examples: Examples) -> tf.Tensor:
    """Returns the predictions of all examples, `[clients, steps, batch_size]`, without dropout."""
    shape = tf.shape(examples.labels)
    flat = Examples(*(tf.reshape(array, [shape[0], -1]) for array in examples))
    called = rows_of_batch(model, values, flat.positions)
    return tf.reshape(call_model(model, called, flat.item_ids), shape)


def compile_scoring(model: FunctionalModel, num_clients: int) -> Callable[..., tf.Tensor]:
    """Compiles the prediction of candidates.

    Returns:
      A function of the whole global values, candidates, `[clients, n]` int32 item ids (-1 is
      padding, whose scores mean nothing), and the clients' local values (see `local_specs`) to
      scores `[clients, n]` float32, without dropout.
    """
    return compile_for_candidates(
        lambda values, ids, local_values: call_model(model, {**values, **local_values}, ids),
        model,
        num_clients,
        local_specs(model, num_clients),
    )


def initial_local_values(model: FunctionalModel, seeds: tf.Tensor) -> Values:
    """Returns the initial local values of clients, `[clients, ...]` each, from their seeds."""
    drawn = model.initial_local_values(fold_in(seeds, _INITIAL))
    return by_name(model.local_weights, drawn)


def fresh_local_values(model: FunctionalModel, shard: Shard) -> Values:
    """Returns the initial local values of clients in this round, `[clients, ...]` each."""
    return initial_local_values(model, shard.seeds)
