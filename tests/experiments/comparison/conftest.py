"""Run directories of a comparison, and the pictures that are drawn of them."""

import json

import matplotlib.figure
import pytest

from tests.experiments.comparison.runs_by_hand import MEASURES


@pytest.fixture
def write(tmp_path):
    """Writes a run's files and returns its directory; `watched` are rounds and two measures."""

    def write_run(results, *, watched=((0, 3.5, 0.0), (2, 1.5, 0.25), (4, 1.25, 0.5)), settings=()):
        values = results if isinstance(results, dict) else results.to_json()
        changes = "".join(f"-{name}={value}" for name, value in values["changes"].items())
        path = tmp_path / "runs" / f"{values['algorithm']}-{values['seed']}{changes}"
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(values))
        config = {"settings": {**dict(settings), **values["changes"]}, "data_fingerprint": "abc"}
        (path / "config.json").write_text(json.dumps(config))
        if watched:
            first, second = (f"{values['watched_group']}/{m}" for m in MEASURES[values["feedback"]])
            rows = [f"{number},0.5,,{a},{b}\n" for number, a, b in watched]
            rows.insert(1, "1,0.7,0.9,,\n")  # Trained, not evaluated.
            (path / "metrics.csv").write_text(
                f"round,seconds,train/loss,{first},{second}\n{''.join(rows)}"
            )
        return path

    return write_run


@pytest.fixture
def drawn(monkeypatch):
    """The panels of the pictures drawn, by the picture's name."""
    pictures = {}
    savefig = matplotlib.figure.Figure.savefig

    def remember(figure, path, **kwargs):
        pictures[path.name.removesuffix(".png")] = figure.axes
        return savefig(figure, path, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return pictures
