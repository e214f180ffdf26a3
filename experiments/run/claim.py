"""The directory of a run is taken for it, before TensorFlow is imported."""

from __future__ import annotations

import contextlib
import pathlib
import shlex
import sys
from typing import Any

from experiments.run import settings, users
from experiments.run.accuracy import STEP
from experiments.run.settings import Settings
from fedrecon.data.population import Population, write_parts
from fedrecon.errors import DamagedError, InputError
from fedrecon.runs import run_directory
from fedrecon.serving.files import load_run
from fedrecon.serving.matching import check_feedback, match_items

STARTED_FROM = "started_from"
# What decides which items of training users are held out, beside the shares.
_DECIDE_SEEN = (
    *("split", "positive_from", "min_ratings_per_user", "min_ratings_per_item"),
    "leaks_test_item",
)
COMMAND = "command"


def config(chosen: Settings, population: Population) -> dict[str, Any]:
    """Returns what config.json says of a run."""
    return {
        "format": settings.FORMAT,
        "settings": chosen.to_json(),
        "data_fingerprint": population.fingerprint(),
        STEP: float(population.label_scale.step),
        "data_notes": list(population.ratings.notes),
        "versions": run_directory.versions(),
        COMMAND: _command(),
    }


def _command() -> str:
    """Returns the command line of this process, as it can be given again."""
    binary = pathlib.Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"experiments.{binary}", *sys.argv[1:]])


@contextlib.contextmanager
def claimed(chosen: Settings, population: Population):
    """Yields the directory of the run, held for it.

    Raises:
      InputError: If it has more rounds than are wanted; see `RunDirectory.claim` for the others.
    """
    run = run_directory.RunDirectory(chosen.output_dir)
    begun = None
    if (run.path / run_directory.CONFIG).exists():
        begun = run.read_config()
        settings.check_format(begun, run.path)
    _check_rounds(run, chosen.total_rounds)
    wanted = config(chosen, population)
    if chosen.warm_start is not None:
        wanted[STARTED_FROM] = _started_from(chosen, run, population)
    if begun is not None:
        run.check(wanted, free_settings=settings.FREE)
    parts, wanted[users.DIGEST] = users.missing(run, population, begun)
    with run.claim(wanted, free_settings=settings.FREE):
        if parts is not None:
            write_parts(run.users_path, parts)
        yield run


def _check_rounds(run: run_directory.RunDirectory, total_rounds: int) -> None:
    for done in run.checkpoints():
        if done > total_rounds:
            with contextlib.suppress(DamagedError):  # It will be passed over.
                run.verify(done)
                raise InputError(
                    f"{run.path} already has {done} rounds, more than "
                    f"--total_rounds={total_rounds}."
                )


def _started_from(
    chosen: Settings, run: run_directory.RunDirectory, population: Population
) -> dict[str, Any]:
    """Returns what a run starts from; a run that has begun knows it, whatever is there now."""
    path = chosen.warm_start
    if (run.path / run_directory.CONFIG).exists():
        begun = run.read_config().get(STARTED_FROM)
        if begun is not None:
            return begun
    trained = load_run(path)
    about = trained.about
    check_feedback(about, population.feedback)
    if chosen.cold_items_fraction:
        raise InputError(
            f"--cold_items_fraction={chosen.cold_items_fraction} has no meaning with --warm_start: "
            "the run to start from may have trained on the items that are held out."
        )
    before = run_directory.RunDirectory(path).read_config()["settings"]
    for name in ("held_out_fraction", "evaluate_on"):
        _check_held_out(name, before, chosen)
    _check_same_items(before, chosen, population)
    return {
        "run_dir": path,
        "data": about.data,
        "algorithm": about.algorithm,
        "rounds": about.rounds,
        "items": match_items(trained.items, population.ratings).sentence(),
    }


def _check_same_items(before: dict[str, Any], chosen: Settings, population: Population) -> None:
    """Refuses to hold out other items of training users than the earlier run did."""
    seen = [group for name, group in population.groups.items() if name.startswith("seen")]
    if not seen:
        return
    names = list(_DECIDE_SEEN)
    if any(group.num_tied for group in seen):
        names.append("seed")  # It decides what is last among ratings of the same time.
    for name in names:
        old, new = before.get(name, getattr(Settings, name)), getattr(chosen, name)
        if old != new:
            raise InputError(
                f"--{name} is {_said(new)}, and was {_said(old)} in the run to start from, which "
                "may have trained on what seen users are asked for now; start from a run with the "
                f"same --{name}."
            )


def _said(value: Any) -> str:
    return "not given" if value is None else str(value)


def _check_held_out(name: str, before: dict[str, Any], chosen: Settings) -> None:
    """Refuses to judge by ratings of training users that the earlier run trained on."""
    if not settings.uses(chosen, name):
        return
    old, new = before.get(name, getattr(Settings, name)), getattr(chosen, name)
    if new and new != old:
        raise InputError(
            f"--{name}={new}, and the run to start from had {old}: it trained on ratings that "
            f"would be asked for now; give --{name}={old}."
        )
