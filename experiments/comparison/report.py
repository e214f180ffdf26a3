"""The report of a comparison, from the files that its runs left in their directories.

    comparison.csv       one row a run, every figure in full precision
    comparison.md        who wins, means over seeds, differences to the best, what is recommended
    report.html          the same and more as a page; see `experiments.pages`
    differences.png      differences to the best, with their intervals
    spread.png           how single users fare, as differences to the best reference
    quality_rounds.png   quality while training, by rounds
    quality_bytes.png    the same, by what all clients have sent and received
    given_ratings.png    quality on unseen users, by how many ratings they give
    sweep_<setting>.png  quality by the values of a setting

Every figure comes from files of the runs, never from memory, so that the report of a comparison can
be written again at any time.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence

import pandas as pd
from pandas import DataFrame

from experiments.comparison import markdown
from experiments.comparison.converged import caution, endings_of
from experiments.comparison.differences import Pairing
from experiments.comparison.headline import Won, winners
from experiments.comparison.recommended import told
from experiments.comparison.run_table import Runs, read_runs, results_of
from experiments.comparison.sections import sections_of
from experiments.pages import for_comparison, page
from experiments.pages.pictures import composed
from experiments.pages.sections import Section, Text
from experiments.run.reports import REPORT
from fedrecon.errors import InputError
from fedrecon.runs.files import remove
from fedrecon.runs.run_directory import RESULTS

TABLE = "comparison.csv"
SUMMARY = "comparison.md"
_UNFINISHED = ".report-"


def write_report(output_dir: pathlib.Path, run_dirs: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Writes the files that this module's docstring lists.

    They are written all or none. But a picture or a page that cannot be drawn is left out with a
    warning: the results are there.

    Args:
      output_dir: Where to; made if there is none.
      run_dirs: The directories of the finished runs, with results.json.

    Returns:
      The files written.

    Raises:
      InputError: If a run is not finished, its files are of another version, or the runs do not
        belong to one comparison.
    """
    output_dir = pathlib.Path(output_dir)
    runs = read_runs(run_dirs)
    pairing = Pairing(runs.unchanged, over=runs.feedback.means_over)
    won, sections = winners(runs, pairing), sections_of(runs, pairing)
    summary = markdown.written("Comparison", [_headline(runs, won), *sections])
    pictures = [picture for section in sections for picture in section.pictures]
    pictures = [picture for picture in pictures if not picture.is_on_page_only]

    output_dir.mkdir(parents=True, exist_ok=True)
    for left in output_dir.glob(f"{_UNFINISHED}*"):  # A process was killed while it wrote.
        remove(left)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=_UNFINISHED) as folder:
        # All are whole before the first takes the place of an older one.
        new = pathlib.Path(folder)
        _table(runs, output_dir).to_csv(new / TABLE, index=False)
        (new / SUMMARY).write_text(summary, encoding="utf-8")
        names = [TABLE, SUMMARY]
        for picture in pictures:
            with _left_out(f"{picture.name}.png", names):
                composed(picture).savefig(new / f"{picture.name}.png", dpi=120)
        with _left_out(REPORT, names):
            shown = for_comparison.page_of(runs, won, sections, output_dir, files=list(names))
            (new / REPORT).write_text(page.rendered(shown), encoding="utf-8")
        names.sort(key=[TABLE, SUMMARY, REPORT, *names].index)
        return [(new / name).replace(output_dir / name) for name in names]


@contextlib.contextmanager
def _left_out(name: str, names: list[str]) -> Iterator[None]:
    """Adds a file to those that are written, unless writing it fails; then warns."""
    try:
        yield
    except OSError:  # As of a full disk: then all files stay as they were.
        raise
    except Exception as error:
        warnings.warn(f"{name} was not written: {error}", stacklevel=3)
    else:
        names.append(name)


def page_of(comparison: pathlib.Path, folder: pathlib.Path) -> page.Page:
    """Returns the page of a comparison, from the files of its runs.

    Args:
      comparison: Its directory.
      folder: Where the page will be.

    Raises:
      InputError: If it has no finished run, or what `write_report` raises.
    """
    runs = read_runs(_run_dirs(comparison))
    pairing = Pairing(runs.unchanged, over=runs.feedback.means_over)
    files = [name for name in (TABLE, SUMMARY) if (comparison / name).exists()]
    return for_comparison.page_of(
        runs,
        winners(runs, pairing),
        sections_of(runs, pairing),
        comparison,
        files=files,
        folder=folder,
    )


def _run_dirs(comparison: pathlib.Path) -> list[pathlib.Path]:
    """Returns the runs of a comparison: in the order of its table, or without one all finished."""
    table = comparison / TABLE
    if table.exists():
        try:
            names = pd.read_csv(table, usecols=["run"])["run"]
        except (OSError, ValueError) as error:
            raise InputError(f"{table} cannot be read: {error}.") from error
        return [comparison / str(name) for name in names]
    found = [path for path in sorted((comparison / "runs").iterdir()) if (path / RESULTS).exists()]
    if not found:
        raise InputError(
            f"{comparison} has no finished run yet; the command that began it goes on with it."
        )
    return found


def _headline(runs: Runs, won: Sequence[Won]) -> Section:
    """Returns who won, whether training may change that, and what the winner recommends."""
    blocks = [Text(each.text, is_note=False) for each in won]
    if won:
        careful = caution(endings_of(runs))
        if careful is not None:
            blocks.append(Text(f"{careful.text} {careful.advice}", is_note=False))
        of_winner = runs.unchanged[runs.unchanged["algorithm"] == won[-1].algorithm]
        sample = results_of(of_winner["path"].iloc[0]).sample
        if sample is not None and sample.recommended:
            blocks.append(Text(told(sample, won[-1].algorithm)))
    return Section("", tuple(blocks))


def _table(runs: Runs, output_dir: pathlib.Path) -> DataFrame:
    """Returns comparison.csv."""
    paths = [os.path.relpath(path, output_dir) for path in runs.table["path"]]
    table = runs.table.assign(run=paths)
    first = ["run", "algorithm", "seed", *runs.changed]
    return table[[*first, *runs.table.columns.difference([*first, "path"], sort=False)]]
