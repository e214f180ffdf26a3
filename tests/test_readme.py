"""Checks that the pages speak of things that exist, and that README's example runs."""

import pathlib
import re

import numpy as np
import pytest

from fedrecon.data.datasets import DATASET_NAMES
from fedrecon.models.functional import FunctionalModel

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGES = ["README.md", "BUILD_NOTES.md", *(f"docs/{p.name}" for p in REPOSITORY.glob("docs/*.md"))]

# Flags of absl and tensorboard, and the beginning of `--no...`.
OTHER_FLAGS = {"flagfile", "help", "helpfull", "logdir", "no"}


def read(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def python_with(page, words):
    """The block of Python of a page that has these words."""
    every = re.findall(r"```python\n(.*?)```", read(page), flags=re.DOTALL)
    (code,) = [code for code in every if words in code]
    return code


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_example_of_library_use_runs(in_process_runtime, capsys):
    code = python_with("README.md", "run_round")
    # The test's own context stays, and small data and three rounds stand for the real ones.
    for found, instead in (
        ("fr.set_in_process_context()\n", ""),
        ('"movielens-1m"', '"synthetic"'),
        ("range(1, 501)", "range(1, 4)"),
        ("clients_per_round=100", "clients_per_round=20"),
    ):
        assert code.count(found) == 1
        code = code.replace(found, instead)
    exec(code, {})
    assert "'rmse'" in capsys.readouterr().out


def test_the_examples_of_own_data_and_own_model_work():
    names = {}
    exec(python_with("docs/own_data.md", "from_original_ids"), names)
    assert (names["ratings"].num_users, names["ratings"].num_items) == (2, 2)
    exec(python_with("docs/own_model.md", "def genre_factorization"), names)
    genres = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    model = FunctionalModel(names["genre_factorization"](num_items=5, genres=genres, dim=2))
    assert [(w.name, w.is_local, w.is_item_table, w.trainable) for w in model.weights] == [
        ("items/embeddings", False, True, True),
        ("genres/embeddings", False, True, False),
        ("user/embeddings", True, False, True),
        ("taste/embeddings", True, False, True),
    ]


@pytest.mark.parametrize("page", PAGES)
def test_the_flags_that_a_page_names_exist(page):
    named = set(re.findall(r"(?<![\w-])--([a-z_0-9]+)", read(page)))
    known = set(re.findall(r"^###+ `--(\w+)`", read("docs/flags.md"), flags=re.MULTILINE))
    unknown = named - OTHER_FLAGS - known
    assert not {name for name in unknown if name.removeprefix("no") not in known}


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page):
    text = read(page)
    path = r"(?:experiments|fedrecon|tests|docs)/[\w/]+\.(?:py|flags|md|csv|log|png)"
    for name in re.findall(rf"(?<![\w/]){path}\b", text):
        assert (REPOSITORY / name).is_file(), name
    for room in re.findall(r"`((?:experiments|fedrecon|tests|docs)/(?:\w+/)*)`", text):
        assert (REPOSITORY / room).is_dir(), room


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        assert linked.is_file(), target
        if anchor:
            assert anchor in headings(linked.relative_to(REPOSITORY)), target


def test_the_reference_has_every_data_set():
    named = re.findall(r"`([\w-]+)`", read("docs/reference.md").split("## Data sets")[1])
    assert set(DATASET_NAMES) <= set(named)
