"""`experiments.compare` as a user runs it: processes, pipes, signals, and files."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.experiments.small import TIMEOUT, command, read_json, small_flags

pytestmark = pytest.mark.slow

DATA = small_flags(max_ratings_per_user=30)
TEST_GROUPS = ("seen_test", "unseen_test")
BUDGET = ("--dim=4", "--clients_per_round=4", "--rounds_per_evaluation=20")
COMPARE = (
    "compare",
    *DATA,
    *BUDGET,
    "--algorithms=fed_recon,centralized",
    "--references=",
    "--seeds=2",
    "--total_rounds=120",
    "--client_learning_rate=0.1",
    "--sweep=client_epochs:1,2",
    "--set=centralized:minibatch_size=16",
    "--set=fed_ncf:averaging=by_row",  # Of one that is not compared: presets name them all.
)
RUNS = [
    *("fed_recon-seed0", "centralized-seed0", "fed_recon-seed1", "centralized-seed1"),
    *("fed_recon-seed0-client_epochs=2", "fed_recon-seed1-client_epochs=2"),
]


def start(repository, *arguments):
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
        start_new_session=True,
    )


def run(repository, *arguments, timeout=TIMEOUT):
    process = start(repository, *arguments)
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def read_rows(path):
    with open(path / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["seconds_without_compilation"]
    return rows


@pytest.fixture(scope="module")
def comparison(repository, tmp_path_factory):
    """A whole comparison that nobody interrupted, and what it printed."""
    path = tmp_path_factory.mktemp("compare") / "whole"
    status, output, errors = run(repository, *COMPARE, f"--output_dir={path}")
    assert status == 0, errors
    return path, output


def test_each_run_is_done_and_reported(comparison):
    path, output = comparison
    assert sorted(run_dir.name for run_dir in (path / "runs").iterdir()) == sorted(RUNS)
    lines = [line.split() for line in output.splitlines() if " of 6  " in line]
    assert [line[3] for line in lines] == RUNS
    assert (path / "comparison.md").read_text() in output
    *names, last = output.split(f"Files: {path}/\n")[1].splitlines()
    names = [name.strip() for name in names]
    assert names == [
        *("comparison.csv", "comparison.md", "differences.png", "spread.png"),
        *("quality_rounds.png", "quality_bytes.png", "given_ratings.png"),
        "sweep_client_epochs.png",
    ]
    assert last == f"  report.html, to be opened in a browser: {(path / 'report.html').as_uri()}"
    assert all((path / name).stat().st_size > 0 for name in [*names, "report.html"])
    assert "Traceback" not in output
    rows = read_rows(path)
    assert [row["run"] for row in rows] == [f"runs/{name}" for name in RUNS]
    assert [row["changed_client_epochs"] for row in rows] == [""] * 4 + ["2"] * 2
    for row, line in zip(rows, lines):
        assert line[6:9:2] == [f"{float(row[f'{group}_rmse']):.4f}" for group in TEST_GROUPS]
        assert line[5:9:2] == list(TEST_GROUPS)
        assert float(row["seen_test_rmse"]) != float(row["seen_validation_rmse"])
        with open(path / row["run"] / "metrics.csv", newline="") as file:
            *_, watched = csv.DictReader(file)
        for name in ("rmse", "accuracy"):
            validation = float(row[f"unseen_validation_{name}"])
            assert validation == pytest.approx(
                float(watched[f"unseen_validation/{name}"]), rel=1e-5
            )
    # Each run differs from each other run in its figures.
    assert len({row["unseen_test_rmse"] for row in rows}) == 6


def test_runs_share_their_users_and_have_settings_of_their_own(comparison):
    path, _ = comparison
    configs = {name: read_json(path / "runs" / name / "config.json") for name in RUNS}
    prints = [config["data_fingerprint"] for config in configs.values()]
    assert prints[0] == prints[1] == prints[4] != prints[2]  # The seed makes the ratings.
    of = {name: config["settings"] for name, config in configs.items()}
    assert of["centralized-seed0"]["minibatch_size"] == 16
    assert of["fed_recon-seed0"]["client_epochs"] == 1
    assert of["fed_recon-seed0-client_epochs=2"]["client_epochs"] == 2
    assert {settings["held_out_fraction"] for settings in of.values()} == {0.1}
    results = {name: read_json(path / "runs" / name / "results.json") for name in RUNS}
    counts = {
        tuple(r["groups"][group]["num_examples"] for group in TEST_GROUPS)
        for name, r in results.items()
        if "seed0" in name
    }
    assert len(counts) == 1


def test_evaluate_judges_a_run_alike(comparison, repository):
    path = comparison[0] / "runs" / "fed_recon-seed1"
    results = read_json(path / "results.json")
    assert list(results["groups"]) == [
        *("seen_validation", "seen_test", "unseen_validation", "unseen_test")
    ]
    status, _, errors = run(repository, "evaluate", f"--run_dir={path}")
    assert status == 0, errors
    for name, group in results["groups"].items():
        evaluated = read_json(path / f"evaluation_{name}.json")
        for measure in ("rmse", "accuracy", "mae", "loss"):
            assert group["means"][measure] == pytest.approx(evaluated[measure], rel=1e-5)
        assert group["num_examples"] == evaluated["num_examples"]


def test_a_finished_comparison_is_only_reported_again(comparison, repository):
    path, _ = comparison
    before = {name: (path / name).read_bytes() for name in ("comparison.csv", "comparison.md")}
    status, output, _ = run(repository, *COMPARE, f"--output_dir={path}")
    assert status == 0
    assert output.startswith("All runs are finished.\n")
    assert {name: (path / name).read_bytes() for name in before} == before


def test_other_settings_are_never_taken_for_the_settings_of_finished_runs(comparison, repository):
    path, _ = comparison
    before = (path / "comparison.csv").read_bytes()
    status, output, errors = run(repository, *COMPARE, f"--output_dir={path}", "--dim=5")
    assert (status, output) == (1, "")
    assert "runs/fed_recon-seed0 holds a run with other settings: dim was 4 and is now 5." in errors
    assert errors.count("\n") == 1
    assert (path / "comparison.csv").read_bytes() == before


def wait_for_rows(path, number, process):
    while not path.exists() or path.read_text().count("\n") <= number:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_interrupted_or_killed_it_resumes_to_the_same_numbers(comparison, repository, tmp_path):
    whole, path = comparison[0], tmp_path / "interrupted"
    command = (*COMPARE, f"--output_dir={path}")
    process = start(repository, *command)
    wait_for_rows(path / "runs" / RUNS[1] / "metrics.csv", 40, process)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    told = "The same command goes on where this one ended; 1 of 6 runs is finished.\n"
    assert errors.endswith(f"Interrupted by SIGINT.\n{told}")
    assert "Traceback" not in errors
    assert RUNS[0] in output
    assert not (path / "comparison.csv").exists()
    finished = (path / "runs" / RUNS[0] / "results.json").stat().st_mtime_ns

    process = start(repository, *command)
    wait_for_rows(path / "runs" / RUNS[3] / "metrics.csv", 40, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)

    status, output, errors = run(repository, *command)
    assert status == 0, errors
    lines = [line for line in output.splitlines() if " of 6  " in line]
    assert ["(finished before)" in line for line in lines] == [True] * 3 + [False] * 3
    assert f"Resuming {RUNS[3]} after round " in output
    assert (path / "runs" / RUNS[0] / "results.json").stat().st_mtime_ns == finished
    assert read_rows(path) == read_rows(whole)


def test_a_run_that_diverges_takes_no_other_with_it(repository, tmp_path):
    path = tmp_path / "comparison"
    status, output, errors = run(
        repository,
        *("compare", *DATA, *BUDGET, "--total_rounds=20"),
        "--algorithms=fed_avg,stateful_fed_avg",
        "--references=",
        "--set=fed_avg:client_learning_rate=20.0",
        f"--output_dir={path}",
    )
    assert status == 1
    assert "1 of 2 runs could not be finished, and are in no table:\n  fed_avg-seed0: " in errors
    assert "smaller" in errors
    assert "Traceback" not in errors
    assert [row["algorithm"] for row in read_rows(path)] == ["stateful_fed_avg"]
    assert "fed_avg-seed0" in output


def test_a_ranking_has_classical_references_beside_the_others(repository, tmp_path):
    path = tmp_path / "comparison"
    status, output, errors = run(
        repository,
        "compare",
        "--algorithms=fed_ncf,fed_ials,ials,item_knn,popularity",
        "--feedback=implicit",
        "--synthetic_num_users=200",
        "--synthetic_num_items=260",
        "--synthetic_mean_ratings_per_user=25",
        *BUDGET,
        "--model=gmf",
        "--total_rounds=40",
        "--averaging=by_row",
        "--client_learning_rate=0.5",
        "--set=fed_ials:model=matrix_factorization",
        "--set=fed_ials:server_optimizer=adam",
        "--set=fed_ials:server_learning_rate=0.05",
        "--set=ials:dim=3",
        f"--output_dir={path}",
    )
    assert status == 0, errors
    assert "HR@10 seen_test " in output
    fed_ncf, fed_ials, ials, item_knn, popularity = rows = read_rows(path)
    for row, name in ((ials, "ials"), (item_knn, "item_knn"), (popularity, "popularity")):
        assert (row["algorithm"], row["rounds"], row["bytes_up"]) == (name, "", "0")
        assert float(row["bytes_up_once"]) == pytest.approx(8 * 23, abs=16)
    # A table of 4 factors, and the Gram matrix; up, as much and which items there are.
    assert int(fed_ials["bytes_down"]) == 4 * (260 * 4 + 4 * 4)
    assert int(fed_ials["bytes_up"]) == 4 * (260 * 4 + 4 * 4 + 260)
    assert int(popularity["server_bytes"]) == 8 * 260
    assert int(ials["server_bytes"]) == 4 * 3 * (200 + 260)
    for row in rows:
        for group in TEST_GROUPS:
            assert float(row[f"{group}_full_hr_at_10"]) <= float(row[f"{group}_hr_at_10"])
        assert row["seen_test_num_users"] == fed_ncf["seen_test_num_users"]
    assert float(fed_ials["seen_test_hr_at_10"]) > 0.2
    # One item in a hundred candidates: by chance 0.1.
    assert float(ials["seen_test_hr_at_10"]) > 0.2
    assert float(ials["unseen_test_hr_at_10"]) > 0.2
    results = read_json(path / "runs" / "ials-seed0" / "results.json")
    assert results["groups"]["unseen_test"]["num_users"] == 20
    assert np.isfinite(results["groups"]["seen_validation"]["means"]["ndcg_at_10"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algorithms=fed_recon,fedprox"], "there is no algorithm 'fedprox'"),
        (["--algorithms=fed_avg,fed_ncff"], "'fed_ncff'; did you mean fed_ncf"),
        (["--algorithms=fed_avg,fed_avg"], "has fed_avg twice; name each once"),
        (
            ["--algorithms=ials", "--feedback=explicit"],
            "ials is for implicit feedback; leave it out",
        ),
        (["--sweep=max_ratings_per_user:5,9"], "max_ratings_per_user decides which users are jud"),
        (["--set=fed_avg:dim"], "--set=fed_avg:dim must be ALGORITHM:SETTING=VALUE"),
        (["--set=fedprox:dim=3"], "there is no algorithm 'fedprox'"),
        (["--set=fed_avg:dims=3"], "there is no setting 'dims'"),
        (["--set=fed_avg:dim=few"], "--set=fed_avg:dim=few: "),
        (["--set=fed_avg:seed=3"], "seed cannot be changed here"),
        (["--set=fed_avg:minibatch_size=3"], "fed_avg does not use it"),
        (["--sweep=dim"], "--sweep=dim must be SETTING:VALUE,VALUE"),
        (["--sweep=dim:4,x"], "--sweep=dim:4,x: "),
        (["--sweep=minibatch_size:4,8"], "--sweep=minibatch_size has no effect with --algorithms="),
        (["--minibatch_size=8"], "--minibatch_size has no effect with --algorithm=fed_avg"),
        (["--clients_per_round=49"], "--clients_per_round=49 is more than the 48 training users"),
        (["--client_learning_rate=-1"], "--client_learning_rate=-1.0 must be positive"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(repository, tmp_path, arguments, message):
    path = tmp_path / "comparison"
    status, output, errors = run(
        repository,
        *("compare", *DATA, "--algorithms=fed_avg", f"--output_dir={path}", *arguments),
    )
    assert status == 1
    assert message in errors
    assert "Traceback" not in errors + output
    assert not path.exists()


def test_a_folder_of_something_else_is_left_alone(repository, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    status, _, errors = run(repository, *COMPARE, f"--output_dir={tmp_path}")
    assert status == 1
    assert "holds files but no comparison" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


PLANNED = """
import sys
from absl import flags
from experiments import compare
for preset, *others in (argument.split(" ") for argument in sys.argv[1:]):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
        flags.FLAGS[name].present = 0
    given = [f"--flagfile={preset}", "--output_dir=out", *others]
    flags.FLAGS(["compare", *given])
    print(len(compare._plan()))
print("tensorflow" in sys.modules)
"""


def test_presets_are_complete_command_lines_for_other_algorithms_too(repository):
    folder = repository / "experiments" / "presets"
    presets = [*sorted(folder.glob("comparison_*.flags")), folder / "demo.flags"]
    assert len(presets) >= 5
    references = [
        f"{folder}/comparison_ml1m.flags --algorithms=item_knn,popularity",
        f"{folder}/comparison_ncf_ml1m.flags --algorithms=item_knn,popularity,ials",
        # The references that are in every comparison make four.
        f"{folder}/comparison_neumf_ncf_ml1m.flags --algorithms=fed_ials,ials "
        "--model=matrix_factorization",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PLANNED, *map(str, presets), *references],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *counts, has_tensorflow = done.stdout.splitlines()
    assert len(counts) == len(presets) + len(references)
    assert counts[-3:] == ["6", "9", "4"]
    assert has_tensorflow == "False"
    assert "note: " in done.stderr
