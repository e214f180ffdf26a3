"""users.csv of a run: which users train and which are unseen, as config.json knows them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fedrecon.data.population import Population, parts_of, read_parts
from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.run_directory import RunDirectory

# In config.json; older runs have none.
DIGEST = "users_sha256"


def digest(parts: Mapping[str, str]) -> str:
    """Returns the SHA-256 of the users' parts."""
    return hashlib.sha256(json.dumps(sorted(parts.items())).encode()).hexdigest()


def check(run: RunDirectory) -> None:
    """Looks whether users.csv is as the run wrote it.

    Raises:
      DamagedError: If it is not.
    """
    parts, known = read_parts(run.users_path), run.read_config().get(DIGEST)
    if known is not None and (parts is None or digest(parts) != known):
        raise DamagedError(
            f"{run.users_path} is damaged: its users are not those that the run began with; put it "
            "back from a copy."
        )


def missing(
    run: RunDirectory, population: Population, begun: Mapping[str, Any] | None
) -> tuple[Mapping[str, str] | None, str | None]:
    """Returns the parts that are to be written, None if they are there, and their digest.

    Args:
      run: The run.
      population: Its users.
      begun: What config.json says; None of a new run.

    Raises:
      InputError: If the run began with other users.
    """
    known = None if begun is None else begun.get(DIGEST)
    if begun is not None and run.users_path.exists():
        try:
            check(run)
        except InputError:
            if known is None:
                raise
        else:
            return None, known
    parts = parts_of(population)
    if known is not None and digest(parts) != known:
        raise DamagedError(
            f"{run.path} holds a run of other users than those of now: {run.users_path.name} is "
            "missing or damaged; put it back from a copy, or give another output directory."
        )
    return parts, digest(parts)
