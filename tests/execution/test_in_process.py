"""What the runtime in this process promises beyond TFF's results: see `test_conformance`."""

import asyncio
import collections
import gc
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.errors import InputError
from fedrecon.execution import in_process, set_native_context
from fedrecon.execution.in_process import (
    AsyncInProcessContext,
    InProcessContext,
    set_in_process_context,
)


@pytest.fixture
def context():
    """A new context, installed for one test."""
    made = InProcessContext()
    with tff.framework.get_context_stack().install(made):
        yield made


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def sum_of_clients(values):
    return tff.federated_sum(values)


@tff.tensorflow.computation(np.int32)
def positive(x):
    with tf.control_dependencies([tf.debugging.assert_positive(x, "not a positive number")]):
        return tf.identity(x)


@tff.tensorflow.computation(np.int32)
def positive_by_a_variable(x):
    limit = tf.Variable(0)
    with tf.control_dependencies([tf.debugging.assert_greater(x, limit, "not a positive number")]):
        return tf.identity(x)


# Arguments.


def test_a_struct_of_other_names_is_refused(context):
    @tff.tensorflow.computation(collections.OrderedDict(a=np.int32, b=np.float32))
    def swap(value):
        return value["b"], value["a"]

    # A dictionary's order says nothing; stock TFF takes it for the order of the type.
    assert [float(x) for x in swap({"b": 2.5, "a": 1})] == [2.5, 1.0]
    with pytest.raises(TypeError, match=r"argument: expected the elements a, b, found a, c"):
        swap({"a": 1, "c": 2.5})
    with pytest.raises(TypeError, match=r"argument: expected the 2 elements .* found 1"):
        swap({"a": 1})
    with pytest.raises(TypeError, match=r"argument: expected <a=int32,b=float32>, found .*int"):
        swap(3)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            np.zeros([2, 3], np.float64),
            r"argument: expected float32\[\?,3\], .* float64\[2, 3\]",
        ),
        (
            np.zeros([2, 4], np.float32),
            r"argument: expected float32\[\?,3\], .* float32\[2, 4\]",
        ),
        (tf.zeros([3]), r"argument: expected float32\[\?,3\], found float32\[3\]"),
        (tf.zeros([2, 3], tf.float16), r"argument: expected .*, found float16\[2, 3\]"),
        ([[1, 2, 3]], r"argument: expected .*, found int64\[1, 3\]"),
        ("word", r"argument: expected .*, found string\[\]"),
        (object(), r"argument: expected .*, found <class 'object'>"),
    ],
)
def test_a_tensor_of_another_dtype_or_shape_is_refused(context, value, sentence):
    @tff.tensorflow.computation(tff.TensorType(np.float32, [None, 3]))
    def identity(x):
        return x

    with pytest.raises(TypeError, match=sentence):
        identity(value)


def test_what_is_of_clients_must_be_a_list_of_one_length(context):
    at_clients = tff.FederatedType(np.int32, tff.CLIENTS)

    @tff.federated_computation(at_clients, at_clients)
    def zipped(a, b):
        return tff.federated_zip((a, b))

    with pytest.raises(TypeError, match=r"argument: expected a list with a value for each client"):
        sum_of_clients(3)
    with pytest.raises(TypeError, match=r"argument\[1\]: expected int32, found float64\[\]"):
        sum_of_clients([1, 2.5])
    with pytest.raises(
        ValueError,
        match=r"^Conflicting cardinalities for CLIENTS: 3 vs 2 .argument.b has 3 clients",
    ):
        zipped([1, 2], [1, 2, 3])


def test_a_dataset_of_other_elements_is_refused(context):
    @tff.tensorflow.computation(tff.SequenceType(np.int64))
    def total(dataset):
        return dataset.reduce(np.int64(0), lambda a, b: a + b)

    with pytest.raises(TypeError, match=r"argument: expected a dataset of int64, found one of"):
        total(tf.data.Dataset.from_tensors(1.5))
    with pytest.raises(TypeError, match=r"argument: expected a tf.data.Dataset, found"):
        total(3)


def test_an_array_is_copied(context):
    """TensorFlow may share the memory of an array that its owner goes on to fill."""

    @tff.tensorflow.computation(tff.TensorType(np.float32, [1000]))
    def identity(x):
        return x

    array = np.zeros(1000, np.float32)
    result = identity(array)
    array += 1
    np.testing.assert_array_equal(result, np.zeros(1000))


# Results.


def test_scalars_are_numpys(context):
    @tff.tensorflow.computation(np.float32)
    def results(x):
        return x, "word", tf.cast(x, tf.int64)

    scalar, word, integer = results(1.5)
    assert (type(scalar), type(integer), word) == (np.float32, np.int64, b"word")
    assert scalar * integer == 1.5  # TensorFlow refuses that.
    again = results(scalar)
    assert again[0] == scalar


def test_a_returned_dataset_can_still_read_its_table(context):
    @tff.tensorflow.computation(tff.SequenceType(np.str_))
    def numbered(words):
        entries = tf.lookup.KeyValueTensorInitializer(["a", "b"], [5, 6])
        return words.map(tf.lookup.StaticHashTable(entries, default_value=-1).lookup)

    first, second = numbered(["b", "z"]), numbered(["a"]).repeat(2)
    gc.collect()
    assert [int(x) for x in second] == [5, 5]
    assert [int(x) for x in first] == [6, -1]


def test_sequence_sum(context):
    @tff.federated_computation(tff.SequenceType(collections.OrderedDict(a=np.int32, b=np.float32)))
    def total(values):
        return tff.sequence_sum(values)

    result = total([{"a": 1, "b": 2.5}, {"a": 2, "b": 0.5}])
    assert {name: float(x) for name, x in result.items()} == {"a": 3.0, "b": 3.0}
    assert {name: float(x) for name, x in total([]).items()} == {"a": 0.0, "b": 0.0}


def test_secure_sums_are_plain_and_say_so(context):
    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def secure(values):
        return tff.federated_secure_sum_bitwidth(values, 4)

    with pytest.warns(UserWarning, match="federated_secure_sum_bitwidth: .* nothing is secured"):
        assert secure([3, 15]) == 18
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)client 1: .*larger"):
        secure([3, 16])


def test_plain_sums_warn_of_nothing(context):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum_of_clients([3, 16]) == 19


def test_clients_that_no_argument_tells_of(in_both):
    one = tff.tensorflow.computation(lambda: tf.constant(1))

    @tff.federated_computation
    def count():
        return tff.federated_sum(tff.federated_eval(one, tff.CLIENTS))

    assert in_both(count) == [0, 0]
    with tff.framework.get_context_stack().install(InProcessContext(default_num_clients=3)):
        assert count() == 3
        assert sum_of_clients([5]) == 5


# The default context.


@pytest.fixture
def default_context():
    """Puts the default context back that a test replaces."""
    before = tff.framework.get_context_stack().current
    yield
    in_process.set_default_context(before)


def stock_tutorial():
    tff.backends.native.set_sync_local_cpp_execution_context()


def test_code_that_sets_a_stock_context_is_told_what_it_does(default_context):
    set_in_process_context()
    assert sum_of_clients([1, 2]) == 3
    with pytest.warns(RuntimeWarning, match="takes the place of the in-process runtime") as told:
        stock_tutorial()
    assert len(told) == 1
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tff.framework.set_default_context(InProcessContext())


def test_whoever_changes_the_runtime_by_this_package_knows(default_context):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_in_process_context()
        set_in_process_context()
        set_native_context().close()


def test_a_thread_that_ends_replaces_nothing():
    """TFF's default context is one for each thread."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        thread = threading.Thread(target=set_in_process_context)
        thread.start()
        thread.join()
        gc.collect()
    assert not told


# Randomness and state.


@pytest.mark.parametrize("seed", [None, 17])
def test_what_is_drawn_differs_by_client_and_by_call(context, seed):
    draw = tff.tensorflow.computation(lambda: tf.random.uniform([], seed=seed))

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def drawn(values):
        return tff.federated_map(
            tff.tensorflow.computation(lambda x: x[1], (np.int32, np.float32)),
            tff.federated_zip((values, tff.federated_eval(draw, tff.CLIENTS))),
        )

    numbers = [float(x) for _ in range(3) for x in drawn([0] * 4)]
    assert len(set(numbers)) == 12


def test_neither_clients_nor_calls_share_variables(context):
    @tff.tensorflow.computation(np.int32)
    def count(x):
        seen = tf.Variable(0)
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int32, -1)
        before = table.lookup(tf.constant("key"))
        with tf.control_dependencies([before]):
            inserted = table.insert(tf.constant("key"), x)
        with tf.control_dependencies([inserted, seen.assign_add(x)]):
            return before, seen.read_value()

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def counts(values):
        return tff.federated_map(count, values)

    for _ in range(3):
        assert [(int(a), int(b)) for a, b in counts(list(range(1, 9)))] == [
            (-1, number) for number in range(1, 9)
        ]


# Errors.


@pytest.mark.parametrize("local", [positive, positive_by_a_variable], ids=["traced", "eager"])
def test_an_error_says_of_which_client_and_the_context_goes_on(context, local):
    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def checked(values):
        return tff.federated_sum(tff.federated_map(local, values))

    assert checked([1, 2, 3]) == 6
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"(?s)^client 2: .*not a positive number"
    ):
        checked([1, 2, -3, 4])
    assert checked([1, 2, 3, 4]) == 10
    assert sum_of_clients([4]) == 4


def test_an_error_at_the_server_is_no_clients(context):
    @tff.federated_computation(tff.FederatedType(np.int32, tff.SERVER))
    def checked(value):
        return tff.federated_map(positive, value)

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        checked(-1)
    assert "not a positive number" in str(caught.value)
    assert "client" not in str(caught.value)


def test_what_cannot_be_run_is_named(context):
    jax = pytest.importorskip("jax")

    @tff.jax.computation(np.float32)
    def double(x):
        return jax.numpy.multiply(x, 2.0)

    with pytest.raises(NotImplementedError, match=r"runs TensorFlow, .* a part in 'xla'"):
        double(1.0)


# Compilation and memory.


def test_a_computation_is_traced_once_for_each_number_of_clients(context):
    for _ in range(3):
        for num_clients in (2, 3, 5):
            assert sum_of_clients(list(range(num_clients))) == sum(range(num_clients))
    assert context.counts.traces == 3


def test_beyond_some_numbers_of_clients_nothing_more_is_traced(context):
    for _ in range(2):
        for num_clients in range(40):
            assert sum_of_clients([2] * num_clients) == 2 * num_clients
    assert context.counts.traces == 16
    assert sum_of_clients([1] * 2000) == 2000
    assert context.counts.traces == 16


def test_shapes_of_clients_are_counted(context):
    @tff.federated_computation(tff.FederatedType(tff.TensorType(np.float32, [None]), tff.CLIENTS))
    def total(values):
        return tff.federated_sum(
            tff.federated_map(
                tff.tensorflow.computation(
                    lambda x: tf.reduce_sum(x), tff.TensorType(np.float32, [None])
                ),
                values,
            )
        )

    for lengths in ([3, 4], [4, 3], [5, 5], [3, 5]):
        assert total([np.ones(length, np.float32) for length in lengths]) == sum(lengths)
    assert (context.counts.traces, context.counts.shapes) == (1, 3)


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("is_pure", [True, False], ids=["traced", "eager"])
def test_two_thousand_rounds_do_not_grow_memory(context, is_pure):
    size = 250_000  # A megabyte.
    vector = tff.TensorType(np.float32, [size])

    @tff.tensorflow.computation(vector, np.float32)
    def add(x, number):
        if is_pure:
            return x + number
        variable = tf.Variable(tf.zeros([size]))
        with tf.control_dependencies([variable.assign(x + number)]):
            return variable.read_value()

    @tff.federated_computation(
        tff.FederatedType(vector, tff.SERVER), tff.FederatedType(np.float32, tff.CLIENTS)
    )
    def next_state(state, numbers):
        received = tff.federated_broadcast(state)
        return tff.federated_mean(tff.federated_map(add, (received, numbers)))

    state, rounds = np.zeros(size, np.float32), 2000 if is_pure else 300

    def run(rounds):
        nonlocal state
        for round_num in range(rounds):
            state = next_state(state, [1.0] * (1 + round_num % 3))

    run(50)
    before, traces = resident_mb(), context.counts.traces
    run(rounds)
    # One round keeps megabytes if it keeps anything.
    assert resident_mb() - before < 100
    assert context.counts.traces == traces
    np.testing.assert_array_equal(state, np.full(size, 50 + rounds, np.float32))


@pytest.mark.slow
def test_computations_that_are_used_no_more_are_dropped(context):
    def constant(number):
        return tff.tensorflow.computation(lambda: tf.constant(number))

    for number in range(200):
        assert constant(number)() == number
    assert len(context._computations) == 128


# Devices.


_PLACEMENT = """
import collections
import numpy as np, tensorflow as tf, tensorflow_federated as tff
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
from fedrecon.execution import set_in_process_context
from fedrecon.execution.arrays import tensor_of
context = set_in_process_context()
print(*context.devices)

one = tff.TensorType(np.float32, [1])

@tff.federated_computation(
    tff.FederatedType(one, tff.CLIENTS), tff.FederatedType(one, tff.SERVER)
)
def step(values, factor):
    scale = tff.tensorflow.computation(lambda a, b: a * b, one, one)
    work = tff.tensorflow.computation(tf.function(lambda a: tf.sin(a) + 1, jit_compile=True), one)
    scaled = tff.federated_map(scale, (values, tff.federated_broadcast(factor)))
    worked = tff.federated_map(work, scaled)
    return scaled, worked, tff.federated_sum(worked)

# Traced: which device each operation of the function was given.
from tensorflow.python.eager import context as eager_context
eager_context.enable_run_metadata()
_, _, total = step([[1.0], [2.0], [3.0], [4.0], [5.0]], [2.0])
found = collections.Counter(
    (node.device[-1], node.op)
    for function in eager_context.export_run_metadata().function_graphs
    for graph in function.partition_graphs
    for node in graph.node
)
eager_context.disable_run_metadata()
for op in ("Mul", "PartitionedCall", "AddN"):
    print(op, *[found[device, op] for device in "012"])
print(abs(float(total[0]) - sum(np.sin(2 * np.arange(1, 6)) + 1)) < 1e-5)

# Eager, for so many clients.
scaled, worked, total = step([[1.0]] * 600, [2.0])
print(*[tensor_of(x).device[-1] for x in [*scaled[:5], *worked[:5], total]])
try:
    set_in_process_context(gpu_memory_limit_mb=100)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_clients_are_spread_over_the_devices(repository):
    """A CPU split in three stands for three GPUs."""
    done = subprocess.run(
        [sys.executable, "-c", _PLACEMENT],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
    )
    assert done.returncode == 0, done.stderr
    devices, *runs, refusal = done.stdout.splitlines()
    assert devices == "/device:CPU:0 /device:CPU:1 /device:CPU:2"
    assert runs == [
        "Mul 2 2 1",  # Five clients.
        "PartitionedCall 2 2 1",
        "AddN 1 0 0",  # The server.
        "True",
        "0 1 2 0 1 0 1 2 0 1 0",
    ]
    assert refusal == (
        "InputError a limit of 100 MB of GPU memory has no effect: TensorFlow sees no GPU."
    )


@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="no GPU")
def test_clients_run_on_the_gpu():
    context = InProcessContext()
    with tff.framework.get_context_stack().install(context):
        on_server = tff.FederatedType(tff.TensorType(np.float32, [2]), tff.SERVER)
        add = tff.tensorflow.computation(lambda x: x + 1, on_server.member)

        @tff.federated_computation(on_server)
        def next_state(state):
            state = tff.federated_map(add, state)
            return state, state

        state, metric = next_state(np.zeros(2, np.float32))
        assert "GPU" in state.device  # A state stays there; what is reported is NumPy's.
        assert isinstance(metric, np.ndarray)
        assert next_state(state)[1].tolist() == [2.0, 2.0]


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_a_limit_without_a_gpu_is_refused():
    with pytest.raises(InputError, match=r"a limit of 512 MB .* TensorFlow sees no GPU"):
        set_in_process_context(gpu_memory_limit_mb=512)


# The asynchronous twin.


def test_programs_can_await(context):
    async def run():
        with tff.framework.get_context_stack().install(AsyncInProcessContext(context)):
            return await asyncio.gather(sum_of_clients([1, 2]), sum_of_clients([3, 4]))

    assert [int(x) for x in asyncio.run(run())] == [3, 7]
