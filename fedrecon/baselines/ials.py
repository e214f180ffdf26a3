"""iALS, matrix factorization on implicit feedback by alternating least squares, on one machine.

The strong classical reference of the comparison: nothing here is federated, and the trainer sees
every interaction. Hu, Koren and Volinsky 2008, "Collaborative Filtering for Implicit Feedback
Datasets"; stated and tuned as in Rendle et al. 2022, "Revisiting the Performance of iALS on Item
Recommendation Benchmarks" (arXiv:2110.14037), with the same regularization for every row (their
nu = 0). With a row `x_u` per user and `y_i` per item, it minimises

    L(X, Y) = sum over observed (u, i) of (1 - x_u . y_i)^2
              + a * sum over all (u, i) of (x_u . y_i)^2
              + r * (|X|^2 + |Y|^2)

where `a` is the unobserved weight and `r` the regularization.

1. The rows of the items are drawn from a normal distribution.
2. Users: with `Y` fixed, `L` is quadratic in each `x_u` alone, whose minimum solves
   `(a * Y'Y + r * I + sum of y_i y_i') x_u = sum of y_i`, both sums over the items of `u`.
3. Items: the same with the roles exchanged. Steps 2 and 3 are repeated.
4. Users once more, so that a trained row is what `Ials.reconstruct` returns for the same items.

The work is done by the library `implicit`, whose loss has a confidence `c` and a penalty `q`:

    L~(X~, Y~) = sum over observed of c * (1 - s~)^2 + sum over all others of s~^2
                 + q * (|X~|^2 + |Y~|^2)

It is the same function of longer rows. An observed entry costs `(1 - s)^2 + a * s^2`, which is
`(1 + a) * (s - 1 / (1 + a))^2` and a constant; so with

    c = (1 + a) / a,    q = r * (1 + a) / a,    X~ = sqrt(1 + a) * X,    Y~ = sqrt(1 + a) * Y

`L` is `a / (1 + a)^2 * L~` and a constant, and both have their minima at the same rows.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from fedrecon import rng
from fedrecon.errors import InputError

_INITIAL_STDDEV = 0.1  # Of a row as a whole: each entry has 0.1 / sqrt(dim) (Rendle et al.).


@dataclasses.dataclass(frozen=True)
class IalsOptions:
    """The loss of this module, and how it is minimised.

    The defaults were chosen on MovieLens 1M: each user's last training rating, held out, ranked
    among 99 items that the user had not rated.

    Attributes:
      dim: Length of a row.
      regularization: `r`, positive. It weighs a sum over the entries, not their mean, so a good
        value grows with the data.
      unobserved_weight: `a`, positive: what a pair without interaction weighs, relative to weight 1
        of one with (the `alpha_0` of Rendle et al.).
      num_iterations: How often steps 2 and 3 are done.
      seed: Of step 1; nothing else is random.
    """

    dim: int = 64
    regularization: float = 7.0
    unobserved_weight: float = 0.2
    num_iterations: int = 15
    seed: int = 0

    def __post_init__(self):
        for name in ("dim", "num_iterations"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"the {name} of iALS is {getattr(self, name)}; it must be at least 1."
                )
        for name in ("regularization", "unobserved_weight"):
            # `not <` instead of `>=`: NaN must fail too.
            if not 0.0 < getattr(self, name) < float("inf"):
                raise InputError(
                    f"the {name} of iALS is {getattr(self, name)}; it must be positive."
                )
        if self.seed < 0:
            raise InputError(f"the seed of iALS is {self.seed}; it must be at least 0.")


@dataclasses.dataclass(frozen=True, eq=False)
class Ials:
    """A trained model; its arrays are read-only.

    Attributes:
      options: What it was trained with.
      user_rows: `[num_users, dim]`, float32; 0 for a user without interactions.
      item_rows: `[num_items, dim]`, float32; 0 for an item without interactions.
    """

    options: IalsOptions
    user_rows: np.ndarray
    item_rows: np.ndarray

    def reconstruct(self, items_of_user: np.ndarray) -> np.ndarray:
        """Returns the row of any user, seen or not: step 2 of the module, solved exactly.

        Args:
          items_of_user: `[n]`, int: the items that the user has; one that comes twice counts once.

        Returns:
          `[dim]`, float32: the minimum of the loss with the items' rows fixed; 0 if `n` is 0.
        """
        items = _checked_ids(np.unique(items_of_user), len(self.item_rows), "item")
        rows = self.item_rows[items].astype(np.float64)
        row = np.linalg.solve(self._system_of_no_items + rows.T @ rows, rows.sum(axis=0))
        return row.astype(np.float32)

    def score(self, items: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the scores of a user, seen or not, who is reconstructed.

        Args:
          items: `[g]`, int: what the user has; one that comes twice counts once.
          labels: `[g]`, float32: those of 0 are drawn negatives, which are ignored.
          candidates: `[m]`, int, item ids; -1 (padding) gets the score of some item.

        Returns:
          `[m]`, float32, a higher score for a better item.
        """
        return self.item_rows[candidates] @ self.reconstruct(items[labels > 0])

    @functools.cached_property
    def _system_of_no_items(self) -> np.ndarray:
        """`a * Y'Y + r * I`, `[dim, dim]`, float64: what the systems of all users share."""
        rows = self.item_rows.astype(np.float64)
        penalty = self.options.regularization * np.eye(rows.shape[1])
        return self.options.unobserved_weight * (rows.T @ rows) + penalty


def train_ials(
    users: np.ndarray, items: np.ndarray, *, num_users: int, num_items: int, options: IalsOptions
) -> Ials:
    """Returns the model after `options.num_iterations`, on all cores of the machine.

    Args:
      users: `[num_interactions]`, int, in `[0, num_users)`.
      items: `[num_interactions]`, int, in `[0, num_items)`: row `k` says that user `users[k]` has
        item `items[k]`. A pair that comes twice counts once.
      num_users: Number of users.
      num_items: Number of items.
      options: The settings.

    Raises:
      ValueError: If the two arrays differ in length or hold anything but ids.
    """
    users = _checked_ids(users, num_users, "user")
    items = _checked_ids(items, num_items, "item")
    if len(users) != len(items):
        raise ValueError(f"there are {len(users)} users for {len(items)} items; give pairs.")

    # Half a second and two libraries, which importing the options need not cost.
    import threadpoolctl
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy import sparse

    pairs = sparse.csr_matrix(
        (np.ones(len(users), np.float32), (users, items)), (num_users, num_items)
    )
    pairs.data[:] = 1.0  # Pairs that came twice were added.
    confidence = (1.0 + options.unobserved_weight) / options.unobserved_weight
    lengthening = np.sqrt(1.0 + options.unobserved_weight)
    stddev = _INITIAL_STDDEV / np.sqrt(options.dim)
    initial = rng.generator(options.seed, "iALS item rows").normal(
        0.0, stddev * lengthening, (num_items, options.dim)
    )
    # implicit's threads each solve for rows of their own; a BLAS that splits those small systems
    # further is only in their way.
    with threadpoolctl.threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=options.dim,
            alpha=confidence,
            regularization=options.regularization * confidence,
            iterations=options.num_iterations,
            use_cg=False,  # Three steps of conjugate gradients, the default, are not the minimum.
        )
        # Given rows are where `fit` starts; what the users have is never read.
        model.user_factors = np.zeros((num_users, options.dim), np.float32)
        model.item_factors = initial.astype(np.float32)
        model.fit(pairs, show_progress=False)
        user_rows = model.recalculate_user(np.arange(num_users), pairs)
    result = Ials(options, user_rows / lengthening, model.item_factors / lengthening)
    for rows in (result.user_rows, result.item_rows):
        rows.flags.writeable = False
    return result


def _checked_ids(ids: np.ndarray, num: int, what: str) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(f"{what} ids are one row of integers, not {ids.dtype} {list(ids.shape)}.")
    if ids.size and not 0 <= ids.min() <= ids.max() < num:
        raise ValueError(f"{what} ids must be in [0, {num}); found {ids.min()} to {ids.max()}.")
    return ids.astype(np.int64)
