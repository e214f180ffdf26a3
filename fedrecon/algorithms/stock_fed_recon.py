"""FedRecon by TFF's own builders: slow, client by client, and the reference for everything faster.

The algorithm, its paper, and what an update reveals are those of `fed_recon`. The metrics are read
by `client_metrics.training_metrics` and `evaluation_metrics`.
"""

from __future__ import annotations

import collections
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms.algorithm import Algorithm, cohort_sampler, costs_of_rounds
from fedrecon.algorithms.reconstruction import prepare_reconstruction
from fedrecon.data.cohorts import CohortPacker, PackingOptions, Passes
from fedrecon.data.population import Population
from fedrecon.engine.client_metrics import training_metrics
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import StartedModelFn
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedReconOptions


def client_dataset(item_ids: np.ndarray, labels: np.ndarray, *, batch_size: int) -> tf.data.Dataset:
    """Returns one client's batches: `x` int64 and `y` float32, both `[batch, 1]`, in order.

    Args:
      item_ids: Integers `[num_examples]`; may be empty.
      labels: Floats `[num_examples]`.
      batch_size: Examples a batch; the last batch may be smaller.
    """
    examples = collections.OrderedDict(
        x=np.asarray(item_ids, np.int64)[:, np.newaxis],
        y=np.asarray(labels, np.float32)[:, np.newaxis],
    )
    return tf.data.Dataset.from_tensor_slices(examples).batch(batch_size)


def build_fed_recon(
    model_fn: ModelFn, options: FedReconOptions
) -> tff.learning.templates.LearningProcess:
    """Builds FedRecon training.

    Args:
      model_fn: Builds the model.
      options: The settings.

    Returns:
      A process whose `next(state, client_datasets)` takes a list of `client_dataset`s, one a
      client. A round in which no client has a query leaves the model as it was.
    """
    weightings = {
        "num_examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
        "uniform": tff.learning.ClientWeighting.UNIFORM,
    }
    return tff.learning.algorithms.build_fed_recon(
        _reconstruction_model_fn(model_fn),
        **_loss_and_metrics(model_fn),
        server_optimizer_fn=options.server_optimizer.build(),
        client_optimizer_fn=options.client_optimizer.build(),
        reconstruction_optimizer_fn=options.reconstruction_optimizer.build(),
        dataset_split_fn=_dataset_split_fn(
            options, query_epochs=options.client_epochs, query_steps_max=options.client_steps_max
        ),
        client_weighting=weightings[options.client_weighting],
        # TFF's default divides by the sum of the weights even where it is zero, which turns the
        # model into NaN when no client of a round has a query.
        model_aggregator_factory=tff.aggregators.MeanFactory(no_nan_division=True),
    )


def build_fed_recon_evaluation(
    model_fn: ModelFn, options: FedReconOptions
) -> tff.learning.templates.LearningProcess:
    """Builds reconstruction evaluation: fit the local part on the support, predict the query once.

    Only the reconstruction settings, the batch size and the support/query split of `options` apply.
    The whole query is evaluated, whatever `client_steps_max` says.
    """
    return tff.learning.algorithms.build_fed_recon_eval(
        _reconstruction_model_fn(model_fn),
        **_loss_and_metrics(model_fn),
        reconstruction_optimizer_fn=options.reconstruction_optimizer.build(),
        dataset_split_fn=_dataset_split_fn(
            options.for_evaluation(), query_epochs=1, query_steps_max=None
        ),
    )


def prepare_stock_fed_recon(
    model_fn: ModelFn,
    options: FedReconOptions,
    population: Population,
    *,
    clients_per_round: int,
    sampler: str = "uniform",
) -> Algorithm:
    """Returns FedRecon by TFF's own builder, client by client: the slow reference.

    Arguments and errors are those of `prepare_fed_recon`, and:

    Raises:
      InputError: If the model is to start from the weights of another run.
    """
    if isinstance(model_fn, StartedModelFn):
        raise InputError(
            "TFF's own builder starts from the model's own initial values, not from those of "
            "another run; use the cohort engine."
        )
    training = build_fed_recon(model_fn, options)
    # Nothing is packed; it knows how many steps a client takes.
    packing = PackingOptions(
        batch_size=options.batch_size,
        support_query_split=options.support_query_split,
        support=Passes(),
        query=Passes(options.client_epochs, options.client_steps_max),
    )
    packer = CohortPacker(population.examples, packing, clients_per_shard=1)

    def client_datasets(users: np.ndarray, round_num: int) -> list:
        return [
            client_dataset(
                *population.examples.examples(user, round_num), batch_size=options.batch_size
            )
            for user in users
        ]

    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        training_data=client_datasets,
        training_metrics=training_metrics,
        get_weights=training.get_model_weights,
        reconstruction=prepare_reconstruction(model_fn, options, seed=population.seed),
        costs=costs_of_rounds(
            FunctionalModel(model_fn()), item_steps=packer.mean_query_steps(population.train)
        ),
    )


def _reconstruction_model_fn(model_fn: ModelFn):
    return lambda: model_fn().to_reconstruction_model()


def _loss_and_metrics(model_fn: ModelFn) -> dict[str, Callable]:
    with tf.Graph().as_default():  # Only the functions are wanted; the weights may go.
        model = model_fn()
    return {"loss_fn": model.loss_fn, "metrics_fn": model.metrics_fn}


def _dataset_split_fn(options: FedReconOptions, *, query_epochs, query_steps_max):
    def split_fn(*, split_dataset: bool) -> Callable:
        return tff.learning.models.ReconstructionModel.build_dataset_split_fn(
            recon_epochs=options.reconstruction_epochs,
            recon_steps_max=options.reconstruction_steps_max,
            post_recon_epochs=query_epochs,
            post_recon_steps_max=query_steps_max,
            split_dataset=split_dataset,
        )

    halves, whole = split_fn(split_dataset=True), split_fn(split_dataset=False)
    return {
        "alternating_batches": halves,
        "query_of_all": lambda dataset: (halves(dataset)[0], whole(dataset)[1]),
        "none": whole,
    }[options.support_query_split]
