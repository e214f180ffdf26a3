"""Events as TensorBoard reads them."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import metadata

from fedrecon.runs.events import Events


@pytest.fixture
def accumulator(tmp_path):
    """Returns what TensorBoard reads of the events of a run in a folder of runs."""
    events = Events(tmp_path / "run" / "events", {"algorithm": "fed_avg", "dim": 8, "l2": None})
    events.write_rows(
        [(0, {"unseen_validation/rmse": 1.25}), (10, {"unseen_validation/rmse": 0.5})]
    )
    events.write_users(10, {"unseen_validation/rmse": np.array([0.0, 1.0, 1.0, 2.0])})
    events.close()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    assert list(multiplexer.Runs()) == ["run/events"]
    return multiplexer.GetAccumulator("run/events")


def test_scalars_have_their_names_and_rounds(accumulator):
    found = accumulator.Tensors("unseen_validation/rmse")
    values = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in found]
    assert values == [(0, 1.25), (10, 0.5)]


def test_settings_are_hyperparameters(accumulator):
    content = accumulator.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    found = {name: value.string_value or value.number_value for name, value in info.hparams.items()}
    assert found == {"algorithm": "fed_avg", "dim": 8}


def test_users_are_a_histogram_that_counts_each_of_them(accumulator):
    (event,) = accumulator.Tensors("users/unseen_validation/rmse")
    buckets = tf.make_ndarray(event.tensor_proto)
    assert event.step == 10
    assert buckets[:, 2].sum() == 4  # Left edge, right edge, count.
    assert buckets[buckets[:, 0] <= 1.0][:, 2].sum() >= 3
