"""Packs the clients of a round into shards: padded arrays that many clients share.

This module is the only owner of padding and masks. A client's examples are cut into batches; which
batch it uses at which step is a schedule, so that several epochs cost no copies:

- `alternating_batches`: batches 0, 2, 4, ... are support and 1, 3, 5, ... are query.
- `query_of_all`: batches 0, 2, 4, ... are support, and all batches are query.
- `none`: all batches are both.

`epochs` passes over them follow each other in the same order and end after `steps_max` steps, as
`tff.learning.models.ReconstructionModel.build_dataset_split_fn` has it.

All shards of a process have the same number of clients, which TFF and TensorFlow know when they
build it. Clients of similar length share a shard. What is padded: clients (of no examples), each
client's distinct items, its last batch, its batches, and its steps (at the end). Lengths are
rounded up to powers of two, since XLA compiles once for each; steps that no client has are not run.
Work without XLA takes the length of a shard's longest client (`is_rounded_up`).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from fedrecon import rng
from fedrecon.data.examples import ClientExamples
from fedrecon.errors import InputError

SUPPORT_QUERY_SPLITS = ("alternating_batches", "query_of_all", "none")

# Starting a step costs about as much as carrying it out for this many clients (measured: see
# BUILD_NOTES.md), so shards of fewer clients save little.
_STEP_COST_CLIENTS = 40
_SHARD_COST = 1000
# Moving a number of a row, with the two that Adam remembers of it.
_NUMBER_COST = 1e-3
_MAX_SHARDS_PER_WORKER = 4
# Where the padding of rows costs more than anything else.
_MAX_SHARDS_PER_WORKER_OF_ROWS = 12
# Rows of items in a shard: 2**18 of 64 numbers are 64 MiB.
_MAX_ROWS = 2**18


class Shard(NamedTuple):
    """Clients packed into one set of arrays; TFF takes it as one value placed at CLIENTS.

    `positions`, `labels` and `mask` hold the examples of a client, in batches. An example that is
    padding repeats a real one of its client, so that no arithmetic meets values that the data do
    not have.

    Attributes:
      item_ids: `[clients, items]` int32: each client's distinct items, increasing; then -1.
      positions: `[clients, batches, batch_size]` int32: the places of the examples' items in
        `item_ids`.
      labels: `[clients, batches, batch_size]` float32.
      mask: `[clients, batches, batch_size]` bool: which examples are real.
      support_batches: `[clients, support_steps]` int32: the batch of each step; then -1, no step.
      query_batches: `[clients, query_steps]` int32, likewise.
      seeds: `[clients]` uint32: all randomness of a client in this round.
      user_ids: `[clients]` int32: who they are, -1 for padding; for what keeps rows by user.
    """

    item_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    support_batches: np.ndarray
    query_batches: np.ndarray
    seeds: np.ndarray
    user_ids: np.ndarray


class Passes(NamedTuple):
    """How often a client goes through its support or query.

    Attributes:
      epochs: Passes, `>= 0`; 0 uses nothing.
      steps_max: Limit on steps over all of them, `>= 1`, or None.
    """

    epochs: int = 1
    steps_max: int | None = None


@dataclasses.dataclass(frozen=True)
class PackingOptions:
    """How clients become shards.

    Attributes:
      batch_size: Examples a step, `>= 1`.
      support_query_split: One of `SUPPORT_QUERY_SPLITS`.
      support: Passes over the support.
      query: Passes over the query.
      seed: Draws the clients' seeds.
      is_rounded_up: Whether lengths are powers of two; else a shard has room for its longest
        client and no more, which is for work that XLA does not compile.

    Raises:
      InputError: If a value is not one of those.
    """

    batch_size: int
    support_query_split: str
    support: Passes
    query: Passes
    seed: int = 0
    is_rounded_up: bool = True

    def __post_init__(self):
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; it must be at least 1.")
        if self.support_query_split not in SUPPORT_QUERY_SPLITS:
            raise InputError(
                f"support_query_split is {self.support_query_split!r}; it must be one of "
                f"{', '.join(SUPPORT_QUERY_SPLITS)}."
            )
        for name, (epochs, steps_max) in (("support", self.support), ("query", self.query)):
            if epochs < 0:
                raise InputError(f"epochs of the {name} is {epochs}; it must be at least 0.")
            if steps_max is not None and steps_max < 1:
                raise InputError(
                    f"steps_max of the {name} is {steps_max}; it must be at least 1, or None for "
                    "no limit."
                )

    def num_batches(self, num_examples):
        """Returns the number of batches of so many examples; arrays go in and come out too."""
        return -(-num_examples // self.batch_size)

    def room(self, length: int) -> int:
        """Returns the length of arrays for so much, at least 1."""
        return _rounded_up(length) if self.is_rounded_up else max(length, 1)

    def num_steps(self, num_examples):
        """Returns the numbers of support steps and of query steps, likewise."""
        batches = self.num_batches(num_examples)
        support, query = (part.num_batches(batches) for part in self.parts)
        return _limited(support, self.support), _limited(query, self.query)

    @property
    def parts(self) -> tuple[_Part, _Part]:
        """Which batches are support, and which are query."""
        every, even, odd = _Part(0, 1), _Part(0, 2), _Part(1, 2)
        return {
            "alternating_batches": (even, odd),
            "query_of_all": (even, every),
            "none": (every, every),
        }[self.support_query_split]


class _Part(NamedTuple):
    """The batches `first`, `first + stride`, `first + 2 * stride`, ... of a client."""

    first: int
    stride: int

    def num_batches(self, of_all):
        """Returns how many of so many batches these are; arrays go in and come out too."""
        return (of_all - self.first + self.stride - 1) // self.stride


def _limited(num_batches, passes: Passes):
    steps = num_batches * passes.epochs
    return steps if passes.steps_max is None else np.minimum(steps, passes.steps_max)


class CohortPacker:
    """Packs cohorts of one population.

    Attributes:
      clients_per_shard: How many clients each shard has, padding included.
    """

    def __init__(
        self,
        examples: ClientExamples,
        options: PackingOptions,
        *,
        clients_per_shard: int,
        caps_at_longest: bool = True,
    ):
        """Creates the packer.

        Args:
          examples: The examples of the clients.
          options: How they are packed.
          clients_per_shard: How many clients each shard has.
          caps_at_longest: Whether no shard has more room than the client with the most examples
            needs. Without the cap, all lengths are powers of two, so that packers of other
            clients have the same few.

        Raises:
          InputError: If `clients_per_shard` is not positive.
        """
        if clients_per_shard < 1:
            raise InputError(f"clients_per_shard is {clients_per_shard}; it must be at least 1.")
        self.clients_per_shard = clients_per_shard
        self._examples = examples
        self._options = options
        self._longest = max(_lengths(examples, examples.users), default=1)
        if not caps_at_longest:
            self._longest = _rounded_up(int(self._longest))

    def pack(self, users: np.ndarray, round_num: int) -> list[Shard]:
        """Returns the shards of a cohort, those of the longest clients first.

        Args:
          users: `[num_clients]` user ids. The order does not matter.
          round_num: The round, `>= 0`.
        """
        users, options = np.asarray(users, np.int64), self._options
        clients = [self._examples.examples(user, round_num) for user in users.tolist()]
        lengths = np.array([len(labels) for _, labels in clients], np.int64)
        seeds = rng.derive_seeds(options.seed, "client", round_num, ids=users)
        # By user among the equally long, so that the order of `users` does not matter.
        order = np.lexsort((users, -lengths))
        return [
            pack_shard(
                [clients[index] for index in chosen],
                users[chosen],
                seeds[chosen],
                options,
                num_clients=self.clients_per_shard,
                num_examples=min(options.room(int(lengths[chosen].max())), self._longest),
            )
            for chosen in np.split(
                order, range(self.clients_per_shard, len(users), self.clients_per_shard)
            )
            if len(chosen)
        ]

    def mean_query_steps(self, users: np.ndarray) -> float:
        """Returns how many query steps a client takes in a round, as a mean over some users."""
        _, query = self._options.num_steps(_lengths(self._examples, users))
        return float(np.mean(query))


def choose_clients_per_shard(
    examples: ClientExamples,
    users: np.ndarray,
    options: PackingOptions,
    *,
    num_clients: int,
    num_workers: int = 2,
    row_width: int = 0,
) -> int:
    """Returns the number of clients a shard with which cohorts take the least time.

    More shards waste less on the padding of short clients and keep more workers busy; fewer take
    fewer steps in all.

    Args:
      examples: The examples of users.
      users: Who may be in a cohort.
      options: How they are packed.
      num_clients: Of a cohort.
      num_workers: How many shards are worked on at a time.
      row_width: How many numbers of each of a client's item rows a step moves, all rows of the
        client's items alike: 0 if it moves the rows of its batch alone, as plain SGD does.

    Raises:
      InputError: If `num_workers` is not positive.
    """
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}; it must be at least 1.")
    if min(len(users), num_clients) < 1:
        return 1  # Cohorts are of nobody.
    lengths = np.sort(_lengths(examples, users))[::-1]
    quantiles = (np.arange(num_clients) + 0.5) / num_clients * len(lengths)
    lengths = lengths[quantiles.astype(np.int64)]
    steps = np.maximum(sum(options.num_steps(lengths)), 1)
    num_rows = np.minimum(lengths, examples.ratings.num_items)
    most = max(1, _MAX_ROWS // max(int(num_rows[0]), 1))
    most_shards = _MAX_SHARDS_PER_WORKER if row_width == 0 else _MAX_SHARDS_PER_WORKER_OF_ROWS
    client_costs = 1 + num_rows * row_width * _NUMBER_COST
    fewest_shards = -(-num_clients // most)
    candidates = {
        -(-num_clients // num_shards)
        for num_shards in range(fewest_shards, fewest_shards + most_shards * num_workers)
    }

    def seconds(size: int) -> float:
        ends = [0] * num_workers
        # A shard is as long and as wide as its first client; each goes to the first free worker.
        for most_steps, of_client in zip(steps[::size].tolist(), client_costs[::size].tolist()):
            step = _STEP_COST_CLIENTS + size * of_client
            ends[ends.index(min(ends))] += _SHARD_COST + most_steps * step
        return max(ends)

    return min(sorted(candidates, reverse=True), key=seconds)


def _lengths(examples: ClientExamples, users: np.ndarray) -> np.ndarray:
    counts = [examples.num_examples(user) for user in np.asarray(users).tolist()]
    return np.array(counts, np.int64)


def pack_shard(
    clients: list[tuple[np.ndarray, np.ndarray]],
    users: np.ndarray,
    seeds: np.ndarray,
    options: PackingOptions,
    *,
    num_clients: int,
    num_examples: int,
) -> Shard:
    """Packs clients into one shard.

    Args:
      clients: Each client's item ids `[n]`, integers, and labels `[n]`, floats; `n` may be 0.
      users: `[len(clients)]` user ids.
      seeds: `[len(clients)]` uint32.
      options: How.
      num_clients: Room for clients, at least as many as there are.
      num_examples: Room for each client's examples.
    """
    lengths = np.zeros(num_clients, np.int64)
    lengths[: len(clients)] = [len(labels) for _, labels in clients]
    ids = np.concatenate([item_ids for item_ids, _ in clients] or [np.zeros(0, np.int64)])
    labels = np.concatenate([values for _, values in clients] or [np.zeros(0, np.float32)])

    # Distinct (client, item) pairs, in the order of clients.
    owners = np.repeat(np.arange(num_clients), lengths)
    span = int(ids.max(initial=0)) + 1
    pairs, pair_of_example = np.unique(owners * span + ids, return_inverse=True)
    pair_owners = pairs // span
    first_pair = np.searchsorted(pair_owners, np.arange(num_clients))
    places = np.arange(len(pairs)) - first_pair[pair_owners]
    # A client's examples may come back to the same items, as drawn negatives do.
    num_distinct = int(np.bincount(pair_owners, minlength=1).max())
    item_ids = np.full((num_clients, min(num_examples, options.room(num_distinct))), -1, np.int32)
    item_ids[pair_owners, places] = pairs % span

    slots = np.arange(int(options.num_batches(num_examples)) * options.batch_size)
    starts = np.cumsum(lengths) - lengths
    sources = starts[:, np.newaxis] + np.minimum(slots, np.maximum(lengths - 1, 0)[:, np.newaxis])
    # A client without examples takes what is there, if only a zero: it is masked.
    sources = np.minimum(sources, max(len(ids) - 1, 0))
    example_places = places[pair_of_example] if len(ids) else np.zeros(1, np.int64)
    example_labels = labels if len(ids) else np.zeros(1, np.float32)
    shape = (num_clients, -1, options.batch_size)
    positions = np.where((lengths > 0)[:, np.newaxis], example_places[sources], 0)
    support, query = _schedules(lengths, num_examples, options)
    all_seeds, user_ids = np.zeros(num_clients, np.uint32), np.full(num_clients, -1, np.int32)
    all_seeds[: len(clients)], user_ids[: len(clients)] = seeds, users
    return Shard(
        item_ids=item_ids,
        positions=positions.astype(np.int32).reshape(shape),
        labels=example_labels[sources].astype(np.float32).reshape(shape),
        mask=(slots < lengths[:, np.newaxis]).reshape(shape),
        support_batches=support,
        query_batches=query,
        seeds=all_seeds,
        user_ids=user_ids,
    )


def _schedules(lengths: np.ndarray, num_examples: int, options: PackingOptions):
    """Returns the batch of each support and each query step, int32 `[clients, steps]`."""
    batches = options.num_batches(lengths)[:, np.newaxis]
    schedules = []
    for part, steps, room in zip(
        options.parts, options.num_steps(lengths), options.num_steps(num_examples)
    ):
        step = np.arange(max(int(room), 1))
        batch = step % np.maximum(part.num_batches(batches), 1) * part.stride + part.first
        schedules.append(np.where(step < steps[:, np.newaxis], batch, -1).astype(np.int32))
    return schedules


def _rounded_up(number: int) -> int:
    """Returns the next power of two."""
    return 1 << max(number - 1, 0).bit_length()
