"""A stage of training: a loop over steps, in which each client trains by itself.

Each client works on copies of the rows of its own items, `[clients, items, dim]`. The global tables
are neither copied nor rewritten, so a client's cost does not grow with the catalog. Rows that a
step does not touch end as if the whole table were trained; see `client_step`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from fedrecon.engine.calls import map_clients
from fedrecon.engine.client_step import Stage, build_step, drifted
from fedrecon.engine.shards import Examples
from fedrecon.engine.values import Values, for_each_client, own_values
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel


class Trained(NamedTuple):
    """The result of a stage.

    Attributes:
      values: The values of all weights afterwards.
      untouched: The values they would have if no batch had touched them.
      predictions: The model's predictions before each step, `[clients, steps, batch_size]`.
      num_steps: The steps that each client took, `[clients]` int32.
    """

    values: Values
    untouched: Values
    predictions: tf.Tensor
    num_steps: tf.Tensor


def run_stage(
    model: FunctionalModel,
    stage: Stage,
    values: Values,
    examples: Examples,
    seeds: tf.Tensor,
    *,
    num_rows: tf.Tensor | None = None,
) -> Trained:
    """Trains each client by itself.

    Args:
      model: The model.
      stage: What is trained.
      values: Where the clients start: the values of all weights, with an axis of clients or, if all
        clients start from the same, without. Item tables are the clients' own rows.
      examples: What they train on. A client's steps come first, padding last.
      seeds: `[clients]` uint32, from which dropout follows.
      num_rows: `[clients]` int32: how many item rows each client has, padding left out; None if
        all are rows of clients. What is in the others afterwards means nothing.
    """
    take_step = build_step(model, stage)
    num_clients = examples.labels.shape[0]
    _, most_steps, batch_size = tf.unstack(tf.shape(examples.labels))
    starts = {w.name: for_each_client(values[w.name], w, num_clients) for w in take_step.trained}
    values = values | starts
    num_steps = examples.num_steps()

    def step(number, carry, predictions):
        batch = Examples(*(array[:, number] for array in examples))
        given = take_step.rows_given(values, carry, batch)

        def of_client(client):
            own, *rest = client
            return take_step(given | own, *rest)

        moved, predicted = map_clients(
            of_client,
            (
                own_values(model.weights, given),
                carry.of_clients(),
                batch,
                fold_in(seeds, number),
            ),
        )
        carry = take_step.apply(moved, carry, batch, is_step=number < num_steps)
        return number + 1, carry, predictions.write(number, predicted)

    if num_rows is None:
        num_rows = tf.fill([num_clients], tf.int32.max)
    carry = take_step.initial_carry(values, num_rows, num_steps)
    # Filled with zeros, since what has no entries cannot be stacked.
    predictions = tf.TensorArray(tf.float32, size=most_steps).unstack(
        tf.zeros([most_steps, num_clients, batch_size])
    )
    _, carry, predictions = tf.while_loop(
        lambda number, *_: number < tf.reduce_max(num_steps), step, (0, carry, predictions)
    )
    untouched = {
        w.name: drifted(w, values[w.name], carry.untouched[w.name]) for w in take_step.drifting
    }
    by_step = tf.reshape(predictions.stack(), [most_steps, num_clients, batch_size])
    return Trained(
        values=values | take_step.trained_values(carry, values),
        untouched=values | untouched,
        predictions=tf.transpose(by_step, [1, 0, 2]),
        num_steps=num_steps,
    )
