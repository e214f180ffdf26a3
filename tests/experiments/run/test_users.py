"""users.csv against config.json: damaged, it decides nothing."""

import pytest

from experiments.run import population, users
from experiments.run.claim import _check_same_items, claimed
from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.files import write_sealed
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.small import small_settings


@pytest.fixture
def run(tmp_path):
    """A run that has begun."""
    settings = small_settings(output_dir=str(tmp_path / "run"), clients_per_round=4)
    of_run = population.load_population(settings)
    with claimed(settings, of_run) as run:
        (run.path / "metrics.csv").write_text("round\n0\n")
    return run, settings, of_run


def moved(run):
    """Makes an unseen user one who trains."""
    text = run.users_path.read_text()
    run.users_path.write_text(
        text.replace(",test\n", ",train\n", 1).replace("unseen_test", "train", 1)
    )


def test_users_as_they_were_written_pass(run):
    users.check(run[0])


@pytest.mark.parametrize("damage", ["moved", "deleted", "emptied", "cut", "bytes"])
def test_damaged_users_are_refused_and_made_anew_by_their_run(run, damage):
    run, settings, of_run = run
    whole = run.users_path.read_bytes()
    if damage == "moved":
        moved(run)
    elif damage == "deleted":
        run.users_path.unlink()
    else:
        run.users_path.write_bytes({"emptied": b"", "cut": whole[:-40], "bytes": b"\xff"}[damage])
    assert not run.users_path.exists() or run.users_path.read_bytes() != whole
    with pytest.raises(InputError, match=r"users\.csv"):
        users.check(run)
    with claimed(settings, of_run):
        assert run.users_path.read_bytes() == whole


def test_a_run_that_starts_from_another_does_not_take_damaged_users(run, tmp_path):
    run, _, _ = run
    begun = small_settings(
        warm_start=str(run.path), output_dir=str(tmp_path / "second"), clients_per_round=4
    )
    assert len(population.load_population(begun).train)
    moved(run)
    with pytest.raises(DamagedError, match=r"run/users\.csv is damaged: its users are not those"):
        population.load_population(begun)


def test_a_run_of_an_older_version_has_no_digest(run):
    run, settings, of_run = run
    config = run.read_config()
    assert config.pop(users.DIGEST)
    write_sealed(run.path / "config.json", config)
    users.check(RunDirectory(run.path))
    with claimed(settings, of_run):
        pass


@pytest.mark.parametrize(
    ("of_first", "name"),
    [
        ({"positive_from": 4.0}, "positive_from"),
        ({"min_ratings_per_user": 2}, "min_ratings_per_user"),
        ({"leaks_test_item": True}, "leaks_test_item"),
    ],
)
def test_a_start_from_a_run_that_held_out_other_items_is_refused(tmp_path, of_first, name):
    of_both = {
        "feedback": "implicit",
        "algorithm": "fed_avg",
        "synthetic_num_items": 260,
        "clients_per_round": 5,
    }
    chosen = small_settings(**of_both)
    before = small_settings(**of_both, **of_first).to_json()
    users_of_chosen = population.load_population(chosen)
    _check_same_items(chosen.to_json(), chosen, users_of_chosen)
    with pytest.raises(InputError, match=f"--{name} is .* in the run to start from, which may"):
        _check_same_items(before, chosen, users_of_chosen)


def test_a_start_from_strong_generalization_judges_no_seen_users():
    chosen = small_settings(
        feedback="implicit", algorithm="fed_avg", synthetic_num_items=260, clients_per_round=5
    )
    before = {**chosen.to_json(), "split": "strong_generalization"}
    with pytest.raises(InputError, match="--split is standard, and was strong_generalization"):
        _check_same_items(before, chosen, population.load_population(chosen))
    # Nobody seen is judged where nothing is held out.
    explicit = small_settings(clients_per_round=5)
    _check_same_items({"split": "published"}, explicit, population.load_population(explicit))
