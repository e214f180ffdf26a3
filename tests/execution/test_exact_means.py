"""A mean of equal values is exactly that value, for any number of clients, in both runtimes.

All values have few bits, so their sums are exact, and so is a correct division of the sums. An
optimizer that multiplies by a reciprocal instead is exact only for some numbers of clients, and on
CPUs with wide vectors for fewer of them.
"""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow.python.eager import context as eager_context

from fedrecon.execution.in_process import InProcessContext

VECTOR = tff.TensorType(np.float32, [64])  # Longer than any CPU's vectors.
NUMBER = np.float32(1.8125)
NUMBERS = (np.arange(64, dtype=np.float32) - 20) / 32
MAX_CLIENTS = 16


def at_clients(member):
    return tff.FederatedType(member, tff.CLIENTS)


@tff.tensorflow.computation(VECTOR)
def size_of(vector):
    return tf.cast(tf.size(vector), tf.float32)  # 64, which tracing knows.


def mean_in_a_process(factory, value, weight=None):
    member, *more = [part.type_signature.member for part in (value, weight) if part is not None]
    process = factory.create(member, *more)
    arguments = [value] if weight is None else [value, weight]
    return process.next(process.initialize(), *arguments).result


@tff.federated_computation(at_clients(np.float32), at_clients(VECTOR), at_clients(np.float32))
def means(number, numbers, weight):
    five = tff.federated_value(np.float32(5), tff.CLIENTS)
    mean_factory, unweighted = tff.aggregators.MeanFactory(), tff.aggregators.UnweightedMeanFactory
    return collections.OrderedDict(
        number=tff.federated_mean(number),
        numbers=tff.federated_mean(numbers),
        weighted_number=tff.federated_mean(number, weight),
        weighted_numbers=tff.federated_mean(numbers, weight),
        number_weighted_by_a_constant=tff.federated_mean(number, five),
        numbers_weighted_by_a_constant=tff.federated_mean(numbers, five),
        numbers_weighted_by_their_size=tff.federated_mean(
            numbers, tff.federated_map(size_of, numbers)
        ),
        number_of_mean_factory=mean_in_a_process(mean_factory, number, weight),
        numbers_of_mean_factory=mean_in_a_process(mean_factory, numbers, weight),
        number_of_unweighted_factory=mean_in_a_process(unweighted(), number),
        numbers_of_unweighted_factory=mean_in_a_process(unweighted(), numbers),
        numbers_of_factory_that_counts_in_floats=mean_in_a_process(
            unweighted(count_sum_factory=tff.aggregators.SumFactory()), numbers
        ),
    )


def means_of_equal(num_clients, weight=1.0):
    return means([NUMBER] * num_clients, [NUMBERS] * num_clients, [weight] * num_clients)


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_a_mean_of_equal_values_is_that_value(in_both, weight):
    def run():
        return {n: means_of_equal(n, weight) for n in range(1, MAX_CLIENTS + 1)}

    for results in in_both(run):
        for num_clients, found in results.items():
            for name, mean in found.items():
                expected = NUMBERS if "numbers" in name else NUMBER
                np.testing.assert_array_equal(mean, expected, err_msg=f"{num_clients}: {name}")


def optimized_nodes(call):
    """Returns the nodes of the last function that `call` runs, as TensorFlow optimized them."""
    eager_context.enable_run_metadata()
    try:
        # In a new context, since a function is optimized at its first call only.
        with tff.framework.get_context_stack().install(InProcessContext()):
            call()
        functions = eager_context.export_run_metadata().function_graphs
    finally:
        eager_context.disable_run_metadata()
    return functions[-1].post_optimization_graph.node


@pytest.mark.parametrize("num_clients", [1, 2, 3, 7])
def test_a_mean_divides(num_clients):
    """Tests that a mean is a division, on CPUs that compute reciprocals exactly too."""
    nodes = optimized_nodes(lambda: means_of_equal(num_clients))
    names = [node.name for node in nodes if "recip" in node.name or node.op == "Reciprocal"]
    assert names == []
    counts = collections.Counter(node.op for node in nodes)
    assert counts["RealDiv"] == len(means.type_signature.result)


def test_the_optimizer_multiplies_by_the_reciprocal_of_a_constant():
    """Tests that the test above can fail, with a computation whose own graph has a constant."""

    @tff.tensorflow.computation(VECTOR)
    def third(vector):
        return vector / tf.fill([64], 3.0)

    nodes = optimized_nodes(lambda: third(NUMBERS))
    assert "RealDiv" not in {node.op for node in nodes}
    assert any(node.name.endswith("_recip") for node in nodes)


def test_a_step_of_equal_clients_is_the_step_of_one(in_both):
    """The gradient of `w . x` is x: 64 weights move by -x / 2, whatever the number of clients."""

    @tf.function
    def predict(weights, x, training):
        del training
        return tf.linalg.matvec(x, weights[0][0])

    @tf.function
    def loss(output, label, sample_weight=None):
        del label, sample_weight
        return tf.reduce_sum(output)

    model = tff.learning.models.FunctionalModel(
        initial_weights=((np.zeros(64, np.float32),), ()),
        predict_on_batch_fn=predict,
        loss_fn=loss,
        input_spec=(tf.TensorSpec([1, 64], tf.float32), tf.TensorSpec([1], tf.float32)),
    )
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    )
    data = tf.data.Dataset.from_tensors((NUMBERS[np.newaxis], np.zeros(1, np.float32)))

    def run():
        start = process.initialize()
        return [
            process.next(start, [data] * n).state.global_model_weights.trainable[0]
            for n in (1, 2, 3, 7)
        ]

    for found in in_both(run):
        np.testing.assert_array_equal(found, [-NUMBERS / 2] * 4)
