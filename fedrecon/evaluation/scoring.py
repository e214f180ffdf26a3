"""Runs a model's computations over many users: their local part, and their candidates' scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fedrecon import rng
from fedrecon.data.cohorts import PackingOptions, pack_shard

# Shards worked on in one call: a function is traced for each number of them.
_SHARDS_PER_CALL = 4


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model's answers.

    Attributes:
      reconstruct: A TFF computation of the global weights and shards to local values at CLIENTS
        (`fed_recon.build_reconstruction`).
      score: A TFF computation of the global weights and candidates to predictions at CLIENTS
        (`process.build_scoring`).
      make_candidates: From local values and item ids to what `score` takes
        (`process.Candidates`).
      packing: How users are packed for `reconstruct`.
      clients_per_shard: That of both computations.
    """

    reconstruct: Callable[[Any, list], Any]
    score: Callable[[Any, list], Any]
    make_candidates: Callable[[list, np.ndarray], Any]
    packing: PackingOptions
    clients_per_shard: int

    def local_values(self, weights: Any, users: np.ndarray, given) -> list[np.ndarray]:
        """Reconstructs users.

        Args:
          weights: The global part, `ModelWeights`.
          users: `[n]` user ids, which draw the initial values.
          given: For each user item ids and labels, as in `Cases`.

        Returns:
          For each of the local weights `[n, ...]`.
        """
        seeds = rng.derive_seeds(self.packing.seed, "client", 0, ids=users)
        lengths = np.array([len(labels) for _, labels in given], np.int64)
        # Clients of similar length share a shard; the longest first.
        order = np.argsort(-lengths, kind="stable")

        def pack(places):
            longest = max(int(lengths[places].max(initial=1)), 1)
            return pack_shard(
                [given[place] for place in places],
                users[places],
                seeds[places],
                self.packing,
                num_clients=self.clients_per_shard,
                num_examples=1 << (longest - 1).bit_length(),
            )

        return self._in_order(order, lambda shards: self.reconstruct(weights, shards), pack)

    def scores(self, weights: Any, local_values: list, item_ids: np.ndarray) -> np.ndarray:
        """Predicts items for users.

        Args:
          weights: The global part, `ModelWeights`.
          local_values: The users', `[n, ...]` each.
          item_ids: `[n, m]` int32, -1 is padding; or `[m]`, the same for all.

        Returns:
          `[n, m]` float32; what padding gets means nothing.
        """
        num_users = len(local_values[0])
        if item_ids.ndim == 1:
            item_ids = np.broadcast_to(item_ids, (num_users, len(item_ids)))

        def pack(places):
            padded = np.resize(places, self.clients_per_shard)  # Repeats users.
            return self.make_candidates([v[padded] for v in local_values], item_ids[padded])

        (scores,) = self._in_order(
            np.arange(num_users), lambda shards: [[s] for s in self.score(weights, shards)], pack
        )
        return scores

    def score_blocks(
        self, weights: Any, local_values: list, item_ids: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields places of users and their scores of the items `[m]`, block by block."""
        size = self.clients_per_shard * _SHARDS_PER_CALL
        for start in range(0, len(local_values[0]), size):
            block = [value[start : start + size] for value in local_values]
            places = np.arange(start, start + len(block[0]))
            yield places, self.scores(weights, block, item_ids)

    def _in_order(self, order, compute, pack) -> list[np.ndarray]:
        """Computes users shard by shard in `order`; returns arrays in that of the users."""
        shards = np.split(order, range(self.clients_per_shard, len(order), self.clients_per_shard))
        parts = []
        for start in range(0, len(shards), _SHARDS_PER_CALL):
            places = shards[start : start + _SHARDS_PER_CALL]
            outputs = compute([pack(chosen) for chosen in places])
            for chosen, output in zip(places, outputs):
                parts.append([np.asarray(array)[: len(chosen)] for array in output])
        inverse = np.empty(len(order), np.int64)
        inverse[order] = np.arange(len(order))
        return [np.concatenate(arrays)[inverse] for arrays in zip(*parts)]
