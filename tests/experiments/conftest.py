"""Finished runs that several files of tests read."""

import json

import pytest

from experiments.comparison.results import write_per_user
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.comparison.runs_by_hand import MEASURES
from tests.experiments.small import run_binary, small_flags


@pytest.fixture(scope="session")
def comparison(repository, tmp_path_factory):
    """The folder of a comparison of one algorithm and one reference."""
    path = tmp_path_factory.mktemp("comparison") / "compared"
    done = run_binary(
        repository,
        "compare",
        *small_flags(max_ratings_per_user=30),
        "--algorithms=fed_recon_ls",
        "--references=popularity",
        "--seeds=1",
        "--dim=4",
        "--clients_per_round=4",
        "--total_rounds=3",
        "--rounds_per_evaluation=3",
        f"--output_dir={path}",
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def write(tmp_path):
    """Writes a run's files and returns its directory.

    `watched` are rounds and two measures; a third measure is half the second. `per_user` are the
    results of each user of each test group.
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
        path = tmp_path / "runs" / f"{values['algorithm']}-{values['seed']}{changes}"
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(values))
        config = {"settings": {**dict(settings), **values["changes"]}, "data_fingerprint": "abc"}
        (path / "config.json").write_text(json.dumps(config))
        if watched:
            names = [f"{values['watched_group']}/{m}" for m in MEASURES[values["feedback"]]]
            rows = [[number, 0.5, "", a, b, b / 2] for number, a, b in watched]
            rows.insert(1, [1, 0.7, 0.9, "", "", ""])  # Trained, not evaluated.
            columns = ["round", "seconds", "train/loss", *names]
            lines = [",".join(map(str, row[: len(columns)])) for row in (columns, *rows)]
            (path / "metrics.csv").write_text("\n".join(lines) + "\n")
        if per_user is not None:
            write_per_user(RunDirectory(path), per_user)
        return path

    return write_run
