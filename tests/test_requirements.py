"""What fedrecon needs, its lock files, and what it says where something is missing."""

import re
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from fedrecon._requirements import RequirementError, check_requirements

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.9 and 3.10; pytest brings the same parser there.
    import tomli as tomllib

TFF = "tensorflow-federated"
# The packages whose versions TFF pins otherwise than we do.
DIFFERING = {"jax", "jaxlib", "typing-extensions"}


@pytest.fixture(scope="module")
def pyproject(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())


def requirement_lines(path):
    lines = (line.split(" #")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-gpu.txt"])
def test_every_line_of_a_lock_is_pinned(repository, name):
    lines = requirement_lines(repository / name)
    assert len(lines) >= 10
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.!+]+( ; .*)?", line), line


def test_the_locks_hold_what_is_required(repository, pyproject):
    locked = [Requirement(line) for line in requirement_lines(repository / "requirements.txt")]
    groups = pyproject["dependency-groups"]
    for line in pyproject["project"]["dependencies"] + groups["tff"] + groups["dev"]:
        needed = Requirement(line)
        versions = {str(pin.specifier)[2:] for pin in locked if pin.name == needed.name}
        assert versions, line
        assert all(needed.specifier.contains(version) for version in versions), line
    assert requirement_lines(repository / "requirements-gpu.txt") == groups["gpu"]


def test_what_tff_needs_is_declared_in_its_place(pyproject):
    """So that TFF itself can be installed without its dependencies."""
    declared = [Requirement(line) for line in pyproject["project"]["dependencies"]]
    differing = set()
    for line in metadata.requires(TFF):
        theirs = Requirement(line)
        ours = [r.specifier for r in declared if r.name == theirs.name]
        assert ours, line
        if theirs.specifier not in ours:
            differing.add(theirs.name)
    assert differing == DIFFERING
    assert TFF not in {requirement.name for requirement in declared}


def test_uv_overrides_what_differs_from_tff_as_it_is_declared(pyproject):
    overrides = pyproject["tool"]["uv"]["override-dependencies"]
    assert {Requirement(line).name for line in overrides} == DIFFERING
    assert set(overrides) < set(pyproject["project"]["dependencies"])


def test_the_version_is_the_same_everywhere(pyproject):
    import fedrecon

    assert pyproject["project"]["version"] == fedrecon.__version__


def test_the_environment_is_the_locked_one(repository):
    # Tests that pass on other versions prove nothing about these.
    for line in requirement_lines(repository / "requirements.txt"):
        name, _, version = line.partition("==")
        if name in ("tensorflow", TFF, "numpy", "pandas", "jaxlib"):
            assert metadata.version(name) == version


WORKING = {"numpy": "1.25.2", "tensorflow": "2.14.1", TFF: "0.87.0"}
ADD_TFF = "python -m pip install --no-deps tensorflow-federated==0.87.0"


def installed(**changes):
    """A stand-in for `metadata.version` where these packages are installed."""
    versions = {**WORKING, **{name.replace("_", "-"): value for name, value in changes.items()}}

    def version(name):
        if versions.get(name) is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    return version


def test_the_versions_here_are_accepted():
    assert check_requirements() is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tensorflow": "2.14.0"},
        {"tensorflow": "2.14"},
        {"tensorflow": None, "tensorflow_cpu": "2.14.1"},
    ],
)
def test_versions_that_work_are_accepted(changes):
    assert check_requirements(installed(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tensorflow_federated": None},
            "fedrecon needs tensorflow-federated 0.87.0 (found: none). "
            f"This installs it: {ADD_TFF}",
        ),
        (
            # What pip installs if it is asked for TFF without a version.
            {"tensorflow_federated": "0.1.0"},
            "fedrecon needs tensorflow-federated 0.87.0 (found: tensorflow-federated 0.1.0). "
            f"This installs it: {ADD_TFF}",
        ),
        (
            {"tensorflow": "2.16.1", "tensorflow_cpu": "2.15.0"},
            "fedrecon needs tensorflow 2.14 (found: tensorflow 2.16.1 and tensorflow-cpu 2.15.0). "
            "This installs it: python -m pip install 'tensorflow==2.14.*'",
        ),
        (
            {"numpy": "2.1.0", "tensorflow": "2.140.1", "tensorflow_federated": None},
            "fedrecon needs numpy 1 (found: numpy 2.1.0), tensorflow 2.14 (found: tensorflow "
            "2.140.1), tensorflow-federated 0.87.0 (found: none). This installs it: python -m pip "
            f"install 'numpy~=1.25' 'tensorflow==2.14.*' && {ADD_TFF}",
        ),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_installs_it(changes, message):
    with pytest.raises(RequirementError) as error:
        check_requirements(installed(**changes))
    assert str(error.value) == message
    assert isinstance(error.value, ImportError)


def test_the_commands_install_what_pyproject_declares(pyproject):
    with pytest.raises(RequirementError) as error:
        check_requirements(installed(numpy=None, tensorflow=None, tensorflow_federated=None))
    named = set(re.findall(r"[\w-]+[=~]=[\d.*]+", str(error.value)))
    declared = pyproject["project"]["dependencies"] + pyproject["dependency-groups"]["tff"]
    declared = {line.replace(">=2.14.0,", "") for line in declared}
    assert len(named) == 3
    assert named <= declared


def test_nothing_is_imported_to_check(monkeypatch):
    for name in ("numpy", "tensorflow", "tensorflow_federated"):
        monkeypatch.setitem(sys.modules, name, None)  # Importing it would raise.
    assert check_requirements() is None
