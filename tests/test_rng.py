import subprocess
import sys

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
