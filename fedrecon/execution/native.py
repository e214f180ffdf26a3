"""TFF's own C++ runtime, in a worker process that never outlives or hangs this one.

`tensorflow_federated` starts `worker_binary` with the caller's stdout and stderr and ends it only
in a `__del__`: the worker survives a caller that exits or is killed, and because it holds the
caller's pipe open, `command | tail` never ends. Here the same binary and the same executor stack
run in a `KeptProcess`. Only public names of TFF are used.
"""

from __future__ import annotations

import os
import time

import grpc
import portpicker
import tensorflow_federated as tff

from fedrecon.execution.in_process import set_default_context
from fedrecon.execution.kept_process import KeptProcess

_START_SECONDS = 60.0
_DISPOSE_BATCH = 5  # One call leaves about as many values, so disposing costs a message a call.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The first attempt nearly always comes too early, after which gRPC would wait a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class NativeWorker:
    """TFF's executor service as a subprocess of this process.

    The subprocess starts at once and becomes ready while the caller goes on; `stub` waits for it.
    """

    def __init__(self) -> None:
        binary = os.path.join(os.path.dirname(tff.__file__), "data", "worker_binary")
        port = portpicker.pick_unused_port()
        self._process = KeptProcess(
            [binary, f"--port={port}", "--max_concurrent_computation_calls=-1"]
        )
        self._channel = grpc.insecure_channel(f"localhost:{port}", options=_CHANNEL_OPTIONS)
        self._stub = tff.framework.RemoteExecutorGrpcStub(self._channel)

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    def stub(self) -> tff.framework.RemoteExecutorGrpcStub:
        """Returns the connection to the worker, waiting until it accepts calls.

        Raises:
          RuntimeError: If the worker has ended (then with what it printed last; status -9 is often
            a lack of memory) or accepts no calls within a minute.
        """
        deadline = time.monotonic() + _START_SECONDS
        while self._process.is_alive:
            if self._stub.is_ready:
                return self._stub
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"TFF's worker process accepted no call within {_START_SECONDS:.0f} s."
                )
            time.sleep(0.01)
        raise RuntimeError(f"TFF's worker process ended: {self._process.describe_end()}")

    def close(self) -> None:
        """Kills the worker, which holds nothing that is worth a slower end."""
        self._channel.close()
        self._process.kill()


def native_context(worker: NativeWorker) -> tff.framework.SyncExecutionContext:
    """Returns TFF's stock execution context over `worker`."""

    def create_executor(cardinalities):
        # By default the worker keeps up to 20 unused values (whole models).
        executor = tff.framework.RemoteExecutor(worker.stub(), dispose_batch_size=_DISPOSE_BATCH)
        executor.set_cardinalities({tff.CLIENTS: 0, **cardinalities})
        return executor

    return tff.framework.SyncExecutionContext(
        executor_fn=tff.framework.ResourceManagingExecutorFactory(create_executor),
        compiler_fn=tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )


def set_native_context() -> NativeWorker:
    """Makes TFF's C++ runtime, in a worker of ours, the default context of this process.

    Returns:
      The worker; closing it makes every later TFF computation fail until another context is set.
    """
    worker = NativeWorker()
    set_default_context(native_context(worker))
    return worker
