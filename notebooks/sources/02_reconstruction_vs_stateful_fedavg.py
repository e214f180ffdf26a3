# %% [markdown]
# # What does keeping state buy?
#
# Every user has a part of a model of its own. Where does it live between rounds?
#
# | algorithm | the user's part | in training |
# |---|---|---|
# | `fed_recon` | nowhere: rebuilt by gradient steps | local part first, global part after |
# | `fed_recon_ls` | nowhere: solved for exactly | local part first, global part after |
# | `fed_avg` | nowhere: starts from nothing in each round | both together |
# | `stateful_fed_avg` | on the device | both together, from where the device left off |
# | `fed_ncf` | on the server | both together, from where the server left off |
# | `centralized` | on the server, with all ratings | both together, no federation |
#
# Singhal et al. 2021 ([arXiv:2102.03448](https://arxiv.org/abs/2102.03448)) argue for clients
# without state: with many devices, a device seldom comes back, and what it kept is stale. This
# notebook measures what state is worth, to users whom training saw and to users whom it did not,
# and what it costs.
#
# Notebook 01 explains the words.

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

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

import fedrecon as fr
from fedrecon import baselines
from fedrecon.defaults import default_options, default_reconstruction
from fedrecon.evaluation.intervals import paired_difference
from fedrecon.evaluation.judge import BaselineScores

# Okabe and Ito's colours, which the colour-blind tell apart, and a marker for each.
STYLES = {
    "fed_recon": ("#0072B2", "o"),
    "fed_recon_ls": ("#56B4E9", "p"),
    "fed_avg": ("#E69F00", "^"),
    "stateful_fed_avg": ("#009E73", "s"),
    "fed_ncf": ("#CC79A7", "D"),
    "centralized": ("#000000", "v"),
    "item_knn": ("#8B4513", "P"),
    "mean_ratings": ("#999999", "X"),
}
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
# ## The ratings, and who is judged
#
# 80% of the users train. Of each, the latest tenth of the ratings is held out, for the group
# **seen test**, and the tenth before it for validation. 10% of the users are **unseen test** users:
# they take no part in training, give one half of their ratings and are asked for the other half.

# %%
data = os.environ.get("FEDRECON_DATA")
if not data:
    ratings = fr.load_dataset("synthetic", num_users=1000, num_items=300, mean_ratings_per_user=60)
elif os.path.isdir(os.path.join(data, "ml-100k")):
    ratings = fr.load_dataset("movielens-100k", data_dir=data)
else:
    ratings = fr.load_dataset("movielens-1m", data_dir=data)

population = fr.divide_by_user(ratings, seed=0, held_out_fraction=0.1, max_ratings_per_user=100)
print(f"{ratings.name}: {ratings.num_ratings:,} ratings of {ratings.num_items:,} items")
print(f"{len(population.train):,} users train.")
for group in ("seen_test", "unseen_test"):
    print(f"{group}: {len(population.group(group).users):,} users")

# %% [markdown]
# ## Six algorithms, one model
#
# All train the same model for 100 rounds of 80 clients: matrix factorization with biases and 8
# factors. Each algorithm had **six trials**: two settings at three and two values, as the table
# says. The best by the mean of the RMSE of seen and of unseen *validation* users is used. No test
# user had a say.

# %%
DIM, ROUNDS, CLIENTS = 8, 100, 80


def optimizer(name, rate):
    return fr.OptimizerOptions(name, rate)


chosen = {
    "fed_recon_ls": {
        "server_optimizer": optimizer("adam", 0.05),
        "least_squares": fr.LeastSquaresOptions(regularization=5.0),
    },
    "fed_recon": {
        "client_optimizer": optimizer("sgd", 1.0),
        "reconstruction_optimizer": optimizer("sgd", 0.2),
    },
    "fed_avg": {"client_optimizer": optimizer("sgd", 0.2), "client_epochs": 3},
    "stateful_fed_avg": {"client_optimizer": optimizer("sgd", 0.1), "client_epochs": 3},
    "fed_ncf": {"client_optimizer": optimizer("sgd", 0.1), "client_epochs": 3},
    "centralized": {"optimizer": optimizer("adam", 0.003), "batch_size": 64},
}
searched = pd.DataFrame(
    [
        ("fed_recon_ls", "server rate 0.02, **0.05**, 0.1; ridge **5**, 10", "none"),
        ("fed_recon", "client rate 0.5, **1**, 1.5; reconstruction rate 0.1, **0.2**", "rate 1.5"),
        ("fed_avg", "client rate **0.2**, 0.4, 0.8; epochs 1, **3**", "0.4 with 3 epochs, 0.8"),
        ("stateful_fed_avg", "client rate **0.1**, 0.2, 0.4; epochs 1, **3**", "0.4 with 3 epochs"),
        ("fed_ncf", "client rate 0.05, **0.1**, 0.2; epochs 1, **3**", "none"),
        ("centralized", "rate **0.003**, 0.01, 0.03; batch **64**, 256", "none"),
    ],
    columns=["algorithm", "tried, the best in bold", "diverged"],
)
bold = searched.columns[1]
searched[bold] = searched[bold].str.replace(r"\*\*(.+?)\*\*", r"<b>\1</b>", regex=True)
display(searched.style.hide(axis="index").set_properties(**{"text-align": "left"}))

model_fn = fr.model_fn(
    fr.matrix_factorization,
    ratings.num_items,
    DIM,
    user_bias=True,
    item_bias=True,
    global_bias=True,
    initial_rating=ratings.scale.middle,
)
prepare = {
    "fed_recon_ls": fr.prepare_fed_recon,
    "fed_recon": fr.prepare_fed_recon,
    "fed_avg": fr.prepare_fed_avg,
    "stateful_fed_avg": fr.prepare_stateful_fed_avg,
    "fed_ncf": fr.prepare_fed_ncf,
    "centralized": fr.prepare_centralized,
}
# A user whose part nobody keeps is served by exact reconstruction, but for fed_recon.
exact = default_reconstruction(is_linear=True)
more = {name: {"reconstruction": exact} for name in prepare if not name.startswith("fed_recon")}
more["stateful_fed_avg"]["open_store"] = lambda num_users, width: fr.ClientStore(
    num_users, width, path=None
)


@dataclasses.dataclass
class Trained:
    algorithm: fr.Algorithm
    state: object
    judge: fr.Judge
    curve: dict  # From rounds to the RMSE of unseen validation users.
    results: dict  # By group, the results of each user.


def train(name):
    options = dataclasses.replace(default_options(name, "explicit"), **chosen[name])
    algorithm = prepare[name](
        model_fn, options, population, clients_per_round=CLIENTS, **more.get(name, {})
    )
    judge, state, curve = fr.Judge(algorithm, population), algorithm.initialize(), {}
    for round_num in range(ROUNDS + 1):
        if round_num:
            state, _ = algorithm.run_round(state, round_num)
            if algorithm.store is not None:
                algorithm.store.commit()  # The devices keep their new rows.
        if round_num % 20 == 0:
            curve[round_num] = judge.metrics(state, "unseen_validation")["rmse"]
    results = {group: judge.results(state, group) for group in ("seen_test", "unseen_test")}
    return Trained(algorithm, state, judge, curve, results)


fr.set_in_process_context()
trained = {name: train(name) for name in prepare}

# %% [markdown]
# Two references see all ratings on one machine and train no model by rounds: `mean_ratings` is
# $\mu + b_u + b_i$, without taste, and `item_knn` compares items by the users they share.

# %%
users, items, stars = population.examples.interactions(population.train)
sizes = {"num_users": ratings.num_users, "num_items": ratings.num_items}
references = {
    "mean_ratings": baselines.train_rating_baseline(
        users, items, stars, **sizes, options=baselines.PopularityOptions()
    ),
    "item_knn": baselines.EXPLICIT["item_knn"](
        users, items, stars, **sizes, options=baselines.ItemKnnOptions()
    ),
}
judge_of_references = fr.Judge.of_scores(BaselineScores(), population)
results = {name: one.results for name, one in trained.items()}
for name, reference in references.items():
    results[name] = {
        group: judge_of_references.results(reference, group)
        for group in ("seen_test", "unseen_test")
    }

# %% [markdown]
# ## While training
#
# The RMSE of unseen *validation* users. Below the dashed line an algorithm knows more than means.

# %%
_, ax = plt.subplots(figsize=(8.5, 4), layout="constrained")
for name, one in trained.items():
    color, marker = STYLES[name]
    ax.plot(list(one.curve), list(one.curve.values()), color=color, marker=marker, ms=5, label=name)
level = judge_of_references.metrics(references["mean_ratings"], "unseen_validation")["rmse"]
ax.axhline(level, color="#999999", linestyle="--", label="mean ratings")
ax.set(xlabel="round", ylabel="RMSE, in stars")
ax.grid(axis="y")
ax.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %% [markdown]
# ## Seen and unseen users
#
# `fed_avg` is the plain case: no state, no reconstruction in training. Every other row adds one
# thing to it. So we look at each algorithm's RMSE **less the RMSE of `fed_avg`**, on the same
# users. The bars are 95% intervals of that paired difference (a bootstrap over users): an interval
# that touches the line could be luck.

# %%
groups = {"seen_test": "seen test users", "unseen_test": "unseen test users"}
rows = []
for name, of_groups in results.items():
    for group in groups:
        less = paired_difference(
            [of_groups[group]], [results["fed_avg"][group]], "rmse", over="ratings"
        )
        rmse = of_groups[group].mean_over_ratings()["rmse"]
        rows.append((name, group, rmse, less.mean, less.low, less.high))
table = pd.DataFrame(rows, columns=["algorithm", "group", "rmse", "less", "low", "high"])
order = list(table[table.group == "unseen_test"].sort_values("rmse", ascending=False).algorithm)

fig, axes = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True, layout="constrained")
for ax, (group, title) in zip(axes, groups.items()):
    of_group = table[table.group == group].set_index("algorithm").loc[order]
    for place, (name, row) in enumerate(of_group.iterrows()):
        color, marker = STYLES[name]
        errors = [[row["less"] - row["low"]], [row["high"] - row["less"]]]
        ax.errorbar(
            row["less"], place, xerr=errors, color=color, marker=marker, ms=8, capsize=3, lw=1.8
        )
        ax.annotate(
            f"{row['rmse']:.3f}", (row["high"], place), (6, -3.5), textcoords="offset points"
        )
    ax.axvline(0, color="#E69F00", lw=1)
    ax.set(title=title, xlabel="RMSE less the RMSE of fed_avg; left is better")
    ax.margins(x=0.12)
    ax.grid(axis="x")
axes[0].set_yticks(range(len(order)), order)
plt.show()

# %%
for group, title in groups.items():
    for other in ("stateful_fed_avg", "fed_ncf"):
        less = paired_difference(
            [results["fed_recon_ls"][group]], [results[other][group]], "rmse", over="ratings"
        )
        print(
            f"{title}: fed_recon_ls less {other} {less.mean:+.3f} "
            f"(95% interval {less.low:+.3f} to {less.high:+.3f})"
        )
display(
    table.assign(interval=[f"{a:+.3f} to {b:+.3f}" for a, b in zip(table.low, table.high)])
    .pivot(index="algorithm", columns="group", values=["rmse", "interval"])
    .loc[order[::-1]]
    .rename_axis(index=None, columns=[None, None])
    .rename(columns={"rmse": "RMSE", "interval": "less fed_avg, 95% interval", **groups})
    .style.format(precision=3)
)

# %% [markdown]
# With the generated ratings, read off the figure:
#
# - **State on the device** (`stateful_fed_avg`) ties with `fed_avg` on seen users: the interval of
#   the difference contains 0. On unseen users it is worse.
# - **State on the server** (`fed_ncf`) helps seen users and leaves unseen users where `fed_avg` has
#   them, within the noise.
# - **Exact reconstruction** (`fed_recon_ls`) helps both, without any state.
# - **Reconstruction by steps** (`fed_recon`) is worse than `fed_avg` on seen users, and tied on
#   unseen ones. Its curve above is still falling: it needs more rounds (notebook 01).
# - **All ratings in one place** (`centralized`) is best. That is the price of the federation.
#
# ## What is the kept row itself worth?
#
# The figure compares whole algorithms. Here is the question alone. Take the model that
# `stateful_fed_avg` trained, and serve the *same seen users* twice: by the row that their device
# kept, and by a row rebuilt from the same ratings. The same for `fed_ncf`, whose server keeps rows.
# Nothing else differs.

# %%
rows = []
for name in ("stateful_fed_avg", "fed_ncf"):
    one = trained[name]
    forgetful = fr.Judge(dataclasses.replace(one.algorithm, kept_rows=None), population)
    rebuilt = forgetful.results(one.state, "seen_test")
    kept = one.results["seen_test"]
    less = paired_difference([kept], [rebuilt], "rmse", over="ratings")
    rows.append(
        {
            "model of": name,
            "RMSE by kept rows": kept.mean_over_ratings()["rmse"],
            "RMSE by rebuilt rows": rebuilt.mean_over_ratings()["rmse"],
            "kept less rebuilt": less.mean,
            "95% interval": f"{less.low:+.3f} to {less.high:+.3f}",
        }
    )
display(pd.DataFrame(rows).style.hide(axis="index").format(precision=3))

# %% [markdown]
# So a kept row is not worthless: with the same model it serves seen users better than a rebuilt
# one. State does not lose because rows are bad. It loses because the model around them learns less
# from the same rounds, and because it has nothing to offer to a user who comes later.
#
# ## By the number of ratings given
#
# Reconstruction depends on what a user gives. Here the same unseen users give fewer and fewer of
# their ratings. `fed_recon` rebuilds by gradient steps, as it did in training; all others by least
# squares.

# %%
_, ax = plt.subplots(figsize=(8.5, 4), layout="constrained")
curves = {
    name: one.judge.results_by_given(one.state, "unseen_test") for name, one in trained.items()
}
for name, reference in references.items():
    curves[name] = judge_of_references.results_by_given(reference, "unseen_test")
for name, by_given in curves.items():
    color, marker = STYLES[name]
    values = [one.mean_over_ratings()["rmse"] for one in by_given.values()]
    style = "--" if name in references else "-"
    ax.plot(list(by_given), values, style, color=color, marker=marker, ms=5, label=name)
numbers = list(by_given)
ax.set(xscale="log", xlabel="ratings that a user gives, log scale", ylabel="RMSE, in stars")
ax.set_xticks(numbers, numbers)
ax.minorticks_off()
ax.grid(axis="y")
ax.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %% [markdown]
# ## What it costs
#
# Bytes as the papers have it: a client receives the whole global part and sends the update of it.
# Sending only the rows of its own items would take less, and would tell the server which they are.

# %%
costs = pd.DataFrame(
    {name: one.algorithm.costs(one.state)._asdict() for name, one in trained.items()}
).T
panels = {
    "traffic of a client in a round": costs.bytes_down + costs.bytes_up,
    "kept on a device between rounds": costs.device_bytes,
    "kept on the server": costs.server_bytes,
}
fig, axes = plt.subplots(1, 3, figsize=(11, 3), sharey=True, layout="constrained")
for ax, (title, values) in zip(axes, panels.items()):
    kilobytes = values / 1000
    bars = ax.barh(
        values.index[::-1], kilobytes[::-1], color=[STYLES[n][0] for n in costs.index[::-1]]
    )
    ax.bar_label(
        bars,
        [f"{value:,.2f}" if 0 < value < 1 else f"{value:,.0f}" for value in kilobytes[::-1]],
        padding=3,
    )
    ax.set(title=title, xlabel="kB")
    ax.margins(x=0.2)
plt.show()
print(
    f"centralized: a user sends all ratings once, {costs.bytes_up_once['centralized']:,.0f} bytes."
)

# %% [markdown]
# The traffic is the same for all federated algorithms, since it is the item tables. State costs a
# device less than 100 bytes. On the server it grows with the users: here it is about as large as
# the item tables, with a million users it would be far larger. The optimizer of `fed_recon_ls`
# (Adam) keeps two more numbers for each weight.
#
# ## What does keeping state buy?
#
# With these ratings: on the device nothing for seen users, against the same algorithm without
# state, and a loss for unseen users. On the server a gain for seen users alone. Exact
# reconstruction gains more for unseen users than either, and needs neither.
#
# **How far that goes.** These are generated ratings, one division of the users, six trials an
# algorithm and 100 rounds. Intervals say how sure a difference is for *other users of the same
# kind*, not for other data. `docs/results.md` has the comparison on MovieLens 1M, with three seeds
# and nine trials an algorithm. To repeat this notebook on MovieLens, set `FEDRECON_DATA` to a
# folder with `ml-100k/` or `ml-1m.zip`; the settings above were searched for the generated ratings.
