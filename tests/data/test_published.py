"""The released code's users and halves, held against its own few lines: lists and np.random."""

import numpy as np
import pytest

from fedrecon.data import datasets
from fedrecon.data.published import divide_as_published
from fedrecon.errors import DataError
from fedrecon.evaluation.protocols import alternating_batches

NUM_USERS, MOST, BATCH = 37, 12, 5


@pytest.fixture(scope="module")
def lines():
    """Ratings in no order, with gaps between the ids, as tuples of a file's line."""
    rng = np.random.default_rng(5)
    pairs = [(7 * u + 3, 11 * i + 1) for u in range(NUM_USERS) for i in range(40)]
    chosen = rng.permutation(len(pairs))[:600]
    return [(*pairs[n], int(rng.integers(1, 6)), 1000 + int(n)) for n in chosen]


@pytest.fixture(scope="module")
def published(lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "ml-1m"
    folder.mkdir()
    text = "".join("::".join(map(str, line)) + "\n" for line in lines)
    (folder / "ratings.dat").write_text(text)
    ratings = datasets.load_dataset("movielens-1m", data_dir=folder.parent)
    rows = datasets.load_rows_by_line("movielens-1m", data_dir=folder.parent)
    return divide_as_published(ratings, rows, seed=9, max_ratings_per_user=MOST)


def shuffled(values):
    np.random.seed(42)
    np.random.shuffle(values)
    return values


@pytest.fixture(autouse=True)
def keep_the_global_generator():
    state = np.random.get_state()
    yield
    np.random.set_state(state)


def test_the_users_are_those_of_the_released_code(published, lines):
    users = sorted({line[0] for line in lines})
    order = shuffled(list(range(len(users))))
    train, validation = int(len(users) * 0.8), int(len(users) * (0.8 + 0.1))
    ids = published.ratings.original_user_ids
    assert ids[published.train].tolist() == sorted(users[n] for n in order[:train])
    for name, part in (
        ("unseen_validation", order[train:validation]),
        ("unseen_test", order[validation:]),
    ):
        assert ids[published.group(name).users].tolist() == sorted(users[n] for n in part)


def test_the_ratings_and_halves_are_those_of_the_released_code(published, lines):
    ratings = published.ratings
    for user, name in enumerate(ratings.original_user_ids.tolist()):
        theirs = shuffled([(line[1], line[2]) for line in lines if line[0] == name])[:MOST]
        items, labels = published.given.examples(user)
        assert list(zip(ratings.original_item_ids[items].tolist(), labels.tolist())) == theirs
    (case,) = [
        alternating_batches(published.given, np.array([3]), batch_size=BATCH),
    ]
    items, labels = published.given.examples(3)
    assert len(items) > 2 * BATCH
    is_given = np.arange(len(items)) // BATCH % 2 == 0
    assert case.given[0][0].tolist() == items[is_given].tolist()
    assert case.labels[0][case.mask[0]].tolist() == labels[~is_given].tolist()


def test_no_seed_changes_them(published):
    others = datasets.synthetic_ratings(num_users=30, num_items=50, mean_ratings_per_user=25)
    rows = np.random.default_rng(0).permutation(others.num_ratings)
    first, second = (divide_as_published(others, rows, seed=seed) for seed in (0, 1))
    for name, group in first.groups.items():
        assert group.users.tolist() == second.group(name).users.tolist()
    for user in range(30):
        np.testing.assert_array_equal(
            first.given.examples(user), second.given.examples(user), err_msg=str(user)
        )


def test_only_movielens_has_published_lines():
    with pytest.raises(DataError, match="'ncf-ml-1m' is no MovieLens data set"):
        datasets.load_rows_by_line("ncf-ml-1m", data_dir=".")


def test_other_lines_are_other_data(published):
    others = datasets.synthetic_ratings(num_users=30, num_items=50, mean_ratings_per_user=25)
    one, other = (
        divide_as_published(others, np.random.default_rng(seed).permutation(others.num_ratings))
        for seed in (0, 1)
    )
    assert one.ratings.fingerprint() == other.ratings.fingerprint()
    assert one.fingerprint() != other.fingerprint()
