"""The report of a comparison, from part directories made by hand."""

import csv
import json
import re
import subprocess
import sys

import matplotlib.figure
import pytest

from experiments.comparison import report
from fedrecon.errors import InputError

CENTRALIZED = {"bytes_down": 0, "bytes_up": 0, "bytes_up_once": 900, "num_training_users": 2000}
IALS = {**CENTRALIZED, "rounds": None, "clients_per_round": None}


def explicit_results(algorithm, seed, rmse, accuracy, **others):
    """Unseen users have an RMSE higher by 0.5 and an accuracy lower by 0.125."""

    def group(rmse, accuracy):
        return {
            "over_ratings": {"rmse": rmse, "mae": rmse / 2, "accuracy": accuracy},
            "over_users": {"rmse": rmse + 0.25, "mae": rmse, "accuracy": accuracy},
            "deciles": {"rmse": [rmse + i for i in range(11)]},
            "num_users": 4,
            "num_examples": 20,
        }

    return {
        "feedback": "explicit",
        "users": {"seen": group(rmse, accuracy), "unseen": group(rmse + 0.5, accuracy - 0.125)},
        "given": {},
        **common_results(algorithm, seed),
        **others,
    }


def implicit_results(algorithm, seed, hit_rate, **others):
    means = {"hr_at_10": hit_rate, "ndcg_at_10": hit_rate / 2, "mrr": hit_rate / 4}
    group = {
        "over_users": means,
        "deciles": {"mrr": [i / 10 for i in range(11)]},
        "num_users": 4,
        "num_examples": 4,
    }
    full = {name: value / 5 for name, value in means.items()}
    return {
        "feedback": "implicit",
        "users": {"seen": group, "unseen": group},
        "full_ranking": {"seen": full, "unseen": full},
        "given": {},
        **common_results(algorithm, seed),
        **others,
    }


def common_results(algorithm, seed):
    return {
        "algorithm": algorithm,
        "seed": seed,
        "changes": {},
        "watched_part": "validation",
        "rounds": 4,
        "clients_per_round": 10,
        "seconds": 2.0,
        "bytes_down": 741200,
        "bytes_up": 1500,
        "bytes_up_once": 0,
        "num_training_users": 48,
        "device_bytes": 40,
        "server_bytes": 2500000,
    }


@pytest.fixture
def write(tmp_path):
    """Writes a part's files and returns its directory; `watched` are rounds and two measures."""

    def write_part(
        results, *, watched=((0, 3.5, 0.0), (2, 1.5, 0.25), (4, 1.25, 0.5)), settings=()
    ):
        changes = "".join(f"-{name}={value}" for name, value in results["changes"].items())
        path = tmp_path / "parts" / f"{results['algorithm']}-{results['seed']}{changes}"
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(results))
        config = {"settings": {**dict(settings), **results["changes"]}, "data_fingerprint": "abc"}
        (path / "config.json").write_text(json.dumps(config))
        if watched:
            names = {"explicit": ("rmse", "accuracy"), "implicit": ("hr_at_10", "ndcg_at_10")}
            first, second = names[results["feedback"]]
            rows = [f"{number},0.5,,{a},{b}\n" for number, a, b in watched]
            rows.insert(1, "1,0.7,0.9,,\n")  # Trained, not evaluated.
            (path / "metrics.csv").write_text(
                f"round,seconds,train/loss,validation/{first},validation/{second}\n{''.join(rows)}"
            )
        return path

    return write_part


@pytest.fixture
def drawn(monkeypatch):
    """The panels of the pictures drawn, by the picture's name."""
    pictures = {}
    savefig = matplotlib.figure.Figure.savefig

    def remember(figure, path, **kwargs):
        pictures[path.name.removesuffix(".png")] = figure.axes
        return savefig(figure, path, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return pictures


def tables(output_dir):
    """The tables of comparison.md, each a list of rows of cells; checks that each is one."""
    found, rows = [], []
    for line in [*(output_dir / "comparison.md").read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            assert len({len(row) for row in rows}) == 1
            assert all(re.fullmatch(":-+|-+:", cell) for cell in rows.pop(1))
            found.append(rows)
            rows = []
    return found


def csv_rows(output_dir):
    with open(output_dir / "comparison.csv", newline="") as file:
        return list(csv.DictReader(file))


def lines(axes):
    """The points of the labelled lines of a panel."""
    handles, labels = axes.get_legend_handles_labels()
    # An error bar's first part is its line.
    found = [handle if hasattr(handle, "get_data") else handle[0] for handle in handles]
    return {name: [list(map(float, v)) for v in f.get_data()] for name, f in zip(labels, found)}


def test_the_table_has_means_and_sample_deviations_over_seeds(tmp_path, write):
    # 0.5, 0.75 and 1.0: the mean is 0.75, the variance (0.0625 + 0 + 0.0625) / 2 = 0.25 squared.
    # 0.25, 0.25 and 0.625: 0.375, (0.015625 + 0.015625 + 0.0625) / 2 = 0.046875 = 0.2165 squared.
    parts = [
        write(explicit_results("fed_recon", 0, 0.5, 0.25, seconds=1.0)),
        write(explicit_results("fed_avg", 0, 1.0, 0.375)),
        write(explicit_results("fed_recon", 1, 0.75, 0.25, seconds=2.0)),
        write(explicit_results("fed_recon", 2, 1.0, 0.625, seconds=6.0)),
        write(explicit_results("fed_avg", 1, 1.0, 0.5)),
        write(explicit_results("fed_avg", 2, 1.0, 0.625)),
    ]
    report.write_report(tmp_path, parts)
    quality, costs = tables(tmp_path)
    assert quality == [
        ["algorithm", "seen RMSE", "seen accuracy", "unseen RMSE", "unseen accuracy"],
        ["fed_recon", "**0.750 ± 0.250**", "0.375 ± 0.217", "**1.250 ± 0.250**", "0.250 ± 0.217"],
        ["fed_avg", "1.000 ± 0.000", "**0.500 ± 0.125**", "1.500 ± 0.000", "**0.375 ± 0.125**"],
    ]
    # Seconds: the mean of 1, 2 and 6 is 3, the variance (4 + 1 + 9) / 2 = 2.646 squared.
    assert costs == [
        ["algorithm", "KB down", "KB up", "device KB", "server MB", "seconds"],
        ["fed_recon", "741.2", "1.5", "0.04", "2.5", "3.0 ± 2.6"],
        ["fed_avg", "741.2", "1.5", "0.04", "2.5", "2.0 ± 0.0"],
    ]
    text = (tmp_path / "comparison.md").read_text()
    before, after = text.split("| algorithm", 1)
    assert "3 seeds (0, 1, 2). Mean ± sample standard deviation over seeds." in before
    assert "are means over ratings" in after


def test_one_seed_has_no_deviation_and_what_looks_the_same_is_equally_bold(tmp_path, write):
    parts = [
        write(explicit_results("fed_ncf", 3, 0.90004, 0.5)),
        write(explicit_results("fed_recon", 3, 0.89996, 0.25)),
        write(explicit_results("mine", 3, 1.0, 0.25, **CENTRALIZED)),
    ]
    files = report.write_report(tmp_path, parts)
    assert [path.name for path in files] == [
        *("comparison.csv", "comparison.md"),
        *("quality_rounds.png", "quality_bytes.png", "spread.png"),
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files[2:])
    assert "1 seed (3).\n" in (tmp_path / "comparison.md").read_text()
    (_, *rows), (_, *costs) = tables(tmp_path)
    assert [row[:3] for row in rows] == [
        ["fed_ncf", "**0.900**", "**0.500**"],
        ["fed_recon", "**0.900**", "0.250"],
        ["mine", "1.000", "0.250"],
    ]
    assert costs[2][1:3] == ["0", "0.9 once"]


def test_seeds_are_told_apart_where_they_differ_and_one_algorithm_is_not_bold(tmp_path, write):
    parts = [write(explicit_results("fed_recon", seed, 1.0, 0.5)) for seed in (0, 1)]
    report.write_report(tmp_path / "one", parts)
    assert tables(tmp_path / "one")[0][1][1] == "1.000 ± 0.000"
    parts.append(write(explicit_results("fed_avg", 1, 2.0, 0.5)))
    report.write_report(tmp_path, parts)
    text = (tmp_path / "comparison.md").read_text()
    assert "fed_recon: 2 seeds (0, 1); fed_avg: 1 seed (1). Mean ±" in text
    (_, *rows), _ = tables(tmp_path)
    assert [row[1] for row in rows] == ["**1.000 ± 0.000**", "2.000"]


def test_the_csv_file_has_every_figure_in_full(tmp_path, write):
    given = {"5": {"rmse": 0.1 + 0.2, "accuracy": 0.75}}
    base = write(
        explicit_results("fed_recon", 0, 1 / 3, 0.5, given=given),
        settings={"client_epochs": 1, "clients_per_round": 10},
    )
    swept = write(explicit_results("fed_recon", 0, 1.0, 0.5, changes={"client_epochs": 2}))
    other = write(explicit_results("fed_recon", 0, 1.0, 0.5, changes={"clients_per_round": 7}))
    report.write_report(tmp_path, [base, swept, other])
    first, second, third = csv_rows(tmp_path)
    assert list(first)[:5] == [
        *("part", "algorithm", "seed", "changed_client_epochs", "changed_clients_per_round")
    ]
    changed = [
        [r["changed_client_epochs"], r["changed_clients_per_round"]] for r in csv_rows(tmp_path)
    ]
    assert changed == [["", ""], ["2", ""], ["", "7"]]
    assert first["part"] == "parts/fedrecon-0"
    assert first["seen_rmse"] == "0.3333333333333333"
    assert first["unseen_rmse_given_5"] == "0.30000000000000004"
    assert second["unseen_rmse_given_5"] == ""
    wanted = {
        **{"seed": 0, "rounds": 4, "bytes_down": 741200, "unseen_num_users": 4},
        **{"seen_mae": 0.5, "seen_accuracy": 0.5, "unseen_accuracy": 0.375},
        **{"unseen_rmse": 1.5, "unseen_rmse_over_users": 1.75},
        **{
            "seen_rmse_quantile_0": 1.0,
            "seen_rmse_quantile_10": 2.0,
            "unseen_rmse_quantile_100": 11.5,
        },
    }
    assert {name: float(third[name]) for name in wanted} == wanted


def test_a_ranking_has_candidates_and_full_rankings_and_ials_no_curve(tmp_path, write, drawn):
    parts = [
        write(implicit_results("fed_recon", 0, 0.5)),
        write(implicit_results("ials", 0, 0.75, **IALS), watched=()),
    ]
    report.write_report(tmp_path, parts)
    (heading, *rows), _ = tables(tmp_path)
    measures = ("HR@10", "NDCG@10", "full HR@10", "full NDCG@10")
    assert heading[1:] == [f"{group} {m}" for group in ("seen", "unseen") for m in measures]
    assert [row[:5] for row in rows] == [
        ["fed_recon", "0.500", "0.250", "0.100", "0.050"],
        ["ials", "**0.750**", "**0.375**", "**0.150**", "**0.075**"],
    ]
    assert "means over users" in (tmp_path / "comparison.md").read_text()
    row = csv_rows(tmp_path)[1]
    assert float(row["unseen_full_hr_at_10"]) == pytest.approx(0.15)
    assert row["rounds"] == ""
    assert list(lines(drawn["quality_rounds"][0])) == ["fed_recon"]
    assert list(lines(drawn["quality_bytes"][0])) == ["fed_recon"]
    assert list(lines(drawn["spread"][0])) == ["fed_recon", "ials"]


def test_only_ials_has_no_curves_at_all(tmp_path, write):
    part = write(implicit_results("ials", 0, 0.75, **IALS), watched=())
    files = report.write_report(tmp_path, [part])
    assert [path.name for path in files] == ["comparison.csv", "comparison.md", "spread.png"]
    assert "quality_rounds" not in (tmp_path / "comparison.md").read_text()


def test_curves_are_means_over_seeds_and_the_untrained_model_sets_no_limit(tmp_path, write, drawn):
    rows = [
        [(0, 9.0, 0.0), (2, 1.5, 0.25), (4, 1.0, 0.5)],
        [(0, 7.0, 0.0), (2, 2.5, 0.25), (4, 1.0, 0.5)],
    ]
    parts = [
        write(explicit_results("fed_recon", seed, 1.0, 0.5), watched=rows[seed]) for seed in (0, 1)
    ]
    report.write_report(tmp_path, parts)
    rmse, accuracy = drawn["quality_rounds"]
    assert rmse.get_title() == "validation RMSE (lower is better)"
    assert accuracy.get_title() == "validation accuracy (higher is better)"
    assert lines(rmse) == {"fed_recon": [[0, 2, 4], [8.0, 2.0, 1.0]]}
    # The band of round 2 is 2 ± sqrt(0.5); a twentieth of the range is left above and below.
    high = 2 + 0.5**0.5
    assert rmse.get_ylim() == pytest.approx((1 - 0.05 * (high - 1), high + 0.05 * (high - 1)))


def test_the_first_rounds_set_no_limit_either(tmp_path, write, drawn):
    # Of 10 rounds the first is before a fifth of them, and the second is not.
    watched = [(0, 9.0, 0.0), (1, 5.0, 0.0), (2, 2.0, 0.25), (10, 1.0, 0.5)]
    report.write_report(
        tmp_path, [write(explicit_results("fed_recon", 0, 1.0, 0.5), watched=watched)]
    )
    assert drawn["quality_rounds"][0].get_ylim() == pytest.approx((0.95, 2.05))


def test_bytes_are_of_all_clients_so_far(tmp_path, write, drawn):
    parts = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5)),
        write(explicit_results("centralized", 0, 1.0, 0.5, **CENTRALIZED)),
    ]
    report.write_report(tmp_path, parts)
    rmse, _ = drawn["quality_bytes"]
    assert rmse.get_xscale() == "log"
    found = lines(rmse)
    # 2 and 4 rounds of 10 clients, 0.7427 MB each; and once 2000 people's 900 bytes.
    assert found["fed_recon"][0] == pytest.approx([14.854, 29.708])
    assert found["fed_recon"][1] == [1.5, 1.25]
    assert found["centralized"][0] == pytest.approx([1.8])
    assert found["centralized"][1] == [1.25]


def test_the_spread_is_averaged_over_seeds(tmp_path, write, drawn):
    parts = [write(explicit_results("fed_recon", seed, 1.0 + seed, 0.5)) for seed in (0, 1)]
    report.write_report(tmp_path, parts)
    seen, unseen = drawn["spread"]
    assert seen.get_title() == "seen users: RMSE of each (lower is better)"
    assert lines(seen)["fed_recon"] == [[10 * i for i in range(11)], [1.5 + i for i in range(11)]]
    assert lines(unseen)["fed_recon"][1] == [2.0 + i for i in range(11)]


def test_few_given_ratings_have_a_table_and_a_picture(tmp_path, write, drawn):
    def given(*values):
        return {n: {"rmse": v, "accuracy": v / 4} for n, v in zip(("10", "2", "1"), values)}

    parts = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5, given=given(1.0, 1.5, 2.0))),
        write(explicit_results("fed_recon", 1, 1.0, 0.5, given=given(1.0, 2.5, 3.0))),
        write(explicit_results("fed_avg", 0, 1.0, 0.5, given=given(1.125))),
    ]
    report.write_report(tmp_path, parts)
    assert tables(tmp_path)[2] == [
        ["algorithm", "measure", "1", "2", "10"],
        ["fed_recon", "RMSE", "2.500 ± 0.707", "2.000 ± 0.707", "**1.000 ± 0.000**"],
        ["fed_avg", "RMSE", "–", "–", "1.125"],  # noqa: RUF001
        ["fed_recon", "accuracy", "0.625 ± 0.177", "0.500 ± 0.177", "0.250 ± 0.000"],
        ["fed_avg", "accuracy", "–", "–", "**0.281**"],  # noqa: RUF001
    ]
    assert "Means over ratings" in (tmp_path / "comparison.md").read_text()
    rmse, _ = drawn["given_ratings"]
    assert [label.get_text() for label in rmse.get_xticklabels()] == ["1", "2", "10"]
    assert lines(rmse)["fed_recon"][1] == [2.5, 2.0, 1.0]
    assert lines(rmse)["fed_avg"][1] == [1.125]


def test_a_sweep_starts_from_the_unchanged_parts_of_its_seeds(tmp_path, write, drawn):
    epochs = {"client_epochs": 2}
    parts = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5), settings=epochs),
        write(explicit_results("fed_recon", 1, 5.0, 0.5), settings=epochs),  # Other users.
        write(explicit_results("fed_avg", 0, 2.0, 0.5), settings=epochs),
        write(explicit_results("fed_recon", 0, 0.75, 0.5, changes={"client_epochs": 10})),
        write(explicit_results("fed_recon", 0, 1.5, 0.5, changes={"client_epochs": 1})),
    ]
    files = report.write_report(tmp_path, parts)
    assert files[-1].name == "sweep_client_epochs.png"
    comparison, _, sweep = tables(tmp_path)
    assert [row[1] for row in comparison[1:]] == ["3.000 ± 2.828", "**2.000**"]
    assert sweep == [
        ["algorithm", "users", "1", "2 (unchanged)", "10"],
        ["fed_recon", "seen", "1.500", "1.000", "**0.750**"],
        ["fed_recon", "unseen", "2.000", "1.500", "**1.250**"],
    ]
    assert "Over 1 seed (0)." in (tmp_path / "comparison.md").read_text()
    seen_rmse, _, _, unseen_accuracy = drawn["sweep_client_epochs"]
    assert lines(seen_rmse) == {"fed_recon": [[0, 1, 2], [1.5, 1.0, 0.75]]}
    assert lines(unseen_accuracy)["fed_recon"][1] == [0.375, 0.375, 0.375]
    # The curves are of the comparison itself.
    assert list(lines(drawn["quality_rounds"][0])) == ["fed_recon", "fed_avg"]


def test_algorithms_may_start_a_sweep_from_values_of_their_own(tmp_path, write):
    parts = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5), settings={"l2": None}),
        write(explicit_results("fed_avg", 0, 2.0, 0.5), settings={"l2": 0.5}),
        write(explicit_results("fed_recon", 0, 1.5, 0.5, changes={"l2": 0.5})),
        write(explicit_results("fed_avg", 0, 2.5, 0.5, changes={"l2": 0.25})),
    ]
    report.write_report(tmp_path, parts)
    assert tables(tmp_path)[2][0] == ["algorithm", "users", "0.25", "0.5", "none"]
    assert tables(tmp_path)[2][1] == ["fed_recon", "seen", "–", "1.500", "**1.000**"]  # noqa: RUF001
    assert "Unchanged are: fedrecon none, fed_avg 0.5." in (tmp_path / "comparison.md").read_text()


def test_an_algorithm_looks_the_same_in_every_company(tmp_path, write, drawn):
    first = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    second = write(explicit_results("fed_avg", 0, 1.0, 0.5))
    colors = []
    for parts in ([first, second], [second, first], [second]):
        report.write_report(tmp_path, parts)
        colors.append({x.get_label(): x.get_color() for x in drawn["spread"][0].get_lines()})
    assert colors[0] == colors[1]
    assert colors[2]["fed_avg"] == colors[0]["fed_avg"] != colors[0]["fed_recon"]


def test_what_a_part_lacks_is_named_and_nothing_is_written(tmp_path, write):
    good = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    output = tmp_path / "report"

    def refusal(*parts):
        with pytest.raises(InputError) as caught:
            report.write_report(output, parts)
        assert not output.exists()
        return str(caught.value)

    assert "nowhere has no results.json; finish this part" in refusal(good, tmp_path / "nowhere")
    assert "none of the 0 parts has its settings unchanged" in refusal()

    results = explicit_results("fed_avg", 0, 1.0, 0.5)
    del results["bytes_up"]
    assert "fed_avg-0/results.json lacks bytes_up; run this" in refusal(good, write(results))
    results = explicit_results("fed_avg", 1, 1.0, 0.5)
    del results["users"]["unseen"]["over_ratings"]["accuracy"]
    assert "lacks users.unseen.over_ratings.accuracy;" in refusal(good, write(results))

    ranking = write(implicit_results("fed_avg", 2, 0.5))
    text = refusal(good, ranking)
    assert "has feedback 'implicit' and" in text
    assert "has 'explicit'; a comparison is of parts with the same feedback" in text
    other = write(explicit_results("fed_avg", 3, 1.0, 0.5, watched_part="test"))
    assert "same watched_part" in refusal(good, other)

    swept = write(explicit_results("fed_recon", 0, 1.0, 0.5, changes={"dim": 3}))
    assert "none of the 1 parts has its settings unchanged" in refusal(swept)


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, write, monkeypatch):
    part = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    output = tmp_path / "report"
    report.write_report(output, [part])
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert not [name for name in before if name.endswith(".part")]

    def fail_halfway(figure, path, **kwargs):
        path.write_bytes(b"\x89PNG")
        raise OSError("No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        report.write_report(output, [part])
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_the_same_parts_give_the_same_files(tmp_path, write):
    part = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    first, second = (report.write_report(tmp_path / name, [part]) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_neither_tensorflow_nor_pyplot_is_imported(tmp_path, write, repository):
    part = write(explicit_results("fed_recon", 0, 1.0, 0.5))
    code = (
        "import pathlib, sys; from experiments import report\n"
        "print('numpy' in sys.modules, 'matplotlib' in sys.modules)\n"
        f"report.write_report(pathlib.Path({str(tmp_path)!r}), [pathlib.Path({str(part)!r})])\n"
        "print('tensorflow' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository
    )
    assert done.stdout.split() == ["False"] * 4


@pytest.mark.parametrize("group", ["seen", "unseen"])
def test_a_comparison_may_have_one_group_of_users_alone(tmp_path, write, drawn, group):
    parts = []
    for algorithm, rmse in (("fed_recon_ls", 0.75), ("popularity", 1.0)):
        results = explicit_results(algorithm, 0, rmse, 0.5)
        results["users"] = {group: results["users"][group]}
        own = IALS if algorithm == "popularity" else {}
        watched = () if own else ((0, 3.5, 0.0), (4, 1.5, 0.5))
        parts.append(write({**results, **own}, watched=watched, settings={"ridge": 1.0}))
    changed = explicit_results("fed_recon_ls", 0, 0.5, 0.5, changes={"ridge": 2.0})
    changed["users"] = {group: changed["users"][group]}
    parts.append(write(changed, settings={"ridge": 1.0}))
    report.write_report(tmp_path / "out", parts)
    shift = 0.5 if group == "unseen" else 0.0
    main, _, sweep = tables(tmp_path / "out")
    assert main[0] == ["algorithm", f"{group} RMSE", f"{group} accuracy"]
    assert [row[:2] for row in main[1:]] == [
        ["fed_recon_ls", f"**{0.75 + shift:.3f}**"],
        ["popularity", f"{1.0 + shift:.3f}"],
    ]
    assert sweep[1] == ["fed_recon_ls", group, f"{0.75 + shift:.3f}", f"**{0.5 + shift:.3f}**"]
    assert len(drawn["spread"]) == 1
    assert len(drawn["sweep_ridge"]) == 2  # RMSE and accuracy, beside each other.


def test_parts_with_other_groups_than_the_first_are_refused(tmp_path, write):
    first = explicit_results("fed_recon", 0, 0.75, 0.5)
    second = explicit_results("fed_avg", 0, 0.75, 0.5)
    del second["users"]["seen"]
    with pytest.raises(InputError, match=r"fed_avg-0/results\.json lacks users\.seen"):
        report.write_report(tmp_path / "out", [write(first), write(second)])
