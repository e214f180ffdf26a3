"""The clients that a comparison's runs left out, from runs made by hand."""

import pandas as pd
import pytest

from experiments.comparison import report
from tests.experiments.comparison.runs_by_hand import REFERENCE, explicit_results

pytestmark = pytest.mark.usefixtures("without_page")


def leave_out(path, *numbers):
    """Gives metrics.csv the clients that each round left out; a run has four rounds of ten."""
    table = pd.read_csv(path / "metrics.csv")
    table["train/num_clients_rejected"] = pd.Series(numbers).reindex(table.index)
    table.to_csv(path / "metrics.csv", index=False)


def test_runs_that_left_clients_out_are_counted(tmp_path, write):
    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5)),
        write(explicit_results("fed_avg", 0, 1.5, 0.5)),
        write(explicit_results("fed_avg", 1, 1.5, 0.5)),
        write(explicit_results("fed_recon", 1, 1.0, 0.5)),
        write(explicit_results("popularity", 0, 2.0, 0.5, **REFERENCE), watched=None),
        write(explicit_results("popularity", 1, 2.0, 0.5, **REFERENCE), watched=None),
    ]
    leave_out(runs[0], 0, 0)
    leave_out(runs[1], 3, 4)
    leave_out(runs[2], 0, 1)
    report.write_report(tmp_path, runs)
    table = pd.read_csv(tmp_path / "comparison.csv").set_index(["algorithm", "seed"])
    counts = table["clients_left_out"]
    assert counts["fed_avg"].tolist() == [7, 1]
    assert counts["fed_recon"].tolist() == [0, 0]
    assert counts["popularity"].isna().all()
    text = (tmp_path / "comparison.md").read_text()
    _, _, section = text.partition("## Clients left out")
    rows = [line.strip("| ").split(" | ") for line in section.split("\n## ")[0].splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ["fed_avg", "0", "7", "40"] in cells
    assert ["fed_avg", "1", "1", "40"] in cells
    assert "fed_recon" not in section.split("\n## ")[0]


def test_nothing_is_said_where_none_was_left_out(tmp_path, write):
    report.write_report(tmp_path, [write(explicit_results("fed_recon", 0, 1.0, 0.5))])
    assert "Clients left out" not in (tmp_path / "comparison.md").read_text()
