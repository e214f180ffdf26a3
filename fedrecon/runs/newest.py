"""Which checkpoint a run goes on from, or is evaluated at: the newest one that is whole."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from fedrecon.errors import DamagedError, InputError

_Loaded = TypeVar("_Loaded")


def newest_whole(
    rounds: Sequence[int], load: Callable[[int], _Loaded], run_dir: pathlib.Path
) -> tuple[int, _Loaded]:
    """Loads the newest checkpoint that is whole.

    Args:
      rounds: The rounds of the checkpoints, increasing; at least one.
      load: Loads a checkpoint, or raises `DamagedError`. Any other error is no reason to take an
        older checkpoint.
      run_dir: The run, for messages.

    Returns:
      The round, and what was loaded.

    Raises:
      InputError: If none is whole.

    Warns if a newer one was passed over.
    """
    reasons: list[str] = []
    for round_num in reversed(rounds):
        try:
            loaded = load(round_num)
        except DamagedError as error:
            reasons.append(str(error).rstrip("."))
            continue
        if reasons:
            passed = _listed([n for n in rounds if n > round_num])
            warnings.warn(
                f"{reasons[0]}; the checkpoint after {passed} is passed over, and that after round "
                f"{round_num}, which is whole, is used.",
                stacklevel=2,
            )
        return round_num, loaded
    older = "" if len(rounds) == 1 else ", and the older ones cannot be used either"
    raise InputError(
        f"{run_dir} has no whole checkpoint: {reasons[0]}{older}; put the files back from a copy, "
        "or train in another output directory."
    )


def _listed(rounds: Sequence[int]) -> str:
    if len(rounds) == 1:
        return f"round {rounds[0]}"
    return f"rounds {', '.join(map(str, rounds))}"
