"""Seconds without compilation, from rows made by hand."""

import pandas as pd
import pytest

from experiments.comparison.clock import seconds_of_a_round, seconds_without_compilation


def rows(seconds, evaluated=()):
    """metrics.csv: seconds after rounds 0, 1, ..., and the rounds with an evaluation."""
    watched = [1.5 if number in evaluated else None for number in range(len(seconds))]
    return pd.DataFrame(
        {
            "round": range(len(seconds)),
            "seconds": seconds,
            "train/rmse": 1.0,
            "unseen_validation/rmse": watched,
        }
    )


def test_the_first_round_compiles_and_does_not_count():
    # Steps of 10, 0.25, 0.5, 0.25 and 0.25 s.
    assert seconds_of_a_round(rows([1.0, 11.0, 11.25, 11.75, 12.0, 12.25])) == 0.25


def test_rounds_with_an_evaluation_do_not_count_unless_all_have_one():
    # Steps of 0.5, 2.5, 1.0 and 2.5 s, the latter two of 2.5 with an evaluation.
    seconds = [1.0, 1.5, 4.0, 5.0, 7.5]
    assert seconds_of_a_round(rows(seconds, evaluated=(0, 2, 4))) == 0.75
    assert seconds_of_a_round(rows(seconds, evaluated=range(5))) == 1.75


def test_rows_that_do_not_follow_each_other_are_no_round():
    table = rows([1.0, 1.5, 2.0, 30.0, 30.5]).assign(round=[0, 1, 2, 7, 8])
    assert seconds_of_a_round(table) == 0.5
    assert seconds_of_a_round(table[:1]) == 0.0


def test_two_runs_of_the_same_work_take_the_same_whoever_compiles(tmp_path):
    found = []
    for name, compiling in (("first", 8.0), ("second", 0.5)):
        (tmp_path / name).mkdir()
        seconds = [0.25, *(0.25 + compiling + 0.125 * n for n in range(1, 9))]
        rows(seconds, evaluated=(0, 8)).to_csv(tmp_path / name / "metrics.csv", index=False)
        found.append(seconds_without_compilation(tmp_path / name, rounds=8, seconds=seconds[-1]))
    assert found == [pytest.approx(1.0)] * 2  # 8 times 0.125 s.


def test_a_reference_keeps_its_seconds(tmp_path):
    assert seconds_without_compilation(tmp_path, rounds=None, seconds=0.5) == 0.5
