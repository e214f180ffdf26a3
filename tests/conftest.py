"""Fixtures that several folders of tests share."""

import inspect
import os
import pathlib
import subprocess
import sys
import time
import types
from typing import NamedTuple

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The root of the project."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data_dir() -> pathlib.Path:
    """Where the real files lie; MovieLens may not be redistributed, so few machines have them."""
    beside = REPOSITORY.parent / "shared" / "data"
    path = pathlib.Path(os.environ.get("FEDRECON_TEST_DATA") or beside)
    if not path.is_dir():
        pytest.skip(f"no real data: set FEDRECON_TEST_DATA to their folder ({path} does not exist)")
    return path


class Ended(NamedTuple):
    """What a process left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def start_python(repository):
    """A function of an interpreter's arguments that starts it in the project's root.

    It returns a `Popen` whose output and errors are pipes of text; keywords are `Popen`'s.
    """

    def start(*arguments, **keywords) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, **{"cwd": repository, **pipes, **keywords})

    return start


@pytest.fixture(scope="session")
def run_python(start_python):
    """A function like `start_python`'s that waits for the end, returning `Ended`."""

    def run(*arguments, timeout=300, **keywords) -> Ended:
        with start_python(*arguments, **keywords) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Ended(process.returncode, output, errors)

    return run


@pytest.fixture(scope="session")
def run_binary(run_python):
    """A function that runs a binary: `run_binary("experiments.train", "--dim=4")`."""

    def run(module, *arguments, **keywords) -> Ended:
        return run_python("-m", module, *arguments, **keywords)

    return run


@pytest.fixture(scope="session")
def ends_within():
    """A function of a pid and seconds: whether the process ends within them."""

    def is_running(pid: int) -> bool:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "Z"

    def has_ended_within(pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        return not is_running(pid)

    return has_ended_within


@pytest.fixture(scope="session")
def native_worker():
    """TFF's stock runtime as the default context; the tests of a process share one worker."""
    from fedrecon.execution import native

    worker = native.set_native_context()
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def in_process_context():
    from fedrecon.execution.in_process import InProcessContext

    return InProcessContext()


@pytest.fixture
def in_process_runtime(in_process_context):
    """Runs the computations of a test in this process."""
    import tensorflow_federated as tff

    with tff.framework.get_context_stack().install(in_process_context):
        yield


class _Elsewhere:
    """A process whose computations run in another context."""

    def __init__(self, process, context):
        self._process = process
        self._context = context

    def __getattr__(self, name):
        def call(*args):
            import tensorflow_federated as tff

            with tff.framework.get_context_stack().install(self._context):
                return getattr(self._process, name)(*args)

        return call


@pytest.fixture(scope="session")
def in_tffs_runtime(native_worker):
    """A function of a `LearningProcess`: the same process, run in TFF's own runtime."""
    from fedrecon.execution import native

    context = native.native_context(native_worker)
    return lambda process: _Elsewhere(process, context)


# What makes a test slow: each starts processes, TFF's worker among them.
PROCESS_FIXTURES = {"start_python", "native_worker"}
# The test that runs, if it is a quick one.
_quick_test = None


def _names_subprocess(function, seen) -> bool:
    """Whether a function, or one of its file that it names, uses `subprocess`."""
    function = inspect.unwrap(function)
    if not isinstance(function, types.FunctionType) or function in seen:
        return False
    seen.add(function)
    names, codes = set(), [function.__code__]
    for code in codes:
        names.update(code.co_names)
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    named = [function.__globals__.get(name) for name in names]
    if any(value is subprocess for value in named):
        return True
    helpers = [f for f in named if getattr(f, "__globals__", None) is function.__globals__]
    return any(_names_subprocess(helper, seen) for helper in helpers)


def pytest_collection_modifyitems(items):
    """Marks as slow what starts a process, by itself or in a fixture."""
    for item in items:
        fixtures = [d[-1].func for d in item._fixtureinfo.name2fixturedefs.values()]
        starts = not PROCESS_FIXTURES.isdisjoint(item.fixturenames) or any(
            _names_subprocess(f, set()) for f in (item.function, *fixtures)
        )
        if starts:
            item.add_marker(pytest.mark.slow)


def _refuse_processes_of_quick_tests(event, arguments):
    if event == "subprocess.Popen" and _quick_test:
        command = arguments[1]
        program = os.path.basename(os.fspath(command if isinstance(command, str) else command[0]))
        if program != "fc-list":  # matplotlib looks for fonts once on a machine.
            raise RuntimeError(
                f"{_quick_test} starts a process ({program}) and is not marked slow: take the "
                "fixture run_python or run_binary, or mark it with pytest.mark.slow."
            )


sys.addaudithook(_refuse_processes_of_quick_tests)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    global _quick_test
    _quick_test = None if item.get_closest_marker("slow") else item.nodeid
    try:
        return (yield)
    finally:
        _quick_test = None


def pytest_sessionfinish():
    """Keeps TFF's unused default context from complaining in its `__del__` at interpreter exit."""
    if "tensorflow_federated" in sys.modules:
        from fedrecon.execution import native

        native.set_native_context().close()
