"""What the README says can be done as it says."""

import re

import pytest

from experiments.run.settings import Settings


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text()


def test_the_example_of_library_use_runs(readme, in_process_runtime, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    # The test's own context takes its place, so that it is not everybody's afterwards.
    assert "set_in_process_context()  #" in code
    exec(code.replace("set_in_process_context()  ", "pass  "), {})
    printed = capsys.readouterr().out
    assert "'num_examples'" in printed
    assert "'rmse'" in printed


def test_the_flags_it_names_exist(readme):
    named = set(re.findall(r"`?--([a-z_0-9]+)", readme))
    others = {
        "flagfile",
        "help",
        "run_dir",
        "split",
        "suite",
        "no",
        "algorithms",
        "set",
        "sweep",
        "search",
        "trials",
        "seeds",
    }  # absl's, evaluate's, benchmark's, pip's --no-deps, compare's, tune's.
    assert "total_rounds" in named
    assert not named - others - set(Settings.__dataclass_fields__)


def test_the_files_and_data_sets_it_names_exist(readme, repository):
    from fedrecon.data.datasets import DATASET_NAMES

    paths = re.findall(r"\b(?:experiments|fedrecon|tests)/[\w/]+\.(?:py|flags)\b", readme)
    assert len(paths) > 5
    for path in paths:
        assert (repository / path).is_file(), path
    assert "movielens-100k, -10m, -20m, -25m, -latest,\n-latest-small and ncf-ml-1m" in readme
    sizes = ("100k", "1m", "10m", "20m", "25m", "latest", "latest-small")
    expected = {*(f"movielens-{size}" for size in sizes), "ncf-ml-1m", "synthetic"}
    assert set(DATASET_NAMES) == expected
