"""A subprocess that neither outlives this process nor holds its pipes nor receives its Ctrl-C."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence

_OUTPUT_TAIL_BYTES = 4000

# Runs in the child before the command: asks the kernel to kill it with its parent, then becomes the
# command. A program of its own because `preexec_fn` may deadlock under TensorFlow's threads.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
    sys.exit('prctl(PR_SET_PDEATHSIG) failed: ' + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit('the parent ended before the command started')
os.execv(sys.argv[2], sys.argv[2:])
"""


class KeptProcess:
    """Runs a command until `kill`, until this interpreter exits, or until this process dies.

    The kernel kills the command with this process (`PR_SET_PDEATHSIG`; Linux only), after SIGKILL
    too. The command has a session of its own: Ctrl-C in the terminal does not reach it. Its output
    goes to a temporary file, because a process that inherits the caller's pipe keeps the pipe's
    reader waiting.
    """

    def __init__(self, command: Sequence[str]):
        """Starts `command`; its first element is the path of an executable.

        Raises:
          OSError: If no process can be started.
        """
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        self._process: subprocess.Popen | None = None
        self._start_error: OSError | None = None
        started = threading.Event()
        # The kernel watches the *thread* that starts a child, not its process. This one lives
        # exactly as long as the child: it starts it and waits for its end.
        self._keeper = threading.Thread(target=self._keep, args=(command, started), daemon=True)
        self._keeper.start()
        started.wait()
        if self._start_error is not None:
            raise self._start_error
        atexit.register(self.kill)

    def _keep(self, command: Sequence[str], started: threading.Event) -> None:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
            )
        except OSError as error:
            self._start_error = error
            return
        finally:
            started.set()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._keeper.is_alive()

    def describe_end(self) -> str:
        """Returns how the process ended and what it printed last."""
        size = os.fstat(self._output.fileno()).st_size
        # pread: the command writes through the same file position.
        tail = os.pread(
            self._output.fileno(), _OUTPUT_TAIL_BYTES, max(0, size - _OUTPUT_TAIL_BYTES)
        )
        return (
            f"exit status {self._process.returncode}; last output:\n"
            f"{tail.decode(errors='replace') or '(nothing)'}"
        )

    def kill(self) -> None:
        """Kills the process and waits for its end. Does nothing the second time."""
        atexit.unregister(self.kill)
        if self._keeper.is_alive():
            self._process.kill()
            self._keeper.join()
        self._output.close()
