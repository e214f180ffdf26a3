"""A page: one self-contained HTML file, without a request to any network.

The template escapes all text: titles of items are other people's. The page tells the browser to
load nothing and to run no script but its own, which sorts tables.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import pathlib
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
from markupsafe import Markup, escape

from experiments.pages import pictures
from experiments.pages.sections import Block, Cell, Section

_FOLDER = pathlib.Path(__file__).parent
_LONG_COMMAND = 90
_CODE = re.compile(r"`([^`]+)`")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a reader came for.

    Attributes:
      text: The result, in a sentence.
      certainty: How sure it is, in a sentence.
    """

    text: str
    certainty: str


@dataclasses.dataclass(frozen=True)
class Served:
    """A test user, and what each algorithm recommends to the user.

    Attributes:
      user: The user's id.
      who: What the user is to the algorithms, in a sentence.
      liked: Titles of items that the user likes, and the ratings in words, if there are ratings.
      lists: For each algorithm: titles, scores, and how the user rates the item, in words; empty
        where nobody asked.
    """

    user: str
    who: str
    liked: tuple[tuple[str, str], ...]
    lists: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]


@dataclasses.dataclass(frozen=True)
class ServedUsers:
    """Some test users."""

    users: tuple[Served, ...]


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, as it can be given to a shell.

    Attributes:
      text: It, on one line.
    """

    text: str

    @property
    def lines(self) -> str:
        """The command with a line for each flag, where one line would be long."""
        if len(self.text) <= _LONG_COMMAND:
            return self.text
        words = [shlex.quote(word) for word in shlex.split(self.text)]
        first = next((n for n, word in enumerate(words) if word.startswith("--")), None)
        head, tail = words[:first], words[first:]
        return " \\\n  ".join([" ".join(head), *tail])


@dataclasses.dataclass(frozen=True)
class Links:
    """Files: where each is, seen from the page, and what it holds."""

    files: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Folded:
    """Blocks that a reader opens."""

    summary: str
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page says, from the top.

    Attributes:
      title: Its heading.
      lead: What was run, in one sentence.
      verdicts: What came of it.
      sections: The rest. Their blocks may be the blocks of this module, too.
    """

    title: str
    lead: str
    verdicts: tuple[Verdict, ...]
    sections: tuple[Section, ...]


def rendered(shown: Page) -> str:
    """Returns the HTML of a page; the same page gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        kind=lambda block: type(block).__name__,
        prose=_prose,
        anchor=_anchor,
        breakable=_breakable,
        cell=lambda cell: cell if isinstance(cell, Cell) else Cell(str(cell)),
    )
    script = (_FOLDER / "sort.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        page=shown,
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=_digest(script),
        panel_svg=pictures.panel_svg,
        legend_key=_remembered(pictures.legend_key),
    )


def write(shown: Page, path: pathlib.Path) -> pathlib.Path:
    """Writes a page, whole or not at all, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(rendered(shown))
        os.chmod(part, 0o666 & ~_umask())  # mkstemp lets nobody else read it.
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    return path


def links(folder: pathlib.Path, files: Sequence[tuple[pathlib.Path, str]]) -> Links:
    """Returns links to files from a page in a folder.

    Args:
      folder: Where the page will be.
      files: Paths, and what is in them.
    """
    return Links(tuple((pathlib.Path(os.path.relpath(p, folder)).as_posix(), w) for p, w in files))


def _remembered(function: Callable[[str, Any], Markup]) -> Callable[[str, Any], Markup]:
    """Returns a function that is computed once for each name: pictures share their legend."""
    found: dict[str, Markup] = {}

    def get(name: str, style: Any) -> Markup:
        if name not in found:
            found[name] = function(name, style)
        return found[name]

    return get


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _digest(script: str) -> str:
    """Returns what a browser compares the script with before it runs it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _prose(text: str) -> Markup:
    """Returns text whose names between backticks are code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _anchor(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _breakable(name: str) -> Markup:
    """Returns a name that may be broken after its underscores and slashes."""
    return Markup(re.sub(r"([_/=])", r"\1<wbr>", str(escape(name))))
