"""The page of flags says what the code says."""

import dataclasses
import re

import pytest

from docs.tools import flags_page
from experiments.run.defaults import defaults_of
from experiments.run.names import ALGORITHMS
from experiments.run.settings import Settings, uses
from fedrecon.errors import InputError

IN_WORDS = {
    "feedback": "`implicit` for the NCF files, `no_ratings`, `strong_generalization`, `fed_ials`, "
    "`ials` and EASE; else `explicit`",
    "output_dir": "none; required",
}


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "flags.md").read_text(encoding="utf-8")


def test_the_settings_of_the_page_are_up_to_date(page):
    settings = "\n".join(flags_page.of_settings())
    assert page.startswith(settings), "run python -m docs.tools.flags_page"


@pytest.mark.slow
def test_the_whole_page_is_up_to_date(page):
    assert page == flags_page.page(), "run python -m docs.tools.flags_page"


@pytest.mark.parametrize("group", ["data", "model", "algorithm", "training"])
def test_every_setting_is_in_its_group_with_its_default(page, group):
    (part,) = re.findall(rf"^## {group.title()}\n(.*?)(?=^## )", page, re.DOTALL | re.MULTILINE)
    entry = r"^### `--(\w+)`\n.*?\nDefault: (.*?)\.(?:\n| Only)"
    of_group = [f for f in dataclasses.fields(Settings) if f.metadata["group"] == group]
    assert dict(re.findall(entry, part, re.MULTILINE | re.DOTALL)) == {
        field.name: IN_WORDS.get(field.name) or _default(field) or "not given" for field in of_group
    }


def test_the_table_has_the_defaults_of_every_algorithm(page):
    part = page.split("## Defaults by algorithm\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    heading, _, *rows = [[cell.strip() for cell in line] for line in lines]
    assert heading == ["setting", *(f"`{name}`" for name in ALGORITHMS)]
    every = {field.name: _defaults(field) for field in dataclasses.fields(Settings)}
    assert {
        re.findall(r"`(\w+)`", name)[0]: dict(zip(ALGORITHMS, cells)) for name, *cells in rows
    } == {
        name: {a: " / ".join(dict.fromkeys(v or "-" for v in of.get(a, [""]))) for a in ALGORITHMS}
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
        return f"`{str(default).lower()}`"
    if isinstance(default, str):
        return f"`{default}`"
    return f"{default:g}"
