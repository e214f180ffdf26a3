import numpy as np
import pytest

from fedrecon.baselines.item_knn import (
    ItemKnnOptions,
    RatingItemKnn,
    train_item_knn,
    train_rating_item_knn,
)
from fedrecon.baselines.popularity import PopularityOptions, train_rating_baseline
from fedrecon.errors import InputError

NUM_USERS, NUM_ITEMS = 5, 5
NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.float32))
ALL = np.arange(NUM_ITEMS)

# Users have items 0 1, 0 1 2, 1 2 and 1; user 4 has nothing, and nobody has items 3 and 4.
SETS = ([0, 0, 1, 1, 1, 2, 2, 3], [0, 1, 0, 1, 2, 1, 2, 1])
# Both n_01 and n_12 are 2 of 2 and 4; n_02 is 1 of 2 and 2.
S_01 = S_12 = 2 / 8**0.5
S_02 = 1 / 2

# Stars minus 3 by users 0 to 2; nobody has item 4.
TABLE = {(0, 0): 1, (0, 1): 2, (0, 2): -1, (0, 3): -1}
TABLE.update({(1, 0): 2, (1, 1): 1, (1, 3): 2, (2, 0): -1, (2, 2): 1})
# With shrinkage 1, s_01 = 4 / 5 * 2 / 3, s_03 = 3 / 5 * 2 / 3, s_23 = 1 / 2; s_02 and s_12 are
# below 0, s_13 is 0.
S = {(0, 1): 8 / 15, (0, 3): 2 / 5, (2, 3): 1 / 2}


class Constant:
    """A baseline of 3 stars."""

    def score(self, items, labels, candidates):
        assert len(items) == len(labels)
        return np.full(len(candidates), 3, np.float32)


def train(num_neighbors=1, shrinkage=0.0, users=SETS[0], items=SETS[1]):
    return train_item_knn(
        np.array(users),
        np.array(items),
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        options=ItemKnnOptions(num_neighbors, shrinkage),
    )


def train_ratings(num_neighbors=2, shrinkage=1.0, table=TABLE, stars=None, baseline=None):
    users, items = np.transpose(list(table))
    return train_rating_item_knn(
        users,
        items,
        3 + np.float32(list(table.values())) if stars is None else stars,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        options=ItemKnnOptions(num_neighbors, shrinkage),
        baseline=baseline or Constant(),
    )


def scores_of_sets(model, *items, candidates=ALL):
    return model.score(np.array(items, np.int64), np.ones(len(items), np.float32), candidates)


def test_all_neighbors_by_hand():
    model = train(num_neighbors=9)
    np.testing.assert_allclose(scores_of_sets(model, 0), [0, S_01, S_02, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(
        scores_of_sets(model, 0, 2), [S_02, S_01 + S_12, S_02, 0, 0], rtol=1e-6
    )
    scores = scores_of_sets(model, 2, 0, 1, candidates=np.array([2, 4, 1]))
    np.testing.assert_allclose(scores, [S_02 + S_12, 0, S_01 + S_12], rtol=1e-6)
    assert scores.dtype == np.float32


def test_the_neighbors_are_those_of_the_candidate():
    # Items 0 and 2 have neighbor 1; that of 1 is 0, which is as similar as 2 and comes first.
    model = train(num_neighbors=1)
    np.testing.assert_allclose(scores_of_sets(model, 0), [0, S_01, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores_of_sets(model, 1), [S_01, 0, S_12, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores_of_sets(model, 2), [0, 0, 0, 0, 0], rtol=1e-6)


def test_shrinkage_by_hand():
    model = train(num_neighbors=9, shrinkage=3.0)
    np.testing.assert_allclose(
        scores_of_sets(model, 0), [0, S_01 * 2 / 5, S_02 * 1 / 4, 0, 0], rtol=1e-6
    )


def test_equal_similarities_are_equal_numbers():
    # s_01 = 1 / sqrt(1 * 3) and s_02 = 3 / sqrt(9 * 3), which rounding might tell apart: item 0
    # has users 0 to 2, item 1 has user 0, and item 2 has all nine. Then the lower id is nearer.
    for one, nine in ((1, 2), (2, 1)):
        users, items = [0, 1, 2, 0, *range(9)], [0, 0, 0, one, *[nine] * 9]
        model = train_item_knn(
            np.array(users),
            np.array(items),
            num_users=9,
            num_items=3,
            options=ItemKnnOptions(1, 0.0),
        )
        np.testing.assert_allclose(model.similarities[:, 0], [0, 3**-0.5, 0], rtol=1e-6)


def test_drawn_negatives_and_repeats_are_ignored():
    model = train(num_neighbors=9)
    labels = np.float32([1, 0, 1, 1])
    scores = model.score(np.array([2, 1, 0, 2]), labels, ALL)
    np.testing.assert_array_equal(scores, scores_of_sets(model, 0, 2))
    again = train(9, users=SETS[0] + SETS[0][:3], items=SETS[1] + SETS[1][:3])
    np.testing.assert_array_equal(again.similarities, model.similarities)


def test_who_gives_nothing_gets_no_score():
    model = train(num_neighbors=9)
    for given in (NOTHING, (np.array([0, 1]), np.float32([0, 0])), (np.array([4]), np.ones(1))):
        np.testing.assert_array_equal(model.score(*given, ALL), np.zeros(NUM_ITEMS))


def test_nobody_has_anything():
    none = np.zeros(0, np.int64)
    assert not train(users=none, items=none).similarities.any()


def test_sets_equal_loops():
    rng = np.random.default_rng(3)
    num_users, num_items, num_neighbors, shrinkage = 12, 9, 3, 2.0
    has = rng.random((num_users, num_items)) < 0.4
    has[:, 4] = False
    users, items = np.nonzero(has)
    model = train_item_knn(
        users,
        items,
        num_users=num_users,
        num_items=num_items,
        options=ItemKnnOptions(num_neighbors, shrinkage),
    )
    users_of = [set(np.flatnonzero(has[:, item])) for item in range(num_items)]
    for user in range(num_users):
        expected = []
        for j in range(num_items):
            similarity = {}
            for i in range(num_items):
                both = len(users_of[i] & users_of[j])
                if i != j and both:
                    cosine = both / (len(users_of[i]) * len(users_of[j])) ** 0.5
                    similarity[i] = np.float32(cosine * both / (both + shrinkage))
            neighbors = sorted(similarity, key=lambda i: (-similarity[i], i))[:num_neighbors]
            expected.append(sum(float(similarity[i]) for i in neighbors if has[user, i]))
        scores = scores_of_sets(model, *np.flatnonzero(has[user]), candidates=np.arange(num_items))
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_similarities_of_ratings_by_hand():
    expected = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for (i, j), similarity in S.items():
        expected[i, j] = expected[j, i] = similarity
    np.testing.assert_allclose(train_ratings().similarities, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("num_neighbors", "item_0"), [(1, 5), (2, 3 + (2 * 8 / 15 - 2 / 5) / (8 / 15 + 2 / 5))]
)
def test_ratings_by_hand(num_neighbors, item_0):
    # Item 2 has only item 3 for a neighbor, and items 1 and 4 have none.
    model = train_ratings(num_neighbors)
    stars = model.score(np.array([1, 3]), np.float32([5, 2]), ALL)
    np.testing.assert_allclose(stars, [item_0, 3, 2, 3, 3], rtol=1e-6)
    assert stars.dtype == np.float32
    again = model.score(np.array([3, 1]), np.float32([2, 5]), np.array([4, 0]))
    np.testing.assert_allclose(again, [3, item_0], rtol=1e-6)


def test_an_item_is_no_neighbor_of_its_own():
    stars = train_ratings().score(np.array([0]), np.float32([5]), ALL)
    np.testing.assert_allclose(stars, [3, 5, 3, 5, 3], rtol=1e-6)


def test_of_equally_near_ratings_the_lower_item_counts():
    similarities = np.zeros((4, 4), np.float32)
    similarities[[0, 1, 2], 3] = 0.25, 0.5, 0.5
    model = RatingItemKnn(ItemKnnOptions(1, 0.0), Constant(), similarities)
    for order in ([0, 1, 2], [2, 1, 0]):
        items, labels = np.array([0, 1, 2])[order], np.float32([5, 1, 4])[order]
        np.testing.assert_array_equal(model.score(items, labels, np.array([3])), [1])


def test_who_rated_nothing_near_gets_the_baseline():
    popularity = baseline_of(TABLE)
    model = train_ratings(baseline=popularity)
    np.testing.assert_array_equal(model.score(*NOTHING, ALL), popularity.score(*NOTHING, ALL))
    given = (np.array([4]), np.float32([5]))
    np.testing.assert_array_equal(model.score(*given, ALL), popularity.score(*given, ALL))


def test_every_given_rating_counts():
    # Item 1 twice, with 5 stars and with 3: the neighbors of item 0 are these two.
    stars = train_ratings().score(np.array([1, 1]), np.float32([5, 3]), np.array([0]))
    np.testing.assert_allclose(stars, [4], rtol=1e-6)


def test_residuals_of_0_have_no_similarity():
    model = train_ratings(table={(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 1})
    assert not model.similarities.any()
    np.testing.assert_array_equal(model.score(np.array([0]), np.float32([5]), ALL), np.full(5, 3))


def baseline_of(table):
    users, items = np.transpose(list(table))
    return train_rating_baseline(
        users,
        items,
        3 + np.float32(list(table.values())),
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        options=PopularityOptions(2.0, 1.0),
    )


def test_ratings_equal_loops():
    rng = np.random.default_rng(8)
    num_users, num_items, num_neighbors, shrinkage = 25, 8, 2, 1.5
    rated = rng.random((num_users, num_items)) < 0.6
    rated[:, 5] = False
    rated[7] = False
    users, items = np.nonzero(rated)
    stirred = rng.permutation(len(users))
    users, items = users[stirred], items[stirred]
    ratings = rng.integers(1, 6, len(users)).astype(np.float32)
    sizes = {"num_users": num_users, "num_items": num_items}
    baseline = train_rating_baseline(
        users, items, ratings, **sizes, options=PopularityOptions(3.0, 2.0)
    )
    options = ItemKnnOptions(num_neighbors, shrinkage)
    model = train_rating_item_knn(
        users, items, ratings, **sizes, options=options, baseline=baseline
    )

    # `mu + b_u + b_i` again, from the formula.
    table = dict(zip(zip(users.tolist(), items.tolist()), ratings.tolist()))
    user_offsets = {}
    for user in range(num_users):
        of_user = [
            r - baseline.mean - baseline.item_offsets[i] for (u, i), r in table.items() if u == user
        ]
        user_offsets[user] = sum(of_user) / (2 + len(of_user))

    def baseline_stars(user, item):
        return baseline.mean + user_offsets[user] + baseline.item_offsets[item]

    left = {(u, i): r - baseline_stars(u, i) for (u, i), r in table.items()}

    def similarity(i, j):
        common = [
            (left[u, i], left[u, j]) for u in range(num_users) if (u, i) in left and (u, j) in left
        ]
        if not common:
            return 0.0
        product = sum(a * b for a, b in common)
        norms = (sum(a * a for a, _ in common) * sum(b * b for _, b in common)) ** 0.5
        return product / norms * len(common) / (len(common) + shrinkage)

    num_shifted = 0
    for user in range(num_users):
        rated_items = [i for (u, i) in table if u == user]
        given = (np.array(rated_items, np.int64), np.float32([table[user, i] for i in rated_items]))
        stars = model.score(*given, np.arange(num_items))
        for j in range(num_items):
            near = sorted(((similarity(i, j), i) for i in rated_items if i != j), reverse=True)
            near = [(s, i) for s, i in near[:num_neighbors] if s > 0]
            expected = baseline_stars(user, j)
            if near:
                expected += sum(s * left[user, i] for s, i in near) / sum(s for s, _ in near)
                num_shifted += 1
            np.testing.assert_allclose(stars[j], expected, rtol=1e-5)
    assert num_shifted > 50


def test_without_a_shrinkage_it_is_that_of_the_kind():
    sets, ratings = train(shrinkage=None), train_ratings(shrinkage=None)
    assert sets.options == ItemKnnOptions(1, 0.0)
    np.testing.assert_array_equal(sets.similarities, train(shrinkage=0.0).similarities)
    assert ratings.options == ItemKnnOptions(2, 500.0)
    np.testing.assert_allclose(ratings.similarities[0, 1], 4 / 5 * 2 / 502, rtol=1e-6)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"num_neighbors": 0}, "num_neighbors of item kNN is 0; it must be at least 1"),
        ({"shrinkage": -0.5}, "shrinkage of item kNN is -0.5; it must be at least 0"),
        ({"shrinkage": float("nan")}, "shrinkage of item kNN is nan"),
        ({"shrinkage": float("inf")}, "shrinkage of item kNN is inf"),
    ],
)
def test_what_cannot_be_is_refused(setting, words):
    with pytest.raises(InputError, match=words):
        ItemKnnOptions(**setting)


def test_without_a_baseline_it_is_that_of_popularity():
    users, items = np.transpose(list(TABLE))
    stars = 3 + np.float32(list(TABLE.values()))
    sizes = {"num_users": NUM_USERS, "num_items": NUM_ITEMS}
    baseline = train_rating_baseline(users, items, stars, **sizes, options=PopularityOptions())
    model = train_rating_item_knn(users, items, stars, **sizes, options=ItemKnnOptions(2, 1.0))
    np.testing.assert_array_equal(model.baseline.item_offsets, baseline.item_offsets)
    expected = train_ratings(baseline=baseline).similarities
    np.testing.assert_array_equal(model.similarities, expected)
