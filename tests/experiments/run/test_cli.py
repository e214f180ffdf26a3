"""How a binary ends, shown on small programs that end in every way."""

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import time
from absl import flags
from experiments.run import cli
from fedrecon.errors import InputError

flags.DEFINE_integer("width", 3, "The width of the thing.", lower_bound=1)

def main(interruption):
{body}

cli.run(main)
"""


def start(repository, body, *arguments):
    indented = "\n".join("    " + line for line in body.splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=indented), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
    )


def run(repository, body, *arguments):
    process = start(repository, body, *arguments)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


def test_done(repository):
    assert run(repository, "print('hello')") == (0, "hello\n", "")


def test_the_time_of_a_command_begins_with_its_process(repository):
    began = time.monotonic()
    status, output, _ = run(repository, "time.sleep(1); print(cli.seconds())")
    assert status == 0
    assert 1 < float(output) <= time.monotonic() - began + 0.1


def test_bad_input_is_one_sentence(repository):
    status, _, errors = run(repository, "raise InputError('no such thing.')")
    assert (status, errors) == (1, "error: no such thing.\n")


def test_a_defect_keeps_its_traceback(repository):
    status, _, errors = run(repository, "{}['x']")
    assert status == 1
    assert "KeyError: 'x'" in errors
    assert "in main" in errors


def test_a_full_disk_is_one_sentence(repository):
    body = "raise OSError(28, 'No space left on device', 'runs/table.csv')"
    message = "error: runs/table.csv cannot be read or written: No space left on device.\n"
    assert run(repository, body) == (1, "", message)
    assert "Traceback" in run(repository, "raise OSError(9, 'Bad file descriptor')")[2]


def test_an_interruption_that_cannot_save_says_so(repository):
    body = (
        "def last(): raise InputError('the disk is full.')\n"
        "with interruption.do_first(last):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(30)"
    )
    process = start(repository, body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "\nInterrupted by SIGINT.\nerror: the disk is full.\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_takes_the_last_steps_and_ends_at_once(repository, signum):
    body = (
        "def last(): print('saved', flush=True)\n"
        "with interruption.do_first(lambda: print('not any more')): pass\n"
        "with interruption.do_first(last):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = start(repository, body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    began = time.monotonic()
    output, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + signum
    assert (output, errors) == ("saved\n", f"\nInterrupted by {signum.name}.\n")


def test_code_that_swallows_exceptions_cannot_swallow_an_interruption(repository):
    body = (
        "print('ready', flush=True)\n"
        "while True:\n"
        "    try: time.sleep(0.01)\n"
        "    except BaseException: pass\n"
    )
    process = start(repository, body)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT


def test_a_second_interruption_does_not_wait_for_the_last_steps(repository):
    body = (
        "def last():\n"
        "    print('saving', flush=True)\n"
        "    time.sleep(60)\n"
        "with interruption.do_first(last):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = start(repository, body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT


def test_a_reader_that_leaves_is_no_error(repository):
    process = start(repository, "for i in range(10**6): print(i)")
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--widht=4", "there is no flag --widht; did you mean --width? --help shows the flags."),
        ("--zzz", "there is no flag --zzz. --help shows the flags."),
        ("oops", "unexpected argument 'oops': every setting is a --flag."),
    ],
)
def test_a_wrong_flag_is_one_sentence_with_a_near_name(repository, argument, message):
    assert run(repository, "print(1)", argument) == (1, "", f"error: {message}\n")


def test_a_value_out_of_range_is_one_sentence(repository):
    status, _, errors = run(repository, "print(1)", "--width=0")
    assert (status, errors.count("\n")) == (1, 1)
    assert errors.startswith("error: --width=0: ")
