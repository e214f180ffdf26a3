"""What a comparison keeps of a run: files that come back as they were, rows, refusals."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.comparison.results import (
    PerUser,
    RunResults,
    Sample,
    read_per_user,
    read_results,
    write_per_user,
)
from experiments.comparison.runs import first_sample, judged
from experiments.run import samples
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.errors import InputError
from fedrecon.evaluation.judge import Judge
from fedrecon.evaluation.metrics import UserResults
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.by_item import ByItem
from tests.experiments.comparison.runs_by_hand import (
    COSTS,
    REFERENCE,
    explicit_results,
    implicit_results,
)

GIVEN = {"5": {"rmse": 0.1 + 0.2, "accuracy": 0.75, "rounded_accuracy": 0.5}}
TOP_LISTS = {"num_items_at_10": 3, "coverage_at_10": 0.25}
SAMPLE = Sample("17", ["Heat"], [["Alien", 4.25]])


@pytest.mark.parametrize(
    "results",
    [
        explicit_results("fed_recon", 3, 1 / 3, 0.5, given=GIVEN, sample=SAMPLE),
        implicit_results("fed_ials", 0, 0.5, changes={"dim": 3, "l2": None}),
        explicit_results("popularity", 0, 1.0, 0.5, **REFERENCE),
    ],
)
def test_results_come_back_from_their_file_as_they_were(results):
    values = json.loads(json.dumps(results.to_json()))
    assert RunResults.from_json(values) == results


def test_a_row_of_ratings_has_every_figure_by_its_name():
    results = explicit_results(
        "fed_recon", 3, 1 / 3, 0.5, given=GIVEN, changes={"dim": 3, "l2": None}, sample=SAMPLE
    )
    row = results.row()
    # One column a figure: the run, what it costs, of both groups 4 means over ratings, 4 over
    # users, 11 quantiles and 2 counts, and 3 means of those who give 5.
    assert len(row) == 8 + 2 + 6 + 2 * (4 + 4 + 11 + 2) + 3
    assert not [value for value in row.values() if isinstance(value, (dict, list))]
    assert {name: row[name] for name in COSTS} == COSTS
    wanted = {
        **{"algorithm": "fed_recon", "seed": 3, "feedback": "explicit", "rounds": 4},
        **{"clients_per_round": 10, "num_training_users": 48, "seconds": 2.0},
        **{"watched_group": "unseen_validation", "changed_dim": "3", "changed_l2": "none"},
        **{"seen_test_rmse": 1 / 3, "seen_test_mae": 1 / 6, "seen_test_accuracy": 0.5},
        **{"unseen_test_rmse_over_users": 1 / 3 + 0.75, "unseen_test_accuracy": 0.375},
        **{"unseen_test_rmse_quantile_100": 1 / 3 + 10.5, "seen_test_rmse_quantile_0": 1 / 3},
        **{"seen_test_num_users": 4, "unseen_test_num_examples": 20},
        **{"unseen_test_rmse_given_5": 0.1 + 0.2, "unseen_test_accuracy_given_5": 0.75},
    }
    assert {name: row[name] for name in wanted} == wanted


def test_a_row_has_what_is_recommended():
    results = explicit_results("fed_recon", 0, 1.0, 0.5)
    group = dataclasses.replace(results.groups["seen_test"], top_lists=TOP_LISTS)
    row = dataclasses.replace(results, groups={"seen_test": group}).row()
    assert (row["seen_test_num_items_at_10"], row["seen_test_coverage_at_10"]) == (3, 0.25)


def test_results_of_users_come_back_from_their_file_as_they_were(tmp_path):
    run = RunDirectory(tmp_path)
    assert read_per_user(run) == {}
    # Measures may have any name, also those of the other arrays.
    values = {"rmse": np.array([0.1, np.nan]), "counts": np.array([1.0, 2.0])}
    of_seen = PerUser(np.array([3, 7]), UserResults(values, np.array([5, 0])))
    of_unseen = PerUser(np.array([4]), UserResults({"mrr": np.array([0.5])}, np.array([1])))
    write_per_user(run, {"seen_test": of_seen, "unseen_test": of_unseen})
    found = read_per_user(run)
    assert list(found) == ["seen_test", "unseen_test"]
    for name, wanted in (("seen_test", of_seen), ("unseen_test", of_unseen)):
        np.testing.assert_array_equal(found[name].users, wanted.users)
        np.testing.assert_array_equal(found[name].results.counts, wanted.results.counts)
        assert list(found[name].results.values) == list(wanted.results.values)
        for measure, array in wanted.results.values.items():
            np.testing.assert_array_equal(found[name].results.values[measure], array)
    run.write_user_results({"seen_test/users": np.array([3])})
    with pytest.raises(InputError, match=r"user_results\.npz has no 'seen_test/counts'; run it"):
        read_per_user(run)


def test_a_row_of_rankings_has_full_rankings_and_one_kind_of_mean():
    row = implicit_results("fed_ials", 0, 0.5).row()
    # Of both groups 3 means, 3 among all items, 11 quantiles and 2 counts.
    assert len(row) == 8 + 6 + 2 * (3 + 3 + 11 + 2)
    assert (row["unseen_test_full_hr_at_10"], row["seen_test_full_ndcg_at_10"]) == (0.1, 0.05)
    assert (row["seen_test_hr_at_10"], row["seen_test_mrr"]) == (0.5, 0.125)
    assert row["unseen_test_mrr_quantile_30"] == 0.3
    assert not [name for name in row if name.endswith("_over_users")]


def test_a_run_that_is_not_finished_has_no_results(tmp_path):
    assert read_results(RunDirectory(tmp_path)) is None


# As the version before the groups had names wrote it.
OLD = {
    "feedback": "explicit",
    "users": {"seen": {"over_ratings": {"rmse": 1.0}}, "unseen": {"over_ratings": {"rmse": 1.0}}},
    "given": {},
    "algorithm": "fedrecon",
    "seed": 0,
    "changes": {},
    "watched_part": "validation",
    "rounds": 4,
    "bytes_down": 741200,
}
GOOD = explicit_results("fed_recon", 0, 1.0, 0.5).to_json()


def without(*path):
    values = json.loads(json.dumps(GOOD))
    folder = values
    for name in path[:-1]:
        folder = folder[name]
    del folder[path[-1]]
    return values


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (OLD, "groups"),
        ({**GOOD, "zeal": 1}, "zeal"),
        ({**GOOD, "feedback": "loud"}, "loud"),
        ({**GOOD, "groups": []}, ""),
        (without("costs"), "costs"),
        (without("watched_group"), "watched_group"),
        (without("groups", "seen_test", "num_users"), "num_users"),
        (without("groups", "seen_test", "means", "rmse"), "groups.seen_test.means.rmse"),
    ],
)
def test_results_of_another_version_are_refused_in_a_sentence(tmp_path, values, named):
    (tmp_path / "results.json").write_text(json.dumps(values))
    with pytest.raises(InputError) as caught:
        read_results(RunDirectory(tmp_path))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/results.json is not of this version (")
    assert named in text
    assert text.endswith("; run it again in an empty directory.")


# --- what the judge says --------------------------------------------------------------------------


def explicit_population():
    ratings = load_dataset("synthetic", num_users=60, num_items=60, mean_ratings_per_user=25)
    return divide_by_user(ratings, held_out_fraction=0.2)


def implicit_population(**options):
    ratings = load_dataset("synthetic", num_users=60, num_items=260, mean_ratings_per_user=25)
    return divide_for_ranking(ratings, **options)


class FewUsers:
    """A judge who has made up its mind, and remembers what it was asked; of three users."""

    def __init__(self, measures, population):
        self.measures = measures
        self.asked = []
        self._judge = Judge.of_scores(ByItem(), population)

    def cases(self, group):
        cases = self._judge.cases(group)
        return cases.select(np.arange(len(cases.users)) < 3)

    def coverage(self, group):
        return self._judge.coverage(group)

    def results(self, state, group):
        self.asked.append(("results", group))
        values = np.array([state, state + 1, np.nan])
        return UserResults(dict.fromkeys(self.measures, values), np.array([1, 3, 0]))

    def results_by_given(self, state, group):
        self.asked.append(("given", group))
        return {2: self.results(state + 10, group), 5: self.results(state, group)}

    def full_ranking(self, state, group):
        self.asked.append(("full", group))
        return self.results(state + 20, group)


def test_groups_keep_their_means_deciles_and_counts():
    population = explicit_population()
    judge = FewUsers(["rmse", "accuracy"], population)
    groups, per_user = judged(judge, ByItem(), 1.0, population)
    assert list(groups) == ["seen_validation", "seen_test", "unseen_validation", "unseen_test"]
    seen = groups["seen_test"]
    # One rating of the first user, three of the second; the third is asked nothing.
    assert seen.means == {"rmse": pytest.approx(((1 + 3 * 4) / 4) ** 0.5), "accuracy": 1.75}
    assert seen.over_users == {"rmse": 1.5, "accuracy": 1.5}
    assert seen.deciles == pytest.approx([1 + i / 10 for i in range(11)])
    assert (seen.num_users, seen.num_examples) == (2, 4)
    assert (seen.given, seen.full_ranking) == ({}, None)
    # Only unseen users of the test give fewer ratings.
    given = groups["unseen_test"].given
    assert {number: means["accuracy"] for number, means in given.items()} == {"2": 11.75, "5": 1.75}
    assert [ask for ask in judge.asked if ask[0] != "results"] == [("given", "unseen_test")]
    assert list(per_user) == ["seen_test", "unseen_test"]
    own = per_user["unseen_test"]
    np.testing.assert_array_equal(own.users, judge.cases("unseen_test").users)
    assert own.results.counts.tolist() == [1, 3, 0]
    np.testing.assert_array_equal(own.results.values["rmse"], [1, 2, np.nan])


def test_rankings_of_test_groups_are_also_among_all_items():
    population = implicit_population(unseen_fraction=0.2)
    judge = FewUsers(["mrr", "hr_at_10"], population)
    groups, per_user = judged(judge, ByItem(), 1.0, population)
    assert list(groups) == ["seen_validation", "seen_test", "unseen_test"]
    assert groups["seen_test"].means == {"mrr": 1.5, "hr_at_10": 1.5}
    assert groups["seen_test"].full_ranking == {"mrr": 21.5, "hr_at_10": 21.5}
    assert groups["seen_validation"].full_ranking is None
    full = [group for kind, group in judge.asked if kind == "full"]
    assert full == ["seen_test", "unseen_test"]
    values = per_user["seen_test"].results.values
    np.testing.assert_array_equal(values["hr_at_10"], [1, 2, np.nan])
    np.testing.assert_array_equal(values["full_hr_at_10"], [21, 22, np.nan])


@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
def test_test_groups_keep_what_is_recommended_to_their_users(feedback):
    if feedback == "explicit":
        population, num_items = explicit_population(), 60
    else:
        population, num_items = implicit_population(unseen_fraction=0.2), 260
    judge = Judge.of_scores(ByItem(), population)
    groups, per_user = judged(judge, ByItem(), None, population)
    assert groups["seen_validation"].top_lists == {}
    # Who trained, and what on: with implicit feedback a user's drawn negatives are none of its own.
    examples, train = population.examples, population.train.tolist()
    has = {
        user: {i for i, label in zip(*map(np.ndarray.tolist, examples.examples(user)))}
        if feedback == "explicit"
        else set(examples.positives(user).tolist())
        for user in range(60)
    }
    times = {item: sum(item in has[user] for user in train) for item in range(num_items)}
    for name in ("seen_test", "unseen_test"):
        lists = []
        for place, user in enumerate(per_user[name].users.tolist()):
            known = has[user]
            if feedback == "explicit":  # Unseen users give half of their ratings.
                known = set(judge.cases(name).given[place][0].tolist())
            lists.append([i for i in range(num_items - 1, -1, -1) if i not in known][:10])
        entries = [item for of_user in lists for item in of_user]
        assert groups[name].top_lists == pytest.approx(
            {
                "coverage_at_10": len(set(entries)) / num_items,
                "num_items_at_10": len(set(entries)),
                "most_recommended_share": max(map(entries.count, entries)) / len(lists),
                "mean_popularity_at_10": np.mean([times[i] / len(train) for i in entries]),
                "few_ratings_share": np.mean([times[i] < 20 for i in entries]),
            }
        )


def test_the_first_line_needs_three_items_of_the_first_unseen_user():
    liked = [(f"Item {n}", 5.0 - n) for n in range(5)]
    recommended = [samples.Recommended(f"Item {n + 5}", float(n), None) for n in range(5)]
    unseen = [
        samples.Sample(user, "unseen_test", 20, liked, recommended[place:])
        for place, user in enumerate(("17", "18"))
    ]
    assert first_sample(unseen) == Sample(
        "17",
        ["Item 0", "Item 1", "Item 2"],
        [("Item 5", 0.0), ("Item 6", 1.0), ("Item 7", 2.0)],
    )
    seen = samples.Sample("3", "seen_test", 20, liked, recommended)
    assert first_sample([seen]) is None
    assert first_sample([]) is None
