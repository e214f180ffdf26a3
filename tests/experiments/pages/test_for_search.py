"""The page of a search: the trials, what is chosen, and whether it lies at the edge of its grid."""

import pytest

from experiments.pages.write import write_report
from fedrecon.errors import InputError
from tests.experiments.pages.runs_by_hand import read_page, write_search

ROWS = [
    "5.0,0.3,10,1.25,0.125,6.0,1",
    "20.0,0.3,10,1.5,,5.0,1",
    "1.0,0.3,20,1.75,,5.0,1",
    "5.0,1.0,0,1.75,,5.0,1",
]


def test_the_trials_and_what_is_chosen_of_each_grid(tmp_path):
    search = write_search(tmp_path / "search", ROWS)
    shown = read_page(write_report([search]))
    assert shown.tables["Trials, the best first"][:3] == [
        ["trial", "ridge", "server_learning_rate", "rounds", "validation RMSE", "seconds"],
        ["1", "5", "0.3", "10", "1.2500 ± 0.1250", "6.0"],
        ["2", "20", "0.3", "10", "1.5000", "5.0"],
    ]
    assert (
        "ridge 5 and server_learning_rate 0.3 and 10 rounds have the best validation RMSE: 1.250 "
        "± 0.125 over seeds. The next trial is 0.250 behind."
    ) in shown.text
    assert "ridge : 5, inside its grid (1 to 20)." in shown.text
    assert "server_learning_rate : 0.3, at the edge of its grid (0.3 to 1); a lower value" in (
        shown.text
    )
    assert "Rounds: 10, of 20, so more rounds would not have helped." in shown.text
    assert "no test figure was computed" in shown.text
    assert len([found for found in shown.attributes("svg") if "role" in found]) == 2
    assert "What is not shown" not in shown.text
    settings = [row[0] for row in shown.tables["Settings"]]
    assert "dim" in settings
    assert "ridge" not in settings  # It has many values; the trials have them.


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("5.0,0.3,20,1.0,,5.0,1", "Rounds: 20, the last evaluation, so more rounds may be better."),
        ("5.0,0.3,0,1.0,,5.0,1", "Rounds: 0, before any training, so training made it worse."),
        ("50.0,0.3,10,1.0,,5.0,1", "grid (1 to 50); a higher value may be better."),
        (",0.3,10,1.0,,5.0,1", "ridge : none, out of 1, 5, 20 and none."),
    ],
)
def test_what_lies_at_an_edge_is_said(tmp_path, row, told):
    search = write_search(tmp_path / "search", [row, *ROWS])
    assert told in read_page(write_report([search])).text


def test_runs_in_no_table_and_trials_outside_of_the_picture_are_said(tmp_path):
    search = write_search(tmp_path / "search", [*ROWS, *["5.0,3.0,10,1e9,,5.0,1"]])
    (search / "trials.csv").write_text("\n".join((search / "trials.csv").read_text().split()[:-1]))
    text = read_page(write_report([search])).text
    assert "1 of 5 runs are in no table: they diverged or were stopped" in text
    far = write_search(tmp_path / "far", [*ROWS, *["5.0,3.0,10,1e9,,5.0,1"]])
    assert "1 of 5 trials are too far off to be in the picture." in (
        read_page(write_report([far])).text
    )


def test_a_reference_leaves_no_settings_and_the_page_says_so(tmp_path):
    search = write_search(tmp_path / "search", ["5.0,0.3,0,1.25,,6.0,1"], has_runs=False)
    text = read_page(write_report([search])).text
    assert "No settings and no command are kept: a reference leaves no runs." in text
    assert "There is no other trial." in text
    assert "ridge : 5, the only value tried." in text


def test_a_table_of_something_else_is_refused(tmp_path):
    search = write_search(tmp_path / "search", ROWS)
    (search / "trials.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"trials\.csv is not a table of experiments\.tune"):
        write_report([search])
    assert not (search / "report.html").exists()
