"""Running the same in TFF's own runtime and in this process."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff


@pytest.fixture(scope="session")
def in_both(native_worker, in_process_context):
    """A function that calls its argument in either runtime: what TFF's gave, and what ours did."""
    from fedrecon.execution import native

    def compile_insecurely(computation):
        # TFF's runtime knows no secure sums; its own stand-ins for tests do.
        return tff.backends.native.desugar_and_transform_to_native(
            tff.backends.test.replace_secure_intrinsics_with_bodies(computation)
        )

    oracle = tff.framework.SyncExecutionContext(
        executor_fn=native.native_context(native_worker).executor_factory,
        compiler_fn=compile_insecurely,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )

    def run(function):
        results = []
        for context in (oracle, in_process_context):
            with tff.framework.get_context_stack().install(context):
                results.append(function())
        return results

    return run


def _plain(value):
    """Takes datasets to lists of arrays, whatever contains them."""

    def of_leaf(leaf):
        if isinstance(leaf, tf.data.Dataset):
            return _plain(list(leaf.as_numpy_iterator()))
        return leaf

    return tf.nest.map_structure(of_leaf, value)


@pytest.fixture(scope="session")
def assert_same():
    """A function that compares two results, their containers, types and dtypes too."""

    def compare(expected, found, *, rtol=1e-6, atol=1e-7):
        expected, found = _plain(expected), _plain(found)
        # A named tuple must not come back as a dictionary.
        tf.nest.assert_same_structure(expected, found, check_types=True)
        for a, b in zip(tf.nest.flatten(expected), tf.nest.flatten(found)):
            assert type(a) is type(b)
            a, b = np.asarray(a), np.asarray(b)
            assert a.shape == b.shape
            if a.dtype.kind in "SO":  # Strings are bytes in TFF's, objects in TensorFlow's arrays.
                assert b.dtype.kind in "SO"
                np.testing.assert_array_equal(b.astype(bytes), a.astype(bytes))
            else:
                assert a.dtype == b.dtype
                np.testing.assert_allclose(b, a, rtol=rtol, atol=atol)

    return compare
