"""EASE: a linear model from a user's items to all items, in closed form, on one machine.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data" (arXiv:1905.03375). `X` is the
binary matrix `[num_users, num_items]` of implicit feedback, and the score of item `j` for a user
with items `I` is the sum over `i` in `I` of `B[i, j]`. The weights minimize

    |X - X B|^2 + r * |B|^2,  with the diagonal of B zero,

so that an item does not predict itself. With the Gram matrix `G = X'X` (how many users have both of
two items) and `P = (G + r I)^-1`, the minimum has `B[i, j] = -P[i, j] / P[j, j]` off the diagonal.

`G` is all that training needs of the users, and it is a sum over them: `fed_ease` sums it by TFF.

`G` and `P` are float64, as the inverse of a nearly singular matrix needs it; `B` is float32.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.baselines.baseline import check_implicit, check_pairs
from fedrecon.errors import check_positive


@dataclasses.dataclass(frozen=True)
class EaseOptions:
    """How strongly the weights are drawn to 0.

    Attributes:
      regularization: `r`, positive. It is compared with numbers of users, so a good value grows
        with the data.
    """

    regularization: float = 500.0

    def __post_init__(self):
        check_positive("the regularization of EASE", self.regularization)


@dataclasses.dataclass(frozen=True, eq=False)
class Ease:
    """A trained `Baseline` of implicit feedback.

    Attributes:
      options: The options of the training.
      weights: `[num_items, num_items]`, float32: having `i` adds entry `[i, j]` to the score of
        `j`. The diagonal is 0.
    """

    options: EaseOptions
    weights: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.weights.nbytes

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the sums of weights; all are 0 for a user who has nothing."""
        positives = np.unique(item_ids[labels > 0])
        # A whole row is contiguous in memory, so adding it is faster than picking from it.
        return self.weights[positives].sum(axis=0)[candidates]


def train_ease(
    users: np.ndarray,
    items: np.ndarray,
    ratings: None = None,
    *,
    num_users: int,
    num_items: int,
    options: EaseOptions,
) -> Ease:
    """Solves for the weights (implicit feedback); see `baseline`.

    It needs two float64 matrices `[num_items, num_items]`: 0.1 GB each on MovieLens 1M, 3.4 GB on
    MovieLens 20M.
    """
    check_implicit(ratings, "EASE")
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)
    return ease_of_gram(gram_matrix(users, items, num_items=num_items), options)


def gram_matrix(users: np.ndarray, items: np.ndarray, *, num_items: int) -> np.ndarray:
    """Returns how many users have both of two items, `[num_items, num_items]`, float64.

    Args:
      users: `[n]`, int64.
      items: `[n]`, int64: user `users[k]` has item `items[k]`; a repeated pair counts once.
      num_items: How many items there are.
    """
    from scipy import sparse  # Importing the options need not cost the time of this import.

    pairs = np.unique(users * num_items + items)
    shape = (users.max(initial=-1) + 1, num_items)
    has = sparse.csr_matrix((np.ones(len(pairs)), divmod(pairs, num_items)), shape)
    return (has.T @ has).toarray()


def ease_of_gram(gram: np.ndarray, options: EaseOptions) -> Ease:
    """Returns the minimum of the loss.

    Args:
      gram: `[num_items, num_items]`: how many users have both of two items.
      options: The regularization.
    """
    inverse = np.linalg.inv(gram + options.regularization * np.eye(len(gram)))
    weights = (inverse / -inverse.diagonal()).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    weights.flags.writeable = False
    return Ease(options, weights)
