"""Rounds of FedRecon, by stock TFF and the cohort engine on the same clients; rounds of others.

Seconds are medians over rounds after a warm-up, the preparation of the clients included.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from experiments.bench.sizes import CATALOGUES, COHORTS, MODELS, NUM_ITEMS, Sizes, Start, seconds_of
from experiments.run import build
from experiments.run.population import load_population
from experiments.run.settings import Settings
from fedrecon import rng
from fedrecon.algorithms import fed_recon, stock_fed_recon
from fedrecon.data.cohorts import CohortPacker, choose_clients_per_shard
from fedrecon.data.datasets import load_dataset
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.engine.shards import shard_spec
from fedrecon.engine.values import by_name
from fedrecon.errors import InputError
from fedrecon.execution import set_native_context
from fedrecon.execution.in_process import InProcessContext
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.neural_cf import neumf
from fedrecon.options import FedReconOptions

NOT_COMPARED = {
    "stock_seconds": None,
    "stock_same_runtime_seconds": None,
    "ratio": None,
    "max_abs_difference": None,
}


def time_round(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Clients of equal length, as an average client of MovieLens 1M."""
    examples = made_up_examples(NUM_ITEMS, sizes, _label_threshold(sizes.model))
    bench = Bench(examples, sizes, model=sizes.model)
    return {"model": sizes.model, **_compare(bench, start), **sizes.described()}


def time_skewed(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Real clients of MovieLens 1M with all of their ratings."""
    bench = Bench(_skewed_examples(sizes), sizes)
    return {**_compare(bench, start), **sizes.described(ratings_per_client=None)}


def time_memory(sizes: Sizes, start: Start) -> dict[str, Any]:
    """One large catalogue."""
    bench = Bench(made_up_examples(CATALOGUES[-1], sizes), sizes)
    start()
    seconds = statistics.median(bench.time_cohort().seconds)
    return {"items": CATALOGUES[-1], **NOT_COMPARED, "seconds": seconds, **sizes.described()}


def _label_threshold(model: str) -> float | None:
    """NeuMF predicts probabilities."""
    return 4.0 if model == "neumf" else None


def made_up_examples(
    num_items: int, sizes: Sizes, label_threshold: float | None = None
) -> ClientExamples:
    """Returns clients, each with `--ratings` items of its own among the first 3,706."""
    num_users = sizes.clients
    generator = rng.generator(0, "benchmark")
    items = [generator.choice(NUM_ITEMS, sizes.ratings, replace=False) for _ in range(num_users)]
    count = num_users * sizes.ratings
    ratings = Ratings(
        name="benchmark",
        user_ids=np.repeat(np.arange(num_users, dtype=np.int32), sizes.ratings),
        item_ids=np.concatenate(items).astype(np.int32),
        ratings=generator.integers(1, 6, count).astype(np.float32),
        timestamps=None,
        num_users=num_users,
        num_items=num_items,
        original_user_ids=np.arange(num_users),
        original_item_ids=np.arange(num_items),
        item_titles=None,
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )
    options = ExampleOptions(max_ratings_per_user=None, label_threshold=label_threshold)
    return ClientExamples(ratings, options)


def sample_cohorts(examples: ClientExamples, sizes: Sizes) -> list[np.ndarray]:
    """Returns the users of each timed round, `[clients]` each."""
    return [
        rng.sample_uniform(examples.users, sizes.clients, seed=0, round_num=number)
        for number in range(1, sizes.rounds + 1)
    ]


def _skewed_examples(sizes: Sizes) -> ClientExamples:
    """Returns the users of MovieLens 1M; there must be at least `--clients`."""
    ratings = load_dataset("movielens-1m", data_dir=sizes.data_dir)
    examples = ClientExamples(ratings, ExampleOptions(max_ratings_per_user=None))
    if sizes.clients > len(examples.users):
        raise InputError(
            f"--clients={sizes.clients} is more than the {len(examples.users)} there are."
        )
    return examples


def time_catalogues(sizes: Sizes, start: Start) -> dict[str, Any]:
    """The clients of `round` with larger and larger catalogues."""
    results = []
    for num_items in CATALOGUES:
        print(f"{num_items} items", file=sys.stderr)
        examples = made_up_examples(num_items, sizes)
        bench = Bench(examples, sizes)
        if num_items == NUM_ITEMS:
            result = _compare(bench, start)
        else:
            result = {**NOT_COMPARED, "seconds": statistics.median(bench.time_cohort().seconds)}
        results.append({"items": num_items, **result, "clients_seconds": bench.time_clients()})
    return {
        **results[0],
        "items": list(CATALOGUES),
        "catalogues": results,
        "growth": results[-1]["clients_seconds"] / results[0]["clients_seconds"],
        **sizes.described(),
    }


def time_devices(sizes: Sizes, start: Start) -> dict[str, Any]:
    """The cohort engine on the CPU, on each GPU, and on all GPUs."""
    start()
    cpus, gpus = ([d.name for d in tf.config.list_logical_devices(k)] for k in ("CPU", "GPU"))
    results = []
    for model in MODELS:
        for num_clients in COHORTS:
            own = dataclasses.replace(sizes, clients=num_clients)
            examples = made_up_examples(NUM_ITEMS, own, _label_threshold(model))
            bench = Bench(examples, own, model=model)
            for devices in [cpus, *([gpu] for gpu in gpus), *([gpus] if len(gpus) > 1 else [])]:
                with tff.framework.get_context_stack().install(InProcessContext(devices)):
                    name = f"{model}, {num_clients} clients, {devices}"
                    seconds = statistics.median(bench.time_cohort(name).seconds)
                results.append(
                    {
                        "model": model,
                        "clients": num_clients,
                        "devices": devices,
                        "seconds": seconds,
                        "clients_per_second": num_clients / seconds,
                    }
                )
    found = {**NOT_COMPARED, "seconds": results[0]["seconds"], "cohorts": results}
    return {**found, **sizes.described(clients=list(COHORTS))}


def time_fed_ncf(sizes: Sizes, start: Start) -> dict[str, Any]:
    """Rounds of FedNCF on real clients."""
    start()
    settings = fed_ncf_settings(sizes)
    timing = time_algorithm("FedNCF", settings, sizes)
    return {
        **NOT_COMPARED,
        "seconds": statistics.median(timing.seconds),
        "cpu_seconds": statistics.fmean(timing.cpu_seconds),
        "clients": settings.clients_per_round,
    }


def fed_ncf_settings(sizes: Sizes) -> Settings:
    """Returns the settings of experiments/presets/fed_ncf_ml1m.flags."""
    return Settings(
        dataset="ncf-ml-1m",
        data_dir=sizes.data_dir,
        feedback="implicit",
        evaluate_on="test",
        model="neumf",
        dim=16,
        algorithm="fed_ncf",
        client_optimizer="adamw",
        client_learning_rate=0.001,
        batch_size=64,
        client_epochs=3,
        clients_per_round=50,
        client_sampler="queue",
    )


def time_algorithm(name: str, settings: Settings, sizes: Sizes) -> Timing:
    """Times rounds of real clients."""
    algorithm = build.build_algorithm(settings, load_population(settings))
    cohorts = [algorithm.sample_cohort(number) for number in range(1, sizes.rounds + 1)]
    return time_rounds(
        name, algorithm.process, lambda users: algorithm.training_data(users, 1), cohorts, cohorts
    )


def _compare(bench: Bench, start: Start) -> dict[str, Any]:
    """Times stock TFF and the cohort engine and compares the weights that they end with.

    Args:
      bench: The clients of both.
      start: Starts the runtime of the cohort engine.
    """
    worker = set_native_context()
    stock = bench.time_stock("stock TFF")
    worker.close()
    start()
    ours = bench.time_cohort()
    same_runtime = bench.time_stock("TFF's builder in the same runtime")
    stock_seconds, seconds = statistics.median(stock.seconds), statistics.median(ours.seconds)
    differences = [np.abs(a - b).max() for a, b in zip(stock.weights, ours.weights)]
    return {
        "stock_seconds": stock_seconds,
        "stock_same_runtime_seconds": statistics.median(same_runtime.seconds),
        "seconds": seconds,
        "ratio": stock_seconds / seconds,
        "max_abs_difference": float(max(differences)),
    }


@dataclasses.dataclass(frozen=True)
class Timing:
    """Rounds of one engine.

    Attributes:
      seconds: The seconds of each timed round.
      weights: The global weights after the timed rounds.
      cpu_seconds: This process's processor seconds of each, of all threads, which depend less on
        what else runs; empty if they were not taken.
    """

    seconds: list[float]
    weights: list[np.ndarray]
    cpu_seconds: Sequence[float] = ()


class Bench:
    """One model on the clients of one data set, by both engines."""

    def __init__(self, examples: ClientExamples, sizes: Sizes, *, model: str = "mf"):
        self.examples = examples
        self.options = FedReconOptions(batch_size=sizes.batch_size)
        # Stock TFF starts all clients with the same values, so the cohort engine has to.
        user = tf.keras.initializers.Constant(0.05)
        num_items = examples.ratings.num_items
        if model == "mf":
            self.model_fn = functools.partial(
                matrix_factorization, num_items, sizes.dim, user_initializer=user
            )
        else:
            self.model_fn = functools.partial(neumf, num_items, user_initializer=user)
        packing = fed_recon.packing_options(self.options, seed=0)
        size = choose_clients_per_shard(
            examples, examples.users, packing, num_clients=sizes.clients
        )
        self.packer = CohortPacker(examples, packing, clients_per_shard=size)
        self.cohorts = sample_cohorts(examples, sizes)

    def time_stock(self, name: str) -> Timing:
        def prepare(users):
            return [
                stock_fed_recon.client_dataset(
                    *self.examples.examples(user), batch_size=self.options.batch_size
                )
                for user in users
            ]

        process = stock_fed_recon.build_fed_recon(self.model_fn, self.options)
        return time_rounds(name, process, prepare, self.cohorts, self.cohorts[:1])

    def time_cohort(self, name: str = "cohort engine") -> Timing:
        process = fed_recon.build_fed_recon(
            self.model_fn, self.options, clients_per_shard=self.packer.clients_per_shard
        )
        # All cohorts warm up, because the sizes of all are compiled.
        return time_rounds(
            name, process, lambda users: self.packer.pack(users, 0), self.cohorts, self.cohorts
        )

    def time_clients(self) -> float:
        """Returns the median seconds of the clients' part of a round, in this process."""
        split_model = self.model_fn()
        model = FunctionalModel(split_model)
        spec = shard_spec(self.options.batch_size, self.packer.clients_per_shard)
        update = tf.function(fed_recon.build_clients_update(model, self.options, spec))
        values = by_name(model.global_weights, map(tf.identity, split_model.global_weights))

        def run(users):
            for shard in self.packer.pack(users, 0):
                update(values, tf.nest.map_structure(tf.constant, shard))[0].weights.numpy()

        for users in self.cohorts:
            run(users)
        return statistics.median(seconds_of(run, users) for users in self.cohorts * 5)


def time_rounds(
    name: str,
    process: Any,
    prepare: Callable[[np.ndarray], Sequence[Any]],
    cohorts: Sequence[np.ndarray],
    warm_up: Sequence[np.ndarray],
) -> Timing:
    start = process.initialize()
    for users in warm_up:
        process.next(start, prepare(users))
    state, seconds, cpu_seconds = start, [], []
    for users in cohorts:
        began, cpu_began = time.perf_counter(), time.process_time()
        state = process.next(state, prepare(users)).state
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
    print(f"{name}: {statistics.median(seconds):.4f} s a round", file=sys.stderr)
    return Timing(seconds, list(process.get_model_weights(state).trainable), cpu_seconds)
