"""What makes a site of pages that are written for the repository's view; MkDocs calls it.

- A link to a file outside of docs/ (`../BUILD_NOTES.md`, `../experiments/presets/demo.flags`) gets
  the file into the site: Markdown as a page, everything else as it is.
- The tables of api.md are followed by the docstrings of their names.
"""

from __future__ import annotations

import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_FOLDER = "repository"
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_API_ROW = re.compile(r"^\| `(\w+)` \| .* \| \[`([\w/]+)\.py`\]\(.*\) \|$", re.MULTILINE)
# A page of this project, at its place in the site: README.md would be the index of its folder.
_NAMES = {"README.md": "readme.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of the repository that pages link to, and that those pages link to."""
    waiting = [file.src_uri for file in files.documentation_pages()]
    texts = {uri: files.get_file_from_path(uri).content_string for uri in waiting}
    while waiting:
        uri = waiting.pop()
        for _, target, _ in _LINK.findall(texts[uri]):
            path = _outside(uri, target)
            place = path and _place(path)
            if not place or files.get_file_from_path(place) is not None:
                continue
            if path.suffix == ".md":
                texts[place] = path.read_text(encoding="utf-8")
                files.append(File.generated(config, place, content=texts[place]))
                waiting.append(place)
            else:
                files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns the page's text with links that lead to where the files are in the site."""
    del config, files  # All is told by the page.
    uri = page.file.src_uri
    folder = posixpath.dirname(uri) or "."

    def moved(match: re.Match) -> str:
        path = _outside(uri, match[2])
        place = path and _place(path)
        target = match[2]
        if place:
            target = posixpath.relpath(place, folder)
        elif uri.startswith(f"{_FOLDER}/") and _in_docs(uri, match[2]):
            target = posixpath.relpath(_in_docs(uri, match[2]), folder)
        return f"{match[1]}{target}{match[3]}"

    text = _LINK.sub(moved, markdown)
    return _with_docstrings(text) if uri == "api.md" else text


def _original(uri: str) -> pathlib.Path:
    """Returns where the page of the site is in the repository."""
    if not uri.startswith(f"{_FOLDER}/"):
        return REPOSITORY / "docs" / uri
    name = uri.partition("/")[2]
    return REPOSITORY / next((old for old, new in _NAMES.items() if new == name), name)


def _linked(uri: str, target: str) -> pathlib.Path | None:
    """Returns the file of the repository that a link leads to, or None for other links."""
    if ":" in target:
        return None
    path = pathlib.Path(posixpath.normpath(_original(uri).parent / target))
    return path if path.is_file() and REPOSITORY in path.parents else None


def _outside(uri: str, target: str) -> pathlib.Path | None:
    path = _linked(uri, target)
    return path if path and REPOSITORY / "docs" not in path.parents else None


def _in_docs(uri: str, target: str) -> str | None:
    path = _linked(uri, target)
    return str(path.relative_to(REPOSITORY / "docs")) if path else None


def _place(path: pathlib.Path) -> str:
    name = str(path.relative_to(REPOSITORY))
    return f"{_FOLDER}/{_NAMES.get(name, name)}"


def _with_docstrings(text: str) -> str:
    """Returns the page with `::: module.name` after each table."""
    parts = re.split(r"(?m)^(?=## )", text)
    for number, part in enumerate(parts):
        rows = [(name, path.replace("/", ".")) for name, path in _API_ROW.findall(part)]
        for name, module in rows:
            part = part.replace(f"| `{name}` |", f"| [`{name}`](#{module}.{name}) |")
            part += f"\n::: {module}.{name}\n"
        parts[number] = part
    return "\n".join(parts)
