"""What every binary shares: plain errors, quiet libraries, and an end on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable

from absl import app, flags, logging

from fedrecon.errors import InputError


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a request to end; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interruptions:
    """Turns SIGINT and SIGTERM into `Interrupted`, raised where the main thread is.

    Inside `held()` they wait until its end: files and state that belong together stay together.
    """

    def __init__(self) -> None:
        self._num_held = 0
        self._pending: int | None = None

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._handle)

    @contextlib.contextmanager
    def held(self):
        self._num_held += 1
        try:
            yield
        finally:
            self._num_held -= 1
            if self._num_held == 0 and self._pending is not None:
                signum, self._pending = self._pending, None
                raise Interrupted(signum)

    def _handle(self, signum, frame) -> None:
        if self._num_held:
            self._pending = signum
        else:
            raise Interrupted(signum)


def run(main: Callable[[Interruptions], None]) -> None:
    """Runs a binary: parses the flags, calls `main`, and ends the process with the right status.

    Status 0: done. 1: something that the user gave cannot be used; one sentence says what.
    128 + signal: interrupted. Any other exception is a defect and keeps its traceback.
    """
    # At import TensorFlow logs even as errors what is none (CUDA factories registered twice); what
    # really fails comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Third-party notices at import (pkg_resources, Keras), of which a user can mend none.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    interruptions = Interruptions()
    interruptions.install()

    def guarded_main(argv) -> None:
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]!r}: every setting is a --flag.")
        if not flags.FLAGS["verbosity"].present:  # TFF's managers log each file they write.
            logging.set_verbosity(logging.WARNING)
        try:
            main(interruptions)
            sys.stdout.flush()
        except InputError as error:
            fail(str(error))
        except Interrupted as interrupted:
            print(f"\ninterrupted by {interrupted}.", file=sys.stderr)
            sys.exit(128 + interrupted.signum)
        except BrokenPipeError:
            # The reader (`| head`) has left. Python would complain again while flushing at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)

    app.run(guarded_main)


def fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Prints one line a part of the data; all figures are means over its ratings."""
    print(f"{'':12}{'RMSE':>8}{'accuracy':>10}{'loss':>8}{'ratings':>10}")
    for part, metrics in rows.items():
        print(
            f"{part:12}{metrics['rmse']:8.4f}{metrics['accuracy']:10.1%}{metrics['loss']:8.4f}"
            f"{metrics['num_examples']:10,}"
        )
