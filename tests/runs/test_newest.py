import pathlib

import pytest

from fedrecon.errors import DamagedError, InputError
from fedrecon.runs.newest import newest_whole

RUN = pathlib.Path("runs/first")


def loading(*damaged):
    def load(round_num):
        if round_num in damaged:
            raise DamagedError(f"round_{round_num} is damaged.")
        return f"state {round_num}"

    return load


@pytest.mark.filterwarnings("error")
def test_the_newest_is_taken_without_a_word():
    assert newest_whole([4, 6, 8], loading(4), RUN) == (8, "state 8")


@pytest.mark.parametrize(
    ("damaged", "passed", "used"), [([8], "round 8", 6), ([6, 8], "rounds 6, 8", 4)]
)
def test_a_damaged_one_is_passed_over_and_told(damaged, passed, used):
    told = (
        f"^round_8 is damaged; the checkpoint after {passed} is passed over, and that after round "
        f"{used}, which is whole, is used.$"
    )
    with pytest.warns(UserWarning, match=told):
        found = newest_whole([4, 6, 8], loading(*damaged), RUN)
    assert found == (used, f"state {used}")


def test_none_that_is_whole_is_one_sentence():
    with pytest.raises(InputError, match="no whole checkpoint: round_8 is damaged, and the older"):
        newest_whole([4, 8], loading(4, 8), RUN)
    with pytest.raises(InputError, match="no whole checkpoint: round_4 is damaged; put the files"):
        newest_whole([4], loading(4), RUN)


def test_any_other_error_is_no_reason_to_take_an_older_one():
    def load(round_num):
        raise InputError("it is of another model.")

    with pytest.raises(InputError, match=r"^it is of another model\.$"):
        newest_whole([4, 8], load, RUN)
