import dataclasses
import json
import re

import pytest
from absl import flags

from experiments.run import fields, population, settings
from experiments.run.flags import refuse_unused, settings_from_flags
from experiments.run.names import ALGORITHMS
from experiments.run.settings import Settings
from fedrecon.data.datasets import DATASET_NAMES
from fedrecon.errors import InputError
from tests.experiments.small import parse_flags


@pytest.fixture
def parse():
    """Returns the settings that a command line gives to `experiments.train`."""

    def parse_command_line(*arguments):
        parse_flags("--output_dir=out", *arguments)
        chosen = settings_from_flags()
        refuse_unused([chosen])
        return chosen

    return parse_command_line


def test_without_flags_the_defaults_hold(parse):
    biases = dict.fromkeys(("user_bias", "item_bias", "global_bias", "mean_user"), True)
    assert parse() == Settings(
        output_dir="out", **biases, reconstruction_epochs=5, client_learning_rate=0.5
    )
    # What depends on the algorithm, the feedback or the model; each flag wins over it.
    assert parse("--nouser_bias", "--client_learning_rate=0.3") == Settings(
        output_dir="out",
        **{**biases, "user_bias": False},
        reconstruction_epochs=5,
        client_learning_rate=0.3,
    )
    fed_ncf = parse("--algorithm=fed_ncf")
    assert (fed_ncf.averaging, fed_ncf.reconstruction) == ("by_row", "least_squares")
    features = ("--item_features=genres",)
    assert parse(*features).item_features_norm == 0.1
    assert parse(*features, "--item_features_norm=0.3").item_features_norm == 0.3
    assert parse(*features, "--algorithm=fed_recon_ls").item_features_norm == 1.0
    by_steps = parse("--algorithm=fed_ncf", "--reconstruction_epochs=2")
    assert (by_steps.reconstruction, by_steps.reconstruction_epochs) == ("gradient_steps", 2)
    neural = parse("--algorithm=fed_avg", "--model=gmf", "--label_threshold=4")
    assert neural.reconstruction == "gradient_steps"


@pytest.mark.parametrize(
    ("arguments", "feedback"),
    [
        ((), "explicit"),
        (("--dataset=ncf-ml-1m",), "implicit"),
        (("--dataset=ncf-ml-1m", "--feedback=explicit"), "explicit"),
        (("--algorithm=fed_ials",), "implicit"),
        (("--algorithm=fed_recon", "--dataset=movielens-1m"), "explicit"),
    ],
)
def test_the_data_or_the_algorithm_says_the_feedback(parse, arguments, feedback):
    assert parse(*arguments).feedback == feedback


def test_a_file_of_ones_own_takes_the_place_of_a_data_set(parse):
    given = parse("--ratings_file=mine.csv", "--columns=user=who,item=what,rating=stars")
    assert (given.dataset, given.ratings_file) == ("file", "mine.csv")
    assert Settings.from_json(given.to_json()) == given
    interactions = parse("--ratings_file=log.csv", "--no_ratings", "--algorithm=fed_ials")
    assert interactions.feedback == "implicit"
    assert not {"rating_scale", "positive_from"} & set(interactions.to_json())


def test_each_setting_is_a_flag(parse):
    given = parse("--dim=7", "--l2=0.25", "--user_bias", "--max_ratings_per_user=9", "--seed=3")
    assert (given.dim, given.l2, given.user_bias, given.max_ratings_per_user) == (7, 0.25, True, 9)
    assert isinstance(given.seed, int)
    assert {f.name for f in dataclasses.fields(Settings)} <= set(flags.FLAGS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model=mlp", "--label_threshold=4", "--dim=3"),
            "--dim has no effect with --model=mlp; it belongs to --model other than mlp",
        ),
        (("--hidden_units=8,4",), "--hidden_units has no effect with --model=matrix_factorization"),
        (("--dataset=movielens-1m", "--synthetic_num_users=20"), "no effect with --dataset=movie"),
        (("--data_dir=x",), "--data_dir has no effect with --dataset=synthetic"),
        (("--ratings_file=x", "--data_dir=y"), "--data_dir has no effect with --dataset=file"),
        (("--ratings_file=x", "--dataset=movielens-1m"), "give --ratings_file or --dataset, not b"),
        (("--dataset=file",), "give --ratings_file=FILE without --dataset, or --dataset=NAME alo"),
        (
            ("--columns=user=1,item=2",),
            "--columns has no effect with --dataset=synthetic; it belongs to --ratings_file.",
        ),
        (("--no_ratings",), "--no_ratings has no effect with --dataset=synthetic"),
        (
            ("--ratings_file=x", "--no_ratings", "--rating_scale=1,5,1"),
            "--rating_scale has no effect with --no_ratings=True; it belongs to --no_ratings=False",
        ),
        (
            ("--ratings_file=x", "--no_ratings", "--feedback=explicit"),
            "--no_ratings leaves nothing that --feedback=explicit could predict",
        ),
        (("--ratings_file=x", "--columns=user"), "=user must be some of user=COLUMN,item=COLUMN,"),
        (("--ratings_file=x", "--columns=user=1,user=2"), "must be some of user=COLUMN,item="),
        (("--ratings_file=x", "--rating_scale=1,5"), "must be MIN,MAX,STEP, such as 1,5,0.5"),
        (("--ratings_file=x", "--rating_scale=5,1,1"), "A rating scale needs minimum < maximum"),
        (("--ratings_file=x", "--duplicates=first"), "--duplicates=first must be refuse, latest o"),
        (("--positive_from=4",), "--positive_from has no effect with --feedback=explicit"),
        (
            ("--dataset=ncf-ml-1m", "--min_ratings_per_user=2"),
            "--min_ratings_per_user has no effect with --dataset=ncf-ml-1m",
        ),
        (("--model=neumf",), "predicts a probability; give --label_threshold"),
        (("--model=neumf", "--label_threshold=4", "--hidden_units=7,4"), "the first even"),
        (("--model=neumf", "--label_threshold=4", "--hidden_units=a"), "numbers from 1 to"),
        (("--client_learning_rate=-1",), "--client_learning_rate=-1.0 must be positive"),
        (("--server_learning_rate=nan",), "--server_learning_rate=nan must be finite"),
        (("--l2=inf",), "--l2=inf must be finite"),
        (("--l2=1e39",), r"--l2=1e\+39 must be at most 1e\+38"),
        (("--client_learning_rate=1e300",), r"=1e\+300 must be at most 1e\+38"),
        (("--algorithm=fed_recon_ls", "--ridge=0"), "--ridge=0.0 must be positive"),
        (("--algorithm=fed_recon_ls", "--ridge_exponent=2"), "--ridge_exponent=2.0 must be from 0"),
        (
            ("--algorithm=fed_ials", "--model=gmf", "--feedback=implicit"),
            "--model=gmf is not linear in its local part",
        ),
        (
            ("--algorithm=fed_ials", "--feedback=implicit", "--user_bias"),
            "--user_bias has no effect with --algorithm=fed_ials; it belongs to --algorithm other",
        ),
        (
            ("--algorithm=fed_recon_ls", "--user_l2=0.1"),
            "--user_l2 has no effect with --algorithm=fed_recon_ls",
        ),
        (
            ("--algorithm=fed_recon", "--reconstruction=least_squares", "--user_l2=0.1"),
            "--user_l2 has no effect where training solves for the user's part; give --ridge",
        ),
        (
            ("--algorithm=fed_ials", "--feedback=implicit", "--l2=0.1"),
            "--l2 has no effect with",
        ),
        (
            ("--algorithm=fed_ials", "--feedback=explicit"),
            "fed_ials is for implicit feedback; leave it out, or give",
        ),
        (
            ("--algorithm=fed_recon_ls", "--feedback=implicit"),
            "fed_recon_ls predicts ratings; with --feedback=implicit give --algorithm=fed_ials.",
        ),
        (
            ("--algorithm=fed_recon_ls", "--bias_ridge=3", "--nouser_bias"),
            "--bias_ridge has no effect with --user_bias=False; it belongs to --user_bias=True, or",
        ),
        (
            ("--algorithm=fed_avg", "--gradient_clip_norm=-1"),
            "norm=-1.0 must be positive",
        ),
        (("--algorithm=fed_avg", "--gradient_clip_norm=0"), "norm=0.0 must be positive"),
        (
            ("--algorithm=fed_avg", "--engine=stock"),
            "--engine=stock is TFF's own FedRecon",
        ),
        (
            ("--engine=stock", "--feedback=implicit"),
            "--engine=stock is TFF's own FedRecon",
        ),
        (
            ("--engine=stock", "--reconstruction=least_squares"),
            "--engine=stock is TFF's own FedRecon",
        ),
        (
            ("--algorithm=centralized", "--engine=debug"),
            "--engine has no effect with --algorithm=centralized; it belongs to --algorithm=fed_",
        ),
        (("--batch_size=1000000000000",), "--batch_size=1000000000000 must be from 1 to 100,000."),
        (("--dim=100000000",), "--dim=100000000 must be from 1 to 65,536."),
        (("--total_rounds=10000001",), "--total_rounds=10000001 must be from 1 to 10,000,000."),
        (
            ("--model=neumf", "--label_threshold=4", "--hidden_units=70000,4"),
            "from 1 to 65536",
        ),
        (("--algorithm=item_knn",), "item_knn is a reference, which has no rounds to train; exper"),
        (("--model=own:build", "--user_bias"), "--user_bias has no effect with --model=own:build"),
        (("--model=own:",), "--model=own: must be matrix_factorization, gmf, mlp or neumf."),
        (("--ridge=1",), "--ridge has no effect with --algorithm=fed_recon; it belongs to --algo"),
        (
            ("--reconstruction=least_squares", "--reconstruction_learning_rate=0.1"),
            "--reconstruction_learning_rate has no effect with --reconstruction=least_squares",
        ),
        (
            ("--initial_rating=3", "--noglobal_bias"),
            "--initial_rating has no effect with --global_bias=False",
        ),
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
        ("--cold_items_fraction=0.2", (IMPLICIT,), "--feedback=implicit"),
        ("--item_features=genres", ("--model=gmf", IMPLICIT), "--model=matrix_factorization"),
        ("--item_features=genres", ("--algorithm=fed_ials",), "--algorithm=fed_ials"),
        ("--example_order=by_time", (IMPLICIT,), "--feedback=implicit"),
        ("--unseen_halves=by_time", (IMPLICIT,), "--feedback=implicit"),
        ("--support_batch_size=2", (IMPLICIT,), "--feedback=implicit"),
        ("--support_batch_size=2", ("--unseen_halves=by_time",), "--unseen_halves=by_time"),
        ("--label_threshold=4", (IMPLICIT,), "--feedback=implicit"),
        # What only some algorithms have.
        (
            "--engine=debug",
            ("--algorithm=fed_recon_ls",),
            "fed_recon_ls; it belongs to --algorithm=fed_recon, fed_avg, stateful_fed_avg or",
        ),
        (
            "--averaging=by_row",
            (),
            "fed_recon; it belongs to --algorithm=fed_avg, stat",
        ),
        ("--gradient_clip_norm=1", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--server_optimizer=adam", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--server_learning_rate=1", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_epochs=2", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_steps_max=2", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_weighting=uniform", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--client_sampler=queue", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--clients_per_shard=5", ("--algorithm=centralized",), "--algorithm=centralized"),
        ("--clients_per_shard=5", ("--engine=debug",), "--engine=cohort"),
        # What belongs to either of several things.
        (
            "--reconstruction_epochs=2",
            (IMPLICIT, "--algorithm=fed_ncf"),
            "--feedback=implicit; it belongs to --feedback=explicit, or --algorithm=fed_recon, "
            "fed_avg or stateful_fed_avg, or --unseen_fraction other than 0.0, or "
            "--split=strong_generalization.",
        ),
        ("--reconstruction_optimizer=adam", (IMPLICIT, "--algorithm=centralized"), "--unseen_frac"),
        ("--reconstruction_learning_rate=1", (IMPLICIT, "--algorithm=fed_ncf"), "--unseen_fract"),
        ("--reconstruction_steps_max=9", (IMPLICIT, "--algorithm=fed_ncf"), "--unseen_fraction"),
        (
            "--support_query_split=none",
            ("--algorithm=fed_avg",),
            "--algorithm=fed_avg; it belongs to --algorithm=fed_recon or fed_recon_ls.",
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
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=fed_ncf", "--unseen_fraction=0.1"),
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=centralized", "--unseen_fraction=0.1"),
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=fed_recon"),
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=fed_avg"),
        # Devices that no round has sampled have kept nothing.
        ("--reconstruction_epochs=2", IMPLICIT, "--algorithm=stateful_fed_avg"),
        ("--reconstruction_epochs=2", "--algorithm=fed_ncf"),  # Unseen users of explicit feedback.
        ("--support_query_split=none", IMPLICIT, "--algorithm=fed_recon"),
        ("--support_query_split=none", "--algorithm=fed_recon_ls"),
        ("--support_batch_size=2", "--algorithm=centralized"),
        ("--negatives_per_positive=0", "--evaluate_on=test", IMPLICIT),
        ("--averaging=by_row", "--gradient_clip_norm=2", "--algorithm=fed_ncf"),
        ("--server_learning_rate=0.5", "--client_sampler=queue", "--algorithm=stateful_fed_avg"),
        ("--client_optimizer=adam", "--batch_size=9", "--algorithm=centralized"),
        ("--held_out_fraction=0.5", "--algorithm=centralized"),
        ("--clients_per_shard=5", "--algorithm=fed_recon_ls"),
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
        (("--held_out_fraction=nan",), r"--held_out_fraction=nan must be finite"),
        ((IMPLICIT, "--unseen_fraction=1.5"), r"--unseen_fraction=1\.5 must be at least 0 and bel"),
    ],
)
def test_shares_are_below_1(parse, arguments, message):
    with pytest.raises(InputError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dim=0",), "must be from 1 to 65,536."),
        (("--model=svd",), "must be matrix_factorization, gmf, mlp or neumf."),
        (
            ("--model=neunf",),
            "gmf, mlp or neumf; did you mean neumf?",
        ),
        (("--seed=-1",), "must be from 0 to "),
        (("--algorithm=sgd",), "must be fed_recon, fed_recon_ls, fed_ials, fed_avg, stateful_fed_"),
        (("--algorithm=fed_averag",), "; did you mean fed_avg?"),
        (("--feedback=implicite",), "must be explicit or implicit; did you mean implicit"),
        (("--feedback=both",), "must be explicit or implicit."),
        (("--held_out_fraction=-0.1",), "must be at least 0 and below 1."),
        (("--unseen_fraction=-1", "--feedback=implicit"), "must be at least 0 and below 1."),
        (("--client_optimizer=adm",), "; did you mean adam"),
    ],
)
def test_values_out_of_range_are_refused_with_near_names(parse, arguments, message):
    name = arguments[0].partition("=")[0]
    with pytest.raises(InputError, match=f"^{name}=") as error:
        parse(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--total_rounds=x", "it must be a whole number"), ("--l2=much", "it must be a number")],
)
def test_numbers_are_numbers(parse, argument, message):
    with pytest.raises(flags.IllegalFlagValueError, match=f"{argument}: {message}"):
        parse(argument)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 2.5}, "--dim=2.5 must be a whole number"),
        ({"dim": True}, "--dim=True must be a whole number"),
        ({"user_bias": 1}, "--user_bias=1 must be true or false"),
        ({"l2": "0.5"}, "--l2=0.5 must be a number"),
        ({"model": None}, "--model=None must be text"),
        ({"algorithm": "fed_ials", "feedback": "implicit", "l2": 0.5}, "--l2 has no effect with"),
        (
            {"algorithm": "fed_ials", "feedback": "implicit", "item_features": "genres"},
            "--item_features has no effect with --algorithm=fed_ials",
        ),
        ({"item_features": "genre"}, "--item_features=genre must be genres; did you mean genres"),
        ({"algorithm": "genre_mean", "feedback": "implicit"}, "genre_mean predicts ratings; leave"),
    ],
)
def test_a_record_made_by_hand_is_checked_alike(wrong, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Settings(**wrong)


def test_a_whole_number_is_a_number():
    assert Settings(l2=1).l2 == 1


def test_each_field_has_a_kind_and_its_default_is_of_it():
    for field in dataclasses.fields(Settings):
        kind = fields.kind(field)
        assert kind in (str, int, float, bool), field.name
        assert field.default is None or type(field.default) is kind, field.name
        assert field.metadata["group"] in fields.GROUPS
    kinds = {name: fields.kind(settings.field_of(name)) for name in ("data_dir", "ridge", "seed")}
    assert kinds == {"data_dir": str, "ridge": float, "seed": int}
    assert fields.kind(settings.field_of("max_ratings_per_user")) is int  # It may be None.


def test_help_names_each_data_set_and_each_algorithm():
    for name in DATASET_NAMES:
        assert name in settings.field_of("dataset").metadata["help"]
    for name in ALGORITHMS:
        assert f"{name}:" in settings.field_of("algorithm").metadata["help"]


def test_a_model_of_ones_own_is_let_through(parse):
    given = parse("--model=my_package.models:build", "--dim=3", "--l2=0.5")
    assert (given.model, given.dim, given.l2) == ("my_package.models:build", 3, 0.5)
    assert not {"user_bias", "spread_out", "hidden_units"} & set(given.to_json())
    # Whether it is linear in its local part is known when it is built; it may have a user bias.
    assert parse("--model=own:build", "--algorithm=fed_recon_ls", "--bias_ridge=2").is_solved


def test_what_solves_is_told_apart(parse):
    """Which local part is solved for, where, and which loss regularizes it."""
    ls = parse("--algorithm=fed_recon_ls", "--ridge=3")
    assert (ls.is_solved, ls.trains_by_solving, ls.ridge) == (True, True, 3)
    implicit = parse("--algorithm=fed_ials", "--feedback=implicit", "--unobserved_weight=0.5")
    assert (implicit.is_solved, implicit.trains_by_solving) == (True, True)
    assert implicit.unobserved_weight == 0.5
    central = parse(
        *("--algorithm=centralized", "--reconstruction=least_squares", "--bias_ridge=2"),
        "--user_bias",
    )
    assert (central.is_solved, central.trains_by_solving) == (True, False)
    assert not parse().is_solved
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
        **{"dataset": "movielens-1m", "data_dir": "x", "synthetic_num_users": 30},
        **{"synthetic_num_items": 4, "synthetic_mean_ratings_per_user": 25},
        **{"max_ratings_per_user": 6, "feedback": "implicit", "negatives_per_positive": 7},
        **{"evaluate_on": "test", "unseen_fraction": 0.5, "held_out_fraction": 0.5},
        **{"cold_items_fraction": 0.5},
        **{"example_order": "by_time", "label_threshold": 4.0, "seed": 8},
        **{"unseen_halves": "by_time", "support_batch_size": 2, "positive_from": 4.0},
        **{"min_ratings_per_user": 3, "min_ratings_per_item": 2},
    }
    of_file = {"columns": "user=1,item=2", "rating_scale": "1,5,1", "off_scale": "drop"}
    of_file |= {"duplicates": "mean", "items_file": "y"}
    whole = Settings(dataset="file", ratings_file="x")
    assert settings.of_data(whole) != settings.of_data(Settings())
    for name, value in of_file.items():
        assert settings.of_data(dataclasses.replace(whole, **{name: value})) != whole, name
    for name, value in values.items():
        assert settings.of_data(Settings(**{name: value})) != settings.of_data(Settings()), name
    others = {"dim": 3, "algorithm": "fed_avg", "batch_size": 9, "clients_per_round": 2}
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
            (IMPLICIT, "--algorithm=fed_ncf", "--model=gmf"),
            {"example_order", "reconstruction_optimizer", "support_query_split"}
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
            ("--algorithm=stateful_fed_avg", IMPLICIT),
            {"support_query_split", "reconstruction_epochs"},
            {"ridge", "client_sampler", "gradient_clip_norm"},
        ),
    ],
)
def test_config_json_holds_nothing_that_is_not_used(parse, arguments, unused, used):
    given = parse(*arguments)
    names = set(given.to_json())
    assert not names & unused
    assert used <= names
    assert names == {f.name for f in dataclasses.fields(Settings) if settings.uses(given, f.name)}


def test_runs_of_other_versions_are_refused_in_a_sentence(tmp_path):
    settings.check_format({"format": settings.FORMAT}, tmp_path)
    for config in ({"settings": {"algorithm": "fedrecon"}}, {"format": settings.FORMAT + 1}):
        with pytest.raises(InputError, match=f"^{tmp_path} is the run of another version.*again"):
            settings.check_format(config, tmp_path)


def test_a_setting_without_effect_has_its_default():
    """Else two runs of a comparison would differ by what neither uses."""
    values = {"algorithm": "fed_ncf", "feedback": "implicit", "averaging": "by_row"}
    # With this feedback the server has a row of each user: none is rebuilt, so none is solved for.
    unused = {"reconstruction": "least_squares", "ridge": 3.0, "label_threshold": 4.0}
    assert Settings.of_used({**values, **unused}) == Settings(**values)
    popularity = Settings.of_used({"algorithm": "popularity", "model": "neumf", "seed": 3})
    assert popularity == Settings(algorithm="popularity", seed=3)


def test_references_use_few_settings():
    data = {"dataset", "synthetic_num_users", "synthetic_num_items", "feedback", "seed"}
    data |= {"synthetic_mean_ratings_per_user", "max_ratings_per_user", "output_dir", "algorithm"}
    data |= {"min_ratings_per_user", "min_ratings_per_item", "split"}
    explicit = {"held_out_fraction", "example_order", "label_threshold", "cold_items_fraction"}
    explicit |= {"unseen_halves", "support_batch_size"}
    implicit = {"negatives_per_positive", "evaluate_on", "unseen_fraction", "positive_from"}
    of_ials = {"dim", "ridge", "unobserved_weight"}
    for algorithm, feedback, used in (
        ("popularity", "explicit", data | explicit),
        ("genre_mean", "explicit", data | explicit),
        ("item_knn", "implicit", data | implicit | {"num_neighbors", "shrinkage"}),
        ("ease", "implicit", data | implicit | {"ridge"}),
        ("fed_ease", "implicit", data | implicit - {"negatives_per_positive"} | {"ridge"}),
        ("ials", "implicit", data | implicit | of_ials),
    ):
        assert set(Settings(algorithm=algorithm, feedback=feedback).to_json()) == used


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
    paper = parse(f"--flagfile={repository}/experiments/presets/paper_ml1m.flags")
    assert (paper.client_learning_rate, paper.server_learning_rate) == (0.5, 1.0)
    assert (paper.reconstruction_learning_rate, paper.reconstruction_epochs) == (0.1, 5)
    assert (paper.batch_size, paper.clients_per_round, paper.total_rounds) == (5, 100, 1900)
    assert paper.split == "published"
    assert (paper.dim, paper.max_ratings_per_user) == (50, 300)
    assert paper.reconstruction_steps_max == paper.client_steps_max == 50
    fed_ncf = parse(f"--flagfile={repository}/experiments/presets/fed_ncf_ml1m.flags")
    assert (fed_ncf.algorithm, fed_ncf.feedback, fed_ncf.evaluate_on) == (
        "fed_ncf",
        "implicit",
        "test",
    )
    assert (fed_ncf.clients_per_round, fed_ncf.client_epochs) == (50, 3)


def test_strong_generalization_is_a_split_of_implicit_feedback(parse):
    strong = parse("--split=strong_generalization", "--num_held_out_users=5", "--algorithm=fed_ncf")
    assert (strong.feedback, strong.num_held_out_users) == ("implicit", 5)
    # Its held-out users are unseen, so whoever keeps user rows reconstructs them.
    assert {"split", "num_held_out_users", "reconstruction"} <= set(strong.to_json())
    assert not {"evaluate_on", "unseen_fraction"} & set(strong.to_json())
    standard = parse("--feedback=implicit")
    assert standard.split == "standard"
    assert "num_held_out_users" not in standard.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--feedback=explicit",), "ranks items; leave --feedback=explicit out"),
        (("--dataset=ncf-ml-1m",), "--dataset=ncf-ml-1m says itself which items are held out"),
        (
            ("--algorithm=fed_ials", "--warm_start=x"),
            "--warm_start has no meaning with --split=str",
        ),
        (("--algorithm=fed_ials", "--unseen_fraction=0.1"), "--unseen_fraction has no effect with"),
        (
            ("--algorithm=fed_ials", "--evaluate_on=test"),
            "--evaluate_on has no effect with --split",
        ),
    ],
)
def test_what_does_not_go_with_strong_generalization_is_refused(parse, arguments, message):
    with pytest.raises(InputError, match=message):
        parse("--split=strong_generalization", *arguments)


def test_held_out_users_are_counted_only_by_strong_generalization(parse):
    with pytest.raises(InputError, match="it belongs to --split=strong_generalization"):
        parse("--num_held_out_users=5", "--algorithm=fed_ials")


def test_each_split_has_a_function():
    assert tuple(population._DIVIDE) == settings.SPLITS


def test_the_published_split_leaves_no_choice_of_ours(parse):
    paper = parse("--split=published", "--dataset=movielens-1m")
    ours = {"held_out_fraction", "cold_items_fraction", "unseen_halves", "example_order"}
    assert not ours & set(paper.to_json())
    assert {"split", "support_batch_size", "max_ratings_per_user"} <= set(paper.to_json())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--dataset is synthetic; give --dataset=movielens-1m"),
        (("--dataset=movielens-1m", IMPLICIT), "give --feedback=explicit"),
        (("--dataset=movielens-1m", "--warm_start=x"), "--warm_start keeps users in their part"),
        (("--dataset=movielens-1m", "--held_out_fraction=0.1"), "--held_out_fraction has no eff"),
        (("--dataset=movielens-1m", "--example_order=by_time"), "--example_order has no effect"),
    ],
)
def test_what_does_not_go_with_the_published_split_is_refused(parse, arguments, message):
    with pytest.raises(InputError, match=message):
        parse("--split=published", *arguments)


def test_one_row_for_all_users_is_the_row_of_the_mean_user(parse):
    shared = parse("--algorithm=fed_avg", "--local_part=shared", "--mean_user")
    assert shared.shares_user_row
    with pytest.raises(InputError, match="--local_part=shared is the row of --mean_user"):
        parse("--algorithm=fed_avg", "--local_part=shared", "--mean_user=false")
    with pytest.raises(InputError, match="--local_part has no effect"):
        parse("--algorithm=fed_recon", "--local_part=shared")


def test_a_leak_is_of_drawn_negatives(parse):
    assert parse(IMPLICIT, "--algorithm=fed_ncf", "--leaks_test_item").leaks_test_item
    for others in (("--algorithm=fed_ncf",), (IMPLICIT, "--algorithm=fed_ials")):
        with pytest.raises(InputError, match="--leaks_test_item has no effect"):
            parse("--leaks_test_item", *others)
