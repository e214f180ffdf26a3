"""From settings to the objects of a run. The binaries share it, so that all see the same run."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from experiments.run.choices import (
    fed_avg_options,
    fed_ials_options,
    fed_recon_options,
    model_fn,
    optimizer_options,
)
from experiments.run.data import Clients
from experiments.run.settings import Settings, of_evaluation

if TYPE_CHECKING:  # Importing TensorFlow takes seconds; errors in flags and data come before it.
    import numpy as np

    from experiments.run.judging import Judge
    from fedrecon.runs.client_store import ClientStore
    from fedrecon.runs.training import FederatedTask, ProcessEvaluation

# No steps are waited for, and small shards have less padding (measured; see BUILD_NOTES.md).
_FED_IALS_CLIENTS_PER_SHARD = 32


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """An algorithm on the data of a run.

    Attributes:
      training: What trains; see `FederatedTask`.
      training_data: Likewise.
      training_metrics: Likewise.
      get_weights: From a state to the `ModelWeights` of the global part.
      kept_rows: From a state and user ids to the users' local values, `[n, ...]` each, and who has
        some, `[n]` bool; None where nobody does.
      store: See `FederatedTask`.
    """

    training: Any
    training_data: Callable[[np.ndarray, int], Any]
    training_metrics: Callable[[Any], Mapping[str, float]]
    get_weights: Callable[[Any], Any]
    kept_rows: Callable[[Any, np.ndarray], tuple[list[np.ndarray], np.ndarray]] | None = None
    store: ClientStore | None = None


def build_task(
    settings: Settings,
    clients: Clients,
    *,
    store_dir: os.PathLike | None = None,
    store_round: int | None = None,
) -> tuple[FederatedTask, Judge]:
    """Builds what trains, and what judges the states that it leaves.

    Args:
      settings: The settings of the run.
      clients: Its people.
      store_dir: Where the rows of stateful clients are kept; None keeps them in memory.
      store_round: Reads them as of this round's checkpoint, and changes nothing.
    """
    from experiments.run.judging import Judge
    from fedrecon import rng
    from fedrecon.runs.training import FederatedTask

    is_stock = settings.engine == "stock"
    build = _stock_fed_recon if is_stock else _BUILDERS[settings.algorithm]
    build_model = model_fn(settings, clients.ratings.num_items)
    open_store = functools.partial(_open_store, clients, store_dir, store_round)
    algorithm = build(settings, clients, build_model, open_store)
    judge = Judge(settings, clients, algorithm.get_weights, algorithm.kept_rows)
    sample = rng.sample_queue if settings.client_sampler == "queue" else rng.sample_uniform

    def sample_cohort(round_num: int) -> np.ndarray:
        return sample(
            clients.users["train"],
            settings.clients_per_round,
            seed=settings.seed,
            round_num=round_num,
        )

    evaluate = judge.metrics
    if settings.is_explicit:
        by_process = (_stock_evaluation if is_stock else _reconstruction_evaluation)(
            settings, clients, algorithm.get_weights
        )

        def evaluate(state, part):
            return (judge.metrics if part in clients.later else by_process)(state, part)

    task = FederatedTask(
        training=algorithm.training,
        sample_cohort=sample_cohort,
        training_data=algorithm.training_data,
        training_metrics=algorithm.training_metrics,
        evaluate=evaluate,
        watched_part="validation" if settings.is_explicit else settings.evaluate_on,
        store=algorithm.store,
    )
    return task, judge


def _packer(clients: Clients, packing, users, num_clients: int, row_width: int = 0):
    from fedrecon.data.cohorts import CohortPacker, choose_clients_per_shard

    size = choose_clients_per_shard(
        clients.examples, users, packing, num_clients=num_clients, row_width=row_width
    )
    return CohortPacker(clients.examples, packing, clients_per_shard=size)


def _training_packer(settings: Settings, clients: Clients, packing, build_model):
    import tensorflow as tf

    row_width = 0
    if settings.algorithm != "fedrecon_ls" and not (
        optimizer_options(settings, "client").is_plain_sgd
    ):
        layers = build_model().global_layers
        tables = [layer for layer in layers if isinstance(layer, tf.keras.layers.Embedding)]
        row_width = sum(table.output_dim for table in tables)
    users = clients.users["train"]
    return _packer(clients, packing, users, settings.clients_per_round, row_width)


def _fed_recon(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import fed_recon
    from fedrecon.engine.client_metrics import training_metrics

    options = fed_recon_options(settings)
    packing = fed_recon.packing_options(options, seed=settings.seed)
    packer = _training_packer(settings, clients, packing, build_model)
    training = fed_recon.build_fed_recon(
        build_model, options, clients_per_shard=packer.clients_per_shard
    )
    return Algorithm(training, packer.pack, training_metrics, training.get_model_weights)


def _fed_recon_ls(settings, clients, build_model, open_store) -> Algorithm:
    build = _fed_recon if settings.is_explicit else _fed_ials
    return build(settings, clients, build_model, open_store)


def _fed_ials(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import fed_ials
    from fedrecon.data.cohorts import CohortPacker

    packing = fed_ials.packing_options(seed=settings.seed)
    size = min(_FED_IALS_CLIENTS_PER_SHARD, settings.clients_per_round)
    packer = CohortPacker(clients.examples, packing, clients_per_shard=size)
    training = fed_ials.build_fed_ials(
        build_model,
        fed_ials_options(settings),
        num_users=len(clients.users["train"]),
        clients_per_shard=size,
    )
    return Algorithm(training, packer.pack, fed_ials.training_metrics, training.get_model_weights)


def _stock_fed_recon(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import stock_fed_recon
    from fedrecon.engine.client_metrics import training_metrics

    training = stock_fed_recon.build_fed_recon(build_model, fed_recon_options(settings))
    return Algorithm(
        training,
        functools.partial(_client_datasets, settings, clients),
        training_metrics,
        training.get_model_weights,
    )


def _fed_avg(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import fed_avg
    from fedrecon.engine.client_metrics import training_metrics

    options = fed_avg_options(settings)
    packing = fed_avg.packing_options(options, seed=settings.seed)
    packer = _training_packer(settings, clients, packing, build_model)
    training = fed_avg.build_fed_avg(
        build_model, options, clients_per_shard=packer.clients_per_shard
    )
    return Algorithm(training, packer.pack, training_metrics, training.get_model_weights)


def _stateful_fed_avg(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import fed_avg
    from fedrecon.engine.client_metrics import training_metrics
    from fedrecon.models.functional import FunctionalModel

    options = fed_avg_options(settings)
    packing = fed_avg.packing_options(options, seed=settings.seed)
    packer = _training_packer(settings, clients, packing, build_model)
    process = fed_avg.build_stateful_fed_avg(
        build_model, options, clients_per_shard=packer.clients_per_shard
    )
    model = FunctionalModel(build_model())
    store = open_store(fed_avg.row_width(model))
    training = fed_avg.StatefulFedAvg(process, model, store)
    return Algorithm(
        training,
        packer.pack,
        training_metrics,
        lambda state: state.global_model_weights,
        kept_rows=lambda state, users: training.read(users),
        store=store,
    )


def _open_store(clients: Clients, path, read_round, width: int) -> ClientStore:
    from fedrecon.runs.client_store import ClientStore
    from fedrecon.runs.run_directory import NUM_CHECKPOINTS_KEPT

    return ClientStore(
        clients.ratings.num_users,
        width,
        path=path,
        keep=NUM_CHECKPOINTS_KEPT,
        read_round=read_round,
    )


def _fed_ncf(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import fed_ncf
    from fedrecon.engine.client_metrics import training_metrics

    options = fed_avg_options(settings)
    packing = fed_ncf.packing_options(options, seed=settings.seed)
    packer = _training_packer(settings, clients, packing, build_model)
    training = fed_ncf.build_fed_ncf(
        build_model,
        options,
        num_users=clients.ratings.num_users,
        clients_per_shard=packer.clients_per_shard,
        seed=settings.seed,
    )
    return Algorithm(training, packer.pack, training_metrics, **_server_rows(clients, build_model))


def _centralized(settings, clients, build_model, open_store) -> Algorithm:
    from fedrecon.algorithms import centralized
    from fedrecon.data.minibatches import MinibatchStream
    from fedrecon.engine.client_metrics import training_metrics
    from fedrecon.options import CentralizedOptions

    train = clients.users["train"]
    num_examples = sum(map(clients.examples.num_examples, train.tolist()))
    stream = MinibatchStream(
        clients.examples,
        users=train,
        batch_size=settings.minibatch_size,
        examples_per_round=max(1, round(num_examples / len(train) * settings.clients_per_round)),
        seed=settings.seed,
    )
    training = centralized.build_centralized(
        build_model,
        CentralizedOptions(optimizer_options(settings, "client"), settings.minibatch_size),
        num_users=clients.ratings.num_users,
        num_steps=stream.num_steps,
        seed=settings.seed,
    )
    return Algorithm(
        training,
        lambda users, round_num: stream.round(round_num),
        training_metrics,
        **_server_rows(clients, build_model),
    )


def _server_rows(clients: Clients, build_model) -> dict[str, Any]:
    """Returns `get_weights` and `kept_rows` of an algorithm whose server keeps user rows."""
    import numpy as np

    from fedrecon.models.functional import FunctionalModel
    from fedrecon.wiring import user_tables

    model = FunctionalModel(build_model())
    is_trained = np.isin(np.arange(clients.ratings.num_users), clients.users["train"])

    def get_weights(state):
        return user_tables.global_weights_of(model, state.global_model_weights)

    def kept_rows(state, users):
        tables = user_tables.user_tables_of(model, state.global_model_weights)
        return [np.asarray(table)[users] for table in tables], is_trained[users]

    return {"get_weights": get_weights, "kept_rows": kept_rows}


_BUILDERS = {
    "fedrecon": _fed_recon,
    "fedrecon_ls": _fed_recon_ls,
    "fedavg": _fed_avg,
    "stateful_fedavg": _stateful_fed_avg,
    "fedncf": _fed_ncf,
    "centralized": _centralized,
}


def _reconstruction_evaluation(settings, clients, get_weights) -> ProcessEvaluation:
    """Returns how people never seen are evaluated: all at once."""
    from fedrecon.algorithms import fed_recon
    from fedrecon.engine.client_metrics import evaluation_metrics
    from fedrecon.runs.training import ProcessEvaluation

    packing = fed_recon.evaluation_packing_options(fed_recon_options(settings), seed=settings.seed)
    users = clients.users["validation"]
    packer = _packer(clients, packing, users, len(users))
    return ProcessEvaluation(
        _evaluation_process(
            of_evaluation(settings), clients.ratings.num_items, packer.clients_per_shard
        ),
        get_weights,
        clients.users,
        lambda users: packer.pack(users, 0),
        evaluation_metrics,
    )


@functools.lru_cache(maxsize=4)
def _evaluation_process(settings: Settings, num_items: int, clients_per_shard: int):
    """Returns a process, which takes seconds to trace and compile, once for all of a comparison.

    The weights of its state are those of whatever it evaluates.
    """
    from fedrecon.algorithms import fed_recon

    return fed_recon.build_fed_recon_evaluation(
        model_fn(settings, num_items),
        fed_recon_options(settings),
        clients_per_shard=clients_per_shard,
    )


def _stock_evaluation(settings, clients, get_weights) -> ProcessEvaluation:
    from fedrecon.algorithms import stock_fed_recon
    from fedrecon.engine.client_metrics import evaluation_metrics
    from fedrecon.runs.training import ProcessEvaluation

    build_model = model_fn(settings, clients.ratings.num_items)
    return ProcessEvaluation(
        stock_fed_recon.build_fed_recon_evaluation(build_model, fed_recon_options(settings)),
        get_weights,
        clients.users,
        lambda users: _client_datasets(settings, clients, users, 0),
        evaluation_metrics,
    )


def _client_datasets(settings, clients, users: np.ndarray, round_num: int) -> list:
    from fedrecon.algorithms import stock_fed_recon

    return [
        stock_fed_recon.client_dataset(
            *clients.examples.examples(user, round_num), batch_size=settings.batch_size
        )
        for user in users
    ]
