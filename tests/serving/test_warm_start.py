"""A model goes on: rows follow their items' ids, new rows follow their genres."""

import dataclasses

import numpy as np
import pytest

from fedrecon.algorithms import centralized, fed_avg, fed_ials, fed_ncf, fed_recon, stock_fed_recon
from fedrecon.data.population import divide_by_user, divide_for_ranking, known_parts, parts_of
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import InputError
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import StartedModelFn, model_fn, structure
from fedrecon.options import (
    CentralizedOptions,
    FedAvgOptions,
    FedIalsOptions,
    FedReconOptions,
)
from fedrecon.runs.client_store import ClientStore
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.matching import match_items
from fedrecon.serving.recommender import Recommender
from fedrecon.serving.warm_start import fit_content, warm_started

SCALE = RatingScale(1, 5, 1)
GENRES = {10: ("a",), 20: ("b",), 30: ("a", "b"), 40: ("a",), 50: ()}
TABLE, BIAS, MEAN = "item_embedding/embeddings", "item_bias/embeddings", "global_bias/bias"


def ratings_of(items, num_users=12):
    """Each user rates all items but one."""
    pairs = [
        (user, item)
        for user in range(num_users)
        for place, item in enumerate(items)
        if len(items) < 3 or place != user % len(items)
    ]
    users, rated = np.array(pairs).T
    ratings = Ratings.from_original_ids(
        "now",
        user_ids=users,
        item_ids=rated,
        ratings=1.0 + (users + rated // 10) % 5,
        timestamps=np.arange(len(users)),
        scale=SCALE,
    )
    genres = tuple(GENRES[item] for item in ratings.original_item_ids.tolist())
    return dataclasses.replace(ratings, item_genres=genres)


def trained(items, feedback="explicit", counts=None, **weights):
    genres = tuple(GENRES[item] for item in items)
    counts = np.full(len(items), 1000) if counts is None else np.array(counts)
    return Recommender(
        Items(np.array(items), ("",) * len(items), genres, counts),
        None,
        About("before", "fed_recon_ls", 7, feedback, SCALE, None, 0, 0),
        weights=weights,
    )


def mf(ratings, **settings):
    return model_fn(matrix_factorization, ratings.num_items, 2, **settings)


def test_rows_follow_the_ids_of_their_items_and_new_rows_their_genres():
    rows = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)  # Of 20 ("b") and 10 ("a").
    before = trained([20, 10], **{TABLE: rows})
    ratings = ratings_of([10, 20, 30, 40, 50])
    values = warm_started(mf(ratings), before, ratings).values[TABLE]
    np.testing.assert_array_equal(values[:2], [[3, 4], [1, 2]])
    # Of two rows that each have a genre of their own: minimize w1 (m + a - 3)^2 + w2 (m + b - 1)^2
    # + a^2 + b^2 (and the same for the other column), weights 1000 / 1010. By symmetry m = 2 and
    # a = -b with w (a - 1) + a = 0.
    weight = 1000 / 1010
    a = weight / (1 + weight)
    np.testing.assert_allclose(values[3], [2 + a, 3 + a], atol=1e-4)
    np.testing.assert_allclose(values[2], [2, 3], atol=1e-4)  # Both genres.
    np.testing.assert_allclose(values[4], [2, 3], atol=1e-4)  # None.


def test_a_row_without_ratings_says_nothing_of_its_genre():
    content = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    rows = np.array([[5.0], [100.0], [5.0]])
    found = fit_content(content, rows, np.array([50.0, 0.0, 50.0]))
    np.testing.assert_allclose(content @ found, [[5.0]] * 3, atol=1e-4)


def test_the_matching_says_where_new_items_start():
    before = trained([10, 20])
    text = match_items(before.items, ratings_of([10, 30, 50])).sentence()
    assert text == (
        "1 of 3 items are known to it. 1 new items start from their genres. 1 new items start from "
        "the mean of the known items."
    )
    with pytest.raises(InputError, match="none of the 2 items of now, such as '40', is known"):
        match_items(before.items, ratings_of([40, 50]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"for which the run to start from has no such weight"),
        ({TABLE: np.zeros((1, 3))}, r"of shape \[2, 2\], for which .* has the shape \[1, 3\]"),
        ({TABLE: np.zeros((1, 2)), BIAS: np.zeros((1, 1))}, f"has the weight {BIAS}, and the"),
    ],
)
def test_another_model_is_refused(weights, message):
    ratings = ratings_of([10, 20])
    with pytest.raises(InputError, match=message):
        warm_started(mf(ratings), trained([10], **weights), ratings)


def started(ratings, build=mf, **settings):
    """A model of all three weights, started from values that are easily told apart."""
    number = ratings.num_items
    values = {TABLE: np.arange(2.0 * number, dtype=np.float32).reshape(number, 2)}
    if settings:
        values[BIAS] = np.arange(float(number), dtype=np.float32)[:, np.newaxis]
        values[MEAN] = np.array(3.5, np.float32)
    return StartedModelFn(build(ratings, **settings), values), values


BIASES = {"item_bias": True, "global_bias": True}
PREPARED = {
    "fed_recon": lambda m, p: fed_recon.prepare_fed_recon(
        m, FedReconOptions(), p, clients_per_round=2
    ),
    "fed_avg": lambda m, p: fed_avg.prepare_fed_avg(m, FedAvgOptions(), p, clients_per_round=2),
    "stateful_fed_avg": lambda m, p: fed_avg.prepare_stateful_fed_avg(
        m,
        FedAvgOptions(),
        p,
        clients_per_round=2,
        open_store=lambda users, width: ClientStore(users, width, path=None),
    ),
    "fed_ncf": lambda m, p: fed_ncf.prepare_fed_ncf(m, FedAvgOptions(), p, clients_per_round=2),
    "centralized": lambda m, p: centralized.prepare_centralized(
        m, CentralizedOptions(), p, clients_per_round=2
    ),
}


@pytest.mark.parametrize("name", PREPARED)
def test_every_algorithm_begins_with_the_values_given(name, in_process_runtime):
    ratings = ratings_of([10, 20, 30, 40])
    model, values = started(ratings, **BIASES)
    algorithm = PREPARED[name](model, divide_by_user(ratings))
    weights = algorithm.get_weights(algorithm.initialize())
    found = [np.asarray(value) for value in weights.trainable]
    assert len(found) == 3
    for value, expected in zip(found, values.values()):
        np.testing.assert_array_equal(value, expected)


def test_fed_ials_begins_with_the_values_given(in_process_runtime):
    ratings = ratings_of([10, 20, 30, 40])
    model, values = started(ratings)
    population = divide_for_ranking(ratings, negatives_per_positive=0)
    algorithm = fed_ials.prepare_fed_ials(model, FedIalsOptions(), population, clients_per_round=2)
    (table,) = algorithm.get_weights(algorithm.initialize()).trainable
    np.testing.assert_array_equal(table, values[TABLE])


def test_tffs_own_builder_does_not_pass_over_the_values_in_silence():
    ratings = ratings_of([10, 20, 30, 40])
    model, _ = started(ratings)
    with pytest.raises(InputError, match="starts from the model's own initial values"):
        stock_fed_recon.prepare_stock_fed_recon(
            model, FedReconOptions(), divide_by_user(ratings), clients_per_round=2
        )


def test_a_started_model_has_the_structure_of_the_other():
    ratings = ratings_of([10, 20])
    assert structure(started(ratings)[0]) == structure(mf(ratings))


def test_users_keep_the_part_that_they_had():
    ratings = ratings_of([10, 20, 30, 40], num_users=40)
    first = parts_of(divide_by_user(ratings, seed=3))
    # Half of them are known; another seed draws the others.
    known = {user: part for user, part in first.items() if int(user) < 20}
    again = divide_by_user(ratings, seed=8, known_parts=known_parts(ratings, known))
    assert {user: parts_of(again)[user] for user in known} == known
    new = [part for user, part in parts_of(again).items() if user not in known]
    assert [new.count(part) for part in ("train", "unseen_validation", "unseen_test")] == [16, 2, 2]
    ranked = divide_for_ranking(
        ratings, seed=8, unseen_fraction=0.1, known_parts=known_parts(ratings, known)
    )
    unseen = set(ranked.groups["unseen_test"].users.tolist())
    assert {user for user in unseen if user < 20} == {
        int(user) for user, part in known.items() if part != "train"
    }
    assert len({user for user in unseen if user >= 20}) == 2
