"""XLA compiles once for all rounds of the same sizes."""

import os
import subprocess
import sys

import pytest

COUNTED = """
import functools
import numpy as np
from fedrecon.algorithms import fed_recon
from fedrecon.options import FedReconOptions, OptimizerOptions
from fedrecon.data.cohorts import pack_shard
from fedrecon.execution import set_in_process_context
from fedrecon.models.matrix_factorization import matrix_factorization

set_in_process_context()
options = FedReconOptions(
    reconstruction="least_squares",
    client_optimizer=OptimizerOptions("sgd", 1.0),
    client_takes_one_step=True,
)
packing = fed_recon.packing_options(options, seed=0)
model_fn = functools.partial(matrix_factorization, 30, 2, user_bias=True, item_bias=True)
process = fed_recon.build_fed_recon(model_fn, options, clients_per_shard=3)
state, generator = process.initialize(), np.random.default_rng(0)
for round_num in range(5):
    clients = [
        (generator.choice(30, 16, replace=False), generator.integers(1, 6, 16).astype(np.float32))
        for _ in range(3)
    ]
    users, seeds = np.arange(3), np.arange(3, dtype=np.uint32)
    shard = pack_shard(clients, users, seeds, packing, num_clients=3, num_examples=16)
    state = process.next(state, [shard]).state
    print("round", round_num)
"""


@pytest.mark.slow
def test_rounds_of_the_same_sizes_are_compiled_once():
    """A gradient over lengths unknown to XLA is compiled anew for each round's values."""
    logging = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compiler=2"}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        capture_output=True,
        text=True,
        env={**os.environ, **logging},
        timeout=300,
        check=True,
    )
    assert done.stdout.count("round") == 5
    # The sums, and the update.
    assert done.stderr.count("Compilation of XLA executable time") == 2
