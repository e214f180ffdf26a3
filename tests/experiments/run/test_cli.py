"""How a binary ends, shown on small programs that end in every way."""

import signal
import subprocess
import sys
import time

import pytest

from experiments.run import cli

PROGRAM = """
import time
from experiments import cli
from fedrecon.errors import InputError

def main(interruption):
{body}

cli.run(main)
"""


def start(repository, body):
    indented = "\n".join("    " + line for line in body.splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=indented)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
    )


def run(repository, body):
    process = start(repository, body)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


def test_done(repository):
    assert run(repository, "print('hello')") == (0, "hello\n", "")


def test_bad_input_is_one_sentence(repository):
    status, _, errors = run(repository, "raise InputError('no such thing.')")
    assert (status, errors) == (1, "error: no such thing.\n")


def test_a_defect_keeps_its_traceback(repository):
    status, _, errors = run(repository, "{}['x']")
    assert status == 1
    assert "KeyError: 'x'" in errors
    assert "in main" in errors


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


def test_the_table_is_readable(capsys):
    cli.print_table(
        {"test": {"rmse": 0.98765, "accuracy": 0.4321, "loss": 0.975, "num_examples": 39142}}
    )
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["RMSE", "accuracy", "loss", "ratings"]
    assert line.split() == ["test", "0.9877", "43.2%", "0.9750", "39,142"]
    assert len(header) == len(line)
