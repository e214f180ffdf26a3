"""What every binary shares: plain errors, quiet libraries, and an end on Ctrl-C or SIGTERM."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import pathlib
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import flags, logging

from experiments.run import help
from experiments.run.names import did_you_mean
from experiments.run.temporary import TemporaryFolder
from fedrecon.errors import InputError

# What a disk, a right or a quota forbids; the user can mend it.
_OF_THE_FILE_SYSTEM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a request to end; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interruption:
    """The steps that a binary still has to take when it is interrupted; at first none."""

    def __init__(self) -> None:
        self._last_steps: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def do_first(self, step: Callable[[], None]):
        """While in this context, an interruption calls `step`, from another thread, and then ends.

        `step` may wait for work that must not be cut short.
        """
        self._last_steps.append(step)
        try:
            yield
        finally:
            self._last_steps.remove(step)

    def finish(self) -> None:
        for step in reversed(list(self._last_steps)):
            step()


def run(main: Callable[..., None], *, takes_arguments: bool = False) -> None:
    """Runs a binary: parses the flags, calls `main`, and ends the process with the right status.

    Args:
      main: Takes an `Interruption` and, where the binary takes arguments, these.
      takes_arguments: Whether there may be arguments that are no flags.

    Status 0: done. 1: something that the user gave cannot be used; one sentence says the reason.
    128 + signal: interrupted. Any other exception is a defect and keeps its traceback.

    `main` runs in a thread of its own, and the main thread, where Python delivers signals, only
    waits. An exception raised by a signal inside TensorFlow is no way to end: garbage collector
    callbacks (jax has one) drop it, and one run in 24 hung after it (BUILD_NOTES.md).
    """
    # At import TensorFlow logs errors that are none (CUDA factories registered twice). A real one
    # comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Notices of other libraries at import (pkg_resources, Keras); a user can mend none of them.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _raise_interrupted)

    def guarded_main(argv) -> None:
        arguments = argv[1:]
        if arguments and not takes_arguments:
            fail(f"unexpected argument {argv[1]!r}: every setting is a --flag.")
        if not flags.FLAGS["verbosity"].present:  # TFF's managers log each file they write.
            logging.set_verbosity(logging.WARNING)
        interruption = Interruption()
        folder = TemporaryFolder()
        atexit.register(folder.remove)  # After whatever else is removed there.
        try:
            _wait_for(lambda: main(interruption, *([arguments] if takes_arguments else [])))
            sys.stdout.flush()
            sys.stderr.flush()
            folder.remove()
            os._exit(0)  # Python would take TensorFlow apart for two seconds more.
        except InputError as error:
            fail(str(error))
        except Interrupted as interrupted:
            _end(interrupted, interruption, folder)
        except BrokenPipeError:
            _end_without_reader()
        except OSError as error:
            if error.errno not in _OF_THE_FILE_SYSTEM:
                raise
            fail(f"{error.filename or 'a file'} cannot be read or written: {error.strerror}.")

    # Not `app.run`: TensorFlow 2.14, imported while that runs, makes its context before it has
    # chosen eager execution (in a callback to absl), and Keras models cannot be built any more.
    help.define()
    guarded_main(_parsed(sys.argv))


def _parsed(argv: Sequence[str]) -> list[str]:
    """Returns the arguments that are no flags. Ends the process at a wrong flag, or with help."""
    try:
        return flags.FLAGS(argv)
    except help.Wanted as wanted:
        try:
            print(help.text(wanted.group), flush=True)
        except BrokenPipeError:
            _end_without_reader()
        sys.exit(0)
    except flags.UnrecognizedFlagError as error:
        near = did_you_mean(error.flagname, list(flags.FLAGS), prefix="--")
        fail(f"there is no flag --{error.flagname}{near} --help shows the flags.")
    except flags.Error as error:
        fail(f"{str(error).removeprefix('flag ').rstrip('.')}.")


def _end_without_reader() -> NoReturn:
    """Ends the process after the reader of its output (`| head`) has left."""
    # Python would complain again while flushing at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _raise_interrupted(signum, frame) -> None:
    raise Interrupted(signum)


def _wait_for(work: Callable[[], None]) -> None:
    """Does the work in another thread; an exception there is raised here."""
    errors: list[BaseException] = []

    def guarded_work() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    done = threading.Event()
    # A daemon: the interpreter must not wait for it after an interruption.
    threading.Thread(target=guarded_work, daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]


def _end(interrupted: Interrupted, interruption: Interruption, folder: TemporaryFolder) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)  # A second Ctrl-C ends at once.
    print(f"\nInterrupted by {interrupted}.", file=sys.stderr)
    try:
        interruption.finish()
    except InputError as error:  # The disk is full, say.
        print(f"error: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        folder.remove()
        # The other thread still works, and an interpreter that shuts down under C++ code aborts.
        # The kernel ends TFF's worker.
        os._exit(128 + interrupted.signum)


def seconds() -> float:
    """Returns how long this command has run, the start of Python and all imports among it."""
    stat = pathlib.Path("/proc/self/stat").read_text()
    begun = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")  # See man 5 proc.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begun


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
