"""Finished runs that several files of tests read."""

import pytest

from tests.experiments.comparison.runs_by_hand import writer
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
    """Writes a run's files and returns its directory; see `writer`."""
    return writer(tmp_path)
