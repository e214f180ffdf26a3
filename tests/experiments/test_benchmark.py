"""The benchmark as a process: its last line, and its refusals."""

import importlib.util
import json

import pytest

from tests.experiments.small import run_binary

pytestmark = pytest.mark.slow


def test_the_last_line_is_json_with_both_engines_on_the_same_clients(repository):
    done = run_binary(
        repository, "benchmark", "--suite=round", "--clients=4", "--ratings=23", "--dim=3"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["suite"], result["engine"]) == ("round", "cohort")
    assert (result["clients"], result["ratings_per_client"], result["dim"]) == (4, 23, 3)
    assert result["ratio"] == pytest.approx(result["stock_seconds"] / result["seconds"])
    assert 0 <= result["max_abs_difference"] < 1e-6
    assert result["peak_rss_mb"] > 100


SMALL_FED_AVG = ("--suite=fed_avg", "--clients=3", "--ratings=10", "--dim=3")


def test_a_peer_trains_the_same_clients_to_the_same_numbers(repository):
    pytest.importorskip("fedjax", reason="FedJAX is not installed; docs/how_it_is_fast.md says how")
    done = run_binary(repository, "benchmark", *SMALL_FED_AVG, "--peer=fedjax")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["peer_ratio"] == pytest.approx(result["peer_seconds"] / result["seconds"])
    assert 0 <= result["peer_max_abs_difference"] < 1e-6


def test_a_peer_that_is_not_installed_is_refused_in_a_sentence(repository):
    if importlib.util.find_spec("fedjax"):
        pytest.skip("FedJAX is installed")
    done = run_binary(repository, "benchmark", *SMALL_FED_AVG, "--peer=fedjax")
    assert done.returncode == 1
    assert "--peer=fedjax needs FedJAX, and its import failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_loading_is_timed_in_processes_of_its_own(repository):
    done = run_binary(repository, "benchmark", "--suite=load", "--load_rows=20000")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["suite"], result["rows"]) == ("load", 20000)
    assert result["ratio"] == pytest.approx(result["seconds"] / result["cached_seconds"])
    # pandas alone takes 50 MB, and TensorFlow, which is not needed, 300.
    assert 50 < result["peak_rss_mb"] < 300
    # "1,1,0.5,800000000" and an end of line: between 18 and 32 characters a row.
    assert 18 * 20000 < result["file_mb"] * 2**20 < 32 * 20000
    assert result["is_same"]
    assert not result["is_kept"]


def test_new_users_are_served_from_catalogues_of_two_sizes(repository):
    done = run_binary(repository, "benchmark", "--suite=recommend", "--clients=20", "--dim=3")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["suite"], result["users"], result["dim"]) == ("recommend", 20, 3)
    assert [of["items"] for of in result["catalogues"]] == result["items"] == [3706, 100_000]
    for of in result["catalogues"]:
        assert of["users_per_second"] == pytest.approx(20 / of["seconds"])
    assert result["peak_rss_mb"] > 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite=skewed", "--ratings=5"], "--ratings has no effect with --suite=skewed."),
        (["--ratings=5000"], "--ratings=5000 is more than the 3706 items there are."),
        (["--suite=gpu", "--clients=5"], "--clients has no effect with --suite=gpu."),
        (["--suite=gpu", "--runtime=native"], "TFF's worker has no GPUs."),
        (
            ["--suite=other"],
            "--suite=other must be round, fed_avg, skewed, catalogue, memory, gpu, ",
        ),
        (["--suite=fedncf"], "; did you mean fed_ncf?"),
        (["--suite=memory", "--data_dir=x"], "--data_dir has no effect with --suite=memory."),
        (["--suite=load", "--rounds=9"], "--rounds has no effect with --suite=load."),
        (["--suite=round", "--load_rows=5000"], "--load_rows has no effect with --suite=round."),
        (["--suite=skewed", "--model=neumf"], "--model has no effect with --suite=skewed."),
        (["--suite=round", "--peer=fedjax"], "--peer has no effect with --suite=round."),
        (
            ["--suite=exact", "--algorithm=fed_ials"],
            "--algorithm has no effect with --suite=exact.",
        ),
        (["--suite=ranking", "--dim=3"], "--dim has no effect with --suite=ranking."),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused_in_a_sentence(repository, arguments, sentence):
    done = run_binary(repository, "benchmark", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
