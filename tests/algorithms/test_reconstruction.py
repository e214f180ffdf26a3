"""Which algorithms serve users by the same computation, and what that computation depends on."""

import dataclasses
import functools

import numpy as np
import pytest

from fedrecon.algorithms.fed_ials import prepare_fed_ials
from fedrecon.algorithms.reconstruction import prepare_reconstruction
from fedrecon.data.cohorts import CohortPacker
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_for_ranking
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import model_fn
from fedrecon.options import (
    FedIalsOptions,
    FedReconOptions,
    LeastSquaresOptions,
    OptimizerOptions,
)
from fedrecon.wiring.weights import global_part

NUM_ITEMS = 9
ADAM = OptimizerOptions("adam", 0.25)
# Another value of each setting, where the setting decides how a user is reconstructed ...
THAT_MATTER = {
    "reconstruction": "least_squares",
    "reconstruction_optimizer": ADAM,
    "least_squares": LeastSquaresOptions(3.0),
    "batch_size": 3,
    "reconstruction_epochs": 2,
    "reconstruction_steps_max": 1,
}
# ... and where it does not.
OTHERS = {
    "client_optimizer": OptimizerOptions("sgd", 0.125),
    "server_optimizer": ADAM,
    "support_query_split": "none",
    "client_takes_one_step": True,
    "client_epochs": 4,
    "client_steps_max": 6,
    "client_weighting": "uniform",
}
EXACT = FedReconOptions(reconstruction="least_squares")


def mf(**settings):
    return model_fn(matrix_factorization, NUM_ITEMS, 2, user_bias=True, **settings)


def of(options=None, *, seed=0, **settings):
    return prepare_reconstruction(mf(**settings), options or FedReconOptions(), seed=seed)


def is_shared(first, second):
    """Whether what is compiled for one serves the other, with users packed alike."""
    return (first.key, first.packing) == (second.key, second.packing)


def test_every_setting_either_matters_or_does_not():
    names = {field.name for field in dataclasses.fields(FedReconOptions)}
    assert set(THAT_MATTER) | set(OTHERS) == names
    assert not set(THAT_MATTER) & set(OTHERS)


@pytest.mark.parametrize("name", THAT_MATTER)
def test_a_setting_that_matters_is_told_apart(name):
    changed = of(FedReconOptions(**{name: THAT_MATTER[name]}))
    assert not is_shared(changed, of())
    assert changed.key != of().key  # The packing is the user's own; the computation is not shared.


@pytest.mark.parametrize(
    "changes", [{"regularization": 3.0}, {"exponent": 0.5}, {"bias_regularization": 2.0}]
)
def test_regularization_is_told_apart(changes):
    changed = dataclasses.replace(EXACT, least_squares=LeastSquaresOptions(**changes))
    assert of(changed).key != of(EXACT).key


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_that_does_not_matter_is_not_told_apart(name):
    changed = of(FedReconOptions(**{name: OTHERS[name]}))
    assert is_shared(changed, of())
    assert hash(changed.key) == hash(of().key)


def test_models_are_told_apart_but_for_their_seed():
    assert is_shared(of(), of(**{"seed": 0}))
    assert of(l2=0.5).key != of().key
    other_start = prepare_reconstruction(mf(seed=1), FedReconOptions(), seed=0)
    assert is_shared(other_start, of())


def test_the_seed_of_users_is_in_the_packing_alone():
    other = of(seed=5)
    assert other.key == of().key
    assert other.packing == dataclasses.replace(of().packing, seed=5) != of().packing


# --- federated iALS -------------------------------------------------------------------------------


@functools.cache
def fed_ials(seed=0, **changes):
    ratings = load_dataset(
        "synthetic", num_users=30, num_items=260, mean_ratings_per_user=20, seed=0
    )
    population = divide_for_ranking(ratings, negatives_per_positive=0)
    build_model = model_fn(matrix_factorization, 260, 2, seed=seed)
    algorithm = prepare_fed_ials(
        build_model, FedIalsOptions(**changes), population, clients_per_round=4
    )
    return algorithm.reconstruction


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"regularization": 0.5}, True),
        ({"exponent": 0.5}, True),
        ({"unobserved_weight": 0.5}, True),
        ({"server_optimizer": OptimizerOptions("sgd", 1.0)}, False),
        ({"seed": 4}, False),
    ],
)
def test_federated_ials_is_told_apart_by_its_loss(changes, matters):
    assert is_shared(fed_ials(**changes), fed_ials()) == (not matters)
    assert (fed_ials(**changes).key == fed_ials().key) == (not matters)
    assert fed_ials().key != of().key


# --- what is computed -----------------------------------------------------------------------------


class Given:
    """Three users and their ratings: 7, 4 and none."""

    users = np.arange(3)

    def num_examples(self, user):
        return (7, 4, 0)[user]

    def examples(self, user, round_num=0):
        items = np.random.default_rng(user).permutation(NUM_ITEMS)[: self.num_examples(user)]
        return items, (items % 5 + 1).astype(np.float32)


@functools.cache
def local_values(options, build_model=None):
    """The users' local part, by the computation and the packing of these options."""
    built = prepare_reconstruction(build_model or mf(), options, seed=0)
    (shard,) = CohortPacker(Given(), built.packing, clients_per_shard=4).pack(Given.users, 0)
    weights = global_part(mf(), FunctionalModel(mf()())).initialize()
    (output,) = built.build(4)(weights, [shard])
    order = np.argsort(shard.user_ids[:3])
    return [np.asarray(value)[:3][order] for value in output]


def differ(first, second):
    return any(np.any(a != b) for a, b in zip(first, second))


BASE = FedReconOptions(reconstruction_epochs=3)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("base", [BASE, EXACT], ids=["gradient_steps", "least_squares"])
def test_local_parts_do_not_depend_on_what_is_in_no_key(base):
    """Neither on any other setting, all changed at once, nor on the model's own seed."""
    others = {**OTHERS, "client_epochs": 1, "client_steps_max": None}  # A query of one step.
    changed = dataclasses.replace(base, **others)
    longer = dataclasses.replace(base, client_epochs=4, client_steps_max=6)
    expected = local_values(base)
    assert [value.shape for value in expected] == [(3, 1, 2), (3, 1, 1)]
    for found in (local_values(changed), local_values(longer), local_values(base, mf(seed=1))):
        for one, other in zip(expected, found):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process_runtime")
@pytest.mark.parametrize("name", THAT_MATTER)
def test_local_parts_do_depend_on_what_is_in_the_key(name):
    base = EXACT if name == "least_squares" else BASE
    assert differ(
        local_values(base), local_values(dataclasses.replace(base, **{name: THAT_MATTER[name]}))
    )
