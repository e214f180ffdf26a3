"""When a setting has an effect: conditions on the other settings, which say themselves in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from experiments.run.names import ALGORITHMS, OF_EASE, REFERENCES, listed
from fedrecon.data.datasets import LEAVE_ONE_OUT_NAMES
from fedrecon.data.population import PUBLISHED, STRONG_GENERALIZATION

MODELS = ("matrix_factorization", "gmf", "mlp", "neumf")
NEURAL_MODELS = ("gmf", "mlp", "neumf")

FEDERATED = tuple(name for name in ALGORITHMS if name != "centralized")
# Clients train by gradient steps.
STEPPING = ("fed_recon", "fed_avg", "stateful_fed_avg", "fed_ncf")
# Clients train the local part together with the global part.
AVERAGING = ("fed_avg", "stateful_fed_avg", "fed_ncf")
# Whose clients draw no negatives.
WITHOUT_NEGATIVES = ("fed_ials", "fed_ease")
# Clients solve for the local part, and send a gradient.
SOLVING = ("fed_recon_ls", "fed_ials")


@dataclasses.dataclass(frozen=True)
class Having:
    """A setting has one of some values.

    Attributes:
      name: The name of the setting.
      values: The values.
      is_not: The setting has none of the values instead.
    """

    name: str
    values: tuple
    is_not: bool = False

    def holds(self, settings: Any) -> bool:
        return (getattr(settings, self.name) in self.values) != self.is_not

    def deciding(self) -> str:
        """Returns the name of the setting to show where the condition does not hold."""
        return self.name

    def __str__(self) -> str:
        between = " other than " if self.is_not else "="
        return f"--{self.name}{between}{listed([str(value) for value in self.values])}"


@dataclasses.dataclass(frozen=True)
class Either:
    """At least one of some conditions holds."""

    conditions: tuple[Having, ...]

    def holds(self, settings: Any) -> bool:
        return any(condition.holds(settings) for condition in self.conditions)

    def deciding(self) -> str:
        return self.conditions[0].deciding()

    def __str__(self) -> str:
        return ", or ".join(map(str, self.conditions))


@dataclasses.dataclass(frozen=True)
class OfOwnFile(Having):
    """The ratings come from a file of the user's own."""

    name: str = "dataset"
    values: tuple = ("file",)

    def __str__(self) -> str:
        return "--ratings_file"


def algorithm_in(algorithms: tuple[str, ...]) -> Having:
    return Having("algorithm", algorithms)


def algorithm_not_in(algorithms: tuple[str, ...]) -> Having:
    return Having("algorithm", algorithms, is_not=True)


def in_words(conditions: Iterable[Having | Either]) -> str:
    """Returns conditions for `--help`, without the words about references; empty if there are none.

    Args:
      conditions: They must all hold.
    """
    told = []
    for condition in conditions:
        either = condition.conditions if isinstance(condition, Either) else (condition,)
        of_trained = [_of_trained(each) for each in either]
        if _ALWAYS not in of_trained:
            told.append(", or ".join(str(each) for each in of_trained if each != _NEVER))
    return "; and ".join(told)


_ALWAYS = Having("algorithm", (), is_not=True)
_NEVER = Having("algorithm", ())


def _of_trained(condition: Having) -> Having:
    """Returns the condition where the algorithm is none of the references."""
    if condition.name != "algorithm":
        return condition
    values = tuple(name for name in condition.values if name in ALGORITHMS)
    if condition.is_not or len(values) <= len(ALGORITHMS) / 2:
        return Having("algorithm", values, condition.is_not)
    others = tuple(name for name in ALGORITHMS if name not in values)
    return Having("algorithm", others, is_not=True)  # In fewer words.


TRAINED = algorithm_not_in(REFERENCES)
EXPLICIT = Having("feedback", ("explicit",))
IMPLICIT = Having("feedback", ("implicit",))
SYNTHETIC = Having("dataset", ("synthetic",))
OWN_FILE = OfOwnFile()
BY_NAME = Having("dataset", ("synthetic", "file"), is_not=True)
# Published leave-one-out files say themselves what is held out of what.
DIVISIBLE = Having("dataset", LEAVE_ONE_OUT_NAMES, is_not=True)
BY_STRONG_GENERALIZATION = Having("split", (STRONG_GENERALIZATION,))
# One held-out item of each user is asked for.
BY_HELD_OUT_ITEM = Having("split", (STRONG_GENERALIZATION,), is_not=True)
# The released code's division knows no choices of ours.
NOT_PUBLISHED = Having("split", (PUBLISHED,), is_not=True)
HAS_RATINGS = Having("no_ratings", (False,))
MATRIX_FACTORIZATION = Having("model", ("matrix_factorization",))
# Federated iALS has an inner product of its own, without biases and without other penalties.
NOT_FED_IALS = algorithm_not_in(("fed_ials", *REFERENCES))
NOT_SOLVING = algorithm_not_in((*SOLVING, *REFERENCES))
BY_STEPS = Having("reconstruction", ("gradient_steps",))
IN_THIS_PROCESS = Having("runtime", ("in_process",))
# Some local part is rebuilt: always with explicit feedback, whose evaluated users are unseen. With
# implicit feedback the server of fed_ncf and centralized has a row of each user that it trained.
REBUILDING = Either(
    (
        EXPLICIT,
        algorithm_in(("fed_recon", "fed_avg", "stateful_fed_avg")),
        Having("unseen_fraction", (0.0,), is_not=True),
        BY_STRONG_GENERALIZATION,
    )
)
# Some local part is solved for. `ials` solves for all rows, and `ease` for its weights.
SOLVED = Either(
    (algorithm_in((*SOLVING, "ials", *OF_EASE)), Having("reconstruction", ("least_squares",)))
)
USER_BIAS = Either((Having("user_bias", (True,)), Having("model", MODELS, is_not=True)))
# Clients, or whoever reconstructs unseen users, take batches.
BATCHED = (*STEPPING, "fed_recon_ls", "centralized")
# A client's batches are divided into support and query.
SPLIT = ("fed_recon", "fed_recon_ls")
