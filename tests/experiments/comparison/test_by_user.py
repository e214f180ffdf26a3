"""Differences of single users to a reference: whom to compare with, shares, quantiles, picture."""

import numpy as np
import pytest

from experiments.comparison import report
from experiments.comparison.by_user import percents
from experiments.comparison.results import PerUser
from fedrecon.evaluation.metrics import UserResults
from tests.experiments.comparison.runs_by_hand import (
    CENTRALIZED,
    REFERENCE,
    explicit_results,
    implicit_results,
    tables,
)

pytestmark = pytest.mark.usefixtures("without_page")


def users_with(measure, values, counts=None):
    """The same results of five users of both groups."""
    values = np.array(values, float)
    counts = np.full(len(values), 5) if counts is None else np.array(counts)
    own = PerUser(np.arange(len(values)), UserResults({measure: values}, counts))
    return {"seen_test": own, "unseen_test": own}


def section(output_dir):
    text = (output_dir / "comparison.md").read_text()
    return text.split("## User by user\n\n")[1].split("\n## ")[0]


def test_users_are_compared_with_the_best_reference(tmp_path, write, drawn):
    knn = (1.0, 1.0, 1.0, 1.0, 1.0)
    runs = [
        write(
            explicit_results("fed_recon", seed, 0.5, 0.5),
            # Differences of -0.5, -0.25, 0, 0.25 and 0.5.
            per_user=users_with("rmse", (0.5, 0.75, 1.0, 1.25, 1.5)),
        )
        for seed in (0, 1)
    ]
    runs += [
        write(
            explicit_results(name, seed, rmse, 0.5, **REFERENCE),
            watched=(),
            per_user=users_with("rmse", values),
        )
        for seed in (0, 1)
        for name, rmse, values in (
            ("popularity", 2.0, np.add(knn, 0.125)),
            ("item_knn", 1.0, knn),
        )
    ]
    report.write_report(tmp_path, runs)
    assert section(tmp_path).startswith(
        "A user's RMSE less the same user's RMSE with item_knn, the best reference. Below 0 the "
        "user is better off than with item_knn.\n\n![spread](spread.png)"
    )
    heading, *rows = tables(tmp_path)[2]
    assert heading == [
        *("users", "algorithm", "judged", "better off", "the same", "worse off"),
        *("5%", "25%", "median", "75%", "95%"),
    ]
    # Of ten differences, each twice: numpy's linear quantile 5% lies at place 0.45 of 9, at -0.5;
    # 25% at place 2.25, between the second and the third -0.25.
    assert rows[2:] == [
        [
            *("unseen_test", "fed_recon", "10", "40%", "20%", "40%"),
            *("-0.500", "-0.250", "+0.000", "+0.250", "+0.500"),
        ],
        [
            *("unseen_test", "popularity", "10", "0%", "0%", "100%"),
            *("+0.125", "+0.125", "+0.125", "+0.125", "+0.125"),
        ],
    ]
    seen, unseen = drawn["spread"]
    assert unseen.get_title() == "unseen_test users, one by one: RMSE"
    names = [label.get_text() for label in seen.get_yticklabels()]
    assert names == ["fed_recon", "popularity"]
    (box, _) = seen.patches
    assert (box.get_x(), box.get_width()) == (-0.25, 0.5)


def test_users_who_were_not_judged_count_nowhere(tmp_path, write):
    runs = [
        write(
            explicit_results(name, 0, rmse, 0.5, **others),
            per_user=users_with("rmse", (rmse, rmse, np.nan), counts=(5, 5, 0)),
        )
        for name, rmse, others in (("fed_recon", 0.5, {}), ("popularity", 1.0, REFERENCE))
    ]
    report.write_report(tmp_path, runs)
    assert tables(tmp_path)[2][1][:6] == ["seen_test", "fed_recon", "2", "100%", "0%", "0%"]


def test_without_a_reference_users_are_compared_with_the_best_algorithm(tmp_path, write):
    runs = [
        write(implicit_results(name, 0, hit_rate, **others), per_user=own)
        for name, hit_rate, others, own in (
            ("fed_ials", 0.5, {}, users_with("mrr", (1.0, 0.5, 0.25))),
            ("fed_avg", 0.25, CENTRALIZED, users_with("mrr", (0.5, 0.5, 0.5))),
        )
    ]
    report.write_report(tmp_path, runs)
    text = section(tmp_path)
    assert text.startswith(
        "A user's reciprocal rank less the same user's reciprocal rank with fed_ials, the best "
        "algorithm, as there is no reference. Below 0 the user is worse off than with fed_ials."
    )
    # Of reciprocal ranks the higher is the better: -0.5, 0 and 0.25.
    assert "| unseen_test | fed_avg   |      3 |        34% |      33% |       33% |" in text


def test_runs_without_results_of_users_have_no_such_section(tmp_path, write):
    runs = [write(explicit_results(name, 0, 1.0, 0.5)) for name in ("fed_recon", "fed_avg")]
    files = report.write_report(tmp_path, runs)
    assert "spread.png" not in [path.name for path in files]
    assert "User by user" not in (tmp_path / "comparison.md").read_text()


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ((0.455, 0.0, 0.545), [46, 0, 54]),  # Each rounded alone, they make 101.
        ((1 / 3, 1 / 3, 1 / 3), [34, 33, 33]),  # And here 99.
        ((0.999, 0.001, 0.0), [100, 0, 0]),
        ((0.29, 0.71, 0.0), [29, 71, 0]),  # 100 * 0.29 is a little less than 29.
    ],
)
def test_percentages_of_a_whole_add_up(shares, wanted):
    assert percents(shares) == wanted
    assert sum(percents(shares)) == 100
