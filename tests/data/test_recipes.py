"""The recipes of docs/own_data.md, on a few rows in the layout of each data set."""

import contextlib
import os
import re
import shlex

import pandas as pd
import pytest

from experiments.run.flags import settings_from_flags
from experiments.run.population import read_ratings
from tests.experiments.small import parse_flags

# For each data set its file, its text, and the rows that it has: user, item, stars.
FILES = {
    "Amazon 2014, ratings only": (
        "AH2L9G3DQHHAJ,0000000116,4.0,1019865600\nA2IIIDRK3PRRZY,0000000116,1.0,1395619200\n",
        [("A2IIIDRK3PRRZY", "0000000116", 1), ("AH2L9G3DQHHAJ", "0000000116", 4)],
    ),
    "Amazon 2018, ratings only": (
        "0001713353,A1C6M8LCIX4M6M,5.0,1123804800\n0001713353,A1REUF3A1YCPHM,4.0,1112140800\n",
        [("A1C6M8LCIX4M6M", "0001713353", 5), ("A1REUF3A1YCPHM", "0001713353", 4)],
    ),
    "Amazon 2023, ratings only": (
        "user_id,parent_asin,rating,timestamp\nAG7,B081TJ8YS3,4.0,1588615855070\n"
        "AH3,B081TJ8YS3,1.0,1588615855071\n",
        [("AG7", "B081TJ8YS3", 4), ("AH3", "B081TJ8YS3", 1)],
    ),
    "Goodbooks-10k": (
        "user_id,book_id,rating\n2,4081,4\n1,258,5\n",
        [(1, 258, 5), (2, 4081, 4)],
    ),
    "Book-Crossing": (
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n'
        '"276726";"0155061224";"5"\n"276726";"3é";"6"\n',
        [(276726, "0155061224", 5), (276726, "3é", 6)],
    ),
    "Anime": ("user_id,anime_id,rating\n1,20,-1\n1,24,10\n2,20,7\n", [(1, 24, 10), (2, 20, 7)]),
}
# The same, of files that need the lines of Python of their section first.
CONVERTED = {
    "Last.fm HetRec 2011": (
        "Without times",
        {"user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n3\t51\t7\n"},
        [(2, 51, 1), (2, 52, 1), (3, 51, 1)],
    ),
    "Jester": ("Jester", {}, [(0, 1, -7.82), (0, 3, 9.5), (1, 2, 4.08)]),
    "Netflix": (
        "Netflix",
        {
            "combined_data_1.txt": "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n",
            "combined_data_2.txt": "3:\n822109,4,2005-10-19\n",
            "combined_data_3.txt": "",
            "combined_data_4.txt": "",
        },
        [(822109, 1, 5), (822109, 3, 4), (1488844, 1, 3)],
    ),
}


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "own_data.md").read_text(encoding="utf-8")


def flags_of(page, name):
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
    return shlex.split(re.findall(r"`(--[^`]+)`", row)[-1])


@contextlib.contextmanager
def inside(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def rows_read(flags, folder):
    parse_flags("--output_dir=unused", *flags)
    with inside(folder):
        ratings = read_ratings(settings_from_flags())
    users, items = ratings.original_user_ids.tolist(), ratings.original_item_ids.tolist()
    found = zip(ratings.user_ids.tolist(), ratings.item_ids.tolist(), ratings.ratings.tolist())
    return ratings, [(users[u], items[i], pytest.approx(stars)) for u, i, stars in found]


def test_every_row_of_the_table_is_tried_here(page):
    names = re.findall(r"^\| ([^|]+?) \|.*`--ratings_file", page, flags=re.MULTILINE)
    assert names == [*list(FILES)[:4], "Last.fm HetRec 2011", "Book-Crossing", "Jester", "Anime",
                     "Netflix"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_its_flags(page, name, tmp_path):
    text, rows = FILES[name]
    flags = flags_of(page, name)
    file = flags[0].partition("=")[2]
    encoding = "latin-1" if name == "Book-Crossing" else "utf-8"
    (tmp_path / file).write_text(text, encoding=encoding)
    ratings, found = rows_read(flags, tmp_path)
    assert found == rows
    if name == "Amazon 2023, ratings only":
        assert ratings.timestamps.tolist() == [1588615855, 1588615855]


@pytest.mark.parametrize("name", CONVERTED)
def test_a_file_is_converted_and_read(page, name, tmp_path, monkeypatch):
    heading, files, rows = CONVERTED[name]
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    # Of Excel, which needs a package of its own: how many ratings there are, then each.
    matrix = pd.DataFrame([[2, -7.82, 99, 9.5], [1, 99, 4.08, 99]])
    monkeypatch.setattr(pd, "read_excel", lambda path, header: matrix)
    with inside(tmp_path):
        exec(code, {})
    ratings, found = rows_read(flags_of(page, name), tmp_path)
    assert found == rows
    if name == "Netflix":  # 2005-05-13, 2005-10-19 and 2005-09-06.
        assert ratings.timestamps.tolist() == [1115942400, 1129680000, 1125964800]
