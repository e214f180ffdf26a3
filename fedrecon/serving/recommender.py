"""Recommendations, predictions and item factors of a trained model, by the data's own ids."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon.data.column_names import USER
from fedrecon.data.columns import choose_of_frame
from fedrecon.data.ratings import Ratings
from fedrecon.errors import InputError
from fedrecon.evaluation.best_items import best_items
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.linear import LinearModel
from fedrecon.serving.names import Names, refusal
from fedrecon.serving.person import Placed, place
from fedrecon.serving.scores import score_blocks

if TYPE_CHECKING:
    import pandas as pd

    from fedrecon.serving.stepwise import StepwiseModel


class Recommender:
    """A trained model that serves anybody by a few ratings.

        recommender = fr.load_run("runs/first")
        recommender.recommend({"Matrix, The (1999)": 5, "Babe (1995)": 2}, k=10)

    A user is either ratings or a user id of the data, if the data is at hand (`ratings`). Ratings
    are a mapping of items to stars, a data frame with the columns `item` and `rating`, or, where
    items are ranked, items alone. An item is an id or a title. Items that the model does not know
    are left out with a warning. Every user is reconstructed; nothing is learned from one.

    Attributes:
      items: The items.
      model: Finds users' vectors, and scores.
      about: Where the model comes from.
      weights: The global weights by name, as they were trained.
      model_description: From which the Keras model can be built again; see `model_fn.description`.
      ratings: The data, for user ids; None if it is not at hand.
      parts: Who trained and who did not, by the users' own ids (see `population.parts_of`); None if
        only a model is at hand. A warm start needs it.
    """

    def __init__(
        self,
        items: Items,
        model: LinearModel | StepwiseModel,
        about: About,
        *,
        weights: dict[str, np.ndarray],
        model_description: dict[str, Any] | None = None,
        ratings: Ratings | None = None,
        parts: Mapping[str, str] | None = None,
    ):
        self.items = items
        self.model = model
        self.about = about
        self.weights = weights
        self.model_description = model_description
        self.ratings = ratings
        self.parts = parts

    # --- for one user -----------------------------------------------------------------------------

    def recommend(
        self,
        ratings_or_user: Any,
        k: int = 10,
        *,
        exclude: Iterable[Any] = (),
        includes_given: bool = False,
        min_ratings: int = 1,
    ) -> pd.DataFrame:
        """Returns the items with the highest scores, the best first.

        Args:
          ratings_or_user: See `Recommender`.
          k: The most items.
          exclude: Items that are not wanted, besides those that the user gives.
          includes_given: Whether items that the user gives may be recommended.
          min_ratings: Items with fewer training ratings are not recommended. Nothing was learned
            about an item without any.

        Returns:
          The columns `item_id`, `title` and `score`: the predicted rating in stars (not cut to the
          scale), or where items are ranked a score whose order counts.

        Raises:
          InputError: If nothing that is given is known, or `k` is not positive.
        """
        placed = self.place(ratings_or_user)
        hidden = {self._row(item) for item in exclude}
        rows, scores = next(
            self.best_rows(
                [placed], k, hidden=hidden, includes_given=includes_given, min_ratings=min_ratings
            )
        )
        return self.table(rows, scores)

    def predict(self, ratings_or_user: Any, items: Sequence[Any]) -> pd.Series:
        """Returns a user's scores of some items, by item id; see `recommend`."""
        rows = [self._row(item) for item in items]
        return self.score_all(ratings_or_user).iloc[rows]

    def score_all(self, ratings_or_user: Any) -> pd.Series:
        """Returns a user's score of every item, by item id; see `recommend`."""
        import pandas as pd

        (scores,) = self.model.scores(self._vectors([self.place(ratings_or_user)]))
        return pd.Series(scores, index=pd.Index(self.items.ids, name="item_id"), name="score")

    def user_vector(self, ratings_or_user: Any) -> np.ndarray:
        """Returns the vector that a user is reconstructed as, `[k]` float32."""
        return self._vectors([self.place(ratings_or_user)])[0]

    def explain(self, ratings_or_user: Any, item: Any) -> pd.DataFrame:
        """Returns how much each given rating adds to the score of an item, the most first.

        For models whose users are solved for; the formula is in `LinearModel.contributions`. The
        contributions and the score of somebody who gives nothing add up to the score.

        Returns:
          The columns `item_id`, `title`, `rating` and `contribution`. `attrs` has `score` and
          `score_without_ratings`.

        Raises:
          InputError: If the model has no such formula.
        """
        placed, row = self.place(ratings_or_user), self._row(item)
        ratings, contributions = self.contributions(placed, row)
        table = self.table(placed.rows, contributions).rename(columns={"score": "contribution"})
        table.insert(2, "rating", ratings)
        table = table.sort_values("contribution", ascending=False, kind="stable")
        table = table.reset_index(drop=True)
        base = float(self.model.offsets[row])
        table.attrs.update(score=base + float(contributions.sum()), score_without_ratings=base)
        return table

    def contributions(self, placed: Placed, row: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Returns given ratings `[n]` and what each adds to an item's score, `[n]`, by given item.

        Raises:
          InputError: If the model has no such formula.
        """
        if not isinstance(self.model, LinearModel):
            raise InputError(
                "only a model whose users are solved for has an explanation, and this one takes "
                "gradient steps."
            )
        if self.about.is_implicit and self.about.negatives_per_positive:
            raise InputError(
                "the model is fitted to drawn negatives besides the given items, so the given "
                "items alone explain nothing; fed_ials draws none."
            )
        rows, labels = self._given(placed)
        found = self.model.contributions(rows, labels, row)
        order = np.argsort(rows)[np.argsort(np.argsort(placed.rows))]
        return placed.ratings, found[order]

    # --- for many users ---------------------------------------------------------------------------

    def recommend_many(
        self, table: pd.DataFrame, k: int = 10, *, min_ratings: int = 1
    ) -> pd.DataFrame:
        """Returns recommendations for each user of a table; see `recommend`.

        Args:
          table: The columns `user`, `item` and, where ratings are predicted, `rating`.
          k: The most items for each user.
          min_ratings: See `recommend`.

        Returns:
          The columns `user`, `rank` (from 1), `item_id`, `title` and `score`, by user in the order
          of the table.

        Raises:
          InputError: If a column or a user is missing, if what a user gives cannot be used, or if
            no user gives an item that is known.

        Warns if items are unknown, and leaves out users all of whose items are.
        """
        import pandas as pd

        user = choose_of_frame(table.columns).get(USER)
        if user is None:
            raise InputError(
                f"the columns are {', '.join(map(str, table.columns))}, and none is known as the "
                f"user; call it {USER}."
            )
        missing = np.flatnonzero(table[user].isna())
        if missing.size:
            raise InputError(f"row {missing[0]} (from 0) has no {user}; give each row a user.")
        names, placed, unknown = [], [], []
        for name, of_user in table.groupby(user, sort=False):
            try:
                found = self._placed(of_user)
                if len(found.rows):
                    self._given(found)
            except InputError as error:
                raise InputError(f"user {name}: {error}") from error
            (names if len(found.rows) else unknown).append(name)
            placed += [found] if len(found.rows) else []
        if not names:
            raise InputError("no user gives an item that the model knows.")
        if unknown:
            listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            warnings.warn(
                f"Left out, as the model knows none of their items: {_counted(unknown, 'user')} "
                f"({listed}).",
                stacklevel=2,
            )
        unplaced = [item for one in placed for item in one.unplaced]
        if unplaced:
            listed = ", ".join(unplaced[:5]) + (", ..." if len(unplaced) > 5 else "")
            warnings.warn(
                f"Left out, as the model does not know them: {_counted(unplaced, 'given item')} of "
                f"other users ({listed}).",
                stacklevel=2,
            )
        # One table of all users: a data frame for each takes longer than the arithmetic.
        found = list(self.best_rows(placed, k, min_ratings=min_ratings))
        counts = [len(rows) for rows, _ in found]
        best = self.table(*map(np.concatenate, zip(*found)))
        best.insert(0, "rank", np.concatenate([np.arange(1, count + 1) for count in counts]))
        best.insert(0, "user", pd.Index(names).repeat(counts))
        return best

    # --- items ------------------------------------------------------------------------------------

    def popular(self, k: int = 10, *, min_ratings: int = 1) -> pd.DataFrame:
        """Returns the items with the most training ratings, whose number is the `score`."""
        counts = self.items.num_ratings
        wanted = np.where(counts < min_ratings, -np.inf, counts)
        rows = best_items(wanted, _checked_k(k))
        return self.table(rows, counts[rows])

    def similar_items(self, item: Any, k: int = 10, *, min_ratings: int = 1) -> pd.DataFrame:
        """Returns the items whose factors have the largest cosine with those of an item.

        Args:
          item: An id or a title.
          k: The most items.
          min_ratings: See `recommend`.

        Returns:
          The columns `item_id`, `title` and `score`, the cosine.
        """
        row, vectors = self._row(item), self.model.item_vectors().astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = vectors @ vectors[row] / np.maximum(lengths * lengths[row], 1e-30)
        cosines[self.items.num_ratings < min_ratings] = -np.inf
        cosines[row] = -np.inf
        rows = best_items(cosines, _checked_k(k))
        return self.table(rows, cosines[rows])

    def item_factors(self) -> pd.DataFrame:
        """Returns the item factors, one row an item, by item id; biases are no factors."""
        import pandas as pd

        index = pd.Index(self.items.ids, name="item_id")
        return pd.DataFrame(self.model.item_vectors(), index=index)

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model to a folder, which `load_run` reads; see `serving.files`."""
        from fedrecon.serving import files

        files.write(self, path)

    # --- rows -------------------------------------------------------------------------------------

    def place(self, ratings_or_user: Any) -> Placed:
        """Returns the rows of what a user gives; see `Recommender`.

        Raises:
          InputError: If nothing that is given is known.
        """
        if isinstance(ratings_or_user, Placed):
            return ratings_or_user
        if isinstance(ratings_or_user, (str, int, np.integer)):
            return self._placed_user(ratings_or_user)
        placed = self._placed(ratings_or_user)
        if placed.unplaced:
            told = " ".join(placed.unplaced_sentences(self.items))
            if not len(placed.rows):
                raise InputError(f"the model knows none of the given items. {told}")
            warnings.warn(f"Left out: {told}", stacklevel=3)
        return placed

    def best_rows(
        self,
        placed: Sequence[Placed],
        k: int,
        *,
        hidden: Collection[int] = (),
        includes_given: bool = False,
        min_ratings: int = 1,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields rows of the best items and their scores for each user; see `recommend`."""
        _checked_k(k)
        never = np.flatnonzero(self.items.num_ratings < min_ratings)
        never = np.union1d(never, np.fromiter(hidden, np.int64, len(hidden)))
        for block, scores in score_blocks(self.model, [self._given(one) for one in placed]):
            scores[:, never] = -np.inf
            for place_of_user, scored in zip(block.tolist(), scores):
                if not includes_given:
                    scored[placed[place_of_user].rows] = -np.inf
                rows = best_items(scored, k)
                yield rows, scored[rows]

    def table(self, rows: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """Returns the columns `item_id`, `title` and `score` of some rows."""
        import pandas as pd

        titles = [self.items.titles[row] for row in rows.tolist()]
        return pd.DataFrame({"item_id": self.items.ids[rows], "title": titles, "score": scores})

    def _vectors(self, placed: Sequence[Placed]) -> np.ndarray:
        return self.model.user_vectors([self._given(one) for one in placed])

    def _given(self, placed: Placed) -> tuple[np.ndarray, np.ndarray]:
        return self.about.given(placed.rows, placed.ratings, len(self.items))

    def _row(self, item: Any) -> int:
        row = self.items.find(item)
        if row is None:
            raise InputError(self.items.refusal(item))
        return row

    def _placed(self, ratings: Any) -> Placed:
        return place(self.items, ratings, takes_ratings=not self.about.is_implicit)

    def _placed_user(self, user: str | int) -> Placed:
        if self.ratings is None:
            raise InputError(
                f"{user!r} may be a user id, and the model has no data of users; give ratings, or "
                "set `ratings` to the data."
            )
        return self._placed_rows(self.ratings.rows_of(self._dense_user(user)))

    def _dense_user(self, user: str | int) -> int:
        """Returns a user of the data, named as an item is: whatever the case of the letters."""
        ids = self.ratings.original_user_ids
        if ids.dtype.kind != "U":
            return self.ratings.dense_user_id(_whole(user))
        names = Names((name, row) for row, name in enumerate(ids.tolist()))
        found = names.find(str(user))
        if len(found) != 1:
            unknown = f"{self.ratings.name} has no user {str(user)!r}"
            offers = list(map(repr, ids.tolist()))
            raise InputError(
                refusal(str(user), names, kind="user", unknown=unknown, offer=offers.__getitem__)
            )
        return found[0]

    def _placed_rows(self, rows: np.ndarray) -> Placed:
        """Returns some ratings of the data, whose items are those of the model."""
        ratings = None if self.about.is_implicit else self.ratings.ratings[rows].astype(np.float64)
        return Placed(self.ratings.item_ids[rows].astype(np.int64), ratings, ())


def _whole(user: str | int) -> int | str:
    try:
        return int(str(user))
    except ValueError:
        return str(user)


def _counted(things: Sequence[Any], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _checked_k(k: int) -> int:
    if k < 1:
        raise InputError(f"k is {k}; it must be at least 1.")
    return k
