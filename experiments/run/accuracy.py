"""Within how far of the rating a prediction counts as accurate, in words.

On half stars from 1 to 10 any model is accurate for about one rating in six: without the distance
the share says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedrecon.evaluation.feedback import Feedback, Measure

# The step of the scale in config.json, which older runs do not keep.
STEP = "rating_step"


def told(measure: Measure, value: float, config: Mapping[str, Any]) -> str:
    """Returns a measure and its value, such as `accuracy 0.152 (within 0.25)`.

    Args:
      measure: Any measure; accuracy gets its distance.
      value: Its value.
      config: config.json of the run.
    """
    step = config.get(STEP)
    is_told = measure.name == "accuracy" and step is not None
    return f"{measure.title} {value:.3f}" + (f" (within {step / 2:g})" if is_told else "")


def note(feedback: Feedback, config: Mapping[str, Any]) -> str:
    """Returns what the measures mean, and how far an accurate prediction may be off here."""
    step = config.get(STEP)
    if step is None or not any(measure.name == "accuracy" for measure in feedback.measures):
        return feedback.note
    return f"{feedback.note} {sentence(step)}"


def sentence(step: float) -> str:
    """Returns how far an accurate prediction may be off.

    Args:
      step: Between two ratings that exist.
    """
    return f"Here an accurate prediction is within {step / 2:g} of the rating."
