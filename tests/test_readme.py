"""Checks that the pages speak of things that exist, and that README's example runs."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

from experiments.run.defaults import defaults_of
from experiments.run.names import ALGORITHMS
from experiments.run.settings import Settings, uses
from fedrecon.data.datasets import DATASET_NAMES
from fedrecon.errors import InputError
from fedrecon.models.functional import FunctionalModel

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGES = ["README.md", "BUILD_NOTES.md", *(f"docs/{p.name}" for p in REPOSITORY.glob("docs/*.md"))]

# Flags that are no settings: of absl, of single binaries, of pip and tensorboard.
OTHER_FLAGS = {
    *("flagfile", "help", "run_dir", "algorithms", "seeds", "suite", "load_rows"),
    *("group", "round", "other_ratings_file", "new_item_rows", "output"),
    *("set", "sweep", "search", "trials", "references"),
    *("only", "write", "page", "open_report"),
    *("train", "test", "negatives", "candidates", "simulate", "simulate_on", "epochs"),
    *("rate", "ratings", "user_id", "k", "explain", "min_ratings"),
    *("format", "quantize", "nomeasure"),
    *("no", "nocache_ratings", "logdir"),
}


def read(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_example_of_library_use_runs(in_process_runtime, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", read("README.md"), flags=re.DOTALL)
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
    own_data, own_model, _ = re.findall(r"```python\n(.*?)```", read("docs/adding.md"), re.DOTALL)
    exec(own_data, names)
    assert (names["ratings"].num_users, names["ratings"].num_items) == (2, 2)
    exec(own_model, names)
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
    assert not named - OTHER_FLAGS - set(Settings.__dataclass_fields__)


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


def test_the_reference_has_every_setting_with_its_group_and_default():
    section = read("docs/reference.md").split("## Settings")[1].split("## Data sets")[0]
    for group in ("data", "model", "algorithm", "training"):
        (part,) = re.findall(rf"### {group.title()}\n(.*?)(?=\n### |\Z)", section, flags=re.DOTALL)
        listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", part, flags=re.MULTILINE))
        assert listed == {
            field.name: _default(field)
            for field in dataclasses.fields(Settings)
            if field.metadata["group"] == group
        }


def test_the_reference_has_the_defaults_of_every_algorithm():
    page = read("docs/reference.md").split("### Defaults by algorithm\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    heading, _, *rows = [[cell.strip() for cell in line] for line in lines]
    assert heading == ["setting", *(f"`{name}`" for name in ALGORITHMS)]
    every = {field.name: _defaults(field) for field in dataclasses.fields(Settings)}
    assert {name.strip("`"): dict(zip(ALGORITHMS, cells)) for name, *cells in rows} == {
        name: {a: " / ".join(dict.fromkeys(of.get(a, ["-"]))) for a in ALGORITHMS}
        for name, of in every.items()
        if _differ(of)
    }


def _default(field):
    """A setting's default as the table of its group shows it."""
    of = _defaults(field)
    if _differ(of):
        return "[by algorithm](#defaults-by-algorithm)"
    return next(iter(of.values()), [_shown(field.default)])[0]


def _defaults(field):
    """What matrix factorization has by default, for each algorithm that uses the setting.

    One value, or one with explicit and one with implicit feedback.
    """
    of = {}
    if field.name in ("algorithm", "feedback"):
        return of
    for algorithm in ALGORITHMS:
        for feedback in ("explicit", "implicit"):
            values = {"algorithm": algorithm, "feedback": feedback, "model": "matrix_factorization"}
            try:
                settings = Settings.of_used({**values, **defaults_of(values)})
            except InputError:
                continue  # There is no such pair.
            if uses(settings, field.name):
                of.setdefault(algorithm, []).append(_shown(getattr(settings, field.name)))
    return of


def _differ(of):
    return len({value for values in of.values() for value in values}) > 1


def _shown(default):
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f"`{default}`"
    return f"{default:g}"
