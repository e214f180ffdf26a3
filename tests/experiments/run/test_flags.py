"""From a command line to settings: names of before, near names, and flags without effect."""

import dataclasses
import sys

import numpy as np
import pytest

from experiments.run import flags as run_flags
from experiments.run import names
from experiments.run.flags import parse_changes, parse_sweeps, refuse_unused, settings_from_flags
from experiments.run.population import load_population
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import feedback_of
from tests.experiments.small import parse_flags, small_settings

KNOWN = (*names.ALGORITHMS, *names.REFERENCES)


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line, which is also that of the process."""

    def parse_command_line(*arguments):
        monkeypatch.setattr(sys, "argv", ["binary", "--output_dir=out", *arguments])
        parse_flags(*sys.argv[1:])

    return parse_command_line


def compared(*algorithms):
    """The settings of each algorithm, by the flags that were parsed."""
    return [settings_from_flags(has_references=True, algorithm=name) for name in algorithms]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "now", "said"),
    [
        (("--algorithm=fedrecon",), "fed_recon", "--algorithm=fedrecon is now called fed_recon."),
        (("--algorithm=fedavg",), "fed_avg", "--algorithm=fedavg is now called fed_avg."),
        (("--algorithm=stateful_fedavg",), "stateful_fed_avg", "now called stateful_fed_avg."),
        (("--algorithm=fedncf",), "fed_ncf", "--algorithm=fedncf is now called fed_ncf."),
        (("--algorithm=fedrecon_ls",), "fed_recon_ls", "is now called fed_recon_ls."),
        (("--algorithm=fedrecon_ls", "--feedback=implicit"), "fed_ials", "now called fed_ials."),
    ],
)
def test_names_of_before_are_accepted_with_a_note(parse, capsys, arguments, now, said):
    parse(*arguments)
    assert settings_from_flags().algorithm == now
    errors = capsys.readouterr().err
    assert errors.startswith("note: --algorithm=")
    assert errors.endswith(f"{said}\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("rounds", "total_rounds"),
        ("lr", "client_learning_rate or server_learning_rate"),
        ("learning_rate", "client_learning_rate or server_learning_rate"),
        ("epochs", "client_epochs"),
        ("local_epochs", "client_epochs"),
        ("dims", "dim"),
        ("batchsize", "batch_size or minibatch_size"),
        ("client-epochs", "client_epochs"),
        ("ridges", "ridge"),
        ("fraction", "cold_items_fraction, held_out_fraction or unseen_fraction"),
    ],
)
def test_a_near_name_is_suggested_for_a_setting(parse, name, suggested):
    parse()
    with pytest.raises(InputError) as error:
        parse_sweeps("sweep", [f"{name}:1"])
    assert str(error.value) == (
        f"--sweep={name}:1: there is no setting {name!r}; did you mean {suggested}?"
    )


def test_where_no_name_is_near_none_is_suggested():
    assert names.did_you_mean("zzz", KNOWN) == "."
    assert names.did_you_mean("fedavg", KNOWN) == "; did you mean fed_avg?"
    assert names.did_you_mean("fed_avgs", KNOWN, prefix="--").startswith("; did you mean --fed_avg")


# --- --sweep, --search and --set ------------------------------------------------------------------


def test_sweeps_are_settings_and_values_of_their_kind(parse):
    parse()
    texts = ["dim:4,8", "client_learning_rate:0.5", "user_bias:false,true", "model:gmf,mlp"]
    assert parse_sweeps("sweep", texts) == [
        ("dim", [4, 8]),
        ("client_learning_rate", [0.5]),
        ("user_bias", [False, True]),
        ("model", ["gmf", "mlp"]),
    ]


DECIDING = (
    *("dataset", "data_dir", "feedback", "evaluate_on", "unseen_fraction", "held_out_fraction"),
    *("max_ratings_per_user", "label_threshold", "unseen_halves", "support_batch_size"),
    *("synthetic_num_users", "synthetic_num_items", "synthetic_mean_ratings_per_user"),
    *("ratings_file", "columns", "no_ratings", "rating_scale", "off_scale", "duplicates"),
    *("items_file", "positive_from", "min_ratings_per_user", "min_ratings_per_item"),
)


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_the_questions_is_one_thing_for_all_runs(parse, name):
    """Trials that are asked other ratings cannot be ranked."""
    parse()
    message = rf"{name} decides which users are judged, .* Give --{name} once, for all runs\."
    for flag in ("sweep", "search"):
        with pytest.raises(InputError, match=f"^--{flag}={name}:5,20: {message}$"):
            parse_sweeps(flag, [f"{name}:5,20"])
    with pytest.raises(InputError, match=message):
        parse_changes("set", [f"item_knn:{name}=5"], feedback="explicit", known=KNOWN)


def test_every_other_setting_can_be_searched_and_asks_the_same(parse):
    """No setting of training decides what an unseen user gives or is asked."""
    parse()
    others = {"batch_size": 2, "support_query_split": "none", "example_order": "by_time"}
    others |= {"client_epochs": 3, "reconstruction_steps_max": 1}
    base = small_settings(held_out_fraction=0.2, max_ratings_per_user=30, clients_per_round=5)
    population = load_population(base)
    for name, value in others.items():
        assert parse_sweeps("search", [f"{name}:{value}"])
        changed = load_population(dataclasses.replace(base, **{name: value}))
        for group in population.groups:
            asked, again = (feedback_of(p).cases(p, group) for p in (population, changed))
            np.testing.assert_array_equal(asked.item_ids, again.item_ids, name)
            for given, given_again in zip(asked.given, again.given):
                np.testing.assert_array_equal(given[0], given_again[0], name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dim", "--sweep=dim must be SETTING:VALUE,VALUE,..."),
        ("dim:", "--sweep=dim: must be SETTING:VALUE,VALUE,..."),
        ("dim:4,x", "--sweep=dim:4,x: it must be a whole number."),
        ("seed:1", "--sweep=seed:1: seed cannot be changed here."),
    ],
)
def test_wrong_sweeps_are_refused(parse, text, message):
    parse()
    with pytest.raises(InputError) as error:
        parse_sweeps("sweep", [text])
    assert str(error.value) == message


def test_changes_are_by_algorithm_and_names_of_before_are_noted_once(parse, capsys):
    parse()
    texts = ["fedavg:dim=3", "fedavg:l2=0.5", "ials:ridge=2", "fedrecon_ls:ridge=1"]
    changes = parse_changes("set", texts, feedback="implicit", known=KNOWN)
    assert changes == {
        "fed_avg": {"dim": 3, "l2": 0.5},
        "ials": {"ridge": 2.0},
        "fed_ials": {"ridge": 1.0},
    }
    assert capsys.readouterr().err == (
        "note: --set=fedavg is now called fed_avg.\n"
        "note: --set=fedrecon_ls is now called fed_ials.\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fed_avg:dim", "--set=fed_avg:dim must be ALGORITHM:SETTING=VALUE."),
        ("fed_av:dim=3", "there is no algorithm 'fed_av'; did you mean fed_avg"),
        ("fed_avg:dims=3", "there is no setting 'dims'; did you mean dim"),
        ("fed_avg:output_dir=x", "output_dir cannot be changed here."),
    ],
)
def test_wrong_changes_are_refused(parse, text, message):
    parse()
    with pytest.raises(InputError) as error:
        parse_changes("set", [text], feedback="explicit", known=KNOWN)
    assert message in str(error.value)


# --- flags without effect -------------------------------------------------------------------------


def test_a_flag_without_effect_on_any_algorithm_is_refused(parse):
    parse("--minibatch_size=8")
    with pytest.raises(InputError, match="--minibatch_size has no effect with --algorithm=fed_avg"):
        refuse_unused(compared("fed_avg", "fed_ncf"), is_comparison=True)


def test_a_flag_without_effect_on_some_algorithms_is_a_note(parse, capsys):
    parse("--averaging=by_row", "--nouser_bias", "--seed=3")
    refuse_unused(compared("fed_avg", "fed_recon", "popularity"), is_comparison=True)
    assert capsys.readouterr().err == (
        "note: without effect on some algorithms: --averaging (fed_recon).\n"
    )


def test_a_flag_of_a_preset_without_effect_is_a_note_in_a_comparison_alone(parse, capsys, tmp_path):
    preset = tmp_path / "some.flags"
    preset.write_text("--minibatch_size=8\n--batch_size=3\n")
    parse(f"--flagfile={preset}")
    refuse_unused(compared("fed_avg", "item_knn"), is_comparison=True)
    assert capsys.readouterr().err == (
        "note: --minibatch_size has no effect on fed_avg, item_knn.\n"
    )
    with pytest.raises(InputError, match="--minibatch_size has no effect with"):
        refuse_unused(compared("fed_avg"))


def test_flags_without_effect_on_references_alone_are_a_note(parse, capsys):
    parse("--total_rounds=50", "--clients_per_round=3", "--max_ratings_per_user=5")
    refuse_unused(compared("item_knn", "popularity"), is_comparison=True)
    assert capsys.readouterr().err == (
        "note: --total_rounds, --clients_per_round have no effect on item_knn, popularity.\n"
    )


def test_a_setting_that_an_algorithm_does_not_use_does_not_stop_its_run(parse):
    """Federated iALS refuses biases, and popularity has no model that needs labels."""
    parse("--user_bias", "--feedback=implicit", "--model=matrix_factorization")
    fed_ials, fed_avg = compared("fed_ials", "fed_avg")
    assert (fed_ials.user_bias, fed_avg.user_bias) == (False, True)
    parse("--model=neumf")
    (popularity,) = compared("popularity")
    assert popularity.model == "matrix_factorization"
    with pytest.raises(InputError, match="--model=neumf predicts a probability"):
        compared("fed_avg")


def test_without_a_folder_for_the_run_one_is_asked_for():
    parse_flags()
    with pytest.raises(InputError, match=r"^give --output_dir=DIR"):
        settings_from_flags()


def test_the_folder_of_a_comparison_is_no_run(tmp_path):
    run_flags.refuse_comparison(tmp_path)
    (tmp_path / "runs" / "fed_avg-seed0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds several runs; give one .*/runs/fed_avg-seed0"):
        run_flags.refuse_comparison(tmp_path)
