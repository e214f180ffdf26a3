import dataclasses
import json
import re

import pytest
from absl import flags

from experiments.run import settings
from experiments.run.settings import Settings
from fedrecon.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def defined_flags():
    settings.define_flags()


@pytest.fixture
def parse():
    """Returns the settings that a command line gives."""

    def parse_command_line(*arguments):
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
            flags.FLAGS[name].present = 0
        flags.FLAGS(["train", "--output_dir=out", *arguments])
        return settings.from_flags()

    return parse_command_line


def test_without_flags_the_defaults_hold(parse):
    assert parse() == Settings(output_dir="out")


def test_each_setting_is_a_flag(parse):
    given = parse("--dim=7", "--l2=0.25", "--user_bias", "--max_ratings_per_user=9", "--seed=3")
    assert (given.dim, given.l2, given.user_bias, given.max_ratings_per_user) == (7, 0.25, True, 9)
    assert isinstance(given.seed, int)
    assert {f.name for f in dataclasses.fields(Settings)} <= set(flags.FLAGS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model=mlp", "--dim=3"),
            "--dim has no effect with --model=mlp; it belongs to --model=",
        ),
        (("--hidden_units=8,4",), "--hidden_units has no effect with --model=matrix_factorization"),
        (("--dataset=movielens-1m", "--synthetic_num_users=20"), "no effect with --dataset=movie"),
        (("--data_dir=x",), "--data_dir has no effect with --dataset=synthetic"),
        (("--model=neumf",), "predicts a probability; give --label_threshold"),
        (("--model=neumf", "--label_threshold=4", "--hidden_units=7,4"), "the first even"),
        (("--model=neumf", "--label_threshold=4", "--hidden_units=a"), "numbers with commas"),
        (("--client_learning_rate=-1",), "--client_learning_rate=-1.0 must be positive"),
        (("--server_learning_rate=nan",), "--server_learning_rate=nan must be finite"),
        (("--l2=inf",), "--l2=inf must be finite"),
        (("--algorithm=fedrecon_ls", "--ridge=0"), "--ridge=0.0 must be positive"),
        (("--algorithm=fedrecon_ls", "--ridge_exponent=2"), "--ridge_exponent=2.0 must be from 0"),
        (
            ("--algorithm=fedrecon_ls", "--model=gmf", "--feedback=implicit"),
            "--model=gmf is not linear in its local part",
        ),
        (
            ("--algorithm=fedrecon_ls", "--feedback=implicit", "--user_bias"),
            "--user_bias has no place in --algorithm=fedrecon_ls with --feedback=implicit",
        ),
        (("--algorithm=fedrecon_ls", "--feedback=implicit", "--l2=0.1"), "--l2 has no place in"),
        (("--ridge=1",), "--ridge has no effect with --algorithm=fedrecon; it belongs to --algo"),
        (
            ("--reconstruction=least_squares", "--reconstruction_learning_rate=0.1"),
            "--reconstruction_learning_rate has no effect with --reconstruction=least_squares",
        ),
        (("--initial_rating=3",), "--initial_rating has no effect with --global_bias=False"),
    ],
)
def test_settings_that_cannot_work_are_refused(parse, arguments, message):
    with pytest.raises(InputError, match=message):
        parse(*arguments)


IMPLICIT = "--feedback=implicit"


@pytest.mark.parametrize(
    ("argument", "others", "belongs_to"),
    [
        # What only one kind of feedback has.
        (
            "--negatives_per_positive=3",
            (),
            "--feedback=explicit; it belongs to --feedback=implicit",
        ),
        ("--evaluate_on=test", (), "--feedback=explicit"),
        ("--unseen_fraction=0.2", (), "--feedback=explicit"),
        (
            "--held_out_fraction=0.2",
            (IMPLICIT,),
            "implicit; it belongs to --feedback=explicit",
        ),
        ("--example_order=file", (IMPLICIT,), "--feedback=implicit"),
        ("--label_threshold=4", (IMPLICIT,), "--feedback=implicit"),
        ("--engine=stock", (IMPLICIT,), "--feedback=implicit"),
        # What only some algorithms have.
        (
            "--engine=stock",
            ("--algorithm=fedavg",),
            "fedavg; it belongs to --algorithm=fedrecon",
        ),
        (
            "--averaging=by_row",
            (),
            "fedrecon; it belongs to --algorithm=fedavg or stat",
        ),
        ("--gradient_clip_norm=1", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--server_optimizer=adam", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--server_learning_rate=1", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_epochs=2", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_steps_max=2", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_weighting=uniform", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_sampler=queue", ("--algorithm=centralized",), "--algorithm=centralized"),
        # What belongs to either of several things.
        (
            "--reconstruction_epochs=2",
            (IMPLICIT, "--algorithm=fedncf"),
            "--feedback=implicit; it belongs to --feedback=explicit, or --algorithm=fedrecon or "
            "fedavg or stateful_fedavg, or --unseen_fraction other than 0.0.",
        ),
        ("--reconstruction_optimizer=adam", (IMPLICIT, "--algorithm=centralized"), "--unseen_frac"),
        ("--reconstruction_learning_rate=1", (IMPLICIT, "--algorithm=fedncf"), "--unseen_fract"),
        ("--reconstruction_steps_max=9", (IMPLICIT, "--algorithm=fedncf"), "--unseen_fraction"),
        (
            "--support_query_split=none",
            (IMPLICIT, "--algorithm=fedavg"),
            "--feedback=implicit; it belongs to --feedback=explicit, or --algorithm=fedrecon.",
        ),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused_by_name(parse, argument, others, belongs_to):
    name = argument.partition("=")[0]
    with pytest.raises(InputError, match=f"^{name} has no effect with ") as error:
        parse(argument, *others)
    assert belongs_to in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=fedncf", "--unseen_fraction=0.1"),
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=centralized", "--unseen_fraction=0.1"),
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=fedrecon"),
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=fedavg"),
        # Devices that no round has sampled have kept nothing.
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=stateful_fedavg"),
        ("--reconstruction_epochs=2", "--algorithm=fedncf"),  # Unseen users of explicit feedback.
        ("--support_query_split=none", IMPLICIT, "--algorithm=fedrecon"),
        ("--support_query_split=none", "--algorithm=centralized"),
        ("--negatives_per_positive=0", "--evaluate_on=test", IMPLICIT),
        ("--averaging=by_row", "--gradient_clip_norm=2", "--algorithm=fedncf"),
        ("--server_learning_rate=0.5", "--client_sampler=queue", "--algorithm=stateful_fedavg"),
        ("--client_optimizer=adam", "--batch_size=9", "--algorithm=centralized"),
        ("--held_out_fraction=0.5", "--algorithm=centralized"),
        ("--model=neumf", IMPLICIT),  # Its labels are 0 and 1 anyway.
    ],
)
def test_a_flag_that_counts_is_accepted_and_kept(parse, arguments):
    given = parse(*arguments)
    values = given.to_json()
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        assert str(values[name]) in (value, f"{value}.0")
    assert Settings.from_json(json.loads(json.dumps(values))) == given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held_out_fraction=1",), r"--held_out_fraction=1\.0 must be at least 0 and below 1"),
        (("--held_out_fraction=nan",), r"--held_out_fraction=nan must be at least 0 and below 1"),
        ((IMPLICIT, "--unseen_fraction=1.5"), r"--unseen_fraction=1\.5 must be at least 0 and bel"),
    ],
)
def test_shares_are_below_1(parse, arguments, message):
    with pytest.raises(InputError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    "argument",
    [
        *("--dim=0", "--model=svd", "--seed=-1", "--total_rounds=x", "--algorithm=sgd"),
        *("--feedback=both", "--held_out_fraction=-0.1", "--unseen_fraction=-1"),
    ],
)
def test_values_out_of_range_are_refused_by_the_flag(parse, argument):
    with pytest.raises(flags.IllegalFlagValueError):
        parse(argument)


def test_what_solves_is_told_apart(parse):
    """Whose local part is solved for, where, and which loss regularises it."""
    ls = parse("--algorithm=fedrecon_ls", "--ridge=3")
    assert (ls.is_solved, ls.trains_by_solving, ls.is_fed_ials, ls.ridge) == (True, True, False, 3)
    implicit = parse("--algorithm=fedrecon_ls", "--feedback=implicit", "--unobserved_weight=0.5")
    assert (implicit.is_fed_ials, implicit.unobserved_weight) == (True, 0.5)
    central = parse("--algorithm=centralized", "--reconstruction=least_squares", "--bias_ridge=2")
    assert (central.is_solved, central.trains_by_solving) == (True, False)
    assert not parse().is_solved
    # Runs that are evaluated otherwise do not share an evaluation.
    evaluations = {settings.of_evaluation(each) for each in (ls, implicit, central, parse())}
    assert len(evaluations) == 4
    # Clients of federated iALS have no negatives, whatever others draw.
    assert settings.of_data(implicit).negatives_per_positive == 0
    assert settings.of_data(parse("--feedback=implicit")).negatives_per_positive == 4


def test_config_json_holds_what_is_used_and_gives_the_same_settings_back(parse):
    given = parse("--model=mlp", "--label_threshold=4", "--hidden_units=8,4", "--batch_size=3")
    values = json.loads(json.dumps(given.to_json()))
    assert "dim" not in values  # The MLP has no such setting.
    assert values["hidden_units"] == "8,4"
    assert Settings.from_json(values) == given


def test_people_are_shared_by_runs_that_differ_in_nothing_they_follow_from():
    values = {
        **{"dataset": "movielens-1m", "data_dir": "x", "synthetic_num_users": 3},
        **{"synthetic_num_items": 4, "synthetic_mean_ratings_per_user": 5},
        **{"max_ratings_per_user": 6, "feedback": "implicit", "negatives_per_positive": 7},
        **{"evaluate_on": "test", "unseen_fraction": 0.5, "held_out_fraction": 0.5},
        **{"example_order": "file", "label_threshold": 4.0, "seed": 8},
    }
    for name, value in values.items():
        assert settings.of_data(Settings(**{name: value})) != settings.of_data(Settings()), name
    others = {"dim": 3, "algorithm": "fedavg", "batch_size": 9, "clients_per_round": 2}
    assert settings.of_data(Settings(**values, **others)) == settings.of_data(Settings(**values))


@pytest.mark.parametrize(
    ("arguments", "unused", "used"),
    [
        (
            (),
            {"negatives_per_positive", "evaluate_on", "unseen_fraction", "averaging", "data_dir"},
            {"engine", "held_out_fraction", "reconstruction_epochs", "synthetic_num_users"},
        ),
        (
            (IMPLICIT, "--algorithm=fedncf", "--model=gmf"),
            {"engine", "example_order", "reconstruction_optimizer", "support_query_split"}
            | {"user_bias", "hidden_units", "label_threshold"},
            {"negatives_per_positive", "unseen_fraction", "averaging", "server_optimizer"},
        ),
        (
            (IMPLICIT, "--algorithm=centralized"),
            {"server_optimizer", "client_epochs", "client_sampler", "averaging", "client_weighting"}
            | {"reconstruction_steps_max", "engine"},
            {"client_optimizer", "batch_size", "clients_per_round", "evaluate_on"},
        ),
        (
            ("--algorithm=stateful_fedavg", IMPLICIT),
            {"engine", "support_query_split"},
            {"reconstruction_epochs", "client_sampler", "gradient_clip_norm"},
        ),
    ],
)
def test_config_json_holds_nothing_that_is_not_used(parse, arguments, unused, used):
    given = parse(*arguments)
    names = set(given.to_json())
    assert not names & unused
    assert used <= names
    assert names == {f.name for f in dataclasses.fields(Settings) if settings.uses(given, f.name)}


def test_settings_of_another_version_are_named():
    with pytest.raises(InputError, match="settings unknown here: colour, zeal"):
        Settings.from_json({"zeal": 1, "colour": 2, "dim": 3})


def test_presets_are_complete_command_lines(parse, repository):
    presets = sorted((repository / "experiments" / "presets").glob("*.flags"))
    # The others are of `experiments.compare` and `experiments.tune`, which have flags of their own.
    of_training = [
        preset
        for preset in presets
        if not {"--algorithms=", "--search="}
        & set(re.findall(r"^--\w+=", preset.read_text(), re.M))
    ]
    assert len(of_training) >= 2
    for preset in of_training:
        parse(f"--flagfile={preset}")
    paper = parse(f"--flagfile={repository}/experiments/presets/fedrecon_ml1m_paper.flags")
    assert (paper.client_learning_rate, paper.server_learning_rate) == (0.5, 1.0)
    assert (paper.reconstruction_learning_rate, paper.reconstruction_epochs) == (0.1, 5)
    assert (paper.batch_size, paper.clients_per_round, paper.total_rounds) == (5, 100, 500)
    assert (paper.dim, paper.max_ratings_per_user) == (50, 300)
    assert paper.reconstruction_steps_max == paper.client_steps_max == 50
    fedncf = parse(f"--flagfile={repository}/experiments/presets/fedncf_ml1m.flags")
    assert (fedncf.algorithm, fedncf.feedback, fedncf.evaluate_on) == ("fedncf", "implicit", "test")
    assert (fedncf.clients_per_round, fedncf.client_epochs) == (50, 3)
