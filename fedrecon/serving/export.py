"""A linear model in a folder of its own, for devices without fedrecon and TFF.

    model_card.json   what the model is, what it takes and gives, and how good it is
    items.csv         row, item_id, title, genres, num_ratings: the meaning of the rows
    model.tflite      format tflite
    saved_model/      format saved_model
    tables.npz        format numpy: `factors`, with int8 `scales`, and `offsets`

docs/model_files.md describes the files. A folder is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from fedrecon.errors import InputError
from fedrecon.serving.card import Facts, card
from fedrecon.serving.item_table import StoredTable
from fedrecon.serving.linear import LinearModel
from fedrecon.serving.recommender import Recommender

CARD, ITEMS = "model_card.json", "items.csv"
TFLITE, SAVED_MODEL, TABLES = "model.tflite", "saved_model", "tables.npz"


def _write_tflite(model: LinearModel, table: StoredTable, folder: pathlib.Path) -> None:
    from fedrecon.serving import tflite  # It imports TensorFlow.

    tflite.write(model, table, folder / TFLITE)


def _write_saved_model(model: LinearModel, table: StoredTable, folder: pathlib.Path) -> None:
    from fedrecon.serving import on_device  # It imports TensorFlow.

    on_device.write(model, table, folder / SAVED_MODEL)


def _write_tables(model: LinearModel, table: StoredTable, folder: pathlib.Path) -> None:
    np.savez(folder / TABLES, **table.arrays(), offsets=model.offsets)


_WRITERS: dict[str, Callable[[LinearModel, StoredTable, pathlib.Path], None]] = {
    "tflite": _write_tflite,
    "saved_model": _write_saved_model,
    "numpy": _write_tables,
}
FORMATS = tuple(_WRITERS)


def check_exportable(recommender: Recommender, form: str) -> None:
    """Raises `InputError` unless a model can be exported in a format, one of `FORMATS`."""
    if not isinstance(recommender.model, LinearModel):
        raise InputError(
            "the model is served by gradient steps through Keras, which only fedrecon.load_run can "
            "do; linear models can be exported, such as matrix_factorization with "
            "--reconstruction=least_squares."
        )
    if form != "numpy" and recommender.about.negatives_per_positive:
        raise InputError(
            "the model is fitted to drawn negatives besides the given items, and an exported "
            "function draws none; give --format=numpy, or export a model of fed_ials."
        )


def write(
    recommender: Recommender,
    path: str | os.PathLike,
    *,
    form: str,
    quantize: str = "float32",
    facts: Facts,
) -> None:
    """Writes a model to a folder, in place of an export that is there.

    Args:
      recommender: The model.
      path: The folder.
      form: One of `FORMATS`.
      quantize: How the item table is stored, one of `item_table.KINDS`.
      facts: What the card says of the run.

    Raises:
      InputError: If the model cannot be exported, or the folder holds anything else or cannot be
        written.
    """
    check_exportable(recommender, form)
    path = pathlib.Path(path)
    check_folder(path)
    part = path.with_name(f"{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        table = StoredTable.of(recommender.model.factors, quantize)
        _WRITERS[form](recommender.model, table, part)
        (part / ITEMS).write_text(recommender.items.to_csv(), encoding="utf-8")
        described = card(recommender, facts, form=form, quantize=quantize, files=file_sizes(part))
        text = json.dumps(described, indent=2, allow_nan=False)
        (part / CARD).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"the export cannot be written: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_folder(path: pathlib.Path) -> None:
    """Raises `InputError` if a path is something else than a new or empty folder or an export."""
    if not path.exists():
        return
    if not path.is_dir() or (any(path.iterdir()) and not (path / CARD).exists()):
        raise InputError(f"{path} exists and holds no export; give another --output_dir.")


def file_sizes(folder: pathlib.Path) -> dict[str, int]:
    """Returns the bytes of each file in a folder, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
