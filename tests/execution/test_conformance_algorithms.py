"""TFF's templates, aggregators and learning algorithms give the same in both runtimes."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

VECTOR = tff.TensorType(np.float32, [3])
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
STRUCT = tff.types.to_type([VECTOR, tff.TensorType(np.float32, [2, 2])])


def client_updates(round_num, num_clients=4):
    generator = np.random.default_rng(round_num)
    return [
        [
            generator.normal(size=3).astype(np.float32) * 10 ** (index % 3),
            generator.normal(size=[2, 2]).astype(np.float32),
        ]
        for index in range(num_clients)
    ]


@pytest.fixture
def measured_process():
    @tff.tensorflow.computation(np.int32)
    def double(x):
        return 2 * x

    @tff.federated_computation
    def initialize():
        return tff.federated_value(1, tff.SERVER)

    @tff.federated_computation(
        tff.FederatedType(np.int32, tff.SERVER), tff.FederatedType(np.int32, tff.CLIENTS)
    )
    def run(state, values):
        total = tff.federated_sum(values)
        return tff.templates.MeasuredProcessOutput(
            tff.federated_map(double, state), total, tff.federated_zip({"was": state})
        )

    return tff.templates.MeasuredProcess(initialize, run)


def test_measured_process(in_both, assert_same, measured_process):
    def run():
        state, outputs = measured_process.initialize(), []
        for round_num in range(3):
            output = measured_process.next(state, [round_num, 5])
            state = output.state
            outputs.append(output)
        return outputs

    expected, found = in_both(run)
    assert_same(expected, found, **TOLERANCE)
    assert [int(output.result) for output in found] == [5, 6, 7]
    assert isinstance(found[0], tff.templates.MeasuredProcessOutput)


def clipped(make):
    return lambda: tff.aggregators.clipping_factory(1.5, make())


AGGREGATORS = {
    "sum": tff.aggregators.SumFactory,
    "mean": tff.aggregators.UnweightedMeanFactory,
    "clipped sum": clipped(tff.aggregators.SumFactory),
    "adaptively clipped mean": lambda: tff.aggregators.clipping_factory(
        tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
            initial_estimate=2.0, target_quantile=0.5, learning_rate=1.0
        ),
        tff.aggregators.UnweightedMeanFactory(),
    ),
    "zeroed sum": lambda: tff.aggregators.zeroing_factory(20.0, tff.aggregators.SumFactory()),
    "secure sum": lambda: tff.aggregators.SecureSumFactory(1000.0),
    "secure quantized sum": lambda: tff.aggregators.SecureSumFactory(
        tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
            initial_estimate=4.0, target_quantile=0.9, learning_rate=1.0, secure_estimation=True
        )
    ),
    "private mean without noise": lambda: (
        tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
            noise_multiplier=0.0, clients_per_round=4, clip=2.0
        )
    ),
    "adaptively private mean without noise": (
        lambda: tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
            noise_multiplier=0.0, clients_per_round=4, clipped_count_stddev=0.0
        )
    ),
    "rotated sum": lambda: tff.aggregators.HadamardTransformFactory(
        inner_agg_factory=tff.aggregators.SumFactory()
    ),
    "Fourier-transformed sum": tff.aggregators.DiscreteFourierTransformFactory,
    "concatenated sum": lambda: tff.aggregators.concat_factory(tff.aggregators.SumFactory()),
    "secure": tff.learning.secure_aggregator,
    "robust": tff.learning.robust_aggregator,
    "compressed": tff.learning.compression_aggregator,
}


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.filterwarnings("ignore:.*nothing is secured")
def test_aggregators(in_both, assert_same, name):
    factory = AGGREGATORS[name]()
    is_weighted = isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    weights = [1.0, 2.0, 0.5, 4.0]
    if is_weighted:
        process = factory.create(STRUCT, tff.TensorType(np.float32))
    else:
        process = factory.create(STRUCT)

    def run():
        state, outputs = process.initialize(), []
        for round_num in range(3):
            args = (client_updates(round_num), *((weights,) if is_weighted else ()))
            output = process.next(state, *args)
            state = output.state
            outputs.append((output.result, output.measurements))
        return outputs

    expected, found = in_both(run)
    if name == "compressed":
        # Rounding is random; all that follows is how far two results can be from each other.
        for (a, _), (b, _) in zip(expected, found):
            assert_same(a, b, rtol=0.05, atol=0.5)
    else:
        assert_same(expected, found, **TOLERANCE)


def model_fn():
    keras = tf.keras.Sequential(
        [
            # No bias: before a normalization its gradient is nothing but rounding, which Adam turns
            # into steps of full length, other ones with other threads.
            tf.keras.layers.Dense(3, input_shape=(2,), kernel_initializer="ones", use_bias=False),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dense(1, kernel_initializer="ones", use_bias=False),
        ]
    )
    return tff.learning.models.from_keras_model(
        keras,
        input_spec=(tf.TensorSpec([None, 2]), tf.TensorSpec([None, 1])),
        loss=tf.keras.losses.MeanSquaredError(),
        metrics=[tf.keras.metrics.MeanAbsoluteError()],
    )


def client_datasets(num_clients=3):
    generator = np.random.default_rng(0)
    datasets = []
    for index in range(num_clients):
        x = generator.normal(size=[5 + 3 * index, 2]).astype(np.float32)
        y = (x @ [[2.0], [-1.0]]).astype(np.float32)
        datasets.append(tf.data.Dataset.from_tensor_slices((x, y)).batch(4))
    return datasets


def run_process(process, data, rounds=3):
    state, outputs = process.initialize(), []
    for _ in range(rounds):
        output = process.next(state, data)
        state = output.state
        outputs.append(output)
    return outputs


ALGORITHMS = {
    "fed_avg": lambda: tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.02, momentum=0.9),
        server_optimizer_fn=tff.learning.optimizers.build_adam(0.1),
    ),
    "fed_avg with a robust aggregator": lambda: tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.02),
        model_aggregator=tff.learning.robust_aggregator(),
    ),
    "fed_prox": lambda: tff.learning.algorithms.build_weighted_fed_prox(
        model_fn,
        proximal_strength=0.5,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.02),
    ),
    "fed_sgd": lambda: tff.learning.algorithms.build_fed_sgd(
        model_fn, server_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1)
    ),
    "mime lite": lambda: tff.learning.algorithms.build_weighted_mime_lite(
        model_fn, tff.learning.optimizers.build_sgdm(0.02, momentum=0.9)
    ),
    "fed_eval": lambda: tff.learning.algorithms.build_fed_eval(model_fn),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms(in_both, assert_same, name):
    process = ALGORITHMS[name]()
    datasets = client_datasets()
    expected, found = in_both(lambda: run_process(process, datasets))
    assert_same(expected, found, **TOLERANCE)


def test_kmeans(in_both, assert_same):
    process = tff.learning.algorithms.build_fed_kmeans(
        num_clusters=2, data_shape=(2,), random_seed=(4, 2)
    )
    points = [np.array([[0, 0], [0, 1], [9, 9]]), np.array([[8, 9], [1, 0]])]
    data = [tf.data.Dataset.from_tensor_slices(values.astype(np.float32)) for values in points]
    expected, found = in_both(lambda: run_process(process, data))
    assert_same(expected, found, **TOLERANCE)


def reconstruction_model_fn():
    inputs = tf.keras.layers.Input([2])
    item = tf.keras.layers.Dense(3, kernel_initializer="ones")
    user = tf.keras.layers.Dense(1, kernel_initializer="ones")
    model = tf.keras.Model(inputs, user(item(inputs)))
    return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
        keras_model=model,
        global_layers=[item],
        local_layers=[user],
        input_spec=collections.OrderedDict(x=tf.TensorSpec([None, 2]), y=tf.TensorSpec([None, 1])),
    )


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "evaluation"])
def test_fed_recon(in_both, assert_same, is_training):
    common = {
        "model_fn": reconstruction_model_fn,
        "loss_fn": tf.keras.losses.MeanSquaredError,
        "metrics_fn": lambda: [tf.keras.metrics.MeanAbsoluteError()],
        "reconstruction_optimizer_fn": tff.learning.optimizers.build_sgdm(0.05),
        "dataset_split_fn": tff.learning.models.ReconstructionModel.build_dataset_split_fn(
            recon_epochs=2, split_dataset=True
        ),
    }
    if is_training:
        process = tff.learning.algorithms.build_fed_recon(
            client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.02),
            server_optimizer_fn=tff.learning.optimizers.build_adam(0.1),
            **common,
        )
    else:
        process = tff.learning.algorithms.build_fed_recon_eval(**common)
    data = [
        dataset.map(lambda x, y: collections.OrderedDict(x=x, y=y)) for dataset in client_datasets()
    ]
    expected, found = in_both(lambda: run_process(process, data))
    assert_same(expected, found, **TOLERANCE)
