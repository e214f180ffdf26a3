"""Item rows in blocks: the same numbers as an optimizer of whole arrays, to the last bit."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.engine.client_step import Stage, build_step
from fedrecon.engine.row_blocks import BlocksOptimizer
from fedrecon.engine.shards import Examples
from fedrecon.engine.stages import run_stage
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.neural_cf import neumf
from fedrecon.options import OptimizerOptions

NUM_ITEMS, BATCH_SIZE = 100, 8
NUM_ROWS = np.array([70, 33, 0, 5], np.int32)  # Blocks have 32 rows.
NUM_STEPS = [6, 6, 0, 2]


@dataclasses.dataclass(frozen=True)
class _OfWholeArrays(OptimizerOptions):
    """The same optimizer, which does not say that it is elementwise."""


def train(options, *, jit_compile=True):
    """Returns what four clients with NeuMF end with."""
    model = FunctionalModel(neumf(NUM_ITEMS, gmf_dim=4, hidden_units=(8, 4)))
    generator = np.random.default_rng(0)
    positions = np.zeros([4, max(NUM_STEPS), BATCH_SIZE], np.int32)
    mask = np.zeros(positions.shape, bool)
    for client, (rows, steps) in enumerate(zip(NUM_ROWS, NUM_STEPS)):
        if steps:  # Some rows come twice in a batch.
            positions[client] = generator.integers(0, rows, positions.shape[1:])
        mask[client, :steps] = True
    labels = generator.integers(0, 2, positions.shape).astype(np.float32)
    values = {}
    for weight in model.weights:
        shape = [4, 71, weight.shape[1]] if weight.is_item_table else list(weight.shape)
        shape = [4, *shape] if weight.is_local else shape
        values[weight.name] = generator.normal(size=shape).astype(np.float32)
    stage = Stage(options, trains_global=True, trains_local=True)
    kind = type(build_step(model, stage)).__name__

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(values, positions, labels, mask, num_rows):
        examples = Examples(positions, positions, labels, mask)
        seeds = tf.zeros([4], tf.uint32)
        return run_stage(model, stage, values, examples, seeds, num_rows=num_rows)

    return kind, run(values, positions, labels, mask, NUM_ROWS)


@pytest.mark.parametrize("name", ["adamw", "adagrad"])
def test_blocks_have_the_numbers_of_whole_arrays(name):
    kind, found = train(OptimizerOptions(name, 0.05))
    other_kind, expected = train(_OfWholeArrays(name, 0.05))
    assert (kind, other_kind) == ("_BlocksStep", "_RowsStep")
    is_row = np.arange(71) < NUM_ROWS[:, np.newaxis]
    for key, value in expected.values.items():
        same = is_row if value.shape[1:2] == [71] else np.ones(len(value), bool)
        np.testing.assert_array_equal(found.values[key].numpy()[same], value.numpy()[same])
    np.testing.assert_array_equal(found.predictions, expected.predictions)


def test_blocks_do_without_xla():
    _, found = train(OptimizerOptions("adam", 0.05), jit_compile=False)
    _, expected = train(_OfWholeArrays("adam", 0.05), jit_compile=False)
    rows = found.values.keys() & {k for k, v in found.values.items() if v.shape[1:2] == [71]}
    assert len(rows) == 2
    for key in rows:
        for client, count in enumerate(NUM_ROWS):
            np.testing.assert_allclose(
                found.values[key][client, :count], expected.values[key][client, :count], atol=1e-6
            )


def test_a_block_takes_its_steps_and_padding_takes_none():
    """Gradient descent with momentum 0.5 of gradients of one: 1, then 1.5, then 1.75."""
    import tensorflow_federated as tff

    (table,) = [w for w in FunctionalModel(neumf(NUM_ITEMS)).weights if w.is_item_table][:1]
    optimizer = BlocksOptimizer(tff.learning.optimizers.build_sgdm(1.0, 0.5), [table])
    width = table.shape[1]
    values = {table.name: tf.zeros([2, 40, width])}
    blocks = optimizer.start(values, tf.constant([40, 3]), tf.constant([3, 1]))
    positions = tf.constant([[39, 39], [1, 0]])  # The first client's row comes twice.
    gradients = {table.name: tf.fill([2, 2, width], 0.5)}
    for _ in range(3):
        blocks = optimizer.step(blocks, positions, gradients)
    (found,) = optimizer.values(blocks, like=values).values()
    expected = np.zeros([2, 40, width], np.float32)
    expected[0, 39] = -(1 + 1.5 + 1.75)
    expected[1, :2] = -0.5  # It has one step.
    np.testing.assert_array_equal(found, expected)
