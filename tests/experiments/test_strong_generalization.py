"""`--split=strong_generalization` from a search to a report, as a person uses it."""

import csv

import pytest

from tests.experiments.small import read_json, run_binary

pytestmark = pytest.mark.slow

STRONG = (
    *("--split=strong_generalization", "--num_held_out_users=30", "--synthetic_num_users=150"),
    *("--synthetic_num_items=120", "--synthetic_mean_ratings_per_user=40", "--positive_from=4"),
    "--min_ratings_per_user=5",
)
FED_IALS = ("--dim=4", "--total_rounds=12", "--clients_per_round=30", "--rounds_per_evaluation=4")


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def comparison(repository, tmp_path_factory):
    path = tmp_path_factory.mktemp("strong") / "comparison"
    done = run_binary(
        repository,
        "compare",
        "--algorithms=fed_ials,fed_ease,ials,ease,item_knn,popularity",
        *STRONG,
        *FED_IALS,
        "--set=fed_ials:server_learning_rate=0.05",
        "--set=ials:dim=4",
        "--set=ease:ridge=20",
        "--set=fed_ease:ridge=20",
        f"--output_dir={path}",
    )
    assert done.returncode == 0, done.stderr
    return path, done.stdout


def test_all_are_judged_by_what_the_field_reports(comparison):
    path, output = comparison
    assert "NDCG@100 unseen_test " in output
    rows = {row["algorithm"]: row for row in read_rows(path / "comparison.csv")}
    assert set(rows) == {"fed_ials", "fed_ease", "ials", "ease", "item_knn", "popularity"}
    names = ("ndcg_at_100", "recall_at_20", "recall_at_50")
    for row in rows.values():
        assert row["unseen_test_num_users"] == "30"
        for name in names:
            value, error = (
                float(row[f"unseen_test_{name}{end}"]) for end in ("", "_standard_error")
            )
            assert 0 < value < 1
            assert 0 < error < 0.1
        assert 0 < float(row["unseen_test_ndcg_at_100_given_5"]) < 1
    for name in names:  # The same weights, from another way to count.
        assert float(rows["fed_ease"][f"unseen_test_{name}"]) == pytest.approx(
            float(rows["ease"][f"unseen_test_{name}"]), abs=1e-3
        )
    counts = 4 * 120**2
    assert 0 < int(rows["fed_ease"]["bytes_up"]) <= counts
    assert rows["fed_ease"]["bytes_up_once"] == rows["ease"]["bytes_up"] == "0"
    assert float(rows["ials"]["unseen_test_recall_at_20"]) > float(
        rows["popularity"]["unseen_test_recall_at_20"]
    )


def test_the_report_has_means_with_standard_errors_and_the_curves(comparison):
    path, _ = comparison
    text = (path / "comparison.md").read_text()
    assert "## Standard errors over users" in text
    assert "unseen_test NDCG@100 | unseen_test Recall@20 | unseen_test Recall@50" in text
    assert "30 of 30 users are judged" in text
    assert "NDCG@100" in (path / "report.html").read_text()
    rows = read_rows(path / "runs" / "fed_ials-seed0" / "metrics.csv")
    curve = [
        float(r["unseen_validation/ndcg_at_100"])
        for r in rows
        if r["unseen_validation/ndcg_at_100"]
    ]
    assert len(curve) == 4
    assert curve[-1] > curve[0]


def test_evaluate_finds_the_same_in_the_files_of_a_run(comparison, repository):
    run = comparison[0] / "runs" / "fed_ials-seed0"
    done = run_binary(repository, "evaluate", f"--run_dir={run}", "--group=unseen_test")
    assert done.returncode == 0, done.stderr
    found = read_json(run / "evaluation_unseen_test.json")
    expected = read_json(run / "results.json")["groups"]["unseen_test"]["means"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_search_goes_by_validation_users(repository, tmp_path):
    done = run_binary(
        repository,
        "tune",
        *("--algorithm=item_knn", *STRONG, "--search=num_neighbors:1,20"),
        f"--output_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    best, other = read_rows(tmp_path / "trials.csv")
    assert best["num_neighbors"] == "20"
    assert float(best["ndcg_at_100"]) > float(other["ndcg_at_100"])
