# %% [markdown]
# # Rankings, and how to judge them honestly
#
# Often nobody gives stars. There are only **interactions**: bought, watched, clicked. A recommender
# then ranks items, and is judged by where it puts an item that the user took later. That judgement
# is easy to get wrong, and published figures are wrong. In this notebook you
#
# 1. train federated iALS (`fed_ials`) on interactions,
# 2. judge it by HR@10 and NDCG@10,
# 3. reach HR@10 = 1.0 **without any model**, by a leak of published evaluations, and find the leak,
# 4. see the *order of models* change between ranking among 99 sampled items and among all items,
# 5. look at what the lists hold: few popular items, or the whole catalog?
#
# Notebook 01 explains FedRecon itself.

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

import fedrecon as fr
from fedrecon import baselines, ials_units
from fedrecon.evaluation.best_lists import recommend
from fedrecon.evaluation.intervals import paired_difference
from fedrecon.evaluation.judge import BaselineScores
from fedrecon.evaluation.scoring import ModelScores
from fedrecon.evaluation.top_lists import top_list_results

# Okabe and Ito's colours, which the colour-blind tell apart.
COLORS = {
    "fed_ials": "#56B4E9",
    "fed_recon": "#0072B2",
    "item_knn": "#8B4513",
    "ials": "#D55E00",
    "popularity": "#999999",
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
# ## 1. Interactions
#
# We forget the stars: whoever rated an item has it. Of each user the last item is the **test item**
# and the one before it the validation item. The model never sees either.

# %%
data = os.environ.get("FEDRECON_DATA")
if not data:
    ratings = fr.load_dataset("synthetic")
elif os.path.isdir(os.path.join(data, "ml-100k")):
    ratings = fr.load_dataset("movielens-100k", data_dir=data)
else:
    ratings = fr.load_dataset("movielens-1m", data_dir=data)

# fed_ials draws no negatives: it treats all pairs that did not happen in closed form.
population = fr.divide_for_ranking(ratings, seed=0, negatives_per_positive=0)
held_out = population.group("seen_test").held_out
print(f"{ratings.num_users:,} users and {ratings.num_items:,} items")
print(f"{ratings.num_ratings:,} interactions")

counts = population.training_counts()
_, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
ax.fill_between(np.arange(len(counts)), np.sort(counts)[::-1], color="#56B4E9")
tenth = len(counts) // 10
share = np.sort(counts)[::-1][:tenth].sum() / counts.sum()
ax.axvline(tenth, color="black", lw=0.8, linestyle=":")
ax.annotate(
    f"a tenth of the items\nhas {share:.0%} of the interactions", (tenth * 1.15, counts.max() * 0.7)
)
ax.set(xlabel="items, the most popular first", ylabel="training users who have it")
ax.margins(x=0)
plt.show()

# %% [markdown]
# Federated iALS is exact reconstruction for interactions. Its loss is the loss of iALS
# ([Hu et al. 2008](https://doi.org/10.1109/ICDM.2008.22);
# [Rendle et al. 2022](https://arxiv.org/abs/2110.14037)),
#
# $$\sum_{(u,i)\ \mathrm{happened}} (\langle x_u, v_i\rangle - 1)^2
# + \alpha \sum_{u}\sum_{i} \langle x_u, v_i\rangle^2 + \text{regularization}.$$
#
# The second sum is over *all* pairs. It needs the Gram matrix $\sum_i v_i v_i^\top$ alone, so a
# client solves for its $x_u$ without drawing a single negative. Nothing is searched here: the
# defaults of $\alpha$ and of the regularization follow from how many users, items and pairs there
# are, and centralized iALS gets the same.

# %%
DIM = 8
run = fr.fit(
    population,
    "fed_ials",
    model=fr.model_fn(fr.matrix_factorization, ratings.num_items, DIM),
    rounds=400,
    clients_per_round=100,
)

users, items, _ = population.examples.interactions(population.train)
strengths = ials_units.in_pairs(fr.PairCounts.of_training(population))
sizes = {"num_users": ratings.num_users, "num_items": ratings.num_items}
references = {
    name: baselines.IMPLICIT[name](users, items, None, **sizes, options=options)
    for name, options in (
        ("ials", baselines.IalsOptions(dim=DIM, **strengths)),
        ("item_knn", baselines.ItemKnnOptions()),
        ("popularity", baselines.PopularityOptions()),
    )
}

# %% [markdown]
# ## 2. HR@10 and NDCG@10
#
# The test item is ranked among 99 drawn items that the user does not have (He et al. 2017,
# [arXiv:1708.05031](https://arxiv.org/abs/1708.05031)).
#
# - **HR@10** is the share of users whose test item is among the first ten.
# - **NDCG@10** also looks at the place: $1/\log_2(\mathrm{rank}+1)$ for ranks 1 to 10, else 0.
#
# Ties count against the model, so that equal scores for all items find nothing.

# %%
judges = {"fed_ials": (fr.Judge(run.algorithm, population), run.state)}
judge_of_references = fr.Judge.of_scores(BaselineScores(), population)
judges.update({name: (judge_of_references, trained) for name, trained in references.items()})

fr.set_in_process_context()
sampled = {name: judge.results(state, "seen_test") for name, (judge, state) in judges.items()}
rows = []
for name, results in sampled.items():
    less = paired_difference([results], [sampled["popularity"]], "hr_at_10", over="users")
    means = results.mean_over_users()
    rows.append(
        {
            "model": name,
            "HR@10": means["hr_at_10"],
            "NDCG@10": means["ndcg_at_10"],
            "HR@10 less popularity": less.mean,
            "95% interval": f"{less.low:+.3f} to {less.high:+.3f}",
        }
    )
rows.append({"model": "chance", "HR@10": 0.1})
display(pd.DataFrame(rows).style.hide(axis="index").format(precision=3, na_rep=""))

# %% [markdown]
# ## 3. HR@10 = 1.0 without a model
#
# Many models train on **negatives**: items drawn at random from those that the user does not have.
# Does "does not have" include the test item? Published code of federated recommenders excludes the
# test item from the draws, as if the device knew it. Here is what follows. We train nothing. We
# only count how often each item came as a negative of its user, and rank the *least drawn* first.


# %%
def draw_negatives(excludes_test, epochs, per_positive=4, seed=0):
    """Returns `[n, 2]` user and item ids: the negatives of some epochs."""
    rng = np.random.default_rng(seed)
    drawn = []
    for user, test_item in zip(held_out.users, held_out.items):
        has = np.zeros(ratings.num_items, bool)
        has[population.examples.positives(user)] = True
        number = epochs * per_positive * np.count_nonzero(has)
        has[test_item] = excludes_test
        drawn.append(
            np.column_stack([np.full(number, user), rng.choice(np.flatnonzero(~has), number)])
        )
    return np.concatenate(drawn)


def hit_rate_by_counting(negatives):
    """Returns HR@10 of ranking the test item and the usual 99 by how seldom each was drawn."""
    shape = ratings.num_users, ratings.num_items
    pairs = np.ravel_multi_index(tuple(negatives.T), shape)
    times = np.bincount(pairs, minlength=ratings.num_users * ratings.num_items).reshape(shape)
    rows = held_out.users[:, np.newaxis]
    of_test = times[held_out.users, held_out.items][:, np.newaxis]
    others = times[rows, held_out.negatives]
    # Equal counts are put in order by lot: everybody draws a number below 1.
    lots = np.random.default_rng(0).random((len(others), 1 + others.shape[1]))
    is_ahead = others + lots[:, 1:] < of_test + lots[:, :1]
    ahead = (is_ahead & (held_out.negatives >= 0)).sum(axis=1)
    return np.mean(ahead < 10)


EPOCHS = (1, 2, 5, 10, 20)
hit_rates = {
    label: [hit_rate_by_counting(draw_negatives(excludes, epochs)) for epochs in EPOCHS]
    for label, excludes in (
        ("the test item is never drawn", True),
        ("fair: it may be drawn", False),
    )
}

_, ax = plt.subplots(figsize=(10, 3.4), layout="constrained")
for (label, values), color in zip(hit_rates.items(), ("#D55E00", "#009E73")):
    ax.plot(EPOCHS, values, color=color, marker="o", label=label)
ax.axhline(0.1, color="#999999", linestyle="--", label="chance")
level = sampled["fed_ials"].mean_over_users()["hr_at_10"]
ax.axhline(level, color="#56B4E9", linestyle=":", label=f"fed_ials, honestly: {level:.2f}")
ax.set(xscale="log", xlabel="epochs of drawing, log scale", ylabel="HR@10 of counting")
ax.set_xticks(EPOCHS, EPOCHS)
ax.minorticks_off()
ax.set_ylim(0, 1.04)
ax.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %% [markdown]
# The leak needs no model, and any model that learns to tell negatives from the rest finds it too:
# the item that never comes as a negative is a positive or the test item. (See the
# [report](https://github.com/Zhangcx19/IJCAI-23-PFedRec/issues/3) on one published method.) In
# `fedrecon` the draws know nothing of what is held out.
#
# Here equal counts are put in order by lot, so the fair draws are at chance. `fr.check_leak` counts
# ties against the test item, so it shows fair draws a little below chance.
#
# `fr.check_leak` tells whether *your* negatives leak. It takes arrays of ids. `python -m
# experiments.check_leak` takes files.

# %%
positives = np.column_stack([users, items])
test_items = np.column_stack([held_out.users, held_out.items])
for label, excludes in (("never drawn", True), ("fair", False)):
    report = fr.check_leak(
        positives, draw_negatives(excludes, epochs=20), test_items, held_out.negatives
    )
    print(f"{label}: has_leak is {report.has_leak}.")
    print(f"  {report.verdict}")
if not data:  # MovieLens has more items, so counting takes more epochs: 0.62 after 20 of them.
    assert hit_rates["the test item is never drawn"][-1] > 0.99
assert abs(hit_rates["fair: it may be drawn"][-1] - 0.1) < 0.04

# %% [markdown]
# ## 4. Sampled against full ranking
#
# Ranking among 99 drawn items is an easier question than the one a user asks, which is about *all*
# items. Is it at least the same question? Krichene and Rendle 2020 ("On Sampled Metrics for Item
# Recommendation", KDD) show that it is not: sampled metrics can put models in another order than
# the full ones. With one test item at full rank $r$ among $N$ other items, the expected number of
# drawn items ahead of it is $99\,(r-1)/N$. So the first ten of 100 is about the first tenth of the
# catalog, and what happens within that tenth hardly counts.
#
# Here are the models from above, and one that was constructed to show it. `top_heavy` is `item_knn`
# with noise in place of the scores below each user's 30 best items. In a list of ten its user sees
# the same items as with `item_knn`. Below the top it knows nothing.


# %%
class TopHeavy:
    """Another scorer's best items, and noise below them."""

    def __init__(self, inner, best=30):
        self._inner, self._best = inner, best

    def score(self, item_ids, labels, candidates):
        everything = self._inner.score(item_ids, labels, np.arange(ratings.num_items))
        unknown = everything.copy()
        unknown[item_ids] = -np.inf
        bound = np.partition(unknown, -self._best)[-self._best]
        noise = np.random.default_rng(len(item_ids)).random(ratings.num_items)
        mixed = np.where(everything >= bound, 2 + everything / np.abs(everything).max(), noise)
        return mixed[candidates].astype(np.float32)


COLORS["top_heavy"] = "#CC79A7"
judges["top_heavy"] = (judge_of_references, TopHeavy(references["item_knn"]))
sampled["top_heavy"] = judge_of_references.results(judges["top_heavy"][1], "seen_test")
full = {name: judge.full_ranking(state, "seen_test") for name, (judge, state) in judges.items()}


def spread(values, gap):
    """Moves labels apart, so that they can be read."""
    order = np.argsort(values)
    places = np.array(values)[order]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    moved = np.empty(len(places))
    moved[order] = places
    return moved


names = list(judges)
rates = {
    title: np.array([results[name].mean_over_users()["hr_at_10"] for name in names])
    for title, results in (("99 sampled items", sampled), ("all items", full))
}
shares = np.array([values / values.max() for values in rates.values()])

_, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
for name, ends in zip(names, shares.T):
    ax.plot([0, 1], ends, color=COLORS[name], marker="o", ms=8, lw=2)
gap = 0.06 * (shares.max() - shares.min())
for x, values, ends, side in zip((-0.05, 1.05), rates.values(), shares, ("right", "left")):
    for name, value, y in zip(names, values, spread(ends, gap)):
        ax.annotate(f"{name}  {value:.3f}", (x, y), ha=side, va="center", color=COLORS[name])
ax.set_xlim(-0.6, 1.6)
ax.set_xticks([0, 1], list(rates))
ax.set(ylabel="HR@10, as a share of the best model's", title="The same models, ranked twice")
plt.show()


# %%
def place(results, name):
    """The place of a model by HR@10, 1 for the best."""
    ours = results[name].mean_over_users()["hr_at_10"]
    return 1 + sum(other.mean_over_users()["hr_at_10"] > ours for other in results.values())


rows = []
for name in names:
    rows.append((name, place(sampled, name), place(full, name)))
display(
    pd.DataFrame(rows, columns=["model", "place among 99 sampled", "place among all items"])
    .sort_values("place among all items")
    .style.hide(axis="index")
)
for group_name, results in (("99 sampled items", sampled), ("all items", full)):
    less = paired_difference(
        [results["top_heavy"]], [results["popularity"]], "hr_at_10", over="users"
    )
    print(
        f"{group_name}: top_heavy less popularity {less.mean:+.3f} "
        f"(95% interval {less.low:+.3f} to {less.high:+.3f})"
    )

# %% [markdown]
# Among all items `top_heavy` equals `item_knn` and is better than `popularity`; among 99 drawn
# items it is the worst of all. Both intervals exclude 0. The models that were not constructed keep
# their order here, but not their distances. On other data they need not keep the order either.
#
# `judge.full_ranking` ranks among all items that the user does not have. A device or a server that
# recommends does exactly that, so quote it, with the sampled figure beside it where others publish
# only that.

# %% [markdown]
# ## 5. What is in the lists?
#
# A hit rate says nothing about the nine other items of a list. A recommender can do well by showing
# the same few popular items to everybody. Two numbers show it: the **coverage**, the share of the
# catalog that is in at least one user's list of ten, and the **mean popularity** of the entries,
# the share of training users who have the item.

# %%
cases = judge_of_references.cases("seen_test")
lists = {}
for name in ("fed_ials", *references):
    _, state = judges[name]
    scores = ModelScores(run.algorithm) if name == "fed_ials" else BaselineScores()
    lists[name], _ = recommend(scores, state, cases, num_items=ratings.num_items, k=10)
contents = {
    name: top_list_results(of, item_counts=counts, num_training_users=len(population.train))
    for name, of in lists.items()
}

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained")
for name, of in contents.items():
    x, y = of["mean_popularity_at_10"], of["coverage_at_10"]
    left.plot(x, y, "o", color=COLORS[name], ms=10)
    left.annotate(name, (x, y), (8, 5), textcoords="offset points")
    times = np.sort(np.bincount(lists[name].ravel(), minlength=ratings.num_items))[::-1]
    right.plot(
        np.arange(1, len(times) + 1), times / len(cases.users), color=COLORS[name], label=name
    )
left.set(
    xlabel="mean popularity of the entries",
    ylabel="coverage of the catalog",
    title="Lists of ten",
)
left.margins(x=0.25, y=0.25)
left.grid()
right.set(
    xscale="log",
    xlabel="items, the most recommended first, log scale",
    ylabel="share of users who see it",
    title="How often an item is recommended",
)
right.legend(frameon=False)
plt.show()

# %% [markdown]
# With these generated ratings `popularity` shows the fewest items, since it shows everybody the
# same, but for the items that a user has. `ials` and `fed_ials` show the most items, and the
# least popular ones, at the best hit rates.
#
# ## What to take along
#
# - Draw training negatives without knowing the test item, and check it with `fr.check_leak`.
# - Have `popularity` in every table. What a model adds to it is what it has learned about taste.
# - Rank among all items; say so where it was a sample.
# - Give paired intervals over users: 800 to 1,000 users leave some 0.02 of HR@10 open.
# - Look at the lists.
#
# All figures above are of generated ratings. `docs/results.md` has the rankings on the published
# MovieLens files of He et al. 2017.
