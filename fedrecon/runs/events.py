"""A run's events for TensorBoard: its settings, the metrics of its rounds, the spread over users.

`tensorboard --logdir` on a folder of runs shows them side by side: scalars by name
(`unseen_validation/rmse`), settings with results under HParams, and a histogram for each measure of
single users.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, float]


class Events:
    """Writes one file of events. TensorFlow keeps what is written for up to two minutes."""

    def __init__(self, path: pathlib.Path, settings: Mapping[str, Any]):
        """Opens a new file in a folder and writes the settings.

        Args:
          path: The folder. A run that is resumed has a file for each time.
          settings: By name; a setting that is None is not in force and is left out.
        """
        import tensorflow as tf
        from tensorboard.plugins.hparams import api

        self._writer = tf.summary.create_file_writer(str(path))
        told = {name: value for name, value in settings.items() if value is not None}
        if told:
            with self._writer.as_default():
                api.hparams(told)

    def write_rows(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Writes the metrics of rounds, each with its number."""
        import tensorflow as tf

        with self._writer.as_default():
            for round_num, row in rows:
                for name, value in row.items():
                    tf.summary.scalar(name, value, step=round_num)

    def write_users(self, round_num: int, users: Mapping[str, np.ndarray]) -> None:
        """Writes histograms of values of single users, `[n]`, by names such as `group/rmse`."""
        import tensorflow as tf

        with self._writer.as_default():
            for name, values in users.items():
                tf.summary.histogram(f"users/{name}", values, step=round_num)

    def close(self) -> None:
        self._writer.close()
