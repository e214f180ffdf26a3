"""The names of algorithms, what they were called before, and near names for misspelt ones."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection

ALGORITHMS = (
    "fed_recon",
    "fed_recon_ls",
    "fed_ials",
    "fed_avg",
    "stateful_fed_avg",
    "fed_ncf",
    "centralized",
)
# Models without rounds, to compare with. All but fed_ease are trained on one machine.
REFERENCES = (
    "ials",
    "ease",
    "fed_ease",
    "item_knn",
    "popularity",
    "global_mean",
    "genre_mean",
    "genre_popularity",
)
# EASE on one machine, and by a federated sum.
OF_EASE = ("ease", "fed_ease")
# The references that know an item by its genres.
OF_GENRES = ("genre_mean", "genre_popularity")

_OLD_ALGORITHMS = {
    "fedrecon": "fed_recon",
    "fedrecon_ls": "fed_recon_ls",
    "fedavg": "fed_avg",
    "stateful_fedavg": "stateful_fed_avg",
    "fedncf": "fed_ncf",
}
# Names that other projects have for settings of ours.
_NAMES_ELSEWHERE = {
    "rounds": ("total_rounds",),
    "num_rounds": ("total_rounds",),
    "lr": ("client_learning_rate", "server_learning_rate"),
    "learning_rate": ("client_learning_rate", "server_learning_rate"),
    "optimizer": ("client_optimizer", "server_optimizer"),
    "epochs": ("client_epochs",),
    "local_epochs": ("client_epochs",),
    "num_epochs": ("client_epochs",),
    "clients": ("clients_per_round",),
    "factors": ("dim",),
    "rank": ("dim",),
    "layers": ("hidden_units",),
    "regularization": ("l2", "ridge"),
    "weight_decay": ("l2",),
    "clip_norm": ("gradient_clip_norm",),
    "data": ("dataset", "data_dir", "ratings_file"),
    "file": ("ratings_file",),
    "csv": ("ratings_file",),
    "k_core": ("min_ratings_per_user", "min_ratings_per_item"),
    "out": ("output_dir",),
    "run_dir": ("output_dir",),
}
_NUM_SUGGESTED = 3


def current_algorithm(name: str, feedback: str, *, flag: str) -> str:
    """Returns what an algorithm is called now, and says so on stderr if that is another name.

    Args:
      name: A name of now or of before; another one is returned as it is.
      feedback: The feedback of the run. Least squares on implicit feedback became `fed_ials`.
      flag: The flag that gave the name.
    """
    new = _OLD_ALGORITHMS.get(name, name)
    if name == "fedrecon_ls" and feedback == "implicit":
        new = "fed_ials"
    if new != name:
        note(f"--{flag}={name} is now called {new}.")
    return new


def note(text: str) -> None:
    """Tells the user, on stderr, a fact that stops nothing."""
    print(f"note: {text}", file=sys.stderr)


def did_you_mean(name: str, names: Collection[str], *, prefix: str = "") -> str:
    """Returns `"; did you mean ...?"` with the nearest of some names, or `"."` if none is near.

    Args:
      name: The misspelt name.
      names: The names that exist.
      prefix: Stands before each suggestion, such as `--`.
    """
    near = [prefix + each for each in _nearest(name, names)]
    return f"; did you mean {listed(near)}?" if near else "."


def _nearest(name: str, names: Collection[str]) -> list[str]:
    name = name.lower().replace("-", "_")
    elsewhere = [each for each in _NAMES_ELSEWHERE.get(name, ()) if each in names]
    if elsewhere:
        return elsewhere
    renamed = _OLD_ALGORITHMS.get(name)
    if renamed in names:
        return [renamed]
    close = difflib.get_close_matches(name, names, n=_NUM_SUGGESTED, cutoff=0.7)
    words = [each for each in names if f"_{name}_" in f"_{each}_"]
    return close or words[:_NUM_SUGGESTED]


def listed(words: Collection[str], last_word: str = "or") -> str:
    """Returns `a, b or c`, or with another word before the last."""
    *first, last = words
    return f"{', '.join(first)} {last_word} {last}" if first else last
