# %% [markdown]
# # Bring your own: ratings, model, algorithm
#
# Three things that a researcher changes, each in under 40 lines:
#
# 1. **ratings** from a CSV file,
# 2. **a Keras model**: a dense tower over item features, which knows something even about items
#    that nobody has rated,
# 3. **a federated algorithm**: FedRecon with a proximal term in the client's step, as in FedProx
#    ([Li et al. 2020](https://arxiv.org/abs/1812.06127)).
#
# Each is trained and judged like everything that the library brings along. Notebook 01 explains
# FedRecon itself.

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
import dataclasses
import functools
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_federated as tff
from IPython.display import display

import fedrecon as fr
from fedrecon.evaluation.intervals import paired_difference
from fedrecon.models import layers, metrics
from fedrecon.models.split_model import SplitModel, rating_input_spec

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#999999"
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
# ## 1. Your ratings: a CSV file
#
# This cell plays you: it writes two files into a temporary folder. Its made-up users like and
# dislike genres, and tend to watch what they like. Replace it by the paths of your own files.

# %%
GENRES = ["action", "animation", "comedy", "crime", "drama", "horror", "musical", "science fiction"]


def write_files(folder, num_users=800, num_items=400, seed=0):
    rng = np.random.default_rng(seed)
    genres_of = [
        rng.choice(len(GENRES), rng.integers(1, 4), replace=False) for _ in range(num_items)
    ]
    shares = np.zeros((num_items, len(GENRES)))
    for movie, genres in enumerate(genres_of):
        shares[movie, genres] = 1 / len(genres)
    quality = rng.normal(0, 0.4, num_items)
    popularity = rng.normal(0, 1, num_items)
    with open(folder / "movies.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["movie", "title", "genres"])
        for movie, genres in enumerate(genres_of):
            writer.writerow([f"m{movie:03}", f"Movie {movie}", "|".join(GENRES[g] for g in genres)])
    with open(folder / "ratings.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["customer", "movie", "stars", "date"])
        for user in range(num_users):
            taste, mood = rng.normal(0, 1.1, len(GENRES)), rng.normal(0, 0.3)
            liking = shares @ taste + quality + mood
            wish = popularity + 0.5 * liking + rng.gumbel(size=num_items)
            for movie in np.argsort(-wish)[: rng.integers(20, 90)]:
                stars = np.clip(np.rint(3.4 + liking[movie] + rng.normal(0, 0.5)), 1, 5)
                day = np.datetime64("2024-01-01") + int(rng.integers(0, 365))
                writer.writerow([f"c{user:04}", f"m{movie:03}", int(stars), day])


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_files(folder)
    print(*(folder / "ratings.csv").read_text().splitlines()[:4], sep="\n")
    print(*(folder / "movies.csv").read_text().splitlines()[:4], sep="\n")
    # This is all that your own file needs:
    ratings = fr.read_ratings(folder / "ratings.csv", items_file=folder / "movies.csv")

# %% [markdown]
# Nothing had to be said about separators, columns, dates or the scale. What was found out is told:

# %%
for note in ratings.notes:
    print("-", note)
print(f"{ratings.num_users:,} users, {ratings.num_items:,} items, {ratings.num_ratings:,} ratings")
print(f"The scale: {ratings.scale}")

# %% [markdown]
# `fr.Ratings.from_dataframe` takes a data frame. A wrong line is refused with its number, and
# `fr.ReadingOptions` says how to read what cannot be guessed (`docs/own_data.md`).
#
# Now divide the users. A tenth of the *items* is held out too: nobody trains on these **cold
# items**, and unseen users are asked for them.

# %%
population = fr.divide_by_user(ratings, seed=0, cold_items_fraction=0.1)
features, genre_names = fr.genre_features(ratings)

_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
has_genre = features > 0
stars_of = [ratings.ratings[has_genre[ratings.item_ids, g]] for g in range(len(genre_names))]
parts = ax.violinplot(stars_of, showmeans=True, widths=0.8, bw_method=0.35)
for body in parts["bodies"]:
    body.set(facecolor=BLUE, alpha=0.5)
ax.set_xticks(range(1, len(genre_names) + 1), genre_names, rotation=20)
ax.set(ylabel="stars", title="On average no genre is better than another: taste is individual")
plt.show()

# %% [markdown]
# ## 2. Your model: a dense tower over item features
#
# Matrix factorization has a free row $v_i$ for each item. A row that was never trained knows
# nothing. The tower computes the row from the item's genres $F_i$ instead:
#
# $$\hat y_{ui} = \mu + b_u + \langle x_u,\; \mathrm{tower}(F_i) \rangle ,
# \qquad \mathrm{tower}(F_i) = W_2\, \mathrm{relu}(W_1 F_i + a_1) + a_2 .$$
#
# The tower and $\mu$ are global, $x_u$ and $b_u$ local. A model of your own is a function that
# returns a `SplitModel`. Four rules:
#
# - the only input is the item id; known features come from a frozen table,
# - each weight is in exactly one layer of the two lists,
# - initial values are drawn with a fixed seed, so that each call gives the same model,
# - the layers are Keras layers; `layers.UserEmbedding` is a row of the one user of a device.


# %%
def tower_model(num_items, features, dim=8, units=32):
    """Returns a dense tower over the features of an item, and a row and a bias of the user."""
    item_id = tf.keras.Input([1], dtype=tf.int64, name="item_id")
    table = tf.keras.layers.Embedding(
        num_items,
        features.shape[1],
        embeddings_initializer=tf.keras.initializers.Constant(features),
        trainable=False,
        name="features",
    )
    draw = tf.keras.initializers.GlorotUniform
    hidden = tf.keras.layers.Dense(units, "relu", kernel_initializer=draw(seed=1), name="tower_1")
    output = tf.keras.layers.Dense(dim, kernel_initializer=draw(seed=2), name="tower_2")
    middle = layers.Bias(tf.keras.initializers.Constant(3.0), name="middle")
    user = layers.UserEmbedding(
        dim, tf.keras.initializers.RandomNormal(0, 0.1, seed=3), name="user"
    )
    user_bias = layers.UserEmbedding(1, "zeros", name="user_bias")

    item = output(hidden(tf.keras.layers.Flatten()(table(item_id))))
    rating = layers.InnerProduct()([user(item_id), item])
    rating = middle(tf.keras.layers.Add()([rating, user_bias(item_id)]))
    loss_fn = tf.keras.losses.MeanSquaredError
    return SplitModel(
        keras_model=tf.keras.Model(item_id, rating),
        global_layers=(table, hidden, output, middle),
        local_layers=(user, user_bias),
        input_spec=rating_input_spec(),
        loss_fn=loss_fn,
        metrics_fn=functools.partial(metrics.rating_metrics, loss_fn),
    )


# %% [markdown]
# Train it, beside matrix factorization, with FedRecon by gradient steps. `fr.fit` takes the model's
# function; `fr.model_fn` binds its arguments.

# %%
models = {
    "matrix factorization": fr.model_fn(
        fr.matrix_factorization,
        ratings.num_items,
        8,
        user_bias=True,
        item_bias=True,
        global_bias=True,
        initial_rating=ratings.scale.middle,
    ),
    "your tower": fr.model_fn(tower_model, ratings.num_items, features),
}
options = fr.FedReconOptions(
    reconstruction_optimizer=fr.OptimizerOptions("sgd", 0.1),
    reconstruction_epochs=5,
    client_optimizer=fr.OptimizerOptions("sgd", 0.5),
)
# Every client moves the whole tower, and of an item table only the rows of its items.
gentler = dataclasses.replace(options, client_optimizer=fr.OptimizerOptions("sgd", 0.05))
settings_of = {"matrix factorization": options, "your tower": gentler}
runs = {
    name: fr.fit(
        population,
        "fed_recon",
        model=model,
        options=settings_of[name],
        rounds=60,
        clients_per_round=50,
    )
    for name, model in models.items()
}

# %%
groups = {"unseen_test": "items of training", "cold_test": "cold items"}
_, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=[1.5, 1])
for (name, run), color in zip(runs.items(), (GRAY, BLUE)):
    curve = run.curves["cold_validation/rmse"].dropna()
    axes[0].plot(curve.index, curve, color=color, marker="o", ms=4, label=name)
axes[0].set(xlabel="round", ylabel="RMSE, in stars", title="Validation: unseen users, cold items")
axes[0].grid(axis="y")
axes[0].legend(frameon=False)
for shift, (name, run), color in zip((-0.19, 0.19), runs.items(), (GRAY, BLUE)):
    values = [run.metrics[group]["rmse"] for group in groups]
    bars = axes[1].bar(np.arange(2) + shift, values, 0.36, color=color, label=name)
    axes[1].bar_label(bars, fmt="%.3f", padding=2)
axes[1].set_xticks(range(2), groups.values())
axes[1].set(ylabel="RMSE, in stars", title="Test: unseen users")
axes[1].margins(y=0.15)
plt.show()

for group, title in groups.items():
    less = paired_difference(
        [runs["your tower"].results[group]],
        [runs["matrix factorization"].results[group]],
        "rmse",
        over="ratings",
    )
    print(
        f"{title}: the tower less matrix factorization {less.mean:+.3f} "
        f"(95% interval {less.low:+.3f} to {less.high:+.3f})"
    )

# %% [markdown]
# ## 3. Your algorithm: a proximal term in the client's step
#
# With several epochs over its query a client moves far from the server's model, towards what is
# best for itself alone. FedProx adds a term that holds it back:
#
# $$\min_w\; L_k(w) + \tfrac{\lambda}{2}\, \lVert w - w^{\mathrm{server}} \rVert^2,
# \qquad\text{so a step is}\quad
# w \leftarrow w - \eta \left( \nabla L_k(w) + \lambda\, (w - w^{\mathrm{server}}) \right).$$
#
# In FedRecon this belongs in step 3, where the client improves the global part. The step of a
# client is a `tff.learning.optimizers.Optimizer`, so a step of your own is an optimizer of your
# own. Its state begins anew in each round: what it sees first is the server's model.


# %%
class ProximalSgd(tff.learning.optimizers.Optimizer):
    """SGD on the loss plus `strength / 2` times the squared distance to where it began."""

    def __init__(self, learning_rate, strength):
        self._rate, self._strength = learning_rate, strength

    def initialize(self, specs):
        zeros = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs)
        return {"steps": tf.zeros([], tf.int32), "start": zeros}

    def next(self, state, weights, gradients):
        is_first = tf.equal(state["steps"], 0)
        start = tf.nest.map_structure(
            lambda now, kept: tf.where(is_first, now, kept), weights, state["start"]
        )

        def step(weight, gradient, start):
            pull = self._strength * (weight - start)
            return weight - self._rate * (tf.convert_to_tensor(gradient) + pull)

        moved = tf.nest.map_structure(step, weights, gradients, start)
        return {"steps": state["steps"] + 1, "start": start}, moved


@dataclasses.dataclass(frozen=True)
class ProximalOptions(fr.OptimizerOptions):
    """The settings: the learning rate as before, and the strength of the pull."""

    strength: float = 0.0
    is_plain_sgd = (
        False  # The engine then gives the optimizer its state, and all the rows it moves.
    )

    def build(self):
        return ProximalSgd(self.learning_rate, self.strength)


# %% [markdown]
# That is the whole algorithm: 30 lines. Everything else stays: the vectorized engine, XLA, the
# aggregation, the judge. First the check that a change like this needs. With strength 0 it must be
# plain FedRecon:


# %%
def weights_after(client_optimizer, rounds=2):
    changed = dataclasses.replace(several_epochs, client_optimizer=client_optimizer)
    algorithm = fr.prepare_fed_recon(
        models["matrix factorization"], changed, population, clients_per_round=20
    )
    state = algorithm.initialize()
    for round_num in range(1, rounds + 1):
        state, _ = algorithm.run_round(state, round_num)
    return [np.array(weight) for weight in algorithm.get_weights(state).trainable]


several_epochs = dataclasses.replace(options, client_epochs=5)
fr.set_in_process_context()  # Where TFF runs what is not within `fr.fit`.
plain = weights_after(fr.OptimizerOptions("sgd", 0.2))
zero = weights_after(ProximalOptions("sgd", 0.2, strength=0.0))
some = weights_after(ProximalOptions("sgd", 0.2, strength=1.0))
largest = max(np.abs(a - b).max() for a, b in zip(plain, zero))
other = max(np.abs(a - b).max() for a, b in zip(plain, some))
assert largest < 1e-6 < other
print(f"strength 0: the weights differ from plain FedRecon by at most {largest:.0e}")
print(f"strength 1: by up to {other:.2f}")

# %% [markdown]
# Then train with several strengths, five epochs a client, and judge.

# %%
STRENGTHS = (0.0, 0.3, 1.0)
proximal = {
    strength: fr.fit(
        population,
        "fed_recon",
        model=models["matrix factorization"],
        options=dataclasses.replace(
            several_epochs, client_optimizer=ProximalOptions("sgd", 0.2, strength=strength)
        ),
        rounds=60,
        clients_per_round=50,
    )
    for strength in STRENGTHS
}

# %%


_, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
rows = []
for (strength, run), color in zip(proximal.items(), (GRAY, ORANGE, GREEN)):
    curve = run.curves["train/rmse"]
    left.plot(curve.index, curve.rolling(10).mean(), color=color, label=f"strength {strength:g}")
    less = paired_difference(
        [run.results["unseen_test"]], [proximal[0.0].results["unseen_test"]], "rmse", over="ratings"
    )
    right.errorbar(
        less.mean,
        f"{strength:g}",
        xerr=[[less.mean - less.low], [less.high - less.mean]],
        marker="o",
        ms=8,
        capsize=3,
        color=color,
    )
    rows.append(
        (strength, run.metrics["unseen_test"]["rmse"], f"{less.low:+.3f} to {less.high:+.3f}")
    )
left.set(xlabel="round", ylabel="training RMSE, mean of 10 rounds", title="While training")
left.legend(frameon=False)
left.grid(axis="y")
right.axvline(0, color="black", lw=0.8)
right.set(
    xlabel="RMSE less the RMSE of strength 0; left is better",
    ylabel="strength",
    title="Unseen test users, 95% intervals",
)
right.locator_params(axis="x", nbins=5)
right.grid(axis="x")
plt.show()
display(
    pd.DataFrame(rows, columns=["strength", "RMSE, unseen test users", "less strength 0"])
    .style.hide(axis="index")
    .format(precision=3)
)

# %% [markdown]
# Here the proximal term does **not** help: the interval of the weak pull holds 0, and the strong
# one is worse. (The training RMSE on the left is taken before each step, in all five epochs, so it
# shows how closely clients fit their own query.) FedRecon may need it less than FedAvg does, since
# a client's local part already takes up what is individual. That is a guess; two strengths on one
# generated data set do not decide it. What counts here is that the question took 30 lines and the
# answer comes with an interval.
#
# ## Where to go on
#
# - Another aggregation of the clients' updates: `fr.fit(..., aggregator=...)` takes TFF's
#   factories, clipped, noised or secure ones too.
# - Another stage, other things to send: `docs/own_algorithm.md`. `fedrecon/algorithms/fed_recon.py`
#   is the model to follow.
# - In the binaries: `--model=package.module:function` (`docs/own_model.md`).
# - Write the slow version too, client by client, and hold both equal. A test of this notebook does
#   so for the proximal step (`tests/notebooks/test_own_client_step.py`).
