"""What binaries print of metrics and of many runs."""

from experiments.run import display
from fedrecon.errors import InputError
from fedrecon.evaluation.feedback import FEEDBACKS


def test_the_table_is_readable(capsys):
    display.print_table(
        {"test": {"rmse": 0.98765, "accuracy": 0.4321, "loss": 0.975, "num_examples": 39142}},
        rating_step=0.5,
    )
    header, line, note = capsys.readouterr().out.splitlines()
    assert note == "Here an accurate prediction is within 0.25 of the rating."
    assert header.split() == ["RMSE", "accuracy", "loss", "ratings"]
    assert line.split() == ["test", "0.9877", "43.2%", "0.9750", "39,142"]
    assert len(header) == len(line)


def test_a_run_says_that_it_had_not_converged(capsys):
    rmse = FEEDBACKS["explicit"].chosen_by
    # After round 4 the RMSE is 1.25; with six rounds it had been better earlier.
    values = {0: 9.0, 2: 1.5, 4: 1.25, 6: 1.75}
    rows = [{"round": n, "unseen_validation/rmse": value} for n, value in values.items()]
    display.print_ending(rows, "unseen_validation", rmse, total_rounds=4)
    assert "still fell at the end, from 1.500 (round 2) to 1.250 (round 4)" in (
        capsys.readouterr().out
    )
    display.print_ending(rows, "unseen_validation", rmse, total_rounds=6)
    assert "was 1.250 after round 4 and is 1.750 after round 6" in capsys.readouterr().out
    display.print_ending(rows, "unseen_validation", rmse, total_rounds=2)
    assert capsys.readouterr().out == ""


def test_clients_that_were_left_out_are_told(capsys):
    display.print_left_out(0, num_clients=2000)
    assert capsys.readouterr().out == ""
    display.print_left_out(1234, num_clients=2000)
    assert "1,234 of the 2,000 clients of all rounds were left out" in capsys.readouterr().out


def test_a_run_that_fails_stops_no_other(capsys):
    def run_one(number):
        if number == 2:
            raise InputError("two is wrong.")
        return f"did {number}"

    failures = display.run_all([("one", 1), ("two", 2), ("three", 3)], run_one)
    assert failures == ["two: two is wrong."]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["1", "of", "3", "one", "did", "1"],
        ["2", "of", "3", "two", "not", "finished:", "see", "below"],
        ["3", "of", "3", "three", "did", "3"],
    ]


def test_the_time_to_go_follows_from_rounds_that_compile_nothing():
    pace = display.Pace(total_rounds=100)
    assert pace.times(0, 4.0) == "4 s"
    assert pace.times(20, 34.0) == "34 s"  # 30 s, most of it XLA's.
    assert pace.times(40, 38.0) == "38 s, 12 s to go"  # 0.2 s a round.
    assert pace.times(100, 50.0) == "50 s"


def test_one_stretch_that_compiles_leaves_the_time_to_go_as_it_is():
    pace = display.Pace(total_rounds=1000)
    seconds = [4.0, 34.0, 44.0, 54.0, 84.0, 94.0, 124.0]  # 10 s for 100 rounds, twice 20 s more.
    told = [pace.times(100 * number, at) for number, at in enumerate(seconds)]
    to_go = [text.partition(", ")[2] for text in told]
    assert to_go == ["", "", "1 min 20 s to go", "1 min 10 s to go", "1 min 0 s to go",
                     "50 s to go", "40 s to go"]  # fmt: skip


def test_a_slower_machine_is_noticed_after_some_stretches():
    pace = display.Pace(total_rounds=1000)
    for number in range(4):
        pace.times(10 * number, 10.0 * number)
    for number in range(4, 11):
        told = pace.times(10 * number, 20.0 * number)
    assert told == "3 min 20 s, 30 min 0 s to go"  # 2 s a round.


def test_a_time_is_told_in_words():
    told = [display.duration(seconds) for seconds in (0.4, 59.4, 59.6, 106, 3599.6, 7384)]
    assert told == ["0 s", "59 s", "1 min 0 s", "1 min 46 s", "1 h 0 min", "2 h 3 min"]
