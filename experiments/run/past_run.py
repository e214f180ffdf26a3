"""A run that was trained before: its settings, and the data that it was trained on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments.run import settings
from experiments.run.flags import refuse_comparison
from experiments.run.population import load_population
from experiments.run.settings import Settings
from fedrecon.data.population import Population
from fedrecon.errors import InputError
from fedrecon.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from fedrecon.algorithms.algorithm import Algorithm  # It imports TensorFlow.


class PastRun(NamedTuple):
    """A run and its data."""

    run: RunDirectory
    settings: Settings
    population: Population


def define_flags(*, when: str = "") -> tuple[flags.FlagHolder, ...]:
    """Defines --run_dir, --data_dir and --ratings_file.

    Args:
      when: In which case the last two have an effect, for their help.
    """
    help_texts = {
        "run_dir": "Required: the output directory of a run (experiments.train).",
        "data_dir": f"{when}Where the data set is now, if not where it was in training.",
        "ratings_file": f"{when}Where the file of ratings is now, if not where it was in training.",
    }
    return tuple(flags.DEFINE_string(name, None, text) for name, text in help_texts.items())


def directory(path: str | None) -> RunDirectory:
    """Returns the directory of a run or of a model.

    Raises:
      InputError: If no path is given, or it is the directory of a comparison.
    """
    if path is None:
        raise InputError("give --run_dir=DIR, the output directory of experiments.train.")
    run = RunDirectory(path)
    refuse_comparison(run.path)
    return run


def open_run(path: str | None) -> RunDirectory:
    """Returns the directory of a run.

    Raises:
      InputError: If no path is given, or it is no run.
    """
    run = directory(path)
    settings.check_format(run.read_config(), run.path)
    return run


def load(
    path: str | None, *, data_dir: str | None = None, ratings_file: str | None = None
) -> PastRun:
    """Returns a run and the data that it was trained on.

    Args:
      path: The directory of the run.
      data_dir: Where the data set is now, if not where it was in training.
      ratings_file: Where the file of ratings is now, if not where it was in training.

    Raises:
      InputError: If it is no run, or the data are not those that it was trained on.
    """
    run = open_run(path)
    config = run.read_config()
    chosen = Settings.from_json(config["settings"])
    for name, place in (("data_dir", data_dir), ("ratings_file", ratings_file)):
        if place is not None:
            if not settings.uses(chosen, name):
                raise InputError(settings.no_effect(chosen, name))
            chosen = dataclasses.replace(chosen, **{name: place})
    population = load_population(dataclasses.replace(chosen, output_dir=str(run.path)))
    # The run has its own weights by now; the run that it started from may be gone.
    chosen = dataclasses.replace(chosen, warm_start=None)
    if population.fingerprint() != config["data_fingerprint"]:
        where = "--data_dir" if chosen.ratings_file is None else "--ratings_file"
        raise InputError(
            f"the ratings of {population.ratings.name} differ from those that {run.path} was "
            f"trained on; give the same files with {where}."
        )
    return PastRun(run, chosen, population)


def checkpoint(run: RunDirectory, round_num: int | None) -> int:
    """Returns the number of a round after which there is a whole checkpoint.

    Args:
      run: The run.
      round_num: The round; None for the last that is whole.

    Raises:
      InputError: If there is none.

    Warns if it is not the last there is.
    """
    checkpoints = run.checkpoints()
    if round_num is None or not checkpoints:
        return run.newest_whole()
    if round_num not in checkpoints:
        raise InputError(
            f"{run.path} has no checkpoint after round {round_num}; it has those after rounds "
            f"{', '.join(map(str, checkpoints))}."
        )
    run.verify(round_num)
    return round_num


def restored(past: PastRun, round_num: int) -> tuple[Algorithm, Any]:
    """Returns the algorithm of a run and its state after a round; a runtime has been started."""
    from experiments.run import build  # It imports TensorFlow.

    algorithm = build.build_algorithm(
        past.settings, past.population, store_dir=past.run.store_path, store_round=round_num
    )
    return algorithm, past.run.open_checkpoints().load(round_num, algorithm.initialize())
