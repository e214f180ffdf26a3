"""The errors that a user can mend, and checks of numbers that raise them."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one sentence that says what was found and what would work. The experiment
    binaries print it without a traceback and exit with status 1; every other exception is a
    defect of the program and keeps its traceback.
    """


class DataError(InputError):
    """A data set that is missing, malformed or inconsistent; names the file and the line."""


class DamagedError(InputError):
    """A file of ours that is not as it was written; an older one of the same kind may be."""


def check_positive(what: str, value: float) -> None:
    """Raises InputError unless the number is positive and finite; NaN is neither."""
    if not 0.0 < value < float("inf"):
        raise InputError(f"{what} is {value}; it must be positive.")


def check_at_least(minimum: float, what: str, value: float) -> None:
    """Raises InputError unless the number is finite and at least the minimum; NaN is neither."""
    if not minimum <= value < float("inf"):
        raise InputError(f"{what} is {value}; it must be at least {minimum}.")
