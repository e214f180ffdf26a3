"""What clients do, for all clients of a shard at once.

A stage is a loop over steps. Its step is written for one client, as stock TFF has it (the loss of a
batch, its gradient, a step of a `tff.learning.optimizers` optimiser), and `tf.vectorized_map` makes
of it one for all clients of a shard. Each client works on copies of the rows of its own items,
`[clients, items, dim]`: the global tables are neither copied nor rewritten, so what a client costs
does not grow with the catalogue.

**Rows that a step does not touch** end as if the whole table were trained. Momentum and Adam keep
moving a row touched earlier, so their steps go over all rows of a client. AdamW and L1 or L2
regularisation also move the rows that no batch touches; these move alike on all clients, and one
trajectory of the table serves a shard (`_sum_drift`); of weight decay alone, which shrinks all
numbers by one factor, that of a single number. Plain gradient descent moves only the rows of its
batch, which are then all that it is given.

Arrays have the clients of the shard as their first axis unless said otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from fedrecon.data.cohorts import PackingOptions, Passes, Shard
from fedrecon.errors import InputError
from fedrecon.models.client_randomness import fold_in
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.weights import Weight, regularization
from fedrecon.options import FedAvgOptions, OptimizerOptions

Tensors = list[tf.Tensor]

# What a client's seed is used for, beside what algorithms use it for (`FREE_SEED` and above).
_INITIAL, _JOINT_UPDATE, FREE_SEED = range(3)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is trained, and by which optimiser.

    Attributes:
      optimizer: Of all that is trained.
      trains_global: Whether the trainable global weights are.
      trains_local: Whether the trainable local weights are.
      gradient_clip_norm: A step's gradient is scaled down to this norm, over all that is trained,
        where it is longer; None leaves it.
    """

    optimizer: OptimizerOptions
    trains_global: bool = False
    trains_local: bool = False
    gradient_clip_norm: float | None = None

    def trains(self, weight: Weight) -> bool:
        is_chosen = self.trains_local if weight.is_local else self.trains_global
        return is_chosen and weight.trainable


class Examples(NamedTuple):
    """The examples of each step, `[clients, steps, batch_size]` each; see `cohorts.Shard`."""

    positions: tf.Tensor
    item_ids: tf.Tensor
    labels: tf.Tensor
    mask: tf.Tensor

    @classmethod
    def scheduled(cls, shard: Shard, batches: tf.Tensor) -> Examples:
        """Returns the examples of a schedule, such as `shard.query_batches`.

        All are masked where a client has no step.
        """

        def of_steps(values):
            return tf.gather(values, tf.maximum(batches, 0), batch_dims=1)

        positions = of_steps(shard.positions)
        return cls(
            positions=positions,
            item_ids=tf.gather(tf.maximum(shard.item_ids, 0), positions, batch_dims=1),
            labels=of_steps(shard.labels),
            mask=tf.logical_and(of_steps(shard.mask), batches[:, :, tf.newaxis] >= 0),
        )

    def as_one_step(self) -> Examples:
        """Returns the same examples as one step of each client, `[clients, 1, examples]`."""
        shape = tf.shape(self.labels)
        return Examples(
            *(tf.reshape(array, [array.shape[0], 1, shape[1] * shape[2]]) for array in self)
        )

    def num_examples(self) -> tf.Tensor:
        """Returns how many real examples the steps of each client have, `[clients]` float32."""
        return tf.reduce_sum(tf.cast(self.mask, tf.float32), axis=[1, 2])

    def num_steps(self) -> tf.Tensor:
        """Returns how many steps each client has, `[clients]` int32."""
        return tf.reduce_sum(tf.cast(tf.reduce_any(self.mask, axis=2), tf.int32), axis=1)


class Trained(NamedTuple):
    """What a stage leaves.

    Attributes:
      values: The weights afterwards.
      untouched: What they would be if no batch had touched them.
      predictions: `[clients, steps, batch_size]`: the model's before each step.
      num_steps: `[clients]` int32: how many steps each client took.
    """

    values: Tensors
    untouched: Tensors
    predictions: tf.Tensor
    num_steps: tf.Tensor


def shard_spec(batch_size: int, num_clients: int) -> Shard:
    """Returns the specs of shards: their clients and batch size are fixed, their lengths are not.

    TensorFlow has far less to work out at each step if it knows the number of clients beforehand.
    """
    examples = [num_clients, None, batch_size]
    return Shard(
        item_ids=tf.TensorSpec([num_clients, None], tf.int32),
        positions=tf.TensorSpec(examples, tf.int32),
        labels=tf.TensorSpec(examples, tf.float32),
        mask=tf.TensorSpec(examples, tf.bool),
        support_batches=tf.TensorSpec([num_clients, None], tf.int32),
        query_batches=tf.TensorSpec([num_clients, None], tf.int32),
        seeds=tf.TensorSpec([num_clients], tf.uint32),
        user_ids=tf.TensorSpec([num_clients], tf.int32),
    )


def compile_for_shards(
    work: Callable[..., Any], model: FunctionalModel, spec: Shard, *more_specs: Any
) -> Callable[..., Any]:
    """Compiles clients' work with XLA.

    It is traced here, once: Keras refuses to call a model inside TFF's graphs that was made outside
    of them, but a traced function can be called anywhere. The clients' rows are gathered outside of
    what is compiled, which so does not see the tables.

    Args:
      work: From the global values as clients get them (each client's own rows of item tables,
        `[clients, items, dim]`; other weights without an axis of clients), a shard, and what
        `more_specs` describe, to any structure of tensors.
      model: The model.
      spec: As `shard_spec` gives it.
      *more_specs: Of further arguments.

    Returns:
      A function of the whole global values, in the order of `model.global_weights`, a shard and the
      further arguments.
    """
    compiled = _compile_on_rows(work, model, spec.seeds.shape[0], spec, *more_specs)

    def gather_and_work(global_values: Sequence[tf.Tensor], shard: Shard, *more: Any):
        return compiled(_gather_rows(model, global_values, shard.item_ids), shard, *more)

    return gather_and_work


def compile_scoring(model: FunctionalModel, num_clients: int):
    """Compiles the prediction of candidates, as `compile_for_shards` compiles work.

    Returns:
      A function of the whole global values, the clients' local values (as `local_specs` describes
      them) and candidates, `[clients, n]` int32 item ids (-1 is padding, whose scores mean
      nothing), to scores `[clients, n]` float32, without dropout.
    """
    ids = tf.TensorSpec([num_clients, None], tf.int32)
    compiled = _compile_on_rows(
        lambda values, local_values, ids: call_model(model, [*values, *local_values], ids),
        model,
        num_clients,
        local_specs(model, num_clients),
        ids,
    )

    def gather_and_score(global_values, local_values, candidates):
        rows = _gather_rows(model, global_values, candidates)
        return compiled(rows, local_values, tf.maximum(candidates, 0))

    return gather_and_score


def local_specs(model: FunctionalModel, num_clients: int) -> list[tf.TensorSpec]:
    """Returns the specs of clients' local values, `[clients, ...]` for each of `local_weights`."""
    return [tf.TensorSpec([num_clients, *w.shape], w.dtype) for w in model.local_weights]


def _compile_on_rows(work, model: FunctionalModel, num_clients: int, *specs):
    values = [
        tf.TensorSpec([num_clients, None, w.shape[1]] if w.is_item_table else w.shape, w.dtype)
        for w in model.global_weights
    ]
    traced = tf.function(work, jit_compile=True, autograph=False)
    return traced.get_concrete_function(values, *specs)


def _gather_rows(model: FunctionalModel, global_values, item_ids) -> Tensors:
    ids = tf.maximum(item_ids, 0)
    return [
        tf.gather(value, ids) if weight.is_item_table else tf.convert_to_tensor(value)
        for weight, value in zip(model.global_weights, global_values)
    ]


class ExtraLoss(NamedTuple):
    """What is added to the loss of each step.

    Attributes:
      loss: From the values of `model.weights` of one client, item tables with all its rows, and its
        `data`, to a scalar.
      data: Any structure of tensors, with an axis of clients.
    """

    loss: Callable[[Tensors, Any], tf.Tensor]
    data: Any


def run_stage(
    model: FunctionalModel,
    stage: Stage,
    values: Sequence[tf.Tensor],
    examples: Examples,
    seeds: tf.Tensor,
    extra_loss: ExtraLoss | None = None,
) -> Trained:
    """Trains, each client by itself.

    Args:
      model: The model.
      stage: What is trained.
      values: Where the clients start, in the order of `model.weights`: with an axis of clients, or
        without one where all start from the same.
      examples: What they train on. A client's steps come first, padding last.
      seeds: `[clients]`, from which dropout follows.
      extra_loss: If there is one.
    """
    step_of_client = _ClientStep(model, stage, extra_loss and extra_loss.loss)
    extra_data = () if extra_loss is None else extra_loss.data
    num_clients = examples.labels.shape[0]
    _, most_steps, batch_size = tf.unstack(tf.shape(examples.labels))
    values = [
        _for_each_client(value, weight, num_clients) if stage.trains(weight) else value
        for weight, value in zip(model.weights, values)
    ]
    num_steps = examples.num_steps()

    def step(number, carry, predictions):
        batch = Examples(*(array[:, number] for array in examples))
        current = list(values)
        for index, value in zip(step_of_client.trained, carry.values):
            current[index] = value
        called = [
            tf.gather(value, batch.positions, batch_dims=1)
            if weight.is_item_table and not step_of_client.needs_all_rows(weight)
            else value
            for weight, value in zip(model.weights, current)
        ]
        own = _Own(model, called)

        def of_client(client):
            own_values, *rest = client
            return step_of_client(own.merge(own_values), *rest)

        changed, predicted = tf.vectorized_map(
            of_client,
            (own.values, carry.without_values(), batch, fold_in(seeds, number), extra_data),
            fallback_to_while_loop=False,
        )
        changed = step_of_client.apply(changed, carry, batch, is_step=number < num_steps)
        return number + 1, changed, predictions.write(number, predicted)

    carry = step_of_client.initial_carry(values, num_clients)
    # Filled with zeros, since what has no entries cannot be stacked.
    predictions = tf.TensorArray(tf.float32, size=most_steps).unstack(
        tf.zeros([most_steps, num_clients, batch_size])
    )
    _, carry, predictions = tf.while_loop(
        lambda number, *_: number < tf.reduce_max(num_steps), step, (0, carry, predictions)
    )
    after, untouched = list(values), list(values)
    for index, value in zip(step_of_client.trained, carry.values):
        after[index] = value
    for index, drifted in zip(step_of_client.drifting, carry.untouched):
        untouched[index] = _drifted(model.weights[index], values[index], drifted)
    by_step = tf.reshape(predictions.stack(), [most_steps, num_clients, batch_size])
    return Trained(after, untouched, tf.transpose(by_step, [1, 0, 2]), num_steps)


def predict(model: FunctionalModel, values: Sequence[tf.Tensor], examples: Examples) -> tf.Tensor:
    """Returns the predictions of all examples, `[clients, steps, batch_size]`, without dropout."""
    shape = tf.shape(examples.labels)
    flat = Examples(*(tf.reshape(array, [shape[0], -1]) for array in examples))
    called = [
        tf.gather(value, flat.positions, batch_dims=1) if weight.is_item_table else value
        for weight, value in zip(model.weights, values)
    ]
    return tf.reshape(call_model(model, called, flat.item_ids), shape)


def call_model(
    model: FunctionalModel,
    called: Sequence[tf.Tensor],
    item_ids: tf.Tensor,
    *,
    dropout_seeds: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns predictions `[clients, n]`.

    Args:
      model: The model.
      called: For each of `model.weights`: an item table's rows of these items, `[clients, n, dim]`;
        other weights with an axis of clients, or without one where it is the same for all.
      item_ids: `[clients, n]`.
      dropout_seeds: `[clients]` uint32 to train with; None predicts.
    """
    own = _Own(model, called)
    seeds = () if dropout_seeds is None else (dropout_seeds,)

    def of_client(client):
        own_values, item_ids, *seed = client
        return model.predict(
            item_ids, own.merge(own_values), dropout_seed=seed[0] if seed else None
        )

    return tf.vectorized_map(
        of_client, (own.values, item_ids, *seeds), fallback_to_while_loop=False
    )


def drifts(weight: Weight, optimizer: OptimizerOptions) -> bool:
    """Whether training moves also those rows of a weight that no batch touches."""
    return weight.is_item_table and (weight.regularizer is not None or optimizer.decays_weights)


class Contribution(NamedTuple):
    """What the clients of a shard give to the update of the weights that they trained.

    Attributes:
      updates: Of the global ones: the clients' updates (weights before minus after), each times its
        client's weight. Item tables: `[clients, items, dim]`, relative to what untouched rows
        become (or as `contribute` was told); others: summed over the clients.
      local_updates: Of the local ones, `[clients, ...]`, likewise weighted and not summed: they
        leave the device only in algorithms that keep user rows on the server.
      weights: `[clients]` float32, those of the clients.
      num_steps: `[clients]` int32: how many steps they took.
      is_finite: `[clients]` bool: whose update was finite; the others are left out.
    """

    updates: Tensors
    local_updates: Tensors
    weights: tf.Tensor
    num_steps: tf.Tensor
    is_finite: tf.Tensor

    @property
    def num_rejected(self) -> tf.Tensor:
        """How many clients were left out, a scalar int64."""
        return tf.math.count_nonzero(~self.is_finite)


def contribute(
    model: FunctionalModel,
    stage: Stage,
    before: Sequence[tf.Tensor],
    trained: Trained,
    weights: tf.Tensor,
    *,
    is_by_row: bool = False,
) -> Contribution:
    """Weighs the clients' updates.

    As in stock TFF, a client whose update has an entry that is not finite is left out, with weight
    zero.

    Args:
      model: The model.
      stage: What was trained.
      before: The values of `model.weights` that the clients started from.
      trained: Where they ended.
      weights: `[clients]` float32, `>= 0`.
      is_by_row: Whether item rows are averaged over the clients that have them; then their updates
        are relative to where they started.
    """
    changes = [
        (weight, (untouched if weight.is_item_table and not is_by_row else start) - value)
        for weight, start, untouched, value in zip(
            model.weights, before, trained.untouched, trained.values
        )
        if stage.trains(weight)
    ]
    is_finite = tf.ones_like(weights, tf.bool)
    for _, change in changes:
        of_entries = tf.math.is_finite(change)
        is_finite &= tf.reduce_all(of_entries, axis=list(range(1, change.shape.rank)))
    weights = tf.where(is_finite, weights, 0.0)
    updates, local_updates = [], []
    for weight, change in changes:
        # Not by multiplication with zero, which leaves what is not finite as it is.
        change = _where(is_finite, change, 0.0)
        if weight.is_item_table or weight.is_local:
            change *= tf.reshape(weights, [-1] + [1] * (change.shape.rank - 1))
            (local_updates if weight.is_local else updates).append(change)
        else:
            updates.append(tf.tensordot(weights, change, axes=1))
    return Contribution(updates, local_updates, weights, trained.num_steps, is_finite)


class JointUpdate(NamedTuple):
    """What clients do in federated averaging.

    Attributes:
      contribution: What they give.
      local_values: `[clients, ...]` each: their local weights afterwards, those before of a client
        that was left out.
      examples: Of their steps.
      predictions: Of these, each before the step that uses it.
    """

    contribution: Contribution
    local_values: Tensors
    examples: Examples
    predictions: tf.Tensor


def build_joint_update(model: FunctionalModel, options: FedAvgOptions, spec: Shard):
    """Returns the client update of McMahan et al. 2017: all weights are fitted on all examples.

    Args:
      model: The model.
      options: The settings.
      spec: As `shard_spec` gives it.

    Returns:
      A function of the whole global values, a shard (packed with `joint_packing_options`) and the
      clients' local values to a `JointUpdate`.
    """
    stage = Stage(
        options.client_optimizer,
        trains_global=True,
        trains_local=True,
        gradient_clip_norm=options.gradient_clip_norm,
    )

    def update_clients(values, shard, local_values):
        before = [*values, *local_values]
        examples = Examples.scheduled(shard, shard.query_batches)
        trained = run_stage(model, stage, before, examples, fold_in(shard.seeds, _JOINT_UPDATE))
        weights = examples.num_examples()
        if options.client_weighting == "uniform":
            weights = tf.cast(weights > 0, tf.float32)
        is_by_row = options.averaging == "by_row"
        contribution = contribute(model, stage, before, trained, weights, is_by_row=is_by_row)
        kept = [
            _where(contribution.is_finite, after, start)
            for after, start in zip(trained.values[len(values) :], local_values)
        ]
        return JointUpdate(contribution, kept, examples, trained.predictions)

    return compile_for_shards(update_clients, model, spec, local_specs(model, spec.seeds.shape[0]))


def sum_joint_updates(
    model: FunctionalModel,
    options: FedAvgOptions,
    global_values: Sequence[tf.Tensor],
    shard: Shard,
    contribution: Contribution,
) -> tuple[Tensors, Any]:
    """Returns the weighted sums of the clients' updates of the global weights, and their divisors.

    Those are one scalar, or with `by_row` one for each of the weights, `[items, 1]` for an item
    table. Arguments are those of `sum_updates`.
    """
    total = tf.reduce_sum(contribution.weights)
    if options.averaging == "plain":
        optimizer = options.client_optimizer
        return sum_updates(model, optimizer, global_values, shard, contribution), total
    updates, divisors = [], []
    trainable = [weight for weight in model.global_weights if weight.trainable]
    for weight, update in zip(trainable, contribution.updates):
        divisor = total
        if weight.is_item_table:
            update = sum_rows(update, shard.item_ids, weight.shape[0])
            of_items = tf.ones_like(shard.item_ids, tf.float32)[..., tf.newaxis]
            of_items *= contribution.weights[:, tf.newaxis, tf.newaxis]
            divisor = sum_rows(of_items, shard.item_ids, weight.shape[0])
        updates.append(update)
        divisors.append(divisor)
    return updates, divisors


def joint_packing_options(options: FedAvgOptions, *, seed: int) -> PackingOptions:
    """Returns how clients are packed for `build_joint_update`.

    Args:
      options: The settings.
      seed: Draws what is random in a client, with the round and the user id.
    """
    return PackingOptions(
        batch_size=options.batch_size,
        support_query_split="none",
        support=Passes(0),
        query=Passes(options.client_epochs, options.client_steps_max),
        seed=seed,
    )


def fresh_local_values(model: FunctionalModel, shard: Shard) -> Tensors:
    """Returns the initial local values of clients in this round, `[clients, ...]` each."""
    return model.initial_local_values(fold_in(shard.seeds, _INITIAL))


def sum_updates(
    model: FunctionalModel,
    optimizer: OptimizerOptions,
    global_values: Sequence[tf.Tensor],
    shard: Shard,
    contribution: Contribution,
) -> Tensors:
    """Returns the weighted sum of the clients' updates, each of the shape of its weight.

    Args:
      model: The model.
      optimizer: What the clients trained the global weights with.
      global_values: The global weights, whole.
      shard: The clients.
      contribution: What they give.
    """
    updates = []
    trainable = [(w, v) for w, v in zip(model.global_weights, global_values) if w.trainable]
    for (weight, value), update in zip(trainable, contribution.updates):
        if weight.is_item_table:
            update = sum_rows(update, shard.item_ids, weight.shape[0])
        if drifts(weight, optimizer):
            update += _sum_drift(
                optimizer, weight, value, contribution.num_steps, contribution.weights
            )
        updates.append(update)
    return updates


def sum_rows(rows: tf.Tensor, ids: tf.Tensor, num_rows: int) -> tf.Tensor:
    """Returns the table `[num_rows, ...]` of the sums of rows by id.

    Args:
      rows: `ids.shape` and then the shape of a row.
      ids: Where they belong; -1, which is padding, is dropped.
      num_rows: Of the table.
    """
    flat = tf.reshape(rows, [-1, *rows.shape[ids.shape.rank :]])
    return tf.math.unsorted_segment_sum(flat, tf.reshape(ids, [-1]), num_rows)


@tf.function(jit_compile=True, autograph=False)
def _sum_drift(optimizer: OptimizerOptions, weight: Weight, table, num_steps, client_weights):
    """Returns the weighted sum of `table` minus what clients' steps make of untouched rows."""
    optimizer = optimizer.build()
    most_steps = tf.reduce_max(num_steps)
    start = table if weight.regularizer is not None else tf.ones([], table.dtype)

    def step(number, rows, state, total):
        state, (rows,) = untouched_step(optimizer, [weight], state, [rows])
        # Not `==`, which compares identities where TFF traces, in graphs of TensorFlow 1.
        ends = tf.equal(num_steps, number)
        share = tf.reduce_sum(tf.where(ends, client_weights, 0.0))
        return number + 1, rows, state, total + share * (start - rows)

    state = optimizer.initialize((tf.TensorSpec(start.shape, start.dtype),))
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    *_, total = tf.while_loop(
        lambda number, *_: number <= most_steps, step, (1, start, state, tf.zeros_like(start))
    )
    return _drifted(weight, table, total)


def _drifted(weight: Weight, values, drifted):
    """Returns what untouched rows become: of weight decay alone, `drifted` is what 1 becomes."""
    if weight.regularizer is not None:
        return drifted
    return values * tf.reshape(drifted, [-1] + [1] * (values.shape.rank - 1))


class _Own:
    """Those values that each client has its own of; the others are left out of vectorisation."""

    def __init__(self, model: FunctionalModel, values: Tensors):
        self._all = values
        self._places = [
            index
            for index, (weight, value) in enumerate(zip(model.weights, values))
            if value.shape.rank > weight.shape.rank
        ]
        self.values = [values[index] for index in self._places]

    def merge(self, own_values: Tensors) -> Tensors:
        """Returns all values of one client, of whom `own_values` are the own ones."""
        merged = list(self._all)
        for index, value in zip(self._places, own_values):
            merged[index] = value
        return merged


class _Carry(NamedTuple):
    """What steps change."""

    values: Tensors  # Of the trained weights.
    state: Any
    untouched: Tensors  # Of the drifting weights; see `_drifted`.
    untouched_state: Any

    def without_values(self) -> _Carry:
        return self._replace(values=[])


class _ClientStep:
    """A step of one client; `apply` is the part of it that all clients take together.

    Attributes:
      trained: The places of the trained weights in `model.weights`.
      drifting: Those of them that drift.
    """

    def __init__(self, model: FunctionalModel, stage: Stage, extra_loss=None):
        self._model = model
        self._extra_loss = extra_loss
        self._optimizer = stage.optimizer.build()
        self.trained = [i for i, weight in enumerate(model.weights) if stage.trains(weight)]
        self.drifting = [i for i in self.trained if drifts(model.weights[i], stage.optimizer)]
        self._weights = [model.weights[index] for index in self.trained]
        self._clip_norm = stage.gradient_clip_norm
        regularized = [w.name for w in self._weights if w.is_item_table and w.regularizer]
        if self._clip_norm is not None and regularized:
            raise InputError(
                f"the gradient of {regularized[0]} is that of all its rows when it is regularized,"
                " and clients have only theirs to clip by; leave out one of the two."
            )
        # Then the change of the rows of the batch is all there is to compute: no state, no decay.
        # To clip, the gradient of a row that comes twice in a batch is needed as a sum.
        self._moves_batch_only = (
            stage.optimizer.is_plain_sgd
            and not self.drifting
            and self._clip_norm is None
            and extra_loss is None
        )

    def needs_all_rows(self, weight: Weight) -> bool:
        """Whether the step takes all rows of an item table, not only those of its batch."""
        if self._extra_loss is not None:
            return True
        return weight in self._weights and not self._moves_batch_only

    def initial_carry(self, values: Tensors, num_clients) -> _Carry:
        trained = [values[index] for index in self.trained]
        untouched = [
            tf.ones([num_clients], values[index].dtype)
            if self._model.weights[index].regularizer is None
            else values[index]
            for index in self.drifting
        ]
        return _Carry(
            trained,
            _initial_state(self._optimizer, trained, num_clients),
            untouched,
            _initial_state(self._optimizer, untouched, num_clients),
        )

    def __call__(self, values: Tensors, carry: _Carry, batch: Examples, seed, extra_data):
        """Returns the carry after a step, and the predictions before it.

        Args:
          values: The client's, in the order of `model.weights`; of item tables all rows, or those
            of the batch (`needs_all_rows`). In the latter case what is returned is their change.
          carry: Without values.
          batch: The examples.
          seed: From which dropout follows.
          extra_data: That of the extra loss, if there is one.
        """
        starts = [values[index] for index in self.trained]
        with tf.GradientTape() as tape:
            tape.watch(starts)
            called = [
                tf.gather(value, batch.positions)
                if weight.is_item_table and self.needs_all_rows(weight)
                else value
                for weight, value in zip(self._model.weights, values)
            ]
            predictions = self._model.predict(batch.item_ids, called, dropout_seed=seed)
            loss = self._model.loss(batch.labels, predictions, batch.mask)
            loss += regularization(self._weights, starts)
            if self._extra_loss is not None:
                loss += self._extra_loss(values, extra_data)
        gradients = tape.gradient(loss, starts)
        if self._clip_norm is not None:
            gradients = _clipped(gradients, self._clip_norm)
        if self._moves_batch_only:
            # A step from zero is the change.
            starts = [
                tf.zeros_like(start) if weight.is_item_table else start
                for weight, start in zip(self._weights, starts)
            ]
        state, new = self._optimizer.next(carry.state, tuple(starts), tuple(gradients))
        untouched_state, untouched = carry.untouched_state, carry.untouched
        if untouched:
            weights = [self._model.weights[index] for index in self.drifting]
            untouched_state, untouched = untouched_step(
                self._optimizer, weights, untouched_state, untouched
            )
        return _Carry(list(new), state, list(untouched), untouched_state), predictions

    def apply(self, changed: _Carry, carry: _Carry, batch: Examples, is_step) -> _Carry:
        """Returns the carry of all clients: `changed` where there was a step."""
        values = []
        for weight, new, old in zip(self._weights, changed.values, carry.values):
            if weight.is_item_table and self._moves_batch_only:
                values.append(_add_to_rows(old, batch.positions, _where(is_step, new, 0.0)))
            else:
                values.append(_where(is_step, new, old))
        untouched = [
            _where(is_step, new, old) for new, old in zip(changed.untouched, carry.untouched)
        ]
        # A client's state after its last step is of no use, so it may go on.
        return _Carry(values, changed.state, untouched, changed.untouched_state)


def untouched_step(optimizer, weights: Sequence[Weight], state, values):
    """Returns state and values after a step of whose loss only the regularization sees them."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = regularization(weights, values)
    gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return optimizer.next(state, tuple(values), tuple(gradients))


def _clipped(gradients, norm: float):
    """Returns gradients scaled to `norm` over all of them if they are longer."""
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
    length = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
    return [gradient * tf.minimum(1.0, norm / length) for gradient in gradients]


def _add_to_rows(rows, positions, changes):
    """Adds `changes`, `[clients, batch, dim]`, to `rows`, `[clients, items, dim]`."""
    clients = tf.broadcast_to(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(positions))
    return tf.tensor_scatter_nd_add(rows, tf.stack([clients, positions], axis=-1), changes)


def _where(is_step, new, old):
    """Selects by client; `is_step` is `[clients]`."""
    return tf.where(tf.reshape(is_step, [-1] + [1] * (new.shape.rank - 1)), new, old)


def _for_each_client(value, weight, num_clients):
    if value.shape.rank > weight.shape.rank:
        return value
    return tf.broadcast_to(value, [num_clients, *weight.shape])


class _Spec:
    """A spec as TFF's optimisers read it, with a shape that may be known only later."""

    def __init__(self, value):
        self.shape = tf.shape(value)
        self.dtype = value.dtype


def _initial_state(optimizer, values: Tensors, num_clients):
    """Returns the optimiser's initial state of each client."""

    def of_client(values):
        specs = [
            tf.TensorSpec(value.shape, value.dtype)
            if value.shape.is_fully_defined()
            else _Spec(value)
            for value in values
        ]
        return tf.nest.map_structure(tf.convert_to_tensor, optimizer.initialize(tuple(specs)))

    if not values:
        return ()
    return tf.vectorized_map(of_client, values, fallback_to_while_loop=False)
