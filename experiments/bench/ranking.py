"""Ranking of all users of MovieLens 1M."""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any

import numpy as np

from experiments.bench.rounds import NOT_COMPARED
from experiments.bench.sizes import NUM_CANDIDATES, NUM_ITEMS, NUM_USERS, Sizes, Start
from fedrecon import rng
from fedrecon.evaluation import protocols
from fedrecon.evaluation.metrics import ranks
from fedrecon.evaluation.scoring import Scorer
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.neural_cf import neumf
from fedrecon.wiring.at_clients import build_scoring
from fedrecon.wiring.weights import global_part


def time_ranking(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Scores and ranks of NeuMF, with users' rows at hand."""
    start()
    model_fn = functools.partial(neumf, NUM_ITEMS, gmf_dim=16)
    size = 32
    scorer = Scorer(
        reconstruct=None,
        score=build_scoring(model_fn, clients_per_shard=size),
        packing=None,
        clients_per_shard=size,
    )
    weights = global_part(model_fn, FunctionalModel(model_fn())).initialize()
    generator = rng.generator(0, "ranking")
    rows = [
        generator.normal(size=[NUM_USERS, *weight.shape]).astype(np.float32)
        for weight in model_fn().local_weights
    ]
    candidates = generator.integers(NUM_ITEMS, size=[NUM_USERS, NUM_CANDIDATES], dtype=np.int32)
    everything = np.arange(NUM_ITEMS, dtype=np.int32)

    def rank_candidates():
        return protocols.judge_ranking(scorer.scores(weights, rows, candidates))

    def rank_everything():
        for places, scores in scorer.score_blocks(weights, rows, everything):
            ranks(scores, None, candidates[places, :1])

    def seconds(run) -> float:
        run()
        times = []
        for _ in range(sizes.rounds):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    candidate_seconds, full_seconds = seconds(rank_candidates), seconds(rank_everything)
    return {**NOT_COMPARED, "seconds": candidate_seconds, "full_seconds": full_seconds}
