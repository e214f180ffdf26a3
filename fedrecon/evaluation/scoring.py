"""Runs a model's computations over many users: their local part, and their candidates' scores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon.algorithms.algorithm import Algorithm, Reconstruction
from fedrecon.data.cohorts import CohortPacker, PackingOptions
from fedrecon.evaluation.protocols import Cases
from fedrecon.wiring.at_clients import Candidates, build_scoring

# Users of a shard; they have up to a catalogue of candidates each.
_CLIENTS_PER_SHARD = 32
# Shards worked on in one call: a function is traced for each number of them.
_SHARDS_PER_CALL = 4


class ModelScores:
    """The scores of the states of an algorithm.

    A user whose local part the algorithm keeps is scored with it; others are reconstructed.
    """

    def __init__(self, algorithm: Algorithm):
        self._algorithm = algorithm

    def scores(self, state: Any, cases: Cases) -> np.ndarray:
        """Returns `[n, m]` float32: the score of each item asked about; padding gets anything."""
        weights = self._algorithm.get_weights(state)
        local_values = self._local_values(state, weights, cases)
        return self._scorer.scores(weights, local_values, cases.item_ids)

    def score_blocks(
        self, state: Any, cases: Cases, items: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields places of users in the cases, and their scores of `items`, `[block, items]`."""
        weights = self._algorithm.get_weights(state)
        local_values = self._local_values(state, weights, cases)
        yield from self._scorer.score_blocks(weights, local_values, items)

    def losses(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns the model's loss of each score, `[n, m]` float32, without regularization."""
        return self._loss.call(labels[..., np.newaxis], scores[..., np.newaxis]).numpy()

    @functools.cached_property
    def _loss(self) -> tf.keras.losses.Loss:
        loss_fn = self._algorithm.reconstruction.model_fn().loss_fn
        return loss_fn(reduction=tf.keras.losses.Reduction.NONE)

    def _local_values(self, state, weights, cases: Cases) -> list[np.ndarray]:
        kept_rows = self._algorithm.kept_rows
        if kept_rows is None:
            return self._scorer.local_values(weights, cases.users, cases.given)
        values, is_kept = kept_rows(state, cases.users)
        if not is_kept.all():
            others = cases.select(~is_kept)
            fresh = self._scorer.local_values(weights, others.users, others.given)
            for value, reconstructed in zip(values, fresh):
                value[~is_kept] = reconstructed
        return values

    @functools.cached_property
    def _scorer(self) -> Scorer:
        shared = _scorer(_ByKey(self._algorithm.reconstruction))
        return dataclasses.replace(shared, packing=self._algorithm.reconstruction.packing)


class _ByKey:
    """A reconstruction that equals any other with the same key."""

    def __init__(self, reconstruction: Reconstruction):
        self.reconstruction = reconstruction

    def __eq__(self, other):
        return self.reconstruction.key == other.reconstruction.key

    def __hash__(self):
        return hash(self.reconstruction.key)


@functools.lru_cache(maxsize=4)
def _scorer(by_key: _ByKey) -> Scorer:
    """Returns a scorer; tracing and compiling it takes seconds, so equal algorithms share it."""
    reconstruction, size = by_key.reconstruction, _CLIENTS_PER_SHARD
    return Scorer(
        reconstruct=reconstruction.build(size),
        score=build_scoring(reconstruction.model_fn, clients_per_shard=size),
        packing=reconstruction.packing,
        clients_per_shard=size,
    )


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model's answers.

    Attributes:
      reconstruct: A TFF computation of the global weights and shards to local values at CLIENTS
        (see `Reconstruction.build`).
      score: A TFF computation of the global weights and candidates to predictions at CLIENTS
        (see `build_scoring`).
      packing: How users are packed for `reconstruct`.
      clients_per_shard: The number of clients a shard has in both computations.
    """

    reconstruct: Callable[[Any, list], Any]
    score: Callable[[Any, list], Any]
    packing: PackingOptions
    clients_per_shard: int

    def local_values(self, weights: Any, users: np.ndarray, given) -> list[np.ndarray]:
        """Reconstructs users.

        Args:
          weights: The global part, `ModelWeights`.
          users: `[n]` distinct user ids, which draw the initial values.
          given: For each user item ids and labels, as in `Cases`.

        Returns:
          For each of the local weights `[n, ...]`.
        """
        packer = CohortPacker(
            _Given(users, given),
            self.packing,
            clients_per_shard=self.clients_per_shard,
            caps_at_longest=False,
        )
        shards = packer.pack(users, 0)
        place_of_user = {user: place for place, user in enumerate(users.tolist())}
        values: list[np.ndarray] = []
        for start in range(0, len(shards), _SHARDS_PER_CALL):
            some = shards[start : start + _SHARDS_PER_CALL]
            for shard, output in zip(some, self.reconstruct(weights, some)):
                is_user = shard.user_ids >= 0
                places = [place_of_user[user] for user in shard.user_ids[is_user].tolist()]
                arrays = [np.asarray(array) for array in output]
                if not values:
                    values = [np.empty([len(users), *a.shape[1:]], a.dtype) for a in arrays]
                for value, array in zip(values, arrays):
                    value[places] = array[is_user]
        return values

    def scores(self, weights: Any, local_values: list, item_ids: np.ndarray) -> np.ndarray:
        """Predicts items for users.

        Args:
          weights: The global part, `ModelWeights`.
          local_values: The users', `[n, ...]` each.
          item_ids: `[n, m]` int32, -1 is padding; or `[m]`, the same for all.

        Returns:
          `[n, m]` float32; what padding gets means nothing.
        """
        num_users, size = len(local_values[0]), self.clients_per_shard
        if item_ids.ndim == 1:
            item_ids = np.broadcast_to(item_ids, (num_users, len(item_ids)))
        shards = []
        for start in range(0, num_users, size):
            places = np.resize(np.arange(start, min(start + size, num_users)), size)
            shards.append(Candidates([value[places] for value in local_values], item_ids[places]))
        parts = []
        for start in range(0, len(shards), _SHARDS_PER_CALL):
            parts += self.score(weights, shards[start : start + _SHARDS_PER_CALL])
        # The last shard repeats users where there are none left.
        return np.concatenate([np.asarray(part) for part in parts])[:num_users]

    def score_blocks(
        self, weights: Any, local_values: list, item_ids: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields places of users and their scores of the items `[m]`, block by block."""
        size = self.clients_per_shard * _SHARDS_PER_CALL
        for start in range(0, len(local_values[0]), size):
            block = [value[start : start + size] for value in local_values]
            places = np.arange(start, start + len(block[0]))
            yield places, self.scores(weights, block, item_ids)


class _Given:
    """The examples that users give, as `CohortPacker` reads them."""

    def __init__(self, users: np.ndarray, given: Sequence[tuple[np.ndarray, np.ndarray]]):
        self.users = users
        self._given = dict(zip(users.tolist(), given))

    def num_examples(self, user: int) -> int:
        return len(self._given[user][1])

    def examples(self, user: int, round_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return self._given[user]
