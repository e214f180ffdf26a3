"""Finished runs of `train` and `tune` written by hand, and what reads a page of them."""

import dataclasses
import html.parser
import json

import numpy as np

from experiments.comparison.results import PerUser
from experiments.run import samples
from experiments.run.settings import FORMAT, Settings
from fedrecon.evaluation.metrics import UserResults
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.comparison.runs_by_hand import (
    COSTS,
    COVERAGE,
    REFERENCE,
    explicit_results,
)

EVIL = "<script>alert('Alien & co')</script>"
WATCHED = ((0, 90.0, 0.0), (2, 12, 0.2), (4, 11, 0.3))
COMMAND = "python -m experiments.compare --output_dir='my runs'"


def config_of(*, fingerprint="abc", command=COMMAND, **changes):
    """config.json of a run."""
    own = {"output_dir": "runs/x", "total_rounds": 4, **changes}
    if own.get("dataset", "synthetic") == "synthetic":
        own.update(synthetic_num_users=1000, synthetic_num_items=500)
    return {
        "format": FORMAT,
        "settings": Settings(**own).to_json(),
        "data_fingerprint": fingerprint,
        "rating_step": 0.5,
        "data_notes": ["2 lines were left out."],
        "versions": {"fedrecon": "0.1.0", "python": "3.11.7"},
        "command": command,
    }


def write_samples(path, *, group="unseen_test"):
    """Recommendations for three users, the first with a title that is a script."""
    found = [
        samples.Sample(
            user,
            group,
            12,
            [("Heat", 5.0), (EVIL, 4.0)],
            [samples.Recommended(EVIL, 4.25, 5.0), samples.Recommended("Brazil", 4.0, None)],
        )
        for user in ("11", "18", "30")
    ]
    samples.write(RunDirectory(path), found)


def complete(path, **changes):
    """Gives a run of a comparison that was written by hand all of its settings."""
    values = json.loads((path / "results.json").read_text())
    own = {"algorithm": values["algorithm"], "seed": values["seed"], **changes}
    if values["rounds"] is None:
        config = {**config_of(seed=own["seed"]), "settings": {"dataset": "synthetic", **own}}
    else:
        config = config_of(**own)
    (path / "config.json").write_text(json.dumps(config))
    write_samples(path)
    return path


def per_user(*rmse):
    """Results of users of both test groups."""
    values = {name: np.array(rmse) for name in ("rmse", "accuracy", "rounded_accuracy")}
    own = PerUser(np.arange(len(rmse)), UserResults(values, np.full(len(rmse), 5)))
    return {"seen_test": own, "unseen_test": own}


def write_comparison(write):
    """Two algorithms and a reference with two seeds; returns their directories."""
    # As text, 9.5 would come after 10.25.
    rmse = {"fed_recon": 10.25, "fed_avg": 9.5, "popularity": 12.0}
    given = {
        number: {"rmse": 11.0, "accuracy": 0.25, "rounded_accuracy": 0.125} for number in ("1", "5")
    }
    paths = []
    for seed in (0, 1):
        for name, value in rmse.items():
            is_reference = name == "popularity"
            others = REFERENCE if is_reference else {}
            results = explicit_results(name, seed, value + seed, value / 20, given=given, **others)
            path = write(
                results,
                watched=() if is_reference else WATCHED,
                per_user=per_user(value, value - 0.5, value + 0.25, value + 1),
            )
            paths.append(complete(path, **({"dim": 8} if name == "fed_avg" else {})))
    return paths


def write_train_run(path, *, rmse=1.25, fingerprint="abc", with_samples=True, **changes):
    """A finished run of `train`."""
    path.mkdir(parents=True)
    config = config_of(fingerprint=fingerprint, command="python -m experiments.train", **changes)
    (path / "config.json").write_text(json.dumps(config))
    metrics = {"accuracy": 0.5, "rounded_accuracy": 0.25, "loss": 1.5, "num_examples": 1234}
    groups = {
        "unseen_validation": {"rmse": rmse + 0.5, **metrics},
        "unseen_test": {"rmse": rmse, **metrics},
    }
    coverage = {**COVERAGE, "num_asked": 20}
    final = {
        **groups,
        "rounds": 4,
        "seconds": 3.5,
        "training_users": {"num_users": 48, "num_able_to_train": 48},
        "coverage": dict.fromkeys(groups, coverage),
        "costs": COSTS,
    }
    (path / "final_metrics.json").write_text(json.dumps(final))
    names = [f"unseen_validation/{name}" for name in ("rmse", "accuracy", "rounded_accuracy")]
    lines = [
        ",".join(["round", "seconds", *names]),
        "0,0.0,9.0,0.5,0.25",
        "1,0.5,,,",
        "2,1.0,1.5,0.5,0.25",
        "3,1.5,,,",
        f"4,2.0,{rmse + 0.5},0.5,0.25",
    ]
    (path / "metrics.csv").write_text("\n".join(lines) + "\n")
    if with_samples:
        write_samples(path)
    return path


def write_search(path, rows, *, total_rounds=20, has_runs=True):
    """A finished search of `ridge` and `server_learning_rate`."""
    path.mkdir(parents=True)
    head = "ridge,server_learning_rate,rounds,rmse,deviation,seconds,seeds"
    (path / "trials.csv").write_text("\n".join([head, *rows]) + "\n")
    if has_runs:
        for number in range(len(rows)):
            run = path / "runs" / f"trial-{number}"
            run.mkdir(parents=True)
            config = config_of(algorithm="fed_recon_ls", total_rounds=total_rounds)
            (run / "config.json").write_text(json.dumps(config))
    return path


@dataclasses.dataclass
class Read:
    """What a parser of HTML finds on a page."""

    tags: list
    tables: dict
    text: str

    def attributes(self, tag):
        return [dict(found) for name, found in self.tags if name == tag]


class _Parser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.tables, self.texts = [], {}, []
        self._rows = self._caption = None
        self._open = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))
        self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self.tables[self._caption] = self._rows
            self._rows = None

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)
        if self._rows is not None and data.strip():
            if self._open[-1] == "caption":
                self._caption += data.strip()
            elif self._rows:
                self._rows[-1][-1] += data.strip()


def read_page(path):
    """Returns what is on a page: tags, tables by their captions, and all text."""
    parser = _Parser()
    parser.feed(path.read_text())
    return Read(parser.tags, parser.tables, " ".join(" ".join(parser.texts).split()))
