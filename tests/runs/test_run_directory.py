import json
import subprocess
import sys

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.runs import files
from fedrecon.runs.run_directory import RunDirectory

CONFIG = {"settings": {"dim": 8, "rate": 0.5, "total_rounds": 5}, "data_fingerprint": "abc"}


def config(fingerprint="abc", **settings):
    return {"settings": {**CONFIG["settings"], **settings}, "data_fingerprint": fingerprint}


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def test_a_new_directory_gets_its_configuration(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "run")
    with run.claim(CONFIG):
        assert run.read_config() == CONFIG
    written = json.loads((run.path / "config.json").read_text())
    assert len(written.pop("sha256")) == 64
    assert written == CONFIG


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
    with pytest.raises(InputError, match=r"config\.json is damaged: it holds no values by name"):
        RunDirectory(tmp_path).read_config()
    with pytest.raises(InputError, match="is not the directory of a run"):
        RunDirectory(tmp_path / "nowhere").read_config()


def fail_in(run, work=lambda: None):
    """Claims a directory, does some work, and finds that something cannot be used."""

    def start():
        with run.claim(CONFIG):
            work()
            raise InputError("no GPU.")

    with pytest.raises(InputError, match="no GPU"):
        start()


def test_a_start_that_failed_leaves_nothing(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "run")

    def begin():
        run.users_path.write_text("user_id,part\n")
        (run.path / "events").mkdir()

    fail_in(run, begin)
    assert list(tmp_path.iterdir()) == []
    with run.claim(config(dim=9)):  # Other settings are welcome.
        pass


def test_a_run_with_a_row_stays_when_it_fails(tmp_path):
    run = RunDirectory(tmp_path / "run")
    fail_in(run, lambda: (run.path / "metrics.csv").write_text("round\n0\n"))
    before = contents(run.path)
    fail_in(run)
    assert contents(run.path) == before
    assert run.read_config() == CONFIG


def test_a_start_that_failed_leaves_what_was_there(tmp_path):
    fail_in(RunDirectory(tmp_path / "a"), (tmp_path / "other").mkdir)
    assert [each.name for each in tmp_path.iterdir()] == ["other"]


def test_a_disk_that_was_full_at_the_start_leaves_a_directory_that_works(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")

    def fail(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", fail)
        message = r"config\.json cannot be written: No space left on device\.$"
        with pytest.raises(InputError, match=message), run.claim(CONFIG):
            pass
    assert list(tmp_path.iterdir()) == []
    run.path.mkdir()
    (run.path / "config.json.part").write_text("{")  # Or its process was killed.
    (run.path / ".lock").write_text("")
    with run.claim(CONFIG):
        assert not list(run.path.glob("*.part"))


def test_what_a_killed_process_had_half_written_is_removed_by_the_next(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claim(CONFIG):
        pass
    before = contents(tmp_path)
    (tmp_path / "curves.png.part").write_text("half")
    (tmp_path / "model.part").mkdir()
    (tmp_path / "checkpoints" / "round_3.part").mkdir(parents=True)
    with run.claim(CONFIG):
        assert list(tmp_path.rglob("*.part")) == []
    assert contents(tmp_path) == before


def test_a_run_that_another_process_holds_stays(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.claim(CONFIG):
        (run.path / "config.json").unlink()  # As before it was written.
        with pytest.raises(InputError, match="another process"), run.claim(CONFIG):
            pass
        assert (run.path / ".lock").exists()


def test_settings_of_a_damaged_file_are_not_used(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claim(CONFIG):
        pass
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    message = r"config\.json was changed after it was written: .*; put it back from a copy, or"
    with pytest.raises(InputError, match=message), run.claim(CONFIG):
        pass


@pytest.mark.slow
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
    for name in ("round_0", "round_100", "round_25", "round_50.part"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert RunDirectory(tmp_path).checkpoints() == [0, 25, 100]
    assert RunDirectory(tmp_path / "none").checkpoints() == []


def test_final_metrics_round_trip_and_refuse_what_json_lacks(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.read_final_metrics() is None
    run.write_final_metrics({"unseen_test": {"rmse": 0.9}, "rounds": 3})
    with pytest.raises(ValueError, match="Out of range"):
        run.write_final_metrics({"unseen_test": {"rmse": float("nan")}})
    assert run.read_final_metrics() == {"unseen_test": {"rmse": 0.9}, "rounds": 3}


def test_results_of_users_round_trip_and_are_whole_or_not_there(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    assert run.read_user_results() is None
    arrays = {"seen/users": np.array([3, 1]), "seen/values/rmse": np.array([0.1, np.nan])}
    run.write_user_results(arrays)
    found = run.read_user_results()
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)

    def fail_halfway(file, **arrays):
        file.write(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail_halfway)
    with pytest.raises(InputError, match=r"user_results\.npz cannot be written: No space left"):
        run.write_user_results({"other": np.zeros(2)})
    assert list(run.read_user_results()) == list(arrays)
    (tmp_path / "user_results.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"user_results\.npz cannot be read"):
        run.read_user_results()


def test_metrics_that_cannot_be_read_are_named(tmp_path):
    run = RunDirectory(tmp_path)
    for text, message in (
        (None, r"metrics\.csv cannot be read: .*No such file"),
        ("round,train/loss\n1,0.5\nx,0.25\n", r"cannot be read: could not convert string"),
        ("garbage\n1\n", "cannot be read: a row has no round"),
        ("round\n1,2\n", "cannot be read: a row has more values than there are columns"),
    ):
        if text is not None:
            (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            run.read_metrics()
    (tmp_path / "metrics.csv").write_bytes(b"round\n\xff\n")
    with pytest.raises(InputError, match="cannot be read: 'utf-8' codec"):
        run.read_metrics()


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path):
    (tmp_path / "metrics.csv").write_text("garbage\n1\n")
    with pytest.warns(UserWarning, match=r"curves\.png was not drawn: .*metrics\.csv cannot be"):
        RunDirectory(tmp_path).draw_curves()
    assert not (tmp_path / "curves.png").exists()
