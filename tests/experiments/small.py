"""Small runs on generated ratings, and binaries as processes, for the tests of `experiments`."""

import json
import subprocess
import sys

from absl import flags

from experiments.run.flags import define_flags
from experiments.run.settings import Settings

SYNTHETIC = {
    "synthetic_num_users": 60,
    "synthetic_num_items": 60,
    "synthetic_mean_ratings_per_user": 25,
}
TIMEOUT = 300


def small_settings(**changes):
    """Settings on a data set of 60 users and 60 items, with changes."""
    return Settings(**{**SYNTHETIC, **changes})


def small_flags(**changes):
    """The same as flags of a command line."""
    return tuple(f"--{name}={value}" for name, value in {**SYNTHETIC, **changes}.items())


def command(binary, *arguments):
    return [sys.executable, "-m", f"experiments.{binary}", *map(str, arguments)]


def run_binary(repository, binary, *arguments, timeout=TIMEOUT):
    """Runs a binary with its output in pipes; returns when every holder of them has closed."""
    return subprocess.run(
        command(binary, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=repository,
        check=False,
    )


def read_json(path):
    """The values of a file of a run, without the SHA-256 that some have."""
    values = json.loads(path.read_text())
    if isinstance(values, dict):
        values.pop("sha256", None)
    return values


def parse_flags(*arguments):
    """Gives absl's flags the values of a command line."""
    if "dataset" not in flags.FLAGS:  # Else other tests have defined them.
        define_flags()
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
        flags.FLAGS[name].present = 0
    flags.FLAGS(["binary", *arguments])
