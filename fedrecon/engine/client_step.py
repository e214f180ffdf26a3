"""A training step of one client: the gradient of a batch's loss, then the optimizer.

The step is written for one client, as in stock TFF; `calls.map_clients` makes one step for all
clients of a shard of it. There are three kinds:

- `_BatchStep`, of plain gradient descent. Only the rows of the batch move, so it gets only these
  rows and returns their changes.
- `_BlocksStep`, of momentum, Adam and the like. They keep moving a row that an earlier batch
  touched, and treat each entry by itself. So a client gets the rows of its batch and returns their
  gradients, and the optimizer works on the blocks of `row_blocks`.
- `_RowsStep`, of everything else. It gets and returns all rows of the client.

AdamW and L1/L2 regularizers also move rows that no batch touches. These **drift**: they move the
same way on every client. So a step follows one untouched copy of the table for its client instead
of every row; weight decay alone multiplies everything by one factor, and then one number is enough
(`drifted`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from fedrecon.engine.calls import call_client, map_clients, rows_of_batch
from fedrecon.engine.row_blocks import BlocksOptimizer, RowBlocks, ShapeOf
from fedrecon.engine.shards import Examples
from fedrecon.engine.values import Values, in_order, where_client
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.weights import Weight, regularization
from fedrecon.options import OptimizerOptions


@dataclasses.dataclass(frozen=True)
class Stage:
    """What clients train, and by which optimizer.

    Attributes:
      optimizer: Trains all of it.
      trains_global: Whether the trainable global weights are trained.
      trains_local: Whether the trainable local weights are trained.
      gradient_clip_norm: A longer gradient, over all that is trained, is scaled down to this norm;
        None leaves it.
    """

    optimizer: OptimizerOptions
    trains_global: bool = False
    trains_local: bool = False
    gradient_clip_norm: float | None = None

    def trains(self, weight: Weight) -> bool:
        """Returns whether a weight is trained."""
        is_chosen = self.trains_local if weight.is_local else self.trains_global
        return is_chosen and weight.trainable

    def trained(self, weights: Sequence[Weight]) -> list[Weight]:
        """Returns the weights that are trained, in their order."""
        return [weight for weight in weights if self.trains(weight)]


def drifts(weight: Weight, optimizer: OptimizerOptions) -> bool:
    """Returns whether training also moves the rows of a weight that no batch touches."""
    return weight.is_item_table and (weight.regularizer is not None or optimizer.decays_weights)


def drift_start(weight: Weight, value: tf.Tensor, num_clients: int) -> tf.Tensor:
    """Returns where the untouched copy of a drifting weight starts; see `drifted`."""
    return value if weight.regularizer is not None else tf.ones([num_clients], value.dtype)


def drifted(weight: Weight, start: tf.Tensor, untouched: tf.Tensor) -> tf.Tensor:
    """Returns the untouched rows after some steps.

    Args:
      weight: A weight that drifts.
      start: The rows before them.
      untouched: The steps applied to the rows, if the weight has a regularizer; else the steps of
        weight decay applied to the number 1.
    """
    if weight.regularizer is not None:
        return untouched
    return start * tf.reshape(untouched, [-1] + [1] * (start.shape.rank - 1))


def step_untouched(optimizer, weights: Sequence[Weight], state: Any, values: Values):
    """Returns the state and the values after a step on the regularization alone."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = regularization(weights, in_order(weights, values))
    gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return optimizer.next(state, values, gradients)


class Carry(NamedTuple):
    """What one step leaves to the next, `[clients, ...]` each.

    Attributes:
      values: The values of the trained weights.
      state: The optimizer's state.
      untouched: The untouched copies of the drifting weights; see `drifted`.
      untouched_state: The optimizer's state for these.
      blocks: The item tables of a `_BlocksStep`; they are not among the values.
    """

    values: Values
    state: Any
    untouched: Values
    untouched_state: Any
    blocks: RowBlocks | tuple[()] = ()

    def of_clients(self) -> Carry:
        """Returns what clients get besides their values."""
        return self._replace(values={}, blocks=())


class Moved(NamedTuple):
    """What a `_BatchStep` and a `_BlocksStep` return.

    Attributes:
      of_rows: Of the batch's rows, `[batch_size, dim]`, of the trained item tables: their changes
        by a `_BatchStep`, their gradients from a `_BlocksStep`.
      carry: The client's carry after the step, with the other trained weights.
    """

    of_rows: Values
    carry: Carry


def build_step(model: FunctionalModel, stage: Stage) -> _BatchStep | _BlocksStep | _RowsStep:
    """Returns the step of a stage.

    Raises:
      InputError: If gradients of regularized item tables would be clipped.
    """
    trained = stage.trained(model.weights)
    is_clipped = stage.gradient_clip_norm is not None
    regularized = [w.name for w in trained if w.is_item_table and w.regularizer]
    if is_clipped and regularized:
        raise InputError(
            f"{regularized[0]} is regularized, so the norm of its gradient is over all its rows,"
            " and a client has only its own; leave out either gradient_clip_norm or the"
            " regularization."
        )
    is_drifting = any(drifts(weight, stage.optimizer) for weight in trained)
    # To clip, the gradient of a row that comes twice in a batch is needed as a sum.
    if stage.optimizer.is_plain_sgd and not is_drifting and not is_clipped:
        return _BatchStep(model, stage)
    has_tables = any(weight.is_item_table for weight in trained)
    if stage.optimizer.is_elementwise and has_tables and not regularized and not is_clipped:
        return _BlocksStep(model, stage)
    return _RowsStep(model, stage)


class _Step:
    """The common part of all steps.

    Attributes:
      trained: The trained weights, in the order of the model's.
      drifting: The trained weights that drift.
    """

    def __init__(self, model: FunctionalModel, stage: Stage):
        self._model = model
        self._optimizer = stage.optimizer.build()
        self.trained = stage.trained(model.weights)
        self.drifting = [w for w in self.trained if drifts(w, stage.optimizer)]

    def initial_carry(self, values: Values, num_rows: tf.Tensor, num_steps: tf.Tensor) -> Carry:
        """Returns what the first step starts from.

        Args:
          values: The values of all weights; the trained ones have an axis of clients.
          num_rows: `[clients]` int32: how many item rows each client has.
          num_steps: `[clients]` int32: how many steps each client has.
        """
        del num_rows
        return self._initial_carry(self.trained, values, num_steps.shape[0])

    def trained_values(self, carry: Carry, values: Values) -> Values:
        """Returns the trained values of a carry.

        Args:
          carry: The carry.
          values: The values that the clients started from.
        """
        del values
        return carry.values

    def _initial_carry(self, weights: Sequence[Weight], values: Values, num_clients: int) -> Carry:
        trained = {w.name: values[w.name] for w in weights}
        untouched = {w.name: drift_start(w, values[w.name], num_clients) for w in self.drifting}
        return Carry(
            trained,
            _initial_state(self._optimizer, trained),
            untouched,
            _initial_state(self._optimizer, untouched),
        )

    def _after_drift(self, carry: Carry) -> Carry:
        """Returns one client's carry with the untouched copies after one more step."""
        if not self.drifting:
            return carry
        state, untouched = step_untouched(
            self._optimizer, self.drifting, carry.untouched_state, carry.untouched
        )
        return carry._replace(untouched=untouched, untouched_state=state)

    def _differentiate(self, values: Values, called, batch: Examples, seed):
        """Returns the predictions for a batch, and the gradients of its loss by weight.

        Args:
          values: The values to differentiate at.
          called: From these to what the model is called with.
          batch: The batch, of one client.
          seed: A scalar uint32 from which dropout follows.
        """
        starts = {w.name: values[w.name] for w in self.trained}
        with tf.GradientTape() as tape:
            tape.watch(starts)
            predictions = call_client(self._model, called(values), batch.item_ids, seed)
            loss = self._model.loss(batch.labels, predictions, batch.mask)
            loss += regularization(self.trained, in_order(self.trained, starts))
        return predictions, tape.gradient(loss, starts)


class _BatchStep(_Step):
    """A step of plain gradient descent: the rows of the batch move, and no others."""

    def rows_given(self, values: Values, carry: Carry, batch: Examples) -> Values:
        """Returns what the clients' steps get: of item tables the rows of their batches."""
        return rows_of_batch(self._model, values | carry.values, batch.positions)

    def __call__(self, values: Values, carry: Carry, batch: Examples, seed: tf.Tensor):
        """Returns one client's `Moved` and its predictions before the step.

        Args:
          values: Its values; of item tables the rows of the batch, `[batch_size, dim]`.
          carry: Its carry; see `Carry.of_clients`.
          batch: Its examples.
          seed: A scalar uint32 from which dropout follows.
        """
        predictions, gradients = self._differentiate(values, lambda same: same, batch, seed)
        # A step from zero is the change.
        starts = {
            w.name: tf.zeros_like(values[w.name]) if w.is_item_table else values[w.name]
            for w in self.trained
        }
        state, new = self._optimizer.next(carry.state, starts, gradients)
        changes = {w.name: new[w.name] for w in self.trained if w.is_item_table}
        others = {w.name: new[w.name] for w in self.trained if not w.is_item_table}
        return Moved(changes, carry._replace(values=others, state=state)), predictions

    def apply(self, moved: Moved, carry: Carry, batch: Examples, is_step: tf.Tensor) -> Carry:
        """Returns the clients' carry after the step, for those that have one, `[clients]` bool."""
        values = {}
        for name, old in carry.values.items():
            if name in moved.of_rows:
                change = where_client(is_step, moved.of_rows[name], 0.0)
                values[name] = _add_to_rows(old, batch.positions, change)
            else:
                values[name] = where_client(is_step, moved.carry.values[name], old)
        return carry._replace(values=values, state=moved.carry.state)


class _BlocksStep(_Step):
    """A step of an elementwise optimizer: of item tables, clients return the batch's gradients."""

    def __init__(self, model: FunctionalModel, stage: Stage):
        super().__init__(model, stage)
        tables = [weight for weight in self.trained if weight.is_item_table]
        self._others = [weight for weight in self.trained if not weight.is_item_table]
        self._tables = BlocksOptimizer(self._optimizer, tables)

    def initial_carry(self, values: Values, num_rows: tf.Tensor, num_steps: tf.Tensor) -> Carry:
        """Returns what the first step starts from; see `_Step.initial_carry`."""
        carry = self._initial_carry(self._others, values, num_steps.shape[0])
        return carry._replace(blocks=self._tables.start(values, num_rows, num_steps))

    def trained_values(self, carry: Carry, values: Values) -> Values:
        """Returns the trained values; see `_Step.trained_values`."""
        return carry.values | self._tables.values(carry.blocks, like=values)

    def rows_given(self, values: Values, carry: Carry, batch: Examples) -> Values:
        """Returns what the clients' steps get: of item tables the rows of their batches."""
        rows = rows_of_batch(self._model, values | carry.values, batch.positions)
        return rows | self._tables.rows_at(carry.blocks, batch.positions)

    def __call__(self, values: Values, carry: Carry, batch: Examples, seed: tf.Tensor):
        """Returns one client's `Moved` and its predictions before the step.

        Args:
          values: Its values; of item tables the rows of the batch, `[batch_size, dim]`.
          carry: Its carry; see `Carry.of_clients`.
          batch: Its examples.
          seed: A scalar uint32 from which dropout follows.
        """
        predictions, gradients = self._differentiate(values, lambda same: same, batch, seed)
        of_rows = {
            name: tf.zeros_like(values[name]) if gradients[name] is None else gradients[name]
            for name in self._tables.names
        }
        after = self._after_drift(carry)
        if self._others:
            starts = {w.name: values[w.name] for w in self._others}
            of_others = {name: gradients[name] for name in starts}
            state, new = self._optimizer.next(carry.state, starts, of_others)
            after = after._replace(values=new, state=state)
        return Moved(of_rows, after), predictions

    def apply(self, moved: Moved, carry: Carry, batch: Examples, is_step: tf.Tensor) -> Carry:
        """Returns the clients' carry after the step, for those that have one, `[clients]` bool."""
        chosen = _chosen(is_step, moved.carry, carry)
        return chosen._replace(
            blocks=self._tables.step(carry.blocks, batch.positions, moved.of_rows)
        )


class _RowsStep(_Step):
    """A step of any optimizer, on all rows of the client."""

    def __init__(self, model: FunctionalModel, stage: Stage):
        super().__init__(model, stage)
        self._clip_norm = stage.gradient_clip_norm
        self._tables = [weight.name for weight in self.trained if weight.is_item_table]

    def rows_given(self, values: Values, carry: Carry, batch: Examples) -> Values:
        """Returns what the clients' steps get: all rows of the item tables that are trained."""
        values = values | carry.values
        whole = {name: values[name] for name in self._tables}
        return rows_of_batch(self._model, values, batch.positions) | whole

    def __call__(self, values: Values, carry: Carry, batch: Examples, seed: tf.Tensor):
        """Returns one client's carry after the step, and its predictions before it.

        Args:
          values: Its values; of trained item tables all its rows, `[items, dim]`, of others the
            rows of the batch.
          carry: Its carry; see `Carry.of_clients`.
          batch: Its examples.
          seed: A scalar uint32 from which dropout follows.
        """

        def called(values):
            rows = {name: tf.gather(values[name], batch.positions) for name in self._tables}
            return values | rows

        predictions, gradients = self._differentiate(values, called, batch, seed)
        if self._clip_norm is not None:
            gradients = self._clipped(gradients)
        starts = {w.name: values[w.name] for w in self.trained}
        state, new = self._optimizer.next(carry.state, starts, gradients)
        return self._after_drift(carry)._replace(values=new, state=state), predictions

    def apply(self, changed: Carry, carry: Carry, batch: Examples, is_step: tf.Tensor) -> Carry:
        """Returns the clients' carry after the step, for those that have one, `[clients]` bool."""
        del batch
        return _chosen(is_step, changed, carry)

    def _clipped(self, gradients: Values) -> Values:
        """Returns the gradients, scaled to the norm over all of them if they are longer."""
        gradients = {name: tf.convert_to_tensor(value) for name, value in gradients.items()}
        squares = [tf.reduce_sum(tf.square(g)) for g in in_order(self.trained, gradients)]
        factor = tf.minimum(1.0, self._clip_norm / tf.sqrt(tf.add_n(squares)))
        return {name: gradient * factor for name, gradient in gradients.items()}


def _chosen(is_step: tf.Tensor, changed: Carry, carry: Carry) -> Carry:
    """Returns the carry after a step for the clients that have one, `[clients]` bool."""

    def choose(new: Values, old: Values) -> Values:
        return {name: where_client(is_step, new[name], value) for name, value in old.items()}

    # A client's state after its last step is of no use, so it may go on.
    return changed._replace(
        values=choose(changed.values, carry.values),
        untouched=choose(changed.untouched, carry.untouched),
    )


def _add_to_rows(rows, positions, changes):
    """Adds `changes`, `[clients, batch, dim]`, to `rows`, `[clients, items, dim]`."""
    clients = tf.broadcast_to(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(positions))
    return tf.tensor_scatter_nd_add(rows, tf.stack([clients, positions], axis=-1), changes)


def _initial_state(optimizer, values: Values):
    """Returns the optimizer's initial state of each client."""

    def of_client(values):
        specs = {
            name: tf.TensorSpec(value.shape, value.dtype)
            if value.shape.is_fully_defined()
            else ShapeOf(value)
            for name, value in values.items()
        }
        return tf.nest.map_structure(tf.convert_to_tensor, optimizer.initialize(specs))

    return map_clients(of_client, values) if values else ()
