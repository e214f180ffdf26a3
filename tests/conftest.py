"""Fixtures that several folders of tests share."""

import os
import pathlib
import sys
import time

import hypothesis
import pytest

# How fast examples come depends on what else the machine does.
hypothesis.settings.register_profile(
    "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared")
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


@pytest.fixture(scope="session")
def leave_one_out_dir(tmp_path_factory) -> pathlib.Path:
    """A folder with leave-one-out files: 3 users and 220 items; a user's last item is the test."""
    rated = {user: list(range(10 * user, 10 * user + 8)) for user in range(3)}
    rated[2] += range(38, 130)
    rated[0] += range(28, 38)
    lines = {"train.rating": [], "test.rating": [], "test.negative": []}
    for user, items in rated.items():
        for seconds, item in enumerate(items):
            kind = "test.rating" if item == items[-1] else "train.rating"
            lines[kind].append(f"{user}\t{item}\t3\t{100 + seconds}")
        extra = range(130, 220) if user == 0 else (8, 9, 18, 19) if user == 1 else ()
        lines["train.rating"] += [f"{user}\t{item}\t3\t1" for item in extra]
        free = [item for item in range(220) if item not in {*items, *extra}]
        row = "\t".join(map(str, free[:99]))
        lines["test.negative"].append(f"({user},{items[-1]})\t{row}")
    folder = tmp_path_factory.mktemp("leave_one_out")
    path = folder / "ncf-ml-1m"
    path.mkdir()
    for kind, text in lines.items():
        (path / f"ml-1m.{kind}").write_text("\n".join(text) + "\n")
    return folder


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


def pytest_collection_modifyitems(items):
    """Marks as slow what uses TFF's worker, through another fixture too."""
    for item in items:
        if "native_worker" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


def pytest_sessionfinish():
    """Keeps TFF's unused default context from complaining in its `__del__` at interpreter exit."""
    if "tensorflow_federated" in sys.modules:
        from fedrecon.execution import native

        native.set_native_context().close()
