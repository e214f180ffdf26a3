"""Which models and settings federated iALS refuses."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedrecon.algorithms import fed_ials
from fedrecon.errors import InputError
from fedrecon.models.layers import InnerProduct, UserEmbedding
from fedrecon.models.neural_cf import gmf, neumf
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.wiring.secure import secure_mean
from tests.algorithms.dense_fed_ials import DIM, NUM_ITEMS, NUM_USERS, OPTIONS
from tests.algorithms.ials_rounds import MODEL
from tests.tiny import mf


@pytest.mark.parametrize("num_users", [0, -5])
def test_a_population_of_nobody_is_refused(num_users):
    with pytest.raises(InputError, match=f"num_users is {num_users}; it must be at least 1"):
        fed_ials.build_fed_ials(MODEL, OPTIONS, num_users=num_users, clients_per_shard=2)


def test_an_aggregator_of_clients_gets_no_shards():
    with pytest.raises(InputError, match="a shard of 2 clients sends their mean"):
        fed_ials.build_fed_ials(
            MODEL,
            OPTIONS,
            num_users=NUM_USERS,
            clients_per_shard=2,
            aggregator_factory=secure_mean(1.0, weight_bound=1.0),
        )


def test_item_features_are_refused_by_their_names():
    features = np.ones([NUM_ITEMS, 2], np.float32)
    model = mf(NUM_ITEMS, DIM, item_features=features)
    message = (
        "takes matrix factorization without biases; the model matrix_factorization has the weights "
        "item_embedding/embeddings, feature_embedding/kernel, item_features/embeddings, "
    )
    with pytest.raises(InputError, match=message):
        fed_ials.build_fed_ials(model, OPTIONS, num_users=NUM_USERS, clients_per_shard=2)


def custom(*, combine, dim=DIM, local_dim=DIM, trains=(True, True)):
    """A model of item rows and a user's row, as `combine` has it."""

    def model():
        item_id = tf.keras.Input([1], dtype=tf.int64)
        items = tf.keras.layers.Embedding(NUM_ITEMS, dim, name="items", trainable=trains[0])
        user = UserEmbedding(local_dim, "ones", name="user", trainable=trains[1])
        rows = tf.keras.layers.Flatten()(items(item_id))
        return SplitModel(
            tf.keras.Model(item_id, combine(user(item_id), rows), name="custom"),
            [items],
            [user],
            rating_input_spec(),
            tf.keras.losses.MeanSquaredError,
            lambda: [],
        )

    return model


def product(user, rows):
    return InnerProduct(name="inner_product")([user, rows])


def builders(model):
    yield lambda: fed_ials.build_fed_ials(model, OPTIONS, num_users=3, clients_per_shard=2)
    yield lambda: fed_ials.build_reconstruction(model, OPTIONS, clients_per_shard=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            mf(NUM_ITEMS, DIM, biases=["user_bias"]),
            "without biases; .*item_embedding/.*, user_embedding/.*, user_bias/",
        ),
        (
            mf(NUM_ITEMS, DIM, biases=["item_bias"]),
            "without biases; the model matrix_factorization .*, item_bias/",
        ),
        (mf(NUM_ITEMS, DIM, biases=["global_bias"]), "without biases; .*, global_bias/bias"),
        (
            mf(NUM_ITEMS, DIM, l2=0.1),
            "and regularizers, .*; the one of item_embedding/embeddings in the model matrix",
        ),
        (
            mf(NUM_ITEMS, DIM, spread_out=0.1),
            "and regularizers, .*; the one of item_embedding/embeddings",
        ),
        (functools.partial(gmf, NUM_ITEMS, 4), "the model gmf has the weights .* prediction/"),
        (
            functools.partial(neumf, NUM_ITEMS, gmf_dim=4, hidden_units=(8, 4)),
            "the model neumf has the weights gmf_item_embedding/",
        ),
        (
            custom(combine=product, trains=(False, True)),
            "items/embeddings of the model custom is not trainable",
        ),
        (
            custom(combine=product, trains=(True, False)),
            "user/embeddings of the model custom is not trainable",
        ),
        (
            custom(combine=lambda *rows: tf.keras.activations.sigmoid(product(*rows))),
            "the model custom is no inner product of two rows",
        ),
        (
            custom(combine=lambda user, rows: product(user, rows[:, ::-1])),
            "the model custom is no inner product",
        ),
        (
            custom(combine=lambda user, rows: product(user, rows[:, :2]), local_dim=2),
            "the model custom is no inner product",
        ),
    ],
)
def test_what_is_no_matrix_factorization_is_refused(model, words):
    for build in builders(model):
        with pytest.raises(InputError, match=f"federated iALS takes matrix factor.*{words}"):
            build()


def test_what_is_a_matrix_factorization_by_another_name_is_taken():
    for build in builders(custom(combine=product)):
        build()
