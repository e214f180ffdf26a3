"""Item-based nearest neighbors, on one machine.

Classical references of a comparison: the trainer sees every interaction. `n_i` training users have
item `i`, and `n_ij` have both `i` and `j`. A few common users prove little, so every similarity is
damped by `n_ij / (n_ij + shrinkage)`. An item is not its own neighbor.

Implicit feedback (Sarwar et al. 2001, "Item-based Collaborative Filtering Recommendation
Algorithms"; Deshpande and Karypis 2004, "Item-based Top-N Recommendation Algorithms"):

1. `s_ij = n_ij / sqrt(n_i * n_j)`, the cosine of two binary columns, damped.
2. The neighbors of an item `j` are the `num_neighbors` items most similar to it.
3. The score of `j` is the sum of `s_ij` over the user's items `i` that are neighbors of `j`. So the
   candidate's neighbors count, as in Sarwar et al. Deshpande and Karypis, and the library
   `implicit`, use the neighbors of the user's items.

Explicit feedback (Koren 2010, "Factor in the Neighbors: Scalable and Accurate Collaborative
Filtering"; the adjusted cosine of Sarwar et al. has the user's mean as its baseline):

1. `e_ui` is the rating minus the prediction of a baseline for `u`, which is given all training
   ratings of `u`.
2. `s_ij` is the cosine of the columns of `e` over the common raters alone, damped:
   `sum of e_ui * e_uj / sqrt(sum of e_ui^2 * sum of e_uj^2)`, all three over the `n_ij` raters.
3. The neighbors of an item `j` for a user are the `num_neighbors` most similar items among the
   items that the user rated and that have `s_ij > 0`.
4. The prediction for `j` is the baseline plus `sum of s_ij * e_ui / sum of s_ij` over these
   neighbors. Without neighbors it is the baseline alone.

Similarities are float32. Of two equally similar items, the one with the lower id is nearer.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.baselines.baseline import Baseline, check_implicit, check_pairs, check_ratings
from fedrecon.baselines.popularity import PopularityOptions, train_rating_baseline
from fedrecon.errors import check_at_least

# The two kinds of feedback need opposite values; `ItemKnnOptions` has the figures.
IMPLICIT_SHRINKAGE = 0.0
EXPLICIT_SHRINKAGE = 500.0


@dataclasses.dataclass(frozen=True)
class ItemKnnOptions:
    """How many neighbors count, and how similarities are damped.

    The defaults were chosen on validation data of MovieLens 1M.

    - Implicit feedback: the last training rating of each user, ranked among 99 items that the user
      had not rated. NDCG@10 without shrinkage: 0.404 for 20 neighbors, 0.406 for 50, 0.402 for 100,
      0.394 for 200. With 50 neighbors: 0.404 for shrinkage 10, 0.391 for 100. The counts of
      `popularity` have 0.248.
    - Explicit feedback: RMSE on unseen users. With 50 neighbors: 0.887 for shrinkage 10, 0.879 for
      100, 0.877 for 500 and for 1000. With 20 neighbors: 0.879 for shrinkage 500. The baseline
      alone has 0.909.

    Attributes:
      num_neighbors: The most neighbors that an item has, positive.
      shrinkage: `>= 0`. This many common users halve a similarity; 0 damps nothing; None is
        `IMPLICIT_SHRINKAGE` or `EXPLICIT_SHRINKAGE`.
    """

    num_neighbors: int = 50
    shrinkage: float | None = None

    def __post_init__(self):
        check_at_least(1, "the num_neighbors of item kNN", self.num_neighbors)
        if self.shrinkage is not None:
            check_at_least(0, "the shrinkage of item kNN", self.shrinkage)

    def with_shrinkage(self, default: float) -> ItemKnnOptions:
        """Returns these options with a number as their shrinkage."""
        return self if self.shrinkage is not None else dataclasses.replace(self, shrinkage=default)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemKnn:
    """A trained `Baseline` of implicit feedback.

    Attributes:
      options: The options of the training; their shrinkage is a number.
      similarities: `[num_items, num_items]`, float32: having `i` adds entry `[i, j]` to the score
        of `j`. The entry is 0 unless `i` is a neighbor of `j`.
    """

    options: ItemKnnOptions
    similarities: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.similarities.nbytes

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the sums of step 3; all are 0 for a user who has nothing."""
        positives = np.unique(item_ids[labels > 0])
        # A whole row is contiguous in memory, so adding it is faster than picking from it.
        return self.similarities[positives].sum(axis=0)[candidates]


@dataclasses.dataclass(frozen=True, eq=False)
class RatingItemKnn:
    """A trained `Baseline` of explicit feedback.

    Attributes:
      options: The options of the training; their shrinkage is a number.
      baseline: The model whose residuals the neighbors explain.
      similarities: `[num_items, num_items]`, float32, symmetric: `s_ij`, or 0 if that is negative.
    """

    options: ItemKnnOptions
    baseline: Baseline
    similarities: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.similarities.nbytes + self.baseline.num_bytes

    def score(self, item_ids: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the predictions of steps 3 and 4 of explicit feedback."""
        by_id = np.argsort(item_ids, kind="stable")
        item_ids, labels = item_ids[by_id], labels[by_id]
        residuals = labels - self.baseline.score(item_ids, labels, item_ids)
        similarities = self.similarities[np.ix_(item_ids, candidates)]
        nearest = _nearest_first(similarities)[: self.options.num_neighbors]
        weights = np.take_along_axis(similarities, nearest, axis=0)
        shift = _ratio((weights * residuals[nearest]).sum(axis=0), weights.sum(axis=0))
        return (self.baseline.score(item_ids, labels, candidates) + shift).astype(np.float32)


def train_item_knn(
    users: np.ndarray,
    items: np.ndarray,
    ratings: None = None,
    *,
    num_users: int,
    num_items: int,
    options: ItemKnnOptions,
) -> ItemKnn:
    """Finds the neighbors of each item by who has it (implicit feedback); see `baseline`.

    It needs a few float64 matrices `[num_items, num_items]`: 0.1 GB each on MovieLens 1M.
    """
    check_implicit(ratings, "item kNN by sets")
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)
    options = options.with_shrinkage(IMPLICIT_SHRINKAGE)
    has = _has(users, items, num_users=num_users, num_items=num_items)
    common = (has.T @ has).toarray()
    counts = common.diagonal()
    # The root is taken of quotients of integers, so equal similarities are equal numbers.
    cosines = np.sqrt(_ratio(common**2, np.outer(counts, counts)))
    similarities = (_damping(common, options.shrinkage) * cosines).astype(np.float32)
    others = _nearest_first(similarities)[options.num_neighbors :]
    np.put_along_axis(similarities, others, 0.0, axis=0)
    similarities.flags.writeable = False
    return ItemKnn(options, similarities)


def train_rating_item_knn(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    *,
    num_users: int,
    num_items: int,
    options: ItemKnnOptions,
    baseline: Baseline | None = None,
) -> RatingItemKnn:
    """Finds items whose ratings deviate alike (explicit feedback); see `baseline`.

    It needs a few float64 matrices `[num_items, num_items]`: 0.1 GB each on MovieLens 1M.

    Args:
      users, items, ratings, num_users, num_items, options: See `baseline`.
      baseline: A model trained on the same ratings; None trains `popularity`'s, with its defaults.
    """
    users, items = check_pairs(users, items, num_users=num_users, num_items=num_items)
    check_ratings(users, items, ratings)
    options = options.with_shrinkage(EXPLICIT_SHRINKAGE)
    sizes = {"num_users": num_users, "num_items": num_items}
    if baseline is None:
        baseline = train_rating_baseline(
            users, items, ratings, **sizes, options=PopularityOptions()
        )
    has = _has(users, items, **sizes)
    residuals = _residuals(users, items, ratings, baseline)
    residuals = type(has)((residuals, (users, items)), has.shape)
    products = (residuals.T @ residuals).toarray()
    squares = (residuals.multiply(residuals).T @ has).toarray()  # [i, j]: the squares of i.
    cosines = _ratio(products, np.sqrt(squares * squares.T))
    damping = _damping((has.T @ has).toarray(), options.shrinkage)
    similarities = np.maximum(damping * cosines, 0.0).astype(np.float32)
    similarities.flags.writeable = False
    return RatingItemKnn(options, baseline, similarities)


def _has(users, items, *, num_users: int, num_items: int):
    """Returns a sparse matrix `[num_users, num_items]` with a 1 for each distinct pair."""
    from scipy import sparse  # Importing the options need not cost the time of this import.

    distinct = np.unique(users * num_items + items)
    return sparse.csr_matrix(
        (np.ones(len(distinct)), divmod(distinct, num_items)), (num_users, num_items)
    )


def _damping(common: np.ndarray, shrinkage: float) -> np.ndarray:
    """Returns `n_ij / (n_ij + shrinkage)`, and 0 on the diagonal."""
    damping = _ratio(common, common + shrinkage)
    np.fill_diagonal(damping, 0.0)
    return damping


def _residuals(users, items, ratings, baseline) -> np.ndarray:
    """Returns `e_ui`, `[n]`, float64, for each row."""
    residuals = np.zeros(len(users))
    by_user = np.argsort(users, kind="stable")
    for rows in np.split(by_user, np.flatnonzero(np.diff(users[by_user])) + 1):
        predictions = baseline.score(items[rows], ratings[rows], items[rows])
        residuals[rows] = ratings[rows] - predictions
    return residuals


def _nearest_first(similarities: np.ndarray) -> np.ndarray:
    """Returns the row numbers of each column, int64, by falling similarity and then by number."""
    return np.argsort(-similarities, axis=0, kind="stable")


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotient, float64, and 0 where the denominator (`>= 0`) is 0."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)
