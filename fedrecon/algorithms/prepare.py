"""Algorithms, ready to train on a population."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow_federated as tff

from fedrecon.algorithms import centralized, fed_avg, fed_ials, fed_ncf, fed_recon, stock_fed_recon
from fedrecon.algorithms.algorithm import (
    Algorithm,
    Reconstruction,
    RowStore,
    bytes_of_state,
    cohort_packer,
    cohort_sampler,
    costs_of_one_machine,
    costs_of_rounds,
    num_bytes,
)
from fedrecon.algorithms.reconstruction import reconstruction as reconstruction_of
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.minibatches import MinibatchStream
from fedrecon.data.population import Population
from fedrecon.engine.client_metrics import training_metrics
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import structure
from fedrecon.models.split_model import ModelFn
from fedrecon.options import CentralizedOptions, FedAvgOptions, FedIalsOptions, FedReconOptions
from fedrecon.wiring import process as wiring

# No steps are waited for, and small shards have less padding (measured; see BUILD_NOTES.md).
_FED_IALS_CLIENTS_PER_SHARD = 32


def prepare_fed_recon(
    model_fn: ModelFn,
    options: FedReconOptions,
    population: Population,
    *,
    clients_per_round: int,
    sampler: str = "uniform",
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
) -> Algorithm:
    """Returns FedRecon, ready to train on a population.

    Args:
      model_fn: Builds the model; see `fedrecon.models.model_fn`.
      options: The settings of the algorithm.
      population: The users; its seed decides every draw.
      clients_per_round: The size of a cohort.
      sampler: See `cohort_sampler`.
      aggregator_factory: See `build_fed_recon`.
      is_aggregator_linear: See `build_fed_recon`.

    Raises:
      InputError: If there are too few training users; see also `build_fed_recon`.
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    model = FunctionalModel(model_fn())
    packer = cohort_packer(
        population,
        fed_recon.packing_options(options, seed=population.seed),
        clients_per_round=clients_per_round,
        client_optimizer=options.client_optimizer,
        model=model,
        sends_own_updates=aggregator_factory is not None and not is_aggregator_linear,
    )
    training = fed_recon.build_fed_recon(
        model_fn,
        options,
        clients_per_shard=packer.clients_per_shard,
        aggregator_factory=aggregator_factory,
        is_aggregator_linear=is_aggregator_linear,
    )
    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        training_data=packer.pack,
        training_metrics=training_metrics,
        get_weights=training.get_model_weights,
        reconstruction=reconstruction_of(model_fn, options, seed=population.seed),
        costs=costs_of_rounds(model),
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

    Arguments and errors are those of `prepare_fed_recon`.
    """
    training = stock_fed_recon.build_fed_recon(model_fn, options)

    def client_datasets(users: np.ndarray, round_num: int) -> list:
        return [
            stock_fed_recon.client_dataset(
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
        training_metrics=stock_fed_recon.training_metrics,
        get_weights=training.get_model_weights,
        reconstruction=reconstruction_of(model_fn, options, seed=population.seed),
        costs=costs_of_rounds(FunctionalModel(model_fn())),
    )


def prepare_fed_ials(
    model_fn: ModelFn,
    options: FedIalsOptions,
    population: Population,
    *,
    clients_per_round: int,
    sampler: str = "uniform",
    aggregator_factory: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
) -> Algorithm:
    """Returns federated iALS, ready to train on a population with implicit feedback.

    Arguments and errors are those of `prepare_fed_recon`; clients draw no negatives, so
    `population` needs `negatives_per_positive=0`.
    """
    packing = fed_ials.packing_options(seed=population.seed)
    size = min(_FED_IALS_CLIENTS_PER_SHARD, clients_per_round)
    if aggregator_factory is not None and not is_aggregator_linear:
        size = 1
    training = fed_ials.build_fed_ials(
        model_fn,
        options,
        num_users=len(population.train),
        clients_per_shard=size,
        aggregator_factory=aggregator_factory,
        is_aggregator_linear=is_aggregator_linear,
    )
    model = FunctionalModel(model_fn())
    # A client also gets the Gram matrix, and sends the sum of outer products and the item counts.
    (table,) = model.global_weights
    num_items, dim = table.shape
    square = dim * dim * table.dtype.size

    def build(clients_per_shard: int):
        return fed_ials.build_reconstruction(model_fn, options, clients_per_shard=clients_per_shard)

    of_loss = (options.regularization, options.exponent, options.unobserved_weight)
    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        training_data=CohortPacker(population.examples, packing, clients_per_shard=size).pack,
        training_metrics=fed_ials.training_metrics,
        get_weights=training.get_model_weights,
        reconstruction=Reconstruction(
            model_fn, build, packing, key=("fed_ials", structure(model_fn), of_loss)
        ),
        costs=costs_of_rounds(
            model, more_down=square, more_up=square + num_items * table.dtype.size
        ),
    )


def prepare_fed_avg(
    model_fn: ModelFn,
    options: FedAvgOptions,
    population: Population,
    *,
    clients_per_round: int,
    sampler: str = "uniform",
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
) -> Algorithm:
    """Returns stateless federated averaging, ready to train on a population.

    Args:
      model_fn: Builds the model; see `fedrecon.models.model_fn`.
      options: The settings of the algorithm.
      population: The users; its seed decides every draw.
      clients_per_round: The size of a cohort.
      sampler: See `cohort_sampler`.
      reconstruction: How users without a kept local part are served; None means the defaults of
        `FedReconOptions`. Only its reconstruction settings and its batch size apply.
      reconstruction_model_fn: Builds the model that serves these users, if it differs from the
        trained one: exact reconstruction takes a model without regularizers of local weights.

    Raises:
      InputError: If there are too few training users; see also `build_fed_avg`.
      ValueError: If the model cannot be vectorized over clients; see `FunctionalModel`.
    """
    model, packer, common = _joint(
        model_fn,
        options,
        population,
        clients_per_round,
        sampler,
        _reconstruction(model_fn, population, reconstruction, reconstruction_model_fn),
    )
    training = fed_avg.build_fed_avg(model_fn, options, clients_per_shard=packer.clients_per_shard)
    return Algorithm(
        process=training,
        get_weights=training.get_model_weights,
        costs=costs_of_rounds(model),
        **common,
    )


def prepare_stateful_fed_avg(
    model_fn: ModelFn,
    options: FedAvgOptions,
    population: Population,
    *,
    clients_per_round: int,
    open_store: Callable[[int, int], RowStore],
    sampler: str = "uniform",
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
) -> Algorithm:
    """Returns federated averaging whose clients keep their local part between rounds.

    Arguments and errors are those of `prepare_fed_avg`, and:

    Args:
      open_store: From the number of users and the width of a row to the store of the clients' rows,
        such as `fedrecon.runs.client_store.ClientStore`.
    """
    model, packer, common = _joint(
        model_fn,
        options,
        population,
        clients_per_round,
        sampler,
        _reconstruction(model_fn, population, reconstruction, reconstruction_model_fn),
    )
    process = fed_avg.build_stateful_fed_avg(
        model_fn, options, clients_per_shard=packer.clients_per_shard
    )
    store = open_store(population.ratings.num_users, fed_avg.row_width(model))
    training = fed_avg.StatefulFedAvg(process, model, store)
    return Algorithm(
        process=training,
        get_weights=lambda state: state.global_model_weights,
        kept_rows=lambda state, users: training.read(users),
        store=store,
        costs=costs_of_rounds(model, device=num_bytes(model.local_weights)),
        **common,
    )


def prepare_fed_ncf(
    model_fn: ModelFn,
    options: FedAvgOptions,
    population: Population,
    *,
    clients_per_round: int,
    sampler: str = "uniform",
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
) -> Algorithm:
    """Returns FedNCF, ready to train on a population; see `prepare_fed_avg`."""
    model, packer, common = _joint(
        model_fn,
        options,
        population,
        clients_per_round,
        sampler,
        _reconstruction(model_fn, population, reconstruction, reconstruction_model_fn),
    )
    training = fed_ncf.build_fed_ncf(
        model_fn,
        options,
        num_users=population.ratings.num_users,
        clients_per_shard=packer.clients_per_shard,
        seed=population.seed,
    )
    row = num_bytes(model.local_weights)
    return Algorithm(
        process=training,
        costs=costs_of_rounds(model, more_down=row, more_up=row),
        **common,
        **_rows_of_server(model, population),
    )


def prepare_centralized(
    model_fn: ModelFn,
    options: CentralizedOptions,
    population: Population,
    *,
    clients_per_round: int,
    reconstruction: FedReconOptions | None = None,
    reconstruction_model_fn: ModelFn | None = None,
) -> Algorithm:
    """Returns centralized training, ready to train on a population.

    A round has as many examples as `clients_per_round` clients have on average. Other arguments are
    those of `prepare_fed_avg`.
    """
    model = FunctionalModel(model_fn())
    examples, train = population.examples, population.train
    num_examples = sum(map(examples.num_examples, train.tolist()))
    stream = MinibatchStream(
        examples,
        users=train,
        batch_size=options.batch_size,
        examples_per_round=max(1, round(num_examples / len(train) * clients_per_round)),
        seed=population.seed,
    )
    training = centralized.build_centralized(
        model_fn,
        options,
        num_users=population.ratings.num_users,
        num_steps=stream.num_steps,
        seed=population.seed,
    )
    return Algorithm(
        process=training,
        sample_cohort=cohort_sampler(population, clients_per_round=clients_per_round),
        training_data=lambda users, round_num: stream.round(round_num),
        training_metrics=training_metrics,
        reconstruction=_reconstruction(
            model_fn, population, reconstruction, reconstruction_model_fn
        ),
        costs=lambda state: costs_of_one_machine(population, bytes_of_state(state)),
        **_rows_of_server(model, population),
    )


def _reconstruction(
    model_fn: ModelFn,
    population: Population,
    options: FedReconOptions | None,
    own_model_fn: ModelFn | None,
) -> Reconstruction:
    return reconstruction_of(
        own_model_fn or model_fn, options or FedReconOptions(), seed=population.seed
    )


def _joint(model_fn, options, population, clients_per_round, sampler, reconstruction):
    """Returns the model, the packer and the fields of `Algorithm` that FedAvg's forms share."""
    model = FunctionalModel(model_fn())
    packer = cohort_packer(
        population,
        fed_avg.packing_options(options, seed=population.seed),
        clients_per_round=clients_per_round,
        client_optimizer=options.client_optimizer,
        model=model,
    )
    common = {
        "sample_cohort": cohort_sampler(
            population, clients_per_round=clients_per_round, sampler=sampler
        ),
        "training_data": packer.pack,
        "training_metrics": training_metrics,
        "reconstruction": reconstruction,
    }
    return model, packer, common


def _rows_of_server(model: FunctionalModel, population: Population) -> dict[str, Callable]:
    """Returns `get_weights` and `kept_rows` of an algorithm whose server keeps user rows."""
    is_trained = np.isin(np.arange(population.ratings.num_users), population.train)
    num_trainable = sum(weight.trainable for weight in model.global_weights)

    def get_weights(state):
        values, _ = wiring.split_user_rows(model, state.global_model_weights)
        return tff.learning.models.ModelWeights(values[:num_trainable], values[num_trainable:])

    def kept_rows(state, users):
        _, tables = wiring.split_user_rows(model, state.global_model_weights)
        return [np.asarray(table)[users] for table in tables], is_trained[users]

    return {"get_weights": get_weights, "kept_rows": kept_rows}
