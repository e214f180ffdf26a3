"""iALS, matrix factorization on implicit feedback by alternating least squares, on one machine.

The strong classical reference of a comparison: the trainer sees every interaction. Hu, Koren and
Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets"; stated and tuned as in
Rendle et al. 2022, "Revisiting the Performance of iALS on Item Recommendation Benchmarks"
(arXiv:2110.14037), with the same regularization for every row (their nu = 0). With a row `x_u` per
user and `y_i` per item, it minimizes

    L(X, Y) = sum over observed (u, i) of (1 - x_u . y_i)^2
              + a * sum over all (u, i) of (x_u . y_i)^2
              + r * (|X|^2 + |Y|^2)

where `a` is the unobserved weight and `r` the regularization.

1. The item rows are drawn from a normal distribution.
2. Users: with `Y` fixed, `L` is quadratic in each `x_u`. Its minimum solves
   `(a * Y'Y + r * I + sum of y_i y_i') x_u = sum of y_i`, with both sums over the items of `u`.
3. Items: the same with the roles exchanged. Steps 2 and 3 are repeated.
4. Users once more, so that a trained user row equals `Ials.reconstruct` of the same items.

The library `implicit` does the work. Its loss has a confidence `c` and a penalty `q`:

    L~(X~, Y~) = sum over observed of c * (1 - s~)^2 + sum over all others of s~^2
                 + q * (|X~|^2 + |Y~|^2)

Our loss is that function of longer rows. An observed entry costs `(1 - s)^2 + a * s^2`, which is
`(1 + a) * (s - 1 / (1 + a))^2` plus a constant. So with

    c = (1 + a) / a,    q = r * (1 + a) / a,    X~ = sqrt(1 + a) * X,    Y~ = sqrt(1 + a) * Y

`L` is `a / (1 + a)^2 * L~` plus a constant, and both have their minima at the same rows.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from fedrecon import rng
from fedrecon.baselines.baseline import check_ids, check_implicit, check_pairs
from fedrecon.errors import check_at_least, check_positive

_INITIAL_STDDEV = 0.1  # Of a whole row: each entry has 0.1 / sqrt(dim) (Rendle et al.).


@dataclasses.dataclass(frozen=True)
class IalsOptions:
    """The loss of this module, and how it is minimized.

    The defaults were chosen on MovieLens 1M: the last training rating of each user was held out and
    ranked among 99 items that the user had not rated.

    Attributes:
      dim: Length of a row.
      regularization: `r`, positive. It weighs a sum over the entries, not their mean, so a good
        value grows with the data.
      unobserved_weight: `a`, positive: the weight of a pair without interaction, where a pair with
        one has weight 1 (the `alpha_0` of Rendle et al.).
      num_iterations: How often steps 2 and 3 are done.
      seed: The seed of step 1; nothing else is random.
    """

    dim: int = 64
    regularization: float = 7.0
    unobserved_weight: float = 0.2
    num_iterations: int = 15
    seed: int = 0

    def __post_init__(self):
        for name in ("dim", "num_iterations"):
            check_at_least(1, f"the {name} of iALS", getattr(self, name))
        for name in ("regularization", "unobserved_weight"):
            check_positive(f"the {name} of iALS", getattr(self, name))
        check_at_least(0, "the seed of iALS", self.seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Ials:
    """A trained `Baseline` of implicit feedback.

    Attributes:
      options: The options of the training.
      user_rows: `[num_users, dim]`, float32; 0 for a user without interactions.
      item_rows: `[num_items, dim]`, float32; 0 for an item without interactions.
    """

    options: IalsOptions
    user_rows: np.ndarray
    item_rows: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.user_rows.nbytes + self.item_rows.nbytes

    def reconstruct(self, items_of_user: np.ndarray) -> np.ndarray:
        """Returns the row of any user, seen or not: step 2 of the module, solved exactly.

        Args:
          items_of_user: `[n]`, int, the items that the user has; a repeated item counts once.

        Returns:
          `[dim]`, float32: the minimum of the loss with the item rows fixed; 0 if `n` is 0.
        """
        items = check_ids(np.unique(items_of_user), len(self.item_rows), "item")
        rows = self.item_rows[items].astype(np.float64)
        row = np.linalg.solve(self._system_of_no_items + rows.T @ rows, rows.sum(axis=0))
        return row.astype(np.float32)

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the products of the candidates' rows with the user's reconstructed row."""
        return self.item_rows[candidates] @ self.reconstruct(item_ids[labels > 0])

    @functools.cached_property
    def _system_of_no_items(self) -> np.ndarray:
        """`a * Y'Y + r * I`, `[dim, dim]`, float64: the same for every user."""
        rows = self.item_rows.astype(np.float64)
        penalty = self.options.regularization * np.eye(rows.shape[1])
        return self.options.unobserved_weight * (rows.T @ rows) + penalty


def train_ials(
    users: np.ndarray,
    items: np.ndarray,
    ratings: None = None,
    *,
    num_users: int,
    num_items: int,
    options: IalsOptions,
) -> Ials:
    """Alternates steps 2 and 3 (implicit feedback) on all cores of the machine; see `baseline`."""
    check_implicit(ratings, "iALS")
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)

    from scipy import sparse  # Importing the options need not cost the time of this import.

    pairs = sparse.csr_matrix(
        (np.ones(len(users), np.float32), (users, items)), (num_users, num_items)
    )
    pairs.data[:] = 1.0  # SciPy adds up a repeated pair.
    user_rows, item_rows = _minimize(pairs, options)
    for rows in (user_rows, item_rows):
        rows.flags.writeable = False
    return Ials(options, user_rows, item_rows)


def _minimize(pairs, options: IalsOptions) -> tuple[np.ndarray, np.ndarray]:
    """Returns the user rows and item rows of a sparse matrix with ones at the observed pairs."""
    import threadpoolctl
    from implicit.cpu.als import AlternatingLeastSquares

    num_users, num_items = pairs.shape
    confidence = (1.0 + options.unobserved_weight) / options.unobserved_weight
    lengthening = np.sqrt(1.0 + options.unobserved_weight)
    stddev = _INITIAL_STDDEV / np.sqrt(options.dim)
    initial = rng.generator(options.seed, "iALS item rows").normal(
        0.0, stddev * lengthening, (num_items, options.dim)
    )
    # Each thread of implicit solves for other rows. A BLAS that splits these small systems further
    # only slows them down.
    with threadpoolctl.threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=options.dim,
            alpha=confidence,
            regularization=options.regularization * confidence,
            iterations=options.num_iterations,
            use_cg=False,  # The default, three steps of conjugate gradients, misses the minimum.
        )
        # `fit` starts from rows that are set; it never reads the user rows.
        model.user_factors = np.zeros((num_users, options.dim), np.float32)
        model.item_factors = initial.astype(np.float32)
        model.fit(pairs, show_progress=False)
        user_rows = model.recalculate_user(np.arange(num_users), pairs)
    return user_rows / lengthening, model.item_factors / lengthening
