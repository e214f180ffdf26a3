"""The site is built with strict links, has the docstrings, and needs no network."""

import html.parser
import os
import subprocess
import sys

import pytest

import fedrecon as fr
from docs.tools import api_page

pytest.importorskip("mkdocs")
pytestmark = pytest.mark.slow


class Resources(html.parser.HTMLParser):
    """Collects what a browser fetches to show a page, and the anchors of the page."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        if tag in ("script", "img", "iframe", "source"):
            self.fetched.append(found.get("src"))
        if tag == "link" and found.get("rel") != "canonical":
            self.fetched.append(found.get("href"))


@pytest.fixture(scope="module")
def site(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=repository,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # A link that leads nowhere is in it.
    return folder


def test_each_page_of_the_repository_is_in_the_site(repository, site):
    built = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in (repository / "docs").glob("*.md")} - {"README"} <= built
    assert "index" in built
    assert (site / "repository" / "BUILD_NOTES.html").is_file()
    assert not [*site.glob("tools/*.py")]


def test_no_page_fetches_anything_from_elsewhere(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 15
    for page in pages:
        fetched = Resources(page.read_text(encoding="utf-8")).fetched
        assert fetched
        for address in filter(None, fetched):
            assert "//" not in address, f"{page}: {address}"
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style


def test_each_public_name_has_its_docstring(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    anchors = Resources(text).anchors
    groups = api_page.public_names().values()
    wanted = {f"{module}.{name}" for names in groups for name, module in names.items()}
    assert len(wanted) == len(fr.__all__)
    assert wanted <= anchors
    assert text.count("Raises:") > 10
    assert (
        "clients_per_round" in text.split('id="fedrecon.algorithms.fed_recon.prepare_fed_recon"')[1]
    )
