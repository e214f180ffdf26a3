"""What a served model must know besides its weights: where it comes from, and what users give."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fedrecon import rng
from fedrecon.data.population import EXPLICIT, IMPLICIT, Population
from fedrecon.data.ratings import RatingScale
from fedrecon.errors import InputError


@dataclasses.dataclass(frozen=True)
class About:
    """Where a model comes from, and how ratings become labels for it.

    Attributes:
      data: The name of the data set.
      algorithm: The name of the algorithm.
      rounds: How many rounds it was trained.
      feedback: `"explicit"` or `"implicit"`.
      scale: The ratings that exist.
      label_threshold: With explicit feedback, a label is 1 where the rating is at least this; None
        leaves ratings as they are.
      negatives_per_positive: With implicit feedback, how many items with label 0 are drawn for each
        item that a user has.
      seed: Draws these items, and the initial values of gradient steps.
    """

    data: str
    algorithm: str
    rounds: int
    feedback: str
    scale: RatingScale
    label_threshold: float | None
    negatives_per_positive: int
    seed: int

    @classmethod
    def of(cls, population: Population, *, algorithm: str, rounds: int) -> About:
        """Returns what is known of a model that was trained on a population."""
        options = population.given.options
        is_explicit = population.feedback == EXPLICIT
        return cls(
            data=population.ratings.name,
            algorithm=algorithm,
            rounds=rounds,
            feedback=population.feedback,
            scale=population.ratings.scale,
            label_threshold=options.label_threshold if is_explicit else None,
            negatives_per_positive=0 if is_explicit else options.negatives_per_positive,
            seed=population.seed,
        )

    @property
    def is_implicit(self) -> bool:
        return self.feedback == IMPLICIT

    @property
    def predicts_ratings(self) -> bool:
        """Whether a score is a rating in stars."""
        return not self.is_implicit and self.label_threshold is None

    def given(
        self, rows: np.ndarray, ratings: np.ndarray | None, num_items: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows and labels that a user's vector is fitted to, `[m]` each.

        With implicit feedback negatives are drawn, uniformly with replacement among the items that
        the user does not have. The draw follows from the seed and the set of the user's items.

        Args:
          rows: `[n]`: the rows of the items that the user has, all different.
          ratings: `[n]`: the user's ratings in stars; None where there are none.
          num_items: How many items there are.

        Raises:
          InputError: If ratings are needed and missing, or not on the scale.
        """
        rows = np.asarray(rows, np.int64)
        if not self.is_implicit:
            if ratings is None:
                raise InputError(
                    f"the model predicts ratings ({self.scale}), and these items have none; give "
                    "a rating for each."
                )
            labels = self._checked(np.asarray(ratings, np.float64))
            if self.label_threshold is not None:
                labels = labels >= self.label_threshold
            return rows, labels.astype(np.float32)
        rows = np.sort(rows)
        number = self.negatives_per_positive * len(rows) if len(rows) < num_items else 0
        generator = rng.generator(self.seed, "negatives_of_new_user", *rows.tolist())
        places = generator.integers(max(num_items - len(rows), 1), size=number)
        # The i-th item has rows[i] - i others below it; see `ImplicitExamples`.
        negatives = places + np.searchsorted(rows - np.arange(len(rows)), places, side="right")
        items = np.concatenate([rows, negatives])
        order = generator.permutation(len(items))
        return items[order], (order < len(rows)).astype(np.float32)

    def _checked(self, ratings: np.ndarray) -> np.ndarray:
        off = np.flatnonzero(~self.scale.contains(ratings))
        if off.size:
            raise InputError(
                f"the rating {ratings[off[0]]:g} is not on the scale of {self.data}, {self.scale}."
            )
        return ratings

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values; `from_json` reads them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> About:
        return cls(**{**values, "scale": RatingScale(**values["scale"])})
