"""Tables of the page of results: found, compared with other figures, and replaced."""

import pytest

from experiments.comparison import page
from fedrecon.errors import InputError

REPORT = """# Comparison

**a wins.**

| algorithm | RMSE          | KB |
| :-------- | ------------: | -: |
| a         | **0.867 ± 0.014** | 1,200 |
| b         | 0.891 ± 0.012 | x |

A note.

## Differences to the best

| users | algorithm | seed 0 |
| :---- | :-------- | -----: |
| seen  | a         | 0 |
| seen  | b         | 0.024 (0.011 to 0.031) |

## A section without a table

Words.
"""
PAGE = """Before.

<!-- from ratings: Comparison -->
old
<!-- end -->

Between. <!-- from ratings: Differences to the best -->
older
<!-- end -->
"""


def test_the_first_table_of_each_section_is_found():
    tables = page.tables_of(REPORT)
    assert list(tables) == ["Comparison", "Differences to the best"]
    assert tables["Comparison"].count("\n") == 4
    assert tables["Comparison"].endswith("| b         | 0.891 ± 0.012 | x |\n")


def test_tables_of_a_page_are_found_and_replaced():
    found = page.blocks(PAGE)
    assert [(b.comparison, b.section, b.table) for b in found] == [
        ("ratings", "Comparison", "old\n"),
        ("ratings", "Differences to the best", "older\n"),
    ]
    new = page.with_tables(PAGE, {("ratings", "Comparison"): "| new |\n"})
    assert new == PAGE.replace("old\n", "| new |\n", 1)
    assert page.with_tables(PAGE, {}) == PAGE


def test_what_differs_beyond_the_tolerance_is_named_by_row_and_column():
    old = page.tables_of(REPORT)["Comparison"]
    assert page.differences(old, old, tolerance=0.0) == []
    # Bold and the spread are no figures of their own; 0.003 is within 0.004 and 0.005 is not.
    near = old.replace("**0.867 ± 0.014**", "0.870 ± 0.020")
    assert page.differences(old, near, tolerance=0.004) == []
    assert page.differences(old, near, tolerance=0.002) == [
        "a, RMSE was 0.867 ± 0.014 and is 0.870 ± 0.020"
    ]
    far = old.replace("0.891", "0.896").replace("1,200", "1,201").replace("| x", "| 3")
    assert page.differences(old, far, tolerance=0.004) == [
        "a, KB was 1,200 and is 1,201",
        "b, RMSE was 0.891 ± 0.012 and is 0.896 ± 0.012",
        "b, KB was x and is 3",
    ]


def test_rows_are_named_by_all_their_words():
    old = page.tables_of(REPORT)["Differences to the best"]
    new = old.replace("0.024", "0.124").replace("| seen  | a         | 0 |\n", "")
    assert page.differences(old, new, tolerance=0.004) == [
        "seen a, seed 0 is not in the new table",
        "seen b, seed 0 was 0.024 (0.011 to 0.031) and is 0.124 (0.011 to 0.031)",
    ]


def test_every_figure_is_new_where_no_table_was():
    new = "| a | RMSE |\n| :- | -: |\n| b | 1.0 |\n"
    assert page.differences("", new, tolerance=0.0) == ["b, RMSE is new"]


def test_what_is_no_table_is_refused():
    with pytest.raises(InputError, match="expected a table with a heading, found 'old"):
        page.differences("old\n", "| a |\n| :- |\n", tolerance=1.0)


def test_every_table_of_the_page_has_its_comparison(repository):
    found = page.blocks((repository / "docs" / "results.md").read_text(encoding="utf-8"))
    assert {"ratings", "rankings"} <= {block.comparison for block in found}
    assert {block.comparison for block in found} <= set(page.COMPARISONS)
    for block in found:
        assert page.differences(block.table, block.table, tolerance=0.0) == []
    for comparison in page.COMPARISONS.values():
        assert (repository / "experiments/presets" / f"{comparison.preset}.flags").exists()


def test_a_name_stands_for_itself_and_for_all_that_begin_with_it():
    assert page.named("ratings") == ["ratings"]
    assert page.named("paper")[0] == "paper"
    assert {"paper_shared", "paper_query_of_all"} < set(page.named("paper"))
    with pytest.raises(InputError, match="there is no comparison 'papers'; did you mean paper"):
        page.named("papers")
