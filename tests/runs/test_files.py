import json

import numpy as np
import pytest

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs import files

VALUES = {"b": [1, 2.5, None], "a": {"ä": "text", 3: True}, "sum": np.float64(0.1)}
AS_READ = {"b": [1, 2.5, None], "a": {"ä": "text", "3": True}, "sum": 0.1}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "values.json"


def test_sealed_values_come_back(path):
    files.write_sealed(path, VALUES)
    assert files.read_sealed(path, needed=("a", "b")) == AS_READ


def test_no_value_can_be_changed_unnoticed(path):
    files.write_sealed(path, VALUES)
    whole = path.read_bytes()
    seal = whole.index(b'"sha256"')
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = files.read_sealed(path, needed=("a", "b"))
        except DamagedError:
            continue
        # Of a blank, or of the name of the seal, which is taken for one more value then.
        assert seal <= place < seal + 8 or whole[place] in b" \n"
        assert {name: found[name] for name in AS_READ} == AS_READ


def test_files_of_older_versions_have_no_seal(path):
    path.write_text(json.dumps(AS_READ))
    assert files.read_sealed(path) == AS_READ


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "holds no values by name"),
        (b"{}", "has no a and no b"),
        (b'{"a": 1}', "has no b"),
    ],
)
def test_what_else_is_there_is_one_sentence(path, text, message):
    path.write_bytes(text)
    with pytest.raises(DamagedError, match=message) as raised:
        files.read_sealed(path, needed=("a", "b"))
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_no_damage(path):
    with pytest.raises(FileNotFoundError):
        files.read_sealed(path)


def test_a_number_that_is_not_finite_is_refused_and_the_old_file_stays(path):
    files.write_sealed(path, {"rmse": 0.9})
    with pytest.raises(InputError, match=r"values\.json was not written: Out of range"):
        files.write_sealed(path, {"rmse": float("nan")})
    assert files.read_sealed(path) == {"rmse": 0.9}


def test_a_write_that_fails_leaves_the_old_file_and_no_part(path, monkeypatch):
    files.write_sealed(path, {"rmse": 0.9})

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", fail)
    with pytest.raises(
        InputError, match=r"values\.json cannot be written: No space left on device"
    ):
        files.write_sealed(path, {"rmse": 0.8})
    monkeypatch.undo()
    assert files.read_sealed(path) == {"rmse": 0.9}
    assert [each.name for each in path.parent.iterdir()] == ["values.json"]


def test_parts_of_killed_processes_go(tmp_path):
    (tmp_path / "round_3.part").mkdir()
    (tmp_path / "round_3.part" / "state.npz").write_text("half")
    (tmp_path / "config.json.part").write_text("{")
    (tmp_path / "part").write_text("not ours")
    files.remove_parts(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["part"]
