"""The leave-one-out files of "Neural Collaborative Filtering" (He et al., 2017).

Each user's latest rating is the test (of Pinterest, which has no times, some interaction). 99 items
that the user did not rate were drawn for it once, so that everyone ranks the same 100 candidates.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np

from fedrecon.data.rating_table import parse_rating_table, show
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.sources import Source
from fedrecon.errors import DataError

NUM_NEGATIVES = 99
_WHOLE_STARS = RatingScale(1, 5, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """One held-out item for every user, with the published negatives.

    What it cannot measure: absolute quality (a rank among 100 candidates is far better than among
    all items), or items that appear after the training data ends.

    Attributes:
      ratings: All interactions: `train` and `test`.
      train: All ratings but the held-out ones.
      test: The held-out ratings, in the id space of `train`; row `u` is user `u`.
      negatives: `[num_users, 99]`, int32, read-only: the items to rank the held-out one against.
        None is in the user's `train`, none comes twice. In the published files a few are the
        held-out item itself (`num_negatives_equal_to_test_item`); in other files for MovieLens
        that is refused.
    """

    ratings: Ratings
    train: Ratings
    test: Ratings
    negatives: np.ndarray

    @property
    def test_items(self) -> np.ndarray:
        """`[num_users]`, int32: each user's held-out item."""
        return self.test.item_ids

    @property
    def num_negatives_equal_to_test_item(self) -> int:
        """How many negatives are the user's own held-out item: 156 as published, else none."""
        return int((self.negatives == self.test_items[:, None]).sum())


@dataclasses.dataclass(frozen=True)
class NcfLayout:
    """The three files; the first may be compressed. Their numbers are dense ids already.

    Attributes:
      prefix: What the names of the files begin with.
      scale: The ratings that exist.
      allows_test_item: Whether a user's held-out item may be among its negatives, in any file. The
        authors drew negatives of all items that a user does not train on, so it happens.
    """

    prefix: str = "ml-1m"
    scale: RatingScale = _WHOLE_STARS
    allows_test_item: bool = False

    @property
    def files(self) -> tuple[str, str, str]:
        """The files without which there is no data set: train, test and negatives."""
        train, test, negatives = "train.rating", "test.rating", "test.negative"
        return f"{self.prefix}.{train}", f"{self.prefix}.{test}", f"{self.prefix}.{negatives}"

    def read(self, source: Source, *, name: str) -> Ratings:
        """Returns all interactions, of both files; dense and original ids are the files' numbers.

        Raises:
          DataError: If a file cannot be read or is malformed, if a pair comes twice (in one file or
            both), or if users or items are not numbered without gaps.
        """
        return self._read(source, name)[0]

    def read_leave_one_out(self, source: Source, *, name: str) -> LeaveOneOut:
        """Returns train rows, test rows and negatives.

        Raises:
          DataError: As `read`; also if the two test files disagree, if the test does not have one
            row per user in order, or if a negative is an item that nobody rated, comes twice, or is
            an item that the user has.
        """
        ratings, is_test = self._read(source, name)
        train, test = ratings.select(~is_test), ratings.select(is_test)
        _, test_file, negative_file = self.files
        negatives = _parse_negatives(
            source.read(negative_file),
            label=source.label(negative_file),
            train=train,
            test=test,
            test_label=source.label(test_file),
            allows_test_item=self.allows_test_item,
        )
        return LeaveOneOut(ratings, train, test, negatives)

    def _read(self, source: Source, name: str) -> tuple[Ratings, np.ndarray]:
        """Returns all interactions, and which of them are held out: bool, `[num_ratings]`."""
        files = self.files[:2]
        labels = [source.label(file) for file in files]
        train, test = (
            parse_rating_table(
                source.read(file), label=label, separator="\t", header=None, scale=self.scale
            )
            for file, label in zip(files, labels)
        )
        num_train = len(train.user_ids)

        def name_of_row(row: int) -> str:
            in_test = row >= num_train
            return f"{labels[in_test]}, line {row + 1 - num_train * in_test}"

        ratings = Ratings.from_original_ids(
            name,
            user_ids=np.concatenate([train.user_ids, test.user_ids]),
            item_ids=np.concatenate([train.item_ids, test.item_ids]),
            ratings=np.concatenate([train.ratings, test.ratings]),
            timestamps=np.concatenate([train.timestamps, test.timestamps]),
            scale=self.scale,
            name_of_row=name_of_row,
        )
        for kind, ids in (("user", ratings.original_user_ids), ("item", ratings.original_item_ids)):
            gaps = np.flatnonzero(ids != np.arange(len(ids)))
            if gaps.size:
                raise DataError(
                    f"{labels[0]} and {labels[1]}: expected {kind}s numbered from 0 without gaps, "
                    f"found no rating of {kind} {gaps[0]} but one of {ids[gaps[0]]}."
                )
        off = np.flatnonzero(test.user_ids != np.arange(len(test.user_ids)))
        if off.size:
            raise DataError(
                f"{labels[1]}, line {off[0] + 1}: expected the row of user {off[0]}, found user "
                f"{test.user_ids[off[0]]}."
            )
        if len(test.user_ids) != ratings.num_users:
            raise DataError(
                f"{labels[1]}: expected one line for each of {ratings.num_users} users, found "
                f"{len(test.user_ids)}."
            )
        # Row u of the test file is of user u, whose pair no other row has.
        return ratings, ratings.item_ids == test.item_ids[ratings.user_ids]


# The published file of negatives (SHA-256), in which 156 users have their own test item among them.
_PUBLISHED_NEGATIVES = "127853228a76b7d21c0481e8ef8d00dd009cd5c88670dbdd9e9debfdb9f93de4"


def _parse_negatives(
    data: bytes,
    *,
    label: str,
    train: Ratings,
    test: Ratings,
    test_label: str,
    allows_test_item: bool,
) -> np.ndarray:
    r"""Returns int32 `[num_users, 99]` from lines `(user,item)\tnegative\t...`."""
    negatives = np.empty((test.num_users, NUM_NEGATIVES), np.int32)
    digest = hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()
    is_published = digest == _PUBLISHED_NEGATIVES
    lines = data.removesuffix(b"\n").split(b"\n")
    for user, line in enumerate(lines[: test.num_users]):
        where = f"{label}, line {user + 1}"
        match = re.fullmatch(
            rb"\(([0-9]{1,9}),([0-9]{1,9})\)((?:\t[0-9]{1,9}){%d})\r?" % NUM_NEGATIVES, line
        )
        if match is None:
            raise DataError(
                f"{where}: expected '(user,item)' and {NUM_NEGATIVES} item numbers separated by "
                f"tabs, found {line.count(bytes([9])) if line else 'an empty line'}"
                f"{' tabs in ' + show(line) if line else ''}."
            )
        pair = int(match[1]), int(match[2])
        if pair != (user, test.item_ids[user]):
            raise DataError(
                f"{where}: expected ({user},{test.item_ids[user]}) as in line {user + 1} of "
                f"{test_label}, found ({pair[0]},{pair[1]})."
            )
        negatives[user] = np.array(match[3].split(), np.int32)
        if negatives[user].max() >= test.num_items:
            raise DataError(
                f"{where}: expected negatives below {test.num_items}, the number of items, found "
                f"{negatives[user].max()}."
            )
        if not is_published:
            own = train.item_ids[train.rows_of(user)]
            _check_negatives(negatives[user], where, own, None if allows_test_item else pair[1])
    if len(lines) != test.num_users:
        raise DataError(
            f"{label}: expected {test.num_users} lines, one per user as in {test_label}, found "
            f"{len(lines) if data else 0}."
        )
    negatives.flags.writeable = False
    return negatives


def _check_negatives(
    negatives: np.ndarray, where: str, own: np.ndarray, held_out: int | None
) -> None:
    """Refuses a user's negatives among which the rank of the held-out item would be wrong."""
    distinct, counts = np.unique(negatives, return_counts=True)
    if counts.max() > 1:
        raise DataError(
            f"{where}: expected {NUM_NEGATIVES} different items, found item "
            f"{distinct[counts.argmax()]} {counts.max()} times; draw negatives without replacement."
        )
    for has, what in (
        (np.isin(negatives, own), "items that the user has no rating of"),
        (negatives == held_out, "items other than the held-out one"),
    ):
        if has.any():
            raise DataError(
                f"{where}: expected {what}, found item {negatives[has.argmax()]}"
                + (f" and {has.sum() - 1} more" if has.sum() > 1 else "")
                + "; draw negatives from the other items."
            )
