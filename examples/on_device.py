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


def read_ratings(given):
    """Returns (item, rating) pairs of --rate, and of a file with the columns item and rating."""
    pairs = [text.rpartition("=")[::2] for text in given.rate]
    if given.ratings:
        with open(given.ratings, newline="", encoding="utf-8") as file:
            pairs += [(line["item"], line["rating"]) for line in csv.DictReader(file)]
    return [(item, float(rating)) for item, rating in pairs]


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--rate", action="append", default=[], help="ITEM=RATING, by title or id")
parser.add_argument("--ratings", help="a CSV file with the columns item and rating")
given = parser.parse_args()

card = json.loads((given.folder / "model_card.json").read_text(encoding="utf-8"))
with open(given.folder / "items.csv", newline="", encoding="utf-8") as file:
    items = list(csv.DictReader(file))
row_of = {item["title"].casefold(): row for row, item in enumerate(items)}
row_of.update({item["item_id"].casefold(): row for row, item in enumerate(items)})
pairs = read_ratings(given)
for name in [item for item, _ in pairs if item.casefold() not in row_of]:
    sys.exit(f"error: {name!r} is no title and no id in items.csv.")
rows = np.array([row_of[item.casefold()] for item, _ in pairs], np.int32)
ratings = np.array([rating for _, rating in pairs], np.float32)
if card["label_threshold"] is not None:  # See ratings_mean in the card.
    ratings = (ratings >= card["label_threshold"]).astype(np.float32)

model = Interpreter(str(given.folder / "model.tflite"), num_threads=1)
vector = model.get_signature_runner("reconstruct")(item_rows=rows, ratings=ratings)["user_vector"]
scores = model.get_signature_runner("score")(user_vector=vector)["scores"]
scores[rows] = -np.inf
scores[[int(item["num_ratings"]) == 0 for item in items]] = -np.inf  # Nothing is known of these.
for place, row in enumerate(np.argsort(-scores, kind="stable")[:10], start=1):
    print(f"{place:2}  {scores[row]:8.4f}  {items[row]['title'] or items[row]['item_id']}")
