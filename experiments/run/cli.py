"""What every binary shares: plain errors, quiet libraries, and an end on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable

from absl import app, flags, logging

from fedrecon.errors import InputError


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a request to end; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interruption:
    """What a binary still wants to do when it is interrupted; by default nothing."""

    def __init__(self) -> None:
        self._last_steps: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def do_first(self, step: Callable[[], None]):
        """While in this context, an interruption calls `step`, from another thread, and then ends.

        `step` may wait for what must not be cut short.
        """
        self._last_steps.append(step)
        try:
            yield
        finally:
            self._last_steps.remove(step)

    def finish(self) -> None:
        for step in reversed(list(self._last_steps)):
            step()


def run(main: Callable[[Interruption], None]) -> None:
    """Runs a binary: parses the flags, calls `main`, and ends the process with the right status.

    Status 0: done. 1: something that the user gave cannot be used; one sentence says what.
    128 + signal: interrupted. Any other exception is a defect and keeps its traceback.

    `main` runs in a thread of its own, and the main thread, where Python delivers signals, only
    waits. An exception raised by a signal inside TensorFlow is no way to end: garbage collector
    callbacks (jax has one) drop it, and one run in 24 hung after it (BUILD_NOTES.md).
    """
    # At import TensorFlow logs even as errors what is none (CUDA factories registered twice); what
    # really fails comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Third-party notices at import (pkg_resources, Keras), of which a user can mend none.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _raise_interrupted)

    def guarded_main(argv) -> None:
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]!r}: every setting is a --flag.")
        if not flags.FLAGS["verbosity"].present:  # TFF's managers log each file they write.
            logging.set_verbosity(logging.WARNING)
        interruption = Interruption()
        try:
            _wait_for(lambda: main(interruption))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # Python would take TensorFlow apart for two seconds more.
        except InputError as error:
            fail(str(error))
        except Interrupted as interrupted:
            _end(interrupted, interruption)
        except BrokenPipeError:
            # The reader (`| head`) has left. Python would complain again while flushing at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)

    # Not `app.run`: TensorFlow 2.14, imported while that runs, makes its context before it has
    # chosen eager execution (in a callback to absl), and Keras models cannot be built any more.
    app.define_help_flags()
    guarded_main(app.parse_flags_with_usage(sys.argv))


def _raise_interrupted(signum, frame) -> None:
    raise Interrupted(signum)


def _wait_for(work: Callable[[], None]) -> None:
    """Does the work in another thread; raises here what it raises there."""
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


def _end(interrupted: Interrupted, interruption: Interruption) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)  # A second Ctrl-C ends at once.
    print(f"\nInterrupted by {interrupted}.", file=sys.stderr)
    try:
        interruption.finish()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The other thread still works, and an interpreter that shuts down under C++ code aborts.
        # The kernel ends TFF's worker.
        os._exit(128 + interrupted.signum)


def fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


# What is shown of metrics, by name: its title and its form.
_SHOWN = {
    "rmse": ("RMSE", "8.4f"),
    "accuracy": ("accuracy", "10.1%"),
    "loss": ("loss", "8.4f"),
    "hr_at_10": ("HR@10", "8.4f"),
    "ndcg_at_10": ("NDCG@10", "9.4f"),
    "mrr": ("MRR", "8.4f"),
    "num_examples": ("ratings", "10,"),
    "num_users": ("users", "10,"),
}


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Prints one line a part of the data.

    RMSE, accuracy and loss are means over its ratings, HR, NDCG and MRR over its users.
    """
    shown = {
        name: (title, form, int(re.match(r"\d+", form)[0]))
        for name, (title, form) in _SHOWN.items()
        if any(name in row for row in rows.values())
    }
    width_of_part = max(12, *(len(part) + 1 for part in rows))
    print(" " * width_of_part + "".join(f"{title:>{width}}" for title, _, width in shown.values()))
    for part, row in rows.items():
        cells = (
            format(row[name], form) if name in row else " " * width
            for name, (_, form, width) in shown.items()
        )
        print(f"{part:{width_of_part}}" + "".join(cells))


def describe(part: str, metrics: dict[str, float]) -> str:
    """Returns the main metrics of a part in a line; their names are `part/metric`."""
    line = [
        f"{title} {format(metrics[f'{part}/{name}'], form.lstrip('0123456789'))}"
        for name, (title, form) in _SHOWN.items()
        if f"{part}/{name}" in metrics and name in ("rmse", "accuracy", "hr_at_10", "ndcg_at_10")
    ]
    return f"{part} " + "  ".join(line)
