"""Loading a large file of ratings, each time in a new process."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from experiments.bench.sizes import Sizes, Start
from fedrecon import rng
from fedrecon.data import own_ratings

# Of MovieLens 25M.
_NUM_USERS, _NUM_ITEMS = 162_541, 59_047
_USERS_AT_ONCE = 4_000


def time_load(sizes: Sizes, start: Start) -> dict[str, Any]:
    """A file of half stars: read and kept, and read from the cache."""
    del start  # Nothing here needs TensorFlow.
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "ratings.csv"
        print(f"writing {sizes.load_rows:,} rows", file=sys.stderr)
        _write_ratings(path, sizes.load_rows)
        first, second = (_load_in_new_process(path, f"{folder}/cache") for _ in range(2))
        return {
            "rows": first["rows"],
            "file_mb": round(path.stat().st_size / 2**20, 1),
            "seconds": first["seconds"],
            "cached_seconds": second["seconds"],
            "ratio": first["seconds"] / second["seconds"],
            "peak_rss_mb": first["peak_rss_mb"],
            "cached_peak_rss_mb": second["peak_rss_mb"],
            "is_kept": any(pathlib.Path(folder).glob("cache/ratings/*")),
            "is_same": first["fingerprint"] == second["fingerprint"],
        }


def _write_ratings(path: pathlib.Path, num_rows: int) -> None:
    """Writes rows by user, in the layout of MovieLens; no pair of user and item comes twice."""
    generator = rng.generator(0, "load")
    per_user = -(-num_rows // _NUM_USERS)
    gap = _NUM_ITEMS // per_user
    stars = [f"{half / 2}" for half in range(1, 11)]
    with open(path, "w") as file:
        file.write("userId,movieId,rating,timestamp\n")
        for first in range(0, num_rows, _USERS_AT_ONCE * per_user):
            count = min(num_rows - first, _USERS_AT_ONCE * per_user)
            user, place = np.divmod(np.arange(first, first + count), per_user)
            items = 1 + place * gap + user % gap
            times = generator.integers(800_000_000, 1_600_000_000, count)
            rated = generator.integers(len(stars), size=count)
            columns = (user + 1, items, rated, times)
            rows = zip(*(column.tolist() for column in columns))
            file.writelines(f"{u},{i},{stars[r]},{t}\n" for u, i, r, t in rows)


def _load_in_new_process(path: pathlib.Path, cache: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.load", str(path)],
        env={**os.environ, "FEDRECON_CACHE": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _load(path: str) -> None:
    """Loads a file, and prints what that took."""
    began = time.perf_counter()
    ratings = own_ratings.read_ratings(path)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"rows": ratings.num_ratings, "seconds": seconds, "peak_rss_mb": round(peak, 1)}
    print(json.dumps({**found, "fingerprint": ratings.fingerprint()}))


if __name__ == "__main__":
    _load(sys.argv[1])
