import os
import signal

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.execution import native

pytestmark = pytest.mark.slow


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def sum_of_clients(values):
    return tff.federated_sum(values)


def test_runs_stock_computations(native_worker):
    assert sum_of_clients([1, 2, 39]) == 42
    assert sum_of_clients([]) == 0


def test_runs_sequences_of_clients(native_worker):
    @tff.tensorflow.computation(tff.SequenceType(np.int64))
    def total(dataset):
        return dataset.reduce(np.int64(0), lambda a, b: a + b)

    @tff.federated_computation(tff.FederatedType(tff.SequenceType(np.int64), tff.CLIENTS))
    def total_of_clients(datasets):
        return tff.federated_sum(tff.federated_map(total, datasets))

    assert total_of_clients([tf.data.Dataset.range(4), tf.data.Dataset.range(10)]) == 6 + 45


def test_a_failing_computation_is_an_error_and_the_worker_goes_on(native_worker):
    @tff.tensorflow.computation(np.int32)
    def fails_on_zero(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, "not a positive number")]):
            return tf.identity(x)

    with pytest.raises(Exception, match="not a positive number"):
        fails_on_zero(0)
    assert fails_on_zero(5) == 5


def test_a_worker_that_died_is_reported_instead_of_waited_for():
    worker = native.NativeWorker()
    worker.stub()
    os.kill(worker.pid, signal.SIGKILL)
    context = native.native_context(worker)
    with (
        tff.framework.get_context_stack().install(context),
        pytest.raises(RuntimeError, match="worker process ended: exit status -9"),
    ):
        sum_of_clients([1])
    worker.close()
