"""The binaries as a user runs them: processes, pipes, signals, and the files they leave."""

import csv
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from experiments.run import display
from fedrecon.data.own_ratings import read_ratings
from fedrecon.data.population import divide_by_user
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.small import TIMEOUT, command, read_json, run_binary, small_flags

pytestmark = pytest.mark.slow

DATA = small_flags()
TRAIN = (
    "train",
    *DATA,
    "--max_ratings_per_user=30",
    "--dim=4",
    "--clients_per_round=4",
    "--total_rounds=9",
    "--rounds_per_evaluation=2",
    "--rounds_per_checkpoint=4",
)
# Long enough to be interrupted.
LONG = (*TRAIN, "--total_rounds=240", "--rounds_per_checkpoint=50")
STATEFUL = (
    *TRAIN,
    "--algorithm=stateful_fed_avg",
    "--client_learning_rate=0.1",
    "--held_out_fraction=0.2",
    "--total_rounds=400",
    "--rounds_per_evaluation=10",
    "--rounds_per_checkpoint=20",
)
RANKING = (
    *TRAIN,
    "--feedback=implicit",
    "--algorithm=fed_ncf",
    "--model=gmf",
    "--synthetic_num_items=260",
    "--unseen_fraction=0.2",
    "--client_learning_rate=0.1",
)
NATIVE = (*TRAIN, "--runtime=native")

run = run_binary


def read_rows(path):
    with open(path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


def workers_of(pid):
    """The pids of the worker processes that the process started."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"worker_binary" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture(scope="module")
def whole_run(repository, tmp_path_factory):
    return run_through_a_pipe(repository, tmp_path_factory, TRAIN)


@pytest.fixture(scope="module")
def native_run(repository, tmp_path_factory):
    return run_through_a_pipe(repository, tmp_path_factory, NATIVE)


def run_through_a_pipe(repository, tmp_path_factory, train):
    """Trains through a shell's pipe; returns the run's directory and what was printed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    shell = " ".join(f"'{word}'" for word in command(*train, f"--output_dir={path}"))
    result = subprocess.run(
        f"set -o pipefail; {shell} 2>&1 | cat",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=repository,
    )
    assert result.returncode == 0, result.stdout
    return path, result.stdout


def test_a_run_ends_with_a_table_and_leaves_its_files(whole_run):
    path, output = whole_run
    final = read_json(path / "final_metrics.json")
    groups = {"unseen_test", "unseen_validation"}
    assert set(final) == {*groups, "rounds", "seconds", "coverage", "training_users", "costs"}
    assert set(final["coverage"]) == groups
    assert final["training_users"]["num_users"] == 48
    judged = final["coverage"]["unseen_test"]["num_judged"]
    assert f"unseen_test: {judged} of 6 users are judged, on " in output
    assert set(final["unseen_test"]) == {
        *("rmse", "mae", "accuracy", "rounded_accuracy", "loss", "num_examples")
    }
    assert final["rounds"] == 9
    for group in ("unseen_validation", "unseen_test"):
        (line,) = [of for of in map(str.split, output.splitlines()) if of and of[0] == group]
        assert line[1] == f"{final[group]['rmse']:.4f}"
        assert line[5] == f"{final[group]['num_examples']:,}"
    rounds = display.duration(final["seconds"])
    told = (
        rf"^9 rounds in {rounds}; this command took (?:(\d+) min )?(\d+) s, with loading, judging"
    )
    ((minutes, seconds),) = re.findall(told, output, re.MULTILINE)
    assert 60 * int(minutes or 0) + int(seconds) > final["seconds"]
    assert "Here an accurate prediction is within 0.5 of the rating." in output
    assert f"Files: {path}/" in output
    assert (path / "report.html").as_uri() in output
    assert "Run " in (path / "report.html").read_text()
    assert "Traceback" not in output
    config = read_json(path / "config.json")
    assert (config["settings"]["dim"], config["settings"]["seed"]) == (4, 0)
    assert config["versions"]["tensorflow-federated"] == "0.87.0"
    assert (path / "curves.png").stat().st_size > 10_000
    assert list((path / "events").glob("events.out.tfevents.*"))
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == [
        "round_4",
        "round_8",
        "round_9",
    ]


def test_metrics_csv_has_a_row_a_round(whole_run):
    path, _ = whole_run
    rows = read_rows(path)
    assert [int(row["round"]) for row in rows] == list(range(10))
    evaluated = [int(row["round"]) for row in rows if row["unseen_validation/rmse"]]
    assert evaluated == [0, 2, 4, 6, 8, 9]
    last = read_json(path / "final_metrics.json")["unseen_validation"]
    assert float(rows[-1]["unseen_validation/rmse"]) == last["rmse"]
    # Mean squared error is this model's loss.
    assert last["loss"] == pytest.approx(last["rmse"] ** 2, rel=1e-5)


def test_a_finished_run_is_not_run_again(whole_run, repository):
    path, _ = whole_run
    before = (path / "metrics.csv").stat().st_mtime_ns
    result = run(repository, *TRAIN, f"--output_dir={path}")
    assert result.returncode == 0
    assert "This run is finished: 9 rounds." in result.stdout
    assert f"{read_json(path / 'final_metrics.json')['unseen_test']['rmse']:.4f}" in result.stdout
    assert (path / "metrics.csv").stat().st_mtime_ns == before


def test_damaged_metrics_of_a_finished_run_are_made_anew(whole_run, repository, tmp_path):
    path = tmp_path / "run"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    shutil.copytree(whole_run[0], path)
    whole = (path / "final_metrics.json").read_text()
    (path / "final_metrics.json").write_text(whole.replace(": 0.", ": 0.1", 1))
    shutil.rmtree(path / "checkpoints" / "round_4")
    result = subprocess.run(
        command(*TRAIN, f"--output_dir={path}"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=repository,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert result.returncode == 0, result.stderr
    assert "final_metrics.json was changed after it was written: its SHA-256" in result.stderr
    assert_same_run(path, whole_run[0])
    assert list(temporary.iterdir()) == []


def test_evaluate_gives_the_figures_of_training(whole_run, repository):
    path, _ = whole_run
    result = run(repository, "evaluate", f"--run_dir={path}", "--group=unseen_test")
    assert result.returncode == 0, result.stderr
    written = read_json(path / "evaluation_unseen_test.json")
    assert written.pop("round") == 9
    final = read_json(path / "final_metrics.json")
    assert written.pop("coverage") == final["coverage"]["unseen_test"]
    assert written == final["unseen_test"]
    assert f"{written['rmse']:.4f}" in result.stdout
    assert not (path / "evaluation_unseen_validation.json").exists()
    absent = run(repository, "evaluate", f"--run_dir={path}", "--group=seen_test")
    assert absent.returncode == 1
    there = "unseen_validation, unseen_test"
    assert f"there are no seen_test users to evaluate; there are {there}." in absent.stderr
    missing = run(repository, "evaluate", f"--run_dir={path}", "--round=5")
    assert missing.returncode == 1
    assert "no checkpoint after round 5; it has those after rounds 4, 8, 9." in missing.stderr


def test_evaluate_refuses_a_flag_without_effect(whole_run, repository):
    path, _ = whole_run
    result = run(repository, "evaluate", f"--run_dir={path}", "--data_dir=elsewhere")
    assert result.returncode == 1
    assert "--data_dir has no effect with --dataset=synthetic" in result.stderr
    assert result.stderr.count("\n") == 1


def start_and_signal(
    repository, ends_within, train, path, at_round, signum, needs_checkpoint=False
):
    """Trains until the line of a round is printed, signals, and waits for the end."""
    process = subprocess.Popen(
        command(*train, f"--output_dir={path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.split()[:2] == ["round", str(at_round)]:
            break
    else:
        pytest.fail(f"no round {at_round}: {process.stderr.read()}")
    # They are written in the background; on a busy machine the first may not be there yet.
    while needs_checkpoint and not max(RunDirectory(path).checkpoints(), default=0):
        assert process.poll() is None
        time.sleep(0.01)
    workers = workers_of(process.pid)
    assert len(workers) == (1 if train is NATIVE else 0)
    # To the whole group, as a terminal does.
    os.killpg(process.pid, signum)
    # Returns only when nobody holds the pipes any more.
    _, errors = process.communicate(timeout=60)
    assert all(ends_within(worker, 10) for worker in workers)
    return process.returncode, errors


def assert_same_run(path, whole):
    assert read_rows(path) == read_rows(whole)
    ours, theirs = (read_json(p / "final_metrics.json") for p in (path, whole))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_interrupted_and_killed_runs_resume_to_the_same_numbers(repository, ends_within, tmp_path):
    path, whole = tmp_path / "run", tmp_path / "whole"
    signal_at = functools.partial(start_and_signal, repository, ends_within, LONG, path)
    status, _ = signal_at(20, signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, errors = signal_at(120, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert "Interrupted by SIGINT.\nThe same command resumes this run where it ended." in errors
    assert "Traceback" not in errors
    last = max(int(p.name.rpartition("_")[2]) for p in (path / "checkpoints").iterdir())
    assert 120 <= last < 200  # The round that was whole, not the last due checkpoint.
    status, errors = signal_at(200, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    result = run(repository, *LONG, f"--output_dir={path}")
    assert result.returncode == 0, result.stderr
    assert "Resuming after round " in result.stdout
    assert run(repository, *LONG, f"--output_dir={whole}").returncode == 0
    assert_same_run(path, whole)


def test_interrupted_while_it_compiles_a_run_begins_anew_and_says_so(repository, tmp_path):
    process = subprocess.Popen(
        command(*LONG, f"--output_dir={tmp_path / 'run'}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
        start_new_session=True,
    )
    assert any(line.startswith("Compiling ") for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    told = "There is no checkpoint yet: the same command begins this run anew.\n"
    assert errors.endswith(f"Interrupted by SIGINT.\n{told}")
    assert RunDirectory(tmp_path / "run").checkpoints() == []


def kept_rows(path):
    """The rows of the devices, four factors and a bias each, and who has one."""
    rows, is_known = ClientStore(60, 5, path=path / "client_store").read(np.arange(60))
    return rows.tobytes(), is_known.tolist()


def test_a_killed_run_with_rows_on_devices_resumes_to_the_same(repository, ends_within, tmp_path):
    path, whole = tmp_path / "run", tmp_path / "whole"
    signal_at = functools.partial(start_and_signal, repository, ends_within, STATEFUL, path)
    assert signal_at(50, signal.SIGKILL, needs_checkpoint=True)[0] == -signal.SIGKILL
    assert not (path / "final_metrics.json").exists()
    result = run(repository, *STATEFUL, f"--output_dir={path}")
    assert result.returncode == 0, result.stderr
    resumed_after = int(result.stdout.split("Resuming after round ")[1].split(".")[0])
    assert 0 < resumed_after < 400
    assert run(repository, *STATEFUL, f"--output_dir={whole}").returncode == 0
    assert_same_run(path, whole)
    assert kept_rows(path) == kept_rows(whole)
    assert sum(kept_rows(whole)[1]) == 48  # The training users; no one else has a row.
    assert set(read_json(whole / "final_metrics.json")["seen_test"]) >= {"rmse", "accuracy", "mae"}


def test_a_ranking_run_ends_with_what_evaluate_finds_too(repository, tmp_path):
    path = tmp_path / "run"
    result = run(repository, *RANKING, f"--output_dir={path}")
    assert result.returncode == 0, result.stderr
    final = read_json(path / "final_metrics.json")
    groups = {"seen_validation", "seen_test", "unseen_test"}
    assert set(final) == {*groups, "rounds", "seconds", "coverage", "training_users", "costs"}
    seen, unseen = final["seen_test"], final["unseen_test"]
    assert 0 < seen["ndcg_at_10"] < seen["hr_at_10"] <= 1
    assert (seen["num_users"], unseen["num_users"]) == (48, 12)
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("seen_test ")]
    assert lines[0][1] == f"{seen['hr_at_10']:.4f}"
    assert "seen_validation/hr_at_10" in read_rows(path)[0]
    assert (path / "curves.png").stat().st_size > 10_000
    result = run(repository, "evaluate", f"--run_dir={path}", "--group=seen_test")
    assert result.returncode == 0, result.stderr
    written = read_json(path / "evaluation_seen_test.json")
    assert written.pop("round") == 9
    assert written.pop("coverage") == final["coverage"]["seen_test"]
    assert written == seen


def test_tffs_worker_ends_with_a_run_that_resumes(native_run, repository, ends_within, tmp_path):
    path = tmp_path / "run"
    signal_at = functools.partial(start_and_signal, repository, ends_within, NATIVE, path)
    status, errors = signal_at(4, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in errors
    assert signal_at(6, signal.SIGKILL)[0] == -signal.SIGKILL
    result = run(repository, *NATIVE, f"--output_dir={path}")
    assert result.returncode == 0, result.stderr
    assert_same_run(path, native_run[0])


def test_both_runtimes_give_the_same(whole_run, native_run):
    # The first line is there before TensorFlow is; the second says where the run is.
    (started, ours, *_), (started_too, native, *_) = (
        output.splitlines() for _, output in (whole_run, native_run)
    )
    assert started == started_too
    assert "9 rounds of 4 of 48 training users" in started
    assert ours.startswith("Runs in this process, on ")
    assert native.startswith("Runs in TFF's own worker process (")
    for ours, theirs in zip(read_rows(whole_run[0]), read_rows(native_run[0])):
        assert {k: float(v or 0) for k, v in ours.items()} == pytest.approx(
            {k: float(v or 0) for k, v in theirs.items()}, rel=1e-5
        )


def test_another_runtime_does_not_resume_a_run(whole_run, repository):
    """Its numbers would not be, bit for bit, those of an uninterrupted run."""
    result = run(repository, *NATIVE, f"--output_dir={whole_run[0]}")
    assert result.returncode == 1
    assert "runtime was 'in_process' and is now 'native'." in result.stderr


def test_another_configuration_is_refused_with_what_differs(whole_run, repository):
    path, _ = whole_run
    before = (path / "config.json").read_bytes()
    result = run(repository, *TRAIN, f"--output_dir={path}", "--dim=5", "--client_optimizer=adam")
    assert result.returncode == 1
    assert "client_optimizer was 'sgd' and is now 'adam'; dim was 4 and is now 5." in result.stderr
    assert result.stderr.count("\n") == 1
    assert (path / "config.json").read_bytes() == before


def test_fewer_rounds_than_were_trained_are_refused(whole_run, repository):
    path, _ = whole_run
    before = (path / "config.json").read_bytes()
    result = run(repository, *TRAIN, f"--output_dir={path}", "--total_rounds=8")
    assert result.returncode == 1
    assert "already has 9 rounds, more than --total_rounds=8." in result.stderr
    assert (path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset=movielens-2m",), "movielens-1m"),
        (("--clients_per_round=49",), "--clients_per_round=49 is more than the 48 training users"),
        (("oops",), "unexpected argument 'oops'"),
        (
            ("--gpu_memory_limit_mb=64", "--runtime=native"),
            "--gpu_memory_limit_mb has no effect with --runtime=native",
        ),
        (("--dim=3", "--dims=4"), "there is no flag --dims; did you mean --dim?"),
        (("--rounds=3",), "there is no flag --rounds; did you mean --total_rounds?"),
        (("--total_rounds=many",), "--total_rounds=many: it must be a whole number."),
        (("--dataset=movielens-100k", "--data_dir=/nowhere"), "/nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(repository, tmp_path, arguments, message):
    path = tmp_path / "run"
    synthetic = () if any("--dataset" in a for a in arguments) else DATA
    result = run(repository, "train", f"--output_dir={path}", *synthetic, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert not path.exists()


def test_a_limit_of_gpu_memory_without_a_gpu_is_refused(whole_run, repository):
    path = f"--run_dir={whole_run[0]}"
    result = run(repository, "evaluate", path, "--gpu_memory_limit_mb=64")
    assert result.returncode == 1
    assert "64 MB of GPU memory has no effect: TensorFlow sees no GPU." in result.stderr
    assert "Traceback" not in result.stderr


def test_a_malformed_line_is_named_and_nothing_is_left(repository, tmp_path):
    data = tmp_path / "ml-100k"
    data.mkdir()
    (data / "u.data").write_text("1\t2\t3\t880000000\n1\t3\tgood\t880000001\n")
    result = run(
        repository,
        "train",
        "--dataset=movielens-100k",
        f"--data_dir={tmp_path}",
        f"--output_dir={tmp_path / 'run'}",
    )
    assert result.returncode == 1
    assert "u.data" in result.stderr
    assert "line 2" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_file_of_ones_own_is_trained_on_and_judged_where_it_lies_now(
    repository, tmp_path_factory, tmp_path
):
    rng = np.random.default_rng(0)
    rows = [(u, i) for u in range(40) for i in rng.choice(60, 14, replace=False)]
    lines = [f"user-{u};B0{i:03};{rng.integers(1, 11) / 2:.1f}" for u, i in rows]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["reviewer;asin;overall", *lines, "user-0;B0999;0.0"]))
    flags = ("--columns=user=reviewer,item=asin,rating=overall", "--rating_scale=0.5,5,0.5")
    flags += ("--off_scale=drop", "--dim=4", "--clients_per_round=4", "--total_rounds=2")
    path, output = run_through_a_pipe(
        repository, tmp_path_factory, ("train", f"--ratings_file={file}", *flags)
    )
    assert output.startswith("mine: Fields are separated by ';'; the first line is a header.")
    assert "Left out: 1 of 561 rows whose rating is not 0.5 to 5 in steps of 0.5." in output
    assert "fed_recon on mine: 2 rounds of 4 of 32 training users." in output
    config = read_json(path / "config.json")
    assert config["settings"]["ratings_file"] == str(file)
    assert config["data_notes"][1] == (
        "Columns, as --columns says: user is 'reviewer', item is 'asin', rating is 'overall'."
    )
    moved = file.rename(tmp_path / "moved.csv")
    evaluate = ("evaluate", f"--run_dir={path}", "--group=unseen_test")
    missing = run(repository, *evaluate)
    assert (missing.returncode, "mine.csv does not exist" in missing.stderr) == (1, True)
    judged = run(repository, *evaluate, f"--ratings_file={moved}")
    assert judged.returncode == 0, judged.stderr
    found = read_json(path / "evaluation_unseen_test.json")
    final = read_json(path / "final_metrics.json")["unseen_test"]
    assert found["rmse"] == final["rmse"]


def test_a_run_is_judged_on_other_ratings_of_its_items(repository, tmp_path_factory, tmp_path):
    rng = np.random.default_rng(0)
    header = "user,item,rating,timestamp"
    rows = [
        (f"user-{u}", f"B{i}", rng.integers(1, 6), time)
        for u in range(40)
        for time, i in enumerate(rng.choice(60, 14, replace=False))
    ]

    def write(name, rows):
        path = tmp_path / name
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
        return path

    january = write("january.csv", rows)
    flags = ("--algorithm=fed_recon_ls", "--unseen_halves=by_time", "--dim=4")
    flags += ("--clients_per_round=4", "--total_rounds=2")
    path, _ = run_through_a_pipe(
        repository, tmp_path_factory, ("train", f"--ratings_file={january}", *flags)
    )
    final = read_json(path / "final_metrics.json")
    ratings = read_ratings(january)
    unseen = divide_by_user(ratings).groups["unseen_test"].users.tolist()
    names = {ratings.user_name(user) for user in unseen}
    # The same questions under other names, so the same answers; and items that nobody knows.
    others = [(f"other-{user}", *row) for user, *row in rows if user in names]
    others += [(f"other-{min(names)}", "unknown", 5, 99), ("stranger", "unknown", 1, 1)]
    february = write("february.csv", others)
    evaluate = ("evaluate", f"--run_dir={path}", f"--other_ratings_file={february}")
    done = run(repository, *evaluate)
    assert done.returncode == 0, done.stderr
    assert "Left out: 1 items that the run does not know, with 2 ratings; 0 " in done.stdout
    found = read_json(path / "evaluation_other_february.json")
    for name in ("rmse", "accuracy", "num_examples"):
        assert found[name] == pytest.approx(final["unseen_test"][name], rel=1e-5)
    assert found["coverage"] == final["coverage"]["unseen_test"]
    assert (found["num_items_left_out"], found["num_ratings_left_out"]) == (1, 2)
    assert (found["num_users_left_out"], found["round"]) == (1, 2)

    for arguments, sentence in (
        (("--group=unseen_test",), "--group has no effect with --other_ratings_file"),
        (("--columns=user=user,item=rating",), "no column is known as the rating; recognized: "),
    ):
        refused = run(repository, *evaluate, *arguments)
        assert (refused.returncode, sentence in refused.stderr) == (1, True), refused.stderr
    write("february.csv", [*others, ("x", "B1", 7, 3)])
    refused = run(repository, *evaluate)
    assert refused.returncode == 1
    line = len(others) + 2
    assert f"february.csv, line {line}: the rating 7 is not on the scale of the run" in (
        refused.stderr
    )
    refused = run(repository, "evaluate", f"--run_dir={path}", "--off_scale=drop")
    assert "--off_scale has no effect without --other_ratings_file." in refused.stderr
