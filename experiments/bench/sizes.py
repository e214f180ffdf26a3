"""How large the benchmarks are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

NUM_USERS, NUM_ITEMS = 6_040, 3_706  # Of MovieLens 1M.
CATALOGUES = (NUM_ITEMS, 100_000, 1_000_000)
COHORTS = (100, 1_000, 10_000)
NUM_CANDIDATES = 100
MODELS = ("mf", "neumf")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that the flags give.

    Attributes:
      rounds: Timed rounds of each engine.
      clients: Clients in one round.
      ratings: Ratings of each client.
      dim: Factors; None is the default of the suite.
      batch_size: Ratings in one step of a client.
      data_dir: Folder of the data sets; None downloads them.
      load_rows: Rows of the file that is loaded.
      model: One of `MODELS`.
      peer: Other code to time on the same clients; None for none.
      algorithm: The algorithm whose shards are timed.
    """

    rounds: int
    clients: int
    ratings: int
    dim: int | None
    batch_size: int
    data_dir: str | None
    load_rows: int
    model: str
    peer: str | None
    algorithm: str

    def described(self, **others: Any) -> dict[str, Any]:
        """Returns the sizes for the results, some of them replaced."""
        found = {
            "clients": self.clients,
            "ratings_per_client": self.ratings,
            "dim": self.dim,
            "batch_size": self.batch_size,
        }
        return {**found, **others}


# Starts the runtime of the cohort engine.
Start = Callable[[], None]


def seconds_of(run: Callable[[Any], None], users: Any) -> float:
    """Returns how long `run(users)` takes."""
    began = time.perf_counter()
    run(users)
    return time.perf_counter() - began
