"""What algorithms recommend, to all users and to some."""

from __future__ import annotations

import pandas as pd

from experiments.comparison.cells import cells
from experiments.comparison.figures import over_seeds
from experiments.comparison.results import Sample
from experiments.comparison.run_table import Runs
from experiments.pages.sections import Section, Table, Text

_TOP_LISTS = {
    "num_items_at_10": ("items in any list", 0),
    "coverage_at_10": ("share of all items", 3),
    "most_recommended_share": ("users with the top item", 3),
    "mean_popularity_at_10": ("popularity", 3),
    "few_ratings_share": ("few ratings", 3),
}


def told(sample: Sample, algorithm: str) -> str:
    """Returns what an algorithm recommends to a user, in a sentence."""
    titles = ", ".join(f"{title} ({score:.2f})" for title, score in sample.recommended)
    return (
        f"To user {sample.user}, who took no part in training and likes "
        f"{', '.join(sample.given) or 'nothing yet'}, {algorithm} recommends {titles}."
    )


def top_lists_sections(runs: Runs) -> list[Section]:
    """Returns a section, or none where no run has lists."""
    unchanged = runs.unchanged
    groups = [group for group in runs.groups if f"{group}_num_items_at_10" in unchanged]
    if not groups:
        return []
    parts = {}
    for group in groups:
        summaries = {
            title: cells(over_seeds(unchanged, "algorithm", f"{group}_{name}"), digits=digits)
            for name, (title, digits) in _TOP_LISTS.items()
        }
        parts[group] = pd.DataFrame(summaries)
    blocks = (
        Text(
            "The quality above is of items that users chose themselves, but a list may hold any "
            "item: of items that few have rated, a high score may be chance."
        ),
        Table("Items in the users' lists of 10", pd.concat(parts, names=["users"])),
        Text(
            "A list is the 10 best items that a user does not have. Items in any list: how many "
            "there are, and their share of all items. The top item is in most lists. Popularity: "
            "the mean share of training users who have a recommended item. Few ratings: the share "
            "of recommendations whose item has fewer than 20 training ratings."
        ),
    )
    return [Section("What is recommended", blocks)]
