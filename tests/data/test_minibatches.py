"""Minibatches of everybody's examples: shuffled epochs cut into rounds."""

import itertools

import numpy as np
import pytest

from fedrecon.data.minibatches import MinibatchStream
from fedrecon.errors import InputError


class Numbered:
    """Examples 0, 1, ... of which each epoch has another order; records what is asked for."""

    def __init__(self, num_examples):
        self._num_examples = num_examples
        self.asked = []

    def epoch(self, epoch_num):
        self.asked.append(epoch_num)
        numbers = np.random.default_rng(epoch_num).permutation(self._num_examples)
        # User, item and label of an example belong together.
        return numbers, numbers * 10, numbers.astype(np.float32) / 2


def stream(num_examples, *, batch_size=4, per_round, seed=0):
    return MinibatchStream(
        Numbered(num_examples), batch_size=batch_size, examples_per_round=per_round, seed=seed
    )


def real_examples(minibatches):
    """The numbers of the real examples in order; checks that everything of an example is its."""
    is_real = minibatches.mask
    users = minibatches.user_ids
    np.testing.assert_array_equal(minibatches.item_ids, users * 10)
    np.testing.assert_array_equal(minibatches.labels, users / 2)
    return users[is_real].tolist()


@pytest.mark.parametrize(
    ("num_examples", "per_round"),
    [
        (10, 10),  # A round is an epoch.
        (12, 4),
        (10, 7),  # Epochs end within rounds.
        (7, 3),
        (5, 17),  # A round is longer than three epochs.
        (3, 8),
        (1, 5),
    ],
)
def test_an_epoch_has_each_example_once_across_the_borders_of_rounds(num_examples, per_round):
    rounds = [stream(num_examples, per_round=per_round).round(n) for n in range(1, 9)]
    parts = [real_examples(minibatches) for minibatches in rounds]
    assert {len(part) for part in parts} == {per_round}
    numbers = list(itertools.chain(*parts))
    expected = [Numbered(num_examples).epoch(n)[0].tolist() for n in range(len(numbers))]
    assert numbers == list(itertools.chain(*expected))[: len(numbers)]


@pytest.mark.parametrize(("per_round", "num_steps"), [(1, 1), (4, 1), (5, 2), (8, 2), (11, 3)])
def test_rounds_have_one_shape_and_padding_at_the_end(per_round, num_steps):
    examples = stream(6, per_round=per_round)
    assert examples.num_steps == num_steps
    for round_num in (1, 2, 3):
        minibatches = examples.round(round_num)
        for array, dtype in zip(minibatches[:4], (np.int32, np.int32, np.float32, bool)):
            assert (array.shape, array.dtype) == ((num_steps, 4), dtype)
        assert minibatches.mask.ravel().tolist() == [n < per_round for n in range(num_steps * 4)]
        # Padding repeats a real example.
        assert set(minibatches.user_ids.ravel()) == set(real_examples(minibatches))


def test_a_round_depends_on_its_number_alone():
    straight = stream(7, per_round=5)
    expected = {round_num: straight.round(round_num) for round_num in range(1, 8)}
    resumed, wandering = stream(7, per_round=5), stream(7, per_round=5)
    asked = [(resumed, n) for n in (4, 5, 6, 7)] + [(wandering, n) for n in (7, 1, 1, 3, 7, 2)]
    for examples, round_num in asked:
        found = examples.round(round_num)
        for ours, array in zip(found, expected[round_num]):
            np.testing.assert_array_equal(ours, array)


def test_seeds_differ_by_round_and_seed():
    pairs = [(stream(7, per_round=5, seed=seed), n) for seed in (0, 1) for n in (1, 2, 3)]
    seeds = [examples.round(round_num).seed for examples, round_num in pairs]
    assert {seed.dtype for seed in seeds} == {np.dtype(np.uint32)}
    assert len(set(map(int, seeds))) == len(pairs)
    # The seed is that of the model's randomness, not of the order.
    first, other = pairs[0][0].round(1), pairs[3][0].round(1)
    np.testing.assert_array_equal(first.user_ids, other.user_ids)


def test_an_epoch_is_drawn_once():
    numbered = Numbered(20)
    examples = MinibatchStream(numbered, batch_size=4, examples_per_round=5)
    for round_num in range(1, 9):
        examples.round(round_num)
    assert numbered.asked == [0, 1]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1."),
        ({"per_round": -1}, "examples_per_round is -1; it must be at least 1."),
        ({"num_examples": 0}, "there are no examples to make minibatches of."),
    ],
)
def test_what_cannot_work_is_refused(numbers, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        stream(**{"num_examples": 3, "per_round": 2, **numbers})
