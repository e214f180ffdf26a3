"""Where TFF computations run. Nothing is installed by importing; the binaries choose a context."""

import importlib

_MODULES = {"set_in_process_context": "in_process", "set_native_context": "native"}


def __getattr__(name: str):
    # Not imported before they are wanted: TFF takes seconds, and `kept_process` needs none of it.
    if name in _MODULES:
        return getattr(importlib.import_module(f"fedrecon.execution.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
