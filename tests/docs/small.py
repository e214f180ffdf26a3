"""What makes the commands and the Python of the pages small enough to be run by a test.

Nothing is downloaded: generated ratings, or small files of one's own, stand for MovieLens.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

from tests.docs.blocks import Block

# Commands that the test of the pages does not run, by how they begin, and why.
ELSEWHERE = {
    ("make",): "tests/test_installing.py, .ci/run",
    ("source",): "the environment of the test is in use",
    ("python3.11", "-m", "venv"): "tests/test_installing.py",
    ("pip", "install"): "tests/test_installing.py",
    (".venv/bin/pip", "install"): "tests/test_installing.py",
    ("tensorboard",): "it serves until it is ended",
}
_SYNTHETIC = (
    "--dataset=synthetic",
    "--synthetic_num_users=150",
    "--synthetic_mean_ratings_per_user=40",
)
_ROUNDS = ("--total_rounds=2", "--rounds_per_evaluation=2", "--clients_per_round=8", "--dim=4")
_OWN_FILES = ("--ratings_file=ratings.csv", "--items_file=items.csv")
_MORE = {
    "train": _ROUNDS,
    "compare": (*_ROUNDS, "--seeds=1"),
    "tune": (*_ROUNDS, "--seeds=1"),
    "benchmark": ("--clients=4", "--ratings=10", "--dim=3"),
}
_IN_PYTHON = {
    'fr.load_dataset("movielens-1m")': 'fr.read_ratings("ratings.csv", items_file="items.csv")',
    "rounds=200": "rounds=2",
    "range(1, 501)": "range(1, 3)",
    "clients_per_round=100": "clients_per_round=8",
    "population.train, 100,": "population.train, 8,",
    "dim=50": "dim=4",
}
_TITLES = {
    **{313: "Titanic (1997)", 314: "Alien (1979)", 315: "Babe (1995)", 316: "Star Wars (1977)"},
    **{317: "Fargo (1996)", 318: "Casablanca (1942)"},
    **{item: f"Film {item} (1990)" for item in range(319, 343)},
}


def command(words: list[str]) -> list[str]:
    """Returns a command of a page with flags that make it small."""
    if words[:2] != ["python", "-m"] or not words[2].startswith("experiments."):
        return words
    name = words[2].removeprefix("experiments.")
    has_named = any(word.startswith("--dataset=movielens") for word in words)
    words = [word for word in words if not word.startswith(("--dataset=", "--data_dir="))]
    if name not in _MORE:
        return words
    words = [*words, *(_MORE[name] if "--engine=debug" not in words else ())]
    words = [_with_one_value(word) for word in words if not word.startswith("--trials=")]
    if name == "benchmark" or any(word.startswith("--ratings_file") for word in words):
        return words
    if any("paper_" in word for word in words):
        words = [*words, "--split=standard"]  # Generated data have no published lines.
    return [*words, *(_OWN_FILES if has_named else _SYNTHETIC)]


def expected_error(words: list[str]) -> str | None:
    """Returns how a command of a page ends other than well: a leak that is shown has status 1."""
    return "status 1" if "--simulate=excluding_test" in words else None


def _with_one_value(word: str) -> str:
    """Returns `--search=SETTING:VALUE` of a search or a sweep of several values."""
    return word.partition(",")[0] if word.startswith(("--search=", "--sweep=")) else word


def python(code: str) -> str:
    """Returns the Python of a page on small data and for few rounds."""
    for found, instead in _IN_PYTHON.items():
        code = code.replace(found, instead)
    return code


def names() -> dict[str, object]:
    """Returns the names that the Python of the pages takes as given."""
    table = pd.DataFrame({"user": ["ann", "bob"], "item": [313, 314], "rating": [5, 2]})
    renamed = {"user": "who", "item": "what", "rating": "stars"}
    return {"table": table, "df": table.rename(columns=renamed).assign(when=[7, 8])}


def write_files(folder: pathlib.Path, blocks: list[Block]) -> None:
    """Writes the files that the commands of the pages take as given.

    Args:
      folder: Where the commands run.
      blocks: Of the page about models; its functions become `my_model.py`.
    """
    generator = np.random.default_rng(0)
    for name, num_users in (("ratings", 120), ("january", 110), ("february", 120)):
        rows = [
            (user, item, int(generator.integers(1, 6)), 1_000 * user + place)
            for user in range(num_users)
            for place, item in enumerate(generator.choice(sorted(_TITLES), 14, replace=False))
        ]
        table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
        table.to_csv(folder / f"{name}.csv", index=False)
    genres = [("Drama", "Comedy", "Drama|Comedy")[item % 3] for item in _TITLES]
    items = pd.DataFrame({"item": [*_TITLES], "title": [*_TITLES.values()], "genres": genres})
    items.to_csv(folder / "items.csv", index=False)
    (folder / "mine.csv").write_text("title,rating\nAlien (1979),5\n")
    _write_negatives(folder, generator)
    functions = [b.text for b in blocks if b.language == "python" and "\ndef " in f"\n{b.text}"]
    (folder / "my_model.py").write_text("\n".join(functions))


def _write_negatives(folder: pathlib.Path, generator: np.random.Generator) -> None:
    """Writes training items, test items and fair negatives of 100 users and 50 items."""
    train, test, negatives = [], [], []
    for user in range(100):
        own = generator.choice(50, 11, replace=False)
        train += [f"{user}\t{item}\t1\t{place}" for place, item in enumerate(own[:10])]
        test.append(f"{user}\t{own[10]}\t1\t10")
        others = np.setdiff1d(np.arange(50), own[:10])
        negatives += [f"{user}\t{item}" for item in generator.choice(others, 200)]
    for name, lines in (("ml.train.rating", train), ("ml.test.rating", test)):
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "drawn.tsv").write_text("\n".join(negatives) + "\n")
