"""Whether TensorFlow Federated and its companions are there in versions that work.

A release of TFF works with one minor version of TensorFlow, and pip cannot install TFF 0.87 by
itself: it pins a jaxlib that was withdrawn from PyPI. So an error names what is missing and the
commands that install it, before an import fails somewhere inside.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

_TFF = "tensorflow-federated"
# Distributions of which one must be there, what its version is or begins with, and what to install.
_NEEDED = (
    (("numpy",), "1", "'numpy~=1.25'"),
    (("tensorflow", "tensorflow-cpu"), "2.14", "'tensorflow==2.14.*'"),
    ((_TFF,), "0.87.0", f"{_TFF}==0.87.0"),
)


class RequirementError(ImportError):
    """A package that fedrecon needs is missing or has a version that cannot work."""


def check_requirements(version: Callable[[str], str] = metadata.version) -> None:
    """Raises a `RequirementError` unless NumPy, TensorFlow and TFF have versions that work.

    Reads the installed packages' metadata and imports none of them, in about a millisecond.

    Args:
      version: Gives the version of an installed distribution, or raises `PackageNotFoundError`.
    """
    problems, missing = [], []
    for names, needed, requirement in _NEEDED:
        found = {name: _found(name, version) for name in names}
        if any(_is(have, needed) for have in found.values()):
            continue
        have = " and ".join(f"{name} {have}" for name, have in found.items() if have)
        problems.append(f"{names[0]} {needed} (found: {have or 'none'})")
        missing.append(requirement)
    if problems:
        others = [requirement for requirement in missing if not requirement.startswith(_TFF)]
        commands = [f"python -m pip install {' '.join(others)}"] if others else []
        if len(others) < len(missing):
            commands.append(f"python -m pip install --no-deps {missing[-1]}")
        raise RequirementError(
            f"fedrecon needs {', '.join(problems)}. This installs it: {' && '.join(commands)}"
        )


def _found(name: str, version: Callable[[str], str]) -> str | None:
    try:
        return version(name)
    except metadata.PackageNotFoundError:
        return None


def _is(version: str | None, needed: str) -> bool:
    """Whether a version is the needed one or, if that is a part of a version, begins with it."""
    return f"{version}.".startswith(f"{needed}.")
