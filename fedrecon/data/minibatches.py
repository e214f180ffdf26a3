"""Minibatches of everybody's examples, for centralized training."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fedrecon import rng
from fedrecon.errors import InputError


class Epochs(Protocol):
    """What has examples of users: `ClientExamples`, `ImplicitExamples`."""

    def epoch(self, epoch_num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns user ids, item ids and labels of all examples, shuffled; always as many."""


class Minibatches(NamedTuple):
    """The steps of a round.

    An example that is padding, at the end, repeats a real one.

    Attributes:
      user_ids: `[steps, batch_size]` int32.
      item_ids: Likewise.
      labels: `[steps, batch_size]` float32.
      mask: `[steps, batch_size]` bool: which examples are real.
      seed: A uint32: all randomness of the model in this round.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    seed: np.ndarray


class MinibatchStream:
    """An endless stream of shuffled epochs, cut into rounds of as many examples each."""

    def __init__(
        self,
        examples: Epochs,
        *,
        batch_size: int,
        examples_per_round: int,
        users: np.ndarray | None = None,
        seed: int = 0,
    ):
        """Creates the stream.

        Args:
          examples: The epochs.
          batch_size: Examples a step.
          examples_per_round: Of all steps of a round.
          users: Whose examples are used, user ids; None uses everybody's.
          seed: For the rounds' seeds; the examples have their own.

        Raises:
          InputError: If a number is not positive, or there are no examples.
        """
        for name, value in (("batch_size", batch_size), ("examples_per_round", examples_per_round)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1.")
        self._examples = examples
        self._batch_size = batch_size
        self._per_round = examples_per_round
        self._seed = seed
        self._users = users
        self._epoch_num = -1
        self._load(0)
        if not len(self._epoch[0]):
            raise InputError("there are no examples to make minibatches of.")

    @property
    def num_steps(self) -> int:
        """How many minibatches a round has."""
        return -(-self._per_round // self._batch_size)

    def round(self, round_num: int) -> Minibatches:
        """Returns the minibatches of a round, numbered from 1; always of one shape."""
        first = (round_num - 1) * self._per_round
        parts = []
        while len(parts) == 0 or sum(len(part[0]) for part in parts) < self._per_round:
            done = sum(len(part[0]) for part in parts)
            epoch_num, start = divmod(first + done, len(self._epoch[0]))
            epoch = self._load(epoch_num)
            parts.append([array[start : start + self._per_round - done] for array in epoch])
        arrays = [np.concatenate(arrays) for arrays in zip(*parts)]
        slots = np.arange(self.num_steps * self._batch_size)
        sources = np.minimum(slots, self._per_round - 1)
        users, items, labels = (
            array[sources].astype(dtype).reshape(self.num_steps, self._batch_size)
            for array, dtype in zip(arrays, (np.int32, np.int32, np.float32))
        )
        mask = (slots < self._per_round).reshape(self.num_steps, self._batch_size)
        seed = np.uint32(rng.derive_seed(self._seed, "minibatches", round_num))
        return Minibatches(users, items, labels, mask, seed)

    def _load(self, epoch_num: int):
        if epoch_num != self._epoch_num:
            epoch = self._examples.epoch(epoch_num)
            if self._users is not None:
                is_used = np.isin(epoch[0], self._users)
                epoch = tuple(array[is_used] for array in epoch)
            self._epoch_num, self._epoch = epoch_num, epoch
        return self._epoch
