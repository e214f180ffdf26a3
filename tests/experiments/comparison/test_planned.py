"""Results of a comparison's run that are damaged are made anew."""

import dataclasses
import warnings

import numpy as np
import pytest

from experiments.comparison.planned import Planned, forget_damaged, results_of
from experiments.comparison.results import PerUser
from fedrecon.errors import DamagedError
from fedrecon.evaluation.metrics import UserResults
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.comparison.runs_by_hand import explicit_results
from tests.experiments.small import small_settings


@pytest.fixture
def planned(write):
    results = explicit_results("fed_recon", 0, 1.0, 0.5)
    per_user = PerUser(np.arange(2), UserResults({"rmse": np.ones(2)}, np.ones(2)))
    path = write(results, per_user={"unseen_test": per_user})
    RunDirectory(path).write_results(results.to_json())
    settings = small_settings(output_dir=str(path), total_rounds=4)
    return Planned(settings, {})


def test_results_as_they_were_written_stay(planned):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forget_damaged(planned)
    assert results_of(planned).groups["seen_test"].means["rmse"] == 1.0
    longer = Planned(dataclasses.replace(planned.settings, total_rounds=5), {})
    assert results_of(longer) is None


@pytest.mark.parametrize("file", ["results.json", "user_results.npz"])
@pytest.mark.parametrize("damage", ["emptied", "cut", "changed", "deleted"])
def test_damaged_results_are_forgotten_and_told(planned, file, damage):
    path = planned.path / file
    whole = path.read_bytes()
    place = whole.index(b"1.0") if file == "results.json" else len(whole) // 2
    changed = whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :]
    path.write_bytes({"emptied": b"", "cut": whole[:99], "changed": changed}.get(damage, b""))
    if damage == "deleted":
        path.unlink()
    if (file, damage) == ("results.json", "deleted"):
        forget_damaged(planned)
    else:
        with pytest.warns(UserWarning, match=f"{file} .*; the results are made anew"):
            forget_damaged(planned)
    assert results_of(planned) is None
    assert not (planned.path / "results.json").exists()


def test_whoever_only_reads_refuses(planned):
    (planned.path / "results.json").write_text("{")
    with pytest.raises(DamagedError, match=r"results\.json cannot be read"):
        RunDirectory(planned.path).read_results()
