"""A model that is linear in a user's vector: a vector and an offset for each item, in NumPy.

The prediction of item i is `e_i . u + b_i`. The user's vector `u` is found from what the user gives
by one of three rules, each the reconstruction that the run was evaluated with. Nothing here needs
TensorFlow, so a user is served in milliseconds, and another language can do the same with the two
tables.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fedrecon.errors import InputError

# A system of equations a user is held at a time.
_USERS_AT_ONCE = 256

# What users give: the rows of items, `[n]`, and labels, `[n]` float32.
Given = Sequence[tuple[np.ndarray, np.ndarray]]


class Rule(Protocol):
    """How a user's vector is found."""

    kind: str

    def vectors(self, model: LinearModel, given: Given) -> np.ndarray:
        """Returns `[n, k]` float32: the vector of each user."""

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as JSON values; `rule_from_json` reads them."""


@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """Ridge regression; see `fedrecon.engine.least_squares`.

    Attributes:
      strengths: `[k]`: the regularization of each entry, for one example.
      exponent: The regularization grows with this power of the number of examples.
    """

    strengths: tuple[float, ...]
    exponent: float
    kind = "least_squares"

    def system(
        self, model: LinearModel, rows: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns `E'E + R`, `[k, k]`, the rows of E, `[n, k]`, and `label - b`, `[n]`."""
        given = model.factors[rows].astype(np.float64)
        growth = max(len(rows), 1) ** self.exponent
        matrix = given.T @ given + np.diag(growth * np.asarray(self.strengths, np.float64))
        return matrix, given, labels.astype(np.float64) - model.offsets[rows]

    def vectors(self, model, given):
        return _solved(self, model, given)

    def to_json(self):
        return {"kind": self.kind, "strengths": list(self.strengths), "exponent": self.exponent}


@dataclasses.dataclass(frozen=True)
class ImplicitLeastSquares:
    """The user's half of iALS; see `fedrecon.algorithms.fed_ials`. Labels are not looked at.

    Attributes:
      regularization: As in `FedIalsOptions`.
      exponent: As in `FedIalsOptions`.
      unobserved_weight: As in `FedIalsOptions`.
    """

    regularization: float
    exponent: float
    unobserved_weight: float
    kind = "implicit_least_squares"

    def system(self, model, rows, labels):
        """Returns the same as `LeastSquares.system`, with 1 for each label."""
        given = model.factors[rows].astype(np.float64)
        growth = (len(rows) + self.unobserved_weight * model.num_items) ** self.exponent
        penalties = self.regularization * growth * np.eye(given.shape[1])
        matrix = given.T @ given + self.unobserved_weight * model.gram + penalties
        return matrix, given, np.ones(len(labels)) - model.offsets[rows]

    def vectors(self, model, given):
        return _solved(self, model, given)

    def to_json(self):
        return {
            "kind": self.kind,
            "regularization": self.regularization,
            "exponent": self.exponent,
            "unobserved_weight": self.unobserved_weight,
        }


@dataclasses.dataclass(frozen=True)
class GradientSteps:
    """Steps of plain gradient descent on the mean squared error of a batch, from `initial`.

    Attributes:
      initial: `[k]`: the vector before the first step.
      learning_rate: Of each step.
      batch_size: The examples of a step; the last batch of a pass may have fewer.
      epochs: Passes over what a user gives.
      steps_max: The most steps over all passes; None: no limit.
    """

    initial: tuple[float, ...]
    learning_rate: float
    batch_size: int
    epochs: int
    steps_max: int | None
    kind = "gradient_steps"

    def vectors(self, model, given):
        return np.stack([self._vector(model, *of_user) for of_user in given])

    def _vector(self, model, rows, labels):
        vector = np.array(self.initial, np.float32)
        starts = [*range(0, len(rows), self.batch_size)] * self.epochs
        for start in starts[: self.steps_max]:
            batch = slice(start, start + self.batch_size)
            of_batch = model.factors[rows[batch]]
            errors = of_batch @ vector + model.offsets[rows[batch]] - labels[batch]
            gradient = (2.0 / len(errors)) * (errors @ of_batch)
            vector = vector - np.float32(self.learning_rate) * gradient
        return vector.astype(np.float32)

    def to_json(self):
        return {"kind": self.kind, **dataclasses.asdict(self), "initial": list(self.initial)}


def rule_from_json(values: dict[str, Any]) -> Rule:
    """Returns the rule of what `to_json` returned.

    Raises:
      InputError: If there is no such rule.
    """
    rest = {name: value for name, value in values.items() if name != "kind"}
    rest = {name: tuple(v) if isinstance(v, list) else v for name, v in rest.items()}
    for rule in (LeastSquares, ImplicitLeastSquares, GradientSteps):
        if rule.kind == values.get("kind"):
            try:
                return rule(**rest)
            except TypeError as error:
                raise InputError(f"the rule {rule.kind} cannot be read: {error}.") from error
    raise InputError(f"the rule {values.get('kind')!r} is of another version of this project.")


@dataclasses.dataclass(frozen=True, eq=False)
class LinearModel:
    """A model that is linear in a user's vector.

    Attributes:
      factors: `[num_items, k]` float32: the `e_i`.
      offsets: `[num_items]` float32: the `b_i`.
      rule: How a user's vector is found.
      parts: The names of the local weights that make up a vector, and their sizes.
    """

    factors: np.ndarray
    offsets: np.ndarray
    rule: Rule
    parts: tuple[tuple[str, int], ...]

    @property
    def num_items(self) -> int:
        return len(self.factors)

    @functools.cached_property
    def gram(self) -> np.ndarray:
        """`E'E` of all items, `[k, k]` float64; it serves all users."""
        whole = self.factors.astype(np.float64)
        return whole.T @ whole

    def user_vectors(self, given: Given) -> np.ndarray:
        """Returns `[n, k]` float32: the vector of each user, from rows of items and labels."""
        vectors = np.empty((len(given), self.factors.shape[1]), np.float32)
        for start in range(0, len(given), _USERS_AT_ONCE):
            part = slice(start, start + _USERS_AT_ONCE)
            vectors[part] = self.rule.vectors(self, given[part])
        return vectors

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Returns `[n, num_items]` float32: every item's score for users' vectors `[n, k]`."""
        return vectors @ self.factors.T + self.offsets

    def item_vectors(self) -> np.ndarray:
        """Returns `[num_items, d]` float32: the item factors, without what belongs to biases."""
        is_factor = np.concatenate([np.full(size, size > 1) for _, size in self.parts])
        return self.factors[:, is_factor]

    def contributions(self, rows: np.ndarray, labels: np.ndarray, item: int) -> np.ndarray:
        """Returns how much each given label adds to the score of an item, `[n]` float64.

        The solution is linear in the labels: with the given rows `e_j` and `A = E'E + R`,

            e_i . u + b_i  =  b_i + sum over j of (e_i' A^-1 e_j) (label_j - b_j)

        and the terms of the sum are what is returned. They add up to the score less `b_i`.

        Args:
          rows: `[n]`: the rows of the given items.
          labels: `[n]`: their labels.
          item: The row of the item.

        Raises:
          InputError: If the user's vector is not solved for.
        """
        if isinstance(self.rule, GradientSteps):
            raise InputError(
                "the user's vector is found by gradient steps, and only a vector that is solved "
                "for has an explanation; train with --reconstruction=least_squares."
            )
        matrix, given, targets = self.rule.system(self, rows, labels)
        return (given @ np.linalg.solve(matrix, self.factors[item].astype(np.float64))) * targets


def _solved(rule, model: LinearModel, given: Given) -> np.ndarray:
    systems = [rule.system(model, rows, labels) for rows, labels in given]
    matrices = np.stack([matrix for matrix, _, _ in systems])
    sides = np.stack([of_given.T @ targets for _, of_given, targets in systems])
    return np.linalg.solve(matrices, sides[..., np.newaxis])[..., 0].astype(np.float32)
