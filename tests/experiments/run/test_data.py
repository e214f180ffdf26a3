"""Who trains, who is evaluated, and by what: nothing that judges may be trained on."""

import dataclasses

import numpy as np
import pytest

from experiments.run.data import load_clients
from experiments.run.settings import Settings
from fedrecon.data.datasets import load_dataset, load_leave_one_out
from fedrecon.data.held_out import hold_out_last
from fedrecon.errors import InputError
from tests.experiments.small import small_settings

EXPLICIT = small_settings(
    max_ratings_per_user=12,
    dim=2,
    clients_per_round=7,
    batch_size=5,
)
IMPLICIT = dataclasses.replace(
    EXPLICIT, feedback="implicit", synthetic_num_items=270, max_ratings_per_user=None
)


def explicit(**changes):
    return load_clients(dataclasses.replace(EXPLICIT, **changes))


def implicit(**changes):
    return load_clients(dataclasses.replace(IMPLICIT, **changes))


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


# --- explicit feedback --------------------------------------------------------------------------


def test_the_parts_are_different_people():
    parts = explicit().users
    assert {name: len(users) for name, users in parts.items()} == {
        "train": 48,
        "validation": 6,
        "test": 6,
    }
    assert len(np.unique(np.concatenate(list(parts.values())))) == 60


def test_the_parts_depend_on_the_seed_alone():
    clients = explicit()
    again = explicit(dim=5, clients_per_round=3, algorithm="centralized", held_out_fraction=0.5)
    other = explicit(seed=1)
    for name, users in clients.users.items():
        assert np.array_equal(users, again.users[name])
    assert not np.array_equal(clients.users["test"], other.users["test"])


def test_later_ratings_of_training_users_are_in_nobodys_examples():
    clients = explicit(held_out_fraction=0.25, max_ratings_per_user=None)
    assert set(clients.users["seen"]) <= set(clients.users["train"])
    assert len(clients.users["seen"]) == 48  # Everybody has at least 20.
    in_order = in_time(clients.ratings)
    for user in clients.users["train"].tolist():
        rated = [item for item, _ in in_order[user]]
        start = len(rated) - len(rated) // 4
        assert items_of(clients.later["seen"], user) == set(rated[start:])
        validation_start = start - start // 4
        validation = items_of(clients.later["seen_validation"], user)
        assert validation == set(rated[validation_start:start])
        for round_num in (0, 1, 7):
            items, _ = clients.examples.examples(user, round_num)
            assert set(items.tolist()) == set(rated[:validation_start])
    whole = explicit(max_ratings_per_user=None)
    for user in [*clients.users["validation"].tolist(), *clients.users["test"].tolist()]:
        assert items_of(clients.examples, user) == items_of(whole.examples, user)
        assert clients.later["seen"].num_examples(user) == 0
        assert clients.later["seen_validation"].num_examples(user) == 0


def test_a_cap_on_what_users_give_is_none_on_what_they_are_asked():
    clients = explicit(held_out_fraction=0.9, label_threshold=4.0)
    counts = np.bincount(clients.ratings.user_ids)
    for user in clients.users["seen"].tolist():
        later = clients.later["seen"]
        assert later.num_examples(user) == counts[user] * 9 // 10 > 12
        assert clients.examples.num_examples(user) <= 12
        assert set(later.examples(user)[1].tolist()) <= {0.0, 1.0}


def test_without_later_ratings_nobody_is_asked_for_them():
    clients = explicit()
    assert "seen" not in clients.users
    assert not clients.later


# --- implicit feedback --------------------------------------------------------------------------


def test_the_last_item_tests_and_the_one_before_validates_and_nobody_trains_on_either():
    clients = implicit()
    test, validation = clients.held_out["test"], clients.held_out["validation"]
    in_order = in_time(clients.ratings)
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(clients.users[name], np.arange(60))
    for user in range(60):
        items = [item for item, _ in in_order[user]]
        assert (validation.items[user], test.items[user]) == tuple(items[-2:])
        assert set(clients.examples.positives(user)) == set(items[:-2])
        for round_num in (1, 2):
            given, labels = clients.examples.examples(user, round_num)
            assert set(given[labels == 1].tolist()) == set(items[:-2])
    users, items, labels = clients.examples.epoch(0)
    positives = set(zip(users[labels == 1].tolist(), items[labels == 1].tolist()))
    held_out = [*zip(range(60), test.items.tolist()), *zip(range(60), validation.items.tolist())]
    assert not positives & set(held_out)


def test_validation_knows_nothing_of_the_test():
    clients = implicit()
    ratings = clients.ratings
    last = {(user, rows[-1][0]) for user, rows in in_time(ratings).items()}
    pairs = zip(ratings.user_ids.tolist(), ratings.item_ids.tolist())
    without_last = ratings.select(np.array([pair not in last for pair in pairs]))
    _, expected = hold_out_last(without_last, seed=0)
    validation = clients.held_out["validation"]
    np.testing.assert_array_equal(validation.items, expected.items)
    np.testing.assert_array_equal(validation.negatives, expected.negatives)
    # 99 are drawn from at most 250 items, so many users get their test item among them; to keep it
    # out would be to use it.
    test_items = clients.held_out["test"].items[:, np.newaxis]
    assert (validation.negatives == test_items).any(axis=1).mean() > 0.25


def test_following_the_test_trains_on_all_but_the_test_item():
    clients = implicit(evaluate_on="test")
    assert set(clients.users) == {"train", "test"} == {"train", *clients.held_out}
    for user, rows in in_time(clients.ratings).items():
        assert set(clients.examples.positives(user)) == {item for item, _ in rows[:-1]}
    np.testing.assert_array_equal(
        clients.held_out["test"].negatives, implicit().held_out["test"].negatives
    )


def test_unseen_users_are_in_no_other_part():
    clients = implicit(unseen_fraction=0.15)
    unseen = set(clients.users["unseen"].tolist())
    assert len(unseen) == 9
    for part in ("train", "validation", "test"):
        assert set(clients.users[part].tolist()) == set(range(60)) - unseen
    # They give their training items and are asked for their last.
    assert clients.held_out["unseen"] is clients.held_out["test"]
    assert all(clients.examples.num_examples(user) > 0 for user in unseen)


def test_unseen_users_depend_on_the_seed_alone():
    unseen = implicit(unseen_fraction=0.15).users["unseen"]
    again = implicit(unseen_fraction=0.15, algorithm="fed_ncf", evaluate_on="test", dim=9)
    np.testing.assert_array_equal(unseen, again.users["unseen"])
    assert not np.array_equal(unseen, implicit(unseen_fraction=0.15, seed=1).users["unseen"])
    assert not np.array_equal(unseen, np.arange(51, 60))  # Not just the last.
    assert "unseen" not in implicit().users


def test_a_share_of_users_that_is_nobody_is_refused():
    with pytest.raises(InputError, match=r"--unseen_fraction=0\.01 of 60 users is nobody"):
        implicit(unseen_fraction=0.01)


def test_negatives_and_caps_are_those_of_the_settings():
    clients = implicit(negatives_per_positive=2, max_ratings_per_user=5)
    assert {clients.examples.num_examples(user) for user in range(60)} == {15}


def write_leave_one_out(folder):
    """Three users of 130 items; each has items of its own, the last of them the test's."""
    rated = {user: list(range(10 * user, 10 * user + 8)) for user in range(3)}
    rated[2] += range(38, 130)
    rated[0] += range(28, 38)
    lines = {"train.rating": [], "test.rating": [], "test.negative": []}
    for user, items in rated.items():
        for time, item in enumerate(items):
            part = "test.rating" if item == items[-1] else "train.rating"
            lines[part].append(f"{user}\t{item}\t3\t{100 + time}")
        negatives = [item for item in range(130) if item not in items][:99]
        negatives += negatives[:1] * (99 - len(negatives))
        row = "\t".join(map(str, negatives))
        lines["test.negative"].append(f"({user},{items[-1]})\t{row}")
    # Items that nobody has otherwise.
    lines["train.rating"] += [f"1\t{item}\t3\t1" for item in (8, 9, 18, 19)]
    path = folder / "ncf-ml-1m"
    path.mkdir()
    for kind, text in lines.items():
        (path / f"ml-1m.{kind}").write_text("\n".join(text) + "\n")


@pytest.mark.filterwarnings("ignore:.*was published with")
@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_published_test_items_and_negatives_are_used_as_they_are(tmp_path, evaluate_on):
    write_leave_one_out(tmp_path)
    settings = Settings(
        dataset="ncf-ml-1m",
        data_dir=str(tmp_path),
        feedback="implicit",
        evaluate_on=evaluate_on,
        clients_per_round=1,
    )
    if evaluate_on == "validation":  # User 2 has a hundred items: 30 are left, not 99.
        with pytest.raises(Exception, match="user 2 has 31 items left to draw negatives from"):
            load_clients(settings)
        return
    clients = load_clients(settings)
    files = load_leave_one_out(data_dir=tmp_path)
    test = clients.held_out["test"]
    np.testing.assert_array_equal(test.items, [37, 17, 129])
    np.testing.assert_array_equal(test.negatives, files.negatives)
    # The run is on the data set as it is named, not on a part of it.
    named = load_dataset("ncf-ml-1m", data_dir=tmp_path)
    assert clients.ratings.fingerprint() == named.fingerprint()
    assert clients.examples.positives(1).tolist() == [8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19]


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "most"), [(explicit, 48), (implicit, 60)])
def test_a_cohort_larger_than_the_population_is_refused(load, most):
    load(clients_per_round=most)
    with pytest.raises(InputError, match=f"={most + 1} is more than the {most} training users"):
        load(clients_per_round=most + 1)
