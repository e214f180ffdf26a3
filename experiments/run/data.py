"""The people of a run: who trains, who is evaluated by what, and what nobody trains on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from experiments.run.settings import Settings, of_data
from fedrecon.errors import InputError

if TYPE_CHECKING:  # Errors in flags come before these are imported.
    import numpy as np

    from fedrecon.data.examples import ClientExamples, ImplicitExamples
    from fedrecon.data.held_out import HeldOutItems
    from fedrecon.data.ratings import Ratings


@dataclasses.dataclass(frozen=True)
class Clients:
    """The people of a run and what they rated.

    Attributes:
      ratings: The whole data set.
      examples: What each of them gives to a round.
      users: The user ids of each part. `train` trains. Explicit: `validation` and `test` are other
        people, unseen; `seen` are those of `train` with later ratings. Implicit: `validation` and
        `test` are those of `train`, judged by their held-out items; `unseen` are other people.
      later: Explicit: what training users rated later, by which `seen` is judged, and before that
        `seen_validation`.
      held_out: Implicit: what each part is judged by.
    """

    ratings: Ratings
    examples: ClientExamples | ImplicitExamples
    users: Mapping[str, np.ndarray]
    later: Mapping[str, ClientExamples] = dataclasses.field(default_factory=dict)
    held_out: Mapping[str, HeldOutItems] = dataclasses.field(default_factory=dict)

    def mean_ratings(self) -> float:
        """Returns how many ratings, or positives, a training user has on average."""
        is_implicit = bool(self.held_out)
        train = self.users["train"].tolist()
        count = (
            (lambda user: len(self.examples.positives(user)))
            if is_implicit
            else self.examples.num_examples
        )
        return sum(map(count, train)) / len(train)


def load_clients(settings: Settings) -> Clients:
    """Loads the data and decides who is in which part, by `settings.seed`."""
    clients = _load(of_data(settings))
    if settings.is_trained and settings.clients_per_round > len(clients.users["train"]):
        raise InputError(
            f"--clients_per_round={settings.clients_per_round} is more than the "
            f"{len(clients.users['train'])} training users of {settings.dataset}."
        )
    return clients


@functools.lru_cache(maxsize=2)
def _load(settings: Settings) -> Clients:
    """Loads what the many parts of a comparison share once."""
    return (_explicit if settings.is_explicit else _implicit)(settings)


def _synthetic_options(settings: Settings) -> dict[str, int]:
    if settings.dataset != "synthetic":
        return {}
    return {
        "num_users": settings.synthetic_num_users,
        "num_items": settings.synthetic_num_items,
        "mean_ratings_per_user": settings.synthetic_mean_ratings_per_user,
        "seed": settings.seed,
    }


def _explicit(settings: Settings) -> Clients:
    """Splits the users 80/10/10, so that each part has people of its own."""
    import numpy as np

    from fedrecon.data.datasets import load_dataset
    from fedrecon.data.examples import ClientExamples, ExampleOptions
    from fedrecon.data.splits import hold_out_latest, split_by_user

    ratings = load_dataset(
        settings.dataset, data_dir=settings.data_dir, **_synthetic_options(settings)
    )
    split = split_by_user(ratings, seed=settings.seed)
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    users = {name: np.unique(part.user_ids) for name, part in parts.items()}
    options = ExampleOptions(
        max_ratings_per_user=settings.max_ratings_per_user,
        order=settings.example_order,
        label_threshold=settings.label_threshold,
        seed=settings.seed,
    )
    if not settings.held_out_fraction:
        return Clients(ratings, ClientExamples(ratings, options), users)
    asked = dataclasses.replace(options, max_ratings_per_user=None, order="file")
    kept, later = ratings, {}
    for part in ("seen", "seen_validation"):
        kept, held_out = hold_out_latest(kept, users["train"], fraction=settings.held_out_fraction)
        users[part] = np.unique(held_out.user_ids)
        later[part] = ClientExamples(held_out, asked)
    return Clients(ratings, ClientExamples(kept, options), users, later)


def _implicit(settings: Settings) -> Clients:
    """Holds out each user's last item (that of the files where they say so), and users."""
    import numpy as np

    from fedrecon import rng
    from fedrecon.data import datasets, held_out
    from fedrecon.data.examples import ImplicitExamples, ImplicitOptions

    if settings.dataset in datasets.LEAVE_ONE_OUT_NAMES:
        files = datasets.load_leave_one_out(settings.dataset, data_dir=settings.data_dir)
        ratings, train, test = files.ratings, files.train, held_out.published(files)
    else:
        ratings = datasets.load_dataset(
            settings.dataset, data_dir=settings.data_dir, **_synthetic_options(settings)
        )
        train, test = held_out.hold_out_last(ratings, seed=settings.seed)
    items = {"test": test}
    if settings.evaluate_on == "validation":
        train, items["validation"] = held_out.hold_out_last(train, seed=settings.seed)
    num_unseen = int(settings.unseen_fraction * len(test.users))
    if settings.unseen_fraction and not num_unseen:
        raise InputError(
            f"--unseen_fraction={settings.unseen_fraction} of {len(test.users)} users is nobody."
        )
    shuffled = rng.generator(settings.seed, "unseen_users").permutation(test.users)
    unseen = np.sort(shuffled[:num_unseen])
    seen = np.setdiff1d(np.unique(train.user_ids), unseen)
    users = {"train": seen, **{part: np.intersect1d(seen, items[part].users) for part in items}}
    if num_unseen:
        users["unseen"], items["unseen"] = unseen, test
    examples = ImplicitExamples(
        train,
        ImplicitOptions(
            negatives_per_positive=settings.negatives_per_positive,
            max_positives_per_user=settings.max_ratings_per_user,
            seed=settings.seed,
        ),
    )
    return Clients(ratings, examples, users, held_out=items)
