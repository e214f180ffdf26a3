"""The settings of the algorithms: frozen records that check themselves, without TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from fedrecon import ials_units
from fedrecon.data.cohorts import SUPPORT_QUERY_SPLITS
from fedrecon.errors import InputError, check_positive
from fedrecon.ials_units import PairCounts

if TYPE_CHECKING:
    import tensorflow_federated as tff

OPTIMIZERS = ("sgd", "momentum", "adam", "adagrad", "yogi", "adamw", "rmsprop")
CLIENT_WEIGHTINGS = ("num_examples", "uniform")
AVERAGINGS = ("plain", "by_row")
RECONSTRUCTIONS = ("gradient_steps", "least_squares")

MOMENTUM = 0.9


def _check_choice(what: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise InputError(f"the {what} is {found!r}; it must be one of {', '.join(choices)}.")


def _check_exponent(exponent: float) -> None:
    if not 0.0 <= exponent <= 1.0:
        raise InputError(
            f"the exponent of the regularization is {exponent}; it must be from 0 (constant) to 1"
            " (growing with the examples)."
        )


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """An optimizer of `tff.learning.optimizers` by name.

    An optimizer of one's own takes a subclass whose `build` returns it and whose `is_plain_sgd` is
    False; notebooks/sources/03_bring_your_own.py has one.

    Attributes:
      name: One of `OPTIMIZERS`. `sgd` is plain gradient descent; `momentum` is `build_sgdm` with
        momentum 0.9; the others have TFF's defaults apart from the rate. TFF 0.87's Adafactor is
        not among them: its state changes its type at the first step, which TFF itself refuses.
      learning_rate: Positive.
    """

    name: str
    learning_rate: float

    def __post_init__(self):
        _check_choice("optimizer", self.name, OPTIMIZERS)
        check_positive(f"the learning rate of {self.name}", self.learning_rate)

    @property
    def is_plain_sgd(self) -> bool:
        """Whether a step is `- learning_rate * gradient`, without a state."""
        return self.name == "sgd"

    @property
    def is_elementwise(self) -> bool:
        """Whether each entry moves by its own gradient and state alone.

        A subclass may do anything, so it has to say so itself.
        """
        return type(self) is OptimizerOptions

    @property
    def decays_weights(self) -> bool:
        """Whether a weight moves even if its gradient has always been 0."""
        return self.name == "adamw"

    def build(self) -> tff.learning.optimizers.Optimizer:
        import tensorflow_federated as tff  # Seconds, which checking a setting need not cost.

        optimizers = tff.learning.optimizers
        if self.name == "sgd":
            return optimizers.build_sgdm(self.learning_rate)
        if self.name == "momentum":
            return optimizers.build_sgdm(self.learning_rate, momentum=MOMENTUM)
        return getattr(optimizers, f"build_{self.name}")(self.learning_rate)


@dataclasses.dataclass(frozen=True)
class LeastSquaresOptions:
    """Ridge regression of a client's labels on its local part, solved exactly.

    With a prediction `e_n . u + b_n` for example `n`, linear in the local part `u`, it minimizes

        sum over the support of loss(label_n, b_n + e_n . u) + sum over entries k of r_k * u_k^2

    where `r_k` is `regularization * (number of support examples) ** exponent` and the loss is the
    squared error, in the unit of the model's loss.

    Attributes:
      regularization: Positive, relative to one example, because the loss above is a sum.
      exponent: In `[0, 1]`. 0 is constant, the ridge of a prior; 1 grows with the number of
        examples, as it does where each step of stochastic gradient descent regularizes.
      bias_regularization: Replaces `regularization` for a local weight that is one number, such as
        a user's bias; None keeps it.
    """

    regularization: float = 10.0
    exponent: float = 0.0
    bias_regularization: float | None = None

    def __post_init__(self):
        for name in ("regularization", "bias_regularization"):
            value = getattr(self, name)
            if value is not None:
                check_positive(f"the {name} of least squares", value)
        _check_exponent(self.exponent)


@dataclasses.dataclass(frozen=True)
class FedReconOptions:
    """Federated Reconstruction (Singhal et al. 2021, algorithm 1), with the names of this project.

    A client's batches are numbered from 0 in the order of its examples. With `alternating_batches`
    the even ones are its support (reconstruction) and the odd ones its query (global update, or
    evaluation), so that no rating is used for both. With `query_of_all` the even ones are its
    support and all of them its query, in training only: see `for_evaluation`. With `none` both
    stages use all of them.

    Attributes:
      reconstruction: How the local part is fitted on the support, the global part frozen, one of
        `RECONSTRUCTIONS`: by steps of `reconstruction_optimizer` (the paper), or exactly, which
        takes a model that is linear in its local part and a squared loss.
      reconstruction_optimizer: Fits the local part by `gradient_steps`.
      least_squares: The settings of the reconstruction by `least_squares`.
      client_optimizer: Then fits the global part on the query, the local part frozen.
      server_optimizer: Applies the mean of the clients' updates to the global part.
      batch_size: Ratings a step.
      support_query_split: One of `SUPPORT_QUERY_SPLITS`.
      reconstruction_epochs: Passes of `gradient_steps` over the support.
      reconstruction_steps_max: Limit on reconstruction steps over all its epochs; None: no limit.
      client_takes_one_step: Whether a client's step takes its whole query at once instead of a
        batch: with plain SGD the server then gets a multiple of the gradient of the mean loss.
      client_epochs: Passes over the query during training.
      client_steps_max: Limit on steps after reconstruction over all their epochs; None: no limit.
      client_weighting: `num_examples` weighs a client's update by the ratings it used after
        reconstruction (each epoch counts); `uniform` weighs all clients alike.
    """

    reconstruction: str = "gradient_steps"
    reconstruction_optimizer: OptimizerOptions = OptimizerOptions("sgd", 0.1)
    least_squares: LeastSquaresOptions = LeastSquaresOptions()
    client_optimizer: OptimizerOptions = OptimizerOptions("sgd", 0.5)
    server_optimizer: OptimizerOptions = OptimizerOptions("sgd", 1.0)
    batch_size: int = 5
    support_query_split: str = "alternating_batches"
    reconstruction_epochs: int = 1
    reconstruction_steps_max: int | None = None
    client_takes_one_step: bool = False
    client_epochs: int = 1
    client_steps_max: int | None = None
    client_weighting: str = "num_examples"

    def __post_init__(self):
        _check_choice("reconstruction", self.reconstruction, RECONSTRUCTIONS)
        _check_choice("support/query split", self.support_query_split, SUPPORT_QUERY_SPLITS)
        _check_choice("client weighting", self.client_weighting, CLIENT_WEIGHTINGS)
        _check_counts(
            self,
            ("batch_size", "reconstruction_epochs", "client_epochs"),
            ("reconstruction_steps_max", "client_steps_max"),
        )
        if self.client_takes_one_step and (self.client_epochs, self.client_steps_max) != (1, None):
            raise InputError(
                f"client_takes_one_step is with client_epochs={self.client_epochs} and"
                f" client_steps_max={self.client_steps_max}; with 1 and None there is one step."
            )

    def for_evaluation(self) -> FedReconOptions:
        """Returns the options by which users are judged: no rating is given and asked for.

        Only with `none`, which says so itself, is the support asked for, too.
        """
        if self.support_query_split != "query_of_all":
            return self
        return dataclasses.replace(self, support_query_split="alternating_batches")

    @property
    def is_exact(self) -> bool:
        """Whether the local part is solved for."""
        return self.reconstruction == "least_squares"


@dataclasses.dataclass(frozen=True)
class FedIalsOptions:
    """Federated iALS; the names of Rendle et al. 2022 (arXiv:2110.14037) are in brackets.

    Regularization and unobserved weight are those of the paper, and suit one data set alone: these
    are for MovieLens 1M. `of_data` finds them for another.

    Attributes:
      regularization: Positive [lambda].
      exponent: In `[0, 1]` [nu]. 0 regularizes all rows alike; 1, the paper's choice, in proportion
        to the pairs that a row is in.
      unobserved_weight: Positive [alpha_0]: the weight of every pair of user and item, where an
        interaction adds weight 1.
      server_optimizer: Applies the gradient of the item rows.
    """

    regularization: float = 0.01
    exponent: float = 1.0
    unobserved_weight: float = 0.2
    server_optimizer: OptimizerOptions = OptimizerOptions("adam", 0.01)

    def __post_init__(self):
        for name in ("regularization", "unobserved_weight"):
            check_positive(f"the {name} of federated iALS", getattr(self, name))
        _check_exponent(self.exponent)

    @classmethod
    def of_data(
        cls,
        counts: PairCounts,
        *,
        regularization: float = ials_units.REGULARIZATION,
        unobserved_weight: float = ials_units.UNOBSERVED_WEIGHT,
        **others: Any,
    ) -> FedIalsOptions:
        """Returns options whose strengths are given in the units of `ials_units`.

        Args:
          counts: The training data, as `PairCounts.of_training(population)`.
          regularization: In units of noise, positive.
          unobserved_weight: In units of the observed, positive.
          **others: The other attributes.
        """
        options = cls(**others)
        strengths = ials_units.in_pairs(
            counts,
            regularization=regularization,
            unobserved_weight=unobserved_weight,
            exponent=options.exponent,
        )
        return dataclasses.replace(options, **strengths)


@dataclasses.dataclass(frozen=True)
class FedAvgOptions:
    """Federated averaging (McMahan et al. 2017, arXiv:1602.05629, algorithm 1).

    Attributes:
      client_optimizer: Fits the whole model on all of a client's examples; it starts anew in each
        round.
      server_optimizer: Applies the mean of the clients' updates.
      batch_size: Examples a step.
      client_epochs: Passes over the examples (the paper's E).
      client_steps_max: Limit on a client's steps over all its epochs; None: no limit.
      client_weighting: `num_examples` weighs a client's update by the examples it used (each epoch
        counts); `uniform` weighs all clients alike.
      gradient_clip_norm: A step's gradient is scaled down to this norm where it is longer; None
        leaves it. Not together with regularized item tables.
      averaging: `plain` divides all updates by the weights of all clients. `by_row` divides the
        update of an item's row (and of a user's, where the server keeps them) by the weights of the
        clients that have it among their examples, so that the other clients do not hold it back
        (Perifanis & Efraimidis 2022, arXiv:2106.04405, find plain averaging inconsistent with
        latent factors).
      trains_local: Whether the local part is fitted with the global part. Otherwise it stays as it
        was drawn. A local part of zeros beside a global row for all users (`mean_user`) is then the
        baseline of the FedRecon paper's released code, which averages one user row over clients.
    """

    client_optimizer: OptimizerOptions = OptimizerOptions("sgd", 0.5)
    server_optimizer: OptimizerOptions = OptimizerOptions("sgd", 1.0)
    batch_size: int = 5
    client_epochs: int = 1
    client_steps_max: int | None = None
    client_weighting: str = "num_examples"
    gradient_clip_norm: float | None = None
    averaging: str = "plain"
    trains_local: bool = True

    def __post_init__(self):
        _check_choice("client weighting", self.client_weighting, CLIENT_WEIGHTINGS)
        _check_choice("averaging", self.averaging, AVERAGINGS)
        _check_counts(self, ("batch_size", "client_epochs"), ("client_steps_max",))
        if self.gradient_clip_norm is not None:
            check_positive("gradient_clip_norm", self.gradient_clip_norm)


@dataclasses.dataclass(frozen=True)
class CentralizedOptions:
    """Minibatch training of the whole model on everybody's examples.

    Attributes:
      optimizer: Fits all weights; its state lasts from round to round.
      batch_size: Examples a step.
    """

    optimizer: OptimizerOptions = OptimizerOptions("adam", 0.001)
    batch_size: int = 256

    def __post_init__(self):
        _check_counts(self, ("batch_size",), ())


def _check_counts(record, counts: tuple[str, ...], limits: tuple[str, ...]) -> None:
    for name in counts:
        if getattr(record, name) < 1:
            raise InputError(f"{name} is {getattr(record, name)}; it must be at least 1.")
    for name in limits:
        value = getattr(record, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1, or None for no limit.")
