"""Protocols on cases made by hand: who is asked what, and what they give."""

import dataclasses
import math

import numpy as np
import pytest

from fedrecon.data.cohorts import CohortPacker, PackingOptions, Passes
from fedrecon.data.held_out import HeldOutItems
from fedrecon.data.ratings import RatingScale
from fedrecon.errors import InputError
from fedrecon.evaluation import protocols


class Examples:
    """What users train on, by hand: for each user a list of (item, label)."""

    def __init__(self, of_user):
        self._of_user = of_user
        self.users = np.array(sorted(of_user), np.int64)

    def num_examples(self, user):
        return len(self._of_user[user])

    def examples(self, user, round_num=0):
        rows = self._of_user[user]
        items, labels = zip(*rows) if rows else ((), ())
        return np.array(items, np.int64), np.array(labels, np.float32)


def numbered(user, length):
    """Distinct items, and labels that tell users and places apart."""
    return [(100 * user + 37 * place % 100, user + place / 16) for place in range(length)]


def pairs(items, labels):
    return list(zip(np.asarray(items).tolist(), np.asarray(labels).tolist()))


def asked(cases, row):
    mask = cases.mask[row]
    return pairs(cases.item_ids[row][mask], cases.labels[row][mask])


# --- rating prediction ----------------------------------------------------------------------------


def test_unseen_users_give_even_batches_and_are_asked_odd_ones():
    rows = [(9, 1.0), (3, 2.0), (7, 3.0), (1, 4.0), (5, 5.0)]
    examples = Examples({4: rows, 6: rows[:2], 8: []})
    cases = protocols.alternating_batches(examples, np.array([6, 4, 8]), batch_size=2)
    assert cases.users.tolist() == [6, 4, 8]
    assert [pairs(*given) for given in cases.given] == [rows[:2], [*rows[:2], rows[4]], []]
    assert [asked(cases, row) for row in range(3)] == [[], rows[2:4], []]
    np.testing.assert_array_equal(cases.item_ids, [[-1, -1], [7, 1], [-1, -1]])
    assert (cases.item_ids.dtype, cases.labels.dtype, cases.users.dtype) == ("i4", "f4", "i8")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_unseen_users_give_and_answer_what_the_packer_schedules(batch_size):
    """The masks that TFF's evaluation process reads are the other way to say the same."""
    examples = Examples({user: numbered(user, length) for user, length in enumerate(range(14))})
    users = examples.users
    cases = protocols.alternating_batches(examples, users, batch_size=batch_size)
    packer = CohortPacker(
        examples,
        PackingOptions(batch_size, "alternating_batches", support=Passes(1), query=Passes(1)),
        clients_per_shard=4,
    )
    seen = []
    for shard in packer.pack(users, 0):
        for client, user in enumerate(shard.user_ids.tolist()):
            if user < 0:
                continue
            seen.append(user)

            def scheduled(batches, client=client, shard=shard):
                batches = batches[client][batches[client] >= 0]
                mask = shard.mask[client][batches]
                items = shard.item_ids[client][shard.positions[client][batches]]
                return pairs(items[mask], shard.labels[client][batches][mask])

            assert pairs(*cases.given[user]) == scheduled(shard.support_batches)
            assert asked(cases, user) == scheduled(shard.query_batches)
    assert sorted(seen) == users.tolist()


def test_no_rating_is_both_given_and_asked():
    examples = Examples({0: numbered(0, 13)})
    for cases in (
        protocols.alternating_batches(examples, np.array([0]), batch_size=3),
        protocols.earlier_and_later(examples, np.array([0])),
    ):
        given = pairs(*cases.given[0])
        assert not set(given) & set(asked(cases, 0))
        assert sorted(given + asked(cases, 0)) == sorted(numbered(0, 13))


def test_the_earlier_half_is_given_and_the_later_half_asked_for():
    rows = [(9, 1.0), (3, 2.0), (7, 3.0), (1, 4.0), (5, 5.0)]
    examples = Examples({1: rows, 2: rows[:4], 3: rows[:1], 4: []})
    cases = protocols.earlier_and_later(examples, np.array([1, 2, 3, 4]))
    assert [pairs(*given) for given in cases.given] == [rows[:3], rows[:2], rows[:1], []]
    assert [asked(cases, row) for row in range(4)] == [rows[3:], rows[2:4], [], []]


def test_later_ratings_are_asked_of_those_who_gave_the_earlier_ones():
    examples = Examples({0: [(1, 5.0), (2, 4.0)], 1: [(3, 1.0)], 2: [(9, 9.0)]})
    later = Examples({0: [(7, 3.0)], 1: [(8, 2.0), (0, 1.0)]})
    cases = protocols.later_ratings(examples, np.array([1, 0]), later)
    assert cases.users.tolist() == [1, 0]
    assert [pairs(*given) for given in cases.given] == [[(3, 1.0)], [(1, 5.0), (2, 4.0)]]
    assert [asked(cases, 0), asked(cases, 1)] == [[(8, 2.0), (0, 1.0)], [(7, 3.0)]]
    np.testing.assert_array_equal(cases.mask, [[True, True], [True, False]])


def test_ratings_are_judged_without_the_padding():
    cases = protocols.later_ratings(
        Examples({0: [], 1: []}), np.array([0, 1]), Examples({0: [(5, 4.0)], 1: numbered(1, 3)})
    )
    cases = dataclasses.replace(cases, scale=RatingScale(1, 5, 1))
    predictions = cases.labels + np.array([[0.5, np.nan, 1e9], [1.0, -1.0, 1.0]])
    results = protocols.judge_ratings(cases, predictions)
    assert results.counts.tolist() == [1, 3]
    assert results.values["rmse"].tolist() == pytest.approx([0.5, 1.0])
    assert results.mean_over_ratings()["accuracy"] == 0.25


# --- ranking --------------------------------------------------------------------------------------

HELD_OUT = HeldOutItems(
    users=np.array([2, 3, 7]),
    items=np.array([20, 30, 70], np.int32),
    negatives=np.array([[1, 2, 3], [4, 5, 6], [8, 9, 70]], np.int32),
)


def test_held_out_item_comes_first_among_its_negatives():
    given = {2: [(11, 1.0)], 3: [(12, 0.0), (13, 1.0)], 7: []}
    cases = protocols.held_out_among_negatives(Examples(given), np.array([7, 2]), HELD_OUT)
    assert cases.users.tolist() == [7, 2]
    # A published negative that is the held-out item is no candidate.
    np.testing.assert_array_equal(cases.item_ids, [[70, 8, 9, -1], [20, 1, 2, 3]])
    np.testing.assert_array_equal(cases.num_copies, [1, 0])
    assert cases.select(np.array([False, True])).num_copies.tolist() == [0]
    np.testing.assert_array_equal(cases.labels, [[1, 0, 0, 0], [1, 0, 0, 0]])
    assert [pairs(*examples) for examples in cases.given] == [given[7], given[2]]
    np.testing.assert_array_equal(cases.mask, cases.item_ids >= 0)
    assert cases.item_ids.dtype == np.int32


@pytest.mark.parametrize("user", [0, 5, 8])
def test_users_without_a_held_out_item_are_named(user):
    examples = Examples({number: [] for number in range(9)})
    with pytest.raises(InputError, match=f"user {user} has no held-out item"):
        protocols.held_out_among_negatives(examples, np.array([3, user]), HELD_OUT)
    with pytest.raises(InputError, match=f"user {user} has no held-out item"):
        protocols.full_ranking(
            HELD_OUT, np.array([3, user]), known_items=lambda user: [], score_blocks=lambda: ()
        )


def ranked(item_ids, num_copies=None):
    """Cases in which the first candidate of each user is held out."""
    item_ids = np.array(item_ids, np.int32)
    number = len(item_ids)
    labels = np.zeros(item_ids.shape, np.float32)
    labels[:, 0] = 1.0
    num_copies = None if num_copies is None else np.array(num_copies)
    given = ((np.zeros(0, np.int64), np.zeros(0, np.float32)),) * number
    return protocols.Cases(np.arange(number), given, item_ids, labels, num_copies=num_copies)


def test_rankings_by_hand():
    scores = np.array([[0.9, 0.1, 0.2], [0.5, 0.7, 0.5], [0.1, 0.1, 0.1]])
    cases = ranked([[0, 1, 2]] * 3)
    results = protocols.judge_ranking(cases, scores, k=(1, 2))
    # First; behind one better and one equal; equal to all.
    assert results.values["hr_at_1"].tolist() == [1, 0, 0]
    assert results.values["hr_at_2"].tolist() == [1, 0, 0]
    assert results.values["mrr"].tolist() == pytest.approx([1, 1 / 3, 1 / 3])
    assert results.counts.tolist() == [1, 1, 1]
    of_default = protocols.judge_ranking(cases, scores).values
    assert set(of_default) >= {"hr_at_5", "hr_at_10", "ndcg_at_20"}
    assert not any(name.endswith("_as_listed") for name in of_default)


def test_padding_is_no_candidate_and_copies_cost_a_rank_only_as_listed():
    # Ten better candidates, nine and padding that scores higher, nine and a copy of the item.
    item_ids = [[*range(11)], [*range(10), -1], [*range(10), -1]]
    scores = np.array([[0.5] + [0.9] * 10] * 3)
    results = protocols.judge_ranking(ranked(item_ids, [0, 0, 1]), scores)
    assert results.values["hr_at_10"].tolist() == [0, 1, 1]
    assert results.values["hr_at_10_as_listed"].tolist() == [0, 1, 0]
    assert results.values["mrr"].tolist() == pytest.approx([1 / 11, 1 / 10, 1 / 10])
    gain = 1 / np.log2(11)  # The tenth place.
    assert results.values["ndcg_at_10"].tolist() == pytest.approx([0, gain, gain])
    assert results.values["ndcg_at_10_as_listed"].tolist() == pytest.approx([0, gain, 0])


@pytest.mark.parametrize("block", [1, 2, 5])
def test_full_ranking_equals_brute_force(block):
    rng = np.random.default_rng(3)
    num_users, num_items = 5, 17
    users = np.array([1, 4, 6, 7, 9])
    of_all = np.array([0, 1, 2, 4, 6, 7, 8, 9])
    items = rng.integers(0, num_items, len(of_all)).astype(np.int32)
    held_out = HeldOutItems(of_all, items, np.zeros((len(of_all), 1), np.int32))
    item_of = dict(zip(of_all.tolist(), items.tolist()))
    known = {
        user: [i for i in rng.permutation(num_items)[:6].tolist() if i != item_of[user]]
        for user in users.tolist()
    }
    scores = rng.integers(0, 6, (num_users, num_items)) / 4  # With ties.
    for row, user in enumerate(users.tolist()):
        scores[row, known[user]] = 99.0  # What would show if it were a candidate.

    def score_blocks():
        # In any order.
        for places in reversed(np.split(np.arange(num_users), range(block, num_users, block))):
            yield places, scores[places]

    results = protocols.full_ranking(
        held_out,
        users,
        known_items=lambda user: np.array(known[user], np.int64),
        score_blocks=score_blocks,
        k=(1, 4),
    )
    ranks = []
    for row, user in enumerate(users.tolist()):
        own = scores[row, item_of[user]]
        others = set(range(num_items)) - set(known[user]) - {item_of[user]}
        ranks.append(sum(scores[row, other] >= own for other in others))
    assert len(set(ranks)) > 1
    assert results.values["mrr"].tolist() == pytest.approx([1 / (rank + 1) for rank in ranks])
    assert results.values["hr_at_4"].tolist() == [rank < 4 for rank in ranks]
    gains = [1 / math.log2(rank + 2) if rank < 4 else 0 for rank in ranks]
    assert results.values["ndcg_at_4"].tolist() == pytest.approx(gains)


# --- cases ----------------------------------------------------------------------------------------


def test_users_may_give_less_to_the_same_questions():
    examples = Examples({0: numbered(0, 5), 1: numbered(1, 1)})
    later = Examples({0: [(7, 3.0)], 1: [(8, 2.0)]})
    cases = protocols.later_ratings(examples, np.array([0, 1]), later)
    few = cases.give_at_most(2)
    assert [pairs(*given) for given in few.given] == [numbered(0, 2), numbered(1, 1)]
    assert [pairs(*given) for given in cases.give_at_most(0).given] == [[], []]
    assert few.item_ids is cases.item_ids
    assert few.labels is cases.labels
    assert len(cases.given[0][0]) == 5  # The other cases are as they were.


def test_some_of_the_users_are_selected_with_all_that_is_theirs():
    examples = Examples({user: numbered(user, user) for user in range(4)})
    later = Examples({user: [(7 + user, 3.0)] for user in range(4)})
    cases = protocols.later_ratings(examples, np.array([3, 1, 2]), later)
    chosen = cases.select(np.array([True, False, True]))
    assert chosen.users.tolist() == [3, 2]
    assert [pairs(*given) for given in chosen.given] == [numbered(3, 3), numbered(2, 2)]
    assert [asked(chosen, 0), asked(chosen, 1)] == [[(10, 3.0)], [(9, 3.0)]]
