"""The settings of a run: one record from which flags, config.json and the library's records come.

Each field is a flag of the same name (`flags.py`). A setting that has no effect beside the others
(`only`) is refused when given, and left out of config.json, so that no flag is silently ignored.
Nothing here imports TensorFlow: `--help` and wrong flags are answered at once.
"""

# No `from __future__ import annotations` here: the kind of a flag is read off the field's type, and
# a type in quotes would have to be evaluated first, which Python 3.9 cannot do with `int | None`.

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Optional

from experiments.run import fields, relevance
from experiments.run.names import ALGORITHMS, OF_EASE, OF_GENRES, REFERENCES
from experiments.run.relevance import MODELS, NEURAL_MODELS, Either, Having
from experiments.run.runtime import GPU_MEMORY_LIMIT_HELP, RUNTIME_HELP, RUNTIMES
from fedrecon import ials_units
from fedrecon.data.cohorts import SUPPORT_QUERY_SPLITS
from fedrecon.data.columns import parse_columns
from fedrecon.data.datasets import LEAVE_ONE_OUT_NAMES
from fedrecon.data.examples import ORDERS
from fedrecon.data.own_values import DUPLICATES, OFF_SCALE, parse_scale
from fedrecon.data.population import (
    PUBLISHED,
    STANDARD,
    STRONG_GENERALIZATION,
    UNSEEN_HALVES,
)
from fedrecon.errors import InputError
from fedrecon.options import (
    AVERAGINGS,
    CLIENT_WEIGHTINGS,
    OPTIMIZERS,
    RECONSTRUCTIONS,
    FedIalsOptions,
    LeastSquaresOptions,
)

FEEDBACKS = ("explicit", "implicit")
# How users are divided; `population.py` has a function for each.
SPLITS = (STANDARD, PUBLISHED, STRONG_GENERALIZATION)
ENGINES = ("cohort", "debug", "stock")
ITEM_FEATURES = ("genres",)
LOCAL_PARTS = ("fresh", "shared")

# These can change when a run is resumed: none of them changes the numbers of a round.
FREE = frozenset(
    {"data_dir", "ratings_file", "items_file", "cache_ratings", "output_dir"}
    | {"total_rounds", "rounds_per_checkpoint", "gpu_memory_limit_mb"}
)
# Changes whenever files of older runs would be misread: config.json holds it. (1 had no number, and
# other names of algorithms and of groups of users. 2 divided unseen users' ratings by batch_size. 3
# had the strengths of iALS per pair.)
FORMAT = 4

_MOST_WIDTH = 65_536  # Wider embeddings are mistakes.
_RECONSTRUCTING = (*relevance.STEPPING, "centralized")
_BY_STEPS = (relevance.REBUILDING, relevance.BY_STEPS)
_MF = (relevance.NOT_FED_IALS, relevance.MATRIX_FACTORIZATION)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All choices that a run depends on; None stands for "not used" or "no limit"."""

    dataset: str = fields.data(
        "synthetic",
        "Data set: synthetic (generated here), movielens-100k, movielens-1m, movielens-10m, "
        "movielens-20m, movielens-25m, movielens-32m, movielens-latest, movielens-latest-small, "
        "ncf-ml-1m or ncf-pinterest-20.",
        start=True,
    )
    data_dir: Optional[str] = fields.data(
        None,
        "Folder that has the data set as a folder or a zip file. Without it the data set is "
        "downloaded.",
        start=True,
        only=(relevance.BY_NAME,),
    )
    ratings_file: Optional[str] = fields.data(
        None,
        "File of your own ratings, in place of --dataset: text with one rating a line (csv, tsv, "
        "dat, txt; also .gz or .zip) or parquet. How it is written is found out, and said.",
        start=True,
        only=(relevance.OWN_FILE,),
    )
    columns: Optional[str] = fields.data(
        None,
        "The columns of --ratings_file, as user=NAME,item=NAME,rating=NAME,timestamp=NAME, or "
        "numbers from 1 in place of names. What it leaves out is found by usual names, or by "
        "order; timestamp=none does without times.",
        only=(relevance.OWN_FILE,),
    )
    no_ratings: bool = fields.data(
        False,
        "Each line is an interaction without a rating, and a positive when items are ranked.",
        only=(relevance.OWN_FILE,),
    )
    rating_scale: Optional[str] = fields.data(
        None,
        "The ratings that exist, as MIN,MAX,STEP, such as 0.5,5,0.5. Without it: the smallest "
        "scale that all ratings are on.",
        only=(relevance.OWN_FILE, relevance.HAS_RATINGS),
    )
    off_scale: str = fields.data(
        "refuse",
        "What to do with a line whose rating is not on the scale, or empty. refuse: name it and "
        "stop. drop: leave such lines out, and say how many.",
        choices=OFF_SCALE,
        only=(relevance.OWN_FILE, relevance.HAS_RATINGS),
    )
    duplicates: str = fields.data(
        "refuse",
        "What to do where a user rates an item more than once. refuse: name both lines and stop. "
        "latest: keep the latest. mean: take the mean, on the scale.",
        choices=DUPLICATES,
        only=(relevance.OWN_FILE,),
    )
    items_file: Optional[str] = fields.data(
        None,
        "File with the titles and genres of the items of --ratings_file: for people to read, and "
        "for --item_features.",
        only=(relevance.OWN_FILE,),
    )
    cache_ratings: bool = fields.data(
        True,
        "Keep the ratings of a file of a million rows or more in the cache folder, as they were "
        "read. The next run reads them from there, if the file is the same.",
        only=(relevance.OWN_FILE,),
        decides_questions=False,
    )
    positive_from: Optional[float] = fields.data(
        None,
        "A rating counts as a positive from this one on; lower ones are left out, and so are users "
        "and items without a positive. Without it each rating is a positive.",
        only=(relevance.IMPLICIT, relevance.DIVISIBLE, relevance.HAS_RATINGS),
    )
    min_ratings_per_user: Optional[int] = fields.data(
        None,
        "Leave out users with fewer ratings (after --positive_from), and repeat this with "
        "--min_ratings_per_item until nothing is left to leave out.",
        minimum=1,
        only=(relevance.DIVISIBLE, relevance.NOT_PUBLISHED),
    )
    min_ratings_per_item: Optional[int] = fields.data(
        None,
        "The same for items.",
        minimum=1,
        only=(relevance.DIVISIBLE, relevance.NOT_PUBLISHED),
    )
    synthetic_num_users: int = fields.data(
        500,
        "Users of the synthetic data set.",
        minimum=10,
        only=(relevance.SYNTHETIC,),
    )
    synthetic_num_items: int = fields.data(
        300,
        "Items of the synthetic data set.",
        minimum=2,
        only=(relevance.SYNTHETIC,),
    )
    synthetic_mean_ratings_per_user: int = fields.data(
        80,
        "Mean number of ratings of a user of the synthetic data set.",
        minimum=20,
        only=(relevance.SYNTHETIC,),
    )
    max_ratings_per_user: Optional[int] = fields.data(
        None,
        "Use at most this many ratings of each user, chosen by a shuffle. Without it all are used.",
        minimum=2,
    )
    feedback: str = fields.data(
        "explicit",
        "explicit: predict ratings. implicit: every rated item is a positive, items are ranked, "
        "and the last item of each user is held out for the test.",
        start=True,
        choices=FEEDBACKS,
    )
    split: str = fields.data(
        STANDARD,
        "How users are divided, and what they are asked. standard: as --feedback says. published: "
        "the users and halves of the FedRecon paper's released code, the same for each seed "
        "(MovieLens, explicit feedback). "
        "strong_generalization: held-out users give a random 80% of their items, and the other "
        "20% are ranked among all items that they do not give (implicit feedback; Liang et al. "
        "2018).",
        choices=SPLITS,
    )
    num_held_out_users: Optional[int] = fields.data(
        None,
        "Number of users who validate, and of as many who test. They take no part in training. "
        "Without it: a tenth of the users each.",
        minimum=1,
        only=(relevance.BY_STRONG_GENERALIZATION,),
    )
    published_draw: bool = fields.data(
        False,
        "Hold out the users and the items that the code published with Liang et al. 2018 draws, "
        "whatever --seed. Of MovieLens 20M these are the users of published figures.",
        only=(relevance.BY_STRONG_GENERALIZATION,),
    )
    negatives_per_positive: int = fields.data(
        4,
        "Negatives that a client draws for each positive.",
        minimum=0,
        maximum=10_000,
        only=(relevance.IMPLICIT, relevance.algorithm_not_in(relevance.WITHOUT_NEGATIVES)),
        decides_questions=False,
    )
    leaks_test_item: bool = fields.data(
        False,
        "Never draw a user's test item as a negative, as the code of published federated "
        "recommenders does. An item that never comes as a negative gives itself away, so figures "
        "are too good; use it only to measure by how much.",
        only=(
            relevance.IMPLICIT,
            relevance.BY_HELD_OUT_ITEM,
            relevance.NOT_FED_IALS,
        ),
        decides_questions=False,
    )
    evaluate_on: str = fields.data(
        "validation",
        "Which held-out item is ranked during training. validation: hold one out per user and "
        "never train on it. test: train on it and rank the test item instead; then do not use the "
        "curve to choose settings.",
        choices=("validation", "test"),
        only=(relevance.IMPLICIT, relevance.BY_HELD_OUT_ITEM),
    )
    unseen_fraction: float = fields.data(
        0.0,
        "Share of users kept out of training and evaluated as unseen. (With explicit feedback it "
        "is always 0.2: validation and test users.)",
        minimum=0.0,
        below=1.0,
        only=(relevance.IMPLICIT, relevance.BY_HELD_OUT_ITEM),
    )
    held_out_fraction: float = fields.data(
        0.0,
        "Share of each training user's ratings, the latest, held out to evaluate seen users. The "
        "same share of the ratings before them is held out for validation.",
        minimum=0.0,
        below=1.0,
        only=(relevance.EXPLICIT, relevance.NOT_PUBLISHED),
    )
    cold_items_fraction: float = fields.data(
        0.0,
        "Share of the items, drawn by the seed, that nobody trains on and no user gives. Unseen "
        "users are asked for the ratings of these cold items in groups of their own, "
        "cold_validation and cold_test.",
        minimum=0.0,
        below=1.0,
        only=(relevance.EXPLICIT, relevance.NOT_PUBLISHED),
    )
    unseen_halves: str = fields.data(
        "random",
        "How an unseen user's ratings are halved. random: shuffled and cut into batches; even "
        "batches are given, odd ones are asked for, as in the paper's code. by_time: the earlier "
        "half is given, the later half is asked for.",
        choices=UNSEEN_HALVES,
        only=(relevance.EXPLICIT, relevance.NOT_PUBLISHED),
    )
    support_batch_size: int = fields.data(
        5,
        "Ratings in a batch of --unseen_halves=random. A user with no more ratings than one batch "
        "is not judged.",
        minimum=1,
        maximum=100_000,
        only=(relevance.EXPLICIT, Having("unseen_halves", ("random",))),
    )
    example_order: str = fields.data(
        "shuffle_once",
        "Order of a user's ratings in training. shuffle_once: shuffled once for the whole run, as "
        "in the paper's code. shuffle_each_round: shuffled anew each round, so that support and "
        "query change, and the ratings kept by --max_ratings_per_user. by_time: the earliest "
        "first. Evaluation always sees one order.",
        choices=ORDERS,
        only=(relevance.EXPLICIT, relevance.NOT_PUBLISHED),
        decides_questions=False,
    )
    label_threshold: Optional[float] = fields.data(
        None,
        "Turns ratings into labels: 1 for this rating or a higher one, 0 otherwise. The neural "
        "models need it. Without it the rating is the label.",
        only=(relevance.EXPLICIT, relevance.NOT_PUBLISHED),
    )

    model: str = fields.model(
        "matrix_factorization",
        "Model: matrix_factorization, gmf, mlp or neumf; or a function of your own, as "
        "package.module:function.",
        start=True,
        choices=MODELS,
    )
    dim: int = fields.model(
        50,
        "Width of the user and item embeddings.",
        start=True,
        minimum=1,
        maximum=_MOST_WIDTH,
        algorithms=(*ALGORITHMS, "ials"),
        only=(Either((Having("model", ("mlp",), is_not=True), relevance.algorithm_in(("ials",)))),),
    )
    hidden_units: str = fields.model(
        "64,32,16,8",
        "Layer widths of the MLP tower, separated by commas. The first is the width of its input: "
        "user and item embedding together.",
        only=(relevance.TRAINED, Having("model", ("mlp", "neumf"))),
    )
    user_bias: bool = fields.model(False, "Add a local bias of each user.", only=_MF)
    item_bias: bool = fields.model(False, "Add a global bias of each item.", only=_MF)
    global_bias: bool = fields.model(False, "Add one global bias of all ratings.", only=_MF)
    mean_user: bool = fields.model(
        False,
        "Add a global row to each user's own, so that users who give little are served as the mean "
        "user is.",
        only=_MF,
    )
    item_features: Optional[str] = fields.model(
        None,
        "Features that add to the row and the bias of an item, so that an item which nobody rated "
        "has a row, too. genres: the genres in the data set.",
        choices=ITEM_FEATURES,
        only=_MF,
    )
    item_features_norm: float = fields.model(
        1.0,
        "Length of the features of an item. Gradient steps on features add up over all items that "
        "have them; shorter features keep them from diverging. Default: 1; 0.1 for fed_recon "
        "and centralized.",
        positive=True,
        only=(*_MF, Having("item_features", ITEM_FEATURES)),
    )
    initial_rating: Optional[float] = fields.model(
        None,
        "Initial value of the global bias, towards which predictions for users with few ratings "
        "shrink. Without it: the middle of the rating scale.",
        only=(*_MF, Having("global_bias", (True,))),
    )
    l2: float = fields.model(
        0.0,
        "L2 regularization of all weights, in the loss of each batch (neural models: of embeddings "
        "and tower kernels). Weights that are solved for use --ridge instead.",
        minimum=0.0,
        only=(relevance.NOT_FED_IALS,),
    )
    user_l2: Optional[float] = fields.model(
        None,
        "L2 regularization of the user's own part, in place of --l2. A user has few ratings and "
        "meets them often, an item the other way round.",
        minimum=0.0,
        only=(relevance.NOT_SOLVING, relevance.MATRIX_FACTORIZATION),
    )
    spread_out: float = fields.model(
        0.0,
        "Spread-out regularization, which pushes item embeddings apart.",
        minimum=0.0,
        only=_MF,
    )

    algorithm: str = fields.algorithm(
        "fed_recon",
        "Algorithm. fed_recon: clients rebuild their local part each round by gradient steps. "
        "fed_recon_ls: clients solve for their local part and send one gradient (explicit "
        "feedback). fed_ials: the same with the loss of iALS (implicit feedback). fed_avg: clients "
        "draw their local part anew each round and train it with the global part. "
        "stateful_fed_avg: devices keep their local part. fed_ncf: the server keeps the local "
        "parts. centralized: one machine has all examples and trains with --client_optimizer.",
        start=True,
        choices=(*ALGORITHMS, *REFERENCES),
    )
    reconstruction: str = fields.algorithm(
        "gradient_steps",
        "How a local part is rebuilt, by the clients of fed_recon and for unseen users of each "
        "algorithm. gradient_steps: by --reconstruction_optimizer. least_squares: solved for, with "
        "models that are linear in their local part (matrix_factorization).",
        choices=RECONSTRUCTIONS,
        algorithms=_RECONSTRUCTING,
        only=(relevance.REBUILDING,),
    )
    reconstruction_optimizer: str = fields.algorithm(
        "sgd",
        "Optimizer of the gradient steps of reconstruction.",
        choices=OPTIMIZERS,
        algorithms=_RECONSTRUCTING,
        only=_BY_STEPS,
    )
    reconstruction_learning_rate: float = fields.algorithm(
        0.1,
        "Learning rate of --reconstruction_optimizer.",
        positive=True,
        algorithms=_RECONSTRUCTING,
        only=_BY_STEPS,
    )
    ridge: Optional[float] = fields.algorithm(
        None,
        "Regularization of a local part that is solved for, relative to one example. For fed_ials "
        "and ials it is that of all rows, relative to noise: what suits one data set suits others. "
        f"For EASE it is that of its weights. Default: {LeastSquaresOptions.regularization:g}; "
        f"{ials_units.REGULARIZATION:g} for fed_ials and ials; 500 for ease and fed_ease.",
        positive=True,
        algorithms=(*ALGORITHMS, "ials", *OF_EASE),
        only=(relevance.SOLVED,),
    )
    ridge_exponent: Optional[float] = fields.algorithm(
        None,
        "The regularization grows with this power of a user's (and item's) number of examples; 0 "
        f"is constant. Default: {LeastSquaresOptions.exponent:g}; {FedIalsOptions.exponent:g} for "
        "fed_ials.",
        minimum=0.0,
        maximum=1.0,
        algorithms=ALGORITHMS,
        only=(relevance.SOLVED,),
    )
    bias_ridge: Optional[float] = fields.algorithm(
        None,
        "Regularization of the user bias in place of --ridge. Default: --ridge.",
        positive=True,
        algorithms=ALGORITHMS,
        only=(relevance.SOLVED, relevance.EXPLICIT, relevance.USER_BIAS),
    )
    unobserved_weight: Optional[float] = fields.algorithm(
        None,
        "Weight of all pairs of user and item together, relative to the pairs with an interaction. "
        "So what suits one data set suits others, however dense they are. Default: "
        f"{ials_units.UNOBSERVED_WEIGHT:g}.",
        positive=True,
        algorithms=("fed_ials", "ials"),
    )
    num_neighbors: int = fields.algorithm(
        50,
        "The most neighbors of an item that item_knn counts.",
        minimum=1,
        algorithms=("item_knn",),
    )
    shrinkage: Optional[float] = fields.algorithm(
        None,
        "So many users in common halve a similarity of item_knn. Default: 0 with implicit "
        "feedback, 500 with explicit feedback.",
        minimum=0.0,
        algorithms=("item_knn",),
    )
    client_optimizer: str = fields.algorithm(
        "sgd",
        "Optimizer of a client's training steps.",
        choices=OPTIMIZERS,
        algorithms=(*relevance.STEPPING, "centralized"),
    )
    client_learning_rate: float = fields.algorithm(
        0.5,
        "Learning rate of --client_optimizer.",
        positive=True,
        algorithms=(*relevance.STEPPING, "centralized"),
    )
    server_optimizer: str = fields.algorithm(
        "sgd",
        "Optimizer that applies the mean of the clients' updates.",
        choices=OPTIMIZERS,
        algorithms=relevance.FEDERATED,
    )
    server_learning_rate: float = fields.algorithm(
        1.0,
        "Learning rate of --server_optimizer.",
        positive=True,
        algorithms=relevance.FEDERATED,
    )
    batch_size: int = fields.algorithm(
        5,
        "Examples in one step of a client, in training and in reconstruction. Support and query "
        "consist of whole batches. (--support_batch_size is for evaluation.)",
        minimum=1,
        maximum=100_000,
        algorithms=relevance.BATCHED,
    )
    support_query_split: str = fields.algorithm(
        "alternating_batches",
        "What clients do in training. alternating_batches: even batches reconstruct, odd batches "
        "update. query_of_all: even batches reconstruct, all batches update. none: all batches do "
        "both.",
        choices=SUPPORT_QUERY_SPLITS,
        algorithms=relevance.SPLIT,
    )
    reconstruction_epochs: int = fields.algorithm(
        1,
        "Passes over the support in reconstruction.",
        minimum=1,
        algorithms=_RECONSTRUCTING,
        only=_BY_STEPS,
    )
    reconstruction_steps_max: Optional[int] = fields.algorithm(
        None,
        "Largest number of steps in one reconstruction. Without it there is no limit.",
        minimum=1,
        algorithms=_RECONSTRUCTING,
        only=_BY_STEPS,
    )
    client_epochs: int = fields.algorithm(
        1,
        "Passes of a client over its training examples in one round: over the query in fed_recon, "
        "over all examples in other algorithms.",
        minimum=1,
        algorithms=relevance.STEPPING,
    )
    client_steps_max: Optional[int] = fields.algorithm(
        None,
        "Largest number of a client's training steps in one round. Without it there is no limit.",
        minimum=1,
        algorithms=relevance.STEPPING,
    )
    client_weighting: str = fields.algorithm(
        "num_examples",
        "Weight of a client's update in the mean: its number of examples, or the same for all.",
        choices=CLIENT_WEIGHTINGS,
        algorithms=(*relevance.STEPPING, "fed_recon_ls"),
    )
    local_part: str = fields.algorithm(
        "fresh",
        "What stands for the user in training. fresh: each client draws a local part of its own in "
        "each round. shared: no client has one; the row of --mean_user stands for all users and is "
        "averaged as item rows are, by which the FedRecon paper's released code trains FedAvg. "
        "Unseen users are rebuilt from that row.",
        choices=LOCAL_PARTS,
        algorithms=("fed_avg",),
        only=(relevance.MATRIX_FACTORIZATION,),
    )
    averaging: str = fields.algorithm(
        "plain",
        "plain: divide the sum of the updates by the weights of all clients of the round. by_row: "
        "divide the row of an item or user by the weights of the clients that have it.",
        choices=AVERAGINGS,
        algorithms=relevance.AVERAGING,
    )
    minibatch_size: int = fields.algorithm(
        256,
        "Examples in one step of centralized training.",
        minimum=1,
        algorithms=("centralized",),
    )
    gradient_clip_norm: Optional[float] = fields.algorithm(
        None,
        "Scale a client's gradient down to this norm where it is longer. Without it gradients stay "
        "as they are.",
        positive=True,
        algorithms=relevance.AVERAGING,
    )

    engine: str = fields.training(
        "cohort",
        "cohort: run all clients of a round at once. debug: run one client at a time, without XLA "
        "and without vectorization, so that a breakpoint in a client's step works. stock: run "
        "TFF's own builders, client by client (fed_recon by gradient steps on explicit feedback).",
        choices=ENGINES,
        algorithms=relevance.STEPPING,
    )
    clients_per_shard: Optional[int] = fields.training(
        None,
        "Clients that are worked on together, from 1 to --clients_per_round. It decides how fast a "
        "round is, and the last bits of its sums, so a resumed run keeps it. Without it a number "
        "is chosen that suits two CPU cores; benchmark --suite=shards measures others.",
        minimum=1,
        algorithms=relevance.FEDERATED,
        only=(Having("engine", ("cohort",)),),
    )
    runtime: str = fields.training(
        "in_process", RUNTIME_HELP, choices=RUNTIMES, only=(relevance.TRAINED,)
    )
    gpu_memory_limit_mb: Optional[int] = fields.training(
        None,
        GPU_MEMORY_LIMIT_HELP,
        minimum=1,
        only=(relevance.TRAINED, relevance.IN_THIS_PROCESS),
    )
    warm_start: Optional[str] = fields.training(
        None,
        "Directory of a finished run. Training starts from its model in place of random values. "
        "Items are matched by their ids; new ones start from their genres. Users stay in the "
        "part (training, validation, test) that they had in that run.",
        decides_questions=True,
        only=(relevance.TRAINED, Having("engine", ("stock",), is_not=True)),
    )
    total_rounds: int = fields.training(
        500,
        "Number of rounds in all.",
        start=True,
        minimum=1,
        only=(relevance.TRAINED,),
    )
    clients_per_round: int = fields.training(
        100,
        "Clients in one round. A round of centralized has as many examples as so many users have "
        "on average.",
        start=True,
        minimum=1,
        only=(relevance.TRAINED,),
    )
    client_sampler: str = fields.training(
        "uniform",
        "How the clients of a round are chosen. uniform: drawn at random, without replacement. "
        "queue: taken from a list that is shuffled once, so that all users take turns.",
        choices=("uniform", "queue"),
        algorithms=relevance.FEDERATED,
    )
    rounds_per_evaluation: int = fields.training(
        25, "Rounds from one evaluation to the next.", minimum=1, only=(relevance.TRAINED,)
    )
    rounds_per_checkpoint: int = fields.training(
        25, "Rounds from one checkpoint to the next.", minimum=1, only=(relevance.TRAINED,)
    )
    seed: int = fields.training(
        0,
        "All random numbers of the run follow from it.",
        start=True,
        minimum=0,
        maximum=2**63 - 1,
    )
    output_dir: Optional[str] = fields.training(
        None,
        "Folder for the files of the run. The same command again resumes the run.",
        start=True,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            fields.check(field, getattr(self, field.name))
        self._check_together()
        self.hidden_unit_counts()

    def _check_together(self) -> None:
        """Refuses settings that are right one by one but not together."""
        if (self.dataset == "file") != (self.ratings_file is not None):
            raise InputError("give --ratings_file=FILE without --dataset, or --dataset=NAME alone.")
        if self.columns is not None:
            parse_columns(self.columns)
        if self.rating_scale is not None:
            parse_scale(self.rating_scale)
        if self.no_ratings and self.is_explicit:
            raise InputError(
                "--no_ratings leaves nothing that --feedback=explicit could predict; give "
                "--feedback=implicit."
            )
        if self.split == STRONG_GENERALIZATION:
            self._check_strong_generalization()
        if self.split == PUBLISHED:
            self._check_published()
        if self.algorithm == "fed_recon_ls" and not self.is_explicit:
            raise InputError(
                "--algorithm=fed_recon_ls predicts ratings; with --feedback=implicit give "
                "--algorithm=fed_ials."
            )
        if self.algorithm in ("fed_ials", "ials", *OF_EASE) and self.is_explicit:
            raise InputError(
                f"{self.algorithm} is for implicit feedback; leave it out, or give "
                "--feedback=implicit."
            )
        if self.algorithm in ("global_mean", *OF_GENRES) and not self.is_explicit:
            raise InputError(
                f"{self.algorithm} predicts ratings; leave it out, or give --feedback=explicit."
            )
        needs_labels = self.model in NEURAL_MODELS and self.is_explicit and self.is_trained
        if needs_labels and self.label_threshold is None:
            raise InputError(
                f"--model={self.model} predicts a probability; give --label_threshold (such as 4) "
                "to turn ratings into labels, or --feedback=implicit."
            )
        if self.is_solved and self.model in NEURAL_MODELS:
            raise InputError(
                f"--model={self.model} is not linear in its local part, so the local part cannot "
                "be solved for; give --model=matrix_factorization, or an algorithm and a "
                "reconstruction by gradient steps."
            )
        if self.user_l2 is not None and self.trains_by_solving:
            raise InputError(
                "--user_l2 has no effect where training solves for the user's part; give --ridge."
            )
        if self.leaks_test_item and not self.negatives_per_positive:
            raise InputError(
                "--leaks_test_item has no effect with --negatives_per_positive=0, by which no "
                "negatives are drawn; leave one of the two out."
            )
        if self.shares_user_row and not self.mean_user:
            raise InputError(
                "--local_part=shared is the row of --mean_user; give --mean_user, too."
            )
        if self.algorithm == "fed_ials":
            biases = ("user_bias", "item_bias", "global_bias")
            for name in (*biases, "mean_user", "item_features", "l2", "spread_out"):
                if getattr(self, name):
                    raise InputError(
                        f"--{name} has no effect with --algorithm=fed_ials, whose model is an "
                        "inner product with a regularization of its own; leave it out."
                    )
        if self.engine == "stock" and (
            (self.algorithm, self.feedback, self.reconstruction)
            != ("fed_recon", "explicit", "gradient_steps")
        ):
            raise InputError(
                "--engine=stock is TFF's own FedRecon; it needs --algorithm=fed_recon, "
                "--feedback=explicit and --reconstruction=gradient_steps."
            )

    def _check_strong_generalization(self) -> None:
        """Refuses settings that do not go with `--split=strong_generalization`."""
        if self.is_explicit:
            raise InputError(
                "--split=strong_generalization ranks items; leave --feedback=explicit out."
            )
        if self.dataset in LEAVE_ONE_OUT_NAMES:
            raise InputError(
                f"--dataset={self.dataset} says itself which items are held out, so "
                "--split=strong_generalization cannot divide it; give another data set."
            )
        if self.warm_start is not None:
            raise InputError(
                "--warm_start has no meaning with --split=strong_generalization, whose catalog "
                "follows from who trains; leave one of the two out."
            )

    def _check_published(self) -> None:
        """Refuses settings that do not go with `--split=published`."""
        if not self.dataset.startswith("movielens"):
            raise InputError(
                f"--split=published divides by the lines of a MovieLens file, and --dataset is "
                f"{self.dataset}; give --dataset=movielens-1m."
            )
        if not self.is_explicit:
            raise InputError(
                "--split=published predicts ratings; give --feedback=explicit, and an algorithm "
                "for it."
            )
        if self.warm_start is not None:
            raise InputError(
                "--warm_start keeps users in their part of another run, and --split=published has "
                "parts of its own; leave one of the two out."
            )

    @property
    def is_explicit(self) -> bool:
        """Whether ratings are predicted; otherwise items are ranked."""
        return self.feedback == "explicit"

    @property
    def is_trained(self) -> bool:
        """Whether the algorithm trains in rounds; otherwise it is a reference."""
        return self.algorithm not in REFERENCES

    @property
    def is_solved(self) -> bool:
        """Whether some local part is solved for, in training or for unseen users."""
        return self.is_trained and (
            self.algorithm in relevance.SOLVING or self.reconstruction == "least_squares"
        )

    @property
    def shares_user_row(self) -> bool:
        """Whether one row, which the server averages, stands for all users of FedAvg."""
        return self.algorithm == "fed_avg" and self.local_part == "shared"

    @property
    def trains_by_solving(self) -> bool:
        """Whether clients solve for their local part in training, too."""
        return self.is_solved and self.algorithm in ("fed_recon", *relevance.SOLVING)

    def hidden_unit_counts(self) -> tuple[int, ...]:
        try:
            counts = tuple(int(count) for count in self.hidden_units.split(","))
        except ValueError:
            counts = ()
        if len(counts) < 2 or min(counts) < 1 or max(counts) > _MOST_WIDTH or counts[0] % 2:
            raise InputError(
                f"--hidden_units={self.hidden_units} must be at least two numbers from 1 to "
                f"{_MOST_WIDTH} with commas between them, the first even, such as 64,32,16,8."
            )
        return counts

    def to_json(self) -> dict[str, Any]:
        """Returns the settings that this run uses."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if _uses(self, f)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Settings":
        """Returns the settings from what `to_json` returned.

        Raises:
          InputError: If a setting does not exist, as in a file of another version of the project.
        """
        unknown = sorted(values.keys() - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f"config.json has settings unknown here: {', '.join(unknown)}.")
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"config.json has a setting that cannot be used: {error}.") from error

    @classmethod
    def of_used(cls, values: Mapping[str, Any]) -> "Settings":
        """Returns settings in which each one that has no effect has its default.

        Runs of a comparison get them from flags that only some of the runs use.
        """
        every, used = dataclasses.fields(cls), dict(values)
        while True:
            record = _Record(used)
            unused = [f for f in every if f.name in used and not _uses(record, f)]
            if not unused:
                return cls(**used)
            for field in unused:
                del used[field.name]


class _Record:
    """Values that need not be right, with defaults for those that are missing."""

    def __init__(self, values: Mapping[str, Any]):
        vars(self).update({f.name: f.default for f in dataclasses.fields(Settings)}, **values)


def _uses(settings: Any, field: dataclasses.Field) -> bool:
    return all(condition.holds(settings) for condition in field.metadata["only"])


def uses(settings: Settings, name: str) -> bool:
    """Whether a run with these settings depends on the setting of this name."""
    return _uses(settings, field_of(name))


def no_effect(settings: Settings, name: str) -> str:
    """Returns the sentence that a setting which is not used has no effect, and where it has one."""
    failing = next(c for c in field_of(name).metadata["only"] if not c.holds(settings))
    deciding = failing.deciding()
    return (
        f"--{name} has no effect with --{deciding}={getattr(settings, deciding)}; it belongs to "
        f"{failing}."
    )


def field_of(name: str) -> dataclasses.Field:
    (field,) = (f for f in dataclasses.fields(Settings) if f.name == name)
    return field


def of_data(settings: Settings) -> Settings:
    """Returns the settings that users and ratings follow from, others at default."""
    chosen = _only(settings, lambda f: is_of_data(f.name))
    if settings.algorithm in relevance.WITHOUT_NEGATIVES:
        return dataclasses.replace(chosen, negatives_per_positive=0)
    return chosen


def decides_questions(name: str) -> bool:
    """Whether the setting of this name decides who is evaluated, or what they are asked."""
    return name == "seed" or field_of(name).metadata["decides_questions"]


def is_of_data(name: str) -> bool:
    """Whether the users of a run, or their ratings, may follow from the setting of this name."""
    return name == "seed" or field_of(name).metadata["group"] == "data"


def _only(settings: Settings, is_kept: Callable[[dataclasses.Field], bool]) -> Settings:
    every = dataclasses.fields(Settings)
    return Settings(**{f.name: getattr(settings, f.name) for f in every if is_kept(f)})


def check_format(config: Mapping[str, Any], path: Any) -> None:
    """Refuses the run directory of an older version, whose files would be misread.

    Args:
      config: The content of config.json.
      path: The run directory.
    """
    if config.get("format") != FORMAT:
        raise InputError(
            f"{path} is the run of another version of fedrecon, whose settings meant something "
            "else; use it with that version, or train again in another output directory."
        )
