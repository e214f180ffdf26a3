import struct

import numpy as np
import pytest

from fedrecon.runs import curves
from fedrecon.runs.run_directory import RunDirectory


def drawn(monkeypatch, tmp_path, text):
    """Draws a metrics.csv; returns the panels by title."""
    import matplotlib.figure

    figures = []
    savefig = matplotlib.figure.Figure.savefig

    def remember(figure, *args, **kwargs):
        figures.append(figure)
        return savefig(figure, *args, **kwargs)

    (tmp_path / "metrics.csv").write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", remember)
        RunDirectory(tmp_path).draw_curves()
    header = (tmp_path / "curves.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    assert width > 3 * height
    (figure,) = figures
    return {axes.get_title(): axes for axes in figure.axes}


def csv(columns, rows):
    return "\n".join([f"round,{columns}", *(",".join(map(str, row)) for row in rows)]) + "\n"


def test_curves_of_ratings(tmp_path, monkeypatch):
    text = csv(
        "seen_validation/rmse,seen_validation/loss,seen_validation/n,train/rmse,train/loss,seconds",
        [
            (0, 3.5, 12.25, 9, "", "", 1),
            (1, "", "", "", 3.0, 9.0, 2),
            (2, 2.0, 4.0, 9, 2.5, 6.25, 3),
        ],
    )
    axes = drawn(monkeypatch, tmp_path, text)
    assert list(axes) == ["RMSE", "loss (mean over examples)"]
    for panel in axes.values():
        assert [line.get_label() for line in panel.get_lines()] == ["train", "seen_validation"]
    train, evaluated = axes["RMSE"].get_lines()
    np.testing.assert_array_equal(train.get_data(), [[1, 2], [3.0, 2.5]])
    np.testing.assert_array_equal(evaluated.get_data(), [[0, 2], [3.5, 2.0]])


def test_curves_of_a_ranking(tmp_path, monkeypatch):
    text = csv(
        "seen_test/hr_at_10,seen_test/ndcg_at_10,seen_test/mrr,train/rmse,train/loss",
        [
            (0, 0.1, 0.04, 0.05, "", ""),
            (2, 0.5, 0.25, 0.2, 0.4, 0.5),
            (3, 0.6, 0.35, 0.3, 0.3, 0.4),
        ],
    )
    axes = drawn(monkeypatch, tmp_path, text)
    assert list(axes) == [
        "HR@10 (mean over users)",
        "NDCG@10 (mean over users)",
        "loss (mean over examples)",
    ]
    hr, _, loss = axes.values()
    assert [line.get_label() for line in hr.get_lines()] == ["seen_test"]
    assert [line.get_label() for line in loss.get_lines()] == ["train"]


def test_any_groups_are_drawn(tmp_path, monkeypatch):
    text = csv(
        "unseen_test/rmse,seen_test/rmse,others/rmse,train/rmse",
        [(1, 1, 2, 3, 4), (2, 1, 2, 3, 4)],
    )
    (axes,) = drawn(monkeypatch, tmp_path, text).values()
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["train", "unseen_test", "seen_test", "others"]


@pytest.mark.parametrize("metric", ["hr_at_10", "rmse"])
def test_the_untrained_model_does_not_set_the_limits(tmp_path, monkeypatch, metric):
    far = {"hr_at_10": 0.01, "rmse": 35.0}[metric]
    text = csv(f"unseen_validation/{metric}", [(0, far), (1, 0.5), (2, 0.6), (3, 0.9)])
    (axes,) = drawn(monkeypatch, tmp_path, text).values()
    low, high = axes.get_ylim()
    assert low == pytest.approx(0.5 - 0.02)  # A twentieth of the range above and below.
    assert high == pytest.approx(0.9 + 0.02)


def test_neither_first_rounds_nor_single_rounds_of_training_set_the_limits(tmp_path, monkeypatch):
    rows = [(n, 1 + 50 * 0.5**n, *([1 + 50 * 0.5**n] if n % 10 == 0 else [""])) for n in range(301)]
    rows[150] = (150, 70.0, 1.0)
    rows[290] = (290, 0.9, 1.25)
    (axes,) = drawn(monkeypatch, tmp_path, csv("train/loss,unseen_test/loss", rows)).values()
    low, high = axes.get_ylim()
    assert low == pytest.approx(1 - 0.25 / 20, abs=1e-6)
    assert high == pytest.approx(1.25 + 0.25 / 20, abs=1e-6)


def test_training_far_from_the_evaluation_is_in_the_picture(tmp_path, monkeypatch):
    rows = [(n, 0.25, 0.75) for n in range(1, 40)]
    (axes,) = drawn(monkeypatch, tmp_path, csv("train/rmse,seen_test/rmse", rows)).values()
    low, high = axes.get_ylim()
    assert low == pytest.approx(0.25 - 0.025)
    assert high == pytest.approx(0.75 + 0.025)


@pytest.mark.parametrize("values", ["0,0.5\n", "0,0.1\n2,0.5\n", "0,0.1\n2,0.5\n4,0.5\n"])
def test_curves_of_hardly_any_rounds(tmp_path, monkeypatch, values):
    (axes,) = drawn(monkeypatch, tmp_path, f"round,seen_test/hr_at_10\n{values}").values()
    low, high = axes.get_ylim()
    assert low < 0.5 < high


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e308", "-1e308"])
@pytest.mark.parametrize("at", ["one", "first", "last", "all"])
def test_what_is_not_finite_is_a_gap(tmp_path, monkeypatch, bad, at):
    rows = [[n, 0.5, 0.25 + n / 100] for n in range(30)]
    places = {"one": [15], "first": range(3), "last": range(20, 30), "all": range(30)}[at]
    for place in places:
        rows[place][1:] = [bad, bad]
    (axes,) = drawn(monkeypatch, tmp_path, csv("train/loss,seen_test/loss", rows)).values()
    low, high = axes.get_ylim()
    assert np.isfinite([low, high]).all()
    assert axes.get_xlim() == pytest.approx((-0.87, 29.87))  # All rounds, whatever has a gap.
    if at != "all":
        assert high == pytest.approx(0.54 if at != "last" else 0.5, abs=0.02)
        assert low == pytest.approx(0.31, abs=0.02)


def test_nothing_measured_is_an_empty_picture(tmp_path, monkeypatch):
    assert list(drawn(monkeypatch, tmp_path, "round,seconds\n0,1\n")) == [""]


def test_the_values_worth_seeing_are_finite_ones_after_the_first_rounds():
    rounds = np.array([0, 10, 20, 30, 40, 100])
    values = np.array([9.0, 8.0, 7.0, np.nan, 5.0, np.inf])
    assert curves.worth_seeing(rounds, values).tolist() == [7.0, 5.0]
    assert curves.worth_seeing([0], [9.0]).tolist() == []
    assert curves.worth_seeing([], []).tolist() == []
