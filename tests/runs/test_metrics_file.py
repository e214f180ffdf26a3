import asyncio

import numpy as np
import pytest

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.metrics_file import MetricsFile, read_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def numbered(*rounds, **columns):
    return [(n, {name: value + n for name, value in columns.items()}) for n in rounds]


def rounds(path):
    return [row["round"] for row in read_rows(path)]


def test_the_file_is_that_of_tffs_manager_to_the_byte(path, tmp_path):
    import tensorflow_federated as tff

    batches = [
        [(0, {"validation/rmse": 3.5, "seconds": 0.5, "validation/n": 4})],
        [(1, {"train/loss": np.float32(0.1), "a": np.int64(3)}), (2, {"train/loss": 1e-12})],
        [(3, {"validation/rmse": float("nan"), "seconds": 2})],
        [(2, {"train/loss": float("inf"), "seconds": np.float64(1 / 3)}), (5, {"new, one": 1.5})],
    ]
    theirs = tff.program.CSVFileReleaseManager(tmp_path / "theirs.csv", key_fieldname="round")
    ours = MetricsFile(path)
    for rows in batches:
        ours.append(rows)
        for round_num, row in rows:
            asyncio.run(theirs.release(row, round_num))
        assert path.read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_a_file_opened_again_goes_on_at_its_end_or_before(path):
    MetricsFile(path).append(numbered(0, 1, 2, loss=0.5))
    MetricsFile(path).append(numbered(3, loss=0.5))
    assert read_rows(path) == [{"round": n, "loss": n + 0.5} for n in range(4)]
    MetricsFile(path).append(numbered(2, rmse=7))
    assert read_rows(path)[1:] == [{"round": 1, "loss": 1.5}, {"round": 2, "rmse": 9}]
    MetricsFile(path).append(numbered(0, rmse=7))
    assert path.read_text().split() == ["round,rmse", "0,7"]


@pytest.mark.parametrize(
    "tail", [b"3", b"3,0.", b"2,2.5", b"\0\0\0\0", b"\xff\xfe", b"3,3.5\r\n\0"]
)
def test_what_a_killed_process_left_of_a_row_goes(path, tail):
    MetricsFile(path).append(numbered(0, 1, 2, loss=0.5))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    MetricsFile(path).append(numbered(3, loss=0.5))
    assert path.read_bytes() == whole + b"3,3.5\r\n"


def test_a_file_of_something_else_is_not_overwritten(path):
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column round"):
        MetricsFile(path).append(numbered(0, loss=0.5))
    assert path.read_text() == "a,b\n1,2\n"


def test_rows_that_cannot_be_written_leave_the_file(path, monkeypatch):
    import os

    metrics = MetricsFile(path)
    metrics.append(numbered(0, loss=0.5))
    before = path.read_bytes()

    def fail(*args):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(InputError, match=r"metrics\.csv cannot be written: No space left"):
            metrics.append(numbered(1, rmse=0.5))
    assert path.read_bytes() == before
    metrics.append(numbered(1, rmse=0.5))
    assert rounds(path) == [0, 1]


# --- what belongs to a checkpoint -----------------------------------------------------------------


@pytest.fixture
def digest(path):
    """The digest of rounds 0 to 2, in a file that has round 3, too."""
    metrics = MetricsFile(path)
    metrics.append(numbered(0, loss=0.5))
    metrics.append([(1, {"loss": 1.5, "rmse": np.float32(0.1)}), (2, {"loss": 2.5})])
    digest = metrics.digest()
    metrics.append(numbered(3, loss=0.5, more=0.25))
    return digest


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def test_rows_as_they_were_written_pass(path, digest):
    MetricsFile(path).check(2, digest)  # A column more changes nothing.
    MetricsFile(path).check(2, None)
    path.write_bytes(b"".join(lines_of(path)[:4]) + b'3,0.\0\xff"')
    MetricsFile(path).check(2, digest)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines.pop(2),
        lambda lines: lines.pop(),
        lambda lines: lines.insert(2, lines[2]),
        lambda lines: lines.insert(2, lines.pop(3)),
        lambda lines: lines.__setitem__(2, lines[2].replace(b"1.5", b"1.6")),
        lambda lines: lines.__setitem__(2, b"1\r\n"),
        lambda lines: lines.__setitem__(2, b"1" * 5000 + b"\r\n"),
        lambda lines: lines.__setitem__(0, lines[0].replace(b"loss", b"lass")),
        lambda lines: lines.__setitem__(0, b"x"),
        lambda lines: lines.clear(),
    ],
)
def test_rows_that_are_not_are_damage(path, digest, change):
    lines = lines_of(path)[:4]
    change(lines)
    path.write_bytes(b"".join(lines))
    with pytest.raises(DamagedError, match=r"metrics\.csv"):
        MetricsFile(path).check(2, digest)


def test_without_a_digest_a_missing_row_is_damage(path, digest):
    path.write_bytes(b"".join(lines_of(path)[:2] + lines_of(path)[3:]))
    with pytest.raises(DamagedError, match=r"its rows up to round 2 are not those that were"):
        MetricsFile(path).check(2, None)


def test_the_digest_follows_what_takes_the_place_of_rows(path, tmp_path, digest):
    metrics = MetricsFile(path)
    metrics.append(numbered(2, loss=7))
    again = MetricsFile(tmp_path / "again.csv")
    again.append([(0, {"loss": 0.5}), (1, {"loss": 1.5, "rmse": np.float32(0.1)})])
    again.append(numbered(2, loss=7))
    assert metrics.digest() == again.digest() != digest


def test_what_comes_after_a_round_is_cut(path, digest):
    whole = path.read_bytes()
    path.write_bytes(whole + b"nine,x\n\0\xff")
    MetricsFile(path).cut_after(3)
    assert path.read_bytes() == whole
    MetricsFile(path).cut_after(1)
    assert rounds(path) == [0, 1]
    metrics = MetricsFile(path)
    assert [row["round"] for row in metrics.rows(0)] == [0]
    assert [row["round"] for row in metrics.rows(None)] == [0, 1]
