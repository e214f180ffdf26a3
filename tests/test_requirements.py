"""The lock files say one thing, and all of it."""

import re
from importlib import metadata

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.9 and 3.10; pytest brings the same parser there.
    import tomli as tomllib


def requirement_lines(path):
    lines = (line.split(" #")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-gpu.txt"])
def test_every_line_of_a_lock_is_pinned(repository, name):
    lines = requirement_lines(repository / name)
    assert len(lines) >= 10
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.!+]+( ; .*)?", line), line


def test_the_lock_holds_what_is_required(repository):
    locked = {
        re.split("==", line)[0] for line in requirement_lines(repository / "requirements.txt")
    }
    for line in requirement_lines(repository / "requirements.in"):
        assert re.split(r"[=<>]", line)[0] in locked


def test_pyproject_repeats_the_overrides(repository):
    pyproject = tomllib.loads((repository / "pyproject.toml").read_text())
    overrides = requirement_lines(repository / "requirements-overrides.txt")
    assert pyproject["tool"]["uv"]["override-dependencies"] == overrides
    assert overrides == ["jax==0.4.13", "jaxlib==0.4.13"]


def test_the_version_is_the_same_everywhere(repository):
    import fedrecon

    pyproject = tomllib.loads((repository / "pyproject.toml").read_text())
    assert pyproject["project"]["version"] == fedrecon.__version__


def test_the_environment_is_the_locked_one(repository):
    # Tests that pass on other versions prove nothing about these.
    for line in requirement_lines(repository / "requirements.txt"):
        name, _, version = line.partition("==")
        if name in ("tensorflow", "tensorflow-federated", "numpy", "pandas", "jaxlib"):
            assert metadata.version(name) == version
