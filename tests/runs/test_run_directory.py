import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from fedrecon.runs.run_directory import RunDirectory, RunRecorder
from fedrecon.errors import InputError

CONFIG = {"settings": {"dim": 8, "rate": 0.5, "total_rounds": 5}, "data_fingerprint": "abc"}


def config(fingerprint="abc", **settings):
    return {"settings": {**CONFIG["settings"], **settings}, "data_fingerprint": fingerprint}


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def test_a_new_directory_gets_its_configuration(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "run")
    with run.claim(CONFIG):
        assert run.read_config() == CONFIG
    assert json.loads((run.path / "config.json").read_text()) == CONFIG


def test_the_same_configuration_resumes_and_free_settings_may_change(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claim(CONFIG):
        pass
    with run.claim(config(total_rounds=9), free_settings=frozenset({"total_rounds"})):
        assert run.read_config()["settings"]["total_rounds"] == 9


def test_other_settings_are_refused_by_name_and_nothing_changes(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claim(CONFIG):
        pass
    before = contents(tmp_path)
    message = "dim was 8 and is now 16; rate was 0.5 and is now 0.1. Give another"
    with pytest.raises(InputError, match=message), run.claim(config(dim=16, rate=0.1)):
        pass
    with pytest.raises(InputError, match="extra was None and is now 1"), run.claim(config(extra=1)):
        pass
    assert contents(tmp_path) == before


def test_other_versions_are_pointed_out(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claim({**CONFIG, "versions": {"numpy": "1.25.2"}}):
        pass
    changed = {**CONFIG, "versions": {"numpy": "1.26.0"}}
    with pytest.warns(UserWarning, match=r"begun with .*1\.25\.2.* goes on with .*1\.26\.0"):
        with run.claim(changed):
            pass


def test_other_data_are_refused(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claim(CONFIG):
        pass
    with pytest.raises(InputError, match="a run on other data"), run.claim(config("abd")):
        pass


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match=r"holds files but no config\.json"):
        with RunDirectory(tmp_path).claim(CONFIG):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        with RunDirectory(tmp_path / "thesis.tex").claim(CONFIG):
            pass


def test_a_broken_configuration_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"settings": ')
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        RunDirectory(tmp_path).read_config()
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json is not of a run: it needs settings and"):
        RunDirectory(tmp_path).read_config()
    with pytest.raises(InputError, match="is not the directory of a run"):
        RunDirectory(tmp_path / "nowhere").read_config()


def test_two_processes_cannot_train_in_one_directory(tmp_path, repository):
    run = RunDirectory(tmp_path)
    code = (
        "import sys; from fedrecon.runs.run_directory import RunDirectory\n"
        f"with RunDirectory({str(tmp_path)!r}).claim({CONFIG!r}): pass\n"
    )
    command = [sys.executable, "-c", code]
    with run.claim(CONFIG):
        other = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert "another process is training in" in other.stderr
    assert subprocess.run(command, cwd=repository).returncode == 0  # Free again.


def test_checkpoints_are_complete_ones_in_numeric_order(tmp_path):
    for name in ("round_0", "round_100", "round_25", "round_50_temp1234"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert RunDirectory(tmp_path).checkpoints() == [0, 25, 100]
    assert RunDirectory(tmp_path / "none").checkpoints() == []


def test_final_metrics_round_trip_and_refuse_what_json_lacks(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.read_final_metrics() is None
    run.write_final_metrics({"test": {"rmse": 0.9}, "rounds": 3})
    with pytest.raises(ValueError, match="Out of range"):
        run.write_final_metrics({"test": {"rmse": float("nan")}})
    assert run.read_final_metrics() == {"test": {"rmse": 0.9}, "rounds": 3}


def test_after_a_failure_nothing_more_is_written_and_the_caller_hears_of_it(tmp_path):
    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)

    save = recorder._states.save

    async def fail_at_first(state, round_num):
        if round_num == 0:
            raise OSError("No space left on device")
        await save(state, round_num)

    recorder._states.save = fail_at_first
    recorder.release({"train/rmse": 3.5, "seconds": 0.5}, 0)
    recorder.save(np.zeros(2), 0)
    recorder.release({"train/rmse": 2.5, "seconds": 1.5}, 1)
    recorder.save(np.zeros(2), 1)
    with pytest.raises(OSError, match="No space left"):
        recorder.flush()
    assert [row["round"] for row in run.read_metrics()] == [0]
    assert run.checkpoints() == []


def test_what_belongs_to_a_checkpoint_is_saved_before_it(tmp_path):
    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)
    there = []
    recorder.save(np.zeros(2), 0, first=lambda: there.append(run.checkpoints()))
    recorder.save(np.zeros(2), 1, first=lambda: there.append(run.checkpoints()))
    recorder.save(np.ones(2), 1, first=lambda: there.append("again"))  # Saved already.
    recorder.flush()
    assert there == [[], [0]]
    assert run.checkpoints() == [0, 1]
    np.testing.assert_array_equal(recorder.load(1, np.zeros(2)), [0, 0])


def test_a_failure_in_what_belongs_to_a_checkpoint_leaves_no_checkpoint(tmp_path):
    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)

    def fail():
        raise OSError("No space left on device")

    recorder.save(np.zeros(2), 0)
    recorder.save(np.zeros(2), 1, first=fail)
    recorder.save(np.zeros(2), 2)
    with pytest.raises(OSError, match="No space left"):
        recorder.flush()
    assert run.checkpoints() == [0]


def test_metrics_reach_the_csv_file_and_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)
    recorder.release({"validation/rmse": 3.5, "seconds": 0.5}, 0)
    recorder.release({"train/rmse": 2.5, "seconds": 1.5}, 1)
    recorder.release({"train/rmse": 2.25, "validation/rmse": 2.75, "seconds": 2.5}, 2)
    recorder.close()
    assert run.read_metrics() == [
        {"round": 0, "seconds": 0.5, "validation/rmse": 3.5},
        {"round": 1, "seconds": 1.5, "train/rmse": 2.5},
        {"round": 2, "seconds": 2.5, "train/rmse": 2.25, "validation/rmse": 2.75},
    ]
    assert recorder.metrics(2, "validation") == {"rmse": 2.75}
    assert recorder.metrics(1, "validation") == {}
    assert recorder.seconds(1) == 1.5
    with pytest.raises(InputError, match=r"metrics\.csv has no row for round 3"):
        recorder.seconds(3)
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"tensors": 0})
    events.Reload()
    steps = {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    assert steps == {"validation/rmse": [0, 2], "train/rmse": [1, 2], "seconds": [0, 1, 2]}


def test_curves_are_drawn_from_the_saved_metrics(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "round,validation/rmse,validation/accuracy,validation/loss,train/rmse,train/accuracy,"
        "train/loss\n0,3.5,0.0,12.25,,,\n1,,,,3.0,0.1,9.0\n2,2.0,0.2,4.0,2.5,0.2,6.25\n"
    )
    run = RunDirectory(tmp_path)
    assert run.read_metrics()[1] == {
        "round": 1,
        "train/rmse": 3.0,
        "train/accuracy": 0.1,
        "train/loss": 9.0,
    }
    header = run.draw_curves().read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    assert width > 3 * height  # Three panels side by side.


def drawn_axes(monkeypatch, run):
    """Draws the curves; returns the panels."""
    import matplotlib.figure

    figures = []
    savefig = matplotlib.figure.Figure.savefig

    def remember(figure, *args, **kwargs):
        figures.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    assert run.draw_curves().read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    return {axes.get_title(): axes for axes in figure.axes}


def test_curves_of_a_ranking(tmp_path, monkeypatch):
    (tmp_path / "metrics.csv").write_text(
        "round,test/hr_at_10,test/ndcg_at_10,test/mrr,train/rmse,train/accuracy,train/loss\n"
        "0,0.1,0.04,0.05,,,\n1,,,,0.4,0.8,0.9\n2,0.5,0.25,0.2,0.4,0.8,0.5\n"
        "3,0.6,0.35,0.3,0.3,0.9,0.4\n"
    )
    axes = drawn_axes(monkeypatch, RunDirectory(tmp_path))
    assert list(axes) == [
        "HR@10 (mean over users)",
        "NDCG@10 (mean over users)",
        "loss (mean over examples)",
    ]
    hr, _, loss = axes.values()
    ((rounds, values),) = [line.get_data() for line in hr.get_lines()]
    assert (list(rounds), list(values)) == ([0, 2, 3], [0.1, 0.5, 0.6])
    assert [line.get_label() for line in hr.get_lines()] == ["test"]
    assert [line.get_label() for line in loss.get_lines()] == ["train"]


@pytest.mark.parametrize("metric", ["hr_at_10", "rmse"])
def test_the_untrained_model_does_not_set_the_limits_of_the_curves(tmp_path, monkeypatch, metric):
    far = {"hr_at_10": 0.01, "rmse": 35.0}[metric]
    (tmp_path / "metrics.csv").write_text(
        f"round,validation/{metric}\n0,{far}\n1,0.5\n2,0.6\n3,0.9\n"
    )
    (axes,) = drawn_axes(monkeypatch, RunDirectory(tmp_path)).values()
    low, high = axes.get_ylim()
    assert low == pytest.approx(0.5 - 0.02)  # A twentieth of the range above and below.
    assert high == pytest.approx(0.9 + 0.02)


@pytest.mark.parametrize("values", ["0,0.5\n", "0,0.1\n2,0.5\n", "0,0.1\n2,0.5\n4,0.5\n"])
def test_curves_of_hardly_any_rounds(tmp_path, monkeypatch, values):
    (tmp_path / "metrics.csv").write_text(f"round,test/hr_at_10\n{values}")
    (axes,) = drawn_axes(monkeypatch, RunDirectory(tmp_path)).values()
    low, high = axes.get_ylim()
    assert low < 0.5 < high
