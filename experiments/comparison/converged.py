"""Which algorithms of a comparison had converged when their training ended, and which had not.

Each algorithm's curve is its mean over seeds, as in the tables and pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pandas import DataFrame

from experiments.comparison.run_table import Runs
from experiments.pages.sections import Section, Table, Text
from experiments.run.convergence import (
    END,
    IMPROVING,
    PAST_ITS_BEST,
    SHARE_OF_ERROR,
    SHARE_OF_RANKING,
    Ending,
    ending,
)
from experiments.run.names import listed
from fedrecon.evaluation.feedback import Feedback

TITLE = "Had training converged?"


class Caution(NamedTuple):
    """What to know before the order of algorithms is believed.

    Attributes:
      text: Which algorithms had not converged.
      advice: What would tell.
    """

    text: str
    advice: str


def endings_of(runs: Runs) -> dict[str, Ending]:
    """Returns how the training of each algorithm ended, with its settings unchanged."""
    return {} if runs.watched is None else endings(runs.feedback, runs.watched)


def endings(feedback: Feedback, watched: DataFrame) -> dict[str, Ending]:
    """Returns how the training of each algorithm ended, where enough was evaluated to tell.

    Args:
      feedback: The kind of feedback.
      watched: What `run_table.read_watched` returns.
    """
    measure, found = feedback.chosen_by, {}
    for algorithm, own in watched.groupby("algorithm", observed=True):
        by_round = own.groupby("round")[measure.name].agg(["mean", "size"])
        curve = by_round["mean"][by_round["size"] == own["seed"].nunique()]
        own_ending = ending(curve.index.tolist(), curve.tolist(), measure)
        if own_ending is not None:
            found[str(algorithm)] = own_ending
    return found


def caution(found: Mapping[str, Ending]) -> Caution | None:
    """Returns which results rest on a training that had not converged, and what may help.

    Every algorithm counts, not only the best: the last may have been about to win.

    Args:
      found: What `endings` returns.

    Returns:
      None where all that is known of had converged.
    """
    improving, past = (
        {name: own for name, own in found.items() if own.kind == kind}
        for kind in (IMPROVING, PAST_ITS_BEST)
    )
    told, tries = [], []
    if improving:
        title = next(iter(improving.values())).measure.title
        told.append(
            f"{listed(improving, 'and')} had not converged: the validation {title} was still "
            "improving when training ended."
        )
        tries.append(("more rounds, or a larger rate found by `experiments.tune`", improving))
    if past:
        passed = [f"{name} ({_passed(own)})" for name, own in past.items()]
        told.append(f"{listed(passed, 'and')} had been better earlier in training.")
        tries.append(("fewer rounds, or a smaller rate found by `experiments.tune`", past))
    if not told:
        return None
    if len(tries) == 2:
        advice = "; ".join(f"for {listed(names, 'and')}: {what}" for what, names in tries)
    else:
        advice = tries[0][0]
    told.append("So the order may come from the settings, not from the algorithms.")
    return Caution(" ".join(told), f"Try {advice}." if len(tries) == 1 else f"Try, {advice}.")


def _passed(own: Ending) -> str:
    (number, before), (_, now) = own.earlier, own.last
    title = own.measure.title
    return f"validation {title} {before:.3f} after round {number:,}, {now:.3f} at the end"


def converged_sections(feedback: Feedback, found: Mapping[str, Ending]) -> list[Section]:
    """Returns a section, or none where nothing is known."""
    if not found:
        return []
    measure = feedback.chosen_by
    share = SHARE_OF_ERROR if measure.is_error else SHARE_OF_RANKING
    rows = {
        name: {
            "at the end": own.kind,
            "earlier": _value(own.earlier),
            "last": _value(own.last),
        }
        for name, own in found.items()
    }
    table = DataFrame.from_dict(rows, orient="index").rename_axis("algorithm")
    text = (
        f"By the {measure.title} of validation users; no test figure is looked at. Still "
        f"improving: by more than {share:.1%} over the last {END:.0%} of the rounds, or in "
        "proportion since the earlier round shown. Better earlier: the best round, which is "
        f"shown, was better than the last by more than {share:.1%}. The others had converged."
    )
    return [Section(TITLE, (Table(f"Validation {measure.title} at the end", table), Text(text)))]


def _value(point: tuple[int, float]) -> str:
    number, value = point
    return f"{value:.3f} (round {number:,})"
