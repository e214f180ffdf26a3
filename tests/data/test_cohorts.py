"""Tests of how clients become padded arrays, and of where a cohort is cut."""

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

SPLITS = ("alternating_batches", "none")


def packing(**options):
    defaults = {
        "batch_size": 3,
        "support_query_split": "alternating_batches",
        "support": Passes(),
        "query": Passes(),
    }
    return PackingOptions(**{**defaults, **options})


def population(counts, **options):
    """Users 0, 1, ... with so many ratings of different items each, the stars drawn."""
    draw = np.random.default_rng(0)
    num_items = max(counts)
    ratings = Ratings(
        name="drawn",
        user_ids=np.repeat(np.arange(len(counts)), counts),
        item_ids=np.concatenate([draw.permutation(num_items)[:count] for count in counts]),
        ratings=draw.integers(1, 6, sum(counts)),
        timestamps=None,
        num_users=len(counts),
        num_items=num_items,
        original_user_ids=np.arange(len(counts)),
        original_item_ids=np.arange(num_items),
        item_titles=None,
        item_genres=None,
        scale=RatingScale(1, 5, 1),
    )
    return ClientExamples(ratings, ExampleOptions(max_ratings_per_user=None, **options))


def naive_steps(num_examples, options):
    """The batches of the support steps and of the query steps, as the two docstrings put it."""
    batches = [start // options.batch_size for start in range(0, num_examples, options.batch_size)]
    support = query = batches
    if options.support_query_split == "alternating_batches":
        support = [batch for batch in batches if batch % 2 == 0]
        query = [batch for batch in batches if batch % 2 == 1]
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
    mask = shard.mask[client].ravel().tolist()
    positions = shard.positions[client].ravel().tolist()
    labels = shard.labels[client].ravel().tolist()
    assert np.isfinite(labels).all()
    assert mask == sorted(mask, reverse=True)
    if not any(mask):
        # Every position can be looked up, although there is nothing to find.
        assert not items
        assert set(positions) == {0}
        examples = []
    else:
        pairs = [(items[position], label) for position, label in zip(positions, labels)]
        examples = pairs[: sum(mask)]
        assert set(pairs) == set(examples)  # Padding repeats the client's own.
        assert {item for item, _ in examples} == set(items)
    steps = without_tail(shard.support_batches[client]), without_tail(shard.query_batches[client])
    return examples, *steps


def unpack(shards):
    """What each seed's client holds; clients that are padding have seed 0 and hold nothing."""
    found = {}
    for shard in shards:
        for client, seed in enumerate(shard.seeds.tolist()):
            held = unpack_client(shard, client)
            if seed:
                assert seed not in found
                found[seed] = held
            else:
                assert held == ([], [], [])
    return found


def expected_clients(examples, options, users, round_num):
    """What `unpack` should find."""
    seeds = rng.derive_seeds(options.seed, "client", round_num, ids=users).tolist()
    expected = {}
    for user, seed in zip(users.tolist(), seeds):
        items, labels = examples.examples(user, round_num)
        pairs = list(zip(items.tolist(), labels.tolist()))
        expected[seed] = (pairs, *naive_steps(len(items), options))
    return expected


def assert_same_shards(first, second):
    assert len(first) == len(second)
    for arrays in zip(itertools.chain(*first), itertools.chain(*second)):
        np.testing.assert_array_equal(*arrays)


def clients_per_shard(shards):
    return [len(shard.seeds) for shard in shards]


def test_a_shard_by_hand():
    clients = [([7, 3, 7, 5, 3], [1, 2, 3, 4, 5]), ([4], [2.5]), ([], [])]
    shard = pack_shard(
        [(np.array(items, np.int64), np.array(labels, np.float32)) for items, labels in clients],
        np.array([11, 2**32 - 1, 5], np.uint32),
        packing(batch_size=2, support=Passes(epochs=2)),
        num_clients=4,
        num_examples=6,
    )
    none = [-1] * 6
    expected = {
        "item_ids": [[3, 5, 7, -1, -1, -1], [4, -1, -1, -1, -1, -1], none, none],
        "positions": [[[2, 0], [2, 1], [0, 0]], *[[[0, 0]] * 3] * 3],
        # The last two clients hold nothing, so that their labels may be anything.
        "labels": [[[1, 2], [3, 4], [5, 5]], [[2.5, 2.5]] * 3, *shard.labels[2:].tolist()],
        "mask": [
            [[True, True], [True, True], [True, False]],
            [[True, False], [False, False], [False, False]],
            *[[[False, False]] * 3] * 2,
        ],
        # Batches 0 and 2 twice, and batch 0 twice.
        "support_batches": [[0, 2, 0, 2], [0, 0, -1, -1], [-1] * 4, [-1] * 4],
        "query_batches": [[1], [-1], [-1], [-1]],
        "seeds": [11, 2**32 - 1, 5, 0],
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(getattr(shard, name), array, err_msg=name)
    types = [array.dtype for array in shard]
    assert types == [np.int32, np.int32, np.float32, bool, np.int32, np.int32, np.uint32]
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
    st.integers(1, 5),
    st.sampled_from(SPLITS),
    st.integers(0, 2),
    st.integers(0, 9),
)
def test_a_shard_holds_what_it_was_given(items, batch_size, split, more_clients, more_examples):
    options = packing(batch_size=batch_size, support_query_split=split, query=Passes(2, 3))
    # No two labels are alike, so that an example of another client or place would show.
    labels = [[100 * client + n for n in range(len(ids))] for client, ids in enumerate(items)]
    num_clients = max(len(items) + more_clients, 1)
    num_examples = max(1, *map(len, items), 0) + more_examples
    shard = pack_shard(
        [(np.array(i, np.int64), np.array(v, np.float32)) for i, v in zip(items, labels)],
        np.arange(1, len(items) + 1, dtype=np.uint32),
        options,
        num_clients=num_clients,
        num_examples=num_examples,
    )
    num_batches = -(-num_examples // batch_size)
    assert shard.item_ids.shape == (num_clients, num_examples)
    for array in (shard.positions, shard.labels, shard.mask):
        assert array.shape == (num_clients, num_batches, batch_size)
    assert unpack([shard]) == {
        client + 1: (list(zip(ids, values)), *naive_steps(len(ids), options))
        for client, (ids, values) in enumerate(zip(items, labels))
    }


# User 0 has none, user 1 one, user 2 less than a batch, user 3 a batch and so no query.
COUNTS = [0, 1, 2, 3, *np.random.default_rng(1).integers(0, 40, 60).tolist()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_workers": 1},
        {"num_workers": 4},
        {"max_clients_per_shard": 1},
        {"max_clients_per_shard": 3},
        {"support_query_split": "none", "support": Passes(2, 5), "query": Passes(0)},
    ],
)
@pytest.mark.parametrize("order", ["file", "shuffle_each_round"])
def test_shards_hold_every_client_once(options, order):
    examples, options = population(COUNTS, order=order), packing(seed=3, **options)
    packer = CohortPacker(examples, options)
    for round_num, num_clients in enumerate([1, 2, 7, 33, len(COUNTS)]):
        users = np.random.default_rng(round_num).permutation(len(COUNTS))[:num_clients]
        shards = packer.pack(users, round_num)
        assert unpack(shards) == expected_clients(examples, options, users, round_num)
        lengths = np.concatenate([shard.mask.sum((1, 2)) for shard in shards])
        assert (np.diff(lengths) <= 0).all()  # The longest first.
        limit = options.max_clients_per_shard
        assert limit is None or max(clients_per_shard(shards)) <= limit
        assert limit != 1 or len(shards) == num_clients


@pytest.mark.parametrize("users", [[0], [1], [2], [3], [0, 4, 5], [0, 1, 2, 3]])
def test_clients_of_few_or_no_examples(users):
    examples, options = population([0, 1, 2, 3, 0, 0, 20]), packing()
    shards = CohortPacker(examples, options).pack(users, 0)
    assert unpack(shards) == expected_clients(examples, options, np.array(users), 0)
    assert all(min(array.shape) >= 1 for shard in shards for array in shard)


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_a_cohort_of_nobody_has_no_shards(limit):
    packer = CohortPacker(population([2, 3]), packing(max_clients_per_shard=limit))
    assert packer.pack(np.array([], np.int64), 0) == []


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_packing_depends_on_users_and_round_alone(limit):
    options = packing(max_clients_per_shard=limit)
    users = np.arange(25)
    first = CohortPacker(population(COUNTS, order="shuffle_each_round"), options).pack(users, 2)
    later = CohortPacker(population(COUNTS, order="shuffle_each_round"), options)
    for round_num, others in enumerate([users[:9], users, users + 30]):
        later.pack(others, round_num)
    assert_same_shards(first, later.pack(np.random.default_rng(0).permutation(users), 2))


@pytest.mark.parametrize(("order", "num_orders"), [("file", 1), ("shuffle_each_round", 3)])
def test_another_round_has_other_seeds_and_orders(order, num_orders):
    users = np.arange(4, 20)
    packer = CohortPacker(population(COUNTS, order=order), packing())
    rounds = [unpack(packer.pack(users, round_num)) for round_num in range(3)]
    assert len(set().union(*rounds)) == 3 * len(users)
    # Clients come in the same order each round: by length, then by user.
    assert len({str([client[0] for client in found.values()]) for found in rounds}) == num_orders


@pytest.fixture(scope="module")
def skewed():
    """1000 users: half have at most 52 examples, a tenth more than 240, the most 2000."""
    draws = np.exp(np.random.default_rng(1).normal(4, 1.3, 1000))
    return population(np.clip(draws, 1, 2000).astype(int))


# Measured: at most 19 shapes, and room for at most 3.1 times the examples. One shard for all 100
# clients would need room for 11 times (median), at worst 21.
@pytest.mark.parametrize(("num_clients", "num_workers"), [(20, 2), (100, 2), (100, 4)])
def test_rounds_share_few_sizes_and_waste_little(skewed, num_clients, num_workers):
    packer = CohortPacker(skewed, packing(batch_size=5, num_workers=num_workers))
    sizes, shapes = set(), set()
    for round_num in range(200):
        users = np.random.default_rng(round_num).permutation(1000)[:num_clients]
        shards = packer.pack(users, round_num)
        sizes.add(tuple(clients_per_shard(shards)))
        shapes.update(tuple(array.shape for array in shard) for shard in shards)
        room = sum(shard.mask.size for shard in shards)
        assert room <= 4 * sum(map(skewed.num_examples, users))
    assert len(sizes) == 1
    assert len(shapes) <= 25


@pytest.mark.parametrize("limit", [None, 7])
def test_a_cohort_unlike_the_population_fits_too(skewed, limit):
    options = packing(max_clients_per_shard=limit)
    packer = CohortPacker(skewed, options)
    by_length = np.argsort([skewed.num_examples(user) for user in range(1000)])
    sizes = set()
    for users in (by_length[:50], by_length[-50:], by_length[::20]):
        shards = packer.pack(users, 0)
        assert unpack(shards) == expected_clients(skewed, options, users, 0)
        sizes.add(tuple(clients_per_shard(shards)))
        # Nobody has more than 2000, so that rounding up to 2048 would be in vain.
        assert max(shard.item_ids.shape[1] for shard in shards) <= 2000
    assert len(sizes) == 1


def shard_costs(steps, cuts):
    return [
        steps[start] * (cohorts._STEP_COST_CLIENTS + end - start)
        for start, end in zip(cuts, cuts[1:])
    ]


def finish(costs, num_workers):
    """When the last worker ends, each next largest shard going to the one who is free first."""
    workers = [0] * num_workers
    for cost in sorted(costs, reverse=True):
        workers = sorted(workers)
        workers[0] += cost
    return max(workers)


@pytest.mark.parametrize("num_clients", range(1, 10))
def test_cuts_are_the_cheapest_of_all(num_clients):
    draw = np.random.default_rng(num_clients)
    inner = range(1, num_clients)
    chosen = (itertools.combinations(inner, count) for count in range(num_clients))
    every = [[0, *places, num_clients] for places in itertools.chain(*chosen)]
    numbers_of_shards = set()
    for _ in range(20):
        # So skewed that cutting pays although a step costs as much as many clients.
        steps = np.sort(np.exp(draw.normal(3, 3, num_clients)).astype(int) + 1)[::-1]
        cheapest = min(every, key=lambda cuts: sum(shard_costs(steps, cuts)))
        cuts = cohorts._best_cuts(steps, 1)
        assert cuts in every
        assert sum(shard_costs(steps, cuts)) == sum(shard_costs(steps, cheapest))
        numbers_of_shards.add(len(cuts) - 1)
        for num_workers in (2, 3, 4):
            balanced = cohorts._best_cuts(steps, num_workers)
            assert balanced in every
            ends = [finish(shard_costs(steps, each), num_workers) for each in (balanced, cheapest)]
            assert ends[0] <= ends[1]
    assert num_clients == 1 or len(numbers_of_shards) > 1


def test_equal_clients_are_halved_for_two_workers(monkeypatch):
    monkeypatch.setattr(cohorts, "_STEP_COST_CLIENTS", 40)
    # In one shard 10 * (40 + 8) = 480; two at a time, 10 * (40 + 4) = 440 each.
    assert cohorts._best_cuts(np.full(8, 10), 1) == [0, 8]
    assert cohorts._best_cuts(np.full(8, 10), 2) == [0, 4, 8]
