"""Who trains, who is evaluated, and on what: nobody may be in two parts."""

import numpy as np
import pytest

from experiments import tasks
from experiments.settings import Settings
from fedrecon.errors import InputError

SETTINGS = Settings(
    synthetic_num_users=60,
    synthetic_num_items=60,
    synthetic_mean_ratings_per_user=25,
    max_ratings_per_user=12,
    dim=2,
    clients_per_round=7,
    batch_size=5,
)


def replace(**changes):
    return Settings(**{**SETTINGS.to_json(), **changes})


@pytest.fixture(scope="module")
def clients():
    return tasks.load_clients(SETTINGS)


def test_the_parts_are_different_people(clients):
    parts = clients.users
    assert {name: len(users) for name, users in parts.items()} == {
        "train": 48,
        "validation": 6,
        "test": 6,
    }
    assert len(np.unique(np.concatenate(list(parts.values())))) == 60


def test_the_parts_depend_on_the_seed_alone(clients):
    again = tasks.load_clients(replace(dim=5, clients_per_round=3))
    other = tasks.load_clients(replace(seed=1))
    for name, users in clients.users.items():
        assert np.array_equal(users, again.users[name])
    assert not np.array_equal(clients.users["test"], other.users["test"])


@pytest.mark.parametrize("sampler", ["uniform", "queue"])
def test_only_training_users_train_and_each_is_a_client_with_own_ratings(clients, sampler):
    task = tasks.build_task(replace(client_sampler=sampler, engine="stock"), clients)
    ratings = clients.examples.ratings
    for round_num in range(1, 20):
        cohort = task.sample_cohort(round_num)
        assert len(set(cohort)) == 7
        assert set(cohort) <= set(clients.users["train"])
    datasets = task.training_data(cohort, 19)
    assert len(datasets) == 7
    for user, dataset in zip(cohort, datasets):
        batches = list(dataset.as_numpy_iterator())
        assert [len(batch["x"]) for batch in batches] == [5, 5, 2]  # 12 ratings at most.
        rated = {
            (item, rating)
            for item, rating in zip(
                ratings.item_ids[ratings.user_ids == user],
                ratings.ratings[ratings.user_ids == user],
            )
        }
        given = {(x[0], y[0]) for batch in batches for x, y in zip(batch["x"], batch["y"])}
        assert len(given) == 12
        assert given <= rated
    assert np.array_equal(task.evaluation_users["test"], clients.users["test"])


def test_a_cohort_larger_than_the_population_is_refused():
    with pytest.raises(InputError, match="--clients_per_round=49 is more than the 48 training"):
        tasks.load_clients(replace(clients_per_round=49))


@pytest.mark.parametrize(
    ("changes", "global_shapes", "local_shapes"),
    [
        ({"item_bias": True, "user_bias": True}, [[9, 2], [9, 1]], [[1, 2], [1, 1]]),
        ({"model": "gmf"}, [[9, 2], [2, 1], [1]], [[1, 2]]),
        (
            {"model": "neumf", "hidden_units": "8,4"},
            [[9, 2], [9, 4], [8, 4], [4], [6, 1], [1]],
            [[1, 2], [1, 4]],
        ),
    ],
)
def test_settings_choose_the_model(changes, global_shapes, local_shapes):
    settings = replace(label_threshold=4.0, l2=0.125, **changes)
    model = tasks.model_fn(settings, 9)()
    assert sorted(w.shape.as_list() for w in model.global_weights) == sorted(global_shapes)
    assert sorted(w.shape.as_list() for w in model.local_weights) == sorted(local_shapes)
    assert model.keras_model.losses  # L2 arrived.


def test_settings_choose_the_algorithm_options():
    options = tasks.fed_recon_options(
        replace(
            reconstruction_optimizer="adam",
            reconstruction_learning_rate=0.25,
            client_steps_max=4,
            client_weighting="uniform",
            support_query_split="none",
        )
    )
    assert (options.reconstruction_optimizer.name, options.client_optimizer.name) == ("adam", "sgd")
    rates = [
        getattr(options, f"{role}_optimizer").learning_rate
        for role in ("reconstruction", "client", "server")
    ]
    assert rates == [0.25, 0.5, 1.0]
    assert (options.client_steps_max, options.reconstruction_steps_max) == (4, None)
    assert (options.client_weighting, options.support_query_split) == ("uniform", "none")


def test_evaluation_sees_every_query_batch_once_however_long_training_is(clients):
    settings = replace(client_epochs=3, client_steps_max=1, batch_size=2)
    task = tasks.build_task(settings, clients)
    users = clients.users["validation"]
    num_scheduled = 0
    for shard in task.evaluation_data(users):
        for mask, batches in zip(shard.mask, shard.query_batches):
            batches = batches[batches >= 0]
            assert len(set(batches)) == len(batches)
            num_scheduled += mask[batches].sum()
    # Of batches 0, 1, 2, ... of two ratings, the odd ones are query.
    counts = [clients.examples.num_examples(user) for user in users]
    assert num_scheduled == sum(n // 4 * 2 + max(n % 4 - 2, 0) for n in counts) > 0
