"""Trackers: a run's settings and metrics in MLflow or Weights & Biases, where they are installed.

A tracker is told a part of metrics.csv. If it fails, the run ends, and can be resumed. MLflow reads
`MLFLOW_TRACKING_URI`, and Weights & Biases reads `WANDB_MODE` and `WANDB_PROJECT`, to know where to
write.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from fedrecon.errors import InputError

TRACKERS = ("mlflow", "wandb")
_PROJECT = "fedrecon"
_MOST_CHARACTERS = 500  # Of a parameter of MLflow.


class Tracker(Protocol):
    """Where a run is told."""

    def log(self, round_num: int, metrics: Mapping[str, float]) -> None:
        """Tells the metrics of a round, by names such as `unseen_validation/rmse`."""

    def close(self, *, is_finished: bool) -> None:
        """Ends the run; a run that is resumed is told as another run of the same name."""


class MlflowTracker:
    """Through MLflow's client, which holds no global state."""

    def __init__(self, name: str, settings: Mapping[str, Any]):
        entities = _required("mlflow.entities")
        self._metric = entities.Metric
        self._client = _required("mlflow").MlflowClient()
        experiment = self._client.get_experiment_by_name(_PROJECT)
        number = (
            experiment.experiment_id if experiment else self._client.create_experiment(_PROJECT)
        )
        self._run = self._client.create_run(number, run_name=name).info.run_id
        parameters = [entities.Param(k, str(v)[:_MOST_CHARACTERS]) for k, v in settings.items()]
        self._client.log_batch(self._run, params=parameters)

    def log(self, round_num, metrics):
        told = [self._metric(name, value, 0, round_num) for name, value in metrics.items()]
        self._client.log_batch(self._run, metrics=told)

    def close(self, *, is_finished):
        self._client.set_terminated(self._run, "FINISHED" if is_finished else "KILLED")


class WandbTracker:
    """Through a run of Weights & Biases."""

    def __init__(self, name: str, settings: Mapping[str, Any]):
        self._run = _required("wandb").init(project=_PROJECT, name=name, config=dict(settings))

    def log(self, round_num, metrics):
        self._run.log(dict(metrics), step=round_num)

    def close(self, *, is_finished):
        self._run.finish(exit_code=0 if is_finished else 1)


def open_tracker(kind: str, name: str, settings: Mapping[str, Any]) -> Tracker:
    """Returns a tracker that has been told the settings.

    Args:
      kind: One of `TRACKERS`.
      name: What to call the run.
      settings: By name; those that are None are left out.

    Raises:
      InputError: If its package is not installed.
    """
    told = {key: value for key, value in settings.items() if value is not None}
    return {"mlflow": MlflowTracker, "wandb": WandbTracker}[kind](name, told)


def _required(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f"the tracker {package} is not installed; install it with pip install {package}."
        ) from error
