import pathlib

import pooch
import pytest

from fedrecon.data import sources
from fedrecon.errors import DataError

ADDRESS = "https://example.org/data/ml-1m.train.rating"


@pytest.fixture
def sent(monkeypatch, tmp_path):
    """A function of what the server sends instead of a network."""

    def send(content):
        def retrieve(address, *, known_hash, fname, path, progressbar):
            file = pathlib.Path(path) / fname
            if not file.exists():
                file.write_bytes(content)
            return str(file)

        monkeypatch.setattr(pooch, "retrieve", retrieve)

    return send


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html>\n<html>", b"\xef\xbb\xbf\r\n <html>", b"<?xml version='1.0'?>"]
)
def test_a_page_in_place_of_a_file_is_not_kept(sent, tmp_path, page):
    sent(page)
    with pytest.raises(DataError, match=r"ml-1m\.train\.rating sent is not .* but a page of HTML"):
        sources.download(ADDRESS, checksum=None, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"1\t2\t5\t10\n", b"", b"PK\3\4<", b"(0,25)\t1064\n"])
def test_whatever_else_is_kept(sent, tmp_path, content):
    sent(content)
    path = sources.download(ADDRESS, checksum=None, folder=tmp_path)
    assert path == tmp_path / "ml-1m.train.rating"
    assert path.read_bytes() == content
