"""TFF's own C++ runtime, in a worker process that never outlives or hangs this one.

`tensorflow_federated` starts `worker_binary` with the caller's stdout and stderr and ends it only
in a `__del__`: the worker survives a caller that exits or is killed, and because it holds the
caller's pipe open, `command | tail` never ends. It also shares the terminal's process group, so
that Ctrl-C kills it under a caller that wants to go on. Here the same binary and the same executor
stack run, but the worker

- is killed by the kernel when this process ends, however it ends (`PR_SET_PDEATHSIG`, Linux);
- writes to a log of its own, never to the caller's pipes;
- has a session of its own, so that only this process decides when it stops.

Only public names of TFF are used.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import portpicker
import tensorflow_federated as tff

_START_SECONDS = 60.0
_LOG_TAIL_BYTES = 4000
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The first attempt nearly always comes too early, after which gRPC would wait a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)

# Runs in the child before the worker: asks the kernel to kill it with its parent, then becomes the
# worker. A program of its own because `preexec_fn` may deadlock under TensorFlow's threads.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
    sys.exit('prctl(PR_SET_PDEATHSIG) failed: ' + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit('the parent ended before the worker started')
os.execv(sys.argv[2], sys.argv[2:])
"""


class NativeWorker:
    """TFF's executor service as a subprocess of this process.

    The subprocess starts at once and becomes ready while the caller goes on; `stub` waits for it.
    It is ended by `close`, at interpreter exit, or by the kernel when this process dies.
    """

    def __init__(self) -> None:
        self._port = portpicker.pick_unused_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process: subprocess.Popen | None = None
        self._stub: tff.framework.RemoteExecutorGrpcStub | None = None
        self._channel: grpc.Channel | None = None
        started = threading.Event()
        # The kernel watches the *thread* that starts a child, not its process. This one lives
        # exactly as long as the worker: it starts it and waits for its end.
        self._keeper = threading.Thread(target=self._keep, args=(started,), daemon=True)
        self._keeper.start()
        started.wait()
        if self._process is None:
            raise RuntimeError("TFF's worker could not be started: see the traceback above.")
        atexit.register(self.close)

    def _keep(self, started: threading.Event) -> None:
        binary = os.path.join(os.path.dirname(tff.__file__), "data", "worker_binary")
        worker = [binary, f"--port={self._port}", "--max_concurrent_computation_calls=-1"]
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                launcher + worker,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        finally:
            started.set()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    def stub(self) -> tff.framework.RemoteExecutorGrpcStub:
        """Returns the connection to the worker, waiting until it accepts calls.

        Raises:
          RuntimeError: If the worker has ended, with the last lines that it wrote, or if it does
            not accept calls within a minute.
        """
        if not self._keeper.is_alive():
            raise RuntimeError(
                f"TFF's worker process ended with status {self._process.returncode} (-9 is often a "
                f"lack of memory); its last output:\n{self._log_tail()}"
            )
        if self._stub is None:
            self._channel = grpc.insecure_channel(
                f"localhost:{self._port}", options=_CHANNEL_OPTIONS
            )
            self._stub = tff.framework.RemoteExecutorGrpcStub(self._channel)
        deadline = time.monotonic() + _START_SECONDS
        while not self._stub.is_ready:
            if not self._keeper.is_alive():
                return self.stub()  # Raises with the reason.
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"TFF's worker accepted no call within {_START_SECONDS:.0f} s; its last "
                    f"output:\n{self._log_tail()}"
                )
            time.sleep(0.01)
        return self._stub

    def close(self) -> None:
        """Ends the worker and waits for its end. Safe to call twice."""
        atexit.unregister(self.close)
        if self._keeper.is_alive():
            self._process.kill()  # It holds nothing that is worth a slower end.
            self._keeper.join()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._log.close()

    def _log_tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        # pread: the worker writes through the same file position.
        tail = os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
        return tail.decode(errors="replace") or "(nothing)"


def native_context(worker: NativeWorker) -> tff.framework.SyncExecutionContext:
    """Returns TFF's stock execution context over `worker`."""

    def create_executor(cardinalities):
        executor = tff.framework.RemoteExecutor(worker.stub())
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
    tff.framework.set_default_context(native_context(worker))
    return worker
