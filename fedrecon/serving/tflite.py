"""A linear model as one file of TensorFlow Lite, without operations of TensorFlow itself.

The converter multiplies a quantized constant out to float32, and the file would be as large as
before. So it converts the float32 table, and the table is put in its stored form afterwards, with a
DEQUANTIZE operation behind it: what the converter itself writes for quantized weights. The runtime
does that operation once, not at each call.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from fedrecon.evaluation.best_items import best_items
from fedrecon.serving import on_device
from fedrecon.serving.item_table import StoredTable
from fedrecon.serving.linear import LinearModel

_TYPES = {"float16": schema.TensorType.FLOAT16, "int8": schema.TensorType.INT8}
# The first versions of DEQUANTIZE that take these.
_VERSIONS = {"float16": 3, "int8": 2}
_NUM_CALLS = 100
_NUM_RATINGS, _NUM_BEST = 20, 10


def convert(model: LinearModel, table: StoredTable) -> bytes:
    """Returns the content of a .tflite file with the signatures of `OnDevice`.

    Args:
      model: The model; its offsets and its rule count.
      table: The item table, in place of the model's.
    """
    as_float = StoredTable(table.values.astype(np.float32), table.scales)
    with tempfile.TemporaryDirectory() as folder:
        on_device.write(model, as_float, folder)
        keys = [*on_device.SIGNATURES]
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=keys)
        content = converter.convert()
    if table.values.dtype == np.float32:
        return content
    return _with_stored_table(content, as_float.values, table)


def _with_stored_table(content: bytes, as_float: np.ndarray, table: StoredTable) -> bytes:
    """Returns a model whose constant `as_float` is stored as `table`."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    wanted = as_float.tobytes()
    places = [i for i, buffer in enumerate(model.buffers) if _bytes_of(buffer) == wanted]
    if not places:
        raise RuntimeError("the converter has left no item table in the model.")
    kind = table.values.dtype.name
    model.operatorCodes.append(_dequantize_code(_VERSIONS[kind]))
    for subgraph in model.subgraphs:
        _dequantize_tensors(subgraph, places, table, len(model.operatorCodes) - 1)
    for place in places:
        model.buffers[place].data = None
    model.buffers[places[0]].data = np.frombuffer(table.values.tobytes(), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _bytes_of(buffer) -> bytes:
    return b"" if buffer.data is None else bytes(bytearray(buffer.data))


def _dequantize_code(version: int):
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = version
    return code


def _dequantize_tensors(subgraph, places: list[int], table: StoredTable, code: int) -> None:
    """Puts a DEQUANTIZE before the operations that read a table kept in one of some buffers."""
    for index, tensor in enumerate(list(subgraph.tensors)):
        if tensor.buffer not in places:
            continue
        stored = schema.TensorT()
        stored.name, stored.shape = tensor.name + b"/stored", tensor.shape
        stored.type = _TYPES[table.values.dtype.name]
        stored.buffer, tensor.buffer = places[0], 0  # Buffer 0 is the empty one.
        if stored.type == schema.TensorType.INT8:  # The scales of rows are in the graph.
            stored.quantization = schema.QuantizationParametersT()
            stored.quantization.scale = np.ones(1, np.float32)
            stored.quantization.zeroPoint = np.zeros(1, np.int64)
        subgraph.tensors.append(stored)
        operator = schema.OperatorT()
        operator.opcodeIndex = code
        operator.inputs, operator.outputs = [len(subgraph.tensors) - 1], [index]
        operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = schema.DequantizeOptionsT()
        subgraph.operators.insert(0, operator)


def latencies(content: bytes, num_items: int) -> dict[str, float]:
    """Returns the median milliseconds of calls in the interpreter with one thread, by their names.

    Args:
      content: From `convert`.
      num_items: How many items the model has.
    """
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    reconstruct = interpreter.get_signature_runner("reconstruct")
    score = interpreter.get_signature_runner("score")
    generator = np.random.default_rng(0)
    number = min(_NUM_RATINGS, num_items)
    rows = generator.choice(num_items, number, replace=False).astype(np.int32)
    ratings = generator.integers(1, 6, number).astype(np.float32)
    vector = reconstruct(item_rows=rows, ratings=ratings)["user_vector"]

    def score_and_choose():
        return best_items(score(user_vector=vector)["scores"], _NUM_BEST)

    return {
        f"reconstruct_from_{number}": _median_ms(
            lambda: reconstruct(item_rows=rows, ratings=ratings)
        ),
        f"score_and_top_{_NUM_BEST}": _median_ms(score_and_choose),
    }


def _median_ms(call: Callable[[], object]) -> float:
    call()  # The first call allocates.
    seconds = []
    for _ in range(_NUM_CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return round(1e3 * float(np.median(seconds)), 4)


def write(model: LinearModel, table: StoredTable, path: pathlib.Path) -> None:
    """Writes a model to a file."""
    path.write_bytes(convert(model, table))
