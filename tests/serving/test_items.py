"""How users name items, and the file of items."""

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.serving.items import Items

AWKWARD = (
    *('Matrix, The (1999)', 'The "Burbs" (1989)', "Amélie 天使 🎬", "two\nlines", "a\rb", "c\r\nd"),
    *("", " spaced  out ", "x=5", "0", "item,title"),
)  # fmt: skip


def items_of(*titles, ids=None, counts=None):
    number = len(titles)
    return Items(
        ids=np.arange(10, 10 + number) if ids is None else np.array(ids),
        titles=titles,
        genres=((),) * number,
        num_ratings=np.arange(number) if counts is None else np.array(counts),
    )


def again(items):
    is_text = items.ids.dtype.kind == "U"
    return Items.from_csv(items.to_csv(), ids_are_text=is_text, label="items.csv")


ITEMS = items_of("Heat (1995)", "Heat Wave", "Alien", "ALIEN", "", "13")


@pytest.mark.parametrize(
    "item",
    [10, "10", " 10 ", np.int64(10), 10.0, np.float64(10), "hEAT (1995)", "  Heat   (1995) "],
)
def test_an_item_is_found_by_id_and_by_title(item):
    assert ITEMS.find(item) == 0


@pytest.mark.parametrize(
    "item", [9, -10, 10.5, 10**30, float("nan"), float("inf"), "", "Heat", None]
)
def test_what_is_no_item_is_not_found(item):
    assert ITEMS.find(item) is None


def test_a_title_of_two_items_finds_none_and_offers_both():
    assert ITEMS.find("alien") is None
    assert ITEMS.near("alien") == ["'ALIEN' (13)", "'Alien' (12)"]  # More often rated first.


def test_a_title_that_is_written_exactly_so_goes_before_others():
    assert [ITEMS.find(title) for title in ("Alien", "ALIEN", " ALIEN ")] == [2, 3, 3]
    assert items_of("Alien", "Alien").find("Alien") is None


FILMS = ["Die große Nacht (1990)", "die stille", "Die Stille", "1 Film", "B2"]


@pytest.mark.parametrize(
    ("item", "row"),
    [
        *[("die große nacht (1990)", 0), ("DIE GROSSE  NACHT (1990)", 0), (" B2", 4), ("b2", 4)],
        *[("die stille", 1), ("Die Stille", 2), ("DIE STILLE", None), ("Die Nacht", None)],
    ],
)
@pytest.mark.parametrize("has_titles", [False, True])
def test_ids_of_text_are_found_whatever_the_case_of_their_letters(item, row, has_titles):
    items = items_of(*(FILMS if has_titles else [""] * len(FILMS)), ids=FILMS)
    assert items.find(item) == row


def test_a_name_that_is_not_found_says_why_and_offers_ids_of_text():
    items = items_of(*[""] * len(FILMS), ids=FILMS)
    assert items.refusal("DIE STILLE") == (
        "'DIE STILLE' names 2 items; name one of them alone: 'Die Stille' or 'die stille'."
    )
    assert items.refusal("Die Nacht") == (
        "'Die Nacht' is no item of the model. Did you mean 'Die große Nacht (1990)'?"
    )
    assert items.refusal("Die Stlle").endswith(" Did you mean 'Die Stille' or 'die stille'?")
    assert items.refusal("zzz") == "'zzz' is no item of the model."
    assert items_of("", "").refusal(1) == "'1' is no item of the model."  # Numbers are not offered.


def test_another_item_may_be_called_like_an_id():
    items = items_of("b", "", ids=["A", "B"])
    assert items.find("B") == 1
    assert items.find("b") == 0
    assert items_of("b", "", ids=["A", "B"]).refusal(" b  c") == "' b  c' is no item of the model."


def test_an_id_goes_before_a_title_that_reads_the_same():
    assert ITEMS.find("13") == 3  # Item 15 is called "13".


@pytest.mark.parametrize(
    ("ids", "item", "row"),
    [
        (["007", "07", "7"], "007", 0),
        (["007", "07", "7"], "7", 2),
        (["007", "07", "7"], 7, 2),
        (["007", "07"], 7, None),
        ([" a", "a", "b "], " a", 0),
        ([" a", "a", "b "], "a", 1),
        ([" a", "a", "b "], "b ", 2),
        ([-5, 0, 2**63 - 1], 2**63 - 1, 2),
        ([-5, 0, 2**63 - 1], "-5", 0),
        ([-5, 0, 2**63 - 1], 2**63, None),
        (["é", "日本"], "日本", 1),
    ],
)
def test_ids_are_never_changed(ids, item, row):
    items = items_of(*[""] * len(ids), ids=ids)
    assert items.find(item) == row
    assert again(items).find(item) == row
    assert again(items).ids.tolist() == ids


def test_near_titles_come_by_how_often_they_were_rated():
    items = items_of("Star Trek", "Star Wars (1977)", "Stargate", "Alien", counts=[3, 9, 3, 99])
    assert items.near("star") == ["'Star Wars (1977)' (11)", "'Star Trek' (10)", "'Stargate' (12)"]
    assert items.near("Alein") == ["'Alien' (13)"]
    assert items.near("zzzzzz") == items.near("") == []


def test_a_name_is_the_title_or_else_the_id():
    assert ITEMS.name(0) == "Heat (1995)"
    assert ITEMS.name(4) == "14"


@pytest.mark.parametrize("ids_are_text", [False, True])
def test_any_title_and_genre_is_read_as_it_was_written(ids_are_text):
    number = len(AWKWARD)
    ids = np.arange(number)
    items = Items(
        ids=np.array([f"00{i},\"{i}\"" for i in ids]) if ids_are_text else ids * 10**17 - 5,
        titles=AWKWARD,
        genres=(("Drama", "Sci, Fi"), ("Children's",), *((),) * (number - 2)),
        num_ratings=ids * 7,
    )  # fmt: skip
    read = again(items)
    assert read.ids.tolist() == items.ids.tolist()
    assert read.ids.dtype.kind == items.ids.dtype.kind
    assert read.titles == items.titles
    assert read.genres == items.genres
    assert read.num_ratings.tolist() == items.num_ratings.tolist()
    assert read.num_ratings.dtype == np.int64


HEADER = "row,item_id,title,genres,num_ratings\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns row, item_id"),
        ("row,item_id\n0,1\n", "must have the columns"),
        (HEADER, "it has no items"),
        (HEADER + "1,5,,,0\n", "line 2 is not of row 0"),
        (HEADER + "0,5,,,0\n0,6,,,0\n", "line 3 is not of row 1"),
        (HEADER + "0,5,,0\n", "line 2 is not of row 0"),
        (HEADER + "0,five,,,0\n", "invalid literal"),
        (HEADER + "0,5,,,many\n", "invalid literal"),
        (HEADER + f"0,{2**70},,,0\n", "too large"),
        (HEADER + '0,5,"' + "x" * 200_000 + '",,0\n', "field larger"),
    ],
)
def test_another_table_is_refused_in_a_sentence(text, message):
    with pytest.raises(InputError, match=message) as raised:
        Items.from_csv(text, ids_are_text=False, label="items.csv")
    assert str(raised.value).startswith("items.csv ")
