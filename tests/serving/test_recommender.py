"""Recommendations of a small model, against sorting all scores by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fedrecon.errors import InputError
from tests.serving import served
from tests.serving.served import NUM_ITEMS, data_of, implicit_recommender, recommender

GIVEN = {100: 5, "Matrix, The (1999)": 1, "Film 12": 4}
GIVEN_ROWS = [0, 1, 12]


@pytest.fixture(scope="module")
def model():
    return recommender()


def best_by_hand(scores, k, *, without=()):
    """Rows by score, the lower first where scores are equal."""
    rows = [row for row in range(len(scores)) if row not in without]
    return sorted(rows, key=lambda row: (-scores[row], row))[:k]


def rows_of(table):
    return ((table["item_id"] - 100) // 3).tolist()


# --- one user -------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, NUM_ITEMS, 1000])
def test_the_best_items_come_first_without_those_given_and_those_never_rated(model, k):
    scores = model.score_all(GIVEN)
    table = model.recommend(GIVEN, k)
    expected = best_by_hand(scores.tolist(), k, without=[*GIVEN_ROWS, 0, 29])
    assert rows_of(table) == expected
    assert list(table.columns) == ["item_id", "title", "score"]
    assert table["score"].tolist() == scores.iloc[expected].tolist()
    assert table["title"].tolist() == [served.TITLES[row] for row in expected]


def test_items_with_equal_scores_come_by_row():
    model = recommender()
    model.model = dataclasses.replace(
        model.model,
        factors=np.ones_like(model.model.factors),
        offsets=np.repeat(np.float32([1, 3, 2]), 10),
    )
    assert rows_of(model.recommend({"Film 25": 4}, 13)) == [*range(10, 20), 20, 21, 22]


def test_given_and_rare_items_come_where_they_are_wanted(model):
    scores = model.score_all(GIVEN).tolist()
    table = model.recommend(GIVEN, 99, includes_given=True, min_ratings=0)
    assert rows_of(table) == best_by_hand(scores, 99)
    table = model.recommend(GIVEN, 99, min_ratings=20)
    assert rows_of(table) == best_by_hand(scores, 99, without=[*range(20), 29])
    assert len(model.recommend(GIVEN, 5, min_ratings=10**9)) == 0


def test_items_that_are_not_wanted_are_left_out(model):
    first, second = model.recommend(GIVEN, 2)["item_id"]
    assert model.recommend(GIVEN, 1, exclude=[first])["item_id"].tolist() == [second]


def test_predictions_are_by_item_id(model):
    scores = model.score_all(GIVEN)
    assert scores.index.tolist() == served.ids_of_rows().tolist()
    found = model.predict(GIVEN, ["Film 20", 100])
    assert found.index.tolist() == [160, 100]
    assert found.tolist() == [scores[160], scores[100]]
    vector = model.user_vector(GIVEN)
    expected = model.model.factors[20] @ vector + model.model.offsets[20]
    assert found[160] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("build", [recommender, implicit_recommender])
def test_the_order_of_what_is_given_does_not_matter(build):
    model = build()
    backwards = dict(reversed(GIVEN.items()))
    np.testing.assert_allclose(
        model.score_all(GIVEN), model.score_all(backwards), rtol=0, atol=1e-6
    )


def test_where_items_are_ranked_ratings_do_not_matter():
    model = implicit_recommender()
    expected = model.score_all(list(GIVEN)).tolist()
    assert model.score_all(GIVEN).tolist() == expected
    assert model.score_all(dict.fromkeys(GIVEN)).tolist() == expected


def test_unknown_items_are_left_out_with_a_warning(model):
    with pytest.warns(UserWarning, match="Left out: 'Matrx' is no item of the model"):
        found = model.recommend({**GIVEN, "Matrx": 5})
    pd.testing.assert_frame_equal(found, model.recommend(GIVEN))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.recommend(GIVEN, 0), "k is 0; it must be at least 1"),
        (lambda m: m.recommend({"zzzz": 5}), "the model knows none of the given items"),
        (lambda m: m.recommend({100: 6}), "the rating 6 is not on the scale of films, 1 to 5"),
        (lambda m: m.recommend([100]), "the model predicts ratings .* give a rating for each"),
        (lambda m: m.recommend({}), "no item is given"),
        (lambda m: m.recommend(GIVEN, exclude=["Heet (1995)"]), "is no item .* Did you mean 'Heat"),
        (lambda m: m.predict(GIVEN, [101]), "'101' is no item of the model"),
        (lambda m: m.recommend("12"), "'12' may be a user id, and the model has no data of users"),
        (lambda m: m.similar_items("zzzz"), "'zzzz' is no item of the model"),
        (lambda m: m.popular(0), "k is 0"),
        (lambda m: m.explain(GIVEN, "zzzz"), "'zzzz' is no item of the model"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(model, call, message):
    with pytest.raises(InputError, match=message):
        call(model)


# --- explanations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [recommender, implicit_recommender])
def test_an_explanation_adds_up_and_names_the_items_that_it_speaks_of(build):
    model = build()
    # Not in the order of rows: with implicit feedback rows are put in another order inside.
    given = {"Film 12": 4, 100: 5, "Film 25": 2, "Matrix, The (1999)": 1, "Film 17": 3}
    rows = [12, 0, 25, 1, 17]
    table = model.explain(given, "Film 20")
    score = float(model.score_all(given)[160])
    assert table.attrs["score"] == pytest.approx(score, abs=1e-5)
    assert table.attrs["score_without_ratings"] == pytest.approx(model.model.offsets[20])
    total = table.attrs["score_without_ratings"] + table["contribution"].sum()
    assert total == pytest.approx(score, abs=1e-5)
    assert table["contribution"].is_monotonic_decreasing
    # Of each item by itself: the solution is linear in its label.
    factors, offsets = (a.astype(np.float64) for a in (model.model.factors, model.model.offsets))
    labels = np.ones(5) if model.about.is_implicit else np.array([4, 5, 2, 1, 3])
    matrix, *_ = model.model.rule.system(model.model, np.array(rows), labels)
    influence = factors[20] @ np.linalg.inv(matrix) @ factors[rows].T
    expected = dict(zip(rows, influence * (labels - offsets[rows])))
    found = dict(zip(rows_of(table), table["contribution"]))
    assert found == pytest.approx(expected, abs=1e-6)
    if not model.about.is_implicit:
        assert dict(zip(rows_of(table), table["rating"])) == dict(zip(rows, labels))


def test_a_model_that_is_fitted_to_drawn_negatives_explains_nothing():
    with pytest.raises(InputError, match="drawn negatives besides the given items"):
        implicit_recommender(negatives_per_positive=2).explain(GIVEN, "Film 20")


# --- many users -----------------------------------------------------------------------------------


def table_of(users):
    """One row a rating, of users who come mixed."""
    rows = [(user, item, rating) for user, given in users.items() for item, rating in given]
    table = pd.DataFrame(rows, columns=["userId", "item_id", "rating"])
    return table.sample(frac=1, random_state=1)


def many_users(number=70):
    generator = np.random.default_rng(4)
    return {
        f"user {user}": [
            (int(row) * 3 + 100, int(generator.integers(1, 6)))
            for row in generator.permutation(NUM_ITEMS)[: generator.integers(1, 12)]
        ]
        for user in range(number)
    }


@pytest.mark.parametrize("scores_at_once", [1, 7 * NUM_ITEMS, 4_000_000])
@pytest.mark.parametrize("build", [recommender, implicit_recommender])
def test_many_at_once_get_what_each_gets_alone(monkeypatch, build, scores_at_once):
    monkeypatch.setattr("fedrecon.serving.scores._SCORES_AT_ONCE", scores_at_once)
    model, users = build(), many_users()
    many = model.recommend_many(table_of(users), 4, min_ratings=3)
    assert list(many.columns) == ["user", "rank", "item_id", "title", "score"]
    assert many["user"].drop_duplicates().tolist() == table_of(users)["userId"].unique().tolist()
    for user, given in users.items():
        alone = model.recommend(dict(given), 4, min_ratings=3)
        of_user = many[many["user"] == user].reset_index(drop=True)
        assert of_user["rank"].tolist() == [1, 2, 3, 4]
        assert of_user["item_id"].tolist() == alone["item_id"].tolist()
        np.testing.assert_allclose(of_user["score"], alone["score"], rtol=0, atol=1e-5)


def test_a_user_of_whom_nothing_is_known_is_left_out_with_a_warning(model):
    table = pd.DataFrame(
        {"user": [3, 1, 3, 2], "item": [100, -1, "zzzz", 103], "rating": [4, 4, 4, 4]}
    )
    with pytest.warns(UserWarning, match="^Left out") as told:
        found = model.recommend_many(table, 2)
    assert found["user"].tolist() == [3, 3, 2, 2]
    assert [str(warning.message) for warning in told] == [
        "Left out, as the model knows none of their items: 1 user (1).",
        "Left out, as the model does not know them: 1 given item of other users (zzzz).",
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item": [100], "rating": [4]}, "none is known as the user; call it user"),
        ({"user": [1], "rating": [4]}, "user 1: the columns are user, rating, and none is known"),
        ({"user": [1], "item": ["zzzz"], "rating": [4]}, "no user gives an item that the model"),
        ({"user": [], "item": [], "rating": []}, "no user gives an item that the model knows"),
        ({"user": [1, None], "item": [100, 103], "rating": [4, 4]}, "row 1 .from 0. has no user"),
        ({"user": [1, 2], "item": [100, 103], "rating": [4, 9]}, "user 2: the rating 9 is not on"),
        (
            {"user": [1, 2], "item": [100, 103], "rating": [4, np.nan]},
            "user 2: '103' has no",
        ),
        ({"user": [1, 1], "item": [100, "100"], "rating": [4, 4]}, "user 1: '100' and '100' are"),
        ({"user": [1], "item": [100]}, "user 1: the model predicts ratings"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(model, table, message):
    with pytest.raises(InputError, match=message):
        model.recommend_many(pd.DataFrame(table))


# --- users of the data ----------------------------------------------------------------------------

USERS = {7: [0, 3, 4], 8: list(range(NUM_ITEMS))}


@pytest.mark.parametrize("user", [7, "7", np.int64(7)])
def test_a_user_of_the_data_is_served_by_its_ratings(user):
    model = recommender(ratings=data_of(USERS))
    expected = model.recommend({100: 4, 109: 4, 112: 4}, 5)
    pd.testing.assert_frame_equal(model.recommend(user, 5), expected)


def test_text_ids_of_users_keep_their_zeros():
    users = {"007": [0, 3], "7": list(range(NUM_ITEMS))}
    model = recommender(ids=served.text_ids(), ratings=data_of(users, ids_are_text=True))
    expected = model.recommend({"000": 4, "003": 4}, 5)
    pd.testing.assert_frame_equal(model.recommend("007", 5), expected)
    assert len(model.recommend("7", 5)) == 0
    with pytest.raises(InputError, match="has no user '07'"):
        model.recommend("07")


def test_users_are_found_whatever_the_case_of_their_letters_and_near_ones_are_offered():
    users = {"Björn 143": [0, 3], "anna": [1], "Anna": list(range(NUM_ITEMS))}
    model = recommender(ids=served.text_ids(), ratings=data_of(users, ids_are_text=True))
    expected = model.recommend({"000": 4, "003": 4}, 5)
    for name in ("Björn 143", "BJÖRN  143", "björn 143"):
        pd.testing.assert_frame_equal(model.recommend(name, 5), expected)
    assert len(model.place("anna").rows) == 1
    for name, sentence in (
        ("ANNA", "'ANNA' names 2 users; name one of them alone: 'Anna' or 'anna'."),
        ("Bjorn 143", "films has no user 'Bjorn 143'. Did you mean 'Björn 143'?"),
        ("zz", "films has no user 'zz'."),
    ):
        with pytest.raises(InputError) as raised:
            model.recommend(name)
        assert str(raised.value) == sentence


@pytest.mark.parametrize("user", [9, -7, "--7", "seven", "", 10**30, "7.5", "²"])
def test_a_user_who_is_not_in_the_data_is_refused_in_a_sentence(user):
    with pytest.raises(InputError, match="films has no user"):
        recommender(ratings=data_of(USERS)).recommend(user)


# --- items ----------------------------------------------------------------------------------------


def test_popular_items_come_by_their_training_ratings(model):
    table = model.popular(3)
    assert rows_of(table) == [28, 27, 26]
    assert table["score"].tolist() == [28, 27, 26]
    assert rows_of(model.popular(99)) == list(range(28, 0, -1))
    assert rows_of(model.popular(99, min_ratings=26)) == [28, 27, 26]


def test_similar_items_are_by_the_cosine_of_their_factors(model):
    factors = model.model.factors[:, : served.DIM].astype(np.float64)
    cosines = [
        np.dot(factors[20], row) / np.sqrt(np.dot(factors[20], factors[20]) * np.dot(row, row))
        for row in factors
    ]
    table = model.similar_items("Film 20", 99)
    assert rows_of(table) == best_by_hand(cosines, 99, without=[20, 0, 29])
    np.testing.assert_allclose(table["score"], np.array(cosines)[rows_of(table)], atol=1e-12)


def test_item_factors_are_by_id(model):
    table = model.item_factors()
    assert table.index.tolist() == served.ids_of_rows().tolist()
    np.testing.assert_array_equal(table.loc[160], model.model.factors[20, : served.DIM])
