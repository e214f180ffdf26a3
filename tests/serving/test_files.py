"""The files of a model: read as they were written, or refused in a sentence."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from fedrecon.errors import InputError
from fedrecon.serving.files import load_run
from fedrecon.serving.linear import GradientSteps
from tests.serving import served
from tests.serving.served import DIM, implicit_recommender, recommender

STEPS = GradientSteps((0.1, 0.2, 0.3, 0.4), 0.05, batch_size=4, epochs=2, steps_max=None)
FILES = ("items.csv", "model.json", "tables.npz", "weights.npz")
BUILDERS = {
    "explicit": recommender,
    "implicit": implicit_recommender,
    "negatives": lambda: implicit_recommender(negatives_per_positive=2),
    "steps": lambda: recommender(rule=STEPS),
    "text_ids": lambda: recommender(ids=served.text_ids()),
    "large_ids": lambda: recommender(ids=np.arange(served.NUM_ITEMS) + (2**63 - served.NUM_ITEMS)),
}
GIVEN = {"Heat (1995)": 5, "a b c d": 1, "Film 12": 4}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model's folder, which tests copy."""
    path = tmp_path_factory.mktemp("models") / "model"
    recommender().save(path)
    return path


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refusal(path):
    with pytest.raises(InputError) as raised:
        load_run(path)
    return str(raised.value)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_is_read_as_it_was_written(name, tmp_path):
    model = BUILDERS[name]()
    model.save(tmp_path / "model")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model"]
    assert tuple(sorted(file.name for file in (tmp_path / "model").iterdir())) == FILES
    read = load_run(tmp_path / "model")
    assert read.about == model.about
    assert read.model.rule == model.model.rule
    assert read.model.parts == model.model.parts
    assert read.items.ids.tolist() == model.items.ids.tolist()
    assert read.items.titles == model.items.titles
    assert read.items.genres == model.items.genres
    for weight, value in model.weights.items():
        np.testing.assert_array_equal(read.weights[weight], value)
    pd.testing.assert_frame_equal(read.recommend(GIVEN, 9), model.recommend(GIVEN, 9))
    assert read.user_vector(GIVEN).shape == (DIM + 1,)


def test_a_run_has_its_model_in_a_folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run" / "model")
    assert load_run(tmp_path / "run").about == load_run(whole).about == served.EXPLICIT


def test_another_program_reads_the_tables(whole):
    described = json.loads((whole / "model.json").read_text())
    items = pd.read_csv(whole / "items.csv", keep_default_na=False)
    with np.load(whole / "tables.npz") as tables:
        factors, offsets = tables["factors"], tables["offsets"]
    assert described["kind"] == "linear"
    assert described["reconstruction"]["kind"] == "least_squares"
    assert items["title"].tolist() == list(served.TITLES)
    rows = [items["item_id"].tolist().index(item) for item in (100, 160)]
    labels = np.array([5.0, 2.0])
    penalty = np.diag(described["reconstruction"]["strengths"])
    vector = np.linalg.solve(
        factors[rows].T @ factors[rows] + penalty, factors[rows].T @ (labels - offsets[rows])
    )
    expected = load_run(whole).score_all({100: 5, 160: 2})
    np.testing.assert_allclose(factors @ vector + offsets, expected, atol=1e-5)


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_said(folder, name):
    (folder / name).unlink()
    is_model = name == "model.json"
    expected = f"{folder} holds no model" if is_model else f"{folder / name} is missing."
    assert refusal(folder).startswith(expected)
    (folder / name).mkdir()
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_said(folder, name, share):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    assert re.search("is damaged|cannot be read", refusal(folder))


@pytest.mark.parametrize("name", ["items.csv", "tables.npz", "weights.npz"])
def test_one_wrong_byte_is_said(folder, name):
    data = (folder / name).read_bytes()
    for place in (0, len(data) // 2, len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 1
        (folder / name).write_bytes(flipped)
        assert refusal(folder).startswith(f"{folder / name} is damaged")


def test_one_wrong_byte_of_the_description_is_said_or_changes_nothing(folder):
    path = folder / "model.json"
    data, values = path.read_bytes(), json.loads(path.read_bytes())
    num_refused = 0
    for place in range(0, len(data), 3):
        for bit in (1, 0x80):
            flipped = bytearray(data)
            flipped[place] ^= bit
            path.write_bytes(flipped)
            try:
                load_run(folder)
            except InputError:
                num_refused += 1
            else:
                assert json.loads(path.read_bytes()) == values
    assert num_refused > len(data) / 3


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "7", '"text"', "{}", '{"format": 1}', "[" * 100_000, "\xff\xfe"),
        *('{"format": 1, "sha256": 3}', '{"format": 1, "sha256": {}}'),
    ],
)
def test_another_description_is_refused_in_a_sentence(folder, text):
    (folder / "model.json").write_text(text, encoding="latin-1")
    assert str(folder / "model.json") in refusal(folder)


def test_another_format_is_refused_in_a_sentence(folder):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert refusal(folder) == (
        f"{path} has format 2; this version reads format 1. Train again, or use the version that "
        "wrote it."
    )


# --- folders that hold no model -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "it is neither a run nor the folder of a model"),
        ([], "it is neither a run nor the folder of a model"),
        (["config.json"], "its run is not finished, and a run writes it when it ends"),
        (
            ["config.json", "final_metrics.json"],
            "it is the run of a baseline, or of a version that",
        ),
        (["config.json", "results.json"], "it is the run of a baseline, or of a version that"),
    ],
)
@pytest.mark.parametrize("has_empty_folder", [False, True])
def test_why_there_is_no_model_is_said(tmp_path, files, reason, has_empty_folder):
    run = tmp_path / "run"
    if files is not None:
        run.mkdir()
        for name in files:
            (run / name).write_text("{}")
        if has_empty_folder:
            (run / "model").mkdir()
    assert refusal(run).startswith(f"{run} holds no model: {reason}")


# --- writing --------------------------------------------------------------------------------------


def test_a_model_takes_the_place_of_a_model_and_of_nothing_else(tmp_path):
    path = tmp_path / "deep" / "model"
    recommender().save(path)
    (tmp_path / "deep" / "model.part").mkdir()  # Of a process that was killed.
    implicit_recommender().save(path)
    assert load_run(path).about == served.IMPLICIT
    assert [file.name for file in path.parent.iterdir()] == ["model"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="exists and holds no model; give another folder"):
        recommender().save(other)
    assert (other / "letter.txt").read_text() == "dear"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="the model cannot be written"):
        recommender().save(tmp_path / "file" / "model")
