"""Users in, users out: order, padding and blocks, with computations simple enough to follow."""

import numpy as np
import pytest

from fedrecon import rng
from fedrecon.data.cohorts import CohortPacker, PackingOptions, Passes
from fedrecon.evaluation.scoring import Scorer

PACKING = PackingOptions(2, "none", support=Passes(1), query=Passes(0), seed=5)


class Model:
    """Local values: the sum of item * label of what a user gives, and (user id, seed)."""

    def __init__(self):
        self.calls = []
        self.scored = []

    def reconstruct(self, weights, shards):
        self.calls.append(shards)
        return [self._of_shard(weights, shard) for shard in shards]

    def _of_shard(self, weights, shard):
        sums = np.zeros((len(shard.user_ids), 1), np.float32)
        for client, batches in enumerate(shard.support_batches):
            batches = batches[batches >= 0]
            items = shard.item_ids[client][shard.positions[client][batches]]
            mask = shard.mask[client][batches]
            sums[client] = (items * shard.labels[client][batches])[mask].sum() + weights
        return [sums, np.stack([shard.user_ids, shard.seeds], axis=1)]

    def score(self, weights, shards):
        self.scored.append(shards)
        scores = []
        for shard in shards:
            given = np.asarray(shard.local_values[0])
            assert np.isfinite(given).all()  # Whatever pads a shard is somebody's.
            scores.append(np.where(shard.item_ids < 0, np.nan, 1000 * given + shard.item_ids))
        return scores


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def scorer(model):
    return Scorer(model.reconstruct, model.score, PACKING, clients_per_shard=3)


def make_given(lengths):
    return tuple(
        (np.arange(length) + 10 * row, np.full(length, row + 1, np.float32))
        for row, length in enumerate(lengths)
    )


def expected_sums(given):
    return np.array([[(items * labels).sum() + 0.5] for items, labels in given], np.float32)


@pytest.mark.parametrize(
    "lengths", [[4], [1, 2], [0, 5, 3], [2, 9, 0, 4, 1, 7, 7, 3], [1] * 3, list(range(14))]
)
def test_local_values_come_in_the_order_of_the_users(scorer, lengths):
    users = np.random.default_rng(0).permutation(50)[: len(lengths)]
    given = make_given(lengths)
    sums, identities = scorer.local_values(0.5, users, given)
    np.testing.assert_array_equal(sums, expected_sums(given))
    np.testing.assert_array_equal(identities[:, 0], users)


def test_the_longest_come_first_and_share_shards(model, scorer):
    lengths = [2, 9, 0, 4, 1, 7, 7, 3, 12, 5, 6, 8, 1, 1]
    scorer.local_values(0.5, np.arange(14), make_given(lengths))
    shards = [shard for call in model.calls for shard in call]
    in_shards = [shard.mask.sum(axis=(1, 2)).tolist() for shard in shards]
    assert in_shards == [[12, 9, 8], [7, 7, 6], [5, 4, 3], [2, 1, 1], [1, 0, 0]]
    # Few shapes, each wide enough for its longest: 16, 8, 8, 2 and 1 examples, two a batch. All are
    # powers of two, so that other users meet the same shapes.
    assert [shard.mask.shape[1:] for shard in shards] == [(8, 2), (4, 2), (4, 2), (1, 2), (1, 2)]
    assert shards[-1].user_ids[-1] == -1
    # Not all users in one call: a function is traced for each number of shards.
    assert [len(call) for call in model.calls] == [4, 1]


def test_users_draw_what_the_packer_gives_them_in_evaluation(scorer):
    users = np.array([8, 2, 31, 4])
    _, identities = scorer.local_values(0.0, users, make_given([1, 3, 2, 5]))
    np.testing.assert_array_equal(identities[:, 1], rng.derive_seeds(5, "client", 0, ids=users))

    class Examples:
        users = np.array([2, 4, 8, 31])

        def num_examples(self, user):
            return 1

        def examples(self, user, round_num):
            return np.array([1]), np.array([1.0], np.float32)

    (shard,) = CohortPacker(Examples(), PACKING, clients_per_shard=4).pack(users, 0)
    assert dict(zip(shard.user_ids.tolist(), shard.seeds.tolist())) == dict(identities.tolist())


def test_nobody_depends_on_whom_they_are_reconstructed_with(scorer):
    lengths, users = [2, 9, 0, 4, 1, 7], np.array([5, 3, 9, 1, 0, 7])
    given = make_given(lengths)
    together = scorer.local_values(0.5, users, given)
    for row, user in enumerate(users):
        alone = scorer.local_values(0.5, np.array([user]), (given[row],))
        for values, value in zip(together, alone):
            np.testing.assert_array_equal(values[row], value[0])


def locals_of(num_users):
    return [np.arange(num_users, dtype=np.float32)[:, np.newaxis]]


@pytest.mark.parametrize("num_users", [1, 2, 3, 7, 12, 13, 25])
def test_scores_come_in_the_order_of_the_users(scorer, num_users):
    items = np.random.default_rng(1).integers(0, 900, (num_users, 4)).astype(np.int32)
    scores = scorer.scores(None, locals_of(num_users), items)
    np.testing.assert_array_equal(scores, 1000 * np.arange(num_users)[:, np.newaxis] + items)


def test_padding_gets_a_score_that_means_nothing(scorer):
    items = np.array([[5, 6, -1], [7, -1, -1], [-1, -1, -1], [1, 2, 3]], np.int32)
    scores = scorer.scores(None, locals_of(4), items)
    assert scores.shape == (4, 3)
    np.testing.assert_array_equal(scores[items >= 0], [5, 6, 1007, 3001, 3002, 3003])


def test_the_same_items_for_all_are_given_once(model, scorer):
    items = np.array([4, 0, 9], np.int32)
    scores = scorer.scores(None, locals_of(5), items)
    np.testing.assert_array_equal(scores, scorer.scores(None, locals_of(5), np.tile(items, (5, 1))))
    np.testing.assert_array_equal(scores[3], [3004, 3000, 3009])
    # Every shard is full: those of the last users are repeated.
    assert {shard.item_ids.shape for call in model.scored for shard in call} == {(3, 3)}


@pytest.mark.parametrize("num_users", [1, 11, 12, 13, 30])
def test_blocks_have_everybody_once(model, scorer, num_users):
    items = np.arange(6, dtype=np.int32)
    blocks = list(scorer.score_blocks(None, locals_of(num_users), items))
    places = np.concatenate([places for places, _ in blocks])
    np.testing.assert_array_equal(np.sort(places), np.arange(num_users))
    scores = np.empty((num_users, 6))
    for of_block, values in blocks:
        scores[of_block] = values
    np.testing.assert_array_equal(scores, 1000 * np.arange(num_users)[:, np.newaxis] + items)
    # A block is what one call works on: all users' scores of all items never are there at once.
    assert max(len(of_block) for of_block, _ in blocks) <= 12
    assert len(model.scored) == len(blocks)
