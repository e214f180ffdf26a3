"""Whether training had converged when it ended, by the measure that was watched meanwhile.

Validation users alone are looked at. Whoever would stop a run by its test figures, or choose
between runs by them, would choose by the test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedrecon.evaluation.feedback import Measure

# A smaller change is no news. From popularity to exact reconstruction the RMSE of MovieLens 1M
# falls by 5.5% (0.927 to 0.876): 0.5% is about a tenth of all that a model can win. The NDCG@10 of
# the NCF files rises by 78% (0.254 to 0.453), and of some hundred users it jumps by 1% or 2% from
# round to round.
SHARE_OF_ERROR = 0.005
SHARE_OF_RANKING = 0.02
# The end of training: what is not seen in so much of the rounds would take long to come.
END = 0.2

CONVERGED = "converged"
IMPROVING = "still improving"
PAST_ITS_BEST = "better earlier"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a watched measure ended.

    Attributes:
      kind: `IMPROVING`, `PAST_ITS_BEST` or `CONVERGED`.
      measure: The measure.
      earlier: The round that the end is compared with, and the measure after it: the best round
        if it was better earlier, else the last evaluation before the end of training began.
      last: The last evaluated round, and the measure after it.
    """

    kind: str
    measure: Measure
    earlier: tuple[int, float]
    last: tuple[int, float]

    def sentence(self, group: str) -> str | None:
        """Returns what to know and to try; None if training had converged.

        Args:
          group: The users who were watched.
        """
        (round_before, before), (round_now, now) = self.earlier, self.last
        title = f"the {self.measure.title} of {group} users"
        if self.kind == IMPROVING:
            verb = "fell" if self.measure.is_error else "rose"
            return (
                f"Not converged: {title} still {verb} at the end, from {before:.3f} (round "
                f"{round_before:,}) to {now:.3f} (round {round_now:,}); more rounds, or a larger "
                "rate found by experiments.tune, may help."
            )
        if self.kind == PAST_ITS_BEST:
            return (
                f"Better earlier: {title} was {before:.3f} after round {round_before:,} and is "
                f"{now:.3f} after round {round_now:,}, the round that is kept; fewer rounds, or a "
                "smaller rate found by experiments.tune, may help."
            )
        return None


def ending(rounds: Sequence[int], values: Sequence[float], measure: Measure) -> Ending | None:
    """Returns how a watched measure ended.

    It was better earlier if its best value is better than its last by more than the share of the
    measure (`SHARE_OF_ERROR` or `SHARE_OF_RANKING`). Else it is still improving if it improved by
    more than this share over the last fifth of the rounds. Where evaluations are so seldom that the
    last two are further apart than a fifth, the share grows in proportion.

    Args:
      rounds: `[n]`, increasing: the rounds that were evaluated; 0 is the untrained model.
      values: `[n]`: the measure after each.
      measure: Which it is.

    Returns:
      None if there is not enough to tell: fewer than two finite evaluations of trained models. The
      step from the untrained model to the first evaluation says nothing about the end.
    """
    values = np.asarray(values, float)
    is_known = np.isfinite(values)
    rounds, values = np.asarray(rounds)[is_known], values[is_known]
    if (rounds > 0).sum() < 2:
        return None
    share = SHARE_OF_ERROR if measure.is_error else SHARE_OF_RANKING
    keys = measure.best_first(values)

    def gain(place: int) -> float:
        """How much better the last value is than another, as a share of that other."""
        size = abs(values[place])
        return float((keys[place] - keys[-1]) / size) if size else float(keys[place] > keys[-1])

    def found(kind: str, place: int) -> Ending:
        ends = ((int(rounds[n]), float(values[n])) for n in (place, -1))
        return Ending(kind, measure, *ends)

    best = int(np.argmin(keys))
    if -gain(best) > share:
        return found(PAST_ITS_BEST, best)
    before = np.flatnonzero((rounds > 0) & (rounds <= (1 - END) * rounds[-1]))
    # Without an evaluation of a trained model before the end, the first one in it has to do.
    start = int(before[-1]) if len(before) else int(np.flatnonzero(rounds > 0)[0])
    fifths = (rounds[-1] - rounds[start]) / (END * rounds[-1])
    is_improving = gain(start) > share * max(1.0, fifths)
    return found(IMPROVING if is_improving else CONVERGED, start)


def ending_of_rows(rows: Sequence[dict[str, Any]], group: str, measure: Measure) -> Ending | None:
    """Returns the same from the rows of metrics.csv.

    Args:
      rows: With `round`, and with `<group>/<measure>` where the group was evaluated.
      group: The users who were watched.
      measure: Which measure to look at.
    """
    name = f"{group}/{measure.name}"
    found = [(int(row["round"]), row[name]) for row in rows if name in row]
    return ending([number for number, _ in found], [value for _, value in found], measure)
