"""Rounds of FedAvg, by the cohort engine and by other federated code, on the same clients."""

from __future__ import annotations

import functools
import statistics
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.bench.rounds import (
    NOT_COMPARED,
    Timing,
    made_up_examples,
    sample_cohorts,
    time_rounds,
)
from experiments.bench.sizes import NUM_ITEMS, Sizes, Start
from fedrecon.algorithms import fed_avg
from fedrecon.algorithms.joint_update import packing_options
from fedrecon.data.cohorts import CohortPacker, choose_clients_per_shard
from fedrecon.data.examples import ClientExamples
from fedrecon.errors import InputError
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.options import FedAvgOptions, OptimizerOptions

_RATE = 0.1
_USER = 0.05  # Every entry of a user's vector, at the start of every round.


def time_fed_avg(sizes: Sizes, start: Start) -> dict[str, Any]:
    """FedAvg whose users' vectors start anew in each round, and a peer's."""
    examples = made_up_examples(NUM_ITEMS, sizes)
    cohorts = sample_cohorts(examples, sizes)
    model_fn = functools.partial(
        matrix_factorization,
        NUM_ITEMS,
        sizes.dim,
        user_initializer=tf.keras.initializers.Constant(_USER),
    )
    initial = model_fn().global_weights[0].numpy()
    peer = None
    if sizes.peer is not None:
        # First, since it refuses where it is not installed.
        peer = _time_fedjax(examples, cohorts, initial, sizes)
    start()
    ours = _time_cohort_engine(model_fn, examples, cohorts, sizes)
    seconds = statistics.median(ours.seconds)
    found = {**NOT_COMPARED, "seconds": seconds, **sizes.described()}
    if peer is not None:
        peer_seconds = statistics.median(peer.seconds)
        found.update(
            peer=sizes.peer,
            peer_seconds=peer_seconds,
            peer_ratio=peer_seconds / seconds,
            peer_max_abs_difference=float(np.abs(ours.weights[0] - peer.weights[0]).max()),
        )
    return found


def _time_cohort_engine(model_fn, examples: ClientExamples, cohorts, sizes: Sizes) -> Timing:
    options = FedAvgOptions(OptimizerOptions("sgd", _RATE), batch_size=sizes.batch_size)
    packing = packing_options(options, seed=0)
    size = choose_clients_per_shard(examples, examples.users, packing, num_clients=sizes.clients)
    packer = CohortPacker(examples, packing, clients_per_shard=size)
    process = fed_avg.build_fed_avg(model_fn, options, clients_per_shard=size)
    return time_rounds(
        "cohort engine", process, lambda users: packer.pack(users, 0), cohorts, cohorts
    )


def _time_fedjax(examples: ClientExamples, cohorts, initial: np.ndarray, sizes: Sizes) -> Timing:
    """The same rounds by FedJAX (Ro et al. 2021, arXiv:2108.02117), its `fed_avg` as it comes.

    Args:
      examples: The clients.
      cohorts: The users of each round.
      initial: `[num_items, dim]`: the item table to start from.
      sizes: The batch size counts.

    Raises:
      InputError: If FedJAX cannot be imported.
    """
    try:
        import fedjax
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise InputError(
            f"--peer=fedjax needs FedJAX, and its import failed ({error}); docs/how_it_is_fast.md "
            "says how to install it."
        ) from error

    def loss(params, batch, _):
        return jnp.mean(jnp.square(params["items"][batch["x"]] @ params["user"] - batch["y"]))

    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        jax.grad(loss),
        fedjax.optimizers.sgd(_RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=sizes.batch_size, skip_shuffle=True),
    )
    user = jnp.full([initial.shape[1]], _USER)
    key = jax.random.PRNGKey(0)

    def prepare(users):
        clients = []
        for client in users.tolist():
            items, labels = examples.examples(client)
            data = fedjax.ClientDataset({"x": items.astype(np.int32), "y": labels})
            clients.append((client, data, key))
        return clients

    def run(items, users):
        state = algorithm.init({"items": items, "user": user})
        state, _ = algorithm.apply(state, prepare(users))
        return jax.block_until_ready(state.params["items"])

    items, seconds = jnp.asarray(initial), []
    run(items, cohorts[0])
    for users in cohorts:
        began = time.perf_counter()
        items = run(items, users)
        seconds.append(time.perf_counter() - began)
    print(f"FedJAX: {statistics.median(seconds):.4f} s a round", file=sys.stderr)
    return Timing(seconds, [np.asarray(items)])
