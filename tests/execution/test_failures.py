"""Errors are caught here by what catches them in TFF's runtime, whose worker is another process."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

AT_CLIENTS = tff.FederatedType(np.int32, tff.CLIENTS)


def caught(function):
    """Returns a function that returns the error of another one."""

    def run():
        with pytest.raises(Exception) as found:  # noqa: PT011 - which one is what is tested
            function()
        return found.value

    return run


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize("kind", ["maximum", "bitwidth"])
def test_secure_sums_over_their_maximum(in_both, kind):
    @tff.federated_computation(AT_CLIENTS)
    def secure(values):
        if kind == "maximum":
            return tff.federated_secure_sum(values, 15)
        return tff.federated_secure_sum_bitwidth(values, 4)

    for error in in_both(caught(lambda: secure([3, 16]))):
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details().startswith("Failed to run computation: ")
        for text in (error.details(), str(error)):
            assert "client value larger than maximum specified for secure sum" in text
            assert "[16] [not less than or equal to] [15]" in text


def test_a_failed_assertion(in_both):
    @tff.tensorflow.computation(np.int32)
    def positive(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, "not a positive number")]):
            return tf.identity(x)

    expected, found = in_both(caught(lambda: positive(-1)))
    for error in (expected, found):
        assert isinstance(error, grpc.RpcError)
        assert "not a positive number" in str(error)
    # Whoever knows that TensorFlow is near may catch TensorFlow's own.
    assert isinstance(found, tf.errors.InvalidArgumentError)
    assert type(found).__name__ == "InvalidArgumentError"


def test_conflicting_numbers_of_clients(in_both):
    @tff.federated_computation(AT_CLIENTS, AT_CLIENTS)
    def zipped(a, b):
        return tff.federated_zip((a, b))

    for error in in_both(caught(lambda: zipped([1, 2], [1, 2, 3]))):
        assert type(error) is ValueError
        assert str(error).startswith("Conflicting cardinalities for CLIENTS: 3 vs 2")


@pytest.mark.parametrize("value", [3, [2.5], ["a"], [np.int64(2**40)]])
def test_an_argument_of_another_type(in_both, value):
    total = tff.federated_computation(lambda values: tff.federated_sum(values), AT_CLIENTS)
    for error in in_both(caught(lambda: total(value))):
        assert isinstance(error, TypeError)
