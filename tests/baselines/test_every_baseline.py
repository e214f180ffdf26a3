"""The contract of `Baseline`, asked of every baseline on a checkerboard whose answer is obvious.

Even users like even items and odd users odd items. Nobody has seen the item with the user's own
number, so the best unseen item of a user is that one. (The idea is `RecommenderBaseTestMixin` of
the library implicit.)
"""

import subprocess
import sys

import numpy as np
import pytest

from fedrecon import baselines
from fedrecon.errors import InputError

SIZE = 12
PAIRS = np.array([(u, i) for u in range(SIZE) for i in range(SIZE) if u != i])
IS_LIKED = PAIRS.sum(axis=1) % 2 == 0
SMALL = {
    "ials": {"dim": 2, "regularization": 0.1},
    "ease": {"regularization": 1.0},
    "item_knn": {"num_neighbors": 4, "shrinkage": 0.0},
    "popularity": {},
}
CASES = [("implicit", name) for name in baselines.IMPLICIT]
CASES += [("explicit", name) for name in baselines.EXPLICIT]


class Trained:
    """A baseline, and what its users give."""

    def __init__(self, feedback, name):
        self.feedback, self.name = feedback, name
        self.is_explicit = feedback == "explicit"
        self.pairs = PAIRS if self.is_explicit else PAIRS[IS_LIKED]
        self.ratings = np.where(IS_LIKED, 5, 1).astype(np.float32) if self.is_explicit else None
        self.model = self.train()

    def train(self, pairs=None, ratings="own", **changes):
        users, items = np.transpose(self.pairs if pairs is None else pairs)
        trainers = baselines.EXPLICIT if self.is_explicit else baselines.IMPLICIT
        return trainers[self.name](
            users,
            items,
            self.ratings if isinstance(ratings, str) else ratings,
            num_users=SIZE,
            num_items=SIZE,
            options=baselines.OPTIONS[self.name](**{**SMALL[self.name], **changes}),
        )

    def given(self, user):
        is_own = self.pairs[:, 0] == user
        labels = self.ratings[is_own] if self.is_explicit else np.ones(is_own.sum(), np.float32)
        return self.pairs[is_own, 1], labels


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def trained(request):
    return Trained(*request.param)


@pytest.mark.parametrize("user", range(SIZE))
def test_the_best_unseen_item_is_the_one_of_the_users_own_color(trained, user):
    if trained.name == "popularity":
        pytest.skip("popularity scores all users alike: it learns no taste")
    # With the user's own number, all items of the other color.
    candidates = np.array([user, *range(1 - user % 2, SIZE, 2)])
    scores = trained.model.score(*trained.given(user), candidates)
    assert scores[0] > scores[1:].max() + 0.1
    if trained.is_explicit:
        assert np.abs(scores - np.where(candidates == user, 5, 1)).max() < 0.5


def test_scores_are_float32_in_the_order_of_the_candidates(trained):
    given = trained.given(3)
    whole = trained.model.score(*given, np.arange(SIZE))
    assert whole.shape == (SIZE,)
    assert whole.dtype == np.float32
    for dtype in (np.int32, np.int64):
        some = trained.model.score(*given, np.array([7, 2, 7], dtype))
        np.testing.assert_allclose(some, whole[[7, 2, 7]], rtol=1e-6)
    assert trained.model.score(*given, np.zeros(0, np.int64)).shape == (0,)


def test_padding_is_finite_and_changes_no_other_score(trained):
    given = trained.given(3)
    scores = trained.model.score(*given, np.array([-1, 0, -1, 2], np.int32))
    assert np.isfinite(scores).all()
    expected = trained.model.score(*given, np.array([0, 2]))
    np.testing.assert_allclose(scores[[1, 3]], expected, rtol=1e-6)


def test_the_order_in_which_a_user_gives_does_not_matter(trained):
    items, labels = trained.given(4)
    scores = trained.model.score(items, labels, np.arange(SIZE))
    again = trained.model.score(items[::-1], labels[::-1], np.arange(SIZE))
    np.testing.assert_allclose(again, scores, rtol=1e-5)


def test_with_implicit_feedback_negatives_and_repeats_do_not_count(trained):
    if trained.is_explicit:
        pytest.skip("every rating counts")
    items, labels = trained.given(5)
    more = np.concatenate([items, [0, 2], items[:2]])
    weights = np.concatenate([labels, [0, 0], labels[:2]]).astype(np.float32)
    scores = trained.model.score(more, weights, np.arange(SIZE))
    np.testing.assert_array_equal(scores, trained.model.score(items, labels, np.arange(SIZE)))


def test_a_user_who_gives_nothing_is_scored(trained):
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    scores = trained.model.score(*nothing, np.arange(SIZE))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    # The board has no item that is better than another one.
    np.testing.assert_allclose(scores, scores[0], rtol=1e-6)


def test_training_again_gives_the_same_and_leaves_global_random_state(trained):
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    again = trained.train()
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    given = trained.given(3)
    scores = [model.score(*given, np.arange(SIZE)) for model in (trained.model, again)]
    np.testing.assert_array_equal(*scores)


def test_a_repeated_pair_counts_once_or_is_refused(trained):
    twice = np.concatenate([trained.pairs, trained.pairs[:3]])
    if trained.is_explicit:
        ratings = np.concatenate([trained.ratings, trained.ratings[:3]])
        with pytest.raises(ValueError, match="only 132 of 135 rated pairs differ"):
            trained.train(twice, ratings)
    else:
        given = trained.given(3)
        scores = [m.score(*given, np.arange(SIZE)) for m in (trained.model, trained.train(twice))]
        np.testing.assert_array_equal(*scores)


def test_the_arrays_are_read_only_and_counted(trained):
    def arrays(model):
        for value in vars(model).values():
            if isinstance(value, np.ndarray):
                yield value
            elif hasattr(value, "score"):
                yield from arrays(value)

    found = list(arrays(trained.train()))  # A new one: scoring may keep what it computes.
    assert trained.model.num_bytes == sum(array.nbytes for array in found) > 0
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_no_interactions_at_all(trained):
    none = np.zeros((0, 2), np.int64)
    if trained.is_explicit:
        with pytest.raises(ValueError, match="there are no ratings"):
            trained.train(none, np.zeros(0, np.float32))
    else:
        scores = trained.train(none).score(*trained.given(0), np.arange(SIZE))
        np.testing.assert_array_equal(scores, np.zeros(SIZE))


def test_ratings_are_taken_with_explicit_feedback_alone(trained):
    num = len(trained.pairs)
    if not trained.is_explicit:
        with pytest.raises(ValueError, match="implicit feedback; leave the ratings out"):
            trained.train(ratings=np.ones(num, np.float32))
        return
    stars = trained.ratings
    for wrong in (None, stars[:1], np.append(stars, 3), np.where(stars == 5, np.nan, stars)):
        with pytest.raises(ValueError, match="132 pairs need as many finite ratings"):
            trained.train(ratings=wrong)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((SIZE, 0), r"user ids must be in \[0, 12\); found 12 to 12"),
        ((-1, 0), "user ids must be"),
        ((0, SIZE), "item ids must be"),
        ((0, -1), r"item ids must be in \[0, 12\); found -1 to -1"),
        ((0.0, 1.0), "user ids are one row of integers, not float64"),
    ],
)
def test_pairs_that_are_no_ids_are_refused(trained, pair, message):
    with pytest.raises(ValueError, match=message):
        trained.train(np.array([pair]), np.float32([3]) if trained.is_explicit else None)


def test_users_without_items_are_refused(trained):
    trainers = baselines.EXPLICIT if trained.is_explicit else baselines.IMPLICIT
    with pytest.raises(ValueError, match="there are 1 users for 2 items; give pairs"):
        trainers[trained.name](
            np.array([0]),
            np.array([0, 1]),
            np.ones(2, np.float32) if trained.is_explicit else None,
            num_users=SIZE,
            num_items=SIZE,
            options=baselines.OPTIONS[trained.name](),
        )


@pytest.mark.parametrize("name", baselines.OPTIONS)
def test_options_refuse_numbers_that_cannot_be(name):
    options = baselines.OPTIONS[name]
    for setting, default in vars(options()).items():
        wrong = [-1] if isinstance(default, int) else [-1.0, float("nan"), float("inf")]
        for value in wrong:
            with pytest.raises(InputError, match=f"the {setting} of .* is {value}; it must be"):
                options(**{setting: value})


@pytest.mark.slow
def test_importing_them_is_light():
    code = (
        "import sys, fedrecon.baselines;"
        "print(sorted(sys.modules.keys() & {'implicit', 'scipy', 'tensorflow', 'threadpoolctl'}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"
