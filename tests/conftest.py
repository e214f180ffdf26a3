"""Fixtures that several folders of tests share."""

import os
import pathlib
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The root of the project."""
    return REPOSITORY


@pytest.fixture(scope="session")
def native_worker():
    """TFF's stock runtime as the default context; the tests of a process share one worker."""
    from fedrecon.execution import native

    worker = native.set_native_context()
    yield worker
    worker.close()


def pytest_sessionfinish():
    """Keeps TFF's unused default context from complaining in its `__del__` at interpreter exit."""
    if "tensorflow_federated" in sys.modules:
        from fedrecon.execution import native

        native.set_native_context().close()
