"""The errors that a user can mend."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one sentence that says what was found and what would work. The experiment
    binaries print it without a traceback and exit with status 1; every other exception is a
    defect of the program and keeps its traceback.
    """


class DataError(InputError):
    """A data set that is missing, malformed or inconsistent; names the file and the line."""
