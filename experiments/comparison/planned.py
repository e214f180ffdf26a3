"""The runs that a comparison plans, and what there is of them."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from typing import Any

from experiments.comparison import references
from experiments.comparison.results import RunResults, read_per_user, read_results
from experiments.run import claim
from experiments.run.settings import Settings
from fedrecon.data.population import Population
from fedrecon.errors import DamagedError
from fedrecon.runs.run_directory import USER_RESULTS, RunDirectory


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run: an algorithm or a reference with one seed.

    Attributes:
      settings: Its settings, its directory among them.
      changes: The settings that a sweep changed.
    """

    settings: Settings
    changes: dict[str, Any]

    @property
    def algorithm(self) -> str:
        return self.settings.algorithm

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.settings.output_dir)

    @property
    def label(self) -> str:
        return self.path.name


def results_of(planned: Planned) -> RunResults | None:
    """Returns the results of a run that is finished, for as many rounds as are wanted."""
    results = read_results(RunDirectory(planned.path))
    if results is None or results.rounds not in (None, planned.settings.total_rounds):
        return None
    return results


def forget_damaged(planned: Planned) -> None:
    """Forgets the results of a run if a file of them is damaged, so that they are made anew.

    Warns if it is.
    """
    run = RunDirectory(planned.path)
    try:
        if read_results(run) is None:
            return
        if not (run.path / USER_RESULTS).exists():
            raise DamagedError(f"{run.path / USER_RESULTS} is missing.")
        read_per_user(run)
    except DamagedError as error:
        warnings.warn(f"{str(error).rstrip('.')}; the results are made anew.", stacklevel=2)
        run.forget_results()


def config_of(planned: Planned, population: Population) -> dict[str, Any]:
    config = claim.config(planned.settings, population)
    if not planned.settings.is_trained:
        config["settings"] = references.config(planned.settings)
    return config
