"""An execution context that runs TFF computations in this process, on GPUs where there are any.

TFF's own runtime is another process without GPUs and XLA, and each argument and result is copied to
or from it. Here the TensorFlow inside a computation becomes functions of this process. If all of it
is pure (see `graphs`), the whole computation is one traced function for each number of clients. The
rounds of this package's algorithms run in this way; TFF's client is a shard there. Otherwise, as
with datasets and variables, the parts of a computation run one by one, and its clients on threads.

**Results are what TFF's runtime gives**, in type and dtype: read-only arrays and scalars of NumPy,
bytes, datasets, and the containers of the type. An array shares the memory of the tensor that it
came from, and an array that comes back as an argument is that tensor again (see `arrays`). So a
state goes around without a copy. Where TensorFlow computes on a GPU, an array is a copy in the
host's memory, except in the state of a process: what `next`, or any computation whose first result
has the type of its first parameter, returns first. There arrays stay `tf.Tensor`s on their GPU.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import operator
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from absl import logging

from fedrecon.errors import InputError
from fedrecon.execution import values
from fedrecon.execution.failures import as_in_tff
from fedrecon.execution.graphs import GraphFunction
from fedrecon.execution.interpreter import EAGER_INTRINSICS, Interpreter, unknown_part
from fedrecon.execution.lowering import lower, parts_of

_MAX_COMPUTATIONS = 128
# Beyond these, clients run one by one: more traces would take longer and fill the memory.
_MAX_TRACES = 16
_MAX_TRACED_CLIENTS = 512
_MAX_SHAPES = 4096  # Counted; nothing else depends on it.


@dataclasses.dataclass
class Counts:
    """How often something was compiled.

    Attributes:
      traces: Functions traced: one for each computation and number of clients.
      shapes: Different shapes of clients' arrays. XLA compiles its functions for each of them.
    """

    traces: int = 0
    shapes: int = 0


class InProcessContext(tff.framework.SyncContext):
    """Runs TFF computations in this process.

    Attributes:
      devices: The names of the devices that it uses.
      default_num_clients: How many clients a computation has whose arguments do not tell.
      counts: How often something was compiled so far.
    """

    def __init__(self, devices: Sequence[str] | None = None, *, default_num_clients: int = 0):
        """Makes a context without installing it.

        Args:
          devices: Names of TensorFlow's logical devices. The clients of a cohort are spread over
            all of them; the server is on the first. By default all GPUs, else all CPUs.
          default_num_clients: How many clients a computation has whose arguments do not tell.
        """
        self.default_num_clients = default_num_clients
        self.devices = list(devices) if devices is not None else _default_devices()
        self.counts = Counts()
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads())
        self._computations: collections.OrderedDict[int, _Computation] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._warns_when_dropped = False

    def __del__(self):
        # Code that sets another default context drops this one in the same line. A thread or an
        # interpreter that ends drops its default context too, and then no code calls this. At its
        # very end modules are None.
        if sys is None or sys.is_finalizing() or not self._warns_when_dropped:
            return
        if sys._getframe().f_back is not None:
            warnings.warn(
                "another default context of TFF takes the place of the in-process runtime, as by "
                "tff.backends.native.set_sync_local_cpp_execution_context(). From here on TFF "
                "computations run there. To run them in this process, leave that line out, or call "
                "set_in_process_context() after it.",
                RuntimeWarning,
                stacklevel=4,
            )

    def warn_when_dropped(self, is_wanted: bool) -> None:
        """Sets whether a warning is given when nothing refers to this context any more."""
        self._warns_when_dropped = is_wanted

    def invoke(self, comp: tff.Computation, arg: Any) -> Any:
        """Runs a computation; TFF calls it.

        Raises:
          TypeError: If the argument is not of the parameter's type.
          ValueError: If parts of the argument have different numbers of clients.
          NotImplementedError: If the computation has a part that this runtime does not know.
          tf.errors.OpError: If TensorFlow fails. If it fails for a client, the message starts with
            the client's number. It is a `grpc.RpcError` too, as TFF's runtime raises.
        """
        with as_in_tff():
            return self._computation(comp)(arg, self.default_num_clients)

    def _computation(self, comp) -> _Computation:
        with self._lock:
            # By identity: TFF compares computations by their serialized form, which takes long.
            known = self._computations.pop(id(comp), None)
            if known is None:
                known = _Computation(comp, self.devices, self._pool, self.counts)
            self._computations[id(comp)] = known
            while len(self._computations) > _MAX_COMPUTATIONS:
                self._computations.popitem(last=False)
            return known


class AsyncInProcessContext(tff.framework.AsyncContext):
    """The same for `async` callers, such as `tff.program`."""

    def __init__(self, context: InProcessContext):
        self._context = context

    async def invoke(self, comp: tff.Computation, arg: Any) -> Any:
        if asyncio.iscoroutine(arg):
            arg = await arg
        return await asyncio.to_thread(self._context.invoke, comp, arg)


class _UntilUnused(contextlib.ExitStack):
    """Closed when nothing refers to it anymore."""

    def __del__(self):
        if not sys.is_finalizing():
            self.close()


class _Computation:
    """One computation, lowered, with its functions."""

    def __init__(self, comp, devices, pool, counts: Counts):
        self._source = comp  # Else another object could get its identity.
        self._type = comp.type_signature
        # Without a parameter, as if it were an empty struct.
        has_parameter = self._type.parameter is not None
        self._parameter_type = self._type.parameter if has_parameter else tff.StructType([])
        self._devices = devices
        self._counts = counts
        self._block = lower(comp)
        parts = list(parts_of(self._block))
        unknown = unknown_part(parts)
        if unknown is not None:
            raise NotImplementedError(
                f"the in-process runtime cannot run {unknown!r}, which this computation contains; "
                "TFF's native runtime may."
            )
        self._graphs = {
            part: GraphFunction(part)
            for part in parts
            if isinstance(part, tff.framework.CompiledComputation)
        }
        # Draws from a seed depend on the order of the calls.
        is_ordered = any(graph.draws_from_seed for graph in self._graphs.values())
        self._pool = None if is_ordered else pool
        intrinsics = {part.uri for part in parts if isinstance(part, tff.framework.Intrinsic)}
        has_datasets = tff.types.contains(
            self._type, lambda part: isinstance(part, tff.SequenceType)
        )
        self._is_traceable = (
            not has_datasets
            and not intrinsics & EAGER_INTRINSICS
            and all(graph.is_pure for graph in self._graphs.values())
        )
        self._stays_on_gpu = _state_stays_on_gpu(self._type)
        self._varying = list(_varying_parts(self._parameter_type))
        self._traces: dict[int, Any] = {}
        self._shapes: set[tuple] = set()
        self._lock = threading.Lock()

    def __call__(self, arg: Any, default_num_clients: int) -> Any:
        arguments = values.Arguments()
        given = () if self._type.parameter is None else arg
        parameter = arguments.take(given, self._parameter_type, "argument")
        num_clients = arguments.num_clients
        if num_clients is None:
            num_clients = default_num_clients
        traced = self._traced(num_clients) if self._is_traceable else None
        if traced is None:
            until_unused = _UntilUnused()
            value = self._evaluate(parameter, num_clients, until_unused, self._pool)
            result = self._result(value, num_clients)
            for leaf in tf.nest.flatten(result):
                if isinstance(leaf, tf.data.Dataset):  # It may read a table when it is read.
                    leaf.fedrecon_keeps = until_unused
            return result
        self._count_shapes(parameter)
        try:
            # The public call checks each tensor again, which takes a tenth of a round.
            inputs = values.flatten(parameter, self._parameter_type, num_clients)
            tensors = traced._call_flat(inputs, traced.captured_inputs)
        except tf.errors.OpError:
            # Once more, client by client: then the error names the client.
            self._evaluate(parameter, num_clients, contextlib.ExitStack(), self._pool)
            raise
        value = values.unflatten(iter(tensors), self._type.result, num_clients)
        return self._result(value, num_clients)

    def _result(self, value, num_clients):
        return values.result(value, self._type.result, num_clients, **self._stays_on_gpu)

    def _count_shapes(self, parameter):
        for part_of, member_type in self._varying:
            for member in part_of(parameter).members:
                shapes = tuple(tuple(t.shape) for t in values.flatten(member, member_type))
                if shapes not in self._shapes and len(self._shapes) < _MAX_SHAPES:
                    self._shapes.add(shapes)
                    self._counts.shapes += 1
                    logging.info("Clients of another shape (%d): %s", self._counts.shapes, shapes)

    def _evaluate(self, parameter, num_clients, until_end, pool):
        interpreter = Interpreter(self._graphs, num_clients, self._devices, until_end, pool)
        return interpreter.evaluate(self._block, {})(parameter)

    def _traced(self, num_clients: int):
        """Returns the function for so many clients; None if they had better run one by one."""
        with self._lock:
            if num_clients not in self._traces:
                if num_clients > _MAX_TRACED_CLIENTS or len(self._traces) >= _MAX_TRACES:
                    return None
                self._traces[num_clients] = self._trace(num_clients)
            return self._traces[num_clients]

    def _trace(self, num_clients: int):
        def run(*tensors):
            parameter = values.unflatten(iter(tensors), self._parameter_type, num_clients)
            # Pure graphs leave nothing for the end.
            value = self._evaluate(parameter, num_clients, contextlib.ExitStack(), None)
            return values.flatten(value, self._type.result, num_clients)

        self._counts.traces += 1
        logging.info(
            "Tracing a computation for %d clients (trace %d): %s",
            num_clients,
            self._counts.traces,
            self._type,
        )
        # `tf.function` would copy the clients' results to the first device.
        with tf.device(self._devices[0]):
            return tf.compat.v1.wrap_function(
                run, values.tensor_specs(self._parameter_type, num_clients)
            )


def _state_stays_on_gpu(type_spec: tff.FunctionType) -> dict[str, bool]:
    """Returns the arguments of `values.result` that leave the state of a process on its GPU."""

    def first(of):
        return of[0] if isinstance(of, tff.StructType) and len(of) else None

    def is_state(result):
        parameter = type_spec.parameter
        return any(
            isinstance(state, tff.FederatedType)
            and state.placement is tff.SERVER
            and result is not None
            and state.is_equivalent_to(result)
            for state in (parameter, first(parameter))
        )

    return {
        "stays_on_gpu": is_state(type_spec.result),
        "first_stays_on_gpu": is_state(first(type_spec.result)),
    }


def _varying_parts(type_spec: tff.Type) -> Iterator[tuple[Callable, tff.Type]]:
    """Yields each part of a parameter in which clients have arrays of open shape.

    A part is a function from the parameter to its value, and the type of a member.
    """
    parts = [(lambda value: value, type_spec)]
    if isinstance(type_spec, tff.StructType):
        parts = [(operator.itemgetter(index), part) for index, part in enumerate(type_spec)]
    for part_of, part in parts:
        if isinstance(part, tff.FederatedType) and not part.all_equal:
            specs = values.tensor_specs(part.member)
            if not all(spec.shape.is_fully_defined() for spec in specs):
                yield part_of, part.member


def set_in_process_context(
    *, gpu_memory_limit_mb: int | None = None, default_num_clients: int = 0
) -> InProcessContext:
    """Makes this process the default runtime of TFF computations.

    Args:
      gpu_memory_limit_mb: How much memory TensorFlow may take of each GPU. By default it takes
        memory as it needs it; TensorFlow's own default is all memory at once.
      default_num_clients: How many clients a computation has whose arguments do not tell.

    Returns:
      The context.

    Warns:
      RuntimeWarning: Later, if other code sets a default context, so that this one is dropped. A
        context that a variable still holds is not dropped, and says nothing.

    Raises:
      InputError: If a limit is given but TensorFlow sees no GPU.
      RuntimeError: If TensorFlow uses the GPUs already, so that it takes no more settings.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpu_memory_limit_mb is not None and not gpus:
        raise InputError(
            f"a limit of {gpu_memory_limit_mb} MB of GPU memory has no effect: TensorFlow sees no "
            "GPU."
        )
    for gpu in gpus:
        if gpu_memory_limit_mb is None:
            if not tf.config.experimental.get_memory_growth(gpu):
                tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=gpu_memory_limit_mb)
            tf.config.set_logical_device_configuration(gpu, [limit])
    context = InProcessContext(default_num_clients=default_num_clients)
    set_default_context(context)
    context.warn_when_dropped(True)
    return context


def set_default_context(context: tff.framework.SyncContext) -> None:
    """Makes a context TFF's default; whoever calls this knows what it replaces."""
    replaced = tff.framework.get_context_stack().current
    if isinstance(replaced, InProcessContext):
        replaced.warn_when_dropped(False)
    tff.framework.set_default_context(context)


@functools.lru_cache(maxsize=1)
def end_quietly() -> None:
    """Lets the interpreter end without a traceback where TFF's default context was never used.

    TFF makes a default context when it is imported. If that context lives until the interpreter
    shuts down, its `__del__` prints an exception. The context is replaced then, and not before.
    """
    atexit.register(lambda: set_default_context(InProcessContext()))


def _default_devices() -> list[str]:
    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus or tf.config.list_logical_devices("CPU")]


def num_threads() -> int:
    """Returns how many CPU threads this process may use."""
    return len(os.sched_getaffinity(0))
