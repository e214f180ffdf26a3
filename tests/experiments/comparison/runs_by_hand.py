"""Finished runs of a comparison, written by hand, and what reads the report of them."""

import csv
import json
import re

from experiments.comparison.results import GroupResults, RunResults, write_per_user
from fedrecon.runs.run_directory import RunDirectory

COVERAGE = {"num_users": 7, "num_judged": 4, "left_out": {"who have few": 3}, "num_cold": 0}
COSTS = {
    "bytes_down": 741200,
    "bytes_up": 1500,
    "bytes_up_once": 0,
    "device_bytes": 40,
    "server_bytes": 2500000,
    "item_steps": 12.5,
}
CENTRALIZED = {
    "costs": {**COSTS, "bytes_down": 0, "bytes_up": 0, "bytes_up_once": 900},
    "num_training_users": 2000,
}
REFERENCE = {**CENTRALIZED, "rounds": None, "clients_per_round": None}
# A curve that does not move any more.
SETTLED = ((0, 3.5, 0.0), (2, 1.25, 0.5), (4, 1.25, 0.5))
MEASURES = {
    "explicit": ("rmse", "accuracy", "rounded_accuracy"),
    "implicit": ("hr_at_10", "ndcg_at_10"),
    "strong_generalization": ("ndcg_at_100", "recall_at_20", "recall_at_50"),
}


def explicit_results(algorithm, seed, rmse, accuracy, *, given=None, **others):
    """Unseen users have an RMSE higher by 0.5 and an accuracy lower by 0.125.

    Rounded accuracy is half the accuracy.

    Args:
      algorithm: The name.
      seed: The seed.
      rmse: On seen users.
      accuracy: On seen users.
      given: What unseen users get who give only so many ratings.
      **others: Other fields of `RunResults`.
    """

    def group(rmse, accuracy, given=None):
        accuracies = {"accuracy": accuracy, "rounded_accuracy": accuracy / 2}
        return GroupResults(
            means={"rmse": rmse, "mae": rmse / 2, **accuracies},
            over_users={"rmse": rmse + 0.25, "mae": rmse, **accuracies},
            deciles=[rmse + i for i in range(11)],
            num_users=4,
            num_examples=20,
            coverage={**COVERAGE, "num_asked": 20, "num_cold": 3},
            given=given or {},
        )

    groups = {
        "seen_test": group(rmse, accuracy),
        "unseen_test": group(rmse + 0.5, accuracy - 0.125, given),
    }
    others = {"watched_group": "unseen_validation", **others}
    return _results("explicit", algorithm, seed, groups, others)


def implicit_results(algorithm, seed, hit_rate, **others):
    """Seen and unseen users have the same; among all items a fifth of it."""
    means = {"hr_at_10": hit_rate, "ndcg_at_10": hit_rate / 2, "mrr": hit_rate / 4}
    group = GroupResults(
        means=means,
        over_users=means,
        deciles=[i / 10 for i in range(11)],
        num_users=4,
        num_examples=4,
        coverage={**COVERAGE, "num_asked": 4, "num_tied": 2},
        full_ranking={name: value / 5 for name, value in means.items()},
    )
    groups = {"seen_test": group, "unseen_test": group}
    others = {"watched_group": "seen_validation", **others}
    return _results("implicit", algorithm, seed, groups, others)


def strong_results(algorithm, seed, ndcg, **others):
    """Unseen users have recalls of a half and three quarters of the NDCG; errors are a tenth."""
    means = {"ndcg_at_100": ndcg, "recall_at_20": ndcg / 2, "recall_at_50": 0.75 * ndcg}
    errors = {f"{name}_standard_error": value / 10 for name, value in means.items()}
    group = GroupResults(
        means={**means, **errors},
        over_users=means,
        deciles=[i / 10 for i in range(11)],
        num_users=4,
        num_examples=12,
        coverage={**COVERAGE, "num_asked": 12},
    )
    others = {"watched_group": "unseen_validation", **others}
    return _results("strong_generalization", algorithm, seed, {"unseen_test": group}, others)


def _results(feedback, algorithm, seed, groups, others):
    fields = {
        "changes": {},
        "rounds": 4,
        "clients_per_round": 10,
        "num_training_users": 48,
        "seconds": 2.0,
        "costs": COSTS,
    }
    return RunResults(
        algorithm=algorithm, seed=seed, feedback=feedback, groups=groups, **{**fields, **others}
    )


def writer(folder):
    """Returns a function that writes a run's files and returns its directory.

    `watched` are rounds and two measures; a third measure is half the second. Four rounds take the
    seconds of the results, after 0.5 s in which nothing is trained. `per_user` are the results of
    each user of each test group.
    """

    def write_run(
        results,
        *,
        watched=((0, 3.5, 0.0), (2, 1.5, 0.25), (4, 1.25, 0.5)),
        settings=(),
        per_user=None,
    ):
        values = results if isinstance(results, dict) else results.to_json()
        changes = "".join(f"-{name}={value}" for name, value in values["changes"].items())
        path = folder / "runs" / f"{values['algorithm']}-{values['seed']}{changes}"
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(values))
        config = {"settings": {**dict(settings), **values["changes"]}, "data_fingerprint": "abc"}
        (path / "config.json").write_text(json.dumps(config))
        if watched:
            names = [f"{values['watched_group']}/{m}" for m in MEASURES[values["feedback"]]]

            def passed(number):
                return 0.5 + number * values["seconds"] / 4

            rows = [[number, passed(number), "", a, b, b / 2] for number, a, b in watched]
            rows.insert(1, [1, passed(1), 0.9, "", "", ""])  # Trained, not evaluated.
            columns = ["round", "seconds", "train/loss", *names]
            lines = [",".join(map(str, row[: len(columns)])) for row in (columns, *rows)]
            (path / "metrics.csv").write_text("\n".join(lines) + "\n")
        if per_user is not None:
            write_per_user(RunDirectory(path), per_user)
        return path

    return write_run


def tables(output_dir):
    """The tables of comparison.md, each a list of rows of cells; checks that each is one.

    Without the table of how training ended, which is tested apart.
    """
    found, rows = [], []
    for line in [*(output_dir / "comparison.md").read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            assert len({len(row) for row in rows}) == 1
            assert all(re.fullmatch(":-+|-+:", cell) for cell in rows.pop(1))
            if rows[0][1] != "at the end":
                found.append(rows)
            rows = []
    return found


def csv_rows(output_dir):
    with open(output_dir / "comparison.csv", newline="") as file:
        return list(csv.DictReader(file))


def lines(axes):
    """The points of the labelled lines of a panel."""
    handles, labels = axes.get_legend_handles_labels()
    # An error bar's first part is its line.
    found = [handle if hasattr(handle, "get_data") else handle[0] for handle in handles]
    return {name: [list(map(float, v)) for v in f.get_data()] for name, f in zip(labels, found)}
