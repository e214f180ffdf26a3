"""The pictures that are drawn of a comparison."""

import matplotlib.figure
import pytest

from experiments.pages import page


@pytest.fixture
def without_page(monkeypatch):
    """Leaves report.html empty: it has tests of its own, and takes the longest to write."""
    monkeypatch.setattr(page, "rendered", lambda shown: "")


@pytest.fixture
def drawn(monkeypatch, without_page):
    """The panels of the pictures drawn, by the picture's name."""
    pictures = {}
    savefig = matplotlib.figure.Figure.savefig

    def remember(figure, path, **kwargs):
        pictures[path.name.removesuffix(".png")] = figure.axes
        return savefig(figure, path, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return pictures
