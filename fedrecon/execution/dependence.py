"""Which results of a TensorFlow graph depend on the values of its arguments.

Any other result is a constant to TensorFlow's optimizer once the shapes of the arguments are known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import tensorflow as tf

# The results of these operations depend on the shapes of their arguments only.
_OF_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


class Dependence:
    """Finds the arguments on whose values a result depends."""

    def __init__(self, graph_def: tf.compat.v1.GraphDef):
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {f.signature.name: f for f in graph_def.library.function}
        self._known: dict[tuple[str, int], set[str]] = {}

    def on_values(self, result: str, arguments: Collection[str]) -> set[str]:
        """Returns those of `arguments`, names of nodes, on whose values a result depends.

        Args:
          result: The name of a tensor.
          arguments: Where the search ends.
        """
        return self._search(result, self._nodes, arguments)

    def _search(self, result: str, nodes: Mapping, arguments: Collection[str]) -> set[str]:
        found, seen, waiting = set(), set(), [result]
        while waiting:
            name = waiting.pop()
            if name in seen or name.startswith("^"):
                continue
            seen.add(name)
            node_name, _, output = name.partition(":")
            if node_name in arguments:
                found.add(node_name)
            elif nodes[node_name].op not in _OF_SHAPES:
                waiting += self._inputs(nodes[node_name], int(output.rpartition(":")[2] or 0))
        return found

    def _inputs(self, node, output: int) -> list[str]:
        """Returns the inputs of a node on which one of its outputs depends."""
        inputs = [name for name in node.input if not name.startswith("^")]
        function = self._functions.get(node.attr["f"].func.name) if node.op in _CALLS else None
        if function is None:
            return inputs
        needed = self._of_function(function, output)
        return [
            name for arg, name in zip(function.signature.input_arg, inputs) if arg.name in needed
        ]

    def _of_function(self, function, output: int) -> set[str]:
        key = function.signature.name, output
        if key not in self._known:
            result = function.ret[function.signature.output_arg[output].name]
            nodes = {node.name: node for node in function.node_def}
            arguments = {arg.name for arg in function.signature.input_arg}
            self._known[key] = self._search(result, nodes, arguments)
        return self._known[key]
