"""`experiments.export_predictions` as a user runs it: its file gives the metrics of the run."""

import numpy as np
import pandas as pd
import pytest

from tests.experiments.small import SYNTHETIC, read_json, run_binary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_dir(comparison):
    return comparison / "runs" / "fed_recon_ls-seed0"


def export(repository, run_dir, *arguments):
    return run_binary(repository, "export_predictions", f"--run_dir={run_dir}", *arguments)


def test_the_file_has_what_the_run_was_judged_by(repository, run_dir, tmp_path):
    import fedrecon as fr

    output = tmp_path / "predictions.csv.gz"
    output.write_text("of before")
    done = export(repository, run_dir, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    table = pd.read_csv(output)
    assert list(table.columns) == ["user_id", "item_id", "label", "prediction"]
    assert f"{output}: {len(table):,} predictions of unseen_test after round 3." in done.stdout
    judged = read_json(run_dir / "results.json")["groups"]["unseen_test"]
    assert len(table) == judged["num_examples"]
    assert table["user_id"].nunique() == judged["num_users"]
    rmse = np.sqrt(np.mean((table["prediction"] - table["label"]) ** 2))
    assert rmse == pytest.approx(judged["means"]["rmse"], abs=1e-4)
    # Labels are the ratings of the data, by its own ids.
    sizes = {name.removeprefix("synthetic_"): value for name, value in SYNTHETIC.items()}
    ratings = fr.load_dataset("synthetic", **sizes, seed=0)
    users, items = ratings.original_user_ids, ratings.original_item_ids
    rated = dict(
        zip(
            zip(users[ratings.user_ids].tolist(), items[ratings.item_ids].tolist()),
            ratings.ratings.tolist(),
        )
    )
    for row in table.itertuples():
        assert rated[row.user_id, row.item_id] == row.label


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give --output=FILE, the csv file to write."),
        (("--output=/nowhere/at/all.csv",), "/nowhere/at is no folder; make it, or give another"),
        (("--output=/tmp",), "/tmp is a folder; give --output=FILE, the csv file to write."),
        (("--output=x.csv", "--round=77"), "has no checkpoint after round 77"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(repository, run_dir, arguments, sentence):
    done = export(repository, run_dir, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
