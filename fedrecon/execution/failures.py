"""Errors of TensorFlow under the names that code written for TFF's runtime catches.

TFF's runtime is another process, so its callers see `grpc.RpcError` when TensorFlow fails. In this
process TensorFlow's own error is at hand. The error raised here is both.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import grpc
import tensorflow as tf


@contextlib.contextmanager
def as_in_tff() -> Iterator[None]:
    """Raises an error of TensorFlow as an error of the same class that is a `grpc.RpcError` too."""
    try:
        yield
    except tf.errors.OpError as error:
        if isinstance(error, grpc.RpcError):
            raise
        kind = _both(type(error))
        raise kind(error.node_def, error.op, error.message).with_traceback(
            error.__traceback__
        ) from error


@functools.cache
def _both(kind: type[tf.errors.OpError]) -> type[tf.errors.OpError]:
    return type(kind.__name__, (kind, _RpcError), {"__module__": kind.__module__})


class _RpcError(grpc.RpcError):
    """The two methods of a gRPC error that callers read."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return f"Failed to run computation: {self.message}"
