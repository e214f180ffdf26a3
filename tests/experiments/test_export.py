"""The export of a run as a user makes it, and the example that serves from it."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from fedrecon.serving.files import load_run
from tests.experiments.small import TIMEOUT, read_json, run_binary, small_flags

pytestmark = pytest.mark.slow

SMALL = (
    *small_flags(),
    *("--dim=4", "--clients_per_round=4", "--total_rounds=3", "--rounds_per_evaluation=3"),
)
# The example reads the first two from the command line.
RATINGS = {"7": 5.0, "11": 2.0, "30": 4.0, "41": 1.0}


@pytest.fixture(scope="module")
def trained(repository, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    arguments = (*SMALL, "--algorithm=fed_recon_ls", f"--output_dir={path}")
    result = run_binary(repository, "train", *arguments)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def exported(repository, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "out"
    result = run_binary(repository, "export", f"--run_dir={trained}", f"--output_dir={path}")
    assert result.returncode == 0, result.stderr
    return path, result.stdout


def test_an_export_tells_sizes_latencies_and_the_loss(exported, trained):
    path, output = exported
    card = read_json(path / "model_card.json")
    assert set(card["files"]) == {"items.csv", "model.tflite"}
    for name, size in card["files"].items():
        assert (path / name).stat().st_size == size
        assert any(line.split() == [name, f"{size:,}"] for line in output.splitlines())
    assert "reconstruct_from_20" in output
    assert "score_and_top_10" in output
    final = read_json(trained / "final_metrics.json")
    assert card["metrics"] == final
    measured = card["quantization_loss"]["measures"]
    assert measured["float32"]["rmse"] == pytest.approx(final["unseen_test"]["rmse"], abs=1e-5)
    assert f"rmse {measured['int8']['rmse']:.5f}" in output
    assert card["settings"]["dim"] == 4
    assert not {"output_dir", "data_dir"} & set(card["settings"])
    assert not list(path.parent.glob("*.part"))


def test_the_example_recommends_what_the_recommender_does(exported, trained, repository, tmp_path):
    path, _ = exported
    script = repository / "examples" / "on_device.py"
    modules = re.findall(r"^\s*(?:from|import) (\w+)", script.read_text(), flags=re.MULTILINE)
    assert "numpy" in modules
    assert not {"fedrecon", "tensorflow_federated"} & set(modules)
    assert len(script.read_text().splitlines()) <= 60

    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            cwd=tmp_path,
            check=False,
        )

    name = next(iter(RATINGS))
    for wrong, sentence in (
        ((path, f"--rate={name}=9"), f"error: the rating 9 of {name!r} is not from 1 to 5."),
        ((path, f"--rate={name}=x"), f"error: the rating 'x' of {name!r} is no number, such as 4"),
        ((path, f"--rate={name}=-"), f"error: the rating '-' of {name!r} is no number, such as 4"),
        ((path, "--rate=nothing=3"), "error: 'nothing' is no title and no id in items.csv."),
        ((tmp_path / "nowhere",), "No such file or directory"),
    ):
        result = run(*wrong)
        assert result.returncode == 1
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr
    items = load_run(trained).items
    titles = {items.titles[items.find(item)].upper(): rating for item, rating in RATINGS.items()}
    assert "" not in titles
    rated = [f"--rate={title}={rating}" for title, rating in titles.items()]
    result = run(path, "--k=7", *rated)
    assert result.returncode == 0, result.stderr
    expected = load_run(trained).recommend(RATINGS, k=7)
    found = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    names = expected["title"].where(expected["title"] != "", expected["item_id"].astype(str))
    assert [name for _, _, name in found] == names.tolist()
    assert [float(score) for _, score, _ in found] == pytest.approx(
        expected["score"].tolist(), abs=1e-4
    )


def test_other_formats_without_the_data(trained, repository, tmp_path):
    for form in ("saved_model", "numpy"):
        path = tmp_path / form
        flags = (f"--run_dir={trained}", f"--output_dir={path}", f"--format={form}")
        result = run_binary(repository, "export", *flags, "--quantize=int8", "--nomeasure")
        assert result.returncode == 0, result.stderr
        card = read_json(path / "model_card.json")
        assert (card["format"], card["quantize"]) == (form, "int8")
        assert card["quantization_loss"] == {"not_measured": "--nomeasure"}


def test_the_folder_of_a_model_alone_is_exported_too(trained, repository, tmp_path):
    flags = (f"--run_dir={trained / 'model'}", f"--output_dir={tmp_path / 'out'}", "--format=numpy")
    result = run_binary(repository, "export", *flags)
    assert result.returncode == 0, result.stderr
    card = read_json(tmp_path / "out" / "model_card.json")
    assert (card["settings"], card["metrics"]) == (None, None)
    assert "without its run" in card["quantization_loss"]["not_measured"]


def test_without_the_data_of_the_run_nothing_is_measured(trained, repository, tmp_path):
    moved = pathlib.Path(shutil.copytree(trained, tmp_path / "moved"))
    config = read_json(moved / "config.json")
    (moved / "config.json").write_text(json.dumps({**config, "data_fingerprint": "another"}))
    flags = (f"--run_dir={moved}", f"--output_dir={tmp_path / 'out'}", "--format=numpy")
    result = run_binary(repository, "export", *flags)
    assert result.returncode == 0, result.stderr
    assert "What quantization costs is not measured: the ratings of synthetic" in result.stdout
    found = read_json(tmp_path / "out" / "model_card.json")["quantization_loss"]
    assert found == {"not_measured": "the data could not be loaded"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give --run_dir=DIR"),
        (("--run_dir=/nowhere",), "give --output_dir=DIR"),
        (("--run_dir=/nowhere", "--output_dir=new"), "/nowhere holds no model"),
        (("--run_dir=/nowhere", "--format=onnx"), "--format=onnx"),
        (("--run_dir=/nowhere", "--output_dir=docs"), "docs exists and holds no export"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(repository, flags, message):
    result = run_binary(repository, "export", *flags)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_flag_without_effect_is_refused(trained, repository, tmp_path):
    flags = (f"--run_dir={trained}", f"--output_dir={tmp_path / 'out'}", "--data_dir=elsewhere")
    result = run_binary(repository, "export", *flags)
    assert result.returncode == 1
    assert "--data_dir has no effect with --dataset=synthetic" in result.stderr
    assert not list(tmp_path.iterdir())


def test_help_explains_the_flags(repository):
    result = run_binary(repository, "export", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Exports the model of a run")
    for flag in ("run_dir", "output_dir", "format", "quantize", "measure", "data_dir"):
        assert f"--{flag} " in result.stdout
