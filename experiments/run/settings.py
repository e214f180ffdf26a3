"""The settings of a run: one record from which flags, config.json and the library's records come.

Each field is a flag of the same name. A setting that the chosen data set or model does not use
(`only`) is refused when given, and left out of config.json, so that no flag is silently ignored.
Nothing here imports TensorFlow: `--help` and wrong flags are answered at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments.run.runtime import GPU_MEMORY_LIMIT_HELP, RUNTIME_HELP, RUNTIMES
from fedrecon.data.cohorts import SUPPORT_QUERY_SPLITS
from fedrecon.data.examples import ORDERS
from fedrecon.errors import InputError
from fedrecon.options import AVERAGINGS, CLIENT_WEIGHTINGS, OPTIMIZERS, RECONSTRUCTIONS

MODELS = ("matrix_factorization", "gmf", "mlp", "neumf")
_NEURAL = ("gmf", "mlp", "neumf")
ALGORITHMS = ("fedrecon", "fedrecon_ls", "fedavg", "stateful_fedavg", "fedncf", "centralized")
FEEDBACKS = ("explicit", "implicit")

# These can change when a run is resumed: none of them changes the numbers of a round.
FREE = frozenset(
    {"data_dir", "output_dir", "total_rounds", "rounds_per_checkpoint", "gpu_memory_limit_mb"}
)

_ALIASES = {"local_epochs": "client_epochs"}
# Settings with these endings.
_POSITIVE = ("_learning_rate", "ridge", "unobserved_weight")


@dataclasses.dataclass(frozen=True)
class _If:
    """That another setting has one of some values, or none; or that an alternative holds."""

    name: str
    values: tuple
    is_not: bool = False
    alternatives: tuple[_If, ...] = ()

    def holds(self, settings: Any) -> bool:
        if (_get(settings, self.name) in self.values) != self.is_not:
            return True
        return any(condition.holds(settings) for condition in self.alternatives)

    def __str__(self) -> str:
        between = " other than " if self.is_not else "="
        own = f"--{self.name}{between}{' or '.join(map(str, self.values))}"
        return ", or ".join([own, *map(str, self.alternatives)])


def _get(settings: Any, name: str) -> Any:
    """Returns a setting of a record, or of absl's flags."""
    return (
        settings[name].value if isinstance(settings, flags.FlagValues) else getattr(settings, name)
    )


def _setting(default, help_text, *, group, choices=None, minimum=None, only=()):
    """A field that is also a flag.

    Args:
      default: The value without the flag.
      help_text: What `--help` says of it.
      group: What `--help` says first.
      choices: The values that exist; None where any of the type does.
      minimum: The least number allowed; None where any is.
      only: The `_If`s that must all hold for it to be used.
    """
    metadata = {"help": help_text, "group": group, "choices": choices, "minimum": minimum}
    return dataclasses.field(default=default, metadata={**metadata, "only": only})


def _data(default, help_text, **kwargs):
    return _setting(default, help_text, group="data", **kwargs)


def _model(default, help_text, **kwargs):
    return _setting(default, help_text, group="model", **kwargs)


def _algorithm(default, help_text, **kwargs):
    return _setting(default, help_text, group="algorithm", **kwargs)


def _training(default, help_text, **kwargs):
    return _setting(default, help_text, group="training", **kwargs)


_MF = _If("model", ("matrix_factorization",))
_SYNTHETIC = _If("dataset", ("synthetic",))
_EXPLICIT = _If("feedback", ("explicit",))
_IMPLICIT = _If("feedback", ("implicit",))
_FEDRECON = _If("algorithm", ("fedrecon",))
_LS = _If("algorithm", ("fedrecon_ls",))
_NOT_LS = _If("algorithm", ("fedrecon_ls",), is_not=True)
_AVERAGING = _If("algorithm", ("fedavg", "stateful_fedavg", "fedncf"))
_CENTRALIZED = _If("algorithm", ("centralized",))
_FEDERATED = _If("algorithm", ("centralized",), is_not=True)
# Everywhere but where only users are ranked whose rows the server has.
_RECONSTRUCTING = _If(
    "feedback",
    ("explicit",),
    alternatives=(
        _If("algorithm", ("fedrecon", "fedavg", "stateful_fedavg")),
        _If("unseen_fraction", (0.0,), is_not=True),
    ),
)
_BY_STEPS = _If("reconstruction", ("gradient_steps",))
_EXACT = _If(
    "algorithm", ("fedrecon_ls",), alternatives=(_If("reconstruction", ("least_squares",)),)
)
_SPLITTING = _If("feedback", ("explicit",), alternatives=(_FEDRECON,))
_BATCHES = _If("feedback", ("explicit",), alternatives=(_NOT_LS,))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run depends on; None stands for "not used" or "no limit"."""

    dataset: str = _data(
        "synthetic", "Data set: synthetic, movielens-1m, ... (a wrong name lists all)."
    )
    data_dir: str | None = _data(
        None,
        "Folder that holds the data set's folder or zip file; without it, it is downloaded.",
        only=(_If("dataset", ("synthetic",), is_not=True),),
    )
    synthetic_num_users: int = _data(500, "Users of `synthetic`.", minimum=10, only=(_SYNTHETIC,))
    synthetic_num_items: int = _data(300, "Items of `synthetic`.", minimum=2, only=(_SYNTHETIC,))
    synthetic_mean_ratings_per_user: int = _data(
        80, "Ratings of a user of `synthetic`, on average.", minimum=20, only=(_SYNTHETIC,)
    )
    max_ratings_per_user: int | None = _data(
        None, "A user's ratings beyond this many, after shuffling, are left out.", minimum=2
    )
    feedback: str = _data(
        "explicit",
        "explicit: ratings are predicted. implicit: whatever a user rated is a positive, and items "
        "are ranked; each user's last item is held out for the test.",
        choices=FEEDBACKS,
    )
    negatives_per_positive: int = _data(
        4,
        "Negatives that a client draws for each positive.",
        minimum=0,
        only=(_IMPLICIT, _NOT_LS),
    )
    evaluate_on: str = _data(
        "validation",
        "Whose ranking is followed while training: that of a validation item of each user, which "
        "then nobody trains on, or, training on it, that of the test item; then choose nothing by "
        "the curve.",
        choices=("validation", "test"),
        only=(_IMPLICIT,),
    )
    unseen_fraction: float = _data(
        0.0,
        "Share of the users left out of training altogether, to be ranked for as unseen ones. (Of "
        "explicit feedback it is always 0.2, validation and test.)",
        minimum=0.0,
        only=(_IMPLICIT,),
    )
    held_out_fraction: float = _data(
        0.0,
        "Share of each training user's ratings, the latest, held out to evaluate users seen in "
        "training; of those before, the same share for validation.",
        minimum=0.0,
        only=(_EXPLICIT,),
    )
    example_order: str = _data(
        "shuffle_once",
        "Order of a user's ratings: shuffled once for the run (as the paper's code), anew each "
        "round, or as in the file. Evaluation always sees the same order.",
        choices=ORDERS,
        only=(_EXPLICIT,),
    )
    label_threshold: float | None = _data(
        None,
        "Makes labels of ratings: 1 for this rating or a higher one, else 0. The neural models "
        "need it; without it the rating is the label.",
        only=(_EXPLICIT,),
    )

    model: str = _model("matrix_factorization", "Model.", choices=MODELS)
    dim: int = _model(
        50,
        "Width of user and item embeddings.",
        minimum=1,
        only=(_If("model", ("matrix_factorization", "gmf", "neumf")),),
    )
    hidden_units: str = _model(
        "64,32,16,8",
        "MLP tower: first the width of its input (user and item embeddings together), then those "
        "of its layers.",
        only=(_If("model", ("mlp", "neumf")),),
    )
    user_bias: bool = _model(False, "Add a local bias of the user.", only=(_MF,))
    item_bias: bool = _model(False, "Add a global bias of each item.", only=(_MF,))
    global_bias: bool = _model(False, "Add one global bias.", only=(_MF,))
    initial_rating: float = _model(
        0.0,
        "Where the global bias starts, such as the middle of the scale: who gives few ratings is "
        "served by it.",
        only=(_MF, _If("global_bias", (True,))),
    )
    l2: float = _model(
        0.0,
        "L2 regularisation of all weights (neural models: of embeddings and tower kernels), in the "
        "loss of each batch; of weights that are solved for, --ridge is that.",
        minimum=0.0,
    )
    spread_out: float = _model(
        0.0, "Spread-out regularisation of item embeddings.", minimum=0.0, only=(_MF,)
    )

    algorithm: str = _algorithm(
        "fedrecon",
        "fedrecon reconstructs the local part in each round; fedrecon_ls solves for it, and sends "
        "one gradient (of implicit feedback, that of iALS); fedavg draws it afresh and trains it "
        "with the global part; stateful_fedavg keeps it on the device; fedncf keeps user rows on "
        "the server; centralized has everybody's examples (its optimiser is --client_optimizer).",
        choices=ALGORITHMS,
    )
    reconstruction: str = _algorithm(
        "gradient_steps",
        "How the local part of fedrecon's clients, and that of unseen users with any algorithm, is "
        "fitted: by steps, or solved for, where the model is linear in it (matrix_factorization). "
        "fedrecon_ls always solves.",
        choices=RECONSTRUCTIONS,
        only=(_NOT_LS, _RECONSTRUCTING),
    )
    reconstruction_optimizer: str = _algorithm(
        "sgd",
        "Fits by gradient_steps.",
        choices=OPTIMIZERS,
        only=(_NOT_LS, _RECONSTRUCTING, _BY_STEPS),
    )
    reconstruction_learning_rate: float = _algorithm(
        0.1, "Rate of --reconstruction_optimizer.", only=(_NOT_LS, _RECONSTRUCTING, _BY_STEPS)
    )
    ridge: float | None = _algorithm(
        None,
        "Regularisation of what is solved for, relative to one example (and, where items are "
        "ranked, of item rows); by default that of the algorithm's options.",
        only=(_EXACT,),
    )
    ridge_exponent: float | None = _algorithm(
        None,
        "Regularisation grows with this power of a user's (and item's) number of examples: 0 is "
        "constant; by default that of the algorithm's options.",
        only=(_EXACT,),
    )
    bias_ridge: float | None = _algorithm(
        None, "In place of --ridge for the user bias.", only=(_EXACT, _EXPLICIT)
    )
    unobserved_weight: float | None = _algorithm(
        None,
        "What a pair of user and item weighs, relative to weight 1 of one with an interaction; by "
        "default that of the algorithm's options.",
        only=(_LS, _IMPLICIT),
    )
    client_optimizer: str = _algorithm(
        "sgd", "Fits the global part.", choices=OPTIMIZERS, only=(_NOT_LS,)
    )
    client_learning_rate: float = _algorithm(0.5, "Rate of --client_optimizer.", only=(_NOT_LS,))
    server_optimizer: str = _algorithm(
        "sgd", "Applies the mean update.", choices=OPTIMIZERS, only=(_FEDERATED,)
    )
    server_learning_rate: float = _algorithm(1.0, "Rate of --server_optimizer.", only=(_FEDERATED,))
    batch_size: int = _algorithm(
        5,
        "Examples a client's step, in training and in reconstruction, and of the batches that "
        "support and query are made of.",
        minimum=1,
        only=(_BATCHES,),
    )
    support_query_split: str = _algorithm(
        "alternating_batches",
        "Even batches reconstruct and odd ones update or evaluate; or all do both.",
        choices=SUPPORT_QUERY_SPLITS,
        only=(_SPLITTING,),
    )
    reconstruction_epochs: int = _algorithm(
        1, "Passes over the support.", minimum=1, only=(_NOT_LS, _RECONSTRUCTING, _BY_STEPS)
    )
    reconstruction_steps_max: int | None = _algorithm(
        None,
        "Limit on reconstruction steps.",
        minimum=1,
        only=(_NOT_LS, _RECONSTRUCTING, _BY_STEPS),
    )
    client_epochs: int = _algorithm(
        1,
        "Passes over the query (fedrecon) or all examples (the others) in training.",
        minimum=1,
        only=(_FEDERATED, _NOT_LS),
    )
    client_steps_max: int | None = _algorithm(
        None,
        "Limit on a client's steps (after reconstruction), in training.",
        minimum=1,
        only=(_FEDERATED, _NOT_LS),
    )
    client_weighting: str = _algorithm(
        "num_examples",
        "What a client's update weighs in the mean.",
        choices=CLIENT_WEIGHTINGS,
        only=(_FEDERATED, _BATCHES),
    )
    averaging: str = _algorithm(
        "plain",
        "Updates are divided by the weights of all clients of a round (plain), or those of a "
        "user's or an item's row by the weights of the clients that have it (by_row).",
        choices=AVERAGINGS,
        only=(_AVERAGING,),
    )
    minibatch_size: int = _algorithm(
        256, "Examples a step of centralized training.", minimum=1, only=(_CENTRALIZED,)
    )
    gradient_clip_norm: float | None = _algorithm(
        None, "A client's gradients are scaled down to this norm.", only=(_AVERAGING,)
    )

    engine: str = _training(
        "cohort",
        "What runs the clients: all of a round at once (cohort), or TFF's own builders one by one "
        "(stock), the slow reference.",
        choices=("cohort", "stock"),
        only=(_FEDRECON, _EXPLICIT, _BY_STEPS),
    )
    runtime: str = _training("in_process", RUNTIME_HELP, choices=RUNTIMES)
    gpu_memory_limit_mb: int | None = _training(
        None,
        GPU_MEMORY_LIMIT_HELP,
        minimum=1,
        only=(_If("runtime", ("in_process",)),),
    )
    total_rounds: int = _training(500, "Rounds to train in all.", minimum=1)
    clients_per_round: int = _training(
        100,
        "Clients a round; a round of centralized has as many examples as those have on average.",
        minimum=1,
    )
    client_sampler: str = _training(
        "uniform",
        "Clients of a round: drawn without replacement, or taken from a queue shuffled once.",
        choices=("uniform", "queue"),
        only=(_FEDERATED,),
    )
    rounds_per_evaluation: int = _training(25, "Rounds from one evaluation to the next.", minimum=1)
    rounds_per_checkpoint: int = _training(25, "Rounds from one checkpoint to the next.", minimum=1)
    seed: int = _training(0, "Every random number of the run follows from it.", minimum=0)
    output_dir: str | None = _training(None, "Folder for what the run leaves behind.")

    def __post_init__(self):
        if self.model in _NEURAL and self.is_explicit and self.label_threshold is None:
            raise InputError(
                f"--model={self.model} predicts a probability; give --label_threshold (such as 4) "
                "to make labels of the ratings, or --feedback=implicit."
            )
        for name in ("unseen_fraction", "held_out_fraction"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"--{name}={getattr(self, name)} must be at least 0 and below 1.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"--{field.name}={value} must be finite.")
            if field.name.endswith(_POSITIVE) and value is not None and value <= 0:
                raise InputError(f"--{field.name}={value} must be positive.")
        if self.ridge_exponent is not None and not 0.0 <= self.ridge_exponent <= 1.0:
            raise InputError(f"--ridge_exponent={self.ridge_exponent} must be from 0 to 1.")
        if self.is_solved and self.model in _NEURAL:
            raise InputError(
                f"--model={self.model} is not linear in its local part, and cannot be solved for; "
                "give --model=matrix_factorization, or reconstruct by gradient_steps."
            )
        for name in ("user_bias", "item_bias", "global_bias", "l2", "spread_out"):
            if self.is_fed_ials and getattr(self, name):
                raise InputError(
                    f"--{name} has no place in --algorithm=fedrecon_ls with --feedback=implicit, "
                    "federated iALS: its model is an inner product with a regularisation of its "
                    "own; leave it out."
                )
        self.hidden_unit_counts()

    @property
    def is_explicit(self) -> bool:
        """Whether ratings are predicted; else items are ranked."""
        return self.feedback == "explicit"

    @property
    def is_solved(self) -> bool:
        """Whether the local part of somebody is solved for."""
        return self.algorithm == "fedrecon_ls" or self.reconstruction == "least_squares"

    @property
    def trains_by_solving(self) -> bool:
        """Whether clients solve for their local part in training, too."""
        return self.is_solved and self.algorithm in ("fedrecon", "fedrecon_ls")

    @property
    def is_fed_ials(self) -> bool:
        """Whether the algorithm is federated iALS, whose clients need no negatives."""
        return self.algorithm == "fedrecon_ls" and not self.is_explicit

    def hidden_unit_counts(self) -> tuple[int, ...]:
        try:
            counts = tuple(int(count) for count in self.hidden_units.split(","))
        except ValueError:
            counts = ()
        if len(counts) < 2 or min(counts) < 1 or counts[0] % 2:
            raise InputError(
                f"--hidden_units={self.hidden_units} must be at least two positive numbers with "
                "commas between them, the first even, such as 64,32,16,8."
            )
        return counts

    def to_json(self) -> dict[str, Any]:
        """Returns the settings that this run uses."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if _uses(self, f)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """Returns the settings that `to_json` gave.

        Raises:
          InputError: If a name is none of ours, as from another version of the project.
        """
        unknown = sorted(values.keys() - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f"config.json has settings unknown here: {', '.join(unknown)}.")
        return cls(**values)


def _uses(settings: Any, field: dataclasses.Field) -> bool:
    return all(condition.holds(settings) for condition in field.metadata["only"])


def of_evaluation(settings: Settings) -> Settings:
    """Returns what the computations of an evaluation follow from, and defaults for all else.

    Runs that differ otherwise, by their seeds or algorithms, can share them.
    """
    names = (
        *("feedback", "label_threshold", "batch_size", "support_query_split"),
        *("ridge", "ridge_exponent", "bias_ridge", "unobserved_weight"),
        *(("algorithm",) if settings.algorithm == "fedrecon_ls" else ()),
    )
    return _only(
        settings,
        lambda f: (
            f.metadata["group"] == "model" or f.name.startswith("reconstruction") or f.name in names
        ),
    )


def of_data(settings: Settings) -> Settings:
    """Returns what the people and their ratings follow from, and defaults for all else."""
    # The model's name refuses explicit feedback without a threshold; it has no other part in this.
    chosen = _only(settings, lambda f: is_of_data(f.name) or f.name == "model")
    return dataclasses.replace(chosen, negatives_per_positive=0) if settings.is_fed_ials else chosen


def is_of_data(name: str) -> bool:
    """Whether the people of a run, or what they rated, may follow from the setting of this name."""
    return name == "seed" or _field(name).metadata["group"] == "data"


def _only(settings: Settings, is_kept: Callable[[dataclasses.Field], bool]) -> Settings:
    fields = dataclasses.fields(Settings)
    return Settings(**{f.name: getattr(settings, f.name) for f in fields if is_kept(f)})


def uses(settings: Settings, name: str) -> bool:
    """Whether a run with these settings depends on the setting of this name."""
    return _uses(settings, _field(name))


def _field(name: str) -> dataclasses.Field:
    (field,) = (f for f in dataclasses.fields(Settings) if f.name == name)
    return field


def define_flags(*, without: tuple[str, ...] = ()) -> None:
    """Defines a flag for each setting but some; `--help` names its group first."""
    for field in dataclasses.fields(Settings):
        if field.name in without:
            continue
        metadata = field.metadata
        text = f"({metadata['group']}) {metadata['help']}"
        bound = {"lower_bound": metadata["minimum"]}
        if metadata["choices"]:
            flags.DEFINE_enum(field.name, field.default, metadata["choices"], text)
        elif "bool" in field.type:
            flags.DEFINE_bool(field.name, field.default, text)
        elif "int" in field.type:
            flags.DEFINE_integer(field.name, field.default, text, **bound)
        elif "float" in field.type:
            flags.DEFINE_float(field.name, field.default, text, **bound)
        else:
            flags.DEFINE_string(field.name, field.default, text)
    flags.mark_flag_as_required("output_dir")


def from_flags() -> Settings:
    """Returns the settings that the command line gives.

    Raises:
      InputError: If a flag was given that the chosen data set or model does not use.
    """
    given = flags.FLAGS
    for field in dataclasses.fields(Settings):
        if given[field.name].present and not _uses(given, field):
            failing = next(c for c in field.metadata["only"] if not c.holds(given))
            raise InputError(
                f"--{field.name} has no effect with --{failing.name}={given[failing.name].value}; "
                f"it belongs to {failing}."
            )
    return Settings(**{f.name: given[f.name].value for f in dataclasses.fields(Settings)})


def parse_sweeps(flag: str, texts: list[str]) -> list[tuple[str, list[Any]]]:
    """Returns settings and their values of `SETTING:VALUE,VALUE,...`.

    Args:
      flag: The name of the flag, for errors.
      texts: What it was given.
    """
    sweeps = []
    for text in texts:
        name, colon, values = text.partition(":")
        if not colon or not values:
            raise InputError(f"--{flag}={text} must be SETTING:VALUE,VALUE,...")
        parsed = [parse_value(flag, text, name, value) for value in values.split(",")]
        sweeps.append((parsed[0][0], [value for _, value in parsed]))
    return sweeps


def parse_value(flag: str, text: str, name: str, value: str) -> tuple[str, Any]:
    """Returns the name of a setting, not an alias of it, and its value.

    Args:
      flag: The name of the flag that changes the setting, for errors.
      text: What it was given, likewise.
      name: The setting's, or an alias.
      value: As on the command line.
    """
    name = _ALIASES.get(name, name)
    changeable = {f.name for f in dataclasses.fields(Settings)}
    if name not in changeable - {"output_dir", "algorithm", "seed"}:
        raise InputError(f"--{flag}={text}: there is no setting {name!r} to change.")
    try:
        return name, flags.FLAGS[name].parser.parse(value)
    except ValueError as error:
        raise InputError(f"--{flag}={text}: {error}") from error
