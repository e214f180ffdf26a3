"""Who trains, who is evaluated, and by what: nothing that judges may be trained on."""

import functools

import numpy as np
import pytest

from fedrecon import rng
from fedrecon.data.datasets import load_dataset, load_leave_one_out
from fedrecon.data.held_out import hold_out_last
from fedrecon.data.population import GROUPS, divide_by_user, divide_for_ranking
from fedrecon.errors import DataError, InputError
from fedrecon.evaluation.coverage import coverage
from fedrecon.evaluation.feedback import feedback_of


@functools.cache
def ratings_of(num_items, seed=0):
    return load_dataset(
        "synthetic", num_users=60, num_items=num_items, mean_ratings_per_user=25, seed=seed
    )


def explicit(**options):
    return divide_by_user(ratings_of(60), **{"max_ratings_per_user": 12, **options})


def implicit(**options):
    return divide_for_ranking(ratings_of(270), **options)


def in_time(ratings):
    """The items of each user, earliest first, with their times."""
    order = np.argsort(ratings.timestamps, kind="stable")
    items = {user: [] for user in range(ratings.num_users)}
    for row in order.tolist():
        row_items = items[int(ratings.user_ids[row])]
        row_items.append((int(ratings.item_ids[row]), int(ratings.timestamps[row])))
    return items


def items_of(examples, user):
    return set(examples.examples(user)[0].tolist())


def users_of(population):
    """The users of training and of each group, by name."""
    return {"train": population.train, **{n: g.users for n, g in population.groups.items()}}


# --- explicit feedback --------------------------------------------------------------------------


def test_those_who_train_and_the_unseen_are_different_users():
    users = users_of(explicit())
    assert {name: len(ids) for name, ids in users.items()} == {
        "train": 48,
        "unseen_validation": 6,
        "unseen_test": 6,
    }
    assert len(np.unique(np.concatenate(list(users.values())))) == 60


def test_the_groups_depend_on_the_seed_alone():
    population = explicit()
    again = explicit(
        max_ratings_per_user=None,
        order="by_time",
        label_threshold=4.0,
        held_out_fraction=0.5,
        unseen_halves="by_time",
        support_batch_size=3,
    )
    other = explicit(seed=1)
    for name, users in users_of(population).items():
        assert np.array_equal(users, users_of(again)[name])
    test = population.groups["unseen_test"].users
    assert not np.array_equal(test, other.groups["unseen_test"].users)


def test_later_ratings_of_training_users_are_in_nobodys_examples():
    population = explicit(held_out_fraction=0.25, max_ratings_per_user=None)
    seen, validation = (population.groups[f"seen_{name}"] for name in ("test", "validation"))
    assert set(seen.users) <= set(population.train)
    assert len(seen.users) == 48  # Everybody has at least 20.
    in_order = in_time(population.ratings)
    for user in population.train.tolist():
        rated = [item for item, _ in in_order[user]]
        start = len(rated) - len(rated) // 4
        assert items_of(seen.later, user) == set(rated[start:])
        validation_start = start - start // 4
        assert items_of(validation.later, user) == set(rated[validation_start:start])
        for round_num in (0, 1, 7):
            items, _ = population.examples.examples(user, round_num)
            assert set(items.tolist()) == set(rated[:validation_start])
    whole = explicit(max_ratings_per_user=None)
    for name in ("unseen_validation", "unseen_test"):
        for user in population.groups[name].users.tolist():
            assert items_of(population.examples, user) == items_of(whole.examples, user)
            assert seen.later.num_examples(user) == 0
            assert validation.later.num_examples(user) == 0


def test_a_cap_on_what_users_give_is_none_on_what_they_are_asked():
    population = explicit(held_out_fraction=0.9, label_threshold=4.0)
    counts = np.bincount(population.ratings.user_ids)
    seen = population.groups["seen_test"]
    for user in seen.users.tolist():
        assert seen.later.num_examples(user) == counts[user] * 9 // 10 > 12
        assert population.examples.num_examples(user) <= 12
        assert set(seen.later.examples(user)[1].tolist()) <= {0.0, 1.0}


def test_without_later_ratings_nobody_is_asked_for_them():
    population = explicit()
    assert list(population.groups) == ["unseen_validation", "unseen_test"]
    assert [group.later for group in population.groups.values()] == [None, None]


def test_examples_are_those_of_the_options():
    population = explicit(seed=3, order="shuffle_each_round", label_threshold=3.5)
    options = population.examples.options
    assert (options.max_ratings_per_user, options.order) == (12, "shuffle_each_round")
    assert (options.label_threshold, options.seed) == (3.5, 3)
    assert (population.seed, population.feedback) == (3, "explicit")
    asked = explicit(support_batch_size=7, unseen_halves="by_time")
    assert (asked.support_batch_size, asked.unseen_halves) == (7, "by_time")


def test_what_is_given_does_not_follow_from_the_order_of_training():
    populations = [
        explicit(order=order, held_out_fraction=0.25, label_threshold=4.0)
        for order in ("shuffle_once", "shuffle_each_round", "by_time")
    ]
    assert {population.given.options.order for population in populations} == {"shuffle_once"}
    first = populations[0]
    for user in range(60):
        expected = first.examples.examples(user)
        for population in populations:
            np.testing.assert_array_equal(population.given.examples(user), expected)
    # Nothing that is held out is given, and the cap holds.
    user = int(first.train[0])
    later = {name: items_of(first.groups[name].later, user) for name in ("seen_test",)}
    given = items_of(first.given, user)
    assert len(given) == 12
    assert not given & later["seen_test"]


def test_halves_by_time_are_given_in_the_order_of_time():
    population = explicit(unseen_halves="by_time", max_ratings_per_user=None)
    assert population.examples.options.order == "shuffle_once"
    for user, rows in in_time(population.ratings).items():
        assert population.given.examples(user)[0].tolist() == [item for item, _ in rows]


def test_unusable_halves_are_refused():
    with pytest.raises(InputError, match="unseen_halves must be one of random, by_time; found 'x'"):
        explicit(unseen_halves="x")
    with pytest.raises(InputError, match="support_batch_size is 0; it must be at least 1"):
        explicit(support_batch_size=0)


@pytest.mark.parametrize("threshold", [1, 5.5, -3])
def test_a_threshold_that_leaves_one_label_is_refused(threshold):
    message = rf"label_threshold is {threshold:g}, but the ratings of synthetic are 1 to 5 in steps"
    with pytest.raises(DataError, match=message):
        explicit(label_threshold=threshold)
    for leaves_both in (1.5, 5):
        explicit(label_threshold=leaves_both)


def test_training_counts_are_of_training_users_and_of_nothing_held_out(make_ratings):
    # Item i is rated by users 0 to i; the later the item, the later the rating.
    rows = [(user, item, 3, item) for item in range(10) for user in range(item + 1)]
    population = divide_by_user(make_ratings(rows), held_out_fraction=0.5, seed=2)
    kept = np.zeros(10, np.int64)
    for user in population.train.tolist():
        count = 10 - user  # Items `user` to 9.
        count -= count // 2
        count -= count // 2
        kept[user : user + count] += 1
    np.testing.assert_array_equal(population.training_counts(), kept)
    assert population.training_counts().dtype == np.int64


# --- implicit feedback --------------------------------------------------------------------------


def test_the_last_item_tests_and_the_one_before_validates_and_nobody_trains_on_either():
    population = implicit()
    assert population.feedback == "implicit"
    test = population.groups["seen_test"].held_out
    validation = population.groups["seen_validation"].held_out
    in_order = in_time(population.ratings)
    assert list(population.groups) == ["seen_validation", "seen_test"]
    for users in users_of(population).values():
        np.testing.assert_array_equal(users, np.arange(60))
    for user in range(60):
        items = [item for item, _ in in_order[user]]
        assert (validation.items[user], test.items[user]) == tuple(items[-2:])
        assert set(population.examples.positives(user)) == set(items[:-2])
        for round_num in (1, 2):
            given, labels = population.examples.examples(user, round_num)
            assert set(given[labels == 1].tolist()) == set(items[:-2])
    users, items, labels = population.examples.epoch(0)
    positives = set(zip(users[labels == 1].tolist(), items[labels == 1].tolist()))
    held_out = [*zip(range(60), test.items.tolist()), *zip(range(60), validation.items.tolist())]
    assert not positives & set(held_out)


def test_validation_knows_nothing_of_the_test():
    population = implicit()
    ratings = population.ratings
    last = {(user, rows[-1][0]) for user, rows in in_time(ratings).items()}
    pairs = zip(ratings.user_ids.tolist(), ratings.item_ids.tolist())
    without_last = ratings.select(np.array([pair not in last for pair in pairs]))
    _, expected = hold_out_last(without_last, seed=0)
    validation = population.groups["seen_validation"].held_out
    np.testing.assert_array_equal(validation.items, expected.items)
    np.testing.assert_array_equal(validation.negatives, expected.negatives)
    # 99 are drawn from at most 250 items, so many users get their test item among them; to keep it
    # out would be to use it.
    test_items = population.groups["seen_test"].held_out.items[:, np.newaxis]
    assert (validation.negatives == test_items).any(axis=1).mean() > 0.25


def test_without_a_validation_item_users_train_on_all_but_the_test_item():
    population = implicit(holds_out_validation=False)
    assert list(population.groups) == ["seen_test"]
    for user, rows in in_time(population.ratings).items():
        assert set(population.examples.positives(user)) == {item for item, _ in rows[:-1]}
    np.testing.assert_array_equal(
        population.groups["seen_test"].held_out.negatives,
        implicit().groups["seen_test"].held_out.negatives,
    )


def test_unseen_users_are_in_no_other_group():
    population = implicit(unseen_fraction=0.15)
    assert list(population.groups) == ["seen_validation", "seen_test", "unseen_test"]
    unseen = set(population.groups["unseen_test"].users.tolist())
    assert len(unseen) == 9
    for name, users in users_of(population).items():
        if name != "unseen_test":
            assert set(users.tolist()) == set(range(60)) - unseen
    # They give their training items and are asked for their last.
    groups = population.groups
    assert groups["unseen_test"].held_out is groups["seen_test"].held_out
    assert all(population.examples.num_examples(user) > 0 for user in unseen)


def test_unseen_users_depend_on_the_seed_alone():
    def unseen(**options):
        return implicit(unseen_fraction=0.15, **options).groups["unseen_test"].users

    again = unseen(holds_out_validation=False, negatives_per_positive=1, max_ratings_per_user=3)
    np.testing.assert_array_equal(unseen(), again)
    assert not np.array_equal(unseen(), unseen(seed=1))
    assert not np.array_equal(unseen(), np.arange(51, 60))  # Not just the last.
    assert "unseen_test" not in implicit().groups


def test_the_share_of_unseen_users_is_exact():
    ratings = load_dataset("synthetic", num_users=100, num_items=150, mean_ratings_per_user=20)
    unseen = divide_for_ranking(ratings, unseen_fraction=0.29).groups["unseen_test"].users
    assert len(unseen) == 29  # In floating point, 0.29 * 100 is less than 29.


def test_a_share_of_users_that_is_nobody_is_refused():
    with pytest.raises(InputError, match=r"unseen_fraction=0\.01 of 60 users is nobody"):
        implicit(unseen_fraction=0.01)


def test_negatives_and_caps_are_those_of_the_options():
    population = implicit(negatives_per_positive=2, max_ratings_per_user=5, seed=4)
    assert {population.examples.num_examples(user) for user in range(60)} == {15}
    assert population.examples.options.seed == population.seed == 4


def test_ties_are_counted_for_the_users_of_a_group(make_ratings):
    # The times of each user's items 0, 1, 2 and 3.
    times = [(1, 2, 3, 4), (1, 2, 4, 4), (1, 3, 3, 4), (4, 4, 4, 4), (2, 2, 3, 4), (1, 1, 3, 3)]
    rows = [(user, item, 3, t) for user in range(6) for item, t in enumerate(times[user])]
    ratings = make_ratings(rows, num_items=110)
    # Test: users 1, 3 and 5. Validation, when the test item is gone: users 2 and 3.
    population = divide_for_ranking(ratings)
    test, validation = (population.groups[f"seen_{name}"] for name in ("test", "validation"))
    assert test.held_out.is_tied.tolist() == [False, True, False, True, False, True]
    assert validation.held_out.is_tied.tolist() == [False, False, True, True, False, False]
    assert (test.num_tied, validation.num_tied) == (3, 2)
    for seed in range(3):
        groups = divide_for_ranking(ratings, unseen_fraction=0.5, seed=seed).groups
        for group, tied in ((groups["seen_test"], {1, 3, 5}), (groups["unseen_test"], {1, 3, 5})):
            assert group.num_tied == len(tied & set(group.users.tolist()))


def test_ties_of_later_ratings_are_counted(make_ratings):
    # Half of four are held out, then half of the two that remain.
    times = {0: (1, 2, 2, 3), 1: (1, 1, 2, 3), 2: (5, 5, 5, 5)}
    rows = [(u, item, 3, t) for u in range(10) for item, t in enumerate(times[u % 3])]
    population = divide_by_user(make_ratings(rows), held_out_fraction=0.5)
    kinds = (population.train % 3).tolist()
    groups = population.groups
    assert groups["seen_test"].num_tied == kinds.count(0) + kinds.count(2)
    assert groups["seen_validation"].num_tied == kinds.count(1) + kinds.count(2)
    assert groups["unseen_test"].num_tied == 0


def test_a_small_catalogue_that_some_users_have_all_of(make_ratings):
    # User 0 has all 27 items, user 1 all but one, user 2 all but two, user 3 three.
    sizes = {0: 27, 1: 26, 2: 25, 3: 3}
    rows = [(user, item, 3, item) for user, size in sizes.items() for item in range(size)]
    population = divide_for_ranking(make_ratings(rows))
    test, validation = (population.groups[f"seen_{name}"] for name in ("test", "validation"))
    np.testing.assert_array_equal(population.train, [0, 1, 2, 3])
    np.testing.assert_array_equal(test.users, [1, 2, 3])
    np.testing.assert_array_equal(validation.users, [1, 2, 3])
    np.testing.assert_array_equal(test.held_out.items, [25, 24, 2])
    np.testing.assert_array_equal(validation.held_out.items, [24, 23, 1])
    # For validation the test item is an item like any other.
    assert (test.held_out.negatives >= 0).sum(axis=1).tolist() == [1, 2, 24]
    assert (validation.held_out.negatives >= 0).sum(axis=1).tolist() == [2, 3, 25]
    np.testing.assert_array_equal(
        population.training_counts()[[0, 1, 22, 23, 24, 25, 26]], [4, 3, 3, 2, 1, 1, 1]
    )
    # Positives, and four negatives for each; user 0 has no negatives.
    counts = [population.examples.num_examples(user) for user in range(4)]
    assert counts == [27, 24 * 5, 23 * 5, 5]
    judged = coverage(
        population, "seen_test", feedback_of(population).cases(population, "seen_test")
    )
    assert (judged.num_users, judged.num_judged, judged.num_fewer_candidates) == (4, 3, 3)
    assert sum(judged.left_out.values()) == 1


@pytest.mark.filterwarnings("ignore:.*was published with")
def test_published_test_items_and_negatives_are_used_as_they_are(leave_one_out_dir):
    files = load_leave_one_out(data_dir=leave_one_out_dir)
    population = divide_for_ranking(files, holds_out_validation=False)
    test = population.groups["seen_test"].held_out
    np.testing.assert_array_equal(test.items, [37, 17, 129])
    np.testing.assert_array_equal(test.negatives, files.negatives)
    # The population is of the data set as it is named, not of a part of it.
    named = load_dataset("ncf-ml-1m", data_dir=leave_one_out_dir)
    assert population.ratings.fingerprint() == named.fingerprint()
    assert population.examples.positives(1).tolist() == [8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19]
    assert population.groups["seen_test"].num_tied == 0


def test_cold_items_are_trained_on_and_given_by_nobody_and_asked_of_the_unseen():
    options = {"max_ratings_per_user": None, "held_out_fraction": 0.25, "support_batch_size": 3}
    whole = explicit(**options)
    population = explicit(cold_items_fraction=0.2, **options)
    cold = np.unique(population.groups["cold_test"].cold.ratings.item_ids)
    assert len(cold) == 12  # A fifth of 60.
    assert set(np.flatnonzero(population.training_counts() == 0)) >= set(cold)
    every = {name: users for name, users in users_of(population).items() if "cold" not in name}
    assert every.keys() == users_of(whole).keys()
    for name, users in users_of(whole).items():
        assert np.array_equal(users, every[name])  # The same users as without cold items.
    for examples in (population.examples, population.given):
        _, items, _ = examples.interactions(np.arange(60))
        assert not np.isin(items, cold).any()
    for name in ("seen_test", "seen_validation"):
        assert not np.isin(population.groups[name].later.ratings.item_ids, cold).any()

    ratings = population.ratings
    for part in ("validation", "test"):
        cases, warm = (
            feedback_of(population).cases(population, f"{kind}_{part}")
            for kind in ("cold", "unseen")
        )
        assert cases.scale == ratings.scale
        given = dict(zip(warm.users.tolist(), warm.given))
        for place, user in enumerate(cases.users.tolist()):
            np.testing.assert_array_equal(cases.given[place], given[user])
            rows = ratings.rows_of(user)
            rows = rows[np.isin(ratings.item_ids[rows], cold)]
            is_asked = cases.mask[place]
            asked = dict(zip(cases.item_ids[place, is_asked], cases.labels[place, is_asked]))
            assert asked == dict(zip(ratings.item_ids[rows], ratings.ratings[rows]))
        found = coverage(population, f"cold_{part}", cases)
        assert found.num_cold == found.num_asked == cases.mask.sum()
        assert (found.num_users, found.num_judged) == (6, len(cases.users))


def test_other_seeds_draw_other_cold_items_and_equal_ones_the_same():
    def cold(**options):
        group = explicit(cold_items_fraction=0.2, **options).groups["cold_test"]
        return set(group.cold.ratings.item_ids.tolist())

    assert cold() == cold(unseen_halves="by_time", label_threshold=4.0)
    assert cold() != cold(seed=1)


def test_cold_items_that_no_unseen_user_rated_are_refused():
    ratings = ratings_of(60)
    unseen = explicit().groups["unseen_test"].users
    cold = explicit(cold_items_fraction=0.2).groups["cold_test"].cold.ratings.item_ids
    is_left = ~(np.isin(ratings.user_ids, unseen) & np.isin(ratings.item_ids, cold))
    with pytest.raises(DataError, match="none of the 6 unseen_test users rated a cold item"):
        divide_by_user(ratings.select(is_left), cold_items_fraction=0.2)


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("population", "there"),
    [
        (explicit(), "unseen_validation, unseen_test"),
        (explicit(held_out_fraction=0.5), ", ".join(GROUPS[:4])),
        (explicit(held_out_fraction=0.5, cold_items_fraction=0.2), ", ".join(GROUPS)),
        (implicit(unseen_fraction=0.5), "seen_validation, seen_test, unseen_test"),
        (implicit(holds_out_validation=False), "seen_test"),
    ],
)
def test_a_group_that_there_is_not_is_named_with_those_that_there_are(population, there):
    for name in there.split(", "):
        assert population.group(name) is population.groups[name]
    for name in ("train", "test", *sorted(set(GROUPS) - set(population.groups))):
        with pytest.raises(InputError, match=f"no {name} users to evaluate; there are {there}"):
            population.group(name)


@pytest.mark.parametrize(
    "population",
    [
        explicit(held_out_fraction=0.5),
        implicit(unseen_fraction=0.5),
    ],
    ids=["explicit", "implicit"],
)
def test_user_ids_increase(population):
    for users in users_of(population).values():
        assert np.issubdtype(users.dtype, np.integer)
        assert np.all(np.diff(users) > 0)


def test_mean_ratings_are_of_training_users_and_count_no_negatives(make_ratings):
    # User u has rated u + 3 items.
    rows = [(user, item, 3, item) for user in range(10) for item in range(user + 3)]
    population = divide_by_user(make_ratings(rows), max_ratings_per_user=11)
    counts = [min(user + 3, 11) for user in population.train.tolist()]
    assert len(counts) == 8
    assert population.mean_ratings() == sum(counts) / 8

    ranking = implicit(unseen_fraction=0.5, negatives_per_positive=3, max_ratings_per_user=None)
    shuffled = rng.generator(0, "unseen_users").permutation(60)
    counts = np.bincount(ranking.ratings.user_ids)[shuffled[30:]] - 2  # The two held out.
    assert ranking.mean_ratings() == pytest.approx(counts.mean())
