"""Strong generalization: who is held out, what they are asked, and that nobody trains on it."""

import functools

import numpy as np
import pandas as pd
import pytest

from fedrecon.data import datasets, filters
from fedrecon.data.datasets import load_dataset
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.data.strong_generalization import (
    PUBLISHED_CATALOG,
    PUBLISHED_COUNTS,
    Counts,
    divide_by_strong_generalization,
)
from fedrecon.errors import DataError, InputError

GROUPS = ("unseen_validation", "unseen_test")


@functools.cache
def positives():
    ratings = load_dataset(
        "synthetic", num_users=90, num_items=70, mean_ratings_per_user=25, seed=0
    )
    return filters.k_core(filters.positives(ratings, at_least=4), min_ratings_per_user=5)


def divided(ratings=None, **options):
    ratings = positives() if ratings is None else ratings
    return divide_by_strong_generalization(ratings, **{"num_held_out_users": 20, **options})


def rows_of(ratings):
    """Users and items by their ids in the file."""
    users = ratings.original_user_ids[ratings.user_ids].tolist()
    return set(zip(users, ratings.original_item_ids[ratings.item_ids].tolist()))


def own_rows(population, ratings, user):
    """The items of a user, by their ids in the file."""
    return {i for u, i in rows_of(ratings) if u == population.ratings.original_user_ids[user]}


def test_each_user_trains_validates_or_tests():
    population = divided()
    parts = [population.train, *(population.groups[name].users for name in GROUPS)]
    assert [len(part) for part in parts] == [positives().num_users - 40, 20, 20]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(positives().num_users))


def test_a_tenth_of_the_users_each_is_held_out_by_default():
    population = divided(num_held_out_users=None)
    number = positives().num_users // 10
    assert [len(population.groups[name].users) for name in GROUPS] == [number, number]


def test_no_held_out_user_and_no_target_reaches_training():
    population = divided()
    held_out = np.concatenate([population.groups[name].users for name in GROUPS])
    # Whoever trains reads `examples`: by user, everybody's at once, or in epochs.
    assert not np.isin(held_out, population.examples.users).any()
    assert not any(population.examples.num_examples(user) for user in held_out.tolist())
    users, _, _ = population.examples.interactions(np.arange(population.ratings.num_users))
    of_epoch, _, _ = population.examples.epoch(0)
    assert set(users.tolist()) == set(of_epoch.tolist()) == set(population.train.tolist())
    # Training users keep all that they have.
    expected = {row for row in rows_of(population.ratings) if row in rows_of(positives())}
    own = set(population.ratings.original_user_ids[population.train].tolist())
    assert rows_of(population.examples.ratings) == {row for row in expected if row[0] in own}


def test_held_out_users_give_four_fifths_and_are_asked_for_the_others():
    population = divided()
    for name in GROUPS:
        group = population.groups[name]
        for user in group.users.tolist():
            given = own_rows(population, population.given.ratings, user)
            asked = own_rows(population, group.targets, user)
            whole = own_rows(population, population.ratings, user)
            assert given | asked == whole
            assert not given & asked
            # The published code draws int(0.2 * n).
            assert len(asked) == (int(0.2 * len(whole)) if len(whole) >= 5 else 0)
    # Some are asked for the items with the lowest ids, some for the highest: the draw is random.
    first = [population.groups["unseen_test"].targets.rows_of(u)[:1].size for u in group.users]
    assert sum(first) > 10


def test_a_fifth_is_what_the_published_code_draws():
    assert all(int(0.2 * n) == n // 5 for n in range(20_000))


def test_the_catalog_is_the_items_of_training_users():
    rows = [(user, item) for user in range(12) for item in range(6)]
    rows += [(user, 100 + user) for user in range(12)]  # An item that nobody else has.
    population = divided(interactions(rows), num_held_out_users=3)
    of_train = set(population.ratings.original_user_ids[population.train].tolist())
    expected = {*range(6), *(100 + user for user in of_train)}
    assert set(population.ratings.original_item_ids.tolist()) == expected
    assert (population.training_counts() > 0).all()
    assert population.ratings.notes == (
        "Left out, so that each item is one of a training user's: 6 of 84 ratings, 0 of 12 users, "
        "6 of 18 items.",
    )
    # Of their own seven items six are left, before a fifth is drawn.
    targets = population.groups["unseen_test"].targets
    assert [len(targets.rows_of(u)) for u in population.groups["unseen_test"].users] == [1, 1, 1]


def test_a_user_with_four_items_left_is_asked_nothing():
    rows = [(user, item) for user in range(10) for item in range(4 if user < 5 else 5)]
    population = divided(interactions(rows), num_held_out_users=3)
    for name in GROUPS:
        group = population.groups[name]
        for user in group.users.tolist():
            expected = int(population.ratings.original_user_ids[user] >= 5)
            assert len(group.targets.rows_of(user)) == expected


def test_the_seed_alone_decides_and_the_order_of_lines_does_not():
    rows = [(user, item) for user in range(20) for item in range(5 + user)]
    shuffled = [rows[n] for n in np.random.default_rng(3).permutation(len(rows))]
    one, other, again = (
        divided(interactions(order), num_held_out_users=5, seed=seed)
        for order, seed in ((rows, 0), (shuffled, 0), (rows, 1))
    )
    for name in GROUPS:
        assert rows_of(one.groups[name].targets) == rows_of(other.groups[name].targets)
    assert one.train.tolist() == other.train.tolist() != again.train.tolist()


def test_too_many_held_out_users_are_refused():
    with pytest.raises(InputError, match="for validation and as many for test, but synthetic has"):
        divided(num_held_out_users=positives().num_users // 2 + 1)
    with pytest.raises(InputError, match="num_held_out_users"):
        divided(num_held_out_users=0)


def test_nobody_to_ask_is_an_error():
    rows = [(user, item) for user in range(10) for item in range(4)]
    with pytest.raises(DataError, match="none of the 2 held-out users has 5 items that training"):
        divided(interactions(rows), num_held_out_users=2)


def interactions(rows, name="own"):
    users, items = zip(*rows)
    return Ratings.from_original_ids(
        name,
        user_ids=list(users),
        item_ids=list(items),
        ratings=[1] * len(rows),
        timestamps=None,
        scale=RatingScale(0, 1, 1),
    )


# --- MovieLens 20M, whose published counts are known ----------------------------------------------


def write_ml20m(folder, rows):
    """Writes rows in the layout of MovieLens 20M: a header, commas and half stars."""
    folder = folder / "ml-20m"
    folder.mkdir()
    lines = [f"{user},{item},{stars},{1_112_486_027 + n}" for n, (user, item, stars) in rows]
    text = "\n".join(["userId,movieId,rating,timestamp", *lines])
    (folder / "ratings.csv").write_text(f"{text}\n")
    titles = [f'{item},"Film {item} (1999)",Comedy|Drama' for item in range(1, 10)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles]) + "\n")


def test_movielens_20m_is_preprocessed_as_published(tmp_path):
    rows = []
    for user in range(1, 13):
        for item in range(1, 8):
            # Users 11 and 12 have 4 ratings above 3.5 each, one too few; of the others 6 count.
            likes = item <= (4 if user > 10 else 6)
            rows.append((user, item, (4.0 if item % 2 else 5.0) if likes else 3.5))
    write_ml20m(tmp_path, enumerate(rows))
    ratings = datasets.load_dataset("movielens-20m", data_dir=tmp_path)
    kept = filters.k_core(filters.positives(ratings, at_least=4), min_ratings_per_user=5)
    assert (kept.num_ratings, kept.num_users, kept.num_items) == (60, 10, 6)
    assert set(kept.original_user_ids.tolist()) == set(range(1, 11))
    population = divided(kept, num_held_out_users=2)
    assert population.ratings.notes[-1] == (
        "The data before the division are 60 events of 10 users and 6 items, but 9,990,682 events "
        "of 136,677 users and 20,720 items in Liang et al. 2018, so figures cannot be compared "
        "with published ones; --positive_from=4 and --min_ratings_per_user=5 leave as many."
    )


def test_movielens_20m_with_the_published_counts_says_so(monkeypatch):
    rows = [(user, item) for user in range(10) for item in range(6)]
    monkeypatch.setitem(PUBLISHED_COUNTS, "movielens-20m", Counts(60, 10, 6))
    population = divided(interactions(rows, name="movielens-20m"), num_held_out_users=2)
    assert population.ratings.notes == (
        "The data before the division are 60 events of 10 users and 6 items, as in Liang et al. "
        "2018.",
    )


# --- the published draw ---------------------------------------------------------------------------


def published_code(table, num_held_out_users):
    """Users of training, validation and test, and each held-out user's targets.

    As in the code published with Liang et al. 2018, for a table of columns userId and movieId in
    the order of its file.
    """
    users = table.groupby("userId").size().index
    np.random.seed(98765)
    users = users[np.random.permutation(users.size)]
    first = users.size - 2 * num_held_out_users
    parts = users[:first], users[first : first + num_held_out_users], users[-num_held_out_users:]
    catalog = pd.unique(table.loc[table["userId"].isin(parts[0]), "movieId"])
    targets = {}
    for part in parts[1:]:
        plays = table.loc[table["userId"].isin(part) & table["movieId"].isin(catalog)]
        np.random.seed(98765)
        for user, group in plays.groupby("userId"):
            number = len(group)
            if number >= 5:
                chosen = np.zeros(number, bool)
                drawn = np.random.choice(number, size=int(0.2 * number), replace=False)
                chosen[drawn.astype("int64")] = True
                targets[user] = set(group["movieId"].to_numpy()[chosen].tolist())
    return parts, set(catalog.tolist()), targets


def test_the_published_draw_is_that_of_the_published_code():
    rng = np.random.default_rng(1)
    rows = sorted(
        (user, int(item))
        for user in range(3, 120)
        for item in rng.choice(90, rng.integers(4, 40), replace=False)
    )
    state = np.random.get_state()
    try:
        parts, catalog, targets = published_code(
            pd.DataFrame(rows, columns=["userId", "movieId"]), 25
        )
    finally:
        np.random.set_state(state)
    assert len(targets) > 40
    population = divided(interactions(rows), num_held_out_users=25, published_draw=True, seed=4)
    names = population.ratings.original_user_ids
    found = [population.train, *(population.groups[name].users for name in GROUPS)]
    assert [set(names[users].tolist()) for users in found] == [set(p.tolist()) for p in parts]
    assert set(population.ratings.original_item_ids.tolist()) == catalog
    asked = {}
    for name in GROUPS:
        for user, item in rows_of(population.groups[name].targets):
            asked.setdefault(user, set()).add(item)
    assert asked == targets
    other = divided(interactions(rows), num_held_out_users=25, seed=4)
    assert other.train.tolist() != population.train.tolist()


def test_the_published_draw_changes_no_global_state():
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    divided(published_draw=True)
    assert np.random.random() == expected


def test_the_catalog_of_movielens_20m_is_checked(monkeypatch):
    rows = interactions([(u, i) for u in range(10) for i in range(6)], name="movielens-20m")
    population = divided(rows, num_held_out_users=2, published_draw=True)
    assert population.ratings.notes[-1].startswith("The catalog has 6 items, but 20,108 in Liang")
    monkeypatch.setitem(PUBLISHED_CATALOG, "movielens-20m", 6)
    population = divided(rows, num_held_out_users=2, published_draw=True)
    assert population.ratings.notes[-1] == "The catalog has 6 items, as in Liang et al. 2018."
