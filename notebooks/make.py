"""Makes the notebooks: a fresh kernel runs each percent file of `sources/` from top to bottom.

python notebooks/make.py                                # all
python notebooks/make.py 01_federated_reconstruction    # one

With `--output_dir=DIR` they are written there, and the kept ones stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import re
import sys
import tempfile
import time

import jupytext
import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parent
NAMES = tuple(path.stem for path in sorted((FOLDER / "sources").glob("*.py")))
_TIMEOUT_SECONDS = 600
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def source_path(name: str) -> pathlib.Path:
    """Returns where a notebook is written as text."""
    return FOLDER / "sources" / f"{name}.py"


def notebook_path(name: str) -> pathlib.Path:
    """Returns where a notebook is kept with its outputs."""
    return FOLDER / f"{name}.ipynb"


def source_hash(name: str) -> str:
    """Returns the SHA-256 of a source, which the notebook made of it holds."""
    return hashlib.sha256(source_path(name).read_bytes()).hexdigest()


def from_source(name: str) -> nbformat.NotebookNode:
    """Returns a notebook without outputs, equal for equal sources."""
    notebook = jupytext.read(source_path(name), fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"  # Drawn at random otherwise.
        cell.metadata.clear()
    notebook.metadata.clear()
    notebook.metadata.update(kernelspec=_KERNEL, language_info={"name": "python"})
    notebook.metadata["fedrecon"] = {"source_sha256": source_hash(name)}
    return notebook


def execute(notebook: nbformat.NotebookNode, *, folder: str | os.PathLike) -> None:
    """Runs the cells with a fresh kernel of this Python, and fills in their outputs.

    The kernel imports the checkout's package, whatever is installed.

    Args:
      notebook: From `from_source`.
      folder: The kernel's working directory; no notebook depends on it.

    Raises:
      nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    metadata = dict(notebook.metadata)
    client = nbclient.NotebookClient(
        notebook,
        timeout=_TIMEOUT_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": os.fspath(folder)}},
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    client.execute(env=environment)
    # The kernel adds its own version.
    notebook.metadata.clear()
    notebook.metadata.update(metadata)


def strip(notebook: nbformat.NotebookNode) -> None:
    """Takes out of the outputs what each run draws anew: addresses, and ids of styled tables."""
    for cell in notebook.cells:
        for number, output in enumerate(cell.get("outputs", ())):
            data = output.get("data", {})
            for kind in data.keys() & {"text/plain", "text/html"}:
                text = re.sub(r" at 0x[0-9a-f]+", "", data[kind])
                data[kind] = re.sub(r"\bT_[0-9a-f]{5}(?=[_\" ])", f"T_{cell.id}_{number}", text)


def make(name: str, path: pathlib.Path) -> float:
    """Runs a source and writes the notebook to a file; returns the seconds that it took."""
    start = time.monotonic()
    notebook = from_source(name)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, folder=folder)
    strip(notebook)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument(
        "--output_dir",
        type=pathlib.Path,
        help="where to write them; FEDRECON_DATA then counts too. Without it they are kept here",
    )
    given = parser.parse_args()
    names = given.names or NAMES
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"there is no notebook {unknown[0]!r}; there are {', '.join(NAMES)}.")
    if given.output_dir is None:
        os.environ.pop("FEDRECON_DATA", None)  # Kept outputs are of the generated ratings.
    else:
        given.output_dir.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = notebook_path(name)
        path = path if given.output_dir is None else given.output_dir / path.name
        print(f"{path}: {make(name, path):.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
