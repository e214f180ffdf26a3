"""Times rounds: of FedRecon, stock TFF against the cohort engine, on the same clients; of others.

    python -m experiments.benchmark --suite=round

Stock TFF is TFF's builder in TFF's own runtime; the cohort engine runs in that of `--runtime`.
`stock_same_runtime_seconds` is TFF's builder there. Prints progress on stderr and one JSON object
as its last line. Seconds are medians over rounds after a warm-up, preparation of the clients
included. Suites:

- round: clients of equal length, as an average one of MovieLens 1M.
- skewed: real clients of MovieLens 1M with all of their ratings (20 to 2,314).
- catalogue: the clients of `round` with 3,706, 100,000 and 1,000,000 items, the cohort engine alone
  beyond the first. `clients_seconds` is the clients' part of a round: from the whole global weights
  in this process's memory to the clients' weighted updates, not yet summed into the table.
- memory: one catalogue of 1,000,000 items; `peak_rss_mb` is what matters.
- gpu: the cohort engine alone, matrix factorisation (`--dim` factors) and NeuMF (8 factors, MLP
  64-32-16-8), cohorts of 100, 1,000 and 10,000 clients, on the CPU, on each GPU, and on all GPUs
  if there are several.
- fedncf: rounds of FedNCF as in experiments/presets/fedncf_ml1m.flags (50 real clients of the NCF
  files, NeuMF, 3 local epochs, AdamW), the cohort engine alone.
- exact: rounds of fedrecon_ls as in its presets, the cohort engine alone: `seconds` of implicit
  feedback (500 clients, 192 factors) and `explicit_seconds` (300 clients, 50 factors), on real
  clients; and how long XLA takes to solve 128 systems of 128 beside TensorFlow's Cholesky, `ratio`.
- ranking: 6,040 users and 3,706 items, NeuMF, users' rows at hand: scores and ranks of 100
  candidates of each (`seconds`), and of all items (`full_seconds`).

`peak_rss_mb` is the sum of the peaks of this process and, if one was used, TFF's worker.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.run import cli, runtime
from fedrecon.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from experiments.run.settings import Settings

_SUITE = flags.DEFINE_enum(
    "suite",
    "round",
    ("round", "skewed", "catalogue", "memory", "gpu", "fedncf", "exact", "ranking"),
    "What to time.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each engine.", lower_bound=5)
_CLIENTS = flags.DEFINE_integer(
    "clients", 100, "Clients a round, but for --suite=gpu.", lower_bound=1
)
_RATINGS = flags.DEFINE_integer(
    "ratings", 165, "Ratings of each client, but for --suite=skewed.", lower_bound=1
)
_DIM = flags.DEFINE_integer("dim", None, "Factors; by default 50, or 64 for memory.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 5, "Ratings a client's step.", lower_bound=1)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder that holds MovieLens 1M for --suite=skewed, the NCF files for --suite=fedncf, both for "
    "--suite=exact; else they are downloaded.",
)

_RUNTIME, _GPU_MEMORY_LIMIT_MB = runtime.define_flags(default="in_process")

_NUM_ITEMS = 3_706  # Of MovieLens 1M.
_CATALOGUES = (_NUM_ITEMS, 100_000, 1_000_000)
_COHORTS = (100, 1_000, 10_000)
_NUM_USERS = 6_040  # Of MovieLens 1M.
_NUM_CANDIDATES = 100
# What each suite makes no use of.
_UNUSED = {
    "skewed": ("ratings",),
    "gpu": ("data_dir", "clients"),
    "fedncf": ("ratings", "clients", "dim", "batch_size"),
    "exact": ("ratings", "clients", "dim", "batch_size"),
    "ranking": ("ratings", "clients", "dim", "batch_size", "data_dir"),
}


@dataclasses.dataclass(frozen=True)
class Timing:
    """Rounds of one engine.

    Attributes:
      seconds: Of each timed round.
      weights: The global weights after them.
    """

    seconds: list[float]
    weights: list[np.ndarray]


class Bench:
    """One model on the clients of one data set, by both engines."""

    def __init__(self, examples, *, dim: int, num_clients: int, model: str = "mf"):
        import tensorflow as tf

        from fedrecon import rng
        from fedrecon.algorithms import fed_recon
        from fedrecon.data.cohorts import CohortPacker, choose_clients_per_shard
        from fedrecon.models.matrix_factorization import matrix_factorization
        from fedrecon.models.neural_cf import neumf
        from fedrecon.options import FedReconOptions

        self.examples = examples
        self.options = FedReconOptions(batch_size=_BATCH_SIZE.value)
        if model == "mf":
            # Stock TFF starts all clients alike, so that the cohort engine has to.
            self.model_fn = functools.partial(
                matrix_factorization,
                examples.ratings.num_items,
                dim,
                user_initializer=tf.keras.initializers.Constant(0.05),
            )
        else:
            self.model_fn = functools.partial(neumf, examples.ratings.num_items)
        packing = fed_recon.packing_options(self.options, seed=0)
        size = choose_clients_per_shard(examples, examples.users, packing, num_clients=num_clients)
        self.packer = CohortPacker(examples, packing, clients_per_shard=size)
        self.cohorts = [
            rng.sample_uniform(examples.users, num_clients, seed=0, round_num=number)
            for number in range(1, _ROUNDS.value + 1)
        ]

    def time_stock(self, name: str) -> Timing:
        from fedrecon.algorithms import stock_fed_recon

        def prepare(users):
            return [
                stock_fed_recon.client_dataset(
                    *self.examples.examples(user), batch_size=self.options.batch_size
                )
                for user in users
            ]

        process = stock_fed_recon.build_fed_recon(self.model_fn, self.options)
        return _time_rounds(name, process, prepare, self.cohorts, self.cohorts[:1])

    def time_cohort(self, name: str = "cohort engine") -> Timing:
        from fedrecon.algorithms import fed_recon

        process = fed_recon.build_fed_recon(
            self.model_fn, self.options, clients_per_shard=self.packer.clients_per_shard
        )
        # All cohorts warm up, for the sizes of all are compiled.
        return _time_rounds(
            name, process, lambda users: self.packer.pack(users, 0), self.cohorts, self.cohorts
        )

    def time_clients(self) -> float:
        """Returns the median seconds of the clients' part of a round, in this process."""
        import tensorflow as tf

        from fedrecon.algorithms import fed_recon
        from fedrecon.engine.shards import shard_spec
        from fedrecon.engine.values import by_name
        from fedrecon.models.functional import FunctionalModel

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
        return statistics.median(_seconds_of(run, users) for users in self.cohorts * 5)


def _time_rounds(
    name: str,
    process: Any,
    prepare: Callable[[np.ndarray], Sequence[Any]],
    cohorts: Sequence[np.ndarray],
    warm_up: Sequence[np.ndarray],
) -> Timing:
    start = process.initialize()
    for users in warm_up:
        process.next(start, prepare(users))
    state, seconds = start, []
    for users in cohorts:
        began = time.perf_counter()
        state = process.next(state, prepare(users)).state
        seconds.append(time.perf_counter() - began)
    print(f"{name}: {statistics.median(seconds):.4f} s a round", file=sys.stderr)
    return Timing(seconds, list(process.get_model_weights(state).trainable))


def _seconds_of(run: Callable[[np.ndarray], None], users: np.ndarray) -> float:
    began = time.perf_counter()
    run(users)
    return time.perf_counter() - began


def _peak_rss_mb(pids: Sequence[int]) -> float:
    """Returns the sum of the peaks of the processes' resident memory."""
    kilobytes = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as status:
            (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
        kilobytes += int(peak)
    return round(kilobytes / 1024, 1)


def _made_up_examples(num_items: int, num_users: int, label_threshold: float | None = None):
    """Returns clients who rated `--ratings` items of the first 3,706, each its own."""
    import numpy as np

    from fedrecon import rng
    from fedrecon.data.examples import ClientExamples, ExampleOptions
    from fedrecon.data.ratings import Ratings, RatingScale

    generator = rng.generator(0, "benchmark")
    items = [generator.choice(_NUM_ITEMS, _RATINGS.value, replace=False) for _ in range(num_users)]
    count = num_users * _RATINGS.value
    ratings = Ratings(
        name="benchmark",
        user_ids=np.repeat(np.arange(num_users, dtype=np.int32), _RATINGS.value),
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
    options = ExampleOptions(
        max_ratings_per_user=None, order="file", label_threshold=label_threshold
    )
    return ClientExamples(ratings, options)


def _skewed_examples(num_clients: int):
    """Returns the people of MovieLens 1M, of whom there must be `num_clients`."""
    from fedrecon.data.datasets import load_dataset
    from fedrecon.data.examples import ClientExamples, ExampleOptions

    ratings = load_dataset("movielens-1m", data_dir=_DATA_DIR.value)
    examples = ClientExamples(ratings, ExampleOptions(max_ratings_per_user=None))
    if num_clients > len(examples.users):
        raise InputError(
            f"--clients={num_clients} is more than the {len(examples.users)} there are."
        )
    return examples


def _compare(bench: Bench, start: Callable[[], None]) -> dict[str, Any]:
    """Times stock TFF and the cohort engine and compares the weights that they end with.

    Args:
      bench: Their clients.
      start: Starts the runtime of the cohort engine.
    """
    import numpy as np

    from fedrecon.execution import set_native_context

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


_NOT_COMPARED = {
    "stock_seconds": None,
    "stock_same_runtime_seconds": None,
    "ratio": None,
    "max_abs_difference": None,
}


def _run_catalogues(dim: int, start: Callable[[], None]) -> dict[str, Any]:
    results = []
    for num_items in _CATALOGUES:
        print(f"{num_items} items", file=sys.stderr)
        examples = _made_up_examples(num_items, _CLIENTS.value)
        bench = Bench(examples, dim=dim, num_clients=_CLIENTS.value)
        if num_items == _NUM_ITEMS:
            result = _compare(bench, start)
        else:
            result = {**_NOT_COMPARED, "seconds": statistics.median(bench.time_cohort().seconds)}
        results.append({"items": num_items, **result, "clients_seconds": bench.time_clients()})
    return {
        **results[0],
        "items": list(_CATALOGUES),
        "catalogues": results,
        "growth": results[-1]["clients_seconds"] / results[0]["clients_seconds"],
    }


def _run_on_devices(dim: int) -> dict[str, Any]:
    import tensorflow as tf
    import tensorflow_federated as tff

    from fedrecon.execution.in_process import InProcessContext

    cpus, gpus = ([d.name for d in tf.config.list_logical_devices(k)] for k in ("CPU", "GPU"))
    results = []
    for model in ("mf", "neumf"):
        for num_clients in _COHORTS:
            threshold = 4.0 if model == "neumf" else None
            examples = _made_up_examples(_NUM_ITEMS, num_clients, threshold)
            bench = Bench(examples, dim=dim, num_clients=num_clients, model=model)
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
    return {**_NOT_COMPARED, "seconds": results[0]["seconds"], "cohorts": results}


def _run_fed_ncf() -> dict[str, Any]:
    from experiments.run.settings import Settings

    settings = Settings(
        dataset="ncf-ml-1m",
        data_dir=_DATA_DIR.value,
        feedback="implicit",
        evaluate_on="test",
        model="neumf",
        dim=16,
        algorithm="fedncf",
        client_optimizer="adamw",
        client_learning_rate=0.001,
        batch_size=64,
        client_epochs=3,
        clients_per_round=50,
        client_sampler="queue",
    )
    return {"seconds": _time_task("FedNCF", settings), "clients": settings.clients_per_round}


def _time_task(name: str, settings: Settings) -> float:
    """Returns the median seconds of a round of real clients."""
    from experiments.run import data, tasks

    task, _ = tasks.build_task(settings, data.load_clients(settings))
    cohorts = [task.sample_cohort(number) for number in range(1, _ROUNDS.value + 1)]
    timing = _time_rounds(
        name, task.training, lambda users: task.training_data(users, 1), cohorts, cohorts
    )
    return statistics.median(timing.seconds)


def _run_exact() -> dict[str, Any]:
    import tensorflow as tf

    from experiments.run.settings import Settings

    common = {
        **{"data_dir": _DATA_DIR.value, "algorithm": "fedrecon_ls", "client_sampler": "queue"},
        **{"server_optimizer": "adam", "server_learning_rate": 0.01},
    }
    explicit = Settings(
        dataset="movielens-1m",
        max_ratings_per_user=300,
        user_bias=True,
        item_bias=True,
        global_bias=True,
        l2=5e-6,
        clients_per_round=300,
        **common,
    )
    implicit = Settings(
        dataset="ncf-ml-1m",
        feedback="implicit",
        evaluate_on="test",
        dim=192,
        clients_per_round=500,
        **common,
    )
    explicit_seconds = _time_task("explicit feedback", explicit)
    seconds = _time_task("implicit feedback", implicit)

    size = 128
    rows = tf.random.stateless_normal([size, size, size], seed=[0, 0])
    systems = tf.matmul(rows, rows, transpose_b=True) + size * tf.eye(size)

    def solve(systems):
        return tf.linalg.cholesky_solve(tf.linalg.cholesky(systems), tf.ones([size, size, 1]))

    def time_solver(solver) -> float:
        def run(_):
            solver(systems).numpy()

        run(None)
        return statistics.median(_seconds_of(run, None) for _ in range(_ROUNDS.value))

    by_xla, by_kernel = (time_solver(tf.function(solve, jit_compile=jit)) for jit in (True, False))
    return {
        "seconds": seconds,
        "explicit_seconds": explicit_seconds,
        "clients": implicit.clients_per_round,
        "xla_solve_seconds": by_xla,
        "solve_seconds": by_kernel,
        "ratio": by_xla / by_kernel,
    }


def _run_ranking() -> dict[str, Any]:
    import numpy as np

    from fedrecon import rng
    from fedrecon.evaluation import protocols
    from fedrecon.evaluation.metrics import ranks
    from fedrecon.evaluation.scoring import Scorer
    from fedrecon.models.functional import FunctionalModel
    from fedrecon.models.neural_cf import neumf
    from fedrecon.wiring import at_clients
    from fedrecon.wiring.weights import global_part

    model_fn = functools.partial(neumf, _NUM_ITEMS, gmf_dim=16)
    size = 32
    scorer = Scorer(
        reconstruct=None,
        score=at_clients.build_scoring(model_fn, clients_per_shard=size),
        make_candidates=at_clients.Candidates,
        packing=None,
        clients_per_shard=size,
    )
    weights = global_part(model_fn, FunctionalModel(model_fn())).initialize()
    generator = rng.generator(0, "ranking")
    rows = [
        generator.normal(size=[_NUM_USERS, *weight.shape]).astype(np.float32)
        for weight in model_fn().local_weights
    ]
    candidates = generator.integers(_NUM_ITEMS, size=[_NUM_USERS, _NUM_CANDIDATES], dtype=np.int32)
    everything = np.arange(_NUM_ITEMS, dtype=np.int32)

    def rank_candidates():
        return protocols.judge_ranking(scorer.scores(weights, rows, candidates))

    def rank_everything():
        for places, scores in scorer.score_blocks(weights, rows, everything):
            ranks(scores, None, candidates[places, :1])

    def seconds(run) -> float:
        run()
        times = []
        for _ in range(_ROUNDS.value):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return {"seconds": seconds(rank_candidates), "full_seconds": seconds(rank_everything)}


# Suites that choose their clients and sizes themselves.
_OF_THEIR_OWN = {"fedncf": _run_fed_ncf, "exact": _run_exact, "ranking": _run_ranking}


def _check_flags(suite: str) -> None:
    for name in _UNUSED.get(suite, ("data_dir",)):
        if flags.FLAGS[name].present:
            raise InputError(f"--{name} has no effect with --suite={suite}.")
    if suite == "gpu" and _RUNTIME.value == "native":
        raise InputError("--suite=gpu runs in this process only; TFF's worker has no GPUs.")
    if suite != "skewed" and _RATINGS.value > _NUM_ITEMS:
        raise InputError(
            f"--ratings={_RATINGS.value} is more than the {_NUM_ITEMS} items there are."
        )


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    suite, num_clients = _SUITE.value, _CLIENTS.value
    _check_flags(suite)
    dim = _DIM.value or (64 if suite == "memory" else 50)
    num_items = _CATALOGUES[-1] if suite == "memory" else _NUM_ITEMS
    pids = []

    def start() -> None:
        pids[:] = runtime.start(_RUNTIME.value, _GPU_MEMORY_LIMIT_MB.value, file=sys.stderr)

    result: dict[str, Any] = {"items": num_items}
    if suite == "catalogue":
        result |= _run_catalogues(dim, start)
    elif suite == "gpu":
        start()
        result |= _run_on_devices(dim)
    elif suite in _OF_THEIR_OWN:
        start()
        result |= {**_NOT_COMPARED, **_OF_THEIR_OWN[suite]()}
    elif suite == "memory":
        bench = Bench(_made_up_examples(num_items, num_clients), dim=dim, num_clients=num_clients)
        start()
        seconds = bench.time_cohort().seconds
        result |= {**_NOT_COMPARED, "seconds": statistics.median(seconds)}
    else:
        if suite == "skewed":
            examples = _skewed_examples(num_clients)
        else:
            examples = _made_up_examples(num_items, num_clients)
        result |= _compare(Bench(examples, dim=dim, num_clients=num_clients), start)
    if suite not in _OF_THEIR_OWN:
        result |= {
            "clients": list(_COHORTS) if suite == "gpu" else num_clients,
            "ratings_per_client": None if suite == "skewed" else _RATINGS.value,
            "dim": dim,
            "batch_size": _BATCH_SIZE.value,
        }
    result = {
        "suite": suite,
        "engine": "cohort",
        "runtime": _RUNTIME.value,
        **result,
        "peak_rss_mb": _peak_rss_mb(pids),
        "rounds": _ROUNDS.value,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
