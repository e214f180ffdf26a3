"""Means with standard errors over users: only where a run has them."""

import pytest

from experiments.comparison import report
from tests.experiments.comparison.runs_by_hand import (
    REFERENCE,
    implicit_results,
    strong_results,
    tables,
    writer,
)

pytestmark = pytest.mark.usefixtures("without_page")


def test_means_over_seeds_come_with_standard_errors_over_users(tmp_path):
    write = writer(tmp_path)
    runs = [write(strong_results("fed_ials", seed, ndcg)) for seed, ndcg in ((0, 0.3), (1, 0.5))]
    runs.append(write(strong_results("ease", 0, 0.26, **REFERENCE), watched=()))
    report.write_report(tmp_path / "out", runs)
    (table,) = (t for t in tables(tmp_path / "out") if t[0][2] == "NDCG@100")
    assert table == [
        ["users", "algorithm", "NDCG@100", "Recall@20", "Recall@50"],
        ["unseen_test", "fed_ials", "0.4000 ± 0.0400", "0.2000 ± 0.0200", "0.3000 ± 0.0300"],
        ["unseen_test", "ease", "0.2600 ± 0.0260", "0.1300 ± 0.0130", "0.1950 ± 0.0195"],
    ]
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "References are trained on one machine, without rounds: ease adds up weights" in text
    assert "fed_ials has the best NDCG@100 on unseen_test users: 0.400" in text


def test_other_rankings_have_no_such_section(tmp_path):
    run = writer(tmp_path)(implicit_results("fed_ials", 0, 0.5))
    report.write_report(tmp_path / "out", [run])
    assert "Standard errors" not in (tmp_path / "out" / "comparison.md").read_text()
