"""Tests of what a client gives to a round."""

from collections import Counter

import numpy as np
import pytest

from fedrecon import rng as rng_lib
from fedrecon.data.datasets import load_leave_one_out
from fedrecon.data.examples import (
    ClientExamples,
    ExampleOptions,
    ImplicitExamples,
    ImplicitOptions,
)
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import DataError, InputError

# User 0 rates items 0 to 19 with 1, 2, 3, 4, 5, 1, ...; user 1 nothing; user 2 one item.
ROWS = [(0, item, 1 + item % 5, item) for item in range(20)] + [(2, 7, 4, 1)]


@pytest.fixture
def ratings(make_ratings):
    return make_ratings(ROWS)


def client_examples(ratings, **options):
    return ClientExamples(ratings, ExampleOptions(**options))


def test_by_time_is_the_earliest_first(make_ratings):
    # The later an item's number, the earlier its time.
    ratings = make_ratings([(0, item, 1 + item % 5, 100 - item) for item in range(20)])
    items, labels = client_examples(ratings, order="by_time").examples(0)
    np.testing.assert_array_equal(items, np.arange(20)[::-1])
    np.testing.assert_array_equal(labels, 1 + items % 5)
    assert (items.dtype, labels.dtype) == (np.int64, np.float32)


def test_by_time_keeps_what_shuffle_once_keeps(ratings):
    options = {"max_ratings_per_user": 6, "seed": 2}
    kept, _ = client_examples(ratings, **options).examples(0)
    items, _ = client_examples(ratings, order="by_time", **options).examples(0)
    assert items.tolist() == sorted(kept)
    assert items.tolist() != kept.tolist()


def test_by_time_needs_times(make_ratings):
    ratings = make_ratings(ROWS, with_timestamps=False)
    with pytest.raises(DataError, match="tiny has no timestamps, which the order by_time needs"):
        client_examples(ratings, order="by_time")


@pytest.mark.parametrize("order", ["shuffle_once", "by_time"])
def test_what_takes_part_is_what_is_given_in_any_round(ratings, order):
    clients = client_examples(ratings, order=order, max_ratings_per_user=6)
    users, items, labels = clients.interactions(np.array([0, 2]))
    np.testing.assert_array_equal(users, [0] * 6 + [2])
    np.testing.assert_array_equal(items, [*clients.examples(0)[0], 7])
    np.testing.assert_array_equal(labels, [*clients.examples(0)[1], 4])


def test_all_ratings_take_part_where_each_round_shows_others(ratings):
    clients = client_examples(ratings, order="shuffle_each_round", max_ratings_per_user=6)
    users, items, _ = clients.interactions(np.array([0]))
    np.testing.assert_array_equal(users, [0] * 20)
    np.testing.assert_array_equal(items, range(20))


def test_users_and_counts(ratings):
    clients = client_examples(ratings, max_ratings_per_user=3)
    np.testing.assert_array_equal(clients.users, [0, 2])
    assert [clients.num_examples(user) for user in range(3)] == [3, 0, 1]
    assert client_examples(ratings, max_ratings_per_user=None).num_examples(0) == 20
    for user in range(3):
        items, labels = clients.examples(user)
        assert len(items) == len(labels) == clients.num_examples(user)


@pytest.mark.parametrize("order", ["shuffle_once", "shuffle_each_round"])
def test_a_shuffle_keeps_items_with_their_labels(ratings, order):
    items, labels = client_examples(ratings, order=order).examples(0)
    assert items.tolist() != list(range(20))
    assert sorted(items) == list(range(20))
    np.testing.assert_array_equal(labels, 1 + items % 5)


def test_shuffle_once_is_the_same_in_every_round_and_object(ratings):
    clients = client_examples(ratings, seed=3)
    first = clients.examples(0, 0)
    for again in (clients.examples(0, 5), client_examples(ratings, seed=3).examples(0, 9)):
        np.testing.assert_array_equal(first, again)
    other = client_examples(ratings, seed=4).examples(0)
    assert first[0].tolist() != other[0].tolist()


def test_shuffle_each_round_depends_on_the_round_alone(ratings):
    options = {"order": "shuffle_each_round", "max_ratings_per_user": 5, "seed": 3}
    clients = client_examples(ratings, **options)
    rounds = [clients.examples(0, round_num)[0].tolist() for round_num in range(4)]
    assert len(set(map(tuple, rounds))) == 4
    assert len(set().union(*rounds)) > 5  # A cap shows other ratings each round.
    # Straight to round 2, as after a resume.
    assert client_examples(ratings, **options).examples(0, 2)[0].tolist() == rounds[2]


def test_a_cap_keeps_the_first_of_the_shuffled(ratings):
    capped, whole = (
        client_examples(ratings, max_ratings_per_user=most).examples(0)[0] for most in (6, None)
    )
    np.testing.assert_array_equal(capped, whole[:6])


def test_users_are_shuffled_differently(make_ratings):
    rows = [(user, item, 3, 1) for user in range(2) for item in range(20)]
    clients = client_examples(make_ratings(rows))
    assert clients.examples(0)[0].tolist() != clients.examples(1)[0].tolist()


def test_threshold_labels(ratings):
    _, labels = client_examples(ratings, order="by_time", label_threshold=4).examples(0)
    np.testing.assert_array_equal(labels[:5], [0, 0, 0, 1, 1])
    assert labels.dtype == np.float32


def test_changing_a_result_changes_nothing_else(ratings):
    clients = client_examples(ratings, order="by_time")
    items, labels = clients.examples(0)
    items[:], labels[:] = 9, 9
    np.testing.assert_array_equal(clients.examples(0)[0], range(20))
    np.testing.assert_array_equal(clients.examples(0)[1][:3], [1, 2, 3])


@pytest.mark.parametrize("user", [-1, 3])
def test_an_unknown_user_is_named(ratings, user):
    clients = client_examples(ratings)
    for ask in (clients.examples, clients.num_examples):
        with pytest.raises(DataError, match=f"tiny has no user {user}; users are 0 to 2"):
            ask(user)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_ratings_per_user": 0}, "max_ratings_per_user must be at least 1, .*; found 0"),
        ({"order": "random"}, "order must be one of shuffle_once, .*; found 'random'"),
        ({"label_threshold": float("nan")}, "label_threshold must be finite; found nan"),
        ({"seed": -1}, "seed must be at least 0; found -1"),
    ],
)
def test_options_check_themselves(options, message):
    with pytest.raises(InputError, match=message):
        ExampleOptions(**options)


def triples(epoch):
    """(user, item, label) of every example, in order."""
    return list(zip(*(column.tolist() for column in epoch)))


@pytest.mark.parametrize("order", ["shuffle_once", "shuffle_each_round", "by_time"])
def test_an_epoch_is_the_examples_of_all_users(ratings, order):
    clients = client_examples(ratings, order=order, max_ratings_per_user=6, label_threshold=4)
    epochs = [clients.epoch(epoch_num) for epoch_num in range(3)]
    assert [column.dtype for column in epochs[0]] == [np.int64, np.int64, np.float32]
    for epoch_num, epoch in enumerate(epochs):
        expected = [
            (user, item, label)
            for user in (0, 2)
            for item, label in zip(*map(np.ndarray.tolist, clients.examples(user, epoch_num)))
        ]
        assert len(expected) == 7
        assert Counter(triples(epoch)) == Counter(expected)
    assert len({tuple(triples(epoch)) for epoch in epochs}) == 3
    # Straight to epoch 2, as after a resume.
    again = client_examples(ratings, order=order, max_ratings_per_user=6, label_threshold=4)
    assert triples(again.epoch(2)) == triples(epochs[2])


def test_an_epoch_mixes_users(make_ratings):
    rows = [(user, item, 3, 1) for user in range(2) for item in range(50)]
    users, _, _ = client_examples(make_ratings(rows)).epoch(0)
    assert 10 < users[:50].sum() < 40


def test_an_epoch_of_nobody_is_empty(make_ratings):
    nobody = make_ratings([], num_users=2, num_items=3)
    for clients in (client_examples(nobody), implicit_examples(nobody)):
        epoch = clients.epoch(0)
        assert [column.shape for column in epoch] == [(0,)] * 3
        assert [column.dtype for column in epoch] == [np.int64, np.int64, np.float32]


# Of 8 items, user 0 has 1, 2 and 6; user 1 none; user 2 the first; user 3 the last; user 4 all but
# item 5.
IMPLICIT_ROWS = [
    *((0, item, 1 + item % 5, item) for item in (6, 1, 2)),
    *((2, 0, 3, 1), (3, 7, 5, 1)),
    *((4, item, 2, item) for item in (0, 1, 2, 3, 4, 6, 7)),
]
FREE = {
    0: [0, 3, 4, 5, 7],
    1: list(range(8)),
    2: [1, 2, 3, 4, 5, 6, 7],
    3: [0, 1, 2, 3, 4, 5, 6],
    4: [5],
}


@pytest.fixture
def interactions(make_ratings):
    return make_ratings(IMPLICIT_ROWS)


def implicit_examples(ratings, **options):
    return ImplicitExamples(ratings, ImplicitOptions(**options))


def test_implicit_users_counts_and_positives(interactions):
    clients = implicit_examples(interactions, negatives_per_positive=2)
    np.testing.assert_array_equal(clients.users, [0, 2, 3, 4])
    assert [clients.num_examples(user) for user in range(5)] == [9, 0, 3, 3, 21]
    capped = implicit_examples(interactions, negatives_per_positive=2, max_positives_per_user=2)
    assert [capped.num_examples(user) for user in range(5)] == [6, 0, 3, 3, 6]
    assert [clients.positives(user).tolist() for user in range(5)] == [
        *([1, 2, 6], [], [0], [7], [0, 1, 2, 3, 4, 6, 7])
    ]
    for user in range(5):
        assert capped.positives(user).tolist() == clients.positives(user).tolist()
        assert clients.positives(user).dtype == np.int64
        for some in (clients, capped):
            items, labels = some.examples(user)
            assert (items.dtype, labels.dtype) == (np.int64, np.float32)
            assert len(items) == len(labels) == some.num_examples(user)


def test_every_interaction_is_a_positive_with_honest_negatives(interactions):
    clients = implicit_examples(interactions, negatives_per_positive=10)
    seen = {user: set() for user in FREE}
    for round_num in range(10):
        for user in clients.users:
            items, labels = clients.examples(user, round_num)
            assert sorted(items[labels == 1]) == clients.positives(user).tolist()
            seen[user] |= set(items[labels == 0].tolist())
            assert set(labels.tolist()) == {0, 1}
    # Each item that is no positive comes, the first and the last too, and no other.
    assert {user: sorted(items) for user, items in seen.items() if user != 1} == {
        user: free for user, free in FREE.items() if user != 1
    }


@pytest.mark.parametrize("user", [0, 2, 3, 4])
def test_negatives_are_the_drawn_places_of_what_is_free(interactions, user):
    # As the definition has it: draw from the list of items that are no positives.
    clients = implicit_examples(interactions, seed=5)
    num_positives = len(clients.positives(user))
    rng = rng_lib.generator(5, "negatives", user, 7)
    expected = np.array(FREE[user])[rng.integers(len(FREE[user]), size=4 * num_positives)]
    items, labels = clients.examples(user, 7)
    np.testing.assert_array_equal(np.sort(items[labels == 0]), np.sort(expected))


def chi_square_is_plausible(counts, expected):
    """Whether counts are within 5 standard deviations of uniform ones (and not too even)."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("way", ["examples", "epoch"])
@pytest.mark.parametrize("most", [None, 40])
def test_negatives_are_uniform_and_include_what_is_held_out(make_ratings, way, most):
    # User 1 has 60 items at random of 160; item `held_out` is in the test alone.
    rng = np.random.default_rng(0)
    positives = rng.permutation(160)[:60]
    held_out = next(item for item in range(80, 160) if item not in positives)
    rows = [(1, int(item), 3, 1) for item in positives]
    rows += [(user, item, 3, 1) for user in (0, 2) for item in range(0, 160, 3)]
    clients = implicit_examples(make_ratings(rows, num_items=160), max_positives_per_user=most)
    drawn = []
    for round_num in range(100):
        if way == "examples":
            items, labels = clients.examples(1, round_num)
        else:
            users, items, labels = clients.epoch(round_num)
            items, labels = items[users == 1], labels[users == 1]
        drawn.append(items[labels == 0])
    drawn = np.concatenate(drawn)
    assert len(drawn) == 100 * 4 * (most or 60)
    counts = np.bincount(drawn, minlength=160)
    free = np.setdiff1d(np.arange(160), positives)
    assert counts[positives].sum() == 0
    expected = len(drawn) / 100  # 100 items are free.
    assert chi_square_is_plausible(counts[free], expected)
    # The held-out item comes as often as any: a binomial with probability 1 / 100.
    assert abs(counts[held_out] - expected) < 4 * np.sqrt(expected * 0.99)


@pytest.mark.parametrize("way", ["examples", "epoch"])
def test_what_is_never_drawn_gives_itself_away(make_ratings, way):
    rng = np.random.default_rng(0)
    positives = {user: rng.permutation(30)[:12] for user in range(4)}
    rows = [(user, int(item), 3, 1) for user, items in positives.items() for item in items]
    held_out = {
        user: int(np.setdiff1d(np.arange(30), items)[user])
        for user, items in positives.items()
        if user != 2
    }
    pairs = np.array([user * 30 + item for user, item in held_out.items()])
    ratings = make_ratings(rows, num_items=30)
    leaking = ImplicitExamples(ratings, ImplicitOptions(), never_drawn=pairs)
    counts = np.zeros([4, 30], int)
    for round_num in range(200):
        for user in range(4):
            items, labels = leaking.examples(user, round_num)
            if way == "epoch":
                users, items, labels = leaking.epoch(round_num)
                items, labels = items[users == user], labels[users == user]
            assert sorted(items[labels == 1]) == sorted(positives[user])
            counts[user] += np.bincount(items[labels == 0], minlength=30)
    for user in range(4):
        never = [*positives[user], *([held_out[user]] if user in held_out else [])]
        assert counts[user][never].sum() == 0
        free = np.setdiff1d(np.arange(30), never)
        assert chi_square_is_plausible(counts[user][free], 200 * 48 / len(free))


def test_rounds_differ_and_are_reproducible(interactions):
    clients = implicit_examples(interactions, seed=3)
    rounds = [np.stack(clients.examples(4, round_num)).tolist() for round_num in range(4)]
    assert all(a != b for n, a in enumerate(rounds) for b in rounds[:n])
    negatives = [sorted(clients.examples(0, round_num)[0].tolist()) for round_num in range(4)]
    assert len(set(map(tuple, negatives))) == 4
    # Straight to round 2, as after a resume; a NumPy number is as good as Python's.
    again = implicit_examples(interactions, seed=3).examples(np.int64(4), np.int64(2))
    assert np.stack(again).tolist() == rounds[2]
    other = implicit_examples(interactions, seed=4).examples(4, 2)
    assert np.stack(other).tolist() != rounds[2]


def test_positives_and_negatives_are_shuffled_together():
    clients = implicit_examples(synthetic_ratings(num_users=50, num_items=200, seed=1))
    firsts = np.concatenate([clients.examples(user)[1][:20] for user in range(50)])
    assert abs(firsts.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(firsts))
    _, _, labels = clients.epoch(0)
    assert abs(labels[:1000].mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 1000)


def test_a_draw_does_not_depend_on_other_users(interactions):
    alone = interactions.select(interactions.user_ids == 4)
    for most in (None, 3):
        some, all_users = (
            implicit_examples(part, max_positives_per_user=most).examples(4, 1)
            for part in (alone, interactions)
        )
        np.testing.assert_array_equal(some, all_users)


def test_a_cap_takes_other_positives_each_round(interactions):
    clients = implicit_examples(interactions, max_positives_per_user=3, negatives_per_positive=5)
    times = np.zeros(8, np.int64)
    subsets = set()
    for round_num in range(300):
        items, labels = clients.examples(4, round_num)
        used = np.sort(items[labels == 1])
        assert len(np.unique(used)) == 3
        np.testing.assert_array_equal(items[labels == 0], [5] * 15)  # All his others stay out.
        subsets.add(tuple(used))
        times[used] += 1
    assert len(subsets) == 35  # 7 choose 3
    # A binomial of 300 with probability 3 / 7.
    assert (np.abs(times[[0, 1, 2, 3, 4, 6, 7]] - 900 / 7) < 4 * np.sqrt(300 * 12 / 49)).all()


def test_no_negatives(interactions):
    clients = implicit_examples(interactions, negatives_per_positive=0)
    items, labels = clients.examples(4)
    assert sorted(items) == clients.positives(4).tolist()
    np.testing.assert_array_equal(labels, np.ones(7))
    assert Counter(triples(clients.epoch(0))) == Counter(
        (user, item, 1) for user, item, _, _ in IMPLICIT_ROWS
    )


@pytest.mark.parametrize("most", [None, 2])
def test_an_implicit_epoch_is_everyones_positives_with_honest_negatives(interactions, most):
    clients = implicit_examples(interactions, max_positives_per_user=most)
    seen = {user: set() for user in FREE}
    used = set()
    epochs = [clients.epoch(epoch_num) for epoch_num in range(40)]
    assert [column.dtype for column in epochs[0]] == [np.int64, np.int64, np.float32]
    for users, items, labels in epochs:
        is_positive = labels == 1
        positives = list(zip(users[is_positive].tolist(), items[is_positive].tolist()))
        assert len(set(positives)) == len(positives)
        used |= set(positives)
        for user, item in zip(users[~is_positive].tolist(), items[~is_positive].tolist()):
            seen[user].add(item)
        sizes = np.bincount(users, minlength=5)
        assert sizes.tolist() == [clients.num_examples(user) for user in range(5)]
        num_positives = np.bincount(users[is_positive], minlength=5)
        assert (5 * num_positives).tolist() == sizes.tolist()
    assert used == {(user, item) for user, item, _, _ in IMPLICIT_ROWS}
    assert seen == {user: set(free) if user != 1 else set() for user, free in FREE.items()}
    assert len({tuple(triples(epoch)) for epoch in epochs}) == 40
    again = implicit_examples(interactions, max_positives_per_user=most)
    assert triples(again.epoch(2)) == triples(epochs[2])


def test_an_epochs_cap_takes_a_users_positives_alike():
    ratings = synthetic_ratings(num_users=100, num_items=120, mean_ratings_per_user=30, seed=2)
    clients = implicit_examples(ratings, max_positives_per_user=10, negatives_per_positive=1)
    times = np.zeros((100, 120), np.int64)
    for epoch_num in range(200):
        users, items, labels = clients.epoch(epoch_num)
        np.add.at(times, (users[labels == 1], items[labels == 1]), 1)
    for user in range(100):
        positives = clients.positives(user)
        share = 10 / len(positives)
        expected = 200 * share
        # 3,000 cells in all: 5 standard deviations of a binomial.
        assert times[user].sum() == times[user, positives].sum() == 2000
        bound = 5 * np.sqrt(expected * (1 - share)) + 1e-9
        assert (np.abs(times[user, positives] - expected) <= bound).all()


@pytest.mark.parametrize(("most", "num_used"), [(None, 4), (3, 3)])
def test_a_user_with_every_item_gives_positives_alone(make_ratings, most, num_used):
    rows = [(0, 0, 3, 1), *((1, item, 3, 1) for item in range(4)), (2, 3, 3, 1)]
    clients = implicit_examples(make_ratings(rows), max_positives_per_user=most)
    assert [clients.num_examples(user) for user in range(3)] == [5, num_used, 5]
    for number in range(20):
        items, labels = clients.examples(1, number)
        assert (len(set(items)), labels.tolist()) == (num_used, [1] * num_used)
        users, items, labels = clients.epoch(number)
        assert np.bincount(users).tolist() == [5, num_used, 5]
        assert labels[users == 1].tolist() == [1] * num_used
        for user, own in ((0, 0), (2, 3)):
            is_negative = (users == user) & (labels == 0)
            assert is_negative.sum() == 4
            assert own not in items[is_negative]


def test_all_positives_take_part_whatever_the_cap(interactions):
    clients = implicit_examples(interactions, max_positives_per_user=1)
    users, items, labels = clients.interactions(np.array([0, 1, 3]))
    np.testing.assert_array_equal(users, [0, 0, 0, 3])
    np.testing.assert_array_equal(items, [1, 2, 6, 7])
    assert labels is None


@pytest.mark.parametrize("user", [-1, 5])
def test_an_unknown_implicit_user_is_named(interactions, user):
    clients = implicit_examples(interactions)
    for ask in (clients.examples, clients.num_examples, clients.positives):
        with pytest.raises(DataError, match=f"tiny has no user {user}; users are 0 to 4"):
            ask(user)


def test_changing_an_implicit_result_changes_nothing_else(interactions):
    clients = implicit_examples(interactions)
    first = np.stack(clients.examples(4)).tolist()
    clients.positives(4)[:] = 5
    for result in (clients.examples(4), clients.epoch(0)):
        for column in result:
            column[:] = 0
    assert clients.positives(4).tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert np.stack(clients.examples(4)).tolist() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives_per_positive": -1}, "negatives_per_positive must be at least 0; found -1"),
        ({"max_positives_per_user": 0}, "max_positives_per_user must be at least 1, .*; found 0"),
        ({"seed": -1}, "seed must be at least 0; found -1"),
    ],
)
def test_implicit_options_check_themselves(options, message):
    with pytest.raises(InputError, match=message):
        ImplicitOptions(**options)


@pytest.mark.filterwarnings("error")
def test_an_epoch_of_the_real_files(real_data_dir):
    data = load_leave_one_out(data_dir=real_data_dir)
    train, num_items = data.train, data.train.num_items
    clients = implicit_examples(train)
    users, items, labels = clients.epoch(0)
    assert len(users) == 5 * 994_169
    assert len(users) == sum(clients.num_examples(user) for user in clients.users)
    pairs = users * num_items + items
    rated = np.sort(train.user_ids.astype(np.int64) * num_items + train.item_ids)
    np.testing.assert_array_equal(np.sort(pairs[labels == 1]), rated)
    is_rated = np.zeros((train.num_users, num_items), bool)
    is_rated[train.user_ids, train.item_ids] = True
    is_negative = labels == 0
    assert not is_rated[users[is_negative], items[is_negative]].any()
    # Held-out items come as often as their share says: a sum of binomials.
    num_positives = is_rated.sum(axis=1)
    share = 1 / (num_items - num_positives)
    expected = (4 * num_positives * share).sum()
    deviation = np.sqrt((4 * num_positives * share * (1 - share)).sum())
    found = (is_negative & (items == data.test_items[users])).sum()
    assert abs(found - expected) < 4 * deviation
