"""Tests of the MovieLens files: every layout, and every way in which a file can be wrong."""

import gzip
import zipfile

import numpy as np
import pytest

from fedrecon.data import rating_table
from fedrecon.data.datasets import VARIANTS, load_dataset
from fedrecon.data.rating_table import parse_rating_table
from fedrecon.data.ratings import RatingScale
from fedrecon.errors import DataError

# Tiny files have fewer ratings than were published, of which load_dataset warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*was published with")

WHOLE = RatingScale(1, 5, 1)
HALF = RatingScale(0.5, 5, 0.5)

# Three ratings by users 9 and 4 of items 20 and 3, as each variant writes them.
FLAGS_20 = "0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0"
FLAGS_3 = "0|0|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0"
FILES = {
    "movielens-100k": {
        "u.data": "9\t20\t5\t881250949\n4\t20\t3\t891717742\n4\t3\t1\t878887116\n",
        "u.item": f"3|Söt (1995)|01-Jan-1995||http://x|{FLAGS_3}\n20|Heat|||http://y|{FLAGS_20}\n",
    },
    "movielens-1m": {
        "ratings.dat": "9::20::5::881250949\n4::20::3::891717742\n4::3::1::878887116\n",
        "movies.dat": "3::Söt (1995)::Animation|Children's\n20::Heat::Action|War\n7::X::War\n",
    },
    "movielens-10m": {
        "ratings.dat": "9::20::5::881250949\n4::20::3.5::891717742\n4::3::0.5::878887116\n",
        "movies.dat": "3::Söt (1995)::Animation|Children's\n20::Heat::Action|War\n",
    },
    "movielens-25m": {
        "ratings.csv": (
            "userId,movieId,rating,timestamp\n"
            "9,20,5.0,881250949\n4,20,3.5,891717742\n4,3,0.5,878887116\n"
        ),
        "movies.csv": (
            "movieId,title,genres\n"
            '3,"Söt, ""The"" (1995)",Animation|Children\'s\n20,Heat,(no genres listed)\n'
        ),
    },
}
FOLDERS = {
    "movielens-100k": "ml-100k",
    "movielens-1m": "ml-1m",
    "movielens-10m": "ml-10M100K",
    "movielens-25m": "ml-25m",
}
ZIPS = {**FOLDERS, "movielens-10m": "ml-10m"}
TITLES = dict.fromkeys(FILES, ("Söt (1995)", "Heat"))
TITLES["movielens-25m"] = ('Söt, "The" (1995)', "Heat")


def write(name, files, tmp_path, place="folder"):
    """Writes a variant's files where `load_dataset` finds them; returns the data folder."""
    encoding = VARIANTS[name].layout.items_encoding
    contents = {
        file: text if isinstance(text, bytes) else text.encode(encoding)
        for file, text in files.items()
    }
    if place == "zip":
        with zipfile.ZipFile(tmp_path / f"{ZIPS[name]}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file, content in contents.items():
                archive.writestr(f"{FOLDERS[name]}/{file}", content)
        return tmp_path
    folder = tmp_path if place == "direct" else tmp_path / FOLDERS[name]
    folder.mkdir(exist_ok=True)
    for file, content in contents.items():
        if place == "gz":
            file, content = f"{file}.gz", gzip.compress(content)
        (folder / file).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("place", ["folder", "zip", "direct", "gz"])
@pytest.mark.parametrize("name", FILES)
def test_every_layout_in_every_place(name, place, tmp_path):
    ratings = load_dataset(name, data_dir=write(name, FILES[name], tmp_path, place))
    half = name in ("movielens-10m", "movielens-25m")
    np.testing.assert_array_equal(ratings.user_ids, [0, 0, 1])
    np.testing.assert_array_equal(ratings.item_ids, [0, 1, 1])
    np.testing.assert_array_equal(ratings.ratings, [0.5, 3.5, 5] if half else [1, 3, 5])
    np.testing.assert_array_equal(ratings.timestamps, [878887116, 891717742, 881250949])
    np.testing.assert_array_equal(ratings.original_user_ids, [4, 9])
    np.testing.assert_array_equal(ratings.original_item_ids, [3, 20])
    assert ratings.name == name
    assert ratings.item_titles == TITLES[name]
    second = () if name == "movielens-25m" else ("Action", "War")
    assert ratings.item_genres == (("Animation", "Children's"), second)
    assert ratings.scale == (HALF if half else WHOLE)


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_without_an_items_file_there_are_no_titles(place, tmp_path):
    files = {"ratings.dat": FILES["movielens-1m"]["ratings.dat"]}
    ratings = load_dataset("movielens-1m", data_dir=write("movielens-1m", files, tmp_path, place))
    assert ratings.item_titles is None
    assert ratings.item_genres is None


@pytest.mark.parametrize(
    "data",
    [
        b"1::2::3::4\n5::6::1::7",
        b"1::2::3::4\r\n5::6::1::7\r\n",
        b"\xef\xbb\xbf1::2::3::4\n5::6::1::7\n",
        b"1::2::3.0::4\n5::6::1::007\n",
        # Not in plain form, so these go line by line.
        b"1::2::3.00::4\n5::6::01::7\n",
    ],
)
def test_harmless_forms_read_the_same(data):
    table = parse_rating_table(data, label="f", separator="::", header=None, scale=WHOLE)
    np.testing.assert_array_equal(table.user_ids, [1, 5])
    np.testing.assert_array_equal(table.item_ids, [2, 6])
    np.testing.assert_array_equal(table.ratings, np.array([3, 1], np.float32))
    np.testing.assert_array_equal(table.timestamps, [4, 7])
    assert [column.dtype for column in table[:4]] == [np.int64, np.int64, np.float32, np.int64]


@pytest.mark.parametrize("separator", ["::", "\t", ","])
@pytest.mark.parametrize("chunk_bytes", [1, 50, 10**6])
def test_bulk_equals_line_by_line_wherever_the_file_is_cut(monkeypatch, separator, chunk_bytes):
    rng = np.random.default_rng(5)
    rows = [
        (int(10 ** rng.uniform(0, 17)), rng.integers(0, 10), rng.integers(1, 11) / 2, 10**17 + row)
        for row in range(40)
    ]
    # "%g" writes 3 and 3.5, which is plain; "%.2f" writes 3.00, which is not.
    plain, other = (
        "".join(separator.join((str(u), str(i), style % s, str(t))) + "\n" for u, i, s, t in rows)
        for style in ("%g", "%.2f")
    )
    monkeypatch.setattr(rating_table, "_CHUNK_BYTES", chunk_bytes)
    options = {"label": "f", "separator": separator, "header": None, "scale": HALF}
    by_line = parse_rating_table(other.encode(), **options)
    monkeypatch.setattr(rating_table, "_parse_lines", None)  # The bulk path must not need it.
    in_bulk = parse_rating_table(plain.encode(), **options)
    for column, expected, values in zip(in_bulk, by_line, zip(*rows)):
        np.testing.assert_array_equal(column, expected)
        np.testing.assert_array_equal(column, values)


FIELDS = r"expected 4 fields separated by '::' \(user id, item id, rating, timestamp\), found"
WHOLE_NUMBER = "to be a whole number of at most 18 digits, found"
BAD_LINES = {
    "too few fields": (b"1::2::3", rf"{FIELDS} 3 in '1::2::3'"),
    "too many fields": (b"1::2::3::4::5", rf"{FIELDS} 5 in '1::2::3::4::5'"),
    "blank": (b"", rf"{FIELDS} an empty line"),
    "blank, carriage return": (b"\r", rf"{FIELDS} an empty line"),
    "another separator": (b"1\t2\t3\t4", rf"{FIELDS} 1 in"),
    "half a separator": (b"1:2::3::4", rf"{FIELDS} 3 in '1:2::3::4'"),
    "separator and a half": (b"1:::2::3::4", rf"the item id {WHOLE_NUMBER} ':2'"),
    "empty field": (b"1::::3::4", rf"the item id {WHOLE_NUMBER} ''"),
    "word": (b"x::2::3::4", rf"the user id {WHOLE_NUMBER} 'x'"),
    "negative id": (b"-1::2::3::4", rf"the user id {WHOLE_NUMBER} '-1'"),
    "float id": (b"1::2.0::3::4", rf"the item id {WHOLE_NUMBER} '2.0'"),
    "exponent id": (b"1e3::2::3::4", rf"the user id {WHOLE_NUMBER} '1e3'"),
    "space": (b" 5::2::3::4", rf"the user id {WHOLE_NUMBER} ' 5'"),
    "quotes": (b'"1"::2::3::4', rf"the user id {WHOLE_NUMBER} '\"1\"'"),
    "overflow": (b"1::2::3::9999999999999999999", rf"the timestamp {WHOLE_NUMBER} '9999"),
    "float time": (b"1::2::3::4.5", rf"the timestamp {WHOLE_NUMBER} '4.5'"),
    "NUL": (b"1::2::3::4\0", rf"the timestamp {WHOLE_NUMBER} '4.x00'"),
    "inner carriage return": (b"1::2\r::3::4", rf"the item id {WHOLE_NUMBER} '2.r'"),
    "not ASCII": (b"1::\xff::3::4", rf"the item id {WHOLE_NUMBER} '.xff'"),
    "nan": (b"1::2::nan::4", "the rating to be a number, 1 to 5 in steps of 1, found 'nan'"),
    "inf": (b"1::2::inf::4", "the rating to be a number, 1 to 5 in steps of 1, found 'inf'"),
    "exponent": (b"1::2::1e0::4", "the rating to be a number, .*, found '1e0'"),
    "two points": (b"1::2::4..::4", "the rating to be a number, .*, found '4..'"),
    "point at the end": (b"1::2::4.::4", "the rating to be a number, .*, found '4.'"),
    "above the scale": (b"1::2::6::4", "expected a rating of 1 to 5 in steps of 1, found '6'"),
    "below the scale": (b"1::2::0::4", "expected a rating of 1 to 5 in steps of 1, found '0'"),
    "leading zero of a user": (b"01::2::3::4", "the user id without leading zeros, found '01'"),
    "leading zero of an item": (b"1::00::3::4", "the item id without leading zeros, found '00'"),
    "between the steps": (b"1::2::3.5::4", "expected a rating of 1 to 5 in .*, found '3.5'"),
}


@pytest.mark.parametrize("place", ["folder", "zip"])
@pytest.mark.parametrize("problem", BAD_LINES)
def test_a_bad_line_is_named(problem, place, tmp_path):
    line, message = BAD_LINES[problem]
    data = b"9::20::5::1\n4::20::3::2\n" + line + b"\n4::3::1::3\n"
    write("movielens-1m", {"ratings.dat": data}, tmp_path, place)
    with pytest.raises(DataError, match=rf"ml-1m/ratings\.dat, line 3: .*{message}"):
        load_dataset("movielens-1m", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # As many fields in all as two whole lines have.
        (b"1,2\n3,4\n1,2,3,4\n", "f, line 1: expected 4 fields .* found 2 in '1,2'"),
        (b"1,2,3,4,1\n2,3,4\n", "f, line 1: expected 4 fields .* found 5"),
        # As long as 4.5 is.
        (b"1,2,425,4\n", "f, line 1: expected a rating of 0.5 to 5 .* found '425'"),
    ],
)
def test_what_nearly_looks_right(data, message):
    with pytest.raises(DataError, match=message):
        parse_rating_table(data, label="f", separator=",", header=None, scale=HALF)


@pytest.mark.parametrize("chunk_bytes", [1, 30, 10**6])
def test_the_line_number_does_not_depend_on_chunks(monkeypatch, chunk_bytes):
    monkeypatch.setattr(rating_table, "_CHUNK_BYTES", chunk_bytes)
    lines = [f"{user},1,2.5,3" for user in range(50)]
    lines[37] = "37,1,2.6,3"
    data = "\r\n".join(["h", *lines]).encode()
    with pytest.raises(DataError, match=r"^f, line 39: .*0.5 to 5 in steps of 0.5, found '2.6'"):
        parse_rating_table(data, label="f", separator=",", header="h", scale=HALF)


@pytest.mark.parametrize("name", FILES)
def test_harmless_forms_of_items_files(name, tmp_path):
    encoding = VARIANTS[name].layout.items_encoding
    files = {file: text.encode(encoding) for file, text in FILES[name].items()}
    items_file = list(files)[1]
    text = files[items_file].replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    if encoding == "utf-8":
        text = b"\xef\xbb\xbf" + text
    ratings = load_dataset(name, data_dir=write(name, {**files, items_file: text}, tmp_path))
    assert ratings.item_titles == TITLES[name]


def test_a_blank_line_at_the_end_is_an_error():
    with pytest.raises(DataError, match=r"f, line 2: .*found an empty line"):
        parse_rating_table(b"1,2,3,4\n\n", label="f", separator=",", header=None, scale=WHOLE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"",
            "ratings.csv, line 1: expected the header 'userId,movieId,rating,timestamp', found ''",
        ),
        (
            b"1,2,3,4\n",
            "line 1: expected the header 'userId,movieId,rating,timestamp', found '1,2,3,4'",
        ),
        (b"userId,movieId,rating,timestamp\n", "ratings.csv holds no ratings"),
    ],
)
def test_a_csv_needs_its_header_and_rows(data, message, tmp_path):
    write("movielens-25m", {"ratings.csv": data}, tmp_path)
    with pytest.raises(DataError, match=message):
        load_dataset("movielens-25m", data_dir=tmp_path)


def test_an_empty_file_is_an_error(tmp_path):
    write("movielens-1m", {"ratings.dat": b""}, tmp_path)
    with pytest.raises(DataError, match=r"ml-1m/ratings\.dat holds no ratings"):
        load_dataset("movielens-1m", data_dir=tmp_path)


@pytest.mark.parametrize(("name", "lines"), [("movielens-1m", (2, 4)), ("movielens-25m", (3, 5))])
def test_a_repeated_pair_names_both_lines(name, lines, tmp_path):
    rows = ["9,20,5,1", "4,20,3,2", "4,3,1,3", "4,20,3,9"]
    if name == "movielens-1m":
        files = {"ratings.dat": "\n".join(rows).replace(",", "::")}
    else:
        files = {"ratings.csv": "\n".join(["userId,movieId,rating,timestamp", *rows])}
    file = next(iter(files))
    with pytest.raises(
        DataError,
        match=rf"{file}, line {lines[1]}: user 4 rates item 20 again, after .*{file}, "
        rf"line {lines[0]};",
    ):
        load_dataset(name, data_dir=write(name, files, tmp_path))


BAD_ITEMS = {
    "u.item, too few fields": (
        "movielens-100k",
        b"3|A|||x|0",
        r"u\.item, line 1: expected 24 fields separated by '\|', found 6 in '3\|A",
    ),
    "u.item, no flag": (
        "movielens-100k",
        f"3|A|||x|{FLAGS_3.replace('1', '2')}".encode(),
        "line 1: expected 19 genre flags, 0 or 1, found '0.0.0.2",
    ),
    "dat, too many fields": (
        "movielens-1m",
        b"3::A::B\n20::C::D::E\n",
        r"movies\.dat, line 2: expected 3 fields separated by '::', found 4 in '20::C::D::E'",
    ),
    "dat, blank line": (
        "movielens-1m",
        b"3::A::B\n\n20::C::D\n",
        "line 2: expected 3 fields .*, found an empty line",
    ),
    "dat, no number": (
        "movielens-1m",
        b"x::A::B\n",
        "line 1: expected the item id to be a whole number of at most 18 digits, found 'x'",
    ),
    "dat, same item": (
        "movielens-1m",
        b"3::A::B\n20::C::D\n3::E::F\n",
        "line 3: item 3 comes again, after line 1",
    ),
    "dat, empty": ("movielens-1m", b"", r"movies\.dat holds no items"),
    "dat, wrong encoding": (
        "movielens-10m",
        "3::A::B\n20::Söt::D\n".encode("latin-1"),
        "line 2: expected utf-8 text, found byte 0xf6 at column 6",
    ),
    "csv, no header": (
        "movielens-25m",
        b"3,A,B\n20,C,D\n",
        r"movies\.csv, line 1: expected the header 'movieId,title,genres', found '3,A,B'",
    ),
    "csv, only a header": ("movielens-25m", b"movieId,title,genres\n", "holds no items"),
    "csv, open quote": (
        "movielens-25m",
        b'movieId,title,genres\n3,A,B\n20,"C,D\n',
        "line 3: unexpected end of data",
    ),
    "csv, text after a quote": (
        "movielens-25m",
        b'movieId,title,genres\n3,"A"x,B\n',
        "line 2: ',' expected after '\"'",
    ),
}


@pytest.mark.parametrize("problem", BAD_ITEMS)
def test_a_bad_items_file_is_an_error(problem, tmp_path):
    name, items, message = BAD_ITEMS[problem]
    ratings_file, items_file = FILES[name]
    files = {ratings_file: FILES[name][ratings_file], items_file: items}
    with pytest.raises(DataError, match=message):
        load_dataset(name, data_dir=write(name, files, tmp_path))


def test_an_item_without_a_line_has_no_title(tmp_path):
    files = {**FILES["movielens-1m"], "movies.dat": "3::A::War\n7::B::War\n"}
    ratings = load_dataset("movielens-1m", data_dir=write("movielens-1m", files, tmp_path))
    assert ratings.item_titles == ("A", "")
    assert ratings.item_genres == (("War",), ())
    assert [ratings.item_title(item) for item in (0, 1)] == ["A", "20"]


def test_zero_is_an_id_without_leading_zeros(tmp_path):
    files = {"ratings.dat": "0::0::3::0\n10::100::4::5\n"}
    ratings = load_dataset("movielens-1m", data_dir=write("movielens-1m", files, tmp_path))
    np.testing.assert_array_equal(ratings.original_user_ids, [0, 10])
    np.testing.assert_array_equal(ratings.original_item_ids, [0, 100])


REAL = [
    ("movielens-100k", 100_000, 943, 1_682, [6_110, 11_370, 27_145, 34_174, 21_201]),
    ("movielens-1m", 1_000_209, 6_040, 3_706, [56_174, 107_557, 261_197, 348_971, 226_310]),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "num_ratings", "num_users", "num_items", "histogram"), REAL)
def test_real_files(real_data_dir, name, num_ratings, num_users, num_items, histogram):
    ratings = load_dataset(name, data_dir=real_data_dir)
    assert ratings.num_ratings == num_ratings
    assert (ratings.num_users, ratings.num_items) == (num_users, num_items)
    np.testing.assert_array_equal(np.bincount(ratings.ratings.astype(int))[1:], histogram)
    item = ratings.dense_item_id(1)
    assert ratings.item_titles[item] == "Toy Story (1995)"
    assert ratings.item_genres[item] == ("Animation", "Children's", "Comedy")
    assert ratings.counts().min() == 20
