"""Writes report.html: the one way from directories of runs to a page."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from experiments.pages import page
from experiments.run.reports import REPORT, TRIALS
from fedrecon.errors import InputError


def write_report(paths: Sequence[pathlib.Path], output: pathlib.Path | None = None) -> pathlib.Path:
    """Writes the page of a run, a comparison or a search, or of several runs.

    Args:
      paths: The directories.
      output: The file; None is report.html in the only directory, or in the current one.

    Returns:
      The file.

    Raises:
      InputError: If a directory cannot be shown, or the file cannot be written.
    """
    if output is None:
        output = (paths[0] if len(paths) == 1 else pathlib.Path()) / REPORT
    if output.is_dir():
        raise InputError(f"{output} is a directory; give the name of a file.")
    shown = _page_of(paths, output.parent)
    try:
        return page.write(shown, output)
    except OSError as error:
        raise InputError(f"the report cannot be written: {error}.") from error


def _page_of(paths: Sequence[pathlib.Path], folder: pathlib.Path) -> page.Page:
    if len(paths) == 1:
        (path,) = paths
        if (path / TRIALS).exists():
            from experiments.pages import for_search

            return for_search.page_of(path, folder)
        if (path / "runs").is_dir():
            from experiments.comparison import report

            return report.page_of(path, folder)
    from experiments.pages import for_runs

    return for_runs.page_of(paths, folder)
