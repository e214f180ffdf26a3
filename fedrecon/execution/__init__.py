"""Where TFF computations run. Importing installs nothing; the binaries choose a context."""

import importlib

_MODULES = {"set_in_process_context": "in_process", "set_native_context": "native"}


def __getattr__(name: str):
    # Imported on first use: TFF takes seconds, and `kept_process` does without TFF.
    if name in _MODULES:
        return getattr(importlib.import_module(f"fedrecon.execution.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
