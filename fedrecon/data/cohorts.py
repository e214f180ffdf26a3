"""Packs the clients of a round into shards: padded arrays that many clients share.

This module is the only owner of padding and masks. A client's examples are cut into batches; which
batch it uses at which step is a schedule, so that several epochs cost no copies:

- `alternating_batches`: batches 0, 2, 4, ... are support and 1, 3, 5, ... are query.
- `none`: all batches are both.

`epochs` passes over them follow each other in the same order and end after `steps_max` steps, as
`tff.learning.models.ReconstructionModel.build_dataset_split_fn` has it.

What is padded: clients (of no examples) up to a round number of them, each client's distinct items,
its last batch, its batches, and its steps (at the end). Sizes are rounded up to a few, since XLA
compiles once for each combination: see `_rounded_up`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from fedrecon import rng
from fedrecon.data.examples import ClientExamples

# Starting a step costs about as much as carrying it out for this many clients (measured: see
# BUILD_NOTES.md), so shards of fewer clients save little.
_STEP_COST_CLIENTS = 40
_MAX_CUTS = 64


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
    """

    item_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    support_batches: np.ndarray
    query_batches: np.ndarray
    seeds: np.ndarray


class Passes(NamedTuple):
    """How often a client goes through its support or query.

    Attributes:
      epochs: Passes; 0 uses nothing.
      steps_max: Limit on steps over all of them, or None.
    """

    epochs: int = 1
    steps_max: int | None = None


@dataclasses.dataclass(frozen=True)
class PackingOptions:
    """How clients become shards.

    Attributes:
      batch_size: Examples a step.
      support_query_split: `"alternating_batches"` or `"none"`.
      support: Passes over the support.
      query: Passes over the query.
      num_workers: How many shards are worked on at a time. A cohort is cut into at least as many
        when that is faster.
      max_clients_per_shard: 1 gives every client a shard of its own. None: no limit.
      seed: Draws the clients' seeds.
    """

    batch_size: int
    support_query_split: str
    support: Passes
    query: Passes
    num_workers: int = 2
    max_clients_per_shard: int | None = None
    seed: int = 0

    def num_batches(self, num_examples):
        """Returns the number of batches of so many examples; arrays go in and come out too."""
        return -(-num_examples // self.batch_size)

    def num_steps(self, num_examples):
        """Returns the numbers of support steps and of query steps, likewise."""
        batches = self.num_batches(num_examples)
        if self.support_query_split == "none":
            support = query = batches
        else:
            support, query = (batches + 1) // 2, batches // 2
        return _limited(support, self.support), _limited(query, self.query)


def _limited(num_batches, passes: Passes):
    steps = num_batches * passes.epochs
    return steps if passes.steps_max is None else np.minimum(steps, passes.steps_max)


class CohortPacker:
    """Packs cohorts of one population.

    Where a cohort is cut depends on its size and on how many examples clients of the population
    have, not on which clients came: shapes recur from round to round.
    """

    def __init__(self, examples: ClientExamples, options: PackingOptions):
        self._examples = examples
        self._options = options
        counts = [examples.num_examples(user) for user in examples.users.tolist()]
        self._lengths = np.sort(np.array(counts, np.int64))[::-1]
        self._sizes = functools.lru_cache(maxsize=None)(self._shard_sizes)

    def pack(self, users: np.ndarray, round_num: int) -> list[Shard]:
        """Returns the shards of a cohort, those of the longest clients first.

        Args:
          users: `[num_clients]` user ids. The order does not matter.
          round_num: The round, `>= 0`.
        """
        users = np.asarray(users, np.int64)
        clients = [self._examples.examples(user, round_num) for user in users.tolist()]
        lengths = np.array([len(labels) for _, labels in clients], np.int64)
        seeds = rng.derive_seeds(self._options.seed, "client", round_num, ids=users)
        # By user among the equally long, so that the order of `users` does not matter.
        order = np.lexsort((users, -lengths))
        shards, first = [], 0
        for size in self._sizes(len(users)):
            chosen = order[first : first + size]
            first += size
            shards.append(
                pack_shard(
                    [clients[index] for index in chosen],
                    seeds[chosen],
                    self._options,
                    num_clients=size,
                    num_examples=self._num_examples(lengths[chosen]),
                )
            )
        return shards

    def _num_examples(self, lengths: np.ndarray) -> int:
        """Returns how many examples a shard of clients of these lengths has room for."""
        longest = int(self._lengths[0]) if len(self._lengths) else 1
        return max(1, min(_rounded_up(int(lengths.max(initial=1))), longest))

    def _shard_sizes(self, num_clients: int) -> tuple[int, ...]:
        """Returns how many clients each shard takes, from the longest clients on."""
        limit = self._options.max_clients_per_shard
        if limit == 1:
            return (1,) * num_clients
        room = _rounded_up_finely(num_clients)
        quantiles = (np.arange(room) + 0.5) / room * len(self._lengths)
        steps = sum(self._options.num_steps(self._lengths[quantiles.astype(np.int64)]))
        cuts = _best_cuts(np.maximum(steps, 1), self._options.num_workers)
        sizes = [after - before for before, after in zip(cuts, cuts[1:])]
        return tuple(part for size in sizes for part in _parts(size, limit or size))


def pack_shard(
    clients: list[tuple[np.ndarray, np.ndarray]],
    seeds: np.ndarray,
    options: PackingOptions,
    *,
    num_clients: int,
    num_examples: int,
) -> Shard:
    """Packs clients into one shard.

    Args:
      clients: Each client's item ids `[n]`, integers, and labels `[n]`, floats; `n` may be 0.
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
    item_ids = np.full((num_clients, num_examples), -1, np.int32)
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
    all_seeds = np.zeros(num_clients, np.uint32)
    all_seeds[: len(clients)] = seeds
    return Shard(
        item_ids=item_ids,
        positions=positions.astype(np.int32).reshape(shape),
        labels=example_labels[sources].astype(np.float32).reshape(shape),
        mask=(slots < lengths[:, np.newaxis]).reshape(shape),
        support_batches=support,
        query_batches=query,
        seeds=all_seeds,
    )


def _schedules(lengths: np.ndarray, num_examples: int, options: PackingOptions):
    """Returns the batch of each support and each query step, int32 `[clients, steps]`."""
    batches = options.num_batches(lengths)[:, np.newaxis]
    if options.support_query_split == "none":
        parts = ((batches, 1, 0), (batches, 1, 0))
    else:
        parts = (((batches + 1) // 2, 2, 0), (batches // 2, 2, 1))
    schedules = []
    for (count, stride, offset), steps, room in zip(
        parts, options.num_steps(lengths), options.num_steps(num_examples)
    ):
        step = np.arange(max(int(room), 1))
        batch = step % np.maximum(count, 1) * stride + offset
        schedules.append(np.where(step < steps[:, np.newaxis], batch, -1).astype(np.int32))
    return schedules


def _best_cuts(steps: np.ndarray, num_workers: int) -> list[int]:
    """Returns where to cut clients, sorted by their decreasing numbers of steps.

    A shard takes as many steps as its first client, each of which costs `_STEP_COST_CLIENTS` and
    the number of its clients. First the cuts of least total cost (dynamic programming), then more
    of them while that balances the workers' loads.
    """
    num_clients = len(steps)
    if not num_clients:
        return [0]
    places = np.unique(np.linspace(0, num_clients, min(num_clients, _MAX_CUTS) + 1).astype(int))
    best, previous = np.zeros(len(places)), np.zeros(len(places), int)
    for end in range(1, len(places)):
        costs = best[:end] + [_cost(steps, places[start], places[end]) for start in range(end)]
        previous[end] = np.argmin(costs)
        best[end] = costs[previous[end]]
    cuts, place = [], len(places) - 1
    while place:
        cuts.append(int(places[place]))
        place = previous[place]
    cuts = [0, *reversed(cuts)]
    while True:
        loads = [_cost(steps, *part) for part in zip(cuts, cuts[1:])]
        largest = int(np.argmax(loads))
        start, end = cuts[largest], cuts[largest + 1]
        finer = sorted({*cuts, (start + end) // 2})
        finer_loads = [_cost(steps, *part) for part in zip(finer, finer[1:])]
        if _makespan(finer_loads, num_workers) >= _makespan(loads, num_workers):
            return cuts
        cuts = finer


def _cost(steps: np.ndarray, start: int, end: int) -> float:
    return float(steps[start] * (_STEP_COST_CLIENTS + end - start))


def _makespan(loads: list[float], num_workers: int) -> float:
    """Returns when the last worker ends if each next largest load goes to the first free one."""
    ends = [0.0] * num_workers
    for load in sorted(loads, reverse=True):
        ends[int(np.argmin(ends))] += load
    return max(ends)


def _parts(size: int, limit: int) -> list[int]:
    """Returns `size` cut into the fewest nearly equal parts of at most `limit`."""
    count = -(-size // limit)
    return [size // count + (index < size % count) for index in range(count)]


def _rounded_up(number: int) -> int:
    """Returns the next power of two."""
    return 1 << max(number - 1, 0).bit_length()


def _rounded_up_finely(number: int) -> int:
    """Returns the next number that has at most four binary digits before its zeros."""
    step = 1 << max(number.bit_length() - 4, 0)
    return -(-number // step) * step
