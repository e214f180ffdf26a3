"""From settings to users: strong generalization of small files in the layout of MovieLens 20M."""

import dataclasses

import numpy as np
import pytest

from experiments.run.population import load_population, watched_group
from experiments.run.settings import Settings
from fedrecon.errors import InputError

ML_20M = Settings(
    dataset="movielens-20m",
    algorithm="fed_ials",
    feedback="implicit",
    split="strong_generalization",
    num_held_out_users=10,
    published_draw=True,
    positive_from=4.0,
    min_ratings_per_user=5,
    clients_per_round=5,
)


@pytest.fixture
def data_dir(tmp_path):
    """Small files in the layout of MovieLens 20M: a header, commas and half stars."""
    folder = tmp_path / "ml-20m"
    folder.mkdir()
    lines, rng = ["userId,movieId,rating,timestamp"], np.random.default_rng(5)
    for user in range(1, 61):
        for item in sorted(rng.choice(40, 25, replace=False).tolist()):
            stars = rng.integers(1, 11) / 2 if user > 3 else 3.5
            lines.append(f"{user},{item + 1},{stars},{1_112_486_027 + len(lines)}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    titles = [f'{item},"Film {item} (1999)",Comedy|Drama' for item in range(1, 41)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles]) + "\n")
    return tmp_path


def test_movielens_20m_is_divided_as_the_preset_asks(data_dir):
    chosen = dataclasses.replace(ML_20M, data_dir=str(data_dir))
    population = load_population(chosen)
    assert watched_group(chosen) == "unseen_validation"
    # Users 1 to 3 have no rating above 3.5.
    assert population.ratings.original_user_ids.min() > 3
    assert (population.ratings.ratings >= 4).all()
    assert [len(group.users) for group in population.groups.values()] == [10, 10]
    assert len(population.train) == population.ratings.num_users - 20
    notes = " ".join(population.ratings.notes)
    assert "but 9,990,682 events of 136,677 users and 20,720 items in Liang et al. 2018" in notes
    assert "items, but 20,108 in Liang et al. 2018" in notes
    # Clients of fed_ials draw no negatives.
    assert population.examples.options.negatives_per_positive == 0
    # Another seed of the run holds out the same users; by draws of ours it would not.
    other = load_population(dataclasses.replace(chosen, seed=1))
    np.testing.assert_array_equal(other.train, population.train)
    own = dataclasses.replace(chosen, published_draw=False)
    seeds = [load_population(dataclasses.replace(own, seed=seed)).train.tolist() for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_too_few_users_are_said_at_once(data_dir):
    with pytest.raises(InputError, match="num_held_out_users is 40, for validation and as many"):
        load_population(dataclasses.replace(ML_20M, data_dir=str(data_dir), num_held_out_users=40))
