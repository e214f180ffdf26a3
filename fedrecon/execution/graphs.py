"""The TensorFlow graphs of TFF computations as functions of this process.

TFF serializes a graph of TensorFlow 1: placeholders are fed, results are fetched, and an operation
that initializes variables and tables may have to run first. A graph is **pure** if a call leaves
nothing behind that another call could see. A pure graph becomes one function, which may also be
called while a larger function is traced. Any other graph is called by itself, on the CPU (datasets
run nowhere else), and its variables and tables are destroyed after the call.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow.python.framework import op_def_registry  # TensorFlow has no public name for it.
from tensorflow_federated.python.core.impl.utils import tensorflow_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from fedrecon.execution import values
from fedrecon.execution.dependence import Dependence
from fedrecon.execution.inner_resources import makers, separate_calls
from fedrecon.execution.reductions import replace_by_loops

# TensorFlow declares these stateful, but no call can tell whether there was another.
_HARMLESS = {
    *("Assert", "CheckNumerics", "CheckNumericsV2", "Print", "PrintV2"),
    *("StatefulPartitionedCall", "If", "While", "Case"),
}
# So are these without a seed. With one, a draw depends on the number of calls before it.
_RANDOM = {
    *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal"),
    *("RandomShuffle", "RandomGamma", "RandomPoisson", "RandomPoissonV2", "Multinomial"),
    "ParameterizedTruncatedNormal",
}
_CPU = "/device:CPU:0"
_numbers = itertools.count()  # For names that must differ within a process.


class GraphFunction:
    """The function that a `tff.framework.CompiledComputation` describes.

    Attributes:
      is_pure: Whether it may be called while a larger function is traced.
      draws_from_seed: Whether its random numbers depend on the calls before it.
    """

    def __init__(self, block: tff.framework.CompiledComputation):
        """Imports the graph.

        Raises:
          NotImplementedError: If this runtime cannot run it; the message names the obstacle.
        """
        language = block.proto.WhichOneof("computation")
        if language != "tensorflow":
            raise NotImplementedError(
                f"this runtime runs TensorFlow, but the computation has a part in {language!r}."
            )
        self._type = block.type_signature
        self._graph = _Graph(block.proto.tensorflow, self._type)
        self.is_pure = self._graph.is_pure
        self.draws_from_seed = self._graph.draws_from_seed
        self._returns_dataset = tff.types.contains(
            self._type.result, lambda part: isinstance(part, tff.SequenceType)
        )
        self._idle: queue.SimpleQueue[_Instance] = queue.SimpleQueue()
        if not self._graph.resources:  # Then one instance serves all threads.
            self._only = _Instance(self._graph)

    def __call__(self, argument: Any, until_end: contextlib.ExitStack) -> Any:
        """Calls the graph.

        Args:
          argument: A value of the parameter's type (see `values`); None without a parameter.
          until_end: Closed when the whole TFF computation ends.

        Raises:
          tf.errors.OpError: If TensorFlow fails.
        """
        tensors = []
        if self._type.parameter is not None:
            tensors = values.flatten(argument, self._type.parameter)
        if self.is_pure:
            results = self._only.run(*tensors)
            pairs = zip(results, self._graph.are_constant)
            return self._result(
                hidden(result) if is_constant else result for result, is_constant in pairs
            )
        with tf.device(_CPU), contextlib.ExitStack() as until_return:
            # A later graph may iterate over the dataset, which then reads a table of this graph.
            instance = self._take(until_end if self._returns_dataset else until_return)
            instance.initialize(*tensors)
            return self._result(instance.run(*tensors))

    def _take(self, until: contextlib.ExitStack) -> _Instance:
        if not self._graph.resources:
            return self._only
        try:
            instance = self._idle.get_nowait()
        except queue.Empty:
            instance = _Instance(self._graph)
        until.callback(self._idle.put, instance)
        until.callback(instance.destroy)
        return instance

    def _result(self, tensors: Iterable[tf.Tensor]) -> Any:
        return values.unflatten(iter(tensors), self._type.result)


def hidden(constant: tf.Tensor) -> tf.Tensor:
    """Returns the same tensor, hidden from TensorFlow's optimizer inside a traced function.

    TFF's own runtime optimizes each graph by itself. In a function of many graphs the optimizer
    would see further. The total weight of an unweighted mean is a constant there. The optimizer
    replaces a division by a constant with a multiplication by its `Reciprocal`, which TensorFlow
    computes inexactly for vectors (with AVX2 and AVX-512 the reciprocal of 2 is 0.49999997). Then
    the mean of equal values is another value. The optimizer never removes this operation and never
    computes it in advance.
    """
    if tf.executing_eagerly():
        return constant
    return tf.raw_ops.PlaceholderWithDefault(input=constant, shape=constant.shape)


class _Graph:
    """A serialized graph and the names of its ends.

    Attributes:
      feeds: The names of the tensors that are fed, in the order of the parameter.
      feed_specs: The specs of these tensors.
      fetches: The names of the tensors of the result, in its order.
      initializer: The name of the operation that must run first; "" if there is none.
      are_constant: Whether each result is the same for all arguments of the same shapes.
      resources: The names of the nodes that make resources which functions share by name.
      is_pure: See `GraphFunction`.
      draws_from_seed: See `GraphFunction`.
    """

    def __init__(self, proto, type_spec: tff.FunctionType):
        names_of = tensorflow_utils.extract_tensor_names_from_binding
        self.feeds, self.feed_specs = [], []
        if type_spec.parameter is not None:
            self.feeds = names_of(proto.parameter)
            self.feed_specs = values.tensor_specs(type_spec.parameter)
        self.fetches = names_of(proto.result)
        self._graph_def = serialization_utils.unpack_graph_def(proto.graph_def)
        replace_by_loops(self._graph_def)
        separate_calls(self._graph_def, _is_shared)
        _rename_functions(self._graph_def, f"_{next(_numbers)}")
        fed = {_node_name(name) for name in self.feeds}
        dependence = Dependence(self._graph_def)
        self.are_constant = [not dependence.on_values(name, fed) for name in self.fetches]
        self._nodes = {}
        for node in self._graph_def.node:
            if node.name not in fed:  # Functions refuse to run placeholders.
                # Nor can a node wait for a node that is not imported, or be placed with it.
                waits = [name for name in node.input if not (name[0] == "^" and name[1:] in fed)]
                node.input[:] = waits
                node.attr.pop("_class", None)
                self._nodes[node.name] = node
        body = self._needed(self.fetches)
        functions = self._graph_def.library.function
        inner = [node for function in functions for node in function.node_def]
        has_datasets = any(spec.dtype == tf.variant for spec in self.feed_specs)
        self.is_pure = not has_datasets and all(map(_is_pure, itertools.chain(body, inner)))
        self.initializer = "" if self.is_pure else proto.initialize_op
        kept = body + self._needed([self.initializer] if self.initializer else [])
        self._inner = makers(self._graph_def, _is_shared)
        self._nodes.update({node.name: node for node in self._inner})
        kept += self._inner
        self.resources = sorted({node.name for node in kept if _is_shared(node)})
        self.draws_from_seed = any(map(_draws_from_seed, itertools.chain(kept, inner)))
        token = proto.session_token_tensor_name
        if token and any(node.name == _node_name(token) for node in kept):
            raise NotImplementedError("this runtime has no data backend and no session token.")

    def _needed(self, ends: Iterable[str]) -> list:
        """Returns the nodes that must run for `ends`, in the order of the graph."""
        names, waiting = set(), [_node_name(end) for end in ends]
        while waiting:
            name = waiting.pop()
            if name in self._nodes and name not in names:
                names.add(name)
                waiting += map(_node_name, self._nodes[name].input)
        return [node for name, node in self._nodes.items() if name in names]

    def function(
        self,
        ends: Sequence[str],
        suffix: str,
        finish: Callable[[list], list[tf.Tensor]] = list,
        *,
        is_fed: bool = True,
    ) -> Callable[..., Sequence[tf.Tensor]]:
        """Returns a function of the tensors that are fed.

        Only what `ends` depend on is run, as in stock TFF. An assertion or print runs only if a
        result depends on it.

        Args:
          ends: The names of tensors or operations.
          suffix: Added to the name of each resource.
          finish: Takes the ends in the function's graph and returns the function's results.
          is_fed: Whether the function takes arguments.
        """
        part = tf.compat.v1.GraphDef(
            versions=self._graph_def.versions, library=self._graph_def.library
        )
        for node in self._needed(ends):
            part.node.add().CopyFrom(node)
        shared = [node for node in part.node if _is_shared(node)]
        if self._inner:  # Each instance has functions of its own, with other names inside.
            functions = part.library.function
            shared += [node for f in functions for node in f.node_def if _is_shared(node)]
            _rename_functions(part, suffix)
        for node in shared:
            name = node.attr["shared_name"].s or node.name.encode()
            node.attr["shared_name"].s = name + suffix.encode()
        read = {name for node in part.node for name in map(_tensor_name, node.input)}

        def call(*tensors):
            fed = dict(zip(self.feeds, tensors))
            imported = [end for end in ends if end not in fed]
            found = tf.graph_util.import_graph_def(
                part,
                input_map={name: tensor for name, tensor in fed.items() if name in read},
                return_elements=imported,
                name="graph",
            )
            fed.update(zip(imported, found))
            return finish([fed[end] for end in ends])

        # Not `tf.function`: these graphs order their stateful operations themselves.
        return tf.compat.v1.wrap_function(call, self.feed_specs if is_fed else [])


class _Instance:
    """The functions of a graph, with names of their own for its variables and tables."""

    def __init__(self, graph: _Graph):
        suffix = f"_{next(_numbers)}"
        self.run = graph.function(graph.fetches, suffix)
        self._initialize = self._destroy = None
        if graph.initializer:
            self._initialize = graph.function([graph.initializer], suffix, _when_done)
        if graph.resources:
            self._destroy = graph.function(
                graph.resources,
                suffix,
                lambda makers: _when_done(
                    tf.raw_ops.DestroyResourceOp(
                        resource=maker.outputs[0], ignore_lookup_error=True
                    )
                    for maker in makers
                ),
                is_fed=False,
            )

    def initialize(self, *tensors: tf.Tensor) -> None:
        if self._initialize is not None:
            self._initialize(*tensors)

    def destroy(self) -> None:
        if self._destroy is not None:
            with tf.device(_CPU):
                self._destroy()


def _rename_functions(graph_def, suffix: str) -> None:
    """Gives the functions of a graph names of their own.

    All functions of a process share one name space, and TFF hands out the same function in several
    versions, each optimized for its graph.
    """
    library = graph_def.library
    names = {function.signature.name for function in library.function}

    def renamed(name):
        return name + suffix if name in names else name

    bodies = [function.node_def for function in library.function]
    for node in itertools.chain(graph_def.node, *bodies):
        node.op = renamed(node.op)
        for attr in node.attr.values():
            for function in itertools.chain([attr.func], attr.list.func):
                if function.name:
                    function.name = renamed(function.name)
    for function in library.function:
        function.signature.name = renamed(function.signature.name)
    for gradient in library.gradient:
        gradient.function_name = renamed(gradient.function_name)
        gradient.gradient_func = renamed(gradient.gradient_func)


def _when_done(operations: Iterable[tf.Operation]) -> list[tf.Tensor]:
    with tf.control_dependencies(list(operations)):
        return [tf.constant(True)]


def _is_pure(node) -> bool:
    if "Dataset" in node.op:
        return False
    if node.op in _RANDOM:
        return not _draws_from_seed(node)
    definition = op_def_registry.get(node.op)
    return node.op in _HARMLESS or (definition is not None and not definition.is_stateful)


def _draws_from_seed(node) -> bool:
    seeds = (node.attr[name].i for name in ("seed", "seed2") if name in node.attr)
    return node.op in _RANDOM and any(seeds)


def _is_shared(node) -> bool:
    """Whether a node makes a resource that another function finds by its name."""
    if "shared_name" not in node.attr:
        return False
    outputs = op_def_registry.get(node.op).output_arg
    return bool(outputs) and outputs[0].type == tf.resource.as_datatype_enum


def _tensor_name(name: str) -> str:
    return name if ":" in name or name[0] == "^" else f"{name}:0"


def _node_name(name: str) -> str:
    return name.lstrip("^").partition(":")[0]
