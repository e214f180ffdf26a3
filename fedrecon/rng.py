"""All randomness of the project: generators that depend on (seed, purpose, indices) and nothing else.

Nothing is ever seeded globally, and no generator is carried from one round to the next, so round
300 draws the same numbers whether the run was resumed at round 299 or never interrupted.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Returns the generator of one purpose.

    Args:
      seed: The seed of the whole run, `>= 0`.
      purpose: What the numbers are for, such as `"split"`; different purposes never share numbers.
      *indices: What they are for within the purpose, such as a round and a client; all `>= 0`.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, indices)))


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Returns a seed in `[0, 2**31)` for a library that takes an integer, such as a Keras initializer."""
    return int(_sequence(seed, purpose, indices).generate_state(1)[0] >> 1)


def _sequence(seed: int, purpose: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    # A digest, not hash(): Python's string hash differs from one process to the next.
    digest = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.SeedSequence([seed, digest, len(indices), *indices])
