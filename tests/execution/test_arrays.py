import pickle

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.execution.arrays import as_array, tensor_of


@tff.tensorflow.computation(np.float32)
def many(x):
    return {
        "vector": tf.fill([3], x),
        "scalar": x,
        "empty": tf.zeros([0, 2], tf.int64),
        "half": tf.constant([1.5], tf.float16),
        "brain": tf.constant([1.5, 2.5], tf.bfloat16),
        "brain scalar": tf.constant(1.5, tf.bfloat16),
        "complex": tf.constant([1 + 2j]),
        "flags": tf.constant([[True], [False]]),
        "flag": x > 1,
        "words": tf.constant(["a", "b\0", "né"]),
        "word": tf.constant("word"),
        "byte": tf.constant([3], tf.uint8),
    }


def test_results_have_tffs_types(in_both):
    expected, found = in_both(lambda: many(1.5))
    for name, value in expected.items():
        assert type(found[name]) is type(value), name
        np.testing.assert_array_equal(found[name], value)
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype, name
            assert found[name].shape == value.shape, name
            assert found[name].flags.writeable == value.flags.writeable, name


def test_results_do_what_arrays_do(in_process_runtime):
    result = many(1.5)
    assert isinstance(result["vector"], np.ndarray)
    assert result["vector"].tolist() == [1.5, 1.5, 1.5]
    assert set(result["vector"]) == {1.5}
    assert result["vector"].astype(np.int32).any()
    assert (result["vector"] * np.ones(3, np.float64)).dtype == np.float64
    assert [word.decode() for word in result["words"]] == ["a", "b\0", "né"]
    assert result["word"].decode() == "word"
    again = pickle.loads(pickle.dumps(result["vector"]))
    np.testing.assert_array_equal(again, [1.5, 1.5, 1.5])


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_shares_its_tensors_memory_and_outlives_it():
    tensor = tf.random.normal([1000])
    array, copy = as_array(tensor), tensor.numpy()
    assert address(array) == address(tensor._numpy())
    assert tensor_of(array) is tensor
    del tensor
    np.testing.assert_array_equal(array, copy)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)


def test_only_the_whole_array_stands_for_its_tensor():
    array = as_array(tf.reshape(tf.range(6.0), [2, 3]))
    for other in (array[:1], array.T, array.copy(), array + 0, array.view(np.int32), array[0]):
        assert tensor_of(other) is None
    reshaped = as_array(tf.reshape(tf.range(6.0), [2, 3]))
    reshaped.shape = (3, 2)
    assert tensor_of(reshaped) is None
    reinterpreted = as_array(tf.range(6.0))
    reinterpreted.dtype = np.int32
    assert tensor_of(reinterpreted) is None
    assert tensor_of(np.zeros(3)) is None
    assert tensor_of(np.asarray(memoryview(b"abc"))) is None


def test_a_state_goes_around_without_a_copy(in_process_runtime):
    @tff.federated_computation(
        tff.FederatedType((tff.TensorType(np.float32, [1000]), np.int32), tff.SERVER)
    )
    def count(state):
        add = tff.tensorflow.computation(
            lambda state: (state[0], state[1] + 1), state.type_signature.member
        )
        return tff.federated_map(add, state)

    first = count((np.ones(1000, np.float32), 0))
    second = count(first)
    assert address(second[0]) == address(first[0])
    assert second[1] == 2
    # A slice is another array, with values of its own.
    third = count((np.ascontiguousarray(second[0])[::-1], 0))
    assert address(third[0]) != address(first[0])
