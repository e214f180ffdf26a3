"""From settings to the objects of a run. The binaries share it, so that both see the same run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.settings import Settings
from fedrecon.errors import InputError

if TYPE_CHECKING:  # Importing TensorFlow takes seconds; errors in flags and data come before it.
    from fedrecon.algorithms.options import FedReconOptions
    from fedrecon.data.ratings import Ratings
    from fedrecon.models.split_model import SplitModel
    from fedrecon.training import FederatedTask


def load_ratings(settings: Settings) -> Ratings:
    from fedrecon.data.datasets import load_dataset
    from fedrecon.data.synthetic import synthetic_ratings

    if settings.dataset == "synthetic":
        return synthetic_ratings(
            num_users=settings.synthetic_num_users,
            num_items=settings.synthetic_num_items,
            seed=settings.seed,
        )
    return load_dataset(settings.dataset, data_dir=settings.data_dir)


def model_fn(settings: Settings, num_items: int) -> Callable[[], SplitModel]:
    from fedrecon.models import matrix_factorization, neural_cf

    if settings.model == "matrix_factorization":
        return functools.partial(
            matrix_factorization.matrix_factorization,
            num_items,
            settings.dim,
            user_bias=settings.user_bias,
            item_bias=settings.item_bias,
            global_bias=settings.global_bias,
            l2=settings.l2,
            spread_out=settings.spread_out,
            seed=settings.seed,
        )
    tower = {"hidden_units": settings.hidden_unit_counts(), "seed": settings.seed}
    if settings.model == "gmf":
        return functools.partial(neural_cf.gmf, num_items, settings.dim, seed=settings.seed)
    if settings.model == "mlp":
        return functools.partial(neural_cf.mlp, num_items, **tower)
    return functools.partial(neural_cf.neumf, num_items, gmf_dim=settings.dim, **tower)


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


def build_task(settings: Settings, ratings: Ratings) -> FederatedTask:
    """Builds FedRecon, trained, validated and tested on different people (80/10/10)."""
    from fedrecon.data.examples import ClientExamples, ExampleOptions
    from fedrecon.data.splits import split_by_user

    from fedrecon import rng

    split = split_by_user(ratings, seed=settings.seed)
    example_options = ExampleOptions(
        max_ratings_per_user=settings.max_ratings_per_user,
        order=settings.example_order,
        label_threshold=settings.label_threshold,
        seed=settings.seed,
    )
    examples = ClientExamples(ratings, example_options)
    users = {
        part: ClientExamples(getattr(split, part), example_options).users
        for part in ("train", "validation", "test")
    }
    if settings.clients_per_round > len(users["train"]):
        raise InputError(
            f"--clients_per_round={settings.clients_per_round} is more than the "
            f"{len(users['train'])} training users of {settings.dataset}."
        )
    sample = rng.sample_queue if settings.client_sampler == "queue" else rng.sample_uniform

    def sample_cohort(round_num: int):
        return sample(
            users["train"],
            settings.clients_per_round,
            seed=settings.seed,
            round_num=round_num,
        )

    from fedrecon.algorithms import stock_fed_recon
    from fedrecon.training import FederatedTask

    def client_data(cohort, round_num: int):
        return [
            stock_fed_recon.client_dataset(
                *examples.examples(user, round_num), batch_size=settings.batch_size
            )
            for user in cohort
        ]

    build_model = model_fn(settings, ratings.num_items)
    options = fed_recon_options(settings)
    return FederatedTask(
        training=stock_fed_recon.build_fed_recon(build_model, options),
        evaluation=stock_fed_recon.build_fed_recon_evaluation(build_model, options),
        sample_cohort=sample_cohort,
        evaluation_users=users,
        client_data=client_data,
        training_metrics=stock_fed_recon.training_metrics,
        evaluation_metrics=stock_fed_recon.evaluation_metrics,
    )
