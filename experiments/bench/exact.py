"""Rounds of algorithms that solve for the local part."""

from __future__ import annotations

import statistics
from typing import Any

import tensorflow as tf

from experiments.bench.rounds import NOT_COMPARED, time_algorithm
from experiments.bench.sizes import Sizes, Start, seconds_of
from experiments.run.settings import Settings


def time_exact(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Rounds of fed_ials and of fed_recon_ls on real clients, and the solvers alone."""
    start()
    explicit, implicit = explicit_settings(sizes), implicit_settings(sizes)
    by_ratings = time_algorithm("explicit feedback", explicit, sizes)
    by_items = time_algorithm("implicit feedback", implicit, sizes)

    size = 128
    rows = tf.random.stateless_normal([size, size, size], seed=[0, 0])
    systems = tf.matmul(rows, rows, transpose_b=True) + size * tf.eye(size)

    def solve(systems):
        return tf.linalg.cholesky_solve(tf.linalg.cholesky(systems), tf.ones([size, size, 1]))

    def time_solver(solver) -> float:
        def run(_):
            solver(systems).numpy()

        run(None)
        return statistics.median(seconds_of(run, None) for _ in range(sizes.rounds))

    by_xla, by_kernel = (time_solver(tf.function(solve, jit_compile=jit)) for jit in (True, False))
    return {
        **NOT_COMPARED,
        "seconds": statistics.median(by_items.seconds),
        "cpu_seconds": statistics.fmean(by_items.cpu_seconds),
        "explicit_seconds": statistics.median(by_ratings.seconds),
        "clients": implicit.clients_per_round,
        "xla_solve_seconds": by_xla,
        "solve_seconds": by_kernel,
        "ratio": by_xla / by_kernel,
    }


def explicit_settings(sizes: Sizes) -> Settings:
    """Returns the settings of experiments/presets/fed_recon_ls_ml1m.flags."""
    return Settings(
        algorithm="fed_recon_ls",
        dataset="movielens-1m",
        max_ratings_per_user=300,
        user_bias=True,
        item_bias=True,
        global_bias=True,
        l2=5e-6,
        clients_per_round=300,
        **_common(sizes),
    )


def implicit_settings(sizes: Sizes) -> Settings:
    """Returns the settings of experiments/presets/fed_ials_ncf_ml1m.flags."""
    return Settings(
        algorithm="fed_ials",
        dataset="ncf-ml-1m",
        feedback="implicit",
        evaluate_on="test",
        dim=192,
        clients_per_round=500,
        **_common(sizes),
    )


def _common(sizes: Sizes) -> dict[str, Any]:
    return {
        **{"data_dir": sizes.data_dir, "client_sampler": "queue"},
        **{"server_optimizer": "adam", "server_learning_rate": 0.01},
    }
