"""The report of a comparison, from run directories made by hand: tables, files and refusals."""

import dataclasses
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from experiments.comparison import report
from experiments.comparison.differences import Pairing
from experiments.comparison.results import PerUser, Sample
from fedrecon.errors import InputError
from fedrecon.evaluation.metrics import UserResults
from tests.experiments.comparison.runs_by_hand import (
    CENTRALIZED,
    REFERENCE,
    SETTLED,
    csv_rows,
    explicit_results,
    implicit_results,
    lines,
    tables,
)

pytestmark = pytest.mark.usefixtures("without_page")


def test_the_table_has_means_and_sample_deviations_over_seeds(tmp_path, write):
    # 0.5, 0.75 and 1.0: the mean is 0.75, the variance (0.0625 + 0 + 0.0625) / 2 = 0.25 squared.
    # 0.25, 0.25 and 0.625: 0.375, (0.015625 + 0.015625 + 0.0625) / 2 = 0.046875 = 0.2165 squared.
    runs = [
        write(explicit_results("fed_recon", 0, 0.5, 0.25, seconds=1.0)),
        write(explicit_results("fed_avg", 0, 1.0, 0.375)),
        write(explicit_results("fed_recon", 1, 0.75, 0.25, seconds=2.0)),
        write(explicit_results("fed_recon", 2, 1.0, 0.625, seconds=6.0)),
        write(explicit_results("fed_avg", 1, 1.0, 0.5)),
        write(explicit_results("fed_avg", 2, 1.0, 0.625)),
    ]
    report.write_report(tmp_path, runs)
    quality, costs = tables(tmp_path)
    assert quality == [
        [
            "algorithm",
            "seen_test RMSE",
            "seen_test accuracy",
            "seen_test rounded accuracy",
            "unseen_test RMSE",
            "unseen_test accuracy",
            "unseen_test rounded accuracy",
        ],
        [
            *("fed_recon", "**0.750 ± 0.250**", "0.375 ± 0.217", "0.188 ± 0.108"),
            *("**1.250 ± 0.250**", "0.250 ± 0.217", "0.125 ± 0.108"),
        ],
        [
            *("fed_avg", "1.000 ± 0.000", "**0.500 ± 0.125**", "**0.250 ± 0.062**"),
            *("1.500 ± 0.000", "**0.375 ± 0.125**", "**0.188 ± 0.062**"),
        ],
    ]
    # Seconds: the mean of 1, 2 and 6 is 3, the variance (4 + 1 + 9) / 2 = 2.646 squared.
    assert costs == [
        [
            *("algorithm", "KB down", "KB up", "device KB", "server MB", "item steps"),
            "seconds without compilation",
        ],
        ["fed_recon", "741.2", "1.5", "0.04", "2.5", "12.5", "3.00 ± 2.65"],
        ["fed_avg", "741.2", "1.5", "0.04", "2.5", "12.5", "2.00 ± 0.00"],
    ]
    text = (tmp_path / "comparison.md").read_text()
    before, after = text.split("| algorithm", 1)
    assert "3 seeds (0, 1, 2). Mean ± sample standard deviation over seeds." in before
    assert "are means over ratings" in after


def test_who_was_judged_is_said_for_each_seed_and_group(tmp_path, write):
    runs = [write(explicit_results("fed_recon", seed, 0.5, 0.25)) for seed in (0, 1)]
    report.write_report(tmp_path, runs)
    text = (tmp_path / "comparison.md").read_text()
    for seed in (0, 1):
        for group in ("seen_test", "unseen_test"):
            assert (
                f"- seed {seed}, {group}: 4 of 7 users are judged, on 20 ratings. Not judged: "
                "users who have few (3). 3 of the ratings are of items that nobody trains on.\n"
            ) in text


def test_one_seed_has_no_deviation_and_what_looks_the_same_is_equally_bold(tmp_path, write):
    runs = [
        write(explicit_results("fed_ncf", 3, 0.90004, 0.5)),
        write(explicit_results("fed_recon", 3, 0.89996, 0.25)),
        write(explicit_results("mine", 3, 1.0, 0.25, **CENTRALIZED)),
    ]
    files = report.write_report(tmp_path, runs)
    assert [path.name for path in files] == [
        *("comparison.csv", "comparison.md", "report.html"),
        *("quality_rounds.png", "quality_bytes.png"),
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files[3:])
    assert "1 seed (3).\n" in (tmp_path / "comparison.md").read_text()
    (_, *rows), (_, *costs) = tables(tmp_path)
    assert [row[:3] for row in rows] == [
        ["fed_ncf", "**0.900**", "**0.500**"],
        ["fed_recon", "**0.900**", "0.250"],
        ["mine", "1.000", "0.250"],
    ]
    assert costs[2][1:3] == ["0", "0.9 once"]


@pytest.mark.slow
def test_seeds_are_told_apart_where_they_differ_and_one_algorithm_is_not_bold(tmp_path, write):
    runs = [write(explicit_results("fed_recon", seed, 1.0, 0.5)) for seed in (0, 1)]
    report.write_report(tmp_path / "one", runs)
    assert tables(tmp_path / "one")[0][1][1] == "1.000 ± 0.000"
    runs.append(write(explicit_results("fed_avg", 1, 2.0, 0.5)))
    report.write_report(tmp_path, runs)
    text = (tmp_path / "comparison.md").read_text()
    assert "fed_recon: 2 seeds (0, 1); fed_avg: 1 seed (1). Mean ±" in text
    (_, *rows), _ = tables(tmp_path)
    assert [row[1] for row in rows] == ["**1.000 ± 0.000**", "2.000"]


@pytest.mark.slow
def test_the_csv_file_has_every_figure_in_full(tmp_path, write):
    given = {"5": {"rmse": 0.1 + 0.2, "accuracy": 0.75, "rounded_accuracy": 0.5}}
    base = write(
        explicit_results("fed_recon", 0, 1 / 3, 0.5, given=given),
        settings={"client_epochs": 1, "clients_per_round": 10},
    )
    swept = write(explicit_results("fed_recon", 0, 1.0, 0.5, changes={"client_epochs": 2}))
    other = write(explicit_results("fed_recon", 0, 1.0, 0.5, changes={"clients_per_round": 7}))
    report.write_report(tmp_path, [base, swept, other])
    first, second, third = csv_rows(tmp_path)
    assert list(first)[:5] == [
        *("run", "algorithm", "seed", "changed_client_epochs", "changed_clients_per_round")
    ]
    changed = [
        [r["changed_client_epochs"], r["changed_clients_per_round"]] for r in csv_rows(tmp_path)
    ]
    assert changed == [["", ""], ["2", ""], ["", "7"]]
    assert first["run"] == "runs/fed_recon-0"
    assert first["seen_test_rmse"] == "0.3333333333333333"
    assert first["unseen_test_rmse_given_5"] == "0.30000000000000004"
    assert second["unseen_test_rmse_given_5"] == ""
    wanted = {
        **{"seed": 0, "rounds": 4, "bytes_down": 741200, "unseen_test_num_users": 4},
        **{"seen_test_mae": 0.5, "seen_test_accuracy": 0.5, "unseen_test_accuracy": 0.375},
        **{"unseen_test_rmse": 1.5, "unseen_test_rmse_over_users": 1.75},
        **{
            "seen_test_rmse_quantile_0": 1.0,
            "seen_test_rmse_quantile_10": 2.0,
            "unseen_test_rmse_quantile_100": 11.5,
        },
    }
    assert {name: float(third[name]) for name in wanted} == wanted


def test_a_ranking_has_candidates_and_full_rankings_and_ials_no_curve(tmp_path, write, drawn):
    runs = [
        write(implicit_results("fed_recon", 0, 0.5)),
        write(implicit_results("ials", 0, 0.75, **REFERENCE), watched=()),
    ]
    report.write_report(tmp_path, runs)
    (heading, *rows), _ = tables(tmp_path)
    measures = ("HR@10", "NDCG@10", "full HR@10", "full NDCG@10")
    groups = ("seen_test", "unseen_test")
    assert heading[1:] == [f"{group} {m}" for group in groups for m in measures]
    assert [row[:5] for row in rows] == [
        ["fed_recon", "0.500", "0.250", "0.100", "0.050"],
        ["ials", "**0.750**", "**0.375**", "**0.150**", "**0.075**"],
    ]
    assert "means over users" in (tmp_path / "comparison.md").read_text()
    row = csv_rows(tmp_path)[1]
    assert float(row["unseen_test_full_hr_at_10"]) == pytest.approx(0.15)
    assert row["rounds"] == ""
    assert list(lines(drawn["quality_rounds"][0])) == ["fed_recon"]
    assert list(lines(drawn["quality_bytes"][0])) == ["fed_recon"]


@pytest.mark.slow
def test_few_given_ratings_have_a_table_and_a_picture(tmp_path, write, drawn):
    def given(*values):
        return {
            n: {"rmse": v, "accuracy": v / 4, "rounded_accuracy": v / 8}
            for n, v in zip(("10", "2", "1"), values)
        }

    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5, given=given(1.0, 1.5, 2.0))),
        write(explicit_results("fed_recon", 1, 1.0, 0.5, given=given(1.0, 2.5, 3.0))),
        write(explicit_results("fed_avg", 0, 1.0, 0.5, given=given(1.125))),
    ]
    report.write_report(tmp_path, runs)
    assert tables(tmp_path)[2] == [
        ["algorithm", "measure", "1", "2", "10"],
        ["fed_recon", "RMSE", "2.500 ± 0.707", "2.000 ± 0.707", "**1.000 ± 0.000**"],
        ["fed_avg", "RMSE", "–", "–", "1.125"],  # noqa: RUF001
        ["fed_recon", "accuracy", "0.625 ± 0.177", "0.500 ± 0.177", "0.250 ± 0.000"],
        ["fed_avg", "accuracy", "–", "–", "**0.281**"],  # noqa: RUF001
        ["fed_recon", "rounded accuracy", "0.312 ± 0.088", "0.250 ± 0.088", "0.125 ± 0.000"],
        ["fed_avg", "rounded accuracy", "–", "–", "**0.141**"],  # noqa: RUF001
    ]
    assert "Means over ratings" in (tmp_path / "comparison.md").read_text()
    rmse, accuracy, rounded = drawn["given_ratings"]
    assert accuracy.get_title() == "unseen_test users: accuracy (higher is better)"
    assert lines(rounded)["fed_avg"][1] == [1.125 / 8]
    assert [label.get_text() for label in rmse.get_xticklabels()] == ["1", "2", "10"]
    assert lines(rmse)["fed_recon"][1] == [2.5, 2.0, 1.0]
    assert lines(rmse)["fed_avg"][1] == [1.125]


@pytest.mark.slow
def test_a_sweep_starts_from_the_unchanged_runs_of_its_seeds(tmp_path, write, drawn):
    epochs = {"client_epochs": 2}
    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5), settings=epochs),
        write(explicit_results("fed_recon", 1, 5.0, 0.5), settings=epochs),  # Other users.
        write(explicit_results("fed_avg", 0, 2.0, 0.5), settings=epochs),
        write(explicit_results("fed_recon", 0, 0.75, 0.5, changes={"client_epochs": 10})),
        write(explicit_results("fed_recon", 0, 1.5, 0.5, changes={"client_epochs": 1})),
    ]
    files = report.write_report(tmp_path, runs)
    assert files[-1].name == "sweep_client_epochs.png"
    comparison, _, sweep = tables(tmp_path)
    assert [row[1] for row in comparison[1:]] == ["3.000 ± 2.828", "**2.000**"]
    assert sweep == [
        ["algorithm", "users", "1", "2 (unchanged)", "10"],
        ["fed_recon", "seen_test", "1.500", "1.000", "**0.750**"],
        ["fed_recon", "unseen_test", "2.000", "1.500", "**1.250**"],
    ]
    assert "Over 1 seed (0)." in (tmp_path / "comparison.md").read_text()
    seen_rmse, _, _, unseen_accuracy, _, _ = drawn["sweep_client_epochs"]
    assert lines(seen_rmse) == {"fed_recon": [[0, 1, 2], [1.5, 1.0, 0.75]]}
    assert lines(unseen_accuracy)["fed_recon"][1] == [0.375, 0.375, 0.375]
    # The curves are of the comparison itself.
    assert list(lines(drawn["quality_rounds"][0])) == ["fed_recon", "fed_avg"]


@pytest.mark.slow
def test_algorithms_may_start_a_sweep_from_values_of_their_own(tmp_path, write):
    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5), settings={"l2": None}),
        write(explicit_results("fed_avg", 0, 2.0, 0.5), settings={"l2": 0.5}),
        write(explicit_results("fed_recon", 0, 1.5, 0.5, changes={"l2": 0.5})),
        write(explicit_results("fed_avg", 0, 2.5, 0.5, changes={"l2": 0.25})),
    ]
    report.write_report(tmp_path, runs)
    assert tables(tmp_path)[2][0] == ["algorithm", "users", "0.25", "0.5", "none"]
    assert tables(tmp_path)[2][1] == ["fed_recon", "seen_test", "–", "1.500", "**1.000**"]  # noqa: RUF001
    assert "Unchanged are: fed_recon none, fed_avg 0.5." in (tmp_path / "comparison.md").read_text()


def test_what_a_run_lacks_is_named_and_nothing_is_written(tmp_path, write):
    good = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    output = tmp_path / "report"

    def refusal(*runs):
        with pytest.raises(InputError) as caught:
            report.write_report(output, runs)
        assert not output.exists()
        return str(caught.value)

    assert "nowhere has no results.json; finish this run" in refusal(good, tmp_path / "nowhere")
    assert "none of the 0 runs has its settings unchanged" in refusal()

    results = explicit_results("fed_avg", 0, 1.0, 0.5).to_json()
    del results["costs"]
    text = refusal(good, write(results))
    assert "fed_avg-0/results.json is not of this version" in text
    assert "'costs'" in text
    results = explicit_results("fed_avg", 1, 1.0, 0.5).to_json()
    del results["groups"]["unseen_test"]["means"]["accuracy"]
    assert "groups.unseen_test.means.accuracy" in refusal(good, write(results))

    ranking = write(implicit_results("fed_avg", 2, 0.5))
    text = refusal(good, ranking)
    assert "has feedback 'implicit' and" in text
    assert "has 'explicit'; a comparison is of runs with the same feedback" in text
    other = write(explicit_results("fed_avg", 3, 1.0, 0.5, watched_group="seen_validation"))
    assert "same watched_group" in refusal(good, other)

    swept = write(explicit_results("fed_recon", 0, 1.0, 0.5, changes={"dim": 3}))
    assert "none of the 1 runs has its settings unchanged" in refusal(swept)


@pytest.mark.slow
def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, write, monkeypatch):
    run = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    output = tmp_path / "report"
    report.write_report(output, [run])
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert not [name for name in before if name.startswith(".report-")]

    def fail_halfway(figure, path, **kwargs):
        path.write_bytes(b"\x89PNG")
        raise OSError("No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        report.write_report(output, [run])
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.slow
def test_the_same_runs_give_the_same_files(tmp_path, write):
    run = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    first, second = (report.write_report(tmp_path / name, [run]) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.slow
def test_neither_tensorflow_nor_pyplot_is_imported(tmp_path, write, repository):
    run = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    code = (
        "import pathlib, sys; import experiments.compare\n"
        "print('pandas' in sys.modules, 'matplotlib' in sys.modules)\n"
        "from experiments.comparison import report\n"
        f"report.write_report(pathlib.Path({str(tmp_path)!r}), [pathlib.Path({str(run)!r})])\n"
        "print('tensorflow' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository
    )
    assert done.stdout.split() == ["False"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("group", ["seen_test", "unseen_test"])
def test_a_comparison_may_have_one_group_of_users_alone(tmp_path, write, drawn, group):
    def one_group(results):
        return dataclasses.replace(results, groups={group: results.groups[group]})

    runs = []
    for algorithm, rmse in (("fed_recon_ls", 0.75), ("popularity", 1.0)):
        own = REFERENCE if algorithm == "popularity" else {}
        results = one_group(explicit_results(algorithm, 0, rmse, 0.5, **own))
        watched = () if own else ((0, 3.5, 0.0), (4, 1.5, 0.5))
        runs.append(write(results, watched=watched, settings={"ridge": 1.0}))
    changed = one_group(explicit_results("fed_recon_ls", 0, 0.5, 0.5, changes={"ridge": 2.0}))
    runs.append(write(changed, settings={"ridge": 1.0}))
    report.write_report(tmp_path / "out", runs)
    shift = 0.5 if group == "unseen_test" else 0.0
    main, _, sweep = tables(tmp_path / "out")
    assert main[0] == [
        "algorithm",
        *(f"{group} {m}" for m in ("RMSE", "accuracy", "rounded accuracy")),
    ]
    assert [row[:2] for row in main[1:]] == [
        ["fed_recon_ls", f"**{0.75 + shift:.3f}**"],
        ["popularity", f"{1.0 + shift:.3f}"],
    ]
    assert sweep[1] == ["fed_recon_ls", group, f"{0.75 + shift:.3f}", f"**{0.5 + shift:.3f}**"]
    assert len(drawn["sweep_ridge"]) == 3  # RMSE and accuracies, beside each other.


def test_runs_with_other_groups_than_the_first_are_refused(tmp_path, write):
    first = explicit_results("fed_recon", 0, 0.75, 0.5)
    second = explicit_results("fed_avg", 0, 0.75, 0.5)
    del second.groups["seen_test"]
    with pytest.raises(InputError) as caught:
        report.write_report(tmp_path / "out", [write(first), write(second)])
    text = str(caught.value)
    assert "fed_avg-0/results.json has groups of users 'unseen_test' and " in text
    assert "fed_recon-0/results.json has 'seen_test, unseen_test'; a comparison is of runs" in text


# --- who won --------------------------------------------------------------------------------------


def headline(output_dir):
    """What stands between the heading and the first table."""
    text = (output_dir / "comparison.md").read_text()
    return text.split("| algorithm", 1)[0].split("\n\n")[1:]


def test_the_first_line_says_who_won_on_whom_and_by_how_much(tmp_path, write):
    # On unseen users 1.25 and 1.5, 1.3 and 1.47, 1.5 and 1.55, and 2.5 twice.
    rmse = {
        "fed_avg": (2.0, 2.0),
        "item_knn": (0.8, 0.97),
        "fed_recon": (0.75, 1.0),
        "popularity": (1.0, 1.05),
    }
    sample = Sample("17", ["Heat", "Casino"], [("Alien", 4.256), ("Brazil", 4.0)])
    own = {"fed_recon": {"sample": sample}}
    runs = [
        write(
            explicit_results(name, seed, rmse[name][seed], 0.5, **own.get(name, {})),
            watched=SETTLED,
        )
        for seed in (0, 1)
        for name in rmse
    ]
    report.write_report(tmp_path, runs)
    assert headline(tmp_path)[:2] == [
        "**fed_recon has the best RMSE on unseen_test users: 1.375, 0.010 better than item_knn "
        "and 0.150 better than popularity.**",
        "To user 17, who took no part in training and likes Heat, Casino, fed_recon recommends "
        "Alien (4.26), Brazil (4.00).",
    ]


def test_the_winner_of_a_ranking_has_the_higher_hit_rate(tmp_path, write):
    runs = [write(implicit_results(name, 0, hr)) for name, hr in (("ials", 0.5), ("fed_ncf", 0.25))]
    report.write_report(tmp_path, runs)
    assert headline(tmp_path)[0] == (
        "**ials has the best HR@10 on unseen_test users: 0.500, 0.250 better than fed_ncf.**"
    )


def test_where_the_winner_has_all_ratings_the_best_of_the_others_is_named(tmp_path, write):
    sample = Sample("3", [], [("Alien", 4.0)])
    runs = [
        write(explicit_results("centralized", 0, 0.5, 0.5, **CENTRALIZED), watched=SETTLED),
        write(explicit_results("popularity", 0, 1.0, 0.5, **REFERENCE), watched=None),
        write(explicit_results("fed_avg", 0, 0.75, 0.5), watched=SETTLED),
        write(explicit_results("fed_recon", 0, 0.625, 0.5, sample=sample), watched=SETTLED),
    ]
    report.write_report(tmp_path, runs)
    assert headline(tmp_path)[:3] == [
        "**centralized has the best RMSE on unseen_test users: 1.000, 0.125 better than fed_recon "
        "and 0.500 better than popularity.**",
        "**Of the algorithms that leave the ratings on the devices, fed_recon has the best RMSE: "
        "1.125, 0.125 better than fed_avg and 0.375 better than popularity.**",
        "To user 3, who took no part in training and likes nothing yet, fed_recon recommends "
        "Alien (4.00).",
    ]


def test_a_single_algorithm_wins_nothing(tmp_path, write):
    report.write_report(tmp_path, [write(explicit_results("fed_recon", 0, 1.0, 0.5))])
    assert headline(tmp_path)[0].startswith("1 seed (0)")


# --- what is noise --------------------------------------------------------------------------------


def per_user(unseen, seen=(1.0, 1.0, 1.0, 1.0), *, users=(1, 2, 3, 4), counts=(5, 5, 5, 5)):
    """RMSEs of users; their accuracies are a tenth."""

    def of_group(rmse):
        rmse = np.array(rmse)
        values = {"rmse": rmse, "accuracy": rmse / 10, "rounded_accuracy": rmse / 20}
        return PerUser(np.array(users), UserResults(values, np.array(counts)))

    return {"seen_test": of_group(seen), "unseen_test": of_group(unseen)}


def root(*values):
    return float(np.sqrt(np.mean(np.square(values))))


# Everybody is served alike by the first; the second is better for one and worse for three.
BEST = (1.0, 1.0, 1.0, 1.0)
MIXED = (0.5, 1.2, 1.2, 1.2)
WORST = (1.25, 1.5, 1.75, 2.0)


def judged_by(write, name, seed, rmse, **others):
    """A run whose unseen users have these RMSEs; seen users have 1 with everybody."""
    results = explicit_results(name, seed, 1.0, 0.5, **others)
    groups = dict(results.groups)
    groups["unseen_test"] = dataclasses.replace(
        groups["unseen_test"], means={**groups["unseen_test"].means, "rmse": root(*rmse)}
    )
    return write(dataclasses.replace(results, groups=groups), per_user=per_user(rmse))


@pytest.mark.parametrize(
    ("of_second_seed", "expected"),
    [
        ({}, "All seeds judge the same users, and ± is the spread of training alone"),
        ({"users": (1, 2, 3, 5)}, "Each seed draws other users, and ± is the spread of the users"),
        ({"counts": (5, 5, 5, 6)}, "Each seed draws other users, and ± is the spread of the users"),
    ],
)
def test_what_the_spread_over_seeds_is_of(tmp_path, write, of_second_seed, expected):
    runs = [
        write(explicit_results("fed_recon", seed, 1.0, 0.5), per_user=per_user(BEST, **others))
        for seed, others in ((0, {}), (1, of_second_seed))
    ]
    report.write_report(tmp_path, runs)
    assert expected in (tmp_path / "comparison.md").read_text()


def test_what_differs_by_noise_is_equally_bold_and_a_tie(tmp_path, write):
    runs = [
        judged_by(write, name, 0, rmse)
        for name, rmse in (("fed_recon", BEST), ("popularity", WORST), ("fed_avg", MIXED))
    ]
    report.write_report(tmp_path, runs)
    quality, differences, _, _ = tables(tmp_path)
    # sqrt((0.25 + 3 * 1.44) / 4) = 1.069 and sqrt((1.5625 + 2.25 + 3.0625 + 4) / 4) = 1.649.
    assert [row[4] for row in quality[1:]] == ["**1.000**", "1.649", "**1.069**"]
    headings, *rows = differences
    assert headings == ["users", "algorithm", "seed 0", "verdict"]
    of_unseen = [row for row in rows if row[0] == "unseen_test"]
    assert [row[1] for row in of_unseen] == ["fed_recon", "fed_avg", "popularity"]
    assert [row[3] for row in of_unseen] == ["best", "noise", "worse"]
    assert of_unseen[0][2] == "0"
    # A resample has the first user of fed_avg four times with probability 1/256, three times with
    # 12/256, so the lower end is at three; it lacks this user with 81/256, so the upper end is 0.2.
    low = root(0.5, 0.5, 0.5, 1.2) - 1
    assert of_unseen[1][2] == f"+0.069 ({low:+.3f} to +0.200)"
    # Seen users have no difference at all.
    of_seen = [row for row in rows if row[0] == "seen_test"]
    assert [row[2:] for row in of_seen[1:]] == [["+0.000 (+0.000 to +0.000)", "noise"]] * 2
    first = headline(tmp_path)[0]
    assert first.startswith(
        "**fed_recon has RMSE 1.000 on unseen_test users, a tie with fed_avg: 0.069 better than "
        f"fed_avg (95% interval {low:.3f} to 0.200) and 0.649 better than "
        "popularity (95% interval 0."
    )


def test_a_win_has_an_interval_and_seeds_are_paired(tmp_path, write):
    runs = [
        judged_by(write, name, seed, np.array(BEST) + shift)
        for seed in (0, 1)
        for name, shift in (("fed_recon", 0.1 * seed), ("fed_avg", 0.25 + 0.1 * seed + 0.5 * seed))
    ]
    report.write_report(tmp_path, runs)
    # Everybody differs by 0.25 with seed 0 and by 0.75 with seed 1, so nothing is unsure.
    assert headline(tmp_path)[0] == (
        "**fed_recon has the best RMSE on unseen_test users: 1.050, 0.500 better than fed_avg "
        "(95% interval 0.500 to 0.500).**"
    )
    _, differences, _, _ = tables(tmp_path)
    assert differences[0] == ["users", "algorithm", "seed 0", "seed 1", "all seeds", "verdict"]
    assert differences[-1] == [
        *("unseen_test", "fed_avg", "+0.250 (+0.250 to +0.250)", "+0.750 (+0.750 to +0.750)"),
        *("+0.500 (+0.500 to +0.500)", "worse"),
    ]
    assert "± is the spread of training alone" in (tmp_path / "comparison.md").read_text()


def test_seeds_that_judge_the_same_users_prove_no_more_than_one_of_them(tmp_path, write):
    """Else three seeds of one file of test items would look like three times the people."""
    runs = []
    for seed in (0, 1):
        runs.append(write(explicit_results("fed_recon", seed, 1.0, 0.5), per_user=per_user(BEST)))
        runs.append(write(explicit_results("fed_avg", seed, 1.0, 0.5), per_user=per_user(MIXED)))
    report.write_report(tmp_path, runs)
    table = pd.read_csv(tmp_path / "comparison.csv").assign(
        path=lambda rows: [tmp_path / run for run in rows["run"]]
    )
    pairing = Pairing(table, over="ratings")
    same = pairing.differences("unseen_test", "rmse", "fed_avg", "fed_recon")
    assert same.by_seed[0] == same.by_seed[1] == same.over_seeds
    # Other users in the second seed: the mean of two seeds is surer than either of them.
    others = write(
        explicit_results("fed_recon", 2, 1.0, 0.5), per_user=per_user(BEST, users=(5, 6, 7, 8))
    )
    of_others = write(
        explicit_results("fed_avg", 2, 1.0, 0.5), per_user=per_user(MIXED, users=(5, 6, 7, 8))
    )
    apart = pd.DataFrame(
        {
            "path": [*table["path"][:2], others, of_others],
            "algorithm": ["fed_recon", "fed_avg"] * 2,
            "seed": [0, 0, 2, 2],
        }
    )
    found = Pairing(apart, over="ratings").differences(
        "unseen_test", "rmse", "fed_avg", "fed_recon"
    )
    one, both = found.by_seed[0], found.over_seeds
    assert both.high - both.low < one.high - one.low


def test_the_best_ranking_has_the_highest_value(tmp_path, write):
    def hits(*values):
        values = {m: np.array(values, float) for m in ("hr_at_10", "ndcg_at_10")}
        values.update({f"full_{name}": own[::-1] for name, own in values.items()})
        own = PerUser(np.arange(4), UserResults(values, np.ones(4, int)))
        return {"seen_test": own, "unseen_test": own}

    runs = [
        write(implicit_results("ials", 0, 0.75), per_user=hits(1, 1, 1, 0)),
        write(implicit_results("fed_ials", 0, 0.5), per_user=hits(0, 1, 1, 0)),
        write(implicit_results("popularity", 0, 0.0), per_user=hits(0, 0, 0, 0)),
    ]
    report.write_report(tmp_path, runs)
    quality, differences, _ = tables(tmp_path)
    # Of the interval's ends: one of four users has a difference of 1, the others of 0.
    assert [row[3] for row in differences[1:4]] == ["best", "noise", "worse"]
    assert differences[2][2].startswith("-0.250 (-0.750 to +0.000)")
    assert [row[1] for row in quality[1:]] == ["**0.750**", "**0.500**", "0.000"]
    assert [row[3] for row in quality[1:]] == ["**0.150**", "**0.100**", "0.000"]
    assert headline(tmp_path)[0].startswith(
        "**ials has HR@10 0.750 on unseen_test users, a tie with fed_ials: 0.250 better than "
        "fed_ials (95% interval 0.000 to 0.750) and 0.750 better than popularity (95% interval "
        "0.250 to 1.000)"
    )


def test_a_reference_may_be_better_than_all_that_leave_the_ratings_on_the_devices(tmp_path, write):
    runs = [
        judged_by(write, "centralized", 0, np.array(BEST) / 2, **CENTRALIZED),
        judged_by(write, "popularity", 0, BEST, **CENTRALIZED),
        judged_by(write, "fed_avg", 0, MIXED),
    ]
    report.write_report(tmp_path, runs)
    assert headline(tmp_path)[1] == (
        "**Of the algorithms that leave the ratings on the devices, fed_avg has the best RMSE: "
        "1.069, 0.069 worse than popularity (a tie, 95% interval "
        f"{root(0.5, 0.5, 0.5, 1.2) - 1:.3f} to 0.200).**"
    )


def test_only_the_same_users_with_the_same_seed_are_paired(tmp_path, write):
    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5), per_user=per_user(BEST)),
        write(explicit_results("fed_avg", 1, 2.0, 0.5), per_user=per_user(BEST)),
        write(
            explicit_results("fed_ncf", 0, 3.0, 0.5), per_user=per_user(BEST, users=(1, 2, 3, 5))
        ),
        write(explicit_results("mine", 0, 4.0, 0.5), per_user=per_user(BEST, counts=(5, 5, 5, 4))),
        write(explicit_results("popularity", 0, 5.0, 0.5)),
    ]
    report.write_report(tmp_path / "none", runs)
    assert len(tables(tmp_path / "none")) == 2
    assert headline(tmp_path / "none")[0].endswith(
        "1.500, 1.000 better than fed_avg and 4.000 better than popularity.**"
    )
    runs.append(write(explicit_results("stateful_fed_avg", 0, 6.0, 0.5), per_user=per_user(WORST)))
    report.write_report(tmp_path, runs)
    _, (_, *rows), _, _ = tables(tmp_path)
    unseen = {row[1]: row[2:] for row in rows if row[0] == "unseen_test"}
    assert unseen.pop("fed_recon") == ["0", "0", "0", "best"]
    _, of_seed_1, of_all, verdict = unseen.pop("stateful_fed_avg")
    assert (of_seed_1, verdict) == ("–", "worse")  # noqa: RUF001
    assert of_all.startswith("+")
    assert {tuple(row) for row in unseen.values()} == {("–",) * 4}  # noqa: RUF001


# --- what is recommended --------------------------------------------------------------------------


def test_what_is_recommended_has_a_table(tmp_path, write):
    def with_lists(results, scale):
        lists = {
            "coverage_at_10": 0.25 * scale,
            "num_items_at_10": 40 * scale,
            "most_recommended_share": 0.5,
            "mean_popularity_at_10": 0.125,
            "few_ratings_share": 0.0,
        }
        groups = {n: dataclasses.replace(g, top_lists=lists) for n, g in results.groups.items()}
        return dataclasses.replace(results, groups=groups)

    runs = [
        write(with_lists(explicit_results("fed_recon", seed, 1.0, 0.5), seed + 1))
        for seed in (0, 1)
    ]
    report.write_report(tmp_path, runs)
    _, recommended, _ = tables(tmp_path)
    assert recommended == [
        [
            *("users", "algorithm", "items in any list", "share of all items"),
            *("users with the top item", "popularity", "few ratings"),
        ],
        *(
            [
                *(group, "fed_recon", "60 ± 28", "0.375 ± 0.177"),
                *("0.500 ± 0.000", "0.125 ± 0.000", "0.000 ± 0.000"),
            ]
            for group in ("seen_test", "unseen_test")
        ),
    ]
    text = (tmp_path / "comparison.md").read_text()
    assert "a list may hold any item" in text
    assert "MovieLens" not in text  # The data may be any.
