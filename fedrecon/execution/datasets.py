"""Datasets that every reader gets as if nobody had read them before.

TFF's runtime serializes a dataset for each call, for each client and for each part of a computation
that takes it. So a dataset with a state, such as the seeds of `shuffle`, starts anew each time.
Here a dataset is serialized once, to see whether it has a state. If it has, each reader gets a copy
that TensorFlow makes from the serialized dataset. All others are read as they are, without a copy.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.framework import op_def_registry  # TensorFlow has no public name for it.

# Datasets, by their operations, that are read alike however often they were read before, if what
# they read is. TensorFlow declares some of them stateful only to keep its optimizer from computing
# them, and does not declare all stateful ones. A generator's state is in Python, where no copy can
# be made of it.
_WITHOUT_STATE = {
    *("RangeDataset", "TensorDataset", "TensorSliceDataset", "SparseTensorSliceDataset"),
    *("TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "SqlDataset", "GeneratorDataset"),
    *("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "ParseExampleDatasetV2"),
    *("BatchDataset", "BatchDatasetV2", "ParallelBatchDataset", "UnbatchDataset", "RebatchDataset"),
    *("PaddedBatchDataset", "PaddedBatchDatasetV2", "WindowDataset", "MapAndBatchDataset"),
    *("MapDataset", "ParallelMapDataset", "ParallelMapDatasetV2", "FilterDataset", "ScanDataset"),
    *("FlatMapDataset", "InterleaveDataset", "ParallelInterleaveDatasetV4", "UniqueDataset"),
    *("TakeDataset", "TakeWhileDataset", "SkipDataset", "ShardDataset", "RepeatDataset"),
    *("ConcatenateDataset", "ZipDataset", "PrefetchDataset", "OptionsDataset", "ReduceDataset"),
    *("GroupByReducerDataset", "GroupByWindowDataset", "AssertCardinalityDataset", "ModelDataset"),
}
# Operations of datasets' functions that are harmless though TensorFlow declares them stateful.
_HARMLESS = {
    *("PyFunc", "EagerPyFunc", "StatefulPartitionedCall", "If", "While", "Case"),
    *("Assert", "Print", "PrintV2", "CheckNumerics", "CheckNumericsV2", "_Arg", "_Retval"),
}
# What makes what a dataset's argument of this name holds, once for each dataset.
_MAKERS = {"seed_generator": "DummySeedGenerator", "cache": "DummyMemoryCache"}
_IGNORE_STATE = 1  # tf.data.experimental.ExternalStatePolicy.IGNORE: copies start without it.
_MEMO = "fedrecon_serialized"
_CPU = "/device:CPU:0"  # Datasets run nowhere else.


class FreshDataset:
    """A dataset, as the inner value of a sequence.

    Attributes:
      element_spec: The structure of an element.
    """

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset = dataset
        self._serialized = _serialized_if_stateful(dataset)
        self.element_spec = dataset.element_spec

    @classmethod
    def of_argument(cls, dataset: tf.data.Dataset) -> FreshDataset:
        """Returns the inner value of a caller's dataset, which is serialized once in its life."""
        if not hasattr(dataset, _MEMO):
            setattr(dataset, _MEMO, _serialized_if_stateful(dataset))
        made = cls.__new__(cls)
        made._serialized = getattr(dataset, _MEMO)
        # How often a random dataset draws depends on how TensorFlow rewrites it.
        is_random = made._serialized is not None
        made._dataset = dataset if is_random else dataset.with_options(_options())
        made.element_spec = dataset.element_spec
        return made

    def variant(self) -> tf.Tensor:
        """Returns the dataset as a tensor for one reader."""
        if self._serialized is None:
            return tf.data.experimental.to_variant(self._dataset)
        with tf.device(_CPU):
            return tf.raw_ops.DatasetFromGraph(graph_def=self._serialized)

    def dataset(self) -> tf.data.Dataset:
        """Returns the dataset for one reader."""
        if self._serialized is None:
            return self._dataset
        copy = tf.data.experimental.from_variant(self.variant(), self.element_spec)
        copy.fedrecon_source = self._dataset  # Which keeps the Python functions that it calls.
        return copy


def _options() -> tf.data.Options:
    """Returns options that run a dataset as it is; rewriting takes longer than reading."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return options


def _serialized_if_stateful(dataset: tf.data.Dataset) -> tf.Tensor | None:
    """Returns a dataset's serialized graph; None if it has no state, or none that can be copied."""
    try:
        with tf.device(_CPU):
            serialized = tf.raw_ops.DatasetToGraphV2(
                input_dataset=tf.data.experimental.to_variant(dataset),
                external_state_policy=_IGNORE_STATE,
            )
    except tf.errors.OpError:  # For example, it reads a table that cannot be written.
        return None
    graph_def = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    functions = {function.signature.name for function in graph_def.library.function}
    nodes = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    operations = {node.op for part in nodes for node in part} - functions
    if not any(map(_may_have_state, operations)):
        return None
    _unshare(graph_def)
    return tf.constant(graph_def.SerializeToString())


def _may_have_state(operation: str) -> bool:
    if operation in _WITHOUT_STATE or operation in _HARMLESS:
        return False
    definition = op_def_registry.get(operation)
    return "Dataset" in operation or definition is None or definition.is_stateful


def _unshare(graph_def: tf.compat.v1.GraphDef) -> None:
    """Makes copies of a dataset have seeds and caches of their own.

    The graph names these of the original by their handles, which exist in this process.
    """
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        definition = op_def_registry.get(node.op)
        arguments = definition.input_arg if definition is not None else ()
        for argument, name in zip(arguments, node.input):
            if argument.name in _MAKERS and argument.type == tf.resource.as_datatype_enum:
                handle = nodes[name.partition(":")[0]]
                handle.op = _MAKERS[argument.name]
                handle.attr.clear()
