"""Tests of the table of variants, of finding files, and of downloads from a server on this host."""

import dataclasses
import functools
import hashlib
import http.server
import pathlib
import re
import threading
import zipfile

import numpy as np
import pytest

from fedrecon.data import datasets
from fedrecon.data.datasets import DATASET_NAMES, VARIANTS, load_dataset
from fedrecon.data.synthetic import synthetic_ratings
from fedrecon.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*was published with")

RATINGS = b"1::2::3::4\n5::2::4::6\n"


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def test_the_table_is_consistent():
    assert set(DATASET_NAMES) - set(VARIANTS) == {"synthetic"}
    for name, variant in VARIANTS.items():
        assert variant.name == name
        for address in variant.addresses:
            assert re.fullmatch(r"https://[\w./-]+", address)
        if variant.checksum is not None:
            assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", variant.checksum)
    fixed = {name for name, variant in VARIANTS.items() if variant.checksum}
    assert fixed == {f"movielens-{size}" for size in ("100k", "1m", "10m", "20m", "25m")}
    half_stars = {name for name, variant in VARIANTS.items() if variant.layout.scale.step == 0.5}
    others = {"movielens-100k", "movielens-1m", "ncf-ml-1m", "ncf-pinterest-20"}
    assert half_stars == set(VARIANTS) - others


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError) as caught:
        load_dataset("ml-1m")
    assert "'ml-1m'" in str(caught.value)
    for name in DATASET_NAMES:
        assert name in str(caught.value)


def test_synthetic_is_a_data_set():
    assert load_dataset("synthetic").fingerprint() == synthetic_ratings(seed=0).fingerprint()
    other = load_dataset("synthetic", num_users=30, seed=3)
    assert other.num_users == 30


def test_only_synthetic_takes_options(tmp_path):
    with pytest.raises(DataError, match="seed: only the synthetic data set can be configured"):
        load_dataset("movielens-1m", data_dir=tmp_path, seed=3)


def test_places_are_tried_in_order(tmp_path):
    (tmp_path / "ratings.dat").write_bytes(b"1::2::1::4\n")
    stars = [load_dataset("movielens-1m", data_dir=tmp_path).ratings[0]]
    write_zip(tmp_path / "ml-1m.zip", {"ml-1m/ratings.dat": b"1::2::2::4\n"})
    stars.append(load_dataset("movielens-1m", data_dir=tmp_path).ratings[0])
    (tmp_path / "ml-1m").mkdir()
    stars.append(load_dataset("movielens-1m", data_dir=tmp_path).ratings[0])
    (tmp_path / "ml-1m" / "ratings.dat").write_bytes(b"1::2::3::4\n")
    stars.append(load_dataset("movielens-1m", data_dir=str(tmp_path)).ratings[0])
    assert stars == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("movielens-1m", ["ml-1m/ratings.dat", "ml-1m.zip", "ratings.dat"]),
        ("movielens-10m", ["ml-10M100K/ratings.dat", "ml-10m.zip", "ratings.dat"]),
        ("ncf-ml-1m", ["ncf-ml-1m/ml-1m.train.rating", "ncf-ml-1m.zip", "ml-1m.train.rating"]),
    ],
)
def test_an_absent_data_set_says_what_was_looked_for_and_downloads_nothing(
    name, names, tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets, "download", None)
    with pytest.raises(DataError) as caught:
        load_dataset(name, data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    for expected in names:
        assert f"no {expected}" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_absent_folder(tmp_path):
    with pytest.raises(DataError, match=r"^The data folder .*nowhere is not an existing folder"):
        load_dataset("movielens-1m", data_dir=tmp_path / "nowhere")


def test_the_zip_itself_may_be_named(tmp_path):
    write_zip(tmp_path / "mine.zip", {"ml-1m/ratings.dat": RATINGS})
    named = load_dataset("movielens-1m", data_dir=tmp_path / "mine.zip")
    (tmp_path / "mine.zip").rename(tmp_path / "ml-1m.zip")
    assert named.fingerprint() == load_dataset("movielens-1m", data_dir=tmp_path).fingerprint()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(encoding, tmp_path):
    text = "\ufeff" + RATINGS.decode()
    (tmp_path / "ratings.dat").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"ratings\.dat, line 1: expected ASCII or UTF-8 text"):
        load_dataset("movielens-1m", data_dir=tmp_path)


@pytest.mark.parametrize("place", ["ml-1m/ratings.dat", "ml-1m.zip", "ratings.dat"])
def test_a_folder_where_a_file_is_expected(place, tmp_path):
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"{re.escape(place)} is a folder; expected a file"):
        load_dataset("movielens-1m", data_dir=tmp_path)


def test_permission_denied(tmp_path, monkeypatch):
    (tmp_path / "ratings.dat").write_bytes(RATINGS)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    # Not by chmod, which does not stop root.
    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"ratings\.dat may not be read: permission denied"):
        load_dataset("movielens-1m", data_dir=tmp_path)


def _cut(data):
    return data[: len(data) // 2]


def _flip_in_the_middle(data):
    # Ratings are stored uncompressed here, so this changes one of them and not the structure.
    position = data.index(b"::3::")
    return data[:position] + b"::4::" + data[position + 5 :]


def _encrypt_flag(data):
    # Bit 0 of the flags in the local header and in the central directory.
    local, central = data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8
    changed = bytearray(data)
    changed[local] |= 1
    changed[central] |= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"ml-1m\.zip is damaged or cut short \(File is not a zip file\)"),
        (_flip_in_the_middle, r"ml-1m\.zip is damaged .*Bad CRC-32 for file 'ml-1m/ratings.dat'"),
        (lambda data: b"", r"ml-1m\.zip is damaged or cut short"),
        (_encrypt_flag, r"ml-1m\.zip cannot be read: .*encrypted"),
    ],
)
def test_a_damaged_zip(damage, message, tmp_path):
    path = tmp_path / "ml-1m.zip"
    write_zip(path, {"ml-1m/ratings.dat": RATINGS}, zipfile.ZIP_STORED)
    assert load_dataset("movielens-1m", data_dir=tmp_path).num_ratings == 2
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_dataset("movielens-1m", data_dir=tmp_path)


def test_a_zip_without_the_file_says_what_it_holds(tmp_path):
    write_zip(tmp_path / "ml-1m.zip", {"ml-1m/README": b"", "ml-1m/users.dat": b""})
    with pytest.raises(
        DataError,
        match=r"ml-1m\.zip holds no ml-1m/ratings\.dat; it holds ml-1m/README, ml-1m/users\.dat",
    ):
        load_dataset("movielens-1m", data_dir=tmp_path)


@pytest.mark.filterwarnings("error")
def test_an_incomplete_data_set_warns(tmp_path, monkeypatch):
    (tmp_path / "ratings.dat").write_bytes(RATINGS)
    for published in (3, 4):  # Two are more than a half of three, and just a half of four.
        _publish(monkeypatch, "movielens-1m", num_ratings=published)
        message = f"published with {published} ratings; the files at hand have 2"
        with pytest.warns(UserWarning, match=message):
            load_dataset("movielens-1m", data_dir=tmp_path)
    for published in (1, 2, 5, 1_000_209):  # All there, or a data set of one's own.
        _publish(monkeypatch, "movielens-1m", num_ratings=published)
        load_dataset("movielens-1m", data_dir=tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3.5,4\n")
    assert load_dataset("movielens-latest", data_dir=tmp_path).num_ratings == 1  # No warning.


class _CountingHandler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of the folder `tmp_path / "www"`."""
    monkeypatch.setenv("NO_PROXY", "*")
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(_CountingHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.requested = []
        httpd.folder = folder
        httpd.address = f"http://127.0.0.1:{httpd.server_port}"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


def _publish(monkeypatch, name, **changes):
    monkeypatch.setitem(VARIANTS, name, dataclasses.replace(VARIANTS[name], **changes))


def test_downloads_once_into_the_cache(server, tmp_path, monkeypatch, capfd):
    path = server.folder / "ml-1m.zip"
    write_zip(path, {"ml-1m/ratings.dat": RATINGS})
    checksum = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    _publish(
        monkeypatch, "movielens-1m", addresses=(f"{server.address}/ml-1m.zip",), checksum=checksum
    )
    for _ in range(2):
        ratings = load_dataset("movielens-1m", cache_dir=tmp_path / "cache")
        np.testing.assert_array_equal(ratings.ratings, [3, 4])
    assert server.requested == ["/ml-1m.zip"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ml-1m.zip"]
    captured = capfd.readouterr()
    assert captured.out == ""  # Progress goes to stderr.
    assert "100%" in captured.err


def test_the_cache_can_be_named_by_the_environment(server, tmp_path, monkeypatch):
    write_zip(server.folder / "ml-latest.zip", {"ml-latest/ratings.csv": b"bad header\n"})
    _publish(monkeypatch, "movielens-latest", addresses=(f"{server.address}/ml-latest.zip",))
    monkeypatch.setenv("FEDRECON_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"elsewhere/ml-latest\.zip:ml-latest/ratings\.csv, line 1"):
        load_dataset("movielens-latest")


def test_files_without_a_zip_are_downloaded_one_by_one(server, tmp_path, monkeypatch):
    # The negatives are not read by load_dataset, but a later load_leave_one_out will want them.
    contents = {"train.rating": "0\t0\t3\t1\n", "test.rating": "0\t1\t4\t2\n", "test.negative": ""}
    for kind, text in contents.items():
        (server.folder / f"ml-1m.{kind}").write_text(text)
    addresses = tuple(f"{server.address}/ml-1m.{kind}" for kind in contents)
    _publish(monkeypatch, "ncf-ml-1m", addresses=addresses)
    ratings = load_dataset("ncf-ml-1m", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(ratings.item_ids, [0, 1])
    kept = {path.name for path in (tmp_path / "cache" / "ncf-ml-1m").iterdir()}
    assert kept == {f"ml-1m.{kind}" for kind in contents}


def test_an_unexpected_download_is_refused_and_not_kept(server, tmp_path, monkeypatch):
    write_zip(server.folder / "ml-1m.zip", {"ml-1m/ratings.dat": RATINGS})
    _publish(monkeypatch, "movielens-1m", addresses=(f"{server.address}/ml-1m.zip",))
    with pytest.raises(DataError, match=r"/ml-1m\.zip sent is not the expected file: its checksum"):
        load_dataset("movielens-1m", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(("stopped", "reason"), [(False, "HTTP 404"), (True, "ConnectionError")])
def test_no_network_names_the_address_and_the_way_out(
    server, stopped, reason, tmp_path, monkeypatch
):
    address = f"{server.address}/ml-1m.zip"
    if stopped:
        server.shutdown()
        server.server_close()
    _publish(monkeypatch, "movielens-1m", addresses=(address,))
    with pytest.raises(DataError) as caught:
        load_dataset("movielens-1m", cache_dir=tmp_path / "cache")
    assert f"{address} could not be reached ({reason})" in str(caught.value)
    assert "--data_dir" in str(caught.value)


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file cannot keep downloads"):
        load_dataset("movielens-1m", cache_dir=tmp_path / "file")
