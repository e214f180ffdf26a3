"""The folder of an export: its files, its card, and what cannot be exported."""

import contextlib
import csv
import io
import json
import pathlib
import re

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.serving import export
from fedrecon.serving.card import Facts
from fedrecon.serving.stepwise import StepwiseModel
from tests.serving.random_models import NUM_ITEMS, RULES, SIZE, about, given, recommender

FACTS = Facts({"dim": 8}, {"rounds": 7}, {"group": "unseen_test"})
UNKNOWN = Facts(None, None, "--nomeasure")


def read_card(path):
    return json.loads((path / "model_card.json").read_text(encoding="utf-8"))


def test_numpy_alone_can_serve_an_int8_export(tmp_path):
    served = recommender()
    export.write(served, tmp_path / "out", form="numpy", quantize="int8", facts=FACTS)
    assert set(export.file_sizes(tmp_path / "out")) == {
        *("items.csv", "model_card.json", "tables.npz")
    }
    tables = np.load(tmp_path / "out" / "tables.npz")
    assert {name: tables[name].dtype.name for name in tables} == {
        "factors": "int8",
        "scales": "float32",
        "offsets": "float32",
    }
    factors = tables["scales"][:, np.newaxis] * tables["factors"]
    rule = read_card(tmp_path / "out")["reconstruction"]
    rows, ratings = given(np.random.default_rng(0), 6)
    own = factors[rows]
    penalties = 6 ** rule["exponent"] * np.diag(rule["strengths"])
    vector = np.linalg.solve(own.T @ own + penalties, own.T @ (ratings - tables["offsets"][rows]))
    (expected,) = served.model.user_vectors([(rows, ratings)])
    np.testing.assert_allclose(vector, expected, atol=0.05)
    with open(tmp_path / "out" / "items.csv", newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    assert [items[3]["item_id"], items[3]["title"]] == ["a3", 'The "Quoted", Ünïcode']


def test_the_card_says_what_the_model_takes_and_gives(tmp_path):
    export.write(recommender(), tmp_path / "out", form="saved_model", facts=FACTS)
    card = read_card(tmp_path / "out")
    assert (card["data"], card["algorithm"], card["rounds"]) == ("drawn", "fed_recon_ls", 7)
    assert (card["settings"], card["metrics"]) == ({"dim": 8}, {"rounds": 7})
    assert card["quantization_loss"] == {"group": "unseen_test"}
    sizes = export.file_sizes(tmp_path / "out")
    del sizes["model_card.json"]
    assert card["files"] == sizes
    assert "saved_model/saved_model.pb" in sizes
    functions = card["signatures"]
    assert functions["reconstruct"]["inputs"]["item_rows"]["dtype"] == "int32"
    assert functions["reconstruct"]["outputs"]["user_vector"]["shape"] == [SIZE]
    assert functions["score"]["outputs"]["scores"]["shape"] == [NUM_ITEMS]
    assert card["ratings_mean"] == "The user's ratings in stars, 1 to 5 in steps of 1."


@pytest.mark.parametrize(
    ("changes", "rule", "ratings", "scores"),
    [
        ({"label_threshold": 4.0}, "least_squares", "1 where .* at least 4 stars", "near 1"),
        (
            {"feedback": "implicit", "negatives_per_positive": 4},
            "least_squares",
            "4 drawn at random",
            "order",
        ),
        ({"feedback": "implicit"}, "gradient_steps", "1 for each item", "order"),
        ({"feedback": "implicit"}, "implicit_least_squares", "only which items", "order"),
    ],
)
def test_the_card_says_what_ratings_mean(tmp_path, changes, rule, ratings, scores):
    served = recommender(RULES[rule], **changes)
    export.write(served, tmp_path / "out", form="numpy", facts=UNKNOWN)
    card = read_card(tmp_path / "out")
    assert re.search(ratings, card["ratings_mean"])
    assert re.search(scores, card["scores_mean"])
    assert card["signatures"] is None
    assert card["quantization_loss"] == {"not_measured": "--nomeasure"}


def test_drawn_negatives_are_refused_where_a_function_would_have_to_draw(tmp_path):
    served = recommender(feedback="implicit", negatives_per_positive=4)
    for form in ("tflite", "saved_model"):
        with pytest.raises(InputError, match=r"draws none; give --format=numpy"):
            export.write(served, tmp_path / "out", form=form, facts=UNKNOWN)
    assert not list(tmp_path.iterdir())


def test_a_model_that_needs_keras_is_refused(tmp_path):
    served = recommender()
    served.model = object.__new__(StepwiseModel)
    with pytest.raises(InputError, match=r"only fedrecon\.load_run can do; linear models can"):
        export.write(served, tmp_path / "out", form="numpy", facts=UNKNOWN)


def test_an_export_is_replaced_and_anything_else_is_not(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    export.write(recommender(), path, form="saved_model", facts=UNKNOWN)
    export.write(recommender(), path, form="numpy", facts=UNKNOWN)
    assert not (path / "saved_model").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no export"):
        export.write(recommender(), other, form="numpy", facts=UNKNOWN)
    assert [file.name for file in other.iterdir()] == ["thesis.txt"]


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setitem(export._WRITERS, "numpy", fail)
    with pytest.raises(InputError, match="cannot be written: no space left"):
        export.write(recommender(), tmp_path / "out", form="numpy", facts=UNKNOWN)
    assert not list(tmp_path.iterdir())


def test_the_reader_of_the_docs_gives_what_a_recommender_gives(repository, tmp_path, monkeypatch):
    page = (repository / "docs" / "model_files.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    # The page has a run on generated ratings.
    code = code.replace("Item 110", "Matrix, The (1999)").replace("Item 3", "Babe (1995)")
    served = recommender()
    folder = pathlib.Path(tmp_path, "runs", "first", "model")
    served.save(folder)
    monkeypatch.chdir(tmp_path)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    expected = served.recommend(names["ratings"])
    lines = [line.partition(" ")[::2] for line in printed.getvalue().splitlines()]
    assert [title for _, title in lines] == expected["title"].tolist()
    found = [float(score) for score, _ in lines]
    np.testing.assert_allclose(found, expected["score"], atol=6e-5)


def test_about_is_as_the_docs_list_it(repository):
    page = (repository / "docs" / "model_files.md").read_text(encoding="utf-8")
    for name in about().to_json():
        assert f"`{name}`" in page
