"""Federated iALS: secure sums, where rows are, and what a contribution tells."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_ials
from fedrecon.execution.lowering import parts_of
from fedrecon.options import FedIalsOptions
from fedrecon.wiring.secure import secure_mean
from tests.algorithms.dense_fed_ials import (
    ALL,
    DIM,
    ITEMS_OF,
    NUM_ITEMS,
    NUM_USERS,
    OPTIONS,
    START,
    cohort_gradient,
    contribution_of,
    minimum,
)
from tests.algorithms.ials_rounds import (
    assert_same,
    moved,
    one_round,
    pack,
    reference,
    sums_of,
    table_of,
    training,
)
from tests.tiny import mf

pytestmark = pytest.mark.usefixtures("in_process_runtime")
# TFF's SecureSumFactory cuts to [-bound, bound] and rounds to a multiple of 2 bound / (2^32 - 1),
# so an entry of what a shard sends is off by up to bound / 2^32.
WIDE = 2.0**20
NUM_BITS = 32


@functools.cache
def secure_training(bound, clients_per_shard, options=OPTIONS):
    return training(
        options,
        clients_per_shard,
        aggregator_factory=secure_mean(bound, weight_bound=float(NUM_USERS)),
        is_aggregator_linear=clients_per_shard > 1,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize("clients_per_shard", [1, 3])
def test_secure_sums_give_the_same_within_their_quantization(clients_per_shard):
    learning = secure_training(WIDE, clients_per_shard)
    shards = pack(ALL, clients_per_shard=clients_per_shard)
    output = one_round(learning, shards)
    found = np.float64(START) - table_of(output.state)
    # The gradient takes the mean of the rows, of the frequencies (times 2 r V here, as nu is 1) and
    # of the second moment (times 2 a V); each is off by the error of the sum over clients.
    of_mean = len(shards) * WIDE / 2**NUM_BITS / NUM_USERS
    largest = np.abs(START).max(axis=1, keepdims=True)
    tolerance = of_mean * (1 + 2 * 0.3 * largest + 2 * 0.2 * DIM * largest) + 1e-6
    gap = np.abs(found - cohort_gradient(START, ALL, OPTIONS))
    assert (gap < tolerance).all()
    assert gap.max() > 2e-5  # It is quantized.
    assert fed_ials.training_metrics(output.metrics) == pytest.approx(reference()[1], abs=1e-5)
    sums = output.metrics["aggregator"]["mean_value"]
    assert sums["secure_upper_clipped_count"] == sums["secure_lower_clipped_count"] == 0
    # With a bound for this data it is as good as none.
    found = moved(secure_training(8.0, clients_per_shard), shards)
    assert_same(found, cohort_gradient(START, ALL, OPTIONS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize("clients_per_shard", [1, 3])
def test_secure_sums_cut_what_is_sent_by_the_entry(clients_per_shard):
    bound = 0.5
    sent = [
        [sum(parts) for parts in zip(*map(contribution_of, users))]
        for users in ALL.reshape(-1, clients_per_shard)
    ]
    cut = [[np.clip(part, -bound, bound) for part in parts] for parts in sent]
    assert min(np.abs(part).max() for part in sent[0]) < bound  # Not all of it.
    of_rows, frequencies, moment = (sum(parts) / NUM_USERS for parts in zip(*cut))
    strengths = 0.3 * (frequencies + 0.2)  # With nu = 1.
    expected = of_rows + 2 * (0.2 * START @ moment + strengths * START)
    learning = secure_training(bound, clients_per_shard)
    output = one_round(learning, pack(ALL, clients_per_shard=clients_per_shard))
    assert_same(np.float64(START) - table_of(output.state), expected)
    sums = output.metrics["aggregator"]["mean_value"]
    assert sums["secure_upper_clipped_count"] == len(sent)  # All count some item as 1.


def test_metrics_are_summed_in_the_open_and_all_else_securely():
    update = f"<int64[{NUM_ITEMS},{DIM}],int64[{NUM_ITEMS},1],int64[{DIM},{DIM}]>"
    metrics = "<loss=float32,num_examples=int64,num_clients_rejected=int64>"
    for clients_per_shard in (1, 3):
        sums = sums_of(secure_training(8.0, clients_per_shard).next)
        assert sums.keys() == {"federated_secure_sum_bitwidth", "federated_sum"}
        # A secure sum comes with how many were summed, cut above and cut below.
        securely = sorted(sums["federated_secure_sum_bitwidth"])
        assert securely == [update, *["int32"] * 6, "int64"]
        assert sums["federated_sum"] == [metrics]


def tensors_of(type_spec):
    """Yields the tensors of a type, with where they are."""
    if isinstance(type_spec, tff.FederatedType):
        for tensor, _ in tensors_of(type_spec.member):
            yield tensor, type_spec.placement
    elif isinstance(type_spec, tff.StructType):
        for part in type_spec:
            yield from tensors_of(part)
    else:
        yield type_spec, None


def test_no_users_row_is_in_any_type_of_the_server():
    """Types as a privacy proof: 11 clients, 5 items, rows of 7."""
    secure = {"aggregator_factory": secure_mean(1.0, weight_bound=11.0)}
    for kwargs in ({}, {**secure, "is_aggregator_linear": True}):
        learning = fed_ials.build_fed_ials(
            mf(5, 7), FedIalsOptions(), num_users=100, clients_per_shard=11, **kwargs
        )
        for computation in (learning.initialize, learning.next):
            shapes = collections.Counter()
            for part in (computation.type_signature.parameter, computation.type_signature.result):
                for tensor, placement in tensors_of(part) if part is not None else ():
                    if placement is tff.SERVER:
                        shapes[tuple(tensor.shape)] += 1
            # The item rows, and two moments of Adam's.
            assert shapes.keys() <= {(5, 7), ()}, shapes
            assert shapes[5, 7] > 0
        result = learning.next.type_signature.result
        assert all(placement is tff.SERVER for _, placement in tensors_of(result))
        # Nor on the way: what is summed has the sizes of items and of a row, not of clients.
        summed = [spec for specs in sums_of(learning.next).values() for spec in specs]
        assert any("[5,7]" in spec and "[5,1]" in spec and "[7,7]" in spec for spec in summed)
        assert not [spec for spec in summed if "11" in spec or "?" in spec]


def test_reconstruction_stays_at_the_clients():
    computation = fed_ials.build_reconstruction(mf(5, 7), FedIalsOptions(), clients_per_shard=11)
    result = computation.type_signature.result
    assert result.placement is tff.CLIENTS
    assert result.member.compact_representation() == "<float32[11,1,7]>"
    assert not sums_of(computation)


@functools.cache
def watched(clients_per_shard):
    """Training in which the server's sum of contributions is seen, divided by the clients."""

    def measure(mean):
        return collections.OrderedDict(mean=mean)

    factory = tff.aggregators.add_measurements(
        tff.aggregators.MeanFactory(), server_measurement_fn=measure
    )
    return training(
        clients_per_shard=clients_per_shard, aggregator_factory=factory, is_aggregator_linear=True
    )


def seen_by_the_server(users):
    learning = watched(len(users))
    output = one_round(learning, pack(users, clients_per_shard=len(users)))
    return [np.float64(part) for part in output.metrics["aggregator"]["mean"]]


@pytest.mark.parametrize("user", [3, 5, 6])
def test_a_contribution_by_itself_tells_the_items_and_the_row(user):
    of_rows, counts, moment = seen = seen_by_the_server([user])
    for part, expected in zip(seen, contribution_of(user)):
        assert_same(part, expected, 5e-6)
    assert np.flatnonzero(counts[:, 0]).tolist() == ITEMS_OF[user]
    assert np.flatnonzero(of_rows.any(axis=1)).tolist() == ITEMS_OF[user]
    # Up to its sign, the row is the one direction of its square, and its length the root's.
    values, vectors = np.linalg.eigh(moment)
    assert (np.abs(values[:-1]) < 1e-6).all()
    row = np.sqrt(values[-1]) * vectors[:, -1]
    # One of the two signs gives the gradients.
    item = ITEMS_OF[user][0]
    gaps = {
        sign: np.abs(2 * (START[item] @ (sign * row) - 1) * sign * row - of_rows[item]).max()
        for sign in (1, -1)
    }
    sign = min(gaps, key=gaps.get)
    assert gaps[sign] < 1e-4 < 0.01 < gaps[-sign]
    assert_same(sign * row, minimum(START)[user], 1e-4)


def test_a_sum_of_few_contributions_tells_their_span_and_lone_items():
    users = [0, 3]  # They share no item.
    of_rows, counts, moment = seen_by_the_server(users)
    rows = minimum(START)[users]
    values, vectors = np.linalg.eigh(moment)
    assert values[0] < 1e-7
    assert values[1] > 1e-3
    np.testing.assert_allclose(rows @ vectors[:, 0], 0, atol=1e-4)
    for item, user in ((1, 0), (5, 1)):
        assert counts[item] == 0.5  # Of two clients one.
        expected = contribution_of(users[user])[0][item] / 2
        assert_same(of_rows[item], expected)
        np.testing.assert_allclose(np.cross(of_rows[item], rows[user]), 0, atol=1e-5)


def client_operations(computation):
    """Returns the operations of the graph that has the clients' shards as its input."""
    graphs = []
    for part in parts_of(computation.to_building_block()):
        if isinstance(part, tff.framework.CompiledComputation):
            parameter = part.type_signature.parameter
            # Shards are what has arrays of open length.
            if parameter is not None and "?" in parameter.compact_representation():
                graphs.append(part.proto.tensorflow.graph_def)
    (serialised,) = graphs
    definition = tf.compat.v1.GraphDef.FromString(serialised.value)
    assert not definition.library.function  # All of it is in sight.
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition)
    return graph.get_operations()


def test_clients_compute_with_nothing_as_large_as_the_table():
    num_items = 1009
    learning = fed_ials.build_fed_ials(
        mf(num_items, 7), FedIalsOptions(), num_users=100, clients_per_shard=11
    )
    operations = [
        (operation, output)
        for operation in client_operations(learning.next)
        for output in operation.outputs
    ]
    assert len(operations) > 30
    large = collections.Counter(
        (operation.type, tuple(output.shape))
        for operation, output in operations
        if output.shape.rank and num_items in output.shape.as_list()
    )
    passed_on = {"Identity", "IdentityN", "StatefulPartitionedCall", "PartitionedCall"}
    kinds = {kind for kind, _ in large} - passed_on
    assert kinds == {"Placeholder", "UnsortedSegmentSum"}
    assert large["Placeholder", (num_items, 7)] == 1  # The table, which is gathered from.
    assert large["UnsortedSegmentSum", (num_items, 7)] == 1
    assert large["UnsortedSegmentSum", (num_items, 1)] == 1
