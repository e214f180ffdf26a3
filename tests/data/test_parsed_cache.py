"""Ratings that were kept in the cache folder: the same as read, or read anew."""

import gzip
import os
import shutil
import warnings

import numpy as np
import pytest

from fedrecon.data import own_ratings, parsed_cache
from fedrecon.data.own_ratings import read_ratings
from fedrecon.data.own_values import ReadingOptions
from fedrecon.errors import DataError

TEXT = "userId,movieId,rating,timestamp\n1,98,3.5,1000000000\n1,141,10,1000000001\n"
TEXT += "2,98,3.75,1000000000\n7,9,1,7\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of kept ratings, for files of any size."""
    monkeypatch.setenv("FEDRECON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parsed_cache, "_LEAST_RATINGS", 1)
    monkeypatch.setattr(parsed_cache, "_LEAST_BYTES", 1)
    return tmp_path / "cache" / "ratings"


@pytest.fixture
def num_reads(monkeypatch):
    """Counts in its list how often a file of text is read."""
    counted = []
    read = own_ratings._of_text

    def counting(path, *args):
        counted.append(path.name)
        return read(path, *args)

    monkeypatch.setattr(own_ratings, "_of_text", counting)
    return counted


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(TEXT)
    return path


def assert_same(found, expected):
    for field in ("user_ids", "item_ids", "ratings", "timestamps"):
        values = getattr(found, field)
        if getattr(expected, field) is None:
            assert values is None
        else:
            np.testing.assert_array_equal(values, getattr(expected, field))
            assert values.dtype == getattr(expected, field).dtype
            assert not values.flags.writeable
    for field in ("original_user_ids", "original_item_ids"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
        assert getattr(found, field).dtype == getattr(expected, field).dtype
    for field in ("name", "num_users", "num_items", "item_titles", "item_genres", "scale", "notes"):
        assert getattr(found, field) == getattr(expected, field)
    assert found.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize(
    ("text", "options", "has_items"),
    [
        (TEXT, {}, True),
        (TEXT, {"rating_scale": (0.25, 10, 0.25)}, False),
        ("u1,é,3\nu0,b,5\nu0,é,1\n", {}, False),
        ("1,2\n1,3\n4,2\n", {"no_ratings": True}, False),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_was_kept_is_what_was_read(cache, num_reads, tmp_path, text, options, has_items):
    path, items = tmp_path / "mine.csv", tmp_path / "items.csv"
    path.write_text(text)
    items.write_text("movieId,title,genres\n98,A,Drama|War\n9,B,Drama\n")
    options = ReadingOptions(**options)
    items = items if has_items else None
    read = read_ratings(path, options=options, items_file=items, keep=False)
    assert not cache.exists()
    first = read_ratings(path, options=options, items_file=items)
    assert len(num_reads) == 2
    again = read_ratings(path, options=options, items_file=items)
    assert len(num_reads) == 2
    assert_same(first, read)
    assert_same(again, read)
    assert len(list(cache.iterdir())) == 1
    if has_items:
        assert again.item_titles == ("B", "A", "")


def test_the_place_and_the_name_of_a_file_play_no_part(cache, num_reads, file, tmp_path):
    read_ratings(file)
    moved = tmp_path / "elsewhere" / "other.csv"
    moved.parent.mkdir()
    shutil.copy(file, moved)
    assert read_ratings(moved).name == "other"
    assert num_reads == ["mine.csv"]


@pytest.mark.parametrize("change", ["content", "option", "format", "version", "suffix"])
def test_another_file_or_another_way_of_reading_is_read_anew(
    cache, num_reads, file, monkeypatch, change
):
    first = read_ratings(file)
    options = ReadingOptions()
    if change == "content":  # As long, and as old.
        times = file.stat()
        file.write_text(TEXT.replace("3.75", "9.25"))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "option":
        options = ReadingOptions(rating_scale=(0.25, 10, 0.25))
    elif change == "format":
        monkeypatch.setattr(parsed_cache, "FORMAT", 0)
    elif change == "version":
        monkeypatch.setattr(parsed_cache, "__version__", "0.0")
    else:
        file = file.rename(file.with_suffix(".csv.gz"))
        with pytest.raises(DataError, match="is damaged or cut short"):  # It is not compressed.
            read_ratings(file)
        return
    again = read_ratings(file, options=options)
    assert len(num_reads) == 2
    assert (again.fingerprint() == first.fingerprint()) == (change != "content")
    assert (again.scale == first.scale) == (change != "option")


def test_compressed_files_are_kept_too(cache, num_reads, tmp_path):
    path = tmp_path / "mine.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    first = read_ratings(path)
    assert_same(read_ratings(path), first)
    assert len(num_reads) == 1


def damaged_byte(kept):
    content = bytearray(kept.read_bytes())
    # In the middle of an array: NumPy alone would read it.
    content[content.index(np.float32(3.75).tobytes())] ^= 1
    kept.write_bytes(content)


def of_another_file(kept):
    other = kept.parent / f"{'0' * 64}.npz"
    kept.rename(other)
    shutil.copy(other, kept)
    with np.load(other) as held:
        arrays = dict(held)
    arrays["about"] = np.array(str(arrays["about"]).replace(kept.stem, other.stem))
    np.savez(kept, **arrays)


@pytest.mark.parametrize(
    "damage",
    [
        damaged_byte,
        of_another_file,
        lambda kept: kept.write_bytes(kept.read_bytes()[:-30]),
        lambda kept: kept.write_bytes(b""),
        lambda kept: kept.write_bytes(b"nothing of the kind"),
        lambda kept: np.savez(kept, about="{}"),
    ],
)
def test_a_damaged_cache_is_told_and_replaced(cache, num_reads, file, damage):
    first = read_ratings(file)
    (kept,) = cache.iterdir()
    damage(kept)
    with pytest.warns(UserWarning, match=r"cannot be used \(.+\), so the file of .* is read again"):
        again = read_ratings(file)
    assert_same(again, first)
    assert len(num_reads) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(read_ratings(file), first)
    assert len(num_reads) == 2


def test_a_folder_that_keeps_nothing_stops_nothing(cache, num_reads, file):
    cache.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot keep the ratings .*, so the file will be read ag"):
        assert read_ratings(file).num_ratings == 4
    assert len(num_reads) == 1


def test_a_full_disk_stops_nothing_and_leaves_nothing(cache, file, monkeypatch):
    def full(file, **arrays):
        file.write(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match=r"cannot keep the ratings \(No space left on device\)"):
        assert read_ratings(file).num_ratings == 4
    assert list(cache.iterdir()) == []


def test_the_files_used_last_are_kept(cache, num_reads, tmp_path):
    paths = []
    for number in range(5):
        path = tmp_path / f"{number}.csv"
        path.write_text(TEXT + f"8,{number},3,9\n")
        read_ratings(path)
        paths.append(path)
        newest = max(cache.iterdir(), key=lambda each: each.stat().st_mtime_ns)
        os.utime(newest, (number, number))
        if number == 3:
            read_ratings(paths[0])  # Now it is the newest.
    assert len(list(cache.iterdir())) == 4
    num_reads.clear()
    read_ratings(paths[0])
    assert num_reads == []
    read_ratings(paths[1])
    assert num_reads == ["1.csv"]


def test_small_files_leave_nothing_behind(tmp_path, monkeypatch, file):
    monkeypatch.setenv("FEDRECON_CACHE", str(tmp_path / "cache"))
    read_ratings(file)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(parsed_cache, "_LEAST_BYTES", 1)  # It is looked up, but not kept.
    read_ratings(file)
    assert not (tmp_path / "cache").exists()
