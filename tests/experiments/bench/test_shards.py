"""The search for the number of clients a shard, on a machine whose speed is made up."""

import types

import numpy as np
import pytest

from experiments.bench import shards
from experiments.bench.sizes import Sizes

AUTO, CLIENTS = 24, 100


def made_up(settings):
    size = settings.clients_per_shard or AUTO
    return types.SimpleNamespace(
        size=size,
        process=types.SimpleNamespace(initialize=lambda: None),
        sample_cohort=lambda number: np.arange(CLIENTS),
        training_data=lambda users, number: [types.SimpleNamespace(user_ids=np.arange(size))],
    )


@pytest.mark.parametrize(
    ("fastest", "tried"),
    [
        (48, {24, 48, 96, 12}),  # 96 and 12 are slower.
        (CLIENTS, {24, 48, 96, CLIENTS, 12}),
        (24, {24, 48, 12}),
        (1, {24, 48, 12, 6, 3, 1}),
    ],
)
def test_sizes_are_doubled_and_halved_while_rounds_become_faster(monkeypatch, fastest, tried):
    def in_turn(each, cohorts):
        assert len(cohorts) == 5
        return [1.0 + abs(np.log(rounds._algorithm.size / fastest)) for rounds in each]

    monkeypatch.setattr(shards, "load_population", lambda settings: None)
    monkeypatch.setattr(shards.build, "build_algorithm", lambda settings, _: made_up(settings))
    monkeypatch.setattr(shards, "_in_turn", in_turn)
    sizes = Sizes(5, CLIENTS, 1, 1, 1, None, 0, "mf", None, "fed_recon")
    found = shards.time_shards(sizes, lambda: None)
    assert {each["clients_per_shard"] for each in found["sizes"]} == tried
    assert (found["clients_per_shard"], found["best_clients_per_shard"]) == (AUTO, fastest)
    assert found["gain"] == pytest.approx(1.0 + abs(np.log(AUTO / fastest)))
