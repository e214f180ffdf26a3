"""Metrics by hand, alone and summed over clients as TFF sums them."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.models import metrics

_MSE = tf.keras.losses.MeanSquaredError
# Errors 0.5, -1, 2, 0.25, 0: squares 0.25, 1, 4, 0.0625, 0; within half a star: 3 of 5.
_LABELS = np.array([[4.0], [2.0], [3.0], [1.0], [5.0]], np.float32)
_PREDICTIONS = np.array([[4.5], [1.0], [5.0], [1.25], [5.0]], np.float32)
_EXPECTED = {
    "mean_loss": 5.3125 / 5,
    "rmse": np.sqrt(5.3125 / 5),
    "accuracy": 3 / 5,
    "num_examples": 5,
}


def _update(batches, loss_fn=_MSE):
    """The metrics after batches of positions into the arrays above, in a graph."""
    result = metrics.rating_metrics(loss_fn)

    @tf.function(reduce_retracing=True)
    def update(labels, predictions):
        for metric in result:
            metric.update_state(y_true=labels, y_pred=predictions)

    for batch in batches:
        update(tf.constant(_LABELS[batch]), tf.constant(_PREDICTIONS[batch]))
    return result


def _results(all_metrics):
    return {metric.name: metric.result().numpy() for metric in all_metrics}


def _finalize_sum(clients):
    """Sums each metric's variables over clients and finalises, as tff's sum_then_finalize does."""
    finalized = {}
    for of_clients in zip(*clients):
        sums = [tf.add_n(list(values)) for values in zip(*(m.variables for m in of_clients))]
        finalizer = tff.learning.metrics.create_keras_metric_finalizer(of_clients[0])
        # A finalizer makes variables, for which it needs either a graph of TFF's or no graph.
        finalized[of_clients[0].name] = finalizer.python_function(sums).numpy()
    return finalized


def _assert_expected(results):
    assert list(results) == list(_EXPECTED)
    for name, expected in _EXPECTED.items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "batches",
    [
        [[0, 1, 2, 3, 4]],
        [[0, 1], [2, 3], [4]],  # a partial last batch
        [[0], [1, 2, 3, 4]],
    ],
)
def test_by_hand_and_counted_per_rating(batches):
    _assert_expected(_results(_update(batches)))


def test_stocks_own_loss_is_a_mean_over_batches():
    # The pitfall that mean_loss avoids. Batches of mean square 0.625, 2.03125 and 0.
    stock = tf.keras.metrics.MeanMetricWrapper(_MSE(), name="loss")
    for batch in ([0, 1], [2, 3], [4]):
        stock.update_state(_LABELS[batch], _PREDICTIONS[batch])
    np.testing.assert_allclose(stock.result(), (0.625 + 2.03125 + 0) / 3)


def test_summed_over_clients_of_different_size_and_finalised_by_tff():
    _assert_expected(_finalize_sum([_update([[0, 1], [2]]), _update([[3, 4]])]))


def test_a_client_without_ratings_changes_nothing():
    _assert_expected(_finalize_sum([_update([[0, 1, 2, 3, 4]]), _update([])]))


def test_tff_can_compile_the_finalizers():
    for metric in metrics.rating_metrics(_MSE):
        variable_types = [tff.TensorType(v.dtype.as_numpy_dtype) for v in metric.variables]
        computation = tff.tensorflow.computation(
            tff.learning.metrics.create_keras_metric_finalizer(metric),
            tff.types.StructWithPythonType(variable_types, list),
        )
        assert computation.type_signature.result == variable_types[0]


def test_no_ratings_at_all_give_zero():
    results = _finalize_sum([_update([])])
    assert results == {"mean_loss": 0, "rmse": 0, "accuracy": 0, "num_examples": 0}


def test_binary_labels():
    labels, probabilities = np.array([[1], [1], [0], [0]]), [[0.9], [0.2], [0.4], [0.75]]
    results = metrics.rating_metrics(tf.keras.losses.BinaryCrossentropy)
    for metric in results:
        metric.update_state(tf.constant(labels), tf.constant(probabilities))
    results = _results(results)
    np.testing.assert_allclose(
        results["mean_loss"], -np.mean(np.log([0.9, 0.2, 0.6, 0.25])), rtol=1e-5
    )
    assert results["accuracy"] == 0.5
    assert results["num_examples"] == 4


def test_half_a_star_is_still_right():
    accuracy = metrics.RatingAccuracy()
    accuracy.update_state(tf.constant([3.0, 3.0, 3.0, 3.0]), tf.constant([2.5, 3.5, 2.499, 3.501]))
    assert accuracy.result() == 0.5


@pytest.mark.parametrize(("step", "share"), [(1.0, 0.8), (0.5, 0.4)])
def test_accuracy_counts_within_half_a_step_also_after_tff_built_it_anew(step, share):
    accuracy = metrics.RatingAccuracy(step)
    accuracy.update_state(tf.fill([5], 3.0), tf.constant([3.25, 2.75, 3.5, 2.51, 3.6]))
    assert accuracy.result().numpy() == pytest.approx(share)
    again = metrics.RatingAccuracy.from_config(accuracy.get_config())
    again.update_state(tf.fill([5], 3.0), tf.constant([3.25, 2.75, 3.5, 2.51, 3.6]))
    assert again.result().numpy() == pytest.approx(share)


def test_shapes_without_the_last_axis_mean_the_same():
    results = metrics.rating_metrics(_MSE)
    for metric in results:
        metric.update_state(tf.constant(_LABELS[:, 0]), tf.constant(_PREDICTIONS))
    _assert_expected(_results(results))


@pytest.mark.parametrize("mask_shape", [[7], [7, 1]])
def test_masked_ratings_do_not_count(mask_shape):
    labels, predictions = np.pad(_LABELS, [[0, 2], [0, 0]]), np.full([7, 1], 9.0, np.float32)
    predictions[:5] = _PREDICTIONS
    mask = np.reshape(np.array([1, 1, 1, 1, 1, 0, 0], np.float32), mask_shape)
    results = metrics.rating_metrics(_MSE)
    for metric in results:
        metric.update_state(tf.constant(labels), tf.constant(predictions), sample_weight=mask)
    _assert_expected(_results(results))


def test_sums_stay_exact_beyond_float32():
    # 2**24 + 1 is not a float32; a float32 count would stand still there.
    accuracy, count = metrics.RatingAccuracy(), metrics.RatingCount()
    for variable in (*accuracy.variables, *count.variables):
        variable.assign(tf.cast(2**24, variable.dtype))
    for metric in (accuracy, count):
        metric.update_state(tf.constant([[1.0]]), tf.constant([[1.0]]))
    assert [variable.numpy() for variable in accuracy.variables] == [2**24 + 1] * 2
    assert count.result() == 2**24 + 1
