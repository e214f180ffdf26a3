"""Single damages of a run directory: what a disk, a power cut, or somebody's hand may do to it.

They fit a run of stateful FedAvg with checkpoints after rounds 4, 6 and 8.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Apply = Callable[[pathlib.Path], None]

OLDEST, MIDDLE, NEWEST = 4, 6, 8
_STORE = "client_store/rows.sqlite"
_ROUND_BITS = 32


class Damage(NamedTuple):
    """One damage.

    Attributes:
      file: What is damaged.
      how: What happens to it.
      apply: Does it to the run directory.
    """

    file: str
    how: str
    apply: Apply


# --- of any file ----------------------------------------------------------------------------------


def truncated(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: pathlib.Path) -> None:
    os.truncate(path, 0)


def deleted(path: pathlib.Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def bit_flipped(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def garbage(path: pathlib.Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def a_folder(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def a_file(path: pathlib.Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


_USUAL = (truncated, emptied, deleted, bit_flipped)


def _name(apply: Callable) -> str:
    return apply.__name__.strip("_").replace("_", " ")


def _of(file: str, *applied: Callable[[pathlib.Path], None]) -> Iterator[Damage]:
    for apply in applied:
        yield Damage(file, _name(apply), lambda run, apply=apply: apply(run / file))


# --- checkpoints ----------------------------------------------------------------------------------


def _checkpoints() -> Iterator[Damage]:
    for number, which in ((NEWEST, "newest"), (MIDDLE, "middle")):
        folder = f"checkpoints/round_{number}"
        for file in ("state.npz", "checkpoint.json"):
            for damage in _of(f"{folder}/{file}", *_USUAL):
                yield damage._replace(file=f"{which} checkpoint, {file}")

    newest, middle = f"checkpoints/round_{NEWEST}", f"checkpoints/round_{MIDDLE}"

    def emptied_folder(run):
        shutil.rmtree(run / newest)
        (run / newest).mkdir()

    def empty_one_beside(run):
        (run / "checkpoints" / f"round_{NEWEST + 10}").mkdir()

    def arrays_of_another_round(run):
        shutil.copy(run / middle / "state.npz", run / newest / "state.npz")

    def another_round_under_its_name(run):
        shutil.rmtree(run / newest)
        shutil.copytree(run / middle, run / newest)

    def named_for_a_later_round(run):
        os.rename(run / newest, run / "checkpoints" / f"round_{NEWEST + 1}")

    def every_one_damaged(run):
        for path in (run / "checkpoints").glob("*/state.npz"):
            bit_flipped(path)

    def a_program_of_an_older_version(run):
        shutil.rmtree(run / newest)
        (run / newest).mkdir()
        (run / newest / "saved_model.pb").write_bytes(b"program")

    for apply in (
        emptied_folder,
        empty_one_beside,
        arrays_of_another_round,
        another_round_under_its_name,
        named_for_a_later_round,
        a_program_of_an_older_version,
    ):
        yield Damage("newest checkpoint", _name(apply), apply)
    yield from (d._replace(file="newest checkpoint") for d in _of(newest, deleted, a_file))
    yield Damage("checkpoints", _name(every_one_damaged), every_one_damaged)
    yield from _of("checkpoints", deleted, a_file)


# --- metrics.csv ----------------------------------------------------------------------------------


def _lines(change: Callable[[list[bytes]], Any]) -> Apply:
    """A change of the lines of metrics.csv; line n + 1 is of round n."""

    def apply(run: pathlib.Path) -> None:
        path = run / "metrics.csv"
        lines = path.read_bytes().splitlines(keepends=True)
        change(lines)
        path.write_bytes(b"".join(lines))

    return apply


def _set(place: int, change: Callable[[bytes], bytes]) -> Apply:
    def apply(lines):
        lines[place] = change(lines[place])

    return _lines(apply)


def _other_column(line: bytes) -> bytes:
    return line.replace(b"train/loss", b"train/lose")


def _other_digit(line: bytes) -> bytes:
    place = line.rindex(b".") + 3
    return line[:place] + (b"1" if line[place : place + 1] != b"1" else b"2") + line[place + 1 :]


def _metrics() -> Iterator[Damage]:
    yield from _of("metrics.csv", *_USUAL, garbage, a_folder)
    for how, apply in (
        ("header garbled", _set(0, lambda line: b"\xff" + line[1:])),
        (
            "a column's name changed",
            _set(0, _other_column),
        ),
        ("a round is no number", _set(4, lambda line: b"x" + line)),
        ("a number changed, round 3", _set(4, _other_digit)),
        ("a number changed, round 7", _set(8, _other_digit)),
        ("row of round 3 dropped", _lines(lambda lines: lines.pop(4))),
        ("row of round 7 dropped", _lines(lambda lines: lines.pop(8))),
        ("row of round 3 doubled", _lines(lambda lines: lines.insert(4, lines[4]))),
        ("rows of rounds 3 and 4 swapped", _lines(lambda lines: lines.insert(4, lines.pop(5)))),
        ("row of round 3 cut", _set(4, lambda line: line[: len(line) // 2] + b"\n")),
        ("last row cut", _set(9, lambda line: line[: len(line) // 2])),
        ("last row gone", _lines(lambda lines: lines.pop())),
        ("a part of another row", _lines(lambda lines: lines.append(b"9,0.3"))),
        ("zeros after the last row", _lines(lambda lines: lines.append(b"\0" * 500))),
        ("letters after the last row", _lines(lambda lines: lines.append(b"nine,x\n"))),
        (
            "a row too long after the last",
            _lines(lambda lines: lines.append(b"9" + b",1" * 99 + b"\n")),
        ),
        ("bytes that are no text after it", _lines(lambda lines: lines.append(b"\xfe\xff" * 9))),
        (
            "a later round's row twice",
            _lines(lambda lines: lines.extend([b"9" + lines[9][1:]] * 2)),
        ),
    ):
        yield Damage("metrics.csv", how, apply)


# --- config.json and other JSON -------------------------------------------------------------------


def _json(file: str, change: Callable[[Any], Any]) -> Apply:
    def apply(run: pathlib.Path) -> None:
        values = json.loads((run / file).read_text())
        (run / file).write_text(json.dumps(change(values), indent=2) + "\n")

    return apply


def _setting(name: str, value: Any) -> Apply:
    def change(config):
        if value is None:
            del config["settings"][name]
        else:
            config["settings"][name] = value
        return config

    return _json("config.json", change)


def _config() -> Iterator[Damage]:
    yield from _of("config.json", *_USUAL, garbage)
    for how, apply in (
        ("a list", _json("config.json", lambda config: [])),
        ("settings null", _json("config.json", lambda config: {**config, "settings": None})),
        ("settings a list", _json("config.json", lambda config: {**config, "settings": []})),
        ("a number as text", _setting("dim", "4")),
        ("a number as a list", _setting("dim", [4])),
        ("an unknown setting", _setting("dimm", 4)),
        ("another dim", _setting("dim", 5)),
        ("another seed", _setting("seed", 1)),
        ("another rate", _setting("reconstruction_learning_rate", 0.017)),
        ("no seed", _setting("seed", None)),
        (
            "a fingerprint that is a number",
            _json("config.json", lambda config: {**config, "data_fingerprint": 5}),
        ),
        ("versions null", _json("config.json", lambda config: {**config, "versions": None})),
        ("label step a text", _json("config.json", lambda config: {**config, "label_step": "x"})),
    ):
        yield Damage("config.json", how, apply)


def _final() -> Iterator[Damage]:
    yield from _of("final_metrics.json", *_USUAL, garbage)
    file = "final_metrics.json"

    def another_number(final):
        final["unseen_test"]["rmse"] += 0.01
        return final

    for how, apply in (
        ("a list", _json(file, lambda final: [])),
        ("nothing in it", _json(file, lambda final: {})),
        ("another number", _json(file, another_number)),
        ("a group null", _json(file, lambda final: {**final, "unseen_test": None})),
    ):
        yield Damage(file, how, apply)


# --- the rows of clients --------------------------------------------------------------------------


@contextlib.contextmanager
def _table(run: pathlib.Path):
    """The table, all of it in one file afterwards."""
    connection = sqlite3.connect(run / _STORE)
    try:
        with connection:
            yield connection
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _in_one_file(run: pathlib.Path) -> pathlib.Path:
    with _table(run):
        pass
    return run / _STORE


def _sql(*statements: str) -> Apply:
    def apply(run: pathlib.Path) -> None:
        with _table(run) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount, statement

    return apply


def _on_file(change: Callable[[pathlib.Path], None]) -> Apply:
    return lambda run: change(_in_one_file(run))


def _first_page_of(run: pathlib.Path, table: str) -> int:
    with _table(run) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        return connection.execute(query, [table]).fetchone()[0]


def _page(run: pathlib.Path, table: str, change: Callable[[bytearray], None]) -> None:
    """Changes the first page of a table."""
    number = _first_page_of(run, table)
    path = _in_one_file(run)
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    page = data[(number - 1) * size : number * size]
    change(page)
    data[(number - 1) * size : number * size] = page
    path.write_bytes(data)


def _zero(page: bytearray) -> None:
    page[:] = bytes(len(page))


def _flip_in_the_middle(page: bytearray) -> None:
    page[-len(page) // 3] ^= 4


def _one_cell_less(page: bytearray) -> None:
    page[3:5] = (int.from_bytes(page[3:5], "big") - 1).to_bytes(2, "big")


def _newest_rows_as_they_were(run: pathlib.Path) -> None:
    with _table(run) as connection:
        connection.execute(
            "DELETE FROM rows WHERE id IN (SELECT user << 32 | round FROM changes WHERE round = "
            f"{NEWEST})"
        )


def _store() -> Iterator[Damage]:
    of_newest = f"round = {NEWEST}"
    newest = f"(id & {2**_ROUND_BITS - 1}) = {NEWEST}"
    for apply in (truncated, emptied, deleted, bit_flipped, garbage):
        yield Damage("rows.sqlite", _name(apply), _on_file(apply))
    for how, apply in (
        ("header flipped", _on_file(_header_flipped)),
        ("a page of rows zeroed", lambda run: _page(run, "rows", _zero)),
        ("a row flipped", lambda run: _page(run, "rows", _flip_in_the_middle)),
        ("a row less in a page", lambda run: _page(run, "rows", _one_cell_less)),
        ("a page of changes zeroed", lambda run: _page(run, "changes", _zero)),
        ("a change less in a page", lambda run: _page(run, "changes", _one_cell_less)),
        ("a page of snapshots zeroed", lambda run: _page(run, "snapshots", _zero)),
        ("a row of the oldest snapshot missing", _sql(_delete_one("rows", f"NOT {newest}"))),
        ("a row of the newest snapshot missing", _sql(_delete_one("rows", newest))),
        ("all newest rows missing", _newest_rows_as_they_were),
        (
            "a change of the newest snapshot missing",
            _sql(_delete_one("changes", of_newest)),
        ),
        ("the newest changes missing", _sql(f"DELETE FROM changes WHERE round = {NEWEST}")),
        ("all changes missing", _sql("DELETE FROM changes")),
        ("the newest snapshot missing", _sql(f"DELETE FROM snapshots WHERE round = {NEWEST}")),
        ("the middle snapshot missing", _sql(f"DELETE FROM snapshots WHERE round = {MIDDLE}")),
        ("all rows missing", _sql("DELETE FROM rows")),
        (
            "a row changed",
            _sql(f"UPDATE rows SET row = zeroblob(length(row)) WHERE {newest}"),
        ),
        (
            "two users' rows swapped",
            _sql(
                "CREATE TEMP TABLE two AS SELECT * FROM rows ORDER BY id LIMIT 2",
                "UPDATE rows SET (row, crc) = (SELECT row, crc FROM two WHERE two.id <> rows.id) "
                "WHERE id IN (SELECT id FROM two)",
            ),
        ),
        ("rows null", _sql("UPDATE rows SET row = NULL")),
        ("rows cut", _sql("UPDATE rows SET row = substr(row, 1, 8)")),
        ("a table missing", _sql("DROP TABLE changes", "PRAGMA user_version")),
        ("no shape", _sql("DELETE FROM shape")),
        ("another shape", _sql("UPDATE shape SET width = width + 1")),
    ):
        yield Damage("rows.sqlite", how, apply)
    for apply in (truncated, deleted, bit_flipped, garbage):
        yield Damage("rows.sqlite-wal", _name(apply), lambda run, a=apply: a(run / f"{_STORE}-wal"))
    yield from _of("client_store", deleted, a_file)


def _header_flipped(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 4
    path.write_bytes(data)


def _delete_one(table: str, where: str) -> str:
    if table == "changes":
        return (
            f"DELETE FROM changes WHERE (round, user) IN "
            f"(SELECT round, user FROM changes WHERE {where} LIMIT 1)"
        )
    return f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {where} LIMIT 1)"


# --- the rest -------------------------------------------------------------------------------------


def _events() -> Iterator[Damage]:
    def each(apply):
        def apply_to_all(run):
            for path in (run / "events").iterdir():
                apply(path)

        return apply_to_all

    for apply in (truncated, emptied, deleted, garbage):
        yield Damage("events/*", _name(apply), each(apply))
    yield from _of("events", deleted, a_file)


def _others() -> Iterator[Damage]:
    yield from _of(".lock", deleted, a_folder)
    yield from _of("users.csv", truncated, emptied, deleted, garbage)
    yield from _of("samples.json", truncated, garbage)
    yield from _of("curves.png", deleted, a_folder)
    yield from _of("report.html", a_folder)
    yield from _of("model/model.json", truncated, deleted)
    yield from _of("model/weights.npz", bit_flipped)

    def parts_left(run):
        for name in ("config.json", "metrics.csv", "curves.png", "final_metrics.json"):
            (run / f"{name}.part").write_text("{")
        (run / "checkpoints" / "round_10.part").mkdir()
        (run / "model.part").mkdir()

    yield Damage("*.part", "left by a killed process", parts_left)


def of_a_run_to_go_on() -> list[Damage]:
    """The damages of a run that is resumed to more rounds, and is evaluated."""
    return [*_checkpoints(), *_metrics(), *_config(), *_store(), *_events(), *_others()]


def of_a_finished_run() -> list[Damage]:
    """The damages of a run whose same command is given again."""
    return list(_final())
