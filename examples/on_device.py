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
    """Prints the ten items with the highest scores."""
    card = json.loads((given.folder / "model_card.json").read_text(encoding="utf-8"))
    with open(given.folder / "items.csv", newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    row_of = {item["title"].casefold(): row for row, item in enumerate(items)}
    row_of.update({item["item_id"].casefold(): row for row, item in enumerate(items)})
    pairs = [text.rpartition("=")[::2] if "=" in text else (text, "1") for text in given.rate]
    pairs, scale = [(item, float(rating)) for item, rating in pairs], card["scale"]
    for name, rating in pairs:
        if name.casefold() not in row_of:
            raise ValueError(f"{name!r} is no title and no id in items.csv")
        if card["feedback"] == "explicit" and not scale["minimum"] <= rating <= scale["maximum"]:
            raise ValueError(f"{rating:g} is not from {scale['minimum']:g} to {scale['maximum']:g}")
    rows = np.array([row_of[item.casefold()] for item, _ in pairs], np.int32)
    ratings = np.array([rating for _, rating in pairs], np.float32)
    if card["label_threshold"] is not None:  # See ratings_mean in the card.
        ratings = (ratings >= card["label_threshold"]).astype(np.float32)
    model = Interpreter(str(given.folder / "model.tflite"), num_threads=1)
    vector = model.get_signature_runner("reconstruct")(item_rows=rows, ratings=ratings)
    scores = model.get_signature_runner("score")(**vector)["scores"]
    scores[rows] = -np.inf
    scores[[int(item["num_ratings"]) == 0 for item in items]] = -np.inf  # Nothing is known of them.
    for place, row in enumerate(np.argsort(-scores, kind="stable")[:10], start=1):
        print(f"{place:2}  {scores[row]:8.4f}  {items[row]['title'] or items[row]['item_id']}")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=pathlib.Path, help="an export in the format tflite")
parser.add_argument(
    "--rate", action="append", default=[], help="ITEM=RATING, or ITEM, by title or id"
)
try:
    recommend(parser.parse_args())
except (OSError, KeyError, ValueError) as error:
    sys.exit(f"error: {error}.")
