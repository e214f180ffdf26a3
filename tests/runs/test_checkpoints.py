import collections
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.runs.checkpoints import Checkpoints


class Weights(NamedTuple):
    trainable: Any
    non_trainable: Any


class State(NamedTuple):
    weights: Weights
    optimizer: Any
    num_rounds: Any


def state(value=1.0, num_rounds=7):
    table = np.arange(6, dtype=np.float32).reshape(2, 3) + value
    return State(
        Weights([table, np.float32([-0.0, np.nan, 1e-45])], ()),
        collections.OrderedDict([("z", np.array([], np.int64)), ("a", (np.float64(0.1), [True]))]),
        np.int32(num_rounds),
    )


EMPTY = state(value=0.0, num_rounds=0)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def assert_same(found, expected):
    """Bits, dtypes, shapes and the kinds of containers."""
    assert type(found) is type(expected)
    if isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for each, other in zip(found, expected):
            assert_same(each, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()))
    else:
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()


def test_a_state_comes_back_to_the_bit_in_its_structure(checkpoints):
    checkpoints.save(state(), 7)
    loaded = checkpoints.load(7, EMPTY)
    expected = state()
    expected.optimizer["a"] = (np.float64(0.1), [np.True_])  # Numbers come back as NumPy's.
    assert_same(loaded, expected)


def test_tensors_are_saved_and_come_back_as_arrays(checkpoints):
    import tensorflow as tf

    checkpoints.save({"a": tf.constant([[1.0, 2.0]]), "b": tf.constant(3)}, 1)
    loaded = checkpoints.load(1, {"a": tf.zeros([1, 2]), "b": tf.constant(0)})
    assert_same(loaded, {"a": np.float32([[1, 2]]), "b": np.int32(3)})


def test_one_array_is_a_state(checkpoints):
    checkpoints.save(np.zeros(2), 0)
    assert_same(checkpoints.load(0, np.ones(2)), np.zeros(2))


def test_any_reader_of_numpy_files_can_read_the_arrays(checkpoints, tmp_path):
    checkpoints.save(state(), 7)
    folder = tmp_path / "checkpoints" / "round_7"
    with np.load(folder / "state.npz") as file:
        assert set(file) == {
            *("state/weights/trainable/0", "state/weights/trainable/1"),
            *("state/optimizer/z", "state/optimizer/a/0", "state/optimizer/a/1/0"),
            "state/num_rounds",
        }
        np.testing.assert_array_equal(file["state/weights/trainable/0"], [[1, 2, 3], [4, 5, 6]])
    description = json.loads((folder / "checkpoint.json").read_text())
    assert description["round"] == 7
    assert description["arrays"]["state/weights/trainable/0"] == {
        "dtype": "float32",
        "shape": [2, 3],
    }
    assert description["files"]["state.npz"]["bytes"] == (folder / "state.npz").stat().st_size


def test_the_newest_are_kept_in_the_order_of_numbers(checkpoints, tmp_path):
    assert checkpoints.rounds() == []
    for n in (2, 9, 10):
        checkpoints.save(state(n), n)
    assert checkpoints.rounds() == [9, 10]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["round_10", "round_9"]
    assert_same(checkpoints.load(9, EMPTY).weights, state(9).weights)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (EMPTY._replace(num_rounds=np.int64(0)), "num_rounds is int32 [] there and int64 [] here"),
        (
            EMPTY._replace(weights=Weights([np.zeros((2, 4), np.float32), np.zeros(3)], ())),
            "state/weights/trainable/0 is float32 [2, 3] there and float32 [2, 4] here",
        ),
        (
            EMPTY._replace(optimizer=()),
            "state/optimizer/a/0 is float64 [] there and missing here (6 and 3 arrays in all)",
        ),
        (
            EMPTY._replace(num_rounds=(np.int32(0), np.int32(0))),
            "state/num_rounds/0 is missing there and int32 [] here (6 and 7 arrays in all)",
        ),
    ],
)
def test_the_state_of_another_model_is_refused(checkpoints, other, message):
    checkpoints.save(state(), 7)
    with pytest.raises(InputError) as raised:
        checkpoints.load(7, other)
    assert message in str(raised.value)


def test_a_checkpoint_that_there_is_not_is_named(checkpoints):
    checkpoints.save(state(), 7)
    with pytest.raises(InputError, match=r"round_8/checkpoint\.json cannot be read: .*no such"):
        checkpoints.load(8, EMPTY)


def test_a_folder_that_is_a_file_is_named(checkpoints, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match="checkpoints is a file and must be a folder; remove it"):
        checkpoints.rounds()


def test_an_older_checkpoint_is_a_program_and_is_not_run(checkpoints, tmp_path):
    import tensorflow as tf

    mark = tmp_path / "it ran"

    class Program(tf.Module):
        @tf.function(input_signature=[])
        def __call__(self):
            tf.io.write_file(str(mark), "")
            return [tf.zeros([2])]

    program = Program()
    tf.saved_model.save(program, str(tmp_path / "checkpoints" / "round_5"))
    with pytest.raises(InputError, match="round_5 is a checkpoint of an older version"):
        checkpoints.load(5, [np.zeros(2, np.float32)])
    assert not mark.exists()
    with pytest.raises(InputError, match="round_5 is a checkpoint of an older version"):
        checkpoints.verify(5)


@pytest.mark.parametrize("value", ["text", None, b"bytes", np.array([{}])])
def test_what_is_no_number_is_not_saved(checkpoints, value):
    with pytest.raises(TypeError, match=r"state/a is .*; a checkpoint holds numbers only"):
        checkpoints.save({"a": value}, 0)
    assert checkpoints.rounds() == []


def test_names_that_would_be_the_same_are_refused(checkpoints):
    with pytest.raises(ValueError, match="two leaves of the state have the same name"):
        checkpoints.save({"a/b": 1, "a": {"b": 2}}, 0)


# --- damage ---------------------------------------------------------------------------------------


def damages(path):
    """Writes damaged versions of a file, one after the other."""
    whole = path.read_bytes()
    path.unlink()
    yield "deleted"
    path.write_bytes(b"")
    yield "emptied"
    path.write_bytes(whole[: len(whole) // 2])
    yield "cut"
    path.write_bytes(b"\0" * len(whole))
    yield "zeros"
    for place in range(0, len(whole), 37):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        yield f"bit flipped in byte {place}"
    path.write_bytes(whole)


def test_damaged_arrays_are_one_clear_error(checkpoints, tmp_path):
    checkpoints.save(state(), 7)
    for damage in damages(tmp_path / "checkpoints" / "round_7" / "state.npz"):
        with pytest.raises(InputError, match=r"state\.npz (is damaged|cannot be read): ") as raised:
            checkpoints.load(7, EMPTY)
        assert "\n" not in str(raised.value), damage
    assert_same(checkpoints.load(7, EMPTY).weights, state().weights)


def test_a_damaged_description_is_an_error_or_changes_nothing(checkpoints, tmp_path):
    checkpoints.save(state(), 7)
    path = tmp_path / "checkpoints" / "round_7" / "checkpoint.json"
    num_refused = 0
    for damage in damages(path):
        try:
            loaded = checkpoints.load(7, EMPTY)
        except InputError:
            num_refused += 1
        else:  # Of the blanks at the beginning of lines.
            assert "flipped" in damage
            assert_same(loaded.weights, state().weights)
    assert num_refused > 20


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"round": 8},
        {"files": {}},
        {"files": []},
        {"arrays": None},
        {"arrays": {"state/num_rounds": 3}},
        {"files": {"state.npz": None}},
    ],
)
def test_a_wrong_description_is_refused(checkpoints, tmp_path, change):
    checkpoints.save(state(), 7)
    path = tmp_path / "checkpoints" / "round_7" / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="round_7"):
        checkpoints.load(7, EMPTY)


def test_objects_are_never_unpickled(checkpoints, tmp_path):
    checkpoints.save(state(), 7)
    folder = tmp_path / "checkpoints" / "round_7"
    arrays = dict(np.load(folder / "state.npz"))
    arrays["state/num_rounds"] = np.array(None)
    np.savez(folder / "state.npz", **arrays)
    description = json.loads((folder / "checkpoint.json").read_text())
    data = (folder / "state.npz").read_bytes()
    description["files"]["state.npz"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    del description["sha256"]
    (folder / "checkpoint.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"state\.npz cannot be read: Object arrays cannot be"):
        checkpoints.load(7, EMPTY)


# --- the end of the process, at any instant -------------------------------------------------------


class _Killed(BaseException):
    pass


def _kill_at(patch, step):
    """Ends what runs before its file operation number `step`."""
    steps = itertools.count()

    def stoppable(function):
        def run(*args, **kwargs):
            if next(steps) == step:
                raise _Killed
            return function(*args, **kwargs)

        return run

    for module, name in (
        # Not os.mkdir: pathlib of Python 3.9 keeps the function that it found at import.
        *((pathlib.Path, "mkdir"), (os, "fsync"), (os, "rename")),
        *((np, "savez"), (shutil, "rmtree")),
    ):
        patch.setattr(module, name, stoppable(getattr(module, name)))


def test_whichever_file_operation_is_the_last_each_checkpoint_is_whole(tmp_path, monkeypatch):
    for step in itertools.count():
        path, saved = tmp_path / str(step), []
        with monkeypatch.context() as patch:
            _kill_at(patch, step)
            try:
                for n in range(4):
                    Checkpoints(path, keep=2).save(state(n), n)
                    saved.append(n)
            except _Killed:
                ended = False
            else:
                ended = True
        checkpoints = Checkpoints(path, keep=2)
        assert set(saved[-1:]) <= set(checkpoints.rounds())
        assert len(checkpoints.rounds()) >= min(2, len(saved))
        for n in checkpoints.rounds():
            assert_same(checkpoints.load(n, EMPTY).weights, state(n).weights)
        checkpoints.save(state(9), 9)
        assert not list(path.glob("*.part"))
        assert checkpoints.rounds()[-1] == 9
        assert len(checkpoints.rounds()) <= 2
        if ended:
            break
    assert step > 4 * 8


def test_all_is_on_the_disk_before_a_checkpoint_has_its_name(checkpoints, tmp_path, monkeypatch):
    events = []

    def note(function, name_of):
        def run(target, *args, **kwargs):
            events.append((function.__name__, name_of(target)))
            return function(target, *args, **kwargs)

        return run

    def name_of_file(number):
        return os.path.basename(os.readlink(f"/proc/self/fd/{number}"))

    monkeypatch.setattr(os, "fsync", note(os.fsync, name_of_file))
    monkeypatch.setattr(os, "rename", note(os.rename, os.path.basename))
    checkpoints.save(state(), 3)
    assert events == [
        ("fsync", "state.npz"),
        ("fsync", "checkpoint.json.part"),
        ("fsync", "round_3.part"),
        ("rename", "round_3.part"),
        ("fsync", "checkpoints"),
    ]
