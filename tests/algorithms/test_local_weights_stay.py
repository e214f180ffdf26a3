"""Types as a privacy proof: no local weight is at the server, where it should not be."""

import tensorflow as tf
import tensorflow_federated as tff

from fedrecon.algorithms import fed_avg, fed_ncf, fed_recon
from fedrecon.models.layers import UserEmbedding
from fedrecon.models.split_model import SplitModel, rating_input_spec
from fedrecon.options import FedAvgOptions, FedReconOptions

NUM_USERS = 13
LOCAL_SIZES = {7, 11, 17}  # Of local weights alone.


def model_of_telling_sizes():
    item_id = tf.keras.Input([1], dtype=tf.int64)
    items = tf.keras.layers.Embedding(5, 3, embeddings_initializer="uniform", name="items")
    user = UserEmbedding(7, "zeros", name="user")
    head = tf.keras.layers.Dense(11, name="head", kernel_initializer="zeros")
    out = tf.keras.layers.Dense(17, name="out", kernel_initializer="zeros")
    last = tf.keras.layers.Dense(1, use_bias=False, name="last", kernel_initializer="zeros")
    rows = tf.keras.layers.Flatten()(items(item_id))
    hidden = out(head(tf.keras.layers.Concatenate()([rows, user(item_id)])))
    return SplitModel(
        tf.keras.Model(item_id, last(hidden)),
        [items],
        [user, head, out, last],
        rating_input_spec(),
        tf.keras.losses.MeanSquaredError,
        lambda: [],
    )


def shapes(message, placement, *, is_inside=False):
    """Yields the shapes of all tensors placed somewhere, in any type of a serialized computation.

    So the types of what happens inside of the computation count too, not its signature alone.
    """
    kind = type(message).__name__
    if kind == "FederatedType":
        is_inside = message.placement.value.uri == placement
    if kind == "TensorType" and is_inside:
        yield tuple(message.dims)
    for field, value in message.ListFields():
        if field.message_type is not None:
            repeated = field.label == field.LABEL_REPEATED
            for part in value if repeated else [value]:
                yield from shapes(part, placement, is_inside=is_inside)


def local_sizes_at(placement, process):
    found = set()
    for computation in (process.initialize, process.next):
        serialized = tff.framework.serialize_computation(computation)
        of_computation = set(shapes(serialized, placement))
        found |= {size for shape in of_computation for size in shape} & LOCAL_SIZES
    assert placement == "clients" or (5, 3) in of_computation
    return found


def test_no_local_weight_is_at_the_server_in_any_type():
    model, options = model_of_telling_sizes, FedAvgOptions(batch_size=4)
    stateful_process = fed_avg.build_stateful_fed_avg(model, options, clients_per_shard=2)
    for process in (
        fed_recon.build_fed_recon(model, FedReconOptions(), clients_per_shard=2),
        fed_avg.build_fed_avg(model, options, clients_per_shard=2),
        stateful_process,
    ):
        assert local_sizes_at("server", process) == set()
    # They would be seen: where clients keep them, and where the server does.
    assert local_sizes_at("clients", stateful_process) == LOCAL_SIZES
    on_server = fed_ncf.build_fed_ncf(
        model, options, num_users=NUM_USERS, clients_per_shard=2, seed=0
    )
    assert local_sizes_at("server", on_server) == LOCAL_SIZES
