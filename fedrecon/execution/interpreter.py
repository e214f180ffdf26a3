"""Evaluates the building blocks of TFF computations, client by client.

The same evaluation serves twice. While a function is traced, it makes one function of a whole
computation. Where that is not possible, it runs eagerly, over a pool of threads. Each client's part
is placed on the client's device, the server's part on the first device.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.execution.graphs import GraphFunction, hidden
from fedrecon.execution.values import Placed, elements_of, make_dataset

# These depend on values that a traced function does not know.
EAGER_INTRINSICS = {"federated_select", "sequence_map", "sequence_reduce", "sequence_sum"}


@contextlib.contextmanager
def _errors_name_client(index: int):
    """Makes an error of TensorFlow name the client."""
    try:
        yield
    except tf.errors.OpError as error:
        message = f"client {index}: {error.message}"
        raise type(error)(error.node_def, error.op, message) from error


class Interpreter:
    """Evaluates a lowered computation for some number of clients."""

    def __init__(
        self,
        graphs: Mapping[tff.framework.CompiledComputation, GraphFunction],
        num_clients: int,
        devices: Sequence[str],
        until_end: contextlib.ExitStack,
        pool: concurrent.futures.Executor | None = None,
    ):
        """Prepares an evaluation.

        Args:
          graphs: The function of each TensorFlow graph.
          num_clients: How many clients there are.
          devices: The names of the devices; client i is on the (i mod their number)-th.
          until_end: Closed by the caller when the evaluation has ended.
          pool: Runs clients at the same time. None runs one client after the other.
        """
        self._graphs = graphs
        self._num_clients = num_clients
        self._devices = devices
        self._until_end = until_end
        self._pool = pool

    def evaluate(self, block: tff.framework.ComputationBuildingBlock, scope: dict[str, Any]) -> Any:
        """Returns the value (see `values`) of a supported building block.

        Args:
          block: What to evaluate.
          scope: The values of the names in it.
        """
        return getattr(self, f"_{type(block).__name__.lower()}")(block, scope)

    def _reference(self, block, scope):
        return scope[block.name]

    def _literal(self, block, scope):
        del scope
        return hidden(tf.constant(block.value, tf.as_dtype(block.type_signature.dtype)))

    def _struct(self, block, scope):
        return tuple(self.evaluate(element, scope) for element in block)

    def _selection(self, block, scope):
        return self.evaluate(block.source, scope)[block.as_index()]

    def _block(self, block, scope):
        scope = dict(scope)
        for name, value in block.locals:
            scope[name] = self.evaluate(value, scope)
        return self.evaluate(block.result, scope)

    def _lambda(self, block, scope):
        return lambda argument=None: self.evaluate(
            block.result, {**scope, block.parameter_name: argument}
        )

    def _call(self, block, scope):
        function = self.evaluate(block.function, scope)
        if block.argument is None:
            return function()
        return function(self.evaluate(block.argument, scope))

    def _compiledcomputation(self, block, scope):
        del scope
        return lambda argument=None: self._graphs[block](argument, self._until_end)

    def _intrinsic(self, block, scope):
        del scope
        return functools.partial(getattr(self, f"_{block.uri}"), block.type_signature)

    def _at_server(self, call: Callable[[], Any]) -> Placed:
        with tf.device(self._devices[0]):
            return Placed([call()], all_equal=True)

    def _at_clients(self, of_client: Callable[[int], Any]) -> Placed:
        def call(index):
            device = self._devices[index % len(self._devices)]
            with tf.device(device), _errors_name_client(index):
                return of_client(index)

        if self._pool is None:
            return Placed([call(index) for index in range(self._num_clients)], all_equal=False)
        futures = [self._pool.submit(call, index) for index in range(self._num_clients)]
        try:
            return Placed([future.result() for future in futures], all_equal=False)
        finally:  # No client goes on after an error.
            for future in futures:
                future.cancel()
            concurrent.futures.wait(futures)

    def _federated_map(self, type_spec, argument):
        function, value = argument
        if type_spec.result.placement is tff.SERVER:
            return self._at_server(lambda: function(value.at(0)))
        return self._at_clients(lambda index: function(value.at(index)))

    _federated_apply = _federated_map

    def _federated_map_all_equal(self, type_spec, argument):
        function, value = argument
        return self._at_server(lambda: function(value.at(0)))

    def _federated_eval_at_clients(self, type_spec, function):
        return self._at_clients(lambda index: function())

    def _federated_eval_at_server(self, type_spec, function):
        return self._at_server(function)

    def _federated_broadcast(self, type_spec, value):
        return value

    def _federated_value_at_clients(self, type_spec, value):
        return Placed([value], all_equal=True)

    _federated_value_at_server = _federated_value_at_clients

    def _federated_zip_at_clients(self, type_spec, argument):
        if type_spec.result.all_equal:
            return self._federated_zip_at_server(type_spec, argument)
        members = [_zip(argument, index) for index in range(self._num_clients)]
        return Placed(members, all_equal=False)

    def _federated_zip_at_server(self, type_spec, argument):
        return Placed([_zip(argument, 0)], all_equal=True)

    def _federated_aggregate(self, type_spec, argument):
        # Nothing stands between clients and server here, so nothing needs merging.
        value, zero, accumulate, _, report = argument

        def aggregate():
            total = zero
            for index in range(self._num_clients):
                with _errors_name_client(index):
                    total = accumulate((total, value.at(index)))
            return report(total)

        return self._at_server(aggregate)

    def _federated_sum(self, type_spec, value):
        members = [value.at(index) for index in range(self._num_clients)]
        return self._at_server(lambda: _sum(members, type_spec.result.member))

    def _federated_select(self, type_spec, argument):
        keys, _, server_value, select = argument
        element_type = type_spec.result.member.element

        def of_client(index):
            chosen = [select((server_value.at(0), k)) for k in keys.at(index)]
            return make_dataset(chosen, element_type)

        return self._at_clients(of_client)

    def _sequence_map(self, type_spec, argument):
        function, dataset = argument
        elements = elements_of(dataset, type_spec.parameter[1].element)
        return make_dataset([function(e) for e in elements], type_spec.result.element)

    def _sequence_reduce(self, type_spec, argument):
        dataset, total, add = argument
        for element in elements_of(dataset, type_spec.parameter[0].element):
            total = add((total, element))
        return total

    def _sequence_sum(self, type_spec, dataset):
        element_type = type_spec.parameter.element
        return _sum(list(elements_of(dataset, element_type)), element_type)


def unknown_part(parts: Iterable[tff.framework.ComputationBuildingBlock]) -> str | None:
    """Returns the name of the first building block or intrinsic that cannot be interpreted."""
    for part in parts:
        name = part.uri if isinstance(part, tff.framework.Intrinsic) else type(part).__name__
        if not hasattr(Interpreter, f"_{name.lower()}"):
            return name
    return None


def _zip(value, index):
    if isinstance(value, Placed):
        return value.at(index)
    return tuple(_zip(element, index) for element in value)


def _sum(members: list, type_spec: tff.Type):
    """Returns the sum of values of a type, added in their order."""
    if isinstance(type_spec, tff.StructType):
        return tuple(
            _sum([member[index] for member in members], element_type)
            for index, element_type in enumerate(type_spec)
        )
    if members:
        return tf.add_n(members)
    if not tff.types.is_shape_fully_defined(type_spec.shape):
        raise ValueError(f"the sum of no clients has no shape: {type_spec} leaves it open.")
    return hidden(tf.zeros(type_spec.shape, tf.as_dtype(type_spec.dtype)))
