"""The item rows of a shard's clients in blocks, with what the optimizer remembers of each entry.

An optimizer that keeps a state moves all rows of a client at each step, whether or not a batch
touches them. In arrays `[clients, items, dim]` most of that work is padding: rows up to a power of
two, and the steps that the shorter clients of a shard do not have. So the rows are cut into blocks
of one client each, and a step works on the blocks that have rows, of the clients that have the
step. The arithmetic of an entry is the same, to the last bit.

This needs an elementwise optimizer: an entry moves by its own gradient and state alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from fedrecon.engine.values import Values
from fedrecon.models.weights import Weight

# Rows of a block: enough to be one loop over memory in the first cache, few enough to pad little.
_ROWS = 32


class ShapeOf:
    """A spec as TFF's optimizers read it, with a shape that may be known only later."""

    def __init__(self, value: tf.Tensor):
        self.shape = tf.shape(value)
        self.dtype = value.dtype


class RowBlocks(NamedTuple):
    """The rows of a shard's clients.

    The columns of all tables lie side by side, since an elementwise optimizer takes them alike.

    Attributes:
      arrays: `[blocks, planes, rows, columns]` float32. The planes are the values, the entries of
        the optimizer's state, and the gradient of the next step. Blocks are in the order of
        clients.
      shared: The other entries of the optimizer's state, such as the number of steps.
      order: `[blocks]` int32: the blocks, those with the most steps first.
      num_steps: `[blocks]` int32: how many steps each block has; 0 if it has no rows.
      number: The number of the next step, from 0.
    """

    arrays: tf.Tensor
    shared: list[tf.Tensor]
    order: tf.Tensor
    num_steps: tf.Tensor
    number: tf.Tensor


class BlocksOptimizer:
    """An elementwise optimizer of rows in blocks.

    Attributes:
      names: The names of the tables.
    """

    def __init__(self, optimizer: Any, tables: Sequence[Weight]):
        """Creates it.

        Args:
          optimizer: One of `tff.learning.optimizers`.
          tables: The item tables that it trains.
        """
        self._optimizer = optimizer
        self.names = [table.name for table in tables]
        self._widths = [table.shape[1] for table in tables]
        shape = [2, 3, 5]
        state = optimizer.initialize(tf.TensorSpec(shape, tf.float32))
        self._structure = state
        self._is_of_entries = [tf.is_tensor(x) and x.shape == shape for x in tf.nest.flatten(state)]

    def start(self, values: Values, num_rows: tf.Tensor, num_steps: tf.Tensor) -> RowBlocks:
        """Returns the blocks before the first step.

        Args:
          values: By table the clients' rows, `[clients, items, dim]`.
          num_rows: `[clients]` int32: how many rows each client has; the others are padding.
          num_steps: `[clients]` int32: how many steps each client has.
        """
        rows = tf.concat([values[name] for name in self.names], axis=2)
        num_items = tf.shape(rows)[1]
        of_client = (num_items + _ROWS - 1) // _ROWS
        rows = tf.pad(rows, [[0, 0], [0, of_client * _ROWS - num_items], [0, 0]])
        rows = tf.reshape(rows, [-1, _ROWS, sum(self._widths)])
        of_entries, shared = self._split(self._initial_state(rows))
        has_rows = tf.range(of_client) * _ROWS < num_rows[:, tf.newaxis]
        of_blocks = tf.reshape(tf.where(has_rows, num_steps[:, tf.newaxis], 0), [-1])
        return RowBlocks(
            tf.stack([rows, *of_entries, tf.zeros_like(rows)], axis=1),
            shared,
            order=tf.argsort(-of_blocks, stable=True),
            num_steps=of_blocks,
            number=tf.constant(0),
        )

    def rows_at(self, blocks: RowBlocks, positions: tf.Tensor) -> Values:
        """Returns by table the rows at positions `[clients, n]`, `[clients, n, dim]`."""
        block, row = _places(blocks, positions)
        first = tf.zeros_like(block)
        return self._by_name(tf.gather_nd(blocks.arrays, tf.stack([block, first, row], axis=-1)))

    def step(
        self,
        blocks: RowBlocks,
        positions: tf.Tensor,
        gradients: Values,
    ) -> RowBlocks:
        """Returns the blocks after a step; those of clients that do not have it stay.

        Args:
          blocks: The blocks before it.
          positions: `[clients, n]`: the rows with a gradient; a row may come several times.
          gradients: By table, `[clients, n, dim]`: the gradients to add up.
        """
        num_active = tf.math.count_nonzero(blocks.num_steps > blocks.number, dtype=tf.int32)
        arrays = self._with_gradients(blocks, positions, gradients)
        kept = tf.TensorArray(
            arrays.dtype, size=tf.shape(arrays)[0], element_shape=arrays.shape[1:]
        ).unstack(arrays)

        def step_block(index, kept):
            place = blocks.order[index]
            values, *of_entries, gradient = tf.unstack(kept.read(place), axis=0)
            state = self._joined(of_entries, blocks.shared)
            state, values = self._optimizer.next(state, values, gradient)
            of_entries, _ = self._split(state)
            planes = tf.stack([values, *of_entries, tf.zeros_like(gradient)])
            return index + 1, kept.write(place, planes)

        _, kept = tf.while_loop(lambda index, _: index < num_active, step_block, (0, kept))
        moved = kept.stack()
        moved.set_shape(arrays.shape)
        return blocks._replace(
            arrays=moved,
            shared=self._next_shared(blocks.shared),
            number=blocks.number + 1,
        )

    def values(self, blocks: RowBlocks, like: Values) -> Values:
        """Returns by table the clients' rows, of the shapes of `like`, `[clients, items, dim]`."""
        shape = tf.shape(like[self.names[0]])
        rows = tf.reshape(blocks.arrays[:, 0], [shape[0], -1, sum(self._widths)])
        return self._by_name(rows[:, : shape[1]])

    def _with_gradients(self, blocks: RowBlocks, positions, gradients: Values) -> tf.Tensor:
        block, row = _places(blocks, positions)
        last = tf.fill(tf.shape(block), blocks.arrays.shape[1] - 1)
        given = tf.concat([gradients[name] for name in self.names], axis=2)
        return tf.tensor_scatter_nd_add(blocks.arrays, tf.stack([block, last, row], axis=-1), given)

    def _by_name(self, rows: tf.Tensor) -> Values:
        return dict(zip(self.names, tf.split(rows, self._widths, axis=2)))

    def _initial_state(self, like: tf.Tensor):
        state = self._optimizer.initialize(ShapeOf(like))
        return tf.nest.map_structure(tf.convert_to_tensor, state)

    def _next_shared(self, shared: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the shared entries of the state after a step, which no row decides."""
        rows = tf.zeros([1, 1, 1])
        of_entries, _ = self._split(self._initial_state(rows))
        state, _ = self._optimizer.next(self._joined(of_entries, shared), rows, rows)
        return self._split(state)[1]

    def _split(self, state) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns the leaves of a state that have an entry for each of the rows, and the others."""
        leaves = list(zip(self._is_of_entries, tf.nest.flatten(state)))
        return [leaf for is_own, leaf in leaves if is_own], [
            x for is_own, x in leaves if not is_own
        ]

    def _joined(self, of_entries: Sequence[tf.Tensor], shared: Sequence[tf.Tensor]):
        """Returns the state of these leaves."""
        entries, others = iter(of_entries), iter(shared)
        leaves = [next(entries if is_own else others) for is_own in self._is_of_entries]
        return tf.nest.pack_sequence_as(self._structure, leaves)


def _places(blocks: RowBlocks, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the blocks of positions `[clients, n]`, and the rows in them."""
    num_clients = tf.shape(positions)[0]
    first = tf.range(num_clients) * (tf.shape(blocks.arrays)[0] // num_clients)
    return first[:, tf.newaxis] + positions // _ROWS, positions % _ROWS
