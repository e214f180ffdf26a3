"""Tests of how clients become padded arrays, and of how many share a shard."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fedrecon import rng
from fedrecon.data import cohorts
from fedrecon.data.cohorts import CohortPacker, PackingOptions, Passes, pack_shard
from fedrecon.data.examples import ClientExamples, ExampleOptions
from fedrecon.data.ratings import Ratings, RatingScale
from fedrecon.errors import InputError

SPLITS = ("alternating_batches", "query_of_all", "none")


def packing(**options):
    defaults = {"batch_size": 3, "support_query_split": "alternating_batches"}
    return PackingOptions(**{**defaults, "support": Passes(), "query": Passes(), **options})


def population(counts, **options):
    """Users 0, 1, ... with so many ratings of different items each, the stars drawn."""
    draw = np.random.default_rng(0)
    num_items = max(counts)
    ratings = Ratings(
        name="drawn",
        user_ids=np.repeat(np.arange(len(counts)), counts),
        item_ids=np.concatenate([draw.permutation(num_items)[:count] for count in counts]),
        ratings=draw.integers(1, 6, sum(counts)),
        num_users=len(counts),
        num_items=num_items,
        original_user_ids=np.arange(len(counts)),
        original_item_ids=np.arange(num_items),
        **dict.fromkeys(["timestamps", "item_titles", "item_genres"]),
        scale=RatingScale(1, 5, 1),
    )
    return ClientExamples(ratings, ExampleOptions(max_ratings_per_user=None, **options))


def naive_steps(num_examples, options):
    """The batches of the support steps and of the query steps, as the two docstrings put it."""
    batches = [start // options.batch_size for start in range(0, num_examples, options.batch_size)]
    support, query = {
        "alternating_batches": (batches[::2], batches[1::2]),
        "query_of_all": (batches[::2], batches),
        "none": (batches, batches),
    }[options.support_query_split]
    return tuple(
        list(itertools.islice(itertools.chain(*[part] * passes.epochs), passes.steps_max))
        for part, passes in ((support, options.support), (query, options.query))
    )


def without_tail(row):
    """The entries before the -1s, of which none may come earlier."""
    kept = [value for value in row.tolist() if value != -1]
    assert row.tolist() == kept + [-1] * (len(row) - len(kept))
    return kept


def unpack_client(shard, client):
    """A client's (item, label) in order, support steps and query steps; checks its padding."""
    items = without_tail(shard.item_ids[client])
    assert items == sorted(set(items))
    arrays = (shard.mask, shard.positions, shard.labels)
    mask, positions, labels = (array[client].ravel().tolist() for array in arrays)
    assert np.isfinite(labels).all()
    assert mask == sorted(mask, reverse=True)
    examples = []
    if not any(mask):
        assert not items
        assert set(positions) == {0}  # They can be looked up, although there is nothing to find.
    else:
        pairs = [(items[position], label) for position, label in zip(positions, labels)]
        examples = pairs[: sum(mask)]
        assert set(pairs) == set(examples)  # Padding repeats the client's own.
        assert {item for item, _ in examples} == set(items)
    steps = without_tail(shard.support_batches[client]), without_tail(shard.query_batches[client])
    return examples, *steps


def unpack(shards):
    """What each seed's client holds, and who it is.

    Clients that are padding have seed 0, hold nothing and are nobody.
    """
    found = {}
    for shard in shards:
        for client, seed in enumerate(shard.seeds.tolist()):
            held = (*unpack_client(shard, client), int(shard.user_ids[client]))
            assert seed not in found
            if seed:
                found[seed] = held
            else:
                assert held == ([], [], [], -1)
    return found


def expected_clients(examples, options, users, round_num):
    """What `unpack` should find."""
    seeds = rng.derive_seeds(options.seed, "client", round_num, ids=users).tolist()
    expected = {}
    for user, seed in zip(users.tolist(), seeds):
        items, labels = examples.examples(user, round_num)
        pairs = list(zip(items.tolist(), labels.tolist()))
        expected[seed] = (pairs, *naive_steps(len(items), options), user)
    return expected


def assert_holds(shards, clients_per_shard, clients):
    """The `expected_clients`, in as many shards as they need, all as large and none empty."""
    assert unpack(shards) == clients
    sizes = [clients_per_shard] * -(-len(clients) // clients_per_shard)
    assert [len(shard.seeds) for shard in shards] == sizes
    assert all(min(array.shape) >= 1 for shard in shards for array in shard)


def test_a_shard_by_hand():
    clients = [([7, 3, 7, 5, 3], [1, 2, 3, 4, 5]), ([4], [2.5]), ([], [])]
    shard = pack_shard(
        [(np.array(items, np.int64), np.array(labels, np.float32)) for items, labels in clients],
        np.array([40, 0, 6039]),
        np.array([11, 2**32 - 1, 5], np.uint32),
        packing(batch_size=2, support=Passes(epochs=2)),
        num_clients=4,
        num_examples=6,
    )
    none = [-1] * 4  # Room for items: three, rounded up to a power of two.
    expected = {
        "item_ids": [[3, 5, 7, -1], [4, -1, -1, -1], none, none],
        "positions": [[[2, 0], [2, 1], [0, 0]], *[[[0, 0]] * 3] * 3],
        # The last two clients hold nothing, so that their labels may be anything.
        "labels": [[[1, 2], [3, 4], [5, 5]], [[2.5, 2.5]] * 3, *shard.labels[2:].tolist()],
        "mask": [[[1, 1], [1, 1], [1, 0]], [[1, 0], [0, 0], [0, 0]], *[[[0, 0]] * 3] * 2],
        # Batches 0 and 2 twice, and batch 0 twice.
        "support_batches": [[0, 2, 0, 2], [0, 0, -1, -1], [-1] * 4, [-1] * 4],
        "query_batches": [[1], [-1], [-1], [-1]],
        "seeds": [11, 2**32 - 1, 5, 0],
        "user_ids": [40, 0, 6039, -1],  # The third is somebody, who has nothing.
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(getattr(shard, name), array, err_msg=name)
    types = [array.dtype for array in shard]
    assert types == [np.int32, np.int32, np.float32, bool, np.int32, np.int32, np.uint32, np.int32]
    assert np.isfinite(shard.labels).all()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("epochs", range(4))
@pytest.mark.parametrize("steps_max", [None, 1, 3, 7])
def test_schedules_are_those_of_a_naive_loop(split, epochs, steps_max):
    options = packing(
        support_query_split=split,
        support=Passes(epochs, steps_max),
        query=Passes(3 - epochs, steps_max and steps_max + 1),
    )
    for num_examples in (1, 2, 3, 4, 7, 40, 60):  # Up to 20 batches.
        counts = range(num_examples + 1)
        shard = pack_shard(
            [(np.arange(count), np.ones(count, np.float32)) for count in counts],
            np.arange(len(counts)),
            np.zeros(len(counts), np.uint32),
            options,
            num_clients=len(counts),
            num_examples=num_examples,
        )
        expected = [naive_steps(count, options) for count in counts]
        numbers = [tuple(map(len, steps)) for steps in expected]
        assert [unpack_client(shard, client)[1:] for client in counts] == expected
        assert [options.num_steps(count) for count in counts] == numbers
        assert list(zip(*options.num_steps(np.array(counts)))) == numbers
        # The client of the most examples fills the arrays; they are never empty.
        for array, steps in zip((shard.support_batches, shard.query_batches), expected[-1]):
            assert array.shape == (len(counts), max(len(steps), 1))


@hypothesis.given(
    st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=4),
    *(st.integers(1, 5), st.sampled_from(SPLITS), st.integers(0, 2), st.integers(0, 9)),
)
def test_a_shard_holds_what_it_was_given(items, batch_size, split, more_clients, more_examples):
    options = packing(batch_size=batch_size, support_query_split=split, query=Passes(2, 3))
    # No two labels are alike, so that an example of another client or place would show.
    labels = [[100 * client + n for n in range(len(ids))] for client, ids in enumerate(items)]
    num_clients = max(len(items) + more_clients, 1)
    num_examples = max(1, *map(len, items), 0) + more_examples
    shard = pack_shard(
        [(np.array(i, np.int64), np.array(v, np.float32)) for i, v in zip(items, labels)],
        np.arange(len(items))[::-1] * 10,
        np.arange(1, len(items) + 1, dtype=np.uint32),
        options,
        num_clients=num_clients,
        num_examples=num_examples,
    )
    num_batches = -(-num_examples // batch_size)
    most_items = max(1, *map(len, map(set, items)), 0)
    power_of_two = next(2**n for n in range(10) if 2**n >= most_items)
    assert shard.item_ids.shape == (num_clients, min(num_examples, power_of_two))
    for array in (shard.positions, shard.labels, shard.mask):
        assert array.shape == (num_clients, num_batches, batch_size)
    assert unpack([shard]) == {
        client + 1: (
            list(zip(ids, values)),
            *naive_steps(len(ids), options),
            (len(items) - 1 - client) * 10,
        )
        for client, (ids, values) in enumerate(zip(items, labels))
    }


# User 0 has none, user 1 one, user 2 less than a batch, user 3 a batch and so no query.
COUNTS = [0, 1, 2, 3, *np.random.default_rng(1).integers(0, 40, 60).tolist()]


@pytest.mark.parametrize("size", [1, 3, 32, 100])
@pytest.mark.parametrize(
    "options", [{}, {"support_query_split": "none", "support": Passes(2, 5), "query": Passes(0)}]
)
@pytest.mark.parametrize("order", ["shuffle_once", "shuffle_each_round"])
def test_shards_hold_every_client_once(size, options, order):
    examples, options = population(COUNTS, order=order), packing(seed=3, **options)
    packer = CohortPacker(examples, options, clients_per_shard=size)
    assert packer.clients_per_shard == size
    drawn = np.random.default_rng(0).permutation(len(COUNTS))
    cohorts_of_few = [[], [0], [1], [2], [3], [3, 0, 2, 1]]
    for round_num, users in enumerate([*cohorts_of_few, drawn[:7], drawn[:33], drawn]):
        users = np.array(users, np.int64)
        shards = packer.pack(users, round_num)
        assert_holds(shards, size, expected_clients(examples, options, users, round_num))
        lengths = [shard.mask.sum((1, 2)) for shard in shards]
        assert not lengths or (np.diff(np.concatenate(lengths)) <= 0).all()  # The longest first.


def test_a_population_without_ratings():
    examples, options, users = population([0, 0, 0]), packing(), np.arange(3)
    shards = CohortPacker(examples, options, clients_per_shard=2).pack(users, 0)
    assert_holds(shards, 2, expected_clients(examples, options, users, 0))
    assert len(examples.users) == 0  # Those who have ratings.
    for num_clients, among in ((0, examples.users), (5, examples.users), (0, users), (5, users)):
        size = cohorts.choose_clients_per_shard(examples, among, options, num_clients=num_clients)
        assert 1 <= size <= max(num_clients, 1)


@pytest.mark.parametrize("size", [1, 3, 25])
def test_packing_depends_on_users_and_round_alone(size):
    both = [population(COUNTS, order="shuffle_each_round") for _ in range(2)]
    first, later = (CohortPacker(each, packing(), clients_per_shard=size) for each in both)
    users = np.arange(25)
    for round_num, others in enumerate([users[:9], users, users + 30]):
        later.pack(others, round_num)
    shuffled = later.pack(np.random.default_rng(0).permutation(users), 2)
    in_order = first.pack(users, 2)
    assert len(in_order) == len(shuffled)
    for shards in zip(in_order, shuffled):
        for arrays in zip(*shards):
            np.testing.assert_array_equal(*arrays)


@pytest.mark.parametrize(("order", "num_orders"), [("shuffle_once", 1), ("shuffle_each_round", 3)])
def test_another_round_has_other_seeds_and_orders(order, num_orders):
    users = np.arange(4, 20)
    packer = CohortPacker(population(COUNTS, order=order), packing(), clients_per_shard=5)
    rounds = [unpack(packer.pack(users, round_num)) for round_num in range(3)]
    assert len(set().union(*rounds)) == 3 * len(users)
    # Clients come in the same order each round: by length, then by user.
    assert len({str([client[0] for client in found.values()]) for found in rounds}) == num_orders


@pytest.mark.parametrize("size", [7, 50])
def test_rounds_share_few_shapes(size):
    # Half of them have at most 52 examples, a tenth more than 240, the most 2000.
    draws = np.exp(np.random.default_rng(1).normal(4, 1.3, 1000))
    examples = population(np.clip(draws, 1, 2000).astype(int))
    packer = CohortPacker(examples, packing(batch_size=5), clients_per_shard=size)
    by_length = np.argsort([examples.num_examples(user) for user in range(1000)])
    drawn = [np.random.default_rng(number).permutation(1000)[:100] for number in range(200)]
    shapes = set()
    for round_num, users in enumerate([by_length[:50], by_length[-50:], *drawn]):
        for shard in packer.pack(users, round_num):
            shapes.add(tuple(array.shape for array in shard))
            longest, room = int(shard.mask.sum((1, 2)).max()), shard.item_ids.shape[1]
            assert longest <= room < 2 * longest
            # Nobody has more than 2000, so that rounding up to 2048 would be in vain.
            assert room == 2000 or room in 2 ** np.arange(11)
    assert {shape[0][0] for shape in shapes} == {size}
    assert 3 <= len(shapes) <= 12


@pytest.mark.parametrize(
    ("counts", "size", "costs"),
    [
        ([10] * 8, 8, {"workers": 1}),  # 10 * (40 + 8) = 480; two of 4 take 2 * 440.
        ([10] * 8, 4, {"workers": 2}),  # 440, both at a time; three of 3 take 2 * 430.
        ([10] * 8, 3, {"workers": 3}),  # 430; four of 2 take 2 * 420.
        ([10] * 8, 4, {"step": 0}),  # 10 * 4 = 40, as in shards of 2 and of 1: the largest wins.
        # In shards of 4: 10 * 4 = 40. Of 2: 20 + 1 * 2 = 22. Of 1: 10 + 3 * 1 = 13.
        ([1, 10, 1, 1], 1, {"workers": 1, "step": 0}),
        ([1, 10, 1, 1], 2, {"workers": 1, "step": 0, "shard": 10}),  # 50, 42, 53.
        ([1, 10, 1, 1], 4, {"workers": 1, "step": 0, "shard": 100}),  # 140, 222, 413.
        ([1, 10, 1, 1], 2, {"workers": 1, "step": 10}),  # 140, 120 + 12 = 132, 110 + 33 = 143.
        # The long one takes 100 * (4 + size); without it, shards would be of 4 as the last here.
        ([1] * 7 + [100], 1, {"step": 4}),
        ([10] * 8, 4, {"workers": 1, "rows": 79}),  # 7 would fit, and so two of 4 do.
        ([10] * 8, 3, {"workers": 1, "rows": 35}),  # 3 * 430; four of 2 take 4 * 420.
        ([10] * 8, 2, {"rows": 35}),  # 2 * 420; three of 3 take 2 * 430.
        ([10] * 8, 1, {"rows": 9}),  # Not even one fits, but it has to.
        # Cohorts of more than there are: as if each were there several times.
        ([10] * 2, 4, {"num_clients": 8}),
        # 4 long ones, in shards of 8: 800; of 4 and of 2: 404; of 3: 300 + 300 + 3.
        ([100, 1], 4, {"num_clients": 8, "workers": 1, "step": 0}),
        ([100, 1], 1, {"workers": 1, "step": 0}),  # 101; 200 for one of 2.
        # Cohorts of fewer: 8 of these 80 seldom include the long one.
        ([1] * 79 + [100], 4, {"num_clients": 8, "step": 4}),
    ],
)
def test_the_size_that_takes_least_time(monkeypatch, counts, size, costs):
    costs = {"num_clients": len(counts), "workers": 2, "step": 40, "shard": 0, **costs}
    monkeypatch.setattr(cohorts, "_STEP_COST_CLIENTS", costs["step"])
    monkeypatch.setattr(cohorts, "_SHARD_COST", costs["shard"])
    monkeypatch.setattr(cohorts, "_MAX_ROWS", costs.get("rows", 2**18))
    numbers = {"num_clients": costs["num_clients"], "num_workers": costs["workers"]}
    given = population(counts), range(len(counts)), packing(batch_size=1)  # A step each example.
    assert cohorts.choose_clients_per_shard(*given, **numbers) == size


@hypothesis.given(
    st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(0, 50), st.integers(1, 4)
)
def test_whatever_is_chosen_holds_everyone(counts, num_clients, num_workers):
    examples, options, users = population(counts), packing(), np.arange(len(counts))
    size = cohorts.choose_clients_per_shard(
        examples, users, options, num_clients=num_clients, num_workers=num_workers
    )
    assert 1 <= size <= max(num_clients, 1)
    cohort = users[:num_clients]
    shards = CohortPacker(examples, options, clients_per_shard=size).pack(cohort, 0)
    assert_holds(shards, size, expected_clients(examples, options, cohort, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1."),
        ({"support_query_split": "odd"}, "support_query_split is 'odd'; it must be one of "),
        ({"support": Passes(-1)}, "epochs of the support is -1; it must be at least 0."),
        ({"query": Passes(-2)}, "epochs of the query is -2; it must be at least 0."),
        ({"support": Passes(1, 0)}, "steps_max of the support is 0; it must be at least 1, or "),
        ({"query": Passes(0, -1)}, "steps_max of the query is -1; it must be at least 1, or "),
    ],
)
def test_options_check_themselves(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        packing(**options)


@pytest.mark.parametrize("number", [0, -1])
def test_shards_and_workers_are_at_least_one(number):
    examples, message = population([2, 3]), f"is {number}; it must be at least 1"
    with pytest.raises(InputError, match=f"^clients_per_shard {message}"):
        CohortPacker(examples, packing(), clients_per_shard=number)
    given = {"num_clients": 2, "num_workers": number}
    with pytest.raises(InputError, match=f"^num_workers {message}"):
        cohorts.choose_clients_per_shard(examples, examples.users, packing(), **given)


def test_lengths_that_are_not_rounded_up_are_of_the_longest_client():
    examples = population([5, 3, 3, 1])
    packer = CohortPacker(examples, packing(batch_size=1, is_rounded_up=False), clients_per_shard=2)
    first, second = packer.pack(np.arange(4), 0)
    assert [shard.item_ids.shape for shard in (first, second)] == [(2, 5), (2, 3)]
    assert [shard.mask.shape for shard in (first, second)] == [(2, 5, 1), (2, 3, 1)]
    # The same clients as in arrays of powers of two.
    rounded = CohortPacker(examples, packing(batch_size=1), clients_per_shard=2).pack(
        np.arange(4), 0
    )
    for exact, padded in zip((first, second), rounded):
        width = exact.item_ids.shape[1]
        np.testing.assert_array_equal(exact.item_ids, padded.item_ids[:, :width])
        np.testing.assert_array_equal(exact.user_ids, padded.user_ids)
