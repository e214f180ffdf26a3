"""Users' vectors and explanations against NumPy's least squares and loops written by hand."""

import dataclasses

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.serving.linear import (
    GradientSteps,
    ImplicitLeastSquares,
    LeastSquares,
    LinearModel,
    rule_from_json,
)

NUM_ITEMS, SIZE = 40, 5
RIDGE = LeastSquares((2.0, 2.0, 2.0, 2.0, 0.5), exponent=0.0)
GROWING_RIDGE = LeastSquares((0.1,) * SIZE, exponent=0.7)
IALS = ImplicitLeastSquares(regularization=0.03, exponent=1.0, unobserved_weight=0.2)
STEPS = GradientSteps((0.1, -0.2, 0.3, 0.0, 0.5), 0.05, batch_size=4, epochs=3, steps_max=None)
RULES = {"ridge": RIDGE, "growing": GROWING_RIDGE, "ials": IALS, "steps": STEPS}
SOLVED = ("ridge", "growing", "ials")


def model_of(rule):
    generator = np.random.default_rng(0)
    return LinearModel(
        generator.normal(size=(NUM_ITEMS, SIZE)).astype(np.float32),
        generator.normal(size=NUM_ITEMS).astype(np.float32),
        rule,
        (("user_factors", SIZE - 1), ("user_bias", 1)),
    )


def given_to(num_users, seed=1, most=20):
    """Users who give 1 to `most` items, and labels from 1 to 5."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, most + 1, size=num_users)
    return [
        (generator.permutation(NUM_ITEMS)[:n], generator.integers(1, 6, n).astype(np.float32))
        for n in counts
    ]


def by_lstsq(model, rows, labels, penalties, unobserved_weight=0.0):
    """Returns the minimum of the whole loss, all its squares as rows of one system."""
    factors, offsets = model.factors.astype(np.float64), model.offsets.astype(np.float64)
    systems = [factors[rows], np.diag(np.sqrt(penalties))]
    sides = [labels - offsets[rows], np.zeros(len(penalties))]
    if unobserved_weight:  # Every pair is seen once more with label 0.
        systems.append(np.sqrt(unobserved_weight) * factors)
        sides.append(np.zeros(len(factors)))
    solution, *_ = np.linalg.lstsq(np.concatenate(systems), np.concatenate(sides), rcond=None)
    return solution


def by_hand(model, rows, labels):
    rule = model.rule
    if isinstance(rule, LeastSquares):
        penalties = np.array(rule.strengths) * len(rows) ** rule.exponent
        return by_lstsq(model, rows, labels, penalties)
    if isinstance(rule, ImplicitLeastSquares):
        growth = (len(rows) + rule.unobserved_weight * NUM_ITEMS) ** rule.exponent
        penalties = np.full(SIZE, rule.regularization * growth)
        return by_lstsq(model, rows, np.ones(len(rows)), penalties, rule.unobserved_weight)
    return by_steps(model, rows, labels)


def by_steps(model, rows, labels):
    """Returns the vector after gradient descent, one number at a time."""
    rule = model.rule
    vector, num_steps = list(rule.initial), 0
    for _ in range(rule.epochs):
        for start in range(0, len(rows), rule.batch_size):
            if num_steps == rule.steps_max:
                return np.array(vector)
            places = range(start, min(start + rule.batch_size, len(rows)))
            gradient = [0.0] * SIZE
            for place in places:
                factors = model.factors[rows[place]].tolist()
                prediction = sum(a * b for a, b in zip(factors, vector))
                error = prediction + float(model.offsets[rows[place]]) - float(labels[place])
                for k in range(SIZE):
                    gradient[k] += 2 * error * factors[k] / len(places)
            vector = [u - rule.learning_rate * g for u, g in zip(vector, gradient)]
            num_steps += 1
    return np.array(vector)


@pytest.mark.parametrize("name", RULES)
def test_each_users_vector_is_the_one_worked_out_by_hand(name):
    model, given = model_of(RULES[name]), given_to(30)
    if name == "ials":  # Its offsets are zero: the loss has none.
        model = dataclasses.replace(model, offsets=np.zeros(NUM_ITEMS, np.float32))
    vectors = model.user_vectors(given)
    assert vectors.dtype == np.float32
    expected = np.stack([by_hand(model, *of_user) for of_user in given])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("steps_max", [1, 2, 7, 1000])
def test_gradient_steps_end_at_their_limit(steps_max):
    model = model_of(dataclasses.replace(STEPS, steps_max=steps_max))
    given = given_to(8)
    expected = np.stack([by_steps(model, *of_user) for of_user in given])
    np.testing.assert_allclose(model.user_vectors(given), expected, atol=1e-5)


@pytest.mark.parametrize("name", SOLVED)
def test_the_order_of_what_is_given_does_not_matter_to_a_solution(name):
    model = model_of(RULES[name])
    for rows, labels in given_to(5):
        order = np.random.default_rng(3).permutation(len(rows))
        vectors = model.user_vectors([(rows, labels), (rows[order], labels[order])])
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_nobody_else_in_the_call_matters(name):
    model, given = model_of(RULES[name]), given_to(300)  # More than one block.
    together = model.user_vectors(given)
    assert together.shape == (300, SIZE)
    for place in (0, 255, 256, 299):
        np.testing.assert_allclose(
            model.user_vectors([given[place]])[0], together[place], atol=1e-6
        )


@pytest.mark.parametrize("name", RULES)
def test_there_may_be_no_users_and_users_who_give_nothing(name):
    model = model_of(RULES[name])
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert model.user_vectors([]).shape == (0, SIZE)
    assert model.scores(model.user_vectors([])).shape == (0, NUM_ITEMS)
    expected = STEPS.initial if name == "steps" else np.zeros(SIZE)
    np.testing.assert_allclose(model.user_vectors([nothing])[0], expected, atol=1e-7)


def test_scores_are_products_and_offsets():
    model, vectors = model_of(RIDGE), np.random.default_rng(2).normal(size=(3, SIZE))
    scores = model.scores(vectors.astype(np.float32))
    assert scores.dtype == np.float32
    for user in range(3):
        for item in range(NUM_ITEMS):
            expected = sum(model.factors[item] * vectors[user]) + model.offsets[item]
            assert scores[user, item] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SOLVED)
def test_a_contribution_is_what_the_score_loses_without_the_label(name):
    model, item = model_of(RULES[name]), 7
    rows, labels = given_to(1, seed=5)[0]
    assert len(rows) > 4
    found = model.contributions(rows, labels, item)
    (whole,) = model.scores(model.user_vectors([(rows, labels)]))
    assert model.offsets[item] + found.sum() == pytest.approx(whole[item], abs=1e-5)
    factors = model.factors.astype(np.float64)
    rule = model.rule
    for place in range(len(rows)):
        # The same system, but the label tells nothing beyond the item's offset.
        targets = (np.ones(len(rows)) if name == "ials" else labels) - model.offsets[rows]
        targets[place] = 0.0
        if name == "ials":
            growth = (len(rows) + rule.unobserved_weight * NUM_ITEMS) ** rule.exponent
            penalty = rule.unobserved_weight * factors.T @ factors
            penalty += rule.regularization * growth * np.eye(SIZE)
        else:
            penalty = np.diag(rule.strengths) * len(rows) ** rule.exponent
        matrix = factors[rows].T @ factors[rows] + penalty
        without = np.linalg.inv(matrix) @ factors[rows].T @ targets
        score = factors[item] @ without + model.offsets[item]
        assert whole[item] - score == pytest.approx(found[place], abs=1e-5)


def test_gradient_steps_explain_nothing():
    rows, labels = given_to(1)[0]
    with pytest.raises(InputError, match=r"found by gradient steps.*reconstruction=least_squares"):
        model_of(STEPS).contributions(rows, labels, 0)


def test_item_vectors_leave_out_what_belongs_to_biases():
    model = model_of(RIDGE)
    np.testing.assert_array_equal(model.item_vectors(), model.factors[:, : SIZE - 1])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_read_as_it_was_written(name):
    assert rule_from_json(RULES[name].to_json()) == RULES[name]
    limited = dataclasses.replace(STEPS, steps_max=4)
    assert rule_from_json(limited.to_json()) == limited


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the rule None is of another version"),
        ({"kind": "newton"}, "the rule 'newton' is of another version"),
        ({"kind": "least_squares"}, "the rule least_squares cannot be read"),
        ({**RIDGE.to_json(), "more": 1}, "the rule least_squares cannot be read"),
    ],
)
def test_another_rule_is_refused_in_a_sentence(values, message):
    with pytest.raises(InputError, match=message):
        rule_from_json(values)
