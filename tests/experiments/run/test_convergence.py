"""Curves made by hand, and what is said of their ends."""

import math

import pytest

from experiments.run.convergence import (
    CONVERGED,
    IMPROVING,
    PAST_ITS_BEST,
    ending,
    ending_of_rows,
)
from fedrecon.evaluation.feedback import FEEDBACKS

RMSE = FEEDBACKS["explicit"].chosen_by
NDCG = FEEDBACKS["implicit"].chosen_by
ROUNDS = (0, 20, 40, 60, 80, 100)


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        # 0.5% of 1.0, the value after round 80, where the last fifth of 100 rounds begins.
        (0.9951, CONVERGED),
        (0.9949, IMPROVING),
        # The best value is 1.0: 0.5% of it.
        (1.0049, CONVERGED),
        (1.0051, PAST_ITS_BEST),
    ],
)
def test_an_error_may_change_by_half_a_percent(last, kind):
    found = ending(ROUNDS, (9.0, 4.0, 2.0, 1.5, 1.0, last), RMSE)
    assert found.kind == kind
    assert (found.earlier, found.last) == ((80, 1.0), (100, last))


@pytest.mark.parametrize(
    ("last", "kind"),
    [(0.509, CONVERGED), (0.511, IMPROVING), (0.491, CONVERGED), (0.489, PAST_ITS_BEST)],
)
def test_a_ranking_may_change_by_two_percent_and_higher_is_better(last, kind):
    # 2% of 0.5 is 0.01.
    assert ending(ROUNDS, (0.0, 0.1, 0.2, 0.4, 0.5, last), NDCG).kind == kind


def test_the_best_round_is_named_however_early_it_was():
    found = ending(ROUNDS, (9.0, 1.2, 1.125, 1.15, 1.16, 1.155), RMSE)
    # It improved a little at the end, from 1.16, and is still 2.7% behind its best.
    assert (found.kind, found.earlier, found.last) == (PAST_ITS_BEST, (40, 1.125), (100, 1.155))
    # Even the untrained model may be the best.
    assert ending((0, 5, 10), (1.0, 2.0, 1.5), RMSE).earlier == (0, 1.0)


@pytest.mark.parametrize(("last", "kind"), [(0.9918, CONVERGED), (0.9916, IMPROVING)])
def test_seldom_evaluations_may_differ_by_more(last, kind):
    # Rounds 40 to 60 of 60 are 5/3 of a fifth, in which 5/3 of 0.5% are 0.00833.
    found = ending((0, 20, 40, 60), (9.0, 2.0, 1.0, last), RMSE)
    assert (found.kind, found.earlier) == (kind, (40, 1.0))


def test_an_evaluation_close_to_the_end_gets_no_smaller_share():
    # 30 rounds with one evaluation each 25: the last 5 are less than a fifth.
    assert ending((0, 25, 30), (9.0, 1.0, 0.996), RMSE).kind == CONVERGED
    assert ending((0, 25, 30), (9.0, 1.0, 0.994), RMSE).kind == IMPROVING


def test_too_few_evaluations_tell_nothing():
    assert ending((), (), RMSE) is None
    assert ending((0, 100), (9.0, 1.0), RMSE) is None
    assert ending((0, 50, 100), (9.0, math.nan, 1.0), RMSE) is None


def test_it_is_said_in_one_sentence_with_both_values_and_the_remedy():
    falling = ending((0, 800, 1000), (9.0, 1.15, 1.0), RMSE).sentence("unseen_validation")
    assert falling == (
        "Not converged: the RMSE of unseen_validation users still fell at the end, from 1.150 "
        "(round 800) to 1.000 (round 1,000); more rounds, or a larger rate found by "
        "experiments.tune, may help."
    )
    rising = ending((0, 80, 100), (0.0, 0.4, 0.5), NDCG).sentence("seen_validation")
    assert "the NDCG@10 of seen_validation users still rose at the end, from 0.400" in rising
    passed = ending((0, 50, 100), (9.0, 1.1336, 1.1706), RMSE).sentence("unseen_validation")
    assert passed == (
        "Better earlier: the RMSE of unseen_validation users was 1.134 after round 50 and is 1.171 "
        "after round 100, the round that is kept; fewer rounds, or a smaller rate found by "
        "experiments.tune, may help."
    )
    assert ending((0, 50, 100), (9.0, 1.0, 1.0), RMSE).sentence("unseen_validation") is None


def test_rows_without_an_evaluation_are_passed_over():
    rows = [
        {"round": 0.0, "seconds": 0.1, "unseen_validation/rmse": 9.0},
        {"round": 1.0, "seconds": 0.2, "train/rmse": 0.0},
        {"round": 2.0, "seconds": 0.3, "unseen_validation/rmse": 1.5},
        {"round": 4.0, "seconds": 0.4, "unseen_validation/rmse": 1.25},
    ]
    found = ending_of_rows(rows, "unseen_validation", RMSE)
    assert (found.kind, found.earlier, found.last) == (IMPROVING, (2, 1.5), (4, 1.25))
    assert ending_of_rows(rows, "seen_validation", RMSE) is None
