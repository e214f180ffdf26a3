"""Recommends items on a device. Needs NumPy, and tflite-runtime or TensorFlow.

python -m experiments.export --run_dir=runs/first --output_dir=exported
python examples/on_device.py exported --rate "Matrix, The (1999)=5" --rate "Babe (1995)=2"
"""

import argparse
import csv
import json
import os
import pathlib
import sys

import numpy as np

try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorflow import lite

    Interpreter = lite.Interpreter


def recommend(given):
    """Prints the items with the highest scores."""
    card = json.loads((given.folder / "model_card.json").read_text(encoding="utf-8"))
    with open(given.folder / "items.csv", newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    names = [(item[key], row) for key in ("title", "item_id") for row, item in enumerate(items)]
    row_of = {**{name.casefold(): row for name, row in names}, **dict(names)}
    pairs = [text.rpartition("=")[::2] if "=" in text else (text, "1") for text in given.rate]
    rows = [row_of.get(name, row_of.get(name.casefold())) for name, _ in pairs]
    for row, (name, rating) in zip(rows, pairs):
        if row is None:
            raise ValueError(f"{name!r} is no title and no id in items.csv")
        if not rating.removeprefix("-").replace(".", "", 1).isdecimal():
            raise ValueError(f"the rating {rating!r} of {name!r} is no number, such as 4 or 3.5")
        low, high = card["scale"]["minimum"], card["scale"]["maximum"]
        if card["feedback"] == "explicit" and not low <= float(rating) <= high:
            raise ValueError(f"the rating {rating} of {name!r} is not from {low:g} to {high:g}")
    ratings, least = np.array([rating for _, rating in pairs], np.float32), card["label_threshold"]
    ratings = ratings if least is None else np.float32(ratings >= least)  # See ratings_mean there.
    model = Interpreter(str(given.folder / "model.tflite"), num_threads=1)
    vector = model.get_signature_runner("reconstruct")(item_rows=np.int32(rows), ratings=ratings)
    scores = model.get_signature_runner("score")(**vector)["scores"]
    scores[rows] = -np.inf
    scores[[int(item["num_ratings"]) == 0 for item in items]] = -np.inf  # Nothing is known of them.
    for place, row in enumerate(np.argsort(-scores, kind="stable")[: given.k], start=1):
        print(f"{place:2}  {scores[row]:8.4f}  {items[row]['title'] or items[row]['item_id']}")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=pathlib.Path, help="an export in the format tflite")
parser.add_argument("--rate", action="append", default=[], help="ITEM=RATING, or ITEM; repeat it")
parser.add_argument("--k", type=int, default=10, help="how many items to recommend")
try:
    recommend(parser.parse_args())
except (OSError, KeyError, ValueError) as error:
    sys.exit(f"error: {error}.")
