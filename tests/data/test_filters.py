"""Leaving ratings out: positives, and the part in which everyone has enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrecon.data.filters import k_core, positives
from fedrecon.data.population import divide_for_ranking
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import DataError, InputError


def ratings_of(rows, scale=(1, 5, 1)):
    users, items, stars = zip(*rows)
    return Ratings.from_original_ids(
        "own",
        user_ids=list(users),
        item_ids=list(items),
        ratings=list(stars),
        timestamps=range(len(rows)),
        scale=RatingScale(*scale),
    )


def rows_of(ratings):
    users = ratings.original_user_ids[ratings.user_ids].tolist()
    items = ratings.original_item_ids[ratings.item_ids].tolist()
    return list(zip(users, items, ratings.ratings.tolist(), ratings.timestamps.tolist()))


def test_lower_ratings_are_no_positives():
    ratings = ratings_of([("a", 1, 3), ("a", 2, 4), ("b", 1, 2), ("c", 3, 5), ("c", 2, 4)])
    found = positives(ratings, at_least=4)
    assert rows_of(found) == [("a", 2, 4, 1), ("c", 2, 4, 4), ("c", 3, 5, 3)]
    # An item that nobody likes is no candidate either.
    assert (found.num_users, found.num_items) == (2, 2)
    assert found.notes == (
        "Left out, so that each rating is 4 or more and counts as a positive: 2 of 5 ratings, "
        "1 of 3 users, 1 of 3 items.",
    )


def test_users_are_ranked_by_positives_alone():
    rows = [(u, i, 1 + (u + i) % 5) for u in range(5) for i in range(9)]
    found = positives(ratings_of(rows), at_least=3)
    population = divide_for_ranking(found, holds_out_validation=False)
    test = population.groups["seen_test"].held_out
    for user, item in zip(test.users, test.items):
        assert (found.original_user_ids[user] + found.original_item_ids[item]) % 5 >= 2
    items, labels = population.examples.examples(0)
    liked = {i for u, i, stars in rows if u == 0 and stars >= 3} - {int(test.items[0])}
    assert set(found.original_item_ids[items[labels == 1]].tolist()) == liked


def test_a_bound_between_binary_numbers():
    ratings = ratings_of([(1, 1, 4.1), (1, 2, 4.0)], scale=(0, 5, 0.1))
    assert rows_of(positives(ratings, at_least=4.1))[0][:2] == (1, 1)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (
            1,
            "positive_from is 1, but the ratings of own are 1 to 5 in steps of 1; a rating above 1",
        ),
        (6, "positive_from is 6"),
        (5, "own has no rating of 5 or more; its highest is 4"),
    ],
)
def test_a_bound_that_leaves_all_or_none(bound, message):
    with pytest.raises(DataError, match=message):
        positives(ratings_of([(1, 1, 3), (1, 2, 4)]), at_least=bound)


def test_leaving_out_is_repeated_until_nobody_has_too_few():
    # Without user 3, item 30 has one rating; without item 30, user 2 has one; and so on.
    chain = [(1, 10, 1), (1, 20, 1), (2, 20, 1), (2, 30, 1), (3, 30, 1)]
    square = [(8, 80, 1), (8, 90, 1), (9, 80, 1), (9, 90, 1)]
    found = k_core(ratings_of(chain + square), min_ratings_per_user=2, min_ratings_per_item=2)
    assert [row[:2] for row in rows_of(found)] == [(8, 80), (8, 90), (9, 80), (9, 90)]
    assert found.original_user_ids.tolist() == [8, 9]
    assert found.notes[-1] == (
        "Left out, so that each user has 2 or more and each item has 2 or more: 5 of 9 ratings, "
        "3 of 5 users, 3 of 5 items."
    )
    with pytest.raises(DataError, match="own has no part in which each user has 2 ratings and eac"):
        k_core(ratings_of(chain), min_ratings_per_user=2, min_ratings_per_item=2)
    with pytest.raises(InputError, match="min_ratings_per_item is 0; it must be at least 1"):
        k_core(ratings_of(chain), min_ratings_per_item=0)


@given(
    pairs=st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1),
    least=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_the_core_is_what_leaving_out_one_by_one_gives(pairs, least):
    expected = set(pairs)
    while True:
        users, items = [u for u, _ in expected], [i for _, i in expected]
        few = [
            (u, i) for u, i in expected if users.count(u) < least[0] or items.count(i) < least[1]
        ]
        if not few:
            break
        expected.remove(few[0])
    ratings = ratings_of([(u, i, 1 + (u + i) % 5) for u, i in sorted(pairs)])
    options = {"min_ratings_per_user": least[0], "min_ratings_per_item": least[1]}
    if expected:
        assert {row[:2] for row in rows_of(k_core(ratings, **options))} == expected
    else:
        with pytest.raises(DataError, match="has no part"):
            k_core(ratings, **options)
