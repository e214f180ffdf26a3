"""NumPy arrays that share the memory of tensors, so that a state leaves and enters without a copy.

TFF's runtime gives read-only arrays. So does this one: a tensor's memory must not change. An array
that a caller hands back stands for the tensor whose memory it is.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class _Memory:
    """What an array of `as_array` is based on, by NumPy's array interface."""

    __slots__ = ("__array_struct__", "tensor")

    def __init__(self, tensor: tf.Tensor):
        self.tensor = tensor
        view = tensor._numpy()  # `numpy` would copy it.
        view.flags.writeable = False
        self.__array_struct__ = view.__array_struct__


def is_on_host(tensor: tf.Tensor) -> bool:
    """Returns whether the memory of an eager tensor can be read without a copy from a GPU."""
    return "CPU" in tensor.backing_device


def as_array(tensor: tf.Tensor) -> np.ndarray | np.generic:
    """Returns what TFF's runtime gives for an eager tensor.

    Args:
      tensor: A scalar becomes a NumPy scalar (bytes for a string), strings become an array of
        bytes objects, and any other tensor a read-only array. The array shares the tensor's memory
        if that is on the host. Arrays of bfloat16, for which NumPy has no interface, are copies.
    """
    if tensor.shape.rank == 0 or tensor.dtype == tf.string:
        return tensor.numpy()
    if tensor.dtype.as_numpy_dtype.__module__ == "numpy":
        return np.asarray(_Memory(tensor))
    array = tensor.numpy()
    array.flags.writeable = False
    return array


def tensor_of(array: np.ndarray) -> tf.Tensor | None:
    """Returns the tensor that `as_array` made an array of, or None if it is any other array."""
    base = array.base
    if type(base) is not tuple or not isinstance(base[0], _Memory):
        return None
    tensor = base[0].tensor
    # Someone may have set the array's shape, strides or dtype.
    is_whole = array.flags.c_contiguous and array.dtype == tensor.dtype.as_numpy_dtype
    return tensor if is_whole and tensor.shape == array.shape else None
