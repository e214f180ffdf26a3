"""Aggregators: which are refused shards, and what a secure mean does."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from fedrecon.errors import InputError
from fedrecon.execution.lowering import parts_of
from fedrecon.wiring.secure import check_aggregator, secure_mean
from tests.wiring.rounds import (
    ROWS,
    one_round,
    scalar_training,
    shards_of,
)

pytestmark = pytest.mark.usefixtures("in_process_runtime")


def test_an_aggregator_that_may_need_clients_is_refused_shards():
    mean = tff.aggregators.MeanFactory()
    check_aggregator(None, is_linear=False, clients_per_shard=2)
    check_aggregator(mean, is_linear=False, clients_per_shard=1)
    check_aggregator(mean, is_linear=True, clients_per_shard=2)
    with pytest.raises(InputError, match=r"a shard of 2 clients .*; use clients_per_shard=1"):
        check_aggregator(mean, is_linear=False, clients_per_shard=2)
    # As everywhere an aggregator can do more than a weighted mean.
    with pytest.raises(InputError, match="a shard of 3 clients"):
        check_aggregator(secure_mean(1.0, weight_bound=1.0), is_linear=False, clients_per_shard=3)


@pytest.fixture(scope="module")
def secure_training():
    return scalar_training(aggregator_factory=secure_mean(20.0, weight_bound=3.0))


@pytest.mark.filterwarnings("ignore:.*nothing is secured")
@pytest.mark.parametrize(
    ("labels", "total", "weight", "num_cut"),
    [
        # Sent are sums times 7, of 20 at most, and counts, of 3 at most.
        ([[[1.0, 1.0]], [[-1.5]]], 14 - 10.5, 2 + 1, (0, 0, 0)),
        ([[[1.0, 2.0]], [[0.5]]], 20 + 3.5, 2 + 1, (1, 0, 0)),
        ([[[-9.0]], [[-1.0], [-2.0]], [[1.0]]], -20 - 20 + 7, 1 + 2 + 1, (0, 2, 0)),
        ([[[1.0, 1.0], [0.0, 0.0]], [[-1.0]]], 14 - 7, 3 + 1, (0, 0, 1)),
    ],
)
def test_a_secure_mean_cuts_what_shards_send_to_the_bounds(
    secure_training, labels, total, weight, num_cut
):
    after, metrics = one_round(secure_training, shards_of(*labels))
    # 32 bits from -20 to 20 are steps of 1e-8.
    np.testing.assert_allclose(after, ROWS - 0.5 * (total / weight + ROWS), rtol=0, atol=1e-6)
    sums, weights = (metrics["aggregator"][name] for name in ("mean_value", "mean_weight"))
    assert num_cut == (
        sums["secure_upper_clipped_count"],
        sums["secure_lower_clipped_count"],
        weights["secure_upper_clipped_count"],
    )
    bounds = ("secure_lower_threshold", "secure_upper_threshold")
    assert [sums[name] for name in bounds] == [-20.0, 20.0]
    assert [weights[name] for name in bounds] == [0.0, 3.0]  # All 32 bits are for what can be.


def test_a_secure_mean_leaves_only_metrics_in_the_open(secure_training):
    sums = collections.defaultdict(list)
    for part in parts_of(secure_training.next.to_building_block()):
        if isinstance(part, tff.framework.Intrinsic) and "sum" in part.uri:
            sums[part.uri].append(part.type_signature.result.member.compact_representation())
    assert sums.keys() == {"federated_secure_sum_bitwidth", "federated_sum"}
    # A secure sum comes with how many were summed, cut above and cut below.
    assert sorted(sums["federated_secure_sum_bitwidth"]) == ["<int64>", *["int32"] * 6, "int64"]
    assert sums["federated_sum"] == ["float32"]


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_secure_mean_without_a_bound_is_refused(bound):
    with pytest.raises(InputError, match=f"the bound of a secure mean is {bound}; it must be pos"):
        secure_mean(bound, weight_bound=1.0)
    with pytest.raises(InputError, match=f"the weight_bound of a secure mean is {bound}"):
        secure_mean(1.0, weight_bound=bound)
