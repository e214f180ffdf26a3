"""Aggregators that take the place of the plain weighted mean."""

from __future__ import annotations

import tensorflow_federated as tff

from fedrecon.errors import InputError


def check_aggregator(
    factory: tff.aggregators.WeightedAggregationFactory | None,
    *,
    is_linear: bool,
    clients_per_shard: int,
) -> None:
    """Raises `InputError` if an aggregator may need clients' own updates and gets those of shards.

    Args:
      factory: The aggregator, or None.
      is_linear: Says that it gives the same for clients as for the weighted means and weights of
        groups of them.
      clients_per_shard: How many clients send their weighted mean as one.
    """
    if factory is not None and not is_linear and clients_per_shard != 1:
        raise InputError(
            f"an aggregator may need each client's own update, but a shard of {clients_per_shard}"
            " clients sends their mean; use clients_per_shard=1, or say is_aggregator_linear=True"
            " if it is a weighted mean."
        )


def secure_mean(bound: float, *, weight_bound: float) -> tff.aggregators.MeanFactory:
    """Returns a weighted mean whose sums, of updates and of weights, are TFF's secure sums.

    Under secure aggregation (Bonawitz et al. 2017, "Practical Secure Aggregation for
    Privacy-Preserving Machine Learning") a server learns sums over the clients of a round and
    nothing about a single client. Each entry of a sum is clipped to the bounds and rounded to one
    of 2^32 numbers between them. The mean is `is_aggregator_linear` up to that rounding, as long as
    nothing is clipped. None of TFF's runtimes encrypts: they check the arithmetic. Metrics stay
    plain sums.

    Args:
      bound: The largest absolute value of an entry of an update times its weight, for one sender;
        positive. In simulation a sender is a shard, so the bound grows with the clients of one. One
        bound is for all parts of an update: counts reach the number of clients.
      weight_bound: The largest weight of a sender, positive; with uniform weights, the number of
        its clients.

    Raises:
      InputError: If a bound is not a positive number.
    """
    for name, value in (("bound", bound), ("weight_bound", weight_bound)):
        if not 0.0 < value < float("inf"):
            raise InputError(f"the {name} of a secure mean is {value}; it must be positive.")
    secure_sum = tff.aggregators.SecureSumFactory
    return tff.aggregators.MeanFactory(
        value_sum_factory=secure_sum(float(bound), -float(bound)),
        weight_sum_factory=secure_sum(float(weight_bound), 0.0),
    )
