"""`experiments.tune` as a person uses it: processes and files."""

import csv
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.experiments.small import TIMEOUT, command, read_json, run_binary, small_flags

pytestmark = pytest.mark.slow

DATA = small_flags(synthetic_num_items=260)
RMSE = "unseen_validation/rmse"
TUNE = (
    *("--algorithm=fed_recon_ls", *DATA, "--dim=3", "--user_bias", "--clients_per_round=10"),
    *("--total_rounds=6", "--rounds_per_evaluation=2", "--seeds=2"),
    *("--search=ridge:2,50", "--search=server_learning_rate:1.0", "--l2=0.001"),
)


def run(repository, *arguments):
    done = run_binary(repository, "tune", *arguments)
    return done.returncode, done.stdout, done.stderr


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def search(repository, tmp_path_factory):
    path = tmp_path_factory.mktemp("tune") / "search"
    status, output, errors = run(repository, *TUNE, f"--output_dir={path}")
    assert status == 0, errors
    return path, output


def test_trials_are_ranked_by_the_best_mean_of_their_validation_curves(search):
    path, output = search
    expected = {}
    for ridge in ("2.0", "50.0"):
        curves = []
        for seed in (0, 1):
            name = f"ridge={ridge}-server_learning_rate=1.0-seed{seed}"
            rows = read_rows(path / "runs" / name / "metrics.csv")
            curves.append({int(r["round"]): float(r[RMSE]) for r in rows if r[RMSE]})
            assert sorted(curves[-1]) == [0, 2, 4, 6]
        means = {n: (curves[0][n] + curves[1][n]) / 2 for n in curves[0]}
        best = min(means, key=means.get)
        expected[ridge] = (means[best], best)
    rows = read_rows(path / "trials.csv")
    assert [row["ridge"] for row in rows] == sorted(expected, key=expected.get)
    for row in rows:
        assert float(row["rmse"]) == pytest.approx(expected[row["ridge"]][0])
        assert int(row["rounds"]) == expected[row["ridge"]][1]
        assert (row["seeds"], row["server_learning_rate"]) == ("2", "1.0")
    assert output.count(" of 4  ridge=") == 4
    assert f"2 of 2 trials, 2 seeds. Files: {path}/\n  trials.csv\n" in output
    assert (path / "report.html").as_uri() in output


def test_nothing_is_measured_on_the_test(search):
    path, output = search
    # Directories of pytest are named so, too.
    assert not re.search(r"\btest\b", output.replace(str(path), ""))
    for run_dir in (path / "runs").iterdir():
        assert not (run_dir / "final_metrics.json").exists()
        assert not (run_dir / "results.json").exists()
        assert "test" not in (run_dir / "metrics.csv").read_text()
    assert "test" not in (path / "trials.csv").read_text()


def test_trials_have_the_settings_they_say(search):
    path, _ = search
    for ridge in (2.0, 50.0):
        name = f"ridge={ridge}-server_learning_rate=1.0-seed1"
        settings = read_json(path / "runs" / name / "config.json")["settings"]
        assert (settings["ridge"], settings["seed"], settings["l2"]) == (ridge, 1, 0.001)
        assert (settings["algorithm"], settings["total_rounds"]) == ("fed_recon_ls", 6)


def test_the_same_command_trains_nothing_again(search, repository):
    path, _ = search
    before = (path / "trials.csv").read_text()
    written = {p: p.stat().st_mtime_ns for p in path.glob("runs/*/metrics.csv")}
    status, _, errors = run(repository, *TUNE, f"--output_dir={path}")
    assert status == 0, errors
    assert (path / "trials.csv").read_text() == before
    assert {p: p.stat().st_mtime_ns for p in path.glob("runs/*/metrics.csv")} == written


def interrupted_at(repository, path, is_reached):
    """Starts the search, and interrupts it at a line of output; returns what it says at last."""
    process = subprocess.Popen(
        command("tune", *TUNE, f"--output_dir={path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
        start_new_session=True,
    )
    assert any(map(is_reached, process.stdout))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGINT
    return errors.partition("Interrupted by SIGINT.\n")[2]


def test_an_interrupted_search_says_whether_the_same_command_goes_on(search, repository, tmp_path):
    path = tmp_path / "search"
    told = interrupted_at(repository, path, lambda line: "Loading TensorFlow" in line)
    assert told == "There is no checkpoint yet: the same command begins anew.\n"
    told = interrupted_at(repository, path, lambda line: line.startswith("  1 of 4 "))
    goes_on = "The same command goes on where this one ended; 1 of 4 runs is finished.\n"
    assert told == goes_on
    written = {p: p.stat().st_mtime_ns for p in path.glob("runs/ridge=2*-seed0/metrics.csv")}
    status, _, errors = run(repository, *TUNE, f"--output_dir={path}")
    assert status == 0, errors
    assert len(written) == 1
    assert {p: p.stat().st_mtime_ns for p in written} == written
    with_seconds, expected = (read_rows(each / "trials.csv") for each in (path, search[0]))
    assert [{**row, "seconds": 0} for row in with_seconds] == [
        {**row, "seconds": 0} for row in expected
    ]


def test_a_classical_reference_is_searched_alike(repository, tmp_path):
    path = tmp_path / "new"
    status, output, errors = run(
        repository,
        *("--algorithm=ials", "--synthetic_num_users=200", "--feedback=implicit"),
        *("--search=dim:2,4,8", "--search=ridge:0.5,5", "--trials=3", f"--output_dir={path}"),
    )
    assert status == 0, errors
    rows = read_rows(path / "trials.csv")
    assert len({(row["dim"], row["ridge"]) for row in rows}) == 3
    figures = [float(row["ndcg_at_10"]) for row in rows]
    assert figures == sorted(figures, reverse=True)
    assert 0 < figures[0] < 1
    assert "3 of 3 trials, 1 seed. File" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search=ridges:1"], "there is no setting 'ridges'; did you mean ridge"),
        (["--search=ridge"], "--search=ridge must be SETTING:VALUE"),
        (["--search=ridge:much"], "--search=ridge:much: "),
        (["--search=ridge:1", "--search=ridge:2"], "--search=ridge comes twice"),
        (["--search=ridge:1", "--ridge=2"], "--ridge is given and searched"),
        (["--search=client_learning_rate:1"], "client_learning_rate: fed_recon_ls does not use it"),
        (["--search=ridge:1", "--averaging=by_row"], "--averaging has no effect with --algorithm="),
        (["--search=seed:1"], "seed cannot be changed here"),
        (["--search=lr:1"], "did you mean client_learning_rate or server_learning_rate?"),
        (
            [
                *("--search=ridge:1", "--feedback=implicit", "--evaluate_on=test"),
                "--algorithm=fed_ials",
            ],
            "--evaluate_on=test would choose settings by the test",
        ),
        ([], "give --search=SETTING:VALUE,VALUE,... at least once."),
    ],
)
def test_wrong_flags_are_refused_in_a_sentence(repository, tmp_path, arguments, message):
    path = tmp_path / "search"
    status, _, errors = run(
        repository, "--algorithm=fed_recon_ls", *arguments, f"--output_dir={path}"
    )
    assert status != 0
    assert message in errors
    assert "Traceback" not in errors
    assert not path.exists()


PLANNED = """
import sys
from absl import flags
from experiments import tune
for preset in sys.argv[1:]:
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
        flags.FLAGS[name].present = 0
    flags.FLAGS(["tune", f"--flagfile={preset}", "--output_dir=out", "--data_dir=data"])
    print(preset, len(tune._plan(tune._trials())))
"""


def test_presets_are_complete_command_lines(repository):
    presets = sorted((repository / "experiments" / "presets").glob("tune_*.flags"))
    assert len(presets) >= 6
    done = subprocess.run(
        [sys.executable, "-c", PLANNED, *map(str, presets)],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(presets)
