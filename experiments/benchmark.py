"""Times rounds: of FedRecon, stock TFF against the cohort engine, on the same clients; of others.

The suite `load` times the loading of a large file.

    python -m experiments.benchmark --suite=round

Stock TFF is TFF's builder in TFF's own runtime; the cohort engine runs in the runtime of
`--runtime`. `stock_same_runtime_seconds` is TFF's builder there. Progress goes to stderr, and the
last line is one JSON object. Seconds are medians over rounds after a warm-up, the preparation of
the clients included. Suites:

- round: clients of equal length, as an average client of MovieLens 1M; with `--model=neumf`, NeuMF
  (8 factors, MLP 64-32-16-8) in place of matrix factorization.
- fed_avg: the clients of `round` in FedAvg, whose users' vectors start anew in each round. With
  `--peer=fedjax` FedJAX does the same (`peer_seconds`, `peer_ratio`, and the largest difference of
  the item tables, `peer_max_abs_difference`); install it as docs/how_it_is_fast.md says.
- skewed: real clients of MovieLens 1M with all of their ratings (20 to 2,314).
- catalogue: the clients of `round` with 3,706, 100,000 and 1,000,000 items, the cohort engine alone
  beyond the first. `clients_seconds` is the clients' part of a round: from the whole global weights
  in this process's memory to the clients' weighted updates, not yet summed into the table.
- memory: one catalogue of 1,000,000 items; `peak_rss_mb` is the figure that matters.
- gpu: the cohort engine alone, matrix factorization (`--dim` factors) and NeuMF (8 factors, MLP
  64-32-16-8), cohorts of 100, 1,000 and 10,000 clients, on the CPU, on each GPU, and on all GPUs
  if there are several.
- fed_ncf: rounds of FedNCF as in experiments/presets/fed_ncf_ml1m.flags (50 real clients of the NCF
  files, NeuMF, 3 local epochs, AdamW), the cohort engine alone. `cpu_seconds` is the mean processor
  time, of all threads of this process, which depends less on what else runs.
- exact: rounds of algorithms that solve, as in their presets, the cohort engine alone, on real
  clients: `seconds` and `cpu_seconds` of fed_ials (500 clients, 192 factors), `explicit_seconds` of
  fed_recon_ls (300 clients, 50 factors); and the time that XLA takes to solve 128 systems of 128
  unknowns beside TensorFlow's Cholesky, `ratio`.
- shards: rounds of `--algorithm` as in its preset, on real clients: `seconds` with the number of
  clients a shard that is chosen without a measurement (`clients_per_shard`). It is doubled and
  halved for as long as rounds become faster, each time in turn with the chosen one: `gain` is how
  many times as long the chosen one takes as `best_clients_per_shard`, the number to give to
  `train --clients_per_shard`. It takes minutes, most of them compilation.
- ranking: 6,040 users and 3,706 items, NeuMF, users' rows at hand: scores and ranks of 100
  candidates of each user (`seconds`), and of all items (`full_seconds`).
- load: a generated csv file of `--load_rows` rows, in the layout of MovieLens 25M, each time in a
  new process: `seconds` read and kept in the cache, `cached_seconds` from the cache, `ratio` of the
  two; `peak_rss_mb` is of reading. It needs 1.2 GB of temporary files for 25 million rows. With
  fewer than a million nothing is kept (`is_kept`).
- recommend: new users (`--clients`, 1,000 by default) with 20 to 200 ratings each, a linear model
  with biases: their least squares and the ten best of 3,706 items (`seconds`), and of 100,000; and
  the same from a data frame to a data frame (`table_seconds`). It needs no TensorFlow.

`peak_rss_mb` is the sum of the peaks of this process and, if one was used, TFF's worker.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.bench.sizes import CATALOGUES, MODELS, NUM_ITEMS, Sizes
from experiments.run import cli, runtime
from experiments.run.flags import refuse_given
from experiments.run.names import did_you_mean, listed
from fedrecon.errors import InputError

_SIZES = ("clients", "ratings", "dim", "batch_size")
_PEERS = ("fedjax",)
_ALGORITHMS = ("fed_recon", "fed_recon_ls", "fed_ials", "fed_ncf")


@dataclasses.dataclass(frozen=True)
class Suite:
    """One thing to time.

    Attributes:
      function: The module and the function that time it; they are imported after the flags were
        checked.
      flags: The flags of sizes and data that have an effect on it.
      dim: The number of factors without `--dim`.
      items: The number of items, for the results.
      clients: The number of clients without `--clients`.
      has_native: Whether it can run in TFF's worker.
      has_rounds: Whether it times anything of TensorFlow, over rounds.
    """

    function: str
    flags: tuple[str, ...] = ()
    dim: int = 50
    items: int = NUM_ITEMS
    clients: int = 100
    has_native: bool = True
    has_rounds: bool = True


SUITES = {
    "round": Suite("rounds:time_round", (*_SIZES, "model")),
    "fed_avg": Suite("peers:time_fed_avg", (*_SIZES, "peer"), has_native=False),
    "skewed": Suite("rounds:time_skewed", ("clients", "dim", "batch_size", "data_dir")),
    "catalogue": Suite("rounds:time_catalogues", _SIZES),
    "memory": Suite("rounds:time_memory", _SIZES, dim=64, items=CATALOGUES[-1]),
    "gpu": Suite("rounds:time_devices", ("ratings", "dim", "batch_size"), has_native=False),
    "fed_ncf": Suite("rounds:time_fed_ncf", ("data_dir",)),
    "exact": Suite("exact:time_exact", ("data_dir",)),
    "shards": Suite("shards:time_shards", ("data_dir", "algorithm")),
    "ranking": Suite("ranking:time_ranking"),
    "load": Suite("load:time_load", ("load_rows",), has_rounds=False),
    "recommend": Suite("recommend:time_recommend", ("clients", "dim"), clients=1_000),
}

_SUITE = flags.DEFINE_string("suite", "round", f"The suite: {listed(SUITES)}.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each engine.", lower_bound=5)
_CLIENTS = flags.DEFINE_integer(
    "clients", None, "Clients in one round. Default: 100; 1,000 for recommend.", lower_bound=1
)
_RATINGS = flags.DEFINE_integer("ratings", 165, "Ratings of each client.", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", None, "Factors. Default: 50; 64 for memory.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 5, "Ratings in one step of a client.", lower_bound=1
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder that has MovieLens 1M for skewed, the NCF files for fed_ncf, both for exact and for "
    "shards. Without it they are downloaded.",
)
_LOAD_ROWS = flags.DEFINE_integer(
    "load_rows", 25_000_000, "Rows of the file of the suite load.", lower_bound=1_000
)

_MODEL = flags.DEFINE_enum("model", "mf", MODELS, "The model of the suite round.")
_PEER = flags.DEFINE_enum(
    "peer", None, _PEERS, "Other code that the suite fed_avg times too; it must be installed."
)

_ALGORITHM = flags.DEFINE_enum(
    "algorithm", "fed_recon", _ALGORITHMS, "The algorithm of the suite shards."
)

_RUNTIME, _GPU_MEMORY_LIMIT_MB = runtime.define_flags(default="in_process")


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    suite = _suite()
    sizes = Sizes(
        rounds=_ROUNDS.value,
        clients=_CLIENTS.value or suite.clients,
        ratings=_RATINGS.value,
        dim=_DIM.value or suite.dim,
        batch_size=_BATCH_SIZE.value,
        data_dir=_DATA_DIR.value,
        load_rows=_LOAD_ROWS.value,
        model=_MODEL.value,
        peer=_PEER.value,
        algorithm=_ALGORITHM.value,
    )
    pids = [os.getpid()]

    def start() -> None:
        pids[:] = runtime.start(_RUNTIME.value, _GPU_MEMORY_LIMIT_MB.value, file=sys.stderr)

    module, function = suite.function.split(":")
    run = getattr(importlib.import_module(f"experiments.bench.{module}"), function)
    result: dict[str, Any] = {"suite": _SUITE.value}
    if suite.has_rounds:
        result.update(engine="cohort", runtime=_RUNTIME.value, items=suite.items)
    result.update(run(sizes, start))
    if suite.has_rounds:
        result.update(peak_rss_mb=_peak_rss_mb(pids), rounds=sizes.rounds)
    print(json.dumps(result))


def _suite() -> Suite:
    """Returns the suite that the flags choose; refuses flags that it has no use for."""
    name = _SUITE.value
    if name not in SUITES:
        raise InputError(f"--suite={name} must be {listed(SUITES)}{did_you_mean(name, SUITES)}")
    suite = SUITES[name]
    others = ("data_dir", "load_rows", "model", "peer", "algorithm")
    unused = [flag for flag in (*_SIZES, *others) if flag not in suite.flags]
    if not suite.has_rounds:
        unused += ["rounds", "runtime", "gpu_memory_limit_mb"]
    refuse_given(unused, lambda flag: f"--{flag} has no effect with --suite={name}.")
    if not suite.has_native and _RUNTIME.value == "native":
        raise InputError(f"--suite={name} runs in this process only; TFF's worker has no GPUs.")
    if _RATINGS.value > NUM_ITEMS:
        raise InputError(
            f"--ratings={_RATINGS.value} is more than the {NUM_ITEMS} items there are."
        )
    return suite


def _peak_rss_mb(pids: Sequence[int]) -> float:
    """Returns the sum of the peaks of the processes' resident memory."""
    kilobytes = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as status:
            (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
        kilobytes += int(peak)
    return round(kilobytes / 1024, 1)


if __name__ == "__main__":
    cli.run(main)
