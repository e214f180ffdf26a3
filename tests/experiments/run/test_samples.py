"""Recommendations for a few test users: who they are, what they get, and their file."""

import dataclasses

import numpy as np
import pytest

from experiments.run import samples
from fedrecon.data.datasets import load_dataset
from fedrecon.data.population import divide_by_user, divide_for_ranking
from fedrecon.errors import InputError
from fedrecon.evaluation.judge import Judge
from fedrecon.runs.run_directory import RunDirectory
from tests.experiments.by_item import ByItem


def samples_by_item(population):
    judge = Judge.of_scores(ByItem(), population)
    return samples.samples_of(ByItem(), None, judge, population), judge


@pytest.fixture(scope="module")
def rated():
    """A population whose users and items have ids of their own, and whose items have titles."""
    ratings = load_dataset("synthetic", num_users=60, num_items=60, mean_ratings_per_user=25)
    ids = np.arange(60) + 1000
    ratings = dataclasses.replace(
        ratings,
        item_titles=tuple(f"Item {item}" for item in range(60)),
        original_user_ids=ids,
        original_item_ids=ids,
    )
    return divide_by_user(ratings, held_out_fraction=0.2)


def test_three_unseen_users_get_the_best_items_that_they_did_not_give(rated):
    found, judge = samples_by_item(rated)
    users = rated.groups["unseen_test"].users[:3]
    assert [sample.user for sample in found] == [str(1000 + user) for user in users]
    assert {sample.group for sample in found} == {"unseen_test"}
    cases = judge.cases("unseen_test")
    for place, sample in enumerate(found):
        items, labels = cases.given[place]
        assert sample.num_given == len(items)
        stars = dict(zip(items.tolist(), labels.tolist()))
        liked = {int(title.removeprefix("Item ")): rating for title, rating in sample.liked}
        assert len(liked) == 5
        assert liked == {item: stars[item] for item in liked}
        assert list(liked.values()) == sorted(stars.values(), reverse=True)[:5]
        best = sorted(set(range(60)) - set(stars), reverse=True)[:5]
        assert [item.title for item in sample.recommended] == [f"Item {item}" for item in best]
        assert [item.score for item in sample.recommended] == best
        asked = {
            item: label
            for item, label in zip(cases.item_ids[place].tolist(), cases.labels[place].tolist())
            if item >= 0
        }
        assert [item.answer for item in sample.recommended] == [asked.get(item) for item in best]
    # Half of an unseen user's ratings are asked for, so some of 15 items are among them.
    assert any(item.answer is not None for sample in found for item in sample.recommended)


def test_items_without_titles_are_called_by_their_ids(rated):
    untitled = dataclasses.replace(rated.ratings, item_titles=None)
    found, _ = samples_by_item(dataclasses.replace(rated, ratings=untitled))
    assert all(1000 <= int(item.title) < 1060 for item in found[0].recommended)


def test_a_ranking_marks_the_item_held_out_and_no_negative():
    ratings = load_dataset("synthetic", num_users=60, num_items=260, mean_ratings_per_user=25)
    population = divide_for_ranking(ratings)  # Nobody is unseen.
    found, judge = samples_by_item(population)
    cases = judge.cases("seen_test")
    assert {sample.group for sample in found} == {"seen_test"}
    for place, sample in enumerate(found):
        positives = population.examples.positives(int(cases.users[place]))
        assert sample.num_given == len(positives)
        titles = {population.ratings.item_title(item) for item in positives.tolist()}
        assert {title for title, _ in sample.liked} <= titles
        assert not {item.title for item in sample.recommended} & titles
        (held_out,) = cases.item_ids[place][cases.labels[place] > 0].tolist()
        title = population.ratings.item_title(held_out)
        for item in sample.recommended:
            assert item.answer == (1.0 if item.title == title else None)


def test_the_file_gives_back_what_was_written_and_damage_is_named(tmp_path):
    run = RunDirectory(tmp_path)
    assert samples.read(run) == []
    sample = samples.Sample(
        "17", "unseen_test", 2, [("Amélie", 5.0)], [samples.Recommended("Heat", 4.5, None)]
    )
    samples.write(run, [sample])
    assert samples.read(run) == [sample]
    assert [path.name for path in tmp_path.iterdir()] == ["samples.json"]
    (tmp_path / "samples.json").write_text('[{"user": "17"}]')
    with pytest.raises(InputError, match=r"samples\.json cannot be read: 'liked'"):
        samples.read(run)
