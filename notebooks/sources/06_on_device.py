# %% [markdown]
# # On the device: from a trained model to a file that serves one person
#
# Federated Reconstruction keeps no user on the server. So a device needs only the item part of the
# model, and a rule to find its own user's part from the user's own ratings. This notebook
#
# 1. trains a model in some seconds,
# 2. looks at what leaves the lab: a vector and an offset for each item,
# 3. writes it as a TensorFlow Lite file, and measures what a smaller file costs,
# 4. plays the device: an interpreter, NumPy, and one person who rates one film after another.
#
# Notebook 01 explains the method. `python -m experiments.export` does steps 2 and 3 for a finished
# run.

# %%
# On Colab this cell installs fedrecon. Elsewhere it only keeps TensorFlow's notices out of the way.
import os
import subprocess
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
warnings.filterwarnings("ignore", message="IProgress not found")
REPOSITORY = "..."  # For Colab: the address of your copy of this project, as `git clone` takes it.

try:
    import google.colab  # noqa: F401

    is_on_colab = True
except ImportError:
    is_on_colab = False

if is_on_colab and not os.path.exists("fedrecon-checkout"):
    if sys.version_info >= (3, 12):
        raise RuntimeError(
            f"This runtime has Python {sys.version_info[0]}.{sys.version_info[1]}, for which TFF "
            "0.87 has no wheels; take a runtime with Python 3.11 (Tools > Command palette > Change "
            "runtime version), or run the notebook from a checkout with Python 3.9 to 3.11."
        )
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run(["git", "clone", "--depth=1", REPOSITORY, "fedrecon-checkout"], check=True)
    subprocess.run([*pip, "./fedrecon-checkout"], check=True)
    subprocess.run([*pip, "--no-deps", "tensorflow-federated==0.87.0"], check=True)
    raise SystemExit("Installed. Now choose Runtime > Restart session, and run all cells again.")

# %%
import csv
import json
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from IPython.display import display

import fedrecon as fr
from fedrecon.serving import export, tflite
from fedrecon.serving.card import Facts
from fedrecon.serving.item_table import KINDS
from fedrecon.serving.quantization_loss import quantization_loss

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#999999"
tf.get_logger().setLevel("ERROR")  # TensorFlow tells each folder that it writes.
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
    }
)

# %% [markdown]
# ## 1. A model
#
# Exact reconstruction with 32 factors and three biases, the default of `fr.fit`.

# %%
data = os.environ.get("FEDRECON_DATA")
if not data:
    ratings = fr.load_dataset("synthetic")
elif os.path.isdir(os.path.join(data, "ml-100k")):
    ratings = fr.load_dataset("movielens-100k", data_dir=data)
else:
    ratings = fr.load_dataset("movielens-1m", data_dir=data)

run = fr.fit(ratings, "fed_recon_ls", rounds=200, rounds_per_evaluation=50)
print(f"{ratings.num_users:,} users and {ratings.num_items:,} items")
print(f"RMSE of unseen test users: {run.metrics['unseen_test']['rmse']:.3f}")

# %% [markdown]
# ## 2. What leaves the lab
#
# A prediction of the model is linear in the user's vector: $e_i \cdot u + b_i$. So all that a
# device needs is $e_i$ and $b_i$ of every item, and the rule for $u$: here a ridge regression on
# the user's own ratings. Nothing of any user of the training is in it.

# %%
recommender = run.recommender
model = recommender.model
print(f"factors  {model.factors.shape}, {model.factors.dtype}")
print(f"offsets  {model.offsets.shape}, {model.offsets.dtype}")
print(f"rule     {model.rule.kind}, exponent {model.rule.exponent}")
print("a user's vector:", ", ".join(f"{name} ({size})" for name, size in model.parts))

# %% [markdown]
# ## 3. A file
#
# `export.write` makes a folder with the model, the names of the items, and a card that says what
# the model takes and gives. The item table can be stored in fewer bits: `float16`, or `int8` with a
# scale for each item. What that costs is measured on the unseen test users.

# %%
loss = quantization_loss(model, run.population)
facts = Facts(settings=None, metrics=run.metrics, quantization_loss=loss)
workplace = tempfile.TemporaryDirectory()  # It is deleted when the notebook ends.
folders = {kind: pathlib.Path(workplace.name) / kind for kind in KINDS}
for kind, folder in folders.items():
    export.write(recommender, folder, form="tflite", quantize=kind, facts=facts)

rows = [
    (
        kind,
        (folder / export.TFLITE).stat().st_size / 1000,
        loss["measures"][kind]["rmse"],
        loss["change_from_float32"][kind]["rmse"],
    )
    for kind, folder in folders.items()
]
display(
    pd.DataFrame(rows, columns=["item table", "model.tflite, KB", "RMSE", "less float32"])
    .style.hide(axis="index")
    .format({"model.tflite, KB": "{:,.0f}", "RMSE": "{:.4f}", "less float32": "{:+.6f}"})
)

_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
colors = (GRAY, ORANGE, BLUE)
bars = left.barh([row[0] for row in rows], [row[1] for row in rows], color=colors)
left.bar_label(bars, fmt="%.0f", padding=3)
left.set(xlabel="model.tflite, KB", title="A smaller file ...")
bars = right.barh([row[0] for row in rows], [row[2] for row in rows], color=colors)
right.bar_label(bars, fmt="%.4f", padding=3)
right.set(xlabel="RMSE, unseen test users, in stars", title="... for nothing that one could notice")
for ax in (left, right):
    ax.invert_yaxis()
    ax.margins(x=0.15)
plt.show()

# %% [markdown]
# ## 4. The device
#
# From here on neither TFF nor `fedrecon` is used: only the folder, NumPy and the interpreter of
# TensorFlow Lite (on a device the package `tflite-runtime`). The file has three functions;
# `reconstruct` finds the user's vector, `score` scores all items, `score_items` some.

# %%
folder = folders["int8"]
card = json.loads((folder / "model_card.json").read_text(encoding="utf-8"))
with open(folder / "items.csv", newline="", encoding="utf-8") as file:
    items = list(csv.DictReader(file))
titles = np.array([item["title"] or item["item_id"] for item in items])
is_known = np.array([int(item["num_ratings"]) > 0 for item in items])

interpreter = tf.lite.Interpreter(str(folder / "model.tflite"), num_threads=1)
reconstruct = interpreter.get_signature_runner("reconstruct")
score = interpreter.get_signature_runner("score")


def scores_for(rows, stars):
    """Returns the user's vector and the scores of all items, from rows of items and stars."""
    given = {"item_rows": np.array(rows, np.int32), "ratings": np.array(stars, np.float32)}
    vector = reconstruct(**given)["user_vector"]
    return vector, score(user_vector=vector)["scores"]


def best(rows, scores, number=5):
    """Returns the rows of the best items that were not given."""
    allowed = is_known.copy()
    allowed[rows] = False
    return np.argsort(np.where(allowed, -scores, np.inf), kind="stable")[:number]


print(f"trained on {card['data']}, {card['rounds']} rounds of {card['algorithm']}")
print("ratings:", card["ratings_mean"])
print("scores: ", card["scores_mean"])

# %% [markdown]
# One person of the unseen test users, whom the training never saw, rates films in the order in
# which that person really did. After each rating the device reconstructs the vector anew, and is
# asked for the films that come later. There is no training, no upload, and no stored user.

# %%
counts = ratings.counts()
unseen = run.population.group("unseen_test").users
person = unseen[np.argsort(counts[unseen])[len(unseen) * 3 // 4]]
own = ratings.rows_of(person)
own = own[np.argsort(ratings.timestamps[own], kind="stable")]
rated, stars = ratings.item_ids[own], ratings.ratings[own]
later = slice(len(own) // 2, None)

steps = range(len(own) // 2 + 1)
errors, vectors, lists = [], [], []
for number in steps:
    vector, scores = scores_for(rated[:number], stars[:number])
    errors.append(np.sqrt(np.mean((scores[rated[later]] - stars[later]) ** 2)))
    vectors.append(vector)
    lists.append(best(rated[:number], scores))

_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
left.plot(steps, errors, color=BLUE)
left.set(
    xlabel="ratings that the person has given",
    ylabel="RMSE of the later ratings, in stars",
    title="One person, as the device learns",
)
left.grid(axis="y")
moves = np.linalg.norm(np.diff(vectors, axis=0), axis=1)
right.bar(steps[1:], moves, color=ORANGE)
right.set(
    xlabel="the rating",
    ylabel="how far it moves the user's vector",
    title="How far each rating moves it",
)
plt.show()

shown = [0, 1, 5, len(own) // 2]
display(
    pd.DataFrame({f"after {number} ratings": titles[lists[number]] for number in shown}).style.hide(
        axis="index"
    )
)

# %% [markdown]
# Is it the same as in the lab? The library's `Recommender`, in float64 and with a direct solver,
# against the device's float32 and conjugate gradients; the difference of `int8` is what the item
# table lost.

# %%
in_lab = recommender.score_all(
    {ratings.original_item_ids[item]: star for item, star in zip(rated, stars)}
)
for kind in KINDS:
    interpreter = tf.lite.Interpreter(str(folders[kind] / "model.tflite"), num_threads=1)
    reconstruct = interpreter.get_signature_runner("reconstruct")
    score = interpreter.get_signature_runner("score")
    _, on_device = scores_for(rated, stars)
    largest = np.abs(on_device - in_lab).max()
    print(f"{kind:8}  largest difference of {len(items):,} scores: {largest:.1e} stars")
    assert largest < (1e-4 if kind == "float32" else 0.05)

# %% [markdown]
# How long does it take? Medians of 100 calls in the interpreter, one thread, on this machine. A
# phone is slower by a small factor, which leaves these far below a frame of its screen.

# %%
for name, milliseconds in tflite.latencies(
    (folders["int8"] / "model.tflite").read_bytes(), len(items)
).items():
    print(f"{name:24} {milliseconds:.2f} ms")

# %% [markdown]
# ## Where to go on
#
# - `python -m experiments.export --run_dir=RUN --quantize=int8 --output_dir=DIR` writes the folder
#   for a finished run, with the card's figures.
# - `examples/on_device.py` is section 4 as a program of 60 lines.
# - `docs/model_files.md` describes every file and every rule, for readers in other languages.
# - What this does not do: train on the device. The file serves; rounds of training run in a
#   simulation here.
