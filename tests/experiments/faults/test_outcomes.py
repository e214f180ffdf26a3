import pytest

from experiments.faults.outcomes import EQUAL, OLDER, OTHER, REFUSED, TRACEBACK, Case, judged, table
from experiments.faults.served import DONE, SENTENCE, Ended
from experiments.faults.served import TRACEBACK as FAILED


@pytest.mark.parametrize(
    ("how", "text", "is_equal", "outcome"),
    [
        (DONE, "", True, EQUAL),
        (DONE, "round 8 is passed over.", True, OLDER),
        (DONE, "round 8 is passed over.", False, OTHER),
        (DONE, "", False, OTHER),
        (SENTENCE, "it is damaged.", False, REFUSED),
        (SENTENCE, "it is damaged.\nand this is the second line", False, TRACEBACK),
        (FAILED, "KeyError", True, TRACEBACK),
    ],
)
def test_an_ending_is_one_of_five(how, text, is_equal, outcome):
    assert judged(Ended(how, text, ""), lambda: is_equal) == outcome


def test_the_table_counts_by_file_and_command():
    cases = [
        Case("resume", "metrics.csv", "deleted", REFUSED, ""),
        Case("resume", "metrics.csv", "cut", OLDER, ""),
        Case("resume", "metrics.csv", "emptied", OLDER, ""),
        Case("evaluate", "metrics.csv", "deleted", EQUAL, ""),
        Case("resume", "config.json", "deleted", TRACEBACK, ""),
    ]
    heading, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table(cases).splitlines()
    ]
    assert heading[3:] == [EQUAL, OLDER, REFUSED, OTHER, TRACEBACK]
    assert ["metrics.csv", "resume", "3", "0", "2", "1", "0", "0"] in rows
    assert ["metrics.csv", "evaluate", "1", "1", "0", "0", "0", "0"] in rows
    assert ["config.json", "resume", "1", "0", "0", "0", "0", "1"] in rows
    assert rows[3:] == [
        ["**all**", "resume", "4", "0", "2", "1", "0", "1"],
        ["**all**", "evaluate", "1", "1", "0", "0", "0", "0"],
    ]
