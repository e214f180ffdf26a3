"""The directory of a run is taken for it, before TensorFlow is imported."""

from __future__ import annotations

import contextlib
from typing import Any

from experiments.run import settings
from experiments.run.settings import Settings
from fedrecon.data.population import Population
from fedrecon.errors import InputError
from fedrecon.runs import run_directory


def config(chosen: Settings, population: Population) -> dict[str, Any]:
    """Returns what config.json says of a run."""
    return {
        "format": settings.FORMAT,
        "settings": chosen.to_json(),
        "data_fingerprint": population.ratings.fingerprint(),
        "data_notes": list(population.ratings.notes),
        "versions": run_directory.versions(),
    }


@contextlib.contextmanager
def claimed(chosen: Settings, population: Population):
    """Yields the directory of the run, held for it.

    Raises:
      InputError: If it has more rounds than are wanted; see `RunDirectory.claim` for the others.
    """
    run = run_directory.RunDirectory(chosen.output_dir)
    if (run.path / run_directory.CONFIG).exists():
        settings.check_format(run.read_config(), run.path)
    done = max(run.checkpoints(), default=0)
    if done > chosen.total_rounds:
        raise InputError(
            f"{run.path} already has {done} rounds, more than --total_rounds={chosen.total_rounds}."
        )
    with run.claim(config(chosen, population), free_settings=settings.FREE):
        yield run
