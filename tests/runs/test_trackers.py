"""Trackers against what MLflow's own store of files has afterwards."""

import sys

import pytest

from fedrecon.errors import InputError
from fedrecon.runs.trackers import open_tracker


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    return pytest.importorskip("mlflow")


def test_mlflow_has_the_settings_and_the_metrics_of_each_round(mlflow):
    tracker = open_tracker("mlflow", "first", {"dim": 8, "ridge": 0.5, "data_dir": None})
    tracker.log(0, {"unseen_validation/rmse": 1.25})
    tracker.log(10, {"unseen_validation/rmse": 0.75, "train/loss": 2.0})
    tracker.close(is_finished=True)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("fedrecon").experiment_id])
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"dim": "8", "ridge": "0.5"}
    history = client.get_metric_history(run.info.run_id, "unseen_validation/rmse")
    assert [(m.step, m.value) for m in history] == [(0, 1.25), (10, 0.75)]
    assert run.data.metrics["train/loss"] == 2.0


def test_mlflow_has_each_run_of_the_experiment_and_what_was_interrupted(mlflow):
    for name in ("first", "second"):
        open_tracker("mlflow", name, {}).close(is_finished=name == "first")
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("fedrecon").experiment_id])
    assert {r.info.run_name: r.info.status for r in runs} == {
        "first": "FINISHED",
        "second": "KILLED",
    }


def test_wandb_is_told_the_same(monkeypatch):
    told = []

    class Run:
        def log(self, metrics, step):
            told.append((step, metrics))

        def finish(self, exit_code):
            told.append(exit_code)

    class Wandb:
        @staticmethod
        def init(project, name, config):
            told.append((project, name, config))
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    tracker = open_tracker("wandb", "first", {"dim": 8})
    tracker.log(3, {"train/loss": 2.0})
    tracker.close(is_finished=False)
    assert told == [("fedrecon", "first", {"dim": 8}), (3, {"train/loss": 2.0}), 1]


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb is not installed; install it with pip install"):
        open_tracker("wandb", "first", {})
