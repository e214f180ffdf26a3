"""From settings to the objects of a run. The binaries share it, so that both see the same run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from experiments.settings import Settings
from fedrecon.errors import InputError

if TYPE_CHECKING:  # Importing TensorFlow takes seconds; errors in flags and data come before it.
    import numpy as np

    from fedrecon.algorithms.options import FedReconOptions
    from fedrecon.data.examples import ClientExamples
    from fedrecon.data.ratings import Ratings
    from fedrecon.models.split_model import SplitModel
    from fedrecon.training import FederatedTask


def load_ratings(settings: Settings) -> Ratings:
    from fedrecon.data.datasets import load_dataset

    synthetic_options = {}
    if settings.dataset == "synthetic":
        synthetic_options = {
            "num_users": settings.synthetic_num_users,
            "num_items": settings.synthetic_num_items,
            "mean_ratings_per_user": settings.synthetic_mean_ratings_per_user,
            "seed": settings.seed,
        }
    return load_dataset(settings.dataset, data_dir=settings.data_dir, **synthetic_options)


def model_fn(settings: Settings, num_items: int) -> Callable[[], SplitModel]:
    from fedrecon.models import matrix_factorization, neural_cf

    common = {"l2": settings.l2, "seed": settings.seed}
    if settings.model == "matrix_factorization":
        return functools.partial(
            matrix_factorization.matrix_factorization,
            num_items,
            settings.dim,
            user_bias=settings.user_bias,
            item_bias=settings.item_bias,
            global_bias=settings.global_bias,
            spread_out=settings.spread_out,
            **common,
        )
    if settings.model == "gmf":
        return functools.partial(neural_cf.gmf, num_items, settings.dim, **common)
    hidden_units = settings.hidden_unit_counts()
    if settings.model == "mlp":
        return functools.partial(neural_cf.mlp, num_items, hidden_units, **common)
    return functools.partial(
        neural_cf.neumf, num_items, gmf_dim=settings.dim, hidden_units=hidden_units, **common
    )


def fed_recon_options(settings: Settings) -> FedReconOptions:
    from fedrecon.algorithms.options import FedReconOptions, OptimizerOptions

    def optimizer(role: str) -> OptimizerOptions:
        return OptimizerOptions(
            getattr(settings, f"{role}_optimizer"), getattr(settings, f"{role}_learning_rate")
        )

    return FedReconOptions(
        reconstruction_optimizer=optimizer("reconstruction"),
        client_optimizer=optimizer("client"),
        server_optimizer=optimizer("server"),
        batch_size=settings.batch_size,
        support_query_split=settings.support_query_split,
        reconstruction_epochs=settings.reconstruction_epochs,
        reconstruction_steps_max=settings.reconstruction_steps_max,
        client_epochs=settings.client_epochs,
        client_steps_max=settings.client_steps_max,
        client_weighting=settings.client_weighting,
    )


@dataclasses.dataclass(frozen=True)
class Clients:
    """The people of a run and what they rated.

    Attributes:
      examples: What each of them gives to a round.
      users: The user ids of each part, `train`, `validation` and `test`.
    """

    examples: ClientExamples
    users: Mapping[str, np.ndarray]


def load_clients(settings: Settings) -> Clients:
    """Loads the ratings and splits the users 80/10/10, so that each part has people of its own."""
    import numpy as np

    from fedrecon.data.examples import ClientExamples, ExampleOptions
    from fedrecon.data.splits import split_by_user

    ratings = load_ratings(settings)
    split = split_by_user(ratings, seed=settings.seed)
    options = ExampleOptions(
        max_ratings_per_user=settings.max_ratings_per_user,
        order=settings.example_order,
        label_threshold=settings.label_threshold,
        seed=settings.seed,
    )
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    users = {name: np.unique(part.user_ids) for name, part in parts.items()}
    if settings.clients_per_round > len(users["train"]):
        raise InputError(
            f"--clients_per_round={settings.clients_per_round} is more than the "
            f"{len(users['train'])} training users of {settings.dataset}."
        )
    return Clients(ClientExamples(ratings, options), users)


def build_task(settings: Settings, clients: Clients) -> FederatedTask:
    """Builds FedRecon, trained, validated and tested on different people."""
    from fedrecon import rng
    from fedrecon.training import FederatedTask

    sample = rng.sample_queue if settings.client_sampler == "queue" else rng.sample_uniform

    def sample_cohort(round_num: int) -> np.ndarray:
        return sample(
            clients.users["train"],
            settings.clients_per_round,
            seed=settings.seed,
            round_num=round_num,
        )

    engine = _stock_engine if settings.engine == "stock" else _cohort_engine
    return FederatedTask(
        sample_cohort=sample_cohort,
        evaluation_users=clients.users,
        **engine(settings, clients),
    )


def _cohort_engine(settings: Settings, clients: Clients) -> dict[str, Any]:
    """Returns what a `FederatedTask` needs to run all clients of a round at once."""
    from fedrecon.algorithms import fed_recon
    from fedrecon.data.cohorts import CohortPacker, choose_clients_per_shard

    examples = clients.examples
    build_model = model_fn(settings, examples.ratings.num_items)
    options = fed_recon_options(settings)

    def packer(packing, users, num_clients):
        size = choose_clients_per_shard(examples, users, packing, num_clients=num_clients)
        return CohortPacker(examples, packing, clients_per_shard=size)

    training = packer(
        fed_recon.packing_options(options, seed=settings.seed),
        clients.users["train"],
        settings.clients_per_round,
    )
    evaluation = packer(
        fed_recon.evaluation_packing_options(options, seed=settings.seed),
        clients.users["validation"],
        len(clients.users["validation"]),
    )
    return {
        "training": fed_recon.build_fed_recon(
            build_model, options, clients_per_shard=training.clients_per_shard
        ),
        "evaluation": fed_recon.build_fed_recon_evaluation(
            build_model, options, clients_per_shard=evaluation.clients_per_shard
        ),
        "training_data": training.pack,
        "evaluation_data": lambda users: evaluation.pack(users, 0),
        "training_metrics": fed_recon.training_metrics,
        "evaluation_metrics": fed_recon.evaluation_metrics,
    }


def _stock_engine(settings: Settings, clients: Clients) -> dict[str, Any]:
    """Returns what a `FederatedTask` needs to run clients one by one, with TFF's own builders."""
    from fedrecon.algorithms import stock_fed_recon

    examples = clients.examples

    def client_data(users: np.ndarray, round_num: int) -> list:
        return [
            stock_fed_recon.client_dataset(
                *examples.examples(user, round_num), batch_size=settings.batch_size
            )
            for user in users
        ]

    build_model = model_fn(settings, examples.ratings.num_items)
    options = fed_recon_options(settings)
    return {
        "training": stock_fed_recon.build_fed_recon(build_model, options),
        "evaluation": stock_fed_recon.build_fed_recon_evaluation(build_model, options),
        "training_data": client_data,
        "evaluation_data": lambda users: client_data(users, 0),
        "training_metrics": stock_fed_recon.training_metrics,
        "evaluation_metrics": stock_fed_recon.evaluation_metrics,
    }
