import dataclasses
import json

import pytest
from absl import flags

from experiments import settings
from experiments.settings import Settings
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
    ],
)
def test_settings_that_cannot_work_are_refused(parse, arguments, message):
    with pytest.raises(InputError, match=message):
        parse(*arguments)


@pytest.mark.parametrize("argument", ["--dim=0", "--model=svd", "--seed=-1", "--total_rounds=x"])
def test_values_out_of_range_are_refused_by_the_flag(parse, argument):
    with pytest.raises(flags.IllegalFlagValueError):
        parse(argument)


def test_config_json_holds_what_is_used_and_gives_the_same_settings_back(parse):
    given = parse("--model=mlp", "--label_threshold=4", "--hidden_units=8,4", "--batch_size=3")
    values = json.loads(json.dumps(given.to_json()))
    assert "dim" not in values  # The MLP has no such setting.
    assert values["hidden_units"] == "8,4"
    assert Settings.from_json(values) == given


def test_settings_of_another_version_are_named():
    with pytest.raises(InputError, match="settings unknown here: colour, zeal"):
        Settings.from_json({"zeal": 1, "colour": 2, "dim": 3})


def test_presets_are_complete_command_lines(parse, repository):
    presets = sorted((repository / "experiments" / "presets").glob("*.flags"))
    assert len(presets) >= 2
    for preset in presets:
        parse(f"--flagfile={preset}")
    paper = parse(f"--flagfile={repository}/experiments/presets/fedrecon_ml1m_paper.flags")
    assert (paper.client_learning_rate, paper.server_learning_rate) == (0.5, 1.0)
    assert (paper.reconstruction_learning_rate, paper.reconstruction_epochs) == (0.1, 5)
    assert (paper.batch_size, paper.clients_per_round, paper.total_rounds) == (5, 100, 500)
    assert (paper.dim, paper.max_ratings_per_user) == (50, 300)
    assert paper.reconstruction_steps_max == paper.client_steps_max == 50
