"""`tf.data.Dataset.reduce`, and AutoGraph's `for batch in dataset:`, as loops.

At each run of a reduction TensorFlow makes its body anew (optimizes it, places it, builds its
kernels), which takes longer than the few steps of a client. The body of a loop is made once, so a
client of stock FedRecon takes a third of the time.

AutoGraph makes a `for` over a dataset a scan, whose body is the loop's, then a `take_while` if the
loop may end early, then a reduction that keeps the last state. TensorFlow makes each of the three
bodies anew. Such a chain becomes one loop too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

_FUNCTION = {"ReduceDataset": "f", "ScanDataset": "f", "TakeWhileDataset": "predicate"}


def replace_by_loops(graph_def: tf.compat.v1.GraphDef) -> None:
    """Replaces the reductions in a graph, and in its functions, by loops that give the same."""
    library = graph_def.library
    signatures = {function.signature.name: function.signature for function in library.function}
    loops = []
    for nodes, results in [
        (graph_def.node, {}),
        *((function.node_def, function.ret) for function in library.function),
    ]:
        reductions = [node for node in nodes if node.op == "ReduceDataset"]
        by_name = {node.name: node for node in nodes} if reductions else {}
        readers = _num_readers(nodes, results) if reductions else {}
        for node in reductions:
            chain = _chain_of(node, by_name, readers)
            loops.append(_call_loop(chain, signatures))
            for source in chain[:-1]:
                nodes.remove(source)
        # Functions call a result by the name of the node and what its operation calls it.
        renamed = {f"{node.name}:components": f"{node.name}:output" for node in reductions}
        for node in nodes if renamed else ():
            node.input[:] = [_renamed(name, renamed) for name in node.input]
        for key, name in results.items() if renamed else ():
            results[key] = _renamed(name, renamed)
    for loop in loops:
        library.function.append(loop.function_def)
        library.function.extend(loop.graph.as_graph_def().library.function)


def _renamed(name: str, renamed: dict[str, str]) -> str:
    result, colon, index = name.rpartition(":")
    return f"{renamed.get(result, result)}{colon}{index}"


def _node_name(name: str) -> str:
    return name.lstrip("^").partition(":")[0]


def _num_readers(nodes: Sequence, results: dict[str, str]) -> dict[str, int]:
    """Returns how many nodes and results of the function take each node's output."""
    counts: dict[str, int] = {}
    for name in [name for node in nodes for name in node.input] + list(results.values()):
        counts[_node_name(name)] = counts.get(_node_name(name), 0) + 1
    return counts


def _chain_of(reduction, by_name: dict[str, Any], readers: dict[str, int]) -> list:
    """Returns a reduction and the scans and `take_while`s that only it reads, in their order."""
    chain = [reduction]
    while True:
        source = by_name.get(_node_name(chain[0].input[0]))
        if source is None or source.op not in _FUNCTION or source.op == "ReduceDataset":
            return chain
        if readers[source.name] > 1 or any(name[0] == "^" for name in source.input):
            return chain
        chain.insert(0, source)


@dataclasses.dataclass
class _Stage:
    """What one node of a chain does with an element.

    Attributes:
      op: The node's operation.
      body: The name of its function, which takes state, an element and other arguments.
      arguments: The names of the initial state and the other arguments.
      num_state: How many of these are state.
      dtypes: The dtypes of the arguments.
      element_dtypes: The dtypes of the parts of an element.
      result_dtypes: The dtypes of what the function returns.
      state_shapes: The shapes that the state keeps; None where nothing is known.
    """

    op: str
    body: attr_value_pb2.NameAttrList
    arguments: list[str]
    num_state: int
    dtypes: list[tf.DType]
    element_dtypes: list[tf.DType]
    result_dtypes: list[tf.DType]
    state_shapes: list[tf.TensorShape | None]

    @classmethod
    def of(cls, node, signatures) -> _Stage:
        name = node.attr[_FUNCTION[node.op]].func.name
        signature = signatures[name]
        # To read an attribute that a node lacks would make it.
        num_state = len(node.attr["Tstate"].list.type) if "Tstate" in node.attr else 0
        num_others = len(node.attr["Targuments"].list.type)
        inputs = [tf.as_dtype(arg.type) for arg in signature.input_arg]
        shapes = [None] * num_state
        if node.op == "ReduceDataset":
            shapes = [tf.TensorShape(shape) for shape in node.attr["output_shapes"].list.shape]
        return cls(
            op=node.op,
            body=attr_value_pb2.NameAttrList(name=name),
            arguments=[name for name in node.input[1:] if name[0] != "^"],
            num_state=num_state,
            dtypes=inputs[:num_state] + inputs[len(inputs) - num_others :],
            element_dtypes=inputs[num_state : len(inputs) - num_others],
            result_dtypes=[tf.as_dtype(arg.type) for arg in signature.output_arg],
            state_shapes=shapes,
        )

    def call(self, state, element, others) -> list[tf.Tensor]:
        return list(
            tf.raw_ops.StatefulPartitionedCall(
                args=[*state, *element, *others], Tout=self.result_dtypes, f=self.body
            )
        )

    def keep_shapes(self, state) -> list[tf.Tensor]:
        return [
            tensor if shape is None else tf.ensure_shape(tensor, shape)
            for tensor, shape in zip(state, self.state_shapes)
        ]


def _call_loop(chain: list, signatures):
    """Turns the reduction at the end of a chain into a call of a loop over the chain's source.

    Args:
      chain: The nodes, from the one that reads the source to the reduction.
      signatures: The signatures of the graph's functions, which the loop calls by their names.

    Returns:
      The loop as a concrete function.
    """
    stages = [_Stage.of(node, signatures) for node in chain]
    may_end = any(stage.op == "TakeWhileDataset" for stage in stages)
    elements = tuple(tf.TensorSpec(None, dtype) for dtype in stages[0].element_dtypes)

    def loop(dataset, *arguments):
        waiting = list(arguments)
        given = [[waiting.pop(0) for _ in stage.arguments] for stage in stages]
        states = [args[: stage.num_state] for stage, args in zip(stages, given)]
        others = [args[stage.num_state :] for stage, args in zip(stages, given)]
        # A reduction waits for all of its arguments; the nodes of a called function need not.
        with tf.control_dependencies([dataset, *arguments]):
            iterator = iter(tf.data.experimental.from_variant(dataset, elements))

        def step(optional, _, states):
            def of_stage(index, element):
                """Returns all states and whether to go on, after a stage and all later ones."""
                stage, state = stages[index], states[index]
                results = stage.call(state, element, others[index])
                if stage.op == "TakeWhileDataset":
                    return tf.cond(
                        tf.reshape(results[0], []),
                        lambda: after(index, [], element),
                        lambda: (tf.constant(False), states[index:]),
                    )
                if stage.op == "ScanDataset":
                    new, element = results[: stage.num_state], results[stage.num_state :]
                    return after(index, new, element)
                return tf.constant(True), [stage.keep_shapes(results)]

            def after(index, new, element):
                goes_on, later = of_stage(index + 1, element)
                return goes_on, [stages[index].keep_shapes(new), *later]

            goes_on, states = of_stage(0, optional.get_value())
            if not may_end:
                return iterator.get_next_as_optional(), tf.constant(True), states
            following = tf.cond(goes_on, iterator.get_next_as_optional, lambda: optional)
            return following, goes_on, states

        states = [stage.keep_shapes(state) for stage, state in zip(stages, states)]
        _, _, states = tf.while_loop(
            lambda optional, goes_on, _: tf.logical_and(goes_on, optional.has_value()),
            step,
            (iterator.get_next_as_optional(), tf.constant(True), states),
            parallel_iterations=1,  # A step may change variables that the next one reads.
        )
        return states[-1]

    specs = [tf.TensorSpec([], tf.variant)]
    specs += [tf.TensorSpec(None, dtype) for stage in stages for dtype in stage.dtypes]
    traced = tf.function(loop, input_signature=specs, autograph=False).get_concrete_function()
    _become_call(chain, stages, specs, traced)
    return traced


def _become_call(chain: list, stages: list[_Stage], specs: list[tf.TensorSpec], traced) -> None:
    node = chain[-1]
    waits = [name for name in node.input if name[0] == "^"]
    arguments = [name for stage in stages for name in stage.arguments]
    node.input[:] = [chain[0].input[0], *arguments, *waits]
    node.op = "StatefulPartitionedCall"
    node.attr.clear()
    node.attr["Tin"].list.type.extend(spec.dtype.as_datatype_enum for spec in specs)
    results = stages[-1].result_dtypes
    node.attr["Tout"].list.type.extend(dtype.as_datatype_enum for dtype in results)
    node.attr["f"].func.name = traced.function_def.signature.name
