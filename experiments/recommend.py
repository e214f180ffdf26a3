"""Recommends items to anybody, from a handful of ratings, by the model of a finished run.

    python -m experiments.recommend --run_dir=RUN --rate="Alien (1979)=5" --rate="Babe (1995)=2"
    python -m experiments.recommend --run_dir=RUN --ratings=mine.csv --k=10

Items are named by id or title. A file with a column of users serves each of them. Recommendations
go to standard output, and everything else to standard error.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.run import cli, past_run
from experiments.run.names import ALGORITHMS, REFERENCES, listed
from fedrecon.data.columns import RATING, USER, choose_given, is_number, parse_columns
from fedrecon.data.delimited import open_table
from fedrecon.errors import InputError
from fedrecon.runs import run_directory
from fedrecon.runs.run_directory import RunDirectory
from fedrecon.serving import files
from fedrecon.serving.files import load_run
from fedrecon.serving.items import Items
from fedrecon.serving.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "json")
_NUM_REASONS = 2

_RUN_DIR, _DATA_DIR, _RATINGS_FILE = past_run.define_flags(when="With --user_id: ")
_RATINGS = flags.DEFINE_string(
    "ratings",
    None,
    "File of your own ratings, one a line: the item's id or title, and the rating. With a column "
    "of users, each user is served.",
)
_COLUMNS = flags.DEFINE_string(
    "columns",
    None,
    "The columns of --ratings, as user=NAME,item=NAME,rating=NAME or numbers from 1, where their "
    "names are neither usual ones nor those of the file that the run was trained on.",
)
_RATE = flags.DEFINE_multi_string(
    "rate", [], "A rating, as ITEM=STARS; where items are ranked, ITEM alone will do. Repeat it."
)
_USER_ID = flags.DEFINE_string(
    "user_id", None, "In place of ratings: a user of the data that the run was trained on."
)
_K = flags.DEFINE_integer("k", 10, "How many items to recommend.", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "table", FORMATS, "How recommendations are printed.")
_MIN_RATINGS = flags.DEFINE_integer(
    "min_ratings", 1, "Leave out items with fewer training ratings.", lower_bound=0
)
_EXPLAIN = flags.DEFINE_bool(
    "explain", False, "Name the given ratings that add the most to each recommendation's score."
)


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    run = past_run.directory(_RUN_DIR.value)
    given = [
        name
        for name, value in (("--ratings", _RATINGS), ("--rate", _RATE), ("--user_id", _USER_ID))
        if value.value
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} say twice who is served; give one of them.")
    if _COLUMNS.value is not None and _RATINGS.value is None:
        raise InputError("--columns has no effect without --ratings.")
    if not (run.path / files.FOLDER).exists():
        _refuse_reference(run)
    recommender = load_run(run.path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        table = _recommended(recommender, run)
    for warning in told:
        print(warning.message, file=sys.stderr)
    if not len(table):
        raise InputError(
            f"no item is left to recommend: --min_ratings={_MIN_RATINGS.value} and the given items "
            f"leave out all {len(recommender.items):,}."
        )
    print(_written(table, recommender))


def _settings(run: RunDirectory) -> Mapping[str, Any]:
    """Returns the settings of a run; of a model alone there are none."""
    if not (run.path / run_directory.CONFIG).exists():
        return {}
    settings = run.read_config().get("settings")
    return settings if isinstance(settings, dict) else {}


def _recommended(recommender: Recommender, run: RunDirectory) -> pd.DataFrame:
    """Returns the recommendations, with the columns that are printed."""
    if _RATINGS.value is not None:
        given = _read(_RATINGS.value, columns_of_training=_settings(run).get("columns"))
        if USER in given.columns:
            if _EXPLAIN.value:
                raise InputError("--explain is for one user, and --ratings has a column of users.")
            return recommender.recommend_many(given, _K.value, min_ratings=_MIN_RATINGS.value)
    elif _RATE.value:
        given = dict(_pair(recommender.items, text) for text in _RATE.value)
        if len(given) < len(_RATE.value):
            raise InputError("--rate names an item twice; give each item once.")
        if not any(rating is not None for rating in given.values()):
            given = list(given)
    elif _USER_ID.value is not None:
        past = past_run.load(
            _RUN_DIR.value, data_dir=_DATA_DIR.value, ratings_file=_RATINGS_FILE.value
        )
        recommender.ratings = past.population.ratings
        given = _USER_ID.value
    else:
        if _EXPLAIN.value:
            raise InputError("--explain needs ratings; give --rate or --ratings.")
        print(
            "No ratings are given, so these are the items with the most training ratings. Give "
            '--rate="ITEM=STARS" or --ratings=FILE for recommendations of your own.',
            file=sys.stderr,
        )
        table = recommender.popular(_K.value, min_ratings=_MIN_RATINGS.value)
        return _ranked(table.rename(columns={"score": "num_ratings"}))
    placed = recommender.place(given)
    if _USER_ID.value is not None:
        kind = "rating" if recommender.about.predicts_ratings else "item"
        count = f"{len(placed.rows):,} {kind}{'' if len(placed.rows) == 1 else 's'}"
        print(f"Recommended by {count} of user {given}.", file=sys.stderr)
    table = recommender.recommend(placed, _K.value, min_ratings=_MIN_RATINGS.value)
    if _EXPLAIN.value:
        table["because_of"] = [_reasons(recommender, placed, item) for item in table["item_id"]]
    return _ranked(table)


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


def _reasons(recommender: Recommender, placed, item) -> list[dict]:
    """Returns the given ratings that add the most to the score of an item, as records."""
    table = recommender.explain(placed, item).head(_NUM_REASONS)
    table = table[table["contribution"] > 0]
    return json.loads(table.to_json(orient="records"))


def _in_words(reasons: list[dict]) -> str:
    return ", ".join(
        f"{reason['title'] or reason['item_id']} ({reason['contribution']:+.2f})"
        for reason in reasons
    )


def _pair(items: Items, text: str) -> tuple[str, str | None]:
    """Returns the item and the rating of ITEM=STARS, or of ITEM alone, which may have a `=` too."""
    item, equals, rating = (part.strip() for part in text.rpartition("="))
    has_rating = equals and (is_number(rating) or items.find(item) is not None)
    if has_rating and (items.find(item) is not None or items.find(text) is None):
        return item, rating
    return text.strip(), None


def _refuse_reference(run: RunDirectory) -> None:
    """Refuses a run of a comparison's reference, which leaves no model."""
    algorithm = _settings(run).get("algorithm")
    if algorithm in REFERENCES:
        raise InputError(
            f"{run.path} is a run of {algorithm}, a reference without rounds that leaves no model; "
            f"give the run of {listed(ALGORITHMS)}."
        )


def _read(path: str, *, columns_of_training: str | None) -> pd.DataFrame:
    """Returns the columns `user`, `item` and `rating` of a file, as far as there are such."""
    import pandas as pd

    table = open_table(path)
    given, known = (
        None if columns is None else parse_columns(columns)
        for columns in (_COLUMNS.value, columns_of_training)
    )
    chosen = choose_given(table.header, table.sample, label=table.label, given=given, known=known)
    print(*chosen.notes, file=sys.stderr)
    parts = [
        pd.DataFrame({role: part[role].str.strip() for role in chosen.places})
        for _, part in table.chunks(chosen.places, {})
    ]
    given = pd.concat(parts, ignore_index=True)
    return given if RATING not in given.columns else given.astype({RATING: object})


def _written(table: pd.DataFrame, recommender: Recommender) -> str:
    """Returns the table as text in the format that is wanted."""
    if _FORMAT.value == "json":
        rows = json.loads(table.to_json(orient="records"))
        return json.dumps({"run_dir": _RUN_DIR.value, "recommendations": rows}, indent=2)
    if "because_of" in table.columns:
        table["because_of"] = [_in_words(reasons) for reasons in table["because_of"]]
    if _FORMAT.value == "csv":
        return table.to_csv(index=False).rstrip("\n")
    name = "stars" if recommender.about.predicts_ratings else "score"
    shown = table.rename(columns={"score": name, "item_id": "id"})
    if all(title in ("", str(item)) for title, item in zip(shown["title"], shown["id"])):
        shown = shown.drop(columns="title")  # Each item has one name, and its id is it.
    shown["rank"] = [f"{rank:>4}" for rank in shown["rank"]]
    text = shown.to_string(
        index=False,
        justify="left",
        float_format="{:.2f}".format,
        formatters=_left_justified(shown),
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _left_justified(table: pd.DataFrame) -> dict:
    """Returns formatters that begin texts at the left, where pandas puts all at the right."""
    from pandas.api.types import is_numeric_dtype

    widths = {
        name: max(len(name), *(len(str(value)) for value in table[name]))
        for name in ("user", "id", "title", "because_of")
        if name in table.columns and not is_numeric_dtype(table[name])
    }
    return {name: f"{{:<{width}}}".format for name, width in widths.items()}


if __name__ == "__main__":
    cli.run(main)
