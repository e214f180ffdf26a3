"""Stock TFF where TFF runs it."""

import pytest
import tensorflow_federated as tff


class _Elsewhere:
    """A process whose computations run in another context."""

    def __init__(self, process, context):
        self._process = process
        self._context = context

    def __getattr__(self, name):
        def call(*args):
            with tff.framework.get_context_stack().install(self._context):
                return getattr(self._process, name)(*args)

        return call


@pytest.fixture(scope="session")
def in_tffs_runtime(native_worker):
    """A function of a `LearningProcess`: the same process, run in TFF's own runtime."""
    from fedrecon.execution import native

    context = native.native_context(native_worker)
    return lambda process: _Elsewhere(process, context)
