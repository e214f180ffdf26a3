"""The subprocess ends with its parent, however that ends, and never holds the parent's pipes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fedrecon.execution.kept_process import KeptProcess

pytestmark = pytest.mark.slow

SLEEP = "/bin/sleep"

# Starts a child that would run for ten minutes, tells its pid, and then does what the test asks.
PARENT = """
import os, sys, threading, time
from fedrecon.execution.kept_process import KeptProcess
child = KeptProcess(['/bin/sleep', '600'])
print(child.pid, flush=True)
{action}
"""


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 15)", -15),
        ("os.kill(os.getpid(), 1)", -1),
    ],
)
def test_ends_with_its_parent_and_frees_the_pipe(action, status, ends_within):
    # communicate() returns only when every holder of the pipe has closed it.
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(action=action)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = parent.communicate(timeout=30)
    assert parent.returncode == status
    assert ends_within(int(output.split()[0]), 5)


def test_a_pipeline_in_a_shell_ends(repository, ends_within):
    start = time.monotonic()
    command = f'"{sys.executable}" -c "{PARENT.format(action="")}" 2>&1 | tail -n 1'
    output = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=30, cwd=repository
    ).stdout
    assert time.monotonic() - start < 30
    assert ends_within(int(output), 0)


def test_ctrl_c_in_the_terminal_reaches_the_parent_only(ends_within):
    # A terminal sends SIGINT to the whole process group.
    action = "try: time.sleep(60)\nexcept KeyboardInterrupt: print(child.is_alive)"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(action=action)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid = int(parent.stdout.readline())
    time.sleep(0.2)
    os.killpg(parent.pid, signal.SIGINT)
    output, _ = parent.communicate(timeout=30)
    assert output.strip() == "True"
    assert ends_within(pid, 5)


def test_survives_the_thread_that_made_it(ends_within):
    # The kernel's death signal is bound to a thread of the parent; it must not be a passing one.
    made = []
    thread = threading.Thread(target=lambda: made.append(KeptProcess([SLEEP, "600"])))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert made[0].is_alive
    assert not ends_within(made[0].pid, 0)
    made[0].kill()
    assert ends_within(made[0].pid, 0)


def test_kill_may_be_repeated():
    process = KeptProcess([SLEEP, "600"])
    process.kill()
    process.kill()
    assert not process.is_alive


def test_says_how_it_ended_and_what_it_printed(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("import sys\nprint('x' * 9000)\nsys.exit('out of cheese')\n")
    process = KeptProcess([sys.executable, str(script)])
    deadline = time.monotonic() + 20
    while process.is_alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.describe_end().startswith("exit status 1;")
    assert process.describe_end().endswith("xxx\nout of cheese\n")
    assert len(process.describe_end()) < 4100
    process.kill()
