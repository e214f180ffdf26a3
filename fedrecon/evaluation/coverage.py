"""Who of a group of users is judged, on what, and who is left out and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from fedrecon.data.population import EXPLICIT, IMPLICIT, Population
from fedrecon.data.strong_generalization import ITEMS_PER_TARGET
from fedrecon.evaluation.protocols import Cases

# Why no rating, or no item, of a training user is held out.
_NONE_HELD_OUT = {
    EXPLICIT: "with too few ratings for any to be held out",
    IMPLICIT: "with too few items for one to be held out, or with every item there is",
}


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Who of a group is judged.

    Attributes:
      num_users: How many users the group is about.
      num_judged: How many of them are asked something.
      left_out: For each reason why users are asked nothing, how many there are.
      num_asked: How many ratings (or held-out items) are asked for.
      num_cold: How many of these are of items that no training user trains on.
      num_tied: Of how many users the ratings held out were drawn among others of the same time.
      num_fewer_candidates: How many users are ranked among fewer items than others, because they
        have too many items.
      num_copies: How many users have their held-out item among their own negatives.
    """

    num_users: int
    num_judged: int
    left_out: Mapping[str, int]
    num_asked: int
    num_cold: int
    num_tied: int = 0
    num_fewer_candidates: int = 0
    num_copies: int = 0

    def sentences(self, feedback: str) -> list[str]:
        """Returns what a reader of the group's figures must know, the first about everybody.

        Args:
          feedback: The population's kind of feedback.
        """
        things = "ratings" if feedback == EXPLICIT else "held-out items"
        told = [
            f"{self.num_judged:,} of {self.num_users:,} users are judged, on {self.num_asked:,} "
            f"{things}."
        ]
        told += [
            f"Not judged: users {reason} ({number:,})." for reason, number in self.left_out.items()
        ]
        if self.num_cold:
            told.append(f"{self.num_cold:,} of the {things} are of items that nobody trains on.")
        if self.num_tied:
            share = self.num_tied / max(self.num_judged, 1)
            told.append(
                f"Of {self.num_tied:,} users ({share:.0%}) the latest was drawn among several with "
                "the same time."
            )
        if self.num_fewer_candidates:
            told.append(
                f"{self.num_fewer_candidates:,} users have so many items that they are ranked "
                "among fewer negatives."
            )
        if self.num_copies:
            told.append(
                f"{self.num_copies:,} users have the held-out item among their own negatives; it "
                "is no candidate there, except in the figures named as listed."
            )
        return told


def coverage(population: Population, name: str, cases: Cases) -> Coverage:
    """Returns who of a group is judged.

    Args:
      population: The users.
      name: The group.
      cases: The group's questions.
    """
    is_judged = cases.mask.any(axis=1)
    everybody, reasons = _everybody(population, name)
    left_out = {reason: len(users) for reason, users in reasons.items() if len(users)}
    is_asked = cases.mask if population.feedback == EXPLICIT else cases.labels > 0
    is_cold = population.training_counts() == 0
    num_candidates = cases.mask.sum(axis=1) + (0 if cases.num_copies is None else cases.num_copies)
    is_ranked = cases.num_copies is not None
    return Coverage(
        num_users=len(everybody),
        num_judged=int(is_judged.sum()),
        left_out=left_out,
        num_asked=int(is_asked.sum()),
        num_cold=int(is_cold[cases.item_ids[is_asked]].sum()),
        num_tied=population.group(name).num_tied,
        num_fewer_candidates=int((num_candidates < cases.item_ids.shape[1]).sum() * is_ranked),
        num_copies=int((cases.num_copies > 0).sum()) if is_ranked else 0,
    )


def _everybody(population: Population, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the users whom a group is about, and those asked nothing by the reason."""
    group = population.group(name)
    if group.cold is not None:
        everybody = population.group(name.replace("cold", "unseen")).users
        return everybody, {"who rated no cold item": np.setdiff1d(everybody, group.users)}
    if group.targets is not None:
        reason = f"with fewer than {ITEMS_PER_TARGET} items, too few to be asked for one"
        return group.users, {reason: np.setdiff1d(group.users, group.targets.user_ids)}
    if name.startswith("unseen"):
        if population.feedback != EXPLICIT:
            return group.users, {}
        counts = np.array([population.given.num_examples(u) for u in group.users.tolist()])
        enough = 2 if population.unseen_halves == "by_time" else population.support_batch_size + 1
        reason = f"who have fewer than {enough} ratings, too few to give some and be asked for some"
        return group.users, {reason: group.users[counts < enough]}
    unseen = [g.users for n, g in population.groups.items() if n.startswith("unseen")]
    everybody = np.setdiff1d(
        np.unique(population.ratings.user_ids), np.concatenate([np.zeros(0, np.int64), *unseen])
    )
    others = np.setdiff1d(everybody, group.users)
    is_in_training = np.isin(others, population.train)
    return everybody, {
        _NONE_HELD_OUT[population.feedback]: others[is_in_training],
        "who have nothing to train on": others[~is_in_training],
    }


def num_able_to_train(population: Population, *, more_than: int) -> int:
    """Returns how many training users have more than some number of ratings.

    A client of FedRecon with no more ratings than one batch has a support and no query, so it
    changes nothing.
    """
    examples = population.examples
    return sum(examples.num_examples(user) > more_than for user in population.train.tolist())
