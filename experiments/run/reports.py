"""The last lines of binaries that leave a report.html: where it is, and how to open it."""

from __future__ import annotations

import pathlib
import warnings
import webbrowser

REPORT = "report.html"
# The table of a search (`experiments.tune`), by which its directory is known.
TRIALS = "trials.csv"


def write(folder: pathlib.Path, *, is_new: bool) -> bool:
    """Writes the report of a run or of a search; returns whether there is one.

    Args:
      folder: The directory of the run or search.
      is_new: Whether there may be an older report, to be written again.

    Warns if it cannot be written: whatever is wrong with a page, the results are there.
    """
    path = folder / REPORT
    if is_new or not path.exists():
        try:
            from experiments.pages.write import write_report  # It imports pandas and matplotlib.

            write_report([folder])
        except Exception as error:
            warnings.warn(f"{path} was not written: {error}", stacklevel=2)
            return False
    return True


def tell(path: pathlib.Path, *, opens: bool) -> None:
    """Prints where a report is, and opens it where that is wanted."""
    address = path.resolve().as_uri()
    print(f"  {path.name}, to be opened in a browser: {address}", flush=True)
    if opens and not webbrowser.open(address):
        print("No browser was found; open the address above.")
