"""All randomness of the project: generators that depend on (seed, purpose, indices) alone.

Nothing is ever seeded globally, and no generator is carried from one round to the next, so round
300 draws the same numbers whether the run was resumed at round 299 or never interrupted.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Returns the generator of one purpose.

    Args:
      seed: The seed of the whole run, `>= 0`.
      purpose: What the numbers are for, such as `"split"`; different purposes never share numbers.
      *indices: What they are for within the purpose, such as a round and a client; all `>= 0`.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, indices)))


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Returns a seed in `[0, 2**31)` for what takes an integer, such as a Keras initializer."""
    return int(_sequence(seed, purpose, indices).generate_state(1)[0] >> 1)


def derive_seeds(seed: int, purpose: str, *indices: int, ids: np.ndarray) -> np.ndarray:
    """Returns a seed for each of many ids at once: `[len(ids)]`, uint32.

    It depends on the id, not on the others beside it. SplitMix64 (Steele et al. 2014, "Fast
    Splittable Pseudorandom Number Generators", figure 14) over the key of the purpose.
    """
    key = _sequence(seed, purpose, indices).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):  # Arithmetic modulo 2**64 is what is wanted.
        bits = key + (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


def _sequence(seed: int, purpose: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    # A digest, not hash(): Python's string hash differs from one process to the next.
    digest = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.SeedSequence([seed, digest, len(indices), *indices])


def sample_uniform(users: np.ndarray, num_clients: int, *, seed: int, round_num: int) -> np.ndarray:
    """Draws a round's cohort uniformly without replacement.

    Args:
      users: The user ids to draw from, `[num_users]`.
      num_clients: At most `num_users`.
      seed: The seed of the run.
      round_num: The number of the round; the same round draws the same users.

    Returns:
      `[num_clients]` distinct user ids.
    """
    return generator(seed, "cohort", round_num).choice(users, num_clients, replace=False)


def sample_queue(users: np.ndarray, num_clients: int, *, seed: int, round_num: int) -> np.ndarray:
    """Takes a round's cohort from a queue, as is usual for FedNCF.

    The users are shuffled once; each round takes the first `num_clients` and appends them at the
    back, so that every user has taken part `k` times before anyone does so `k + 1` times.

    Arguments and result as for `sample_uniform`; rounds are numbered from 1.
    """
    queue = generator(seed, "queue").permutation(users)
    first = (round_num - 1) * num_clients
    return queue[np.arange(first, first + num_clients) % len(queue)]
