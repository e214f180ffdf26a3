"""`experiments.report` as a user runs it."""

import subprocess
import sys

import pytest

from tests.experiments.pages.runs_by_hand import write_train_run
from tests.experiments.small import run_binary

pytestmark = pytest.mark.slow


def test_a_page_is_written_and_its_address_told(repository, tmp_path):
    runs = [write_train_run(tmp_path / name) for name in ("a", "b")]
    page = tmp_path / "both.html"
    done = run_binary(repository, "report", *runs, f"--output={page}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"File: {page}, to be opened in a browser: {page.as_uri()}\n"
    assert "2 runs side by side" in page.read_text()


def test_what_cannot_be_shown_gets_one_sentence(repository, tmp_path):
    done = run_binary(repository, "report")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: give the directory of a run, of a comparison or of a search: "
        "python -m experiments.report RUN [RUN ...]\n"
    )
    done = run_binary(repository, "report", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path} is not the directory of a run: it has no config.json.\n"
    )


def test_no_page_needs_tensorflow(repository, tmp_path):
    run = write_train_run(tmp_path / "run")
    code = (
        "import pathlib, sys\n"
        "from experiments.pages import for_search\n"
        "from experiments.comparison import report\n"
        "from experiments.pages.write import write_report\n"
        f"write_report([pathlib.Path({str(run)!r})])\n"
        "print('tensorflow' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository
    )
    assert done.stdout.split() == ["False", "False"]
