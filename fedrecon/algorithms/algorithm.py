"""The noun that all algorithms share: what trains, what it costs, and how users are served."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from fedrecon import rng
from fedrecon.data.cohorts import CohortPacker, PackingOptions, Passes, choose_clients_per_shard
from fedrecon.data.population import Population
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedIalsOptions, FedReconOptions, OptimizerOptions
from fedrecon.wiring import user_tables

SAMPLERS = ("uniform", "queue")
_RATING_BYTES = 8  # The item's id and the rating, 4 bytes each.
# Clients without steps have no batches, so their size means nothing.
BATCH_OF_ITEMS = 1

Metrics = Mapping[str, float]


class Process(Protocol):
    """What trains: a `tff.learning.templates.LearningProcess`, or anything with these methods."""

    def initialize(self) -> Any:
        """Returns the server's state before the first round."""

    def next(self, state: Any, data: Any) -> Any:
        """Returns an output with `state` and `metrics` after a round."""


class RowStore(Protocol):
    """What keeps the local rows of stateful clients; see `fedrecon.runs.client_store`."""

    def read(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of users, `[n, width]` float32, and which users have one, `[n]` bool."""

    def stage(self, users: np.ndarray, rows: np.ndarray) -> None:
        """Takes the new rows of users, `[n, width]`."""


class Costs(NamedTuple):
    """What an algorithm sends, keeps and does, as its paper has it; a number has 4 bytes.

    A client gets the whole global part and returns an update of its trainable weights. Sending only
    the rows of the items that a client has would take less, and would tell the server which items
    these are.

    Attributes:
      bytes_down: What a client receives in a round.
      bytes_up: What a client sends in a round.
      bytes_up_once: What a client sends once, in all.
      device_bytes: What a device keeps between rounds.
      server_bytes: What the server keeps: weights and the state of its optimizer.
      item_steps: Steps of the global part (the item rows) that a client takes in a round, a mean
        over the training users; of an algorithm on one machine the steps in a round; 0 where there
        are no steps. Runs of as many rounds and clients may differ in it.
    """

    bytes_down: int
    bytes_up: int
    bytes_up_once: int
    device_bytes: int
    server_bytes: int
    item_steps: float = 0.0


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """How a user whose local part is not kept is served: it is fitted to what the user gives.

    Attributes:
      model_fn: Builds the model.
      build: From a number of clients a shard to the TFF computation of the global `ModelWeights`
        and shards to the users' local values, at CLIENTS.
      packing: How users are packed for that computation.
      key: Equal keys mean that the computations are the same, whatever the seed.
      options: How the local part is fitted: `FedReconOptions`, of which the reconstruction settings
        and the batch size apply, or `FedIalsOptions`, whose loss applies.
    """

    model_fn: ModelFn
    build: Callable[[int], Any]
    packing: PackingOptions
    key: Hashable
    options: FedReconOptions | FedIalsOptions


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """An algorithm, ready to train on a population.

        state = algorithm.initialize()
        for round_num in range(1, 501):
            state, metrics = algorithm.run_round(state, round_num)

    Attributes:
      process: What trains.
      sample_cohort: From the number of a round (from 1) to the user ids of its clients.
      training_data: From the user ids of a cohort and the number of its round to what the process's
        `next` takes.
      training_metrics: From what a round measured to plain numbers.
      get_weights: From a state to the `ModelWeights` of the global part.
      reconstruction: How users without a kept local part are served.
      costs: From a state to what the algorithm sends and keeps.
      kept_rows: From a state and user ids to the users' kept local values, `[n, ...]` each, and
        which users have some, `[n]` bool; None where nothing is kept.
      store: Where the rows of stateful clients are, if the algorithm has any. The process stages
        rows there; whoever drives the rounds commits them (see `fedrecon.runs.training`).
    """

    process: Process
    sample_cohort: Callable[[int], np.ndarray]
    training_data: Callable[[np.ndarray, int], Any]
    training_metrics: Callable[[Any], Metrics]
    get_weights: Callable[[Any], Any]
    reconstruction: Reconstruction
    costs: Callable[[Any], Costs]
    kept_rows: Callable[[Any, np.ndarray], tuple[list[np.ndarray], np.ndarray]] | None = None
    store: RowStore | None = None

    def initialize(self) -> Any:
        """Returns the server's state before the first round."""
        return self.process.initialize()

    def prepare_round(self, round_num: int) -> Any:
        """Returns the clients of a round, packed; another thread may do it ahead of the round."""
        return self.training_data(self.sample_cohort(round_num), round_num)

    def run_round(self, state: Any, round_num: int, clients: Any = None) -> tuple[Any, Metrics]:
        """Returns the state after a round, and the round's metrics.

        Args:
          state: The server's state before the round.
          round_num: The number of the round, from 1; it decides the cohort and all other draws.
          clients: What `prepare_round` gave for this round; None prepares it now.
        """
        clients = self.prepare_round(round_num) if clients is None else clients
        output = self.process.next(state, clients)
        return output.state, self.training_metrics(output.metrics)


def cohort_sampler(
    population: Population, *, clients_per_round: int, sampler: str = "uniform"
) -> Callable[[int], np.ndarray]:
    """Returns what draws the cohort of a round.

    Args:
      population: Its training users are drawn.
      clients_per_round: The size of a cohort.
      sampler: `"uniform"` (without replacement) or `"queue"` (users are shuffled once and take
        turns); see `fedrecon.rng`.

    Raises:
      InputError: If there are fewer training users, or no such sampler.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"the sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}.")
    if not 1 <= clients_per_round <= len(population.train):
        raise InputError(
            f"clients_per_round is {clients_per_round}; it must be from 1 to the "
            f"{len(population.train)} training users of {population.ratings.name}."
        )
    sample = rng.sample_queue if sampler == "queue" else rng.sample_uniform

    def sample_cohort(round_num: int) -> np.ndarray:
        return sample(
            population.train, clients_per_round, seed=population.seed, round_num=round_num
        )

    return sample_cohort


def check_clients_per_shard(clients_per_shard: int | None, *, most: int) -> None:
    """Checks the number of clients that share a shard, given by a user.

    It changes how fast a round is, and the last bits of its sums.

    Args:
      clients_per_shard: The number, or None for one that is chosen.
      most: The clients of a round; 1 if each has to have a shard of its own.

    Raises:
      InputError: If it is not from 1 to `most`.
    """
    if clients_per_shard is not None and not 1 <= clients_per_shard <= most:
        of = "each client needs a shard of its own" if most == 1 else f"a round has {most} clients"
        raise InputError(f"clients_per_shard is {clients_per_shard}, but {of}.")


def cohort_packer(
    population: Population,
    packing: PackingOptions,
    *,
    clients_per_round: int,
    clients_per_shard: int | None = None,
    client_optimizer: OptimizerOptions | None = None,
    model: FunctionalModel | None = None,
    one_client_per_shard: bool = False,
) -> CohortPacker:
    """Returns the packer of training cohorts.

    Args:
      population: Whose clients are packed.
      packing: How.
      clients_per_round: The size of a cohort.
      clients_per_shard: See `check_clients_per_shard`; None takes the size that takes the least
        time by a model of two CPU cores, `choose_clients_per_shard`.
      client_optimizer: The optimizer of the clients' item rows; None means plain SGD.
      model: The model; needed with an optimizer that moves all rows of a client at each step.
      one_client_per_shard: Whether each client has a shard of its own, as a debugger and an
        aggregator of clients' own updates need it.

    Raises:
      InputError: If there cannot be so many clients in a shard.
    """
    if one_client_per_shard:
        check_clients_per_shard(clients_per_shard, most=1)
        return CohortPacker(population.examples, packing, clients_per_shard=1)
    check_clients_per_shard(clients_per_shard, most=clients_per_round)
    if clients_per_shard is not None:
        return CohortPacker(population.examples, packing, clients_per_shard=clients_per_shard)
    row_width = 0
    if client_optimizer is not None and not client_optimizer.is_plain_sgd:
        row_width = sum(w.shape[1] for w in model.global_weights if w.is_item_table)
    size = choose_clients_per_shard(
        population.examples,
        population.train,
        packing,
        num_clients=clients_per_round,
        row_width=row_width,
    )
    return CohortPacker(population.examples, packing, clients_per_shard=size)


def packing_of_items(*, seed: int) -> PackingOptions:
    """Returns how clients are packed that have items, take no steps, and are not compiled by XLA.

    Args:
      seed: As for other algorithms; nothing here is random.
    """
    return PackingOptions(
        batch_size=BATCH_OF_ITEMS,
        support_query_split="none",
        support=Passes(0),
        query=Passes(0),
        seed=seed,
        is_rounded_up=False,
    )


def costs_of_rounds(
    model: FunctionalModel,
    *,
    item_steps: float,
    more_down: int = 0,
    more_up: int = 0,
    device: int = 0,
) -> Callable[[Any], Costs]:
    """Returns the costs of an algorithm whose clients get the global part and send its update.

    Args:
      model: The model.
      item_steps: See `Costs`.
      more_down: Bytes that a client receives besides the global part.
      more_up: Bytes that a client sends besides the update of the trainable global weights.
      device: Bytes that a device keeps between rounds.
    """
    down = num_bytes(model.global_weights) + more_down
    up = num_bytes(weight for weight in model.global_weights if weight.trainable) + more_up

    def costs(state: Any) -> Costs:
        return Costs(down, up, 0, device, bytes_of_state(state), item_steps)

    return costs


def costs_of_one_machine(
    population: Population, server_bytes: int, *, item_steps: float = 0.0
) -> Costs:
    """Returns the costs where clients send their ratings once and nothing is federated."""
    once = round(population.mean_ratings() * _RATING_BYTES)
    return Costs(0, 0, once, 0, server_bytes, item_steps)


def num_bytes(weights) -> int:
    """Returns the bytes of weights that have a shape and a dtype."""
    return sum(weight.shape.num_elements() * weight.dtype.size for weight in weights)


def bytes_of_state(state: Any) -> int:
    """Returns the bytes of the arrays of a state."""
    return sum(np.asarray(value).nbytes for value in tf.nest.flatten(state))


def rows_of_server(model: FunctionalModel, population: Population) -> dict[str, Callable]:
    """Returns `get_weights` and `kept_rows` of an algorithm whose server keeps user rows."""
    is_trained = np.isin(np.arange(population.ratings.num_users), population.train)

    def get_weights(state):
        return user_tables.global_weights_of(model, state.global_model_weights)

    def kept_rows(state, users):
        tables = user_tables.user_tables_of(model, state.global_model_weights)
        return [np.asarray(table)[users] for table in tables], is_trained[users]

    return {"get_weights": get_weights, "kept_rows": kept_rows}
