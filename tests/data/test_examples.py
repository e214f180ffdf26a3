"""Tests of what a client gives to a round."""

import numpy as np
import pytest

from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.errors import DataError, InputError

# User 0 rates items 0 to 19 with 1, 2, 3, 4, 5, 1, ...; user 1 nothing; user 2 one item.
ROWS = [(0, item, 1 + item % 5, item) for item in range(20)] + [(2, 7, 4, 1)]


@pytest.fixture
def ratings(make_ratings):
    return make_ratings(ROWS)


def client_examples(ratings, **options):
    return ClientExamples(ratings, ExampleOptions(**options))


def test_file_order_is_capped_from_the_front(ratings):
    clients = client_examples(ratings, order="file", max_ratings_per_user=3)
    items, labels = clients.examples(0)
    np.testing.assert_array_equal(items, [0, 1, 2])
    np.testing.assert_array_equal(labels, [1, 2, 3])
    assert (items.dtype, labels.dtype) == (np.int64, np.float32)


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
    _, labels = client_examples(ratings, order="file", label_threshold=4).examples(0)
    np.testing.assert_array_equal(labels[:5], [0, 0, 0, 1, 1])
    assert labels.dtype == np.float32


def test_changing_a_result_changes_nothing_else(ratings):
    clients = client_examples(ratings, order="file")
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
