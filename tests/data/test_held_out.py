"""Tests of held-out items, and that training negatives do not betray them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fedrecon.data.datasets import load_leave_one_out
from fedrecon.data.examples import ImplicitExamples, ImplicitOptions
from fedrecon.data.held_out import HeldOutItems, hold_out_last, published, sample_negatives
from fedrecon.data.ncf import LeaveOneOut
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import DataError, InputError

# User 0 has items 0 to 3, by time 2, 0, 3, 1; user 1 only item 5; user 2 nothing; user 3 items 6
# and 7 at the same time. There are 12 items.
ROWS = [
    *((3, 7, 4, 5), (0, 0, 1, 20), (0, 1, 2, 40), (1, 5, 3, 9)),
    *((0, 2, 3, 10), (3, 6, 5, 5), (0, 3, 4, 30)),
]


@pytest.fixture
def ratings(make_ratings):
    return make_ratings(ROWS, num_items=12)


def rows_of(part):
    """(user, item, stars, seconds) of every rating, in order."""
    columns = (part.user_ids, part.item_ids, part.ratings, part.timestamps)
    return list(zip(*(column.tolist() for column in columns)))


def test_the_last_is_held_out(ratings):
    remaining, held_out = hold_out_last(ratings, num_negatives=3, seed=0)
    np.testing.assert_array_equal(held_out.users, [0, 3])
    drawn = int(held_out.items[1])  # Of user 3's, which have equal times.
    assert drawn in (6, 7)
    np.testing.assert_array_equal(held_out.items, [1, drawn])
    np.testing.assert_array_equal(held_out.is_tied, [False, True])
    assert [held_out.num_tied(np.array(users)) for users in ([0], [3], [0, 3])] == [0, 1, 1]
    assert rows_of(remaining) == sorted(row for row in ROWS if row[:2] not in ((0, 1), (3, drawn)))
    assert (remaining.num_users, remaining.num_items) == (4, 12)
    assert held_out.negatives.shape == (2, 3)
    dtypes = [getattr(held_out, field).dtype for field in ("users", "items", "negatives")]
    assert dtypes == [np.int64, np.int32, np.int32]


def test_twice_gives_test_then_validation(ratings):
    remaining, test = hold_out_last(ratings, num_negatives=8, seed=0)
    train, validation = hold_out_last(remaining, num_negatives=9, seed=0)
    np.testing.assert_array_equal(validation.users, [0])  # User 3 has one left and keeps it.
    np.testing.assert_array_equal(validation.items, [3])
    held = ((0, 1), (3, int(test.items[1])), (0, 3))
    assert rows_of(train) == sorted(row for row in ROWS if row[:2] not in held)
    # All that is left to draw: for the test items 4 to 11, for validation also the test item.
    assert sorted(test.negatives[0]) == list(range(4, 12))
    assert sorted(validation.negatives[0]) == [1, *range(4, 12)]


def test_test_and_validation_may_share_a_seed(make_ratings):
    ratings = make_ratings([(0, item, 3, item) for item in range(5)], num_items=2000)
    remaining, test = hold_out_last(ratings, seed=0)
    _, validation = hold_out_last(remaining, seed=0)
    # Of 99 and 99 in 1,995, about 5 are common by chance.
    assert len(np.intersect1d(test.negatives, validation.negatives)) < 20


@st.composite
def data_sets(draw):
    """Up to 10 users with 0 to 12 ratings each, rows of all users interleaved, many equal times."""
    counts = draw(st.lists(st.integers(0, 12), min_size=1, max_size=10))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([rng.permutation(20)[:count] for count in counts])
    order = rng.permutation(len(users))
    return Ratings(
        name="drawn",
        user_ids=users[order],
        item_ids=items[order],
        ratings=rng.integers(1, 6, len(users)),
        timestamps=rng.integers(0, 5, len(users)),
        num_users=len(counts),
        num_items=20,
        original_user_ids=np.arange(len(counts)),
        original_item_ids=np.arange(20),
        item_titles=None,
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )


@hypothesis.given(data_sets(), st.integers(0, 100))
def test_what_hold_out_last_guarantees(ratings, seed):
    everything = rows_of(ratings)
    by_user = {
        user: [row for row in everything if row[0] == user] for user in range(ratings.num_users)
    }
    times = {
        user: sorted(row[3] for row in rows) for user, rows in by_user.items() if len(rows) >= 2
    }
    hypothesis.assume(times)
    remaining, held_out = hold_out_last(ratings, num_negatives=8, seed=seed)
    assert held_out.users.tolist() == sorted(times)
    held = set(zip(held_out.users.tolist(), held_out.items.tolist()))
    assert rows_of(remaining) == [row for row in everything if row[:2] not in held]
    assert {row[0]: row[3] for row in everything if row[:2] in held} == {
        user: mine[-1] for user, mine in times.items()
    }
    assert held_out.is_tied.tolist() == [
        times[user][-1] == times[user][-2] for user in sorted(times)
    ]
    for user, negatives in zip(held_out.users.tolist(), held_out.negatives.tolist()):
        assert len(set(negatives)) == 8
        assert not set(negatives) & {row[1] for row in by_user[user]}


@pytest.mark.parametrize("num_ratings", [0, 1])
def test_too_few_ratings(make_ratings, num_ratings):
    rows = [(user, 0, 3, 1) for user in range(2)][: 2 * num_ratings]
    ratings = make_ratings(rows, num_users=2, num_items=4)
    message = rf"tiny has {len(rows)} users .* at most {num_ratings} each; .* needs a user with 2"
    with pytest.raises(DataError, match=message):
        hold_out_last(ratings, num_negatives=1, seed=0)


def test_time_is_needed(make_ratings):
    ratings = make_ratings(ROWS, num_items=12, with_timestamps=False)
    with pytest.raises(DataError, match="tiny has no timestamps, which hold_out_last needs"):
        hold_out_last(ratings, seed=0)


def test_negatives_are_neither_rated_nor_held_out(ratings):
    negatives = sample_negatives(
        ratings, np.array([0, 1, 2, 3]), np.array([11, 5, 0, 0]), num_negatives=7, seed=0
    )
    assert negatives.shape == (4, 7)
    assert negatives.dtype == np.int32
    # User 0 has just these left; the others more than they need.
    assert sorted(negatives[0]) == [4, 5, 6, 7, 8, 9, 10]
    for drawn, excluded in zip(negatives.tolist(), ({0, 1, 2, 3, 11}, {5}, {0}, {0, 6, 7})):
        assert len(set(drawn)) == 7
        assert not set(drawn) & excluded


def test_sampled_negatives_depend_on_seed_user_and_item_alone(ratings):
    def sample(users, items, seed=1, of=ratings):
        return sample_negatives(of, users, items, num_negatives=5, seed=seed).tolist()

    both = sample([0, 3], [1, 6])
    assert sample([3], [6]) == both[1:]
    assert sample([3, 0], [6, 1]) == both[::-1]
    assert sample([0], [1], of=ratings.select(ratings.user_ids == 0)) == both[:1]
    assert sample([0], [1], seed=2) != both[:1]
    # Users with the same rows draw differently.
    assert sample([1], [5])[0] != sample([2], [5])[0]


def test_sampled_negatives_are_uniform_in_each_place(make_ratings):
    rows = [(user, item, 3, 1) for user in range(3000) for item in (0, 4)]
    ratings = make_ratings(rows, num_items=13)
    negatives = sample_negatives(
        ratings, np.arange(3000), np.full(3000, 9), num_negatives=4, seed=0
    )
    for place in range(4):
        counts = np.bincount(negatives[:, place], minlength=13)
        assert counts[[0, 4, 9]].sum() == 0
        free = np.delete(counts, [0, 4, 9])  # 10 items, 300 times each.
        assert (np.abs(free - 300) < 4.5 * np.sqrt(300 * 0.9)).all()


def test_a_user_with_few_items_left_gets_them_all(ratings):
    negatives = sample_negatives(
        ratings, np.array([3, 0]), np.array([6, 1]), num_negatives=9, seed=0
    )
    assert len(set(negatives[0])) == 9
    assert set(negatives[0]) <= set(range(12)) - {6, 7}
    assert sorted(negatives[1, :8]) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert negatives[1, 8] == -1
    _, held_out = hold_out_last(ratings, seed=0)
    assert held_out.negatives.shape == (2, 99)
    assert (held_out.negatives >= 0).sum(axis=1).tolist() == [8, 10]
    assert (held_out.negatives[:, 10:] == -1).all()


def test_a_user_with_every_item_is_asked_nothing(make_ratings):
    rows = [*((0, item, 3, item) for item in range(4)), (1, 0, 3, 1), (1, 1, 3, 2)]
    remaining, held_out = hold_out_last(make_ratings(rows), num_negatives=3, seed=0)
    assert (held_out.users.tolist(), held_out.items.tolist()) == ([1], [1])
    assert sorted(held_out.negatives[0].tolist()) == [-1, 2, 3]
    assert rows_of(remaining) == rows[:5]
    with pytest.raises(DataError, match="tiny: every user with 2 ratings has all 4 items"):
        hold_out_last(make_ratings(rows[:5]), num_negatives=3, seed=0)


@pytest.mark.parametrize(
    ("users", "items", "num_negatives", "message"),
    [
        ([0], [1], 0, "num_negatives must be at least 1; found 0"),
        ([4], [1], 1, "tiny has no user 4; users are 0 to 3"),
        ([-1], [1], 1, "tiny has no user -1; users are 0 to 3"),
        ([0], [12], 1, "tiny has no item 12; items are 0 to 11"),
        ([0, 1], [1], 1, r"one shape \[n\]; found \(2,\) and \(1,\)"),
    ],
)
def test_unusable_requests(ratings, users, items, num_negatives, message):
    with pytest.raises(InputError, match=message):
        sample_negatives(
            ratings, np.array(users), np.array(items), num_negatives=num_negatives, seed=0
        )


USERS, ITEMS, NEGATIVES = np.array([1, 3]), np.array([4, 4], np.int32), np.ones((2, 5), np.int32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"users": USERS[::-1]}, "users of the held-out items must increase"),
        ({"users": np.array([3, 3])}, "users of the held-out items must increase"),
        ({"users": USERS.astype(np.int32)}, r"users .* int64 of shape \(2,\); found int32"),
        ({"users": USERS[:, None]}, r"users .* shape \(2,\); found int64 of shape \(2, 1\)"),
        ({"items": ITEMS[:1]}, r"items .* shape \(2,\); found int32 of shape \(1,\)"),
        ({"items": ITEMS.astype(float)}, "items .* must be int32 .*; found float64"),
        ({"negatives": NEGATIVES[:1]}, r"negatives .* shape \(2, 5\); found .* \(1, 5\)"),
        ({"negatives": NEGATIVES[0]}, r"negatives .* shape \(2, 5\); found .* \(5,\)"),
        ({"is_tied": np.ones(3, bool)}, r"is_tied .* bool of shape \(2,\); found bool .*\(3,\)"),
        ({"is_tied": np.ones(2, int)}, "is_tied .* must be bool .*; found int64"),
    ],
)
def test_held_out_items_check_themselves(fields, message):
    HeldOutItems(users=USERS, items=ITEMS, negatives=NEGATIVES)
    with pytest.raises(DataError, match=message):
        HeldOutItems(**{"users": USERS, "items": ITEMS, "negatives": NEGATIVES, **fields})


def test_published(make_ratings):
    train = make_ratings([(0, 0, 3, 1), (1, 2, 3, 1)], num_items=5)
    test = make_ratings([(0, 4, 3, 2), (1, 1, 3, 2)], num_items=5)
    negatives = np.array([[1, 4], [0, 0]], np.int32)
    held_out = published(LeaveOneOut(train, train, test, negatives))
    np.testing.assert_array_equal(held_out.users, [0, 1])
    assert held_out.users.dtype == np.int64
    np.testing.assert_array_equal(held_out.items, [4, 1])
    np.testing.assert_array_equal(held_out.negatives, negatives)
    assert held_out.is_tied is None  # The files do not say.
    assert held_out.num_tied(np.array([0, 1])) == 0


@pytest.mark.filterwarnings("error")
def test_real_files(real_data_dir):
    data = load_leave_one_out(data_dir=real_data_dir)
    train = data.train
    test = published(data)
    rated = np.zeros((train.num_users, train.num_items), bool)
    rated[train.user_ids, train.item_ids] = True
    np.testing.assert_array_equal(test.users, np.arange(6_040))
    assert not rated[test.users, test.items].any()
    assert (test.negatives == test.items[:, None]).sum() == 156

    remaining, validation = hold_out_last(train, seed=0)
    assert remaining.num_ratings == 994_169 - 6_040
    np.testing.assert_array_equal(validation.users, np.arange(6_040))
    assert rated[validation.users, validation.items].all()
    assert not rated[validation.users[:, None], validation.negatives].any()
    rated[validation.users, validation.items] = False
    assert rated.sum() == remaining.num_ratings
    assert rated[remaining.user_ids, remaining.item_ids].all()
    # Nothing that remains is later than what validates.
    held_time = np.zeros(6_040, np.int64)
    np.maximum.at(held_time, train.user_ids, train.timestamps)
    latest = np.zeros(6_040, np.int64)
    np.maximum.at(latest, remaining.user_ids, remaining.timestamps)
    assert (latest <= held_time).all()
    is_held = train.item_ids == validation.items[train.user_ids]
    np.testing.assert_array_equal(train.timestamps[is_held], held_time[train.user_ids[is_held]])


# A scorer with no model: it knows only how often each item came as a user's training negative.


def hit_rate_of_rarely_drawn(times_drawn, held_out):
    """HR@10 of ranking by how rarely an item was drawn, `[num_users, num_items]`; ties by lot."""
    scores = -times_drawn + 0.5 * np.random.default_rng(0).random(times_drawn.shape)
    rows = held_out.users[:, None]
    of_held_out = scores[rows, held_out.items[:, None]]
    ranks = (scores[rows, held_out.negatives] > of_held_out).sum(axis=1)
    return (ranks < 10).mean()


def count_draws(draws, ratings):
    """How often each user drew each item, from pairs of user ids and item ids."""
    times = np.zeros((ratings.num_users, ratings.num_items))
    for users, items in draws:
        np.add.at(times, (users, items), 1)
    return times


def draws_of_clients(clients):
    for round_num in range(20):
        for user in clients.users:
            items, labels = clients.examples(user, round_num)
            yield user, items[labels == 0]


def draws_of_epochs(clients):
    for epoch_num in range(20):
        users, items, labels = clients.epoch(epoch_num)
        yield users[labels == 0], items[labels == 0]


def draws_that_leak(clients, held_out):
    """As published: neither the user's positives nor his held-out item."""
    rng = np.random.default_rng(1)
    for user, item in zip(held_out.users, held_out.items):
        allowed = np.setdiff1d(
            np.arange(clients.ratings.num_items), [*clients.positives(user), item]
        )
        yield user, rng.choice(allowed, 20 * 4 * len(clients.positives(user)))


@pytest.mark.slow
def test_negatives_do_not_betray_what_is_held_out():
    ratings = synthetic_ratings(num_users=500, num_items=300, mean_ratings_per_user=40, seed=3)
    train, held_out = hold_out_last(ratings, seed=0)
    assert len(held_out.users) == 500
    clients = ImplicitExamples(train, ImplicitOptions(seed=2))
    # By chance 10 of 100; the standard deviation over 500 users is 0.0134.
    for draws in (draws_of_clients(clients), draws_of_epochs(clients)):
        hit_rate = hit_rate_of_rarely_drawn(count_draws(draws, train), held_out)
        assert abs(hit_rate - 0.10) < 0.054
    # The same test finds a leak.
    leaking = count_draws(draws_that_leak(clients, held_out), train)
    assert hit_rate_of_rarely_drawn(leaking, held_out) > 0.98
