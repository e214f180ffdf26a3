"""Tests of the leave-one-out files."""

import gzip
import hashlib
import re

import numpy as np
import pytest

from fedrecon.data import ncf
from fedrecon.data.datasets import load_dataset, load_leave_one_out
from fedrecon.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*was published with")

# Two users; user 0 rated items 0 to 2 and 104 to 203 and tests on 103, user 1 rated 2 to 103 and
# tests on 0.
NUM_ITEMS = 204
ITEMS_0, ITEMS_1 = [0, 1, 2, *range(104, 204)], list(range(2, 104))
TRAIN = "".join(f"0\t{item}\t3\t{10 + item}\n" for item in ITEMS_0) + "".join(
    f"1\t{item}\t4\t{10 + item}\n" for item in ITEMS_1
)
TEST = "0\t103\t5\t900\n1\t0\t2\t901\n"
NEGATIVES_0 = list(range(3, 102))
NEGATIVES_1 = [1, *range(105, 203)]
NEGATIVE = "".join(
    f"({user},{item})\t" + "\t".join(map(str, negatives)) + "\n"
    for user, item, negatives in ((0, 103, NEGATIVES_0), (1, 0, NEGATIVES_1))
)


def write(tmp_path, *, train=TRAIN, test=TEST, negative=NEGATIVE, compress=False):
    folder = tmp_path / "ncf-ml-1m"
    folder.mkdir()
    if compress:
        (folder / "ml-1m.train.rating.gz").write_bytes(gzip.compress(train.encode()))
    else:
        (folder / "ml-1m.train.rating").write_text(train)
    (folder / "ml-1m.test.rating").write_text(test)
    if negative is not None:
        (folder / "ml-1m.test.negative").write_text(negative)
    return tmp_path


@pytest.mark.parametrize("compress", [False, True])
def test_leave_one_out(tmp_path, compress):
    result = load_leave_one_out(data_dir=write(tmp_path, compress=compress))
    assert result.train.num_ratings == 103 + 102
    np.testing.assert_array_equal(result.train.user_ids, [0] * 103 + [1] * 102)
    np.testing.assert_array_equal(result.train.item_ids, ITEMS_0 + ITEMS_1)
    np.testing.assert_array_equal(result.test_items, [103, 0])
    np.testing.assert_array_equal(result.test.ratings, [5, 2])
    np.testing.assert_array_equal(result.test.timestamps, [900, 901])
    np.testing.assert_array_equal(result.negatives, [NEGATIVES_0, NEGATIVES_1])
    assert result.negatives.dtype == np.int32
    assert result.test_items.dtype == np.int32
    assert not result.negatives.flags.writeable
    assert result.num_negatives_equal_to_test_item == 0
    # Item 103 is rated by user 1 only in train, item 0 by user 0: the id space is common.
    assert result.train.num_items == result.test.num_items == NUM_ITEMS


def test_all_interactions_are_the_rows_of_both_files(tmp_path):
    """So a run on them has the fingerprint of the data set, and knows every item and user."""
    folder = write(tmp_path)
    result = load_leave_one_out(data_dir=folder)
    pairs = [(0, item) for item in [*ITEMS_0[:3], 103, *ITEMS_0[3:]]]
    pairs += [(1, item) for item in [0, *ITEMS_1]]
    assert list(zip(result.ratings.user_ids, result.ratings.item_ids)) == pairs
    held_out = [pairs.index((0, 103)), pairs.index((1, 0))]
    np.testing.assert_array_equal(result.ratings.ratings[held_out], [5, 2])
    np.testing.assert_array_equal(result.ratings.timestamps[held_out], [900, 901])
    kept = np.delete(np.arange(len(pairs)), held_out)
    np.testing.assert_array_equal(result.ratings.timestamps[kept], result.train.timestamps)
    assert result.ratings.num_ratings == 103 + 102 + 2
    assert (result.ratings.num_users, result.ratings.num_items) == (2, NUM_ITEMS)
    assert result.ratings.fingerprint() == load_dataset("ncf-ml-1m", data_dir=folder).fingerprint()
    assert result.ratings.fingerprint() != result.train.fingerprint()


def test_load_dataset_returns_all_interactions_with_their_numbers(tmp_path):
    ratings = load_dataset("ncf-ml-1m", data_dir=write(tmp_path))
    assert ratings.num_ratings == 103 + 102 + 2
    np.testing.assert_array_equal(ratings.item_ids[[0, 3, -1]], [0, 103, 103])
    np.testing.assert_array_equal(ratings.original_item_ids, np.arange(NUM_ITEMS))
    np.testing.assert_array_equal(ratings.original_user_ids, [0, 1])
    assert ratings.item_titles is None


def test_windows_line_ends(tmp_path):
    texts = (text.replace("\n", "\r\n") for text in (TRAIN, TEST, NEGATIVE))
    folder = tmp_path / "ncf-ml-1m"
    folder.mkdir()
    for kind, text in zip(("train.rating", "test.rating", "test.negative"), texts):
        (folder / f"ml-1m.{kind}").write_bytes(text.encode())
    result = load_leave_one_out(data_dir=tmp_path)
    np.testing.assert_array_equal(result.negatives, [NEGATIVES_0, NEGATIVES_1])


LINE_0, LINE_1 = NEGATIVE.splitlines(keepends=True)
PROBLEMS = {
    "train, bad line": (
        {"train": TRAIN + "1\t2\n"},
        r"ml-1m\.train\.rating, line 206: expected 4 fields separated by '\\t'",
    ),
    "test item in train": (
        {"train": TRAIN + "0\t103\t1\t5\n"},
        r"test\.rating, line 1: user 0 rates item 103 again, after .*train\.rating, line 206;",
    ),
    "user gap": (
        {"train": TRAIN + "3\t0\t1\t5\n"},
        "expected users numbered from 0 without gaps, found no rating of user 2 but one of 3",
    ),
    "item gap": (
        {"train": TRAIN + "0\t999999\t1\t5\n"},
        "expected items numbered from 0 without gaps, found no rating of item 204 but one of 9999",
    ),
    "test rows swapped": (
        {"test": "".join(reversed(TEST.splitlines(keepends=True)))},
        r"test\.rating, line 1: expected the row of user 0, found user 1",
    ),
    "test row missing": (
        {"test": TEST.splitlines(keepends=True)[0]},
        r"test\.rating: expected one line for each of 2 users, found 1",
    ),
    "test row twice": (
        {"test": TEST + "1\t1\t2\t901\n"},
        r"test\.rating, line 3: expected the row of user 2, found user 1",
    ),
    "negatives, file missing": ({"negative": None}, r"ml-1m\.test\.negative does not exist"),
    "negatives, empty": ({"negative": ""}, r"test\.negative, line 1: .* found an empty line"),
    "negatives, too few": (
        {"negative": LINE_0 + LINE_1.replace("\t105\t", "\t", 1)},
        r"test\.negative, line 2: expected .* 99 item numbers .*, found 98 tabs in '\(1,0\)",
    ),
    "negatives, no number": (
        {"negative": LINE_0.replace("\t7\t", "\tx\t") + LINE_1},
        r"test\.negative, line 1: expected .* 99 item numbers separated by tabs",
    ),
    "negatives, other test item": (
        {"negative": LINE_0.replace("(0,103)", "(0,102)") + LINE_1},
        r"test\.negative, line 1: expected \(0,103\) as in line 1 of .*test\.rating, found \(0,10",
    ),
    "negatives, unknown item": (
        {"negative": LINE_0.replace("\t7\t", "\t204\t") + LINE_1},
        r"test\.negative, line 1: expected negatives below 204, the number of items, found 204",
    ),
    "negatives, one twice": (
        {"negative": LINE_0.replace("\t7\t", "\t8\t") + LINE_1},
        r"test\.negative, line 1: expected 99 different items, found item 8 2 times; draw negativ",
    ),
    "negatives, one of training": (
        {"negative": LINE_0 + LINE_1.replace("\t107\t", "\t50\t")},
        r"line 2: expected items that the user has no rating of, found item 50; draw negatives fr",
    ),
    "negatives, three of training": (
        {"negative": re.sub(r"\t107\t108\t109\t", r"\t52\t51\t50\t", LINE_0 + LINE_1)},
        r"line 2: expected items that .* has no rating of, found item 52 and 2 more; draw",
    ),
    "negatives, the held-out item": (
        {"negative": LINE_0.replace("\t7\t", "\t103\t") + LINE_1},
        r"line 1: expected items other than the held-out one, found item 103; draw negatives",
    ),
    "negatives, line missing": (
        {"negative": LINE_0},
        r"test\.negative: expected 2 lines, one per user as in .*test\.rating, found 1",
    ),
    "negatives, line too many": (
        {"negative": NEGATIVE + LINE_1},
        r"test\.negative: expected 2 lines, .*, found 3",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_are_named(problem, tmp_path):
    files, message = PROBLEMS[problem]
    with pytest.raises(DataError, match=message):
        load_leave_one_out(data_dir=write(tmp_path, **files))


def test_only_the_published_file_may_have_the_held_out_item_among_negatives(tmp_path, monkeypatch):
    negative = LINE_0.replace("\t7\t", "\t103\t") + LINE_1
    folder = write(tmp_path, negative=negative)
    digest = hashlib.sha256(negative.encode()).hexdigest()
    monkeypatch.setattr(ncf, "_PUBLISHED_NEGATIVES", digest)
    assert load_leave_one_out(data_dir=folder).num_negatives_equal_to_test_item == 1
    # It is the published one with the line ends of Windows, too.
    path = folder / "ncf-ml-1m" / "ml-1m.test.negative"
    path.write_bytes(negative.replace("\n", "\r\n").encode())
    assert load_leave_one_out(data_dir=folder).num_negatives_equal_to_test_item == 1
    path.write_text(negative.replace("\t9\t", "\t102\t"))
    with pytest.raises(DataError, match="line 1: expected items other than the held-out one"):
        load_leave_one_out(data_dir=folder)


def test_a_user_of_the_test_alone_is_loaded(tmp_path):
    # User 2 tests on item 1 and trains on nothing.
    line = "(2,1)\t" + "\t".join(map(str, range(2, 101))) + "\n"
    files = {"test": TEST + "2\t1\t4\t9\n", "negative": NEGATIVE + line}
    result = load_leave_one_out(data_dir=write(tmp_path, **files))
    assert result.train.num_users == 3
    np.testing.assert_array_equal(result.train.counts(), [103, 102, 0])
    np.testing.assert_array_equal(result.test_items, [103, 0, 1])


def test_a_cut_gz_is_an_error(tmp_path):
    path = write(tmp_path, compress=True) / "ncf-ml-1m" / "ml-1m.train.rating.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"ml-1m\.train\.rating\.gz is damaged or cut short"):
        load_dataset("ncf-ml-1m", data_dir=tmp_path)


def test_other_data_sets_have_no_leave_one_out_files(tmp_path):
    with pytest.raises(DataError, match=r"'movielens-1m' has no .* files; ncf-ml-1m, ncf-pin"):
        load_leave_one_out("movielens-1m", data_dir=tmp_path)


@pytest.mark.filterwarnings("error")
def test_real_files(real_data_dir):
    result = load_leave_one_out(data_dir=real_data_dir)
    train = result.train
    assert (train.num_ratings, result.test.num_ratings) == (994_169, 6_040)
    assert (train.num_users, train.num_items) == (6_040, 3_706)
    assert result.negatives.shape == (6_040, 99)
    assert result.num_negatives_equal_to_test_item == 156
    np.testing.assert_array_equal(result.test_items[:3], [25, 133, 207])
    np.testing.assert_array_equal(result.negatives[0, :3], [1064, 174, 2791])
    # As LeaveOneOut says: nobody's negatives are among the items that he trains on.
    rated = np.zeros((train.num_users, train.num_items), bool)
    rated[train.user_ids, train.item_ids] = True
    assert not rated[np.arange(train.num_users)[:, None], result.negatives].any()


def test_pinterest_has_files_of_other_names_and_interactions_alone(leave_one_out_dir, tmp_path):
    """As in the published test file, each rating is 1 and each time 0."""
    for file in (leave_one_out_dir / "ncf-ml-1m").iterdir():
        text = file.read_text()
        if file.suffix == ".rating":
            rows = [line.split("\t")[:2] for line in text.splitlines()]
            text = "".join(f"{user}\t{item}\t1\t0\n" for user, item in rows)
        (tmp_path / file.name.replace("ml-1m", "pinterest-20")).write_text(text)
    files = load_leave_one_out("ncf-pinterest-20", data_dir=tmp_path)
    expected = load_leave_one_out(data_dir=leave_one_out_dir)
    np.testing.assert_array_equal(files.test_items, expected.test_items)
    np.testing.assert_array_equal(files.negatives, expected.negatives)
    assert set(files.ratings.ratings.tolist()) == {1}
    assert files.num_negatives_equal_to_test_item == 0
    # The authors drew negatives of all items that a user does not train on: the test item, too.
    path = tmp_path / "pinterest-20.test.negative"
    first, *others = path.read_text().splitlines()
    pair, _, *items = first.split("\t")
    path.write_text("\n".join(["\t".join([pair, str(files.test_items[0]), *items]), *others, ""]))
    files = load_leave_one_out("ncf-pinterest-20", data_dir=tmp_path)
    assert files.num_negatives_equal_to_test_item == 1
    # An item that the user trains on is refused as before.
    own = files.train.item_ids[files.train.rows_of(0)][0]
    path.write_text("\n".join(["\t".join([pair, str(own), *items]), *others, ""]))
    with pytest.raises(DataError, match=r"pinterest-20\.test\.negative, line 1: expected items th"):
        load_leave_one_out("ncf-pinterest-20", data_dir=tmp_path)
