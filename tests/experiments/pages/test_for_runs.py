"""The page of one run and of several side by side, and the runs that cannot be shown."""

import json

import pytest

from experiments.pages import page
from experiments.pages.write import write_report
from fedrecon.errors import InputError
from tests.experiments.comparison.runs_by_hand import explicit_results, implicit_results
from tests.experiments.pages.runs_by_hand import (
    complete,
    read_page,
    write_comparison,
    write_train_run,
)


def test_a_run_has_its_metrics_curves_users_and_files(tmp_path):
    run = write_train_run(tmp_path / "first", algorithm="fed_avg")
    path = write_report([run])
    assert path == run / "report.html"
    shown = read_page(path)
    assert shown.tables["After the last round"] == [
        ["users", "RMSE", "accuracy", "rounded accuracy", "loss", "ratings"],
        ["unseen_validation", "1.7500", "0.5000", "0.2500", "1.5000", "1,234"],
        ["unseen_test", "1.2500", "0.5000", "0.2500", "1.5000", "1,234"],
    ]
    assert (
        "fed_avg has RMSE 1.250 and accuracy 0.500 (within 0.25) on unseen_test users. While it "
        "trained, its RMSE on unseen_validation users went from 9.000 to 1.750. Better earlier: "
        "the RMSE of unseen_validation users was 1.500 after round 2 and is 1.750 after round 4, "
        "the round that is kept; fewer rounds, or a smaller rate found by experiments.tune, may "
        "help."
    ) in shown.text
    assert "Here an accurate prediction is within 0.25 of the rating." in shown.text
    assert "One run is compared with nothing, so no noise is known" in shown.text
    judged = "unseen_test: 4 of 7 users are judged, on 20 ratings. Not judged: users who have few"
    assert f"{judged} (3)." in shown.text
    assert len([found for found in shown.attributes("svg") if "role" in found]) == 9
    assert shown.tables["Bytes and seconds"][1] == [
        *("fed_avg", "741.2", "1.5", "0.04", "2.5", "12.5", "2.00")
    ]
    links = [found["href"] for found in shown.attributes("a")]
    assert {"config.json", "metrics.csv", "final_metrics.json", "samples.json"} <= set(links)
    assert "model" not in links  # There is none.
    assert "python -m experiments.train" in shown.text
    assert ["dim", "50"] in shown.tables["Settings"]


def test_a_page_elsewhere_links_to_the_files_where_they_are(tmp_path):
    run = write_train_run(tmp_path / "runs" / "first")
    path = write_report([run], tmp_path / "pages" / "mine.html")
    links = [found["href"] for found in read_page(path).attributes("a")]
    assert "../runs/first/metrics.csv" in links


def test_runs_of_an_older_version_say_what_they_lack(tmp_path):
    run = write_train_run(tmp_path / "old", with_samples=False)
    for name, key in (("final_metrics.json", "costs"), ("config.json", "command")):
        values = json.loads((run / name).read_text())
        del values[key]
        values.pop("sha256", None)
        (run / name).write_text(json.dumps(values))
    text = read_page(write_report([run])).text
    assert "Bytes are not known of fed_recon: an older version made it." in text
    assert "keep no recommendations for single users" in text
    assert "No command is kept of fed_recon; the settings above make it again." in text


def test_means_have_their_standard_errors_where_there_are_any(tmp_path):
    run = write_train_run(tmp_path / "a", rmse=1.25)
    metrics = json.loads((run / "final_metrics.json").read_text())
    metrics["unseen_test"]["rmse_standard_error"] = 0.125
    (run / "final_metrics.json").write_text(json.dumps(metrics))
    shown = read_page(write_report([run]))
    rows = shown.tables["After the last round"]
    assert [row[:2] for row in rows[1:]] == [
        ["unseen_validation", "1.7500"],
        ["unseen_test", "1.2500 ± 0.1250"],
    ]
    assert "± is the standard error over users." in shown.text


def test_runs_of_train_stand_side_by_side_without_intervals(tmp_path):
    runs = [
        write_train_run(tmp_path / "a", rmse=1.25, dim=4),
        write_train_run(tmp_path / "b", rmse=1.0, dim=8),
    ]
    shown = read_page(write_report(runs, tmp_path / "both.html"))
    assert "b has the best RMSE on unseen_test users: 1.000, 0.250 better than a." in shown.text
    assert "Not known whether it is noise" in shown.text
    assert shown.tables["Settings that differ"] == [["setting", "a", "b"], ["dim", "4", "8"]]
    rows = shown.tables["After the last round"]
    assert [row[:3] for row in rows[1:]] == [
        ["unseen_validation", "a", "1.7500"],
        ["unseen_validation", "b", "1.5000"],
        ["unseen_test", "a", "1.2500"],
        ["unseen_test", "b", "1.0000"],
    ]


def test_runs_of_a_comparison_stand_side_by_side_with_intervals(tmp_path, write):
    runs = write_comparison(write)
    shown = read_page(write_report([runs[0], runs[1]], tmp_path / "two.html"))
    assert "fed_avg has the best RMSE on unseen_test users: 10.000" in shown.text
    assert "Outside the noise" in shown.text
    assert [row[0] for row in shown.tables["Means over seeds"][1:]] == ["fed_recon", "fed_avg"]


def test_runs_of_one_algorithm_with_other_settings_are_called_by_their_folders(tmp_path, write):
    base = complete(write(explicit_results("fed_avg", 0, 1.0, 0.5)), dim=4)
    swept = complete(write(explicit_results("fed_avg", 0, 1.5, 0.5, changes={"dim": 8})), dim=8)
    shown = read_page(write_report([base, swept], tmp_path / "two.html"))
    names = [row[0] for row in shown.tables["Means over seeds"][1:]]
    assert names == ["fed_avg-0", "fed_avg-0-dim=8"]
    assert not [caption for caption in shown.tables if caption.startswith("Quality by dim")]


# --- refusals -------------------------------------------------------------------------------------


def refusal(*paths, output):
    with pytest.raises(InputError) as caught:
        write_report(list(paths), output)
    assert not output.exists()
    return str(caught.value)


def test_what_is_no_finished_run_is_refused(tmp_path):
    output = tmp_path / "page.html"
    good = write_train_run(tmp_path / "good")
    text = refusal(good, tmp_path / "nowhere", output=output)
    assert "nowhere is not the directory of a run: it has no config.json." in text

    unfinished = write_train_run(tmp_path / "unfinished")
    (unfinished / "final_metrics.json").unlink()
    text = refusal(unfinished, output=output)
    assert text.startswith(f"{unfinished} is not finished: it has neither final_metrics.json nor ")
    assert "The command that began it goes on with it" in text

    (tmp_path / "compared" / "runs" / "first").mkdir(parents=True)
    text = refusal(good, tmp_path / "compared", output=output)
    assert "holds several runs; give one of its runs, such as" in text
    text = refusal(tmp_path / "compared", output=output)
    assert "has no finished run yet" in text

    damaged = write_train_run(tmp_path / "damaged")
    (damaged / "final_metrics.json").write_text('{"rounds": 4}')
    assert "is not a run of this version ('coverage')" in refusal(damaged, output=output)
    with pytest.raises(InputError, match="is a directory; give the name of a file"):
        write_report([good], tmp_path)


def test_runs_that_were_asked_other_questions_are_refused(tmp_path, write):
    output = tmp_path / "page.html"
    first = write_train_run(tmp_path / "first")
    other = write_train_run(
        tmp_path / "other", fingerprint="def", dataset="movielens-1m", data_dir="data"
    )
    text = refusal(first, other, output=output)
    assert f"{other} was trained on movielens-1m and {first} on generated ratings of" in text
    assert text.endswith("whose ratings differ; give runs on the same data.")

    ranking = complete(
        write(implicit_results("fed_ials", 0, 0.5)), algorithm="fed_ials", feedback="implicit"
    )
    text = refusal(first, ranking, output=output)
    assert f"{ranking} has implicit feedback and {first} has explicit" in text

    fewer = write_train_run(tmp_path / "fewer", max_ratings_per_user=7)
    text = refusal(first, fewer, output=output)
    assert f"{fewer} has max_ratings_per_user=7 and {first} has max_ratings_per_user=" in text
    assert "decides what users are asked" in text


def test_a_page_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    run = write_train_run(tmp_path / "run")
    (run / "report.html").write_text("old")
    before = sorted(path.name for path in run.iterdir())

    def fail(shown):
        raise OSError("No space left on device")

    monkeypatch.setattr(page, "rendered", fail)
    with pytest.raises(InputError, match="the report cannot be written: No space left"):
        write_report([run])
    assert (run / "report.html").read_text() == "old"
    assert sorted(path.name for path in run.iterdir()) == before
