"""`--help` and wrong flags, as processes: what they show, and that they do not wait."""

import dataclasses
import subprocess
import sys

import pytest

from experiments.run import fields
from experiments.run.settings import Settings
from tests.experiments.small import run_binary

pytestmark = pytest.mark.slow

# Larger than it takes, but less than the import of TensorFlow on this machine.
TIMEOUT = 20
STEPPING = "--algorithm other than fed_recon_ls, fed_ials or centralized"


def show(repository, binary, *arguments):
    done = run_binary(repository, binary, *arguments, timeout=TIMEOUT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def explained(text):
    """The flags that have a line of their own, in the order of the text."""
    return [line.split()[0][2:] for line in text.splitlines() if line.startswith("  --")]


def test_help_starts_with_the_required_flag_and_has_the_groups_after_a_few(repository):
    text = show(repository, "train", "--help")
    assert len(text.splitlines()) < 60
    assert explained(text)[0] == "output_dir"
    assert "  --output_dir          Folder for the files of the run (required)" in text
    every = {field.name for field in dataclasses.fields(Settings)}
    assert 8 <= len(explained(text)) <= 14
    assert all(f"--{name}" in text for name in every)  # The others by name alone.
    for group in fields.GROUPS:
        assert any(line.startswith(f"  {group:11}--") for line in text.splitlines())
    presets = text.partition("Presets")[2]
    assert "paper_ml1m.flags" in presets
    assert "comparison_" not in presets  # Those are of another binary.


def test_a_group_or_everything_is_explained_on_demand(repository):
    model = show(repository, "train", "--help=model")
    fields_of_model = [
        field.name for field in dataclasses.fields(Settings) if field.metadata["group"] == "model"
    ]
    assert explained(model) == fields_of_model
    assert "Only with --model=mlp or neumf." in " ".join(model.split())
    every = show(repository, "train", "--help=all")
    settings = {field.name for field in dataclasses.fields(Settings)}
    assert set(explained(every)) == settings | {"tracker", "open_report"}
    assert f"Only with {STEPPING}." in " ".join(every.split())


def test_other_binaries_explain_their_own_flags_first(repository):
    text = show(repository, "compare", "--help")
    assert explained(text)[:5] == ["output_dir", "algorithms", "references", "seeds", "set"]
    assert "comparison_ml1m.flags" in text
    assert "tune_" not in text
    text = show(repository, "tune", "--help")
    assert explained(text)[:2] == ["output_dir", "search"]
    assert "tune_centralized_ml1m.flags" in text
    assert explained(show(repository, "evaluate", "--help"))[0] == "run_dir"
    assert explained(show(repository, "benchmark", "--help"))[0] == "suite"
    assert explained(show(repository, "check_leak", "--help"))[0] == "train"


CODE = """
import sys
from experiments import {binary}
try:
    {binary}.cli.run({binary}.main)
finally:
    print("tensorflow" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("binary", "arguments", "message"),
    [
        ("train", ["--nonsense"], "there is no flag --nonsense"),
        ("train", [], "give --output_dir=DIR, a new folder or the folder of a run to resume."),
        ("train", ["--algorithm=item_knn"], "experiments.compare and experiments.tune have it."),
        ("train", ["--gradient_clip_norm=-1"], "--gradient_clip_norm has no effect with"),
        ("train", ["--averaging=by_row"], "--averaging has no effect with --algorithm=fed_recon;"),
        ("train", ["--dataset=movielens-2m"], "movielens-1m"),
        ("train", ["--clients_per_round=401"], "is more than the 400 training users of synthetic"),
        ("evaluate", [], "give --run_dir=DIR, the output directory of experiments.train."),
        ("compare", ["--algorithms=fed_avgg"], "'fed_avgg'; did you mean fed_avg"),
        (
            "compare",
            ["--sweep=rounds:3"],
            "there is no setting 'rounds'; did you mean total_rounds",
        ),
        ("tune", ["--search=lr:3"], "did you mean client_learning_rate or server_learning_rate?"),
        ("benchmark", ["--suite=rounds"], "did you mean round"),
        ("check_leak", ["--train=x"], "give --test=FILE --negatives=FILE, or --simulate="),
    ],
)
def test_wrong_flags_are_refused_before_tensorflow_is_imported(
    repository, tmp_path, binary, arguments, message
):
    has_output_dir = binary in ("train", "compare", "tune") and arguments
    path = [f"--output_dir={tmp_path / 'run'}"] if has_output_dir else []
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(binary=binary), *arguments, *path],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=repository,
        check=False,
    )
    *errors, has_tensorflow = done.stderr.splitlines()
    assert done.returncode == 1
    assert message in errors[-1]
    assert has_tensorflow == "False"
    assert not (tmp_path / "run").exists()
