import hashlib
import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest

from fedrecon import rng

USERS = np.array([10, 11, 12, 13, 14])


def test_generator_depends_on_seed_purpose_and_indices_only():
    draw = lambda *args: rng.generator(*args).integers(2**62)  # noqa: E731
    assert draw(1, "a", 2) == draw(1, "a", 2)
    draws = {draw(1, "a", 2), draw(2, "a", 2), draw(1, "b", 2), draw(1, "a", 3), draw(1, "a")}
    # (1, "a", 0) too: an index of zero is not the same as no index.
    assert len(draws | {draw(1, "a", 0)}) == 6


@pytest.mark.slow
def test_numbers_are_the_same_in_another_process():
    # Python's hash() of a string differs between processes; a seed made of it would as well.
    code = "from fedrecon import rng; print(rng.derive_seed(7, 'item_embedding'))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(other) == rng.derive_seed(7, "item_embedding")


def test_derived_seeds_fit_a_signed_32_bit_integer():
    seeds = [rng.derive_seed(0, "x", i) for i in range(1000)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**31
    assert max(seeds) > 2**30  # The upper half is used too.


def splitmix64(state):
    """The numbers of the published generator, with Python's integers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        bits = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        yield bits ^ bits >> 31


def test_seeds_of_ids_are_those_of_splitmix64():
    # For 1234567: https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert list(itertools.islice(splitmix64(1234567), 3)) == published
    purpose = int.from_bytes(hashlib.sha256(b"client").digest()[:8], "little")
    key = np.random.SeedSequence([5, purpose, 2, 8, 9]).generate_state(1, np.uint64)
    expected = [bits >> 32 for bits in itertools.islice(splitmix64(int(key[0])), 300)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rng.derive_seeds(5, "client", 8, 9, ids=np.arange(300))
    assert found.dtype == np.uint32
    assert found.tolist() == expected


def test_seeds_of_ids_depend_on_seed_purpose_indices_and_id_only():
    draw = lambda *args, ids: rng.derive_seeds(*args, ids=np.array(ids)).tolist()  # noqa: E731
    among_others = draw(1, "a", 2, ids=[9, 5, 2**31 - 1, 5])
    assert among_others[1] == among_others[3]
    assert among_others == [draw(1, "a", 2, ids=[one])[0] for one in (9, 5, 2**31 - 1, 5)]
    assert rng.derive_seeds(1, "a", 2, ids=np.array([9], np.int32)) == among_others[:1]
    others = [draw(2, "a", 2, ids=[9]), draw(1, "b", 2, ids=[9]), draw(1, "a", 3, ids=[9])]
    others.append(draw(1, "a", ids=[9]))
    assert len({*among_others, *itertools.chain(*others)}) == 3 + 4


def test_no_ids_have_no_seeds():
    found = rng.derive_seeds(0, "a", ids=np.array([], np.int64))
    assert (found.shape, found.dtype) == ((0,), np.uint32)


def test_seeds_of_ids_are_uniform():
    seeds = rng.derive_seeds(0, "client", 1, ids=np.arange(10_000))
    assert len(set(seeds.tolist())) == 10_000
    # Four standard deviations of a mean: of a uniform number, 1 / sqrt(12); of a bit, 1 / 2.
    assert abs(seeds.mean() / 2**32 - 0.5) < 4 / np.sqrt(12 * 10_000)
    ones = (seeds[:, np.newaxis] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 4 * 0.5 / np.sqrt(10_000)


def test_numpy_global_state_plays_no_part():
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    first = rng.sample_uniform(USERS, 3, seed=5, round_num=9)
    assert np.array_equal(np.random.get_state()[1], state)
    np.random.seed(2)
    assert np.array_equal(rng.sample_uniform(USERS, 3, seed=5, round_num=9), first)


@pytest.mark.parametrize("sample", [rng.sample_uniform, rng.sample_queue])
def test_a_cohort_has_distinct_users_of_the_population(sample):
    for round_num in range(1, 30):
        cohort = sample(USERS, 4, seed=0, round_num=round_num)
        assert len(set(cohort)) == 4
        assert set(cohort) <= set(USERS)


def test_uniform_takes_everyone_equally_often():
    counts = np.zeros(15)
    for round_num in range(1, 2001):
        counts[rng.sample_uniform(USERS, 2, seed=3, round_num=round_num)] += 1
    # Each is in a cohort with probability 2/5: 800 expected, standard deviation 22.
    assert np.all(np.abs(counts[USERS] - 800) < 110)


def test_queue_takes_from_the_front_and_appends_at_the_back():
    # The textbook form, with a real queue.
    queue = list(rng.sample_queue(USERS, 5, seed=1, round_num=1))
    for round_num in range(1, 12):
        taken, queue = queue[:2], queue[2:]
        queue += taken
        cohort = rng.sample_queue(USERS, 2, seed=1, round_num=round_num)
        assert list(cohort) == taken
