"""Queues and tables that are made inside a TensorFlow function.

In TFF's runtime each place that calls the function has its own, which lives until the computation
ends. There TensorFlow copies the function into its callers, and a resource without a name is named
by its node. Here functions are not copied, and a process has one name space for all calls. So each
place that calls such a function calls a copy of it, and a copy's resources have names of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import tensorflow as tf

# A dense table takes arguments, so it cannot be found again by its name alone to be destroyed.
# These go away by themselves. One that is made inside a loop is a new one in each step.
_ANONYMOUS = {"MutableDenseHashTableV2": "AnonymousMutableDenseHashTable"}
_NAMES = ("container", "shared_name", "use_node_name_sharing")


def separate_calls(graph_def: tf.compat.v1.GraphDef, is_shared: Callable[[object], bool]) -> None:
    """Gives each place that calls a function with resources a copy of the function.

    Args:
      graph_def: Changed in place. Afterwards the resources of functions have names.
      is_shared: Whether a node makes a resource that another call would find by its name.
    """
    library = graph_def.library
    functions = {function.signature.name: function for function in library.function}
    for node in itertools.chain(*(function.node_def for function in functions.values())):
        if node.op in _ANONYMOUS:
            node.op = _ANONYMOUS[node.op]
            for name in _NAMES:
                node.attr.pop(name, None)
    affected = _affected(functions, is_shared)
    if not affected:
        return
    numbers = itertools.count()

    def copies_of(nodes) -> Iterator:
        for node in nodes:
            for call in _calls(node):
                if call.name in affected:
                    copy = library.function.add()
                    copy.CopyFrom(functions[call.name])
                    call.name = copy.signature.name = f"{call.name}_call_{next(numbers)}"
                    yield copy
                    yield from copies_of(copy.node_def)

    unaffected = [function.node_def for name, function in functions.items() if name not in affected]
    for copy in [copy for nodes in (graph_def.node, *unaffected) for copy in copies_of(nodes)]:
        for node in filter(is_shared, copy.node_def):
            name = (
                node.attr["shared_name"].s or f"made_in/{copy.signature.name}/{node.name}".encode()
            )
            node.attr["shared_name"].s = name
    for name in affected:  # Only copies of it are called.
        library.function.remove(functions[name])


def makers(graph_def: tf.compat.v1.GraphDef, is_shared: Callable[[object], bool]) -> list:
    """Returns nodes outside of the functions that give the functions' resources.

    Raises:
      NotImplementedError: If the name of a resource is not enough to get it.
    """
    found = []
    for function in graph_def.library.function:
        for node in filter(is_shared, function.node_def):
            if any(name[0] != "^" for name in node.input):
                raise NotImplementedError(
                    f"a TensorFlow function inside the computation makes a {node.op}, which this "
                    "runtime cannot tell apart by calls; TFF's own runtime can: "
                    "fedrecon.execution.set_native_context()."
                )
            maker = tf.compat.v1.NodeDef()
            maker.CopyFrom(node)
            maker.name = f"made_in/{function.signature.name}/{node.name}"
            maker.ClearField("input")
            found.append(maker)
    return found


def _calls(node) -> list:
    """Returns the references to functions in a node."""
    return [
        function
        for attr in node.attr.values()
        for function in itertools.chain(
            [attr.func] if attr.HasField("func") else [], attr.list.func
        )
    ]


def _affected(functions: dict, is_shared) -> list[str]:
    """Returns the functions that make a resource, themselves or in a function that they call."""
    affected = {
        name for name, function in functions.items() if any(map(is_shared, function.node_def))
    }
    while True:
        more = {
            name
            for name, function in functions.items()
            if any(call.name in affected for node in function.node_def for call in _calls(node))
        }
        if more <= affected:
            return sorted(affected)
        affected |= more
