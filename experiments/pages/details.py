"""What a reader needs to judge a report or to repeat it: settings, versions, commands, samples."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pandas import DataFrame, Index

from experiments.pages.page import Command, Folded, Served, ServedUsers
from experiments.pages.sections import NOTHING, Block, Section, Table, Text
from experiments.run import names, samples
from experiments.run.claim import COMMAND, STARTED_FROM
from fedrecon.runs.run_directory import RunDirectory

Config = Mapping[str, Any]

_NAMES = ("algorithm", "seed", "output_dir")


def data_name(settings: Mapping[str, Any]) -> str:
    """Returns what a run was trained on, in words."""
    name = settings.get("dataset")
    if name == "file":
        return pathlib.PurePath(settings.get("ratings_file") or "a file").name
    if name == "synthetic":
        users, items = settings.get("synthetic_num_users"), settings.get("synthetic_num_items")
        return f"generated ratings of {users:,} users and {items:,} items" if users else name
    return str(name or "data without a name")


def budget(settings: Mapping[str, Any]) -> str:
    """Returns how long a run was trained, in words."""
    rounds, clients = settings.get("total_rounds"), settings.get("clients_per_round")
    if rounds is None:
        return ""
    return f"{rounds:,} rounds of {clients:,} clients" if clients else f"{rounds:,} rounds"


def listed(words: Sequence[str]) -> str:
    """Returns `a, b and c`."""
    return names.listed(words, "and")


def settings_section(configs: Mapping[str, Config], *, seeds: Sequence[int]) -> Section:
    """Returns the settings, those that differ first, the versions and the seeds.

    Args:
      configs: What config.json says, by what a run is called.
      seeds: The seeds of all runs.
    """
    of_runs = {name: config["settings"] for name, config in configs.items()}
    every = list(dict.fromkeys(name for own in of_runs.values() for name in own))
    table = DataFrame(
        {run: [_value(own, name) for name in every] for run, own in of_runs.items()},
        index=Index(every, name="setting"),
    )
    table = table.drop(index=[name for name in _NAMES if name in every])
    of_several = len(of_runs) > 1
    values = table.where(table != NOTHING).nunique(axis="columns")
    differs, is_partial = values > 1, (table == NOTHING).any(axis="columns") & (values <= 1)
    same = table[~differs & ~is_partial].iloc[:, :1]
    same.columns = ["value"]
    blocks: list[Block] = []
    if differs.any():
        blocks += [
            Table("Settings that differ", table[differs]),
            Text(f"{NOTHING} stands for a setting that has no use there."),
        ]
    if is_partial.any():
        folded = Table("Settings that some of them use", table[is_partial])
        blocks.append(Folded(f"{is_partial.sum()} settings that only some of them use", (folded,)))
    if of_several:
        folded = Table("Settings that all share", same)
        blocks.append(Folded(f"{len(same)} settings that all of them share", (folded,)))
    else:
        blocks.append(Folded(f"{len(same)} settings", (Table("Settings", same),)))
    numbers = ", ".join(map(str, sorted(set(seeds))))
    blocks.append(Text(f"Seed{'s' * (len(set(seeds)) > 1)}: {numbers}. {_versions(configs)}"))
    blocks += _notes(configs)
    return Section("Settings, seeds and versions", tuple(blocks))


def _value(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return NOTHING
    return "none" if settings[name] is None else str(settings[name])


def _versions(configs: Mapping[str, Config]) -> str:
    found = {}
    for run, config in configs.items():
        text = ", ".join(f"{name} {own}" for name, own in (config.get("versions") or {}).items())
        found.setdefault(text or "not known", []).append(run)
    if len(found) == 1:
        return f"Versions: {next(iter(found))}."
    return " ".join(f"Versions of {', '.join(runs)}: {text}." for text, runs in found.items())


def _notes(configs: Mapping[str, Config]) -> list[Block]:
    """Returns what was decided when ratings were read, and what runs started from."""
    told = dict.fromkeys(
        note for config in configs.values() for note in config.get("data_notes", ())
    )
    texts = [f"About the ratings: {' '.join(told)}"] if told else []
    for run, config in configs.items():
        begun = config.get(STARTED_FROM)
        if begun:
            texts.append(f"{run} started from {begun['run_dir']}. {begun['items']}")
    return [Text(text) for text in texts]


def command_blocks(configs: Mapping[str, Config]) -> list[Block]:
    """Returns the commands that made runs, each once."""
    commands: dict[str, list[str]] = {}
    for run, config in configs.items():
        commands.setdefault(config.get(COMMAND), []).append(run)
    blocks: list[Block] = []
    for command, runs in commands.items():
        if command is None:
            blocks.append(
                Text(f"No command is kept of {listed(runs)}; the settings above make it again.")
            )
            continue
        if len(commands) > 1:
            blocks.append(Text(f"{listed(runs)}:"))
        blocks.append(Command(command))
    return blocks


def served_section(runs: Mapping[str, pathlib.Path]) -> Section:
    """Returns what runs recommend to the same few test users.

    Args:
      runs: Directories of runs by what they are called, all of one seed.
    """
    title = "Recommendations for three test users"
    of_runs = {name: samples.read(RunDirectory(path)) for name, path in runs.items()}
    users = {(s.user, s.group): s for own in of_runs.values() for s in own}
    if not users:
        text = "These runs keep no recommendations for single users: an older version made them."
        return Section(title, (Text(text),))
    served = []
    for (user, group), first in users.items():
        lists = {
            name: sample.recommended
            for name, own in of_runs.items()
            for sample in own
            if (sample.user, sample.group) == (user, group)
        }
        served.append(_served(first, lists))
    blocks: list[Block] = [ServedUsers(tuple(served))]
    if any(answer for one in served for _, items in one.lists for *_, answer in items):
        blocks.append(
            Text(
                "Beside a title is the score. A mark tells that the user was asked for this item: "
                "how the user rated it, or that it is the item held out."
            )
        )
    missing = [name for name, own in of_runs.items() if not own]
    if missing:
        blocks.append(Text(f"No recommendations are kept of {listed(missing)}."))
    return Section(title, tuple(blocks))


def _served(sample: samples.Sample, lists: Mapping[str, Sequence[samples.Recommended]]) -> Served:
    is_unseen = sample.group == "unseen_test"
    part = "took no part in training" if is_unseen else "took part in training"
    has_ratings = any(rating != 1 for _, rating in sample.liked)
    return Served(
        user=sample.user,
        who=f"This user {part} and gives {sample.num_given:,} items to be known by.",
        liked=tuple((t, f"{rating:g}" if has_ratings else "") for t, rating in sample.liked),
        lists=tuple(
            (
                name,
                tuple(
                    (item.title, f"{item.score:.2f}", _answer(item.answer, has_ratings))
                    for item in items
                ),
            )
            for name, items in lists.items()
        ),
    )


def _answer(answer: float | None, has_ratings: bool) -> str:
    if answer is None:
        return ""
    return f"rated {answer:g}" if has_ratings else "held out"
