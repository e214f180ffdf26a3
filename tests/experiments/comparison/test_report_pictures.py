"""The report of a comparison, from run directories made by hand: the pictures."""

import pytest

from experiments.comparison import report
from tests.experiments.comparison.runs_by_hand import (
    CENTRALIZED,
    REFERENCE,
    explicit_results,
    implicit_results,
    lines,
)

pytestmark = pytest.mark.usefixtures("without_page")


def test_only_ials_has_no_curves_at_all(tmp_path, write):
    run = write(implicit_results("ials", 0, 0.75, **REFERENCE), watched=())
    files = report.write_report(tmp_path, [run])
    assert [path.name for path in files] == ["comparison.csv", "comparison.md", "report.html"]
    assert "quality_rounds" not in (tmp_path / "comparison.md").read_text()


def test_curves_are_means_over_seeds_and_the_untrained_model_sets_no_limit(tmp_path, write, drawn):
    rows = [
        [(0, 9.0, 0.0), (2, 1.5, 0.25), (4, 1.0, 0.5)],
        [(0, 7.0, 0.0), (2, 2.5, 0.25), (4, 1.0, 0.5)],
    ]
    runs = [
        write(explicit_results("fed_recon", seed, 1.0, 0.5), watched=rows[seed]) for seed in (0, 1)
    ]
    report.write_report(tmp_path, runs)
    rmse, accuracy, rounded = drawn["quality_rounds"]
    assert rmse.get_title() == "unseen_validation RMSE by rounds (lower is better)"
    assert accuracy.get_title() == "unseen_validation accuracy by rounds (higher is better)"
    assert rounded.get_title() == "unseen_validation rounded accuracy by rounds (higher is better)"
    assert lines(rmse) == {"fed_recon": [[0, 2, 4], [8.0, 2.0, 1.0]]}
    assert lines(accuracy) == {"fed_recon": [[0, 2, 4], [0.0, 0.25, 0.5]]}
    assert lines(rounded) == {"fed_recon": [[0, 2, 4], [0.0, 0.125, 0.25]]}
    # The band of round 2 is 2 ± sqrt(0.5); a twentieth of the range is left above and below.
    high = 2 + 0.5**0.5
    assert rmse.get_ylim() == pytest.approx((1 - 0.05 * (high - 1), high + 0.05 * (high - 1)))


def test_the_first_rounds_set_no_limit_either(tmp_path, write, drawn):
    # Of 10 rounds the first is before a fifth of them, and the second is not.
    watched = [(0, 9.0, 0.0), (1, 5.0, 0.0), (2, 2.0, 0.25), (10, 1.0, 0.5)]
    report.write_report(
        tmp_path, [write(explicit_results("fed_recon", 0, 1.0, 0.5), watched=watched)]
    )
    assert drawn["quality_rounds"][0].get_ylim() == pytest.approx((0.95, 2.05))


def test_bytes_are_of_all_clients_so_far(tmp_path, write, drawn):
    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5)),
        write(explicit_results("centralized", 0, 1.0, 0.5, **CENTRALIZED)),
    ]
    report.write_report(tmp_path, runs)
    rmse, *_ = drawn["quality_bytes"]
    assert rmse.get_xscale() == "log"
    found = lines(rmse)
    # 2 and 4 rounds of 10 clients, 0.7427 MB each; and once 2000 people's 900 bytes.
    assert found["fed_recon"][0] == pytest.approx([14.854, 29.708])
    assert found["fed_recon"][1] == [1.5, 1.25]
    assert found["centralized"][0] == pytest.approx([1.8])
    assert found["centralized"][1] == [1.25]


@pytest.mark.slow
def test_an_algorithm_looks_the_same_in_every_company(tmp_path, write, drawn):
    first = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    second = write(explicit_results("fed_avg", 0, 1.0, 0.5))
    colors = []
    for runs in ([first, second], [second, first], [second]):
        report.write_report(tmp_path, runs)
        drawn_lines = drawn["quality_rounds"][0].get_lines()
        colors.append({line.get_label(): line.get_color() for line in drawn_lines})
    assert colors[0] == colors[1]
    assert colors[2]["fed_avg"] == colors[0]["fed_avg"] != colors[0]["fed_recon"]
