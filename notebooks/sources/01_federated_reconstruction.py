# %% [markdown]
# # Federated Reconstruction, from the idea to recommendations
#
# A recommender learns two kinds of numbers. Some describe **items** and are the same for everybody.
# Some describe **you**, and they say a lot about you.
#
# **Federated Reconstruction** ([Singhal et al. 2021](https://arxiv.org/abs/2102.03448)) trains the
# first kind by a federation of devices and never lets the second kind leave its device. It does not
# even keep the second kind: a device *rebuilds* its own part whenever it is needed, from its own
# ratings.
#
# In this notebook you
#
# 1. see the idea in a picture,
# 2. look at the ratings and at a Keras model split into two parts,
# 3. compute a round by hand in NumPy, for three clients,
# 4. compute the same round by TensorFlow Federated (TFF) and by `fedrecon`, and compare,
# 5. train for 300 rounds and serve users who took no part in training,
# 6. get recommendations for yourself from ten ratings.
#
# You need to know Keras. Everything runs on two CPU cores, in about two minutes.

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
import dataclasses
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

import fedrecon as fr

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, SKY, RED, GRAY = (
    *("#0072B2", "#E69F00", "#009E73"),
    *("#56B4E9", "#D55E00", "#999999"),
)
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
# ## 1. The idea in a picture
#
# One round has four steps.
#
# 1. The server samples some clients, the **cohort**, and sends them the **global part** of the
#    model.
# 2. Each client fits a **local part** to one half of its ratings, the **support**. The global part
#    is frozen meanwhile. This is the *reconstruction*.
# 3. Each client improves the global part on the other half, the **query**. Now the local part is
#    frozen. The client sends the change, and forgets its local part.
# 4. The server averages the changes and applies them.

# %%
# @title The drawing
from matplotlib.patches import FancyBboxPatch, Rectangle


def box(ax, x, y, width, height, color):
    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0.08", fc="white", ec=color, lw=1.8
        )
    )


def cells(ax, x, y, rows, columns, color, size=0.2):
    shades = np.random.default_rng(rows * columns).uniform(0.25, 0.95, (rows, columns))
    for (row, column), shade in np.ndenumerate(shades):
        corner = (x + column * size, y - row * size)
        ax.add_patch(Rectangle(corner, size, size, fc=color, alpha=shade, ec="white"))


def draw_round():
    _, ax = plt.subplots(figsize=(9.5, 5.2))
    ax.set(xlim=(-0.1, 9.6), ylim=(-0.2, 5.3), aspect="equal")
    ax.axis("off")
    box(ax, 3.0, 3.75, 3.4, 1.35, BLUE)
    cells(ax, 3.2, 4.75, 5, 3, BLUE)
    ax.text(4.05, 4.72, "server", weight="bold", va="center")
    ax.text(4.05, 4.36, "global part:", va="center", fontsize=9.5)
    ax.text(4.05, 4.08, "item rows $V$, item biases", va="center", fontsize=9.5)
    for number, left in enumerate((0.1, 3.3, 6.5)):
        box(ax, left, 0.1, 2.9, 2.0, ORANGE)
        ax.text(left + 0.1, 1.85, f"client {number + 1}", weight="bold", va="center")
        cells(ax, left + 0.15, 1.3, 1, 3, ORANGE)
        ax.text(left + 0.9, 1.4, f"local part $x_{number + 1}$", va="center", fontsize=9.5)
        ax.text(left + 0.1, 0.9, "2  fit $x$ on the support", va="center", fontsize=9.5)
        ax.text(left + 0.1, 0.6, "3  improve $V$ on the query", va="center", fontsize=9.5)
        ax.text(left + 0.1, 0.3, "    then forget $x$", va="center", fontsize=9.5)
        middle, towards = left + 1.45, 4.7 + (number - 1) * 1.1
        for shift, color, ends in (
            (-0.16, BLUE, ((towards, 3.6), (middle, 2.25))),
            (0.16, GREEN, ((middle, 2.25), (towards, 3.6))),
        ):
            (x0, y0), (x1, y1) = ends
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 2}
            ax.annotate("", (x1 + shift, y1), (x0 + shift, y0), arrowprops=arrow)
    ax.text(0.2, 3.35, "1  the server sends $V$", color=BLUE, fontsize=10.5)
    ax.text(7.0, 3.35, "3  clients send $\\Delta V$", color=GREEN, fontsize=10.5)
    ax.text(6.65, 4.35, "4  $V$ + the mean of $\\Delta V$", color=BLUE, fontsize=10.5)
    plt.show()


draw_round()

# %% [markdown]
# Two things follow. The server has nothing about any single user, so there is nothing to look up or
# to lose. And a user who comes along *after* training is no special case: such a user takes step 2
# and is served.
#
# What a client sends still depends on its ratings. README ("What stays private, and what does not")
# says what an update betrays, and why updates must be summed by secure aggregation.

# %% [markdown]
# ## 2. The ratings
#
# The default is generated ratings in the shape of MovieLens. They have a planted taste, so there is
# something to learn, and they need no download. To use MovieLens, set the environment variable
# `FEDRECON_DATA` to a folder that holds `ml-100k/` or `ml-1m.zip`.

# %%
data = os.environ.get("FEDRECON_DATA")
if not data:
    ratings = fr.load_dataset("synthetic")
elif os.path.isdir(os.path.join(data, "ml-100k")):
    ratings = fr.load_dataset("movielens-100k", data_dir=data)
else:
    ratings = fr.load_dataset("movielens-1m", data_dir=data)

first = slice(0, 5)
display(
    pd.DataFrame(
        {
            "user": ratings.user_ids[first],
            "item": ratings.item_ids[first],
            "title": [ratings.item_title(item) for item in ratings.item_ids[first]],
            "stars": ratings.ratings[first].astype(int),
        }
    ).style.hide(axis="index")
)
print(f"{ratings.num_users:,} users, {ratings.num_items:,} items, {ratings.num_ratings:,} ratings")

# %%
fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(11, 3.2), width_ratios=[1, 1, 1.5], layout="constrained"
)
stars, counts = np.unique(ratings.ratings, return_counts=True)
left.bar(stars, counts / counts.sum(), color=BLUE)
left.set(xlabel="stars", ylabel="share of ratings", title="most ratings are high", xticks=stars)
middle.hist(np.bincount(ratings.user_ids), bins=30, color=ORANGE)
middle.set(xlabel="ratings of a user", ylabel="users", title="users differ in activity")
popular = np.argsort(-np.bincount(ratings.item_ids, minlength=ratings.num_items))[:60]
table = np.full((ratings.num_users, ratings.num_items), np.nan)
table[ratings.user_ids, ratings.item_ids] = ratings.ratings
image = right.imshow(table[:40, popular], cmap="viridis", aspect="auto", interpolation="none")
right.set(xlabel="items, the most rated first", ylabel="users", title="most of the table is empty")
right.spines[["top", "right"]].set_visible(True)
fig.colorbar(image, label="stars")
plt.show()

# %% [markdown]
# ## 3. A Keras model in two parts
#
# Matrix factorization predicts the rating of user $u$ for item $i$ as
#
# $$\hat y_{ui} = \mu + b_i + b_u + \langle x_u, v_i \rangle .$$
#
# The item rows $v_i$, the item biases $b_i$ and $\mu$ are the same for everybody: **global**. The
# user's row $x_u$ and bias $b_u$ are **local**. On a device there is one user, so the local part is
# one row and no table, and the model's only input is an item id.
#
# `fr.matrix_factorization` returns a `SplitModel`: a Keras model and two lists of its layers. It
# plays the part of TFF's `ReconstructionModel`. Notebook 03 builds one layer by layer.

# %%
DIM = 8
model_fn = fr.model_fn(
    fr.matrix_factorization,
    ratings.num_items,
    DIM,
    user_bias=True,
    item_bias=True,
    global_bias=True,
    initial_rating=ratings.scale.middle,
    user_initializer="zeros",  # In general it is random. Zeros make the round by hand shorter.
)
model = model_fn()

held_by = {"global": "the server and all devices", "local": "one device, during a round"}
display(
    pd.DataFrame(
        [
            (layer.name, str(tuple(weight.shape)), part, held_by[part])
            for part, layers in (("global", model.global_layers), ("local", model.local_layers))
            for layer in layers
            for weight in layer.weights
        ],
        columns=["layer", "shape", "part", "held by"],
    )
    .style.hide(axis="index")
    .apply(
        lambda row: (
            [f"background-color: {'#56B4E955' if row.part == 'global' else '#E69F0055'}"] * len(row)
        ),
        axis=1,
    )
)

# %% [markdown]
# ## 4. One round by hand
#
# 80% of the users may train. The others are kept apart for judging. Three users make the first
# cohort. A client's ratings are cut into batches of five: batches 0, 2, 4, ... are its support and
# batches 1, 3, 5, ... its query, so that no rating is used for both.

# %%
population = fr.divide_by_user(ratings, seed=0)
options = fr.FedReconOptions(
    reconstruction_optimizer=fr.OptimizerOptions("sgd", 0.1),
    reconstruction_epochs=5,
    client_optimizer=fr.OptimizerOptions("sgd", 0.5),
    server_optimizer=fr.OptimizerOptions("sgd", 1.0),
    batch_size=5,
)
ours = fr.prepare_fed_recon(model_fn, options, population, clients_per_round=3)
cohort = ours.sample_cohort(1)
print("The cohort of round 1:", ", ".join(f"user {user}" for user in cohort))

# %% [markdown]
# The loss of a batch of $n$ ratings is $\frac1n\sum (\hat y - y)^2$. With the slope
# $s = \frac2n(\hat y - y)$ of each rating, its gradients are
#
# $$\frac{\partial}{\partial x_u} = \sum_i s_i v_i, \qquad
# \frac{\partial}{\partial b_u} = \sum_i s_i, \qquad
# \frac{\partial}{\partial v_i} = s_i x_u, \qquad
# \frac{\partial}{\partial b_i} = s_i, \qquad
# \frac{\partial}{\partial \mu} = \sum_i s_i .$$
#
# That is all the arithmetic there is. The whole round:


# %%
def batches(items, stars, first):
    """Every other batch of five, from batch `first`."""
    return [(items[k : k + 5], stars[k : k + 5]) for k in range(5 * first, len(items), 10)]


def slopes(part, user, items, stars):
    predicted = part["mu"] + part["b"][items] + user["b"] + part["V"][items] @ user["x"]
    return 2 * (predicted - stars) / len(stars)


def reconstruct(part, support, epochs=5, rate=0.1):
    """Step 2: fits the local part; the global part is frozen."""
    user = {"x": np.zeros(DIM, np.float32), "b": np.float32(0)}
    for items, stars in support * epochs:
        slope = slopes(part, user, items, stars)
        user["x"] -= rate * slope @ part["V"][items]
        user["b"] -= rate * slope.sum()
    return user


def improve(part, user, query, rate=0.5):
    """Step 3: fits the global part; the local part is frozen. Returns the change."""
    mine = {name: value.copy() for name, value in part.items()}
    for items, stars in query:
        slope = slopes(mine, user, items, stars)
        mine["V"][items] -= rate * np.outer(slope, user["x"])
        mine["b"][items] -= rate * slope
        mine["mu"] -= rate * slope.sum()
    return {name: mine[name] - part[name] for name in part}


def round_by_hand(part, clients):
    """Steps 1 to 4: the server's part after the mean of the changes, weighted by query ratings."""
    changes, weights = [], []
    for items, stars in clients:
        user = reconstruct(part, batches(items, stars, first=0))
        query = batches(items, stars, first=1)
        changes.append(improve(part, user, query))
        weights.append(sum(len(stars) for _, stars in query))
    shares = np.array(weights, np.float32) / sum(weights)
    mean = {name: sum(w * c[name] for w, c in zip(shares, changes)) for name in part}
    return {name: part[name] + mean[name] for name in part}


# %%
initial = ours.get_weights(ours.initialize()).trainable
start = {
    "V": np.array(initial[0]),
    "b": np.array(initial[1])[:, 0],
    "mu": np.float32(initial[2]),
}
clients = [population.examples.examples(user) for user in cohort]
by_hand = round_by_hand(start, clients)

# %% [markdown]
# What happened at each client? Reconstruction lowers the client's error on its **query**, which it
# has not seen yet: mostly by the bias $b_u$, since the item rows know nothing in round 1.


# %%
def error(part, user, examples):
    """The root of the mean squared error, in stars."""
    items, stars = (np.concatenate(arrays) for arrays in zip(*examples))
    return np.sqrt(np.mean((slopes(part, user, items, stars) * len(stars) / 2) ** 2))


nobody = {"x": np.zeros(DIM, np.float32), "b": np.float32(0)}
rows = []
for user, (items, stars) in zip(cohort, clients):
    support, query = batches(items, stars, 0), batches(items, stars, 1)
    local = reconstruct(start, support)
    touched = np.count_nonzero(improve(start, local, query)["b"])
    rows.append(
        {
            "client": f"user {user}",
            "support": sum(len(y) for _, y in support),
            "query": sum(len(y) for _, y in query),
            "error before reconstruction": error(start, nobody, query),
            "error after it": error(start, local, query),
            "item rows changed": touched,
        }
    )
display(pd.DataFrame(rows).style.hide(axis="index").format(precision=3))

# %% [markdown]
# ## 5. The same round by TFF, and by `fedrecon`
#
# TFF 0.87 is the last release with `tff.learning.algorithms.build_fed_recon`.
# `fr.prepare_stock_fed_recon` calls it and nothing else, with the same settings. It runs in TFF's
# own runtime, a worker process. `fr.prepare_fed_recon` computes all clients at once, inside this
# process.

# %%
worker = fr.set_native_context()  # TFF's own runtime.
stock = fr.prepare_stock_fed_recon(model_fn, options, population, clients_per_round=3)
stock_state, _ = stock.run_round(stock.initialize(), 1)
stock_weights = [np.array(w) for w in stock.get_weights(stock_state).trainable]
worker.close()

fr.set_in_process_context()  # Ours.
our_state, _ = ours.run_round(ours.initialize(), 1)
our_weights = [np.array(w) for w in ours.get_weights(our_state).trainable]

names = ("V", "b", "mu")
comparison = pd.DataFrame(
    {
        "weights": ["item rows $V$", "item biases $b$", "global bias $\\mu$"],
        "largest change in the round": [np.abs(by_hand[n] - start[n]).max() for n in names],
        "TFF less by hand": [
            np.abs(theirs.reshape(by_hand[n].shape) - by_hand[n]).max()
            for theirs, n in zip(stock_weights, names)
        ],
        "fedrecon less TFF": [np.abs(a - b).max() for a, b in zip(our_weights, stock_weights)],
    }
)
display(
    comparison.style.hide(axis="index").format(
        precision=1, formatter="{:.1e}", subset=comparison.columns[1:]
    )
)
largest = comparison.iloc[:, 2:].to_numpy().max()
assert largest < 1e-5
print(f"The largest difference between the three is {largest:.0e}.")

# %% [markdown]
# The three agree up to the rounding of float32. They differ in time. Stock TFF takes its clients
# one by one and rewrites the whole item table at every step. `fedrecon` takes the steps of all
# clients together, on the rows of their own items alone. Here is a cohort of 50:


# %%
def seconds_of_round(algorithm, rounds):
    """The median over some rounds, after one that traces and compiles."""
    state, _ = algorithm.run_round(algorithm.initialize(), 1)
    seconds = []
    for round_num in range(2, rounds + 2):
        began = time.perf_counter()
        state, _ = algorithm.run_round(state, round_num)
        np.array(algorithm.get_weights(state).trainable[0])  # Waits for the result.
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


settings = (model_fn, options, population)
seconds = {
    "fedrecon": seconds_of_round(fr.prepare_fed_recon(*settings, clients_per_round=50), rounds=30)
}
worker = fr.set_native_context()
seconds["stock TFF"] = seconds_of_round(
    fr.prepare_stock_fed_recon(*settings, clients_per_round=50), rounds=2
)
worker.close()

fig, ax = plt.subplots(figsize=(7.5, 1.7))
ax.plot(list(seconds.values()), list(seconds), "o", color=BLUE, markersize=10)
for name, value in seconds.items():
    ax.annotate(f"{1000 * value:,.0f} ms", (value, name), (12, -4), textcoords="offset points")
ax.set(xscale="log", xlabel="time of a round of 50 clients, log scale", xlim=(0.004, 60))
ax.set_ylim(-0.6, 1.6)
ax.set_xticks([0.01, 0.1, 1, 10], ["10 ms", "0.1 s", "1 s", "10 s"])
ax.grid(axis="x")
plt.show()
print(f"On this machine the ratio is {seconds['stock TFF'] / seconds['fedrecon']:,.0f}.")

# %% [markdown]
# ## 6. 300 rounds
#
# `fr.fit` trains, and judges on the way. There are two ways to reconstruct: by gradient steps, as
# in the paper (`fed_recon`), or exactly (`fed_recon_ls`). Matrix factorization is linear in its
# local part, so a client can solve a small least-squares problem instead of taking steps.
#
# Both have settings taken by hand; notebook 02 compares algorithms whose settings were searched.
#
# The users who are judged here took no part in training. Each is reconstructed from one half of its
# ratings and asked for the other half. The dashed line is the *mean ratings* baseline, $\mu + b_u +
# b_i$ without any taste. A recommender has learned about taste what it gains below that line.

# %%
from fedrecon import baselines
from fedrecon.evaluation.judge import BaselineScores

options_of = {
    "fed_recon": dataclasses.replace(options, reconstruction_epochs=5),
    "fed_recon_ls": dataclasses.replace(
        options,
        reconstruction="least_squares",
        least_squares=fr.LeastSquaresOptions(regularization=5.0),
        client_optimizer=fr.OptimizerOptions("sgd", 1.0),
        client_takes_one_step=True,
        server_optimizer=fr.OptimizerOptions("adam", 0.03),
    ),
}
runs = {
    algorithm: fr.fit(
        population,
        algorithm,
        model=fr.model_fn(
            fr.matrix_factorization,
            ratings.num_items,
            DIM,
            user_bias=True,
            item_bias=True,
            global_bias=True,
            initial_rating=ratings.scale.middle,
        ),
        options=options_of[algorithm],
        rounds=300,
        clients_per_round=50,
        rounds_per_evaluation=15,
    )
    for algorithm in options_of
}

users, items, stars = population.examples.interactions(population.train)
means = baselines.train_rating_baseline(
    users,
    items,
    stars,
    num_users=ratings.num_users,
    num_items=ratings.num_items,
    options=baselines.PopularityOptions(),
)
judge_of_means = fr.Judge.of_scores(BaselineScores(), population)

# %%
fig, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
for (algorithm, run), color in zip(runs.items(), (BLUE, SKY)):
    curve = run.curves["unseen_validation/rmse"].dropna()
    label = f"{algorithm}: {curve.iloc[-1]:.3f}"
    ax.plot(curve.index, curve, color=color, marker="o", markersize=4, label=label)
level = judge_of_means.metrics(means, "unseen_validation")["rmse"]
ax.axhline(level, color=GRAY, linestyle="--", label=f"mean ratings: {level:.3f}")
ax.set(xlabel="round", ylabel="RMSE, in stars", title="Unseen validation users")
ax.grid(axis="y")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The other group of unseen users, `unseen_test`, has decided nothing. Users differ much more than
# algorithms do, so a difference is judged in pairs: both algorithms on the same users, with a 95%
# interval by a bootstrap over users.

# %%
from fedrecon.evaluation.intervals import paired_difference

of_means = judge_of_means.results(means, "unseen_test")
rows = []
for algorithm, run in runs.items():
    gain = paired_difference([run.results["unseen_test"]], [of_means], "rmse", over="ratings")
    rows.append(
        {
            "algorithm": algorithm,
            "RMSE, unseen test users": run.metrics["unseen_test"]["rmse"],
            "less mean ratings": gain.mean,
            "95% interval": f"{gain.low:.3f} to {gain.high:.3f}",
        }
    )
rows.append(
    {"algorithm": "mean ratings", "RMSE, unseen test users": of_means.mean_over_ratings()["rmse"]}
)
display(pd.DataFrame(rows).style.hide(axis="index").format(precision=3, na_rep=""))

# %% [markdown]
# These figures are of generated ratings and say nothing about real users. `docs/results.md` has the
# tables of MovieLens, each with its command.

# %% [markdown]
# ## 7. Recommendations for yourself
#
# You are a user who comes after training. Rate ten items: change the stars below as you like. (With
# generated ratings an item is a number; with MovieLens you see titles.)

# %%
recommender = runs["fed_recon_ls"].recommender
ten = recommender.popular(10)["title"]
my_stars = [5, 1, 4, 2, 5, 3, 1, 4, 2, 5]
mine = dict(zip(ten, my_stars))

recommended = recommender.recommend(mine, k=8)
display(
    pd.DataFrame({"you rate": ten, "stars": my_stars}).style.hide(axis="index"),
    recommended.rename(columns={"title": "you get", "score": "predicted stars"})
    .style.hide(axis="index")
    .format(precision=2)
    .bar(subset="predicted stars", color="#56B4E9", vmin=0, vmax=float(ratings.scale.maximum) + 1),
)

# %% [markdown]
# The scores are not cut to the scale, so that the order stays. Where does the first one come from?
# Exact reconstruction is linear in the ratings given, so a score is a sum: the score of somebody
# who gave nothing, and a contribution of each rating. On the right, the distance to the dotted line
# is what your ten ratings change.

# %%
best = recommended["title"][0]
why = recommender.explain(mine, best).iloc[::-1]
labels = [f"{title}, {rating:g} stars" for title, rating in zip(why["title"], why["rating"])]

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained")
colors = [GREEN if value > 0 else RED for value in why["contribution"]]
left.barh(labels, why["contribution"], color=colors)
left.axvline(0, color="black", lw=0.8)
left.set(
    title=f"Why {best}? {why.attrs['score_without_ratings']:.2f} without your ratings",
    xlabel="contribution to the predicted stars",
)

to_nobody = recommender.model.offsets  # The scores of somebody who gave nothing.
to_you = recommender.score_all(mine).to_numpy()
row_of = {title: row for row, title in enumerate(recommender.items.titles)}
right.scatter(to_nobody, to_you, s=10, color=GRAY, alpha=0.5)
for titles, color, label in (
    (ten, ORANGE, "you rated"),
    (recommended["title"], GREEN, "recommended"),
):
    places = [row_of[title] for title in titles]
    right.scatter(to_nobody[places], to_you[places], s=45, color=color, label=label)
right.axline((3, 3), slope=1, color="black", lw=0.8, linestyle=":")
right.set(
    xlabel="predicted stars for somebody who rated nothing",
    ylabel="predicted stars for you",
    title="Each dot is an item",
)
right.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# Your ratings were used here, and by nobody else: with the item rows at hand, `recommend` needs no
# server. `examples/on_device.py` does the same from TensorFlow Lite, without this package.
#
# **Read on.** Notebook 02 asks what keeping the local part would buy. Notebook 03 takes data, a
# model and an algorithm of your own. Notebook 04 ranks items, and shows how to fool oneself in
# judging that. `docs/how_a_round_works.md` has the engine, and why it is fast.
