"""The page of a comparison, without a browser: figures, escaping, structure, determinism."""

import base64
import csv
import hashlib
import re

import pytest

from experiments.comparison import report
from experiments.pages.write import write_report
from tests.experiments.comparison.runs_by_hand import writer
from tests.experiments.pages.runs_by_hand import EVIL, read_page, write_comparison


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The directory of a comparison with its report."""
    path = tmp_path_factory.mktemp("made")
    report.write_report(path, write_comparison(writer(path)))
    return path


@pytest.fixture(scope="module")
def shown(made):
    return read_page(made / "report.html")


def test_the_page_has_the_figures_of_the_table_and_of_markdown(made, shown):
    with open(made / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    heading, *cells = shown.tables["Means over seeds"]
    assert [row[0] for row in cells] == ["fed_recon", "fed_avg", "popularity"]
    for row in cells:
        own = [each for each in rows if each["algorithm"] == row[0]]
        for title, column in (
            ("seen_test RMSE", "seen_test_rmse"),
            ("unseen_test accuracy", "unseen_test_accuracy"),
        ):
            mean = sum(float(each[column]) for each in own) / len(own)
            assert row[heading.index(title)].startswith(f"{mean:.3f} ± ")
    # Markdown has the same tables; only the mark of the best differs.
    lines = [
        [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        for line in (made / "comparison.md").read_text().splitlines()
        if line.startswith("|") and ":--" not in line
    ]
    captions = ("Means over seeds", "RMSE less the RMSE of the best", "Quality by ratings given")
    for caption in captions:
        assert all(row in lines for row in shown.tables[caption])


def test_who_won_comes_first_and_says_whether_it_is_noise(shown):
    # Users differ by 0.75 each, whatever the means of the table.
    first = "fed_avg has the best RMSE on unseen_test users: 10.500, 0.7"
    assert first in shown.text
    assert shown.text.index(first) < shown.text.index("Means over seeds")
    assert "Outside the noise: the 95% interval of the difference to each of the 2 others" in (
        shown.text
    )
    lead = "2 algorithms and 1 reference on generated ratings of 1,000 users and 500 items"
    assert lead in shown.text


def test_titles_are_text_and_never_code(made, shown):
    text = (made / "report.html").read_text()
    assert "<script>alert" not in text
    assert "alert(" not in re.sub(r"&lt;script&gt;alert\(", "", text)
    assert EVIL in shown.text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        found["content"]
        for found in shown.attributes("meta")
        if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_page_is_one_small_file_that_asks_for_nothing(made, shown):
    assert (made / "report.html").stat().st_size < 3e6
    assert not [tag for tag, _ in shown.tags if tag in ("link", "img", "iframe", "object", "use.")]
    for tag, attributes in shown.tags:
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and tag != "a":
                assert value.startswith("#"), (tag, value)
    links = [found["href"] for found in shown.attributes("a")]
    files = [link for link in links if not link.startswith("#")]
    assert "comparison.csv" in files
    assert all((made / link).exists() for link in files)
    ids = [dict(found)["id"] for _, found in shown.tags if "id" in dict(found)]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_a_screen_reader_finds_its_way(shown):
    assert shown.attributes("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    tags = [tag for tag, _ in shown.tags]
    assert tags.count("caption") == tags.count("table") > 5
    assert {found.get("scope") for found in shown.attributes("th")} == {"col", "row"}
    pictures = shown.attributes("svg")
    assert len(pictures) > 10
    for found in pictures:
        is_decoration = found.get("aria-hidden") == "true"
        assert is_decoration or (found["role"] == "img" and found["aria-label"])
    assert tags[tags.index("body") + 1] == "a"  # To the content.


def test_settings_that_differ_come_first_and_the_command_is_there(shown):
    titles = list(shown.tables)
    differing = shown.tables["Settings that differ"]
    assert differing[0] == ["setting", "fed_recon", "fed_avg", "popularity"]
    assert ["dim", "50", "8", "–"] in differing  # noqa: RUF001
    assert titles.index("Settings that differ") < titles.index("Settings that all share")
    assert ["dataset", "synthetic"] in shown.tables["Settings that all share"]
    assert "python -m experiments.compare --output_dir='my runs'" in shown.text
    assert "Seeds: 0, 1. Versions: fedrecon 0.1.0, python 3.11.7." in shown.text
    assert "About the ratings: 2 lines were left out." in shown.text


def test_three_users_and_how_they_rate_what_is_recommended(shown):
    for user in ("User 11", "User 18", "User 30"):
        assert user in shown.text
    assert f"{EVIL} 4.25 rated 5 Brazil 4.00" in shown.text
    assert "took no part in training and gives 12 items" in shown.text


def test_the_same_files_give_the_same_page_by_either_way(made):
    before = (made / "report.html").read_bytes()
    assert write_report([made]) == made / "report.html"
    assert (made / "report.html").read_bytes() == before


@pytest.mark.slow
def test_without_a_table_the_finished_runs_of_the_folder_are_compared(tmp_path, write):
    write_comparison(write)
    shown = read_page(write_report([tmp_path]))
    assert "comparison.csv" not in [found["href"] for found in shown.attributes("a")]
    algorithms = [row[0] for row in shown.tables["Means over seeds"][1:]]
    assert algorithms == ["fed_avg", "fed_recon", "popularity"]


@pytest.mark.slow
def test_what_cannot_be_shown_is_said(tmp_path, write):
    runs = write_comparison(write)
    for run in runs:
        (run / "user_results.npz").unlink()
        (run / "samples.json").unlink()
    (runs[0] / "results.json").unlink()
    metrics = runs[1] / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("90.0", "inf"))
    report.write_report(tmp_path, runs[1:])
    text = read_page(tmp_path / "report.html").text
    assert "Not known whether it is noise" in text
    assert "there are no results of the same single users (user_results.npz)" in text
    assert "Runs that are not finished, since they diverged or were stopped: fed_recon-0." in text
    assert "keep no recommendations for single users" in text
    assert "Not drawn, since they diverged: 1 evaluations of fed_avg." in text
