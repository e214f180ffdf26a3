"""The users of an experiment: who trains, who is evaluated, and what nobody trains on.

A group of evaluated users is named by two facts, whatever the feedback:

    seen_validation     users of training, by ratings or items that settings may be chosen by
    seen_test           users of training, by ratings or items that decide nothing
    unseen_validation   users who take no part in training; settings may be chosen by them
    unseen_test         users who take no part in training and decide nothing

Where items are held out, two more groups ask the unseen users for the ratings of these cold items,
which nobody trains on and nobody gives: `cold_validation` and `cold_test`.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from fedrecon import rng
from fedrecon.data import held_out as held_out_lib
from fedrecon.data.examples import (
    ClientExamples,
    ExampleOptions,
    ImplicitExamples,
    ImplicitOptions,
)
from fedrecon.data.held_out import HeldOutItems
from fedrecon.data.ncf import LeaveOneOut
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.splits import exact_fraction, hold_out_items, hold_out_latest, split_by_user
from fedrecon.errors import DataError, InputError, check_at_least

# The parts that users are divided into, by number.
PARTS = ("train", "unseen_validation", "unseen_test")
_PARTS_HEADER = ("user_id", "part")
GROUPS = (
    *("seen_validation", "seen_test"),
    *("unseen_validation", "unseen_test"),
    *("cold_validation", "cold_test"),
)
EXPLICIT, IMPLICIT = "explicit", "implicit"
UNSEEN_HALVES = ("random", "by_time")
# How users are divided and asked: as the feedback says, or as `published` or
# `strong_generalization` does.
STANDARD, PUBLISHED, STRONG_GENERALIZATION = "standard", "published", "strong_generalization"


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Users who are evaluated together.

    Attributes:
      users: `[n]` integer user ids, increasing.
      later: With explicit feedback, the ratings that seen users are asked for; None for unseen
        users, who are asked for a part of their own ratings.
      cold: With explicit feedback, the ratings of cold items that unseen users are asked for in
        place of a part of their other ratings; None for other groups.
      held_out: With implicit feedback, the item that each user is asked for.
      targets: By strong generalization, the items that the users are asked for, in place of one
        held-out item each; a user without any is asked nothing.
      num_tied: Of how many users the ratings that are held out were drawn among others of the same
        time, some of which remain. What is held out before (test before validation) does not count.
    """

    users: np.ndarray
    later: ClientExamples | None = None
    cold: ClientExamples | None = None
    held_out: HeldOutItems | None = None
    targets: Ratings | None = None
    num_tied: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """The users of an experiment and their ratings.

    Attributes:
      feedback: `"explicit"` (ratings are predicted) or `"implicit"` (items are ranked).
      ratings: The whole data set.
      examples: What each client contributes to a round, without anything that is held out.
      given: What a user gives to be evaluated by, without anything that is held out. It does not
        follow from how a training run orders its examples, so every run of a comparison is asked
        the same.
      train: `[n]` integer user ids, increasing: the users who take part in training.
      groups: The evaluated groups that there are, by name (`GROUPS`).
      seed: Decides who is in which group; every other draw of an experiment follows from it too.
      split: `STANDARD`, `PUBLISHED` or `STRONG_GENERALIZATION`: how users are divided and asked.
      unseen_halves: With explicit feedback, how an unseen user's ratings are halved into those
        given and those asked for; one of `UNSEEN_HALVES`.
      support_batch_size: The size of the batches of `unseen_halves="random"`.
    """

    feedback: str
    ratings: Ratings
    examples: ClientExamples | ImplicitExamples
    given: ClientExamples | ImplicitExamples
    train: np.ndarray
    groups: Mapping[str, Group]
    seed: int
    split: str = STANDARD
    unseen_halves: str = "random"
    support_batch_size: int = 5

    def group(self, name: str) -> Group:
        """Returns a group.

        Raises:
          InputError: If the population has no group of this name.
        """
        if name not in self.groups:
            raise InputError(
                f"there are no {name} users to evaluate; there are {', '.join(self.groups)}."
            )
        return self.groups[name]

    def fingerprint(self) -> str:
        """Returns a sha256, in hex, of the ratings, and of the order of lines where that counts."""
        of_ratings = self.ratings.fingerprint()
        row_order = getattr(self.given, "row_order", None)
        if row_order is None:
            return of_ratings
        order = np.ascontiguousarray(row_order, "<i8").tobytes()
        return hashlib.sha256(of_ratings.encode() + order).hexdigest()

    @property
    def label_scale(self) -> RatingScale:
        """The labels that exist; see `label_scale`."""
        is_explicit = self.feedback == EXPLICIT
        threshold = self.given.options.label_threshold if is_explicit else None
        return label_scale(self.ratings, self.feedback, threshold)

    def training_counts(self) -> np.ndarray:
        """Returns how many of the ratings that take part in training each item has.

        An item with none is cold: nobody trains on it.

        Returns:
          `[num_items]`, int64.
        """
        _, items, _ = self.examples.interactions(self.train)
        return np.bincount(items, minlength=self.ratings.num_items)

    def mean_ratings(self) -> float:
        """Returns how many ratings (positives, with implicit feedback) a training user has."""
        count = (
            (lambda user: len(self.examples.positives(user)))
            if self.feedback == IMPLICIT
            else self.examples.num_examples
        )
        return sum(map(count, self.train.tolist())) / len(self.train)


def parts_of(population: Population) -> dict[str, str]:
    """Returns the part that each user is in, by the user's own id; see `PARTS`."""
    parts = {}
    for name in PARTS:
        group = population.groups.get(name)
        users = population.train if name == "train" else () if group is None else group.users
        parts.update({population.ratings.user_name(user): name for user in users})
    return parts


def known_parts(ratings: Ratings, before: Mapping[str, str]) -> np.ndarray:
    """Returns the part that each user had before, `[num_users]` int8; -1 for a new user.

    A model that goes on from another is judged on users whom that one did not train on either.

    Args:
      ratings: The data.
      before: The part by a user's own id, as `parts_of` returns it.
    """
    number = {name: place for place, name in enumerate(PARTS)}
    names = map(str, ratings.original_user_ids.tolist())
    return np.array([number[before[name]] if name in before else -1 for name in names], np.int8)


def write_parts(path: pathlib.Path, parts: Mapping[str, str]) -> None:
    """Writes what `parts_of` returned as a csv file, whole or not at all."""
    part_path = path.with_name(f"{path.name}.part")
    with open(part_path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_PARTS_HEADER, *parts.items()])
    os.replace(part_path, path)


def read_parts(path: pathlib.Path) -> dict[str, str] | None:
    """Returns what `write_parts` wrote; None if there is no such file.

    Raises:
      InputError: If the file cannot be read, or has other columns or parts.
    """
    if not path.exists():
        return None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not rows or tuple(rows[0]) != _PARTS_HEADER or any(len(row) != 2 for row in rows):
        raise InputError(f"{path} must have the columns {', '.join(_PARTS_HEADER)}.")
    unknown = {part for _, part in rows[1:]} - set(PARTS)
    if unknown:
        raise InputError(f"{path} has the part {min(unknown)!r}; parts are {', '.join(PARTS)}.")
    return dict(rows[1:])


def label_scale(ratings: Ratings, feedback: str, label_threshold: float | None) -> RatingScale:
    """Returns the labels that exist: those of the ratings, or 0 and 1."""
    if feedback == EXPLICIT and label_threshold is None:
        return ratings.scale
    return RatingScale(0, 1, 1)


def divide_by_user(
    ratings: Ratings,
    *,
    seed: int = 0,
    max_ratings_per_user: int | None = None,
    order: str = "shuffle_once",
    label_threshold: float | None = None,
    held_out_fraction: float = 0.0,
    cold_items_fraction: float = 0.0,
    unseen_halves: str = "random",
    support_batch_size: int = 5,
    known_parts: np.ndarray | None = None,
) -> Population:
    """Returns a population with explicit feedback: 80% of the users train, 10% and 10% are unseen.

    An unseen user is evaluated by reconstruction, the protocol of Singhal et al. 2021
    (arXiv:2102.03448): support is given, query is asked for.

    Args:
      ratings: The data set.
      seed: Divides the users and shuffles their ratings.
      max_ratings_per_user: See `ExampleOptions`.
      order: See `ExampleOptions`.
      label_threshold: See `ExampleOptions`.
      held_out_fraction: The share of each training user's ratings, the latest, that become the
        group `seen_test`; the same share of the ratings before becomes `seen_validation`. 0 makes
        no seen groups.
      cold_items_fraction: The share of the items that are cold: nobody trains on them, and no user
        gives them. They make the groups `cold_validation` and `cold_test`, of unseen users who give
        what they give as `unseen_validation` and `unseen_test`. 0 makes no such groups.
      unseen_halves: `"random"`: an unseen user's ratings are shuffled and cut into batches; even
        batches are given, odd ones are asked for, as in the paper's code. `"by_time"`: the earlier
        half is given, the later half is asked for.
      support_batch_size: See `Population`. A user with no more ratings is asked nothing.
      known_parts: The part that each user had before; see `known_parts`.

    Raises:
      DataError: If there are too few users, items or ratings (see `split_by_user`,
        `hold_out_latest`, `hold_out_items`), or if the label threshold is not on the scale of the
        ratings.
    """
    if unseen_halves not in UNSEEN_HALVES:
        raise InputError(
            f"unseen_halves must be one of {', '.join(UNSEEN_HALVES)}; found {unseen_halves!r}."
        )
    check_at_least(1, "support_batch_size", support_batch_size)
    scale = ratings.scale
    if label_threshold is not None and not scale.is_divided_by(label_threshold):
        raise DataError(
            f"label_threshold is {label_threshold:g}, but the ratings of {ratings.name} are "
            f"{scale}; a threshold above {scale.minimum:g} and of at most {scale.maximum:g} leaves "
            "both labels."
        )
    split = split_by_user(ratings, seed=seed, known_parts=known_parts)
    groups = {
        "unseen_validation": Group(np.unique(split.validation.user_ids)),
        "unseen_test": Group(np.unique(split.test.user_ids)),
    }
    options = ExampleOptions(
        max_ratings_per_user=max_ratings_per_user,
        order=order,
        label_threshold=label_threshold,
        seed=seed,
    )
    asked = dataclasses.replace(options, max_ratings_per_user=None, order="shuffle_once")
    kept = ratings
    if cold_items_fraction:
        kept, cold = hold_out_items(ratings, fraction=cold_items_fraction, seed=seed)
        groups.update(_cold_groups(groups, ClientExamples(cold, asked)))
    # Who rated nothing but cold items has nothing to train on.
    train = np.intersect1d(split.train.user_ids, kept.user_ids)
    if held_out_fraction and ratings.timestamps is None:
        raise DataError(
            f"{ratings.name} has no timestamps, so no latest ratings can be held out; give "
            "held_out_fraction=0, by which only unseen users are judged."
        )
    if held_out_fraction:
        for name in ("seen_test", "seen_validation"):
            kept, latest, num_tied = hold_out_latest(
                kept, train, fraction=held_out_fraction, seed=seed
            )
            groups[name] = Group(
                np.unique(latest.user_ids), later=ClientExamples(latest, asked), num_tied=num_tied
            )
    given = "by_time" if unseen_halves == "by_time" else "shuffle_once"
    return Population(
        feedback=EXPLICIT,
        ratings=ratings,
        examples=ClientExamples(kept, options),
        given=ClientExamples(kept, dataclasses.replace(options, order=given)),
        train=train,
        groups=_in_order(groups),
        seed=seed,
        unseen_halves=unseen_halves,
        support_batch_size=support_batch_size,
    )


def divide_for_ranking(
    data: Ratings | LeaveOneOut,
    *,
    seed: int = 0,
    max_ratings_per_user: int | None = None,
    negatives_per_positive: int = 4,
    unseen_fraction: float = 0.0,
    holds_out_validation: bool = True,
    leaks_test_item: bool = False,
    known_parts: np.ndarray | None = None,
) -> Population:
    """Returns a population with implicit feedback: each user's last item is held out.

    Args:
      data: A data set, or published leave-one-out files, whose own held-out items and negatives
        become the test.
      seed: Draws negatives and the unseen users.
      max_ratings_per_user: See `ImplicitOptions.max_positives_per_user`.
      negatives_per_positive: See `ImplicitOptions`.
      unseen_fraction: The share of the users who take no part in training and become the group
        `unseen_test`; at least 0 and below 1.
      holds_out_validation: Whether the last item before the test item is held out too, for the
        group `seen_validation`; otherwise users train on it.
      leaks_test_item: Whether a user's test item is never drawn as a negative; see
        `ImplicitExamples`. Figures are then too good, and show how much a leak is worth.
      known_parts: The part that each user had before; see `known_parts`.

    Raises:
      DataError: If no user has enough items; see `hold_out_last`.
      InputError: If `unseen_fraction` of the users is nobody.
    """
    if isinstance(data, LeaveOneOut):
        ratings, train, test = data.ratings, data.train, held_out_lib.published(data)
    else:
        ratings = data
        train, test = held_out_lib.hold_out_last(ratings, seed=seed)
    items = {"seen_test": test}
    if holds_out_validation:
        train, items["seen_validation"] = held_out_lib.hold_out_last(train, seed=seed)
    # A user of a published test file alone gives nothing, so is neither seen nor unseen.
    users = np.intersect1d(test.users, train.user_ids)
    parts = np.full(ratings.num_users, -1) if known_parts is None else known_parts
    new = users[parts[users] == -1]
    num_unseen = math.floor(exact_fraction(unseen_fraction) * len(new))
    shuffled = rng.generator(seed, "unseen_users").permutation(new)
    unseen = np.union1d(shuffled[:num_unseen], users[parts[users] > 0])
    if unseen_fraction and not len(unseen):
        raise InputError(f"unseen_fraction={unseen_fraction} of {len(users)} users is nobody.")
    seen = np.setdiff1d(np.unique(train.user_ids), unseen)
    groups = {
        name: _ranked_group(np.intersect1d(seen, held_out.users), held_out)
        for name, held_out in items.items()
    }
    if len(unseen):
        groups["unseen_test"] = _ranked_group(unseen, test)
    options = ImplicitOptions(
        negatives_per_positive=negatives_per_positive,
        max_positives_per_user=max_ratings_per_user,
        seed=seed,
    )
    never_drawn = test.users * ratings.num_items + test.items if leaks_test_item else None
    examples = ImplicitExamples(train, options, never_drawn=never_drawn)
    return Population(
        feedback=IMPLICIT,
        ratings=ratings,
        examples=examples,
        given=examples,
        train=seen,
        groups=_in_order(groups),
        seed=seed,
    )


def _cold_groups(unseen: Mapping[str, Group], cold: ClientExamples) -> dict[str, Group]:
    """Returns the groups of unseen users who are asked for the ratings of cold items."""
    groups = {}
    for name, group in unseen.items():
        users = np.intersect1d(group.users, cold.users)
        if not len(users):
            raise DataError(
                f"{cold.ratings.name}: none of the {len(group.users)} {name} users rated a cold "
                "item, so none can be asked for; give a larger cold_items_fraction."
            )
        groups[name.replace("unseen", "cold")] = Group(users, cold=cold)
    return groups


def _ranked_group(users: np.ndarray, held_out: HeldOutItems) -> Group:
    return Group(users, held_out=held_out, num_tied=held_out.num_tied(users))


def _in_order(groups: Mapping[str, Group]) -> dict[str, Group]:
    return {name: groups[name] for name in GROUPS if name in groups}
