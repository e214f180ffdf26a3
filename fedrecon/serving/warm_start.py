"""Training goes on from a model that was trained before, on a catalog that may have grown.

The rows of item tables follow their items' own ids. An item that the old model does not know starts
from its genres: a ridge regression of the trained rows on genres says what a row of these genres is
like. Without genres it starts from the mean of the trained rows. Other weights are taken as they
are. Rows of users do not take part: an algorithm that keeps some begins them anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedrecon.data.population import known_parts
from fedrecon.data.ratings import Ratings
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import StartedModelFn, from_description
from fedrecon.models.split_model import ModelFn
from fedrecon.serving.linear import LinearModel
from fedrecon.serving.matching import match_items
from fedrecon.serving.recommender import Recommender

# A row counts as n / (n + this), with n training ratings: a row of few ratings is mostly its start.
_RATINGS_OF_HALF_WEIGHT = 10.0
_RIDGE = 1.0


def warm_started(model_fn: ModelFn, trained: Recommender, ratings: Ratings) -> ModelFn:
    """Returns a function that builds the same model, started from trained weights.

    Args:
      model_fn: Builds the model for the items of `ratings`.
      trained: The model that was trained before, of the same kind and width.
      ratings: The data to go on with.

    Raises:
      InputError: If no item is known, or the models have other weights.
    """
    matching = match_items(trained.items, ratings)
    content = _content(trained.items.genres, ratings.item_genres, len(matching.rows))
    counts = trained.items.num_ratings.astype(np.float64)
    values = {}
    weights = FunctionalModel(model_fn()).global_weights
    unused = sorted(trained.weights.keys() - {weight.name for weight in weights})
    if unused:
        raise InputError(
            f"the run to start from has the weight {unused[0]}, and the model has none; train with "
            "the model of that run."
        )
    for weight in weights:
        if not weight.trainable:  # It belongs to the data, not to the training.
            continue
        old = trained.weights.get(weight.name)
        shape = tuple(weight.shape)
        expected = (len(trained.items), *shape[1:]) if weight.is_item_table else shape
        if old is None or old.shape != expected:
            found = "no such weight" if old is None else f"the shape {list(old.shape)}"
            raise InputError(
                f"the model has the weight {weight.name} of shape {list(shape)}, for which the run "
                f"to start from has {found}; train with its model and its width."
            )
        values[weight.name] = (
            _rows(old, matching.rows, counts, *content) if weight.is_item_table else old
        )
    return StartedModelFn(model_fn, values)


def _rows(
    old: np.ndarray, matched: np.ndarray, counts: np.ndarray, of_old: np.ndarray, of_new: np.ndarray
) -> np.ndarray:
    """Returns the rows of all items, `[num_items, d]`: of known ones the old, of others a guess."""
    guessed = of_new @ fit_content(of_old, old, counts)
    is_known = (matched >= 0)[:, np.newaxis]
    return np.where(is_known, old[np.maximum(matched, 0)], guessed).astype(old.dtype)


def model_of(trained: Recommender, num_items: int) -> ModelFn:
    """Returns the function that builds the same model for another number of items.

    Raises:
      InputError: If code outside of this package built the model.
    """
    described = trained.model_description
    if described is None:
        raise InputError(
            "code outside of this package built the model to start from; pass the function that "
            "builds it for the new items, as model=..."
        )
    arguments = {**described["arguments"], "num_items": num_items}
    return from_description({**described, "arguments": arguments})


def parts_before(trained: Recommender, ratings: Ratings) -> np.ndarray:
    """Returns the part that each user had before, `[num_users]`; see `population.known_parts`.

    Raises:
      InputError: If the model does not say whom it was trained on.
    """
    if trained.parts is None:
        raise InputError(
            "the model to start from does not say whom it was trained on, so its users could be "
            "taken for unseen ones; load it from the directory of its run."
        )
    return known_parts(ratings, trained.parts)


def with_rows_from_content(recommender: Recommender) -> Recommender:
    """Returns a model that knows the items without training ratings by their genres.

    Their rows are those with which a warm start begins new items; nothing is trained.

    Args:
      recommender: Its model is linear.

    Raises:
      InputError: If the model is not linear, or no item has genres.
    """
    items, model = recommender.items, recommender.model
    if not isinstance(model, LinearModel):
        raise InputError(
            "only the item rows of a model that is linear in its local part are known."
        )
    if not any(items.genres):
        raise InputError(f"the items of {recommender.about.data} have no genres.")
    content, _ = _content(items.genres, None, 0)
    counts = items.num_ratings.astype(np.float64)
    is_new = items.num_ratings == 0
    factors, offsets = model.factors.copy(), model.offsets.copy()
    factors[is_new] = content[is_new] @ fit_content(content, factors, counts)
    offsets[is_new] = (content[is_new] @ fit_content(content, offsets[:, np.newaxis], counts))[:, 0]
    return Recommender(
        items,
        dataclasses.replace(model, factors=factors, offsets=offsets),
        recommender.about,
        weights=recommender.weights,
        model_description=recommender.model_description,
        ratings=recommender.ratings,
        parts=recommender.parts,
    )


def fit_content(content: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the weights `[f, d]` of a ridge regression of trained rows on content.

    Args:
      content: `[num_items, f]`, the first column of ones.
      rows: `[num_items, d]`.
      counts: `[num_items]`: the training ratings of each; a row of none does not count.
    """
    weights = counts / (counts + _RATINGS_OF_HALF_WEIGHT)
    weighted = content * weights[:, np.newaxis]
    penalties = np.full(content.shape[1], _RIDGE)
    penalties[0] = 1e-6  # The mean itself is not shrunk.
    matrix = weighted.T @ content + np.diag(penalties)
    return np.linalg.solve(matrix, weighted.T @ rows.astype(np.float64))


def _content(
    old: Sequence[tuple[str, ...]], new: Sequence[tuple[str, ...]] | None, num_new: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ones and genres of old and of new items, `[n, 1 + genres]` each."""
    names = sorted(set().union(*old))

    def of_items(genres, number):
        content = np.zeros((number, 1 + len(names)))
        content[:, 0] = 1.0
        for row, own in enumerate(genres or ()):
            for name in own:
                if name in place:
                    content[row, place[name]] = 1.0
        return content

    place = {name: column for column, name in enumerate(names, start=1)}
    return of_items(old, len(old)), of_items(new, num_new)
