"""A model that serves a user by gradient steps through the Keras model itself.

For models that are not linear in their local part, and for optimizers other than plain gradient
descent. The steps are those of training and evaluation (`fedrecon.algorithms.reconstruction`).
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from fedrecon.algorithms.reconstruction import (
    compile_after_reconstruction,
    reconstruction_packing_options,
)
from fedrecon.data.cohorts import pack_shard
from fedrecon.engine.calls import compile_scoring
from fedrecon.engine.shards import shard_spec
from fedrecon.engine.values import Values, by_name, in_order
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedReconOptions
from fedrecon.serving.linear import Given

_USERS_AT_ONCE = 32


class StepwiseModel:
    """A Keras model that is reconstructed by gradient steps.

    Attributes:
      model_fn: Builds the model.
      model: The model.
      values: The whole global values, by the names of the weights.
      options: How the local part is fitted.
      start_seed: Draws the initial local values, the same for each user.
      num_items: How many items there are.
      parts: The names of the local weights that make up a user's vector, and their sizes.
    """

    def __init__(
        self,
        model_fn: ModelFn,
        values: Values,
        options: FedReconOptions,
        *,
        start_seed: int,
        num_items: int,
    ):
        self.model_fn = model_fn
        self.model = FunctionalModel(model_fn())
        self.values = values
        self.options = options
        self.start_seed = start_seed
        self.num_items = num_items
        self.parts = tuple((w.name, w.shape.num_elements()) for w in self.model.local_weights)

    def user_vectors(self, given: Given) -> np.ndarray:
        """Returns `[n, k]` float32: the vector of each user, from rows of items and labels."""
        vectors = np.empty((len(given), sum(size for _, size in self.parts)), np.float32)
        packing = reconstruction_packing_options(self.options, seed=0)
        longest = max((len(labels) for _, labels in given), default=1)
        # Lengths are powers of two, so that few shapes are compiled.
        room = 2 ** max(longest - 1, 1).bit_length()
        for start in range(0, len(given), _USERS_AT_ONCE):
            part = list(given[start : start + _USERS_AT_ONCE])
            shard = pack_shard(
                part,
                np.arange(len(part)),
                np.full(len(part), self.start_seed, np.uint32),
                packing,
                num_clients=_USERS_AT_ONCE,
                num_examples=room,
            )
            found = [np.asarray(value) for value in self._reconstruct(self.values, shard)]
            flat = [value.reshape(_USERS_AT_ONCE, -1)[: len(part)] for value in found]
            vectors[start : start + len(part)] = np.concatenate(flat, axis=1)
        return vectors

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Returns `[n, num_items]` float32: every item's score for users' vectors `[n, k]`."""
        items = np.arange(self.num_items, dtype=np.int32)
        items = np.broadcast_to(items, (_USERS_AT_ONCE, self.num_items))
        parts = []
        for start in range(0, len(vectors), _USERS_AT_ONCE):
            # The last block repeats its users where there are none left.
            number = min(_USERS_AT_ONCE, len(vectors) - start)
            block = np.resize(vectors[start : start + number], (_USERS_AT_ONCE, vectors.shape[1]))
            scores = self._score(self.values, items, self._unflattened(block))
            parts.append(np.asarray(scores)[:number])
        return np.concatenate([np.zeros((0, self.num_items), np.float32), *parts])

    def item_vectors(self) -> np.ndarray:
        """Returns `[num_items, d]` float32: the rows of all item tables side by side."""
        tables = [w.name for w in self.model.global_weights if w.is_item_table]
        return np.concatenate([np.asarray(self.values[name]) for name in tables], axis=1)

    def _unflattened(self, vectors: np.ndarray) -> Values:
        ends = np.cumsum([size for _, size in self.parts])
        pieces = np.split(vectors, ends[:-1], axis=1)
        weights = self.model.local_weights
        shaped = [piece.reshape(-1, *w.shape) for w, piece in zip(weights, pieces)]
        return by_name(weights, [tf.constant(value) for value in shaped])

    @functools.cached_property
    def _reconstruct(self):
        def local_values(values, shard):
            del shard
            return [tf.identity(value) for value in in_order(self.model.local_weights, values)]

        spec = shard_spec(self.options.batch_size, _USERS_AT_ONCE)
        return compile_after_reconstruction(
            self._callable_model(), self.options, spec, local_values
        )

    @functools.cached_property
    def _score(self):
        return compile_scoring(self._callable_model(), _USERS_AT_ONCE)

    def _callable_model(self) -> FunctionalModel:
        # Keras calls no model once another was built inside of a graph, as TFF does in between.
        return FunctionalModel(self.model_fn())
